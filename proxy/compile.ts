import { candidates, categorize, type Candidate } from '../kube/endpoints.ts'
import type { EndpointSlice, Node, Service, ServicePort } from '../kube/objects.ts'
import { bracketed, contains, familyOf, network, parseCidr, parseIp, type Cidr, type Ip, type IpFamily } from '../lib/ip.ts'
import type { Endpoint, Front, LocalDetector, NodeFacts, Outcome, Protocol, Refused, Route, Seconds, ServicePortName, ServiceTable } from './table.ts'

/** What a node's proxy was told besides objects. */
export interface CompileOptions {
  readonly node: string
  /** Ranges of all pods of the cluster. */
  readonly clusterCidrs?: readonly Cidr[]
  /** Where ClusterIPs come from; ServiceCIDR objects are added to it. */
  readonly serviceCidrs?: readonly Cidr[]
  /** How a pod is told from others. Default: by `clusterCidrs`. */
  readonly detectLocal?: { readonly mode: 'ClusterCIDR' | 'NodeCIDR' } | { readonly mode: 'BridgeInterface' | 'InterfaceNamePrefix'; readonly name: string }
  /** `all` (all but loopback, the default), or a list of `primary` and networks. */
  readonly nodePortAddresses?: 'all' | readonly string[]
  /** Addresses of this machine, for networks among `nodePortAddresses`. */
  readonly localAddresses?: readonly string[]
  /** External addresses are served only inside these. */
  readonly externalIpRanges?: 'any' | readonly Cidr[]
  /** Serves only Services that carry this `service.kubernetes.io/service-proxy-name`; those without one if left out. */
  readonly serviceProxyName?: string
  readonly masqueradeAll?: boolean
  /** 0 to 31; 14 is 0x4000. */
  readonly masqueradeBit?: number
  /** Annotations that name a scheduler, the first one found wins. */
  readonly scheduler?: string
}

/** The API objects a table is made of, under `namespace/name` (nodes and ServiceCIDRs: their name). */
export interface Objects {
  readonly services: Iterable<Service>
  readonly slices: Iterable<EndpointSlice>
  readonly nodes?: Iterable<Node>
  readonly serviceCidrs?: Iterable<ServiceCidrObject>
}

/** networking.k8s.io/v1 ServiceCIDR, as far as it is read. */
export interface ServiceCidrObject {
  readonly metadata: { readonly name: string }
  readonly spec?: { readonly cidrs?: readonly string[] }
}

/** A Service with `healthCheckNodePort`: how many of its endpoints run here. */
export interface HealthCheck {
  readonly namespace: string
  readonly name: string
  readonly port: number
  readonly localEndpoints: number
}

/** A table, what objects asked for that it does not hold, and the health checks to answer. */
export interface Compiled {
  readonly table: ServiceTable
  readonly refused: readonly Refused[]
  readonly healthChecks: ReadonlyMap<string, HealthCheck>
}

/** The table of `objects`, from nothing. */
export function compile(objects: Objects, options: CompileOptions): Compiled {
  const compiler = new Compiler(options)
  for (const node of objects.nodes ?? []) compiler.node(node, undefined)
  for (const range of objects.serviceCidrs ?? []) compiler.serviceCidr(range, undefined)
  for (const service of objects.services) compiler.service(service, undefined)
  for (const slice of objects.slices) compiler.slice(slice, undefined)
  return compiler.compile()
}

/** What one Service amounts to on this node. */
interface Part {
  readonly created: string
  readonly fronts: ReadonlyMap<string, Front>
  readonly refused: readonly Refused[]
  readonly clusterIps: readonly Ip[]
  readonly healthCheck: HealthCheck | undefined
}

const serviceNameLabel = 'kubernetes.io/service-name'
const proxyNameLabel = 'service.kubernetes.io/service-proxy-name'
const headlessLabel = 'service.kubernetes.io/headless'
const zoneLabel = 'topology.kubernetes.io/zone'
const schedulerAnnotations = ['switchyard.dev/scheduler', 'kube-router.io/service.scheduler']
const defaultAffinitySeconds = 10_800

