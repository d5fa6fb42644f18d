import type { Cache, Entry } from '../api/cache.ts'
import { forbidden } from '../api/status.ts'
import type { Json } from '../kinds/decode.ts'
import type { Kind } from '../kinds/kind.ts'
import { clusterrolebindings, clusterroles, rolebindings, roles } from '../kinds/rbac.ts'
import { selects } from '../kinds/validate.ts'
import type { Authorize, Decision, Target } from './authorize.ts'
import { fixed } from './fixed.ts'
import type { User } from './user.ts'

/** One thing a role allows. */
export interface Rule {
  readonly verbs: readonly string[]
  readonly apiGroups?: readonly string[]
  readonly resources?: readonly string[]
  readonly resourceNames?: readonly string[]
  readonly nonResourceURLs?: readonly string[]
}

/** The roles and bindings in the store, as `authorize` asks them. */
export class Rbac {
  readonly #cache: Cache

  constructor(cache: Cache) {
    this.#cache = cache
  }

  /** Whether a binding allows it; `reason` names the binding, or what is missing. */
  readonly authorize: Authorize = (user, verb, target, namespace, name): Decision => {
    const missing: string[] = []
    for (const grant of this.#grants(user, namespace, missing)) {
      if (!grant.rules.some((r) => allows(r, verb, target, name))) continue
      return { allowed: true, reason: `RBAC: allowed by ${grant.binding} of ${grant.role} to ${grant.subject}` }
    }
    return { allowed: false, reason: missing.length === 0 ? '' : `RBAC: ${missing.length === 1 ? missing[0] : `[${missing.join(', ')}]`}` }
  }

