import type { Protocol, TlsInfo, Wire } from '../../lib/sockets/seam.ts'
import { match } from '../match.ts'
import type { Endpoint, Route, RouteTable, Upstream } from '../table.ts'
import { Body, CHUNKED, LENGTH, NONE, UNTIL_CLOSE } from './body.ts'
import type { Engine, Frontend, Linked, Seeking } from './engine.ts'
import { renderAnswer, safe, type Answer, type ResponseView } from './exchange.ts'
import { fields } from './grammar.ts'
import { hostOf, INCOMPLETE, parseRequest, type Head } from './head.ts'
import { parseTarget } from './target.ts'
import type { Pool, Requester, UpstreamConn } from './upstream.ts'

/** What a client connection is doing. */
export const IDLE = 0
const STEPS = 1
const BUSY = 2
const TUNNEL = 3
/** Answered by ourselves; the rest of the request is taken and thrown away. */
const DISCARD = 4
/** Our FIN is on its way; what still comes is thrown away. */
const LINGER = 5
const CLOSED = 6
/** HTTP/2 after all: everything goes to `#other`. */
const OTHER = 7

/** A body that is no longer than this is read to its end to keep the connection. */
const discardLimit = 65_536
/** More than this never waits here: a pipelining client is paused. */
const holdLimit = 65_536
/** First octets of a body go out with the head if they are no more than this. */
const together = 16_384

const idempotent = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE'])

/** One connection from a client; serves one request after the other. */
export class ClientConn implements Protocol, Seeking, Requester {
  readonly #server: Engine
  readonly frontend: Frontend
  wire!: Wire
  state = IDLE
  /** When the state began or the last octet moved, ms. */
  since = 0
  #held: Buffer | undefined
  #heldLength = 0
  /** The client does not take our octets as fast as they come. */
  clogged = false
  #paused = false
  eofSeen = false
  #again = false
  /** The driver moves the octets of the tunnel by itself: we no longer see when it is silent. */
  #spliced = false
  /** One stream of an HTTP/2 connection. */
  readonly #stream: boolean
  #other: Protocol | undefined

  // The request under way.
  table!: RouteTable
  route!: Route
  linked!: Linked
  method = ''
  host = ''
  authority = ''
  path = ''
  query = ''
  client = ''
  requestId = ''
  startedAt = 0
  firstByteAt = 0
  connectAt = 0
  connectedAt = 0
  status = 0
  reason = ''
  keep = false
  http10 = false
  #raw = false
  #upgrade = ''
  #expect = false
  readonly body = new Body()
  trace: unknown = undefined
  bytesIn = 0
  bytesOut = 0
  requests = 0
  up: UpstreamConn | undefined
  /** The endpoint's last answer was framed well and may be followed by another. */
  reusable = false
  dechunk = false
  readonly payload = { to: 0 }
  tries = 0
  #tried: Pool[] = []
  #beyond = false
  #began = false
  #close = false
  #recorded = true
  userAgent = ''
  referer = ''
  /** Key of the endpoint that was asked last. */
  lastEndpoint = ''

  // What steps asked for.
  target: string | undefined
  upstreamHost: string | undefined
  upstream!: Upstream
  endpoint: Endpoint | undefined
  sticky: Endpoint | undefined
  asked: Endpoint | undefined
  satisfied = false
  hashText: string | undefined
  #requestLines = ''
  #requestDrops: string[] | undefined
  #responseLines = ''
  #responseDrops: string[] | undefined
  #ends: (() => void)[] | undefined
  #step = 0

  // The last host, so that a connection that keeps asking for one makes no strings.
  #lastAuthority = '\n'
  #lastHost = ''
  #forwarded = ''
  #forwardedFor = ''

  constructor(server: Engine, frontend: Frontend, stream = false) {
    this.#server = server
    this.frontend = frontend
    this.#stream = stream
  }

  get secure(): boolean {
    return this.#proto === 'https'
  }
  get port(): number {
    return this.wire.local.port
  }
  get tls(): TlsInfo | undefined {
    return this.wire.tls
  }
  get now(): number {
    return this.#server.driver.now
  }
  #proto: 'http' | 'https' = 'http'

  // The wire.

