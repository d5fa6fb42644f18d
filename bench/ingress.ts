import { execFile, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeApi } from '../kube/testing/api.ts'
import { ingress, ingressClass, secret, service, slice } from '../kube/testing/builders.ts'
import { sleep } from '../lib/lifecycle.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import { endAll, findHttpProxy, libraries, startBackend, startCaddy, startHaproxy, startHttpProxy, startNginx, startOurs, statusOf, type Candidate } from './ingress-peers.ts'
import { find, median, type BenchContext, type Row } from './row.ts'

/** CPU of the proxies for the same work, rounds interleaved; then how soon a new route answers, and how much memory many take. */
export async function* rows(context: BenchContext): AsyncGenerator<Row> {
  yield* speed(context)
  yield* scale(context)
}

/** One kind of work, and what the ratios of ours to each peer should be. */
interface Work {
  readonly name: string
  readonly hosts: number
  readonly path?: string
  readonly body?: number
  readonly tls?: boolean
  readonly http2?: boolean
  /** A handshake for each request. */
  readonly closes?: boolean
  readonly connections?: number
  /** By driver, then by peer. */
  readonly bars: Readonly<Record<string, Readonly<Record<string, number>>>>
}

const kib64 = { epoll: { nginx: 0.9 } }
const mib10 = { epoll: { nginx: 1.05 } }
const works: readonly Work[] = [
  { name: 'small GET', hosts: 100, bars: { epoll: { nginx: 0.85, haproxy: 0.8, caddy: 0.2, 'http-proxy': 0.2 }, node: { nginx: 1.5 } } },
  { name: '10,000 hosts', hosts: 10_000, bars: { epoll: { nginx: 0.85 } } },
  { name: 'small GET over TLS 1.3', hosts: 100, tls: true, bars: { epoll: { nginx: 0.9 } } },
  { name: 'new handshakes', hosts: 100, tls: true, closes: true, bars: { epoll: { nginx: 1.05 } } },
  { name: 'HTTP/2 small GET', hosts: 1, tls: true, http2: true, bars: { epoll: { nginx: 3.3 } } },
  { name: 'GET of 64 KiB', hosts: 100, path: '/big', bars: kib64 },
  { name: 'POST of 64 KiB', hosts: 100, body: 65_536, bars: kib64 },
  { name: 'GET of 10 MiB', hosts: 100, path: '/huge', connections: 8, bars: mib10 },
  { name: 'POST of 10 MiB', hosts: 100, body: 10_485_760, connections: 8, bars: mib10 },
]

const halfLoad = 'p99 at half of nginx’s peak load'
const manyAgainstOne = '10,000 hosts against one'

