import { spawnSync } from 'node:child_process'
import { chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { sleep } from '../../lib/lifecycle.ts'
import { seeded } from '../../lib/random.ts'
import { killedLauncher } from '../testing/crash.ts'
import { difference, hostState, processesOf, switchyard } from '../testing/host.ts'

tap.setTimeout(300_000)
const nobody = 65_534
const seed = Number(process.env.TEST_SEED ?? 1)

test(`a launcher that is killed leaves nothing (seed ${seed})`, { timeout: 120_000 }, async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-crash-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const draw = seeded(seed)
  for (const after of [100 + draw() * 400, 500 + draw() * 1500]) {
    const { ran, stayed, left } = await killedLauncher(state, after)
    t.ok(ran.signal === 'SIGKILL' || stayed, `killed after ${Math.round(after)} ms`)
    t.ok(after >= 500 || !stayed, 'no lab is up in half a second')
    t.strictSame(left, [], 'nothing is left')
  }
})

test('a holder that is killed takes everything with it', { timeout: 120_000 }, async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-crash-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const before = hostState(state)
  const env = { SWITCHYARD_STATE: state }
  t.equal((await switchyard(['lab', 'up', '--nodes', '1', '--api-port', '0'], { env })).status, 0)
  const { pid } = JSON.parse(readFileSync(join(state, 'default', 'lab.json'), 'utf8')) as { pid: number }
  process.kill(pid, 'SIGKILL')
  for (let i = 0; i < 300 && processesOf(state).length > 0; i++) await sleep(10)
  t.strictSame(difference(before, hostState(state)), [])
  t.match((await switchyard(['lab', 'status'], { env })).stderr, 'the lab "default" is not up')
})

test('Ctrl-C while the lab comes up takes it down again', { timeout: 120_000 }, async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-crash-'))
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const ran = await switchyard(['lab', 'up', '--nodes', '1', '--api-port', '0'], { env: { SWITCHYARD_STATE: state }, started: (child) => void setTimeout(() => child.kill('SIGINT'), 600) })
  t.equal(ran.status, 1)
  t.match(ran.stderr, 'interrupted; the lab is gone again')
})

const allowed = spawnSync('unshare', ['--user', '--map-root-user', 'true'], { uid: nobody, gid: nobody }).status === 0

test('an ordinary user has a lab too', { timeout: 120_000, skip: !allowed && 'user namespaces are forbidden here' }, async (t) => {
  const state = mkdtempSync(join(tmpdir(), 'switchyard-user-'))
  chownSync(state, nobody, nobody)
  t.teardown(() => rmSync(state, { recursive: true, force: true }))
  const lab = (...words: string[]) => switchyard(['lab', ...words], { uid: nobody, gid: nobody, env: { SWITCHYARD_STATE: state, HOME: state, XDG_CACHE_HOME: join(state, 'cache') } })
  const up = await lab('up', '--nodes', '2', '--api-port', '0')
  t.equal(up.status, 0, up.stderr)
  t.teardown(() => lab('down'))
  const curl = await lab('exec', 'node2', '--', 'curl', '-sk', '-m', '5', 'https://10.96.0.1/version')
  t.match(curl.stdout, /gitVersion/, 'a ClusterIP leads to the API through rules that this user wrote')
  t.equal((await lab('down')).status, 0)
})
