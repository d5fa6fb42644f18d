import type { Log } from '../../lib/log.ts'
import { openNode } from '../../lib/sockets/node/driver.ts'
import type { Address, Descriptor, Driver, ListenOptions } from '../../lib/sockets/seam.ts'
import { terminateAfter, work, Workers, type Duties, type Post } from '../../lib/workers.ts'
import { EpollDriver, openEpoll, type Reserved } from './driver.ts'
import { Share } from './share.ts'
import { ticketRotation } from './tickets.ts'

/** Where a crew listens: an address, or a socket somebody else opened. */
export interface CrewSocket {
  readonly at: Address | Descriptor
  readonly backlog?: number
  readonly ipv6Only?: boolean
  readonly transparent?: boolean
}

/** What a crew is made of. */
export interface CrewOptions<Whole, Name extends string> {
  /** The driver of the main thread; the workers get one of the same kind. */
  readonly driver: Driver
  /** The module each worker runs: `workerFile(import.meta.url, './worker.ts')`; it calls `crewWork`. */
  readonly file: URL
  /** Default: one a core. */
  readonly count?: number
  /** The sockets all of them serve, by names of the caller's choice. */
  readonly sockets: Readonly<Record<Name, CrewSocket>>
  /** What each worker is given at its start. */
  readonly data?: unknown
  /** The whole table, as it is now. */
  whole(): Whole
  message?(index: number, message: unknown): void
  /** Told when a worker is gone, before another one takes its place. */
  died?(index: number): void
  readonly log: Log
}

/** What reaches a worker besides the table. */
interface Given {
  readonly share: SharedArrayBuffer | undefined
  readonly sockets: Readonly<Record<string, { readonly at: Address | Descriptor; readonly how: ListenOptions }>>
  readonly data: unknown
}

/**
 * Workers that serve the same sockets by the same table. On `epoll` the main thread opens each socket once, and whoever accepts a connection hands it to the worker with the fewest;
 * on `node` each worker opens its own by `reusePort`, and the kernel spreads by hash.
 */
export class Crew<Whole, Change, Name extends string = string> {
  /** The port of each socket. */
  readonly ports: Readonly<Record<Name, number>>
  readonly #workers: Workers<Whole, Change>
  readonly #share: Share | undefined
  readonly #reserves: readonly Reserved[]
  readonly #rotating: NodeJS.Timeout
  /** `process.exit` terminates workers too. */
  readonly #exiting = (): void => {
    for (let i = 0; i < this.count; i++) this.#share?.silence(i)
    if (this.#share !== undefined) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, terminateAfter)
  }

  /** Opens the sockets and starts the workers; whoever connects before they are ready waits in the queue. Rejects when a socket cannot be opened. */
  static async open<Whole, Change, Name extends string>(options: CrewOptions<Whole, Name>): Promise<Crew<Whole, Change, Name>> {
    const { driver } = options
    const ports = {} as Record<Name, number>
    const sockets: Record<string, { readonly at: Address | Descriptor; readonly how: ListenOptions }> = {}
    const reserves: Reserved[] = []
    let count = options.count
    try {
      for (const [name, socket] of Object.entries(options.sockets) as [Name, CrewSocket][]) {
        const { at, ...how } = socket
        if (driver instanceof EpollDriver) {
          const reserved = driver.reserve(at, how)
          reserves.push(reserved)
          ports[name] = reserved.port
          sockets[name] = { at: { fd: reserved.fd }, how: {} }
        } else if ('fd' in at) {
          // Two threads of Node cannot own one descriptor.
          count = 1
          ports[name] = 0
          sockets[name] = { at, how }
        } else {
          // Alone at first: shows whether somebody else has the port, and which one it is if any will do.
          const listening = await driver.listen(at, () => refusing, how)
          listening.close()
          ports[name] = listening.port
          sockets[name] = { at: { host: at.host, port: listening.port }, how: { ...how, reusePort: true } }
        }
      }
      return new Crew(options, count, ports, sockets, reserves)
    } catch (error) {
      for (const reserved of reserves) reserved.close()
      throw error
    }
  }

