import { constants, createSecureServer, type Http2SecureServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2'
import { Socket } from 'node:net'
import { createSecureContext, type SecureContext, type TLSSocket } from 'node:tls'
import type { Descriptor, Protocol, TlsInfo, TlsServerIdentity, Wire } from '../../lib/sockets/seam.ts'
import { Body, CHUNKED, LENGTH, NONE, UNTIL_CLOSE } from '../http1/body.ts'
import { Head, INCOMPLETE, parseResponse } from '../http1/head.ts'

export interface Http2Options {
  /** What to show to clients that ask for a name. */
  identity(serverName: string | undefined): TlsServerIdentity | undefined
  /** A protocol for one stream: the engine's half of a connection that carries one request. */
  accept(): Protocol
  failed(what: string, error: unknown): void
}

/**
 * HTTP/2 towards clients. A connection is handed over by its descriptor before a byte of it was taken; each stream becomes a
 * connection of the HTTP/1.1 engine with one request, so that routes, annotations, limits, pools and logs are the same for both.
 * Behind `Http2.take` there is room for an engine of our own.
 */
export class Http2 {
  readonly #server: Http2SecureServer
  readonly #sessions = new Set<ServerHttp2Session>()
  readonly #sockets = new Set<Socket>()
  streams = 0

  constructor(options: Http2Options) {
    const contexts = new WeakMap<TlsServerIdentity, SecureContext>()
    const contextOf = (name: string | undefined): SecureContext | undefined => {
      const identity = options.identity(name)
      if (identity === undefined) return undefined
      let context = contexts.get(identity)
      if (context === undefined) contexts.set(identity, (context = createSecureContext({ cert: identity.cert, key: identity.key, minVersion: identity.minVersion ?? 'TLSv1.2' })))
      return context
    }
    this.#server = createSecureServer({
      ALPNProtocols: ['h2'],
      allowHTTP1: false,
      SNICallback: (name, done) => {
        // What is thrown here would end the process (CVE-2026-21637).
        try {
          const context = contextOf(name === '' ? undefined : name)
          if (context === undefined) done(new Error(`no certificate for ${name}`))
          else done(null, context)
        } catch (error) {
          done(error instanceof Error ? error : new Error(String(error)))
        }
      },
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
    } as Parameters<typeof createSecureServer>[0])
    this.#server.on('session', (session) => {
      this.#sessions.add(session)
      session.setTimeout(75_000, () => session.close())
      session.on('error', () => {})
      session.on('close', () => this.#sessions.delete(session))
    })
    this.#server.on('tlsClientError', () => {})
    this.#server.on('sessionError', () => {})
    this.#server.on('stream', (stream, headers, flags) => {
      try {
        this.streams++
        start(stream, headers, flags, options.accept())
      } catch (error) {
        options.failed('an HTTP/2 stream failed', error)
        stream.close(constants.NGHTTP2_INTERNAL_ERROR)
      }
    })
  }

  /** Serves a connection that somebody else accepted. */
  take(descriptor: Descriptor): void {
    const socket = new Socket({ fd: descriptor.fd, readable: true, writable: true })
    socket.setNoDelay(true)
    socket.on('error', () => {})
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    // A client that offers h2 and then says nothing is not waited for.
    socket.setTimeout(120_000, () => socket.destroy())
    this.#server.emit('connection', socket)
  }

  /** Streams under way are finished, no new ones begin. */
  drain(): void {
    for (const s of this.#sessions) s.close()
  }

  close(): void {
    for (const s of this.#sessions) s.destroy()
    for (const s of this.#sockets) s.destroy()
  }
}

/** Fields that belong to HTTP/1.1 connections, or are made anew. */
const dropped = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade', 'te', 'host', 'content-length', 'http2-settings', 'expect'])

function start(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, protocol: Protocol): void {
  const wire = new StreamWire(stream, protocol, String(headers[':method'] ?? ''))
  const method = headers[':method']
  const path = headers[':path']
  const authority = headers[':authority'] ?? headers.host
  const refuse = (status: number): void => {
    stream.respond({ ':status': status, server: 'switchyard' }, { endStream: true })
  }
  if (typeof method !== 'string' || typeof path !== 'string' || typeof authority !== 'string') return refuse(400)
  // Nobody can tell which of two hosts is meant.
  if (headers[':authority'] !== undefined && headers.host !== undefined && headers.host.toLowerCase() !== headers[':authority'].toLowerCase()) return refuse(400)
  if (method === 'CONNECT') return refuse(405)
  if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(method) || !/^[\x21-\x7e]+$/.test(path) || !/^[\x21-\x7e]*$/.test(authority)) return refuse(400)
  let text = `${method} ${path} HTTP/1.1\r\nHost: ${authority}\r\n`
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(':') || dropped.has(name) || value === undefined) continue
    for (const v of Array.isArray(value) ? value : [value]) {
      // HPACK can carry what a line cannot.
      // eslint-disable-next-line no-control-regex
      if (!/^[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(name) || /[\u0000-\u0008\u000a-\u001f\u007f]/.test(v)) return refuse(400)
      text += `${name}: ${v}\r\n`
    }
  }
  const bodyless = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0
  const length = headers['content-length']
  let chunked = false
  if (!bodyless) {
    if (typeof length === 'string' && /^\d{1,15}$/.test(length)) text += `Content-Length: ${length}\r\n`
    else {
      chunked = true
      text += 'Transfer-Encoding: chunked\r\n'
    }
  }
  wire.feed(Buffer.from(`${text}\r\n`, 'latin1'))
  if (bodyless) return
  stream.on('data', (piece: Buffer) => {
    // The engine may rewrite what it is given, and nghttp2 may not like that.
    wire.feed(chunked ? Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, crlf]) : Buffer.from(piece))
  })
  stream.on('end', () => {
    if (chunked) wire.feed(Buffer.from('0\r\n\r\n'))
  })
}

