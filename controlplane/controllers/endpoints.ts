import { ApiError, isConflict, isNotFound } from '../../kube/client.ts'
import type { EndpointAddress, EndpointPort, Endpoints, EndpointSlice, EndpointSubset, Pod, Service, SliceEndpoint } from '../../kube/objects.ts'
import { equal } from '../../kube/patch.ts'
import { endpoints, endpointslices, keyOf, pods, services } from '../../kube/resources.ts'
import { selects } from '../../kube/selectors.ts'
import { conditionOf, namespaceOf } from './cluster.ts'
import type { Controller } from './controller.ts'
import { addressesOf, carryOut, ChangeTimes, hasSelector, portsOf, sameForServices, servicesOf } from './endpointslices.ts'
import { changeTime, planSlices, type Group } from './slices.ts'

/** Addresses in one Endpoints object; more are left out, as every client since 2021 reads slices. */
const mostAddresses = 1000

/** Keeps the Endpoints of Services that select Pods, for clients from before EndpointSlices. */
export const endpointsController: Controller = {
  name: 'endpoints',
  start({ client, cluster, queue, signal }) {
    const all = { services: cluster.of(services), pods: cluster.of(pods), endpoints: cluster.of(endpoints) }
    const work = queue('endpoints', sync, { workers: 4 })
    const times = new ChangeTimes()
    /** Endpoints without their Service: it went while we looked on, or before we came. Hand-made ones go too. */
    const dropped = new Set<string>()
    all.services.on((now, before) => {
      const key = keyOf((now ?? before)!)
      if (now === undefined) {
        dropped.add(key)
        times.forget(key)
      } else dropped.delete(key)
      work.add(key)
    })
    all.pods.on((now, before) => {
      if (now !== undefined && before !== undefined && sameForServices(now, before)) return
      for (const key of servicesOf((now ?? before)!, all.services)) work.add(key)
      if (now !== undefined && before !== undefined) for (const key of servicesOf(before, all.services)) work.add(key)
    })
    let begun = false
    all.endpoints.on((now, before) => {
      const key = keyOf((now ?? before)!)
      if (!begun && now !== undefined && !all.services.objects.has(key)) dropped.add(key)
      work.add(key)
    })

    async function sync(key: string): Promise<void> {
      begun = true
      const service = all.services.objects.get(key)
      const before = all.endpoints.objects.get(key)
      const [namespace, name] = key.split('/') as [string, string]
      try {
        if (service === undefined) {
          const doomed = dropped.delete(key)
          // Whoever leads by an annotation on Endpoints has no Service.
          if (!doomed || before === undefined || before.metadata.annotations?.['control-plane.alpha.kubernetes.io/leader'] !== undefined) return
          await client.delete(endpoints, name, namespace, { uid: before.metadata.uid, signal })
          await all.endpoints.lost(before)
          return
        }
        if (!hasSelector(service) || service.metadata.deletionTimestamp !== undefined) return
        const wanted = compileEndpoints(service, all.pods.in(namespace))
        const since = times.since(key, service, all.pods.in(namespace))
        const changed = since === undefined ? {} : { [changeTime]: since }
        if (before === undefined)
          await all.endpoints.shows(await client.create(endpoints, { ...wanted, metadata: { ...wanted.metadata, annotations: { ...wanted.metadata.annotations, ...changed } } }, { signal }))
        else if (!equal(before.subsets ?? [], wanted.subsets) || !equal(before.metadata.labels ?? {}, wanted.metadata.labels) || truncated(before) !== truncated(wanted)) {
          const annotations = { ...before.metadata.annotations }
          delete annotations[overCapacity]
          delete annotations[changeTime]
          const metadata = { ...before.metadata, labels: wanted.metadata.labels!, annotations: { ...annotations, ...wanted.metadata.annotations, ...changed } }
          await all.endpoints.shows(await client.update(endpoints, { ...before, metadata, subsets: wanted.subsets! }, { signal }))
        }
      } catch (error) {
        if (isNotFound(error) || (error instanceof ApiError && error.code === 403 && error.message.includes('being terminated'))) return
        throw error
      }
    }
  },
}

const overCapacity = 'endpoints.kubernetes.io/over-capacity'

function truncated(e: Endpoints): boolean {
  return e.metadata.annotations?.[overCapacity] !== undefined
}

