import { classes, eachElement, fieldOf, fields, HOST, ODD, same, TARGET, TOKEN, VALUE } from './grammar.ts'

/** What `parseRequest` and `parseResponse` return instead of an end: more bytes are needed. */
export const INCOMPLETE = -1

/** How much of a head is taken. Bytes and numbers. */
export interface HeadLimits {
  /** Whole head: 431 above. */
  readonly head: number
  /** Request target: 414 above. */
  readonly target: number
  /** Field lines: 431 above. */
  readonly lines: number
}

/** 32 KiB heads as nginx takes them, targets of 8 KiB, 128 field lines. */
export const defaultHeadLimits: HeadLimits = { head: 32_768, target: 8192, lines: 128 }

const STRIDE = 5

/** Why a head was refused, in words for people and a log. */
export class Refusal {
  readonly status: number
  readonly reason: string
  constructor(status: number, reason: string) {
    this.status = status
    this.reason = reason
  }
}

/**
 * The parts of one head as offsets into the buffer it was parsed from. One object is used again for every head of a loop:
 * nothing in it outlives the bytes.
 */
export class Head {
  b: Buffer = Buffer.alloc(0)
  from = 0
  /** Behind the empty line. */
  end = 0
  methodEnd = 0
  method = ''
  targetFrom = 0
  targetTo = 0
  /** Of the `?`, or `targetTo`. */
  queryFrom = 0
  /** The path holds something that has to be normalised. */
  odd = false
  /** 0 or 1: the minor version. */
  minor = 1
  status = 0
  /** Of the first field line. */
  linesFrom = 0
  lines = 0
  /** Name and value ends and the field's number (negative: not passed on), five numbers a line. */
  readonly at: Int32Array
  hostFrom = 0
  hostTo = 0
  hosts = 0
  /** -1: none. */
  contentLength = -1
  chunked = false
  close = false
  keepAlive = false
  /** `Connection: upgrade` was said. */
  upgrade = false
  upgradeFrom = 0
  upgradeTo = 0
  expect = false
  hasServer = false
  /** Seconds of `Keep-Alive: timeout=`, 0 if not told. */
  keepAliveSeconds = 0
  requestIdFrom = 0
  requestIdTo = 0
  /** Lines of these fields; -1: none. */
  userAgent = -1
  referer = -1
  refusal: Refusal | undefined
  readonly #limits: HeadLimits

  constructor(limits: HeadLimits = defaultHeadLimits) {
    this.#limits = limits
    this.at = new Int32Array(limits.lines * STRIDE)
  }

  get limits(): HeadLimits {
    return this.#limits
  }

  /** Where line `i` begins and where the next one does. */
  lineFrom(i: number): number {
    return this.at[i * STRIDE]!
  }
  lineTo(i: number): number {
    return i + 1 < this.lines ? this.at[(i + 1) * STRIDE]! : this.end - 2
  }
  dropped(i: number): boolean {
    return this.at[i * STRIDE + 4]! < 0
  }
  drop(i: number): void {
    const n = this.at[i * STRIDE + 4]!
    if (n >= 0) this.at[i * STRIDE + 4] = -1 - n
  }
  value(i: number): string {
    return this.b.latin1Slice(this.at[i * STRIDE + 2]!, this.at[i * STRIDE + 3]!)
  }
  name(i: number): string {
    return this.b.latin1Slice(this.at[i * STRIDE]!, this.at[i * STRIDE + 1]!)
  }
  /** Line that carries `name` (lower case), from `after` on, that is passed on; -1 if there is none. */
  find(name: string, after = 0): number {
    for (let i = after; i < this.lines; i++) {
      const o = i * STRIDE
      if (this.at[o + 4]! >= 0 && same(this.b, this.at[o]!, this.at[o + 1]!, name)) return i
    }
    return -1
  }
  /** Values, joined by commas, of the lines of number `f`, also of those that are not passed on. */
  raw(f: number): string {
    let out = ''
    for (let i = 0; i < this.lines; i++) {
      const n = this.at[i * STRIDE + 4]!
      if (n === f || n === -1 - f) out += out === '' ? this.value(i) : `, ${this.value(i)}`
    }
    return out
  }
  /** The first value of `name` (lower case) that is passed on. */
  get(name: string): string | undefined {
    const i = this.find(name)
    return i < 0 ? undefined : this.value(i)
  }
  dropNamed(name: string): void {
    for (let i = this.find(name); i >= 0; i = this.find(name, i + 1)) this.drop(i)
  }

  reset(b: Buffer, from: number): void {
    this.b = b
    this.from = from
    this.end = 0
    this.lines = 0
    this.hosts = 0
    this.odd = false
    this.contentLength = -1
    this.chunked = false
    this.close = false
    this.keepAlive = false
    this.upgrade = false
    this.upgradeFrom = 0
    this.upgradeTo = 0
    this.expect = false
    this.hasServer = false
    this.keepAliveSeconds = 0
    this.requestIdTo = 0
    this.userAgent = -1
    this.referer = -1
    this.refusal = undefined
  }
}

