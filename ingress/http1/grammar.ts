/** Character classes of RFC 9110 and 9112, one bit each, by octet. */
export const TOKEN = 1
/** What a field value may hold: HTAB, SP, VCHAR, obs-text. Neither CR, LF nor NUL. */
export const VALUE = 2
/** What a request target may hold here: visible ASCII but `#` and the backslash, which others read as `/`. */
export const TARGET = 4
/** What a host may hold, without the brackets of an IPv6 literal. */
export const HOST = 8
/** Octets after which a path may need normalising: `%` `.` `/` `;`. */
export const ODD = 16
export const HEX = 32

export const classes = new Uint8Array(256)

for (let c = 0; c < 256; c++) {
  const s = String.fromCharCode(c)
  let bits = 0
  if (/[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(s)) bits |= TOKEN
  if (c === 9 || (c >= 32 && c !== 127)) bits |= VALUE
  if (c > 32 && c < 127 && s !== '#' && s !== '\\') bits |= TARGET
  if (/[0-9A-Za-z\-._~]/.test(s)) bits |= HOST
  if (/[%;]/.test(s)) bits |= ODD
  if (/[0-9A-Fa-f]/.test(s)) bits |= HEX
  classes[c] = bits
}

/** Fields the engine itself understands, by number. Names of the same number are treated alike. */
export const fields = {
  host: 1,
  contentLength: 2,
  transferEncoding: 3,
  connection: 4,
  /** Hop-by-hop: never passed on. */
  hop: 5,
  upgrade: 6,
  expect: 7,
  /** Says who the client is or what it asked for: replaced by our own. */
  forwarding: 8,
  /** Would be believed by somebody behind us although any client can send it. */
  spoof: 9,
  requestId: 10,
  xForwardedFor: 11,
  server: 12,
  trailer: 13,
  keepAlive: 14,
  xForwardedProto: 15,
  contentType: 16,
  userAgent: 17,
  referer: 18,
  cookie: 19,
  origin: 20,
  authorization: 21,
  setCookie: 22,
  xForwardedHost: 23,
  xForwardedPort: 24,
} as const

const known: Readonly<Record<string, number>> = {
  host: fields.host,
  'content-length': fields.contentLength,
  'transfer-encoding': fields.transferEncoding,
  connection: fields.connection,
  'proxy-connection': fields.hop,
  'keep-alive': fields.keepAlive,
  te: fields.hop,
  'http2-settings': fields.hop,
  'proxy-authenticate': fields.hop,
  'proxy-authorization': fields.hop,
  upgrade: fields.upgrade,
  expect: fields.expect,
  trailer: fields.trailer,
  forwarded: fields.forwarding,
  'x-real-ip': fields.forwarding,
  'x-forwarded-for': fields.xForwardedFor,
  'x-forwarded-host': fields.xForwardedHost,
  'x-forwarded-proto': fields.xForwardedProto,
  'x-forwarded-port': fields.xForwardedPort,
  'x-forwarded-scheme': fields.forwarding,
  'x-forwarded-prefix': fields.forwarding,
  'x-forwarded-ssl': fields.forwarding,
  'x-forwarded-server': fields.forwarding,
  'x-forwarded-by': fields.forwarding,
  'x-forwarded-uri': fields.forwarding,
  'x-forwarded-path': fields.forwarding,
  'x-forwarded-method': fields.forwarding,
  'x-scheme': fields.forwarding,
  'x-client-ip': fields.forwarding,
  'x-cluster-client-ip': fields.forwarding,
  'true-client-ip': fields.forwarding,
  'front-end-https': fields.forwarding,
  'x-original-forwarded-for': fields.forwarding,
  proxy: fields.spoof,
  'x-original-url': fields.spoof,
  'x-original-uri': fields.spoof,
  'x-original-method': fields.spoof,
  'x-original-host': fields.spoof,
  'x-rewrite-url': fields.spoof,
  'x-http-method-override': 0,
  'ssl-client-verify': fields.spoof,
  'ssl-client-subject-dn': fields.spoof,
  'ssl-client-issuer-dn': fields.spoof,
  'ssl-client-cert': fields.spoof,
  'x-request-id': fields.requestId,
  server: fields.server,
  'content-type': fields.contentType,
  'user-agent': fields.userAgent,
  referer: fields.referer,
  cookie: fields.cookie,
  origin: fields.origin,
  authorization: fields.authorization,
  'set-cookie': fields.setCookie,
}

// Names are told apart by a hash of length, first and last letter; what remains is compared octet by octet.
const names: Uint8Array[] = []
const numbers: number[] = []
const next: number[] = []
const slots = new Int16Array(512).fill(-1)
const slot = (length: number, first: number, last: number): number => (length * 37 + (first | 32) * 11 + (last | 32) * 3) & 511

for (const [name, number] of Object.entries(known)) {
  const at = slot(name.length, name.charCodeAt(0), name.charCodeAt(name.length - 1))
  next.push(slots[at]!)
  slots[at] = names.length
  names.push(Uint8Array.from(name, (c) => c.charCodeAt(0)))
  numbers.push(number)
}

/** The number of the field named b[from, to), 0 if it is none of ours. */
export function fieldOf(b: Uint8Array, from: number, to: number): number {
  const length = to - from
  let i = slots[slot(length, b[from]!, b[to - 1]!)]!
  search: for (; i >= 0; i = next[i]!) {
    const name = names[i]!
    if (name.length !== length) continue
    for (let k = 0; k < length; k++) if (name[k] !== lower(b[from + k]!)) continue search
    return numbers[i]!
  }
  return 0
}

/** An octet with A–Z folded to a–z; others as they are. */
export function lower(c: number): number {
  return c >= 65 && c <= 90 ? c | 32 : c
}

/** Whether b[from, to) is `word` (lower case) in any letter case. */
export function same(b: Uint8Array, from: number, to: number, word: string): boolean {
  if (to - from !== word.length) return false
  for (let i = 0; i < word.length; i++) if (lower(b[from + i]!) !== word.charCodeAt(i)) return false
  return true
}

/** Calls `each` with the ends of every element of the comma-separated list b[from, to), white space trimmed, empty ones left out. */
export function eachElement(b: Uint8Array, from: number, to: number, each: (from: number, to: number) => void): void {
  let start = from
  for (let p = from; p <= to; p++) {
    if (p < to && b[p] !== 44) continue
    let s = start
    let e = p
    while (s < e && (b[s] === 32 || b[s] === 9)) s++
    while (e > s && (b[e - 1] === 32 || b[e - 1] === 9)) e--
    if (e > s) each(s, e)
    start = p + 1
  }
}

declare global {
  interface Buffer {
    /** Octets as a latin1 string; in Node since ever, missing in its types. Half the price of `toString('latin1', …)`. */
    latin1Slice(from: number, to: number): string
    latin1Write(text: string, at: number): number
  }
}
