import type { Json } from './decode.ts'
import { GoText, type FieldErrors } from './invalid.ts'
import { age, kind, nameColumn, text, type Column } from './kind.ts'
import { types } from './schema.ts'
import { all, segmentTrouble, subdomainTrouble } from './validate.ts'

types(
  'rbac.v1',
  `
Role
  metadata 1 ObjectMeta
  rules! 2 []PolicyRule atomic

ClusterRole
  metadata 1 ObjectMeta
  rules! 2 []PolicyRule atomic
  aggregationRule 3 *AggregationRule

RoleBinding
  metadata 1 ObjectMeta
  subjects 2 []Subject atomic
  roleRef! 3 RoleRef required

ClusterRoleBinding
  metadata 1 ObjectMeta
  subjects 2 []Subject atomic
  roleRef! 3 RoleRef required

PolicyRule
  verbs! 1 []string atomic required
  apiGroups 2 []string atomic
  resources 3 []string atomic
  resourceNames 4 []string atomic
  nonResourceURLs 5 []string atomic

AggregationRule
  clusterRoleSelectors 1 []LabelSelector atomic

Subject atomic
  kind! 1 string required
  apiGroup 2 string
  name! 3 string required
  namespace 4 string

RoleRef atomic
  apiGroup! 1 string required
  kind! 2 string required
  name! 3 string required
`,
)

const group = 'rbac.authorization.k8s.io'

/** A role without rules says so with null. */
function noRules(o: Json): void {
  if ((o['rules'] ?? []).length === 0) o['rules'] = null
}

function rules(o: Json, namespaced: boolean, errors: FieldErrors): void {
  ;((o['rules'] ?? []) as Json[]).forEach((r, i) => {
    const at = `rules[${i}]`
    const n = (name: string): number => (r[name] ?? []).length
    if (n('verbs') === 0) errors.required(`${at}.verbs`, 'verbs must contain at least one value')
    if (n('nonResourceURLs') > 0) {
      if (namespaced) errors.invalid(`${at}.nonResourceURLs`, r['nonResourceURLs'], 'namespaced rules cannot apply to non-resource URLs')
      if (n('apiGroups') + n('resources') + n('resourceNames') > 0) errors.invalid(`${at}.nonResourceURLs`, r['nonResourceURLs'], 'rules cannot apply to both regular resources and non-resource URLs')
      return
    }
    if (n('apiGroups') === 0) errors.required(`${at}.apiGroups`, 'resource rules must supply at least one api group')
    if (n('resources') === 0) errors.required(`${at}.resources`, 'resource rules must supply at least one resource')
  })
}

function binding(o: Json, namespaced: boolean, errors: FieldErrors): void {
  const { roleRef } = o as { roleRef: Json }
  if (roleRef['apiGroup'] !== group) errors.unsupported('roleRef.apiGroup', roleRef['apiGroup'], [group])
  const kinds = namespaced ? ['Role', 'ClusterRole'] : ['ClusterRole']
  if (!kinds.includes(roleRef['kind'])) errors.unsupported('roleRef.kind', roleRef['kind'], kinds)
  if ((roleRef['name'] ?? '') === '') errors.required('roleRef.name')
  else all(errors, 'roleRef.name', roleRef['name'], segmentTrouble(roleRef['name']))
  ;((o['subjects'] ?? []) as Json[]).forEach((s, i) => {
    const at = `subjects[${i}]`
    if ((s['name'] ?? '') === '') errors.required(`${at}.name`)
    switch (s['kind']) {
      case 'ServiceAccount':
        if ((s['name'] ?? '') !== '') all(errors, `${at}.name`, s['name'], subdomainTrouble(s['name']))
        if ((s['apiGroup'] ?? '') !== '') errors.unsupported(`${at}.apiGroup`, s['apiGroup'], [''])
        if (!namespaced && (s['namespace'] ?? '') === '') errors.required(`${at}.namespace`)
        break
      case 'User':
      case 'Group':
        if (s['apiGroup'] !== group) errors.unsupported(`${at}.apiGroup`, s['apiGroup'] ?? '', [group])
        break
      default:
        errors.unsupported(`${at}.kind`, s['kind'], ['ServiceAccount', 'User', 'Group'])
    }
  })
}