/** The Endpoints of a Service: addresses with the same ports in one subset, of the Service's first family. */
export function compileEndpoints(service: Service, allPods: Iterable<Pod>): Endpoints {
  const family = service.spec.ipFamilies?.[0] ?? 'IPv4'
  const unready = service.spec.publishNotReadyAddresses === true
  // Port by port, who has it; then ports that the same addresses have are one subset.
  const byPort = new Map<string, { readonly port: EndpointPort | undefined; readonly ready: EndpointAddress[]; readonly notReady: EndpointAddress[] }>()
  let count = 0
  for (const pod of allPods) {
    if (!selects(service.spec.selector ?? {}, pod.metadata.labels) || pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') continue
    if (pod.metadata.deletionTimestamp !== undefined && !unready) continue
    const ip = addressesOf(pod, family)[0]
    const ports = portsOf(service, pod)
    if (ip === undefined || (ports.length === 0 && (service.spec.ports ?? []).length > 0)) continue
    count++
    const address: EndpointAddress = {
      ip,
      ...(pod.spec.hostname !== undefined && pod.spec.hostname !== '' && pod.spec.subdomain === service.metadata.name ? { hostname: pod.spec.hostname } : {}),
      ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }),
      targetRef: { kind: 'Pod', name: pod.metadata.name, namespace: namespaceOf(pod), ...(pod.metadata.uid === undefined ? {} : { uid: pod.metadata.uid }) },
    }
    for (const p of ports.length === 0 ? [undefined] : ports) {
      const port =
        p === undefined ? undefined : { ...(p.name === '' ? {} : { name: p.name! }), port: p.port!, protocol: p.protocol!, ...(p.appProtocol === undefined ? {} : { appProtocol: p.appProtocol }) }
      const id = JSON.stringify(port ?? null)
      let at = byPort.get(id)
      if (at === undefined) byPort.set(id, (at = { port, ready: [], notReady: [] }))
      ;(unready || conditionOf(pod, 'Ready') === 'True' ? at.ready : at.notReady).push(address)
    }
  }
  const subsets = new Map<string, { ports: EndpointPort[]; ready: readonly EndpointAddress[]; notReady: readonly EndpointAddress[] }>()
  for (const [, { port, ready, notReady }] of [...byPort].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    const id = JSON.stringify([ready.map((a) => `${a.ip} ${a.targetRef?.uid}`).sort(), notReady.map((a) => `${a.ip} ${a.targetRef?.uid}`).sort()])
    let subset = subsets.get(id)
    if (subset === undefined) subsets.set(id, (subset = { ports: [], ready, notReady }))
    if (port !== undefined) subset.ports.push(port)
  }
  const over = count > mostAddresses
  let room = mostAddresses
  const take = (list: readonly EndpointAddress[]): readonly EndpointAddress[] => {
    const part = list.toSorted((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : 0)).slice(0, room)
    room -= part.length
    return part
  }
  // The largest first, else by their ports: the same Pods always give the same text.
  const list = [...subsets.values()].toSorted((a, b) => b.ready.length + b.notReady.length - a.ready.length - a.notReady.length || (JSON.stringify(a.ports) < JSON.stringify(b.ports) ? -1 : 1))
  const ready = list.map((s) => take(s.ready))
  const notReady = list.map((s) => take(s.notReady))
  return {
    metadata: {
      name: service.metadata.name,
      namespace: namespaceOf(service),
      labels: { ...service.metadata.labels, ...(service.spec.clusterIP === 'None' ? { 'service.kubernetes.io/headless': '' } : {}) },
      ...(over ? { annotations: { [overCapacity]: 'truncated' } } : {}),
    },
    subsets: list.flatMap((s, i): readonly EndpointSubset[] =>
      ready[i]!.length + notReady[i]!.length === 0
        ? []
        : [
            {
              ...(ready[i]!.length === 0 ? {} : { addresses: ready[i]! }),
              ...(notReady[i]!.length === 0 ? {} : { notReadyAddresses: notReady[i]! }),
              ...(s.ports.length === 0 ? {} : { ports: s.ports }),
            },
          ],
    ),
  }
}

const mirroredBy = 'endpointslicemirroring-controller.k8s.io'

