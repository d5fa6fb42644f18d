import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { FakeApi } from '../kube/testing/api.ts'
import { sleep } from '../lib/lifecycle.ts'
import type { TlsIdentity } from '../lib/sockets/seam.ts'
import type { BenchContext } from './row.ts'

const root = join(import.meta.dirname, '..')

/** A proxy that runs and can be measured. */
export interface Candidate {
  readonly name: string
  readonly port: number
  /** Where it serves HTTPS, if it does. */
  readonly tls?: number
  readonly pid: number
}

/** The status that a host gets. */
export function statusOf(agent: http.Agent, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path: '/', agent, headers: { host } }, (response) => {
      response.resume()
      response.on('end', () => resolve(response.statusCode!))
    })
    request.on('error', reject)
    request.end()
  })
}

/** A program unpacked beside its libraries finds them. */
export function libraries(program: string): NodeJS.ProcessEnv {
  return { ...process.env, LD_LIBRARY_PATH: join(program, '../../lib/x86_64-linux-gnu') }
}

export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => probe.once('listening', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}

async function open(port: number): Promise<void> {
  for (let i = 0; i < 1200; i++) {
    if ((await statusOf(http.globalAgent, port, 'h0.bench.test').catch(() => 0)) > 0) return
    await sleep(50)
  }
  throw new Error(`nothing listens on ${port}`)
}

const log = (folder: string): string =>
  `log_format c '$remote_addr - [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_time'; access_log ${folder}/access.log c buffer=64k flush=1s;`

/** nginx as the endpoint: small answers, 64 KiB and 10 MiB, uploads read to their end. */
export async function startBackend(nginx: string, folder: string, running: ChildProcess[]): Promise<number> {
  const port = await freePort()
  const big = join(folder, 'big')
  const huge = join(folder, 'huge')
  writeFileSync(big, 'x'.repeat(65_536))
  writeFileSync(huge, Buffer.alloc(10_485_760, 120))
  // `return` would answer before the body was read; handing it on reads it first.
  const inside = await freePort()
  const small = 'return 200 "0123456789012345678901234567890123456789";'
  await startNginxWith(
    nginx,
    join(folder, 'backend'),
    running,
    `upstream inside { server 127.0.0.1:${inside}; keepalive 64; }
server { listen 127.0.0.1:${inside}; access_log off; location / { ${small} } }
server { listen 127.0.0.1:${port} backlog=4096; access_log off; client_max_body_size 0; client_body_buffer_size 11m;
  location / { if ($request_method = POST) { rewrite ^ /read last; } ${small} }
  location = /read { internal; proxy_pass http://inside; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_method GET; }
  location = /big { alias ${big}; } location = /huge { alias ${huge}; } }`,
    port,
  )
  return port
}

async function startNginxWith(nginx: string, folder: string, running: ChildProcess[], servers: string, port: number): Promise<ChildProcess> {
  mkdirSync(folder, { recursive: true })
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

export async function startNginx(nginx: string, folder: string, running: ChildProcess[], backend: number, hosts: readonly string[], identity: TlsIdentity): Promise<Candidate> {
  const port = await freePort()
  const tls = await freePort()
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'crt'), identity.cert)
  writeFileSync(join(folder, 'key'), identity.key)
  const location = (path: string): string => `location ${path} { proxy_pass http://b; }`
  const servers = hosts
    .map(
      // Each server with TLS reads the certificate again: ten thousand of them would take a minute.
      (h, i) =>
        `server { listen 127.0.0.1:${port}${i === 0 ? ' backlog=4096' : ''};${i >= 100 ? '' : ` listen 127.0.0.1:${tls} ssl http2${i === 0 ? ' backlog=4096' : ''};`} server_name ${h}; ${location('/')} ${location('/api')} ${location('/static')} }`,
    )
    .join('\n')
  const child = await startNginxWith(
    nginx,
    folder,
    running,
    `${log(folder)} ssl_certificate ${folder}/crt; ssl_certificate_key ${folder}/key; ssl_protocols TLSv1.3; upstream b { server 127.0.0.1:${backend}; keepalive 128; keepalive_requests 100000000; }
proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-ID $request_id; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k; proxy_max_temp_file_size 0; proxy_request_buffering off; client_max_body_size 20m;
${servers}`,
    port,
  )
  return { name: 'nginx', port, tls, pid: child.pid! }
}

