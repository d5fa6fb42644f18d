import { hostname } from 'node:os'
import { connect, type Client } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { candidates } from '../kube/endpoints.ts'
import type { EndpointSlice, KubeObject, Node, Pod, Service } from '../kube/objects.ts'
import { endpointslices, nodes, pods, services, type Resource } from '../kube/resources.ts'
import { bracketed, contains, familyOf, parseIp, type Ip } from '../lib/ip.ts'
import { command, parse, UsageError, type Command } from '../lib/options.ts'
import type { Packet } from '../linux/trace.ts'
import { compile, frontKeyOf, type CompileOptions } from './compile.ts'
import { follow, liveRules, rendered, type Followed, type Rules } from './follow.ts'
import { flags as proxyFlags, modeNames, proxyOptions } from './options.ts'
import type { Front, LocalDetector, Outcome, Refused, ServiceTable } from './table.ts'

/** What becomes of a packet, and why. The schema of `-o json`: fields are added, never changed. */
export interface Explanation {
  readonly apiVersion: 'switchyard.dev/v1'
  readonly kind: 'PacketExplanation'
  /** The node whose proxy the packet meets. */
  readonly node: string
  readonly packet: { readonly protocol: string; readonly source: string; readonly destination: string; readonly port: number; readonly family: 4 | 6; readonly sender: Sender }
  readonly service: ServiceExplained | undefined
  /** What the Service means for this packet; absent when it is nobody's. */
  readonly outcome: { readonly kind: Outcome['kind']; readonly masquerade: boolean | 'if it meets itself'; readonly why: string } | undefined
  readonly endpoints: readonly EndpointExplained[]
  readonly refused: readonly Refused[]
  readonly modes: readonly ModeExplained[]
}

export interface ServiceExplained {
  readonly port: string
  readonly front: string
  readonly kind: 'cluster' | 'external' | 'loadBalancer' | 'node'
  readonly affinitySeconds: number | undefined
}

export interface EndpointExplained {
  readonly address: string
  readonly port: number
  readonly node: string | undefined
  readonly used: boolean
  readonly why: string
}

/** What one set of rules does with it; of the four modes as rendered, and with `--live` of what this machine's kernel has. */
export type ModeExplained = Followed

type Sender = 'pod' | 'node' | 'outside'

/** Everything an explanation is made of. */
export interface Question {
  readonly services: readonly Service[]
  readonly slices: readonly EndpointSlice[]
  readonly nodes: readonly Node[]
  readonly pods: readonly Pod[]
  readonly options: CompileOptions
  readonly from: string
  readonly to: string
  /** Modes to follow as rendered; left out: all. */
  readonly modes?: readonly string[]
  /** Further rules to follow: what this machine's kernel has. */
  readonly live?: readonly Rules[]
}

const protocols = ['tcp', 'udp', 'sctp'] as const

/** Explains the first packet of a connection. Throws `UsageError` for ends it cannot find. */
export async function explain(q: Question): Promise<Explanation> {
  const to = target(q)
  const family = familyOf(to.address)
  const from = sender(q, family)
  const node = from.node ?? q.options.node
  const options = { ...q.options, node, localAddresses: q.options.localAddresses ?? addressesOf(q.nodes.find((n) => n.metadata.name === node)) }
  const { table, refused } = compile({ services: q.services, slices: q.slices, nodes: q.nodes }, options)
  const local = [...(options.localAddresses ?? []), ...addressesOf(q.nodes.find((n) => n.metadata.name === node)), '127.0.0.1', '::1']
  const packet: Packet = {
    family,
    protocol: to.protocol,
    source: from.address,
    sourcePort: 40_000,
    destination: to.address,
    destinationPort: to.port,
    from: from.kind === 'node' ? undefined : from.kind === 'pod' ? from.interface : 'eth0',
  }
  const front = frontOf(table, packet, local)
  const decided = front === undefined ? undefined : decide(front, packet, table.node.localPods, local)
  return {
    apiVersion: 'switchyard.dev/v1',
    kind: 'PacketExplanation',
    node,
    packet: { protocol: to.protocol, source: from.address, destination: to.address, port: to.port, family, sender: from.kind },
    service: front === undefined ? undefined : { port: front.port, front: frontKeyOf(front), kind: front.at.kind, affinitySeconds: front.affinity },
    outcome: decided === undefined ? undefined : { kind: decided.outcome.kind, masquerade: decided.masquerade, why: decided.why },
    endpoints: front === undefined ? [] : endpointsOf(q, front, decided!.outcome, node),
    refused: front === undefined ? refused.filter((r) => r.front.includes(to.address)) : refused.filter((r) => r.object === `Service ${front.port.replace(/:[^:]*$/, '')}`),
    modes: [...(await rendered(table, local, q.modes)), ...(q.live ?? [])].map((rules) => follow(rules, packet)),
  }
}