  private constructor(options: CrewOptions<Whole, Name>, count: number | undefined, ports: Readonly<Record<Name, number>>, sockets: Given['sockets'], reserves: readonly Reserved[]) {
    const share = options.driver instanceof EpollDriver ? new Share() : undefined
    this.#share = share
    this.ports = ports
    this.#reserves = reserves
    const given: Given = { share: share?.buffer, sockets, data: options.data }
    this.#workers = new Workers<Whole, Change>({
      file: options.file,
      ...(count === undefined ? {} : { count }),
      data: given,
      whole: options.whole,
      ...(options.message === undefined ? {} : { message: options.message }),
      ...(share === undefined ? {} : { terminating: (index) => share.silence(index) }),
      died: (index) => {
        share?.bury(index)
        options.died?.(index)
      },
      log: options.log,
    })
    process.on('exit', this.#exiting)
    this.#rotating = setInterval(() => share?.tickets.rotate(), ticketRotation).unref()
  }

  get count(): number {
    return this.#workers.count
  }

  /** Connections each worker has at this moment; on `node` nobody knows. */
  get connections(): readonly number[] {
    return this.#share === undefined ? [] : Array.from({ length: this.count }, (_, i) => this.#share!.connections(i))
  }

  /** Resolves when every worker serves. */
  ready(): Promise<void> {
    return this.#workers.ready()
  }

  /** Tells every worker of a change that `whole()` already shows. */
  change(change: Change): void {
    this.#workers.change(change)
  }

  /** Sends everybody the whole table. */
  replace(): void {
    this.#workers.replace()
  }

  send(index: number, message: unknown): void {
    this.#workers.send(index, message)
  }

  /** Stops listening, loses nobody who waits in a queue, asks all workers to end, and waits until they have; those that have not after `ms` are ended. */
  async close(ms = 5000): Promise<void> {
    if (this.#share !== undefined) for (const reserved of this.#reserves) reserved.drain(this.#share)
    await this.#workers.close(ms)
    process.off('exit', this.#exiting)
    clearInterval(this.#rotating)
    for (let i = 0; i < this.count; i++) this.#share?.bury(i)
    for (const reserved of this.#reserves) reserved.close()
  }

  /** Ends one worker at once, as a crash would; for tests. */
  kill(index: number): Promise<void> {
    return this.#workers.kill(index)
  }
}

/** What a worker of a crew has to work with. */
export interface CrewPost extends Post {
  readonly driver: Driver
  /** The crew's sockets, for `driver.listen(at, accept, { ...how, tls … })`. */
  readonly sockets: Given['sockets']
}

/**
 * Takes up the work of this thread as one of a crew. `begin` is called once, with the first table, and listens on the crew's sockets; when what it returns has resolved,
 * the others hand connections over. When the crew ends, `end` drains the listeners and waits for what is under way; the driver is closed afterwards.
 */
export function crewWork<Whole, Change>(begin: (post: CrewPost, table: Whole) => Promise<Duties<Whole, Change>> | Duties<Whole, Change>): void {
  work<Whole, Change>(async ({ index, data, send }, table) => {
    const given = data as Given
    const driver = given.share === undefined ? openNode() : await openEpoll({ share: new Share(given.share), index })
    if (typeof driver === 'string') throw new Error(driver)
    const duties = await begin({ index, data: given.data, send, driver, sockets: given.sockets }, table)
    if (driver instanceof EpollDriver) driver.join()
    return {
      ...duties,
      end: async () => {
        try {
          await duties.end()
        } finally {
          await driver.close()
        }
      },
    }
  })
}

/** For who connects while a port is only tried. */
const refusing = { opened: (w: { abort(): void }) => w.abort(), data: () => {}, drain: () => {}, eof: () => {}, closed: () => {} }
