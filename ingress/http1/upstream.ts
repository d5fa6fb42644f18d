import type { Driver, Protocol, TlsClient, Wire } from '../../lib/sockets/seam.ts'
import type { Endpoint, UpstreamTls } from '../table.ts'
import { Body, CHUNKED, LENGTH, NONE, UNTIL_CLOSE } from './body.ts'
import type { ClientConn } from './client.ts'
import { INCOMPLETE, parseResponse, type Head } from './head.ts'

/** The connections to one endpoint. */
export class Pool {
  readonly key: string
  readonly endpoint: Endpoint
  readonly tls: UpstreamTls | undefined
  /** Kept-alive ones, the last used last. */
  readonly idle: UpstreamConn[] = []
  /** Requests under way. */
  active = 0
  /** Not asked before this time unless nobody else is there. */
  ejectedUntil = 0
  failures = 0
  /** Peak EWMA of the time to the first octet, ms, and when it was last touched. */
  ewma = 0
  touched = 0
  /** Seconds the endpoint says it keeps idle connections. */
  keepAlive = 0
  gone = false

  constructor(key: string, endpoint: Endpoint, tls: UpstreamTls | undefined) {
    this.key = key
    this.endpoint = endpoint
    this.tls = tls
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

/** What an upstream connection needs from the engine. */
export interface UpstreamHost {
  readonly driver: Driver
  /** Used for every head; nothing in it outlives a call. */
  readonly head: Head
  readonly upstreams: Set<UpstreamConn>
  readonly maxIdle: number
}

/** One connection to an endpoint; carries one request at a time. */
export class UpstreamConn implements Protocol {
  readonly pool: Pool
  readonly #host: UpstreamHost
  wire!: Wire
  client: ClientConn | undefined
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
    const { endpoint, tls } = this.pool
    this.wire = this.#host.driver.connect({ host: endpoint.address, port: endpoint.port }, this, { timeout, ...(tls === undefined ? {} : { tls: tlsClient(tls) }) })
    this.#host.upstreams.add(this)
  }

  /** Takes on `client`'s request. */
  begin(client: ClientConn, now: number): void {
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

  #data(client: ClientConn | undefined, b: Buffer, from: number, to: number): void {
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

  #heads(client: ClientConn, b: Buffer, from: number, to: number): void {
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

  #bodyBytes(client: ClientConn, b: Buffer, from: number, to: number): void {
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

  #over(client: ClientConn, why: string, inOrder: boolean): void {
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
    if (!keep || this.dead || this.pool.gone || this.pool.idle.length >= this.#host.maxIdle || !this.wire.alive) this.discard()
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

function tlsClient(tls: UpstreamTls): TlsClient {
  return {
    verify: tls.verify,
    ...(tls.serverName === undefined ? {} : { serverName: tls.serverName }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.identity === undefined ? {} : { identity: tls.identity }),
  }
}
