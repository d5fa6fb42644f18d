import { types } from './schema.ts'

// What every object carries.
types(
  'io.k8s.apimachinery.pkg.apis.meta.v1',
  `
ObjectMeta
  name 1 string
  generateName 2 string
  namespace 3 string
  selfLink 4 string
  uid 5 string
  resourceVersion 6 string
  generation 7 int64
  creationTimestamp 8 Time
  deletionTimestamp 9 *Time
  deletionGracePeriodSeconds 10 *int64
  labels 11 {string}
  annotations 12 {string}
  ownerReferences 13 []OwnerReference merge=uid map=uid
  finalizers 14 []string merge set
  managedFields 17 []ManagedFieldsEntry atomic

OwnerReference atomic
  apiVersion! 5 string required
  kind! 1 string required
  name! 3 string required
  uid! 4 string required
  controller 6 *bool
  blockOwnerDeletion 7 *bool

ManagedFieldsEntry
  manager 1 string
  operation 2 string
  apiVersion 3 string
  time 4 *Time
  fieldsType 6 string
  fieldsV1 7 *FieldsV1
  subresource 8 string

ListMeta
  selfLink 1 string
  resourceVersion 2 string
  continue 3 string
  remainingItemCount 4 *int64

LabelSelector atomic
  matchLabels 1 {string}
  matchExpressions 2 []LabelSelectorRequirement atomic

LabelSelectorRequirement
  key! 1 string required
  operator! 2 string required
  values 3 []string atomic

FieldSelectorRequirement
  key! 1 string required
  operator! 2 string required
  values 3 []string atomic

Condition
  type! 1 string required
  status! 2 string required
  observedGeneration 3 int64
  lastTransitionTime! 4 Time required
  reason! 5 string required
  message! 6 string required

DeleteOptions
  kind 0 string
  apiVersion 0 string
  gracePeriodSeconds 1 *int64
  preconditions 2 *Preconditions
  orphanDependents 3 *bool
  propagationPolicy 4 *string
  dryRun 5 []string atomic
  ignoreStoreReadErrorWithClusterBreakingPotential 6 *bool

Preconditions
  uid 1 *string
  resourceVersion 2 *string
`,
)
