import { performance } from 'node:perf_hooks'
import { Head, NodeFlag, ZoneFlag } from './packed.ts'

/** Words of the counters of one reader. */
export const Count = {
  /** Per site: requests by type label and family. */
  types: 32,
  sites: 16,
  requests: 0,
  /** Per site: NOERROR, NXDOMAIN. */
  responses: 16 * 32 * 2,
  /** By exact length. */
  requestSizes: 16 * 32 * 2 + 16 * 2,
  responseSizes: 16 * 32 * 2 + 16 * 2 + 1024,
  /** Batches by duration; see `durationBuckets`. */
  durations: 16 * 32 * 2 + 16 * 2 + 1024 + 4352,
  /** Microseconds, all together. */
  microseconds: 16 * 32 * 2 + 16 * 2 + 1024 + 4352 + 20,
  /** Per site, of what a cache keeps: answers, no data, no such name. */
  cached: 16 * 32 * 2 + 16 * 2 + 1024 + 4352 + 21,
  words: 16 * 32 * 2 + 16 * 2 + 1024 + 4352 + 21 + 16 * 3,
} as const

/** Upper bounds in milliseconds. */
export const durationBuckets: readonly number[] = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]

/** Index of a type among those that are counted apart; the last one is for all others. */
export const countedTypes: readonly number[] = [1, 28, 15, 6, 5, 12, 16, 2, 33, 43, 48, 46, 47, 50, 65, 64, 35]
const typeIndex = new Uint8Array(512).fill(Count.types - 1)
for (const [i, type] of countedTypes.entries()) typeIndex[type] = i

/** Seconds since 1970 by a clock that nobody sets; whoever keeps and whoever reads a timed answer use it. */
export const seconds = (): number => Math.floor((performance.timeOrigin + performance.now()) / 1000)

/**
 * Answers questions from a table of compiled answers (see `packed.ts`), in place: the answer is written behind the question, which keeps its id and case.
 * Whatever is not the plain shape of a question, or has no compiled answer, is left as it came and asked elsewhere.
 */
export class Resolver {
  readonly #w: Int32Array
  readonly #u8: Uint8Array
  readonly #table: Buffer
  readonly #seed: number
  readonly #rotate: boolean
  readonly #bufsize: number
  readonly #key = new Int32Array(64)
  readonly #starts = new Uint8Array(128)
  readonly counters: Uint32Array
  #random: number
  /** 0 for IPv4, 1 for IPv6: of the socket being served. */
  family = 0

  constructor(memory: SharedArrayBuffer, counters: Uint32Array, random: number) {
    this.#w = new Int32Array(memory)
    this.#u8 = new Uint8Array(memory)
    this.#table = Buffer.from(memory)
    this.#seed = this.#w[Head.seed]!
    this.#rotate = this.#w[Head.rotate] === 1
    this.#bufsize = this.#w[Head.bufsize]!
    this.counters = counters
    this.#random = random | 1
  }

