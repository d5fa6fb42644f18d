import type { EndpointPort, EndpointSlice, Protocol, Service } from './objects.ts'

/** One endpoint of a Service port, every default filled in. */
export interface Candidate {
  readonly address: string
  readonly port: number
  readonly nodeName: string | undefined
  readonly zone: string | undefined
  readonly hostname: string | undefined
  readonly ready: boolean
  readonly serving: boolean
  readonly terminating: boolean
  /** Nodes and zones that should use this endpoint; empty: no hint. */
  readonly forNodes: readonly string[]
  readonly forZones: readonly string[]
}

/** What a Service port asks for, and where the question is asked. */
export interface Policies {
  readonly nodeName: string
  /** Label `topology.kubernetes.io/zone` of the node. */
  readonly zone: string | undefined
  /** `internalTrafficPolicy: Local`. */
  readonly internalPolicyLocal: boolean
  /** `externalTrafficPolicy: Local`. */
  readonly externalPolicyLocal: boolean
  /** Has a NodePort, a load balancer's address or an external IP. */
  readonly externallyAccessible: boolean
}

/** Which endpoints serve a Service port, for whom. Members keep their identity and order. */
export interface Categories<E extends Candidate = Candidate> {
  /** For senders whose policy is Cluster. */
  readonly cluster: readonly E[]
  /** For senders whose policy is Local: only those of this node. */
  readonly local: readonly E[]
  /** Every endpoint in either, once. */
  readonly all: readonly E[]
  /** There is a usable endpoint somewhere in the cluster, though perhaps not for this node: without one, refuse; with one, drop. */
  readonly hasAny: boolean
}

/** The endpoints that `slices` of one Service (and one family) give a port, sorted and each once. `portName` is empty for an unnamed port. */
export function candidates(slices: Iterable<EndpointSlice>, portName: string, protocol: Protocol): readonly Candidate[] {
  const found = new Map<string, Candidate>()
  for (const slice of slices) {
    const port = findPort(slice.ports, portName, protocol)
    if (port === undefined) continue
    for (const endpoint of slice.endpoints) {
      const address = endpoint.addresses[0]
      if (address === undefined) continue
      const { ready, serving, terminating } = endpoint.conditions ?? {}
      const key = `${address} ${port}`
      const candidate: Candidate = {
        address,
        port,
        nodeName: endpoint.nodeName,
        zone: endpoint.zone,
        hostname: endpoint.hostname,
        ready: ready ?? true,
        serving: serving ?? ready ?? true,
        terminating: terminating ?? false,
        forNodes: endpoint.hints?.forNodes?.map((n) => n.name) ?? none,
        forZones: endpoint.hints?.forZones?.map((z) => z.name) ?? none,
      }
      // While an endpoint moves from one slice to another it stands in both for a moment; the better state is the newer one more often than not.
      const before = found.get(key)
      if (before === undefined || rank(candidate) > rank(before)) found.set(key, candidate)
    }
  }
  return [...found.entries()].sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([, c]) => c)
}

const none: readonly string[] = []

function rank(c: Candidate): number {
  return c.ready ? 2 : c.serving ? 1 : 0
}

function findPort(ports: readonly EndpointPort[] | undefined, name: string, protocol: Protocol): number | undefined {
  return ports?.find((p) => (p.name ?? '') === name && (p.protocol ?? 'TCP') === protocol)?.port
}

/** Reads the policies of a Service; `nodePort` and load balancer addresses count as soon as the Service has any. */
export function policiesOf(service: Service, node: { readonly nodeName: string; readonly zone: string | undefined }): Policies {
  const { spec, status } = service
  return {
    ...node,
    internalPolicyLocal: spec.internalTrafficPolicy === 'Local',
    externalPolicyLocal: spec.externalTrafficPolicy === 'Local',
    externallyAccessible:
      (spec.ports?.some((p) => (p.nodePort ?? 0) > 0) ?? false) ||
      (spec.externalIPs?.length ?? 0) > 0 ||
      (spec.type === 'LoadBalancer' && (status?.loadBalancer?.ingress?.some((i) => i.ip !== undefined && i.ipMode !== 'Proxy') ?? false)),
  }
}

/**
 * Decides which endpoints serve a Service port, and for whom, as kube-proxy's CategorizeEndpoints does: traffic policies, topology
 * hints (KEP-2433, KEP-3015) and the fall back to terminating endpoints that still serve (KEP-1669).
 */
export function categorize<E extends Candidate>(endpoints: readonly E[], policies: Policies): Categories<E> {
  const { nodeName, internalPolicyLocal, externalPolicyLocal, externallyAccessible } = policies
  if (endpoints.length === 0) return { cluster: [], local: [], all: [], hasAny: false }
  // Traffic from inside to an external address always uses the cluster's endpoints, so accessible from outside is reason enough.
  const usesCluster = !internalPolicyLocal || externallyAccessible
  const usesLocal = internalPolicyLocal || (externalPolicyLocal && externallyAccessible)

  let cluster: readonly E[] = []
  let hinted = false
  let fellBack = false
  if (usesCluster) {
    const allowed = byHints(endpoints, policies)
    hinted = allowed !== undefined
    cluster = endpoints.filter((e) => e.ready && (allowed === undefined || allowed(e)))
    if (cluster.length === 0) {
      cluster = endpoints.filter(lingers)
      fellBack = cluster.length > 0
    }
  }
  if (!usesLocal) return { cluster, local: [], all: cluster, hasAny: cluster.length > 0 }

  const here = (e: E): boolean => e.nodeName === nodeName
  let local = endpoints.filter((e) => e.ready && here(e))
  if (local.length === 0) {
    local = endpoints.filter((e) => lingers(e) && here(e))
    if (local.length > 0) fellBack = true
  }
  const hasAny = endpoints.some((e) => e.ready || lingers(e))
  if (!usesCluster) return { cluster: [], local, all: local, hasAny }
  // Without hints and fall back the local ones are among the cluster's.
  if (!hinted && !fellBack) return { cluster, local, all: cluster, hasAny }
  const union = new Set([...cluster, ...local])
  return { cluster, local, all: endpoints.filter((e) => union.has(e)), hasAny }
}

function lingers(e: Candidate): boolean {
  return !e.ready && e.serving && e.terminating
}

/** Which endpoints the hints allow; undefined when they must be ignored: one is missing, or none names this node or its zone. */
function byHints(endpoints: readonly Candidate[], { nodeName, zone }: Policies): ((e: Candidate) => boolean) | undefined {
  const ready = endpoints.filter((e) => e.ready)
  if (ready.length === 0) return undefined
  if (ready.every((e) => e.forNodes.length > 0) && ready.some((e) => e.forNodes.includes(nodeName))) return (e) => e.forNodes.includes(nodeName)
  if (zone !== undefined && ready.every((e) => e.forZones.length > 0) && ready.some((e) => e.forZones.includes(zone))) return (e) => e.forZones.includes(zone)
  return undefined
}
