import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FakeApi } from '../kube/testing/api.ts'
import { node } from '../kube/testing/builders.ts'
import type { Ip } from '../lib/ip.ts'
import { sleep } from '../lib/lifecycle.ts'
import { trace } from '../linux/iptables/trace.ts'
import { Compiler, compile } from '../proxy/compile.ts'
import { print } from '../proxy/iptables/print.ts'
import { render } from '../proxy/iptables/render.ts'
import { backendOf, clusterIp, endpointsOf, herd, options, ways, type Way } from './proxy-herd.ts'
import type { Connects, Streams } from './proxy-packets.ts'
import { median, ofRounds, type BenchContext, type Row } from './row.ts'

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
      const kubeProxy = peerOf(context, way)
      const theirs = kubeProxy === undefined ? undefined : many(context, `${cold}, kube-proxy`, 1, () => inside<Cold>(['cold', way.name, '10000', '2', kubeProxy]))
      const beside = (of: keyof Cold): Partial<Row> => (theirs === undefined ? {} : { peer: { name: 'kube-proxy', value: median(theirs.map((r) => r[of])) } })
      const row = (name: string, unit: string, of: keyof Cold, bar?: number): Row =>
        ofRounds(
          name,
          unit,
          rounds.map((r) => r[of]),
          { ...beside(of), ...(bar === undefined ? {} : { bar: { value: bar, of: 'figure' } }) },
        )
      yield { ...row(cold, 'ms', 'wall', bars.cold![way.name]!), at: { curve: coldCurve, series: way.name, x: 10_000 } }
      yield row(`${cold}: CPU`, 'ms', 'cpu')
      yield row(memory, 'MiB', 'rss', 150)
      yield row(`${memory}: most ever`, 'MiB', 'peak')
    }
    for (const count of [1000, 3000]) {
      const smaller = `cold start, ${count} × 2, ${way.name}`
      if (!context.wants(smaller)) continue
      const walls = many(context, smaller, 1, () => inside<Cold>(['cold', way.name, String(count), '2'])).map((r) => r.wall)
      yield { ...ofRounds(smaller, 'ms', walls), at: { curve: coldCurve, series: way.name, x: count } }
    }
    const connect = `new connection, 10,000 Services, ${way.name}`
    if (context.wants(connect)) {
      context.progress(connect)
      const { few, first, last, nobody, empty } = insidePackets<Connects>(['connects', way.name, '10000', '5'])
      const against = (values: readonly number[], name: string, base: readonly number[], bar: number): Partial<Row> => ({
        peer: { name, value: median(values) / median(values.map((v, i) => v / base[i]!)) },
        bar: { value: bar, of: 'ratio' },
      })
      yield ofRounds(`${connect}: first Service`, 'µs', first, against(first, 'of 100', few, 1.1))
      yield ofRounds(`${connect}: last Service`, 'µs', last, against(last, 'of 100', few, 1.1))
      yield ofRounds(`${connect}: no Service at all`, 'µs', nobody, against(nobody, 'empty nat table', empty, 1.15))
    }
    const change = `one endpoint replaced, 10,000 × 2, ${way.name}`
    if (context.wants(change)) {
      const { rounds, cpu } = inside<{ rounds: number[]; cpu: number[] }>(['change', way.name, '10000', '2'])
      yield ofRounds(change, 'ms', rounds, { bar: { value: bars.change![way.name]!, of: 'figure' } })
      yield ofRounds(`${change}: CPU of the process`, 'ms', cpu)
    }
    const big = `cold start, 30,000 × 2, ${way.name}`
    if (context.wants(big)) {
      const walls = many(context, big, 2, () => inside<Cold>(['cold', way.name, '30000', '2'])).map((r) => r.wall)
      yield { ...ofRounds(big, 'ms', walls, { bar: { value: bars.cold30![way.name]!, of: 'figure' } }), at: { curve: coldCurve, series: way.name, x: 30_000 } }
    }
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
    yield { ...ofRounds(met, 'rules', all), at: { curve: 'rules met by a new connection', series: 'iptables', x: count } }
    yield { name: `${met}: most`, ours: Math.max(...all), unit: 'rules', bar: { value: 64, of: 'figure' } }
  }
  yield* streamRows(context)
  yield* ipvsRows(context)
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

const coldCurve = 'cold start by Services of 2 endpoints, ms'

/** kube-proxy, where one was named and has the mode. */
const peerOf = (context: BenchContext, { mode }: Way): string | undefined => (mode === 'nftables' || mode === 'iptables' ? context.peers.get('kube-proxy') : undefined)

async function* streamRows(context: BenchContext): AsyncIterable<Row> {
  const name = 'userspace, one TCP stream'
  if (!context.wants(name)) return
  if (spawnSync('iperf3', ['-v'], { stdio: 'ignore' }).status !== 0) return context.missing('iperf3')
  context.progress(name)
  const { direct, ours, cpu, haproxy } = insidePackets<Streams>(['streams', '5', '3'])
  const shares = ours.map((o, i) => (o / direct[i]!) * 100)
  yield ofRounds(`${name}: of pod-to-pod`, '%', shares, { bar: { value: 65, of: 'figure', atLeast: true } })
  yield ofRounds(
    `${name}`,
    'MiB/s',
    ours.map((o) => o / 2 ** 20),
  )
  if (haproxy.length === 0) context.missing('haproxy')
  yield ofRounds(`${name}: CPU`, 'ms/GiB', cpu, haproxy.length === 0 ? {} : { peer: { name: 'haproxy', value: median(haproxy) }, bar: { value: 0.6, of: 'ratio' } })
}

