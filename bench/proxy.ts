import { execFileSync, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { FakeApi } from '../kube/testing/api.ts'
import { node, service, slice } from '../kube/testing/builders.ts'
import type { EndpointSlice, Service } from '../kube/objects.ts'
import type { Cidr, Ip } from '../lib/ip.ts'
import { silent } from '../lib/log.ts'
import { parse } from '../lib/options.ts'
import { seeded } from '../lib/random.ts'
import { trace } from '../linux/iptables/trace.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { realKernel } from '../linux/real.ts'
import type { Backend } from '../proxy/backend.ts'
import { modeNamed } from '../proxy/backends.ts'
import { Compiler, compile, type CompileOptions } from '../proxy/compile.ts'
import { print } from '../proxy/iptables/print.ts'
import { render } from '../proxy/iptables/render.ts'
import { flags, proxyOptions } from '../proxy/options.ts'
import { ofRounds, type BenchContext, type Row } from './row.ts'

/** A way to run: the mode, and which iptables. */
interface Way {
  readonly name: string
  readonly mode: string
  readonly variant?: 'legacy' | 'nft'
}
const ways: readonly Way[] = [
  { name: 'nftables', mode: 'nftables' },
  { name: 'iptables-legacy', mode: 'iptables', variant: 'legacy' },
  { name: 'iptables-nft', mode: 'iptables', variant: 'nft' },
]
const options: CompileOptions = { node: 'n1', clusterCidrs: ['10.244.0.0/16' as Cidr], serviceCidrs: ['10.96.0.0/12' as Cidr] }

const bars = {
  cold: { nftables: 1500, 'iptables-legacy': 1500, 'iptables-nft': 2000 },
  cold30: { nftables: 4000, 'iptables-legacy': 4000, 'iptables-nft': 5000 },
  change: { nftables: 5, 'iptables-legacy': 120, 'iptables-nft': 40 },
} as Readonly<Record<string, Readonly<Record<string, number>>>>

/** What issue 13 asks of the proxy, measured in network namespaces of their own. */
export async function* rows(context: BenchContext): AsyncIterable<Row> {
  for (const way of ways) {
    const cold = `cold start, 10,000 × 2, ${way.name}`
    const memory = `memory of the proxy, 10,000 × 2, ${way.name}`
    if (context.wants(cold) || context.wants(memory)) {
      const rounds = many(context, cold, 3, () => inside<Cold>(['cold', way.name, '10000', '2']))
      yield ofRounds(
        cold,
        'ms',
        rounds.map((r) => r.wall),
        { bar: { value: bars.cold![way.name]!, of: 'figure' } },
      )
      yield ofRounds(
        `${cold}: CPU`,
        'ms',
        rounds.map((r) => r.cpu),
      )
      yield ofRounds(
        memory,
        'MiB',
        rounds.map((r) => r.rss),
        { bar: { value: 150, of: 'figure' } },
      )
    }
    const change = `one endpoint replaced, 10,000 × 2, ${way.name}`
    if (context.wants(change)) {
      const { rounds, cpu } = inside<{ rounds: number[]; cpu: number[] }>(['change', way.name, '10000', '2'])
      yield ofRounds(change, 'ms', rounds, { bar: { value: bars.change![way.name]!, of: 'figure' } })
      yield ofRounds(`${change}: CPU of the process`, 'ms', cpu)
    }
    const big = `cold start, 30,000 × 2, ${way.name}`
    if (context.wants(big))
      yield ofRounds(
        big,
        'ms',
        many(context, big, 2, () => inside<Cold>(['cold', way.name, '30000', '2'])).map((r) => r.wall),
        { bar: { value: bars.cold30![way.name]!, of: 'figure' } },
      )
  }
  const crowd = 'cold start, 5,000 × 50, nftables'
  if (context.wants(crowd))
    yield ofRounds(
      crowd,
      'ms',
      many(context, crowd, 2, () => inside<Cold>(['cold', 'nftables', '5000', '50'])).map((r) => r.wall),
      { bar: { value: 6000, of: 'figure' } },
    )
  for (const count of [100, 10_000, 30_000]) {
    const met = `rules met by a new connection, ${count} Services, iptables`
    if (!context.wants(met)) continue
    const all = rulesMet(count)
    yield ofRounds(met, 'rules', all)
    yield { name: `${met}: most`, ours: Math.max(...all), unit: 'rules', bar: { value: 64, of: 'figure' } }
  }
  const compiled = 'compile 10,000 × 2 from nothing'
  if (context.wants(compiled)) {
    const objects = herd(10_000, 2)
    yield ofRounds(
      compiled,
      'ms',
      Array.from({ length: 5 }, () => timed(() => compile(objects, options))),
    )
  }
}

interface Cold {
  readonly wall: number
  readonly cpu: number
  readonly rss: number
}

function many<T>(context: BenchContext, name: string, rounds: number, f: () => T): readonly T[] {
  return Array.from({ length: rounds }, (_, i) => {
    context.progress(`${name}: ${i + 1} of ${rounds}`)
    return f()
  })
}

function timed(f: () => unknown): number {
  const began = performance.now()
  f()
  return performance.now() - began
}

/** Runs this file in namespaces of its own and reads what it prints. */
function inside<T>(args: readonly string[]): T {
  const root = join(import.meta.dirname, '..')
  const script = 'mount -t tmpfs none /run && ip link set lo up && exec "$0" "$@"'
  const text = execFileSync('unshare', ['-n', '-m', '-p', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script, 'sh', join(root, 'scripts/node'), import.meta.filename, '--inside', ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  })
  return JSON.parse(text.trim().split('\n').at(-1)!) as T
}

/** Services with addresses scattered over a /16 and more, packed endpoints. */
function herd(count: number, endpoints: number): { readonly services: readonly Service[]; readonly slices: readonly EndpointSlice[] } {
  const services: Service[] = []
  const slices: EndpointSlice[] = []
  for (let i = 0; i < count; i++) {
    services.push(service(`demo/web-${i}`, { clusterIP: clusterIp(i), ports: ['http:80->8080'] }))
    slices.push(endpointsOf(i, endpoints, 0))
  }
  return { services, slices }
}

/** Addresses as allocators draw them: at random, over a /16 for the first 65,536. */
const scattered = ((): readonly number[] => {
  const random = seeded(13)
  const all = Array.from({ length: 65_536 }, (_, i) => i)
  for (let i = all.length - 1; i > 0; i--) {
    const k = Math.floor(random() * (i + 1))
    ;[all[i], all[k]] = [all[k]!, all[i]!]
  }
  return all
})()
const clusterIp = (i: number): string => `10.${96 + (i >> 16)}.${scattered[i & 65_535]! >> 8}.${scattered[i & 65_535]! & 255}`
const endpointsOf = (i: number, count: number, shift: number): EndpointSlice =>
  slice(
    `demo/web-${i}`,
    Array.from({ length: count }, (_, k) => {
      const n = (i * count + k + shift) % 65_000
      return `10.${244 + Math.floor(((i * count + k) / 65_000) % 8)}.${n >> 8}.${n & 255}@n${(n % 7) + 1}`
    }),
    ['http:8080'],
  )

/** How many rules a first packet is held against, for two hundred Services of `count`. */
function rulesMet(count: number): readonly number[] {
  const { table } = compile(herd(count, 2), options)
  const machine = { ...print(render(table, 4)), local: ['192.168.56.11'] }
  const out: number[] = []
  const step = Math.max(1, Math.floor(count / 200))
  for (let i = 0; i < count; i += step) {
    const found = trace(machine, { family: 4, protocol: 'tcp', source: '10.244.0.9' as Ip, sourcePort: 40_000, destination: clusterIp(i) as Ip, destinationPort: 80, from: 'pod' })
    out.push(found.reduce((sum, w) => sum + w.probability * w.tested, 0))
  }
  return out
}

async function backendOf(way: Way): Promise<Backend> {
  const o = proxyOptions(parse(flags, ['--node', 'n1', '--mode', way.mode]).values, 'n1')
  const kernel = realKernel({ iptables: way.variant === 'legacy' ? 'legacy' : 'nf_tables', openNetlink })
  return modeNamed(way.mode)!.load({ kernel, log: silent, options: o })
}

/** From the start of the process to its ready line: everything is in the kernel. */
async function cold(way: Way, count: number, endpoints: number): Promise<Cold> {
  const api = await FakeApi.start()
  api.put(node('n1', { ip: '192.168.56.11' }))
  const { services, slices } = herd(count, endpoints)
  for (const o of [...services, ...slices]) api.put(o)
  const began = performance.now()
  const argv = [
    'proxy',
    '--kubeconfig',
    api.kubeconfig(),
    '--node',
    'n1',
    '--mode',
    way.mode,
    '--cluster-cidr',
    '10.244.0.0/16',
    '--service-cidr',
    '10.96.0.0/12',
    ...(way.variant === undefined ? [] : ['--iptables-variant', way.variant]),
  ]
  const child = spawn(join(import.meta.dirname, '../switchyard'), argv, { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (b: Buffer) => {
      said += b.toString()
      if (said.includes('"ready"')) resolve()
    })
    child.once('exit', () => reject(new Error(`the proxy ended: ${said}`)))
  })
  const wall = performance.now() - began
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  // utime, stime, and those of its children; a tick is 10 ms.
  const cpu = [11, 12, 13, 14].reduce((sum, i) => sum + Number(stat[i]), 0) * 10
  const rss = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024
  child.removeAllListeners('exit')
  child.kill()
  await api.close()
  return { wall, cpu, rss }
}

