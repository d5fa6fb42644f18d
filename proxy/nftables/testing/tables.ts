import type { Cidr, Ip } from '../../../lib/ip.ts'
import { seeded } from '../../../lib/random.ts'
import { frontKeyOf } from '../../compile.ts'
import type { Endpoint, Front, NodeFacts, Outcome, Route, ServiceTable } from '../../table.ts'

/** Tables one after the other, as `seed` has it: Services come, change and go; what did not change keeps its identity. */
export function* tables(seed: number, families: readonly (4 | 6)[] = [4, 6]): Generator<ServiceTable, never> {
  const random = seeded(seed)
  const below = (n: number): number => Math.floor(random() * n)
  const one = <T>(list: readonly T[]): T => list[below(list.length)]!
  let fronts: ReadonlyMap<string, Front> = new Map()
  let node = facts(new Set())
  for (;;) {
    const next = new Map(fronts)
    const dice = random()
    if (dice < 0.05) next.clear()
    for (let i = below(dice < 0.3 ? 12 : 4); i >= 0; i--) {
      const front = randomFront(random, one(families))
      const key = frontKeyOf(front)
      if (random() < 0.25) next.delete(one([...next.keys(), key]))
      else next.set(key, front)
    }
    if (random() < 0.1) node = { ...facts(node.clusterIps), masqueradeMark: one([0x4000, 0x8000]), nodePortAddresses: one(['all', ['192.168.50.1' as Ip, 'fd00:50::1' as Ip]] as const) }
    const ips = new Set([...next.values()].flatMap((f) => ('address' in f.at && f.at.kind === 'cluster' ? [f.at.address] : [])))
    if (ips.size !== node.clusterIps.size || [...ips].some((ip) => !node.clusterIps.has(ip))) node = { ...node, clusterIps: ips }
    fronts = next
    yield { fronts, node }
  }
}

function facts(clusterIps: ReadonlySet<Ip>): NodeFacts {
  return {
    name: 'here',
    localPods: { kind: 'cidr', cidrs: ['10.180.0.0/16', 'fd00:180::/48'] as unknown as readonly Cidr[] },
    clusterCidrs: [],
    serviceCidrs: ['172.30.0.0/16', 'fd00:30::/112'] as unknown as readonly Cidr[],
    clusterIps,
    nodePortAddresses: 'all',
    masqueradeAll: false,
    masqueradeMark: 0x4000,
  }
}

function randomFront(random: () => number, family: 4 | 6): Front {
  const below = (n: number): number => Math.floor(random() * n)
  const endpoint = (): Endpoint => {
    const i = 1 + below(12)
    return { address: (family === 4 ? `10.180.${below(2)}.${i}` : `fd00:180:0:${below(2)}::${i}`) as Ip, port: 8080 + below(2), local: random() < 0.5 }
  }
  const list = (): Endpoint[] => {
    const found = new Map<string, Endpoint>()
    for (let n = 1 + below(random() < 0.2 ? 20 : 4); n > 0; n--) {
      const e = endpoint()
      found.set(`${e.address} ${e.port}`, e)
    }
    return [...found.values()].sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : a.port - b.port))
  }
  const all = list()
  const cluster: Outcome = random() < 0.1 ? { kind: 'reject' } : { kind: 'forward', to: all }
  const here = all.filter((e) => e.local)
  const local: Outcome = here.length === 0 ? { kind: 'drop' } : { kind: 'forward', to: here }
  const pods: Route = { from: 'pods here', outcome: cluster, masquerade: 'hairpin only' }
  const kind = random()
  const n = 1 + below(20)
  const at: Front['at'] =
    kind < 0.6
      ? { address: (family === 4 ? `172.30.0.${n}` : `fd00:30::${n}`) as Ip, port: 80, kind: 'cluster' }
      : kind < 0.8
        ? { nodePort: 30_000 + n, kind: 'node' }
        : { address: (family === 4 ? `203.0.113.${n}` : `fd00:203::${n}`) as Ip, port: 443, kind: 'loadBalancer' }
  const routes: readonly Route[] =
    cluster.kind === 'reject'
      ? [{ from: 'anyone', outcome: cluster, masquerade: 'hairpin only' }]
      : 'address' in at && at.kind === 'cluster'
        ? [pods, { ...pods, from: 'anyone', masquerade: 'always' }]
        : random() < 0.5
          ? [{ ...pods, from: 'anyone', masquerade: 'always' }]
          : [pods, { ...pods, from: 'this node', masquerade: 'always' }, { from: 'anyone', outcome: local, masquerade: 'hairpin only' }]
  const sources = 'address' in at && at.kind === 'loadBalancer' && random() < 0.3 ? ((family === 4 ? ['198.51.100.0/24', '203.0.113.128/25'] : ['fd00:198::/64']) as unknown as readonly Cidr[]) : 'any'
  return { port: `ns/s${n}:`, protocol: random() < 0.7 ? 'TCP' : 'UDP', family, at, sources, routes, affinity: random() < 0.2 ? 10 * (1 + below(2)) : undefined, scheduler: undefined }
}