interface End {
  readonly protocol: (typeof protocols)[number]
  readonly address: Ip
  readonly port: number
}

/** `tcp/10.96.0.41:80`, `udp/[fd00::1]:53`, or `service/demo/web:http`. */
function target({ to, services: all }: Question): End {
  const m = /^(tcp|udp|sctp)\/(?:\[([^\]]+)\]|([^:\s]+)):(\d{1,5})$/i.exec(to)
  const address = m === null ? undefined : parseIp(m[2] ?? m[3]!)
  if (m !== null && address !== undefined && Number(m[4]) <= 65_535) return { protocol: m[1]!.toLowerCase() as End['protocol'], address, port: Number(m[4]) }
  const s = /^(?:service|svc)\/(?:([^/]+)\/)?([^:/]+)(?::(\S+))?$/.exec(to)
  if (s === null) throw new UsageError(`TO: expected tcp/ADDRESS:PORT or service/NAMESPACE/NAME:PORT, got "${to}"`)
  const [, namespace = 'default', name, wanted] = s
  const service = all.find((x) => x.metadata.name === name && (x.metadata.namespace ?? 'default') === namespace)
  if (service === undefined) throw new UsageError(`TO: there is no Service ${namespace}/${name}`)
  const ports = service.spec.ports ?? []
  const port = wanted === undefined ? ports[0] : ports.find((p) => p.name === wanted || String(p.port) === wanted)
  if (port === undefined) throw new UsageError(`TO: Service ${namespace}/${name} has no port "${wanted}"; it has ${ports.map((p) => p.name ?? p.port).join(', ')}`)
  const ip = parseIp(service.spec.clusterIP ?? '')
  if (ip === undefined) throw new UsageError(`TO: Service ${namespace}/${name} has no address of its own (${service.spec.clusterIP ?? 'none'})`)
  return { protocol: (port.protocol ?? 'TCP').toLowerCase() as End['protocol'], address: ip, port: port.port }
}

