import type { Driver, Protocol, Wire } from '../../lib/sockets/seam.ts'
import type { Endpoint, Route, RouteTable } from '../table.ts'
import type { Exchange, Step } from './exchange.ts'
import type { Head } from './head.ts'
import type { Pool, UpstreamConn } from './upstream.ts'

/** How long clients may take, in milliseconds. */
export interface ServerLimits {
  /** From the first octet of a head to its last. */
  readonly headTimeout: number
  /** Between two pieces of a request body. */
  readonly bodyTimeout: number
  /** Between two requests of a connection. */
  readonly idleTimeout: number
  /** A client that takes no octet of its answer. */
  readonly sendTimeout: number
  /** For the client's FIN after ours. */
  readonly lingerTimeout: number
}

/** An address people connect to, and the table that holds there. */
export interface Frontend {
  table: RouteTable
  readonly secure: boolean
}

/** A route with its policies made ready. Counts what happens on it. */
export interface Linked {
  readonly steps: readonly Step[]
  /** Those of them that look at answers. */
  readonly responses: readonly Step[]
  /** Its requests are not logged. */
  readonly silent: boolean
  /** What its requests are counted as, by whoever counts. */
  extra: unknown
  /** What of its log lines is always the same, by whoever writes them. */
  logged: string | undefined
}

/** A request that is over, as logs and counters see it. */
export interface Finished {
  readonly route: Route
  readonly linked: Linked
  readonly method: string
  readonly host: string
  readonly path: string
  readonly query: string
  readonly client: string
  readonly requestId: string
  readonly status: number
  readonly reason: string
  readonly http10: boolean
  readonly tries: number
  /** Key of the endpoint that was asked last. */
  readonly lastEndpoint: string
  readonly userAgent: string
  readonly referer: string
  /** Milliseconds on the driver's clock. */
  readonly now: number
  readonly startedAt: number
  /** Of the endpoint's answer; 0: none came. */
  readonly firstByteAt: number
  /** When the connection to the endpoint was asked for and stood; both 0 where one was kept. */
  readonly connectAt: number
  readonly connectedAt: number
  readonly bytesIn: number
  /** Whatever `ServerOptions.traced` made of it. */
  readonly trace: unknown
  readonly bytesOut: number
}

/** A request that looks for an endpoint. */
export interface Seeking extends Exchange {
  endpoint: Endpoint | undefined
  /** The text that decides the endpoint, where it is hashed. */
  hashText: string | undefined
}

/** A connection of a client, as the server watches over it. */
export interface Served {
  readonly wire: Wire
  readonly busy: boolean
  /** Answered; our FIN is on its way. */
  readonly over: boolean
  /** Just opened, and its first request is probably on its way. */
  readonly fresh: boolean
  sweep(now: number): void
  /** No further requests; ends at once if none is under way. */
  finish(): void
}

/** What a client's connection needs from the server it belongs to. */
export interface Engine {
  readonly driver: Driver
  readonly limits: ServerLimits
  /** Used for every head; nothing in it outlives a call. */
  readonly head: Head
  readonly scratch: Buffer
  readonly clients: Set<Served>
  readonly unrouted: Linked
  readonly trusts: ((peer: string) => boolean) | undefined
  readonly logsAgents: boolean
  readonly draining: boolean
  connections: number
  requests: number
  retries: number
  tunnels: number
  link(route: Route): Linked
  choose(x: Seeking, tried: readonly Pool[]): Pool | undefined
  connection(pool: Pool, method: string, timeout: number): UpstreamConn
  heard(pool: Pool, ms: number): void
  refused(up: UpstreamConn, why: string, heard: boolean): void
  finished(x: Finished): void
  failed(what: string, error: unknown): void
  nextId(): string
  /** The protocol for a client that speaks HTTP/2; undefined where that is not spoken. */
  http2(wire: Wire, frontend: Frontend): Protocol | undefined
  /** What is kept of a request for its trace, and the `traceparent` that the endpoint gets; undefined: requests are not traced. */
  readonly traced: ((traceparent: string | undefined) => { readonly trace: unknown; readonly traceparent: string }) | undefined
}