function bindingDefaults(o: Json): void {
  if ((o['roleRef'].apiGroup ?? '') === '') o['roleRef'].apiGroup = group
  for (const s of (o['subjects'] ?? []) as Json[]) if ((s['apiGroup'] ?? '') === '' && (s['kind'] === 'User' || s['kind'] === 'Group')) s['apiGroup'] = group
}

function sameRole(now: Json, before: Json, errors: FieldErrors): void {
  const [a, b] = [now['roleRef'], before['roleRef']] as const
  if (a.apiGroup !== b.apiGroup || a.kind !== b.kind || a.name !== b.name)
    errors.invalid('roleRef', new GoText(`rbac.RoleRef{APIGroup:${JSON.stringify(a.apiGroup)}, Kind:${JSON.stringify(a.kind)}, Name:${JSON.stringify(a.name)}}`), 'cannot change roleRef')
}

const of = (o: Json, kind: string): string =>
  ((o['subjects'] ?? []) as Json[])
    .filter((s) => s['kind'] === kind)
    .map((s) => (kind === 'ServiceAccount' ? `${s['namespace']}/${s['name']}` : s['name']))
    .join(', ')

const roleColumns: readonly Column[] = [nameColumn, { name: 'Created At', type: 'date' }]
const roleCells = (o: Json): unknown[] => [o['metadata'].name, o['metadata'].creationTimestamp]
const bindingColumns: readonly Column[] = [nameColumn, text('Role'), text('Age'), text('Users', true), text('Groups', true), text('ServiceAccounts', true)]
const bindingCells = (o: Json, now: number): unknown[] => [o['metadata'].name, `${o['roleRef'].kind}/${o['roleRef'].name}`, age(o, now), of(o, 'User'), of(o, 'Group'), of(o, 'ServiceAccount')]

/** What may be done in a namespace. */
export const roles = kind({
  group,
  kind: 'Role',
  plural: 'roles',
  namespaced: true,
  nameRule: 'segment',
  description: 'What may be done in a namespace.',
  prepareCreate: noRules,
  prepareUpdate: noRules,
  validate: (o, errors) => rules(o, true, errors),
  columns: roleColumns,
  cells: roleCells,
})

/** What may be done everywhere, or in the namespaces whose bindings name it. */
export const clusterroles = kind({
  group,
  kind: 'ClusterRole',
  plural: 'clusterroles',
  namespaced: false,
  nameRule: 'segment',
  description: 'What may be done everywhere, or in the namespaces whose bindings name it.',
  prepareCreate: noRules,
  prepareUpdate: noRules,
  validate: (o, errors) => rules(o, false, errors),
  columns: roleColumns,
  cells: roleCells,
})

/** Who may do what a role says, in a namespace. */
export const rolebindings = kind({
  group,
  kind: 'RoleBinding',
  plural: 'rolebindings',
  namespaced: true,
  nameRule: 'segment',
  description: 'Who may do what a role says, in a namespace.',
  defaults(o) {
    bindingDefaults(o)
    for (const s of (o['subjects'] ?? []) as Json[]) if (s['kind'] === 'ServiceAccount' && s['namespace'] === undefined) s['namespace'] = o['metadata'].namespace
  },
  validate: (o, errors) => binding(o, true, errors),
  validateUpdate: sameRole,
  columns: bindingColumns,
  cells: bindingCells,
})

/** Who may do what a ClusterRole says, everywhere. */
export const clusterrolebindings = kind({
  group,
  kind: 'ClusterRoleBinding',
  plural: 'clusterrolebindings',
  namespaced: false,
  nameRule: 'segment',
  description: 'Who may do what a ClusterRole says, everywhere.',
  defaults: bindingDefaults,
  validate: (o, errors) => binding(o, false, errors),
  validateUpdate: sameRole,
  columns: bindingColumns,
  cells: bindingCells,
})