const refuse = (h: Head, status: number, reason: string): number => {
  h.refusal = new Refusal(status, reason)
  return -status
}

// Method names as strings without making one a request.
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'CONNECT', 'TRACE']

/**
 * Reads the request head that begins at b[from]. Returns where the body begins, `INCOMPLETE`, or minus the status of `h.refusal`.
 * Strict (RFC 9112): lines end in CRLF, nothing is folded, one Host, one Content-Length of digits, no Transfer-Encoding but `chunked`
 * and not beside a Content-Length. What is doubtful is refused, never mended.
 */
export function parseRequest(h: Head, b: Buffer, from: number, to: number): number {
  h.reset(b, from)
  const { limits } = h
  let p = from
  // One empty line before a request is forgiven, as RFC 9112 2.2 asks.
  if (p < to && b[p] === 13) {
    if (p + 1 >= to) return INCOMPLETE
    if (b[p + 1] !== 10) return refuse(h, 400, 'bare CR')
    p += 2
  }
  h.from = p
  const start = p
  while (p < to && (classes[b[p]!]! & TOKEN) !== 0) p++
  if (p - start > 32) return refuse(h, 400, 'method too long')
  if (p >= to) return INCOMPLETE
  if (b[p] !== 32 || p === start) return refuse(h, 400, 'malformed request line')
  h.methodEnd = p
  h.method = methodOf(b, start, p)
  p++
  const target = p
  let query = -1
  let odd = 0
  let before = 0
  for (; p < to; p++) {
    const c = b[p]!
    const k = classes[c]!
    if ((k & TARGET) === 0) break
    if (query >= 0) continue
    if (c === 63) query = p
    else {
      // `//`, `/.`, `%`, `;`
      if ((k & ODD) !== 0 || (before === 47 && (c === 47 || c === 46))) odd = 1
      before = c
    }
  }
  if (p - target > limits.target) return refuse(h, 414, 'target too long')
  if (p >= to) return INCOMPLETE
  if (b[p] !== 32 || p === target) return refuse(h, 400, 'malformed request target')
  h.targetFrom = target
  h.targetTo = p
  h.queryFrom = query < 0 ? p : query
  h.odd = odd === 1
  p++
  if (to - p < 10) {
    return couldBeVersion(b, p, to) ? INCOMPLETE : refuse(h, 400, 'malformed version')
  }
  if (b[p] !== 72 || b[p + 1] !== 84 || b[p + 2] !== 84 || b[p + 3] !== 80 || b[p + 4] !== 47 || !digit(b[p + 5]!) || b[p + 6] !== 46 || !digit(b[p + 7]!) || b[p + 8] !== 13 || b[p + 9] !== 10) {
    return refuse(h, 400, 'malformed version')
  }
  if (b[p + 5] !== 49 || b[p + 7]! > 49) return refuse(h, 505, 'version not supported')
  h.minor = b[p + 7]! - 48
  p = parseLines(h, b, p + 10, to, true)
  if (p < 0) {
    if (p === INCOMPLETE && to - start > limits.head) return refuse(h, 431, 'head too large')
    return p
  }
  if (p - start > limits.head) return refuse(h, 431, 'head too large')
  if (h.hosts !== 1 && (h.minor === 1 || h.hosts > 1)) return refuse(h, 400, h.hosts === 0 ? 'Host is missing' : 'more than one Host')
  if (h.chunked) {
    if (h.minor === 0) return refuse(h, 400, 'Transfer-Encoding in HTTP/1.0')
    if (h.contentLength >= 0) return refuse(h, 400, 'Content-Length beside Transfer-Encoding')
  }
  if (h.refusal !== undefined) return -(h.refusal as Refusal).status
  return p
}