/** In the emulated machine, whose kernel has IPVS. */
async function* ipvsRows(context: BenchContext): AsyncIterable<Row> {
  const name = 'cold start, 10,000 × 2, ipvs, from memory to the last acknowledgement'
  if (!context.wants(name)) return
  const { inVm, vmLacking } = await import('../lab/vm/run.ts')
  if ((await vmLacking()) !== undefined) return context.missing('qemu')
  const root = join(import.meta.dirname, '..')
  const took: number[] = []
  let where = ''
  for (let i = 0; i < 3; i++) {
    context.progress(`${name}: ${i + 1} of 3`)
    const { stdout, stderr, status, accelerator } = await inVm(['sh', join(root, 'scripts/node'), join(root, 'proxy/ipvs/testing/cold.ts')], { signal: context.signal })
    if (status !== 0) throw new Error(`the cold start ended with ${status}: ${stderr}`)
    took.push(Number(stdout))
    where = accelerator
  }
  yield ofRounds(`${name} (${where})`, 'ms', took, { bar: { value: 6000, of: 'figure' } })
}

interface Cold {
  readonly wall: number
  readonly cpu: number
  /** Three seconds after it was ready, and the most it ever was. */
  readonly rss: number
  readonly peak: number
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

const insidePackets = <T>(args: readonly string[]): T => inside<T>(args, join(import.meta.dirname, 'proxy-packets.ts'))

/** Runs a file (this one) in namespaces of its own and reads what it prints. */
function inside<T>(args: readonly string[], file?: string): T {
  const root = join(import.meta.dirname, '..')
  const script = 'mount -t tmpfs none /run && ip link set lo up && exec "$0" "$@"'
  const text = execFileSync(
    'unshare',
    ['-n', '-m', '-p', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script, 'sh', join(root, 'scripts/node'), ...(file === undefined ? [import.meta.filename, '--inside'] : [file]), ...args],
    {
      encoding: 'utf8',
      maxBuffer: 1 << 26,
    },
  )
  return JSON.parse(text.trim().split('\n').at(-1)!) as T
}

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

/** From the start of the process to its ready line: everything is in the kernel. With `peer`, a kube-proxy until it is healthy. */
async function cold(way: Way, count: number, endpoints: number, peer?: string): Promise<Cold> {
  const api = await FakeApi.start()
  api.put(node('n1', { ip: '192.168.56.11' }))
  const { services, slices } = herd(count, endpoints)
  for (const o of [...services, ...slices]) api.put(o)
  const began = performance.now()
  const child = peer === undefined ? ours(way, api.kubeconfig()) : theirs(way, api.kubeconfig(), peer)
  let said = ''
  child.stderr!.on('data', (b: Buffer) => (said += b.toString()))
  const gone = new Promise<never>((_, reject) => child.once('exit', () => reject(new Error(`the proxy ended: ${said.slice(-2000)}`))))
  gone.catch(() => {})
  const ready = async (): Promise<void> => {
    while (peer === undefined ? !said.includes('"ready"') : (await fetch('http://127.0.0.1:10256/healthz').catch(() => undefined))?.status !== 200) await sleep(2)
  }
  await Promise.race([ready(), gone])
  const wall = performance.now() - began
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  // utime, stime, and those of its children; a tick is 10 ms.
  const cpu = [11, 12, 13, 14].reduce((sum, i) => sum + Number(stat[i]), 0) * 10
  await sleep(3000)
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
  const mib = (field: string): number => Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) / 1024
  child.removeAllListeners('exit')
  child.kill()
  await api.close()
  return { wall, cpu, rss: mib('VmRSS'), peak: mib('VmHWM') }
}

function ours(way: Way, kubeconfig: string): ChildProcess {
  const argv = ['proxy', '--kubeconfig', kubeconfig, '--node', 'n1', '--mode', way.mode, '--cluster-cidr', '10.244.0.0/16', '--service-cidr', '10.96.0.0/12']
  return spawn(join(import.meta.dirname, '../switchyard'), [...argv, ...(way.variant === undefined ? [] : ['--iptables-variant', way.variant])], { stdio: ['ignore', 'ignore', 'pipe'] })
}

/** kube-proxy finds iptables by its name, so that one is put before the others. */
function theirs(way: Way, kubeconfig: string, binary: string): ChildProcess {
  const tools = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  if (way.variant !== undefined)
    for (const tool of ['iptables', 'ip6tables']) for (const what of ['', '-save', '-restore']) symlinkSync(`/usr/sbin/${tool}-${way.variant}${what}`, join(tools, `${tool}${what}`))
  const argv = ['--kubeconfig', kubeconfig, '--hostname-override', 'n1', '--proxy-mode', way.mode, '--cluster-cidr', '10.244.0.0/16', '--conntrack-max-per-core', '0']
  return spawn(binary, argv, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, PATH: `${tools}:${process.env.PATH ?? ''}` } })
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
  const [what, name, count, endpoints, peer] = process.argv.slice(3)
  const way = ways.find((w) => w.name === name)!
  const result = what === 'cold' ? await cold(way, Number(count), Number(endpoints), peer) : await change(way, Number(count), Number(endpoints))
  process.stdout.write(`${JSON.stringify(result)}\n`)
  process.exit(0)
}
