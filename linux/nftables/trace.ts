import { contains, network, parseIp, type Ip } from '../../lib/ip.ts'
import type { NftObject } from '../kernel.ts'
import type { Destination, VirtualServer } from '../netlink/ipvs.ts'
import type { Packet, Step, Way } from '../trace.ts'

/** The machine the tables are on. */
export interface Machine {
  /** What `nft -j list table …` prints, of one table or of several. */
  readonly objects: readonly NftObject[]
  /** Its own addresses, loopback among them. */
  readonly local: readonly string[]
  /** Virtual servers of IPVS, as netlink tells them: they take what is about to be delivered here. */
  readonly servers?: readonly Balanced[]
}

/** A virtual server and where it sends connections. */
export interface Balanced {
  readonly server: VirtualServer
  readonly to: readonly Destination[]
}

/** All ways a packet may go through these tables, likeliest first. Throws for an expression it does not know and whose outcome would matter. */
export function trace(machine: Machine, packet: Packet): readonly Way[] {
  const world = worldOf(machine, packet.family)
  const ways: Way[] = []
  const isLocal = (p: Flying): boolean => world.local.has(p.destination) || (p.family === 4 && p.destination.startsWith('127.'))
  const finish: Finish = (s, end, by) => {
    const { destination, destinationPort, translated, masqueraded } = s.packet
    ways.push({ probability: s.probability, end, destination, destinationPort, translated, masqueraded, here: isLocal(s.packet), by, tested: s.tested, path: s.path })
  }
  const start: State = { packet: { ...packet, mark: 0, translated: false, masqueraded: false }, probability: 1, tested: 0, path: [] }
  for (const s of hook(world, packet.from === undefined ? 'output' : 'prerouting', [start], finish)) {
    // A process's own packet meets IPVS before it is routed.
    const sent = packet.from === undefined ? balance(machine.servers, s, finish) : [s]
    if (sent === undefined) continue
    const local = sent.every((x) => isLocal(x.packet))
    let states: readonly State[] = sent
    const further = packet.from === undefined ? ['postrouting'] : local ? ['input'] : ['forward', 'postrouting']
    for (const name of further) {
      states = hook(world, name, states, finish)
      if (name === 'input') states = balanced(machine, world, states, finish)
    }
    // What a machine sends to itself comes in again; its translation is settled by then.
    if (packet.from === undefined && local) for (const name of ['prerouting', 'input']) states = hook(world, name, states, finish, false)
    for (const done of states) finish(done, 'delivered')
  }
  return merge(ways)
}

/** Those that a virtual server takes leave the machine again, by postrouting; the others stay. */
function balanced(machine: Machine, world: World, states: readonly State[], finish: Finish): readonly State[] {
  const out: State[] = []
  for (const s of states) {
    const sent = balance(machine.servers, s, finish)
    if (sent === undefined) continue
    if (sent[0] === s) out.push(s)
    else for (const done of hook(world, 'postrouting', sent, finish)) finish(done, 'delivered')
  }
  return out
}

/** To each destination of the packet's virtual server; the packet as it is where it has none; undefined where it ended here. */
function balance(servers: Machine['servers'], s: State, finish: Finish): readonly State[] | undefined {
  const { packet: p } = s
  const found =
    servers?.find(({ server }) => 'mark' in server && p.mark !== 0 && server.mark === p.mark && server.family === p.family) ??
    servers?.find(({ server }) => 'address' in server && server.address === p.destination && server.port === p.destinationPort && server.protocol.toLowerCase() === p.protocol)
  if (found === undefined) return [s]
  const live = found.to.filter((d) => d.weight > 0)
  const chain = 'mark' in found.server ? `mark ${found.server.mark}` : `${found.server.protocol} ${found.server.address}:${found.server.port}`
  if (live.length === 0) {
    finish({ ...s, path: [...s.path, { table: 'ipvs', chain, rule: 'no destination' }] }, 'rejected', p.family === 4 ? 'icmp-port-unreachable' : 'icmp6-port-unreachable')
    return undefined
  }
  const all = live.reduce((sum, d) => sum + d.weight, 0)
  return live.map((d) => ({
    ...s,
    probability: (s.probability * d.weight) / all,
    path: [...s.path, { table: 'ipvs', chain, rule: `${found.server.scheduler} → ${d.address}:${d.port}, weight ${d.weight}` }],
    packet: { ...p, destination: d.address, destinationPort: d.port, translated: true, original: { destination: p.destination, destinationPort: p.destinationPort } },
  }))
}

