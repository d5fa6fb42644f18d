import type { EndpointSlice, Node, Service, ServiceSpec, SliceEndpoint } from '../../kube/objects.ts'
import { node, service, slice, type PortText } from '../../kube/testing/builders.ts'
import type { Cidr, Ip } from '../../lib/ip.ts'
import type { CompileOptions } from '../compile.ts'

/** Where a packet comes from: pods `a` and `b` run on the node whose rules are tested, `c` and `d` on another. */
export type Sender = 'pod a' | 'pod b' | 'pod c' | 'here' | 'there' | 'client'

export type ModeName = 'nftables' | 'iptables' | 'ipvs' | 'userspace'

/** Given these objects, what becomes of a connection from `from` to `to`. */
export interface Flow {
  readonly name: string
  readonly given: readonly (Service | EndpointSlice)[]
  readonly options?: OptionsName
  readonly from: Sender
  /** `tcp/172.30.0.1:80`. */
  readonly to: string
  /** Any of these endpoints; `untouched`: nobody's Service, it goes where it was going. */
  readonly arrives: readonly string[] | 'rejected' | 'dropped' | 'untouched'
  /** Whether its source address becomes the node's. Not looked at where left out. */
  readonly masqueraded?: boolean
  /** The same client meets the same endpoint every time. */
  readonly sticky?: boolean
  /** Proven by tracing only, and why. */
  readonly traceOnly?: string
  /** Modes that cannot do it, and why. */
  readonly cannot?: Partial<Record<ModeName, string>>
}

/** Addresses of the world that flows live in. */
export const world = {
  here: { name: 'here', ips: ['192.168.50.1', 'fd00:50::1'], also: ['203.0.113.200'], zone: 'z1', podCidrs: ['10.180.0.0/24', 'fd00:180::/64'] },
  there: { name: 'there', ips: ['192.168.50.2', 'fd00:50::2'], zone: 'z2', podCidrs: ['10.180.2.0/24', 'fd00:180:0:2::/64'] },
  pods: {
    a: { node: 'here', ips: ['10.180.0.1', 'fd00:180::1'] },
    b: { node: 'here', ips: ['10.180.0.2', 'fd00:180::2'] },
    c: { node: 'there', ips: ['10.180.2.1', 'fd00:180:0:2::1'] },
    d: { node: 'there', ips: ['10.180.2.2', 'fd00:180:0:2::2'] },
  },
  client: { ips: ['198.51.100.7', 'fd00:198::7'] },
} as const

const nodeObject = (n: { readonly name: string; readonly ips: readonly string[]; readonly zone: string; readonly podCidrs: readonly string[] }): Node => {
  const made = node(n.name, { zone: n.zone, podCIDRs: n.podCidrs })
  return { ...made, status: { ...made.status, addresses: n.ips.map((address) => ({ type: 'InternalIP' as const, address })) } }
}

/** The Node objects of the world. */
export const nodes: readonly Node[] = [nodeObject(world.here), nodeObject(world.there)]

const cluster = ['10.180.0.0/16', 'fd00:180::/48'] as readonly string[] as readonly Cidr[]
const ranges = ['172.30.0.0/16', 'fd00:30::/112'] as readonly string[] as readonly Cidr[]
const base: CompileOptions = {
  node: 'here',
  clusterCidrs: cluster,
  serviceCidrs: ranges,
  localAddresses: [...world.here.ips, ...world.here.also, '127.0.0.1', '::1'],
  externalIpRanges: ['203.0.113.0/24', 'fd00:203::/64'] as readonly string[] as readonly Cidr[],
}

/** What the proxy is told in a group of flows. */
export const optionSets = {
  usual: base,
  'masquerade all': { ...base, masqueradeAll: true },
  'no detector': { ...base, clusterCidrs: [] },
  'no service range': { ...base, serviceCidrs: [] },
  'node CIDR': { ...base, detectLocal: { mode: 'NodeCIDR' } },
  'interface prefix': { ...base, detectLocal: { mode: 'InterfaceNamePrefix', name: 'pod' } },
  'primary NodePorts': { ...base, nodePortAddresses: ['primary'] },
  'NodePorts of a network': { ...base, nodePortAddresses: ['203.0.113.0/24'] },
  'any external IP': { ...base, externalIpRanges: 'any' },
  'no external IPs': { ...base, externalIpRanges: [] },
  'named proxy': { ...base, serviceProxyName: 'second' },
  'two pod ranges': { ...base, clusterCidrs: ['10.180.0.0/24', '10.180.2.0/24', 'fd00:180::/48'] as readonly string[] as readonly Cidr[] },
} satisfies Readonly<Record<string, CompileOptions>>
export type OptionsName = keyof typeof optionSets

/** The sender's address in the family of `to`. */
export function senderIp(from: Sender, to: string): Ip {
  const v6 = to.includes('[') ? 1 : 0
  const ips = from === 'client' ? world.client.ips : from === 'here' || from === 'there' ? world[from].ips : world.pods[from.slice(4) as 'a'].ips
  return ips[v6] as string as Ip
}

const A = '10.180.0.1@here'
const B = '10.180.0.2@here'
const C = '10.180.2.1@there'
const D = '10.180.2.2@there'
const A6 = 'fd00:180::1@here'
const B6 = 'fd00:180::2@here'
const C6 = 'fd00:180:0:2::1@there'
const D6 = 'fd00:180:0:2::2@there'

type Spec = Partial<Omit<ServiceSpec, 'ports'>> & { readonly ports?: readonly PortText[] }
interface More {
  readonly labels?: Readonly<Record<string, string>>
  readonly lb?: readonly { readonly ip?: string; readonly hostname?: string; readonly ipMode?: 'VIP' | 'Proxy' }[]
  readonly created?: string
}

/** A Service with its slice: endpoints in `eps`, whose ports are `ports` (default: the one port, 8080). */
function made(
  name: string,
  clusterIP: string,
  spec: Spec,
  eps: readonly (string | SliceEndpoint)[],
  ports: readonly PortText[] = ['http:8080'],
  more: More = {},
): readonly (Service | EndpointSlice)[] {
  const families = [4, 6].map((f) => eps.filter((e) => (typeof e === 'string' ? e : (e.addresses[0] ?? '')).includes(':') === (f === 6)))
  return [
    service(name, { clusterIP, ports: ['http:80->8080'], ...spec } as Parameters<typeof service>[1], {
      metadata: { creationTimestamp: more.created ?? '2026-01-01T00:00:00Z', ...(more.labels === undefined ? {} : { labels: more.labels }) },
      ...(more.lb === undefined ? {} : { status: { loadBalancer: { ingress: more.lb } } }),
    }),
    ...families.flatMap((list, i) => (list.length === 0 ? [] : [slice(name, list, ports, { suffix: i === 0 ? 'v4' : 'v6' })])),
  ]
}

