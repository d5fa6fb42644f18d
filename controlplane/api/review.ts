import type { User } from '../identity/user.ts'
import type { Json } from '../kinds/decode.ts'

/** A kind that is only ever asked, never kept: `SubjectAccessReview` and its like. */
export interface Review {
  readonly group: string
  readonly plural: string
  readonly kind: string
  readonly namespaced: boolean
  readonly singular: string
  create(user: User, object: Json, namespace: string | undefined): Json | Promise<Json>
}

/** What may be done with kinds that only the server writes. */
export const reading: readonly string[] = ['get', 'list', 'watch']
