import { bracketed, parseIp } from '../../lib/ip.ts'
import type { Packet, Way } from '../../linux/trace.ts'
import { compile, type Compiled } from '../compile.ts'
import { groups, nodes, optionSets, senderIp, world, type Flow, type OptionsName } from './flows.ts'

/** The first packet of a flow's connection. */
export function packetOf(flow: Flow): Packet {
  const m = /^(tcp|udp|sctp)\/(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(flow.to)
  const destination = parseIp(m?.[2] ?? m?.[3] ?? '')
  if (m === null || destination === undefined) throw new Error(`flow "${flow.name}": expected PROTOCOL/ADDRESS:PORT, got "${flow.to}"`)
  const inside = flow.from === 'here'
  return {
    family: destination.includes(':') ? 6 : 4,
    protocol: m[1] as 'tcp' | 'udp' | 'sctp',
    source: inside && (destination.startsWith('127.') || destination === '::1') ? destination : senderIp(flow.from, flow.to),
    sourcePort: 40_000,
    destination,
    destinationPort: Number(m[4]),
    from: inside ? undefined : flow.from === 'client' ? 'out' : flow.from === 'pod a' || flow.from === 'pod b' ? `pod${flow.from.slice(4)}` : 'peer',
  }
}

/** Every address of the node whose rules are tested. */
export const ownAddresses: readonly string[] = [...world.here.ips, ...world.here.also, '127.0.0.1', '::1']

/** The table of one group of flows. */
export function compileGroup(name: OptionsName): Compiled {
  const g = groups().get(name)!
  return compile({ services: g.services, slices: g.slices, nodes }, optionSets[name])
}

/** How the ways a packet may go differ from what the flow says; undefined if they do not. */
export function disagreement(flow: Flow, ways: readonly Way[]): string | undefined {
  const { arrives } = flow
  const said = ways
    .map((w) => `${(w.probability * 100).toFixed(1)} % ${w.end}${w.end === 'delivered' ? ` to ${bracketed(w.destination)}:${w.destinationPort}${w.masqueraded ? ' masqueraded' : ''}` : ''}`)
    .join(', ')
  if (arrives === 'rejected' || arrives === 'dropped') return ways.every((w) => w.end === arrives) ? undefined : `expected ${arrives}: ${said}`
  if (arrives === 'untouched') return ways.every((w) => w.end === 'delivered' && !w.translated) ? undefined : `expected untouched: ${said}`
  const want = [...arrives].sort()
  const got = ways.map((w) => (w.end === 'delivered' && w.translated ? `${bracketed(w.destination)}:${w.destinationPort}` : w.end)).sort()
  if (want.join(' ') !== got.join(' ')) return `expected ${want.join(' ')}: ${said}`
  // Equal shares, up to the kernel's rounding.
  if (ways.some((w) => Math.abs(w.probability - 1 / want.length) > 1e-6)) return `expected equal shares: ${said}`
  if (flow.masqueraded !== undefined && ways.some((w) => w.masqueraded !== flow.masqueraded)) return `expected ${flow.masqueraded ? '' : 'not '}masqueraded: ${said}`
  return undefined
}

/** The refusals a person reads. */
export const reasons = (c: Compiled): readonly string[] => c.refused.map((r) => `${r.object}: ${r.reason}`)
