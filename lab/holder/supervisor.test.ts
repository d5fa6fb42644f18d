import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { sleep } from '../../lib/lifecycle.ts'
import { Supervisor, type Part } from './supervisor.ts'

const folder = mkdtempSync(join(tmpdir(), 'switchyard-supervisor-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const sh = (name: string, script: string): Part => ({ name, argv: ['sh', '-c', script], log: join(folder, `${name}.log`) })
const ready = `echo '{"message":"ready","listen":":1"}' >&2;`

test('a part is ready when it says so, and starts again when it ends', async (t) => {
  const s = new Supervisor()
  t.teardown(() => s.close())
  await s.start(sh('a', `${ready} exec sleep 60`))
  const first = await s.whenReady('a', 5000)
  t.strictSame(first.listens, { listen: ':1' })
  s.kill('a', 'SIGKILL')
  while (s.status[0]!.restarts === 0) await sleep(5)
  const second = await s.whenReady('a', 5000)
  t.not(second.pid, first.pid)
  t.equal(second.lastEnd, 'killed by SIGKILL')
  t.match(readFileSync(join(folder, 'a.log'), 'utf8'), /"message":"ended".*killed by SIGKILL/)
})

test('a part that never comes up is reported with its last words', async (t) => {
  const s = new Supervisor()
  t.teardown(() => s.close())
  await s.start(sh('b', 'echo no such port; exit 3'))
  await t.rejects(s.whenReady('b', 200), /b was not ready within 0 s \(exit status 3\); it said last:\nno such port/)
  await s.start(sh('c', 'echo cannot work here; exit 1'))
  await t.rejects(s.whenReady('c', 5000, 1), { message: 'c does not start: cannot work here' })
})

test('what is stopped stays stopped, also when it is frozen', async (t) => {
  const s = new Supervisor()
  await s.start(sh('d', `${ready} exec sleep 60`))
  await s.whenReady('d', 5000)
  s.kill('d', 'SIGSTOP')
  await s.stop('d')
  t.strictSame(s.status, [])
})
