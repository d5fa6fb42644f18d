import type { ConfigMap, Deployment, Endpoints, EndpointSlice, Event, Ingress, IngressClass, KubeObject, Lease, Namespace, Node, Pod, ReplicaSet, Secret, Service, ServiceAccount } from './objects.ts'

/** Where objects of one kind live in the API. `T` is what is read there. */
export interface Resource<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string
  readonly version: string
  /** As in the path: `endpointslices`. */
  readonly plural: string
  readonly kind: string
  readonly namespaced: boolean
  /** Never set: it only ties `T` to the value. */
  readonly type?: T
}

/** Names a kind of object, also one that has no constant here. */
export function resource<T extends KubeObject = KubeObject>(apiVersion: string, plural: string, kind: string, namespaced: boolean): Resource<T> {
  const slash = apiVersion.indexOf('/')
  return { group: slash < 0 ? '' : apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1), plural, kind, namespaced }
}

export const services: Resource<Service> = resource('v1', 'services', 'Service', true)
export const endpointslices: Resource<EndpointSlice> = resource('discovery.k8s.io/v1', 'endpointslices', 'EndpointSlice', true)
export const endpoints: Resource<Endpoints> = resource('v1', 'endpoints', 'Endpoints', true)
export const nodes: Resource<Node> = resource('v1', 'nodes', 'Node', false)
export const pods: Resource<Pod> = resource('v1', 'pods', 'Pod', true)
export const namespaces: Resource<Namespace> = resource('v1', 'namespaces', 'Namespace', false)
export const ingresses: Resource<Ingress> = resource('networking.k8s.io/v1', 'ingresses', 'Ingress', true)
export const ingressclasses: Resource<IngressClass> = resource('networking.k8s.io/v1', 'ingressclasses', 'IngressClass', false)
export const secrets: Resource<Secret> = resource('v1', 'secrets', 'Secret', true)
export const configmaps: Resource<ConfigMap> = resource('v1', 'configmaps', 'ConfigMap', true)
export const serviceaccounts: Resource<ServiceAccount> = resource('v1', 'serviceaccounts', 'ServiceAccount', true)
export const events: Resource<Event> = resource('v1', 'events', 'Event', true)
export const leases: Resource<Lease> = resource('coordination.k8s.io/v1', 'leases', 'Lease', true)
export const replicasets: Resource<ReplicaSet> = resource('apps/v1', 'replicasets', 'ReplicaSet', true)
export const deployments: Resource<Deployment> = resource('apps/v1', 'deployments', 'Deployment', true)

/** Every kind that has a constant here. */
export const resources: readonly Resource[] = [
  services,
  endpointslices,
  endpoints,
  nodes,
  pods,
  namespaces,
  ingresses,
  ingressclasses,
  secrets,
  configmaps,
  serviceaccounts,
  events,
  leases,
  replicasets,
  deployments,
]

/** The resource of an object's `apiVersion` and `kind`, if it has a constant here. */
export function resourceOf(apiVersion: string, kind: string): Resource | undefined {
  return resources.find((r) => r.kind === kind && apiVersionOf(r) === apiVersion)
}

/** `v1` or `group/version`. */
export function apiVersionOf(r: Resource): string {
  return r.group === '' ? r.version : `${r.group}/${r.version}`
}

/** The path of a collection, or of one object in it: `/api/v1/namespaces/demo/pods/web`. */
export function pathOf(r: Resource, namespace?: string, name?: string, subresource?: string): string {
  let path = r.group === '' ? `/api/${r.version}` : `/apis/${r.group}/${r.version}`
  if (r.namespaced && namespace !== undefined && namespace !== '') path += `/namespaces/${encodeURIComponent(namespace)}`
  path += `/${r.plural}`
  if (name !== undefined) path += `/${encodeURIComponent(name)}`
  if (subresource !== undefined) path += `/${subresource}`
  return path
}

/** The key of an object in a mirror: `namespace/name`, or `name` of a kind outside namespaces. */
export function keyOf(object: KubeObject): string {
  const { namespace, name } = object.metadata
  return namespace === undefined || namespace === '' ? name : `${namespace}/${name}`
}
