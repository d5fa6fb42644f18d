import type { Ip } from '../../lib/ip.ts'
import { SCHEDULER_PORT, type Destination, type VirtualAt, type VirtualServer } from '../../linux/netlink/ipvs.ts'
import type { Endpoint, Front } from '../table.ts'

/** A virtual server and where it sends connections. */
export interface Wanted {
  readonly server: VirtualServer
  readonly to: readonly Endpoint[]
  /** Address to bind, if it is not the node's own. */
  readonly binds: Ip | undefined
}

/** What the kernel balances by; weights are all one, so the weighted ones differ in nothing but their handling of draining. */
export const schedulers = ['rr', 'wrr', 'lc', 'wlc', 'lblc', 'lblcr', 'sh', 'dh', 'sed', 'nq', 'mh', 'fo', 'ovf', 'twos'] as const

/** The virtual servers of a front: by address for its first list of endpoints, by mark for a second one, which some senders get. */
export function serversOf(
  front: Front,
  around: { readonly nodeAddresses: readonly Ip[]; readonly own: ReadonlySet<Ip>; mark(front: Front): number; readonly masqueradeMark: number; scheduler(name: string | undefined): string },
): readonly Wanted[] {
  const lists: (readonly Endpoint[])[] = []
  const marks = new Set<number>()
  for (const { outcome, masquerade } of front.routes) {
    if (outcome.kind !== 'forward' || outcome.to.length === 0) continue
    let index = lists.findIndex((l) => l === outcome.to || (l.length === outcome.to.length && l.every((e, i) => e.address === outcome.to[i]!.address && e.port === outcome.to[i]!.port)))
    if (index < 0) index = lists.push(outcome.to) - 1
    if (index === 1) marks.add((around.mark(front) | (masquerade === 'always' ? around.masqueradeMark : 0)) >>> 0)
  }
  const scheduler = around.scheduler(front.scheduler)
  // Maglev and source hashing look at ports too, or a client behind one address would burden one endpoint.
  const how = { scheduler, persistence: front.affinity ?? 0, schedulerFlags: scheduler === 'mh' ? SCHEDULER_PORT : 0 }
  const at: VirtualAt[] = []
  if (lists.length > 0) {
    if ('nodePort' in front.at) for (const address of around.nodeAddresses) at.push({ protocol: front.protocol, address, port: front.at.nodePort })
    else at.push({ protocol: front.protocol, address: front.at.address, port: front.at.port })
  }
  const binds = 'address' in front.at && !around.own.has(front.at.address) ? front.at.address : undefined
  return [
    ...at.map((a) => ({ server: { ...a, ...how }, to: lists[0]!, binds })),
    // The kernel's memory of clients keeps the port they asked for where a server goes by mark, so there the client's address decides by itself.
    ...[...marks].map((mark) => ({
      server: { mark, family: front.family, ...how, ...(front.affinity === undefined ? {} : { scheduler: around.scheduler('mh'), persistence: 0, schedulerFlags: 0 }) },
      to: lists[1]!,
      binds,
    })),
  ]
}

/** A virtual server's name in our maps. */
export const serverKey = (v: VirtualAt): string => ('mark' in v ? `mark${v.family} ${v.mark}` : `${v.protocol} ${v.address} ${v.port}`)
/** A destination's name among its server's. */
export const destinationKey = (d: Pick<Destination, 'address' | 'port'>): string => `${d.address} ${d.port}`
