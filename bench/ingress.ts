import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { accessSync, constants, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeApi } from '../kube/testing/api.ts'
import { ingress, ingressClass, service, slice } from '../kube/testing/builders.ts'
import { sleep } from '../lib/lifecycle.ts'
import { median, type BenchContext, type Row } from './row.ts'

const root = join(import.meta.dirname, '..')

/** A proxy that runs and can be measured. */
interface Candidate {
  readonly name: string
  readonly port: number
  readonly pid: number
}

/** CPU of the proxies for the same work, rounds interleaved; then how soon a new route answers, and how much memory many take. */
export async function* rows(context: BenchContext): AsyncGenerator<Row> {
  yield* speed(context)
  yield* scale(context)
}

async function* speed(context: BenchContext): AsyncGenerator<Row> {
  const named = ['small GET', 'GET of 64 KiB', 'POST of 64 KiB', '10,000 hosts'].filter((n) => context.wants(n))
  if (named.length === 0) return
  const wrk = find('wrk', context)
  const nginx = find('nginx', context)
  if (wrk === undefined || nginx === undefined) {
    for (const [name, path] of [
      ['wrk', wrk],
      ['nginx', nginx],
    ] as const)
      if (path === undefined) context.missing(name)
    return
  }
  const haproxy = find('haproxy', context)
  if (haproxy === undefined) context.missing('haproxy')
  const running: ChildProcess[] = []
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  await using api = await FakeApi.start()
  try {
    const backend = await startNginx(nginx, join(folder, 'backend'), running, (port) => backendConfig(port))
    const many = Array.from({ length: 10_000 }, (_, i) => `h${i}.bench.test`)
    const hosts = named.includes('10,000 hosts') ? many : many.slice(0, 100)
    api.putAll([ingressClass('sy'), service('b', { ports: ['http:80'] }), slice('b', ['127.0.0.1@n1'], [`http:${backend}`])])
    const annotations = { 'nginx.ingress.kubernetes.io/proxy-read-timeout': '30', 'nginx.ingress.kubernetes.io/proxy-body-size': '20m', 'nginx.ingress.kubernetes.io/x-forwarded-prefix': '/x' }
    for (const host of hosts) api.put(ingress(host.slice(0, host.indexOf('.')), { [host]: { '/': 'b:80', '/api': 'b:80', '/static': 'b:80' } }, { class: 'sy', annotations }))

    const candidates: Candidate[] = []
    candidates.push(await startNginxCandidate(nginx, join(folder, 'nginx'), running, backend, hosts))
    if (haproxy !== undefined) candidates.push(await startHaproxy(haproxy, join(folder, 'haproxy'), running, backend))
    for (const sockets of ['epoll', 'node']) {
      const ours = await startOurs(api, sockets, running, folder)
      if (ours === undefined) context.progress(`ours on ${sockets}: does not run here`)
      else candidates.push(ours)
    }
    for (const name of named) {
      const of = name === '10,000 hosts' ? hosts : hosts.slice(0, 100)
      const script = join(folder, 'load.lua')
      writeFileSync(script, loadScript(of, name.includes('POST') ? 'x'.repeat(65_536) : undefined, name.includes('GET of 64') ? '/big' : undefined))
      const costs = new Map<string, number[]>(candidates.map((c) => [c.name, []]))
      const rates = new Map<string, number[]>(candidates.map((c) => [c.name, []]))
      for (const c of candidates) await load(wrk, c, script, 1)
      for (let round = 0; round < 5; round++) {
        for (const c of candidates) {
          if (context.signal.aborted) return
          context.progress(`${name}: round ${round + 1} of 5, ${c.name}`)
          const { micros, rate } = await load(wrk, c, script, 2)
          costs.get(c.name)!.push(micros)
          rates.get(c.name)!.push(rate)
        }
      }
      for (const ours of candidates.filter((c) => c.name.startsWith('ours'))) {
        for (const peer of candidates.filter((c) => !c.name.startsWith('ours'))) {
          const mine = costs.get(ours.name)!
          const theirs = costs.get(peer.name)!
          const epoll = ours.name.includes('epoll')
          const bar =
            name === 'small GET'
              ? epoll
                ? peer.name === 'nginx'
                  ? 0.85
                  : 0.8
                : peer.name === 'nginx'
                  ? 1.5
                  : undefined
              : name === '10,000 hosts'
                ? epoll && peer.name === 'nginx'
                  ? 0.85
                  : undefined
                : epoll && peer.name === 'nginx'
                  ? 0.9
                  : undefined
          yield {
            name: `${name}, ${ours.name.slice(5)} (${Math.round(median(rates.get(ours.name)!))}/s)`,
            ours: median(mine),
            spread: [Math.min(...mine), Math.max(...mine)],
            unit: 'µs CPU a request',
            // The ratio of each round, so that what else the machine did falls out.
            peer: { name: peer.name, value: median(mine) / median(mine.map((v, i) => v / theirs[i]!)) },
            ...(bar === undefined ? {} : { bar: { of: 'ratio', value: bar } }),
          }
        }
      }
    }
  } finally {
    for (const child of running) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

async function* scale(context: BenchContext): AsyncGenerator<Row> {
  if (!context.wants('a new route answers, 5,000 Ingresses there') && !context.wants('memory at 5,000 Ingresses')) return
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  const running: ChildProcess[] = []
  const backend = http.createServer((_request, response) => response.end('b'))
  await new Promise<void>((resolve) => backend.listen(0, '127.0.0.1', resolve))
  await using api = await FakeApi.start()
  try {
    api.putAll([ingressClass('sy'), service('b', { ports: ['http:80'] }), slice('b', ['127.0.0.1@n1'], [`http:${(backend.address() as AddressInfo).port}`])])
    for (let i = 0; i < 5000; i++)
      api.put(
        ingress(
          `i${i}`,
          { [`h${i}.bench.test`]: { '/': 'b:80' } },
          { class: 'sy', annotations: { 'nginx.ingress.kubernetes.io/proxy-body-size': '8m' }, metadata: { creationTimestamp: '2026-01-01T00:00:00Z', uid: `${i}` } },
        ),
      )
    // Statuses are right already: what is measured is a route, not five thousand first writes.
    const ours = (await startOurs(api, 'auto', running, folder))!
    context.progress('waiting for statuses')
    await api.until(() => api.requests.filter((r) => r.verb === 'patch').length >= 5000, 'all statuses', 60_000)
    await sleep(500)
    const took: number[] = []
    const agent = new http.Agent({ keepAlive: true })
    for (let n = 0; n < 200 && !context.signal.aborted; n++) {
      const host = `new${n}.bench.test`
      api.put(ingress(`new${n}`, { [host]: { '/': 'b:80' } }, { class: 'sy', metadata: { creationTimestamp: '2026-01-02T00:00:00Z', uid: `new${n}` } }))
      const began = performance.now()
      while ((await statusOf(agent, ours.port, host)) !== 200) if (performance.now() - began > 5000) throw new Error('a new route does not answer')
      took.push(performance.now() - began)
      await sleep(20)
    }
    agent.destroy()
    took.sort((a, b) => a - b)
    yield { name: 'a new route answers, 5,000 Ingresses there, p99', ours: took[Math.floor(took.length * 0.99)]!, spread: [took[0]!, took.at(-1)!], unit: 'ms', bar: { of: 'figure', value: 20 } }
    yield { name: 'a new route answers, 5,000 Ingresses there, p50', ours: median(took), unit: 'ms' }
    yield { name: 'memory at 5,000 Ingresses', ours: residentMiB(ours.pid), unit: 'MiB', bar: { of: 'figure', value: 150 } }
  } finally {
    for (const child of running) child.kill('SIGKILL')
    backend.closeAllConnections()
    backend.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

function statusOf(agent: http.Agent, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path: '/', agent, headers: { host } }, (response) => {
      response.resume()
      response.on('end', () => resolve(response.statusCode!))
    })
    request.on('error', reject)
    request.end()
  })
}

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
}

