import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { difference, hostState, switchyard } from '../testing/host.ts'

tap.setTimeout(400_000)

test('the demo does what it says, and leaves nothing', { timeout: 300_000 }, async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-demo-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const before = hostState(state)
  const { status, stdout, stderr } = await switchyard(['lab', 'demo'], { env: { SWITCHYARD_STATE: state } })
  t.equal(status, 0, stdout + stderr)
  t.match(stdout, 'All six steps did what they say')
  t.notMatch(stdout, /\u001b\[/, 'colours only on a terminal')
  t.strictSame(difference(before, hostState(state)), [])
})
