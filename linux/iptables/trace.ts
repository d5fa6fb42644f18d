import { contains, ipBytes, network, parseIp, type Ip } from '../../lib/ip.ts'
import type { Packet, Step, Way } from '../trace.ts'
import { parseSave, parseSets, type Chain, type Match, type Option, type Rule, type Ruleset, type SavedSet } from './parse.ts'

/** The machine the rules are on. */
export interface Machine {
  /** What `iptables-save` prints. */
  readonly rules: string
  /** What `ipset save` prints. */
  readonly sets: string
  /** Its own addresses, loopback among them. */
  readonly local: readonly string[]
}

/** All ways a packet may go through these rules, likeliest first. Throws for a rule it does not understand and whose outcome would matter. */
export function trace(machine: Machine, packet: Packet): readonly Way[] {
  const world = worldOf(machine)
  const start: State = { packet: { ...packet, mark: 0, translated: false, masqueraded: false }, probability: 1, tested: 0, path: [] }
  const ways: Way[] = []
  const isLocal = (p: Flying): boolean => world.local.has(p.destination) || (p.family === 4 && p.destination.startsWith('127.'))
  const finish = (s: State, end: Way['end'], by?: string): void => {
    const { destination, destinationPort, translated, masqueraded } = s.packet
    ways.push({ probability: s.probability, end, destination, destinationPort, translated, masqueraded, here: isLocal(s.packet), by, tested: s.tested, path: s.path })
  }
  for (const s of hook(world, 'nat', packet.from === undefined ? 'OUTPUT' : 'PREROUTING', [start], finish)) {
    const local = isLocal(s.packet)
    const filters = packet.from === undefined ? (local ? ['OUTPUT', 'INPUT'] : ['OUTPUT']) : [local ? 'INPUT' : 'FORWARD']
    let states: readonly State[] = [s]
    for (const chain of filters) states = hook(world, 'filter', chain, states, finish)
    if (packet.from === undefined || !local) states = hook(world, 'nat', 'POSTROUTING', states, finish)
    else states = hook(world, 'nat', 'INPUT', states, finish)
    for (const done of states) finish(done, 'delivered')
  }
  return merge(ways)
}

// Many packets are traced through one machine, one after the other.
let last: { readonly machine: Machine; readonly world: World } | undefined

function worldOf(machine: Machine): World {
  const known = last !== undefined && last.machine.rules === machine.rules && last.machine.sets === machine.sets && last.machine.local.join() === machine.local.join()
  if (!known) last = { machine, world: { rules: parseSave(machine.rules), sets: parseSets(machine.sets), local: new Set(machine.local.map((a) => parseIp(a) ?? a)) } }
  return last!.world
}

interface World {
  readonly rules: Ruleset
  readonly sets: ReadonlyMap<string, SavedSet>
  readonly local: ReadonlySet<string>
}

interface Flying extends Packet {
  readonly mark: number
  readonly translated: boolean
  readonly masqueraded: boolean
  readonly original?: { readonly destination: Ip; readonly destinationPort: number }
}

interface State {
  readonly packet: Flying
  readonly probability: number
  readonly tested: number
  readonly path: readonly Step[]
}

type Verdict = 'fall' | 'accept' | 'drop' | { readonly reject: string }
interface Ended extends State {
  readonly verdict: Verdict
}

/** Runs one built-in chain; packets that are dropped or rejected are told to `finish`, the others returned. */
function hook(world: World, table: string, chain: string, states: readonly State[], finish: (s: State, end: Way['end'], by?: string) => void): readonly State[] {
  const start = world.rules.get(table)?.get(chain)
  if (start === undefined) return states
  const out: State[] = []
  for (const s of states) {
    for (const e of walk(world, table, chain, s)) {
      const verdict = e.verdict === 'fall' && start.policy === 'DROP' ? 'drop' : e.verdict
      if (verdict === 'drop') finish(e, 'dropped')
      else if (typeof verdict === 'object') finish(e, 'rejected', verdict.reject)
      else out.push(e)
    }
  }
  return out
}

