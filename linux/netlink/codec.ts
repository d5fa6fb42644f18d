/** Flags of a message (linux/netlink.h). */
export const F = { REQUEST: 1, MULTI: 2, ACK: 4, DUMP: 0x300, REPLACE: 0x100, EXCL: 0x200, CREATE: 0x400, APPEND: 0x800 } as const

export const NLMSG_NOOP = 1
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
/** Octets of a message's header: length u32, type u16, flags u16, sequence u32, port u32. */
export const HEADER = 16

const NESTED = 0x8000

/**
 * Writes messages and attributes one behind the other, growing as needed. All positions are octets and multiples of 4; numbers are in host order (little-endian here) unless a name says `Be`.
 * Kept and `reset`, it allocates nothing.
 */
export class Writer {
  bytes: Buffer
  at = 0
  #words: Uint32Array

  constructor(size = 4096) {
    this.bytes = Buffer.from(new ArrayBuffer(size + (-size & 3)))
    this.#words = new Uint32Array(this.bytes.buffer)
  }

  reset(): this {
    this.at = 0
    return this
  }

  /** What was written; valid until the next write. */
  get written(): Buffer {
    return this.bytes.subarray(0, this.at)
  }

  /** Begins a message; `end` it with what this returns. */
  message(type: number, flags: number, sequence: number): number {
    const start = this.#room(HEADER)
    const w = start >> 2
    this.#words[w + 1] = type | (flags << 16)
    this.#words[w + 2] = sequence
    this.#words[w + 3] = 0
    return start
  }

  /** Ends a message begun at `start`. */
  end(start: number): this {
    this.#words[start >> 2] = this.at - start
    return this
  }

  /** Sets flags of the message begun at `start`. */
  addFlags(start: number, flags: number): void {
    this.#words[(start >> 2) + 1]! |= flags << 16
  }

  /** A bare word: family headers are made of them. */
  word(n: number): this {
    const at = this.#room(4)
    this.#words[at >> 2] = n
    return this
  }

  u8(type: number, n: number): this {
    const at = this.#room(8)
    this.#words[at >> 2] = 5 | (type << 16)
    this.#words[(at >> 2) + 1] = n & 0xff
    return this
  }

  u16(type: number, n: number): this {
    const at = this.#room(8)
    this.#words[at >> 2] = 6 | (type << 16)
    this.#words[(at >> 2) + 1] = n & 0xffff
    return this
  }

  u16Be(type: number, n: number): this {
    return this.u16(type, ((n & 0xff) << 8) | ((n >> 8) & 0xff))
  }

  u32(type: number, n: number): this {
    const at = this.#room(8)
    this.#words[at >> 2] = 8 | (type << 16)
    this.#words[(at >> 2) + 1] = n
    return this
  }

  u32Be(type: number, n: number): this {
    return this.u32(type, swap32(n))
  }

  u64Be(type: number, n: bigint): this {
    const at = this.#room(12)
    this.#words[at >> 2] = 12 | (type << 16)
    this.#words[(at >> 2) + 1] = swap32(Number(n >> 32n))
    this.#words[(at >> 2) + 2] = swap32(Number(n & 0xffff_ffffn))
    return this
  }

  data(type: number, octets: Uint8Array): this {
    const length = octets.length
    const at = this.#room(4 + length)
    this.#words[at >> 2] = (4 + length) | (type << 16)
    if ((length & 3) !== 0) this.#words[(this.at >> 2) - 1] = 0
    this.bytes.set(octets, at + 4)
    return this
  }

  /** A string with its final NUL. */
  text(type: number, text: string): this {
    const length = text.length + 1
    const at = this.#room(4 + length)
    this.#words[at >> 2] = (4 + length) | (type << 16)
    this.#words[(this.at >> 2) - 1] = 0
    this.bytes.write(text, at + 4, 'latin1')
    return this
  }

  flag(type: number): this {
    return this.word(4 | (type << 16))
  }

  /** Begins a nested attribute; `unnest` it with what this returns. Its length is 16 bits. */
  nest(type: number): number {
    const at = this.#room(4)
    this.#words[at >> 2] = (type | NESTED) << 16
    return at
  }

  unnest(start: number): this {
    const length = this.at - start
    if (length > 0xffff) throw new RangeError(`a nested attribute of ${length} octets: at most 65535 fit`)
    this.#words[start >> 2]! |= length
    return this
  }

  /** Room for `octets`, rounded up to words; gives its position. */
  #room(octets: number): number {
    const start = this.at
    const next = start + ((octets + 3) & ~3)
    if (next > this.bytes.length) this.#grow(next)
    this.at = next
    return start
  }

  #grow(need: number): void {
    let size = this.bytes.length * 2
    while (size < need) size *= 2
    const bigger = Buffer.from(new ArrayBuffer(size))
    bigger.set(this.bytes)
    this.bytes = bigger
    this.#words = new Uint32Array(bigger.buffer)
  }
}

function swap32(n: number): number {
  return ((n & 0xff) << 24) | ((n & 0xff00) << 8) | ((n >>> 8) & 0xff00) | ((n >>> 24) & 0xff)
}

/** One message taken apart. */
export interface Message {
  readonly type: number
  readonly flags: number
  readonly sequence: number
  /** What follows the header. */
  readonly body: Buffer
}

/** The messages of a datagram. */
export function* messages(datagram: Uint8Array): Generator<Message> {
  const b = Buffer.from(datagram.buffer, datagram.byteOffset, datagram.byteLength)
  for (let at = 0; at + HEADER <= b.length;) {
    const length = b.readUInt32LE(at)
    if (length < HEADER || at + length > b.length) return
    yield { type: b.readUInt16LE(at + 4), flags: b.readUInt16LE(at + 6), sequence: b.readUInt32LE(at + 8), body: b.subarray(at + HEADER, at + length) }
    at += (length + 3) & ~3
  }
}

/** The attributes in `b` from `from` on, by type; of several with one type the last. */
export function attributes(b: Buffer, from = 0): Map<number, Buffer> {
  const found = new Map<number, Buffer>()
  for (const [type, value] of eachAttribute(b, from)) found.set(type, value)
  return found
}

/** The attributes in `b` from `from` on, in order. */
export function* eachAttribute(b: Buffer, from = 0): Generator<readonly [type: number, value: Buffer]> {
  for (let at = from; at + 4 <= b.length;) {
    const length = b.readUInt16LE(at)
    if (length < 4 || at + length > b.length) return
    yield [b.readUInt16LE(at + 2) & 0x3fff, b.subarray(at + 4, at + length)]
    at += (length + 3) & ~3
  }
}

/** A string attribute without its NUL. */
export function textOf(b: Buffer | undefined): string {
  if (b === undefined) return ''
  const end = b.indexOf(0)
  return b.toString('latin1', 0, end < 0 ? b.length : end)
}
