import type { Address, Descriptor, Driver, Listening, ListenOptions, Protocol, TlsClient, Wire } from '../../lib/sockets/seam.ts'
import { randomFillSync } from 'node:crypto'
import type { HashPart, Policy, Route, RouteTable, Upstream, UpstreamTls } from '../table.ts'
import { ask } from './ask.ts'
import { ClientConn } from './client.ts'
import type { Engine, Finished, Frontend, Linked, Seeking, Served, ServerLimits } from './engine.ts'
import type { Asked, Middleware, Step, Tools } from './exchange.ts'
import { defaultHeadLimits, Head, type HeadLimits } from './head.ts'
import { Pool, tlsClient, UpstreamConn, type UpstreamHost } from './upstream.ts'

export const defaultServerLimits: ServerLimits = { headTimeout: 60_000, bodyTimeout: 60_000, idleTimeout: 75_000, sendTimeout: 60_000, lingerTimeout: 10_000 }

export interface ServerOptions {
  readonly driver: Driver
  readonly limits?: Partial<ServerLimits>
  readonly headLimits?: HeadLimits
  /** Idle connections kept to one endpoint. */
  readonly maxIdle?: number
  /** Idle connections to endpoints are closed after this many ms. */
  readonly upstreamIdle?: number
  /** Whether a peer may say whom it speaks for. */
  readonly trusts?: (peer: string) => boolean
  readonly middleware?: Readonly<Record<string, Middleware>>
  /** Told of every request when it is over; nothing of `x` may be kept. */
  readonly finished?: (x: Finished) => void
  /** What should not have happened. */
  readonly failed?: (what: string, error: unknown) => void
  readonly random?: () => number
  /** An address of a host name; without it only addresses can be asked. */
  readonly resolve?: (host: string) => Promise<string>
  /** Instead of asking over the network. */
  readonly ask?: Tools['ask']
  /** Keeps user agent and referer for the log. */
  readonly logsAgents?: boolean
  /** HTTP/2, where it is spoken. */
  readonly http2?: Http2Side
  /** Makes spans of requests. */
  readonly traced?: Engine['traced']
}

/** HTTP/2, which others speak: towards clients, stream by stream, and towards endpoints. */
export interface Http2Side {
  /** The protocol of a client's connection; `accept` makes the engine's half of each stream. */
  take(wire: Wire, accept: () => Protocol): Protocol
  /** A wire that takes one HTTP/1.1 request and gives its response. */
  connect(key: string, at: Address, tls: TlsClient | undefined, p: Protocol, timeout: number): Wire
}

/** How long an endpoint that does not take connections is left alone: ms, doubled each time. */
const ejectFirst = 500
const ejectMost = 10_000
/** What is not repeatable goes only over connections that were used within this time, ms: the endpoint has hardly closed them. */
const freshEnough = 3000

/** The HTTP/1.1 side of the ingress controller: connections of clients, connections to endpoints, and the table between them. */
export class Server implements UpstreamHost, Engine {
  readonly driver: Driver
  limits: ServerLimits
  readonly head: Head
  readonly scratch: Buffer
  readonly clients = new Set<Served>()
  readonly upstreams = new Set<UpstreamConn>()
  readonly pools = new Map<string, Pool>()
  readonly frontends = new Set<Frontend>()
  readonly maxIdle: number
  readonly trusts: ((peer: string) => boolean) | undefined
  readonly unrouted: Linked = { steps: [], responses: [], silent: false, extra: undefined, logged: undefined }
  readonly logsAgents: boolean
  readonly traced: Engine['traced']
  draining = false
  connections = 0
  requests = 0
  retries = 0
  tunnels = 0
  readonly #options: ServerOptions
  readonly #linked = new WeakMap<Route, Linked>()
  readonly #turns = new Map<string, number>()
  /** Upstreams that start new endpoints slowly, as they were asked last. */
  readonly #met = new Map<string, Upstream>()
  readonly #listening: Listening[] = []
  readonly #upstreamIdle: number
  readonly #random: () => number
  #stop: () => void
  #emptied: (() => void) | undefined

  constructor(options: ServerOptions) {
    this.#options = options
    this.driver = options.driver
    this.limits = { ...defaultServerLimits, ...options.limits }
    this.head = new Head(options.headLimits ?? defaultHeadLimits)
    this.scratch = options.driver.arena(131_072)
    this.maxIdle = options.maxIdle ?? 256
    this.#upstreamIdle = options.upstreamIdle ?? 60_000
    this.trusts = options.trusts
    this.traced = options.traced
    this.logsAgents = options.logsAgents ?? false
    this.#random = options.random ?? Math.random
    this.#stop = options.driver.every(500, () => this.#sweep())
  }

