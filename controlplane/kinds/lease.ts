import { types } from './schema.ts'
import { age, kind, nameColumn, text } from './kind.ts'

types(
  'coordination.v1',
  `
Lease
  metadata 1 ObjectMeta
  spec 2 LeaseSpec

LeaseSpec
  holderIdentity 1 *string
  leaseDurationSeconds 2 *int32
  acquireTime 3 *MicroTime
  renewTime 4 *MicroTime
  leaseTransitions 5 *int32
  strategy 6 *string
  preferredHolder 7 *string
`,
)

/** Who holds something, and until when. */
export const leases = kind({
  group: 'coordination.k8s.io',
  kind: 'Lease',
  plural: 'leases',
  namespaced: true,
  description: 'Says who holds something, and when that was last renewed.',
  unconditional: false,
  createOnUpdate: true,
  validate(o, errors) {
    const { leaseDurationSeconds, leaseTransitions } = o['spec']
    if (leaseDurationSeconds !== undefined && leaseDurationSeconds <= 0) errors.invalid('spec.leaseDurationSeconds', leaseDurationSeconds, 'must be greater than 0')
    if (leaseTransitions !== undefined && leaseTransitions < 0) errors.invalid('spec.leaseTransitions', leaseTransitions, 'must be greater than or equal to 0')
  },
  columns: [nameColumn, text('Holder'), text('Age')],
  cells: (o, now) => [o['metadata'].name, o['spec']?.holderIdentity ?? '', age(o, now)],
})
