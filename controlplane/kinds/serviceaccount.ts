import { types } from './schema.ts'
import { age, kind, nameColumn, text } from './kind.ts'

types(
  'core.v1',
  `
ServiceAccount
  metadata 1 ObjectMeta
  secrets 2 []ObjectReference merge=name map=name
  imagePullSecrets 3 []LocalObjectReference atomic
  automountServiceAccountToken 4 *bool
`,
)

/** A name for programs. */
export const serviceaccounts = kind({
  kind: 'ServiceAccount',
  plural: 'serviceaccounts',
  namespaced: true,
  shortNames: ['sa'],
  description: 'An identity for the programs in Pods.',
  subresources: [{ name: 'token', verbs: ['create'], kind: 'TokenRequest', group: 'authentication.k8s.io', version: 'v1' }],
  returnsDeleted: true,
  columns: [nameColumn, text('Secrets'), text('Age')],
  cells: (o, now) => [o['metadata'].name, (o['secrets'] ?? []).length, age(o, now)],
})
