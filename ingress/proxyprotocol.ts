import { formatIp } from '../lib/ip.ts'
import type { Address } from '../lib/sockets/seam.ts'

/** What a proxy in front says of a connection. */
export interface Proxied {
  /** Where the header ends. */
  readonly end: number
  /** Undefined: the proxy speaks for itself (`LOCAL`), or does not know. */
  readonly peer: Address | undefined
  readonly local: Address | undefined
}

const signature = Buffer.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a])
/** The longest header of version 1. */
const longestText = 107
/** Addresses and whatever a header of version 2 carries besides. */
const longestBinary = 4096

/** The header of the PROXY protocol (version 1 or 2) at the beginning of b[from, to): `more` when it is not whole yet, `bad` when there is none. */
export function readProxy(b: Buffer, from: number, to: number): Proxied | 'more' | 'bad' {
  const n = Math.min(to - from, signature.length)
  if (n > 0 && b.compare(signature, 0, n, from, from + n) === 0) return n < signature.length ? 'more' : binary(b, from, to)
  return text(b, from, to)
}

function text(b: Buffer, from: number, to: number): Proxied | 'more' | 'bad' {
  const all = b.latin1Slice(from, Math.min(to, from + longestText))
  if (!'PROXY '.startsWith(all.slice(0, 6))) return 'bad'
  const line = all.indexOf('\r\n')
  if (line < 0) return all.length >= longestText ? 'bad' : 'more'
  const end = from + line + 2
  const words = all.slice(0, line).split(' ')
  if (words[1] === 'UNKNOWN') return { end, peer: undefined, local: undefined }
  const [, family, source, destination, sourcePort, destinationPort] = words
  if (words.length !== 6 || (family !== 'TCP4' && family !== 'TCP6')) return 'bad'
  const shape = family === 'TCP4' ? /^\d{1,3}(\.\d{1,3}){3}$/ : /^[0-9a-fA-F:.]{2,45}$/
  const port = /^(0|[1-9]\d{0,4})$/
  if (!shape.test(source!) || !shape.test(destination!) || !port.test(sourcePort!) || !port.test(destinationPort!)) return 'bad'
  if (Number(sourcePort) > 65_535 || Number(destinationPort) > 65_535) return 'bad'
  if (family === 'TCP4' && [source!, destination!].some((a) => a.split('.').some((o) => Number(o) > 255))) return 'bad'
  return { end, peer: { host: source!, port: Number(sourcePort) }, local: { host: destination!, port: Number(destinationPort) } }
}

function binary(b: Buffer, from: number, to: number): Proxied | 'more' | 'bad' {
  if (to - from < 16) return 'more'
  const versionAndCommand = b[from + 12]!
  const family = b[from + 13]! >> 4
  const length = b.readUInt16BE(from + 14)
  if (versionAndCommand >> 4 !== 2 || (versionAndCommand & 15) > 1 || length > longestBinary) return 'bad'
  const end = from + 16 + length
  if (to < end) return 'more'
  const at = from + 16
  if ((versionAndCommand & 15) === 0 || family === 0 || family === 3) return { end, peer: undefined, local: undefined }
  if (family === 1) {
    if (length < 12) return 'bad'
    const ip = (p: number): string => `${b[p]}.${b[p + 1]}.${b[p + 2]}.${b[p + 3]}`
    return { end, peer: { host: ip(at), port: b.readUInt16BE(at + 8) }, local: { host: ip(at + 4), port: b.readUInt16BE(at + 10) } }
  }
  if (family !== 2 || length < 36) return 'bad'
  return { end, peer: { host: ip6(b, at), port: b.readUInt16BE(at + 32) }, local: { host: ip6(b, at + 16), port: b.readUInt16BE(at + 34) } }
}

/** Sixteen octets as text; an address of version 4 in them as such. */
function ip6(b: Buffer, at: number): string {
  const text = formatIp(b.subarray(at, at + 16))
  return text.startsWith('::ffff:') && text.includes('.') ? text.slice(7) : text
}

/** A header of version 1 that speaks for `peer`, who asked for `local`. */
export function writeProxy(peer: Address, local: Address): Buffer {
  const six = peer.host.includes(':') || local.host.includes(':')
  const as = (host: string): string => (six && !host.includes(':') ? `::ffff:${host}` : host)
  return Buffer.from(`PROXY ${six ? 'TCP6' : 'TCP4'} ${as(peer.host)} ${as(local.host)} ${peer.port} ${local.port}\r\n`, 'latin1')
}