async function* speed(context: BenchContext): AsyncGenerator<Row> {
  const wanted = works.filter((w) => context.wants(w.name))
  const half = context.wants(halfLoad)
  const one = context.wants(manyAgainstOne) && wanted.some((w) => w.hosts === 10_000)
  if (wanted.length === 0 && !half) return
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
  const h2load = wanted.some((w) => w.http2 === true) ? find('h2load', context) : undefined
  if (wanted.some((w) => w.http2 === true) && h2load === undefined) context.missing('h2load')
  const running: ChildProcess[] = []
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  await using api = await FakeApi.start()
  try {
    const backend = await startBackend(nginx, folder, running)
    const many = Array.from({ length: 10_000 }, (_, i) => `h${i}.bench.test`)
    const hosts = wanted.some((w) => w.hosts === 10_000) ? many : many.slice(0, 100)
    const identity = testAuthority().issue('h0.bench.test', '*.bench.test')
    api.putAll([
      ingressClass('sy'),
      service('b', { ports: ['http:80'] }),
      slice('b', ['127.0.0.1@n1'], [`http:${backend}`]),
      secret('cert', { 'tls.crt': identity.cert, 'tls.key': identity.key }, 'kubernetes.io/tls'),
    ])
    const key = (name: string): string => `nginx.ingress.kubernetes.io/${name}`
    const three = { [key('proxy-read-timeout')]: '30', [key('proxy-body-size')]: '20m', [key('x-forwarded-prefix')]: '/x' }
    const five = { ...three, [key('proxy-connect-timeout')]: '3', [key('denylist-source-range')]: '192.0.2.0/24' }
    hosts.forEach((host, i) => api.put(ingress(host.slice(0, host.indexOf('.')), { [host]: { '/': 'b:80', '/api': 'b:80', '/static': 'b:80' } }, { class: 'sy', annotations: i < 100 ? three : five })))

    const candidates: Candidate[] = [await startNginx(nginx, join(folder, 'nginx'), running, backend, hosts, identity)]
    for (const [name, start] of [
      ['haproxy', startHaproxy],
      ['caddy', startCaddy],
      ['http-proxy', startHttpProxy],
    ] as const) {
      const program = name === 'http-proxy' ? findHttpProxy(context) : find(name, context)
      if (program === undefined) context.missing(name)
      else candidates.push(await start(program, join(folder, name), running, backend, identity))
    }
    for (const sockets of ['epoll', 'node']) {
      const ours = await startOurs(api, sockets, running, folder)
      if (ours === undefined) context.progress(`ours on ${sockets}: does not run here`)
      else candidates.push(ours)
    }
    const ourOwn = candidates.filter((c) => c.name.startsWith('ours'))
    for (const work of wanted) {
      if (work.http2 === true && h2load === undefined) continue
      // The slow ones are there for the first row alone.
      const running = candidates.filter((c) => (c.name !== 'caddy' && c.name !== 'http-proxy') || work.name === 'small GET').filter((c) => work.tls !== true || c.tls !== undefined)
      const script = join(folder, 'load.lua')
      const single = join(folder, 'single.lua')
      writeFileSync(script, loadScript(hosts.slice(0, work.hosts), work))
      writeFileSync(single, loadScript(hosts.slice(0, 1), work))
      const how: Load = { wrk, h2load, script, connections: work.connections ?? 64, tls: work.tls === true, http2: work.http2 === true }
      const entrants = [...running.map((c) => ({ name: c.name, c, how })), ...(one && work.hosts === 10_000 ? ourOwn.map((c) => ({ name: `${c.name} one`, c, how: { ...how, script: single } })) : [])]
      const costs = new Map<string, number[]>(entrants.map((e) => [e.name, []]))
      const rates = new Map<string, number[]>(entrants.map((e) => [e.name, []]))
      for (const e of entrants) await load(e.c, e.how, 1).catch(() => {})
      for (let round = 0; round < 5; round++) {
        for (const e of entrants) {
          if (context.signal.aborted) return
          context.progress(`${work.name}: round ${round + 1} of 5, ${e.name}`)
          const { micros, rate } = await load(e.c, e.how, 2)
          costs.get(e.name)!.push(micros)
          rates.get(e.name)!.push(rate)
        }
      }
      const against = (ours: Candidate, peer: string, called: string, bar: number | undefined): Row => {
        const mine = costs.get(ours.name)!
        const theirs = costs.get(peer)!
        return {
          name: `${work.name}, ${ours.name.slice(6)} (${Math.round(median(rates.get(ours.name)!))}/s)`,
          ours: median(mine),
          spread: [Math.min(...mine), Math.max(...mine)],
          unit: 'µs CPU a request',
          // The ratio of each round, so that what else the machine did falls out.
          peer: { name: called, value: median(mine) / median(mine.map((v, i) => v / theirs[i]!)) },
          ...(bar === undefined ? {} : { bar: { of: 'ratio', value: bar } }),
        }
      }
      for (const ours of ourOwn) {
        for (const peer of running.filter((c) => !c.name.startsWith('ours'))) yield against(ours, peer.name, peer.name, work.bars[ours.name.slice(6)]?.[peer.name])
        if (one && work.hosts === 10_000) yield { ...against(ours, `${ours.name} one`, 'one host', ours.name.endsWith('epoll') ? 1.6 : undefined), name: `${manyAgainstOne}, ${ours.name.slice(6)}` }
      }
    }
    if (half) yield* latency(context, wrk, candidates, join(folder, 'half.lua'), hosts.slice(0, 100))
  } finally {
    await endAll(running)
    rmSync(folder, { recursive: true, force: true })
  }
}

