import type { Ingress } from '../kube/objects.ts'
import { normalise } from './http1/target.ts'
import { regexOf } from './match.ts'
import type { Canary } from './settings.ts'
import { routeOrder, type HostRoutes, type Route } from './table.ts'

/** Something that will not be as its author thought. */
export interface Problem {
  readonly ingress: Ingress
  readonly reason: string
  readonly message: string
}

/** One host's rules of one Ingress. */
export interface PieceRule {
  readonly host: string
  /** Of a class taken over from ingress-nginx; `regex`: its annotations make all paths of the host regular expressions. */
  readonly nginx: 'plain' | 'regex' | undefined
  readonly canary: Canary | undefined
  readonly routes: readonly Route[]
}

/** One host's routes out of the rules of several Ingresses, oldest first. */
export function merge(host: string, parts: readonly PieceRule[], owners: readonly Ingress[], fallback: Route | undefined, problems: Problem[]): HostRoutes {
  const taken = new Map<string, Route>()
  // A host that only an alias names yields to any rule that has it, without a word.
  for (const alias of [false, true]) {
    parts.forEach((part, i) => {
      if (part.canary !== undefined) return
      for (const route of part.routes) {
        if ((route.declared !== undefined) !== alias) continue
        const key = `${route.kind} ${route.path}`
        const first = taken.get(key)
        if (first === undefined) taken.set(key, route)
        else if (!alias && (first.owner !== route.owner || first.upstream !== route.upstream)) {
          problems.push({
            ingress: owners[i]!,
            reason: 'Conflict',
            message: `${host === '' ? 'any host' : host}${route.path} is already served for ${first.owner === route.owner ? 'an earlier rule' : `the older Ingress ${first.owner}`}`,
          })
        }
      }
    })
  }
  const had = new Set<string>()
  parts.forEach((part, i) => {
    if (part.canary === undefined) return
    for (const route of part.routes) {
      const key = `${route.kind} ${route.path}`
      const main = taken.get(key)
      if (main === undefined) problems.push({ ingress: owners[i]!, reason: 'CanaryAlone', message: `${host}${route.path}: no other Ingress has this host and path, a canary alone gets nothing` })
      else if (had.has(key)) problems.push({ ingress: owners[i]!, reason: 'Conflict', message: `${host}${route.path} has a canary already` })
      else {
        had.add(key)
        taken.set(key, withCanary(main, route, part.canary))
      }
    }
  })
  return { host, routes: [...taken.values()].sort((a, b) => Number(b.policies[0]?.use === 'slash') - Number(a.policies[0]?.use === 'slash') || routeOrder(a, b)), fallback }
}

const regexes = new WeakMap<Route, Route | null>()

/** The route as ingress-nginx makes it where another Ingress has regular expressions; undefined if its path is none. */
export function asRegex(route: Route): Route | undefined {
  let made = regexes.get(route)
  if (made === undefined) {
    const path = route.policies[0]?.use === 'slash' ? undefined : pathOf(route.path, true)
    regexes.set(route, (made = path === undefined ? null : { ...route, path, kind: 'regex' }))
  }
  return made ?? undefined
}

/** ingress-nginx answers `/my-path` with a redirect to `/my-path/` where only the latter has a rule. */
export function slashes(routes: readonly Route[]): Route[] {
  return routes.flatMap((r) => {
    const bare = r.path.slice(0, -1)
    if (!r.path.endsWith('/') || bare === '' || routes.some((o) => o.path === bare)) return []
    return [{ ...r, path: bare, kind: 'exact', policies: [{ use: 'slash' }] } satisfies Route]
  })
}

const canaries = new WeakMap<Route, { readonly canary: Route; readonly made: Route }>()

/** The main route with the step that sends a share elsewhere; the same for the same two. */
function withCanary(main: Route, canary: Route, how: Canary): Route {
  const before = canaries.get(main)
  if (before?.canary === canary) return before.made
  // It is decided before affinity and what else looks at the endpoints.
  const at = main.policies.findIndex((p) => p.use === 'affinity' || p.use === 'upstream' || p.use === 'rewrite')
  const policy = { use: 'canary', ...how, upstream: canary.upstream, bound: main.policies.find((p) => p.use === 'affinity') }
  const made: Route = { ...main, policies: at < 0 ? [...main.policies, policy] : [...main.policies.slice(0, at), policy, ...main.policies.slice(at)] }
  canaries.set(main, { canary, made })
  return made
}

const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const hostPattern = new RegExp(`^(?:\\*\\.)?${label}(?:\\.${label})*$`)

/** Whether a rule may have this host. */
export function validHost(host: string): boolean {
  return host.length <= 253 && hostPattern.test(host) && !/^\d+(\.\d+){3}$/.test(host)
}

/** A rule's path as requests are matched with it; undefined for one that nobody could ask for. */
export function pathOf(path: string, regex: boolean): string | undefined {
  if (!path.startsWith('/') || path.length > 4096) return undefined
  for (let i = 0; i < path.length; i++) {
    const c = path.charCodeAt(i)
    if (c <= 32 || c >= 127) return undefined
  }
  if (regex) {
    try {
      regexOf(path)
      return path
    } catch {
      return undefined
    }
  }
  if (/[?#\\]/.test(path)) return undefined
  return normalise(path)
}
