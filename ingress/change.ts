import type { HostRoutes, RouteTable } from './table.ts'

/** What is other in a table than in the one before it: small where little changed, for it crosses to workers. */
export interface TableChange {
  readonly hosts: readonly (readonly [name: string, routes: HostRoutes | undefined])[]
  readonly wildcards: readonly (readonly [name: string, routes: HostRoutes | undefined])[]
  /** Parts that changed as a whole. */
  readonly parts: Partial<Pick<RouteTable, 'any' | 'fallback' | 'certificates' | 'passthrough'>>
  readonly endpointsGone: readonly string[]
  readonly endpointsNew: readonly string[]
}

/** have, want → what to change. */
export function diffTables(have: RouteTable, want: RouteTable): TableChange {
  const parts: { -readonly [K in keyof TableChange['parts']]: TableChange['parts'][K] } = {}
  if (have.any !== want.any) parts.any = want.any
  if (have.fallback !== want.fallback) parts.fallback = want.fallback
  if (have.certificates !== want.certificates) parts.certificates = want.certificates
  if (have.passthrough !== want.passthrough) parts.passthrough = want.passthrough
  const same = have.endpoints === want.endpoints
  return {
    hosts: diffHosts(have.hosts, want.hosts),
    wildcards: diffHosts(have.wildcards, want.wildcards),
    parts,
    endpointsGone: same ? [] : [...have.endpoints].filter((e) => !want.endpoints.has(e)),
    endpointsNew: same ? [] : [...want.endpoints].filter((e) => !have.endpoints.has(e)),
  }
}

function diffHosts(have: ReadonlyMap<string, HostRoutes>, want: ReadonlyMap<string, HostRoutes>): [string, HostRoutes | undefined][] {
  if (have === want) return []
  const out: [string, HostRoutes | undefined][] = []
  for (const [name, routes] of want) if (have.get(name) !== routes) out.push([name, routes])
  for (const name of have.keys()) if (!want.has(name)) out.push([name, undefined])
  return out
}

/** The table with the change made; what did not change keeps its identity. */
export function applyChange(table: RouteTable, change: TableChange): RouteTable {
  let { endpoints } = table
  if (change.endpointsGone.length > 0 || change.endpointsNew.length > 0) {
    const next = new Set(endpoints)
    for (const e of change.endpointsGone) next.delete(e)
    for (const e of change.endpointsNew) next.add(e)
    endpoints = next
  }
  return { ...table, ...change.parts, hosts: changed(table.hosts, change.hosts), wildcards: changed(table.wildcards, change.wildcards), endpoints }
}

function changed(map: ReadonlyMap<string, HostRoutes>, list: TableChange['hosts']): ReadonlyMap<string, HostRoutes> {
  if (list.length === 0) return map
  const out = new Map(map)
  for (const [name, routes] of list) {
    if (routes === undefined) out.delete(name)
    else out.set(name, routes)
  }
  return out
}
