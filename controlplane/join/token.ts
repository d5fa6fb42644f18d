import type { Tokens } from '../identity/tokens.ts'
import type { User } from '../identity/user.ts'

/** The endpoint: GET shows the authority's certificate to anybody, POST below it, with the node's name behind a slash, makes that node. */
export const joinPath = '/switchyard/v1/join'

const audience = 'switchyard-join'
const subject = 'system:join:'
const group = 'system:joiners'

/** A token with which `node` may join, and nothing else, for `seconds` (an hour). */
export function issueToken(tokens: Tokens, node: string, now: number, seconds = 3600): string {
  const at = Math.floor(now / 1000)
  return tokens.issue({ iss: audience, sub: subject + node, aud: [audience], iat: at, nbf: at, exp: at + seconds })
}

/** Who comes with a token of `issueToken`: a node to be, in no group that may do anything else. */
export function joiner(tokens: Tokens, token: string, now: number): User | undefined {
  const claims = tokens.check(token, now)
  // ServiceAccounts may ask for tokens of any audience; theirs name the account.
  if (claims === undefined || claims.iss !== audience || claims['kubernetes.io'] !== undefined || !claims.aud.includes(audience) || !claims.sub.startsWith(subject)) return undefined
  return { name: claims.sub, groups: [group] }
}

/** Whether `path` is where this node to be, and no other, joins. */
export function isOwnJoin(user: User, path: string): boolean {
  return user.groups.includes(group) && path === `${joinPath}/${user.name.slice(subject.length)}`
}

/** What a token says of itself, not checked: for messages. */
export function unchecked(token: string): { readonly node: string; readonly expires: number } | undefined {
  try {
    const { sub, exp } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { sub?: unknown; exp?: unknown }
    return typeof sub === 'string' && sub.startsWith(subject) && typeof exp === 'number' ? { node: sub.slice(subject.length), expires: exp * 1000 } : undefined
  } catch {
    return undefined
  }
}