  opened(w: Wire): void {
    this.wire = w
    this.since = this.#server.driver.now
    this.#server.connections++
    if (!this.#stream && w.tls?.alpn === 'h2' && this.#handOver()) return
    this.#server.clients.add(this)
  }

  /** Whether somebody else speaks HTTP/2 with this client from now on. */
  #handOver(): boolean {
    this.#other = this.#server.http2(this.wire, this.frontend)
    if (this.#other === undefined) return false
    this.state = OTHER
    this.#server.clients.delete(this)
    return true
  }

  data(b: Buffer, from: number, to: number): void {
    try {
      this.#data(b, from, to)
    } catch (error) {
      this.broken(error)
    }
  }

  /** What nobody foresaw ends this connection, and no other. */
  broken(error: unknown): void {
    this.#server.failed('a connection failed', error)
    this.reason = 'internal error'
    if (!this.#began) this.status = 500
    this.#dropUpstream()
    this.#record()
    this.state = LINGER
    this.wire.abort()
  }

  #data(b: Buffer, from: number, to: number): void {
    this.since = this.#server.driver.now
    switch (this.state) {
      case IDLE:
        if (this.#heldLength > 0 || this.clogged) {
          this.#hold(b, from, to)
          // A head is read anew only when a line has ended: reading at every octet would be quadratic.
          if (!this.clogged && (this.#heldLength > this.#server.head.limits.head || hasLineEnd(b, from, to))) this.#work()
        } else this.#take(b, from, to, this.#heads(b, from, to))
        break
      case BUSY:
      case DISCARD:
        this.#take(b, from, to, this.body.done ? from : this.#bodyBytes(b, from, to))
        break
      case STEPS:
        this.#hold(b, from, to)
        break
      case TUNNEL:
        if (!this.up!.wire.write(b, from, to)) this.wire.pause()
        this.bytesIn += to - from
        break
      case LINGER:
        this.bytesIn += to - from
        if (this.bytesIn > 1_048_576) this.wire.abort()
        break
      case OTHER:
        this.#other!.data(b, from, to)
        break
      default:
    }
  }

  /** Holds what was left of b[from, to), and goes on with it if it is a request's turn. */
  #take(b: Buffer, from: number, to: number, rest: number): void {
    if (rest >= to || this.state === LINGER || this.state === CLOSED) return
    this.#hold(b, rest, to)
    if (this.state === IDLE && rest > from) this.#work()
  }

  drain(): void {
    if (this.state === OTHER) return this.#other!.drain()
    this.clogged = false
    this.since = this.#server.driver.now
    if (this.up !== undefined) this.up.wire.resume()
    if (this.state === IDLE && this.#heldLength > 0) this.#work()
  }

  eof(): void {
    if (this.state === OTHER) return this.#other!.eof()
    this.eofSeen = true
    if (this.state === TUNNEL) {
      this.up!.wire.end()
      return
    }
    if (this.state === IDLE || this.state === LINGER) {
      // Nothing asked, or half a head: nobody waits for an answer.
      if (this.state === IDLE) this.#linger()
      return
    }
    if (!this.body.done) this.#giveUp('the client closed the connection in the middle of its request')
  }

  closed(why: string): void {
    const before = this.state
    if (before === OTHER) return this.#other!.closed(why)
    this.state = CLOSED
    this.#server.clients.delete(this)
    if (before === TUNNEL) {
      const up = this.up!
      this.up = undefined
      up.release()
      // Both sides ended in order: the endpoint's FIN answers ours by itself, a sweep ends it if not.
      if (why === '' && (up.eofSeen || this.#spliced)) {
        up.state = 3
        up.since = this.#server.driver.now
      } else up.discard()
      this.#record()
      return
    }
    if (!this.#recorded) {
      this.reason ||= why === '' ? 'the client went away' : why
      if (!this.#began) this.status = 499
      this.#dropUpstream()
      this.#record()
    }
    this.#held = undefined
  }

  // Requests.

  #hold(b: Buffer, from: number, to: number): void {
    const more = to - from
    if (more === 0) return
    const length = this.#heldLength + more
    if (this.#held === undefined || this.#held.length < length) {
      const bigger = Buffer.allocUnsafeSlow(Math.max(1024, length * 2))
      if (this.#heldLength > 0) this.#held!.copy(bigger, 0, 0, this.#heldLength)
      this.#held = bigger
    }
    b.copy(this.#held, this.#heldLength, from, to)
    this.#heldLength = length
    if (length >= holdLimit && (this.state !== IDLE || this.clogged) && !this.#paused) {
      this.#paused = true
      this.wire.pause()
    }
  }

  /** Goes on with what was held. */
  #work(): void {
    // Answers of our own may end a request inside: a loop, not a recursion.
    if (this.#again) return
    this.#again = true
    while (this.#heldLength > 0 && !this.clogged) {
      const b = this.#held!
      const length = this.#heldLength
      this.#heldLength = 0
      let rest: number
      if (this.state === IDLE) {
        rest = this.#heads(b, 0, length)
        if (rest === 0 && this.state === IDLE) {
          this.#heldLength = length
          break
        }
      } else if ((this.state === BUSY || this.state === DISCARD) && !this.body.done) rest = this.#bodyBytes(b, 0, length)
      else {
        this.#heldLength = length
        break
      }
      if (this.over) break
      if (rest < length) {
        if (rest > 0) b.copyWithin(0, rest, length)
        this.#heldLength = length - rest
      }
    }
    this.#again = false
    if (this.#heldLength === 0 && this.state === IDLE) this.#held = undefined
    if (this.#paused && this.#heldLength < holdLimit) {
      this.#paused = false
      this.wire.resume()
    }
  }

  /** Reads one head of b[from, to) and acts on it; returns where what it did not take begins. */
  #heads(b: Buffer, from: number, to: number): number {
    const { head } = this.#server
    const end = parseRequest(head, b, from, to)
    if (end === INCOMPLETE) return from
    if (this.#server.draining) this.#close = true
    if (end < 0) {
      // A client that knows beforehand that we speak HTTP/2 (RFC 9113 3.3).
      if (this.requests === 0 && !this.#stream && !this.frontend.secure && isPreface(b, from, to) && this.#handOver()) {
        this.#other!.data(b, from, to)
        return to
      }
      this.#reset(head)
      this.method = ''
      this.keep = false
      this.body.start(NONE)
      this.#answerNow({ status: head.refusal!.status, reason: head.refusal!.reason })
      return to
    }
    return this.#begin(head, b, end, to)
  }

  #reset(h: Head): void {
    const { driver } = this.#server
    this.requests++
    this.#server.requests++
    this.startedAt = driver.now
    this.firstByteAt = 0
    this.connectAt = 0
    this.connectedAt = 0
    this.status = 0
    this.reason = ''
    this.trace = undefined
    this.bytesIn = 0
    this.bytesOut = 0
    this.table = this.frontend.table
    this.route = unrouted
    this.linked = this.#server.unrouted
    this.tries = 0
    this.lastEndpoint = ''
    if (this.#tried.length > 0) this.#tried = []
    this.#beyond = false
    this.#began = false
    this.#recorded = false
    this.#close = this.#server.draining
    this.target = undefined
    this.upstreamHost = undefined
    this.endpoint = undefined
    this.sticky = undefined
    this.asked = undefined
    this.satisfied = false
    this.hashText = undefined
    this.#requestLines = ''
    this.#requestDrops = undefined
    this.#responseLines = ''
    this.#responseDrops = undefined
    this.#ends = undefined
    this.#upgrade = ''
    this.#expect = false
    this.dechunk = false
    this.requestId = ''
    this.path = ''
    this.query = ''
    this.client = this.wire.peer
    this.http10 = h.minor === 0
    this.userAgent = ''
    this.referer = ''
  }

  #begin(h: Head, b: Buffer, end: number, to: number): number {
    this.#reset(h)
    this.method = h.method
    this.keep = h.minor === 1 ? !h.close : h.keepAlive && !h.close
    this.#expect = h.expect && h.minor === 1
    if (h.chunked) this.body.start(CHUNKED)
    else if (h.contentLength > 0) this.body.start(LENGTH, h.contentLength)
    else this.body.start(NONE)
    if (this.#server.logsAgents) {
      this.userAgent = h.userAgent < 0 ? '' : h.value(h.userAgent)
      this.referer = h.referer < 0 ? '' : h.value(h.referer)
    }
    this.#identify(h, b)

    if (h.method === 'CONNECT' || h.method === 'TRACE')
      return this.#refuse(b, end, to, { status: 405, reason: `${h.method} is not served`, headers: [['Allow', 'GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH']] })
    let authority: string | undefined
    if (!h.odd && b[h.targetFrom] === 47) {
      this.#raw = true
      this.path = b.latin1Slice(h.targetFrom, h.queryFrom)
      this.query = h.queryFrom === h.targetTo ? '' : b.latin1Slice(h.queryFrom, h.targetTo)
    } else {
      const text = b.latin1Slice(h.targetFrom, h.targetTo)
      if (text === '*' && h.method === 'OPTIONS') return this.#refuse(b, end, to, { status: 200, body: '', reason: 'OPTIONS *' })
      const target = parseTarget(text)
      if (target === undefined) {
        this.path = text
        return this.#refuse(b, end, to, { status: 400, reason: 'malformed or ambiguous request target' })
      }
      this.#raw = false
      this.path = target.path
      this.query = target.query
      authority = target.authority
    }
    if (authority === undefined) {
      if (!this.#sameAuthority(b, h)) {
        this.authority = h.hosts === 0 ? '' : b.latin1Slice(h.hostFrom, h.hostTo)
        const host = h.hosts === 0 ? '' : hostOf(b, h.hostFrom, h.hostTo)
        if (host === undefined) return this.#refuse(b, end, to, { status: 400, reason: 'malformed Host' })
        this.host = host
        this.#lastAuthority = this.authority
        this.#lastHost = host
        this.#forwarded = ''
      }
    } else {
      // RFC 9112 3.2.2: the target's authority counts, the Host beside it does not.
      const bytes = Buffer.from(authority, 'latin1')
      const host = hostOf(bytes, 0, bytes.length)
      if (host === undefined) return this.#refuse(b, end, to, { status: 400, reason: 'malformed authority' })
      this.authority = authority
      this.host = host
      this.#lastAuthority = authority
      this.#lastHost = host
      this.#forwarded = ''
    }
    const route = match(this.table, this.host, this.path)
    if (route === undefined) return this.#refuse(b, end, to, { status: 404, reason: 'no route' })
    this.route = route
    this.linked = this.#server.link(route)
    this.upstream = route.upstream
    if (route.maxBody > 0 && h.contentLength > route.maxBody) return this.#refuse(b, end, to, { status: 413, reason: 'body too large' })
    if (h.upgrade && h.upgradeTo > h.upgradeFrom && h.minor === 1 && this.body.done) {
      const protocol = b.latin1Slice(h.upgradeFrom, h.upgradeTo)
      // HTTP/1.1 lets a server ignore an upgrade; an h2c tunnel would carry requests past every rule.
      if (!/h2c|http/i.test(protocol)) this.#upgrade = protocol
    }
    const { traced } = this.#server
    if (traced !== undefined) {
      const { trace, traceparent } = traced(h.get('traceparent'))
      this.trace = trace
      this.dropRequest('traceparent')
      this.addRequest('traceparent', traceparent)
    }
    this.#step = 0
    return this.#steps(h, b, end, to)
  }

  #sameAuthority(b: Buffer, h: Head): boolean {
    const text = this.#lastAuthority
    if (h.hosts === 0 || h.hostTo - h.hostFrom !== text.length) return false
    for (let i = 0; i < text.length; i++) if (b[h.hostFrom + i] !== text.charCodeAt(i)) return false
    this.authority = text
    this.host = this.#lastHost
    return true
  }

  /** Who asks, by what protocol, and under which id. */
  #identify(h: Head, b: Buffer): void {
    const { trusts } = this.#server
    this.#proto = this.frontend.secure ? 'https' : 'http'
    this.#forwardedFor = ''
    if (trusts !== undefined && trusts(this.wire.peer)) {
      const chain = h.raw(fields.xForwardedFor)
      if (chain !== '') {
        const hops = chain.split(',').map((s) => s.trim())
        let i = hops.length - 1
        while (i > 0 && trusts(hops[i]!)) i--
        const client = hops[i]!
        if (/^[0-9a-fA-F.:]{2,45}$/.test(client)) {
          this.client = client
          this.#forwardedFor = `${chain}, ${this.wire.peer}`
        }
      }
      const proto = h.raw(fields.xForwardedProto).toLowerCase()
      if (proto === 'https' || proto === 'http') this.#proto = proto
      this.#forwarded = ''
    }
    const n = h.requestIdTo - h.requestIdFrom
    if (n > 0 && n <= 128) {
      const id = b.latin1Slice(h.requestIdFrom, h.requestIdTo)
      if (/^[\w\-.:=+/]+$/.test(id)) {
        this.requestId = id
        return
      }
    }
    this.requestId = this.#server.nextId()
  }

  /** Refuses before anything was forwarded; what of the body came along is taken. */
  #refuse(b: Buffer, end: number, to: number, answer: Answer): number {
    this.#answerNow(answer)
    if (this.state === LINGER || this.state === CLOSED) return to
    return this.state === DISCARD ? this.#bodyBytes(b, end, to) : end
  }

  #steps(h: Head, b: Buffer, end: number, to: number): number {
    const { steps } = this.linked
    while (this.#step < steps.length) {
      const step = steps[this.#step++]!
      if (step.request === undefined) continue
      let said: Answer | undefined | Promise<Answer | undefined>
      try {
        said = step.request(this)
      } catch (error) {
        this.#server.failed('a step failed', error)
        said = { status: 500, reason: 'internal error' }
      }
      if (said === undefined) continue
      if (!(said instanceof Promise)) return this.#refuse(b, end, to, said)
      // The head outlives this call only as a copy.
      const saved = Buffer.allocUnsafeSlow(end - h.from)
      b.copy(saved, 0, h.from, end)
      this.state = STEPS
      const asked = this.requests
      const go = (answer: Answer | undefined): void => {
        if (this.state !== STEPS || this.requests !== asked) return
        if (answer === undefined) {
          const again = parseRequest(h, saved, 0, saved.length)
          this.#steps(h, saved, again, again)
        } else this.#answerNow(answer)
        if (this.state !== STEPS) this.#work()
        if (this.eofSeen && !this.body.done && this.#heldLength === 0) this.#giveUp('the client closed the connection in the middle of its request')
      }
      said.then(go, (error: unknown) => {
        this.#server.failed('a step failed', error)
        go({ status: 500, reason: 'internal error' })
      })
      return end
    }
    return this.#forward(h, b, end, to)
  }

  // Forwarding.

  #forward(h: Head, b: Buffer, end: number, to: number): number {
    const server = this.#server
    const pool = server.choose(this, this.#tried)
    if (pool === undefined) return this.#refuse(b, end, to, { status: 503, reason: 'no endpoint' })
    this.state = BUSY
    const scratch = server.scratch
    let at = this.#compose(h, b, scratch)
    if (at < 0) return this.#refuse(b, end, to, { status: 431, reason: 'head too large' })
    const bodyEnd = this.#advance(b, end, to)
    if (bodyEnd < 0) {
      this.keep = false
      this.body.done = true
      return this.#refuse(b, to, to, { status: 400, reason: this.body.bad })
    }
    if (this.#overLimit()) {
      this.keep = false
      this.body.done = true
      return this.#refuse(b, to, to, { status: 413, reason: 'body too large' })
    }
    const more = bodyEnd - end
    const whole = more <= together
    if (whole && more > 0) {
      b.copy(scratch, at, end, bodyEnd)
      at += more
    }
    this.bytesIn += bodyEnd - h.from
    const up = this.#connect(pool)
    if (whole) {
      up.keep(scratch, at)
      this.#write(up, scratch, 0, at, false)
    } else {
      this.#beyond = true
      this.#write(up, scratch, 0, at, true)
      this.#write(up, b, end, bodyEnd, false)
    }
    return bodyEnd
  }

  #connect(pool: Pool): UpstreamConn {
    const server = this.#server
    this.tries++
    this.lastEndpoint = pool.key
    this.asked = pool.endpoint
    if (!this.#tried.includes(pool)) this.#tried.push(pool)
    const up = server.connection(pool, this.method, this.route.timeouts.connect)
    up.begin(this, server.driver.now)
    this.up = up
    if (!up.opened_) {
      this.connectAt = server.driver.now
      // Until it stands, nothing but what can be sent again is sent.
      if (!this.body.done) this.wire.pause()
    }
    return up
  }

  #write(up: UpstreamConn, b: Buffer, from: number, to: number, more: boolean): void {
    if (!up.wire.write(b, from, to, more) && !this.body.done) this.wire.pause()
  }

  #advance(b: Buffer, from: number, to: number): number {
    return this.body.done ? from : this.body.advance(b, from, to)
  }

  #overLimit(): boolean {
    return this.route.maxBody > 0 && this.body.content > this.route.maxBody
  }

  /** The head for the endpoint, into `out`; returns its end, -1 when it does not fit. */
  #compose(h: Head, b: Buffer, out: Buffer): number {
    if (this.#requestDrops !== undefined) for (const name of this.#requestDrops) h.dropNamed(name)
    const replaceHost = this.upstreamHost !== undefined || h.hosts === 0 || (!this.#raw && this.authority !== b.latin1Slice(h.hostFrom, h.hostTo))
    if (replaceHost) h.dropNamed('host')
    let at: number
    let from: number
    if (this.#raw && this.target === undefined && h.minor === 1) {
      // Request line and first kept lines are one piece.
      at = 0
      from = h.from
    } else {
      at = b.copy(out, 0, h.from, h.methodEnd + 1)
      at += out.latin1Write(`${this.target ?? this.path + this.query} HTTP/1.1\r\n`, at)
      from = h.linesFrom
    }
    at = copyKept(h, b, from, out, at)
    let text = replaceHost ? `Host: ${this.upstreamHost ?? this.authority}\r\n` : ''
    if (h.chunked) text += 'Transfer-Encoding: chunked\r\n'
    else if (h.contentLength >= 0) text += `Content-Length: ${h.contentLength}\r\n`
    if (this.#upgrade !== '') text += `Connection: upgrade\r\nUpgrade: ${this.#upgrade}\r\n`
    text += `X-Request-ID: ${this.requestId}\r\n${this.#forwardedLines()}${this.#requestLines}\r\n`
    if (at + text.length + together > out.length) return -1
    return at + out.latin1Write(text, at)
  }

  #forwardedLines(): string {
    if (this.#forwarded !== '') return this.#forwarded
    const { client } = this
    const text =
      `X-Real-IP: ${client}\r\nX-Forwarded-For: ${this.#forwardedFor === '' ? client : this.#forwardedFor}\r\nX-Forwarded-Host: ${this.authority}\r\n` +
      `X-Forwarded-Port: ${this.wire.local.port}\r\nX-Forwarded-Proto: ${this.#proto}\r\nX-Forwarded-Scheme: ${this.#proto}\r\nX-Scheme: ${this.#proto}\r\n`
    this.#forwarded = text
    return text
  }

  /** Body octets that came after the head; returns where the body ends in b. */
  #bodyBytes(b: Buffer, from: number, to: number): number {
    const end = this.body.advance(b, from, to)
    if (end < 0) {
      this.#badBody(400, this.body.bad)
      return to
    }
    this.bytesIn += end - from
    if (this.state === DISCARD) {
      if (this.body.content > discardLimit) this.#linger()
      else if (this.body.done) this.#next()
      return end
    }
    if (this.#overLimit()) {
      this.#badBody(413, 'body too large')
      return to
    }
    const { up } = this
    if (up !== undefined) {
      this.#beyond = true
      up.since = this.#server.driver.now
      if (end > from) this.#write(up, b, from, end, false)
    }
    return end
  }

  /** The request cannot be finished: what the endpoint has got of it must not be taken for whole. */
  #badBody(status: number, reason: string): void {
    this.keep = false
    this.body.done = true
    if (this.state === DISCARD) {
      this.#linger()
      return
    }
    this.#dropUpstream()
    if (this.#began) {
      this.reason = reason
      this.#record()
      this.wire.abort()
      this.state = LINGER
    } else this.#answerNow({ status, reason })
  }

  upstreamOpened(): void {
    this.connectedAt = this.#server.driver.now
    if (this.state === BUSY && !this.body.done) this.wire.resume()
  }

  upstreamDrained(): void {
    if (this.state === TUNNEL || !this.body.done) this.wire.resume()
  }

  // Answers.

  /** A 1xx other than 101. */
  interim(h: Head): void {
    if (this.http10) return
    if (h.status === 100) {
      if (!this.#expect) return
      this.#expect = false
    }
    this.wire.write(h.b, h.from, h.end)
  }

  /** The head of the endpoint's answer, and what came with it. */
  respond(up: UpstreamConn, h: Head, b: Buffer, end: number, to: number): void {
    const server = this.#server
    const { responses } = this.linked
    this.firstByteAt = server.driver.now
    server.heard(up.pool, this.firstByteAt - this.startedAt)
    const { retries } = this.route
    if (retries.statuses.length > 0 && retries.statuses.includes(h.status) && this.#mayRetry(up, false)) {
      up.discard()
      if (this.#retry(up)) return
    }
    this.reusable = h.minor === 1 ? !h.close : h.keepAlive && !h.close
    if (h.keepAliveSeconds > 0) up.pool.keepAlive = h.keepAliveSeconds
    if (responses.length > 0) {
      const view: ResponseView = { status: h.status, header: (name) => h.get(name), headers: (name) => valuesOf(h, name) }
      for (const step of responses) {
        const said = step.response!(this, view)
        if (said === undefined) continue
        this.#dropUpstream()
        if (said instanceof Promise) this.#answerLater(said)
        else this.#answerNow(said)
        return
      }
    }
    if (this.#responseDrops !== undefined) for (const name of this.#responseDrops) h.dropNamed(name)
    const { body } = up
    this.dechunk = body.kind === CHUNKED && this.http10
    const close = !this.keep || this.#close || server.draining || body.kind === UNTIL_CLOSE || this.dechunk || !this.body.done
    this.#close = close
    const payload = this.dechunk ? this.payload : undefined
    const bodyEnd = body.advance(b, end, to, payload)
    if (bodyEnd < 0) {
      up.discard()
      this.upstreamFailed(up, body.bad, 502, true)
      return
    }
    if (bodyEnd < to) this.reusable = false
    const last = payload === undefined ? bodyEnd : payload.to
    if (this.dechunk) h.dropNamed('transfer-encoding')
    if (h.status === 204) h.dropNamed('content-length')

    const out = server.scratch
    let at: number
    let from: number
    if (h.minor === 1) {
      at = 0
      from = h.from
    } else {
      at = out.latin1Write('HTTP/1.1', 0)
      at += b.copy(out, at, h.from + 8, h.linesFrom)
      from = h.linesFrom
    }
    at = copyKept(h, b, from, out, at)
    let text = h.hasServer ? '' : 'Server: switchyard\r\n'
    if (close) text += 'Connection: close\r\n'
    else if (this.http10) text += 'Connection: keep-alive\r\n'
    text += `${this.#responseLines}\r\n`
    if (at + text.length + together > out.length) {
      up.discard()
      this.upstreamFailed(up, 'answer head too large', 502, true)
      return
    }
    at += out.latin1Write(text, at)
    this.status = h.status
    this.#began = true
    const more = last - end
    let flowing: boolean
    if (more > 0 && at <= end - h.from) {
      // The new head is no longer than the old one: it takes its place, and the body goes from where it lies.
      out.copy(b, end - at, 0, at)
      flowing = this.wire.write(b, end - at, last)
      at += more
    } else if (more <= together) {
      if (more > 0) {
        b.copy(out, at, end, last)
        at += more
      }
      flowing = this.wire.write(out, 0, at)
    } else {
      this.wire.write(out, 0, at, true)
      flowing = this.wire.write(b, end, last)
      at += more
    }
    this.bytesOut += at
    if (!flowing) {
      this.clogged = true
      if (!body.done) up.wire.pause()
    }
    if (body.done) this.responseDone(up)
  }

  /** Body octets of the answer. False: pause. */
  send(b: Buffer, from: number, to: number): boolean {
    this.bytesOut += to - from
    this.since = this.#server.driver.now
    if (this.wire.write(b, from, to)) return true
    this.clogged = true
    return false
  }

  responseDone(up: UpstreamConn): void {
    const finished = this.body.done
    this.up = undefined
    up.rest(this.reusable && finished, this.#server.driver.now)
    this.#record()
    if (this.#close || !this.keep || !finished) this.#linger()
    else this.#next()
  }

  /** No answer came. `heard`: octets of one did. */
  upstreamFailed(up: UpstreamConn, why: string, status: number, heard: boolean): void {
    if (this.up !== up) return
    const server = this.#server
    server.refused(up, why, heard)
    if (!heard && this.#mayRetry(up, status === 504) && this.#retry(up)) return
    this.up = undefined
    up.release()
    this.#answerNow({ status, reason: why })
  }

  #mayRetry(up: UpstreamConn, timeout: boolean): boolean {
    const { retries } = this.route
    if (this.#beyond || this.#began || up.keptLength === 0) return false
    if (retries.within > 0 && this.#server.driver.now - this.startedAt >= retries.within) return false
    // A connection that had gone stale says nothing about the endpoint, and does not count.
    const stale = up.used && !timeout
    if (!stale && (this.tries >= retries.tries || !(timeout ? retries.timeout : retries.error))) return false
    if (this.tries > retries.tries + 4) return false
    return !up.opened_ || retries.nonIdempotent || idempotent.has(this.method)
  }

  #retry(up: UpstreamConn): boolean {
    const server = this.#server
    if (up.used) this.#tried = this.#tried.filter((p) => p !== up.pool)
    this.endpoint = undefined
    const pool = server.choose(this, this.#tried)
    if (pool === undefined || this.#tried.includes(pool)) return false
    up.release()
    const next = this.#connect(pool)
    next.kept = up.kept
    next.keptLength = up.keptLength
    up.kept = undefined
    server.retries++
    this.#write(next, next.kept!, 0, next.keptLength, false)
    return true
  }

  /** The answer broke off after its head had been passed on: the client must see that it is not whole. */
  upstreamBroke(why: string): void {
    this.reason = why
    this.#dropUpstream()
    this.#record()
    this.state = LINGER
    this.wire.abort()
  }

  #dropUpstream(): void {
    const { up } = this
    if (up === undefined) return
    this.up = undefined
    up.release()
    up.discard()
  }

  #answerLater(promise: Promise<Answer>): void {
    this.state = STEPS
    const asked = this.requests
    const go = (answer: Answer): void => {
      if (this.state !== STEPS || this.requests !== asked) return
      this.#answerNow(answer)
      if (this.state !== STEPS) this.#work()
    }
    promise.then(go, (error: unknown) => {
      this.#server.failed('a step failed', error)
      go({ status: 502, reason: 'internal error' })
    })
  }

  #answerNow(answer: Answer): void {
    let close = !this.keep || this.#close || this.#server.draining
    let discard = false
    if (!this.body.done && !close) {
      // A client that waits for 100 may or may not send the body: nobody can tell where the next request begins.
      discard = !this.#expect && answer.status !== 413 && this.body.left <= discardLimit
      close = !discard
    }
    const text = renderAnswer(answer, {
      head: this.method === 'HEAD',
      close,
      http10KeepAlive: this.http10 && !close,
      requestId: this.requestId,
      extra: this.#responseLines,
    })
    const { scratch } = this.#server
    const b = text.length <= scratch.length ? scratch : Buffer.allocUnsafeSlow(text.length)
    b.latin1Write(text, 0)
    if (!this.wire.write(b, 0, text.length)) this.clogged = true
    this.status = answer.status
    this.reason = answer.reason ?? ''
    this.bytesOut += text.length
    this.#began = true
    this.#record()
    if (close) this.#linger()
    else if (discard) {
      this.state = DISCARD
      this.since = this.#server.driver.now
      this.wire.resume()
    } else this.#next()
  }

  /** Ready for the next request. */
  #next(): void {
    this.state = IDLE
    this.since = this.#server.driver.now
    if (this.#heldLength > 0) this.#work()
    else if (this.eofSeen) this.#linger()
    else if (this.#server.draining) this.#linger()
  }

  #linger(): void {
    this.state = LINGER
    this.since = this.#server.driver.now
    this.bytesIn = 0
    this.#held = undefined
    this.#heldLength = 0
    this.wire.end()
    // What still comes is read: closing on unread octets would destroy the answer on its way.
    this.wire.resume()
  }

  #giveUp(why: string): void {
    if (!this.#recorded) {
      this.reason = why
      if (!this.#began) this.status = 400
      this.#dropUpstream()
      this.#record()
    }
    this.state = LINGER
    this.wire.abort()
  }

  // Tunnels.

  /** Passes a 101 on; false if nobody asked for it. */
  switchTo(up: UpstreamConn, h: Head, b: Buffer, end: number, to: number): boolean {
    if (this.#upgrade === '') return false
    const server = this.#server
    this.firstByteAt = server.driver.now
    const out = server.scratch
    let at = copyKept(h, b, h.from, out, 0)
    at += out.latin1Write(`Connection: upgrade\r\nUpgrade: ${safe(h.upgradeTo > h.upgradeFrom ? b.latin1Slice(h.upgradeFrom, h.upgradeTo) : this.#upgrade)}\r\n${this.#responseLines}\r\n`, at)
    this.status = 101
    this.#began = true
    this.state = TUNNEL
    up.state = 2
    up.kept = undefined
    server.tunnels++
    // Ten thousand of these stay for hours: what only the next request would need is let go.
    this.#forwarded = ''
    this.#lastAuthority = '\n'
    this.#requestLines = ''
    this.wire.write(out, 0, at)
    if (to > end && !this.wire.write(b, end, to)) up.wire.pause()
    if (this.#heldLength > 0) {
      const held = this.#held!
      const length = this.#heldLength
      this.#held = undefined
      this.#heldLength = 0
      if (!up.wire.write(held, 0, length)) this.wire.pause()
    }
    this.#held = undefined
    if (this.#paused) {
      this.#paused = false
      this.wire.resume()
    }
    this.#spliced = server.driver.splice(this.wire, up.wire)
    if (this.eofSeen) up.wire.end()
    return true
  }

  tunnelMoved(n: number): void {
    this.bytesOut += n
    this.since = this.#server.driver.now
  }

  tunnelEof(): void {
    this.wire.end()
  }

  tunnelClosed(why: string): void {
    const up = this.up
    this.up = undefined
    up?.release()
    this.#record()
    this.state = LINGER
    if (why === '') this.wire.end()
    else this.wire.abort()
  }

  // Exchange.

  header(name: string): string | undefined {
    return this.#server.head.get(name.toLowerCase())
  }
  headers(name: string): string[] {
    return valuesOf(this.#server.head, name.toLowerCase())
  }
  cookie(name: string): string | undefined {
    for (const line of this.headers('cookie')) {
      for (const pair of line.split(';')) {
        const eq = pair.indexOf('=')
        if (eq > 0 && pair.slice(0, eq).trim() === name) return pair.slice(eq + 1).trim()
      }
    }
    return undefined
  }
  dropRequest(name: string): void {
    ;(this.#requestDrops ??= []).push(name.toLowerCase())
  }
  addRequest(name: string, value: string): void {
    this.#requestLines += `${name}: ${safe(value)}\r\n`
  }
  dropResponse(name: string): void {
    ;(this.#responseDrops ??= []).push(name.toLowerCase())
  }
  addResponse(name: string, value: string): void {
    this.#responseLines += `${name}: ${safe(value)}\r\n`
  }
  onEnd(f: () => void): void {
    ;(this.#ends ??= []).push(f)
  }

  #record(): void {
    if (this.#recorded) return
    this.#recorded = true
    const ends = this.#ends
    if (ends !== undefined) {
      this.#ends = undefined
      for (const f of ends) f()
    }
    this.#server.finished(this)
  }

  /** Looked at now and then: ends what has waited too long. */
  sweep(now: number): void {
    const { limits } = this.#server
    const waited = now - this.since
    switch (this.state) {
      case IDLE:
        if (this.#heldLength > 0) {
          if (now - this.#headSince(now) > limits.headTimeout) {
            this.#reset(this.#server.head)
            this.method = ''
            this.keep = false
            this.body.start(NONE)
            this.#heldLength = 0
            this.#answerNow({ status: 408, reason: 'the head did not come in time' })
          }
        } else if (this.clogged ? waited > limits.sendTimeout : waited > limits.idleTimeout || (this.#server.draining && !this.fresh)) {
          if (this.clogged) this.wire.abort()
          else this.#linger()
        }
        return
      case BUSY: {
        const { up } = this
        if (this.clogged) {
          if (waited > limits.sendTimeout) {
            this.reason = 'the client does not take the answer'
            this.#dropUpstream()
            this.#record()
            this.state = LINGER
            this.wire.abort()
          }
          return
        }
        if (up === undefined) return
        if (!this.body.done && waited > limits.bodyTimeout && now - up.since > limits.bodyTimeout && up.opened_) {
          this.#dropUpstream()
          if (this.#began) this.#giveUp('the body did not come in time')
          else {
            this.keep = false
            this.body.done = true
            this.#answerNow({ status: 408, reason: 'the body did not come in time' })
          }
          return
        }
        if (up.opened_ && now - up.since > this.route.timeouts.read) {
          if (up.state === 0) {
            up.discard()
            this.upstreamFailed(up, 'the endpoint did not answer in time', 504, false)
          } else this.upstreamBroke('the endpoint fell silent in the middle of its answer')
        }
        return
      }
      case TUNNEL:
        if (waited > this.route.timeouts.tunnel && !this.#spliced) {
          this.reason = 'the tunnel was silent'
          this.wire.abort()
        }
        return
      case DISCARD:
        if (waited > limits.bodyTimeout) this.#linger()
        return
      case LINGER:
        if (waited > (this.clogged ? limits.sendTimeout : limits.lingerTimeout)) this.wire.abort()
        return
      default:
    }
  }

  #headBegan = 0
  #headSince(now: number): number {
    // The first sweep that sees half a head starts its clock: coarse, and nothing a request.
    if (this.#headBegan < this.startedAt || this.#headRequest !== this.requests) {
      this.#headBegan = now
      this.#headRequest = this.requests
    }
    return this.#headBegan
  }
  #headRequest = -1

  /** No further requests; ends at once if none is under way. */
  finish(): void {
    this.#close = true
    if (this.state === IDLE && this.#heldLength === 0 && !this.fresh) this.#linger()
  }

  /** Just opened, and its first request is probably on its way: closing now would lose it. */
  get fresh(): boolean {
    return this.state === IDLE && this.requests === 0 && this.#server.driver.now - this.since < 500
  }

  /** Nothing more will be served here. */
  get over(): boolean {
    return this.state === LINGER || this.state === CLOSED
  }

  get busy(): boolean {
    return this.state === STEPS || this.state === BUSY || this.state === TUNNEL || this.state === DISCARD
  }
}

function hasLineEnd(b: Buffer, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (b[i] === 10) return true
  return false
}

function valuesOf(head: Head, name: string): string[] {
  const out: string[] = []
  for (let i = head.find(name); i >= 0; i = head.find(name, i + 1)) out.push(head.value(i))
  return out
}

const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'

function isPreface(b: Buffer, from: number, to: number): boolean {
  return to - from >= 16 && preface.startsWith(b.latin1Slice(from, Math.min(to, from + preface.length)))
}

/** Copies request or status line and every line that is passed on, neighbours together. */
function copyKept(h: Head, b: Buffer, from: number, out: Buffer, at: number): number {
  let start = from
  const n = h.lines
  for (let i = 0; i < n; i++) {
    if (!h.dropped(i)) continue
    const stop = h.lineFrom(i)
    if (stop > start) at += b.copy(out, at, start, stop)
    start = h.lineTo(i)
  }
  const end = h.end - 2
  if (end > start) at += b.copy(out, at, start, end)
  return at
}

const unrouted: Route = {
  host: '',
  path: '',
  kind: 'prefix',
  owner: '',
  service: '',
  upstream: { name: '', endpoints: [] },
  policies: [],
  timeouts: { connect: 5000, read: 60_000, send: 60_000, tunnel: 3_600_000 },
  maxBody: 0,
  retries: { tries: 1, within: 0, error: false, timeout: false, nonIdempotent: false, statuses: [] },
}
