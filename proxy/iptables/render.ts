import { createHash } from 'node:crypto'
import { bracketed, familyOf, formatIp, ipBytes, network, contains, type Cidr, type Ip, type IpFamily, type Network } from '../../lib/ip.ts'
import type { Endpoint, Front, NodeFacts, Refused, Route, ServiceTable } from '../table.ts'
import { measuredShape, prefixEnd, Tree, type Naming, type Shape } from './tree.ts'

/** Chains by name, each a list of rules without the leading `-A NAME`, as `iptables-save` prints them. */
export type Chains = ReadonlyMap<string, readonly string[]>

/** A set of the ipset kind: how it is made, and what is in it. `kept`: the kernel fills it, we only make it. */
export interface IpSet {
  readonly create: string
  readonly elements: ReadonlySet<string>
  readonly kept?: boolean
}

/** Everything one family needs in the kernel. */
export interface Rendered {
  readonly nat: Chains
  readonly filter: Chains
  readonly sets: ReadonlyMap<string, IpSet>
}

/** Rules in the kernel's own chains that lead to ours: table, chain, rule. */
export const jumps: readonly (readonly ['nat' | 'filter', string, string])[] = [
  ['nat', 'PREROUTING', '-j SY-NAT'],
  ['nat', 'OUTPUT', '-j SY-NAT'],
  ['nat', 'POSTROUTING', '-m conntrack --ctstate DNAT -j SY-POSTROUTING'],
  ['filter', 'INPUT', '-m conntrack --ctstate NEW -j SY-FILTER'],
  ['filter', 'FORWARD', '-j SY-FORWARD'],
  ['filter', 'OUTPUT', '-m conntrack --ctstate NEW -j SY-FILTER'],
]

/** How this kernel wants things. */
export interface RenderOptions {
  /** `xt_bpf` is there: a pod that meets itself is known by one rule, without a set. */
  readonly bpf?: boolean
  /** Packets conntrack calls INVALID pass: for networks where replies take other ways. */
  readonly liberal?: boolean
  readonly shape?: Shape
}

/** Endpoints up to which the choice among them stands in the leaf, and up to which it is a list and no tree. */
const inlineEndpoints = 8
const listedEndpoints = 32
const fan = 16
/** Slots that endpoints with affinity are hashed into; each in use is one ipset for all Services. */
const stickySlots = 256

/** What forwards exactly the fronts of `family` in `table`. */
export function render(table: ServiceTable, family: IpFamily, options: RenderOptions = {}): Rendered {
  return new Renderer(family, options).update(table)
}

/** The fronts a table holds that rules cannot express. */
export function refusedFronts(table: ServiceTable): readonly Refused[] {
  const out: Refused[] = []
  for (const [key, front] of table.fronts) {
    const kinds = new Set(front.routes.map((r) => r.outcome.kind).filter((k) => k !== 'forward'))
    if (kinds.size > 1) out.push({ front: key, object: `Service ${front.port}`, reason: 'rules cannot refuse one sender and drop another of the same front' })
  }
  return out
}

/** What one front adds to the whole. */
interface Piece {
  readonly tree: 'services' | 'external' | 'TCP' | 'UDP' | 'SCTP'
  readonly key: string
  readonly rules: readonly string[]
  readonly chains: Chains
  /** Elements by the name of their set. */
  readonly elements: readonly (readonly [string, string])[]
  readonly limited: readonly string[]
}

/** Renders one family again and again; only what changed costs anything. */
export class Renderer {
  readonly #family: IpFamily
  readonly #options: RenderOptions
  #facts: NodeFacts | undefined
  #fronts: ReadonlyMap<string, Front> = new Map()
  #pieces = new Map<string, Piece>()
  #keys = new Map<string, Set<string>>()
  #trees!: Record<Piece['tree'], Tree>
  #own = new Map<string, readonly string[]>()
  #sets = new Map<string, Map<string, number>>()
  #elements = new Map<string, ReadonlySet<string>>()
  #ips: { readonly from: ReadonlySet<Ip>; readonly own: ReadonlySet<string> } | undefined
  #limited = new Map<string, readonly string[]>()