  /** Octets of the answer that now stands in b from `from`; 0: none is sent; -1: ask the handlers. `most`: of an answer over TCP, else what UDP allows. */
  resolve(b: Buffer, from: number, to: number, room: number, most = 0): number {
    const length = to - from
    if (length < 17) return -1
    const high = b[from + 2]!
    if ((high & 0x80) !== 0) return 0
    // Opcode and TC clear, one question, nothing but perhaps one record behind it.
    if ((high & 0x7a) !== 0 || b[from + 4] !== 0 || b[from + 5] !== 1 || (b[from + 6]! | b[from + 7]! | b[from + 8]! | b[from + 9]! | b[from + 10]!) !== 0) return -1
    const extra = b[from + 11]!
    if (extra > 1) return -1

    const begin = from + 12
    const starts = this.#starts
    let labels = 0
    let p = begin
    for (;;) {
      const l = b[p]!
      if (l === 0) break
      if (l > 63) return -1
      starts[labels++] = p - begin
      p += l + 1
      if (p >= to || p - begin >= 255) return -1
    }
    const octets = p + 1 - begin
    if (p + 5 > to) return -1
    const type = (b[p + 1]! << 8) | b[p + 2]!
    if (b[p + 3] !== 0 || b[p + 4] !== 1) return -1
    if (type > 248 && type < 256) return -1
    const end = p + 5

    let limit = most
    let edns = 0
    let dnssec = 0
    if (extra === 0) {
      if (end !== to) return -1
      if (most === 0) limit = this.#bufsize < 512 ? this.#bufsize : 512
    } else {
      if (end + 11 > to || b[end] !== 0 || b[end + 1] !== 0 || b[end + 2] !== 41 || b[end + 5] !== 0 || b[end + 6] !== 0) return -1
      if (end + 11 + ((b[end + 9]! << 8) | b[end + 10]!) !== to) return -1
      for (let o = end + 11; o < to;) {
        if (o + 4 > to) return -1
        o += 4 + ((b[o + 2]! << 8) | b[o + 3]!)
        if (o > to) return -1
      }
      edns = 11
      dnssec = b[end + 7]! & 0x80
      if (most === 0) {
        const size = (b[end + 3]! << 8) | b[end + 4]!
        limit = size < 512 ? 512 : size > this.#bufsize ? this.#bufsize : size
      }
    }

    // The name in lower case, four octets a step, and its hash. Lengths are below the letters, octets above 127 stay.
    const key = this.#key
    const words = (octets + 3) >> 2
    let h = this.#seed
    let q = begin
    for (let i = 0; i < words; i++, q += 4) {
      let x = b[q]! | (b[q + 1]! << 8) | (b[q + 2]! << 16) | (b[q + 3]! << 24)
      if (i === words - 1 && (octets & 3) !== 0) x &= (1 << ((octets & 3) << 3)) - 1
      const t = x & 0x7f7f7f7f
      x |= (~x & 0x80808080 & ((t + 0x3f3f3f3f) ^ (t + 0x25252525))) >>> 2
      key[i] = x
      h = Math.imul(h ^ x, 0x9e3779b1)
      h ^= h >>> 15
    }

    const w = this.#w
    const block = w[Head.slots]!
    const slots = block + 2
    const mask = w[block]!
    let node = 0
    for (let i = h & mask; ; i = (i + 1) & mask) {
      const at = w[slots + i * 2 + 1]!
      if (at === 0) break
      if (at === 1 || w[slots + i * 2] !== h || (w[at + 1]! & 0xffff) !== octets) continue
      let same = true
      for (let k = 0; k < words; k++) {
        if (w[at + 3 + k] !== key[k]) {
          same = false
          break
        }
      }
      if (same) {
        node = at
        break
      }
    }
    if (node !== 0) {
      if ((w[node + 2]! & NodeFlag.ask) !== 0) return -1
      const sets = w[node + 1]! >>> 16
      const pairs = node + 3 + words
      for (let i = 0; i < sets; i++) {
        if (w[pairs + i * 2] !== type) continue
        if ((w[node + 2]! & NodeFlag.timed) !== 0) return dnssec !== 0 ? -1 : this.#timed(b, from, end, room, limit, edns, w[pairs + i * 2 + 1]!, type, w[node + 2]! >>> 8)
        return this.#positive(b, from, end, room, limit, edns, dnssec, w[pairs + i * 2 + 1]!, type, w[node + 2]! >>> 8)
      }
      if ((w[node + 2]! & NodeFlag.timed) !== 0) return -1
    }
    return this.#negative(b, from, end, room, limit, edns, dnssec, node === 0, labels, octets, type)
  }