const both = made('both', '172.30.0.1', {}, [A, C])
const one = made('one', '172.30.0.2', {}, [B])
const none = made('none', '172.30.0.3', { ports: ['http:80->8080', 'dns:53/UDP'] }, [])
const unready = made('unready', '172.30.0.4', {}, [`${A} notready`])
const hostNet = made('host-net', '172.30.0.5', {}, ['192.168.50.2@there'])
const hostHere = made('host-here', '172.30.0.6', {}, ['192.168.50.1@here'])
const udp = made('udp', '172.30.0.7', { ports: ['dns:53->5353/UDP'] }, [A, C], ['dns:5353/UDP'])
const sctp = made('sctp', '172.30.0.8', { ports: ['s:3868/SCTP'] }, [A], ['s:3868/SCTP'])
const three = made('three', '172.30.0.9', { ports: ['t:53->8080/TCP', 'u:53->5353/UDP', 's:53->3868/SCTP'] }, [A], ['t:8080/TCP', 'u:5353/UDP', 's:3868/SCTP'])
const twoPorts = made('two-ports', '172.30.0.10', { ports: ['http:80->8080', 'admin:81->9090'] }, [A], ['http:8080', 'admin:9090'])
const unnamed = made('unnamed', '172.30.0.11', { ports: [80] }, [A], [8080])
const hairpin = made('hairpin', '172.30.0.12', {}, [A])
const slices2 = [...made('slices', '172.30.0.13', {}, [A]), slice('slices', [C], ['http:8080'], { suffix: 'second' }), slice('slices', [`${A} notready`], ['http:8080'], { suffix: 'moving' })]
const many = made(
  'many',
  '172.30.0.14',
  {},
  Array.from({ length: 12 }, (_, i) => `10.180.2.${i + 10}@there`),
)
const crowd = made(
  'crowd',
  '172.30.0.15',
  {},
  Array.from({ length: 60 }, (_, i) => `10.180.2.${i + 100}@there`),
)
const odd = made('odd', '172.030.0.16', {}, ['010.180.000.002@here'])
const outOfRange = made('out-of-range', '172.31.0.1', {}, [A])
const otherPortName = made('other-port-name', '172.30.0.17', {}, [A], ['https:8080'])