/** From one slice that changed to the kernel's word that it is done. */
async function change(way: Way, count: number, endpoints: number): Promise<{ readonly rounds: readonly number[]; readonly cpu: readonly number[] }> {
  const compiler = new Compiler(options)
  const { services, slices } = herd(count, endpoints)
  for (const s of services) compiler.service(s, undefined)
  for (const s of slices) compiler.slice(s, undefined)
  const backend = await backendOf(way)
  const forever = new AbortController().signal
  await backend.apply(compiler.compile().table, forever)
  const rounds: number[] = []
  const cpu: number[] = []
  const now = [...slices]
  for (let round = 0; round < 12; round++) {
    const i = (round * 811) % count
    const next = endpointsOf(i, endpoints, round + 1)
    const spent = process.cpuUsage()
    const began = performance.now()
    compiler.slice(next, now[i])
    await backend.apply(compiler.compile().table, forever)
    rounds.push(performance.now() - began)
    const used = process.cpuUsage(spent)
    cpu.push((used.user + used.system) / 1000)
    now[i] = next
  }
  // The first two warm up the compiler of the language.
  return { rounds: rounds.slice(2), cpu: cpu.slice(2) }
}

if (process.argv[2] === '--inside') {
  const [what, name, count, endpoints] = process.argv.slice(3)
  const way = ways.find((w) => w.name === name)!
  const result = what === 'cold' ? await cold(way, Number(count), Number(endpoints)) : await change(way, Number(count), Number(endpoints))
  process.stdout.write(`${JSON.stringify(result)}\n`)
  process.exit(0)
}
