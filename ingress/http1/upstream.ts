import type { Driver, Protocol, TlsClient, Wire } from '../../lib/sockets/seam.ts'
import type { Endpoint, UpstreamTls } from '../table.ts'
import { Body, CHUNKED, LENGTH, NONE, UNTIL_CLOSE } from './body.ts'
import { INCOMPLETE, parseResponse, type Head } from './head.ts'

/** The connections to one endpoint. */
export class Pool {
  readonly key: string
  readonly endpoint: Endpoint
  readonly tls: UpstreamTls | undefined
  /** Spoken by HTTP/2. */
  readonly http2: boolean
  /** Kept-alive ones, the last used last. */
  readonly idle: UpstreamConn[] = []
  /** Requests under way. */
  active = 0
  /** Not asked before this time unless nobody else is there. */
  ejectedUntil = 0
  /** When it joined endpoints that were there before; -1: it was there from the beginning, or that was long ago. */
  joined = -1
  failures = 0
  /** Peak EWMA of the time to the first octet, ms, and when it was last touched. */
  ewma = 0
  touched = 0
  /** Seconds the endpoint says it keeps idle connections. */
  keepAlive = 0
  gone = false

  constructor(key: string, endpoint: Endpoint, tls: UpstreamTls | undefined, http2 = false) {
    this.key = key
    this.endpoint = endpoint
    this.tls = tls
    this.http2 = http2
  }

  /** An idle connection that has not waited longer than `longest` ms. */
  take(now: number, longest: number): UpstreamConn | undefined {
    for (let c = this.idle.pop(); c !== undefined; c = this.idle.pop()) {
      if (c.wire.alive && !c.dead && now - c.since <= longest) return c
      c.dead = true
      c.wire.abort()
    }
    return undefined
  }

  remove(c: UpstreamConn): void {
    const i = this.idle.lastIndexOf(c)
    if (i >= 0) this.idle.splice(i, 1)
  }
}

/** Whose request a connection carries: what it tells of the answer. */
export interface Requester {
  readonly wire: Wire
  readonly method: string
  /** Chunk framing is taken out of the answer's body. */
  readonly dechunk: boolean
  readonly payload: { to: number }
  /** The answer was framed well and may be followed by another. */
  reusable: boolean
  upstreamOpened(): void
  upstreamDrained(): void
  /** A 1xx other than 101. */
  interim(h: Head): void
  respond(up: UpstreamConn, h: Head, b: Buffer, end: number, to: number): void
  /** Body octets of the answer. False: pause. */
  send(b: Buffer, from: number, to: number): boolean
  responseDone(up: UpstreamConn): void
  /** No answer came. `heard`: octets of one did. */
  upstreamFailed(up: UpstreamConn, why: string, status: number, heard: boolean): void
  upstreamBroke(why: string): void
  /** Passes a 101 on; false if nobody asked for it. */
  switchTo(up: UpstreamConn, h: Head, b: Buffer, end: number, to: number): boolean
  tunnelMoved(n: number): void
  tunnelEof(): void
  tunnelClosed(why: string): void
  broken(error: unknown): void
}

/** What an upstream connection needs from the engine. */
export interface UpstreamHost {
  readonly driver: Driver
  /** Used for every head; nothing in it outlives a call. */
  readonly head: Head
  readonly upstreams: Set<UpstreamConn>
  readonly maxIdle: number
  /** A wire to an endpoint that speaks HTTP/2: takes one request of HTTP/1.1 and gives its response. */
  http2Wire(pool: Pool, p: Protocol, timeout: number): Wire
}

/** One connection to an endpoint; carries one request at a time. */
export class UpstreamConn implements Protocol {
  readonly pool: Pool
  readonly #host: UpstreamHost
  wire!: Wire
  client: Requester | undefined
  opened_ = false
  /** It has carried a request before this one. */
  used = false
  dead = false
  /** Since when it is idle, or when the last octet moved. */
  since = 0
  /** The request as sent, for another try; empty when it cannot be sent again. */
  kept: Buffer | undefined
  keptLength = 0
  readonly body = new Body()
  /** 0: head awaited; 1: body; 2: tunnel; 3: idle. */
  state = 3
  #held: Buffer | undefined
  #heldLength = 0
  eofSeen = false

  constructor(host: UpstreamHost, pool: Pool) {
    this.#host = host
    this.pool = pool
  }

  connect(timeout: number): void {
    const { endpoint, tls, http2 } = this.pool
    this.wire = http2
      ? this.#host.http2Wire(this.pool, this, timeout)
      : this.#host.driver.connect({ host: endpoint.address, port: endpoint.port }, this, { timeout, ...(tls === undefined ? {} : { tls: tlsClient(tls) }) })
    this.#host.upstreams.add(this)
  }

  /** Takes on `client`'s request. */
  begin(client: Requester, now: number): void {
    this.client = client
    this.state = 0
    this.since = now
    this.#heldLength = 0
    this.pool.active++
  }

  /** Lets go of the client; afterwards the connection is idle or dead. */
  release(): void {
    if (this.client === undefined) return
    this.client = undefined
    this.pool.active--
  }

  opened(): void {
    this.opened_ = true
    this.client?.upstreamOpened()
  }

  data(b: Buffer, from: number, to: number): void {
    const client = this.client
    try {
      this.#data(client, b, from, to)
    } catch (error) {
      this.discard()
      client?.broken(error)
    }
  }