/** Reads the response head that begins at b[from], as `parseRequest` does; every refusal is a 502. */
export function parseResponse(h: Head, b: Buffer, from: number, to: number): number {
  h.reset(b, from)
  if (to - from < 13) return couldBeVersion(b, from, to) ? INCOMPLETE : refuse(h, 502, 'malformed status line')
  let p = from
  if (b[p] !== 72 || b[p + 1] !== 84 || b[p + 2] !== 84 || b[p + 3] !== 80 || b[p + 4] !== 47 || b[p + 5] !== 49 || b[p + 6] !== 46 || b[p + 8] !== 32) return refuse(h, 502, 'malformed status line')
  const minor = b[p + 7]! - 48
  if (minor !== 0 && minor !== 1) return refuse(h, 502, 'version not supported')
  h.minor = minor
  p += 9
  if (!digit(b[p]!) || !digit(b[p + 1]!) || !digit(b[p + 2]!)) return refuse(h, 502, 'malformed status')
  h.status = (b[p]! - 48) * 100 + (b[p + 1]! - 48) * 10 + b[p + 2]! - 48
  if (h.status < 100) return refuse(h, 502, 'malformed status')
  p += 3
  if (b[p] === 32) while (p < to && (classes[b[p]!]! & VALUE) !== 0) p++
  if (p + 1 >= to) return to - from > h.limits.head ? refuse(h, 502, 'upstream head too big') : INCOMPLETE
  if (b[p] !== 13 || b[p + 1] !== 10) return refuse(h, 502, 'malformed status line')
  p = parseLines(h, b, p + 2, to, false)
  if (p < 0) return p === INCOMPLETE && to - from > h.limits.head ? refuse(h, 502, 'upstream head too big') : p
  if (p - from > h.limits.head) return refuse(h, 502, 'upstream head too big')
  if (h.chunked && h.contentLength >= 0) return refuse(h, 502, 'Content-Length beside Transfer-Encoding')
  if (h.chunked && h.minor === 0) return refuse(h, 502, 'Transfer-Encoding in HTTP/1.0')
  if (h.refusal !== undefined) return -(h.refusal as Refusal).status
  return p
}

function methodOf(b: Buffer, from: number, to: number): string {
  for (const m of methods) {
    if (m.length !== to - from) continue
    let i = 0
    while (i < m.length && b[from + i] === m.charCodeAt(i)) i++
    if (i === m.length) return m
  }
  return b.latin1Slice(from, to)
}

const digit = (c: number): boolean => c >= 48 && c <= 57

const versionText = 'HTTP/'
function couldBeVersion(b: Buffer, from: number, to: number): boolean {
  for (let i = 0; i < versionText.length && from + i < to; i++) if (b[from + i] !== versionText.charCodeAt(i)) return false
  return true
}

function parseLines(h: Head, b: Buffer, from: number, to: number, request: boolean): number {
  const bad = request ? 400 : 502
  const { at, limits } = h
  h.linesFrom = from
  let n = 0
  let named = false
  let p = from
  for (;;) {
    if (p >= to) return INCOMPLETE
    if (b[p] === 13) {
      if (p + 1 >= to) return INCOMPLETE
      if (b[p + 1] !== 10) return refuse(h, bad, 'bare CR')
      p += 2
      break
    }
    const name = p
    let underscore = false
    while (p < to && (classes[b[p]!]! & TOKEN) !== 0) {
      if (b[p] === 95) underscore = true
      p++
    }
    if (p >= to) return INCOMPLETE
    if (b[p] !== 58 || p === name) return refuse(h, bad, p === name && (b[p] === 32 || b[p] === 9) ? 'folded field line' : 'malformed field name')
    const nameEnd = p++
    while (p < to && (b[p] === 32 || b[p] === 9)) p++
    const value = p
    while (p < to && (classes[b[p]!]! & VALUE) !== 0) p++
    if (p + 1 >= to) {
      if (p < to && b[p] !== 13) return refuse(h, bad, 'malformed field value')
      return INCOMPLETE
    }
    if (b[p] !== 13 || b[p + 1] !== 10) return refuse(h, bad, b[p] === 10 ? 'bare LF' : 'malformed field value')
    let valueEnd = p
    while (valueEnd > value && (b[valueEnd - 1] === 32 || b[valueEnd - 1] === 9)) valueEnd--
    p += 2
    if (n === limits.lines) return refuse(h, request ? 431 : 502, 'too many field lines')
    const o = n * STRIDE
    n++
    at[o] = name
    at[o + 1] = nameEnd
    at[o + 2] = value
    at[o + 3] = valueEnd
    const f = fieldOf(b, name, nameEnd)
    // X_Forwarded_For and X-Forwarded-For are one name to many a backend (CGI): as in nginx, names with `_` are not passed on.
    at[o + 4] = underscore && request ? -1 - f : f
    if (f === 0) continue
    switch (f) {
      case fields.host:
        h.hosts++
        h.hostFrom = value
        h.hostTo = valueEnd
        break
      case fields.contentLength: {
        const length = lengthOf(b, value, valueEnd)
        if (length < 0) return refuse(h, bad, 'malformed Content-Length')
        if (h.contentLength >= 0) return refuse(h, bad, 'more than one Content-Length')
        h.contentLength = length
        if (request) at[o + 4] = -1 - f
        break
      }
      case fields.transferEncoding:
        if (h.chunked) return refuse(h, bad, 'more than one Transfer-Encoding')
        if (!same(b, value, valueEnd, 'chunked')) return refuse(h, request && wellFormedCoding(b, value, valueEnd) ? 501 : bad, 'Transfer-Encoding is not chunked')
        h.chunked = true
        if (request) at[o + 4] = -1 - f
        break
      case fields.connection:
        at[o + 4] = -1 - f
        eachElement(b, value, valueEnd, (s, e) => {
          if (same(b, s, e, 'close')) h.close = true
          else if (same(b, s, e, 'keep-alive')) h.keepAlive = true
          else if (same(b, s, e, 'upgrade')) h.upgrade = true
          else named = true
        })
        break
      case fields.keepAlive:
        at[o + 4] = -1 - f
        if (!request) h.keepAliveSeconds = keepAliveOf(h.value(n - 1))
        break
      case fields.hop:
        at[o + 4] = -1 - f
        break
      case fields.upgrade:
        at[o + 4] = -1 - f
        h.upgradeFrom = value
        h.upgradeTo = valueEnd
        break
      case fields.server:
        h.hasServer = true
        break
      case fields.userAgent:
        if (h.userAgent < 0) h.userAgent = n - 1
        break
      case fields.referer:
        if (h.referer < 0) h.referer = n - 1
        break
      case fields.expect:
        if (!request) break
        if (!same(b, value, valueEnd, '100-continue')) return refuse(h, 417, 'Expect is not 100-continue')
        h.expect = true
        break
      case fields.forwarding:
      case fields.spoof:
      case fields.xForwardedFor:
      case fields.xForwardedHost:
      case fields.xForwardedPort:
      case fields.xForwardedProto:
        if (request) at[o + 4] = -1 - f
        break
      case fields.requestId:
        if (!request) break
        at[o + 4] = -1 - f
        h.requestIdFrom = value
        h.requestIdTo = valueEnd
        break
      default:
    }
  }
  h.lines = n
  h.end = p
  if (named) dropNamedByConnection(h, bad)
  return p
}