  /** The zone of the name in `#key`: its offset, and where it begins in the name in `#zoneAt`. 0: none. */
  #zoneAt = 0
  #zone(labels: number, octets: number): number {
    const w = this.#w
    const u8 = this.#u8
    const block = w[Head.zones]!
    const starts = this.#starts
    const key = this.#key
    let z = block + 1
    for (let i = 0; i < w[block]!; i++) {
      const size = w[z]! & 0xffff
      const at = octets - size
      if (at >= 0) {
        // From the front: zones differ there, while their ends are often the same.
        let same = true
        const name = (z + 3) * 4
        for (let j = 0; j < size; j++) {
          const k = at + j
          if (u8[name + j] !== ((key[k >> 2]! >>> ((k & 3) << 3)) & 255)) {
            same = false
            break
          }
        }
        if (same) {
          let boundary = size === 1
          for (let j = labels - 1; j >= 0 && !boundary; j--) {
            if (starts[j] === at) boundary = true
            else if (starts[j]! < at) break
          }
          if (boundary) {
            this.#zoneAt = at
            return z
          }
        }
      }
      z += 3 + ((size + 3) >> 2)
    }
    return 0
  }

  #positive(b: Buffer, from: number, end: number, room: number, limit: number, edns: number, dnssec: number, answer: number, type: number, site: number): number {
    const w = this.#w
    const octets = w[answer]! & 0xffff
    const recordSize = w[answer]! >>> 16
    const answerOctets = w[answer + 1]! & 0xffff
    let answers = w[answer + 2]! & 0xffff
    let used = octets
    let cut = 0
    const before = end - from
    const source = (answer + 4) * 4
    let additional = w[answer + 3]! & 0xffff
    if (before + octets + edns > limit) {
      if (w[answer + 2]! >>> 16 !== 0) return -1
      if (recordSize !== 0 && octets === answerOctets) {
        answers = ((limit - before - edns) / recordSize) | 0
        used = answers * recordSize
        cut = 2
      } else {
        // Whole records from the front, as many as fit; what is additional is given up without a word.
        const u8 = this.#u8
        const last = source + octets
        const most = source + limit - before - edns
        let n = 0
        used = 0
        for (let q = source; q < last; n++) {
          while (u8[q]! !== 0 && u8[q]! < 192) q += u8[q]! + 1
          q += u8[q] === 0 ? 1 : 2
          q += 10 + ((u8[q + 8]! << 8) | u8[q + 9]!)
          if (q > most) break
          used = q - source
        }
        if (n < answers) {
          answers = n
          additional = 0
          cut = 2
        } else additional = n - answers
      }
    }
    const total = before + used + edns
    if (from + total > room) return -1
    let p = end
    if (recordSize !== 0 && this.#rotate && answerOctets > recordSize) {
      const start = this.#below((answerOctets / recordSize) | 0) * recordSize
      const first = answerOctets - start
      if (used <= first) p = this.#copy(b, p, source + start, used)
      else {
        p = this.#copy(b, p, source + start, first)
        p = this.#copy(b, p, source, (used < answerOctets ? used : answerOctets) - first)
        if (used > answerOctets) p = this.#copy(b, p, source + answerOctets, used - answerOctets)
      }
    } else p = this.#copy(b, p, source, used)
    b[from + 2] = 0x84 | (b[from + 2]! & 1) | cut
    b[from + 3] = 0x80 | (b[from + 3]! & 0x10) | (w[answer + 1]! >>> 16)
    b[from + 6] = answers >> 8
    b[from + 7] = answers
    b[from + 8] = 0
    b[from + 9] = w[answer + 2]! >>> 16
    if (cut !== 0) additional = 0
    if (edns !== 0) additional++
    b[from + 10] = additional >> 8
    b[from + 11] = additional
    if (edns !== 0) this.#opt(b, p, dnssec)
    this.#count(site, type, 0, before + edns, total)
    return total
  }

  /** A random number below n. */
  #below(n: number): number {
    this.#random ^= this.#random << 13
    this.#random ^= this.#random >>> 17
    this.#random ^= this.#random << 5
    return (this.#random >>> 0) % n
  }

  /** What a cache keeps: its TTLs are those that are left, it is nobody's authority here, and whoever wants more than plain records asks elsewhere. */
  #timed(b: Buffer, from: number, end: number, room: number, limit: number, edns: number, answer: number, type: number, site: number): number {
    const w = this.#w
    const octets = w[answer]! & 0xffff
    const before = end - from
    const total = before + octets + edns
    if ((b[from + 3]! & 0x10) !== 0 || total > limit || from + total > room) return -1
    const tail = answer + 4 + ((octets + 3) >> 2)
    const left = (w[tail]! - seconds()) | 0
    if (left <= 0) return -1
    const source = (answer + 4) * 4
    const recordSize = w[answer]! >>> 16
    const turnAt = w[answer + 3]! >>> 16
    const turning = (w[answer + 1]! & 0xffff) - turnAt
    const p = this.#copy(b, end, source, octets)
    if (recordSize !== 0 && this.#rotate && turning > recordSize) {
      const first = this.#below((turning / recordSize) | 0) * recordSize
      this.#copy(b, end + turnAt, source + turnAt + first, turning - first)
      this.#copy(b, end + turnAt + turning - first, source + turnAt, first)
    }
    const ttls = w[tail + 2]!
    for (let i = 0; i < ttls; i++) {
      const at = end + w[tail + 3 + i]!
      b[at] = left >>> 24
      b[at + 1] = left >> 16
      b[at + 2] = left >> 8
      b[at + 3] = left
    }
    const rcode = w[answer + 1]! >>> 16
    const answers = w[answer + 2]! & 0xffff
    const authority = w[answer + 2]! >>> 16
    const additional = (w[answer + 3]! & 0xffff) + (edns !== 0 ? 1 : 0)
    b[from + 2] = 0x80 | (b[from + 2]! & 1)
    b[from + 3] = 0x80 | rcode
    b[from + 6] = answers >> 8
    b[from + 7] = answers
    b[from + 8] = authority >> 8
    b[from + 9] = authority
    b[from + 10] = additional >> 8
    b[from + 11] = additional
    if (edns !== 0) this.#opt(b, p, 0)
    this.counters[Count.cached + site * 3 + (rcode !== 0 ? 2 : w[tail + 1]!)]!++
    this.#sizes(site, type, before + edns, total)
    return total
  }

  #negative(b: Buffer, from: number, end: number, room: number, limit: number, edns: number, dnssec: number, absent: boolean, labels: number, octets: number, type: number): number {
    const w = this.#w
    const zone = this.#zone(labels, octets)
    if (zone === 0) return -1
    if (absent && ((w[zone]! >>> 16) & ZoneFlag.ask) !== 0) return -1
    const negative = w[zone + 2]!
    if (negative === 0) return -1
    const size = w[negative]!
    const before = end - from
    const total = before + size + edns
    if (total > limit || from + total > room) return -1
    const fixups = w[negative + 1]!
    const p = this.#copy(b, end, (negative + 2 + fixups) * 4, size)
    const pointer = 0xc000 | (12 + this.#zoneAt)
    for (let i = 0; i < fixups; i++) {
      const at = end + w[negative + 2 + i]!
      b[at] = pointer >> 8
      b[at + 1] = pointer
    }
    b[from + 2] = 0x84 | (b[from + 2]! & 1)
    b[from + 3] = 0x80 | (b[from + 3]! & 0x10) | (absent ? 3 : 0)
    b[from + 6] = 0
    b[from + 7] = 0
    b[from + 8] = 0
    b[from + 9] = 1
    b[from + 10] = 0
    b[from + 11] = edns !== 0 ? 1 : 0
    if (edns !== 0) this.#opt(b, p, dnssec)
    this.#count(w[zone + 1]!, type, absent ? 1 : 0, before + edns, total)
    return total
  }

  #opt(b: Buffer, p: number, dnssec: number): void {
    b[p] = 0
    b[p + 1] = 0
    b[p + 2] = 41
    b[p + 3] = this.#bufsize >> 8
    b[p + 4] = this.#bufsize
    b[p + 5] = 0
    b[p + 6] = 0
    b[p + 7] = dnssec
    b[p + 8] = 0
    b[p + 9] = 0
    b[p + 10] = 0
  }

  #copy(b: Buffer, at: number, source: number, octets: number): number {
    if (octets <= 96) {
      const u8 = this.#u8
      for (let i = 0; i < octets; i++) b[at + i] = u8[source + i]!
    } else this.#table.copy(b, at, source, source + octets)
    return at + octets
  }

  /** `n` questions were answered within `ms` milliseconds. */
  took(ms: number, n: number): void {
    let i = 0
    while (i < 16 && ms > durationBuckets[i]!) i++
    this.counters[Count.durations + i]! += n
    this.counters[Count.microseconds]! += ms * 1000 * n
  }

  #count(site: number, type: number, rcode: number, asked: number, answered: number): void {
    this.counters[Count.responses + site * 2 + rcode]!++
    this.#sizes(site, type, asked, answered)
  }

  #sizes(site: number, type: number, asked: number, answered: number): void {
    const c = this.counters
    c[Count.requests + (site * Count.types + (type < 512 ? typeIndex[type]! : Count.types - 1)) * 2 + this.family]!++
    c[Count.requestSizes + (asked < 1024 ? asked : 1023)]!++
    c[Count.responseSizes + (answered < 4352 ? answered : 4351)]!++
  }
}