/** HAProxy with one thread. */
export async function startHaproxy(haproxy: string, folder: string, running: ChildProcess[], backend: number, identity: TlsIdentity): Promise<Candidate> {
  mkdirSync(folder, { recursive: true })
  const port = await freePort()
  const tls = await freePort()
  writeFileSync(join(folder, 'pem'), identity.cert + identity.key)
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
  bind 127.0.0.1:${tls} ssl crt ${folder}/pem alpn h2,http/1.1 ssl-min-ver TLSv1.3
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
  return { name: 'haproxy', port, tls, pid: child.pid! }
}

/** Caddy with one thread of Go, its defaults and an access log. */
export async function startCaddy(caddy: string, folder: string, running: ChildProcess[], backend: number): Promise<Candidate> {
  mkdirSync(folder, { recursive: true })
  const port = await freePort()
  writeFileSync(join(folder, 'Caddyfile'), `{\n  admin off\n  auto_https off\n}\nhttp://:${port} {\n  log {\n    output file ${folder}/access.log\n  }\n  reverse_proxy 127.0.0.1:${backend}\n}\n`)
  const child = spawn(caddy, ['run', '--config', join(folder, 'Caddyfile'), '--adapter', 'caddyfile'], { stdio: 'ignore', env: { ...libraries(caddy), GOMAXPROCS: '1', HOME: folder } })
  running.push(child)
  await open(port)
  return { name: 'caddy', port, pid: child.pid! }
}

/** The package http-proxy, if it is installed somewhere; `--peer http-proxy=…/node_modules/http-proxy` names one. */
export function findHttpProxy(context: BenchContext): string | undefined {
  const given = context.peers.get('http-proxy')
  if (given !== undefined) return given
  const installed = join(root, 'node_modules/http-proxy')
  return existsSync(installed) ? installed : undefined
}

/** http-proxy with kept-alive connections. */
export async function startHttpProxy(module: string, folder: string, running: ChildProcess[], backend: number): Promise<Candidate> {
  mkdirSync(folder, { recursive: true })
  const port = await freePort()
  writeFileSync(
    join(folder, 'proxy.cjs'),
    `const http = require('node:http'); const proxy = require(${JSON.stringify(module)}).createProxyServer({ target: 'http://127.0.0.1:${backend}', xfwd: true, agent: new http.Agent({ keepAlive: true, maxSockets: 256 }) });
proxy.on('error', (e, q, r) => { r.statusCode = 502; r.end() }); http.createServer((q, r) => proxy.web(q, r)).listen(${port}, '127.0.0.1')`,
  )
  const child = spawn(process.execPath, [join(folder, 'proxy.cjs')], { stdio: 'ignore' })
  running.push(child)
  await open(port)
  return { name: 'http-proxy', port, pid: child.pid! }
}

/** `switchyard ingress` as a user starts it; undefined where the driver does not run. */
export async function startOurs(api: FakeApi, sockets: string, running: ChildProcess[], folder: string): Promise<Candidate | undefined> {
  const status = await freePort()
  const at = ['--kubeconfig', api.kubeconfig(), '--http', '127.0.0.1:0', '--https', '127.0.0.1:0', '--status', `127.0.0.1:${status}`]
  const how = ['--default-ssl-certificate', 'default/cert', '--sockets', sockets, '--access-log-path', join(folder, `${sockets}.log`)]
  const child = spawn(join(root, 'switchyard'), ['ingress', ...at, ...how], { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] })
  running.push(child)
  return new Promise((resolve, reject) => {
    let text = ''
    child.stderr.on('data', (piece: Buffer) => {
      text += piece.toString()
      const ready = text.split('\n').find((l) => l.includes('"message":"ready"'))
      if (ready === undefined) return
      const told = JSON.parse(ready) as { http: string; https: string; sockets: string }
      const port = (address: string): number => Number(address.slice(address.lastIndexOf(':') + 1))
      resolve({ name: `ours, ${told.sockets}`, port: port(told.http), tls: port(told.https), pid: child.pid! })
    })
    child.on('exit', () => (sockets === 'epoll' ? resolve(undefined) : reject(new Error(`switchyard ingress ended: ${text}`))))
  })
}

/** Ends what was started. First in order: a master that is killed leaves its workers behind. */
export async function endAll(running: readonly ChildProcess[]): Promise<void> {
  await Promise.all(
    running.map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
      await gone
      clearTimeout(timer)
    }),
  )
}