type Finish = (s: State, end: Way['end'], by?: string) => void
type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }
type Fields = { readonly [key: string]: Json }

interface Chain {
  readonly table: string
  readonly name: string
  readonly base: { readonly type: string; readonly hook: string; readonly priority: number; readonly policy: string } | undefined
  readonly rules: Fields[][]
}

interface World {
  readonly chains: ReadonlyMap<string, Chain>
  /** Elements of sets and maps, by table and name. */
  readonly sets: ReadonlyMap<string, Elements>
  readonly local: ReadonlySet<string>
}

interface Elements {
  readonly exact: ReadonlyMap<string, Json>
  /** Those that hold a range, a network or `*`. */
  readonly loose: readonly (readonly [key: Json, value: Json])[]
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

type Verdict = 'next rule' | 'return' | 'accept' | 'drop' | { readonly reject: string }
interface Ended extends State {
  readonly verdict: Verdict
}

/** Where a rule stands, for errors. */
interface Place {
  readonly world: World
  readonly chain: Chain
  readonly rule: string
}

let last: { readonly machine: Machine; readonly family: number; readonly world: World } | undefined

function worldOf(machine: Machine, family: 4 | 6): World {
  if (last?.machine === machine && last.family === family) return last.world
  const ours = new Set(['inet', family === 4 ? 'ip' : 'ip6'])
  const chains = new Map<string, Chain>()
  const sets = new Map<string, Elements>()
  for (const object of machine.objects as readonly Fields[]) {
    const [kind, fields] = Object.entries(object)[0] as [string, Fields]
    if (!ours.has(String(fields.family))) continue
    const table = `${fields.family} ${fields.table}`
    if (kind === 'chain') {
      const base = fields.hook === undefined ? undefined : { type: String(fields.type), hook: String(fields.hook), priority: Number(fields.prio), policy: String(fields.policy ?? 'accept') }
      chains.set(`${table} ${fields.name}`, { table, name: String(fields.name), base, rules: [] })
    } else if (kind === 'rule') chains.get(`${table} ${fields.chain}`)?.rules.push(fields.expr as unknown as Fields[])
    else if (kind === 'set' || kind === 'map') sets.set(`${table} ${fields.name}`, elementsOf((fields.elem ?? []) as readonly Json[], kind === 'map'))
  }
  const world = { chains, sets, local: new Set(machine.local.map((a) => parseIp(a) ?? a)) }
  last = { machine, family, world }
  return world
}

function elementsOf(list: readonly Json[], isMap: boolean): Elements {
  const exact = new Map<string, Json>()
  const loose: [Json, Json][] = []
  for (const e of list) {
    const [key, value] = isMap ? (e as readonly [Json, Json]) : [e, null]
    const bare = isFields(key) && isFields(key.elem ?? null) ? (key.elem as Fields).val! : key
    const parts = partsOf(bare)
    if (parts.some((p) => isFields(p) || p === '*')) loose.push([bare, value])
    else exact.set(keyText(parts), value)
  }
  return { exact, loose }
}

const isFields = (j: Json | undefined): j is Fields => typeof j === 'object' && j !== null && !Array.isArray(j)
const partsOf = (j: Json): readonly Json[] => (isFields(j) && j.concat !== undefined ? (j.concat as readonly Json[]) : [j])
const keyText = (parts: readonly Json[]): string => parts.map((p) => (typeof p === 'string' ? (parseIp(p) ?? p) : String(p))).join(' . ')

/** Runs the chains of a hook in order of priority. `translating`: those that translate too. */
function hook(world: World, name: string, start: readonly State[], finish: Finish, translating = true): readonly State[] {
  const bases = [...world.chains.values()].filter((c) => c.base?.hook === name && (translating || c.base.type !== 'nat')).sort((a, b) => a.base!.priority - b.base!.priority)
  let states = start
  for (const chain of bases) {
    const out: State[] = []
    for (const s of states) {
      // One translation each way: whoever comes later in the hook is not asked.
      const settled = name === 'postrouting' || name === 'input' ? s.packet.masqueraded : s.packet.translated
      if (chain.base!.type === 'nat' && settled) {
        out.push(s)
        continue
      }
      for (const e of walk(world, chain, s)) {
        const verdict = e.verdict === 'return' || e.verdict === 'next rule' ? (chain.base!.policy === 'drop' ? 'drop' : 'accept') : e.verdict
        if (verdict === 'drop') finish(e, 'dropped')
        else if (typeof verdict === 'object') finish(e, 'rejected', verdict.reject)
        else out.push(e)
      }
    }
    states = out
  }
  return states
}

function walk(world: World, chain: Chain, start: State, depth = 0): readonly Ended[] {
  if (depth > 64) throw new Error(`chains of table ${chain.table} call each other without end at ${chain.name}`)
  const done: Ended[] = []
  let states: State[] = [start]
  for (const rule of chain.rules) {
    const next: State[] = []
    const text = rule.map(words).join(' ')
    for (const s of states) {
      for (const e of run({ world, chain, rule: text }, rule, 0, { ...s, tested: s.tested + 1 }, depth)) {
        if (e.verdict === 'next rule') next.push(e)
        else done.push(e)
      }
    }
    states = next
    if (states.length === 0) break
  }
  for (const s of states) done.push({ ...s, verdict: 'return' })
  return done
}

/** The statements of a rule from `at` on. */
function run(place: Place, rule: readonly Fields[], at: number, s: State, depth: number): readonly Ended[] {
  const statement = rule[at]
  // At the rule's end the path tells that all of it held.
  if (statement === undefined) return [{ ...met(place, s), verdict: 'next rule' }]
  const [kind, value] = Object.entries(statement)[0] as [string, Json]
  const on = (state: State): readonly Ended[] => run(place, rule, at + 1, state, depth)
  const call = (target: Json | undefined, goto: boolean, state: State): readonly Ended[] => {
    const chain = place.world.chains.get(`${place.chain.table} ${String(target)}`)
    if (chain === undefined) throw new Error(`table ${place.chain.table} has no chain ${String(target)}`)
    const inner = walk(place.world, chain, met(place, state), depth + 1)
    return inner.map((e) => (e.verdict === 'return' && !goto ? { ...e, verdict: 'next rule' } : e))
  }
  const verdict = (v: Json, state: State): readonly Ended[] => {
    const [name, of] = typeof v === 'string' ? [v, null] : (Object.entries(v as Fields)[0] as [string, Json])
    if (name === 'accept' || name === 'drop' || name === 'return') return [{ ...met(place, state), verdict: name }]
    if (name === 'continue') return [{ ...met(place, state), verdict: 'next rule' }]
    if (name === 'jump' || name === 'goto') return call((of as Fields).target, name === 'goto', state)
    throw unknown(place, v)
  }
  switch (kind) {
    case 'match': {
      const { op, left, right } = value as { op: string; left: Json; right: Json }
      return values(place, left, s.packet).flatMap((v) => {
        const after = { ...s, probability: s.probability * v.p }
        return holds(place, op, v.value, right) ? on(after) : [{ ...after, verdict: 'next rule' as const }]
      })
    }
    case 'vmap': {
      const { key, data } = value as { key: Json; data: Json }
      return values(place, key, s.packet).flatMap((v) => {
        const after = { ...s, probability: s.probability * v.p }
        const found = v.value === undefined ? undefined : lookup(place, data, v.value, true)
        return found === undefined ? on(after) : verdict(found, after)
      })
    }
    case 'jump':
    case 'goto':
    case 'accept':
    case 'drop':
    case 'return':
    case 'continue':
      return verdict(statement, s)
    case 'reject': {
      const { type, expr } = (value ?? {}) as Fields
      // nft leaves out the test for TCP that a reset implies.
      if (type === 'tcp reset' && s.packet.protocol !== 'tcp') return [{ ...s, verdict: 'next rule' }]
      const by =
        type === 'tcp reset'
          ? 'tcp-reset'
          : `${type === undefined ? (s.packet.family === 4 ? 'icmp' : 'icmp6') : String(type).replace(/v6$/, '6')}-${expr === undefined ? 'port-unreachable' : String(expr)}`
      return [{ ...met(place, s), verdict: { reject: by } }]
    }
    case 'dnat':
    case 'redirect': {
      const { addr, port } = (value ?? {}) as Fields
      const own = s.packet.family === 4 ? '127.0.0.1' : '::1'
      return values(place, kind === 'redirect' ? own : (addr ?? s.packet.destination), s.packet).flatMap((to): readonly Ended[] => {
        const after = { ...s, probability: s.probability * to.p }
        // A key that the map lacks ends the rule.
        if (to.value === undefined) return [{ ...after, verdict: 'next rule' }]
        const ports = port === undefined ? [{ p: 1, value: to.value[1] === undefined ? [s.packet.destinationPort] : [to.value[1]] }] : values(place, port, s.packet)
        return ports.map((n): Ended => {
          const state = { ...after, probability: after.probability * n.p }
          if (n.value === undefined) return { ...state, verdict: 'next rule' }
          const [destination, destinationPort] = [parseIp(String(to.value![0])), Number(n.value[0])]
          if (destination === undefined || !Number.isInteger(destinationPort)) throw unknown(place, value)
          const original = { destination: s.packet.destination, destinationPort: s.packet.destinationPort }
          return { ...met(place, state), packet: { ...s.packet, destination, destinationPort, translated: true, original }, verdict: 'accept' }
        })
      })
    }
    case 'masquerade':
    case 'snat':
      return [{ ...met(place, s), packet: { ...s.packet, masqueraded: true }, verdict: 'accept' }]
    case 'mangle': {
      const { key, value: to } = value as { key: Json; value: Json }
      const [what, field] = isFields(key) ? (Object.entries(key)[0] as [string, Fields]) : ['', {}]
      if (what === 'ct') return on(s)
      if (what !== 'meta' || field.key !== 'mark') throw unknown(place, statement)
      return values(place, to, s.packet).flatMap((v) => (v.value === undefined ? [] : on({ ...s, probability: s.probability * v.p, packet: { ...s.packet, mark: Number(v.value[0]) >>> 0 } })))
    }
    // What is remembered, counted or written down moves no packet. A limit is taken as not reached.
    case 'set':
    case 'counter':
    case 'log':
    case 'limit':
    case 'comment':
    case 'notrack':
    case 'flow':
      return on(s)
    default:
      throw unknown(place, statement)
  }
}

const met = (place: Place, s: State): State => ({ ...s, path: [...s.path, { table: place.chain.table, chain: place.chain.name, rule: place.rule }] })
const unknown = (place: Place, what: Json): Error => new Error(`cannot follow ${JSON.stringify(what)} in rule "${place.rule}" of chain ${place.chain.name}, table ${place.chain.table}`)

/** One thing an expression may be: its parts, or undefined where the packet has no such field or a map no such key. */
interface Drawn {
  readonly p: number
  readonly value: readonly Json[] | undefined
}

/** What an expression is for this packet: one value, or several where chance decides. */
function values(place: Place, e: Json, p: Flying): readonly Drawn[] {
  const is = (...value: readonly Json[]): readonly Drawn[] => [{ p: 1, value }]
  const none: readonly Drawn[] = [{ p: 1, value: undefined }]
  if (!isFields(e)) return is(e)
  const [kind, inner] = Object.entries(e)[0] as [string, Json]
  const f = (isFields(inner) ? inner : {}) as Fields
  switch (kind) {
    case 'concat': {
      let all: readonly Drawn[] = [{ p: 1, value: [] }]
      for (const part of inner as readonly Json[])
        all = all.flatMap((a) => values(place, part, p).map((b) => ({ p: a.p * b.p, value: a.value === undefined || b.value === undefined ? undefined : [...a.value, ...b.value] })))
      return all
    }
    case 'payload': {
      const [protocol, field] = [String(f.protocol), String(f.field)]
      if ((protocol === 'ip' || protocol === 'ip6') && (protocol === 'ip') !== (p.family === 4)) return none
      if (protocol === 'ip' || protocol === 'ip6') {
        if (field === 'saddr') return is(p.source)
        if (field === 'daddr') return is(p.destination)
        if (field === 'protocol' || field === 'nexthdr') return is(p.protocol)
      }
      if (protocol === 'th' || protocol === 'tcp' || protocol === 'udp' || protocol === 'sctp') {
        if (protocol !== 'th' && protocol !== p.protocol) return none
        if (field === 'dport') return is(p.destinationPort)
        if (field === 'sport') return is(p.sourcePort)
        // A connection's first packet.
        if (field === 'flags' && p.protocol === 'tcp') return is(numberOf('syn'))
      }
      throw unknown(place, e)
    }
    case 'meta':
      switch (f.key) {
        case 'l4proto':
          return is(p.protocol === 'icmp' && p.family === 6 ? 'ipv6-icmp' : p.protocol)
        case 'mark':
          return is(p.mark)
        case 'iifname':
          return is(p.from ?? '')
        case 'nfproto':
          return is(p.family === 4 ? 'ipv4' : 'ipv6')
        case 'protocol':
          return is(p.family === 4 ? 'ip' : 'ip6')
        default:
          throw unknown(place, e)
      }
    case 'ct':
      switch (f.key) {
        case 'state':
          return is('new')
        case 'direction':
          return is('original')
        case 'status':
          return is((p.translated ? numberOf('dnat') : 0) | (p.masqueraded ? numberOf('snat') : 0))
        case 'ip daddr':
        case 'ip6 daddr':
        case 'daddr':
          if (f.dir === 'original') return is(p.original?.destination ?? p.destination)
          throw unknown(place, e)
        case 'proto-dst':
          if (f.dir === 'original') return is(p.original?.destinationPort ?? p.destinationPort)
          throw unknown(place, e)
        default:
          throw unknown(place, e)
      }
    case 'fib': {
      const flags = Array.isArray(f.flags) ? (f.flags as readonly Json[]) : [f.flags ?? '']
      if (f.result !== 'type' || flags.length !== 1) throw unknown(place, e)
      if (flags[0] === 'daddr') return is(typeOf(place.world, p.destination))
      return is(p.from === undefined ? 'local' : typeOf(place.world, p.source))
    }
    case 'numgen': {
      // Whose turn it is is not in the rules: in turn is as good as by chance.
      const [mod, offset] = [Number(f.mod), Number(f.offset ?? 0)]
      return Array.from({ length: mod }, (_, i) => ({ p: 1 / mod, value: [i + offset] }))
    }
    case 'map':
      return values(place, f.key!, p).map((v) => {
        const found = v.value === undefined ? undefined : lookup(place, f.data!, v.value, true)
        return { p: v.p, value: found === undefined ? undefined : partsOf(found) }
      })
    case '&':
    case '|':
    case '^': {
      const operands = (inner as readonly Json[]).map((o) => values(place, o, p))
      if (operands.some((o) => o.length !== 1)) throw unknown(place, e)
      if (operands.some((o) => o[0]!.value === undefined)) return none
      const numbers = operands.map((o) => numberOf(o[0]!.value![0]!))
      if (numbers.some((n) => Number.isNaN(n))) throw unknown(place, e)
      return is(numbers.reduce((a, b) => (kind === '&' ? a & b : kind === '|' ? a | b : a ^ b) >>> 0))
    }
    default:
      throw unknown(place, e)
  }
}

// Names of bits that nft prints: of a TCP header's flags, of a connection's status.
const bits: Readonly<Record<string, number>> = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, snat: 16, dnat: 32 }
const numberOf = (j: Json): number => (typeof j === 'string' ? (bits[j] ?? Number(j)) : Number(j))

