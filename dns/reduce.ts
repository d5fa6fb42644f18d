import type { EndpointSlice, Ingress, Namespace, Pod, Service, SliceEndpoint } from '../kube/objects.ts'

/** The label that ties a slice to its Service. */
export const serviceNameLabel = 'kubernetes.io/service-name'

/** What DNS keeps of a Service. */
export function reduceService(s: Service): Service {
  const { name, namespace, labels } = s.metadata
  const { type, clusterIP, clusterIPs, ports, externalName } = s.spec
  return {
    metadata: { name, ...(namespace === undefined ? {} : { namespace }), ...(labels === undefined ? {} : { labels }) },
    spec: {
      ...(type === undefined || type === 'ClusterIP' ? {} : { type }),
      ...(clusterIPs !== undefined && clusterIPs.length > 0 ? { clusterIPs } : clusterIP === undefined ? {} : { clusterIP }),
      ...(externalName === undefined ? {} : { externalName }),
      ...(ports === undefined ? {} : { ports: ports.map((p) => ({ port: p.port, ...(p.name === undefined ? {} : { name: p.name }), ...(p.protocol === undefined ? {} : { protocol: p.protocol }) })) }),
    },
  }
}

/** What DNS keeps of a slice: endpoints that are not ready have no names. */
export function reduceSlice(s: EndpointSlice): EndpointSlice {
  const { name, namespace, labels } = s.metadata
  const service = labels?.[serviceNameLabel]
  return {
    metadata: { name, ...(namespace === undefined ? {} : { namespace }), ...(service === undefined ? {} : { labels: { [serviceNameLabel]: service } }) },
    addressType: s.addressType,
    endpoints: (s.endpoints ?? []).filter((e) => e.conditions?.ready !== false).map(reduceEndpoint),
    ...(s.ports === undefined || s.ports === null
      ? {}
      : {
          ports: s.ports.map((p) => ({
            ...(p.name === undefined ? {} : { name: p.name }),
            ...(p.protocol === undefined ? {} : { protocol: p.protocol }),
            ...(p.port === undefined ? {} : { port: p.port }),
          })),
        }),
  }
}

function reduceEndpoint(e: SliceEndpoint): SliceEndpoint {
  const pod = e.targetRef?.name
  return { addresses: e.addresses ?? [], ...(e.hostname === undefined ? {} : { hostname: e.hostname }), ...(pod === undefined ? {} : { targetRef: { name: pod } }) }
}

export function reduceNamespace(n: Namespace): Namespace {
  return { metadata: { name: n.metadata.name, ...(n.metadata.labels === undefined ? {} : { labels: n.metadata.labels }) } }
}

/** What DNS keeps of a Pod: addresses, and for views its labels. */
export function reducePod(p: Pod): Pod {
  const { name, namespace, labels } = p.metadata
  const { phase, podIP, podIPs } = p.status ?? {}
  return {
    metadata: { name, ...(namespace === undefined ? {} : { namespace }), ...(labels === undefined ? {} : { labels }) },
    spec: { containers: [], ...(p.spec.hostNetwork === true ? { hostNetwork: true } : {}) },
    status: { ...(phase === undefined ? {} : { phase }), ...(podIPs !== undefined ? { podIPs } : podIP === undefined ? {} : { podIP }) },
  }
}

/** What DNS keeps of an Ingress: its hosts. */
export function reduceIngress(i: Ingress): Ingress {
  const { name, namespace, annotations } = i.metadata
  const old = annotations?.['kubernetes.io/ingress.class']
  const cls = i.spec?.ingressClassName ?? old
  return {
    metadata: { name, ...(namespace === undefined ? {} : { namespace }) },
    spec: { ...(cls === undefined ? {} : { ingressClassName: cls }), rules: (i.spec?.rules ?? []).flatMap((r) => (r.host === undefined ? [] : [{ host: r.host }])) },
  }
}
