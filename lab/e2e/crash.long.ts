import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { seeded } from '../../lib/random.ts'
import { killedLauncher, upAndDown } from '../testing/crash.ts'

tap.setTimeout(600_000)
const seed = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000)

test('ten labs up and down leave the host as it was', { timeout: 300_000 }, async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-crash-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  for (let i = 1; i <= 10; i++) t.strictSame(await upAndDown(state), [], `run ${i}`)
})

test(`five launchers killed at random moments leave the host as it was (seed ${seed})`, { timeout: 300_000 }, async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-crash-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const draw = seeded(seed)
  for (let i = 1; i <= 5; i++) {
    const after = 50 + draw() * 2500
    const { left } = await killedLauncher(state, after)
    t.strictSame(left, [], `killed after ${Math.round(after)} ms`)
  }
})