const nodePort = made('node-port', '172.30.1.1', { type: 'NodePort', ports: ['http:80->8080@30001'] }, [A, C])
const nodePortUdp = made('node-port-udp', '172.30.1.2', { type: 'NodePort', ports: ['dns:53->5353/UDP@30002'] }, [A], ['dns:5353/UDP'])
const nodePortNone = made('node-port-none', '172.30.1.3', { type: 'NodePort', ports: ['http:80->8080@30003'] }, [])
const nodeLocal = made('node-local', '172.30.1.4', { type: 'NodePort', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30004'] }, [A, C])
const nodeLocalAway = made('node-local-away', '172.30.1.5', { type: 'NodePort', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30005'] }, [C, D])
const nodeLocalNone = made('node-local-none', '172.30.1.6', { type: 'NodePort', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30006'] }, [])
const nodeLocalUdp = made('node-local-udp', '172.30.1.7', { type: 'NodePort', externalTrafficPolicy: 'Local', ports: ['dns:53->5353/UDP@30007'] }, [B, C], ['dns:5353/UDP'])

const lb = made('lb', '172.30.2.1', { type: 'LoadBalancer', ports: ['http:80->8080@30021'] }, [A, C], undefined, { lb: [{ ip: '203.0.113.1' }] })
const lbTwo = made('lb-two', '172.30.2.2', { type: 'LoadBalancer', ports: ['http:80->8080@30022'] }, [B], undefined, {
  lb: [{ ip: '203.0.113.2' }, { ip: '203.0.113.3' }, { hostname: 'lb.example.com' }],
})
const lbProxy = made('lb-proxy', '172.30.2.3', { type: 'LoadBalancer', ports: ['http:80->8080@30023'] }, [A], undefined, { lb: [{ ip: '203.0.113.4', ipMode: 'Proxy' }] })
const lbLocal = made('lb-local', '172.30.2.4', { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 32_004, ports: ['http:80->8080@30024'] }, [B, D], undefined, {
  lb: [{ ip: '203.0.113.5' }],
})
const lbLocalAway = made('lb-local-away', '172.30.2.5', { type: 'LoadBalancer', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30025'] }, [C], undefined, { lb: [{ ip: '203.0.113.6' }] })
const lbRanges = made('lb-ranges', '172.30.2.6', { type: 'LoadBalancer', loadBalancerSourceRanges: ['198.51.100.0/24'], ports: ['http:80->8080@30026'] }, [A], undefined, {
  lb: [{ ip: '203.0.113.7' }],
})
const lbClosed = made('lb-closed', '172.30.2.7', { type: 'LoadBalancer', loadBalancerSourceRanges: ['192.0.2.0/24'], ports: ['http:80->8080@30027'] }, [A], undefined, { lb: [{ ip: '203.0.113.8' }] })
const lbRangesNone = made('lb-ranges-none', '172.30.2.8', { type: 'LoadBalancer', loadBalancerSourceRanges: ['198.51.100.0/24'], ports: ['http:80->8080@30028'] }, [], undefined, {
  lb: [{ ip: '203.0.113.9' }],
})
const lbNone = made('lb-none', '172.30.2.9', { type: 'LoadBalancer', ports: ['http:80->8080@30029'] }, [], undefined, { lb: [{ ip: '203.0.113.10' }] })
const lbRangesLocal = made(
  'lb-ranges-local',
  '172.30.2.10',
  { type: 'LoadBalancer', externalTrafficPolicy: 'Local', loadBalancerSourceRanges: ['198.51.100.0/24', '10.180.0.0/24'], ports: ['http:80->8080@30030'] },
  [A, C],
  undefined,
  { lb: [{ ip: '203.0.113.11' }] },
)
const lbNoNodePort = made('lb-no-node-port', '172.30.2.11', { type: 'LoadBalancer', allocateLoadBalancerNodePorts: false, ports: ['http:80->8080'] }, [A], undefined, { lb: [{ ip: '203.0.113.12' }] })
const lbNodeAllowed = made('lb-node-allowed', '172.30.2.12', { type: 'LoadBalancer', loadBalancerSourceRanges: ['192.168.50.0/24'], ports: ['http:80->8080@30032'] }, [A], undefined, {
  lb: [{ ip: '203.0.113.13' }],
})
const lbEverybody = made('lb-everybody', '172.30.2.13', { type: 'LoadBalancer', loadBalancerSourceRanges: ['192.0.2.0/24', '0.0.0.0/0'], ports: ['http:80->8080@30033'] }, [A], undefined, {
  lb: [{ ip: '203.0.113.14' }],
})
const lbBadRange = made('lb-bad-range', '172.30.2.14', { type: 'LoadBalancer', loadBalancerSourceRanges: ['nonsense', '198.51.100.0/24'], ports: ['http:80->8080@30034'] }, [A], undefined, {
  lb: [{ ip: '203.0.113.15' }],
})

const external = made('external', '172.30.3.1', { externalIPs: ['203.0.113.101'] }, [A, C])
const externalElsewhere = made('external-elsewhere', '172.30.3.2', { externalIPs: ['192.0.2.1'] }, [A])
const externalLocal = made('external-local', '172.30.3.3', { type: 'NodePort', externalTrafficPolicy: 'Local', externalIPs: ['203.0.113.102'], ports: ['http:80->8080@30041'] }, [B, D])
const externalNone = made('external-none', '172.30.3.4', { externalIPs: ['203.0.113.103'] }, [])
const externalOwn = made('external-own', '172.30.3.5', { externalIPs: ['203.0.113.200'], ports: ['http:7777->8080'] }, [C])

const inside = made('inside', '172.30.4.1', { internalTrafficPolicy: 'Local' }, [A, C])
const insideAway = made('inside-away', '172.30.4.2', { internalTrafficPolicy: 'Local' }, [C, D])
const insideNone = made('inside-none', '172.30.4.3', { internalTrafficPolicy: 'Local' }, [])
const insideNodePort = made('inside-node-port', '172.30.4.4', { type: 'NodePort', internalTrafficPolicy: 'Local', ports: ['http:80->8080@30051'] }, [C])
const insideBoth = made('inside-both', '172.30.4.5', { type: 'NodePort', internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30052'] }, [B, C])
const insideUdp = made('inside-udp', '172.30.4.6', { internalTrafficPolicy: 'Local', ports: ['dns:53->5353/UDP'] }, [B, C], ['dns:5353/UDP'])

const ending = made('ending', '172.30.5.1', {}, [`${A} terminating`, C])
const allEnding = made('all-ending', '172.30.5.2', {}, [`${A} terminating`, `${C} terminating`])
const allGone = made('all-gone', '172.30.5.3', {}, [`${A} gone`])
const endingHere = made('ending-here', '172.30.5.4', { type: 'NodePort', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30061'] }, [`${A} terminating`, C])
const insideEnding = made('inside-ending', '172.30.5.5', { internalTrafficPolicy: 'Local' }, [`${B} terminating`, C])
const mixedEnding = made('mixed-ending', '172.30.5.6', {}, [`${A} terminating`, `${B} gone`])

const zoned = made('zoned', '172.30.6.1', {}, [`${A} forzone=z1`, `${C} forzone=z2`])
const halfZoned = made('half-zoned', '172.30.6.2', {}, [`${A} forzone=z1`, C])
const foreignZone = made('foreign-zone', '172.30.6.3', {}, [`${A} forzone=z9`, `${C} forzone=z9`])
const noded = made('noded', '172.30.6.4', {}, [`${A} fornode=here`, `${C} fornode=there`])
const nodedAway = made('noded-away', '172.30.6.5', {}, [`${C} fornode=there`, `${D} fornode=there`])
const zonedLocal = made('zoned-local', '172.30.6.6', { type: 'NodePort', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30071'] }, [`${A} forzone=z2`, `${C} forzone=z1`])
const zonedTwo = made('zoned-two', '172.30.6.7', {}, [`${C} forzone=z1,z2`, `${D} forzone=z2`])
const zonedEnding = made('zoned-ending', '172.30.6.8', {}, [`${A} terminating forzone=z2`, `${B} terminating forzone=z2`])

const sticky = made('sticky', '172.30.7.1', { type: 'NodePort', sessionAffinity: 'ClientIP', ports: ['http:80->8080@30081'] }, [A, B, C])
const stickyLocal = made(
  'sticky-local',
  '172.30.7.2',
  { type: 'NodePort', sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } }, externalTrafficPolicy: 'Local', ports: ['http:80->8080@30082'] },
  [A, B, C],
)
const stickyUdp = made('sticky-udp', '172.30.7.3', { sessionAffinity: 'ClientIP', ports: ['dns:53->5353/UDP'] }, [A, B, C], ['dns:5353/UDP'])
const stickyLb = made(
  'sticky-lb',
  '172.30.7.4',
  { type: 'LoadBalancer', sessionAffinity: 'ClientIP', loadBalancerSourceRanges: ['198.51.100.0/24'], ports: ['http:80->8080@30083'] },
  [A, C],
  undefined,
  { lb: [{ ip: '203.0.113.20' }] },
)
const stickyNone = made('sticky-none', '172.30.7.5', { sessionAffinity: 'ClientIP' }, [])

const headless = made('headless', 'None', {}, [A])
const externalName = made('external-name', '172.30.8.1', { type: 'ExternalName', externalName: 'example.com' }, [A])
const others = made('others', '172.30.8.2', {}, [A], undefined, { labels: { 'service.kubernetes.io/service-proxy-name': 'second' } })
const headlessLabel = made('headless-label', '172.30.8.3', {}, [A], undefined, { labels: { 'service.kubernetes.io/headless': '' } })

const older = made('older', '172.30.9.1', { externalIPs: ['203.0.113.110'] }, [A], undefined, { created: '2025-01-01T00:00:00Z' })
const younger = made('younger', '172.30.9.2', { externalIPs: ['203.0.113.110'] }, [B], undefined, { created: '2025-06-01T00:00:00Z' })
const twinB = made('twin-b', '172.30.9.4', { externalIPs: ['203.0.113.111'] }, [B])
const twinA = made('twin-a', '172.30.9.3', { externalIPs: ['203.0.113.111'] }, [A])
const zeroPort = made('zero-port', '172.30.9.5', { ports: ['zero:0', 'http:80->8080'] }, [A])
const badEndpoints = made('bad-endpoints', '172.30.9.6', {}, ['nonsense@here', '127.0.0.1@here', '169.254.1.1@here', '224.0.0.1@here', '0.0.0.0@here', '999.1.1.1@here', C])
const wrongFamily = [...made('wrong-family', '172.30.9.7', {}, [A]), { ...slice('wrong-family', [C6], ['http:8080'], { suffix: 'wrong' }), addressType: 'IPv4' as const }]

const v6 = made('v6', 'fd00:30::1', {}, [A6, C6])
const v6None = made('v6-none', 'fd00:30::2', {}, [])
const v6NodePort = made('v6-node-port', 'fd00:30::3', { type: 'NodePort', ports: ['http:80->8080@30091'] }, [A6, C6])
const v6Local = made('v6-local', 'fd00:30::4', { type: 'LoadBalancer', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30092'] }, [B6, D6], undefined, { lb: [{ ip: 'fd00:203::1' }] })
const v6Ranges = made('v6-ranges', 'fd00:30::5', { type: 'LoadBalancer', loadBalancerSourceRanges: ['fd00:198::/64'], ports: ['http:80->8080@30093'] }, [A6], undefined, {
  lb: [{ ip: 'fd00:203::2' }],
})
const v6Hairpin = made('v6-hairpin', 'fd00:30::6', {}, [A6])
const v6Inside = made('v6-inside', 'fd00:30::7', { internalTrafficPolicy: 'Local' }, [C6])
const v6Sticky = made('v6-sticky', 'fd00:30::8', { sessionAffinity: 'ClientIP' }, [A6, B6, C6])
const v6Udp = made('v6-udp', 'fd00:30::9', { ports: ['dns:53->5353/UDP'] }, [A6], ['dns:5353/UDP'])
const v6External = made('v6-external', 'fd00:30::a', { externalIPs: ['fd00:203::101'] }, [B6])
const dual = made('dual', '172.30.10.1', { clusterIPs: ['172.30.10.1', 'fd00:30::10:1'], type: 'NodePort', ports: ['http:80->8080@30095'] }, [A, A6])
const dualRanges = made(
  'dual-ranges',
  '172.30.10.2',
  { clusterIPs: ['172.30.10.2', 'fd00:30::10:2'], type: 'LoadBalancer', loadBalancerSourceRanges: ['198.51.100.0/24'], ports: ['http:80->8080@30096'] },
  [A, A6],
  undefined,
  { lb: [{ ip: '203.0.113.21' }, { ip: 'fd00:203::21' }] },
)
const v6Odd = made('v6-odd', 'fd00:0030:0000::000b', {}, ['fd00:0180::0001@here'])

const a8080 = '10.180.0.1:8080'
const b8080 = '10.180.0.2:8080'
const c8080 = '10.180.2.1:8080'
const d8080 = '10.180.2.2:8080'
const a6 = '[fd00:180::1]:8080'
const b6 = '[fd00:180::2]:8080'
const c6 = '[fd00:180:0:2::1]:8080'
const d6 = '[fd00:180:0:2::2]:8080'

const noSctp = 'Node has no SCTP sockets to send one with'
const fiction = 'these endpoints have no namespaces'

/** What a Service means, packet by packet. Every mode proves that it agrees. */
export const flows: readonly Flow[] = [
  // ClusterIP
  { name: 'a pod reaches both endpoints of a cluster IP', given: both, from: 'pod b', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: false },
  { name: 'a process of the node reaches a cluster IP', given: both, from: 'here', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080] },
  { name: 'somebody outside reaches a cluster IP, masqueraded', given: both, from: 'client', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'another node reaches a cluster IP, masqueraded', given: both, from: 'there', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'a pod of another node that comes here keeps its source', given: both, from: 'pod c', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080] },
  { name: 'a single endpoint gets everything', given: one, from: 'pod a', to: 'tcp/172.30.0.2:80', arrives: [b8080], masqueraded: false },
  { name: 'a service without endpoints refuses', given: none, from: 'pod a', to: 'tcp/172.30.0.3:80', arrives: 'rejected' },
  { name: 'a service without endpoints refuses a process of the node', given: none, from: 'here', to: 'tcp/172.30.0.3:80', arrives: 'rejected' },
  { name: 'a service without endpoints refuses somebody outside', given: none, from: 'client', to: 'tcp/172.30.0.3:80', arrives: 'rejected' },
  { name: 'a service without endpoints refuses datagrams', given: none, from: 'pod a', to: 'udp/172.30.0.3:53', arrives: 'rejected' },
  { name: 'endpoints that are not ready do not count', given: unready, from: 'pod b', to: 'tcp/172.30.0.4:80', arrives: 'rejected' },
  { name: 'an endpoint may be another node itself', given: hostNet, from: 'pod a', to: 'tcp/172.30.0.5:80', arrives: ['192.168.50.2:8080'] },
  { name: 'an endpoint may be this node itself', given: hostHere, from: 'pod a', to: 'tcp/172.30.0.6:80', arrives: ['192.168.50.1:8080'] },
  { name: 'datagrams reach both endpoints', given: udp, from: 'pod b', to: 'udp/172.30.0.7:53', arrives: ['10.180.0.1:5353', '10.180.2.1:5353'], masqueraded: false },
  { name: 'datagrams from outside are masqueraded', given: udp, from: 'client', to: 'udp/172.30.0.7:53', arrives: ['10.180.0.1:5353', '10.180.2.1:5353'], masqueraded: true },
  { name: 'SCTP reaches its endpoint', given: sctp, from: 'pod b', to: 'sctp/172.30.0.8:3868', arrives: ['10.180.0.1:3868'], traceOnly: noSctp },
  { name: 'one port number, TCP', given: three, from: 'pod b', to: 'tcp/172.30.0.9:53', arrives: [a8080] },
  { name: 'one port number, UDP', given: three, from: 'pod b', to: 'udp/172.30.0.9:53', arrives: ['10.180.0.1:5353'] },
  { name: 'one port number, SCTP', given: three, from: 'pod b', to: 'sctp/172.30.0.9:53', arrives: ['10.180.0.1:3868'], traceOnly: noSctp },
  { name: 'the first of two ports', given: twoPorts, from: 'pod b', to: 'tcp/172.30.0.10:80', arrives: [a8080] },
  { name: 'the second of two ports', given: twoPorts, from: 'pod b', to: 'tcp/172.30.0.10:81', arrives: ['10.180.0.1:9090'] },
  { name: 'a port without a name', given: unnamed, from: 'pod b', to: 'tcp/172.30.0.11:80', arrives: [a8080] },
  { name: 'a pod reaches itself through its service, masqueraded', given: hairpin, from: 'pod a', to: 'tcp/172.30.0.12:80', arrives: [a8080], masqueraded: true },
  { name: 'endpoints of several slices are one list, the ready state wins', given: slices2, from: 'pod b', to: 'tcp/172.30.0.13:80', arrives: [a8080, c8080] },
  { name: 'a dozen endpoints', given: many, from: 'pod b', to: 'tcp/172.30.0.14:80', arrives: Array.from({ length: 12 }, (_, i) => `10.180.2.${i + 10}:8080`), masqueraded: false, traceOnly: fiction },
  { name: 'sixty endpoints', given: crowd, from: 'pod b', to: 'tcp/172.30.0.15:80', arrives: Array.from({ length: 60 }, (_, i) => `10.180.2.${i + 100}:8080`), masqueraded: false, traceOnly: fiction },
  {
    name: 'sixty endpoints from outside',
    given: crowd,
    from: 'client',
    to: 'tcp/172.30.0.15:80',
    arrives: Array.from({ length: 60 }, (_, i) => `10.180.2.${i + 100}:8080`),
    masqueraded: true,
    traceOnly: fiction,
  },
  { name: 'addresses with leading zeros are read as old Kubernetes did', given: odd, from: 'pod a', to: 'tcp/172.30.0.16:80', arrives: [b8080] },
  { name: 'a cluster IP outside the service range works', given: outOfRange, from: 'pod b', to: 'tcp/172.31.0.1:80', arrives: [a8080], masqueraded: false },
  { name: 'a cluster IP outside the service range masquerades outsiders', given: outOfRange, from: 'client', to: 'tcp/172.31.0.1:80', arrives: [a8080], masqueraded: true },
  { name: 'a port of another name is not this port', given: otherPortName, from: 'pod b', to: 'tcp/172.30.0.17:80', arrives: 'rejected' },
  { name: 'the wrong port of a cluster IP is refused', given: both, from: 'pod a', to: 'tcp/172.30.0.1:81', arrives: 'rejected' },
  { name: 'the wrong protocol of a cluster IP is refused', given: both, from: 'pod a', to: 'udp/172.30.0.1:80', arrives: 'rejected' },
  { name: 'the wrong port of a cluster IP is refused to the node', given: both, from: 'here', to: 'tcp/172.30.0.1:81', arrives: 'rejected' },
  { name: 'the wrong port of a cluster IP is refused to somebody outside', given: both, from: 'client', to: 'tcp/172.30.0.1:81', arrives: 'rejected' },
  { name: 'a cluster IP that is nobody’s drops', given: both, from: 'pod a', to: 'tcp/172.30.200.200:80', arrives: 'dropped' },
  { name: 'a cluster IP that is nobody’s drops for the node', given: both, from: 'here', to: 'tcp/172.30.200.200:80', arrives: 'dropped' },
  { name: 'a pod’s own address is no business of ours', given: both, from: 'pod a', to: 'tcp/10.180.2.1:8080', arrives: 'untouched' },
  { name: 'a node’s port that is no NodePort is no business of ours', given: both, from: 'client', to: 'tcp/192.168.50.1:8080', arrives: 'untouched' },

  // masquerading and who is a pod
  { name: 'masquerade-all masquerades pods too', given: both, options: 'masquerade all', from: 'pod b', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'masquerade-all masquerades policy Local too', given: nodeLocal, options: 'masquerade all', from: 'client', to: 'tcp/192.168.50.1:30004', arrives: [a8080], masqueraded: true },
  { name: 'where nobody knows pods, cluster IPs keep every source', given: both, options: 'no detector', from: 'client', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: false },
  {
    name: 'where nobody knows pods, NodePorts masquerade all the same',
    given: nodePort,
    options: 'no detector',
    from: 'client',
    to: 'tcp/192.168.50.1:30001',
    arrives: [a8080, c8080],
    masqueraded: true,
  },
  { name: 'where nobody knows pods, a pod is somebody outside to policy Local', given: nodeLocalAway, options: 'no detector', from: 'pod a', to: 'tcp/192.168.50.1:30005', arrives: 'dropped' },
  { name: 'where nobody knows pods, a pod reaches itself', given: hairpin, options: 'no detector', from: 'pod a', to: 'tcp/172.30.0.12:80', arrives: [a8080], masqueraded: true },
  { name: 'pods by the node’s own range', given: both, options: 'node CIDR', from: 'pod b', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: false },
  { name: 'pods by the node’s own range: another node’s pod is none', given: both, options: 'node CIDR', from: 'pod c', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'pods by the beginning of interface names', given: both, options: 'interface prefix', from: 'pod b', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: false },
  { name: 'pods by interface names: somebody outside is none', given: both, options: 'interface prefix', from: 'client', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'pods by interface names: policy Local', given: nodeLocalAway, options: 'interface prefix', from: 'pod a', to: 'tcp/192.168.50.1:30005', arrives: [c8080, d8080], masqueraded: false },
  { name: 'several pod ranges: a pod of the second', given: both, options: 'two pod ranges', from: 'pod c', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080] },
  { name: 'several pod ranges: a pod of the first', given: both, options: 'two pod ranges', from: 'pod b', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: false },
  { name: 'several pod ranges: somebody outside', given: both, options: 'two pod ranges', from: 'client', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'several pod ranges: policy Local', given: nodeLocalAway, options: 'two pod ranges', from: 'pod b', to: 'tcp/192.168.50.1:30005', arrives: [c8080, d8080], masqueraded: false },

  // service ranges
  { name: 'without a service range cluster IPs work', given: both, options: 'no service range', from: 'pod b', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: false },
  { name: 'without a service range outsiders are masqueraded', given: both, options: 'no service range', from: 'client', to: 'tcp/172.30.0.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'without a service range the wrong port is refused', given: both, options: 'no service range', from: 'pod a', to: 'tcp/172.30.0.1:81', arrives: 'rejected' },
  { name: 'without a service range a service without endpoints refuses', given: none, options: 'no service range', from: 'pod a', to: 'tcp/172.30.0.3:80', arrives: 'rejected' },
  { name: 'without a service range nothing is dropped', given: both, options: 'no service range', from: 'pod a', to: 'tcp/172.30.200.200:80', arrives: 'untouched' },

  // NodePort
  { name: 'a NodePort reaches endpoints anywhere, masqueraded', given: nodePort, from: 'client', to: 'tcp/192.168.50.1:30001', arrives: [a8080, c8080], masqueraded: true },
  { name: 'a NodePort from another node', given: nodePort, from: 'there', to: 'tcp/192.168.50.1:30001', arrives: [a8080, c8080], masqueraded: true },
  { name: 'a NodePort from a pod of this node', given: nodePort, from: 'pod b', to: 'tcp/192.168.50.1:30001', arrives: [a8080, c8080], masqueraded: true },
  { name: 'a NodePort from a pod of another node', given: nodePort, from: 'pod c', to: 'tcp/192.168.50.1:30001', arrives: [a8080, c8080], masqueraded: true },
  { name: 'a NodePort from the node itself', given: nodePort, from: 'here', to: 'tcp/192.168.50.1:30001', arrives: [a8080, c8080] },
  { name: 'a NodePort on a further address of the node', given: nodePort, from: 'client', to: 'tcp/203.0.113.200:30001', arrives: [a8080, c8080], masqueraded: true },
  { name: 'a NodePort does not answer on loopback', given: nodePort, from: 'here', to: 'tcp/127.0.0.1:30001', arrives: 'untouched' },
  { name: 'a NodePort is of one protocol', given: nodePort, from: 'client', to: 'udp/192.168.50.1:30001', arrives: 'untouched' },
  { name: 'a NodePort’s service by its cluster IP', given: nodePort, from: 'pod b', to: 'tcp/172.30.1.1:80', arrives: [a8080, c8080], masqueraded: false },
  { name: 'a NodePort for datagrams', given: nodePortUdp, from: 'client', to: 'udp/192.168.50.1:30002', arrives: ['10.180.0.1:5353'], masqueraded: true },
  { name: 'a NodePort without endpoints refuses', given: nodePortNone, from: 'client', to: 'tcp/192.168.50.1:30003', arrives: 'rejected' },
  { name: 'a NodePort without endpoints refuses a pod', given: nodePortNone, from: 'pod a', to: 'tcp/192.168.50.1:30003', arrives: 'rejected' },
  { name: 'a NodePort of another node is no business of ours', given: nodePort, from: 'pod a', to: 'tcp/192.168.50.2:30001', arrives: 'untouched' },
  {
    name: 'NodePorts of the primary address only: the primary',
    given: nodePort,
    options: 'primary NodePorts',
    from: 'client',
    to: 'tcp/192.168.50.1:30001',
    arrives: [a8080, c8080],
    masqueraded: true,
  },
  { name: 'NodePorts of the primary address only: another', given: nodePort, options: 'primary NodePorts', from: 'client', to: 'tcp/203.0.113.200:30001', arrives: 'untouched' },
  { name: 'NodePorts of a network: inside', given: nodePort, options: 'NodePorts of a network', from: 'client', to: 'tcp/203.0.113.200:30001', arrives: [a8080, c8080], masqueraded: true },
  { name: 'NodePorts of a network: outside', given: nodePort, options: 'NodePorts of a network', from: 'client', to: 'tcp/192.168.50.1:30001', arrives: 'untouched' },

  // externalTrafficPolicy: Local
  { name: 'policy Local reaches the endpoint here and keeps the source', given: nodeLocal, from: 'client', to: 'tcp/192.168.50.1:30004', arrives: [a8080], masqueraded: false },
  { name: 'policy Local from a pod is a short cut to all endpoints', given: nodeLocal, from: 'pod b', to: 'tcp/192.168.50.1:30004', arrives: [a8080, c8080], masqueraded: false },
  { name: 'policy Local from the node itself reaches all endpoints', given: nodeLocal, from: 'here', to: 'tcp/192.168.50.1:30004', arrives: [a8080, c8080] },
  { name: 'policy Local from another node is from outside', given: nodeLocal, from: 'there', to: 'tcp/192.168.50.1:30004', arrives: [a8080], masqueraded: false },
  { name: 'policy Local with endpoints elsewhere only drops', given: nodeLocalAway, from: 'client', to: 'tcp/192.168.50.1:30005', arrives: 'dropped' },
  { name: 'policy Local with endpoints elsewhere only works from a pod', given: nodeLocalAway, from: 'pod a', to: 'tcp/192.168.50.1:30005', arrives: [c8080, d8080], masqueraded: false },
  { name: 'policy Local with endpoints elsewhere only works from the node', given: nodeLocalAway, from: 'here', to: 'tcp/192.168.50.1:30005', arrives: [c8080, d8080] },
  { name: 'policy Local without any endpoint refuses', given: nodeLocalNone, from: 'client', to: 'tcp/192.168.50.1:30006', arrives: 'rejected' },
  { name: 'policy Local without any endpoint refuses a pod', given: nodeLocalNone, from: 'pod a', to: 'tcp/192.168.50.1:30006', arrives: 'rejected' },
  { name: 'policy Local for datagrams', given: nodeLocalUdp, from: 'client', to: 'udp/192.168.50.1:30007', arrives: ['10.180.0.2:5353'], masqueraded: false },
  { name: 'policy Local says nothing about the cluster IP', given: nodeLocal, from: 'pod b', to: 'tcp/172.30.1.4:80', arrives: [a8080, c8080], masqueraded: false },

  // LoadBalancer
  { name: 'a load balancer’s address reaches all endpoints, masqueraded', given: lb, from: 'client', to: 'tcp/203.0.113.1:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'a load balancer’s address from a pod is a short cut', given: lb, from: 'pod b', to: 'tcp/203.0.113.1:80', arrives: [a8080, c8080] },
  { name: 'a load balancer’s address from the node', given: lb, from: 'here', to: 'tcp/203.0.113.1:80', arrives: [a8080, c8080] },
  { name: 'the wrong port of a load balancer’s address is no business of ours', given: lb, from: 'client', to: 'tcp/203.0.113.1:81', arrives: 'untouched' },
  { name: 'the NodePort of a load balancer', given: lb, from: 'client', to: 'tcp/192.168.50.1:30021', arrives: [a8080, c8080], masqueraded: true },
  { name: 'the second of two load balancer addresses', given: lbTwo, from: 'client', to: 'tcp/203.0.113.3:80', arrives: [b8080], masqueraded: true },
  { name: 'a load balancer that wants to see its traffic gets it', given: lbProxy, from: 'pod a', to: 'tcp/203.0.113.4:80', arrives: 'untouched' },
  { name: 'a load balancer of policy Local keeps the source', given: lbLocal, from: 'client', to: 'tcp/203.0.113.5:80', arrives: [b8080], masqueraded: false },
  { name: 'a load balancer of policy Local from a pod', given: lbLocal, from: 'pod a', to: 'tcp/203.0.113.5:80', arrives: [b8080, d8080], masqueraded: false },
  { name: 'a load balancer of policy Local without an endpoint here drops', given: lbLocalAway, from: 'client', to: 'tcp/203.0.113.6:80', arrives: 'dropped' },
  { name: 'a load balancer of policy Local without an endpoint here works from a pod', given: lbLocalAway, from: 'pod a', to: 'tcp/203.0.113.6:80', arrives: [c8080], masqueraded: false },
  { name: 'a sender inside the source ranges', given: lbRanges, from: 'client', to: 'tcp/203.0.113.7:80', arrives: [a8080], masqueraded: true },
  { name: 'a pod outside the source ranges is dropped', given: lbRanges, from: 'pod b', to: 'tcp/203.0.113.7:80', arrives: 'dropped' },
  { name: 'the node outside the source ranges is dropped', given: lbRanges, from: 'here', to: 'tcp/203.0.113.7:80', arrives: 'dropped' },
  { name: 'a sender outside the source ranges is dropped', given: lbClosed, from: 'client', to: 'tcp/203.0.113.8:80', arrives: 'dropped' },
  { name: 'source ranges say nothing about the NodePort', given: lbClosed, from: 'client', to: 'tcp/192.168.50.1:30027', arrives: [a8080], masqueraded: true },
  { name: 'source ranges say nothing about the cluster IP', given: lbClosed, from: 'pod b', to: 'tcp/172.30.2.7:80', arrives: [a8080], masqueraded: false },
  { name: 'inside the source ranges a service without endpoints refuses', given: lbRangesNone, from: 'client', to: 'tcp/203.0.113.9:80', arrives: 'rejected' },
  { name: 'outside the source ranges a service without endpoints drops', given: lbRangesNone, from: 'pod a', to: 'tcp/203.0.113.9:80', arrives: 'dropped' },
  { name: 'a load balancer without endpoints refuses', given: lbNone, from: 'client', to: 'tcp/203.0.113.10:80', arrives: 'rejected' },
  { name: 'a load balancer without endpoints refuses a pod', given: lbNone, from: 'pod a', to: 'tcp/203.0.113.10:80', arrives: 'rejected' },
  { name: 'source ranges and policy Local: outside', given: lbRangesLocal, from: 'client', to: 'tcp/203.0.113.11:80', arrives: [a8080], masqueraded: false },
  { name: 'source ranges and policy Local: a pod inside the ranges', given: lbRangesLocal, from: 'pod b', to: 'tcp/203.0.113.11:80', arrives: [a8080, c8080], masqueraded: false },
  { name: 'source ranges and policy Local: another node is outside the ranges', given: lbRangesLocal, from: 'there', to: 'tcp/203.0.113.11:80', arrives: 'dropped' },
  { name: 'a load balancer without NodePorts', given: lbNoNodePort, from: 'client', to: 'tcp/203.0.113.12:80', arrives: [a8080], masqueraded: true },
  { name: 'source ranges that hold the nodes', given: lbNodeAllowed, from: 'here', to: 'tcp/203.0.113.13:80', arrives: [a8080] },
  { name: 'source ranges that hold everybody', given: lbEverybody, from: 'client', to: 'tcp/203.0.113.14:80', arrives: [a8080], masqueraded: true },
  { name: 'a source range that makes no sense does not count, the others do', given: lbBadRange, from: 'client', to: 'tcp/203.0.113.15:80', arrives: [a8080] },
  { name: 'a source range that makes no sense opens nothing', given: lbBadRange, from: 'there', to: 'tcp/203.0.113.15:80', arrives: 'dropped' },

  // externalIPs
  { name: 'an external IP inside the allowed ranges', given: external, from: 'client', to: 'tcp/203.0.113.101:80', arrives: [a8080, c8080], masqueraded: true },
  { name: 'an external IP from a pod', given: external, from: 'pod b', to: 'tcp/203.0.113.101:80', arrives: [a8080, c8080] },
  { name: 'an external IP outside the allowed ranges is not served', given: externalElsewhere, from: 'pod a', to: 'tcp/192.0.2.1:80', arrives: 'untouched' },
  { name: 'any external IP where all are allowed', given: externalElsewhere, options: 'any external IP', from: 'pod b', to: 'tcp/192.0.2.1:80', arrives: [a8080] },
  { name: 'no external IP where none is allowed', given: external, options: 'no external IPs', from: 'pod b', to: 'tcp/203.0.113.101:80', arrives: 'untouched' },
  { name: 'an external IP of policy Local', given: externalLocal, from: 'client', to: 'tcp/203.0.113.102:80', arrives: [b8080], masqueraded: false },
  { name: 'an external IP without endpoints refuses', given: externalNone, from: 'client', to: 'tcp/203.0.113.103:80', arrives: 'rejected' },
  { name: 'an external IP that is the node’s own address', given: externalOwn, from: 'client', to: 'tcp/203.0.113.200:7777', arrives: [c8080], masqueraded: true },

  // internalTrafficPolicy: Local
  { name: 'internal policy Local reaches the endpoint here', given: inside, from: 'pod b', to: 'tcp/172.30.4.1:80', arrives: [a8080], masqueraded: false },
  { name: 'internal policy Local from the node', given: inside, from: 'here', to: 'tcp/172.30.4.1:80', arrives: [a8080] },
  { name: 'internal policy Local from outside', given: inside, from: 'client', to: 'tcp/172.30.4.1:80', arrives: [a8080], masqueraded: true },
  { name: 'internal policy Local with endpoints elsewhere only drops', given: insideAway, from: 'pod a', to: 'tcp/172.30.4.2:80', arrives: 'dropped' },
  { name: 'internal policy Local with endpoints elsewhere only drops for the node', given: insideAway, from: 'here', to: 'tcp/172.30.4.2:80', arrives: 'dropped' },
  { name: 'internal policy Local without any endpoint refuses', given: insideNone, from: 'pod a', to: 'tcp/172.30.4.3:80', arrives: 'rejected' },
  { name: 'internal policy Local says nothing about the NodePort', given: insideNodePort, from: 'client', to: 'tcp/192.168.50.1:30051', arrives: [c8080], masqueraded: true },
  { name: 'internal policy Local of a NodePort service drops on the cluster IP', given: insideNodePort, from: 'pod a', to: 'tcp/172.30.4.4:80', arrives: 'dropped' },
  { name: 'both policies Local: the NodePort from outside', given: insideBoth, from: 'client', to: 'tcp/192.168.50.1:30052', arrives: [b8080], masqueraded: false },
  { name: 'both policies Local: the NodePort from a pod reaches all', given: insideBoth, from: 'pod a', to: 'tcp/192.168.50.1:30052', arrives: [b8080, c8080], masqueraded: false },
  { name: 'both policies Local: the cluster IP', given: insideBoth, from: 'pod a', to: 'tcp/172.30.4.5:80', arrives: [b8080], masqueraded: false },
  { name: 'internal policy Local for datagrams', given: insideUdp, from: 'pod a', to: 'udp/172.30.4.6:53', arrives: ['10.180.0.2:5353'], masqueraded: false },

  // endpoints that end
  { name: 'while one is ready, those that end get nothing new', given: ending, from: 'pod b', to: 'tcp/172.30.5.1:80', arrives: [c8080] },
  { name: 'when all end, those that still serve are used', given: allEnding, from: 'pod b', to: 'tcp/172.30.5.2:80', arrives: [a8080, c8080] },
  { name: 'endpoints that end and do not serve are none', given: allGone, from: 'pod b', to: 'tcp/172.30.5.3:80', arrives: 'rejected' },
  { name: 'policy Local uses the one that ends here, although another node has a ready one', given: endingHere, from: 'client', to: 'tcp/192.168.50.1:30061', arrives: [a8080], masqueraded: false },
  { name: 'internal policy Local uses the one that ends here', given: insideEnding, from: 'pod a', to: 'tcp/172.30.5.5:80', arrives: [b8080] },
  { name: 'of those that end, only those that serve', given: mixedEnding, from: 'pod b', to: 'tcp/172.30.5.6:80', arrives: [a8080] },

  // hints
  { name: 'zone hints keep traffic in the zone', given: zoned, from: 'pod b', to: 'tcp/172.30.6.1:80', arrives: [a8080] },
  { name: 'one endpoint without a zone hint and none counts', given: halfZoned, from: 'pod b', to: 'tcp/172.30.6.2:80', arrives: [a8080, c8080] },
  { name: 'hints for other zones only do not count', given: foreignZone, from: 'pod b', to: 'tcp/172.30.6.3:80', arrives: [a8080, c8080] },
  { name: 'node hints keep traffic on the node', given: noded, from: 'pod b', to: 'tcp/172.30.6.4:80', arrives: [a8080] },
  { name: 'hints for other nodes only do not count', given: nodedAway, from: 'pod b', to: 'tcp/172.30.6.5:80', arrives: [c8080, d8080] },
  { name: 'policy Local does not ask for hints', given: zonedLocal, from: 'client', to: 'tcp/192.168.50.1:30071', arrives: [a8080], masqueraded: false },
  { name: 'policy Local from a pod follows the hints', given: zonedLocal, from: 'pod b', to: 'tcp/192.168.50.1:30071', arrives: [c8080], masqueraded: false },
  { name: 'an endpoint may be meant for several zones', given: zonedTwo, from: 'pod b', to: 'tcp/172.30.6.7:80', arrives: [c8080] },
  { name: 'hints of endpoints that end do not count', given: zonedEnding, from: 'here', to: 'tcp/172.30.6.8:80', arrives: [a8080, b8080] },

  // session affinity
  { name: 'a client stays with its endpoint', given: sticky, from: 'pod b', to: 'tcp/172.30.7.1:80', arrives: [a8080, b8080, c8080], sticky: true },
  { name: 'a client from outside stays with its endpoint', given: sticky, from: 'client', to: 'tcp/192.168.50.1:30081', arrives: [a8080, b8080, c8080], masqueraded: true, sticky: true },
  { name: 'affinity among the endpoints of policy Local', given: stickyLocal, from: 'client', to: 'tcp/192.168.50.1:30082', arrives: [a8080, b8080], masqueraded: false, sticky: true },
  { name: 'affinity for datagrams', given: stickyUdp, from: 'client', to: 'udp/172.30.7.3:53', arrives: ['10.180.0.1:5353', '10.180.0.2:5353', '10.180.2.1:5353'], sticky: true },
  { name: 'affinity and source ranges: inside', given: stickyLb, from: 'client', to: 'tcp/203.0.113.20:80', arrives: [a8080, c8080], masqueraded: true, sticky: true },
  { name: 'affinity and source ranges: outside', given: stickyLb, from: 'there', to: 'tcp/203.0.113.20:80', arrives: 'dropped' },
  { name: 'affinity without endpoints refuses', given: stickyNone, from: 'pod a', to: 'tcp/172.30.7.5:80', arrives: 'rejected' },

  // not ours
  { name: 'a headless service has no rules', given: headless, from: 'pod b', to: 'tcp/10.180.0.1:80', arrives: 'untouched' },
  { name: 'an ExternalName service has no rules, even with an address', given: externalName, from: 'pod a', to: 'tcp/172.30.8.1:80', arrives: 'dropped' },
  { name: 'a service of another proxy has no rules', given: others, from: 'pod a', to: 'tcp/172.30.8.2:80', arrives: 'dropped' },
  { name: 'a service of the proxy by this name', given: others, options: 'named proxy', from: 'pod b', to: 'tcp/172.30.8.2:80', arrives: [a8080] },
  { name: 'the named proxy leaves other services alone', given: both, options: 'named proxy', from: 'pod a', to: 'tcp/172.30.0.1:80', arrives: 'dropped' },
  { name: 'a service that is labelled headless has no rules', given: headlessLabel, from: 'pod a', to: 'tcp/172.30.8.3:80', arrives: 'dropped' },

  // what makes no sense
  { name: 'of two services that want an address and port, the older gets it', given: [...younger, ...older], from: 'client', to: 'tcp/203.0.113.110:80', arrives: [a8080] },
  { name: 'the younger one’s cluster IP works', given: [...younger, ...older], from: 'pod a', to: 'tcp/172.30.9.2:80', arrives: [b8080] },
  { name: 'of two services of one age, the first by name', given: [...twinB, ...twinA], from: 'client', to: 'tcp/203.0.113.111:80', arrives: [a8080] },
  { name: 'a port number that makes no sense does not spoil the other port', given: zeroPort, from: 'pod b', to: 'tcp/172.30.9.5:80', arrives: [a8080] },
  { name: 'endpoints that make no sense do not spoil the others', given: badEndpoints, from: 'pod b', to: 'tcp/172.30.9.6:80', arrives: [c8080] },
  { name: 'an endpoint of the wrong family does not spoil the others', given: wrongFamily, from: 'pod b', to: 'tcp/172.30.9.7:80', arrives: [a8080] },

  // IPv6
  { name: 'v6: a pod reaches both endpoints', given: v6, from: 'pod b', to: 'tcp/[fd00:30::1]:80', arrives: [a6, c6], masqueraded: false },
  { name: 'v6: the node reaches a cluster IP', given: v6, from: 'here', to: 'tcp/[fd00:30::1]:80', arrives: [a6, c6] },
  { name: 'v6: somebody outside is masqueraded', given: v6, from: 'client', to: 'tcp/[fd00:30::1]:80', arrives: [a6, c6], masqueraded: true },
  { name: 'v6: no endpoints refuses', given: v6None, from: 'pod a', to: 'tcp/[fd00:30::2]:80', arrives: 'rejected' },
  { name: 'v6: the wrong port is refused', given: v6, from: 'pod a', to: 'tcp/[fd00:30::1]:81', arrives: 'rejected' },
  { name: 'v6: a cluster IP that is nobody’s drops', given: v6, from: 'pod a', to: 'tcp/[fd00:30::ffff]:80', arrives: 'dropped' },
  { name: 'v6: a NodePort', given: v6NodePort, from: 'client', to: 'tcp/[fd00:50::1]:30091', arrives: [a6, c6], masqueraded: true },
  { name: 'v6: a NodePort of a v6 service does not answer over v4', given: v6NodePort, from: 'client', to: 'tcp/192.168.50.1:30091', arrives: 'untouched' },
  { name: 'v6: a NodePort does not answer on loopback', given: v6NodePort, from: 'here', to: 'tcp/[::1]:30091', arrives: 'untouched' },
  { name: 'v6: a load balancer of policy Local', given: v6Local, from: 'client', to: 'tcp/[fd00:203::1]:80', arrives: [b6], masqueraded: false },
  { name: 'v6: a load balancer of policy Local from a pod', given: v6Local, from: 'pod a', to: 'tcp/[fd00:203::1]:80', arrives: [b6, d6], masqueraded: false },
  { name: 'v6: inside the source ranges', given: v6Ranges, from: 'client', to: 'tcp/[fd00:203::2]:80', arrives: [a6], masqueraded: true },
  { name: 'v6: outside the source ranges', given: v6Ranges, from: 'there', to: 'tcp/[fd00:203::2]:80', arrives: 'dropped' },
  { name: 'v6: a pod reaches itself', given: v6Hairpin, from: 'pod a', to: 'tcp/[fd00:30::6]:80', arrives: [a6], masqueraded: true },
  { name: 'v6: internal policy Local with endpoints elsewhere only drops', given: v6Inside, from: 'pod a', to: 'tcp/[fd00:30::7]:80', arrives: 'dropped' },
  { name: 'v6: a client stays with its endpoint', given: v6Sticky, from: 'client', to: 'tcp/[fd00:30::8]:80', arrives: [a6, b6, c6], sticky: true },
  { name: 'v6: datagrams', given: v6Udp, from: 'pod b', to: 'udp/[fd00:30::9]:53', arrives: ['[fd00:180::1]:5353'], masqueraded: false },
  { name: 'v6: an external IP', given: v6External, from: 'client', to: 'tcp/[fd00:203::101]:80', arrives: [b6], masqueraded: true },
  { name: 'v6: addresses in other spellings', given: v6Odd, from: 'pod b', to: 'tcp/[fd00:30::b]:80', arrives: [a6] },
  { name: 'two families: v4', given: dual, from: 'pod b', to: 'tcp/172.30.10.1:80', arrives: [a8080] },
  { name: 'two families: v6', given: dual, from: 'pod b', to: 'tcp/[fd00:30::10:1]:80', arrives: [a6] },
  { name: 'two families: the NodePort over v4', given: dual, from: 'client', to: 'tcp/192.168.50.1:30095', arrives: [a8080], masqueraded: true },
  { name: 'two families: the NodePort over v6', given: dual, from: 'client', to: 'tcp/[fd00:50::1]:30095', arrives: [a6], masqueraded: true },
  { name: 'two families: source ranges of one family open nothing in the other', given: dualRanges, from: 'client', to: 'tcp/[fd00:203::21]:80', arrives: 'dropped' },
  { name: 'two families: source ranges of the asked family', given: dualRanges, from: 'client', to: 'tcp/203.0.113.21:80', arrives: [a8080], masqueraded: true },
]

/** Flows of one set of options, with all their objects together: a cluster has many Services at once. */
export function groups(): ReadonlyMap<OptionsName, { readonly flows: readonly Flow[]; readonly services: readonly Service[]; readonly slices: readonly EndpointSlice[] }> {
  const out = new Map<OptionsName, { flows: Flow[]; services: Set<Service>; slices: Set<EndpointSlice> }>()
  for (const flow of flows) {
    const name = flow.options ?? 'usual'
    let group = out.get(name)
    if (group === undefined) out.set(name, (group = { flows: [], services: new Set(), slices: new Set() }))
    group.flows.push(flow)
    for (const o of flow.given) {
      if ('addressType' in o) group.slices.add(o)
      else group.services.add(o)
    }
  }
  return new Map([...out].map(([name, g]) => [name, { flows: g.flows, services: [...g.services], slices: [...g.slices] }]))
}
