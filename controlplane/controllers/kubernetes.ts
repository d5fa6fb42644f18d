import { ApiError, isConflict } from '../../kube/client.ts'
import type { Endpoints, EndpointSlice, Service } from '../../kube/objects.ts'
import { equal } from '../../kube/patch.ts'
import { endpoints, endpointslices, keyOf, namespaces, services } from '../../kube/resources.ts'
import { network, nth } from '../../lib/ip.ts'
import type { Controller } from './controller.ts'

const own = ['default', 'kube-system', 'kube-public', 'kube-node-lease'] as const

/** Keeps the namespaces that every cluster has, and the Service by which Pods find the API. */
export const kubernetesService: Controller = {
  name: 'kubernetes',
  start({ client, cluster, queue, options, log, signal }) {
    const { advertiseAddress, advertisePort = 6443, serviceCIDRs } = options
    // Nothing may lead Pods to their own loopback, and the API refuses such an endpoint.
    const loopback = advertiseAddress !== undefined && /^(127\.|::1$)/.test(advertiseAddress)
    if (loopback) log.info('the Service kubernetes has no endpoints: the API is served on loopback only (see --advertise-address)', { address: advertiseAddress })
    const all = { namespaces: cluster.of(namespaces), services: cluster.of(services), slices: cluster.of(endpointslices), endpoints: cluster.of(endpoints) }
    const work = queue('kubernetes', sync)
    work.add('all')
    const ours = (key: string): void => {
      if (key === 'default/kubernetes') work.add('all')
    }
    all.services.on((now, before) => ours(keyOf((now ?? before)!)))
    all.slices.on((now, before) => ours(keyOf((now ?? before)!)))
    all.endpoints.on((now, before) => ours(keyOf((now ?? before)!)))
    all.namespaces.on((now, before) => {
      if (now === undefined && (own as readonly string[]).includes(before!.metadata.name)) work.add('all')
    })

    async function sync(): Promise<void> {
      for (const name of own) if (!all.namespaces.objects.has(name)) await made(client.create(namespaces, { metadata: { name } }, { signal }))
      if (advertiseAddress === undefined) return
      const metadata = { name: 'kubernetes', namespace: 'default' }
      if (!all.services.objects.has('default/kubernetes')) {
        const clusterIPs = serviceCIDRs.map((c) => network(c)).flatMap((n) => (n === undefined ? [] : [nth(n, 1)!]))
        // One family is all that the API itself promises.
        const clusterIP = clusterIPs.find((ip) => ip.includes(':') === advertiseAddress.includes(':')) ?? clusterIPs[0]
        const service = {
          metadata: { ...metadata, labels: { component: 'apiserver', provider: 'kubernetes' } },
          spec: {
            type: 'ClusterIP',
            ...(clusterIP === undefined ? {} : { clusterIP, clusterIPs: [clusterIP] }),
            ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort: advertisePort }],
            sessionAffinity: 'None',
          },
        } as const
        await made(client.create(services, service as unknown as Service, { signal }))
      }
      if (loopback) return
      const wantedSlice: EndpointSlice = {
        metadata: { ...metadata, labels: { 'kubernetes.io/service-name': 'kubernetes' } },
        addressType: advertiseAddress.includes(':') ? 'IPv6' : 'IPv4',
        endpoints: [{ addresses: [advertiseAddress], conditions: { ready: true } }],
        ports: [{ name: 'https', port: advertisePort, protocol: 'TCP' }],
      }
      const slice = all.slices.objects.get('default/kubernetes')
      if (slice !== undefined && slice.addressType !== wantedSlice.addressType) {
        await client.delete(endpointslices, 'kubernetes', 'default', { signal })
        await made(client.create(endpointslices, wantedSlice, { signal }))
      } else if (slice === undefined) await made(client.create(endpointslices, wantedSlice, { signal }))
      else if (!equal(slice.ports, wantedSlice.ports) || slice.endpoints.length !== 1 || !equal(slice.endpoints[0]?.addresses, [advertiseAddress]))
        await client.update(endpointslices, { ...slice, endpoints: wantedSlice.endpoints, ports: wantedSlice.ports! }, { signal })

      const subsets = [{ addresses: [{ ip: advertiseAddress }], ports: [{ name: 'https', port: advertisePort, protocol: 'TCP' as const }] }]
      const old = all.endpoints.objects.get('default/kubernetes')
      const wanted: Endpoints = { metadata: { ...metadata, labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } }, subsets }
      if (old === undefined) await made(client.create(endpoints, wanted, { signal }))
      else if (!equal(old.subsets, subsets)) await client.update(endpoints, { ...old, subsets }, { signal })
    }
  },
}

/** Creation, where it does not matter who was first. */
async function made(creation: Promise<unknown>): Promise<void> {
  try {
    await creation
  } catch (error) {
    if (!isConflict(error) || !(error instanceof ApiError) || error.reason !== 'AlreadyExists') throw error
  }
}
