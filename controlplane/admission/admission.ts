import { suffix, type Admission, type Call, type Claim } from '../api/rest.ts'
import type { Cache } from '../api/cache.ts'
import { Failure, forbidden, notFound } from '../api/status.ts'
import type { ServiceAllocator } from '../allocate/services.ts'
import type { Rbac } from '../identity/rbac.ts'
import { events } from '../kinds/event.ts'
import type { Json } from '../kinds/decode.ts'
import type { Kind } from '../kinds/kind.ts'
import { ingressclasses } from '../kinds/ingressclass.ts'
import { namespaces } from '../kinds/namespace.ts'
import { serviceaccounts } from '../kinds/serviceaccount.ts'

/** The rules that look beyond one object: namespaces that exist and live, addresses and ports. */
export function admission(cache: Cache, services: ServiceAllocator, rbac: Rbac): Admission {
  return {
    async admit(call: Call, object: Json, before: Json | undefined): Promise<void> {
      const { kind: k } = call
      if (k.group === 'rbac.authorization.k8s.io') rbac.guard(k, call.user, object, before)
      // A new node takes no Pods before it says that it is ready.
      if (k.kind === 'Node' && before === undefined && !((object['spec'].taints ?? []) as Json[]).some((t) => t['key'] === notReady && t['effect'] === 'NoSchedule'))
        object['spec'].taints = [...(object['spec'].taints ?? []), { key: notReady, effect: 'NoSchedule' }]
      if (!k.namespaced || before !== undefined || call.namespace === undefined) return
      const ns = cache.of(namespaces).get(`/registry/namespaces/${call.namespace}`)
      if (ns === undefined) {
        // These four are made by the controllers; who writes into them at the very start need not wait for that.
        if (call.namespace === 'default' && k.kind === 'Event') return
        throw notFound(namespaces, call.namespace)
      }
      if (ns.object['metadata'].deletionTimestamp === undefined) {
        if (k.kind === 'Pod') await admitPod(cache, call, object)
        if (k.kind === 'Ingress') admitIngress(cache, object)
        return
      }
      if (k.plural === events.plural) return
      throw new Failure(403, 'Forbidden', forbidden(k, object['metadata'].name ?? '', `unable to create new content in namespace ${call.namespace} because it is being terminated`).message, {
        ...(object['metadata'].name === undefined ? {} : { name: object['metadata'].name }),
        ...(k.group === '' ? {} : { group: k.group }),
        kind: k.plural,
        causes: [{ reason: 'NamespaceTerminating', message: `namespace ${call.namespace} is being terminated`, field: 'metadata.namespace' }],
      })
    },
    async claim(call: Call, object: Json, before: Json | undefined): Promise<Claim | undefined> {
      return call.kind.kind === 'Service' ? services.claim(object, before, call.dryRun) : undefined
    },
    async released(k: Kind, object: Json): Promise<void> {
      if (k.kind === 'Service') await services.released(object)
    },
  }
}

const tokenFolder = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Shows each container a token of the Pod's account, the authority and the namespace, unless it has something else there. */
function mountToken(spec: Json): void {
  const without = [...(spec['initContainers'] ?? []), ...(spec['containers'] ?? [])].filter((c: Json) => !((c['volumeMounts'] ?? []) as Json[]).some((m) => m['mountPath'] === tokenFolder))
  if (without.length === 0) return
  const name = `kube-api-access-${suffix()}`
  for (const c of without) c['volumeMounts'] = [...(c['volumeMounts'] ?? []), { name, readOnly: true, mountPath: tokenFolder }]
  const sources = [
    // Asked for is a little more than an hour, as Kubernetes does: it tells these tokens from those that somebody wanted so.
    { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    { downwardAPI: { items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }] } },
  ]
  spec['volumes'] = [...(spec['volumes'] ?? []), { name, projected: { sources, defaultMode: 420 } }]
}

const notReady = 'node.kubernetes.io/not-ready'
const isDefault = 'ingressclass.kubernetes.io/is-default-class'

/** An Ingress that names no class gets the default one; of several the newest, then the first by name. */
function admitIngress(cache: Cache, ingress: Json): void {
  if (ingress['spec'].ingressClassName !== undefined || ingress['metadata'].annotations?.['kubernetes.io/ingress.class'] !== undefined) return
  const [chosen] = cache
    .of(ingressclasses)
    .sorted()
    .map((e) => e.object['metadata'])
    .filter((m) => m.annotations?.[isDefault] === 'true')
    .toSorted((a, b) => (a.creationTimestamp === b.creationTimestamp ? (a.name < b.name ? -1 : 1) : a.creationTimestamp > b.creationTimestamp ? -1 : 1))
  if (chosen !== undefined) ingress['spec'].ingressClassName = chosen.name
}

/** What Kubernetes' admission adds to every Pod: an account, tolerations for nodes that just went away, a priority. */
async function admitPod(cache: Cache, call: Call, pod: Json): Promise<void> {
  const spec = pod['spec']
  const name: string = spec.serviceAccountName ?? 'default'
  spec.serviceAccountName = name
  spec.serviceAccount = name
  const key = `/registry/serviceaccounts/${call.namespace}/${name}`
  // A namespace and its Pods often come in one file: its account is a moment away.
  const deadline = Date.now() + 3000
  while (name === 'default' && cache.of(serviceaccounts).get(key) === undefined && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20))
  const account = cache.of(serviceaccounts).get(key)?.object
  if (account === undefined && name !== 'default')
    throw forbidden(call.kind, pod['metadata'].name ?? '', `error looking up service account ${call.namespace}/${name}: serviceaccount ${JSON.stringify(name)} not found`)
  if ((spec.imagePullSecrets ?? []).length === 0 && (account?.['imagePullSecrets'] ?? []).length > 0) spec.imagePullSecrets = structuredClone(account!['imagePullSecrets'])
  if (account !== undefined && (spec.automountServiceAccountToken ?? account['automountServiceAccountToken'] ?? true) === true) mountToken(spec)
  if ((spec.priorityClassName ?? '') !== '' && !spec.priorityClassName.startsWith('system-'))
    throw forbidden(call.kind, pod['metadata'].name ?? '', `no PriorityClass with name ${spec.priorityClassName} was found`)
  spec.priority ??= 0
  spec.preemptionPolicy ??= 'PreemptLowerPriority'
  const tolerations: Json[] = spec.tolerations ?? []
  for (const taint of ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable']) {
    const borne = tolerations.some((t) => (t['key'] === taint || (t['key'] ?? '') === '') && ((t['effect'] ?? '') === '' || t['effect'] === 'NoExecute'))
    if (!borne) tolerations.push({ key: taint, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 })
  }
  spec.tolerations = tolerations
}
