import { createHash } from 'node:crypto'
import { contains, familyOf, network, type Cidr, type IpFamily } from '../../lib/ip.ts'
import type { LocalDetector, NodeFacts } from '../table.ts'
import type { FrontPlan, Plan, Verdict } from './plan.ts'

/** Name of our table; other modes have their own, so that one can be removed while another works. */
export const tableName = 'switchyard-userspace'

/**
 * Addresses the listeners have, on the loopback device of this node: a redirect to 127.0.0.1 works for the node's own connections alone, and one
 * to "the address of the device a packet came in by" drops it when that device has none, as veths of pods usually do not.
 */
export const listenAddress: Readonly<Record<IpFamily, string>> = { 4: '169.254.83.1', 6: 'fd53:5943::1' }

/** A port of `listenAddress` where nobody listens, so the kernel itself refuses: tcpmux, below the range of ports given out. */
const closedPort = 1

/** The contents of the kernel's table: elements of its maps and sets, and one chain for each front that asks who sends. */
export interface Rules {
  /** Map or set → element → value (empty for sets). */
  readonly elements: ReadonlyMap<string, ReadonlyMap<string, string>>
  readonly chains: ReadonlyMap<string, readonly string[]>
}

/** The rules for `plan`, with the listeners at these ports. */
export function render(plan: Plan, node: NodeFacts, ports: ReadonlyMap<string, number>): Rules {
  const elements = new Map<string, Map<string, string>>(sets.map(([name]) => [name, new Map()]))
  const chains = new Map<string, string[]>()
  for (const [key, f] of plan.fronts) {
    const { front } = f
    const protocol = front.protocol.toLowerCase()
    const kind = 'nodePort' in front.at ? 'nodeports' : 'services'
    const element = 'nodePort' in front.at ? `${protocol} . ${front.at.nodePort}` : `${front.at.address} . ${protocol} . ${front.at.port}`
    if (f.verdict !== undefined && f.verdict !== 'drop') {
      elements.get(`${kind}${front.family}`)!.set(element, target(f.verdict, front.family, ports))
    } else {
      const chain = `front-${createHash('sha256').update(key).digest('hex').slice(0, 16)}`
      chains.set(chain, lines(f, node, ports))
      elements.get(`asking-${kind}${front.family}`)!.set(element, `jump ${chain}`)
    }
  }
  for (const ip of node.clusterIps) elements.get(`ips${familyOf(ip)}`)!.set(ip, '')
  for (const range of node.serviceCidrs) elements.get(`ranges${familyOf(range)}`)!.set(range, '')
  if (node.nodePortAddresses !== 'all') for (const ip of node.nodePortAddresses) elements.get(`addresses${familyOf(ip)}`)!.set(ip, '')
  return { elements, chains }
}

/** The rules of a front that are not the same for everybody. */
function lines(f: FrontPlan, node: NodeFacts, ports: ReadonlyMap<string, number>): string[] {
  const family = f.front.family
  const ip = family === 4 ? 'ip' : 'ip6'
  const out: string[] = []
  if (f.front.sources !== 'any') {
    const inside = f.front.sources.filter((c) => familyOf(c) === family)
    out.push(inside.length === 0 ? 'drop' : `${ip} saddr != { ${withoutOverlaps(inside).join(', ')} } drop`)
  }
  for (const { from, verdict } of f.lines) {
    const does = verdict === 'drop' ? 'drop' : `dnat ${ip} to ${at(verdict, family, ports)}`
    // A verdict that holds for a protocol only: dnat with a port wants it said.
    const protocol = `meta l4proto ${f.front.protocol.toLowerCase()}`
    for (const match of from === 'anyone' ? [''] : from === 'this node' ? ['fib saddr type local '] : podsHere(node.localPods, family)) out.push(`${match}${protocol} ${does}`)
  }
  return out
}

function podsHere(detector: LocalDetector, family: IpFamily): string[] {
  switch (detector.kind) {
    case 'cidr': {
      const own = detector.cidrs.filter((c) => familyOf(c) === family)
      return own.length === 0 ? [] : [`${family === 4 ? 'ip' : 'ip6'} saddr { ${withoutOverlaps(own).join(', ')} } `]
    }
    case 'interface':
      return [`iifname "${detector.name}" `]
    case 'interfacePrefix':
      return [`iifname "${detector.prefix}*" `]
    case 'none':
      return []
  }
}

/** nft refuses a set of intervals that lie in one another. */
function withoutOverlaps(cidrs: readonly Cidr[]): readonly Cidr[] {
  return [...new Set(cidrs)].filter((c, _i, all) => !all.some((other) => other !== c && Number(other.split('/')[1]) < Number(c.split('/')[1]) && contains(other, network(c)!.bytes)))
}

const target = (v: Verdict, family: IpFamily, ports: ReadonlyMap<string, number>): string => `${listenAddress[family]} . ${port(v, ports)}`
const at = (v: Verdict, family: IpFamily, ports: ReadonlyMap<string, number>): string => `${family === 4 ? listenAddress[4] : `[${listenAddress[6]}]`}:${port(v, ports)}`
const port = (v: Verdict, ports: ReadonlyMap<string, number>): number => (typeof v === 'string' ? closedPort : (ports.get(v.listener) ?? closedPort))

