import { constants, type Http2Stream } from 'node:http2'
import type { Address, Protocol, TlsInfo, Wire } from '../../lib/sockets/seam.ts'
import { Body, CHUNKED, LENGTH, NONE, UNTIL_CLOSE } from '../http1/body.ts'
import { Head, INCOMPLETE, parseRequest, parseResponse } from '../http1/head.ts'

/** Fields of HTTP/1.1 connections, which HTTP/2 does not know (RFC 9113 8.2.2). */
const connectionFields = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade', 'http2-settings', 'te'])

/** Fields of which a message has but one; Node refuses two. */
const single = new Set([
  'content-length',
  'content-type',
  'location',
  'date',
  'server',
  'etag',
  'last-modified',
  'user-agent',
  'authorization',
  'age',
  'expires',
  'referer',
  'retry-after',
  'host',
  'from',
  'max-forwards',
])

type Fields = Record<string, string | string[]>

/** Used for every head; nothing in it outlives a call. */
const head = new Head()

/**
 * One stream of HTTP/2 as the engine sees it: a connection whose other side speaks HTTP/1.1. What the engine writes is taken apart here, message by
 * message; what comes from the stream is put together by whoever feeds it.
 */
export abstract class StreamWire implements Wire {
  abstract readonly peer: string
  abstract readonly peerPort: number
  abstract readonly local: Address
  readonly tls: TlsInfo | undefined
  alive = true
  protected stream: Http2Stream | undefined
  protected readonly protocol: Protocol
  protected readonly body = new Body()
  /** The head of the message that goes out was sent. */
  protected began = false
  readonly #payload = { to: 0 }
  readonly #requests: boolean
  #held: Buffer | undefined
  #inside = false
  #later: (() => void)[] | undefined

  /** `requests`: the engine writes requests here, else responses. */
  constructor(protocol: Protocol, tls: TlsInfo | undefined, requests: boolean) {
    this.protocol = protocol
    this.tls = tls
    this.#requests = requests
    this.body.collects = true
  }

  /** Sends the head that the engine has written. `ends`: nothing follows. */
  protected abstract start(head: Head, fields: Fields, ends: boolean): void
  /** A 1xx that goes before the answer. */
  protected abstract interim(status: number, fields: Fields): void
  /** Whether the answer to what was asked has no body, whatever its head says. */
  protected abstract bodyless(status: number): boolean

  protected listen(stream: Http2Stream): void {
    this.stream = stream
    stream.on('drain', () => this.tell(() => this.protocol.drain()))
    stream.on('error', () => {})
    stream.on('close', () => this.gone(stream.rstCode === constants.NGHTTP2_NO_ERROR ? '' : `ECONNRESET: the stream was reset (${stream.rstCode})`))
  }