const crlf = Buffer.from('\r\n')

/** One stream as the engine sees it: a connection whose other side speaks HTTP/1.1. */
class StreamWire implements Wire {
  readonly peer: string
  readonly peerPort: number
  readonly local: { readonly host: string; readonly port: number }
  readonly tls: TlsInfo
  alive = true
  readonly #stream: ServerHttp2Stream
  readonly #protocol: Protocol
  readonly #method: string
  readonly #head = new Head()
  readonly #body = new Body()
  readonly #payload = { to: 0 }
  #held: Buffer | undefined
  #began = false
  #inside = false
  #later: (() => void)[] = []

  constructor(stream: ServerHttp2Stream, protocol: Protocol, method: string) {
    this.#stream = stream
    this.#protocol = protocol
    this.#method = method
    const socket = stream.session!.socket as TLSSocket
    this.peer = (socket.remoteAddress ?? '').replace(/^::ffff:/, '')
    this.peerPort = socket.remotePort ?? 0
    this.local = { host: (socket.localAddress ?? '').replace(/^::ffff:/, ''), port: socket.localPort ?? 443 }
    const name = (stream.session!.socket as TLSSocket & { readonly servername?: string | false }).servername
    this.tls = { serverName: typeof name === 'string' && name !== '' ? name : undefined, alpn: 'h2', version: 'TLSv1.3', peerCertificate: undefined }
    stream.on('drain', () => this.#tell(() => protocol.drain()))
    stream.on('error', () => {})
    stream.on('close', () => {
      this.alive = false
      this.#tell(() => protocol.closed(stream.rstCode === constants.NGHTTP2_NO_ERROR ? '' : `stream reset (${stream.rstCode})`))
    })
    this.#tell(() => protocol.opened(this))
  }

  feed(b: Buffer): void {
    this.#tell(() => {
      if (this.alive) this.#protocol.data(b, 0, b.length)
    })
  }

  /** Never calls the protocol from inside one of its own calls. */
  #tell(f: () => void): void {
    if (this.#inside) {
      this.#later.push(f)
      return
    }
    this.#inside = true
    try {
      f()
      for (let next = this.#later.shift(); next !== undefined; next = this.#later.shift()) next()
    } finally {
      this.#inside = false
    }
  }

  write(b: Buffer, from: number, to: number): boolean {
    if (!this.alive || this.#stream.destroyed) return true
    // Kept by streams, lent by the engine: copied once.
    let piece: Buffer = Buffer.from(b.subarray(from, to))
    if (!this.#began) {
      if (this.#held !== undefined) piece = Buffer.concat([this.#held, piece])
      this.#held = undefined
      let at = 0
      for (;;) {
        const end = parseResponse(this.#head, piece, at, piece.length)
        if (end === INCOMPLETE) {
          this.#held = piece.subarray(at)
          return true
        }
        if (end < 0) {
          this.abort()
          return true
        }
        if (this.#head.status >= 200) {
          at = end
          break
        }
        if (this.#head.status !== 101) this.#stream.additionalHeaders({ ':status': this.#head.status, ...this.#fields() })
        at = end
      }
      this.#began = true
      const { head } = this
      if (this.#method === 'HEAD' || head.status === 204 || head.status === 304) this.#body.start(NONE)
      else if (head.chunked) this.#body.start(CHUNKED)
      else if (head.contentLength >= 0) this.#body.start(LENGTH, head.contentLength)
      else this.#body.start(UNTIL_CLOSE)
      this.#stream.respond({ ':status': head.status, ...this.#fields() }, { endStream: this.#body.done })
      if (this.#body.done) return true
      piece = piece.subarray(at)
      if (piece.length === 0) return true
    }
    const last = this.#body.advance(piece, 0, piece.length, this.#payload)
    if (last < 0) {
      this.abort()
      return true
    }
    const flowing = this.#payload.to === 0 || this.#stream.write(piece.subarray(0, this.#payload.to))
    if (this.#body.done) this.#stream.end()
    return flowing
  }

  get head(): Head {
    return this.#head
  }

  #fields(): Record<string, string | string[]> {
    const out: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>
    const head = this.#head
    for (let i = 0; i < head.lines; i++) {
      const name = head.name(i).toLowerCase()
      if (name === 'connection' || name === 'keep-alive' || name === 'transfer-encoding' || name === 'upgrade' || name === 'proxy-connection') continue
      const before = out[name]
      const value = head.value(i)
      // One value each where the protocol allows but one; Node refuses two.
      if (before === undefined) out[name] = value
      else if (name === 'set-cookie' || name === 'link' || name === 'www-authenticate') out[name] = [...(Array.isArray(before) ? before : [before]), value]
      else if (name !== 'content-length' && name !== 'content-type' && name !== 'location' && name !== 'date' && name !== 'server' && name !== 'etag')
        out[name] = `${Array.isArray(before) ? before.join(', ') : before}, ${value}`
    }
    return out
  }

  pause(): void {
    this.#stream.pause()
  }
  resume(): void {
    this.#stream.resume()
  }
  end(): void {
    if (!this.#began) this.abort()
    else if (!this.#stream.writableEnded) this.#stream.end()
    // What of the request is not wanted any more need not be sent.
    if (!this.#stream.readableEnded) this.#stream.resume()
  }
  abort(): void {
    this.alive = false
    if (!this.#stream.destroyed) this.#stream.close(this.#began && this.#body.done ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_INTERNAL_ERROR)
  }
}
