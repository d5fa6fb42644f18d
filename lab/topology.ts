import { nth, network, type Cidr, type Ip } from '../lib/ip.ts'
import { UsageError } from '../lib/options.ts'

/** One machine of the lab. */
export interface LabNode {
  readonly name: string
  /** On the LAN. */
  readonly address: Ip
  readonly zone: string | undefined
  /** The proxy mode of this node, where it differs from the lab's. */
  readonly mode: string | undefined
}

/** The lab as data: everything that is decided before anything runs. */
export interface Topology {
  readonly name: string
  readonly nodes: readonly LabNode[]
  readonly lan: Cidr
  /** The address of the holder on the LAN: the world outside the cluster. */
  readonly outside: Ip
  readonly serviceRange: string
  readonly podRange: string
  readonly clusterDns: Ip
  readonly clusterDomain: string
  readonly mode: string
  readonly sockets: string
  readonly apiPort: number
}

/** What may be chosen; the rest follows. */
export interface TopologyOptions {
  readonly name?: string
  readonly nodes?: number | readonly { readonly name: string; readonly zone?: string; readonly mode?: string }[]
  readonly mode?: string
  readonly sockets?: string
}

/** Nodes take the addresses from .11 on; private, and inside the range VirtualBox allows, so that the same topology runs in virtual machines. */
const lan = '192.168.56.0/24' as Cidr
const serviceRange = '10.96.0.0/16'
const mostNodes = 200

/** The topology that `options` ask for. */
export function topology(options: TopologyOptions = {}): Topology {
  const name = options.name ?? 'default'
  if (!/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name)) throw new UsageError(`a lab is named by up to 32 small letters, digits and dashes, not "${name}"`)
  const wanted = options.nodes ?? 3
  const list = typeof wanted === 'number' ? Array.from({ length: wanted }, (_, i) => ({ name: `node${i + 1}` })) : wanted
  if (list.length < 1 || list.length > mostNodes || (typeof wanted === 'number' && !Number.isInteger(wanted))) throw new UsageError(`a lab has 1 to ${mostNodes} nodes, not ${typeof wanted === 'number' ? wanted : list.length}`)
  const at = network(lan)!
  return {
    name,
    lan,
    outside: nth(at, 1)!,
    serviceRange,
    podRange: '10.244.0.0/16',
    clusterDns: nth(network(serviceRange)!, 10)!,
    clusterDomain: 'cluster.local',
    mode: options.mode ?? 'iptables',
    sockets: options.sockets ?? 'auto',
    apiPort: 6443,
    nodes: list.map((n: { name: string; zone?: string; mode?: string }, i) => ({ name: n.name, address: nth(at, 11 + i)!, zone: n.zone, mode: n.mode })),
  }
}
