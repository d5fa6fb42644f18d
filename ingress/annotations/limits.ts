import { contains, ipBytes, network, type Network } from '../../lib/ip.ts'
import type { Step, Tools } from '../http1/exchange.ts'
import type { Feature } from './feature.ts'

interface Limits {
  readonly use: 'limits'
  /** Names the counters: the Ingress. */
  readonly of: string
  /** Requests a second, 0: any. */
  readonly rate: number
  readonly burst: number
  /** The same by the minute. */
  readonly perMinute: number
  readonly minuteBurst: number
  readonly connections: number
  readonly exempt: readonly string[]
  readonly rateStatus: number
  readonly connectionStatus: number
}

/** Clients remembered at one time; the oldest are forgotten first. */
const remembered = 100_000

interface Counters {
  /** Requests above the rate, leaking away, and when that was computed. */
  readonly level: Map<string, { level: number; at: number }>
  readonly minute: Map<string, { level: number; at: number }>
  readonly open: Map<string, number>
}

/** How much one address may ask. Each replica counts by itself, as ingress-nginx does. */
export const limits: Feature = {
  name: 'limits',
  keys: {
    'limit-rps': { help: 'requests a second and address; 503 above' },
    'limit-rpm': { help: 'requests a minute and address; 503 above' },
    'limit-burst-multiplier': { help: 'how many times the rate may come at once', default: '5' },
    'limit-connections': { help: 'requests of an address under way at a time; 503 above' },
    'limit-whitelist': { help: 'networks without limits' },
    'limit-allowlist': { help: 'networks without limits' },
    'limit-rate': { help: 'octets a second of an answer', support: 'refused', note: 'answers are not slowed down' },
    'limit-rate-after': { help: 'octets before limit-rate begins', support: 'refused', note: 'answers are not slowed down' },
  },
  read(a) {
    const rate = a.number('limit-rps') ?? 0
    const perMinute = a.number('limit-rpm') ?? 0
    const connections = a.number('limit-connections') ?? 0
    if (rate === 0 && perMinute === 0 && connections === 0) return undefined
    const times = a.number('limit-burst-multiplier', 1) ?? 5
    const exempt = (a.list('limit-allowlist') ?? a.list('limit-whitelist') ?? [])
      .map((t) => (t.includes('/') ? t : `${t}/${t.includes(':') ? 128 : 32}`))
      .filter((t) => {
        if (network(t) !== undefined) return true
        a.problem('limit-whitelist', `"${t}" is no network`)
        return false
      })
    return {
      use: 'limits',
      of: `${a.namespace}/${a.ingress.metadata.name}`,
      rate,
      burst: rate * times,
      perMinute,
      minuteBurst: perMinute * times,
      connections,
      exempt,
      rateStatus: a.number('limit-req-status-code', 400, 599) ?? 503,
      connectionStatus: a.number('limit-conn-status-code', 400, 599) ?? 503,
    } satisfies Limits
  },
  step(policy: Limits, tools: Tools): Step {
    // Counters belong to the Ingress, not to this table: a change of routes forgives nobody.
    const counters = tools.shared<Counters>(`limits ${policy.of}`, () => ({ level: new Map(), minute: new Map(), open: new Map() }))
    const exempt = policy.exempt.map((t) => network(t) as Network)
    return {
      request(x) {
        if (exempt.length > 0) {
          const bytes = ipBytes(x.client, { lenient: true })
          if (bytes !== undefined && exempt.some((n) => contains(n, bytes))) return undefined
        }
        if (policy.rate > 0 && !pour(counters.level, x.client, x.now, policy.rate / 1000, policy.burst)) return { status: policy.rateStatus, reason: 'limit-rps' }
        if (policy.perMinute > 0 && !pour(counters.minute, x.client, x.now, policy.perMinute / 60_000, policy.minuteBurst)) return { status: policy.rateStatus, reason: 'limit-rpm' }
        if (policy.connections > 0) {
          const { client } = x
          const open = counters.open.get(client) ?? 0
          if (open >= policy.connections) return { status: policy.connectionStatus, reason: 'limit-connections' }
          counters.open.set(client, open + 1)
          x.onEnd(() => {
            const left = (counters.open.get(client) ?? 1) - 1
            if (left <= 0) counters.open.delete(client)
            else counters.open.set(client, left)
          })
        }
        return undefined
      },
    }
  },
}

/** A leaky bucket: true if one more fits above the `burst`, as nginx's limit_req with nodelay. */
function pour(map: Map<string, { level: number; at: number }>, who: string, now: number, perMs: number, burst: number): boolean {
  const b = map.get(who)
  if (b === undefined) {
    if (map.size >= remembered) map.delete(map.keys().next().value!)
    map.set(who, { level: 0, at: now })
    return true
  }
  const level = Math.max(0, b.level - (now - b.at) * perMs + 1)
  if (level > burst) return false
  b.level = level
  b.at = now
  return true
}