/** `pod/demo/client`, `node/n1`, or an address. */
function sender(
  { from, pods: allPods, nodes: allNodes, options }: Question,
  family: 4 | 6,
): { readonly kind: Sender; readonly address: Ip; readonly node: string | undefined; readonly interface: string } {
  const pod = /^pod\/(?:([^/]+)\/)?([^/]+)$/.exec(from)
  if (pod !== null) {
    const [, namespace = 'default', name] = pod
    const found = allPods.find((p) => p.metadata.name === name && (p.metadata.namespace ?? 'default') === namespace)
    if (found === undefined) throw new UsageError(`FROM: there is no Pod ${namespace}/${name}`)
    const ips = (found.status?.podIPs?.map((i) => i.ip) ?? [found.status?.podIP ?? '']).flatMap((ip) => parseIp(ip) ?? [])
    const address = ips.find((ip) => familyOf(ip) === family)
    if (address === undefined) throw new UsageError(`FROM: Pod ${namespace}/${name} has no IPv${family} address`)
    return {
      kind: found.spec.hostNetwork === true ? 'node' : 'pod',
      address,
      node: found.spec.nodeName,
      interface: options.detectLocal !== undefined && 'name' in options.detectLocal ? options.detectLocal.name : 'pod',
    }
  }
  const node = /^node\/(.+)$/.exec(from)
  if (node !== null) {
    const found = allNodes.find((n) => n.metadata.name === node[1])
    if (found === undefined) throw new UsageError(`FROM: there is no Node ${node[1]}`)
    const address = addressesOf(found).find((ip) => familyOf(ip) === family)
    if (address === undefined) throw new UsageError(`FROM: Node ${node[1]} has no IPv${family} address`)
    return { kind: 'node', address, node: found.metadata.name, interface: '' }
  }
  const address = parseIp(from)
  if (address === undefined) throw new UsageError(`FROM: expected pod/NAMESPACE/NAME, node/NAME or an address, got "${from}"`)
  if (familyOf(address) !== family) throw new UsageError(`FROM: ${address} cannot send to an IPv${family} address`)
  const owner = allPods.find((p) => p.spec.hostNetwork !== true && (p.status?.podIPs?.some((i) => parseIp(i.ip) === address) ?? false))
  return { kind: owner === undefined ? 'outside' : 'pod', address, node: owner?.spec.nodeName, interface: 'pod' }
}

const addressesOf = (node: Node | undefined): readonly Ip[] => (node?.status?.addresses ?? []).flatMap((a) => (a.type === 'InternalIP' || a.type === 'ExternalIP' ? (parseIp(a.address) ?? []) : []))

function frontOf(table: ServiceTable, p: Packet, local: readonly string[]): Front | undefined {
  const direct = table.fronts.get(`${p.protocol}/${bracketed(p.destination)}:${p.destinationPort}`)
  if (direct !== undefined) return direct
  const { nodePortAddresses: on } = table.node
  const answers = on === 'all' ? local.includes(p.destination) && !p.destination.startsWith('127.') && p.destination !== '::1' : on.includes(p.destination)
  return answers ? table.fronts.get(`${p.protocol}/node${p.family}:${p.destinationPort}`) : undefined
}

function decide(front: Front, p: Packet, detector: LocalDetector, local: readonly string[]): { readonly outcome: Outcome; readonly masquerade: boolean | 'if it meets itself'; readonly why: string } {
  if (front.sources !== 'any' && !front.sources.some((c) => contains(c, p.source)))
    return { outcome: { kind: 'drop' }, masquerade: false, why: `${p.source} is not inside the source ranges ${front.sources.join(', ')}` }
  const isPod =
    detector.kind === 'cidr'
      ? detector.cidrs.some((c) => contains(c, p.source))
      : detector.kind === 'interface'
        ? p.from === detector.name
        : detector.kind === 'interfacePrefix'
          ? (p.from?.startsWith(detector.prefix) ?? false)
          : false
  const isNode = p.from === undefined || local.includes(p.source)
  const route = front.routes.find((r) => r.from === 'anyone' || (r.from === 'pods here' ? isPod : isNode))
  if (route === undefined) return { outcome: { kind: 'drop' }, masquerade: false, why: 'no line fits the sender' }
  const who = route.from === 'anyone' ? 'anybody else' : route.from === 'pods here' ? 'pods' : 'this node'
  const why =
    route.outcome.kind === 'forward'
      ? `${front.routes.length > 1 ? `for ${who}: ` : ''}one of ${route.outcome.to.length}`
      : route.outcome.kind === 'reject'
        ? 'no endpoint anywhere serves it: refused'
        : 'the policy is Local and no endpoint runs on this node, though some run elsewhere: dropped, so that another node is tried'
  return { outcome: route.outcome, masquerade: route.outcome.kind !== 'forward' ? false : route.masquerade === 'always' ? true : 'if it meets itself', why }
}

