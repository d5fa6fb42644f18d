import { types } from './schema.ts'
import { age, kind, nameColumn, text } from './kind.ts'

types(
  'core.v1',
  `
Namespace
  metadata 1 ObjectMeta
  spec 2 NamespaceSpec
  status 3 NamespaceStatus

NamespaceSpec
  finalizers 1 []string atomic

NamespaceStatus
  phase 1 string
  conditions 2 []NamespaceCondition merge=type map=type

NamespaceCondition
  type! 1 string required
  status! 2 string required
  lastTransitionTime 4 Time
  reason 5 string
  message 6 string
`,
)

/** A scope for names. */
export const namespaces = kind({
  kind: 'Namespace',
  plural: 'namespaces',
  collection: false,
  namespaced: false,
  shortNames: ['ns'],
  description: 'A scope for the names of other objects; deleting it deletes everything in it.',
  status: true,
  subresources: [{ name: 'finalize', verbs: ['update'], kind: 'Namespace' }],
  nameRule: 'label',
  returnsDeleted: true,
  selectable: { 'status.phase': (o) => o['status']?.phase ?? '', name: (o) => o['metadata'].name },
  selectorErrors: 'not supported',
  defaults(o) {
    o['metadata'].labels = { ...o['metadata'].labels, 'kubernetes.io/metadata.name': o['metadata'].name ?? '' }
    if (o['metadata'].name === undefined) delete o['metadata'].labels['kubernetes.io/metadata.name']
  },
  prepareCreate(o) {
    o['status'] = { phase: 'Active' }
    const finalizers: string[] = o['spec'].finalizers ?? []
    if (!finalizers.includes('kubernetes')) o['spec'].finalizers = [...finalizers, 'kubernetes']
  },
  prepareUpdate(now, before) {
    now['spec'] = before['spec']
    now['status'] = before['status']
  },
  validateStatus(now, _before, errors) {
    const deleting = now['metadata'].deletionTimestamp !== undefined
    if (!deleting && now['status'].phase !== 'Active') errors.invalid('status.Phase', now['status'].phase ?? '', "may only be 'Active' if `deletionTimestamp` is empty")
    if (deleting && now['status'].phase !== 'Terminating') errors.invalid('status.Phase', now['status'].phase ?? '', "may only be 'Terminating' if `deletionTimestamp` is not empty")
  },
  columns: [nameColumn, text('Status'), text('Age')],
  cells: (o, now) => [o['metadata'].name, o['status']?.phase ?? '', age(o, now)],
})
