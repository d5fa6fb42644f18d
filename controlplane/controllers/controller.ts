import type { Client } from '../../kube/client.ts'
import type { Served } from '../../kube/discovery.ts'
import type { Recorder } from '../../kube/events.ts'
import type { Resource } from '../../kube/resources.ts'
import type { Log } from '../../lib/log.ts'
import type { Cluster } from './cluster.ts'
import type { Queue, QueueOptions } from './queue.ts'

/** What the controllers are told from outside. */
export interface ControllerOptions {
  /** Pods' ranges; each node gets a part of each. */
  readonly clusterCIDRs: readonly string[]
  readonly serviceCIDRs: readonly string[]
  /** Prefix length of a node's part; default 24 and 64. */
  readonly nodeCidrMaskSize?: number | undefined
  readonly nodeCidrMaskSizeIPv6?: number | undefined
  /** Where the Service `default/kubernetes` leads. Without an address it is not kept. */
  readonly advertiseAddress?: string | undefined
  readonly advertisePort?: number | undefined
  /** PEM, for the ConfigMap `kube-root-ca.crt` of each namespace. */
  readonly rootCertificate?: string | undefined
  /** Addresses for Services of type LoadBalancer. */
  readonly loadBalancerCIDRs?: readonly string[] | undefined
  /** A node whose Lease does not change for so long is not ready; default 40,000 ms. */
  readonly nodeGrace?: number | undefined
}

/** What a controller finds around it. */
export interface Around {
  readonly client: Client
  readonly cluster: Cluster
  readonly events: Recorder
  readonly log: Log
  readonly signal: AbortSignal
  readonly options: ControllerOptions
  /** Every kind of the API. */
  readonly served: readonly Served[]
  /** A queue that begins once everything is mirrored. */
  queue(name: string, work: (key: string) => Promise<number | void>, how?: Pick<QueueOptions, 'workers'>): Queue
}

/** Keeps some objects as others want them. */
export interface Controller {
  readonly name: string
  /** Who its Events come from, by the names people know. */
  readonly component?: string
  /** Kinds it cannot do without; it is left out where one is not served. Those of the core are always there. */
  readonly needs?: readonly Resource[]
  /** Adds its listeners, in this turn; the queues do the work. */
  start(around: Around): void
}
