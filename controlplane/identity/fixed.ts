import type { User } from './user.ts'

/** May do `verbs` on `resources` (`services`, `nodes/status`; with a group: `ingresses.networking.k8s.io`). */
export interface Grant {
  readonly verbs: readonly string[]
  readonly resources: readonly string[]
  /** Only in this namespace. */
  readonly namespace?: string
  /** Only objects of this name; `$node` is the asking node. */
  readonly name?: string
}

const read = ['get', 'list', 'watch']
const write = ['create', 'update', 'patch']
const events: Grant = { verbs: ['create', 'patch', 'update'], resources: ['events', 'events.events.k8s.io'] }

/** What each part of the stack may do: the least it needs. Everybody else has what RBAC gives. */
export const fixed: Readonly<Record<string, readonly Grant[]>> = {
  'system:kube-proxy': [{ verbs: read, resources: ['services', 'nodes', 'endpointslices.discovery.k8s.io', 'servicecidrs.networking.k8s.io'] }, events],
  'system:dns': [
    { verbs: read, resources: ['services', 'namespaces', 'pods', 'endpointslices.discovery.k8s.io', 'nodes'] },
    { verbs: [...write, 'delete'], resources: ['endpointslices.discovery.k8s.io'], namespace: 'kube-system' },
    events,
  ],
  'system:ingress': [
    {
      verbs: read,
      resources: ['services', 'secrets', 'configmaps', 'pods', 'namespaces', 'nodes', 'endpointslices.discovery.k8s.io', 'ingresses.networking.k8s.io', 'ingressclasses.networking.k8s.io'],
    },
    { verbs: ['get', 'patch', 'update'], resources: ['ingresses/status.networking.k8s.io'] },
    { verbs: [...read, ...write], resources: ['leases.coordination.k8s.io'] },
    events,
  ],
  'system:nodes': [
    { verbs: read, resources: ['nodes', 'services', 'endpoints', 'pods', 'secrets', 'configmaps', 'serviceaccounts', 'namespaces', 'endpointslices.discovery.k8s.io'] },
    { verbs: ['create'], resources: ['nodes', 'pods'] },
    { verbs: ['update', 'patch'], resources: ['nodes', 'nodes/status'], name: '$node' },
    { verbs: ['update', 'patch'], resources: ['pods/status'] },
    { verbs: ['delete'], resources: ['pods'] },
    { verbs: [...read, ...write, 'delete'], resources: ['leases.coordination.k8s.io'], namespace: 'kube-node-lease' },
    { verbs: ['create'], resources: ['serviceaccounts/token', 'tokenreviews.authentication.k8s.io', 'subjectaccessreviews.authorization.k8s.io'] },
    events,
  ],
}

/** The identities that `switchyard kubeconfig` makes, and their groups; undefined: no such identity. */
export function identity(name: string): User | undefined {
  if (name === 'admin') return { name: 'admin', groups: ['system:masters'] }
  if (name.startsWith('system:node:') && name.length > 12) return { name, groups: ['system:nodes'] }
  return ['system:kube-proxy', 'system:dns', 'system:ingress'].includes(name) ? { name, groups: [] } : undefined
}