  /** Serves `frontend` at `at`; `accept` makes the protocols of its connections, where something stands before the engine's own. */
  async listen(at: Address | Descriptor, frontend: Frontend, how?: ListenOptions, accept: () => Protocol = () => new ClientConn(this, frontend)): Promise<Listening> {
    const listening = await this.driver.listen(at, accept, how)
    this.#listening.push(listening)
    this.frontends.add(frontend)
    return listening
  }

  /** A protocol for a connection that somebody else accepted. */
  accept(frontend: Frontend): Protocol {
    this.frontends.add(frontend)
    return new ClientConn(this, frontend)
  }

  http2(wire: Wire, frontend: Frontend): Protocol | undefined {
    return this.#options.http2?.take(wire, () => new ClientConn(this, frontend, true))
  }

  http2Wire(pool: Pool, p: Protocol, timeout: number): Wire {
    const { endpoint, tls } = pool
    const { http2 } = this.#options
    if (http2 === undefined) throw new Error('HTTP/2 is not spoken here')
    return http2.connect(pool.key, { host: endpoint.address, port: endpoint.port }, tls === undefined ? undefined : tlsClient(tls), p, timeout)
  }

  /** From now on new requests at `frontend` go by `table`; those that have begun keep theirs. */
  use(frontend: Frontend, table: RouteTable): void {
    frontend.table = table
    this.frontends.add(frontend)
    this.#prune()
  }