  constructor(family: IpFamily, options: RenderOptions = {}) {
    this.#family = family
    this.#options = options
  }

  update(table: ServiceTable): Rendered {
    const facts = table.node
    if (this.#facts === undefined || !sameForRules(this.#facts, facts)) this.#reset()
    const around: Around = { family: this.#family, facts, ranges: rangesOf(facts.serviceCidrs, this.#family), bpf: this.#options.bpf !== false }
    this.#facts = facts
    const touched = new Map<Piece['tree'], Set<string>>()
    const touch = (piece: Piece): void => {
      let keys = touched.get(piece.tree)
      if (keys === undefined) touched.set(piece.tree, (keys = new Set()))
      keys.add(piece.key)
    }
    for (const [key, piece] of this.#pieces) {
      if (table.fronts.get(key) === this.#fronts.get(key)) continue
      this.#drop(key, piece)
      touch(piece)
    }
    for (const [key, front] of table.fronts) {
      if (front.family !== this.#family || this.#pieces.has(key)) continue
      const piece = pieceOf(key, front, around)
      this.#take(key, piece)
      touch(piece)
    }
    this.#fronts = table.fronts
    for (const [name, keys] of touched) {
      const changes = new Map<string, readonly string[]>()
      for (const key of keys) changes.set(key, this.#rulesUnder(`${name} ${key}`))
      this.#trees[name].put(changes)
    }
    return this.#whole(facts, around)
  }

  #reset(): void {
    const shape = this.#options.shape ?? measuredShape
    const addresses = (letter: string): Naming => addressNaming(letter, this.#family)
    this.#trees = {
      services: new Tree('SY-SERVICES', addresses(''), shape),
      external: new Tree('SY-EXTERNAL', addresses('x'), shape),
      TCP: new Tree('SY-NODE-TCP', portNaming('tcp'), shape),
      UDP: new Tree('SY-NODE-UDP', portNaming('udp'), shape),
      SCTP: new Tree('SY-NODE-SCTP', portNaming('sctp'), shape),
    }
    this.#fronts = new Map()
    this.#pieces = new Map()
    this.#keys = new Map()
    this.#own = new Map()
    this.#sets = new Map()
    this.#elements = new Map()
    this.#limited = new Map()
  }

  #take(key: string, piece: Piece): void {
    this.#pieces.set(key, piece)
    for (const rule of piece.rules) flatten(rule)
    const place = `${piece.tree} ${piece.key}`
    let here = this.#keys.get(place)
    if (here === undefined) this.#keys.set(place, (here = new Set()))
    here.add(key)
    for (const [name, rules] of piece.chains) this.#own.set(name, rules)
    for (const [set, element] of piece.elements) {
      let elements = this.#sets.get(set)
      if (elements === undefined) this.#sets.set(set, (elements = new Map()))
      elements.set(element, (elements.get(element) ?? 0) + 1)
      this.#elements.delete(set)
    }
    if (piece.limited.length > 0) this.#limited.set(key, piece.limited)
  }

  #drop(key: string, piece: Piece): void {
    this.#pieces.delete(key)
    const place = `${piece.tree} ${piece.key}`
    const here = this.#keys.get(place)!
    here.delete(key)
    if (here.size === 0) this.#keys.delete(place)
    for (const name of piece.chains.keys()) this.#own.delete(name)
    for (const [set, element] of piece.elements) {
      const elements = this.#sets.get(set)!
      const left = elements.get(element)! - 1
      if (left > 0) elements.set(element, left)
      else elements.delete(element)
      if (elements.size === 0) this.#sets.delete(set)
      this.#elements.delete(set)
    }
    this.#limited.delete(key)
  }

  /** The elements of a set; the same value again while nothing changed, so that nobody compares them. */
  #elementsOf(name: string): ReadonlySet<string> {
    let known = this.#elements.get(name)
    if (known === undefined) this.#elements.set(name, (known = new Set(this.#sets.get(name)?.keys())))
    return known
  }

  #rulesUnder(place: string): readonly string[] {
    const keys = this.#keys.get(place)
    if (keys === undefined) return []
    if (keys.size === 1) return this.#pieces.get(keys.values().next().value!)!.rules
    return [...keys].sort().flatMap((k) => this.#pieces.get(k)!.rules)
  }

  #whole(facts: NodeFacts, around: Around): Rendered {
    const f = this.#family
    const nat = new Map<string, readonly string[]>()
    const trees = this.#trees
    const mark = hex(facts.masqueradeMark)
    const external = trees.external.size > 0
    const node = trees.TCP.size + trees.UDP.size + trees.SCTP.size > 0
    const ranges = facts.serviceCidrs.filter((c) => familyOf(c) === f)
    const toNode = nodeMatches(facts, f)
    // A connection that is nobody's Service leaves here, after one test for each line.
    nat.set('SY-NAT', [
      ...(trees.services.size > 0 ? ranges.map((c) => `-d ${c} -g SY-SERVICES`) : []),
      ...(external ? [`-m set --match-set ${setName(f, 'EXTERNAL')} dst,dst -j SY-EXTERNAL`] : []),
      ...(node ? toNode.map((m) => `${m} -j SY-NODE`) : []),
    ])
    nat.set(
      'SY-NODE',
      (['TCP', 'UDP', 'SCTP'] as const).flatMap((p) => (trees[p].size > 0 ? [`-p ${p.toLowerCase()} -g SY-NODE-${p}`] : [])),
    )
    for (const [name, rules] of trees.services.chains()) nat.set(name, name === 'SY-SERVICES' ? [...markRules(assumption(around), around), ...rules] : rules)
    for (const name of ['external', 'TCP', 'UDP', 'SCTP'] as const) for (const [chain, rules] of trees[name].chains()) nat.set(chain, rules)
    if (podCidrs(facts, f).length > 1) nat.set('SY-SOURCE', [...podCidrs(facts, f).map((c) => `-s ${c} -j RETURN`), `-j MARK --set-xmark ${mark}/${mark}`])
    for (const [name, rules] of this.#own) nat.set(name, rules)
    nat.set('SY-POSTROUTING', [
      `-m mark --mark ${mark}/${mark} -g SY-MASQUERADE`,
      // Source equals destination: a pod that meets itself. It would answer itself directly, past the translation.
      around.bpf ? `-m bpf --bytecode "${hairpinCode(f)}" -j MASQUERADE --random-fully` : `-m set --match-set ${setName(f, 'HAIRPIN')} dst,dst,src -j MASQUERADE --random-fully`,
    ])
    // The mark goes, so that a packet that comes round again (a tunnel's) is not masqueraded twice.
    nat.set('SY-MASQUERADE', [`-j MARK --set-xmark ${mark}/0x0`, '-j MASQUERADE --random-fully'])

    const sets = new Map<string, IpSet>()
    const make = (what: SetKind, elements: ReadonlySet<string>): void => void sets.set(setName(f, what), { create: setType(what, f), elements })
    const of = (what: SetKind): ReadonlySet<string> => this.#elementsOf(setName(f, what))
    if (this.#ips?.from !== facts.clusterIps) this.#ips = { from: facts.clusterIps, own: new Set([...facts.clusterIps].filter((ip) => familyOf(ip) === f)) }
    make('IP', this.#ips.own)
    for (const what of ['EXTERNAL', 'DROP', 'REJECT'] as const) if (of(what).size > 0) make(what, of(what))
    for (const what of portSets) if (of(what).size > 0) make(what, of(what))
    if (!around.bpf) make('HAIRPIN', of('HAIRPIN'))
    for (const slot of of('STICKY')) sets.set(`${setName(f, 'STICKY')}-${slot}`, { create: setType('STICKY', f), elements: new Set(), kept: true })

    const has = (what: SetKind): boolean => sets.has(setName(f, what))
    const filter = new Map<string, readonly string[]>()
    const limited = [...this.#limited.keys()].sort().flatMap((k) => this.#limited.get(k)!)
    const portRules = portSets
      .filter(has)
      .map((what) => `-p ${what.split('-')[2]!.toLowerCase()} -m set --match-set ${setName(f, what)} dst ${what.startsWith('NODE-DROP') ? '-j DROP' : '-g SY-REJECT'}`)
    // Only the first packet of a connection that nat did not take comes past the first rule.
    filter.set('SY-FILTER', [
      '-m conntrack --ctstate DNAT -j RETURN',
      ...limited,
      ...(has('DROP') ? [`-m set --match-set ${setName(f, 'DROP')} dst,dst -j DROP`] : []),
      ...(has('REJECT') ? [`-m set --match-set ${setName(f, 'REJECT')} dst,dst -g SY-REJECT`] : []),
      ...(portRules.length > 0 ? toNode.map((m) => `${m} -j SY-FILTER-NODE`) : []),
      `-m set --match-set ${setName(f, 'IP')} dst -g SY-REJECT`,
      ...ranges.map((c) => `-d ${c} -j DROP`),
    ])
    filter.set('SY-FILTER-NODE', portRules)
    filter.set('SY-REJECT', ['-p tcp -j REJECT --reject-with tcp-reset', `-j REJECT --reject-with ${f === 4 ? 'icmp' : 'icmp6'}-port-unreachable`])
    filter.set('SY-FORWARD', [
      // An answer that conntrack does not know would leave with the endpoint's address, and its client would reset the connection.
      ...(this.#options.liberal === true ? [] : ['-m conntrack --ctstate INVALID -j DROP']),
      '-m conntrack --ctstate NEW -j SY-FILTER',
      `-m mark --mark ${mark}/${mark} -j ACCEPT`,
      '-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    ])
    return { nat, filter, sets }
  }
}

interface Around {
  readonly family: IpFamily
  readonly facts: NodeFacts
  readonly ranges: readonly Network[]
  readonly bpf: boolean
}

type SetKind = 'IP' | 'EXTERNAL' | 'DROP' | 'REJECT' | 'HAIRPIN' | 'STICKY' | (typeof portSets)[number]
const portSets = ['NODE-DROP-TCP', 'NODE-DROP-UDP', 'NODE-DROP-SCTP', 'NODE-REJECT-TCP', 'NODE-REJECT-UDP', 'NODE-REJECT-SCTP'] as const

const setName = (family: IpFamily, what: SetKind): string => `SY-${family}-${what}`

function setType(what: SetKind, family: IpFamily): string {
  const inet = family === 4 ? 'inet' : 'inet6'
  if (what.startsWith('NODE-')) return 'bitmap:port range 0-65535'
  if (what === 'IP') return `hash:ip family ${inet} hashsize 1024 maxelem 1048576`
  // `timeout 0`: elements may have one of their own.
  if (what === 'STICKY') return `hash:ip,port,ip family ${inet} hashsize 64 maxelem 1048576 timeout 0`
  if (what === 'HAIRPIN') return `hash:ip,port,ip family ${inet} hashsize 1024 maxelem 1048576`
  return `hash:ip,port family ${inet} hashsize 1024 maxelem 1048576`
}

/** Whether rules made under `a` are also those under `b`; allocated ClusterIPs are only elements of a set. */
function sameForRules(a: NodeFacts, b: NodeFacts): boolean {
  return (
    a === b ||
    (a.masqueradeAll === b.masqueradeAll &&
      a.masqueradeMark === b.masqueradeMark &&
      JSON.stringify([a.localPods, a.serviceCidrs, a.nodePortAddresses]) === JSON.stringify([b.localPods, b.serviceCidrs, b.nodePortAddresses]))
  )
}

const rangesOf = (cidrs: readonly Cidr[], family: IpFamily): readonly Network[] => cidrs.flatMap((c) => network(c) ?? []).filter((n) => n.family === family)
const hex = (n: number): string => `0x${n.toString(16)}`

function podCidrs(facts: NodeFacts, family: IpFamily): readonly Cidr[] {
  return facts.localPods.kind === 'cidr' ? facts.localPods.cidrs.filter((c) => familyOf(c) === family) : []
}

/** What is done once for all ClusterIPs, before one of them is found. */
function assumption({ facts, family }: Around): Manner {
  if (facts.masqueradeAll) return 'always'
  if (facts.localPods.kind === 'none') return 'hairpin only'
  return facts.localPods.kind === 'cidr' && podCidrs(facts, family).length === 0 ? 'hairpin only' : 'pods keep'
}

/** Rules that mark packets to be masqueraded, of those that fit `match`: none of them, all, or all but those of pods. */
function markRules(manner: Manner, around: Around, match = ''): readonly string[] {
  const mark = hex(around.facts.masqueradeMark)
  const after = match === '' ? '' : `${match} `
  const set = `-j MARK --set-xmark ${mark}/${mark}`
  // In the order that `iptables-save` prints: source, destination, interface, protocol.
  const unlessFrom = (name: string): readonly string[] => [`${after.startsWith('-d') ? after.replace(' -p ', ` ! -i ${name} -p `) : `! -i ${name} ${after}`}${set}`]
  switch (manner) {
    case 'hairpin only':
      return []
    case 'always':
      return [`${after}${set}`]
    case 'pods keep': {
      const pods = around.facts.localPods
      if (pods.kind === 'interface') return unlessFrom(pods.name)
      if (pods.kind === 'interfacePrefix') return unlessFrom(`${pods.prefix}+`)
      const cidrs = podCidrs(around.facts, around.family)
      return cidrs.length === 1 ? [`! -s ${cidrs[0]} ${after}${set}`] : [`${after}-j SY-SOURCE`]
    }
  }
}

/** Matches of packets to this node's own addresses that NodePorts answer on. */
function nodeMatches(facts: NodeFacts, family: IpFamily): readonly string[] {
  if (facts.nodePortAddresses === 'all') return [`! -d ${family === 4 ? '127.0.0.0/8' : '::1/128'} -m addrtype --dst-type LOCAL`]
  return facts.nodePortAddresses.filter((ip) => familyOf(ip) === family).map((ip) => `-d ${ip}/${family === 4 ? 32 : 128}`)
}

/** Matches of a route's senders, several where several ranges are meant; none when there can be no such sender. */
function senders(route: Route, around: Around): readonly string[] {
  if (route.from === 'anyone') return ['']
  if (route.from === 'this node') return ['-m addrtype --src-type LOCAL ']
  const pods = around.facts.localPods
  switch (pods.kind) {
    case 'none':
      return []
    case 'interface':
      return [`-i ${pods.name} `]
    case 'interfacePrefix':
      return [`-i ${pods.prefix}+ `]
    case 'cidr':
      return podCidrs(around.facts, around.family).map((c) => `-s ${c} `)
  }
}

function pieceOf(key: string, front: Front, around: Around): Piece {
  const { family } = around
  const protocol = front.protocol.toLowerCase()
  const elements: [string, string][] = []
  const add = (what: SetKind, element: string): void => void elements.push([setName(family, what), element])
  const chains = new Map<string, readonly string[]>()
  const forwards = front.routes.some((r) => r.outcome.kind === 'forward')
  const refusal = front.routes.find((r) => r.outcome.kind !== 'forward')?.outcome.kind
  const limited: string[] = []

  let tree: Piece['tree']
  let treeKey: string
  let match: string
  if ('nodePort' in front.at) {
    const { nodePort } = front.at
    tree = front.protocol
    treeKey = nodePort.toString(16).padStart(4, '0')
    match = `-p ${protocol} -m ${protocol} --dport ${nodePort}`
    if (refusal !== undefined) add(`NODE-${refusal === 'drop' ? 'DROP' : 'REJECT'}-${front.protocol}`, String(nodePort))
    else if (front.sources !== 'any') add(`NODE-DROP-${front.protocol}`, String(nodePort))
  } else {
    const { address, port } = front.at
    const bytes = ipBytes(address)!
    const inRange = front.at.kind === 'cluster' && around.ranges.some((n) => contains(n, bytes))
    tree = inRange ? 'services' : 'external'
    treeKey = Buffer.from(bytes).toString('hex')
    match = `-d ${address}/${family === 4 ? 32 : 128} -p ${protocol} -m ${protocol} --dport ${port}`
    const element = `${address},${protocol}:${port}`
    if (!inRange && forwards) add('EXTERNAL', element)
    if (front.sources !== 'any' && (refusal === undefined || refusal === 'reject')) {
      // Those outside the ranges are dropped, those inside refused: the one case that sets cannot say.
      if (refusal === 'reject') for (const c of front.sources) limited.push(`-s ${c} ${match} -g SY-REJECT`)
      add('DROP', element)
    } else if (refusal === 'drop') add('DROP', element)
    // A ClusterIP's refusal needs nothing: its address is in the set of ClusterIPs, and no rule takes the packet before.
    else if (refusal === 'reject' && front.at.kind !== 'cluster') add('REJECT', element)
  }
  if (!around.bpf) for (const r of front.routes) if (r.outcome.kind === 'forward') for (const e of r.outcome.to) if (e.local) add('HAIRPIN', `${e.address},${protocol}:${e.port},${e.address}`)
  if (!forwards) return { tree, key: treeKey, rules: [], chains, elements, limited }

  const simple = simpleForm(front, tree === 'services' ? assumption(around) : 'hairpin only')
  if (simple !== undefined) {
    return { tree, key: treeKey, rules: [...markRules(simple.mark, around, match), ...choose(simple.to, `${match} `, protocol, true, '', chains)], chains, elements, limited }
  }
  const own = `SY-${front.affinity === undefined ? 'P' : 'A'}-${short(key)}`
  ownChains(own, front, tree, around, chains, add)
  return { tree, key: treeKey, rules: [`${match} -g ${own}`], chains, elements, limited }
}

type Manner = 'always' | 'pods keep' | 'hairpin only'

/** A front that needs no chain of its own, and how its packets are still to be marked. */
function simpleForm(front: Front, assumed: Manner): { readonly to: readonly Endpoint[]; readonly mark: Manner } | undefined {
  if (front.affinity !== undefined || front.sources !== 'any') return undefined
  const masquerade = masqueradeOf(front)
  const outcome = front.routes.at(-1)!.outcome
  if (masquerade === undefined || outcome.kind !== 'forward' || outcome.to.length > inlineEndpoints) return undefined
  if (masquerade === assumed) return { to: outcome.to, mark: 'hairpin only' }
  return masquerade === 'always' || assumed === 'hairpin only' ? { to: outcome.to, mark: masquerade } : undefined
}

/** The manner of masquerading if all senders reach the same endpoints; undefined if they do not, or in no common manner. */
function masqueradeOf({ routes }: Front): Manner | undefined {
  const [first, second] = routes
  if (routes.length === 1 && first!.from === 'anyone') return first!.masquerade
  if (routes.length !== 2 || first!.from !== 'pods here' || second!.from !== 'anyone' || !sameOutcome(first!, second!)) return undefined
  if (first!.masquerade === second!.masquerade) return first!.masquerade
  return first!.masquerade === 'hairpin only' ? 'pods keep' : undefined
}

function sameOutcome(a: Route, b: Route): boolean {
  if (a.outcome === b.outcome) return true
  if (a.outcome.kind !== 'forward' || b.outcome.kind !== 'forward') return a.outcome.kind === b.outcome.kind
  const other = b.outcome.to
  return a.outcome.to.length === other.length && a.outcome.to.every((e, i) => e.address === other[i]!.address && e.port === other[i]!.port)
}

/** The chains of a front that decides by sender, keeps clients on their endpoint, or has many endpoints. */
function ownChains(own: string, front: Front, tree: Piece['tree'], around: Around, chains: Map<string, readonly string[]>, add: (what: SetKind, element: string) => void): void {
  const protocol = front.protocol.toLowerCase()
  const mark = hex(around.facts.masqueradeMark)
  const marked = `-j MARK --set-xmark ${mark}/${mark}`
  const assumed = tree === 'services' ? assumption(around) : 'hairpin only'
  const manner = masqueradeOf(front)
  const body: string[] = []
  const choice = (route: Route, name: string, out: string[]): void => {
    if (route.outcome.kind !== 'forward') return
    if (front.affinity === undefined) out.push(...choose(route.outcome.to, '', protocol, false, name, chains))
    else out.push(...chooseSticky(route.outcome.to, front.affinity, own, around.family, protocol, slots!, chains))
  }
  const slots = front.affinity === undefined ? undefined : stickySlotsOf(front)
  if (slots !== undefined) for (const slot of slots.values()) add('STICKY', String(slot))

  if (manner !== undefined && (manner === assumed || manner === 'always' || assumed === 'hairpin only')) {
    if (manner !== assumed) body.push(...markRules(manner, around))
    choice(front.routes.at(-1)!, own, body)
  } else {
    // What was marked for all ClusterIPs does not hold for this one.
    if (assumed !== 'hairpin only') body.push(`-j MARK --set-xmark ${mark}/0x0`)
    front.routes.forEach((route, i) => {
      const matches = senders(route, around)
      if (route.outcome.kind !== 'forward') body.push(...matches.map((m) => `${m}-j RETURN`))
      else if (route.from === 'anyone') {
        if (route.masquerade === 'always') body.push(marked)
        choice(route, `${own}.${i}`, body)
      } else if (matches.length > 0) {
        const name = `${own}.${i}`
        const inner: string[] = route.masquerade === 'always' ? [marked] : []
        choice(route, name, inner)
        chains.set(name, inner)
        body.push(...matches.map((m) => `${m}-g ${name}`))
      }
    })
  }
  if (front.sources === 'any') chains.set(own, body)
  else {
    chains.set(`${own}.in`, body)
    chains.set(
      own,
      front.sources.map((c) => `-s ${c} -g ${own}.in`),
    )
  }
}

/** Rules that send to one of `to`, each as likely. `match` goes before each; chains for many endpoints are named after `name`. */
function choose(to: readonly Endpoint[], match: string, protocol: string, matched: boolean, name: string, chains: Map<string, readonly string[]>): readonly string[] {
  const before = matched ? match : `-p ${protocol} `
  if (to.length <= listedEndpoints) return to.map((e, i) => `${before}${share(1, to.length - i)}-j DNAT --to-destination ${bracketed(e.address)}:${e.port}`)
  const groups = Math.min(fan, Math.ceil(to.length / fan))
  const out: string[] = []
  for (let g = 0; g < groups; g++) {
    const from = Math.floor((to.length * g) / groups)
    const until = Math.floor((to.length * (g + 1)) / groups)
    const child = `${name}.${g.toString(36)}`
    chains.set(child, choose(to.slice(from, until), '', protocol, false, child, chains))
    out.push(`${share(until - from, to.length - from)}-g ${child}`)
  }
  return out
}

function chooseSticky(
  to: readonly Endpoint[],
  seconds: number,
  own: string,
  family: IpFamily,
  protocol: string,
  slots: ReadonlyMap<string, number>,
  chains: Map<string, readonly string[]>,
): readonly string[] {
  const known: string[] = []
  const fresh: string[] = []
  to.forEach((e, i) => {
    const slot = slots.get(slotKey(e))!
    const set = `${setName(family, 'STICKY')}-${slot}`
    const chain = `${own}.e${slot}`
    known.push(`-m set --match-set ${set} dst,dst,src -g ${chain}`)
    fresh.push(`${share(1, to.length - i)}-g ${chain}`)
    chains.set(chain, [`-j SET --add-set ${set} dst,dst,src --exist --timeout ${seconds}`, `-p ${protocol} -j DNAT --to-destination ${bracketed(e.address)}:${e.port}`])
  })
  return [...known, ...fresh]
}

const slotKey = (e: Endpoint): string => `${e.address} ${e.port}`

/**
 * Which slot each endpoint of a front with affinity has: a hash of its address, so that it keeps its slot, and its clients, whatever
 * happens to the others and whoever computes it. Those that meet move on in order of their names.
 */
function stickySlotsOf(front: Front): ReadonlyMap<string, number> {
  const all = [...new Set(front.routes.flatMap((r) => (r.outcome.kind === 'forward' ? r.outcome.to.map(slotKey) : [])))].sort()
  let slots = stickySlots
  while (slots < all.length * 2) slots *= 2
  const taken = new Set<number>()
  const out = new Map<string, number>()
  for (const key of all) {
    let slot = createHash('sha1').update(key).digest().readUInt32BE(0) % slots
    while (taken.has(slot)) slot = (slot + 1) % slots
    taken.add(slot)
    out.set(key, slot)
  }
  return out
}

/** A match that `part` of `whole` packets pass, printed as the kernel keeps it: in 2^-31. The last rule always matches, rounding must not let a packet fall through. */
function share(part: number, whole: number): string {
  if (part === whole) return ''
  return `-m statistic --mode random --probability ${(Math.round((part / whole) * 0x8000_0000) / 0x8000_0000).toFixed(11)} `
}

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** Twelve letters and digits that stand for `text`: chain names hold 28 characters. */
function short(text: string): string {
  const digest = createHash('sha1').update(text).digest()
  let bits = 0n
  for (let i = 0; i < 8; i++) bits = (bits << 8n) | BigInt(digest[i]!)
  let out = ''
  for (let i = 0; i < 12; i++) out += letters[Number((bits >> BigInt(59 - i * 5)) & 31n)]
  return out
}

function addressNaming(letter: string, family: IpFamily): Naming {
  const text = (key: string): Ip => formatIp(Buffer.from(key, 'hex'))
  return {
    match: (key, bits) => `-d ${text(key)}/${bits}`,
    chain: (key, bits) => (family === 4 ? `SY-${letter}${text(key)}/${bits}` : `SY-${letter === '' ? 'S' : 'X'}-${short(`${key}/${bits}`)}`),
  }
}

function portNaming(protocol: string): Naming {
  return {
    match: (key, bits) => {
      const [from, to] = [Number.parseInt(key, 16), Number.parseInt(prefixEnd(key, bits), 16)]
      return `-p ${protocol} -m ${protocol} --dport ${from === to ? from : `${from}:${to}`}`
    },
    chain: (key, bits) => `SY-N${protocol[0]}-${Number.parseInt(key, 16)}/${bits}`,
  }
}

/** Classic BPF that says whether source and destination of a packet are one address. */
function hairpinCode(family: IpFamily): string {
  const words = family === 4 ? [[12, 16]] : [8, 12, 16, 20].map((at) => [at, at + 16])
  const end = words.length * 5
  const code = words.flatMap(([a, b], i) => [`32 0 0 ${a}`, '7 0 0 0', `32 0 0 ${b}`, '28 0 0 0', `21 0 ${end + 1 - (i * 5 + 5)} 0`])
  return [String(end + 2), ...code, '6 0 0 1', '6 0 0 0'].join(',')
}

/** A text put together is kept as its parts, which weigh more than itself; asking for its number makes it one piece. */
const flatten = (text: string): void => void Number(text)
