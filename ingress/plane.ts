import { lookup } from 'node:dns/promises'
import type { Address, Descriptor, Driver, Listening, ListenOptions, Protocol, TlsServer, TlsServerIdentity } from '../lib/sockets/seam.ts'
import { AccessLog, type AccessLogFormat } from './accesslog.ts'
import { middleware } from './annotations/list.ts'
import { applyChange, type TableChange } from './change.ts'
import { Door, doorTimeout } from './door.ts'
import type { Frontend, ServerLimits } from './http1/engine.ts'
import { Server } from './http1/server.ts'
import { Http2Clients } from './http2/client.ts'
import { Http2 } from './http2/server.ts'
import { TlsOver } from './http2/tls.ts'
import { passthroughFor, speaksHttp2 } from './match.ts'
import { trustsOf } from './options.ts'
import { Stats, type Counts } from './stats.ts'
import { emptyTable, type Certificate, type RouteTable } from './table.ts'
import { identityFor } from './tls.ts'
import { spanOf, traceparentOf, Traces, type Span } from './traces.ts'
import { Tunnel } from './tunnel.ts'

/** What may change while requests are served, besides tables. Plain data. */
export interface Tuning {
  /** Networks whose word on clients is believed. */
  readonly trusted: readonly string[]
  readonly limits: Partial<ServerLimits>
  readonly logs: boolean
}

/** What a plane is made with. Plain data: it reaches workers too. */
export interface PlaneConfig {
  readonly groups: number
  readonly accessLog: { readonly format: AccessLogFormat; readonly fd: number }
  /** Connections begin with a header of the PROXY protocol. */
  readonly proxied: boolean
  /** Some hosts' TLS is not opened. */
  readonly passthrough: boolean
  /** Shown to clients that name no host of ours. */
  readonly shown: Certificate
  /** Idle connections kept to one endpoint, and for how many ms. */
  readonly maxIdle?: number
  readonly upstreamIdle?: number
  /** Where spans go by OTLP, and the share of requests that begin a trace. */
  readonly otlp?: { readonly endpoint: string; readonly share: number }
}

/** Everything a plane goes by. */
export interface Wanted {
  readonly tables: readonly RouteTable[]
  readonly tuning: Tuning
}

/** What is other than before. */
export type WantedChange =
  | { readonly kind: 'table'; readonly group: number; readonly change: TableChange }
  | { readonly kind: 'tuning'; readonly tuning: Tuning }
  | { readonly kind: 'gone'; readonly owners: readonly string[] }

/** What carries requests in one thread: listeners, the engine, HTTP/2 on both sides, log and counts. */
export class Plane {
  readonly driver: Driver
  readonly server: Server
  readonly #config: PlaneConfig
  readonly #http2: Http2
  readonly #clients: Http2Clients
  readonly #stats = new Stats()
  readonly #log: AccessLog | undefined
  readonly #traces: Traces | undefined
  readonly #fronts: readonly { readonly plain: Frontend; readonly secure: Frontend }[]
  readonly #waiting = new Map<Door, number>()
  #trusts: ((peer: string) => boolean) | undefined
  #logs = true