/** Nanoseconds of CPU of a process, its threads and children. */
function cpuOf(pid: number): number {
  let sum = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    sum += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0])
    for (const child of readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim().split(' ').filter(Boolean)) sum += cpuOf(Number(child))
  }
  return sum
}

/** `seconds` of load; what each request cost. */
async function load(wrk: string, c: Candidate, script: string, seconds: number): Promise<{ micros: number; rate: number }> {
  const before = cpuOf(c.pid)
  const out = await new Promise<string>((resolve, reject) =>
    execFile(wrk, ['-t1', '-c64', `-d${seconds}`, '-s', script, `http://127.0.0.1:${c.port}/`], { env: libraries(wrk) }, (error, stdout) => (error === null ? resolve(stdout) : reject(error))),
  )
  const after = cpuOf(c.pid)
  const m = /(\d+) requests in/.exec(out)
  if (m === null || /Non-2xx|Socket errors/.test(out)) throw new Error(`${c.name}: ${out}`)
  return { micros: (after - before) / 1000 / Number(m[1]), rate: Number(m[1]) / seconds }
}

/** 2,048 prepared requests over all hosts and three paths, with the head of a browser. */
function loadScript(hosts: readonly string[], body: string | undefined, path: string | undefined): string {
  return `
local hosts = { ${hosts.map((h) => `"${h}"`).join(',')} }
local paths = { ${path === undefined ? '"/", "/api/users/1", "/static/app.js?v=3"' : `"${path}"`} }
local requests, n = {}, 0
local head = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-US,en;q=0.5", ["Accept-Encoding"] = "gzip, deflate", ["Cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark", ["Sec-Fetch-Dest"] = "document",
  ["Sec-Fetch-Mode"] = "navigate", ["Sec-Fetch-Site"] = "none", ["Priority"] = "u=0, i", ["Connection"] = "keep-alive" }
function init(args)
  for i = 1, 2048 do
    head["Host"] = hosts[(i * 7919) % #hosts + 1]
    requests[i] = wrk.format("${body === undefined ? 'GET' : 'POST'}", paths[i % #paths + 1], head, ${body === undefined ? 'nil' : `string.rep("x", ${body.length})`})
  end
end
function request() n = n % 2048 + 1; return requests[n] end
`
}

