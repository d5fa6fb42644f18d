import { age, kind, nameColumn, number, text } from './kind.ts'
import { types } from './schema.ts'
import { containerCells, selectorImmutable, templateDefaults, validateCounts, validateWorkload } from './workload.ts'

types(
  'apps.v1',
  `
ReplicaSet
  metadata 1 ObjectMeta
  spec 2 ReplicaSetSpec
  status 3 ReplicaSetStatus

ReplicaSetSpec
  replicas 1 *int32
  minReadySeconds 4 int32
  selector! 2 *LabelSelector required
  template 3 PodTemplateSpec

ReplicaSetStatus
  replicas! 1 int32 required
  fullyLabeledReplicas 2 int32
  readyReplicas 4 int32
  availableReplicas 5 int32
  observedGeneration 3 int64
  conditions 6 []ReplicaSetCondition merge=type map=type

ReplicaSetCondition
  type! 1 string required
  status! 2 string required
  lastTransitionTime 3 Time
  reason 4 string
  message 5 string
`,
)

/** Keeps a number of equal Pods. */
export const replicasets = kind({
  group: 'apps',
  kind: 'ReplicaSet',
  plural: 'replicasets',
  namespaced: true,
  shortNames: ['rs'],
  categories: ['all'],
  description: 'Keeps a number of equal Pods running.',
  status: true,
  scale: true,
  generation: true,
  immutableLast: true,
  selectable: { 'status.replicas': (o) => String(o['status']?.replicas ?? 0) },
  defaults: templateDefaults,
  prepareCreate(o) {
    o['status'] = { replicas: 0 }
  },
  validate: (o, errors) => validateWorkload(o, 'replicaset', errors),
  validateUpdate: selectorImmutable,
  validateStatus: (now, _before, errors) => validateCounts(now['status'], ['replicas', 'fullyLabeledReplicas', 'readyReplicas', 'availableReplicas', 'observedGeneration'], errors),
  columns: [nameColumn, number('Desired'), number('Current'), number('Ready'), text('Age'), text('Containers', true), text('Images', true), text('Selector', true)],
  cells: (o, now) => [o['metadata'].name, o['spec'].replicas ?? 0, o['status']?.replicas ?? 0, o['status']?.readyReplicas ?? 0, age(o, now), ...containerCells(o)],
})
