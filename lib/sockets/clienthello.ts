/** What a TLS client says first, as far as a server needs it to choose a certificate. */
export interface ClientHello {
  readonly serverName: string | undefined
  readonly alpn: readonly string[]
}

/** Bytes a hello may have before it is refused. */
export const longestHello = 16_384 + 5

/**
 * Reads the ClientHello at the start of b[from, to): `more` when it is not whole yet, `bad` when this is no TLS or one that nobody should accept.
 * It may be spread over several records (RFC 8446 section 5.1).
 */
export function readClientHello(b: Buffer, from: number, to: number): ClientHello | 'more' | 'bad' {
  // The handshake message is put together from its records first; usually it lies in one.
  let at = from
  let message: Buffer | undefined
  let length = -1
  const parts: Buffer[] = []
  let have = 0
  while (length < 0 || have < length + 4) {
    if (to - at < 5) return at > from || to > at ? plausible(b, at, to) : 'more'
    if (b[at] !== 22 || b[at + 1] !== 3) return 'bad'
    const size = (b[at + 3]! << 8) | b[at + 4]!
    if (size === 0 || size > 16_384) return 'bad'
    const part = b.subarray(at + 5, Math.min(to, at + 5 + size))
    parts.push(part)
    have += part.length
    at += 5 + size
    if (length < 0 && have >= 4) {
      message = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
      if (message[0] !== 1) return 'bad'
      length = (message[1]! << 16) | (message[2]! << 8) | message[3]!
      if (length + 5 > longestHello) return 'bad'
    }
    if (at > to && (length < 0 || have < length + 4)) return 'more'
  }
  message = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
  return readBody(message.subarray(4, length + 4))
}

/** Fewer than five bytes: whether they can still become a handshake record. */
function plausible(b: Buffer, at: number, to: number): 'more' | 'bad' {
  if (to > at && b[at] !== 22) return 'bad'
  if (to > at + 1 && b[at + 1] !== 3) return 'bad'
  return 'more'
}

function readBody(m: Buffer): ClientHello | 'bad' {
  let at = 34
  if (m.length < at + 1) return 'bad'
  at += 1 + m[at]!
  if (at + 2 > m.length) return 'bad'
  at += 2 + m.readUInt16BE(at)
  if (at + 1 > m.length) return 'bad'
  at += 1 + m[at]!
  let serverName: string | undefined
  const alpn: string[] = []
  if (at === m.length) return { serverName, alpn }
  if (at + 2 > m.length) return 'bad'
  const end = at + 2 + m.readUInt16BE(at)
  if (end > m.length) return 'bad'
  at += 2
  while (at + 4 <= end) {
    const type = m.readUInt16BE(at)
    const size = m.readUInt16BE(at + 2)
    const start = at + 4
    at = start + size
    if (at > end) return 'bad'
    if (type === 0 && size >= 5 && m[start + 2] === 0) {
      const n = m.readUInt16BE(start + 3)
      if (n === 0 || n > 255 || start + 5 + n > at) return 'bad'
      const name = m.toString('latin1', start + 5, start + 5 + n).toLowerCase()
      if (!/^[a-z0-9_.-]+$/.test(name)) return 'bad'
      serverName = name.endsWith('.') ? name.slice(0, -1) : name
    } else if (type === 16 && size >= 2) {
      for (let p = start + 2; p < at;) {
        const n = m[p]!
        if (n === 0 || p + 1 + n > at) return 'bad'
        alpn.push(m.toString('latin1', p + 1, p + 1 + n))
        p += 1 + n
      }
    }
  }
  return at === end ? { serverName, alpn } : 'bad'
}

/** The fatal alert that ends a handshake: 112 unrecognized_name, 40 handshake_failure, 50 decode_error. */
export function alertRecord(description: number): Buffer {
  return Buffer.from([21, 3, 1, 0, 2, 2, description])
}