/** Every endpoint of the port, and why it is used for this packet or not. */
function endpointsOf(q: Question, front: Front, outcome: Outcome, node: string): readonly EndpointExplained[] {
  const [name, portName] = [front.port.slice(0, front.port.lastIndexOf(':')), front.port.slice(front.port.lastIndexOf(':') + 1)]
  const type = front.family === 4 ? 'IPv4' : 'IPv6'
  const own = q.slices.filter((s) => s.addressType === type && `${s.metadata.namespace ?? 'default'}/${s.metadata.labels?.['kubernetes.io/service-name']}` === name)
  const used = new Set(outcome.kind === 'forward' ? outcome.to.map((e) => `${e.address} ${e.port}`) : [])
  const anyReady = candidates(own, portName, front.protocol).some((c) => c.ready)
  return candidates(own, portName, front.protocol).map((c) => {
    const address = parseIp(c.address)
    const isUsed = used.has(`${address} ${c.port}`)
    return { address: c.address, port: c.port, node: c.nodeName, used: isUsed, why: whyNot() }
    function whyNot(): string {
      if (isUsed) return c.ready ? 'ready' : 'ending, but it still serves, and nobody is ready'
      if (address === undefined) return 'its address makes no sense'
      if (familyOf(address) !== front.family) return `its address is not of IPv${front.family}`
      if (!c.ready && c.terminating) return c.serving ? (anyReady ? 'ending, and others are ready' : 'ending, and not on this node') : 'ending, and does not serve'
      if (!c.ready) return 'not ready'
      if (outcome.kind === 'drop' && c.nodeName !== node) return `runs on ${c.nodeName ?? 'no node'}, and the policy is Local`
      if (outcome.kind === 'forward' && outcome.to.every((e) => e.local) && c.nodeName !== node) return `runs on ${c.nodeName ?? 'no node'}, and the policy is Local or the hints keep to this node`
      if (c.forZones.length > 0 || c.forNodes.length > 0) return `meant for ${[...c.forNodes.map((n) => `node ${n}`), ...c.forZones.map((z) => `zone ${z}`)].join(', ')}`
      return outcome.kind === 'forward' ? 'the Service was refused in part; see below' : 'the sender may not reach it'
    }
  })
}

/** The explanation as people read it. */
export function text(e: Explanation): string {
  const { packet: p } = e
  const out: string[] = [`${p.protocol} ${bracketed(p.source)} (${p.sender}) to ${bracketed(p.destination)}:${p.port}, on node ${e.node}`, '']
  if (e.service === undefined) out.push('This is no Service’s address and port.')
  else {
    out.push(`Service port  ${e.service.port} (${e.service.kind} address, ${e.service.front})`)
    if (e.service.affinitySeconds !== undefined) out.push(`Affinity      a client stays with its endpoint for ${e.service.affinitySeconds} s`)
    out.push(`Outcome       ${e.outcome!.kind}: ${e.outcome!.why}`)
    if (e.outcome!.kind === 'forward') out.push(`Source        ${e.outcome!.masquerade === true ? 'becomes the node’s' : 'is kept, unless the pod meets itself'}`)
    if (e.endpoints.length > 0) {
      out.push('', 'Endpoints')
      const wide = Math.max(...e.endpoints.map((x) => `${bracketed(x.address)}:${x.port}`.length))
      for (const x of e.endpoints) out.push(`  ${x.used ? '✓' : '✗'} ${`${bracketed(x.address)}:${x.port}`.padEnd(wide)}  ${(x.node ?? '-').padEnd(12)} ${x.why}`)
    }
  }
  if (e.refused.length > 0) out.push('', 'Refused', ...e.refused.map((r) => `  ${r.object}${r.front === '' ? '' : ` (${r.front})`}: ${r.reason}`))
  for (const m of e.modes) {
    out.push('', `${m.name}, ${m.source === 'live' ? 'as in this machine’s kernel' : 'as rendered'}`)
    if (m.error !== undefined) out.push(`  cannot be followed: ${m.error}`)
    const shown = m.ways.slice(0, 8)
    for (const w of shown) {
      out.push(
        `  ${(w.probability * 100).toFixed(1).padStart(5)} %  ${w.end}${w.end === 'delivered' ? ` to ${bracketed(w.destination)}:${w.destinationPort}${w.translated ? '' : ', untouched'}${w.masqueraded ? ', masqueraded' : ''}` : w.by === undefined ? '' : ` by ${w.by}`}`,
      )
      for (const s of w.path) out.push(`           ${s.table} ${s.chain}: ${s.rule}`)
    }
    if (m.ways.length > shown.length) out.push(`         and ${m.ways.length - shown.length} more`)
  }
  return `${out.join('\n')}\n`
}