const keyOf = (o: { readonly metadata: { readonly namespace?: string; readonly name: string } }): string => `${o.metadata.namespace ?? 'default'}/${o.metadata.name}`

/**
 * Keeps the table as objects change. One changed slice costs the work of its Service; fronts that came out equal keep their identity,
 * so that a backend's diff is a comparison of pointers.
 */
export class Compiler {
  readonly #options: CompileOptions
  readonly #services = new Map<string, Service>()
  /** Slices by Service, then by the slice's name. */
  readonly #slices = new Map<string, Map<string, EndpointSlice>>()
  readonly #ranges = new Map<string, ServiceCidrObject>()
  #node: Node | undefined
  #localAddresses: readonly string[]

  readonly #dirty = new Set<string>()
  #allDirty = true
  #rangesDirty = true
  readonly #parts = new Map<string, Part>()
  /** Who wants a front: one Service nearly always. */
  readonly #claims = new Map<string, readonly string[]>()
  readonly #ipCount = new Map<Ip, number>()
  #compiled: Compiled | undefined
  #facts: NodeFacts | undefined

  constructor(options: CompileOptions) {
    this.#options = options
    this.#localAddresses = options.localAddresses ?? []
  }

  service(now: Service | undefined, before: Service | undefined): void {
    if (now !== undefined) this.#services.set(keyOf(now), now)
    else if (before !== undefined) this.#services.delete(keyOf(before))
    const key = now ?? before
    if (key !== undefined) this.#dirty.add(keyOf(key))
  }

  slice(now: EndpointSlice | undefined, before: EndpointSlice | undefined): void {
    if (before !== undefined) this.#putSlice(before, false)
    if (now !== undefined) this.#putSlice(now, true)
  }