function find(name: string, context: BenchContext): string | undefined {
  const given = context.peers.get(name)
  if (given !== undefined) return given
  for (const dir of [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin', '/sbin']) {
    try {
      accessSync(join(dir, name), constants.X_OK)
      return join(dir, name)
    } catch {}
  }
  return undefined
}

/** A program unpacked beside its libraries finds them. */
function libraries(program: string): NodeJS.ProcessEnv {
  return { ...process.env, LD_LIBRARY_PATH: join(program, '../../lib/x86_64-linux-gnu') }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => probe.once('listening', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}

async function open(port: number): Promise<void> {
  for (let i = 0; i < 300; i++) {
    if ((await statusOf(http.globalAgent, port, 'h0.bench.test').catch(() => 0)) > 0) return
    await sleep(50)
  }
  throw new Error(`nothing listens on ${port}`)
}

const log = (folder: string): string =>
  `log_format c '$remote_addr - [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_time'; access_log ${folder}/access.log c buffer=64k flush=1s;`

function backendConfig(port: number): string {
  return `server { listen 127.0.0.1:${port} backlog=4096; access_log off; client_max_body_size 0; location / { return 200 "0123456789012345678901234567890123456789"; } location = /big { alias /dev/shm/switchyard-bench-64k; } }`
}

async function startNginx(nginx: string, folder: string, running: ChildProcess[], server: (port: number) => string): Promise<number> {
  const port = await freePort()
  await startNginxWith(nginx, folder, running, server(port), port)
  return port
}

async function startNginxWith(nginx: string, folder: string, running: ChildProcess[], servers: string, port: number): Promise<ChildProcess> {
  mkdirSync(folder, { recursive: true })
  writeFileSync('/dev/shm/switchyard-bench-64k', 'x'.repeat(65_536))
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((n) => `${n}_temp_path ${folder}/${n};`).join(' ')
  writeFileSync(
    join(folder, 'nginx.conf'),
    `user root; worker_processes 1; daemon off; pid ${folder}/pid; error_log ${folder}/error.log; events { worker_connections 4096; multi_accept on; }
http { ${paths} server_names_hash_max_size 65536; server_names_hash_bucket_size 128; keepalive_requests 100000000; keepalive_timeout 75s; tcp_nodelay on; ${servers} }`,
  )
  const child = spawn(nginx, ['-p', folder, '-c', join(folder, 'nginx.conf')], { stdio: ['ignore', 'ignore', 'inherit'], env: libraries(nginx) })
  running.push(child)
  await open(port)
  return child
}

async function startNginxCandidate(nginx: string, folder: string, running: ChildProcess[], backend: number, hosts: readonly string[]): Promise<Candidate> {
  const port = await freePort()
  const location = (path: string): string => `location ${path} { proxy_pass http://b; }`
  const servers = hosts
    .map((h) => `server { listen 127.0.0.1:${port}${h === hosts[0] ? ' backlog=4096' : ''}; server_name ${h}; ${location('/')} ${location('/api')} ${location('/static')} }`)
    .join('\n')
  const child = await startNginxWith(
    nginx,
    folder,
    running,
    `${log(folder)} upstream b { server 127.0.0.1:${backend}; keepalive 128; keepalive_requests 100000000; }
proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-ID $request_id; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0; proxy_request_buffering off; client_max_body_size 20m;
${servers}`,
    port,
  )
  return { name: 'nginx', port, pid: child.pid! }
}

async function startHaproxy(haproxy: string, folder: string, running: ChildProcess[], backend: number): Promise<Candidate> {
  mkdirSync(folder, { recursive: true })
  const port = await freePort()
  writeFileSync(
    join(folder, 'haproxy.cfg'),
    `global
  nbthread 1
  maxconn 4096
  log ${folder}/log local0
  tune.bufsize 65536
defaults
  mode http
  log global
  option httplog
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 75s
  timeout server 60s
frontend f
  bind 127.0.0.1:${port}
  option forwardfor
  unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid
  unique-id-header X-Request-ID
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request deny deny_status 404 unless { req.hdr(host) -m end .bench.test }
  default_backend b
backend b
  server s 127.0.0.1:${backend}
`,
  )
  const child = spawn(haproxy, ['-db', '-f', join(folder, 'haproxy.cfg')], { stdio: 'ignore', env: libraries(haproxy) })
  running.push(child)
  await open(port)
  return { name: 'haproxy', port, pid: child.pid! }
}

async function startOurs(api: FakeApi, sockets: string, running: ChildProcess[], folder: string): Promise<Candidate | undefined> {
  const status = await freePort()
  const child = spawn(
    'sh',
    [
      'scripts/node',
      'cli/main.ts',
      'ingress',
      '--kubeconfig',
      api.kubeconfig(),
      '--http',
      '127.0.0.1:0',
      '--https',
      '',
      '--status',
      `127.0.0.1:${status}`,
      '--sockets',
      sockets,
      '--access-log-path',
      join(folder, `${sockets}.log`),
    ],
    {
      cwd: root,
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  running.push(child)
  return new Promise((resolve, reject) => {
    let text = ''
    child.stderr.on('data', (piece: Buffer) => {
      text += piece.toString()
      const ready = text.split('\n').find((l) => l.includes('"message":"ready"'))
      if (ready === undefined) return
      const told = JSON.parse(ready) as { http: string; sockets: string }
      resolve({ name: `ours, ${told.sockets}`, port: Number(told.http.slice(told.http.lastIndexOf(':') + 1)), pid: child.pid! })
    })
    child.on('exit', () => (sockets === 'epoll' ? resolve(undefined) : reject(new Error(`switchyard ingress ended: ${text}`))))
  })
}