  constructor(driver: Driver, config: PlaneConfig, wanted: Wanted, failed: (what: string, error: unknown) => void) {
    this.driver = driver
    this.#config = config
    const { format, fd } = config.accessLog
    this.#log = format === 'off' ? undefined : new AccessLog(driver, fd, format)
    this.#http2 = new Http2({ failed })
    this.#clients = new Http2Clients(driver)
    const { otlp } = config
    this.#traces = otlp === undefined ? undefined : new Traces(otlp.endpoint, (why) => failed(`spans cannot be sent to ${otlp.endpoint}`, new Error(why)))
    this.#fronts = wanted.tables.map((table) => ({ plain: { table, secure: false }, secure: { table, secure: true } }))
    this.server = new Server({
      driver,
      logsAgents: this.#log !== undefined,
      middleware,
      trusts: (peer) => this.#trusts?.(peer) ?? false,
      resolve: async (host) => (await lookup(host)).address,
      http2: { take: (wire, accept) => this.#http2.take(wire, accept), connect: (key, at, tls, p, timeout) => this.#clients.connect(key, at, tls, p, timeout) },
      finished: (x) => {
        this.#stats.finished(x)
        if (x.trace !== undefined) this.#traces?.finished(x, x.trace as Span)
        if (this.#logs && x.linked.silent !== true) this.#log?.write(x)
      },
      failed,
      ...(otlp === undefined
        ? {}
        : {
            traced: (given) => {
              const trace = spanOf(given, otlp.share)
              return { trace, traceparent: traceparentOf(trace) }
            },
          }),
      ...(config.maxIdle === undefined ? {} : { maxIdle: config.maxIdle }),
      ...(config.upstreamIdle === undefined ? {} : { upstreamIdle: config.upstreamIdle }),
    })
    this.#tune(wanted.tuning)
    driver.every(1000, () => {
      for (const [door, until] of this.#waiting) if (driver.now > until) door.wire.abort()
    })
  }

  /** Takes over everything. */
  replace(wanted: Wanted): void {
    wanted.tables.forEach((table, i) => this.use(i, table))
    this.#tune(wanted.tuning)
  }

  change(change: WantedChange): void {
    if (change.kind === 'table') this.use(change.group, applyChange(this.#fronts[change.group]!.plain.table, change.change))
    else if (change.kind === 'tuning') this.#tune(change.tuning)
    else this.#stats.forget(new Set(change.owners))
  }

  /** From now on new requests of this group go by `table`. */
  use(group: number, table: RouteTable): void {
    const { plain, secure } = this.#fronts[group]!
    this.server.use(plain, table)
    this.server.use(secure, table)
  }

  #tune({ trusted, limits, logs }: Tuning): void {
    this.#trusts = trustsOf(trusted)
    this.server.limit(limits)
    this.#logs = logs
  }

  /** Serves a group at an address. */
  listen(group: number, secure: boolean, at: Address | Descriptor, how: ListenOptions): Promise<Listening> {
    const frontend = this.#fronts[group]![secure ? 'secure' : 'plain']
    const { proxied, passthrough } = this.#config
    if (!secure) {
      if (!proxied) return this.server.listen(at, frontend, how)
      return this.server.listen(at, frontend, how, () => this.#door({ proxied, secure: false, inside: () => this.server.accept(frontend) }))
    }
    const identity = (name: string | undefined): TlsServerIdentity | undefined => identityFor(frontend.table, name, this.#config.shown)
    if (!proxied && !passthrough) {
      // Drivers ask for the identity first, and then for what is offered to this name.
      let alpn = both
      const tls: TlsServer = {
        identity: (name) => {
          alpn = speaksHttp2(frontend.table.certificates, name) ? both : old
          return identity(name)
        },
        get alpn() {
          return alpn
        },
      }
      return this.server.listen(at, frontend, { ...how, tls })
    }
    const inside = (name: string | undefined): Protocol | undefined => {
      const upstream = passthrough && name !== undefined ? passthroughFor(frontend.table, name) : undefined
      if (upstream !== undefined) return new Tunnel(upstream, { driver: this.driver, connectTimeout: 5000, announces: false })
      const shown = identity(name)
      return shown === undefined ? undefined : new TlsOver(shown, speaksHttp2(frontend.table.certificates, name) ? both : old, this.server.accept(frontend))
    }
    return this.server.listen(at, frontend, how, () => this.#door({ proxied, secure: true, inside }))
  }

  #door(options: ConstructorParameters<typeof Door>[0]): Door {
    return new Door(
      options,
      (door) => void this.#waiting.set(door, this.driver.now + doorTimeout),
      (door) => void this.#waiting.delete(door),
    )
  }

  counts(): Counts {
    return this.#stats.counts(this.server, this.#http2.sessions)
  }

  /** Answers what is under way and takes nothing new; at most for so many ms. */
  async drain(ms: number): Promise<void> {
    this.#http2.drain()
    const until = AbortSignal.timeout(Math.max(1, ms))
    await this.server.drain(until)
    // Answers on their way out get a moment to arrive.
    for (let i = 0; i < 100 && (this.server.clients.size > 0 || this.#http2.sessions > 0) && !until.aborted; i++) await new Promise((resolve) => setTimeout(resolve, 10))
  }

  async close(): Promise<void> {
    this.server.close()
    this.#http2.close()
    this.#clients.close()
    this.#log?.close()
    await this.#traces?.close()
  }
}

const both: readonly string[] = ['h2', 'http/1.1']
const old: readonly string[] = ['http/1.1']

/** Nothing to serve yet. */
export function nothing(groups: number): Wanted {
  return { tables: Array.from({ length: groups }, () => emptyTable), tuning: { trusted: [], limits: {}, logs: true } }
}