  /** The stream, or the connection it would have been on, is no more. */
  protected gone(why: string): void {
    if (this.#told) return
    this.#told = true
    this.alive = false
    this.tell(() => this.protocol.closed(why))
  }
  #told = false

  feed(b: Buffer): void {
    this.tell(() => {
      if (this.alive) this.protocol.data(b, 0, b.length)
    })
  }

  /** Never calls the protocol from inside one of its own calls. */
  protected tell(f: () => void): void {
    if (this.#inside) {
      ;(this.#later ??= []).push(f)
      return
    }
    this.#inside = true
    try {
      f()
      for (let next = this.#later?.shift(); next !== undefined; next = this.#later?.shift()) next()
    } finally {
      this.#inside = false
    }
  }

  write(b: Buffer, from: number, to: number): boolean {
    if (!this.alive || this.stream?.destroyed === true) return true
    // Kept by streams, lent by the engine: copied once.
    let piece: Buffer = Buffer.from(b.subarray(from, to))
    if (!this.began) {
      if (this.#held !== undefined) piece = Buffer.concat([this.#held, piece])
      this.#held = undefined
      const at = this.#heads(piece)
      if (at < 0) return true
      piece = piece.subarray(at)
      if (piece.length === 0) return true
    }
    const last = this.body.advance(piece, 0, piece.length, this.#payload)
    if (last < 0) {
      this.abort()
      return true
    }
    const { stream } = this
    if (this.body.done) {
      if (this.#payload.to > 0) stream!.end(piece.subarray(0, this.#payload.to))
      else stream!.end()
      return true
    }
    return this.#payload.to === 0 || stream!.write(piece.subarray(0, this.#payload.to))
  }

  /** Sends the heads at the beginning of `piece`; where the body begins, -1 if there is none to send yet. */
  #heads(piece: Buffer): number {
    let at = 0
    for (;;) {
      const end = this.#requests ? parseRequest(head, piece, at, piece.length) : parseResponse(head, piece, at, piece.length)
      if (end === INCOMPLETE) {
        this.#held = piece.subarray(at)
        return -1
      }
      if (end < 0) {
        this.abort()
        return -1
      }
      at = end
      if (this.#requests || head.status >= 200) break
      if (head.status !== 101) this.interim(head.status, this.#fields())
    }
    this.began = true
    if (!this.#requests && this.bodyless(head.status)) this.body.start(NONE)
    else if (head.chunked) this.body.start(CHUNKED)
    else if (head.contentLength >= 0) this.body.start(LENGTH, head.contentLength)
    else this.body.start(this.#requests ? NONE : UNTIL_CLOSE)
    this.start(head, this.#fields(), this.body.done)
    return this.body.done ? -1 : at
  }

  /** Whether the body that goes out may be followed by trailers; if so they are sent when it is over. */
  protected trails(ends: boolean): boolean {
    return !ends && this.body.kind === CHUNKED
  }
  protected trail(stream: Http2Stream): void {
    stream.on('wantTrailers', () => stream.sendTrailers(fieldsOf(this.body.trailers)))
  }

  #fields(): Fields {
    const out = Object.create(null) as Fields
    for (let i = 0; i < head.lines; i++) {
      const name = head.name(i).toLowerCase()
      if (!connectionFields.has(name)) addField(out, name, head.value(i))
    }
    return out
  }

  pause(): void {
    this.stream?.pause()
  }
  resume(): void {
    this.stream?.resume()
  }
  abstract end(): void
  abort(): void {
    this.alive = false
    const { stream } = this
    if (stream === undefined) this.tell(() => this.gone('aborted'))
    else if (!stream.destroyed) stream.close(this.began && this.body.done ? constants.NGHTTP2_NO_ERROR : this.#requests ? constants.NGHTTP2_CANCEL : constants.NGHTTP2_INTERNAL_ERROR)
  }
}

function addField(out: Fields, name: string, value: string): void {
  const before = out[name]
  if (before === undefined) out[name] = value
  else if (name === 'cookie') out[name] = `${before as string}; ${value}`
  else if (!single.has(name)) out[name] = Array.isArray(before) ? [...before, value] : [before, value]
}

/** Trailer lines as HTTP/2 has them. */
function fieldsOf(lines: string): Fields {
  const out = Object.create(null) as Fields
  for (const line of lines.split('\r\n')) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    if (colon > 0 && !connectionFields.has(name)) addField(out, name, line.slice(colon + 1).trim())
  }
  return out
}

/** Field lines of what HTTP/2 carries, name and value in turn, for HTTP/1.1; undefined when one of them cannot be a line. Pseudo fields and those of connections are left out. */
export function linesOf(raw: readonly string[]): string | undefined {
  let text = ''
  let cookies = ''
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!
    const value = raw[i + 1]!
    if (name.charCodeAt(0) === 58 || name === 'host' || name === 'content-length' || connectionFields.has(name)) continue
    // HPACK can carry what a line cannot.
    if (!token.test(name) || control.test(value)) return undefined
    // One line each in HTTP/1.1, crumbs in HTTP/2 (RFC 9113 8.2.3).
    if (name === 'cookie') cookies += cookies === '' ? value : `; ${value}`
    else text += `${name}: ${value}\r\n`
  }
  return cookies === '' ? text : `${text}cookie: ${cookies}\r\n`
}

const token = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/
// eslint-disable-next-line no-control-regex
const control = /[\u0000-\u0008\u000a-\u001f\u007f]/

const crlf = Buffer.from('\r\n')

/** A piece of a body as one chunk; a copy, for the engine may rewrite what it is given. */
export function chunkOf(piece: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, crlf])
}
