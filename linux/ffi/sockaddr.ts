import { formatIp, ipBytes, type Ip } from '../../lib/ip.ts'
import { AF_INET, AF_INET6, sockaddrIn, sockaddrIn6 } from './constants.ts'

/** Octets of room any of our addresses needs. */
export const sockaddrRoom = 28

/** Writes `host` (a literal; a zone as an interface's number, `fe80::1%2`) and `port` at `at` of `b`, and gives the length. With `mapped`, IPv4 is written as IPv4-mapped IPv6. Throws when `host` is no address. */
export function writeSockaddr(b: Buffer, at: number, host: string, port: number, mapped = false): number {
  const known = mapped ? undefined : v4Words.get(host)
  if (known !== undefined) {
    b.writeInt32LE(AF_INET | ((port & 255) << 24) | ((port >> 8) << 16), at)
    b.writeInt32LE(known, at + sockaddrIn.address)
    b.fill(0, at + 8, at + sockaddrIn.size)
    return sockaddrIn.size
  }
  const percent = host.indexOf('%')
  const octets = ipBytes(percent < 0 ? host : host.slice(0, percent), { lenient: true })
  if (octets === undefined) throw new Error(`"${host}" is no IP address`)
  if (octets.length === 4 && !mapped) {
    b.fill(0, at, at + sockaddrIn.size)
    b.writeUInt16LE(AF_INET, at)
    b.writeUInt16BE(port, at + sockaddrIn.port)
    b.set(octets, at + sockaddrIn.address)
    remember(v4Words, host, b.readInt32LE(at + sockaddrIn.address))
    return sockaddrIn.size
  }
  b.fill(0, at, at + sockaddrIn6.size)
  b.writeUInt16LE(AF_INET6, at)
  b.writeUInt16BE(port, at + sockaddrIn6.port)
  if (octets.length === 4) {
    b.writeUInt16BE(0xffff, at + sockaddrIn6.address + 10)
    b.set(octets, at + sockaddrIn6.address + 12)
  } else b.set(octets, at + sockaddrIn6.address)
  if (percent >= 0) b.writeUInt32LE(Number(host.slice(percent + 1)) || 0, at + sockaddrIn6.scope)
  return sockaddrIn6.size
}

/** The address at `at` of `b`; IPv4-mapped IPv6 comes as IPv4. Undefined for other families. */
export function readSockaddr(b: Buffer, at: number): { readonly host: Ip; readonly port: number } | undefined {
  const family = b.readUInt16LE(at)
  const port = b.readUInt16BE(at + 2)
  if (family === AF_INET) {
    const word = b.readInt32LE(at + sockaddrIn.address)
    return { host: v4Texts.get(word) ?? remember(v4Texts, word, formatIp(b.subarray(at + 4, at + 8))), port }
  }
  if (family !== AF_INET6) return undefined
  const octets = b.subarray(at + 8, at + 24)
  const isMapped = octets.readUInt32BE(0) === 0 && octets.readUInt32BE(4) === 0 && octets.readUInt32BE(8) === 0xffff
  return { host: formatIp(isMapped ? octets.subarray(12) : octets), port }
}

// The addresses of a node's connections are few; to parse and to print one costs more than the call it is for.
const v4Words = new Map<string, number>()
const v4Texts = new Map<number, Ip>()
const mostKnown = 4096

function remember<K, V>(known: Map<K, V>, key: K, value: V): V {
  if (known.size >= mostKnown) known.clear()
  known.set(key, value)
  return value
}
