import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silent } from '../lib/log.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import { sleep } from '../lib/lifecycle.ts'
import { Forwarder, forwardDefaults } from '../dns/forward.ts'
import { a, upstream } from '../dns/testing/upstream.ts'
import { nameOf, fold } from '../dns/wire/name.ts'
import { FakeApi } from '../kube/testing/api.ts'
import { namespace, service, slice } from '../kube/testing/builders.ts'
import type { KubeObject } from '../kube/objects.ts'
import { find, median, type BenchContext, type Row } from './row.ts'

const root = join(import.meta.dirname, '..')

/** A server that runs and can be measured. */
interface Candidate {
  readonly name: string
  readonly port: number
  readonly pid: number
}

interface Questions {
  readonly name: string
  /** What dnsperf asks, and the rcode every answer must have. */
  readonly lines: readonly string[]
  readonly rcode: 'NOERROR' | 'NXDOMAIN'
  /** Bars as ratios to peers. */
  readonly bars: Readonly<Record<string, number>>
  readonly large?: boolean
  /** Names that only ours has. */
  readonly own?: boolean
  /** Questions a second; as many as there is time for if left out. */
  readonly rate?: number
  /** Bar as a ratio to the row of A records. */
  readonly besideA?: number
}

const small = Array.from({ length: 1000 }, (_, i) => `s${i}.shop.svc.cluster.local`)
const services = Array.from({ length: 10_000 }, (_, i) => `t${i}`)
/** Ten endpoints with hostnames each, in no order that a cache would like. */
const large = Array.from({ length: 100_000 }, (_, i) => (i * 7919) % 100_000).map((i) => `e${i % 10}.t${Math.floor(i / 10)}.shop.svc.cluster.local`)
const nap = 'ours, nap 50 µs'
const addressOf = (i: number): string => `10.${100 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`

/** A headless Service with `n` endpoints that have hostnames. */
const many = (name: string, n: number): KubeObject[] => [
  service(`shop/${name}`, { clusterIP: 'None', ports: ['http:80'] }),
  slice(
    `shop/${name}`,
    Array.from({ length: n }, (_, j) => `${addressOf(20_000 + j)} hostname=e${j}`),
    ['http:8080'],
  ),
]
const epollBar = 0.5

const lines = (names: readonly string[], type: string): readonly string[] => names.map((n) => `${n} ${type}`)
const asked: readonly Questions[] = [
  { name: 'cluster A', lines: lines(small, 'A'), rcode: 'NOERROR', bars: { knotd: 0.95, dnsmasq: 0.7, coredns: 0.2, 'ours on dgram': epollBar } },
  { name: 'AAAA NODATA', lines: lines(small, 'AAAA'), rcode: 'NOERROR', bars: {}, besideA: 1.3 },
  { name: 'search-list NXDOMAIN', lines: small.map((n) => `www.example.com.${n.slice(n.indexOf('.') + 1)} A`), rcode: 'NXDOMAIN', bars: {}, besideA: 1.3 },
  { name: 'SRV of 100 endpoints', lines: ['_http._tcp.big.shop.svc.cluster.local SRV'], rcode: 'NOERROR', bars: {}, own: true, besideA: 3 },
  { name: 'forwarded, cached', lines: Array.from({ length: 1000 }, (_, i) => `f${i}.example.org A`), rcode: 'NOERROR', bars: {}, own: true, besideA: 1.5 },
  { name: 'cluster A, 40,000 a second', lines: lines(small, 'A'), rcode: 'NOERROR', bars: { knotd: 1.1 }, rate: 40_000 },
  { name: '100,000 names A', lines: lines(large, 'A'), rcode: 'NOERROR', bars: { knotd: 0.7, dnsmasq: 0.6 }, large: true },
]

/** CPU a question at saturation beside other servers, rounds interleaved; then how soon a change is answered, start and memory with many objects. */
export async function* rows(context: BenchContext): AsyncGenerator<Row> {
  yield* saturation(context)
  yield* changes(context)
  yield* scale(context)
}

