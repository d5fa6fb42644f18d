import { ipBytes, formatIp } from '../../lib/ip.ts'
import { nameEnd, printName, type Name, type Octets } from './name.ts'
import { Type } from './types.ts'

/** RDATA of an A or AAAA record for an address; undefined if `address` is none. */
export function addressData(address: string): Octets | undefined {
  const bytes = ipBytes(address, { lenient: true })
  return bytes === undefined ? undefined : String.fromCharCode(...bytes)
}

/** The record type that holds an address with these octets. */
export const addressType = (data: Octets): number => (data.length === 4 ? Type.A : Type.AAAA)

export const u16 = (n: number): Octets => String.fromCharCode((n >> 8) & 255, n & 255)
export const u32 = (n: number): Octets => String.fromCharCode((n >>> 24) & 255, (n >>> 16) & 255, (n >>> 8) & 255, n & 255)
export const readU16 = (data: Octets, at: number): number => (data.charCodeAt(at) << 8) | data.charCodeAt(at + 1)
export const readU32 = (data: Octets, at: number): number => ((readU16(data, at) << 16) | readU16(data, at + 2)) >>> 0

/** RDATA of an SRV record (RFC 2782). */
export const srvData = (priority: number, weight: number, port: number, target: Name): Octets => u16(priority) + u16(weight) + u16(port) + target

/** RDATA of a TXT record; strings longer than 255 octets are cut into several. */
export function txtData(...strings: readonly Octets[]): Octets {
  let out = ''
  for (const s of strings) for (let i = 0; i === 0 || i < s.length; i += 255) out += String.fromCharCode(Math.min(255, s.length - i)) + s.slice(i, i + 255)
  return out
}

/** What an SOA record says. Times in seconds. */
export interface Soa {
  readonly mname: Name
  readonly rname: Name
  readonly serial: number
  readonly refresh: number
  readonly retry: number
  readonly expire: number
  readonly minimum: number
}

export const soaData = (s: Soa): Octets => s.mname + s.rname + u32(s.serial) + u32(s.refresh) + u32(s.retry) + u32(s.expire) + u32(s.minimum)

/** RDATA as zone files write it; `\# LENGTH HEX` for types it does not know (RFC 3597 section 5). */
export function printData(type: number, data: Octets): string {
  const generic = (): string => `\\# ${data.length} ${Buffer.from(data, 'latin1').toString('hex')}`.trimEnd()
  const nameAt = (at: number): string | undefined => {
    const end = nameEnd(data, at)
    return end < 0 ? undefined : printName(data.slice(at, end) as Name)
  }
  switch (type) {
    case Type.A:
    case Type.AAAA:
      return data.length === (type === Type.A ? 4 : 16) ? formatIp(Uint8Array.from(data, (c) => c.charCodeAt(0))) : generic()
    case Type.NS:
    case Type.CNAME:
    case Type.PTR:
    case Type.DNAME:
      return nameAt(0) ?? generic()
    case Type.MX:
      return data.length < 3 ? generic() : `${readU16(data, 0)} ${nameAt(2) ?? '?'}`
    case Type.SRV:
      return data.length < 7 ? generic() : `${readU16(data, 0)} ${readU16(data, 2)} ${readU16(data, 4)} ${nameAt(6) ?? '?'}`
    case Type.SOA: {
      const one = nameEnd(data, 0)
      const two = one < 0 ? -1 : nameEnd(data, one)
      if (two < 0 || data.length - two !== 20) return generic()
      return `${nameAt(0)} ${nameAt(one)} ${[0, 4, 8, 12, 16].map((o) => readU32(data, two + o)).join(' ')}`
    }
    case Type.TXT:
    case Type.SPF:
    case Type.HINFO: {
      const out: string[] = []
      for (let p = 0; p < data.length; p += 1 + data.charCodeAt(p)) out.push(quoted(data.slice(p + 1, p + 1 + data.charCodeAt(p))))
      return out.join(' ')
    }
    default:
      return generic()
  }
}

function quoted(s: Octets): string {
  return `"${s.replace(/["\\]/g, '\\$&').replace(/[^ -~]/g, (c) => `\\${String(c.charCodeAt(0)).padStart(3, '0')}`)}"`
}
