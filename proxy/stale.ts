import { bracketed, type IpFamily } from '../lib/ip.ts'
import { tracked, untrack, type Tracked } from '../linux/conntrack.ts'
import type { Kernel } from '../linux/kernel.ts'
import type { Front, ServiceTable } from './table.ts'

const UDP = 17
/** From so many stale fronts on, one look at everything is cheaper than one look a front. */
const oneByOne = 6

/** Endpoints of a front by `address:port`. */
function endpointsOf(front: Front): ReadonlySet<string> {
  const out = new Set<string>()
  for (const { outcome } of front.routes) if (outcome.kind === 'forward') for (const e of outcome.to) out.add(`${bracketed(e.address)}:${e.port}`)
  return out
}

/**
 * Fronts whose tracked datagrams may go astray: an endpoint has gone, or the first one came (whoever asked before was tracked towards
 * the address itself). Only UDP: a client of TCP or SCTP learns of a dead endpoint and connects again. Without `before` all of them.
 */
export function staleFronts(before: ServiceTable | undefined, now: ServiceTable): readonly Front[] {
  const out: Front[] = []
  for (const [key, front] of now.fronts) {
    if (front.protocol !== 'UDP') continue
    const old = before?.fronts.get(key)
    if (old === front) continue
    if (before === undefined) {
      out.push(front)
      continue
    }
    const [had, has] = [old === undefined ? new Set<string>() : endpointsOf(old), endpointsOf(front)]
    if ((had.size === 0 && has.size > 0) || [...had].some((e) => !has.has(e))) out.push(front)
  }
  for (const [key, front] of before?.fronts ?? []) if (front.protocol === 'UDP' && !now.fronts.has(key) && endpointsOf(front).size > 0) out.push({ ...front, routes: [] })
  return out
}

/** Whether a tracked connection to `front` goes where no endpoint of it is. */
export function isStale(front: Front, entry: Pick<Tracked, 'original' | 'reply'>): boolean {
  const { at } = front
  const fits = 'nodePort' in at ? entry.original.destinationPort === at.nodePort : entry.original.destinationPort === at.port && entry.original.destination === at.address
  if (!fits) return false
  // A NodePort's number may be anybody's source or destination elsewhere: only what we translated, or what was meant for this node and found nobody, is ours to judge.
  const { source, sourcePort } = entry.reply
  if ('nodePort' in at && source === entry.original.destination && sourcePort === entry.original.destinationPort && endpointsOf(front).size === 0) return false
  return !endpointsOf(front).has(`${bracketed(source)}:${sourcePort}`)
}

/** Deletes tracked datagrams that would go on to endpoints that are gone; tells how many. Asks the kernel nothing when none can be. */
export async function deleteStale(kernel: Kernel, before: ServiceTable | undefined, now: ServiceTable, isOwn: (address: string) => boolean): Promise<number> {
  const fronts = staleFronts(before, now)
  if (fronts.length === 0) return 0
  const netlink = kernel.netlink('netfilter')
  try {
    let deleted = 0
    for (const family of [4, 6] as const) {
      const here = fronts.filter((f) => f.family === family)
      if (here.length === 0) continue
      const stale: Tracked[] = []
      for (const { fronts: some, entries } of await look(netlink, family, here)) {
        for (const entry of entries) {
          const front =
            some.get(keyOf(entry.original.destination, entry.original.destinationPort)) ?? (isOwn(entry.original.destination) ? some.get(keyOf('', entry.original.destinationPort)) : undefined)
          if (front !== undefined && isStale(front, entry)) stale.push(entry)
        }
      }
      if (stale.length > 0) deleted += await untrack(netlink, stale)
    }
    return deleted
  } finally {
    netlink.close()
  }
}

const keyOf = (address: string, port: number): string => `${address} ${port}`

async function look(
  netlink: ReturnType<Kernel['netlink']>,
  family: IpFamily,
  fronts: readonly Front[],
): Promise<readonly { readonly fronts: ReadonlyMap<string, Front>; readonly entries: readonly Tracked[] }[]> {
  const byKey = new Map(fronts.map((f) => ['nodePort' in f.at ? keyOf('', f.at.nodePort) : keyOf(f.at.address, f.at.port), f]))
  if (fronts.length > oneByOne) return [{ fronts: byKey, entries: await tracked(netlink, { family, protocol: UDP }) }]
  const out = []
  for (const { at } of fronts)
    out.push({
      fronts: byKey,
      entries: await tracked(netlink, { family, protocol: UDP, ...('nodePort' in at ? { destinationPort: at.nodePort } : { destination: at.address, destinationPort: at.port }) }),
    })
  return out
}