async function* saturation(context: BenchContext): AsyncGenerator<Row> {
  const wanted = asked.filter((q) => context.wants(q.name))
  if (wanted.length === 0) return
  const dnsperf = find('dnsperf', context)
  if (dnsperf === undefined) return context.missing('dnsperf')
  const running: ChildProcess[] = []
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  const ending: (() => Promise<void>)[] = []
  await using api = await FakeApi.start()
  try {
    const all = wanted.some((q) => q.large === true)
    const names = all ? [...small, ...large] : small
    api.putAll([namespace('shop'), ...small.map((n, i) => service(`shop/${n.slice(0, n.indexOf('.'))}`, { clusterIP: addressOf(i), ports: ['http:80'] })), ...many('big', 100)])
    if (all) api.putAll(services.flatMap((name) => many(name, 10)))
    const up = await upstream((m) => ({ answers: [{ ...a('x', '192.0.2.1', 3600), name: m.questions[0]!.name }] }))
    ending.push(() => up.close())
    const candidates: Candidate[] = []
    for (const [name, ...how] of [
      ['ours', '--sockets', 'epoll'],
      ['ours on dgram', '--sockets', 'node'],
      ...(wanted.some((q) => q.rate !== undefined) ? [[nap, '--sockets', 'epoll', '--nap', '50us']] : []),
    ]) {
      candidates.push({ ...(await startOurs(api, folder, running, how, names.at(-1)!, up.port)), name: name! })
    }
    for (const [name, start] of [
      ['knotd', startKnot],
      ['unbound', startUnbound],
      ['dnsmasq', startDnsmasq],
    ] as const) {
      const path = find(name, context)
      if (path === undefined) context.missing(name)
      else candidates.push(await start(path, folder, running, names))
    }
    const coredns = context.peers.get('coredns')
    if (coredns !== undefined) candidates.push(await startCoredns(coredns, folder, running, api))
    const figures = new Map<string, Map<string, number[]>>()
    for (const q of wanted) {
      const file = join(folder, `${q.name.replaceAll(/\W/g, '-')}.txt`)
      writeFileSync(file, `${q.lines.join('\n')}\n`)
      const runners = candidates.filter((c) => (q.own !== true || c.name.startsWith('ours')) && (q.rate !== undefined || c.name !== nap))
      const costs = new Map<string, number[]>(runners.map((c) => [c.name, []]))
      figures.set(q.name, costs)
      for (const c of runners) await load(dnsperf, c, file, q, 1)
      for (let round = 0; round < 5; round++) {
        for (const c of runners) {
          if (context.signal.aborted) return
          context.progress(`${q.name}: round ${round + 1} of 5, ${c.name}`)
          costs.get(c.name)!.push(await load(dnsperf, c, file, q, 2))
        }
      }
      const ours = runners[0]!
      const mine = costs.get(ours.name)!
      const spread = [Math.min(...mine), Math.max(...mine)] as const
      for (const peer of runners.slice(1)) {
        const theirs = costs.get(peer.name)!
        // The ratio is the median of the ratios of each round: the machine is never equally quiet twice.
        const ratio = median(mine.map((m, i) => m / theirs[i]!))
        const bar = q.bars[peer.name]
        yield {
          name: `${q.name}, ${ours.name}`,
          ours: median(mine),
          unit: 'µs CPU',
          spread,
          peer: { name: peer.name, value: median(mine) / ratio },
          ...(bar === undefined ? {} : { bar: { of: 'ratio', value: bar } }),
        }
      }
      const napping = costs.get(nap)
      const knot = costs.get('knotd')
      if (napping !== undefined && knot !== undefined)
        yield {
          name: `${q.name}, nap 50 µs`,
          ours: median(napping),
          unit: 'µs CPU',
          peer: { name: 'knotd', value: median(napping) / median(napping.map((m, k) => m / knot[k]!)) },
          bar: { of: 'ratio', value: 0.75 },
        }
      const plain = figures.get('cluster A')?.get(ours.name)
      if (q.besideA !== undefined && plain !== undefined)
        yield { name: `${q.name}, beside A`, ours: median(mine), unit: 'µs CPU', peer: { name: 'cluster A', value: median(plain) }, bar: { of: 'ratio', value: q.besideA } }
    }
  } finally {
    for (const end of ending) await end()
    for (const child of running) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

async function* changes(context: BenchContext): AsyncGenerator<Row> {
  const name = 'object change → answer, p99'
  if (!context.wants(name)) return
  const running: ChildProcess[] = []
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  await using api = await FakeApi.start()
  const driver = openNode()
  try {
    api.putAll([namespace('shop'), ...small.map((n, i) => service(`shop/${n.slice(0, n.indexOf('.'))}`, { clusterIP: addressOf(i) }))])
    const ours = await startOurs(api, folder, running, ['--sockets', 'auto'], small.at(-1)!)
    const forwarder = new Forwarder(driver, { ...forwardDefaults, maxFails: 0, upstreams: [{ host: '127.0.0.1', port: ours.port }] }, silent)
    const took: number[] = []
    for (let i = 0; i < 200 && !context.signal.aborted; i++) {
      if (i % 50 === 0) context.progress(`${name}: ${i} of 200`)
      const began = performance.now()
      api.put(service('shop/changing', { clusterIP: addressOf(20_000 + i) }))
      const wanted = String.fromCharCode(
        ...addressOf(20_000 + i)
          .split('.')
          .map(Number),
      )
      for (;;) {
        const answer = await forwarder.ask({ name: fold(nameOf('changing.shop.svc.cluster.local')), type: 1, dnssec: false, checkingDisabled: false })
        if (answer.answers[0]?.data === wanted || performance.now() - began > 5000) break
      }
      took.push(performance.now() - began)
      await sleep(5)
    }
    forwarder.close()
    const sorted = took.toSorted((a, b) => a - b)
    yield { name, ours: sorted[Math.ceil(sorted.length * 0.99) - 1]!, unit: 'ms', spread: [sorted[0]!, sorted.at(-1)!], bar: { of: 'figure', value: 10 } }
  } finally {
    await driver.close()
    for (const child of running) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

async function* scale(context: BenchContext): AsyncGenerator<Row> {
  const first = '10,000 Services, 100,000 endpoints: first answer'
  const memory = '10,000 Services, 100,000 endpoints: memory'
  if (!context.wants(first) && !context.wants(memory)) return
  const running: ChildProcess[] = []
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  await using api = await FakeApi.start()
  try {
    const objects: KubeObject[] = [namespace('shop')]
    for (const [i, n] of services.entries()) {
      const name = `shop/${n}`
      objects.push(service(name, { clusterIP: addressOf(i), ports: ['http:80'] }))
      objects.push(
        slice(
          name,
          Array.from({ length: 10 }, (_, j) => `10.${i >> 8}.${i & 255}.${j + 1}`),
          ['http:8080'],
        ),
      )
    }
    api.putAll(objects)
    context.progress(first)
    const began = performance.now()
    const ours = await startOurs(api, folder, running, ['--sockets', 'auto'], `${services.at(-1)!}.shop.svc.cluster.local`)
    yield { name: first, ours: (performance.now() - began) / 1000, unit: 's', bar: { of: 'figure', value: 3 } }
    await sleep(2000)
    const rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${ours.pid}/status`, 'utf8'))![1]) / 1024
    yield { name: memory, ours: rss, unit: 'MB', bar: { of: 'figure', value: 200 } }
  } finally {
    for (const child of running) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Microseconds of CPU a question. Throws when an answer is not what it must be: a fast wrong answer is no figure. */
async function load(dnsperf: string, c: Candidate, file: string, q: Pick<Questions, 'rcode' | 'rate'>, seconds: number): Promise<number> {
  const before = cpuOf(c.pid)
  const out = await output(dnsperf, ['-s', '127.0.0.1', '-p', String(c.port), '-d', file, '-c', '10', '-q', '100', '-l', String(seconds), ...(q.rate === undefined ? [] : ['-Q', String(q.rate)])])
  const micros = cpuOf(c.pid) - before
  const completed = Number(/Queries completed:\s+(\d+)/.exec(out)?.[1])
  const share = Number(new RegExp(`Response codes:.*${q.rcode} (\\d+)`).exec(out)?.[1])
  if (!(completed > 0) || share < completed * 0.999) throw new Error(`${c.name}: not all answers are ${q.rcode}:\n${out}`)
  return micros / completed
}

/** Microseconds of CPU of a process, all its threads. */
function cpuOf(pid: number): number {
  let sum = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      sum += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0]) / 1000
    } catch {}
  }
  return sum
}

/** What a usual Corefile switches on. */
const corefile = (port: number, up = 9): string => `.:${port} {
  bind 127.0.0.1
  errors
  health 127.0.0.1:0
  ready 127.0.0.1:0
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
  }
  prometheus 127.0.0.1:0
  forward . 127.0.0.1:${up}
  cache 30
  loadbalance
}
`

/** Throws with its last words where it does not answer: nobody else's figure may stand for ours. */
async function startOurs(api: FakeApi, folder: string, running: ChildProcess[], how: readonly string[], last: string, up?: number): Promise<Candidate> {
  const port = await freePort()
  const path = join(folder, `Corefile-${port}`)
  writeFileSync(path, corefile(port, up))
  // One worker, as the others have one thread: with more the batches are smaller, and the machine's other core is dnsperf's.
  const args = ['dns', '--kubeconfig', api.kubeconfig(), '--config', path, '--listen', `127.0.0.1:${port}`, '--status', '127.0.0.1:0', '--workers', '1', ...how]
  return started('ours', join(root, 'switchyard'), args, port, running, last)
}

async function startKnot(path: string, folder: string, running: ChildProcess[], names: readonly string[]): Promise<Candidate> {
  const port = await freePort()
  const home = join(folder, 'knot')
  mkdirSync(home)
  const zone = ['$TTL 5', '@ SOA ns.dns hostmaster 1 7200 1800 86400 5', '@ NS ns.dns', 'ns.dns A 10.96.0.10', ...names.map((n, i) => `${n}. A ${addressOf(i)}`)]
  writeFileSync(join(home, 'cluster.local.zone'), `${zone.join('\n')}\n`)
  writeFileSync(
    join(home, 'knot.conf'),
    `server:\n    rundir: "${home}"\n    listen: 127.0.0.1@${port}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\ndatabase:\n    storage: "${home}"\nlog:\n  - target: stderr\n    any: error\nzone:\n  - domain: cluster.local\n    storage: "${home}"\n    file: cluster.local.zone\n    semantic-checks: off\n`,
  )
  return started('knotd', path, ['-c', join(home, 'knot.conf')], port, running, names.at(-1)!)
}

async function startUnbound(path: string, folder: string, running: ChildProcess[], names: readonly string[]): Promise<Candidate> {
  const port = await freePort()
  const file = join(folder, 'unbound.conf')
  const lines = [
    'server:',
    'username: ""',
    'chroot: ""',
    'use-syslog: no',
    `directory: "${folder}"`,
    `pidfile: "${folder}/unbound.pid"`,
    'interface: 127.0.0.1',
    `port: ${port}`,
    'num-threads: 1',
    'do-daemonize: no',
    'local-zone: "cluster.local." static',
  ]
  for (const [i, n] of names.entries()) lines.push(`local-data: "${n}. 5 IN A ${addressOf(i)}"`)
  writeFileSync(file, `${lines.join('\n')}\nremote-control:\n  control-enable: no\n`)
  return started('unbound', path, ['-d', '-c', file], port, running, names.at(-1)!)
}

async function startDnsmasq(path: string, folder: string, running: ChildProcess[], names: readonly string[]): Promise<Candidate> {
  const port = await freePort()
  const hosts = join(folder, 'dnsmasq.hosts')
  writeFileSync(hosts, names.map((n, i) => `${addressOf(i)} ${n}\n`).join(''))
  return started(
    'dnsmasq',
    path,
    [
      '--keep-in-foreground',
      '--no-resolv',
      '--no-hosts',
      '--conf-file=/dev/null',
      `--addn-hosts=${hosts}`,
      '--local=/cluster.local/',
      '--bind-interfaces',
      '--listen-address=127.0.0.1',
      `--port=${port}`,
      '--cache-size=20000',
      '--user=root',
      '--pid-file=',
    ],
    port,
    running,
    names.at(-1)!,
  )
}

async function startCoredns(path: string, folder: string, running: ChildProcess[], api: FakeApi): Promise<Candidate> {
  const port = await freePort()
  const file = join(folder, 'Corefile-coredns')
  writeFileSync(file, corefile(port).replace('kubernetes cluster.local in-addr.arpa ip6.arpa {', `kubernetes cluster.local in-addr.arpa ip6.arpa {\n    kubeconfig ${api.kubeconfig()}`))
  return started('coredns', path, ['-conf', file], port, running, small.at(-1)!, { KUBE_FEATURE_WatchListClient: 'false' })
}

async function started(name: string, path: string, args: readonly string[], port: number, running: ChildProcess[], last: string, env: Readonly<Record<string, string>> = {}): Promise<Candidate> {
  const child = spawn(path, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env } })
  running.push(child)
  let said = ''
  child.stderr.on('data', (b: Buffer) => (said = (said + b.toString()).slice(-2000)))
  if (!(await answers(port, child, last))) throw new Error(`${name} does not answer: ${said}`)
  return { name, port, pid: child.pid! }
}

/** Waits until the name has an address. */
async function answers(port: number, child: ChildProcess, name: string): Promise<boolean> {
  const driver = openNode()
  const forwarder = new Forwarder(driver, { ...forwardDefaults, maxFails: 0, tryTimeout: 200, timeout: 300, upstreams: [{ host: '127.0.0.1', port }] }, silent)
  try {
    const late = performance.now() + 120_000
    while (performance.now() < late && child.exitCode === null) {
      if ((await forwarder.ask({ name: fold(nameOf(name)), type: 1, dnssec: false, checkingDisabled: false })).answers.length > 0) return true
      await sleep(20)
    }
    return false
  } finally {
    forwarder.close()
    await driver.close()
  }
}

function output(path: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    child.stdout.on('data', (b: Buffer) => (out += b.toString()))
    child.stderr.on('data', (b: Buffer) => (out += b.toString()))
    child.once('error', reject)
    child.once('exit', () => resolve(out))
  })
}

async function freePort(): Promise<number> {
  const s = createServer()
  await new Promise<void>((r) => s.listen(0, '127.0.0.1', r))
  const { port } = s.address() as AddressInfo
  await new Promise<void>((r) => s.close(() => r()))
  return port
}