function walk(world: World, table: string, name: string, start: State, depth = 0): readonly Ended[] {
  if (depth > 100) throw new Error(`chains of table ${table} call each other without end at ${name}`)
  const chain: Chain | undefined = world.rules.get(table)?.get(name)
  if (chain === undefined) throw new Error(`table ${table} has no chain ${name}`)
  const done: Ended[] = []
  let states: State[] = [start]
  for (const rule of chain.rules) {
    const next: State[] = []
    for (const before of states) {
      const s = { ...before, tested: before.tested + 1 }
      const p = matches(world, rule, s.packet, table, name)
      if (p < 1) next.push(p === 0 ? s : { ...s, probability: s.probability * (1 - p) })
      if (p === 0) continue
      const hit: State = { ...s, probability: s.probability * p, path: [...s.path, { table, chain: name, rule: rule.text }] }
      for (const e of act(world, table, rule, hit, depth)) {
        if (e.verdict === 'fall' && e.stay) next.push(e)
        else done.push(e)
      }
    }
    states = next
    if (states.length === 0) break
  }
  for (const s of states) done.push({ ...s, verdict: 'fall' })
  return done
}

/** `stay`: the next rule of the same chain follows. */
function act(world: World, table: string, rule: Rule, s: State, depth: number): readonly (Ended & { readonly stay?: boolean })[] {
  const option = (name: string): Option | undefined => rule.targetOptions.find((o) => o.name === name)
  const on = (packet: Partial<Flying>): readonly (Ended & { readonly stay: boolean })[] => [{ ...s, packet: { ...s.packet, ...packet }, verdict: 'fall', stay: true }]
  switch (rule.target) {
    case undefined:
    case 'LOG':
    case 'NFLOG':
    case 'SET':
    case 'CONNMARK':
    case 'NOTRACK':
    case 'CT':
      return on({})
    case 'ACCEPT':
      return [{ ...s, verdict: 'accept' }]
    case 'DROP':
      return [{ ...s, verdict: 'drop' }]
    case 'RETURN':
      return [{ ...s, verdict: 'fall' }]
    case 'REJECT':
      return [{ ...s, verdict: { reject: option('--reject-with')?.values[0] ?? (s.packet.family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable') } }]
    case 'MARK': {
      const x = option('--set-xmark') ?? option('--set-mark')
      const or = option('--or-mark')
      if (or !== undefined) return on({ mark: (s.packet.mark | Number(or.values[0])) >>> 0 })
      const [value, mask = '0xffffffff'] = x?.values[0]?.split('/') ?? []
      if (value === undefined) throw new Error(`cannot read "${rule.text}"`)
      return on({ mark: ((s.packet.mark & ~Number(mask)) ^ Number(value)) >>> 0 })
    }
    case 'DNAT': {
      const to = option('--to-destination')?.values[0]
      const m = /^(?:\[([^\]]+)\]|([^:]+(?:$|(?=:\d))|.*))(?::(\d+))?$/.exec(to ?? '')
      const address = parseIp(m?.[1] ?? m?.[2] ?? '')
      if (address === undefined) throw new Error(`cannot read "${rule.text}"`)
      return [{ ...s, packet: translate(s.packet, address, m?.[3] === undefined ? s.packet.destinationPort : Number(m[3])), verdict: 'accept' }]
    }
    case 'REDIRECT': {
      const port = option('--to-ports')?.values[0]
      return [{ ...s, packet: translate(s.packet, (s.packet.family === 4 ? '127.0.0.1' : '::1') as Ip, port === undefined ? s.packet.destinationPort : Number(port)), verdict: 'accept' }]
    }
    case 'MASQUERADE':
    case 'SNAT':
      return [{ ...s, packet: { ...s.packet, masqueraded: true }, verdict: 'accept' }]
    default: {
      const inner = walk(world, table, rule.target, s, depth + 1)
      // After a jump the chain goes on; after a goto its caller does.
      return inner.map((e) => (e.verdict === 'fall' ? { ...e, stay: !rule.goto } : e))
    }
  }
}

function translate(p: Flying, destination: Ip, destinationPort: number): Flying {
  return { ...p, destination, destinationPort, translated: true, original: { destination: p.destination, destinationPort: p.destinationPort } }
}

/** How likely the rule matches: 0, 1, or between where chance decides. */
function matches(world: World, rule: Rule, p: Flying, table: string, chain: string): number {
  let probability = 1
  for (const match of rule.matches) {
    probability *= one(world, match, p, `rule "${rule.text}" of chain ${chain}, table ${table}`)
    if (probability === 0) return 0
  }
  return probability
}

function one(world: World, match: Match, p: Flying, where: string): number {
  const option = (name: string): Option | undefined => match.options.find((o) => o.name === name)
  const truth = (o: Option, value: boolean): number => (value !== o.not ? 1 : 0)
  const all = (...tests: readonly (readonly [string, (o: Option) => boolean])[]): number => {
    for (const o of match.options) {
      const known = tests.find(([name]) => name === o.name)
      if (known === undefined) throw new Error(`cannot follow ${o.name} in ${where}`)
      if (truth(o, known[1](o)) === 0) return 0
    }
    return 1
  }
  switch (match.module) {
    case '':
      return all(
        ['-s', (o) => o.values[0]!.split(',').some((c) => inNetwork(c, p.source))],
        ['-d', (o) => o.values[0]!.split(',').some((c) => inNetwork(c, p.destination))],
        // Nothing came in by an interface that a process of this machine sends.
        ['-i', (o) => p.from !== undefined && isInterface(o.values[0]!, p.from)],
        ['-o', () => false],
        ['-p', (o) => o.values[0] === 'all' || o.values[0] === p.protocol || (o.values[0] === 'ipv6-icmp' && p.protocol === 'icmp')],
      )
    case 'tcp':
    case 'udp':
    case 'sctp':
      if (match.module !== p.protocol) return 0
      return all(['--dport', (o) => inPorts(o.values[0]!, p.destinationPort)], ['--sport', (o) => inPorts(o.values[0]!, p.sourcePort)], ['--tcp-flags', () => true], ['--syn', () => true])
    case 'multiport':
      return all(['--dports', (o) => o.values[0]!.split(',').some((r) => inPorts(r, p.destinationPort))], ['--sports', (o) => o.values[0]!.split(',').some((r) => inPorts(r, p.sourcePort))])
    case 'set':
      return all(['--match-set', (o) => inSet(world, o.values[0]!, o.values[1]!, p, where)], ['--return-nomatch', () => true])
    case 'addrtype':
      return all(['--dst-type', (o) => typeOf(world, p.destination) === o.values[0]], ['--src-type', (o) => (p.from === undefined || world.local.has(p.source) ? 'LOCAL' : 'UNICAST') === o.values[0]])
    case 'conntrack':
      return all(
        ['--ctstate', (o) => o.values[0]!.split(',').some((s) => s === 'NEW' || (s === 'DNAT' && p.translated) || (s === 'SNAT' && p.masqueraded))],
        ['--ctorigdst', (o) => inNetwork(o.values[0]!, p.original?.destination ?? p.destination)],
        ['--ctorigdstport', (o) => inPorts(o.values[0]!, p.original?.destinationPort ?? p.destinationPort)],
        ['--ctdir', (o) => o.values[0] === 'ORIGINAL'],
      )
    case 'state':
      return all(['--state', (o) => o.values[0]!.split(',').includes('NEW')])
    case 'mark': {
      const o = option('--mark')!
      const [value, mask = '0xffffffff'] = o.values[0]!.split('/')
      return truth(o, (p.mark & Number(mask)) >>> 0 === Number(value))
    }
    case 'statistic': {
      const o = option('--probability')
      if (o === undefined) throw new Error(`cannot follow ${where}: only random choice is known`)
      return o.not ? 1 - Number(o.values[0]) : Number(o.values[0])
    }
    case 'bpf':
      return runBpf(option('--bytecode')!.values[0]!, header(p)) === 0 ? 0 : 1
    case 'comment':
    case 'limit':
    case 'nfacct':
      return 1
    case 'recent':
      // Who came before is not in the rules; the first packet of a new client is traced.
      return option('--rcheck') !== undefined || option('--update') !== undefined ? 0 : 1
    default:
      throw new Error(`cannot follow match ${match.module} in ${where}`)
  }
}

const inNetwork = (cidr: string, ip: Ip): boolean => {
  const n = network(cidr.includes('/') ? cidr : `${cidr}/${cidr.includes(':') ? 128 : 32}`)
  return n !== undefined && contains(n, ip)
}
const isInterface = (pattern: string, name: string): boolean => (pattern.endsWith('+') ? name.startsWith(pattern.slice(0, -1)) : name === pattern)

function inPorts(range: string, port: number): boolean {
  const [from, to] = range.split(':')
  return port >= Number(from || 0) && port <= Number(to === undefined ? from : to || 65_535)
}

function typeOf(world: World, ip: Ip): string {
  if (world.local.has(ip) || ip.startsWith('127.')) return 'LOCAL'
  if (ip === '255.255.255.255') return 'BROADCAST'
  const first = Number.parseInt(ip, 10)
  return ip.startsWith('ff') || (!ip.includes(':') && first >= 224 && first < 240) ? 'MULTICAST' : 'UNICAST'
}

function inSet(world: World, name: string, directions: string, p: Flying, where: string): boolean {
  const set = world.sets.get(name)
  if (set === undefined) throw new Error(`there is no set ${name}, in ${where}`)
  if (set.family !== p.family && !set.type.startsWith('bitmap:port')) return false
  const parts = set.type.split(':')[1]!.split(',')
  const ways = directions.split(',')
  const texts = parts.map((part, i) => {
    const dst = (ways[i] ?? ways.at(-1)) === 'dst'
    if (part === 'port') return set.type.startsWith('bitmap:') ? String(dst ? p.destinationPort : p.sourcePort) : `${p.protocol}:${dst ? p.destinationPort : p.sourcePort}`
    return dst ? p.destination : p.source
  })
  const exact = texts.join(',')
  if (set.elements.has(exact)) return true
  if (!parts.includes('net')) return false
  return [...set.elements].some((e) => e.split(',').every((x, i) => (parts[i] === 'net' ? inNetwork(x, texts[i] as Ip) : x === texts[i])))
}

/** An IP header with the addresses in place, nothing else. */
function header(p: Flying): Uint8Array {
  const out = new Uint8Array(p.family === 4 ? 20 : 40)
  out.set(ipBytes(p.source)!, p.family === 4 ? 12 : 8)
  out.set(ipBytes(p.destination)!, p.family === 4 ? 16 : 24)
  return out
}

/** The few instructions of classic BPF that compare words of a header (linux/filter.h). */
function runBpf(bytecode: string, bytes: Uint8Array): number {
  const code = bytecode
    .split(',')
    .slice(1)
    .map((line) => line.trim().split(/\s+/).map(Number))
  const view = new DataView(bytes.buffer)
  let [a, x] = [0, 0]
  for (let i = 0; i < code.length; i++) {
    const [op, jt, jf, k] = code[i] as [number, number, number, number]
    if (op === 0x20) a = view.getUint32(k)
    else if (op === 0x07) x = a
    else if (op === 0x1c) a = (a - x) >>> 0
    else if (op === 0x15) i += a === k ? jt : jf
    else if (op === 0x06) return k
    else throw new Error(`cannot follow BPF instruction ${op}`)
  }
  return 0
}

/** Ways that end alike are one. */
function merge(ways: readonly Way[]): readonly Way[] {
  const out = new Map<string, Way>()
  for (const w of ways) {
    const key = [w.end, w.destination, w.destinationPort, w.masqueraded, w.by].join(' ')
    const known = out.get(key)
    out.set(key, known === undefined ? w : { ...known, probability: known.probability + w.probability })
  }
  return [...out.values()].sort((a, b) => b.probability - a.probability)
}