  /** Everything that `user` may do in `namespace`, for `kubectl auth can-i --list`. */
  rulesOf(user: User, namespace: string): Json {
    const list = [...this.#rulesFor(user, namespace)]
    return {
      resourceRules: list
        .filter((r) => r.nonResourceURLs === undefined)
        .map((r) => ({ verbs: r.verbs, apiGroups: r.apiGroups, resources: r.resources, ...(r.resourceNames === undefined ? {} : { resourceNames: r.resourceNames }) })),
      nonResourceRules: list.filter((r) => r.nonResourceURLs !== undefined).map((r) => ({ verbs: r.verbs, nonResourceURLs: r.nonResourceURLs })),
      incomplete: false,
    }
  }

  /** Refuses a role or binding that would give more than its author has. */
  guard(k: Kind, user: User, object: Json, before: Json | undefined): void {
    if (user.groups.includes('system:masters')) return
    const namespace: string | undefined = object['metadata'].namespace
    let wanted: readonly Rule[]
    if (k === roles || k === clusterroles) {
      if (before !== undefined && JSON.stringify(before['rules']) === JSON.stringify(object['rules'])) return
      if (this.authorize(user, 'escalate', { group: k.group, resource: k.plural }, namespace, object['metadata'].name ?? '').allowed) return
      wanted = object['rules'] ?? []
    } else {
      if (before !== undefined && JSON.stringify(before['subjects']) === JSON.stringify(object['subjects'])) return
      const { roleRef } = object as { roleRef: Json }
      const plural = roleRef['kind'] === 'Role' ? 'roles' : 'clusterroles'
      if (this.authorize(user, 'bind', { group: k.group, resource: plural }, namespace, roleRef['name']).allowed) return
      wanted = this.#rules(roleRef, namespace, [])
    }
    const held = [...this.#rulesFor(user, namespace)]
    const lacking = wanted.flatMap(single).filter((w) => !held.some((h) => covers(h, w)))
    if (lacking.length === 0) return
    const lines = [...new Set(compact(wanted, held).map(goRule))].sort()
    throw forbidden(
      k,
      object['metadata'].name ?? '',
      `user ${JSON.stringify(user.name)} (groups=[${user.groups.map((g) => JSON.stringify(g)).join(' ')}]) is attempting to grant RBAC permissions not currently held:\n${lines.join('\n')}`,
    )
  }

  /** The rules that ClusterRoles with an aggregation rule should have now; only those that differ. */
  aggregated(): readonly { readonly role: Json; readonly rules: readonly Rule[] }[] {
    const out: { role: Json; rules: Rule[] }[] = []
    const every = this.#cache.of(clusterroles).sorted()
    for (const entry of every) {
      const selectors: Json[] | undefined = entry.object['aggregationRule']?.clusterRoleSelectors
      if (selectors === undefined) continue
      const rules: Rule[] = []
      for (const other of every) {
        if (other === entry || !selectors.some((s) => selects(s, other.object['metadata'].labels))) continue
        for (const r of (other.object['rules'] ?? []) as Rule[]) if (!rules.some((x) => JSON.stringify(x) === JSON.stringify(r))) rules.push(r)
      }
      if (JSON.stringify(entry.object['rules'] ?? []) !== JSON.stringify(rules)) out.push({ role: entry.object, rules })
    }
    return out
  }

  *#rulesFor(user: User, namespace: string | undefined): Iterable<Rule> {
    for (const who of [user.name, ...user.groups])
      for (const g of Object.hasOwn(fixed, who) ? fixed[who]! : [])
        yield* g.resources.map((r) => ({ verbs: g.verbs, apiGroups: [r.includes('.') ? r.slice(r.indexOf('.') + 1) : ''], resources: [r.includes('.') ? r.slice(0, r.indexOf('.')) : r] }))
    for (const grant of this.#grants(user, namespace, [])) yield* grant.rules
    if (user.groups.includes('system:masters')) {
      yield { verbs: ['*'], apiGroups: ['*'], resources: ['*'] }
      yield { verbs: ['*'], nonResourceURLs: ['*'] }
    }
  }

  *#grants(user: User, namespace: string | undefined, missing: string[]): Iterable<{ readonly rules: readonly Rule[]; readonly binding: string; readonly role: string; readonly subject: string }> {
    const look = function* (this: Rbac, entries: Iterable<Entry>, where: string | undefined): Iterable<{ rules: readonly Rule[]; binding: string; role: string; subject: string }> {
      for (const entry of entries) {
        const b = entry.object
        const subject = ((b['subjects'] ?? []) as Json[]).find((s) => isSubject(s, user, where))
        if (subject === undefined) continue
        const rules = this.#rules(b['roleRef'], where, missing)
        yield {
          rules,
          binding: `${where === undefined ? 'ClusterRoleBinding' : 'RoleBinding'} ${JSON.stringify(where === undefined ? b['metadata'].name : `${b['metadata'].name}/${where}`)}`,
          role: `${b['roleRef'].kind} ${JSON.stringify(b['roleRef'].name)}`,
          subject: `${subject['kind']} ${JSON.stringify(subject['kind'] === 'ServiceAccount' ? `${subject['name']}/${subject['namespace']}` : subject['name'])}`,
        }
      }
    }.bind(this)
    yield* look(this.#cache.of(clusterrolebindings).entries.values(), undefined)
    if (namespace === undefined) return
    const prefix = `${this.#cache.of(rolebindings).prefix}${namespace}/`
    yield* look(
      this.#cache
        .of(rolebindings)
        .sorted()
        .filter((e) => e.key.startsWith(prefix)),
      namespace,
    )
  }

  #rules(ref: Json, namespace: string | undefined, missing: string[]): readonly Rule[] {
    const k = ref['kind'] === 'Role' ? roles : clusterroles
    const found = this.#cache.of(k).get(`${this.#cache.of(k).prefix}${k === roles ? `${namespace}/` : ''}${ref['name']}`)
    if (found === undefined) missing.push(`${k === roles ? 'role' : 'clusterrole'}.rbac.authorization.k8s.io ${JSON.stringify(ref['name'])} not found`)
    return found?.object['rules'] ?? []
  }
}

function isSubject(s: Json, user: User, namespace: string | undefined): boolean {
  if (s['kind'] === 'User') return s['name'] === user.name
  if (s['kind'] === 'Group') return user.groups.includes(s['name'])
  return s['kind'] === 'ServiceAccount' && user.name === `system:serviceaccount:${s['namespace'] ?? namespace}:${s['name']}`
}

const among = (list: readonly string[] | undefined, word: string): boolean => list !== undefined && (list.includes('*') || list.includes(word))

function allows(r: Rule, verb: string, target: Target, name: string): boolean {
  if (!among(r.verbs, verb)) return false
  if ('path' in target) return (r.nonResourceURLs ?? []).some((u) => u === '*' || u === target.path || (u.endsWith('*') && target.path.startsWith(u.slice(0, -1))))
  if (!among(r.apiGroups, target.group)) return false
  const sub = target.subresource ?? ''
  const resource = sub === '' ? target.resource : `${target.resource}/${sub}`
  if (!among(r.resources, resource) && !(sub !== '' && (r.resources ?? []).includes(`*/${sub}`))) return false
  return (r.resourceNames ?? []).length === 0 || (name !== '' && r.resourceNames!.includes(name))
}

/** A rule as rules of one verb, one group, one resource and one name. */
function single(r: Rule): Rule[] {
  const out: Rule[] = []
  for (const verb of r.verbs) {
    for (const url of r.nonResourceURLs ?? []) out.push({ verbs: [verb], nonResourceURLs: [url] })
    for (const g of r.apiGroups ?? [])
      for (const res of r.resources ?? [])
        for (const name of (r.resourceNames ?? []).length > 0 ? r.resourceNames! : [undefined])
          out.push({ verbs: [verb], apiGroups: [g], resources: [res], ...(name === undefined ? {} : { resourceNames: [name] }) })
  }
  return out
}

function covers(held: Rule, wanted: Rule): boolean {
  if (!held.verbs.includes('*') && !held.verbs.includes(wanted.verbs[0]!)) return false
  if (wanted.nonResourceURLs !== undefined)
    return (held.nonResourceURLs ?? []).some((u) => u === '*' || u === wanted.nonResourceURLs![0] || (u.endsWith('*') && wanted.nonResourceURLs![0]!.startsWith(u.slice(0, -1))))
  if (held.apiGroups === undefined || (!held.apiGroups.includes('*') && !held.apiGroups.includes(wanted.apiGroups![0]!))) return false
  const resource = wanted.resources![0]!
  if (!held.resources!.includes('*') && !held.resources!.includes(resource) && !(resource.includes('/') && held.resources!.includes(`*/${resource.split('/')[1]}`))) return false
  const names = held.resourceNames ?? []
  return names.length === 0 || (wanted.resourceNames !== undefined && names.includes(wanted.resourceNames[0]!))
}

/** What is lacking, with the verbs of one resource together. */
function compact(wanted: readonly Rule[], held: readonly Rule[]): Rule[] {
  const by = new Map<string, { rule: Rule; verbs: string[] }>()
  for (const w of wanted.flatMap(single)) {
    if (held.some((h) => covers(h, w))) continue
    const key = JSON.stringify([w.apiGroups, w.resources, w.resourceNames, w.nonResourceURLs])
    const found = by.get(key)
    if (found === undefined) by.set(key, { rule: w, verbs: [...w.verbs] })
    else found.verbs.push(...w.verbs)
  }
  return [...by.values()].map(({ rule, verbs }) => ({ ...rule, verbs }))
}

function goRule(r: Rule): string {
  const list = (l: readonly string[]): string => `[${l.map((x) => JSON.stringify(x)).join(' ')}]`
  const parts: string[] = []
  if (r.nonResourceURLs !== undefined) parts.push(`NonResourceURLs:${list(r.nonResourceURLs)}`)
  if (r.apiGroups !== undefined) parts.push(`APIGroups:${list(r.apiGroups)}`)
  if (r.resources !== undefined) parts.push(`Resources:${list(r.resources)}`)
  if (r.resourceNames !== undefined) parts.push(`ResourceNames:${list(r.resourceNames)}`)
  parts.push(`Verbs:${list(r.verbs)}`)
  return `{${parts.join(', ')}}`
}

const reading = ['get', 'list', 'watch']
const writing = ['create', 'delete', 'deletecollection', 'patch', 'update']
const core = ['configmaps', 'endpoints', 'events', 'pods', 'pods/log', 'pods/status', 'serviceaccounts', 'services', 'services/status', 'namespaces', 'namespaces/status']
const work = ['deployments', 'deployments/scale', 'deployments/status', 'replicasets', 'replicasets/scale', 'replicasets/status']
const net = ['ingresses', 'ingresses/status']

const viewing: readonly Rule[] = [
  { apiGroups: [''], resources: core, verbs: reading },
  { apiGroups: ['apps'], resources: work, verbs: reading },
  { apiGroups: ['networking.k8s.io'], resources: net, verbs: reading },
  { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: reading },
]
const editing: readonly Rule[] = [
  { apiGroups: [''], resources: ['secrets', 'pods/exec'], verbs: reading },
  { apiGroups: [''], resources: ['serviceaccounts'], verbs: ['impersonate'] },
  { apiGroups: [''], resources: ['configmaps', 'events', 'pods', 'secrets', 'serviceaccounts', 'services'], verbs: writing },
  { apiGroups: [''], resources: ['pods/exec', 'pods/eviction', 'serviceaccounts/token'], verbs: ['create'] },
  { apiGroups: ['apps'], resources: ['deployments', 'deployments/scale', 'replicasets', 'replicasets/scale'], verbs: writing },
  { apiGroups: ['networking.k8s.io'], resources: ['ingresses'], verbs: writing },
  { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: [...reading, ...writing] },
]
const administering: readonly Rule[] = [
  { apiGroups: ['authorization.k8s.io'], resources: ['localsubjectaccessreviews'], verbs: ['create'] },
  { apiGroups: ['rbac.authorization.k8s.io'], resources: ['rolebindings', 'roles'], verbs: [...reading, ...writing] },
]
const aggregate = (to: string): Json => ({ [`rbac.authorization.k8s.io/aggregate-to-${to}`]: 'true' })
const collecting = (from: string): Json => ({ clusterRoleSelectors: [{ matchLabels: aggregate(from) }] })

const health = ['/healthz', '/livez', '/readyz', '/version', '/version/']

/** A ClusterRole, and the binding that gives it to these groups. */
function everybody(name: string, groups: readonly string[], rules: readonly Rule[]): { readonly kind: Kind; readonly object: Json }[] {
  const apiGroup = 'rbac.authorization.k8s.io'
  return [
    { kind: clusterroles, object: { metadata: { name }, rules } },
    { kind: clusterrolebindings, object: { metadata: { name }, roleRef: { apiGroup, kind: 'ClusterRole', name }, subjects: groups.map((group) => ({ apiGroup, kind: 'Group', name: group })) } },
  ]
}

/** The roles that every cluster has: made at the start where they are missing. */
export const bootstrap: readonly { readonly kind: Kind; readonly object: Json }[] = [
  {
    kind: clusterroles,
    object: {
      metadata: { name: 'cluster-admin' },
      rules: [
        { apiGroups: ['*'], resources: ['*'], verbs: ['*'] },
        { nonResourceURLs: ['*'], verbs: ['*'] },
      ],
    },
  },
  {
    kind: clusterrolebindings,
    object: {
      metadata: { name: 'cluster-admin' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'system:masters' }],
    },
  },
  { kind: clusterroles, object: { metadata: { name: 'system:aggregate-to-view', labels: aggregate('view') }, rules: viewing } },
  { kind: clusterroles, object: { metadata: { name: 'system:aggregate-to-edit', labels: aggregate('edit') }, rules: editing } },
  { kind: clusterroles, object: { metadata: { name: 'system:aggregate-to-admin', labels: aggregate('admin') }, rules: administering } },
  { kind: clusterroles, object: { metadata: { name: 'view', labels: aggregate('edit') }, aggregationRule: collecting('view') } },
  { kind: clusterroles, object: { metadata: { name: 'edit', labels: aggregate('admin') }, aggregationRule: collecting('edit') } },
  { kind: clusterroles, object: { metadata: { name: 'admin' }, aggregationRule: collecting('admin') } },
  ...everybody('system:public-info-viewer', ['system:authenticated', 'system:unauthenticated'], [{ nonResourceURLs: health, verbs: ['get'] }]),
  ...everybody(
    'system:discovery',
    ['system:authenticated'],
    [{ nonResourceURLs: ['/api', '/api/*', '/apis', '/apis/*', '/healthz', '/livez', '/openapi', '/openapi/*', '/readyz', '/version', '/version/'], verbs: ['get'] }],
  ),
  ...everybody(
    'system:basic-user',
    ['system:authenticated'],
    [
      { apiGroups: ['authorization.k8s.io'], resources: ['selfsubjectaccessreviews', 'selfsubjectrulesreviews'], verbs: ['create'] },
      { apiGroups: ['authentication.k8s.io'], resources: ['selfsubjectreviews'], verbs: ['create'] },
    ],
  ),
].map(({ kind, object }) => ({
  kind,
  object: {
    ...object,
    metadata: {
      ...object['metadata'],
      annotations: { 'rbac.authorization.kubernetes.io/autoupdate': 'true' },
      labels: { 'kubernetes.io/bootstrapping': 'rbac-defaults', ...object['metadata'].labels },
    },
  },
}))
