import type { Cidr, Ip, IpFamily } from '../lib/ip.ts'

/** `namespace/name:port`, the port's name empty when it has none. */
export type ServicePortName = string

export type Protocol = 'TCP' | 'UDP' | 'SCTP'
export type Seconds = number

/** Where connections are sent. */
export interface Endpoint {
  readonly address: Ip
  readonly port: number
  /** Runs on this node. */
  readonly local: boolean
}

export type Outcome = { readonly kind: 'forward'; readonly to: readonly Endpoint[] } | { readonly kind: 'reject' } | { readonly kind: 'drop' }

/** One line of a front: what happens to connections of these senders. */
export interface Route {
  readonly from: 'pods here' | 'this node' | 'anyone'
  readonly outcome: Outcome
  readonly masquerade: 'hairpin only' | 'always'
}

/** An address and port that people connect to, with every policy already decided for this node. */
export interface Front {
  readonly port: ServicePortName
  readonly protocol: Protocol
  readonly family: IpFamily
  readonly at: { readonly address: Ip; readonly port: number; readonly kind: 'cluster' | 'external' | 'loadBalancer' } | { readonly nodePort: number; readonly kind: 'node' }
  /** Others are dropped, before translation. */
  readonly sources: readonly Cidr[] | 'any'
  /** The first line that fits the sender decides. */
  readonly routes: readonly Route[]
  readonly affinity: Seconds | undefined
  readonly scheduler: string | undefined
}

/** How a packet's sender is known to be a pod of this node. */
export type LocalDetector =
  | { readonly kind: 'cidr'; readonly cidrs: readonly Cidr[] }
  | { readonly kind: 'interface'; readonly name: string }
  | { readonly kind: 'interfacePrefix'; readonly prefix: string }
  | { readonly kind: 'none' }

/** Everything that should be true on this node, at one instant. Fronts that did not change keep their identity. */
export interface ServiceTable {
  readonly fronts: ReadonlyMap<string, Front>
  readonly node: NodeFacts
}

/** What holds for all fronts of this node. */
export interface NodeFacts {
  readonly name: string
  readonly localPods: LocalDetector
  /** Pods of the whole cluster; nobody else's traffic to ClusterIPs keeps its source. Empty: unknown. */
  readonly clusterCidrs: readonly Cidr[]
  /** Ranges ClusterIPs come from; connections to unallocated ones are dropped. */
  readonly serviceCidrs: readonly Cidr[]
  /** Allocated ClusterIPs, also of Services without endpoints: their other ports are refused. */
  readonly clusterIps: ReadonlySet<Ip>
  /** Local addresses NodePorts answer on; `all`: all but loopback. */
  readonly nodePortAddresses: 'all' | readonly Ip[]
  /** Masquerades every connection. */
  readonly masqueradeAll: boolean
  /** Bit of the packet mark used for masquerading, e.g. 0x4000. */
  readonly masqueradeMark: number
}

/** A front a backend could not serve, and why. */
export interface Refused {
  readonly front: string
  readonly object: string
  readonly reason: string
}
