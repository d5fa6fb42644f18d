import { types } from './schema.ts'
import { age, kind, nameColumn, text } from './kind.ts'

types(
  'networking.v1',
  `
ServiceCIDR
  metadata 1 ObjectMeta
  spec 2 ServiceCIDRSpec
  status 3 ServiceCIDRStatus

ServiceCIDRSpec
  cidrs 1 []string atomic

ServiceCIDRStatus
  conditions 1 []Condition merge=type map=type
`,
)

/** The ranges of Services' addresses: one object, `kubernetes`, as `--service-cidr` says. */
export const servicecidrs = kind({
  group: 'networking.k8s.io',
  kind: 'ServiceCIDR',
  plural: 'servicecidrs',
  namespaced: false,
  description: 'A range that Services get their addresses from.',
  readOnly: true,
  columns: [nameColumn, text('CIDRs'), text('Age')],
  cells: (o, now) => [o['metadata'].name, (o['spec']?.cidrs ?? []).join(','), age(o, now)],
})
