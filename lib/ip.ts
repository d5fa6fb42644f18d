/** An address in canonical text: dotted quad, or RFC 5952 for IPv6. */
export type Ip = string & { readonly [ip]: true }
declare const ip: unique symbol

/** A network in canonical text, host bits cleared: `10.0.0.0/8`. */
export type Cidr = string & { readonly [cidr]: true }
declare const cidr: unique symbol

export type IpFamily = 4 | 6

/** How strictly text is read. */
export interface IpParsing {
  /** Takes leading zeros (read as decimal) and IPv4-mapped IPv6, as old Kubernetes did. */
  readonly lenient?: boolean
}

/** The octets of an address, 4 or 16 of them; undefined if `text` is none. Zones (`%eth0`) are refused. */
export function ipBytes(text: string, how: IpParsing = {}): Uint8Array | undefined {
  return text.includes(':') ? v6Bytes(text, how) : v4Bytes(text, how)
}

/** `text` as a canonical address; undefined if it is none. Lenient by default: non-canonical addresses are accepted. */
export function parseIp(text: string, how: IpParsing = { lenient: true }): Ip | undefined {
  const bytes = ipBytes(text, how)
  return bytes === undefined ? undefined : formatIp(how.lenient === true ? unmap(bytes) : bytes)
}

/** The canonical text of 4 or 16 octets. */
export function formatIp(bytes: Uint8Array): Ip {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as Ip
  const words: number[] = []
  for (let i = 0; i < 16; i += 2) words.push((bytes[i]! << 8) | bytes[i + 1]!)
  if (words.slice(0, 5).every((w) => w === 0) && words[5] === 0xffff) return `::ffff:${bytes[12]}.${bytes[13]}.${bytes[14]}.${bytes[15]}` as Ip
  // RFC 5952: the longest run of two or more zero words becomes `::`, the first of equals.
  let best = -1
  let length = 1
  for (let i = 0; i < 8; i++) {
    let n = 0
    while (i + n < 8 && words[i + n] === 0) n++
    if (n > length) [best, length] = [i, n]
  }
  const hex = words.map((w) => w.toString(16))
  if (best < 0) return hex.join(':') as Ip
  return `${hex.slice(0, best).join(':')}::${hex.slice(best + length).join(':')}` as Ip
}

export function familyOf(address: string): IpFamily {
  return address.includes(':') ? 6 : 4
}

/** A network taken apart. */
export interface Network {
  readonly family: IpFamily
  /** First address; 4 or 16 octets, host bits cleared. */
  readonly bytes: Uint8Array
  readonly bits: number
}

/** `text` as a network; undefined if it is none. Host bits are cleared. */
export function network(text: string, how: IpParsing = { lenient: true }): Network | undefined {
  const m = /^([^/]+)\/(\d{1,3})$/.exec(text)
  const raw = m === null ? undefined : ipBytes(m[1]!, how)
  const bits = Number(m?.[2])
  if (raw === undefined || bits > raw.length * 8) return undefined
  const bytes = raw.map((b, i) => b & maskByte(bits, i))
  return { family: bytes.length === 4 ? 4 : 6, bytes, bits }
}

/** `text` as a canonical network; undefined if it is none. */
export function parseCidr(text: string, how?: IpParsing): Cidr | undefined {
  const n = network(text, how)
  return n === undefined ? undefined : formatCidr(n)
}

export function formatCidr(n: Network): Cidr {
  return `${formatIp(n.bytes)}/${n.bits}` as Cidr
}

/** Whether `address` lies in `inside`. */
export function contains(inside: Network | Cidr, address: Ip | Uint8Array): boolean {
  const n = typeof inside === 'string' ? network(inside) : inside
  const bytes = typeof address === 'string' ? ipBytes(address) : address
  if (n === undefined || bytes === undefined || bytes.length !== n.bytes.length) return false
  for (let i = 0; i < bytes.length; i++) if ((bytes[i]! & maskByte(n.bits, i)) !== n.bytes[i]) return false
  return true
}

/** The address `offset` places after the first one of `n`; undefined when that is outside. */
export function nth(n: Network, offset: number | bigint): Ip | undefined {
  const sum = toBigInt(n.bytes) + BigInt(offset)
  const out = fromBigInt(sum, n.bytes.length)
  return out !== undefined && contains(n, out) ? formatIp(out) : undefined
}

/** How many addresses `n` holds. */
export function sizeOf(n: Network): bigint {
  return 1n << BigInt(n.bytes.length * 8 - n.bits)
}

export function toBigInt(bytes: Uint8Array): bigint {
  let n = 0n
  for (const b of bytes) n = (n << 8n) | BigInt(b)
  return n
}

export function fromBigInt(n: bigint, length: number): Uint8Array | undefined {
  if (n < 0n || n >> BigInt(length * 8) !== 0n) return undefined
  const out = new Uint8Array(length)
  for (let i = length - 1; i >= 0; i--, n >>= 8n) out[i] = Number(n & 0xffn)
  return out
}

/** An address as it stands in `host:port`. */
export function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}

function maskByte(bits: number, i: number): number {
  const left = bits - i * 8
  return left >= 8 ? 255 : left <= 0 ? 0 : (0xff << (8 - left)) & 255
}

function unmap(bytes: Uint8Array): Uint8Array {
  if (bytes.length !== 16) return bytes
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return bytes
  return bytes[10] === 255 && bytes[11] === 255 ? bytes.subarray(12) : bytes
}

function v4Bytes(text: string, how: IpParsing): Uint8Array | undefined {
  const parts = text.split('.')
  if (parts.length !== 4) return undefined
  const out = new Uint8Array(4)
  for (let i = 0; i < 4; i++) {
    const part = parts[i]!
    if (!(how.lenient === true ? /^\d{1,10}$/ : /^(0|[1-9]\d{0,2})$/).test(part)) return undefined
    const n = Number(part)
    if (n > 255) return undefined
    out[i] = n
  }
  return out
}

function v6Bytes(text: string, how: IpParsing): Uint8Array | undefined {
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const left = v6Words(halves[0]!, halves.length === 1, how)
  const right = halves.length === 2 ? v6Words(halves[1]!, true, how) : []
  if (left === undefined || right === undefined) return undefined
  const zeros = 8 - left.length - right.length
  if (halves.length === 2 ? zeros < 1 : zeros !== 0) return undefined
  const words = [...left, ...Array.from({ length: zeros }, () => 0), ...right]
  const out = new Uint8Array(16)
  words.forEach((w, i) => {
    out[i * 2] = w >> 8
    out[i * 2 + 1] = w & 255
  })
  return out
}

function v6Words(text: string, last: boolean, how: IpParsing): number[] | undefined {
  if (text === '') return []
  const parts = text.split(':')
  const words: number[] = []
  for (const [i, part] of parts.entries()) {
    if (last && i === parts.length - 1 && part.includes('.')) {
      const v4 = v4Bytes(part, how)
      if (v4 === undefined) return undefined
      words.push((v4[0]! << 8) | v4[1]!, (v4[2]! << 8) | v4[3]!)
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined
      words.push(Number.parseInt(part, 16))
    }
  }
  return words
}
