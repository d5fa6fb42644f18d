import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { test } from 'tap'
import { projectRoot } from '../launcher.ts'
import { childrenOf } from '../state.ts'
import { cacheFolder, guestKernel, lacking } from './kernel.ts'
import { inVm } from './run.ts'

const reason = await lacking()
const switchyard = join(projectRoot, 'switchyard')

/** QEMU processes below `pid`, at any depth. */
function machinesOf(pid: number): readonly number[] {
  const all: number[] = []
  const visit = (p: number): void => {
    for (const c of childrenOf(p)) {
      all.push(c)
      visit(c)
    }
  }
  visit(pid)
  return all.filter((p) => {
    try {
      return readlinkSync(`/proc/${p}/exe`).includes('qemu-system')
    } catch {
      return false
    }
  })
}

const alive = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
const leftovers = (): readonly string[] => readdirSync(tmpdir()).filter((f) => f.startsWith('switchyard-vm-'))

test('lab vm gives back status, output and errors apart, and nothing it writes stays', { skip: reason ?? false }, async (t) => {
  const file = join(tmpdir(), `switchyard-written-${process.pid}`)
  const done = spawnSync(switchyard, ['lab', 'vm', '--', 'sh', '-c', `echo out; echo err >&2; id -u; echo x > ${file}; cat ${file}; exit 7`], { encoding: 'utf8' })
  t.equal(done.status, 7)
  t.equal(done.stdout, 'out\n0\nx\n')
  t.equal(done.stderr, 'err\n')
  t.throws(() => readFileSync(file), { code: 'ENOENT' })
  t.equal(spawnSync(switchyard, ['lab', 'vm', '--timeout', '8s', '--', 'sleep', '1000'], { encoding: 'utf8' }).status, 124, 'switched off after --timeout')
  t.equal(spawnSync(switchyard, ['lab', 'vm', '--', 'modprobe', 'ip_vs_rr'], { encoding: 'utf8' }).status, 0, 'modules are found, whoever asks')
})

for (const signal of ['SIGKILL', 'SIGINT'] as const)
  test(`lab vm that is ended by ${signal} leaves no machine and no file`, { skip: reason ?? false }, async (t) => {
    const before = leftovers()
    const child = spawn(switchyard, ['lab', 'vm', '--', 'sleep', '1000'], { stdio: 'ignore' })
    let machines: readonly number[] = []
    for (let i = 0; i < 600 && machines.length === 0; i++) {
      await wait(50)
      machines = machinesOf(child.pid!)
    }
    t.equal(machines.length, 1, 'a machine runs')
    const ended = new Promise((resolve) => child.once('close', resolve))
    child.kill(signal)
    await ended
    for (let i = 0; i < 600 && machines.some(alive); i++) await wait(50)
    t.same(machines.filter(alive), [], 'it is gone')
    t.same(leftovers(), before)
  })

test('an ordinary user is root in the machine and reads no more than he may', { skip: reason ?? (process.getuid?.() === 0 ? false : 'needs root, to be somebody else') }, async (t) => {
  const kernel = await guestKernel(() => {})
  const home = mkdtempSync(join(tmpdir(), 'switchyard-user-'))
  t.teardown(() => rmSync(home, { recursive: true, force: true }))
  chmodSync(home, 0o755)
  // The cache of that user, without a download: paths within it are absolute.
  const cache = join(home, 'switchyard/vm')
  cpSync(kernel.folder, join(cache, 'kernel'), { recursive: true })
  const kept = readdirSync(cacheFolder()).filter((f) => /^kernel-\d+\.json$/.test(f))
  for (const f of kept) writeFileSync(join(cache, f), readFileSync(join(cacheFolder(), f), 'utf8').replaceAll(kernel.folder, join(cache, 'kernel')))
  execFileSync('chown', ['-R', '65534:65534', home])
  const secret = join(home, 'secret')
  writeFileSync(secret, 'x', { mode: 0o600 })
  const done = spawnSync('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups', switchyard, 'lab', 'vm', '--', 'sh', '-c', `id -u; modprobe ip_vs && echo loaded; cat ${secret}`], {
    encoding: 'utf8',
    cwd: '/',
    env: { PATH: process.env.PATH, HOME: home, XDG_CACHE_HOME: home },
  })
  t.match(done.stdout, /^0\nloaded\n$/)
  t.match(done.stderr, /denied|not permitted/i)
})

test('--instructions counts the same within 1 %', { skip: reason ?? false }, async (t) => {
  const counted: number[] = []
  for (let i = 0; i < 3; i++) counted.push((await inVm(['sh', '-c', 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done'], { instructions: true })).guest)
  const spread = (Math.max(...counted) - Math.min(...counted)) / Math.min(...counted)
  t.comment(`${counted.join(', ')} instructions: ${(spread * 100).toFixed(2)} %`)
  t.ok(spread < 0.01, `${(spread * 100).toFixed(2)} %`)
})