/** `switchyard explain packet FROM TO`. */
export const packet: Command = command({
  name: 'packet',
  summary: 'Says what becomes of a packet: which Service, which endpoints and why, rule by rule.',
  usage: 'FROM TO',
  flags: {
    kubeconfig: proxyFlags.kubeconfig,
    node: { ...proxyFlags.node, help: 'the Node whose proxy the packet meets, where FROM does not say it' },
    'cluster-cidr': proxyFlags['cluster-cidr'],
    'service-cidr': proxyFlags['service-cidr'],
    'detect-local-mode': proxyFlags['detect-local-mode'],
    'pod-bridge-interface': proxyFlags['pod-bridge-interface'],
    'pod-interface-name-prefix': proxyFlags['pod-interface-name-prefix'],
    'nodeport-addresses': proxyFlags['nodeport-addresses'],
    'external-ip-ranges': proxyFlags['external-ip-ranges'],
    'masquerade-all': proxyFlags['masquerade-all'],
    mode: { type: 'string', oneOf: modeNames, help: 'follow this mode only (default: all four)' },
    live: { type: 'boolean', help: 'follow the rules of this machine’s kernel too, whoever wrote them' },
    output: { type: 'string', oneOf: ['text', 'json'], default: 'text', short: 'o', help: 'for people or for programs' },
  },
  details:
    'FROM is pod/NAMESPACE/NAME, node/NAME or an address; TO is tcp/ADDRESS:PORT (udp, sctp) or service/NAMESPACE/NAME:PORT.\nExample: switchyard explain packet pod/default/client tcp/10.96.0.41:80',
  run: async ({ values, positionals }, context) => {
    const [from, to] = positionals
    if (from === undefined || to === undefined || positionals.length > 2) throw new UsageError('expected FROM and TO')
    const { compile: options } = proxyOptions({ ...parse(proxyFlags, []).values, ...values, mode: 'nftables' }, hostname().toLowerCase())
    const client = connect(await loadCredentials(values.kubeconfig), { userAgent: 'switchyard-explain' })
    try {
      const [allServices, slices, allNodes, allPods] = await Promise.all([everything(client, services), everything(client, endpointslices), everything(client, nodes), everything(client, pods)])
      const node = values.node ?? (allNodes.some((n) => n.metadata.name === options.node) ? options.node : (allNodes[0]?.metadata.name ?? options.node))
      const explained = await explain({
        services: allServices,
        slices,
        nodes: allNodes,
        pods: allPods,
        options: { ...options, node },
        from,
        to,
        live: values.live ? await liveRules(to.includes('[') ? 6 : 4) : [],
      })
      context.out(values.output === 'json' ? `${JSON.stringify(explained, null, 2)}\n` : text(explained))
    } finally {
      client.close()
    }
  },
})

async function everything<T extends KubeObject>(client: Client, resource: Resource<T>): Promise<readonly T[]> {
  const out: T[] = []
  let next: string | undefined
  do {
    const page = await client.list(resource, { limit: 500, continue: next })
    out.push(...page.items)
    next = page.metadata.continue === '' ? undefined : page.metadata.continue
  } while (next !== undefined)
  return out
}
