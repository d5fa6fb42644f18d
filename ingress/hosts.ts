/** Routes by host, in shards: a change copies the shard it falls into, not ten thousand names. Plain data, for it crosses to workers. */
export interface Hosts<T> {
  readonly shards: readonly ReadonlyMap<string, T>[]
  readonly size: number
}

/** A host and its routes; undefined: it has none any more. */
export type HostChange<T> = readonly [name: string, routes: T | undefined]

const count = 128

export const noHosts: Hosts<never> = { shards: Array.from({ length: count }, () => new Map<string, never>()), size: 0 }

function shardOf(name: string): number {
  let h = name.length
  for (let i = 0; i < name.length; i++) h = (Math.imul(h, 31) + name.charCodeAt(i)) | 0
  return (h ^ (h >>> 7)) & (count - 1)
}

/** The routes of exactly this name. */
export function findHost<T>(hosts: Hosts<T>, name: string): T | undefined {
  return name === '' ? undefined : hosts.shards[shardOf(name)]!.get(name)
}

/** The same with these changes; shards that none of them falls into keep their identity. */
export function withHosts<T>(hosts: Hosts<T>, changes: readonly HostChange<T>[]): Hosts<T> {
  if (changes.length === 0) return hosts
  const shards = [...hosts.shards] as Map<string, T>[]
  const mine = new Set<number>()
  let { size } = hosts
  for (const [name, routes] of changes) {
    const i = shardOf(name)
    if (!mine.has(i)) {
      mine.add(i)
      shards[i] = new Map(shards[i])
    }
    const shard = shards[i]!
    const before = shard.size
    if (routes === undefined) shard.delete(name)
    else shard.set(name, routes)
    size += shard.size - before
  }
  return { shards, size }
}

/** have, want → what to change. */
export function diffHosts<T>(have: Hosts<T>, want: Hosts<T>): readonly HostChange<T>[] {
  const out: HostChange<T>[] = []
  for (let i = 0; i < count; i++) {
    const [a, b] = [have.shards[i]!, want.shards[i]!]
    if (a === b) continue
    for (const [name, routes] of b) if (a.get(name) !== routes) out.push([name, routes])
    for (const name of a.keys()) if (!b.has(name)) out.push([name, undefined])
  }
  return out
}
