import type { Address, Batch, Bound, Driver, Listening, Protocol, TlsServer, Wire } from '../lib/sockets/seam.ts'
import type { Origin, Server } from './server.ts'

/** Limits of connections; times in milliseconds. */
export interface StreamLimits {
  /** A connection without a question under way is closed after it. */
  readonly idle: number
  /** A message that has begun must be whole, and an answer taken, within it. */
  readonly message: number
  /** Questions of one connection under way at a time; more wait in the socket. */
  readonly concurrent: number
  /** Questions of one connection in all; then it is closed in order, so that clients spread again. */
  readonly queries: number
  readonly connections: number
}

export const streamDefaults: StreamLimits = { idle: 10_000, message: 5000, concurrent: 128, queries: 4096, connections: 20_000 }

/** Answers at once what can be answered by looking into a table; see `resolve.ts`. */
export interface FastPath {
  /** Octets of the answer, written in place; 0: no answer is sent; -1: ask the handlers. */
  resolve(b: Buffer, from: number, to: number, room: number, most?: number): number
  /** Tells how long a batch took. */
  took(ms: number, n: number): void
}

/** Listeners that can be closed. */
export interface Serving {
  readonly port: number
  readonly dropped: number
  /** Takes no new connections, and no new questions on those there are; what is under way is still answered. */
  drain(): void
  close(): void | Promise<void>
}

/** Answers a datagram by the handlers, when they are done. The octets are not needed once it returns. */
export function answerLater(server: Server, b: Buffer, from: number, to: number, client: Address, local: Address, bound: Bound): void {
  void server.respond(b, from, to, { client, local, protocol: 'udp' }).then((reply) => {
    if (reply !== undefined) bound.send(reply, 0, reply.length, client, local)
  })
}

/** Answers datagrams at an address. */
export async function serveDatagrams(
  driver: Driver,
  at: Address,
  server: Server,
  how: { readonly reusePort?: boolean; readonly fast?: FastPath | undefined; readonly failed?: (error: Error) => void } = {},
): Promise<Serving> {
  let closed = false
  const { fast } = how
  const received = (batch: Batch, bound: Bound): void => {
    if (closed) return
    const began = fast === undefined ? 0 : performance.now()
    let answered = 0
    for (let i = 0; i < batch.count; i++) {
      const from = batch.start(i)
      const to = batch.end(i)
      if (fast !== undefined) {
        const length = fast.resolve(batch.bytes, from, to, batch.room(i))
        if (length > 0) batch.answer(i, batch.bytes, from, from + length)
        if (length >= 0) {
          answered++
          continue
        }
      }
      const client = batch.peer(i)
      // Nobody can be answered there, and it breaks batches.
      if (client.port === 0) continue
      answerLater(server, batch.bytes, from, to, client, batch.local(i), bound)
    }
    if (answered > 0) fast!.took(performance.now() - began, answered)
  }
  const bound = await driver.bind(at, received, { ...(how.reusePort === true ? { reusePort: true } : {}), ...(how.failed === undefined ? {} : { failed: how.failed }) })
  return {
    port: bound.address.port,
    get dropped() {
      return bound.dropped
    },
    // To the last moment: nobody else reads what comes here.
    drain: () => {},
    close: () => {
      if (!closed) bound.close()
      closed = true
    },
  }
}

/** Answers on connections at an address: any number of questions at a time, each answered when its answer is there (RFC 7766). */
export async function serveStreams(
  driver: Driver,
  at: Address,
  server: Server,
  how: { readonly limits?: Partial<StreamLimits>; readonly tls?: TlsServer; readonly fast?: FastPath | undefined; readonly failed?: (error: Error) => void; readonly reusePort?: boolean } = {},
): Promise<Serving & { readonly connections: number }> {
  const limits = { ...streamDefaults, ...how.limits }
  const all = new Set<Stream>()
  const accept = (): Protocol => new Stream(driver, server, limits, how.tls !== undefined, all, how.fast)
  const listening: Listening = await driver.listen(at, accept, {
    ...(how.tls === undefined ? {} : { tls: how.tls }),
    ...(how.failed === undefined ? {} : { failed: how.failed }),
    ...(how.reusePort === true ? { reusePort: true } : {}),
  })
  const stop = driver.every(Math.max(20, Math.min(1000, limits.idle / 4, limits.message / 4)), () => {
    const { now } = driver
    for (const stream of all) stream.sweep(now)
  })
  return {
    port: listening.port,
    dropped: 0,
    get connections() {
      return all.size
    },
    drain: () => {
      listening.drain()
      for (const stream of all) stream.drainOut()
    },
    close: () => {
      stop()
      listening.close()
      for (const stream of all) stream.abort()
    },
  }
}

const nothing = Buffer.alloc(0)
const scratch = Buffer.allocUnsafeSlow(65_537)