/** Takes out what `Connection` names (RFC 9110 7.6.1); refuses when it names what frames or addresses the message. */
function dropNamedByConnection(h: Head, bad: number): void {
  const { b, at } = h
  for (let i = 0; i < h.lines; i++) {
    if (at[i * STRIDE + 4] !== -1 - fields.connection) continue
    eachElement(b, at[i * STRIDE + 2]!, at[i * STRIDE + 3]!, (s, e) => {
      const f = fieldOf(b, s, e)
      if (f === fields.host || f === fields.contentLength || f === fields.transferEncoding || f === fields.authorization || f === fields.cookie) {
        h.refusal = new Refusal(bad, 'Connection names a field that must be passed on')
        return
      }
      const name = b.latin1Slice(s, e).toLowerCase()
      if (name !== 'close' && name !== 'keep-alive' && name !== 'upgrade') h.dropNamed(name)
    })
  }
}

function lengthOf(b: Buffer, from: number, to: number): number {
  // Fifteen digits stay exact in a double; no body is longer.
  if (to === from || to - from > 15) return -1
  let n = 0
  for (let p = from; p < to; p++) {
    const c = b[p]! - 48
    if (c < 0 || c > 9) return -1
    n = n * 10 + c
  }
  return n
}

/** A well-formed coding that we do not know gets 501, what merely looks like one 400 (RFC 9112 6.1). */
function wellFormedCoding(b: Buffer, from: number, to: number): boolean {
  const word = b.latin1Slice(from, to).toLowerCase()
  return /^(gzip|deflate|compress|x-gzip|x-compress|identity|br|zstd)(\s*,\s*chunked)?$/.test(word)
}

function keepAliveOf(value: string): number {
  const m = /timeout=(\d{1,6})/.exec(value)
  return m === null ? 0 : Number(m[1])
}

/**
 * The host of b[from, to) as routes are found by: lower case, without port and without a final dot; undefined when it is none.
 * `''` is a host only where the caller takes it.
 */
export function hostOf(b: Buffer, from: number, to: number): string | undefined {
  let end = to
  let p = from
  let upper = false
  if (p < to && b[p] === 91) {
    while (p < to && b[p] !== 93) p++
    if (p >= to) return undefined
    end = ++p
    const inside = b.latin1Slice(from + 1, end - 1)
    if (!/^[0-9A-Fa-f:.]{2,45}$/.test(inside)) return undefined
    upper = true
  } else {
    for (; p < to; p++) {
      const c = b[p]!
      if (c === 58) break
      if ((classes[c]! & HOST) === 0) return undefined
      if (c >= 65 && c <= 90) upper = true
    }
    end = p
  }
  if (p < to) {
    // A port: a colon and up to five digits, or none.
    if (b[p] !== 58 || to - p > 6) return undefined
    for (let q = p + 1; q < to; q++) if (!digit(b[q]!)) return undefined
  }
  if (end - from > 255) return undefined
  if (end > from && b[end - 1] === 46) end--
  const text = b.latin1Slice(from, end)
  return upper ? text.toLowerCase() : text
}