/** Keeps EndpointSlices that say what hand-made Endpoints say, for Services without a selector. */
export const mirroring: Controller = {
  name: 'endpointslicemirroring',
  start({ client, cluster, queue, signal }) {
    const all = { services: cluster.of(services), endpoints: cluster.of(endpoints), slices: cluster.of(endpointslices) }
    const work = queue('endpointslicemirroring', sync, { workers: 2 })
    all.services.on((now, before) => {
      if (now === undefined || before === undefined || hasSelector(now) !== hasSelector(before)) work.add(keyOf((now ?? before)!))
    })
    all.endpoints.on((now, before) => work.add(keyOf((now ?? before)!)))
    all.slices.on((now, before) => {
      const { namespace, labels } = (now ?? before)!.metadata
      if (labels?.['endpointslice.kubernetes.io/managed-by'] === mirroredBy) work.add(`${namespace}/${labels['kubernetes.io/service-name'] ?? ''}`)
    })

    async function sync(key: string): Promise<void> {
      const [namespace, name] = key.split('/') as [string, string]
      const service = all.services.objects.get(key)
      const source = all.endpoints.objects.get(key)
      const existing = [...all.slices.in(namespace)].filter(
        (s) => s.metadata.labels?.['endpointslice.kubernetes.io/managed-by'] === mirroredBy && s.metadata.labels['kubernetes.io/service-name'] === name,
      )
      const mirrored =
        service !== undefined &&
        !hasSelector(service) &&
        service.spec.type !== 'ExternalName' &&
        source !== undefined &&
        source.metadata.deletionTimestamp === undefined &&
        source.metadata.labels?.['endpointslice.kubernetes.io/skip-mirror'] !== 'true' &&
        source.metadata.annotations?.['control-plane.alpha.kubernetes.io/leader'] === undefined
      if (!mirrored) {
        if (existing.length > 0) await carryOut({ create: [], update: [], remove: existing }, { client, slices: all.slices, signal })
        return
      }
      try {
        await carryOut(compileMirrored(source, existing), { client, slices: all.slices, signal })
      } catch (error) {
        if (isConflict(error)) throw error
        if (!(error instanceof ApiError && error.code === 422)) throw error
        // An address that no slice may hold (loopback, link-local): the Endpoints are as they are.
      }
    }
  },
}

/** The changes that make slices say what `source` says. */
export function compileMirrored(source: Endpoints, existing: readonly EndpointSlice[]): ReturnType<typeof planSlices> {
  const groups = new Map<string, { addressType: 'IPv4' | 'IPv6'; ports: readonly EndpointPort[]; endpoints: SliceEndpoint[] }>()
  for (const subset of source.subsets ?? []) {
    const ports = (subset.ports ?? []).map((p) => ({
      name: p.name ?? '',
      protocol: p.protocol ?? ('TCP' as const),
      ...(p.port === undefined ? {} : { port: p.port }),
      ...(p.appProtocol === undefined ? {} : { appProtocol: p.appProtocol }),
    }))
    const add = (address: EndpointAddress, ready: boolean): void => {
      const addressType = address.ip.includes(':') ? ('IPv6' as const) : ('IPv4' as const)
      const id = `${addressType} ${JSON.stringify(ports)}`
      let group = groups.get(id)
      if (group === undefined) groups.set(id, (group = { addressType, ports, endpoints: [] }))
      if (group.endpoints.length >= mostAddresses) return
      const { hostname, nodeName, targetRef } = address
      group.endpoints.push({
        addresses: [address.ip],
        conditions: { ready },
        ...(hostname === undefined ? {} : { hostname }),
        ...(nodeName === undefined ? {} : { nodeName }),
        ...(targetRef === undefined ? {} : { targetRef }),
      })
    }
    for (const a of subset.addresses ?? []) add(a, true)
    for (const a of subset.notReadyAddresses ?? []) add(a, false)
  }
  const { name, uid, labels } = source.metadata
  return planSlices([...groups.values()] satisfies readonly Group[], existing, {
    most: mostAddresses,
    metadata: {
      namespace: namespaceOf(source),
      generateName: `${name}-`,
      labels: { ...labels, 'kubernetes.io/service-name': name, 'endpointslice.kubernetes.io/managed-by': mirroredBy },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Endpoints', name, uid: uid ?? '', controller: true, blockOwnerDeletion: true }],
    },
  })
}
