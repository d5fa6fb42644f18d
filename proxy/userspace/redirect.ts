import type { Ip, IpFamily } from '../../lib/ip.ts'
import type { Backend } from '../backend.ts'
import { create, type NftablesOptions } from '../nftables/backend.ts'
import type { Endpoint, Front, Outcome, ServiceTable } from '../table.ts'
import type { FrontPlan, Verdict } from './plan.ts'

/**
 * Addresses the listeners have, on the loopback device of this node: a redirect to 127.0.0.1 works for the node's own connections alone, and one
 * to "the address of the device a packet came in by" drops it when that device has none, as veths of pods usually do not.
 */
export const listenAddress: Readonly<Record<IpFamily, string>> = { 4: '169.254.83.1', 6: 'fd53:5943::1' }

/** Name of our table; the mode nftables has another, so that one can be removed while the other works. */
export const tableName = 'switchyard-userspace'

/** What leads packets to the listeners: the rules of the mode nftables, with a listener in place of a front's endpoints. */
export const createRules = (options: Pick<NftablesOptions, 'kernel' | 'log'>): Backend => create({ ...options, table: tableName })

/** Tables whose endpoints are our own listeners. A front that did not change, nor its listeners' ports, keeps its identity. */
export class Redirected {
  #known = new Map<string, { readonly plan: FrontPlan; readonly ports: string; readonly front: Front }>()

  table({ node }: ServiceTable, fronts: ReadonlyMap<string, FrontPlan>, ports: ReadonlyMap<string, number>): ServiceTable {
    const before = this.#known
    this.#known = new Map()
    const out = new Map<string, Front>()
    for (const [key, plan] of fronts) {
      const at = plan.listeners.map((l) => ports.get(l.key) ?? 0).join(' ')
      const old = before.get(key)
      const front = old?.plan === plan && old.ports === at ? old.front : redirect(plan, ports)
      this.#known.set(key, { plan, ports: at, front })
      out.set(key, front)
    }
    return { fronts: out, node }
  }
}

function redirect({ front, lines }: FrontPlan, ports: ReadonlyMap<string, number>): Front {
  // Nothing is masqueraded: packets stay on this node. Whom a client stays with the listener knows.
  const routes = lines.map(({ from, verdict }) => ({ from, outcome: outcomeOf(verdict, front.family, ports), masquerade: 'hairpin only' }) as const)
  const first = routes[0]
  const alike = first !== undefined && routes.at(-1)!.from === 'anyone' && routes.every((r) => same(r.outcome, first.outcome))
  return { ...front, affinity: undefined, routes: alike ? [{ ...first, from: 'anyone' }] : routes }
}

function outcomeOf(verdict: Verdict, family: IpFamily, ports: ReadonlyMap<string, number>): Outcome {
  if (typeof verdict === 'string') return { kind: verdict }
  const port = ports.get(verdict.listener)
  // One that could not be opened.
  if (port === undefined) return { kind: 'reject' }
  const to: Endpoint = { address: listenAddress[family] as Ip, port, local: true }
  return { kind: 'forward', to: [to] }
}

function same(a: Outcome, b: Outcome): boolean {
  return a.kind === b.kind && (a.kind !== 'forward' || b.kind !== 'forward' || a.to[0]?.port === b.to[0]?.port)
}