  /** Closes idle connections to endpoints that no table knows any longer. */
  #prune(): void {
    for (const [key, pool] of this.pools) {
      let known = false
      for (const f of this.frontends) if (f.table.endpoints.has(pool.endpoint.key)) known = true
      if (known) continue
      pool.gone = true
      this.pools.delete(key)
      for (const c of pool.idle.slice()) c.discard()
    }
  }

  /** Other limits than the usual ones, for what comes from now on. */
  limit(limits: Partial<ServerLimits>): void {
    this.limits = { ...defaultServerLimits, ...this.#options.limits, ...limits }
  }

  /** A route's policies made ready, once. */
  link(route: Route): Linked {
    let linked = this.#linked.get(route)
    if (linked === undefined) {
      const all = route.policies.flatMap((p) => this.#stepOf(p) ?? [])
      linked = { steps: all.filter((s) => s.request !== undefined), responses: all.filter((s) => s.response !== undefined), silent: route.silent === true, extra: undefined, logged: undefined }
      this.#linked.set(route, linked)
    }
    return linked
  }

  #stepOf(policy: Policy): Step | undefined {
    const make = this.#options.middleware?.[policy.use]
    if (make === undefined) {
      // A policy nobody understands must not be a policy that lets everybody through.
      this.failed(`no middleware for policy ${policy.use}`, undefined)
      return { request: () => ({ status: 500, reason: `no middleware for policy ${policy.use}` }) }
    }
    try {
      return make(policy, this.#tools)
    } catch (error) {
      this.failed(`policy ${policy.use} cannot be used`, error)
      return { request: () => ({ status: 500, reason: `policy ${policy.use} cannot be used` }) }
    }
  }

  readonly #shared = new Map<string, unknown>()
  readonly #tools: Tools = {
    now: () => this.driver.now,
    random: () => this.#random(),
    shared: <T>(key: string, make: () => T): T => {
      let found = this.#shared.get(key) as T | undefined
      if (found === undefined) this.#shared.set(key, (found = make()))
      return found
    },
    ask: (request) => this.#ask(request),
  }

  async #ask(request: Parameters<Tools['ask']>[0]): Promise<Asked> {
    if (this.#options.ask !== undefined) return this.#options.ask(request)
    const { hostname } = new URL(request.url)
    const bare = hostname.replace(/^\[|\]$/g, '')
    const address = /^[\d.]+$|:/.test(bare) ? bare : await this.#options.resolve?.(bare)
    if (address === undefined) throw new Error(`${bare} cannot be resolved`)
    return ask(this.driver, address, request)
  }

  /** The pool to ask for `x`; one that has not been tried, as long as there is one. */
  choose(x: Seeking, tried: readonly Pool[]): Pool | undefined {
    const { upstream } = x
    const { endpoints } = upstream
    const n = endpoints.length
    if (n === 0) return undefined
    const now = this.driver.now
    if (upstream.slowStart !== undefined) this.#meet(upstream)
    if (x.endpoint !== undefined) {
      const pool = this.#poolOf(upstream, x.endpoint)
      if (pool.ejectedUntil <= now && !tried.includes(pool)) return pool
    }
    if (n === 1) {
      const pool = this.#poolOf(upstream, endpoints[0]!)
      return tried.includes(pool) ? undefined : pool
    }
    switch (upstream.balance?.kind) {
      case 'hash':
        return this.#byHash(upstream, (x.hashText ??= hashText(upstream.balance.of, x)), tried)
      case 'leastConnections':
      case 'ewma':
        return this.#betterOfTwo(upstream, tried, upstream.balance.kind === 'ewma')
      default:
        return this.#inTurn(upstream, tried)
    }
  }

  #inTurn(upstream: Upstream, tried: readonly Pool[]): Pool | undefined {
    const { endpoints } = upstream
    const n = endpoints.length
    const now = this.driver.now
    const start = this.#turns.get(upstream.name) ?? Math.floor(this.#random() * n)
    this.#turns.set(upstream.name, (start + 1) % 1_000_003)
    let second: Pool | undefined
    for (let i = 0; i < n; i++) {
      const pool = this.#poolOf(upstream, endpoints[(start + i) % n]!)
      if (tried.length > 0 && tried.includes(pool)) continue
      if (pool.ejectedUntil <= now && (upstream.slowStart === undefined || this.#warm(pool, upstream.slowStart))) return pool
      second ??= pool
    }
    return second
  }

  /** Two at random, the one with less to do (Mitzenmacher's power of two choices); by EWMA: less to do times slower. */
  #betterOfTwo(upstream: Upstream, tried: readonly Pool[], ewma: boolean): Pool | undefined {
    const now = this.driver.now
    let pools = upstream.endpoints.map((e) => this.#poolOf(upstream, e)).filter((p) => !tried.includes(p))
    const { slowStart } = upstream
    const well = pools.filter((p) => p.ejectedUntil <= now && (slowStart === undefined || this.#warm(p, slowStart)))
    if (well.length > 0) pools = well
    if (pools.length <= 1) return pools[0]
    const i = Math.floor(this.#random() * pools.length)
    const k = (i + 1 + Math.floor(this.#random() * (pools.length - 1))) % pools.length
    const [a, b] = [pools[i]!, pools[k]!]
    // What is never asked never gets better: a figure fades with ten seconds' half-life.
    const cost = (p: Pool): number => (ewma ? (1 + p.ewma * 2 ** (-(now - p.touched) / 10_000)) * (p.active + 1) : p.active)
    return cost(b) < cost(a) ? b : a
  }

  /** The endpoint with the highest hash of itself and the text (rendezvous): when one goes, only its share moves. */
  #byHash(upstream: Upstream, text: string, tried: readonly Pool[]): Pool | undefined {
    const now = this.driver.now
    let best: Pool | undefined
    let top = -1
    for (const e of upstream.endpoints) {
      const pool = this.#poolOf(upstream, e)
      if (tried.includes(pool) || pool.ejectedUntil > now) continue
      const h = mix(hash(e.key, hash(text, 0x811c9dc5)))
      if (h > top) {
        top = h
        best = pool
      }
    }
    return best ?? this.#inTurn(upstream, tried)
  }

  /** Notes which endpoints of `upstream` were there when it was first asked, and which joined later. */
  #meet(upstream: Upstream): void {
    if (this.#met.get(upstream.name) === upstream) return
    const known = this.#met.has(upstream.name)
    this.#met.set(upstream.name, upstream)
    for (const e of upstream.endpoints) {
      const before = this.pools.size
      const pool = this.#poolOf(upstream, e)
      if (known && this.pools.size > before) pool.joined = this.driver.now
    }
  }

  /** Whether an endpoint may get this request: the younger, the rarer. */
  #warm(pool: Pool, slowStart: number): boolean {
    if (pool.joined < 0) return true
    const age = (this.driver.now - pool.joined) / slowStart
    if (age < 1) return this.#random() < Math.max(0.05, age)
    pool.joined = -1
    return true
  }

  #poolOf(upstream: Upstream, endpoint: { readonly key: string; readonly address: string; readonly port: number }): Pool {
    let key = upstream.tls === undefined ? endpoint.key : keyWith(endpoint.key, upstream.tls)
    if (upstream.http2 === true) key += ' h2'
    let pool = this.pools.get(key)
    if (pool === undefined) this.pools.set(key, (pool = new Pool(key, endpoint, upstream.tls, upstream.http2 === true)))
    return pool
  }

  /** A connection of `pool`, kept alive or new. */
  connection(pool: Pool, method: string, timeout: number): UpstreamConn {
    const repeatable = method === 'GET' || method === 'HEAD' || method === 'PUT' || method === 'DELETE' || method === 'OPTIONS'
    // One second less than the endpoint says, so that its FIN and our request do not meet.
    const said = pool.keepAlive > 0 ? Math.max(0, pool.keepAlive * 1000 - 1000) : this.#upstreamIdle
    const longest = Math.min(said, repeatable ? this.#upstreamIdle : freshEnough)
    const idle = pool.take(this.driver.now, longest)
    if (idle !== undefined) return idle
    const c = new UpstreamConn(this, pool)
    c.connect(timeout)
    return c
  }

  heard(pool: Pool, ms: number): void {
    pool.failures = 0
    pool.ejectedUntil = 0
    pool.touched = this.driver.now
    pool.ewma = pool.ewma === 0 ? ms : pool.ewma * 0.9 + ms * 0.1
  }

  refused(up: UpstreamConn, _why: string, heard: boolean): void {
    const { pool } = up
    if (up.used) {
      // It was restarted or closes what is idle: the other idle ones are no better.
      for (const c of pool.idle.slice()) c.discard()
      return
    }
    if (heard) return
    pool.failures++
    pool.ejectedUntil = this.driver.now + Math.min(ejectMost, ejectFirst * 2 ** Math.min(pool.failures - 1, 6))
  }

  finished(x: Finished): void {
    try {
      this.#options.finished?.(x)
    } catch (error) {
      this.failed('could not record a request', error)
    }
  }

  failed(what: string, error: unknown): void {
    this.#options.failed?.(what, error)
  }

  // Random octets are bought in bulk.
  readonly #ids = Buffer.alloc(4096)
  #nextId = 4096
  nextId(): string {
    if (this.#nextId === 4096) {
      randomFillSync(this.#ids)
      this.#nextId = 0
    }
    const at = this.#nextId
    this.#nextId += 16
    return this.#ids.toString('hex', at, at + 16)
  }

  #sweep(): void {
    const { now } = this.driver
    for (const c of this.clients) c.sweep(now)
    for (const c of this.upstreams) if (c.state === 3 && now - c.since > this.#upstreamIdle) c.discard()
    if (this.#emptied !== undefined && !this.busy) this.#emptied()
  }

  get busy(): boolean {
    for (const c of this.clients) if (c.busy || (this.draining && c.fresh)) return true
    return false
  }

  /** Takes no more connections, answers what is under way, and resolves when that is done or `signal` fires. */
  async drain(signal?: AbortSignal): Promise<void> {
    this.draining = true
    for (const l of this.#listening) l.drain()
    for (const c of this.clients) c.finish()
    if (!this.busy || signal?.aborted === true) return
    await new Promise<void>((resolve) => {
      this.#emptied = resolve
      signal?.addEventListener('abort', () => resolve(), { once: true })
    })
  }

  /** Ends everything. Who has the whole answer and only has not closed yet is not reset: that would destroy what is still on its way. */
  close(): void {
    this.#stop()
    this.#stop = () => {}
    for (const l of this.#listening) l.close()
    for (const c of this.clients) if (!c.over) c.wire.abort()
    for (const c of this.upstreams) c.discard()
  }
}

function hash(text: string, seed: number): number {
  let h = seed
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return h >>> 0
}

function mix(h: number): number {
  let x = h
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b)
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
  return (x ^ (x >>> 16)) >>> 0
}

/** The text that decides the endpoint. */
function hashText(of: readonly HashPart[], x: Seeking): string {
  let out = ''
  for (const part of of) {
    if (part.kind === 'text') out += part.text
    else if (part.kind === 'client') out += x.client
    else if (part.kind === 'host') out += x.host
    else if (part.kind === 'path') out += x.path
    else if (part.kind === 'uri') out += x.path + x.query
    else if (part.kind === 'header') out += x.header(part.name) ?? ''
    else if (part.kind === 'cookie') out += x.cookie(part.name) ?? ''
    else if (part.kind === 'argument') out += new URLSearchParams(x.query).get(part.name) ?? ''
  }
  return out
}

const tlsKeys = new WeakMap<UpstreamTls, Map<string, string>>()

/** The pool key of an endpoint under TLS settings; made once. */
function keyWith(key: string, tls: UpstreamTls): string {
  let known = tlsKeys.get(tls)
  if (known === undefined) tlsKeys.set(tls, (known = new Map()))
  let made = known.get(key)
  if (made === undefined) known.set(key, (made = `${key} ${tls.key}`))
  return made
}
