import { isConflict, isNotFound } from '../../kube/client.ts'
import type { EndpointHints, EndpointPort, EndpointSlice, IPFamily, Node, Pod, Service, ServicePort, SliceEndpoint } from '../../kube/objects.ts'
import { endpointslices, keyOf, nodes, pods, services } from '../../kube/resources.ts'
import { selects } from '../../kube/selectors.ts'
import { conditionOf, namespaceOf, type Watched } from './cluster.ts'
import type { Around, Controller } from './controller.ts'
import { planSlices, type Group, type SlicePlan } from './slices.ts'

const managedBy = 'endpointslice-controller.k8s.io'
/** Endpoints in a slice. */
const most = 100

/** Keeps the EndpointSlices of Services that select Pods. */
export const endpointSliceController: Controller = {
  name: 'endpointslices',
  start({ client, cluster, queue, signal }) {
    const all = { services: cluster.of(services), pods: cluster.of(pods), nodes: cluster.of(nodes), slices: cluster.of(endpointslices) }
    const work = queue('endpointslices', sync, { workers: 8 })
    const times = new ChangeTimes()

    all.services.on((now, before) => work.add(keyOf((now ?? before)!)))
    all.pods.on((now, before) => {
      if (now !== undefined && before !== undefined && sameForServices(now, before)) return
      for (const key of servicesOf((now ?? before)!, all.services)) work.add(key)
      if (now !== undefined && before !== undefined && now.metadata.labels !== before.metadata.labels) for (const key of servicesOf(before, all.services)) work.add(key)
    })
    all.nodes.on((now, before) => {
      if (now !== undefined && before !== undefined && zoneOf(now) === zoneOf(before)) return
      const name = (now ?? before)!.metadata.name
      for (const pod of all.pods.objects.values()) if (pod.spec.nodeName === name) for (const key of servicesOf(pod, all.services)) work.add(key)
    })
    // Somebody else's hand in our slices.
    all.slices.on((now, before) => {
      const slice = (now ?? before)!
      const service = serviceOf(slice)
      if (service !== undefined) work.add(`${namespaceOf(slice)}/${service}`)
    })

    async function sync(key: string): Promise<void> {
      const slash = key.indexOf('/')
      const [namespace, name] = [key.slice(0, slash), key.slice(slash + 1)]
      const service = all.services.objects.get(key)
      const existing = [...all.slices.in(namespace)].filter((s) => serviceOf(s) === name)
      if (service === undefined) {
        times.forget(key)
        await carryOut({ create: [], update: [], remove: existing }, { client, slices: all.slices, signal })
        return
      }
      // Without a selector, somebody else keeps them.
      if (!hasSelector(service) || service.metadata.deletionTimestamp !== undefined) return
      const since = times.since(key, service, all.pods.in(namespace))
      await carryOut(compileSlices(service, all.pods.in(namespace), all.nodes.objects, existing, since), { client, slices: all.slices, signal })
    }
  },
}

/** Writes what `plan` says and waits until the mirror shows it: the next plan must not rest on what was before. */
export async function carryOut(plan: SlicePlan, { client, slices, signal }: Pick<Around, 'client' | 'signal'> & { readonly slices: Watched<EndpointSlice> }): Promise<void> {
  const seen: Promise<void>[] = []
  // First what adds, then what takes away: a Service never loses all its endpoints in between.
  try {
    for (const slice of plan.update) seen.push(slices.shows(await client.update(endpointslices, written(slice), { signal })))
    for (const slice of plan.create) seen.push(slices.shows(await client.create(endpointslices, written(slice), { signal })))
    for (const slice of plan.remove) {
      try {
        await client.delete(endpointslices, slice.metadata.name, slice.metadata.namespace, { uid: slice.metadata.uid, signal })
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error
      }
      seen.push(slices.lost(slice))
    }
  } finally {
    await Promise.all(seen)
  }
}

/** An empty slice as Kubernetes' own controller writes it: its lists are left out. */
function written<T extends { readonly endpoints: readonly SliceEndpoint[]; readonly ports?: readonly EndpointPort[] }>(slice: T): T {
  if (slice.endpoints.length > 0) return slice
  const { endpoints: _, ports, ...rest } = slice
  return (ports === undefined || ports.length === 0 ? rest : { ...rest, ports }) as T
}

/** When what changed since the last look began: a Pod became ready or stopped being so, or the Service was made. */
export class ChangeTimes {
  readonly #seen = new Map<string, { readonly service: string; readonly pods: ReadonlyMap<string, string> }>()

