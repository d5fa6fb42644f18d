import type { Name, Octets } from './wire/name.ts'

/**
 * Compiled answers in one block of shared memory: one writer, any number of readers, no locks. All offsets count 32-bit words.
 *
 *   header   see `Head`
 *   slots    mask | unused | (slot)*
 *   slot     hash | node (0 empty, 1 grave)                          open addressing, at most half full
 *   node     hash | octets of the name, sets << 16 | flags, site << 8 | folded name, padded with zeroes | (type, answer)*
 *   answer   octets, size of a record << 16 | octets of the answer section, rcode << 16 | answers, authority << 16 | additional, octets before those that turn << 16 | records as on the wire
 *   timed    … | seconds since 1970 when it expires, kind | number of TTLs | (offset of a TTL)*     behind the records of an answer that a cache keeps
 *   zones    count | (zone)*, longest first
 *   zone     octets of the name, flags << 16 | site | negative answer or 0 | folded name, padded
 *   negative octets | fixups << 16, octets … : an SOA record whose fixups are pointers to the zone in the question
 *
 * A changed name gets new blocks, then its slot is stored: a reader sees the old answer or the new one, whole. Blocks given up are used
 * again only after `grace` milliseconds, long after any batch that could have seen them.
 */
export const Head = { slots: 1, zones: 3, bufsize: 4, seed: 5, rotate: 6, words: 16 } as const

export const NodeFlag = {
  ask: 1,
  /** Answers of others, until they expire. What is not here is asked for. */
  timed: 2,
} as const
export const ZoneFlag = {
  /** Names that are not in the table: ask the handlers. */
  ask: 1,
} as const

/** An answer as it stands behind the question. */
export interface PackedAnswer {
  readonly type: number
  readonly rcode: number
  readonly records: Buffer
  readonly answers: number
  readonly authority: number
  readonly additional: number
  /** Octets of the answer section. */
  readonly answerOctets: number
  /** Octets of each record of the answer section, if they are all equally long and may be turned; else 0. */
  readonly recordSize: number
  /** Octets of the answer section before those that are turned: aliases. */
  readonly turnAt?: number
  /** Of an answer that a cache keeps. */
  readonly timed?: {
    /** Seconds since 1970. */
    readonly expires: number
    readonly kind: 'success' | 'denial'
    /** Where its TTLs stand. */
    readonly ttls: readonly number[]
  }
}

/** A zone, or a branch in one that is answered otherwise. */
export interface PackedZone {
  readonly name: Name
  readonly site: number
  /** Missing names are asked about. */
  readonly ask: boolean
  /** The SOA record behind the question; pointers to the zone at `fixups`. Undefined: negative answers are asked for. */
  readonly negative: { readonly octets: Buffer; readonly fixups: readonly number[] } | undefined
}

const empty = 0
const grave = 1
/** Milliseconds until a block that was given up is used again. */
const grace = 2000

/** The writer of a table of compiled answers. */
export class PackedTable {
  readonly memory: SharedArrayBuffer
  readonly #w: Int32Array
  readonly #u8: Uint8Array
  readonly #now: () => number
  readonly #seed: number
  #next: number
  #names = 0
  #graves = 0
  readonly #free = new Map<number, number[]>()
  readonly #retired: { readonly at: number; readonly offset: number; readonly words: number }[] = []
  #retiredFrom = 0
  #full = false

  /** `bytes` are reserved; memory is taken only as it is written. */
  constructor(bytes: number, options: { readonly bufsize: number; readonly rotate: boolean; readonly seed: number; readonly now: () => number }) {
    this.memory = new SharedArrayBuffer(bytes)
    this.#w = new Int32Array(this.memory)
    this.#u8 = new Uint8Array(this.memory)
    this.#now = options.now
    this.#seed = options.seed
    this.#next = Head.words
    this.#w[Head.bufsize] = options.bufsize
    this.#w[Head.seed] = options.seed
    this.#w[Head.rotate] = options.rotate ? 1 : 0
    this.#makeSlots(1024)
    this.#w[Head.zones] = this.#allocate(1)
  }

  get names(): number {
    return this.#names
  }
  /** Octets ever taken. */
  get octets(): number {
    return this.#next * 4
  }
  /** No room is left: answers are missing, readers must ask for what they do not find. */
  get full(): boolean {
    return this.#full
  }

