import type { Endpoint, Front, Protocol, Refused, Seconds, ServiceTable } from '../table.ts'

/** A socket to open: connections that reach it go to these endpoints. */
export interface ListenerPlan {
  readonly key: string
  readonly protocol: 'TCP' | 'UDP'
  readonly family: 4 | 6
  readonly to: readonly Endpoint[]
  readonly affinity: Seconds | undefined
}

/** Where the kernel sends a packet: to a listener, to a port where nobody listens (so that it is refused), or nowhere. */
export type Verdict = { readonly listener: string } | 'reject' | 'drop'

/** What happens to packets to one front: by who sent them. */
export interface FrontPlan {
  readonly front: Front
  readonly listeners: readonly ListenerPlan[]
  /** By sender, in order. */
  readonly lines: readonly { readonly from: 'pods here' | 'this node' | 'anyone'; readonly verdict: Verdict }[]
}

/** Everything the backend should have, of one table. */
export interface Plan {
  readonly fronts: ReadonlyMap<string, FrontPlan>
  readonly refused: readonly Refused[]
}

const known = new WeakMap<Front, FrontPlan>()

/** What to open and where to send, for `table`. A front that did not change gives the same plan as before. */
export function plan(table: ServiceTable): Plan {
  const fronts = new Map<string, FrontPlan>()
  const refused: Refused[] = []
  for (const [key, front] of table.fronts) {
    if (front.protocol === 'SCTP') {
      refused.push({ front: key, object: `Service ${front.port}`, reason: 'the userspace mode does not forward SCTP' })
      continue
    }
    let p = known.get(front)
    if (p === undefined) known.set(front, (p = planFront(key, front, front.protocol)))
    fronts.set(key, p)
  }
  return { fronts, refused }
}

function planFront(key: string, front: Front, protocol: Exclude<Protocol, 'SCTP'>): FrontPlan {
  const listeners = new Map<string, ListenerPlan>()
  const lines = front.routes.map(({ from, outcome }) => {
    if (outcome.kind !== 'forward') return { from, verdict: outcome.kind }
    if (outcome.to.length === 0) return { from, verdict: 'reject' as const }
    // Lines with the same endpoints share a socket.
    const same = [...listeners.values()].find((l) => sameEndpoints(l.to, outcome.to))
    const name = same?.key ?? `${key}#${listeners.size}`
    listeners.set(name, { key: name, protocol, family: front.family, to: outcome.to, affinity: front.affinity })
    return { from, verdict: { listener: name } }
  })
  return { front, listeners: [...listeners.values()], lines }
}

function sameEndpoints(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  return a === b || (a.length === b.length && a.every((e, i) => e.address === b[i]!.address && e.port === b[i]!.port))
}
