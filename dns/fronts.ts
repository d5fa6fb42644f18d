import { bracketed } from '../lib/ip.ts'
import { explainError, type Log } from '../lib/log.ts'
import type { Metrics } from '../lib/metrics.ts'
import { addressText, SocketError } from '../lib/sockets/errors.ts'
import type { Driver, TlsServer } from '../lib/sockets/seam.ts'
import type { ClusterZone } from './cluster.ts'
import type { Configuration, ListenPlan } from './config.ts'
import { LoopHandler } from './handlers/loop/index.ts'
import type { Meters } from './handlers/plugin.ts'
import { foldCounters, observer } from './observe.ts'
import { Packer } from './packer.ts'
import { Count, durationBuckets, type Resolver } from './resolve.ts'
import { Batches, type BatchOptions } from './batches.ts'
import { serveDatagrams, serveStreams, type FastPath, type Serving } from './serve.ts'
import { Server, sortSites } from './server.ts'
import type { Name } from './wire/name.ts'

/** A compiled table that can be exchanged under a listener. */
class Exchangeable implements FastPath {
  current: Resolver | undefined

  resolve(b: Buffer, from: number, to: number, room: number, most?: number): number {
    return this.current === undefined ? -1 : this.current.resolve(b, from, to, room, most)
  }
  took(ms: number, n: number): void {
    this.current?.took(ms, n)
  }
}

interface Front {
  readonly plan: ListenPlan
  readonly server: Server
  readonly label: string
  readonly serving: readonly Serving[]
  readonly udp: Exchangeable
  readonly tcp: Exchangeable
  readonly batches: Batches | undefined
  tls: { cert: string; key: string } | undefined
  /** Adds what readers of the table counted to the metrics. */
  fold: () => void
  /** Questions so far. */
  asked: () => number
}

/** The listeners of a configuration. Another configuration is taken by exchanging what stands behind them: no question is lost. */
export class Fronts {
  readonly #driver: Driver
  readonly #log: Log
  readonly #meters: Meters
  readonly #fronts = new Map<string, Front>()
  readonly #batches: BatchOptions | undefined
  #packers: readonly Packer[] = []
  #loops: readonly LoopHandler[] = []

