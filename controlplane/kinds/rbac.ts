import { types } from './schema.ts'

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

