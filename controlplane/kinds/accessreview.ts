import { types } from './schema.ts'

types(
  'authorization.v1',
  `
SubjectAccessReview
  metadata 1 ObjectMeta
  spec! 2 SubjectAccessReviewSpec required
  status 3 SubjectAccessReviewStatus

SelfSubjectAccessReview
  metadata 1 ObjectMeta
  spec! 2 SelfSubjectAccessReviewSpec required
  status 3 SubjectAccessReviewStatus

LocalSubjectAccessReview
  metadata 1 ObjectMeta
  spec! 2 SubjectAccessReviewSpec required
  status 3 SubjectAccessReviewStatus

SelfSubjectRulesReview
  metadata 1 ObjectMeta
  spec! 2 SelfSubjectRulesReviewSpec required
  status 3 SubjectRulesReviewStatus

SubjectAccessReviewSpec
  resourceAttributes 1 *ResourceAttributes
  nonResourceAttributes 2 *NonResourceAttributes
  user 3 string
  groups 4 []string atomic
  extra 5 {ExtraValue}
  uid 6 string

SubjectAccessReviewStatus
  allowed! 1 bool required
  denied 4 bool
  reason 2 string
  evaluationError 3 string

SelfSubjectAccessReviewSpec
  resourceAttributes 1 *ResourceAttributes
  nonResourceAttributes 2 *NonResourceAttributes

SelfSubjectRulesReviewSpec
  namespace 1 string

SubjectRulesReviewStatus
  resourceRules! 1 []ResourceRule atomic required
  nonResourceRules! 2 []NonResourceRule atomic required
  incomplete! 3 bool required
  evaluationError 4 string

ResourceAttributes
  namespace 1 string
  verb 2 string
  group 3 string
  version 4 string
  resource 5 string
  subresource 6 string
  name 7 string
  fieldSelector 8 *FieldSelectorAttributes
  labelSelector 9 *LabelSelectorAttributes

NonResourceAttributes
  path 1 string
  verb 2 string

ResourceRule
  verbs! 1 []string atomic required
  apiGroups 2 []string atomic
  resources 3 []string atomic
  resourceNames 4 []string atomic

NonResourceRule
  verbs! 1 []string atomic required
  nonResourceURLs 2 []string atomic

FieldSelectorAttributes
  rawSelector 1 string
  requirements 2 []FieldSelectorRequirement atomic

LabelSelectorAttributes
  rawSelector 1 string
  requirements 2 []LabelSelectorRequirement atomic
`,
)
