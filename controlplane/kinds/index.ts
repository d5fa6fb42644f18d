import './meta.ts'
import './common.ts'
import './scale.ts'
import './eviction.ts'
import './token.ts'
import './accessreview.ts'
import './ipaddress.ts'
import { configmaps } from './configmap.ts'
import { deployments } from './deployment.ts'
import { endpoints } from './endpoints.ts'
import { endpointslices } from './endpointslice.ts'
import { events, newEvents } from './event.ts'
import { ingresses } from './ingress.ts'
import { ingressclasses } from './ingressclass.ts'
import type { Kind } from './kind.ts'
import { leases } from './lease.ts'
import { namespaces } from './namespace.ts'
import { nodes } from './node.ts'
import { pods } from './pod.ts'
import { clusterrolebindings, clusterroles, rolebindings, roles } from './rbac.ts'
import { replicasets } from './replicaset.ts'
import { secrets } from './secret.ts'
import { serviceaccounts } from './serviceaccount.ts'
import { services } from './service.ts'
import { servicecidrs } from './servicecidr.ts'

/** Every kind that is served. To add one: a file beside this one, and a line here. */
export const kinds: readonly Kind[] = [
  configmaps,
  endpoints,
  events,
  namespaces,
  nodes,
  pods,
  secrets,
  serviceaccounts,
  services,
  deployments,
  replicasets,
  newEvents,
  ingressclasses,
  ingresses,
  servicecidrs,
  clusterrolebindings,
  clusterroles,
  rolebindings,
  roles,
  leases,
  endpointslices,
]
