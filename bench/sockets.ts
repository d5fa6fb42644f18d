import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { accessSync, constants, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { sleep } from '../lib/lifecycle.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import { find, median, type BenchContext, type Row } from './row.ts'

const roundsEach = 5
const roundMs = 1200

/** A process that serves, forwards or loads. */
interface Role {
  readonly name: string
  readonly port: number
  readonly pid: number
  /** Sends a line and gives the answer. */
  ask(line: string): Promise<Record<string, number>>
}

/** CPU of a forwarder, an echo and idle connections, ours beside peers doing the same work, rounds interleaved. */
export async function* rows(context: BenchContext): AsyncGenerator<Row> {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  const running: ChildProcess[] = []
  const start = (role: string, options: object, name = role, flags: readonly string[] = []): Promise<Role> => startRole(running, role, options, name, flags)
  try {
    const authority = testAuthority()
    const identity = authority.issue('bench.test')
    const [nginx, haproxy] = [findNginx(context), peer('haproxy', context)]
    if (context.wants('forwarder: exchange') || context.wants('forwarder: new connection')) {
      const target = (await start('answerer', {})).port
      const candidates = [await start('forwarder', { target }, 'epoll'), await start('forwarder', { target, driver: 'node' }, 'node'), await start('bare', { target }, 'bare net')]
      if (nginx !== undefined) candidates.push(await startNginx(nginx, folder, running, target))
      if (haproxy !== undefined) candidates.push(await startHaproxy(haproxy, folder, running, target))
      const kept = await rounds(context, 'forwarder: exchange', candidates, async (c) => start('load', { target: c.port }), String(roundMs))
      yield* compare('forwarder: exchange of 500 and 200 bytes', kept, { node: 0.6, nginx: 0.9, haproxy: 0.9 })
      const [name, bare] = ['forwarder on node: the same exchange', kept.get('bare net')!]
      yield {
        name: `${name} (bare net)`,
        unit: 'µs',
        ours: median(kept.get('node')!),
        peer: { name: 'bare net', value: median(kept.get('node')!) / ratio(kept.get('node')!, bare) },
        bar: { value: 1.05, of: 'ratio' },
      }
      const fresh = await rounds(
        context,
        'forwarder: new connection',
        candidates.filter((c) => c.name !== 'bare net'),
        async (c) => start('load', { target: c.port, fresh: true, connections: 32 }),
        String(roundMs),
      )
      yield* compare('forwarder: new connection with one exchange', fresh, { haproxy: 1.02 })
      for (const c of candidates) process.kill(c.pid)
    }
    if (context.wants('forwarder: bulk')) yield* bulkRows(context, running, folder, haproxy)
    if (context.wants('TLS')) {
      const target = (await start('answerer', {})).port
      const candidates = [await start('forwarder', { target, tls: identity }, 'epoll'), await start('forwarder', { target, tls: identity, driver: 'node' }, 'node')]
      if (nginx !== undefined) candidates.push(await startNginx(nginx, folder, running, target, identity))
      const kept = await rounds(context, 'TLS: exchange', candidates, async (c) => start('load', { target: c.port, ca: authority.ca }), String(roundMs))
      yield* compare('TLS: exchange of 500 and 200 bytes, TLS 1.3 to the client', kept, { nginx: 0.85 })
      const fresh = await rounds(context, 'TLS: handshake', candidates, async (c) => start('load', { target: c.port, ca: authority.ca, fresh: true, connections: 16 }), String(roundMs))
      yield* compare('TLS: new handshake with one exchange', fresh, { nginx: 1.05 })
      for (const c of candidates) process.kill(c.pid)
    }
    if (context.wants('UDP')) {
      const candidates = [await start('echo', {}, 'epoll'), await start('echo', { driver: 'node' }, 'node'), await start('echo', { driver: 'bare' }, 'bare dgram').catch(() => undefined)].filter(
        (c) => c !== undefined,
      )
      const c = await startC(folder, running)
      if (c !== undefined) candidates.push(c)
      const costs = await rounds(context, 'UDP', candidates, async (x) => start('flood', { target: x.port }), String(roundMs))
      yield* compare('UDP: echo of 64 bytes at saturation', costs, { 'bare dgram': 0.5, 'C, same calls': 1.1, node: 0.5 })
      for (const x of candidates) process.kill(x.pid)
    }
    for (const tls of [false, true]) {
      const what = tls ? 'idle: TLS connection' : 'idle: plain connection'
      if (!context.wants(what)) continue
      const limit = Number(/Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
      const many = Math.min(tls ? 2000 : 10_000, limit - 100)
      const server = await start('idle', tls ? { tls: identity } : {}, 'idle', ['--expose-gc'])
      // Once before, so that what is made for the first connection does not count.
      await start('hold', { target: server.port, connections: 200, ...(tls ? { ca: authority.ca } : {}) })
      await sleep(1000)
      const before = await server.ask('')
      const holder = startRole(running, 'hold', { target: server.port, connections: many, ...(tls ? { ca: authority.ca } : {}) }, 'hold')
      await holder
      await sleep(500)
      const after = await server.ask('')
      const cpu = cpuOf(server.pid)
      await sleep(2000)
      const used = (cpuOf(server.pid) - cpu) / 2e9
      if (tls) yield { name: 'idle: memory of a TLS connection', unit: 'bytes', ours: (after.rss! - before.rss!) / many, bar: { value: 8000, of: 'figure' } }
      else {
        yield { name: 'idle: heap of a plain connection', unit: 'bytes', ours: (after.heap! - before.heap!) / many, bar: { value: 2048, of: 'figure' } }
        yield { name: `idle: CPU with ${many} connections open`, unit: '% of a core', ours: used * 100, bar: { value: 0.5, of: 'figure' } }
      }
    }
  } finally {
    for (const child of running) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

/** One stream from a namespace through a forwarder in another to a third, beside the same path forwarded by the kernel. */
async function* bulkRows(context: BenchContext, running: ChildProcess[], folder: string, haproxy: string | undefined): AsyncGenerator<Row> {
  if (process.getuid?.() !== 0) return context.missing('three namespaces (needs root)')
  const [client, middle, server] = ['c', 'm', 's'].map((n) => `sy-bench-${n}-${process.pid}`) as [string, string, string]
  const ip = (...args: string[]): void => void execFileSync('ip', args, { stdio: 'pipe' })
  const at = (ns: string, role: string, options: object, name = role): Promise<Role> => startRole(running, role, { host: '0.0.0.0', ...options }, name, [], ['ip', 'netns', 'exec', ns])
  try {
    for (const ns of [client, middle, server]) {
      ip('netns', 'add', ns)
      ip('-n', ns, 'link', 'set', 'lo', 'up')
    }
    for (const [ns, net] of [
      [client, 1],
      [server, 2],
    ] as const) {
      ip('-n', ns, 'link', 'add', 'out', 'type', 'veth', 'peer', 'name', `down${net}`, 'netns', middle)
      ip('-n', ns, 'address', 'add', `10.98.${net}.2/24`, 'dev', 'out')
      ip('-n', middle, 'address', 'add', `10.98.${net}.1/24`, 'dev', `down${net}`)
      ip('-n', ns, 'link', 'set', 'out', 'up')
      ip('-n', middle, 'link', 'set', `down${net}`, 'up')
      ip('-n', ns, 'route', 'add', 'default', 'via', `10.98.${net}.1`)
    }
    ip('netns', 'exec', middle, 'sysctl', '-qw', 'net.ipv4.ip_forward=1')
    const target = (await at(server, 'sink', {})).port
    const to = '10.98.2.2'
    const forwarders = [await at(middle, 'forwarder', { target, to }, 'epoll'), await at(middle, 'forwarder', { target, to, driver: 'node' }, 'node')]
    if (haproxy !== undefined) forwarders.push(await startHaproxy(haproxy, folder, running, target, { ns: middle, host: '10.98.1.1', to }))
    const direct = await at(client, 'bulk', { target, to }, 'direct')
    const loaders = new Map<string, Role>()
    for (const f of forwarders) loaders.set(f.name, await at(client, 'bulk', { target: f.port, to: '10.98.1.1' }))
    const mib = 512
    const [costs, times, plain] = [new Map<string, number[]>(), new Map<string, number[]>(), [] as number[]]
    const run = async (loader: Role): Promise<number> => {
      const began = performance.now()
      await loader.ask(String(mib))
      return ((performance.now() - began) / 1000 / mib) * 1024
    }
    for (let round = -1; round < roundsEach; round++) {
      context.progress(`forwarder: bulk: ${round < 0 ? 'warming up' : `round ${round + 1} of ${roundsEach}`}`)
      const alone = await run(direct)
      if (round >= 0) plain.push(alone)
      for (const f of forwarders) {
        const before = cpuOf(f.pid)
        const through = await run(loaders.get(f.name)!)
        if (round < 0) continue
        costs.set(f.name, [...(costs.get(f.name) ?? []), ((cpuOf(f.pid) - before) / 1e6 / mib) * 1024])
        times.set(f.name, [...(times.get(f.name) ?? []), through])
      }
    }
    yield* compare('forwarder: bulk, one stream through three namespaces, CPU a GiB', costs, { haproxy: 0.6 }, 'ms/GiB')
    for (const [name, through] of times) {
      const longer = ratio(through, plain)
      yield {
        name: `forwarder: bulk, time a GiB takes (${name})`,
        unit: 's',
        ours: median(through),
        spread: [Math.min(...through), Math.max(...through)],
        peer: { name: 'direct', value: median(through) / longer },
        // 0.65 of the rate.
        ...(name === 'epoll' ? { bar: { value: 1 / 0.65, of: 'ratio' as const } } : {}),
      }
    }
    for (const f of [...forwarders, direct, ...loaders.values()]) process.kill(f.pid)
  } finally {
    for (const ns of [client, middle, server]) {
      try {
        ip('netns', 'delete', ns)
      } catch {
        // It was not made: without root there is no such row.
      }
    }
  }
}

/** Micros of CPU an operation, for each candidate and round. */
async function rounds(context: BenchContext, what: string, candidates: readonly Role[], loader: (c: Role) => Promise<Role>, line: string): Promise<Map<string, number[]>> {
  const costs = new Map<string, number[]>(candidates.map((c) => [c.name, []]))
  const loaders = new Map<string, Role>()
  for (const c of candidates) loaders.set(c.name, await loader(c))
  for (let round = -1; round < roundsEach; round++) {
    for (const c of candidates) {
      if (context.signal.aborted) return costs
      context.progress(`${what}: ${round < 0 ? 'warming up' : `round ${round + 1} of ${roundsEach}`}, ${c.name}`)
      const before = cpuOf(c.pid)
      const { done } = await loaders.get(c.name)!.ask(line)
      if (done === undefined || done === 0) throw new Error(`${what}: nothing went through ${c.name}`)
      if (round >= 0) costs.get(c.name)!.push((cpuOf(c.pid) - before) / 1000 / done)
    }
  }
  for (const l of loaders.values()) process.kill(l.pid)
  return costs
}

function* compare(name: string, costs: ReadonlyMap<string, readonly number[]>, bars: Readonly<Record<string, number>>, unit = 'µs'): Generator<Row> {
  const ours = costs.get('epoll')!
  for (const [peer, theirs] of costs) {
    if (peer === 'epoll') continue
    // The ratio of each round: what else runs on the machine falls on both.
    const value = median(ours) / ratio(ours, theirs)
    yield {
      name: `${name} (${peer})`,
      unit,
      ours: median(ours),
      spread: [Math.min(...ours), Math.max(...ours)],
      peer: { name: peer, value },
      ...(bars[peer] === undefined ? {} : { bar: { value: bars[peer], of: 'ratio' as const } }),
    }
  }
}

function ratio(ours: readonly number[], theirs: readonly number[]): number {
  return median(ours.map((x, i) => x / theirs[i]!))
}

/** Nanoseconds of CPU that the process and its children have used, all threads. */
function cpuOf(pid: number): number {
  let sum = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) sum += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0])
  for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')) if (child !== '') sum += cpuOf(Number(child))
  return sum
}

async function startRole(running: ChildProcess[], role: string, options: object, name: string, flags: readonly string[] = [], inside: readonly string[] = []): Promise<Role> {
  const [program = '', ...before] = [...inside, process.execPath]
  const child = spawn(program, [...before, ...flags, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'sockets-roles.ts'), role, JSON.stringify(options)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  running.push(child)
  const waiting: ((answer: Record<string, number>) => void)[] = []
  createInterface({ input: child.stdout }).on('line', (line) => waiting.shift()?.(JSON.parse(line) as Record<string, number>))
  const next = (): Promise<Record<string, number>> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${name} says nothing`)), 30_000)
      child.once('exit', (code) => reject(new Error(`${name} ended with status ${code}`)))
      waiting.push((a) => (clearTimeout(timer), resolve(a)))
    })
  const { port } = await next()
  return {
    name,
    port: port ?? 0,
    pid: child.pid!,
    ask: (line) => {
      child.stdin.write(`${line}\n`)
      return next()
    },
  }
}

async function startNginx(path: string, folder: string, running: ChildProcess[], target: number, tls?: { readonly cert: string; readonly key: string }): Promise<Role> {
  const port = await freePort()
  const dir = mkdtempSync(join(folder, 'nginx-'))
  const module = streamModule(path)
  if (tls !== undefined) {
    writeFileSync(join(dir, 'cert.pem'), tls.cert)
    writeFileSync(join(dir, 'key.pem'), tls.key)
  }
  writeFileSync(
    join(dir, 'nginx.conf'),
    `${module === undefined ? '' : `load_module ${module};\n`}worker_processes 1; pid ${dir}/pid; error_log ${dir}/error.log; daemon off;
events { worker_connections 4096; multi_accept on; }
stream { access_log off; server { listen 127.0.0.1:${port}${tls === undefined ? '' : ' ssl'}; tcp_nodelay on; proxy_pass 127.0.0.1:${target};
${tls === undefined ? '' : `ssl_certificate ${dir}/cert.pem; ssl_certificate_key ${dir}/key.pem; ssl_protocols TLSv1.3; ssl_session_cache off;`} } }
`,
  )
  const child = spawn(path, ['-p', dir, '-c', join(dir, 'nginx.conf'), '-e', join(dir, 'error.log')], { stdio: 'ignore' })
  running.push(child)
  await answers(port, () => readFileSync(join(dir, 'error.log'), 'utf8'))
  return { name: 'nginx', port, pid: child.pid!, ask: () => Promise.resolve({}) }
}

async function startHaproxy(path: string, folder: string, running: ChildProcess[], target: number, where?: { readonly ns: string; readonly host: string; readonly to: string }): Promise<Role> {
  const port = await freePort()
  const file = join(mkdtempSync(join(folder, 'haproxy-')), 'haproxy.cfg')
  writeFileSync(
    file,
    `global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option splice-auto\nfrontend f\n  bind ${where?.host ?? '127.0.0.1'}:${port}\n  default_backend b\nbackend b\n  server s ${where?.to ?? '127.0.0.1'}:${target}\n`,
  )
  const [program = '', ...before] = where === undefined ? [path] : ['ip', 'netns', 'exec', where.ns, path]
  const child = spawn(program, [...before, '-db', '-f', file], { stdio: 'ignore' })
  running.push(child)
  if (where === undefined) await answers(port, () => 'it did not start')
  else await sleep(1000)
  return { name: 'haproxy', port, pid: child.pid!, ask: () => Promise.resolve({}) }
}

/** The same calls in C, where a compiler is found. */
async function startC(folder: string, running: ChildProcess[]): Promise<Role | undefined> {
  const port = await freePort()
  writeFileSync(
    join(folder, 'echo.c'),
    `#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/epoll.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <arpa/inet.h>
static char bytes[64][2048]; static struct sockaddr_in names[64]; static struct iovec in[64], out[64]; static struct mmsghdr r[64], s[64];
int main(int c, char **v) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), big = 4 << 20, ep = epoll_create1(0);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big); setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
  struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(v[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  if (bind(fd, (void *)&a, sizeof a)) return 1;
  struct epoll_event e = { .events = EPOLLIN }; epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
  for (;;) {
    epoll_wait(ep, &e, 1, -1);
    for (int k = 0; k < 4; k++) {
      for (int i = 0; i < 64; i++) { in[i] = (struct iovec){ bytes[i], 2048 }; r[i].msg_hdr = (struct msghdr){ &names[i], sizeof names[i], &in[i], 1 }; }
      int n = recvmmsg(fd, r, 64, MSG_DONTWAIT, 0);
      if (n <= 0) break;
      for (int i = 0; i < n; i++) { out[i] = (struct iovec){ bytes[i], r[i].msg_len }; s[i].msg_hdr = (struct msghdr){ &names[i], sizeof names[i], &out[i], 1 }; }
      for (int d = 0; d < n;) { int x = sendmmsg(fd, s + d, n - d, MSG_DONTWAIT); d += x > 0 ? x : 1; }
      if (n < 64) break;
    }
  }
}
`,
  )
  try {
    execFileSync('cc', ['-O2', '-o', join(folder, 'echo'), join(folder, 'echo.c')], { stdio: 'ignore' })
  } catch {
    return undefined
  }
  const child = spawn(join(folder, 'echo'), [String(port)], { stdio: 'ignore' })
  running.push(child)
  await sleep(100)
  return { name: 'C, same calls', port, pid: child.pid!, ask: () => Promise.resolve({}) }
}

/** A peer's program; says so where there is none. */
function peer(name: string, context: BenchContext): string | undefined {
  const found = find(name, context)
  if (found === undefined) context.missing(name)
  return found
}

/** nginx with its stream module, which is a package of its own. */
function findNginx(context: BenchContext): string | undefined {
  const path = peer('nginx', context)
  if (path === undefined || streamModule(path) !== undefined || execFileSync('sh', ['-c', '"$0" -V 2>&1', path], { encoding: 'utf8' }).includes('--with-stream ')) return path
  context.missing('libnginx-mod-stream')
  return undefined
}

function streamModule(nginx: string): string | undefined {
  return [join(nginx, '../../lib/nginx/modules/ngx_stream_module.so'), '/usr/lib/nginx/modules/ngx_stream_module.so'].find(exists)
}

function exists(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return true
  } catch {
    return false
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const s = createServer().listen(0, '127.0.0.1', () => {
      const { port } = s.address() as AddressInfo
      s.close(() => resolve(port))
    })
  })
}

async function answers(port: number, why: () => string): Promise<void> {
  const { connect } = await import('node:net')
  for (let i = 0; i < 60; i++) {
    const up = await new Promise<boolean>((resolve) => {
      const s = connect(port, '127.0.0.1', () => (s.destroy(), resolve(true)))
      s.on('error', () => resolve(false))
    })
    if (up) return
    await sleep(50)
  }
  throw new Error(`nothing answers on port ${port}: ${why()}`)
}
