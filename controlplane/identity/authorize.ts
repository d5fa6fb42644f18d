import { fixed, type Grant } from './fixed.ts'
import { isOwnJoin, joinPath } from '../join/token.ts'
import type { User } from './user.ts'

/** What is asked for: a resource of the API, or a path beside it. */
export type Target = { readonly group: string; readonly resource: string; readonly subresource?: string } | { readonly path: string }

/** Whether, and if not, why. */
export interface Decision {
  readonly allowed: boolean
  readonly reason: string
}

/** Asked before every handler. */
export type Authorize = (user: User, verb: string, target: Target, namespace: string | undefined, name: string) => Decision

/** Paths that anybody may read. */
const open: readonly string[] = ['/healthz', '/livez', '/readyz', '/version', joinPath]

/** The decision: `system:masters` everything, the parts their few verbs, others what `more` (RBAC) says. */
export function authorizer(more: Authorize | undefined): Authorize {
  return (user, verb, target, namespace, name) => {
    if (user.groups.includes('system:masters')) return { allowed: true, reason: '' }
    if ('path' in target) {
      if (verb === 'post' && isOwnJoin(user, target.path)) return { allowed: true, reason: '' }
      const decision = more?.(user, verb, target, namespace, name) ?? { allowed: false, reason: '' }
      const health = open.some((p) => target.path === p || (p !== '/version' && p !== joinPath && target.path.startsWith(`${p}/`)))
      return !decision.allowed && verb === 'get' && health ? { allowed: true, reason: '' } : decision
    } else {
      const resource = `${target.resource}${target.subresource === undefined || target.subresource === '' ? '' : `/${target.subresource}`}${target.group === '' ? '' : `.${target.group}`}`
      for (const who of [user.name, ...user.groups]) {
        const grants = Object.hasOwn(fixed, who) ? fixed[who]! : []
        if (grants.some((g) => given(g, user, verb, resource, namespace, name))) return { allowed: true, reason: '' }
      }
    }
    return more?.(user, verb, target, namespace, name) ?? { allowed: false, reason: '' }
  }
}

function given(g: Grant, user: User, verb: string, resource: string, namespace: string | undefined, name: string): boolean {
  if (!g.verbs.includes(verb) || !g.resources.includes(resource)) return false
  if (g.namespace !== undefined && g.namespace !== namespace) return false
  return g.name === undefined || name === (g.name === '$node' ? user.name.replace(/^system:node:/, '') : g.name)
}