  /** `batches`: datagrams are taken by workers. */
  constructor(driver: Driver, log: Log, counters: Meters, registry: Metrics, batches?: BatchOptions) {
    this.#batches = batches
    this.#driver = driver
    this.#log = log
    this.#meters = counters
    registry.onScrape(() => {
      for (const f of this.#fronts.values()) f.fold()
      dropped.set([...this.#fronts.values()].reduce((sum, f) => sum + f.serving.reduce((n, s) => n + s.dropped, 0), 0))
    })
    const dropped = counters.gauge('switchyard_dns_datagrams_dropped', 'Datagrams lost because the receive buffer was full, as far as is known.')
  }

  get servers(): readonly Server[] {
    return [...this.#fronts.values()].map((f) => f.server)
  }
  /** Where questions are answered, with the ports that were drawn. */
  get addresses(): readonly string[] {
    return [...this.#fronts.values()].map((f) => `${f.plan.scheme === 'tls' ? 'tls://' : ''}${addressText({ host: f.plan.host, port: f.serving[0]!.port })}`)
  }
  /** The port of the first listener. */
  get port(): number {
    return [...this.#fronts.values()][0]?.serving[0]?.port ?? 0
  }

  /** Serves `configuration` from now on. Listeners that cannot be opened reject; those that were there go on with the old one then. */
  async apply(configuration: Configuration): Promise<void> {
    const opened: string[] = []
    const wanted = new Map(configuration.listeners.map((plan) => [`${plan.scheme} ${plan.host} ${plan.port}`, plan]))
    try {
      for (const [key, plan] of wanted) {
        if (this.#fronts.has(key)) continue
        this.#fronts.set(key, await this.#open(plan))
        opened.push(key)
      }
    } catch (error) {
      for (const key of opened) this.#close(key)
      throw error
    }
    // Listeners of equal sites share one table of compiled answers.
    const packers = new Map<string, Packer | undefined>()
    for (const [key, plan] of wanted) {
      const same = plan.sites.map((s) => s.text).join(' ')
      if (!packers.has(same)) packers.set(same, Packer.of(plan.sites))
      const packer = packers.get(same)
      const front = this.#fronts.get(key)!
      front.fold()
      front.server.sites = sortSites(plan.sites)
      front.tls = plan.options.tls
      const resolver = (): Resolver | undefined => {
        const made = packer?.resolver()
        if (made !== undefined) made.family = plan.host.includes(':') ? 1 : 0
        return made
      }
      front.tcp.current = resolver()
      const udp: Uint32Array[] = []
      if (front.batches !== undefined) udp.push(...front.batches.serve(packer?.table.memory))
      else {
        front.udp.current = resolver()
        if (front.udp.current !== undefined) udp.push(front.udp.current.counters)
      }
      const tcp = front.tcp.current === undefined ? [] : [front.tcp.current.counters]
      const folds = [...udp.map((c) => foldCounters(this.#meters, front.label, plan.sites, 'udp', c)), ...tcp.map((c) => foldCounters(this.#meters, front.label, plan.sites, 'tcp', c))]
      front.fold = () => folds.forEach((f) => f())
      front.asked = () => front.server.asked + [...udp, ...tcp].reduce((sum, c) => sum + answeredBy(c), 0)
    }
    this.#packers = [...packers.values()].filter((p) => p !== undefined)
    this.#loops = [...new Set(configuration.listeners.flatMap((l) => l.sites.flatMap((s) => s.handlers.filter((h) => h instanceof LoopHandler))))]
    for (const key of this.#fronts.keys()) if (!wanted.has(key)) this.#close(key)
  }

  async #open(plan: ListenPlan): Promise<Front> {
    const label = `${plan.scheme}://${plan.host === '' ? '' : bracketed(plan.host)}:${plan.port}`
    const failed = (error: Error): void => this.#log.error('listener failed', { listen: addressText(plan), error: explainError(error) })
    const server = new Server(plan.sites, this.#log, observer(this.#meters, label))
    const udp = new Exchangeable()
    const tcp = new Exchangeable()
    const limits = { ...(plan.options.idle === undefined ? {} : { idle: plan.options.idle }), ...(plan.options.message === undefined ? {} : { message: plan.options.message }) }
    const serving: Serving[] = []
    let front: Front | undefined
    let batches: Batches | undefined
    try {
      if (plan.scheme === 'tls') {
        const tls: TlsServer = { identity: () => front?.tls ?? plan.options.tls, alpn: ['dot'] }
        serving.push(await serveStreams(this.#driver, plan, server, { tls, limits, failed, fast: tcp }))
      } else {
        // Port 0 draws one; both transports share it, so one that is free for datagrams alone is given back.
        for (let tries = 0; serving.length < 2; tries++) {
          batches = this.#batches === undefined ? undefined : await Batches.open(plan, this.#batches, server, this.#log)
          const datagrams = batches ?? (await serveDatagrams(this.#driver, plan, server, { failed, fast: udp }))
          serving[0] = datagrams
          try {
            serving[1] = await serveStreams(this.#driver, { host: plan.host, port: datagrams.port }, server, { limits, failed, fast: tcp })
          } catch (error) {
            if (plan.port !== 0 || tries > 5) throw error
            await datagrams.close()
          }
        }
      }
    } catch (error) {
      for (const s of serving) await s.close()
      if (error instanceof SocketError) throw new Error('no server there, choose another address with --listen ADDR:PORT', { cause: error })
      throw error
    }
    front = { plan, server, label, serving, udp, tcp, batches, tls: plan.options.tls, fold: () => {}, asked: () => server.asked }
    return front
  }

  #close(key: string): void {
    const front = this.#fronts.get(key)
    this.#fronts.delete(key)
    for (const s of front?.serving ?? []) {
      s.drain()
      // Those under way are answered first.
      setTimeout(() => void s.close(), 1000).unref()
    }
  }

  /** Names changed: see `Packer`. */
  changed(zone: ClusterZone, names: readonly Name[], source: string): void {
    for (const packer of this.#packers) packer.changed(zone, names, source)
  }

  /** What is missing may be denied now, or not any more. */
  refresh(): void {
    for (const packer of this.#packers) packer.refresh()
  }

  /** Looks whether the upstream servers lead back here. */
  async lookForLoops(): Promise<void> {
    for (const handler of this.#loops) {
      const server = this.servers.find((s) => s.sites.some((site) => site.handlers.includes(handler)))
      if (server !== undefined) await handler.look((name, type) => server.ask(name, type))
    }
  }

  drain(): void {
    for (const f of this.#fronts.values()) for (const s of f.serving) s.drain()
  }
  async close(): Promise<void> {
    const all = [...this.#fronts.values()].flatMap((f) => f.serving)
    this.#fronts.clear()
    await Promise.all(all.map((s) => s.close()))
  }

  /** Questions so far, of all listeners. */
  get asked(): number {
    return [...this.#fronts.values()].reduce((sum, f) => sum + f.asked(), 0)
  }
}

/** Questions that a reader of the table answered. */
function answeredBy(counters: Uint32Array): number {
  let n = 0
  for (let i = 0; i <= durationBuckets.length; i++) n += counters[Count.durations + i]!
  return n
}