function holds(place: Place, op: string, value: readonly Json[] | undefined, right: Json): boolean {
  if (value === undefined) return false
  switch (op) {
    case '==':
      return equal(place, value, right)
    case '!=':
      return !equal(place, value, right)
    case 'in': {
      const wanted = Array.isArray(right) ? (right as readonly Json[]) : [right]
      if (typeof value[0] === 'number') return wanted.some((w) => (Number(value[0]) & numberOf(w)) !== 0)
      return wanted.some((w) => equal(place, value, w))
    }
    case '<':
      return Number(value[0]) < numberOf(right)
    case '>':
      return Number(value[0]) > numberOf(right)
    case '<=':
      return Number(value[0]) <= numberOf(right)
    case '>=':
      return Number(value[0]) >= numberOf(right)
    default:
      throw unknown(place, op)
  }
}

function equal(place: Place, value: readonly Json[], right: Json): boolean {
  if (typeof right === 'string' && right.startsWith('@')) return lookup(place, right, value, false) !== undefined
  if (isFields(right) && right.set !== undefined) return lookup(place, right, value, false) !== undefined
  const parts = partsOf(right)
  return parts.length === value.length && parts.every((want, i) => fits(place, value[i]!, want))
}

function fits(place: Place, value: Json, want: Json): boolean {
  if (isFields(want)) {
    if (isFields(want.prefix)) {
      const n = network(`${String(want.prefix.addr)}/${String(want.prefix.len)}`)
      return n !== undefined && contains(n, value as Ip)
    }
    if (Array.isArray(want.range) && typeof value === 'number') return value >= Number(want.range[0]) && value <= Number(want.range[1])
    throw unknown(place, want)
  }
  if (typeof value === 'number') return value === numberOf(want)
  if (want === '*') return true
  if (typeof want === 'string' && want.endsWith('*')) return String(value).startsWith(want.slice(0, -1))
  return value === (parseIp(String(want)) ?? want)
}