  /** The earliest of the new times, or none if nothing tells one. */
  since(key: string, service: Service, all: Iterable<Pod>): string | undefined {
    const before = this.#seen.get(key)
    const pods = new Map<string, string>()
    let first: string | undefined
    const note = (time: string | undefined, known: string | undefined): void => {
      if (time !== undefined && (known === undefined || time > known) && (first === undefined || time < first)) first = time
    }
    for (const pod of all) {
      if (!selects(service.spec.selector ?? {}, pod.metadata.labels)) continue
      const time = pod.status?.conditions?.find((c) => c.type === 'Ready')?.lastTransitionTime
      // The API tells a time that nobody set as null.
      if ((time ?? '') === '') continue
      pods.set(pod.metadata.name, time!)
      note(time, before?.pods.get(pod.metadata.name))
    }
    const made = service.metadata.creationTimestamp ?? ''
    if (made !== '') note(made, before?.service)
    this.#seen.set(key, { service: made, pods })
    return first
  }

  forget(key: string): void {
    this.#seen.delete(key)
  }
}

/** The name of the Service whose slice this is, if this controller keeps it. */
function serviceOf(slice: EndpointSlice): string | undefined {
  const labels = slice.metadata.labels
  return labels?.['endpointslice.kubernetes.io/managed-by'] === managedBy ? labels['kubernetes.io/service-name'] : undefined
}

/** Keys of the Services that select a Pod. */
export function* servicesOf(pod: Pod, all: Watched<Service>): Iterable<string> {
  for (const s of all.in(namespaceOf(pod))) if (hasSelector(s) && selects(s.spec.selector!, pod.metadata.labels)) yield keyOf(s)
}

/** Whether the endpoints of a Service are the Pods it selects. */
export function hasSelector({ spec }: Service): boolean {
  return spec.type !== 'ExternalName' && spec.selector !== undefined && Object.keys(spec.selector).length > 0
}

/** Whether a change of a Pod means nothing to any Service. */
export function sameForServices(now: Pod, before: Pod): boolean {
  return (
    now.metadata.uid === before.metadata.uid &&
    JSON.stringify([
      now.metadata.labels,
      now.metadata.deletionTimestamp === undefined,
      now.spec.nodeName,
      now.spec.hostname,
      now.spec.subdomain,
      now.status?.phase,
      now.status?.podIP,
      now.status?.podIPs,
      conditionOf(now, 'Ready'),
    ]) ===
      JSON.stringify([
        before.metadata.labels,
        before.metadata.deletionTimestamp === undefined,
        before.spec.nodeName,
        before.spec.hostname,
        before.spec.subdomain,
        before.status?.phase,
        before.status?.podIP,
        before.status?.podIPs,
        conditionOf(before, 'Ready'),
      ])
  )
}

function zoneOf(node: Node | undefined): string | undefined {
  return node?.metadata.labels?.['topology.kubernetes.io/zone']
}

