import type { TlsIdentity } from '../lib/sockets/seam.ts'
import { noHosts, type Hosts } from './hosts.ts'

/** Where requests are sent. */
export interface Endpoint {
  readonly address: string
  readonly port: number
  /** `address:port`. */
  readonly key: string
}

/** TLS towards endpoints. Connections of different settings are never mixed. */
export interface UpstreamTls {
  readonly serverName?: string
  readonly verify: boolean
  readonly ca?: string
  readonly identity?: TlsIdentity
  /** Tells these settings apart from any others. */
  readonly key: string
}

/** Endpoints that serve alike. */
export interface Upstream {
  /** `namespace/service:port`. */
  readonly name: string
  readonly endpoints: readonly Endpoint[]
  readonly tls?: UpstreamTls
  /** Spoken to by HTTP/2: `h2c`, or with `tls` where it is agreed on. */
  readonly http2?: boolean
  readonly balance?: BalanceMethod
  /** Milliseconds until an endpoint that joined later gets its full share. */
  readonly slowStart?: number
  /** The name that these are the addresses of, where it lies outside. */
  readonly external?: string
}

export type BalanceMethod = { readonly kind: 'roundRobin' } | { readonly kind: 'leastConnections' } | { readonly kind: 'ewma' } | { readonly kind: 'hash'; readonly of: readonly HashPart[] }

/** A piece of the text that decides the endpoint. */
export type HashPart =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'client' | 'uri' | 'host' | 'path' }
  | { readonly kind: 'header' | 'argument' | 'cookie'; readonly name: string }

/** How long, in milliseconds. */
export interface Timeouts {
  readonly connect: number
  /** Between two reads from the endpoint. */
  readonly read: number
  /** Between two writes to the endpoint. */
  readonly send: number
  /** A tunnel may be silent for so long. */
  readonly tunnel: number
}

/** Connect 5 s, read and send 60 s as ingress-nginx has them; tunnels an hour, for its 60 s are what WebSocket users complain of. */
export const defaultTimeouts: Timeouts = { connect: 5000, read: 60_000, send: 60_000, tunnel: 3_600_000 }

/** One thing done to requests beside forwarding; `use` names the middleware that understands the rest. Plain data. */
export interface Policy {
  readonly use: string
}

/** A path of a host, and what becomes of requests for it. */
export interface Route {
  /** The rule's host: exact, `*.suffix`, or empty for any. */
  readonly host: string
  readonly path: string
  readonly kind: 'exact' | 'prefix' | 'regex'
  /** The host of the rule, where `host` is only another name for it. */
  readonly declared?: string
  /** What made it, for people: `namespace/name` of the object. */
  readonly owner: string
  readonly service: string
  readonly upstream: Upstream
  /** In the order they act. */
  readonly policies: readonly Policy[]
  readonly timeouts: Timeouts
  /** Octets of a request body; 413 above. 0: any. */
  readonly maxBody: number
  /** How often a request may be tried again elsewhere. */
  readonly retries: Retries
  /** Its requests are not logged. */
  readonly silent?: boolean
}

export interface Retries {
  /** All tries together, the first one included. */
  readonly tries: number
  /** Milliseconds in which another try may begin; 0: any time. */
  readonly within: number
  /** After an error or a timeout of the connection. */
  readonly error: boolean
  readonly timeout: boolean
  /** Also what is not idempotent. */
  readonly nonIdempotent: boolean
  /** Statuses of an endpoint that are tried elsewhere. */
  readonly statuses: readonly number[]
}

/** Three tries after errors and timeouts, never for what is not idempotent. */
export const defaultRetries: Retries = { tries: 3, within: 0, error: true, timeout: true, nonIdempotent: false, statuses: [] }

/** The routes of one host, the first that fits wins. */
export interface HostRoutes {
  readonly host: string
  readonly routes: readonly Route[]
  /** Asked when no path fits. */
  readonly fallback: Route | undefined
}

/** A certificate and what it takes to show it. */
export interface Certificate extends TlsIdentity {
  /** `namespace/name` of where it came from. */
  readonly owner: string
  readonly names: readonly string[]
  /** Milliseconds since 1970. */
  readonly notAfter: number
}

/** What clients of one TLS name must show. */
export interface ClientAuth {
  readonly ca: string
  readonly mode: 'request' | 'require'
}

/** Everything the server should do with requests, at one instant. Immutable; what did not change keeps its identity. */
export interface RouteTable {
  readonly hosts: Hosts<HostRoutes>
  /** By what stands behind `*.`. */
  readonly wildcards: Hosts<HostRoutes>
  /** Rules without a host. */
  readonly any: HostRoutes | undefined
  /** When nothing else fits; 404 without it. */
  readonly fallback: Route | undefined
  readonly certificates: Certificates
  /** Hosts whose TLS goes to the endpoint unopened. */
  readonly passthrough: ReadonlyMap<string, Upstream>
  /** Keys of all endpoints: pooled connections of others are closed. */
  readonly endpoints: ReadonlySet<string>
}

export interface Certificates {
  readonly exact: ReadonlyMap<string, Certificate>
  readonly wildcards: ReadonlyMap<string, Certificate>
  readonly fallback: Certificate | undefined
  readonly clients: ReadonlyMap<string, ClientAuth>
  /** Hosts that do not speak HTTP/2. */
  readonly http1: ReadonlySet<string> | 'all'
}

/** The table before anything is known. */
export const emptyTable: RouteTable = {
  hosts: noHosts,
  wildcards: noHosts,
  any: undefined,
  fallback: undefined,
  certificates: { exact: new Map(), wildcards: new Map(), fallback: undefined, clients: new Map(), http1: new Set() },
  passthrough: new Map(),
  endpoints: new Set(),
}

/** The order in which routes of one host are asked: longest path first, then exact before prefix, as Ingress v1 says. */
export function routeOrder(a: Route, b: Route): number {
  return b.path.length - a.path.length || rank[a.kind] - rank[b.kind]
}

const rank = { exact: 0, regex: 1, prefix: 2 } as const