/** The element of a set or map: its value, null where a set has it. */
function lookup(place: Place, data: Json, value: readonly Json[], isMap: boolean): Json | undefined {
  const set = typeof data === 'string' ? place.world.sets.get(`${place.chain.table} ${data.slice(1)}`) : elementsOf((data as Fields).set as readonly Json[], isMap)
  if (set === undefined) throw new Error(`table ${place.chain.table} has no set ${String(data)}, in rule "${place.rule}" of chain ${place.chain.name}`)
  // The value null of a set's element is its being there.
  for (const parts of [value, swapped(value)]) {
    const found = set.exact.get(keyText(parts))
    if (found !== undefined) return found
  }
  return set.loose.find(([key]) => {
    const parts = partsOf(key)
    return (parts.length === value.length && parts.every((want, i) => fits(place, value[i]!, want))) || key === '*'
  })?.[1]
}

/** As nft prints a small number drawn by chance where whoever made the set left no word of its byte order: its last part with the octets the other way round. */
function swapped(value: readonly Json[]): readonly Json[] {
  const n = value.at(-1)
  if (typeof n !== 'number') return value
  return [...value.slice(0, -1), (((n & 255) << 24) | ((n & 0xff00) << 8) | ((n >> 8) & 0xff00) | (n >>> 24)) >>> 0]
}

