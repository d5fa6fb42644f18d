import { createHash } from 'node:crypto'
import { familyOf, ipBytes, network, type Cidr, type Ip, type IpFamily } from '../../lib/ip.ts'
import {
  addressKind,
  bitwise,
  compare,
  conntrackStatus,
  DNAT,
  dnat,
  hostOrder,
  LOCAL,
  lookup,
  lookupMap,
  masquerade,
  meta,
  numgen,
  payload,
  register,
  reject,
  remember,
  setMark,
  typeOf,
  types,
  u32,
  verdict,
  type Expression,
  type NftBatch,
  type SetSpec,
  type Verdict,
} from '../../linux/netlink/nftables.ts'
import type { Endpoint, Front, NodeFacts, Protocol, Route, ServiceTable } from '../table.ts'

/** Most slots a Service with affinity is spread over: a client's slot is looked for one after the other. */
export const mostSticky = 64

// The shape: a Service is elements of maps, never a rule. `services` says which chain (how many endpoints, whose senders), `endpoints` which endpoint a slot is;
// the slot is drawn inside the key. A chain exists once for all Services that are alike ("flavour"), so a change writes a few elements and no rule.

/** A list of endpoints a chain chooses from: the front's first or second one, for addresses or for ports of the node. */
type List = 'n' | 'l' | 'node-n' | 'node-l'
const mapOf: Readonly<Record<List, string>> = { n: 'endpoints', l: 'local_endpoints', 'node-n': 'node_endpoints', 'node-l': 'node_local_endpoints' }

/** What a front amounts to: elements, and the chain they lead to. */
export interface Piece {
  readonly front: Front
  readonly chain: string
  /** Endpoints by slot: the first list, and the second where senders are told apart. */
  readonly lists: readonly (readonly Endpoint[])[]
}

/** The map that leads to a front's chain. */
export const verdictMap = (front: Front): 'services' | 'ports' => ('nodePort' in front.at ? 'ports' : 'services')
/** The map that a front's first or second list of endpoints is in. */
export const endpointMap = (front: Front, list: number): string => mapOf[`${'nodePort' in front.at ? 'node-' : ''}${list === 0 ? 'n' : 'l'}` as List]

/**
 * Who forwards what the rules let through. Left out: the maps themselves. Otherwise the rules only refuse, drop and mark, and `mark` gives the packets of a front's second list
 * of endpoints a mark by which the forwarder knows them.
 */
export interface Forwarder {
  mark(front: Front): number
  /** Addresses this machine has anyway: their other ports are its own business. A new value when they change. */
  own(): ReadonlySet<Ip>
}

/** Numbers of protocols in a key. */
const protocolNumber: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 }

/** Names chains and says what stands in them, for one family and one set of facts; pure but for what it remembers of chains it named. */
export class Shape {
  readonly family: IpFamily
  readonly facts: NodeFacts
  readonly #chains = new Map<
    string,
    {
      readonly needs: readonly string[]
      readonly sets: readonly SetSpec[]
      readonly elements: readonly (readonly [set: string, key: Uint8Array, verdict: Verdict])[]
      readonly rules: readonly (readonly Expression[])[]
    }
  >()
  readonly #a: number // octets of an address
  readonly #r: ReturnType<typeof registers>

  readonly forwarder: Forwarder | undefined

  constructor(family: IpFamily, facts: NodeFacts, forwarder?: Forwarder) {
    this.family = family
    this.facts = facts
    this.forwarder = forwarder
    this.#a = family === 4 ? 4 : 16
    this.#r = registers(family)
  }

