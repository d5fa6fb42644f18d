import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders, type IncomingHttpStatusHeader } from 'node:http2'
import type { Address, Driver, Protocol, TlsClient, TlsInfo, Wire } from '../../lib/sockets/seam.ts'
import type { Head } from '../http1/head.ts'
import { phraseOf } from '../http1/exchange.ts'
import { WireDuplex } from './duplex.ts'
import { chunkOf, linesOf, StreamWire } from './stream.ts'

/** Streams on one connection until the endpoint says how many it takes. */
const streamsAtFirst = 100
/** Milliseconds without a stream after which a connection is closed. */
const idleTimeout = 60_000

/** One connection to an endpoint. */
interface Shared {
  readonly session: ClientHttp2Session
  streams: number
  usable: boolean
  standing: boolean
  readonly waiting: Set<ClientStream>
  tls: TlsInfo | undefined
}

/** HTTP/2 towards endpoints: `h2c` by prior knowledge, or TLS where `h2` was agreed on. Streams of one endpoint share connections. */
export class Http2Clients {
  readonly #driver: Driver
  readonly #shared = new Map<string, Shared[]>()

  constructor(driver: Driver) {
    this.#driver = driver
  }

  /** A wire that takes one HTTP/1.1 request and gives one response. `key` tells TLS settings apart. */
  connect(key: string, at: Address, tls: TlsClient | undefined, protocol: Protocol, timeout: number): Wire {
    let list = this.#shared.get(key)
    if (list === undefined) this.#shared.set(key, (list = []))
    let shared = list.find((s) => s.usable && s.streams < (s.session.remoteSettings?.maxConcurrentStreams ?? streamsAtFirst))
    if (shared === undefined) list.push((shared = this.#open(key, at, tls, timeout)))
    return new ClientStream(shared, at, tls !== undefined, protocol)
  }

  #open(key: string, at: Address, tls: TlsClient | undefined, timeout: number): Shared {
    const duplex = new WireDuplex()
    duplex.attach(this.#driver.connect(at, duplex.protocol, { timeout, ...(tls === undefined ? {} : { tls: { ...tls, alpn: ['h2'] } }) }))
    const session = connect(`${tls === undefined ? 'http' : 'https'}://endpoint`, {
      createConnection: () => duplex as never,
      settings: { enablePush: false, initialWindowSize: 262_144 },
      maxSessionMemory: 64,
    })
    const shared: Shared = { session, streams: 0, usable: true, standing: false, waiting: new Set(), tls: undefined }
    const over = (why: string): void => {
      shared.usable = false
      const list = this.#shared.get(key)
      const i = list?.indexOf(shared) ?? -1
      if (i >= 0) list!.splice(i, 1)
      if (list?.length === 0) this.#shared.delete(key)
      for (const stream of shared.waiting) stream.lost(why)
      shared.waiting.clear()
    }
    duplex.once('standing', (w: Wire) => {
      if (tls !== undefined && w.tls?.alpn !== 'h2') {
        over('EPROTO: the endpoint does not speak HTTP/2')
        session.destroy()
        return
      }
      shared.standing = true
      shared.tls = w.tls
      for (const stream of shared.waiting) stream.stands()
      shared.waiting.clear()
    })
    session.setTimeout(idleTimeout, () => {
      if (shared.streams > 0) return
      shared.usable = false
      session.close()
    })
    session.on('error', () => {})
    session.on('goaway', () => (shared.usable = false))
    session.on('close', () => {
      over(duplex.why === '' ? 'ECONNRESET: the endpoint closed the connection' : duplex.why)
      duplex.destroy()
    })
    duplex.once('close', () => session.destroy())
    return shared
  }

  close(): void {
    for (const list of [...this.#shared.values()]) for (const s of [...list]) s.session.destroy()
  }
}

/** One request to an endpoint. */
class ClientStream extends StreamWire {
  readonly peer: string
  readonly peerPort: number
  readonly local: Address = { host: '', port: 0 }
  readonly #shared: Shared
  readonly #secure: boolean
  #method = ''
  #chunked = false
  #trailers = ''
  #paused = false
  #counted = true

  constructor(shared: Shared, at: Address, secure: boolean, protocol: Protocol) {
    super(protocol, shared.tls, true)
    this.peer = at.host
    this.peerPort = at.port
    this.#shared = shared
    this.#secure = secure
    shared.streams++
    if (shared.standing) queueMicrotask(() => this.stands())
    else shared.waiting.add(this)
  }

  stands(): void {
    this.tell(() => {
      if (this.alive) this.protocol.opened(this)
    })
  }

  /** The connection could not be made, or ended before it was one. */
  lost(why: string): void {
    this.gone(why)
  }

  protected override gone(why: string): void {
    if (this.#counted) this.#shared.streams--
    this.#counted = false
    this.#shared.waiting.delete(this)
    super.gone(why)
  }

  protected override start(head: Head, fields: Record<string, string | string[]>, ends: boolean): void {
    this.#method = head.method
    const { host, ...others } = fields
    let stream: ClientHttp2Stream
    try {
      stream = this.#shared.session.request(
        {
          ':method': head.method,
          ':path': head.b.latin1Slice(head.targetFrom, head.targetTo),
          ':scheme': this.#secure ? 'https' : 'http',
          ':authority': typeof host === 'string' ? host : '',
          ...others,
          // What gRPC asks for: without it some servers do not send their status.
          te: 'trailers',
        },
        { endStream: ends, waitForTrailers: this.trails(ends) },
      )
    } catch (error) {
      this.alive = false
      queueMicrotask(() => this.gone(`ECONNRESET: ${error instanceof Error ? error.message : String(error)}`))
      return
    }
    this.listen(stream)
    if (this.trails(ends)) this.trail(stream)
    if (this.#paused) stream.pause()
    stream.on('headers', (headers: IncomingHttpHeaders & IncomingHttpStatusHeader, _flags: number, raw: readonly string[] | undefined) => this.#head(headers[':status'] ?? 100, raw ?? [], false))
    stream.on('response', (headers: IncomingHttpHeaders & IncomingHttpStatusHeader, flags: number, raw: readonly string[] | undefined) =>
      this.#head(headers[':status'] ?? 502, raw ?? [], (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0),
    )
    stream.on('trailers', (_headers: unknown, _flags: number, raw: readonly string[] | undefined) => {
      this.#trailers = linesOf(raw ?? []) ?? ''
    })
  }

  #head(status: number, raw: readonly string[], ends: boolean): void {
    const lines = linesOf(raw)
    if (lines === undefined) return this.abort()
    let text = `HTTP/1.1 ${status} ${phraseOf(status)}\r\n${lines}`
    if (status >= 200) {
      const i = raw.indexOf('content-length')
      const length = i < 0 ? undefined : raw[i + 1]
      if (length !== undefined) text += `Content-Length: ${length}\r\n`
      else if (ends) text += this.#method === 'HEAD' || status === 204 || status === 304 ? '' : 'Content-Length: 0\r\n'
      else {
        this.#chunked = true
        text += 'Transfer-Encoding: chunked\r\n'
      }
    }
    this.feed(Buffer.from(`${text}\r\n`, 'latin1'))
    if (status < 200) return
    // Only now: Node may tell of the first bytes before it tells of the head.
    const stream = this.stream!
    stream.on('data', (piece: Buffer) => this.feed(this.#chunked ? chunkOf(piece) : Buffer.from(piece)))
    stream.on('end', () => {
      if (this.#chunked && stream.rstCode === constants.NGHTTP2_NO_ERROR) this.feed(Buffer.from(`0\r\n${this.#trailers}\r\n`, 'latin1'))
    })
    // Listening made it flow.
    if (this.#paused) stream.pause()
  }

  protected override interim(): void {}
  protected override bodyless(): boolean {
    return false
  }

  override pause(): void {
    this.#paused = true
    super.pause()
  }
  override resume(): void {
    this.#paused = false
    super.resume()
  }
  override end(): void {
    if (this.stream !== undefined && !this.stream.writableEnded) this.stream.end()
  }
}
