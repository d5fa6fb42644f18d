// Every part as a user starts it, in a network of its own: one ready line each, and an end within a second of SIGTERM.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'tap'

const launcher = join(import.meta.dirname, '../switchyard')

if (process.env.SWITCHYARD_INSIDE === undefined) {
  const done = spawnSync('unshare', ['--net', '--mount', '--', process.execPath, ...process.execArgv, import.meta.filename], { stdio: 'inherit', env: { ...process.env, SWITCHYARD_INSIDE: '1' } })
  process.exitCode = done.status ?? 1
} else {
  spawnSync('ip', ['link', 'set', 'lo', 'up'])
  test('each part says that it is ready and ends with status 0 within a second of SIGTERM', async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'switchyard-parts-'))
    t.teardown(() => rmSync(dir, { recursive: true, force: true }))
    const kubeconfig = join(dir, 'kubeconfig')
    const running: (readonly [string, ChildProcess])[] = []
    t.teardown(() => running.forEach(([, p]) => p.kill('SIGKILL')))
    const start = async (...args: readonly string[]): Promise<Record<string, unknown>> => {
      const child = spawn(launcher, args, { stdio: ['ignore', 'ignore', 'pipe'] })
      running.push([args[0]!, child])
      return new Promise((resolve, reject) => {
        createInterface({ input: child.stderr }).on('line', (line) => {
          const said = JSON.parse(line) as Record<string, unknown>
          if (said.message === 'ready') resolve(said)
        })
        child.once('exit', () => reject(new Error(`${args[0]} ended before it was ready`)))
      })
    }
    t.equal((await start('controlplane', '--data', join(dir, 'data'), '--listen', '127.0.0.1:6443', '--write-kubeconfig', kubeconfig)).listen, '127.0.0.1:6443')
    t.ok(existsSync(kubeconfig))
    const to = ['--kubeconfig', kubeconfig]
    await Promise.all([
      start('agent', ...to, '--node', 'n1', '--state', join(dir, 'state'), '--node-ip', '127.0.0.1'),
      start('proxy', ...to, '--node', 'n1', '--mode', 'iptables'),
      start('dns', ...to, '--listen', '127.0.0.1:53'),
      start('ingress', ...to, '--http', '127.0.0.1:80', '--https', '127.0.0.1:443'),
    ])
    for (const [url, code] of [
      ['http://127.0.0.1:10256/livez', 200],
      ['http://127.0.0.1:10249/metrics', 200],
      ['http://127.0.0.1:8080/health', 200],
      ['http://127.0.0.1:8181/ready', 200],
      ['http://127.0.0.1:9153/metrics', 200],
      ['http://127.0.0.1:10254/healthz', 200],
      ['http://127.0.0.1:10248/readyz', 200],
      ['http://127.0.0.1:10254/readyz', 200],
    ] as const)
      t.equal((await fetch(url)).status, code, url)
    const taken = spawnSync(launcher, ['ingress', ...to, '--http', '127.0.0.1:80', '--https', '127.0.0.1:443'], { encoding: 'utf8', timeout: 10_000 })
    t.equal(taken.status, 1)
    t.match(taken.stderr, /:(80|443|10254)\b.*the port is in use; choose another with --(http|https|status)/, 'a port in use is named, and the flag that changes it')
    // Newest first, the API last: nobody's end waits for what he talks to.
    for (const [name, child] of running.toReversed()) {
      const began = performance.now()
      const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
      child.kill('SIGTERM')
      t.equal(await ended, 0, name)
      const took = performance.now() - began
      t.ok(took < 1000, `${name} ended after ${took.toFixed(0)} ms`)
    }
  })
}
