import type {
  Container,
  EndpointPort,
  EndpointSlice,
  Ingress,
  IngressClass,
  IngressPath,
  KubeObject,
  Lease,
  Namespace,
  Node,
  ObjectMeta,
  Pod,
  Secret,
  Service,
  ServicePort,
  ServiceSpec,
  SliceEndpoint,
} from '../objects.ts'

/** `ns/name`, or `name` in namespace `default`. */
export type Name = string

/** Metadata of `ns/name`; `extra` adds labels, annotations … */
export function meta(name: Name, extra: Partial<ObjectMeta> = {}): ObjectMeta {
  const slash = name.indexOf('/')
  return { name: name.slice(slash + 1), namespace: slash < 0 ? 'default' : name.slice(0, slash), ...extra }
}

type Extra = { readonly metadata?: Partial<ObjectMeta> }

/** `80`, `'http:80'`, `'http:80->8080'`, `'dns:53->web/UDP'`: name, port, target port, protocol. */
export type PortText = number | string

/** A Service port from its short form. */
export function port(text: PortText): ServicePort {
  const m = /^(?:([a-z][-a-z0-9]*):)?(\d+)(?:->([^/@]+))?(?:\/(TCP|UDP|SCTP))?(?:@(\d+))?$/.exec(String(text))
  if (m === null) throw new Error(`port: expected NAME:PORT->TARGET/PROTOCOL@NODEPORT, got "${text}"`)
  const [, name, number, target, protocol, nodePort] = m
  const targetPort = target === undefined ? Number(number) : /^\d+$/.test(target) ? Number(target) : target
  return {
    ...(name === undefined ? {} : { name }),
    port: Number(number),
    targetPort,
    protocol: (protocol ?? 'TCP') as 'TCP' | 'UDP' | 'SCTP',
    ...(nodePort === undefined ? {} : { nodePort: Number(nodePort) }),
  }
}

/** A Service: `service('demo/web', { clusterIP: '10.96.0.20', ports: ['http:80->8080'] })`. */
export function service(name: Name, spec: Omit<ServiceSpec, 'ports'> & { readonly ports?: readonly (PortText | ServicePort)[] } = {}, extra: Extra & Pick<Service, 'status'> = {}): Service {
  const { ports = [80], clusterIP, ...rest } = spec
  const families = clusterIP === undefined || clusterIP === 'None' || clusterIP === '' ? (['IPv4'] as const) : clusterIP.includes(':') ? (['IPv6'] as const) : (['IPv4'] as const)
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: meta(name, extra.metadata),
    spec: {
      type: 'ClusterIP',
      ...(clusterIP === undefined ? {} : { clusterIP, clusterIPs: [clusterIP] }),
      ipFamilies: families,
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ports: ports.map((p) => (typeof p === 'object' ? p : port(p))),
      ...rest,
    },
    ...(extra.status === undefined ? {} : { status: extra.status }),
  }
}

/**
 * A slice of the Service `name`: `slice('demo/web', ['10.244.1.5@n1', '10.244.2.7@n2 terminating'], ['http:8080'])`.
 * An endpoint is an object, or `ADDRESS@NODE` and words: `notready`, `terminating` (serving), `gone` (terminating, not serving), `zone=a`, `forzone=a`, `fornode=n1`, `hostname=h`.
 */
export function slice(name: Name, endpoints: readonly (string | SliceEndpoint)[], ports: readonly (PortText | EndpointPort)[] = [80], extra: Extra & { readonly suffix?: string } = {}): EndpointSlice {
  const { name: serviceName, namespace } = meta(name)
  const list = endpoints.map((e) => (typeof e === 'string' ? endpoint(e) : e))
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `${serviceName}-${extra.suffix ?? 'abcde'}`,
      namespace: namespace!,
      ...extra.metadata,
      labels: { 'kubernetes.io/service-name': serviceName, 'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io', ...extra.metadata?.labels },
    },
    addressType: list.some((e) => e.addresses[0]?.includes(':')) ? 'IPv6' : 'IPv4',
    endpoints: list,
    ports: ports.map((p) => {
      if (typeof p === 'object') return p
      const { name: portName = '', port: number, protocol } = port(p)
      return { name: portName, port: number, protocol: protocol! }
    }),
  }
}