/** 64 connections that think between requests, so that together they ask half of what nginx can answer. */
async function* latency(context: BenchContext, wrk: string, candidates: readonly Candidate[], script: string, hosts: readonly string[]): AsyncGenerator<Row> {
  const work: Work = { name: halfLoad, hosts: 100, bars: {} }
  const how: Load = { wrk, h2load: undefined, script, connections: 64, tls: false, http2: false }
  writeFileSync(script, loadScript(hosts, work))
  const peak = (await load(candidates[0]!, how, 2)).rate
  const pause = Math.max(1, Math.round((64 / (peak / 2)) * 1000))
  writeFileSync(script, `${loadScript(hosts, work)}function delay() return math.random(0, ${pause * 2}) end\n`)
  const entrants = candidates.filter((c) => c.name === 'nginx' || c.name.startsWith('ours'))
  const got = new Map<string, number[]>(entrants.map((c) => [c.name, []]))
  for (let round = 0; round < 5; round++) {
    for (const c of entrants) {
      if (context.signal.aborted) return
      context.progress(`${halfLoad}: round ${round + 1} of 5, ${c.name}`)
      got.get(c.name)!.push((await load(c, how, 3)).p99)
    }
  }
  const theirs = got.get('nginx')!
  for (const c of entrants.filter((e) => e.name !== 'nginx')) {
    const mine = got.get(c.name)!
    yield {
      name: `${halfLoad}, ${c.name.slice(6)} (${Math.round(peak / 2)}/s)`,
      ours: median(mine),
      spread: [Math.min(...mine), Math.max(...mine)],
      unit: 'ms',
      peer: { name: 'nginx', value: median(mine) / median(mine.map((v, i) => v / theirs[i]!)) },
      ...(c.name.endsWith('epoll') ? { bar: { of: 'ratio', value: 1.5 } } : {}),
    }
  }
}

async function* scale(context: BenchContext): AsyncGenerator<Row> {
  if (!context.wants('a new route answers, 5,000 Ingresses there') && !context.wants('memory at 5,000 Ingresses') && !context.wants('memory of 10,000 idle WebSockets on top')) return
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  const running: ChildProcess[] = []
  const backend = http.createServer((_request, response) => response.end('b'))
  const ends: import('node:stream').Duplex[] = []
  backend.on('upgrade', (_request, socket) => {
    ends.push(socket)
    socket.on('error', () => {})
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
  })
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
    // The first ones are answered by code that was never run before; they are left out.
    const unmeasured = 5
    const agent = new http.Agent({ keepAlive: true })
    for (let n = 0; n < 200 + unmeasured && !context.signal.aborted; n++) {
      const host = `new${n}.bench.test`
      api.put(ingress(`new${n}`, { [host]: { '/': 'b:80' } }, { class: 'sy', metadata: { creationTimestamp: '2026-01-02T00:00:00Z', uid: `new${n}` } }))
      const began = performance.now()
      while ((await statusOf(agent, ours.port, host)) !== 200) if (performance.now() - began > 5000) throw new Error('a new route does not answer')
      if (n >= unmeasured) took.push(performance.now() - began)
      await sleep(20)
    }
    agent.destroy()
    took.sort((a, b) => a - b)
    yield { name: 'a new route answers, 5,000 Ingresses there, p99', ours: took[Math.floor(took.length * 0.99)]!, spread: [took[0]!, took.at(-1)!], unit: 'ms', bar: { of: 'figure', value: 20 } }
    yield { name: 'a new route answers, 5,000 Ingresses there, p50', ours: median(took), unit: 'ms' }
    const before = residentMiB(ours.pid)
    yield { name: 'memory at 5,000 Ingresses', ours: before, unit: 'MiB', bar: { of: 'figure', value: 150 } }
    if (!context.wants('memory of 10,000 idle WebSockets on top')) return
    const clients: net.Socket[] = []
    for (let i = 0; i < 10_000 && !context.signal.aborted; i += 100) {
      context.progress(`opening WebSockets: ${i}`)
      await Promise.all(
        Array.from(
          { length: 100 },
          () =>
            new Promise<void>((resolve, reject) => {
              const socket = net.connect(ours.port, '127.0.0.1')
              clients.push(socket)
              socket.once('data', () => resolve())
              socket.on('error', reject)
              socket.write('GET / HTTP/1.1\r\nHost: h0.bench.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n')
            }),
        ),
      )
    }
    await sleep(2000)
    yield { name: 'memory of 10,000 idle WebSockets on top', ours: residentMiB(ours.pid) - before, unit: 'MiB', bar: { of: 'figure', value: 60 } }
    for (const socket of clients) socket.destroy()
    for (const socket of ends) socket.destroy()
  } finally {
    await endAll(running)
    backend.closeAllConnections()
    backend.close()
    rmSync(folder, { recursive: true, force: true })
  }
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

