import { types } from './schema.ts'

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