  /** Replaces the zones. */
  setZones(zones: readonly PackedZone[]): void {
    const w = this.#w
    const sorted = zones.toSorted((a, b) => b.name.length - a.name.length)
    const sizes = sorted.map((z) => 3 + ((z.name.length + 3) >> 2))
    const block = this.#allocate(1 + sizes.reduce((sum, n) => sum + n, 0))
    if (block === 0) return
    let p = block + 1
    const negatives: number[] = []
    for (const [i, z] of sorted.entries()) {
      let negative = 0
      if (z.negative !== undefined) {
        const { octets, fixups } = z.negative
        negative = this.#allocate(2 + fixups.length + ((octets.length + 3) >> 2))
        if (negative !== 0) {
          w[negative] = octets.length
          w[negative + 1] = fixups.length
          for (const [j, f] of fixups.entries()) w[negative + 2 + j] = f
          this.#u8.set(octets, (negative + 2 + fixups.length) * 4)
          negatives.push(negative)
        }
      }
      w[p] = z.name.length | ((z.ask ? ZoneFlag.ask : 0) << 16)
      w[p + 1] = z.site
      w[p + 2] = negative
      for (let j = 0; j < z.name.length; j++) this.#u8[(p + 3) * 4 + j] = z.name.charCodeAt(j)
      p += sizes[i]!
    }
    w[block] = sorted.length
    const old = w[Head.zones]!
    Atomics.store(w, Head.zones, block)
    this.#retireZones(old)
  }