  #data(client: Requester | undefined, b: Buffer, from: number, to: number): void {
    if (client === undefined) {
      // Nobody asked: what comes now would be taken for the answer to the next request.
      this.discard()
      return
    }
    this.since = this.#host.driver.now
    if (this.state === 2) {
      if (!client.wire.write(b, from, to)) this.wire.pause()
      client.tunnelMoved(to - from)
      return
    }
    if (this.state === 1) {
      this.#bodyBytes(client, b, from, to)
      return
    }
    if (this.#heldLength > 0) {
      const length = this.#heldLength + to - from
      this.#grow(length)
      b.copy(this.#held!, this.#heldLength, from, to)
      this.#heldLength = 0
      this.#heads(client, this.#held!, 0, length)
    } else this.#heads(client, b, from, to)
  }

  #heads(client: Requester, b: Buffer, from: number, to: number): void {
    const { head } = this.#host
    for (;;) {
      const end = parseResponse(head, b, from, to)
      if (end === INCOMPLETE) {
        const length = to - from
        if (b === this.#held) b.copyWithin(0, from, to)
        else {
          this.#grow(length)
          b.copy(this.#held!, 0, from, to)
        }
        this.#heldLength = length
        return
      }
      if (end < 0) {
        this.discard()
        client.upstreamFailed(this, head.refusal!.reason, 502, true)
        return
      }
      if (head.status === 101) {
        if (!client.switchTo(this, head, b, end, to)) {
          this.discard()
          client.upstreamFailed(this, 'unasked 101', 502, true)
        }
        return
      }
      if (head.status < 200) {
        client.interim(head)
        from = end
        if (from === to) return
        continue
      }
      this.#start(head, client.method)
      client.respond(this, head, b, end, to)
      return
    }
  }

  #start(head: Head, method: string): void {
    const { status } = head
    this.state = 1
    if (method === 'HEAD' || status === 204 || status === 304) this.body.start(NONE)
    else if (head.chunked) this.body.start(CHUNKED)
    else if (head.contentLength >= 0) this.body.start(LENGTH, head.contentLength)
    else this.body.start(UNTIL_CLOSE)
  }

  #bodyBytes(client: Requester, b: Buffer, from: number, to: number): void {
    const payload = client.dechunk ? client.payload : undefined
    const end = this.body.advance(b, from, to, payload)
    if (end < 0) {
      this.discard()
      client.upstreamBroke(this.body.bad)
      return
    }
    if (end < to) client.reusable = false
    const last = payload === undefined ? end : payload.to
    if (last > from && !client.send(b, from, last) && !this.body.done) this.wire.pause()
    if (this.body.done) client.responseDone(this)
  }

  drain(): void {
    this.client?.upstreamDrained()
  }

  eof(): void {
    const client = this.client
    if (client === undefined) {
      this.discard()
      return
    }
    if (this.state === 2) {
      this.eofSeen = true
      client.tunnelEof()
      return
    }
    this.#over(client, 'the endpoint closed the connection', true)
  }

  closed(why: string): void {
    this.dead = true
    this.#host.upstreams.delete(this)
    const client = this.client
    if (client === undefined) {
      this.pool.remove(this)
      return
    }
    if (this.state === 2) {
      client.tunnelClosed(why)
      return
    }
    this.#over(client, why, why === '')
  }

  #over(client: Requester, why: string, inOrder: boolean): void {
    if (this.state === 1 && this.body.kind === UNTIL_CLOSE && inOrder) {
      this.body.done = true
      this.discard()
      client.reusable = false
      client.responseDone(this)
      return
    }
    const began = this.state === 1
    this.discard()
    if (began) client.upstreamBroke(why === '' ? 'the endpoint closed the connection in the middle of its answer' : why)
    else client.upstreamFailed(this, why === '' ? 'the endpoint closed the connection' : why, /timeout|timed out/i.test(why) ? 504 : 502, this.#heldLength > 0)
  }

  /** Never used again. */
  discard(): void {
    if (this.dead) return
    this.dead = true
    this.pool.remove(this)
    this.wire.abort()
  }

  /** After an answer taken whole: waits for the next request, or ends. */
  rest(keep: boolean, now: number): void {
    this.release()
    this.state = 3
    this.kept = this.kept !== undefined && this.kept.length <= 4096 ? this.kept : undefined
    this.used = true
    this.since = now
    if (!keep || this.pool.http2 || this.dead || this.pool.gone || this.pool.idle.length >= this.#host.maxIdle || !this.wire.alive) this.discard()
    else this.pool.idle.push(this)
  }

  /** Copies what was sent, so that it can be sent elsewhere. */
  keep(b: Buffer, length: number): void {
    if (this.kept === undefined || this.kept.length < length) this.kept = Buffer.allocUnsafeSlow(Math.max(1024, length))
    b.copy(this.kept, 0, 0, length)
    this.keptLength = length
  }

  #grow(length: number): void {
    if (this.#held !== undefined && this.#held.length >= length) return
    const bigger = Buffer.allocUnsafeSlow(Math.max(4096, length * 2))
    this.#held?.copy(bigger, 0, 0, this.#heldLength)
    this.#held = bigger
  }
}

/** What a driver is asked for by these settings. */
export function tlsClient(tls: UpstreamTls): TlsClient {
  return {
    verify: tls.verify,
    ...(tls.serverName === undefined ? {} : { serverName: tls.serverName }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.identity === undefined ? {} : { identity: tls.identity }),
  }
}
