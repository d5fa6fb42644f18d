import type { Alive } from '../identity/authenticate.ts'
import { userOfToken } from '../identity/authenticate.ts'
import type { Authorize } from '../identity/authorize.ts'
import type { Tokens } from '../identity/tokens.ts'
import type { User } from '../identity/user.ts'
import type { Json } from '../kinds/decode.ts'
import { FieldErrors } from '../kinds/invalid.ts'
import type { Review } from './review.ts'
import { badRequest, invalid } from './status.ts'

/** Questions that are answered and not kept: who am I, may I, whose token is this. */
export function reviews(parts: {
  readonly authorize: Authorize
  readonly tokens: Tokens
  readonly alive: Alive
  readonly issuer: string
  readonly rules?: (user: User, namespace: string) => Json
}): Review[] {
  const { authorize, tokens, alive } = parts
  const group = 'authorization.k8s.io'
  const access = (o: Json, user: User): Json => {
    const { resourceAttributes: r, nonResourceAttributes: n } = o['spec']
    const decision =
      r === undefined
        ? authorize(user, n?.verb ?? '', { path: n?.path ?? '' }, undefined, '')
        : authorize(user, r.verb ?? '', { group: r.group ?? '', resource: r.resource ?? '', subresource: r.subresource ?? '' }, r.namespace === '' ? undefined : r.namespace, r.name ?? '')
    return { ...o, metadata: o['metadata'], status: { allowed: decision.allowed, ...(decision.reason === '' ? {} : { reason: decision.reason }) } }
  }
  const check = (o: Json, user: boolean): void => {
    const errors = new FieldErrors()
    const { resourceAttributes: r, nonResourceAttributes: n } = o['spec']
    if (r !== undefined && n !== undefined) errors.invalid('spec.nonResourceAttributes', n, 'cannot be specified in combination with resourceAttributes')
    if (r === undefined && n === undefined) errors.invalid('spec.resourceAttributes', 'null', 'exactly one of nonResourceAttributes or resourceAttributes must be specified')
    if (user && (o['spec'].user ?? '') === '' && (o['spec'].groups ?? []).length === 0) errors.invalid('spec.user', '', 'at least one of user or group must be specified')
    if (errors.causes.length > 0) throw invalid(group, '', '', errors.causes)
  }
  return [
    {
      group: 'authentication.k8s.io',
      plural: 'selfsubjectreviews',
      singular: 'selfsubjectreview',
      kind: 'SelfSubjectReview',
      namespaced: false,
      create: (user, o) => ({ ...o, metadata: { ...o['metadata'], creationTimestamp: `${new Date().toISOString().slice(0, 19)}Z` }, status: { userInfo: info(user) } }),
    },
    {
      group: 'authentication.k8s.io',
      plural: 'tokenreviews',
      singular: 'tokenreview',
      kind: 'TokenReview',
      namespaced: false,
      create: (_user, o) => {
        const token: string = o['spec'].token ?? ''
        if (token === '') throw badRequest('token is required for TokenReview in authentication')
        const user = userOfToken(tokens, alive, token, Date.now())
        const audiences: string[] = o['spec'].audiences ?? []
        if (user === undefined) return { ...o, status: { user: {}, error: 'invalid bearer token' } }
        return { ...o, status: { authenticated: true, user: info(user), audiences: audiences.length === 0 ? [parts.issuer] : audiences } }
      },
    },
    {
      group,
      plural: 'selfsubjectaccessreviews',
      singular: 'selfsubjectaccessreview',
      kind: 'SelfSubjectAccessReview',
      namespaced: false,
      create: (user, o) => {
        check(o, false)
        return access(o, user)
      },
    },
    {
      group,
      plural: 'subjectaccessreviews',
      singular: 'subjectaccessreview',
      kind: 'SubjectAccessReview',
      namespaced: false,
      create: (_user, o) => {
        check(o, true)
        return access(o, asked(o))
      },
    },
    {
      group,
      plural: 'localsubjectaccessreviews',
      singular: 'localsubjectaccessreview',
      kind: 'LocalSubjectAccessReview',
      namespaced: true,
      create: (_user, o, namespace) => {
        check(o, true)
        if ((o['spec'].resourceAttributes?.namespace ?? '') !== namespace)
          throw invalid(group, '', '', [
            {
              reason: 'FieldValueInvalid',
              message: `Invalid value: ${JSON.stringify(o['spec'].resourceAttributes?.namespace ?? '')}: must match metadata.namespace`,
              field: 'spec.resourceAttributes.namespace',
            },
          ])
        return access(o, asked(o))
      },
    },
    {
      group,
      plural: 'selfsubjectrulesreviews',
      singular: 'selfsubjectrulesreview',
      kind: 'SelfSubjectRulesReview',
      namespaced: false,
      create: (user, o) => {
        if ((o['spec'].namespace ?? '') === '') throw badRequest('no namespace on request')
        return { ...o, metadata: { creationTimestamp: null }, spec: {}, status: parts.rules?.(user, o['spec'].namespace) ?? { resourceRules: [], nonResourceRules: [], incomplete: false } }
      },
    },
  ]
}

const asked = (o: Json): User => ({ name: o['spec'].user ?? '', groups: o['spec'].groups ?? [], ...(o['spec'].uid === undefined ? {} : { uid: o['spec'].uid }) })
const info = (user: User): Json => ({
  username: user.name,
  ...(user.uid === undefined ? {} : { uid: user.uid }),
  groups: user.groups,
  ...(user.extra === undefined || Object.keys(user.extra).length === 0 ? {} : { extra: user.extra }),
})