  /** The elements and the chain of `front`; `before` keeps endpoints in their slots. Undefined when it cannot be said in this shape. */
  piece(front: Front, before: Piece | undefined): Piece | undefined {
    const node = 'nodePort' in front.at
    const lists: { endpoints: readonly Endpoint[]; slots: readonly Endpoint[] }[] = []
    const targets: { route: Route; chain: string }[] = []
    for (const route of front.routes) {
      const { outcome } = route
      if (outcome.kind !== 'forward' || outcome.to.length === 0) {
        targets.push({ route, chain: outcome.kind === 'drop' ? 'dropped' : 'refused' })
        continue
      }
      let index = lists.findIndex((l) => sameList(l.endpoints, outcome.to))
      if (index < 0) {
        index = lists.length
        if (index > 1) return undefined
        const old = before?.lists[index]
        lists.push({ endpoints: outcome.to, slots: this.forwarder !== undefined ? outcome.to : front.affinity === undefined ? slotsOf(outcome.to, old) : stickySlots(outcome.to, old) })
      }
      const list: List = `${node ? 'node-' : ''}${index === 0 ? 'n' : 'l'}` as List
      const n = lists[index]!.slots.length
      const pick = this.forwarder !== undefined ? this.#handedOver(index, front, this.forwarder) : front.affinity === undefined ? this.#pick(list, n) : this.#sticky(list, n, front.affinity)
      targets.push({ route, chain: route.masquerade === 'always' ? this.#marked(pick) : pick })
    }
    const chain = this.#limited(this.#routed(targets), front.sources)
    return { front, chain, lists: lists.map((l) => l.slots) }
  }

  /** Addresses all of whose other ports are refused: ClusterIPs, and for a forwarder that binds them also external ones. The same value for the same table. */
  addressesIn(table: ServiceTable): ReadonlySet<Ip> {
    const { clusterIps } = table.node
    const own = this.forwarder?.own()
    if (this.#addresses?.clusterIps === clusterIps && (this.forwarder === undefined || (this.#addresses.fronts === table.fronts && this.#addresses.own === own))) return this.#addresses.found
    const found = new Set<Ip>()
    for (const ip of clusterIps) if (familyOf(ip) === this.family) found.add(ip)
    if (this.forwarder !== undefined) for (const { at, family } of table.fronts.values()) if (family === this.family && 'address' in at && own?.has(at.address) !== true) found.add(at.address)
    this.#addresses = { clusterIps, fronts: table.fronts, own, found }
    return found
  }
  #addresses: { readonly clusterIps: ReadonlySet<Ip>; readonly fronts: ReadonlyMap<string, Front>; readonly own: ReadonlySet<Ip> | undefined; readonly found: ReadonlySet<Ip> } | undefined

  /** Writes chain `name`, and first what it leads to, unless `made` has it. */
  write(name: string, made: Set<string>, batch: NftBatch): void {
    if (made.has(name)) return
    const chain = this.#chains.get(name)
    if (chain === undefined) return // of the frame
    for (const other of chain.needs) this.write(other, made, batch)
    for (const spec of chain.sets) {
      if (made.has(`set ${spec.name}`)) continue
      made.add(`set ${spec.name}`)
      batch.set(spec)
    }
    batch.chain(name)
    for (const rule of chain.rules) batch.rule(name, rule)
    for (const [set, key, verdict] of chain.elements) {
      const id = `element ${set} ${Buffer.from(key).toString('hex')}`
      if (made.has(id)) continue
      made.add(id)
      batch.add(set, key, verdict)
    }
    made.add(name)
  }

  /** How many rules chain `name` has. */
  ruleCount(name: string): number {
    return this.#chains.get(name)?.rules.length ?? this.frameChains().find((c) => c.name === name)?.rules.length ?? 0
  }

  /** Sets and maps that are always there. */
  frameSets(): readonly SetSpec[] {
    const a = this.#a
    const ip = this.family === 4 ? types.ipv4 : types.ipv6
    const endpoint = { type: typeOf(ip, types.port), length: a + 4 }
    const maps: readonly SetSpec[] =
      this.forwarder !== undefined
        ? []
        : [
            { name: 'endpoints', keyType: typeOf(ip, types.proto, types.port, types.mark), keyLength: a + 12, data: endpoint },
            { name: 'local_endpoints', keyType: typeOf(ip, types.proto, types.port, types.mark), keyLength: a + 12, data: endpoint },
            { name: 'node_endpoints', keyType: typeOf(types.proto, types.port, types.mark), keyLength: 12, data: endpoint },
            { name: 'node_local_endpoints', keyType: typeOf(types.proto, types.port, types.mark), keyLength: 12, data: endpoint },
          ]
    return [
      ...maps,
      { name: 'services', keyType: typeOf(ip, types.proto, types.port), keyLength: a + 8, data: 'verdict' },
      { name: 'ports', keyType: typeOf(types.proto, types.port), keyLength: 8, data: 'verdict' },
      { name: 'addresses', keyType: ip, keyLength: a },
      { name: 'hairpin', keyType: typeOf(ip, ip), keyLength: 2 * a },
    ]
  }

  /** Chains that are always there, in an order in which each leads only to earlier ones. */
  frameChains(): readonly { readonly name: string; readonly hook?: Parameters<NftBatch['chain']>[1]; readonly rules: readonly (readonly Expression[])[] }[] {
    const { facts, family } = this
    const r = this.#r
    const ranges = facts.serviceCidrs.filter((c) => familyOf(c) === family)
    const services = [...this.#serviceKey(), lookupMap('services', r.first, 0)]
    const wrongPort = [this.#destination(r.first), lookup('addresses', r.first), verdict({ goto: 'refused' })]
    const mark = u32(facts.masqueradeMark)
    const zero = u32(0)
    const ports = [...this.#portKey(), lookupMap('ports', r.first, 0)]
    const nodePorts: readonly (readonly Expression[])[] =
      facts.nodePortAddresses === 'all'
        ? [
            [
              this.#destination(r.first),
              ...(family === 4 ? [bitwise(r.first, Uint8Array.of(255, 0, 0, 0), zero), compare(r.first, Uint8Array.of(127, 0, 0, 0), true)] : [compare(r.first, ipBytes('::1')!, true)]),
              addressKind(r.first, 'destination'),
              compare(r.first, LOCAL),
              ...ports,
            ],
          ]
        : facts.nodePortAddresses.filter((ip) => familyOf(ip) === family).map((ip) => [this.#destination(r.first), compare(r.first, ipBytes(ip)!), ...ports])
    // A refusal of this machine's own packets goes to the bound address they came from, and must not be refused itself.
    const bound: readonly (readonly Expression[])[] =
      this.forwarder === undefined
        ? []
        : [
            [meta(r.first, 'l4proto'), compare(r.first, Uint8Array.of(family === 4 ? 1 : 58)), verdict('accept')],
            [
              meta(r.first, 'l4proto'),
              compare(r.first, Uint8Array.of(6)),
              payload(r.first, 'transport', 13, 1),
              bitwise(r.first, Uint8Array.of(4), Uint8Array.of(0)),
              compare(r.first, Uint8Array.of(0), true),
              verdict('accept'),
            ],
          ]
    return [
      // A reject by ICMP is rate-limited: of quick tries some would time out. A reset is not.
      { name: 'refused', rules: [...bound, [meta(r.first, 'l4proto'), compare(r.first, Uint8Array.of(6)), reject(family, 'tcp reset')], [reject(family, 'port unreachable')]] },
      { name: 'dropped', rules: [[verdict('drop')]] },
      // A ClusterIP's other ports are refused, addresses of the range that nobody has are dropped.
      { name: 'cluster', rules: [services, wrongPort, [verdict('drop')]] },
      {
        name: 'pick',
        rules: [
          ...ranges.map((c) => [...this.#inside('destination', c), verdict({ goto: 'cluster' })]),
          services,
          ...(this.forwarder === undefined && ranges.length === 0 ? [wrongPort] : []),
          ...nodePorts,
          ...(this.forwarder === undefined ? [] : [wrongPort]),
        ],
      },
      {
        name: 'masquerading',
        rules: [
          // The mark goes, so that a packet that comes round again in a tunnel is not masqueraded twice.
          [meta(r.first, 'mark'), bitwise(r.first, mark, zero), compare(r.first, zero, true), meta(r.first, 'mark'), bitwise(r.first, u32(~facts.masqueradeMark), zero), setMark(r.first), masquerade],
          [this.#source(r.first), this.#destination(r.first + this.#a / 4), lookup('hairpin', r.first), masquerade],
        ],
      },
      { name: 'prerouting', hook: { at: 'prerouting', type: 'nat', priority: -100 }, rules: [[verdict({ jump: 'pick' })]] },
      { name: 'output', hook: { at: 'output', type: 'nat', priority: -100 }, rules: [[verdict({ jump: 'pick' })]] },
      {
        name: 'postrouting',
        hook: { at: 'postrouting', type: 'nat', priority: 100 },
        rules: [[...(this.forwarder === undefined ? [conntrackStatus(r.first), bitwise(r.first, DNAT, zero), compare(r.first, zero, true)] : []), verdict({ goto: 'masquerading' })]],
      },
    ]
  }

  // Chains of flavours. Each gives its name, and remembers what it is.

  /** One of `n` slots by chance. */
  #pick(list: List, n: number): string {
    return this.#chain(`${list}${n}`, [], () => [this.#to(list, (slot) => numgen(slot, 'random', n)), [verdict({ goto: 'dropped' })]])
  }

  /** The slot this client had within `seconds`, else one of `n` by chance. */
  #sticky(list: List, n: number, seconds: number): string {
    const a = this.#a
    const ip = this.family === 4 ? types.ipv4 : types.ipv6
    const base = `a${seconds}-${list}`
    const slots = Array.from({ length: n }, (_, i) => {
      const sticky: SetSpec = { name: `sticky-${i}`, keyType: typeOf(ip, ip, types.proto, types.port), keyLength: 2 * a + 8, dynamic: { size: 65_536 } }
      return this.#chain(
        `${base}.${i}`,
        [],
        // A full set makes the first rule fail, so the translation stands in one of its own.
        () => [[...this.#clientKey(), remember(sticky.name, this.#r.first, seconds)], this.#to(list, (slot) => numgen(slot, 'inc', 1, i)), [verdict({ goto: 'dropped' })]],
        [sticky],
      )
    })
    const choice: SetSpec = { name: `choice-${base}`, keyType: types.mark, keyLength: 4, data: 'verdict', userdata: hostOrder }
    return this.#chain(
      `${base}${n}`,
      slots,
      () => [
        ...slots.map((chain, i) => [...this.#clientKey(), lookup(`sticky-${i}`, this.#r.first), verdict({ goto: chain })]),
        [numgen(this.#r.first, 'random', n), lookupMap(choice.name, this.#r.first, 0)],
        [verdict({ goto: 'dropped' })],
      ],
      [choice],
      slots.map((chain, i) => [choice.name, u32(i), { goto: chain }] as const),
    )
  }

  /** Let through to the forwarder; the second list's with a mark in place of all but the masquerading bit. */
  #handedOver(list: number, front: Front, forwarder: Forwarder): string {
    if (list === 0) return this.#chain('through', [], () => [[verdict('accept')]])
    const mark = forwarder.mark(front)
    const r = this.#r.first
    return this.#chain(`mark-${mark}`, [], () => [[meta(r, 'mark'), bitwise(r, u32(this.facts.masqueradeMark), u32(mark)), setMark(r)], [verdict('accept')]])
  }

  #marked(target: string): string {
    const r = this.#r.first
    const bit = this.facts.masqueradeMark
    return this.#chain(`m-${target}`, [target], () => [[meta(r, 'mark'), bitwise(r, u32(~bit), u32(bit)), setMark(r)], [verdict({ goto: target })]])
  }

  /** The first line that fits the sender decides. */
  #routed(targets: readonly { readonly route: Route; readonly chain: string }[]): string {
    const last = targets.at(-1)
    if (last === undefined) return 'dropped'
    if (targets.length === 1 && last.route.from === 'anyone') return last.chain
    const letter = { 'pods here': 'p', 'this node': 'h', anyone: 'x' } as const
    return this.#chain(
      targets.map((t) => `${letter[t.route.from]}.${t.chain}`).join('_'),
      targets.map((t) => t.chain),
      () => [...targets.flatMap(({ route, chain }) => this.#senders(route.from).map((match) => [...match, verdict({ goto: chain })])), ...(last.route.from === 'anyone' ? [] : [[verdict('drop')]])],
    )
  }

  /** Senders outside `sources` are dropped. */
  #limited(target: string, sources: readonly Cidr[] | 'any'): string {
    if (sources === 'any') return target
    const plain = `from.${sources.map((c) => c.replaceAll(':', '-')).join('_')}.${target}`
    const name = plain.length < 120 ? plain : `from.${createHash('sha256').update(plain).digest('hex').slice(0, 16)}.${target}`
    return this.#chain(name, [target], () => [...sources.filter((c) => familyOf(c) === this.family).map((c) => [...this.#inside('source', c), verdict({ goto: target })]), [verdict('drop')]])
  }

  #chain(
    name: string,
    needs: readonly string[],
    rules: () => readonly (readonly Expression[])[],
    sets: readonly SetSpec[] = [],
    elements: readonly (readonly [string, Uint8Array, Verdict])[] = [],
  ): string {
    if (!this.#chains.has(name)) this.#chains.set(name, { needs, sets, elements, rules: rules() })
    return name
  }

  // Expressions.

  /** Translates the destination to what the map has for this key and the slot that `draw` puts in. A key it lacks ends the rule. */
  #to(list: List, draw: (slot: number) => Expression): Expression[] {
    const node = list.startsWith('node-')
    const r = this.#r.first
    const slot = r + (node ? 2 : this.#a / 4 + 2)
    return [...(node ? this.#portKey() : this.#serviceKey()), draw(slot), lookupMap(mapOf[list], r, r), dnat(this.family, r, r + this.#a / 4)]
  }

  #serviceKey(): Expression[] {
    const r = this.#r.first
    return [this.#destination(r), meta(r + this.#a / 4, 'l4proto'), payload(r + this.#a / 4 + 1, 'transport', 2, 2)]
  }

  #portKey(): Expression[] {
    const r = this.#r.first
    return [meta(r, 'l4proto'), payload(r + 1, 'transport', 2, 2)]
  }

  #clientKey(): Expression[] {
    const r = this.#r.first
    const w = this.#a / 4
    return [this.#source(r), this.#destination(r + w), meta(r + 2 * w, 'l4proto'), payload(r + 2 * w + 1, 'transport', 2, 2)]
  }

  #source(into: number): Expression {
    return payload(into, 'network', this.family === 4 ? 12 : 8, this.#a)
  }

  #destination(into: number): Expression {
    return payload(into, 'network', this.family === 4 ? 16 : 24, this.#a)
  }

  #inside(which: 'source' | 'destination', cidr: Cidr): Expression[] {
    const n = network(cidr)!
    const r = this.#r.first
    const mask = Uint8Array.from({ length: this.#a }, (_, i) => (n.bits >= (i + 1) * 8 ? 255 : n.bits <= i * 8 ? 0 : (0xff << (8 - (n.bits - i * 8))) & 255))
    if (n.bits === 0) return []
    return [which === 'source' ? this.#source(r) : this.#destination(r), ...(n.bits === this.#a * 8 ? [] : [bitwise(r, mask, new Uint8Array(this.#a))]), compare(r, n.bytes)]
  }

  /** Matches of a route's senders: any of them will do; none when there can be no such sender. */
  #senders(from: Route['from']): readonly (readonly Expression[])[] {
    const r = this.#r.first
    if (from === 'anyone') return [[]]
    if (from === 'this node') return [[addressKind(r, 'source'), compare(r, LOCAL)]]
    const pods = this.facts.localPods
    switch (pods.kind) {
      case 'none':
        return []
      case 'interface':
        return [[meta(r, 'iifname'), compare(r, nameOctets(pods.name, 16))]]
      case 'interfacePrefix':
        return [[meta(r, 'iifname'), compare(r, nameOctets(pods.prefix, pods.prefix.length))]]
      case 'cidr':
        return pods.cidrs.filter((c) => familyOf(c) === this.family).map((c) => this.#inside('source', c))
    }
  }
}

function registers(_family: IpFamily) {
  return { first: register(0) }
}

function nameOctets(name: string, length: number): Uint8Array {
  const b = new Uint8Array(length)
  b.set(Buffer.from(name, 'latin1').subarray(0, length))
  return b
}

function sameList(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  return a === b || (a.length === b.length && a.every((e, i) => e.address === b[i]!.address && e.port === b[i]!.port))
}

const id = (e: Endpoint): string => `${e.address} ${e.port}`

/** Slots 0…n−1, one an endpoint; those that were there stay where they were, as far as they can. */
export function slotsOf(to: readonly Endpoint[], before: readonly Endpoint[] | undefined): readonly Endpoint[] {
  if (before === undefined || before.length === 0) return to
  const rest = new Map(to.map((e) => [id(e), e]))
  if (rest.size !== to.length) return to
  const slots: (Endpoint | undefined)[] = Array.from({ length: to.length })
  for (let i = 0; i < Math.min(before.length, slots.length); i++) {
    const kept = rest.get(id(before[i]!))
    if (kept === undefined) continue
    slots[i] = kept
    rest.delete(id(kept))
  }
  const others = rest.values()
  return slots.map((e) => e ?? others.next().value!)
}

/**
 * Slots for clients that stay: several an endpoint. An endpoint that went gives each of its slots to another as a guest, so nobody else's clients move;
 * one that came takes guests first. At first four slots each, fewer for many endpoints, so that a guest weighs little and the search stays short.
 */
export function stickySlots(to: readonly Endpoint[], before: readonly Endpoint[] | undefined): readonly Endpoint[] {
  const each = Math.max(1, Math.min(4, Math.floor(mostSticky / to.length)))
  if (before === undefined || before.length < to.length) {
    const slots = [...(before ?? [])]
    return spread(to, slots, Math.max(to.length * each, slots.length))
  }
  // Far too many slots for few endpoints, or so few that shares are uneven: begin anew would move clients; only growing is done.
  return spread(to, [...before], Math.max(before.length, Math.min(mostSticky, to.length * each)))
}

function spread(to: readonly Endpoint[], slots: (Endpoint | undefined)[], size: number): readonly Endpoint[] {
  const living = new Map(to.map((e) => [id(e), e]))
  const load = new Map<string, number>(to.map((e) => [id(e), 0]))
  const kept: (Endpoint | undefined)[] = Array.from({ length: size }, (_, i) => (slots[i] === undefined ? undefined : living.get(id(slots[i]!))))
  for (const e of kept) if (e !== undefined) load.set(id(e), load.get(id(e))! + 1)
  const least = (): Endpoint => {
    let best = to[0]!
    for (const e of to) if (load.get(id(e))! < load.get(id(best))!) best = e
    return best
  }
  for (let i = 0; i < size; i++) {
    if (kept[i] !== undefined) continue
    const e = least()
    kept[i] = e
    load.set(id(e), load.get(id(e))! + 1)
  }
  // Somebody without any slot takes one from whoever has most.
  for (const e of to) {
    if (load.get(id(e))! > 0) continue
    let most = 0
    kept.forEach((k, i) => {
      if (load.get(id(k!))! > load.get(id(kept[most]!))!) most = i
    })
    load.set(id(kept[most]!), load.get(id(kept[most]!))! - 1)
    kept[most] = e
    load.set(id(e), 1)
  }
  return kept as Endpoint[]
}

// Keys and values are written into these, again and again: at a quarter of a million endpoints an object each would be most of the work.
const scratch = { 4: new Uint8Array(16), 6: new Uint8Array(28) } as const
const services = { 4: scratch[4].subarray(0, 12), 6: scratch[6].subarray(0, 24) } as const
const portScratch = new Uint8Array(12)
const ports = portScratch.subarray(0, 8)
const dataScratch = { 4: new Uint8Array(8), 6: new Uint8Array(20) } as const

/** The key of a front: address (none for a port of the node), protocol, port; each padded to four octets. Valid until the next call of any of these. */
export function keyOf(front: Front): Uint8Array {
  if ('nodePort' in front.at) {
    writePort(portScratch, 0, front, front.at.nodePort)
    return ports
  }
  const key = scratch[front.family]
  const a = putAddress(key, front.at.address)
  writePort(key, a, front, front.at.port)
  return services[front.family]
}

/** The key of one of its slots, after `keyOf`. */
export function slotKey(front: Front, slot: number): Uint8Array {
  const key = 'nodePort' in front.at ? portScratch : scratch[front.family]
  const at = key.length - 4
  key[at] = slot & 255
  key[at + 1] = slot >> 8
  return key
}

/** What a slot's element holds: address, port. Valid until the next call. */
export function endpointData(e: Endpoint, family: IpFamily): Uint8Array {
  const data = dataScratch[family]
  const a = putAddress(data, e.address)
  data[a] = e.port >> 8
  data[a + 1] = e.port & 255
  return data
}

function writePort(key: Uint8Array, at: number, front: Front, port: number): void {
  key[at] = protocolNumber[front.protocol]
  key[at + 4] = port >> 8
  key[at + 5] = port & 255
}

/** Writes an address's octets and gives their number; a dotted quad without making anything. */
function putAddress(into: Uint8Array, address: string): number {
  if (address.includes(':')) {
    into.set(ipBytes(address)!)
    return 16
  }
  let at = 0
  let n = 0
  for (let i = 0; i < address.length; i++) {
    const c = address.codePointAt(i)!
    if (c === 46) {
      into[at++] = n
      n = 0
    } else n = n * 10 + c - 48
  }
  into[at] = n
  return 4
}
