import { findHost } from './hosts.ts'
import { compileRegex, type Regex } from './regex.ts'
import type { Certificate, Certificates, HostRoutes, Route, RouteTable, Upstream } from './table.ts'

/** The routes of `host` (lower case, no port): exact before wildcard before any. */
export function hostRoutes(table: RouteTable, host: string): HostRoutes | undefined {
  const exact = findHost(table.hosts, host)
  if (exact !== undefined) return exact
  if (table.wildcards.size > 0) {
    const dot = host.indexOf('.')
    // The star stands for one whole label.
    const found = dot <= 0 ? undefined : findHost(table.wildcards, host.slice(dot + 1))
    if (found !== undefined) return found
  }
  return table.any
}

/** The route of a request; `path` is normalised. */
export function match(table: RouteTable, host: string, path: string): Route | undefined {
  const found = hostRoutes(table, host)
  return (found === undefined ? undefined : matchPath(found, path)) ?? table.fallback
}

/** The route of `path` among those of one host. */
export function matchPath(found: HostRoutes, path: string): Route | undefined {
  const { routes } = found
  for (let i = 0; i < routes.length; i++) {
    const r = routes[i]!
    if (r.kind === 'exact' ? r.path === path : r.kind === 'prefix' ? prefixes(r.path, path) : regexOf(r.path).test(path)) return r
  }
  return found.fallback
}

/** Whether `path` begins with the elements of `prefix`; a slash at the end of either does not count. */
export function prefixes(prefix: string, path: string): boolean {
  const n = prefix.length
  if (n === 1) return true
  if (prefix.charCodeAt(n - 1) === 47) {
    if (path.length >= n) return path.startsWith(prefix)
    return path.length === n - 1 && prefix.startsWith(path)
  }
  return path.startsWith(prefix) && (path.length === n || path.charCodeAt(n) === 47)
}

const compiled = new Map<string, Regex>()

/** A rule's regular expression as ingress-nginx reads it: from the beginning of the path, in any letter case, what follows is free. */
export function regexOf(path: string): Regex {
  let found = compiled.get(path)
  if (found === undefined) {
    if (compiled.size > 10_000) compiled.clear()
    compiled.set(path, (found = compileRegex(path, { ignoreCase: true })))
  }
  return found
}

/** The certificate shown to a client that asks for `name`. */
export function certificateFor(certificates: Certificates, name: string | undefined): Certificate | undefined {
  if (name !== undefined) {
    const host = name.toLowerCase()
    const exact = certificates.exact.get(host)
    if (exact !== undefined) return exact
    const dot = host.indexOf('.')
    const wild = dot <= 0 ? undefined : certificates.wildcards.get(host.slice(dot + 1))
    if (wild !== undefined) return wild
  }
  return certificates.fallback
}

/** Where TLS for `name` goes unopened, if it does. */
export function passthroughFor({ passthrough }: RouteTable, name: string): Upstream | undefined {
  const host = name.toLowerCase()
  return passthrough.get(host) ?? passthrough.get(`*${host.slice(Math.max(0, host.indexOf('.')))}`)
}

/** Whether clients that ask for `name` are offered HTTP/2. */
export function speaksHttp2({ http1 }: Certificates, name: string | undefined): boolean {
  if (http1 === 'all') return false
  if (http1.size === 0 || name === undefined) return true
  const host = name.toLowerCase()
  return !http1.has(host) && !http1.has(`*${host.slice(Math.max(0, host.indexOf('.')))}`)
}