  #putSlice(slice: EndpointSlice, keep: boolean): void {
    const name = slice.metadata.labels?.[serviceNameLabel]
    if (name === undefined || name === '') return
    const service = `${slice.metadata.namespace ?? 'default'}/${name}`
    let slices = this.#slices.get(service)
    if (keep) {
      if (slices === undefined) this.#slices.set(service, (slices = new Map()))
      slices.set(slice.metadata.name, slice)
    } else if (slices?.delete(slice.metadata.name) === true && slices.size === 0) this.#slices.delete(service)
    this.#dirty.add(service)
  }

  node(now: Node | undefined, before: Node | undefined): void {
    const node = now ?? before
    if (node?.metadata.name !== this.#options.node) return
    if (now !== undefined && this.#node !== undefined && sameNode(now, this.#node)) {
      this.#node = now
      return
    }
    this.#node = now
    this.#allDirty = true
  }

  serviceCidr(now: ServiceCidrObject | undefined, before: ServiceCidrObject | undefined): void {
    if (now !== undefined) this.#ranges.set(now.metadata.name, now)
    else if (before !== undefined) this.#ranges.delete(before.metadata.name)
    this.#rangesDirty = true
  }

  /** The addresses of this machine, when they changed. */
  localAddresses(now: readonly string[]): void {
    if (same(now, this.#localAddresses)) return
    this.#localAddresses = now
    this.#allDirty = true
  }

  /** Names of the Services that changed since the last `compile`. */
  get pending(): number {
    return this.#dirty.size
  }

  /** The table as of now; the same value again if nothing changed. */
  compile(): Compiled {
    const before = this.#compiled
    const facts = this.#nodeFacts()
    if (this.#allDirty) for (const key of [...this.#services.keys(), ...this.#parts.keys()]) this.#dirty.add(key)
    const touched = new Set<string>()
    let ipsChanged = false
    let refusedChanged = before === undefined
    let checksChanged = before === undefined
    for (const key of this.#dirty) {
      const old = this.#parts.get(key)
      const service = this.#services.get(key)
      const now = service === undefined ? undefined : compileService(service, [...(this.#slices.get(key)?.values() ?? [])], { options: this.#options, node: this.#node, facts, before: old })
      if (now === undefined) this.#parts.delete(key)
      else this.#parts.set(key, now)
      for (const [claim, front] of now?.fronts ?? []) if (old?.fronts.get(claim) !== front) touched.add(claim)
      for (const claim of old?.fronts.keys() ?? []) if (now?.fronts.has(claim) !== true) touched.add(claim)
      if (old?.created !== now?.created) for (const claim of now?.fronts.keys() ?? []) touched.add(claim)
      this.#reclaim(key, old, now)
      if (!same(old?.clusterIps ?? [], now?.clusterIps ?? [])) {
        ipsChanged = true
        for (const ip of now?.clusterIps ?? []) this.#ipCount.set(ip, (this.#ipCount.get(ip) ?? 0) + 1)
        for (const ip of old?.clusterIps ?? []) {
          const left = this.#ipCount.get(ip)! - 1
          if (left === 0) this.#ipCount.delete(ip)
          else this.#ipCount.set(ip, left)
        }
      }
      refusedChanged ||= (old?.refused.length ?? 0) > 0 || (now?.refused.length ?? 0) > 0
      checksChanged ||= !equal(old?.healthCheck, now?.healthCheck)
    }
    this.#dirty.clear()
    this.#allDirty = false
    const conflicts = [...touched].some((claim) => (this.#claims.get(claim)?.length ?? 0) > 1) || (before?.refused.some((r) => r.reason.startsWith(conflictWords)) ?? false)

    let fronts = before?.table.fronts
    if (fronts === undefined || touched.size > 0) {
      const next = new Map(fronts)
      for (const claim of touched) {
        const owner = this.#winner(claim)
        const front = owner === undefined ? undefined : this.#parts.get(owner)!.fronts.get(claim)
        if (front === undefined) next.delete(claim)
        else next.set(claim, front)
      }
      fronts = next
    }
    let node = before?.table.node
    if (node === undefined || ipsChanged || !sameFacts(node, facts)) node = { ...facts, clusterIps: ipsChanged || node === undefined ? new Set(this.#ipCount.keys()) : node.clusterIps }
    const table = before !== undefined && before.table.fronts === fronts && before.table.node === node ? before.table : { fronts, node }
    const refused = refusedChanged || conflicts ? this.#refusedNow() : before!.refused
    const healthChecks = checksChanged ? this.#healthChecksNow() : before!.healthChecks
    if (before !== undefined && table === before.table && refused === before.refused && healthChecks === before.healthChecks) return before
    return (this.#compiled = { table, refused, healthChecks })
  }

  #reclaim(key: string, old: Part | undefined, now: Part | undefined): void {
    for (const claim of old?.fronts.keys() ?? []) {
      if (now?.fronts.has(claim) === true) continue
      const left = (this.#claims.get(claim) ?? []).filter((k) => k !== key)
      if (left.length === 0) this.#claims.delete(claim)
      else this.#claims.set(claim, left)
    }
    for (const claim of now?.fronts.keys() ?? []) {
      const have = this.#claims.get(claim)
      if (have === undefined) this.#claims.set(claim, [key])
      else if (!have.includes(key)) this.#claims.set(claim, [...have, key])
    }
  }

  /** Among Services that want the same address and port: the oldest, then the first by name. */
  #winner(claim: string): string | undefined {
    const all = this.#claims.get(claim)
    if (all === undefined || all.length < 2) return all?.[0]
    return [...all].sort((a, b) => order(this.#parts.get(a)!.created, this.#parts.get(b)!.created) || order(a, b))[0]
  }

  #refusedNow(): readonly Refused[] {
    const out: Refused[] = []
    for (const part of this.#parts.values()) out.push(...part.refused)
    for (const [claim, all] of this.#claims) {
      if (all.length < 2) continue
      const winner = this.#winner(claim)!
      for (const loser of all) if (loser !== winner) out.push({ front: claim, object: `Service ${loser}`, reason: `${conflictWords} Service ${winner}, which is older or comes first by name` })
    }
    return out
  }

  #healthChecksNow(): ReadonlyMap<string, HealthCheck> {
    const out = new Map<string, HealthCheck>()
    for (const [key, part] of this.#parts) if (part.healthCheck !== undefined) out.set(key, part.healthCheck)
    return out
  }

  #nodeFacts(): NodeFacts {
    if (!this.#allDirty && !this.#rangesDirty && this.#facts !== undefined) return this.#facts
    this.#rangesDirty = false
    const o = this.#options
    const given = [...this.#ranges.values()].flatMap((r) => r.spec?.cidrs ?? []).flatMap((c) => parseCidr(c) ?? [])
    // ServiceCIDR objects speak for the cluster; the flag is for clusters that have none.
    const serviceCidrs = given.length > 0 ? [...new Set(given)].sort(order) : (o.serviceCidrs ?? [])
    this.#facts = {
      name: o.node,
      localPods: this.#detector(),
      clusterCidrs: o.clusterCidrs ?? [],
      serviceCidrs,
      clusterIps: new Set(),
      nodePortAddresses: this.#nodePortAddresses(),
      masqueradeAll: o.masqueradeAll ?? false,
      masqueradeMark: (1 << (o.masqueradeBit ?? 14)) >>> 0,
    }
    return this.#facts
  }

  #detector(): LocalDetector {
    const detect = this.#options.detectLocal ?? { mode: 'ClusterCIDR' as const }
    switch (detect.mode) {
      case 'ClusterCIDR':
        return cidrDetector(this.#options.clusterCidrs ?? [])
      case 'NodeCIDR':
        return cidrDetector(podCidrs(this.#node))
      case 'BridgeInterface':
        return { kind: 'interface', name: detect.name }
      case 'InterfaceNamePrefix':
        return { kind: 'interfacePrefix', prefix: detect.name }
    }
  }

  #nodePortAddresses(): 'all' | readonly Ip[] {
    const asked = this.#options.nodePortAddresses ?? 'all'
    if (asked === 'all' || asked.length === 0 || asked.includes('all')) return 'all'
    const out = new Set<Ip>()
    for (const word of asked) {
      if (word === 'primary') for (const ip of nodeIps(this.#node)) out.add(ip)
      const range = network(word)
      if (range === undefined) continue
      for (const text of this.#localAddresses) {
        const ip = parseIp(text)
        if (ip !== undefined && contains(range, ip) && !isLoopback(ip)) out.add(ip)
      }
    }
    return [...out].sort(order)
  }
}

const conflictWords = 'the same address and port belong to'

const cidrDetector = (cidrs: readonly Cidr[]): LocalDetector => (cidrs.length === 0 ? { kind: 'none' } : { kind: 'cidr', cidrs })
const podCidrs = (node: Node | undefined): readonly Cidr[] => (node?.spec?.podCIDRs ?? (node?.spec?.podCIDR === undefined ? [] : [node.spec.podCIDR])).flatMap((c) => parseCidr(c) ?? [])

/** The node's own addresses, the primary one of each family first. */
function nodeIps(node: Node | undefined): readonly Ip[] {
  const all = (node?.status?.addresses ?? []).filter((a) => a.type === 'InternalIP').flatMap((a) => parseIp(a.address) ?? [])
  return ([4, 6] as const).flatMap((family) => all.find((ip) => familyOf(ip) === family) ?? [])
}

/** Whether two revisions of a Node mean the same to the proxy: status changes every few seconds. */
function sameNode(a: Node, b: Node): boolean {
  return a.metadata.labels?.[zoneLabel] === b.metadata.labels?.[zoneLabel] && same(podCidrs(a), podCidrs(b)) && same(nodeIps(a), nodeIps(b))
}

interface Around {
  readonly options: CompileOptions
  readonly node: Node | undefined
  readonly facts: NodeFacts
  readonly before: Part | undefined
}

/** One Service and its slices; undefined if it is none of ours. */
function compileService(service: Service, slices: readonly EndpointSlice[], around: Around): Part | undefined {
  const { spec, metadata } = service
  const labels = metadata.labels ?? {}
  if (labels[proxyNameLabel] !== around.options.serviceProxyName) return undefined
  if (Object.hasOwn(labels, headlessLabel)) return undefined
  if (spec.type === 'ExternalName' || spec.clusterIP === undefined || spec.clusterIP === '' || spec.clusterIP === 'None') return undefined
  const object = `Service ${keyOf(service)}`
  const refused: Refused[] = []
  const refuse = (front: string, reason: string): void => void refused.push({ front, object, reason })
  const clusterIps: Ip[] = []
  for (const text of spec.clusterIPs !== undefined && spec.clusterIPs.length > 0 ? spec.clusterIPs : [spec.clusterIP]) {
    const ip = parseIp(text)
    if (ip === undefined) refuse('', `clusterIP "${text}" is not an IP address`)
    else clusterIps.push(ip)
  }
  const fronts = new Map<string, Front>()
  const localIps = new Set<string>()
  for (const clusterIp of clusterIps) {
    const family = familyOf(clusterIp)
    const here = slicesOf(slices, family)
    const outside = externalAddresses(service, family, around, refuse)
    const sources = sourceRanges(service, family, around, refuse)
    for (const port of spec.ports ?? []) {
      const protocol = port.protocol ?? 'TCP'
      const what = `${port.name === undefined || port.name === '' ? port.port : port.name}`
      if (!isPort(port.port)) {
        refuse('', `port ${what}: ${port.port} is not a port number (1 to 65535)`)
        continue
      }
      const usable = candidatesOf(here, port, protocol, family, (reason) => refuse(frontKey(protocol, clusterIp, port.port), reason))
      if (spec.healthCheckNodePort !== undefined) for (const c of usable) if (c.ready && c.nodeName === around.options.node) localIps.add(c.address)
      compilePort(fronts, service, port, { protocol, family, clusterIp, outside, sources, candidates: usable }, around)
    }
  }
  const healthCheck =
    spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local' && spec.healthCheckNodePort !== undefined && spec.healthCheckNodePort > 0
      ? { namespace: metadata.namespace ?? 'default', name: metadata.name, port: spec.healthCheckNodePort, localEndpoints: localIps.size }
      : undefined
  return { created: metadata.creationTimestamp ?? '', fronts: share(fronts, around.before?.fronts), refused, clusterIps, healthCheck }
}

interface PortFacts {
  readonly protocol: Protocol
  readonly family: IpFamily
  readonly clusterIp: Ip
  readonly outside: readonly { readonly address: Ip; readonly kind: 'external' | 'loadBalancer' }[]
  readonly sources: readonly Cidr[] | 'any'
  readonly candidates: readonly Candidate[]
}

/** All fronts of one port in one family. */
function compilePort(out: Map<string, Front>, service: Service, port: ServicePort, p: PortFacts, around: Around): void {
  const { spec } = service
  const external = p.outside.length > 0 || isPort(port.nodePort ?? 0)
  const internalLocal = spec.internalTrafficPolicy === 'Local'
  const externalLocal = spec.externalTrafficPolicy === 'Local'
  const nodeName = around.options.node
  const has = categorize(p.candidates, {
    nodeName,
    zone: around.node?.metadata.labels?.[zoneLabel],
    internalPolicyLocal: internalLocal,
    externalPolicyLocal: externalLocal,
    externallyAccessible: external,
  })
  const endpointOf = (c: Candidate): Endpoint => ({ address: c.address as Ip, port: c.port, local: c.nodeName === nodeName })
  const cluster = has.cluster.map(endpointOf)
  const local = has.local.map(endpointOf)
  const toCluster: Outcome = !has.hasAny || cluster.length === 0 ? { kind: 'reject' } : { kind: 'forward', to: cluster }
  // Endpoints elsewhere only: dropped, so that a load balancer's probe and its clients try another node.
  const toLocal: Outcome = !has.hasAny ? { kind: 'reject' } : local.length === 0 ? { kind: 'drop' } : { kind: 'forward', to: local }
  const detector = around.facts.localPods
  const detects = detector.kind !== 'none' && (detector.kind !== 'cidr' || detector.cidrs.some((c) => familyOf(c) === p.family))
  const all = around.facts.masqueradeAll
  const inside: readonly Route[] = routesOf(internalLocal ? toLocal : toCluster, all ? 'always' : detects ? 'pods keep' : 'hairpin only')
  const outside: readonly Route[] =
    externalLocal && toLocal.kind !== 'reject'
      ? [
          ...(detects ? [{ from: 'pods here', outcome: toCluster, masquerade: all ? 'always' : 'hairpin only' } as const] : []),
          { from: 'this node', outcome: toCluster, masquerade: 'always' },
          { from: 'anyone', outcome: toLocal, masquerade: all ? 'always' : 'hairpin only' },
        ]
      : routesOf(externalLocal ? toLocal : toCluster, 'always')
  const name: ServicePortName = `${keyOf(service)}:${port.name ?? ''}`
  const common = { port: name, protocol: p.protocol, family: p.family, affinity: affinityOf(service), scheduler: schedulerOf(service, around.options) }
  const add = (front: Omit<Front, keyof typeof common>): void => {
    const key = frontKeyOf({ ...common, ...front })
    if (!out.has(key)) out.set(key, { ...common, ...front })
  }
  add({ at: { address: p.clusterIp, port: port.port, kind: 'cluster' }, sources: 'any', routes: inside })
  for (const { address, kind } of p.outside) add({ at: { address, port: port.port, kind }, sources: kind === 'loadBalancer' ? withSelf(p.sources, address, around) : 'any', routes: outside })
  if (port.nodePort !== undefined && isPort(port.nodePort)) add({ at: { nodePort: port.nodePort, kind: 'node' }, sources: 'any', routes: outside })
}

function routesOf(outcome: Outcome, masquerade: 'always' | 'hairpin only' | 'pods keep'): readonly Route[] {
  if (outcome.kind !== 'forward') return [{ from: 'anyone', outcome, masquerade: 'hairpin only' }]
  if (masquerade !== 'pods keep') return [{ from: 'anyone', outcome, masquerade }]
  return [
    { from: 'pods here', outcome, masquerade: 'hairpin only' },
    { from: 'anyone', outcome, masquerade: 'always' },
  ]
}

/** Where the key of a front in the table comes from: `tcp/10.96.0.1:80`, `udp/node6:30053`. */
export function frontKeyOf(front: Pick<Front, 'protocol' | 'family' | 'at'>): string {
  return 'nodePort' in front.at ? `${front.protocol.toLowerCase()}/node${front.family}:${front.at.nodePort}` : frontKey(front.protocol, front.at.address, front.at.port)
}
const frontKey = (protocol: Protocol, address: Ip, port: number): string => `${protocol.toLowerCase()}/${bracketed(address)}:${port}`

function affinityOf(service: Service): Seconds | undefined {
  if (service.spec.sessionAffinity !== 'ClientIP') return undefined
  return service.spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? defaultAffinitySeconds
}

function schedulerOf(service: Service, options: CompileOptions): string | undefined {
  for (const name of schedulerAnnotations) {
    const value = service.metadata.annotations?.[name]
    if (value !== undefined && value !== '') return value
  }
  return options.scheduler
}

function externalAddresses(service: Service, family: IpFamily, around: Around, refuse: (front: string, reason: string) => void): PortFacts['outside'] {
  const out: { address: Ip; kind: 'external' | 'loadBalancer' }[] = []
  const ranges = around.options.externalIpRanges ?? []
  if (service.spec.type === 'LoadBalancer') {
    for (const ingress of service.status?.loadBalancer?.ingress ?? []) {
      // `Proxy`: the load balancer wants to see the traffic itself, so nobody may take a short cut.
      if (ingress.ip === undefined || ingress.ip === '' || ingress.ipMode === 'Proxy') continue
      const ip = parseIp(ingress.ip)
      if (ip === undefined) refuse('', `load balancer address "${ingress.ip}" is not an IP address`)
      else if (familyOf(ip) === family) out.push({ address: ip, kind: 'loadBalancer' })
    }
  }
  for (const text of service.spec.externalIPs ?? []) {
    const ip = parseIp(text)
    if (ip === undefined) {
      if (family === 4 || service.spec.clusterIPs?.length === 1) refuse('', `external IP "${text}" is not an IP address`)
      continue
    }
    if (familyOf(ip) !== family) continue
    // Whoever may create Services could otherwise take any address's traffic (CVE-2020-8554).
    if (ranges !== 'any' && !ranges.some((r) => contains(r, ip))) refuse('', `external IP ${ip} is not inside --external-ip-ranges`)
    else out.push({ address: ip, kind: 'external' })
  }
  return out
}

function sourceRanges(service: Service, family: IpFamily, around: Around, refuse: (front: string, reason: string) => void): readonly Cidr[] | 'any' {
  const given = service.spec.type === 'LoadBalancer' ? (service.spec.loadBalancerSourceRanges ?? []) : []
  if (given.length === 0) return 'any'
  const out: Cidr[] = []
  for (const text of given) {
    const cidr = parseCidr(text.trim())
    if (cidr === undefined) refuse('', `load balancer source range "${text}" is not a network such as 10.0.0.0/8`)
    else if (familyOf(cidr) === family) out.push(cidr)
  }
  void around
  return out.some((c) => c.endsWith('/0')) ? 'any' : [...new Set(out)].sort(order)
}

/** A node that may use a load balancer's address reaches it from that very address where the address is bound to an interface. */
function withSelf(sources: readonly Cidr[] | 'any', address: Ip, around: Around): readonly Cidr[] | 'any' {
  if (sources === 'any') return sources
  const ranges = sources.map((c) => network(c)!)
  const allowed = nodeIps(around.node).some((ip) => ranges.some((r) => contains(r, ip)))
  return allowed ? [...sources, `${address}/${familyOf(address) === 4 ? 32 : 128}` as Cidr] : sources
}

function slicesOf(slices: readonly EndpointSlice[], family: IpFamily): readonly EndpointSlice[] {
  const type = family === 4 ? 'IPv4' : 'IPv6'
  return slices.filter((s) => s.addressType === type)
}

/** The candidates of a port that make sense, their addresses canonical; the others are refused one by one. */
function candidatesOf(slices: readonly EndpointSlice[], port: ServicePort, protocol: Protocol, family: IpFamily, refuse: (reason: string) => void): readonly Candidate[] {
  const out: Candidate[] = []
  for (const c of candidates(slices, port.name ?? '', protocol)) {
    const address = parseIp(c.address)
    const wrong = address === undefined ? 'is not an IP address' : familyOf(address) !== family ? `is no IPv${family} address` : endpointFault(address)
    if (!isPort(c.port)) refuse(`endpoint ${c.address}: ${c.port} is not a port number (1 to 65535)`)
    else if (address === undefined || wrong !== undefined) refuse(`endpoint address "${c.address}" ${wrong}`)
    else out.push(address === c.address ? c : { ...c, address })
  }
  return out
}

/** Addresses an endpoint must not have: what the API refuses too. */
function endpointFault(ip: Ip): string | undefined {
  if (isLoopback(ip)) return 'is a loopback address'
  if (ip === '0.0.0.0' || ip === '::') return 'is the unspecified address'
  const first = Number.parseInt(ip, 10)
  if (familyOf(ip) === 4 ? ip.startsWith('169.254.') : /^fe[89ab]/.test(ip)) return 'is a link-local address'
  if (familyOf(ip) === 4 ? first >= 224 && first <= 239 : ip.startsWith('ff')) return 'is a multicast address'
  return undefined
}

const isLoopback = (ip: Ip): boolean => ip === '::1' || ip.startsWith('127.')
const isPort = (n: number): boolean => Number.isInteger(n) && n >= 1 && n <= 65_535
const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
const same = (a: readonly string[], b: readonly string[]): boolean => a.length === b.length && a.every((x, i) => x === b[i])

function sameFacts(a: NodeFacts, b: NodeFacts): boolean {
  return equal({ ...a, clusterIps: 0 }, { ...b, clusterIps: 0 })
}

/** `now`, with each front and list of endpoints that was already there in its old identity. */
function share(now: ReadonlyMap<string, Front>, before: ReadonlyMap<string, Front> | undefined): ReadonlyMap<string, Front> {
  if (before === undefined) return now
  const out = new Map<string, Front>()
  for (const [key, front] of now) {
    const old = before.get(key)
    out.set(key, old !== undefined && equal(old, front) ? old : front)
  }
  return out
}

/** Deep equality of plain values. */
function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((x, i) => equal(x, b[i]))
  const x = a as Record<string, unknown>
  const y = b as Record<string, unknown>
  const keys = Object.keys(x)
  return keys.length === Object.keys(y).length && keys.every((k) => equal(x[k], y[k]))
}