/** One endpoint from its short form (see `slice`). */
export function endpoint(text: string): SliceEndpoint {
  const [where = '', ...words] = text.split(' ')
  const [address = '', nodeName] = where.split('@')
  const value = (key: string): string | undefined => words.find((w) => w.startsWith(`${key}=`))?.slice(key.length + 1)
  const terminating = words.includes('terminating') || words.includes('gone')
  const ready = !terminating && !words.includes('notready')
  const zone = value('zone')
  const hostname = value('hostname')
  const forZone = value('forzone')
  const forNode = value('fornode')
  const hints = {
    ...(forZone === undefined ? {} : { forZones: forZone.split(',').map((n) => ({ name: n })) }),
    ...(forNode === undefined ? {} : { forNodes: forNode.split(',').map((n) => ({ name: n })) }),
  }
  return {
    addresses: [address],
    conditions: { ready, serving: !words.includes('gone') && !words.includes('notready'), terminating },
    ...(nodeName === undefined ? {} : { nodeName }),
    ...(zone === undefined ? {} : { zone }),
    ...(hostname === undefined ? {} : { hostname }),
    ...(Object.keys(hints).length === 0 ? {} : { hints }),
  }
}

/** A Pod: `pod('demo/web-1', { ip: '10.244.1.5', node: 'n1', labels: { app: 'web' }, ready: true })`. */
export function pod(
  name: Name,
  how: {
    readonly ip?: string
    readonly ips?: readonly string[]
    readonly node?: string
    readonly ready?: boolean
    readonly labels?: Readonly<Record<string, string>>
    readonly phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown'
    readonly ports?: readonly (PortText | { readonly name?: string; readonly containerPort: number; readonly protocol?: 'TCP' | 'UDP' | 'SCTP' })[]
    readonly containers?: readonly Container[]
    readonly spec?: Partial<Pod['spec']>
    readonly metadata?: Partial<ObjectMeta>
  } = {},
): Pod {
  const ips = how.ips ?? (how.ip === undefined ? [] : [how.ip])
  const ready = how.ready ?? ips.length > 0
  const ports = how.ports?.map((p) => {
    if (typeof p === 'object') return p
    const { name: portName, port: containerPort, protocol } = port(p)
    return { ...(portName === undefined ? {} : { name: portName }), containerPort, protocol: protocol! }
  })
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: meta(name, { ...(how.labels === undefined ? {} : { labels: how.labels }), ...how.metadata }),
    spec: {
      ...(how.node === undefined ? {} : { nodeName: how.node }),
      containers: how.containers ?? [{ name: 'main', command: ['sleep', 'infinity'], ...(ports === undefined ? {} : { ports }) }],
      ...how.spec,
    },
    status: {
      phase: how.phase ?? (ips.length > 0 ? 'Running' : 'Pending'),
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
      ...(ips[0] === undefined ? {} : { podIP: ips[0], podIPs: ips.map((ip) => ({ ip })) }),
    },
  }
}

/** A Node: `node('n1', { ip: '192.168.56.11', zone: 'a', podCIDR: '10.244.0.0/24' })`. Ready unless said otherwise. */
export function node(
  name: string,
  how: {
    readonly ip?: string
    readonly zone?: string
    readonly podCIDR?: string
    readonly podCIDRs?: readonly string[]
    readonly ready?: boolean
    readonly labels?: Readonly<Record<string, string>>
    readonly spec?: Node['spec']
    readonly metadata?: Partial<ObjectMeta>
  } = {},
): Node {
  const podCIDRs = how.podCIDRs ?? (how.podCIDR === undefined ? undefined : [how.podCIDR])
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, ...(how.zone === undefined ? {} : { 'topology.kubernetes.io/zone': how.zone }), ...how.labels }, ...how.metadata },
    spec: { ...(podCIDRs === undefined ? {} : { podCIDR: podCIDRs[0]!, podCIDRs }), ...how.spec },
    status: {
      addresses: [...(how.ip === undefined ? [] : [{ type: 'InternalIP' as const, address: how.ip }]), { type: 'Hostname', address: name }],
      conditions: [{ type: 'Ready', status: how.ready === false ? 'False' : 'True' }],
    },
  }
}

