import { classes, fieldOf, fields, HEX, TOKEN, VALUE } from './grammar.ts'

/** How the end of a body is known. */
export const NONE = 0
export const LENGTH = 1
export const CHUNKED = 2
export const UNTIL_CLOSE = 3

// Where a chunked body stands.
const SIZE_FIRST = 0
const SIZE = 1
const EXTENSION = 2
const SIZE_LF = 3
const DATA = 4
const DATA_CR = 5
const DATA_LF = 6
const LINE = 7
const TRAILER_NAME = 8
const TRAILER_VALUE = 9
const TRAILER_LF = 10
const END_LF = 11

/** Extensions and trailers of one message may be this long together (CVE-2024-22019). */
const overheadLimit = 16_384
/** A chunk length has at most this many digits. */
const sizeDigits = 12
const nameLimit = 64

/** Walks over the bytes of one body and knows where it ends. The framing is checked octet by octet, never changed. */
export class Body {
  kind = NONE
  done = true
  /** Octets of content seen, framing not counted. */
  content = 0
  /** Why it was refused. */
  bad = ''
  /** Keeps the trailer lines in `trailers`, for whoever has to write them anew. */
  collects = false
  trailers = ''
  #left = 0
  #state = SIZE_FIRST
  #digits = 0
  #overhead = 0
  #name: Buffer | undefined
  #nameLength = 0

  /** Octets that are known to come still; 0 where the framing does not tell. */
  get left(): number {
    return this.kind === LENGTH ? this.#left : 0
  }

  start(kind: number, length = 0): void {
    this.kind = kind
    this.#left = length
    this.done = kind === NONE || (kind === LENGTH && length === 0)
    this.content = 0
    this.bad = ''
    this.trailers = ''
    this.#state = SIZE_FIRST
    this.#overhead = 0
  }

  /**
   * Takes b[from, to); returns where the body ends in it, or `to` when it goes on. -1: the framing is broken (`bad` says how).
   * With `payload`, content is moved together at `from` (chunk framing taken out) and `payload.to` is its end.
   */
  advance(b: Buffer, from: number, to: number, payload?: { to: number }): number {
    if (this.done) {
      if (payload !== undefined) payload.to = from
      return from
    }
    if (this.kind === LENGTH) {
      const n = Math.min(this.#left, to - from)
      this.#left -= n
      this.content += n
      if (this.#left === 0) this.done = true
      if (payload !== undefined) payload.to = from + n
      return from + n
    }
    if (this.kind === UNTIL_CLOSE) {
      this.content += to - from
      if (payload !== undefined) payload.to = to
      return to
    }
    return this.#chunks(b, from, to, payload)
  }

  #fail(why: string): number {
    this.bad = why
    return -1
  }

  #chunks(b: Buffer, from: number, to: number, payload: { to: number } | undefined): number {
    let p = from
    let out = from
    while (p < to) {
      if (this.#state === DATA) {
        const n = Math.min(this.#left, to - p)
        if (payload !== undefined) {
          if (out !== p) b.copyWithin(out, p, p + n)
          out += n
          payload.to = out
        }
        this.#left -= n
        this.content += n
        p += n
        if (this.#left === 0) this.#state = DATA_CR
        continue
      }
      const c = b[p++]!
      if (this.collects && this.#state >= LINE && this.#state < END_LF) this.trailers += String.fromCharCode(c)
      switch (this.#state) {
        case SIZE_FIRST:
          if ((classes[c]! & HEX) === 0) return this.#fail('malformed chunk length')
          this.#left = hex(c)
          this.#digits = 1
          this.#state = SIZE
          break
        case SIZE:
          if ((classes[c]! & HEX) !== 0) {
            if (++this.#digits > sizeDigits) return this.#fail('chunk length too long')
            this.#left = this.#left * 16 + hex(c)
          } else if (c === 13) this.#state = SIZE_LF
          else if (c === 59) this.#state = EXTENSION
          else return this.#fail('malformed chunk length')
          break
        case EXTENSION:
          if (c === 13) this.#state = SIZE_LF
          else if ((classes[c]! & VALUE) === 0) return this.#fail('malformed chunk extension')
          else if (++this.#overhead > overheadLimit) return this.#fail('chunk extensions too long')
          break
        case SIZE_LF:
          if (c !== 10) return this.#fail('bare CR in a chunk')
          this.#state = this.#left === 0 ? LINE : DATA
          break
        case DATA_CR:
          if (c !== 13) return this.#fail('chunk longer than it says')
          this.#state = DATA_LF
          break
        case DATA_LF:
          if (c !== 10) return this.#fail('chunk longer than it says')
          this.#state = SIZE_FIRST
          break
        case LINE:
          if (c === 13) {
            this.#state = END_LF
            break
          }
          if ((classes[c]! & TOKEN) === 0) return this.#fail('malformed trailer')
          this.#name ??= Buffer.allocUnsafe(nameLimit)
          this.#name[0] = c
          this.#nameLength = 1
          this.#state = TRAILER_NAME
          break
        case TRAILER_NAME:
          if (++this.#overhead > overheadLimit) return this.#fail('trailers too long')
          if (c === 58) {
            if (!this.#trailerAllowed()) return this.#fail('forbidden trailer')
            this.#state = TRAILER_VALUE
          } else if ((classes[c]! & TOKEN) === 0 || this.#nameLength >= nameLimit) return this.#fail('malformed trailer')
          else this.#name![this.#nameLength++] = c
          break
        case TRAILER_VALUE:
          if (++this.#overhead > overheadLimit) return this.#fail('trailers too long')
          if (c === 13) this.#state = TRAILER_LF
          else if ((classes[c]! & VALUE) === 0) return this.#fail('malformed trailer')
          break
        case TRAILER_LF:
          if (c !== 10) return this.#fail('malformed trailer')
          this.#state = LINE
          break
        case END_LF:
          if (c !== 10) return this.#fail('malformed end of chunks')
          this.done = true
          if (payload !== undefined) payload.to = out
          return p
        default:
      }
    }
    if (payload !== undefined) payload.to = out
    return p
  }

  /** Trailers that would be read as framing, routing or identity are refused: some backends merge them into the head (RFC 9110 6.5.1). */
  #trailerAllowed(): boolean {
    const name = this.#name!
    if (name.subarray(0, this.#nameLength).includes(95)) return false
    const f = fieldOf(name, 0, this.#nameLength)
    return f === 0 || f === fields.server
  }
}

const hex = (c: number): number => (c <= 57 ? c - 48 : (c | 32) - 87)