  #retireZones(block: number): void {
    const w = this.#w
    let p = block + 1
    for (let i = 0; i < w[block]!; i++) {
      const negative = w[p + 2]!
      if (negative !== 0) this.#retire(negative, 2 + w[negative + 1]! + ((w[negative]! + 3) >> 2))
      p += 3 + (((w[p]! & 0xffff) + 3) >> 2)
    }
    this.#retire(block, p - block)
  }

  /** What is answered at a folded name; undefined: the name does not exist. `ask`: whoever is asked for it asks the handlers. */
  set(name: Name, answers: readonly PackedAnswer[] | undefined, ask = false, site = 0): void {
    const timed = answers?.[0]?.timed !== undefined
    const key = keyWords(name)
    const hash = hashWords(key, this.#seed)
    const slot = this.#find(hash, key, name.length)
    const w = this.#w
    const old = w[slot + 1]!
    // Without room for the new answer the old one goes all the same.
    const node = answers === undefined ? 0 : this.#writeNode(hash, key, name.length, answers, (ask ? NodeFlag.ask : 0) | (timed ? NodeFlag.timed : 0) | (site << 8))
    if (node === 0) {
      if (old === empty) return
      Atomics.store(w, slot + 1, grave)
      this.#names--
      this.#graves++
      this.#retireNode(old)
    } else if (old === empty) {
      const free = this.#freeSlot(hash)
      if (w[free + 1] === grave) this.#graves--
      Atomics.store(w, free, hash)
      Atomics.store(w, free + 1, node)
      this.#names++
      if ((this.#names + this.#graves) * 2 > w[w[Head.slots]!]! + 1) this.#rebuild()
    } else {
      Atomics.store(w, slot + 1, node)
      this.#retireNode(old)
    }
  }

  /** The slot of a name, or an empty one. */
  #find(hash: number, key: Int32Array, octets: number): number {
    const w = this.#w
    const block = w[Head.slots]!
    const slots = block + 2
    const mask = w[block]!
    for (let i = hash & mask; ; i = (i + 1) & mask) {
      const slot = slots + i * 2
      const node = w[slot + 1]!
      if (node === empty) return slot
      if (node !== grave && w[slot] === hash && (w[node + 1]! & 0xffff) === octets && this.#same(node, key)) return slot
    }
  }

  /** The first slot for a new name: graves are used again. */
  #freeSlot(hash: number): number {
    const w = this.#w
    const block = w[Head.slots]!
    const slots = block + 2
    const mask = w[block]!
    for (let i = hash & mask; ; i = (i + 1) & mask) {
      const slot = slots + i * 2
      if (w[slot + 1] === empty || w[slot + 1] === grave) return slot
    }
  }

  #same(node: number, key: Int32Array): boolean {
    for (let i = 0; i < key.length; i++) if (this.#w[node + 3 + i] !== key[i]) return false
    return true
  }

  #writeNode(hash: number, key: Int32Array, octets: number, answers: readonly PackedAnswer[], flags: number): number {
    const w = this.#w
    const offsets = answers.map((a) => this.#writeAnswer(a))
    const node = offsets.includes(0) ? 0 : this.#allocate(3 + key.length + answers.length * 2)
    if (node === 0) return 0
    w[node] = hash
    w[node + 1] = octets | (answers.length << 16)
    w[node + 2] = flags
    for (let i = 0; i < key.length; i++) w[node + 3 + i] = key[i]!
    for (const [i, a] of answers.entries()) {
      w[node + 3 + key.length + i * 2] = a.type
      w[node + 3 + key.length + i * 2 + 1] = offsets[i]!
    }
    return node
  }

  #writeAnswer(a: PackedAnswer): number {
    const w = this.#w
    const tail = 4 + ((a.records.length + 3) >> 2)
    const { timed } = a
    const at = this.#allocate(tail + (timed === undefined ? 0 : 3 + timed.ttls.length))
    if (at === 0) return 0
    if (timed !== undefined) {
      w[at + tail] = timed.expires
      w[at + tail + 1] = timed.kind === 'success' ? 0 : 1
      w[at + tail + 2] = timed.ttls.length
      for (const [i, offset] of timed.ttls.entries()) w[at + tail + 3 + i] = offset
    }
    w[at] = a.records.length | (a.recordSize << 16)
    w[at + 1] = a.answerOctets | (a.rcode << 16)
    w[at + 2] = a.answers | (a.authority << 16)
    w[at + 3] = a.additional | ((a.turnAt ?? 0) << 16)
    this.#u8.set(a.records, (at + 4) * 4)
    return at
  }

  #retireNode(node: number): void {
    const w = this.#w
    const sets = w[node + 1]! >>> 16
    const key = ((w[node + 1]! & 0xffff) + 3) >> 2
    for (let i = 0; i < sets; i++) {
      const answer = w[node + 3 + key + i * 2 + 1]!
      const tail = 4 + (((w[answer]! & 0xffff) + 3) >> 2)
      this.#retire(answer, (w[node + 2]! & NodeFlag.timed) === 0 ? tail : tail + 3 + w[answer + tail + 2]!)
    }
    this.#retire(node, 3 + key + sets * 2)
  }

  #retire(offset: number, words: number): void {
    this.#retired.push({ at: this.#now(), offset, words: rounded(words) })
  }

  #reclaim(): void {
    const before = this.#now() - grace
    const list = this.#retired
    let i = this.#retiredFrom
    for (; i < list.length && list[i]!.at < before; i++) {
      const { offset, words } = list[i]!
      const free = this.#free.get(words)
      if (free === undefined) this.#free.set(words, [offset])
      else free.push(offset)
    }
    this.#retiredFrom = i
    if (i > 1000 && i * 2 > list.length) {
      list.splice(0, i)
      this.#retiredFrom = 0
    }
  }

  /** 0: no room. */
  #allocate(wanted: number): number {
    const words = rounded(wanted)
    this.#reclaim()
    const reused = this.#free.get(words)?.pop()
    if (reused !== undefined) return reused
    if ((this.#next + words) * 4 > this.memory.byteLength) return this.#split(words)
    const at = this.#next
    this.#next += words
    return at
  }

  /** Takes a larger block apart. 0: there is none. */
  #split(words: number): number {
    let best = 0
    for (const [size, list] of this.#free) if (size > words && list.length > 0 && (best === 0 || size < best)) best = size
    if (best === 0) {
      this.#full = true
      return 0
    }
    const at = this.#free.get(best)!.pop()!
    // What is left over may be of no standard size: it is cut into pieces that are.
    for (let rest = at + words, left = best - words; left > 0;) {
      const piece = left <= 32 ? left : 32
      const list = this.#free.get(piece)
      if (list === undefined) this.#free.set(piece, [rest])
      else list.push(rest)
      rest += piece
      left -= piece
    }
    return at
  }

  #makeSlots(count: number): void {
    const w = this.#w
    const at = this.#allocate(2 + count * 2)
    if (at === 0) return
    w.fill(0, at, at + 2 + count * 2)
    w[at] = count - 1
    w[Head.slots] = at
  }

  /** New slots, twice as many as are needed, without graves. */
  #rebuild(): void {
    const w = this.#w
    const old = w[Head.slots]!
    const count = w[old]! + 1
    let wanted = 1024
    while (wanted < this.#names * 4) wanted *= 2
    const block = this.#allocate(2 + wanted * 2)
    if (block === 0) return
    w.fill(0, block, block + 2 + wanted * 2)
    w[block] = wanted - 1
    for (let i = 0; i < count; i++) {
      const node = w[old + 2 + i * 2 + 1]!
      if (node === empty || node === grave) continue
      let j = w[old + 2 + i * 2]! & (wanted - 1)
      while (w[block + 2 + j * 2 + 1] !== empty) j = (j + 1) & (wanted - 1)
      w[block + 2 + j * 2] = w[old + 2 + i * 2]!
      w[block + 2 + j * 2 + 1] = node
    }
    Atomics.store(w, Head.slots, block)
    this.#graves = 0
    this.#retire(old, 2 + count * 2)
  }
}

/** Few sizes, so that what is given back fits the next one. */
const rounded = (words: number): number => (words <= 32 ? (words + 1) & ~1 : (words + 7) & ~7)

const keys = Array.from({ length: 65 }, (_, i) => new Int32Array(i))

/** The octets of a folded name as words, padded with zeroes. Lent: the next call writes over them. */
function keyWords(name: Octets): Int32Array {
  const out = keys[(name.length + 3) >> 2]!
  out.fill(0)
  for (let i = 0; i < name.length; i++) out[i >> 2]! |= name.charCodeAt(i) << ((i & 3) * 8)
  return out
}

/** The hash that readers compute over the same words while they fold them. */
function hashWords(words: Int32Array, seed: number): number {
  let h = seed
  for (const word of words) {
    h = Math.imul(h ^ word, 0x9e3779b1)
    h ^= h >>> 15
  }
  return h
}
