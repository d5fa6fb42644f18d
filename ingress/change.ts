import { diffHosts, withHosts, type HostChange } from './hosts.ts'
import type { HostRoutes, RouteTable } from './table.ts'

/** What is other in a table than in the one before it: small where little changed, for it crosses to workers. */
export interface TableChange {
  readonly hosts: readonly HostChange<HostRoutes>[]
  readonly wildcards: readonly HostChange<HostRoutes>[]
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

/** The table with the change made; what did not change keeps its identity. */
export function applyChange(table: RouteTable, change: TableChange): RouteTable {
  let { endpoints } = table
  if (change.endpointsGone.length > 0 || change.endpointsNew.length > 0) {
    const next = new Set(endpoints)
    for (const e of change.endpointsGone) next.delete(e)
    for (const e of change.endpointsNew) next.add(e)
    endpoints = next
  }
  return { ...table, ...change.parts, hosts: withHosts(table.hosts, change.hosts), wildcards: withHosts(table.wildcards, change.wildcards), endpoints }
}