/** The maps and sets: name, and how it is declared. */
const sets: readonly (readonly [string, string])[] = ([4, 6] as const).flatMap((f) => {
  const a = f === 4 ? 'ipv4_addr' : 'ipv6_addr'
  return [
    [`services${f}`, `map services${f} { type ${a} . inet_proto . inet_service : ${a} . inet_service; }`],
    [`nodeports${f}`, `map nodeports${f} { type inet_proto . inet_service : ${a} . inet_service; }`],
    [`asking-services${f}`, `map asking-services${f} { type ${a} . inet_proto . inet_service : verdict; }`],
    [`asking-nodeports${f}`, `map asking-nodeports${f} { type inet_proto . inet_service : verdict; }`],
    [`addresses${f}`, `set addresses${f} { type ${a}; }`],
    [`ips${f}`, `set ips${f} { type ${a}; }`],
    [`ranges${f}`, `set ranges${f} { type ${a}; flags interval; auto-merge; }`],
  ] as const
})

/** `nft` text that makes the table whole from nothing, whatever was there before. `all`: NodePorts answer on all addresses but loopback. */
export function whole(rules: Rules, all: boolean): string {
  const own = (f: IpFamily): string => {
    const [ip, loopback] = f === 4 ? ['ip', '127.0.0.0/8'] : ['ip6', '::1']
    const nodePort = all ? `fib daddr type local ${ip} daddr != ${loopback} ${ip} daddr != ${listenAddress[f]}` : `${ip} daddr @addresses${f}`
    return [
      `${ip} daddr . meta l4proto . th dport vmap @asking-services${f}`,
      `dnat ${ip} to ${ip} daddr . meta l4proto . th dport map @services${f}`,
      `${nodePort} meta l4proto . th dport vmap @asking-nodeports${f}`,
      `${nodePort} dnat ${ip} to meta l4proto . th dport map @nodeports${f}`,
      // A port that the Service does not have is refused; an address that no Service has leads nowhere.
      `${ip} daddr @ips${f} meta l4proto { tcp, udp } dnat ${ip} to ${f === 4 ? listenAddress[4] : `[${listenAddress[6]}]`}:${closedPort}`,
      `${ip} daddr @ips${f} return`,
      `${ip} daddr @ranges${f} drop`,
    ]
      .map((l) => `    ${l}\n`)
      .join('')
  }
  return [
    `table inet ${tableName}\ndelete table inet ${tableName}\ntable inet ${tableName} {\n`,
    ...sets.map(([, declared]) => `  ${declared}\n`),
    ...[...rules.chains].map(([name, body]) => `  chain ${name} {\n${body.map((l) => `    ${l}\n`).join('')}  }\n`),
    `  chain fronts {\n${own(4)}${own(6)}  }\n`,
    '  chain prerouting { type nat hook prerouting priority -100; policy accept; jump fronts; }\n',
    '  chain output { type nat hook output priority -100; policy accept; jump fronts; }\n}\n',
    ...[...rules.elements].map(([name, all]) => change('add', name, [...all])),
  ].join('')
}

/** `nft` text that turns `have` into `want`; empty when they are the same. */
export function difference(have: Rules, want: Rules): string {
  const remove: string[] = []
  const add: string[] = []
  const gone = [...have.chains.keys()].filter((name) => !want.chains.has(name))
  const written = [...want.chains].filter(([name, body]) => !same(have.chains.get(name), body))
  for (const [name, wanted] of want.elements) {
    const there = have.elements.get(name)!
    remove.push(
      change(
        'delete',
        name,
        [...there].filter(([e, v]) => wanted.get(e) !== v).map(([e]) => [e, '']),
      ),
    )
    add.push(
      change(
        'add',
        name,
        [...wanted].filter(([e, v]) => there.get(e) !== v),
      ),
    )
  }
  return [
    ...written.map(([name, body]) => `add chain inet ${tableName} ${name}\nflush chain inet ${tableName} ${name}\n${body.map((l) => `add rule inet ${tableName} ${name} ${l}\n`).join('')}`),
    ...remove,
    ...add,
    ...gone.map((name) => `delete chain inet ${tableName} ${name}\n`),
  ].join('')
}

function change(verb: 'add' | 'delete', name: string, elements: readonly (readonly [string, string])[]): string {
  const parts: string[] = []
  // Long lines make nft slow; a few thousand elements each are fine.
  for (let i = 0; i < elements.length; i += 2000) {
    const some = elements.slice(i, i + 2000).map(([e, v]) => (v === '' ? e : `${e} : ${v}`))
    parts.push(`${verb} element inet ${tableName} ${name} { ${some.join(', ')} }\n`)
  }
  return parts.join('')
}

function same(a: readonly string[] | undefined, b: readonly string[]): boolean {
  return a !== undefined && a.length === b.length && a.every((x, i) => x === b[i])
}
