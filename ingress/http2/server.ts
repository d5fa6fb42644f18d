import { constants, performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import type { Address, Protocol, Wire } from '../../lib/sockets/seam.ts'
import type { Head } from '../http1/head.ts'
import { WireDuplex } from './duplex.ts'
import { chunkOf, linesOf, StreamWire } from './stream.ts'

export interface Http2Options {
  failed(what: string, error: unknown): void
}

/** Milliseconds a client may be silent while nothing is under way. */
const idleTimeout = 75_000

const settings = {
  settings: { maxConcurrentStreams: 128, initialWindowSize: 262_144, maxHeaderListSize: 32_768, enablePush: false },
  // Floods: lists of headers, settings, resets, pings.
  maxHeaderListPairs: 132,
  maxOutstandingPings: 10,
  maxSettings: 32,
  maxSessionMemory: 10,
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 100,
  streamResetBurst: 200,
  streamResetRate: 33,
}

/**
 * HTTP/2 towards clients, over any wire: whatever carries the bytes, and whatever has done TLS. Each stream becomes a connection of the HTTP/1.1
 * engine with one request, so that routes, annotations, limits, pools and logs are the same for both. Behind `Http2.take` there is room for an engine
 * of our own.
 */
export class Http2 {
  readonly #options: Http2Options
  readonly #sessions = new Set<ServerHttp2Session>()
  #draining = false

  constructor(options: Http2Options) {
    this.#options = options
  }

  get sessions(): number {
    return this.#sessions.size
  }

  /** The protocol of a connection on which a client speaks HTTP/2; `accept` makes the engine's half of each stream. */
  take(wire: Wire, accept: () => Protocol): Protocol {
    const duplex = new WireDuplex(wire)
    const session = performServerHandshake(duplex as never, settings as never) as ServerHttp2Session
    this.#sessions.add(session)
    session.setTimeout(idleTimeout, () => session.close())
    session.on('error', () => {})
    session.on('close', () => {
      this.#sessions.delete(session)
      duplex.destroy()
    })
    // Rude streams and frames end the connection; that is all there is to it.
    session.on('frameError', () => {})
    session.on('stream', (stream: ServerHttp2Stream, _headers: unknown, flags: number, raw: string[]) => {
      try {
        open(stream, raw, flags, wire, accept)
      } catch (error) {
        this.#options.failed('an HTTP/2 stream failed', error)
        stream.close(constants.NGHTTP2_INTERNAL_ERROR)
      }
    })
    if (this.#draining) session.close()
    return duplex.protocol
  }

  /** Streams under way are finished, no new ones begin. */
  drain(): void {
    this.#draining = true
    for (const s of this.#sessions) s.close()
  }

  close(): void {
    for (const s of this.#sessions) s.destroy()
  }
}

function open(stream: ServerHttp2Stream, raw: readonly string[], flags: number, connection: Wire, accept: () => Protocol): void {
  let method = ''
  let path = ''
  let authority: string | undefined
  let host: string | undefined
  let length: string | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    if (name === ':method') method = raw[i + 1]!
    else if (name === ':path') path = raw[i + 1]!
    else if (name === ':authority') authority = raw[i + 1]!
    else if (name === 'host') host = raw[i + 1]!
    else if (name === 'content-length') length = raw[i + 1]!
  }
  const refuse = (status: number): void => {
    stream.on('error', () => {})
    stream.respond({ ':status': status, server: 'switchyard' }, { endStream: true })
    // What was being sent to us is not wanted.
    if ((flags & constants.NGHTTP2_FLAG_END_STREAM) === 0) stream.close(constants.NGHTTP2_NO_ERROR)
  }
  // Nobody can tell which of two hosts is meant.
  if (authority !== undefined && host !== undefined && host.toLowerCase() !== authority.toLowerCase()) return refuse(400)
  const named = authority ?? host
  if (named === undefined || method === 'CONNECT') return refuse(method === 'CONNECT' ? 405 : 400)
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(method) || !/^[\x21-\x7e]+$/.test(path) || !/^[\x21-\x7e]*$/.test(named)) return refuse(400)
  const lines = linesOf(raw)
  if (lines === undefined) return refuse(400)
  let text = `${method} ${path} HTTP/1.1\r\nHost: ${named}\r\n${lines}`
  const bodyless = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0
  let chunked = false
  if (!bodyless) {
    if (length !== undefined && /^\d{1,15}$/.test(length)) text += `Content-Length: ${length}\r\n`
    else {
      chunked = true
      text += 'Transfer-Encoding: chunked\r\n'
    }
  }
  const wire = new ServerStream(stream, connection, accept(), method)
  wire.feed(Buffer.from(`${text}\r\n`, 'latin1'))
  if (bodyless) return
  let trailers = ''
  stream.on('data', (piece: Buffer) => wire.feed(chunked ? chunkOf(piece) : Buffer.from(piece)))
  stream.on('trailers', (_headers: unknown, _flags: number, rawTrailers: readonly string[] | undefined) => {
    trailers = linesOf(rawTrailers ?? []) ?? ''
  })
  stream.on('end', () => {
    if (chunked) wire.feed(Buffer.from(`0\r\n${trailers}\r\n`, 'latin1'))
  })
}

/** A client's stream. */
class ServerStream extends StreamWire {
  readonly #stream: ServerHttp2Stream
  readonly #connection: Wire
  readonly #method: string

  constructor(stream: ServerHttp2Stream, connection: Wire, protocol: Protocol, method: string) {
    super(protocol, connection.tls, false)
    this.#stream = stream
    this.#connection = connection
    this.#method = method
    this.listen(stream)
    this.tell(() => protocol.opened(this))
  }

  get peer(): string {
    return this.#connection.peer
  }
  get peerPort(): number {
    return this.#connection.peerPort
  }
  get local(): Address {
    return this.#connection.local
  }

  protected override start(head: Head, fields: Record<string, string | string[]>, ends: boolean): void {
    const waitForTrailers = this.trails(ends)
    if (waitForTrailers) this.trail(this.#stream)
    this.#stream.respond({ ':status': head.status, ...fields }, { endStream: ends, waitForTrailers })
  }
  protected override interim(status: number, fields: Record<string, string | string[]>): void {
    this.#stream.additionalHeaders({ ':status': status, ...fields })
  }
  protected override bodyless(status: number): boolean {
    return this.#method === 'HEAD' || status === 204 || status === 304
  }

  override end(): void {
    if (!this.began) return this.abort()
    if (!this.#stream.writableEnded) this.#stream.end()
    // What of the request is not wanted any more need not be sent.
    if (!this.#stream.readableEnded) this.#stream.resume()
  }
}