function typeOf(world: World, ip: Ip): string {
  if (world.local.has(ip) || ip.startsWith('127.')) return 'local'
  if (ip === '255.255.255.255') return 'broadcast'
  const first = Number.parseInt(ip, 10)
  return ip.startsWith('ff') || (!ip.includes(':') && first >= 224 && first < 240) ? 'multicast' : 'unicast'
}

/** A statement or expression about as nft writes it. */
function words(j: Json): string {
  if (Array.isArray(j)) return (j as readonly Json[]).map(words).join(', ')
  if (!isFields(j)) return String(j)
  const [kind, inner] = Object.entries(j)[0] as [string, Json]
  const f = (isFields(inner) ? inner : {}) as Fields
  switch (kind) {
    case 'match':
      return `${words(f.left!)} ${f.op === '==' || f.op === 'in' ? '' : `${String(f.op)} `}${words(f.right!)}`
    case 'payload':
      return `${String(f.protocol)} ${String(f.field)}`
    case 'meta':
      return `meta ${String(f.key)}`
    case 'ct':
      return `ct ${f.dir === undefined ? '' : `${String(f.dir)} `}${String(f.key)}`
    case 'fib':
      return `fib ${words(f.flags!)} ${String(f.result)}`
    case 'numgen':
      return `numgen ${String(f.mode)} mod ${String(f.mod)}${f.offset === 0 ? '' : ` offset ${String(f.offset)}`}`
    case 'concat':
      return (inner as readonly Json[]).map(words).join(' . ')
    case 'prefix':
      return `${String(f.addr)}/${String(f.len)}`
    case 'range':
      return (inner as readonly Json[]).map(words).join('-')
    case 'set':
      return f.op === undefined ? `{ ${words(inner)} }` : `${String(f.op)} ${String(f.set)} { ${words(f.elem!)} }`
    case 'elem':
      return `${words(f.val!)}${f.timeout === undefined ? '' : ` timeout ${String(f.timeout)}s`}`
    case 'map':
    case 'vmap':
      return `${words(f.key!)} ${kind} ${words(f.data!)}`
    case 'jump':
    case 'goto':
      return `${kind} ${String(f.target)}`
    case 'reject':
      return `reject${f.type === undefined ? '' : ` with ${String(f.type)}${f.expr === undefined ? '' : ` ${String(f.expr)}`}`}`
    case 'dnat':
    case 'snat':
      return `${kind} to ${f.addr === undefined ? '' : words(f.addr)}${f.port === undefined ? '' : `:${words(f.port)}`}`
    case 'mangle':
      return `${words(f.key!)} set ${words(f.value!)}`
    case '&':
    case '|':
    case '^':
      return (inner as readonly Json[]).map(words).join(` ${kind} `)
    default:
      return kind
  }
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