/**
 * An Ingress: `ingress('demo/web', { 'a.example.com': { '/': 'web:80', '=/exact': 'web:http' } }, { class: 'switchyard' })`.
 * Paths are Prefix, with `=` before them Exact, with `~` ImplementationSpecific. Host `''` is any.
 */
export function ingress(
  name: Name,
  rules: Readonly<Record<string, Readonly<Record<string, string>>>>,
  how: {
    readonly class?: string
    readonly defaultBackend?: string
    readonly tls?: Readonly<Record<string, readonly string[]>>
    readonly annotations?: Readonly<Record<string, string>>
    readonly metadata?: Partial<ObjectMeta>
  } = {},
): Ingress {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: meta(name, { ...(how.annotations === undefined ? {} : { annotations: how.annotations }), ...how.metadata }),
    spec: {
      ...(how.class === undefined ? {} : { ingressClassName: how.class }),
      ...(how.defaultBackend === undefined ? {} : { defaultBackend: backend(how.defaultBackend) }),
      ...(how.tls === undefined ? {} : { tls: Object.entries(how.tls).map(([secretName, hosts]) => ({ secretName, hosts })) }),
      rules: Object.entries(rules).map(([host, paths]) => ({ ...(host === '' ? {} : { host }), http: { paths: Object.entries(paths).map(([path, to]): IngressPath => ingressPath(path, to)) } })),
    },
  }
}

function ingressPath(path: string, to: string): IngressPath {
  const pathType = path.startsWith('=') ? 'Exact' : path.startsWith('~') ? 'ImplementationSpecific' : 'Prefix'
  return { path: path.replace(/^[=~]/, ''), pathType, backend: backend(to) }
}

function backend(text: string): IngressPath['backend'] {
  const [name = '', portText = ''] = text.split(':')
  return { service: { name, port: /^\d+$/.test(portText) ? { number: Number(portText) } : { name: portText } } }
}

/** An IngressClass; `isDefault` marks it with the annotation. */
export function ingressClass(name: string, controller = 'switchyard.dev/ingress', isDefault = false): IngressClass {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'IngressClass',
    metadata: { name, ...(isDefault ? { annotations: { 'ingressclass.kubernetes.io/is-default-class': 'true' } } : {}) },
    spec: { controller },
  }
}

/** A Namespace, Active, with the label of its name. */
export function namespace(name: string, extra: Extra = {}): Namespace {
  return {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name, labels: { 'kubernetes.io/metadata.name': name }, ...extra.metadata },
    spec: { finalizers: ['kubernetes'] },
    status: { phase: 'Active' },
  }
}

/** A Secret; values are texts, not yet base64. */
export function secret(name: Name, data: Readonly<Record<string, string>>, type = 'Opaque'): Secret {
  return { apiVersion: 'v1', kind: 'Secret', metadata: meta(name), type, data: Object.fromEntries(Object.entries(data).map(([k, v]) => [k, Buffer.from(v).toString('base64')])) }
}

/** The Lease by which a node says that it lives. */
export function lease(node: string, renewTime = new Date()): Lease {
  return {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name: node, namespace: 'kube-node-lease' },
    spec: { holderIdentity: node, leaseDurationSeconds: 40, renewTime: renewTime.toISOString().replace('Z', '000Z') },
  }
}

/** Any other object. */
export function object(apiVersion: string, kind: string, name: Name, rest: Readonly<Record<string, unknown>> = {}): KubeObject {
  return { apiVersion, kind, metadata: meta(name), ...rest }
}
