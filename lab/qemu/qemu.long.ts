import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { test } from 'tap'
import { projectRoot } from '../launcher.ts'
import { lacking } from '../vm/kernel.ts'

const reason = await lacking()
const switchyard = join(projectRoot, 'switchyard')
const state = mkdtempSync(join(tmpdir(), 'switchyard-qemu-'))
const env = { ...process.env, SWITCHYARD_STATE: state }
const lab = (...args: string[]) => spawnSync(switchyard, ['lab', ...args], { encoding: 'utf8', env, timeout: 1_800_000 })

/** Machines whose holder is ours: its state folder stands in what it was told, its process in theirs. */
function machines(holder: number): readonly number[] {
  return readdirSync('/proc')
    .filter((p) => /^\d+$/.test(p))
    .map(Number)
    .filter((p) => {
      try {
        const stat = readFileSync(`/proc/${p}/stat`, 'utf8')
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === holder && readlinkSync(`/proc/${p}/exe`).includes('qemu-system')
      } catch {
        return false
      }
    })
}

const gone = async (pids: readonly number[]): Promise<boolean> => {
  const alive = (p: number): boolean => {
    try {
      return !/^State:\s+Z/m.test(readFileSync(`/proc/${p}/status`, 'utf8'))
    } catch {
      return false
    }
  }
  for (let i = 0; i < 600 && pids.some(alive); i++) await wait(50)
  return !pids.some(alive)
}

test('lab up --vm: two machines, everything answers, and nothing is left after down', { skip: reason ?? false, timeout: 3_000_000 }, async (t) => {
  t.teardown(() => {
    lab('down')
    rmSync(state, { recursive: true, force: true })
  })
  const up = lab('up', '--vm', '--nodes', '2', '--mode', 'ipvs', '--publish', '0:ingress')
  t.equal(up.status, 0, up.stderr)
  t.match(up.stdout, /2 nodes/)
  const record = JSON.parse(readFileSync(join(state, 'default/lab.json'), 'utf8')) as { pid: number }
  const running = machines(record.pid)
  t.equal(running.length, 2, 'two machines')
  const kubeconfig = lab('kubeconfig').stdout.trim()
  execFileSync(switchyard, ['apply', '--kubeconfig', kubeconfig, '-f', join(projectRoot, 'lab/manifests/hello.yaml')], { env })
  let answer = ''
  for (let i = 0; i < 120 && !answer.startsWith('hello from'); i++) {
    answer = lab('exec', 'demo/client', '--', 'curl', '-s', '-m', '10', 'http://hello.demo.svc.cluster.local').stdout
    if (answer === '') await wait(1000)
  }
  t.match(answer, /^hello from hello-[12] on node[12]/, 'a Pod gets an answer by name')
  t.match(lab('exec', 'node2', '--', 'sh', '-c', 'ipvsadm -Ln 2> /dev/null || cat /proc/net/ip_vs').stdout, /0A600001|10\.96\.0\.1/, 'IPVS holds the Services')
  const failed = lab('exec', 'node1', '--', 'sh', '-c', 'cat; echo err >&2; exit 3')
  t.equal(failed.status, 3)
  t.match(failed.stderr, /err/)
  let check = lab('check')
  // Each trial has seconds; under emulation on a busy machine one or the other takes longer.
  for (let i = 0; i < 20 && check.status !== 0; i++) {
    await wait(2000)
    check = lab('check')
  }
  t.equal(check.status, 0, check.stdout)
  const down = lab('down')
  t.match(down.stdout, /down/)
  t.ok(await gone(running), 'no machine is left')
})

test('kill -9 of whoever holds or starts the machines ends them', { skip: reason ?? false, timeout: 600_000 }, async (t) => {
  const mine = mkdtempSync(join(tmpdir(), 'switchyard-qemu-'))
  t.teardown(() => rmSync(mine, { recursive: true, force: true }))
  const child = spawn(switchyard, ['lab', 'up', '--vm', '--nodes', '2'], { stdio: 'ignore', env: { ...env, SWITCHYARD_STATE: mine } })
  let pid = 0
  for (let i = 0; i < 1200 && (pid === 0 || machines(pid).length < 2); i++) {
    await wait(50)
    try {
      pid = (JSON.parse(readFileSync(join(mine, 'default/lab.json'), 'utf8')) as { pid: number }).pid
    } catch {
      // Not yet.
    }
  }
  const running = machines(pid)
  t.equal(running.length, 2)
  child.kill('SIGKILL')
  t.ok(await gone([pid, ...running]), 'a launcher that was killed takes the lab with it')
})