/** The changes that make the slices of `service` say which of `pods` serve it, and how. */
export function compileSlices(service: Service, allPods: Iterable<Pod>, allNodes: ReadonlyMap<string, Node>, existing: readonly EndpointSlice[], since?: string): SlicePlan {
  const selector = service.spec.selector ?? {}
  const families: readonly IPFamily[] = service.spec.ipFamilies ?? ['IPv4']
  const groups = new Map<string, { addressType: IPFamily; ports: readonly EndpointPort[]; endpoints: SliceEndpoint[] }>()
  for (const pod of allPods) {
    if (!selects(selector, pod.metadata.labels) || pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') continue
    const node = pod.spec.nodeName === undefined ? undefined : allNodes.get(pod.spec.nodeName)
    // Its node has gone: nobody will ever say that it stopped.
    if (pod.spec.nodeName !== undefined && node === undefined && service.spec.publishNotReadyAddresses !== true) continue
    const ports = portsOf(service, pod)
    for (const family of families) {
      const addresses = addressesOf(pod, family)
      if (addresses.length === 0) continue
      const id = `${family} ${ports.map((p) => `${p.name} ${p.protocol} ${p.port}`).join()}`
      let group = groups.get(id)
      if (group === undefined) groups.set(id, (group = { addressType: family, ports, endpoints: [] }))
      group.endpoints.push(endpointOf(service, pod, node, addresses))
    }
  }
  // One empty slice for each family that has no Pods, so that "none" is told from "not looked at yet".
  for (const family of families) if (![...groups.values()].some((g) => g.addressType === family)) groups.set(family, { addressType: family, ports: [], endpoints: [] })
  return planSlices([...groups.values()] satisfies readonly Group[], existing, {
    most,
    since,
    metadata: {
      namespace: namespaceOf(service),
      generateName: `${service.metadata.name}-`,
      labels: labelsOf(service),
      ownerReferences: [{ apiVersion: 'v1', kind: 'Service', name: service.metadata.name, uid: service.metadata.uid ?? '', controller: true, blockOwnerDeletion: true }],
    },
  })
}

/** Labels of the Service go along, but for those that mean something on a slice. */
function labelsOf(service: Service): Record<string, string> {
  const labels = { ...service.metadata.labels }
  delete labels['service.kubernetes.io/headless']
  return {
    ...labels,
    ...(service.spec.clusterIP === 'None' ? { 'service.kubernetes.io/headless': '' } : {}),
    'kubernetes.io/service-name': service.metadata.name,
    'endpointslice.kubernetes.io/managed-by': managedBy,
  }
}

/** A Pod's addresses of one family; empty when it has none yet. */
export function addressesOf(pod: Pod, family: IPFamily): readonly string[] {
  const all = pod.status?.podIPs?.map((p) => p.ip) ?? (pod.status?.podIP === undefined ? [] : [pod.status.podIP])
  const fit = all.filter((ip) => ip !== '' && ip.includes(':') === (family === 'IPv6'))
  return fit.length === 0 ? [] : [fit[0]!]
}

/** The ports of a Service as this Pod has them; one whose name the Pod does not know is left out. */
export function portsOf(service: Service, pod: Pod): readonly EndpointPort[] {
  const found: EndpointPort[] = []
  for (const p of service.spec.ports ?? []) {
    const number = targetPort(p, pod)
    if (number === undefined) continue
    found.push({ name: p.name ?? '', port: number, protocol: p.protocol ?? 'TCP', ...(p.appProtocol === undefined ? {} : { appProtocol: p.appProtocol }) })
  }
  return found
}

function targetPort(p: ServicePort, pod: Pod): number | undefined {
  const { targetPort: target = p.port, protocol = 'TCP' } = p
  if (typeof target === 'number') return target === 0 ? p.port : target
  for (const container of [...pod.spec.containers, ...(pod.spec.initContainers?.filter((c) => c.restartPolicy !== undefined) ?? [])]) {
    for (const port of container.ports ?? []) if (port.name === target && (port.protocol ?? 'TCP') === protocol) return port.containerPort
  }
  // A number in quotes.
  return /^\d+$/.test(target) ? Number(target) : undefined
}

function endpointOf(service: Service, pod: Pod, node: Node | undefined, addresses: readonly string[]): SliceEndpoint {
  const serving = conditionOf(pod, 'Ready') === 'True'
  const terminating = pod.metadata.deletionTimestamp !== undefined
  const ready = service.spec.publishNotReadyAddresses === true || (serving && !terminating)
  const zone = zoneOf(node)
  const hints = ready ? hintsOf(service, zone, pod.spec.nodeName) : undefined
  return {
    addresses,
    conditions: { ready, serving, terminating },
    ...(pod.spec.hostname !== undefined && pod.spec.hostname !== '' && pod.spec.subdomain === service.metadata.name ? { hostname: pod.spec.hostname } : {}),
    ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
    ...(zone === undefined ? {} : { zone }),
    ...(hints === undefined ? {} : { hints }),
    targetRef: { kind: 'Pod', name: pod.metadata.name, namespace: namespaceOf(pod), ...(pod.metadata.uid === undefined ? {} : { uid: pod.metadata.uid }) },
  }
}

/** Who should use an endpoint, by `trafficDistribution` (KEP-4444, KEP-3015). */
function hintsOf(service: Service, zone: string | undefined, nodeName: string | undefined): EndpointHints | undefined {
  const forZones = zone === undefined ? {} : { forZones: [{ name: zone }] }
  switch (service.spec.trafficDistribution) {
    case 'PreferClose':
    case 'PreferSameZone':
      return zone === undefined ? undefined : forZones
    case 'PreferSameNode':
      // The zone as well: a node without endpoints of its own falls back to its zone.
      return { ...forZones, ...(nodeName === undefined ? {} : { forNodes: [{ name: nodeName }] }) }
    default:
      return undefined
  }
}
