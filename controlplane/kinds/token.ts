import { types } from './schema.ts'

types(
  'authentication.v1',
  `
TokenRequest
  metadata 1 ObjectMeta
  spec! 2 TokenRequestSpec required
  status 3 TokenRequestStatus

TokenReview
  metadata 1 ObjectMeta
  spec! 2 TokenReviewSpec required
  status 3 TokenReviewStatus

SelfSubjectReview
  metadata 1 ObjectMeta
  status 2 SelfSubjectReviewStatus

TokenRequestSpec
  audiences! 1 []string atomic required
  expirationSeconds! 4 *int64
  boundObjectRef! 3 *BoundObjectReference

TokenRequestStatus
  token! 1 string required
  expirationTimestamp! 2 Time required

TokenReviewSpec
  token 1 string
  audiences 2 []string atomic

TokenReviewStatus
  authenticated 1 bool
  user 2 UserInfo
  audiences 4 []string atomic
  error 3 string

SelfSubjectReviewStatus
  userInfo 1 UserInfo

BoundObjectReference
  kind 1 string
  apiVersion 2 string
  name 3 string
  uid 4 string

UserInfo
  username 1 string
  uid 2 string
  groups 3 []string atomic
  extra 4 {ExtraValue}
`,
)