/** One connection: messages behind their length in two octets (RFC 1035 4.2.2). */
class Stream implements Protocol {
  readonly #driver: Driver
  readonly #server: Server
  readonly #limits: StreamLimits
  readonly #tls: boolean
  readonly #all: Set<Stream>
  readonly #fast: FastPath | undefined
  #wire: Wire | undefined
  #origin: Origin | undefined
  /** The beginning of a message that is not whole yet. */
  #rest: Buffer = nothing
  #running = 0
  #taken = 0
  #last = 0
  #began = 0
  /** No more questions are taken. */
  #over = false
  /** The client has said all. */
  #ended = false
  #paused = false
  #full = false

  constructor(driver: Driver, server: Server, limits: StreamLimits, tls: boolean, all: Set<Stream>, fast: FastPath | undefined) {
    this.#driver = driver
    this.#server = server
    this.#limits = limits
    this.#tls = tls
    this.#all = all
    this.#fast = fast
  }

  opened(w: Wire): void {
    this.#wire = w
    this.#origin = { client: { host: w.peer, port: w.peerPort }, local: w.local, protocol: this.#tls ? 'tls' : 'tcp' }
    this.#last = this.#driver.now
    if (this.#all.size >= this.#limits.connections) w.abort()
    else this.#all.add(this)
  }

  data(b: Buffer, from: number, to: number): void {
    this.#last = this.#driver.now
    if (this.#over) return
    if (this.#rest.length === 0) this.#began = this.#last
    else {
      b = Buffer.concat([this.#rest, b.subarray(from, to)])
      from = 0
      to = b.length
    }
    let p = from
    while (to - p >= 2 && !this.#over && this.#running < this.#limits.concurrent) {
      const length = b.readUInt16BE(p)
      if (to - p < 2 + length) break
      this.#message(b, p + 2, p + 2 + length)
      p += 2 + length
      this.#began = this.#last
    }
    this.#rest = p === to ? nothing : Buffer.from(b.subarray(p, to))
    this.#balance()
  }

  #message(b: Buffer, from: number, to: number): void {
    if (++this.#taken >= this.#limits.queries) this.#over = true
    if (this.#fast !== undefined && to - from <= 512) {
      // One for all: the wire takes the octets before it returns.
      const framed = scratch
      b.copy(framed, 2, from, to)
      const length = this.#fast.resolve(framed, 2, 2 + to - from, 65_537, 65_535)
      if (length === 0) return
      if (length > 0) {
        framed.writeUInt16BE(length, 0)
        this.#write(framed, length + 2)
        return
      }
    }
    this.#running++
    void this.#server.respond(b, from, to, this.#origin!).then((reply) => {
      this.#running--
      if (reply !== undefined) {
        const framed = Buffer.allocUnsafe(reply.length + 2)
        framed.writeUInt16BE(reply.length, 0)
        reply.copy(framed, 2)
        this.#write(framed, framed.length)
      }
      this.#last = this.#driver.now
      if (this.#rest.length > 0 && !this.#over) this.data(nothing, 0, 0)
      this.#balance()
    })
  }

  #write(b: Buffer, end: number): void {
    const wire = this.#wire!
    if (wire.alive && !wire.write(b, 0, end)) this.#full = true
  }

  /** Reads on, waits, or ends, as things stand. */
  #balance(): void {
    const wire = this.#wire!
    if (!wire.alive) return
    const wait = this.#running >= this.#limits.concurrent || this.#full
    if (wait !== this.#paused) {
      this.#paused = wait
      if (wait) wire.pause()
      else wire.resume()
    }
    if (this.#running === 0 && (this.#over || (this.#ended && !this.#whole()))) wire.end()
  }

  /** A whole message waits to be looked at. */
  #whole(): boolean {
    return this.#rest.length >= 2 && this.#rest.length >= 2 + this.#rest.readUInt16BE(0)
  }

  drain(): void {
    this.#full = false
    this.#last = this.#driver.now
    this.#balance()
  }

  /** The client has said all; it still gets its answers. */
  eof(): void {
    this.#ended = true
    this.#balance()
  }

  closed(): void {
    this.#all.delete(this)
    this.#rest = nothing
  }

  /** Called now and then: ends what waits for nothing. */
  sweep(now: number): void {
    if (this.#wire?.alive !== true) return
    if (this.#full && now - this.#last > this.#limits.message) this.#wire.abort()
    else if (this.#running > 0) return
    else if (this.#rest.length > 0 && now - this.#began > this.#limits.message) this.#wire.abort()
    else if (now - this.#last > this.#limits.idle) {
      // The client gets our FIN, and a moment for its own.
      if (this.#over) this.#wire.abort()
      this.#over = true
      this.#last = now
      this.#wire.end()
    }
  }

  drainOut(): void {
    this.#over = true
    if (this.#wire !== undefined) this.#balance()
  }

  abort(): void {
    this.#wire?.abort()
  }
}