/** What asks, and how. */
interface Load {
  readonly wrk: string
  readonly h2load: string | undefined
  readonly script: string
  readonly connections: number
  readonly tls: boolean
  readonly http2: boolean
}

/** `seconds` of load; what each request cost, and the 99th of a hundred latencies in ms. */
async function load(c: Candidate, how: Load, seconds: number): Promise<{ micros: number; rate: number; p99: number }> {
  const before = cpuOf(c.pid)
  const port = how.tls ? c.tls! : c.port
  const [program, words] = how.http2
    ? [how.h2load!, ['-t1', '-c16', '-m8', `-D${seconds}`, '--warm-up-time=0', '-H', ':authority: h0.bench.test', `https://127.0.0.1:${port}/`]]
    : [how.wrk, ['-t1', `-c${how.connections}`, `-d${seconds}`, '--latency', '--timeout', '20s', '-s', how.script, `${how.tls ? 'https' : 'http'}://127.0.0.1:${port}/`]]
  const out = await new Promise<string>((resolve, reject) => execFile(program, words, { env: libraries(program) }, (error, stdout) => (error === null ? resolve(stdout) : reject(error))))
  const after = cpuOf(c.pid)
  const n = how.http2 ? Number(/(\d+) succeeded/.exec(out)?.[1]) : Number(/(\d+) requests in/.exec(out)?.[1])
  // A busy machine may not finish one of the large ones in time.
  if (n === 0 && seconds < 20) return load(c, how, seconds * 3)
  if (!(n > 0) || /Non-2xx|Socket errors|[1-9]\d* (failed|errored)/.test(out)) throw new Error(`${c.name}: ${out}`)
  const p99 = /99%\s+([\d.]+)(us|ms|s)/.exec(out)
  return { micros: (after - before) / 1000 / n, rate: n / seconds, p99: Number(p99?.[1]) * { us: 0.001, ms: 1, s: 1000 }[(p99?.[2] ?? 'ms') as 'ms'] }
}

/** 2,048 prepared requests over all hosts and three paths, with the head of a browser. */
function loadScript(hosts: readonly string[], { body, path, closes }: Work): string {
  return `
local hosts = { ${hosts.map((h) => `"${h}"`).join(',')} }
local paths = { ${path === undefined ? '"/", "/api/users/1", "/static/app.js?v=3"' : `"${path}"`} }
local requests, n = {}, 0
local head = {
  ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", ["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  ["Accept-Language"] = "en-US,en;q=0.5", ["Accept-Encoding"] = "gzip, deflate", ["Cookie"] = "session=0123456789abcdef0123456789abcdef; theme=dark", ["Sec-Fetch-Dest"] = "document",
  ["Sec-Fetch-Mode"] = "navigate", ["Sec-Fetch-Site"] = "none", ["Priority"] = "u=0, i", ["Connection"] = "${closes === true ? 'close' : 'keep-alive'}" }
function init(args)
  local body = ${body === undefined ? 'nil' : `string.rep("x", ${body})`}
  for i = 1, ${body !== undefined && body > 1_000_000 ? 4 : 2048} do
    head["Host"] = hosts[(i * 7919) % #hosts + 1]
    requests[i] = wrk.format("${body === undefined ? 'GET' : 'POST'}", paths[i % #paths + 1], head, body)
  end
end
function request() n = n % #requests + 1; return requests[n] end
`
}
