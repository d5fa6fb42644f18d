import type { Answer } from './answer.ts'
import { readU32 } from './wire/data.ts'
import { nameEnd } from './wire/name.ts'
import type { Rec } from './wire/message.ts'
import { Rcode, Type } from './wire/types.ts'

/** Bounds of one half of a cache; times in seconds. */
export interface HalfOptions {
  readonly entries: number
  readonly bytes: number
  readonly most: number
  readonly least: number
}

export interface CacheOptions {
  readonly success: HalfOptions
  readonly denial: HalfOptions
  /** Seconds a SERVFAIL is kept; RFC 2308 7.1 allows 300. */
  readonly servfail: number
  /** Seconds an answer is kept after its time, for when no new one can be had (RFC 8767); 0: not at all. */
  readonly stale: number
}

export const cacheDefaults: CacheOptions = {
  success: { entries: 9984, bytes: 16 * 1024 * 1024, most: 3600, least: 5 },
  denial: { entries: 9984, bytes: 8 * 1024 * 1024, most: 1800, least: 5 },
  servfail: 5,
  stale: 0,
}

interface Entry {
  readonly answer: Answer
  /** Milliseconds. */
  readonly stored: number
  /** Seconds. */
  readonly ttl: number
  readonly size: number
  /** For prefetching: asked so often, first and last. */
  hits: number
  last: number
}

/** What a cache has for a question. */
export interface Hit {
  readonly kind: 'success' | 'denial'
  readonly answer: Answer
  readonly stale: boolean
  readonly hits: number
  /** Share of its time that is left, 0 to 1. */
  readonly left: number
}

/** Answers of others, until they expire; bounded in entries and bytes, what was not asked for longest goes first. */
export class Cache {
  readonly #options: CacheOptions
  readonly #halves: { readonly success: Half; readonly denial: Half }

  /** `gone` is told of every entry that is kept no more, also when another takes its place. */
  constructor(options: CacheOptions, evicted: (kind: 'success' | 'denial') => void = () => {}, gone: (key: string) => void = () => {}) {
    this.#options = options
    this.#halves = { success: new Half(options.success, () => evicted('success'), gone), denial: new Half(options.denial, () => evicted('denial'), gone) }
  }

  size(kind: 'success' | 'denial'): number {
    return this.#halves[kind].size
  }
  get bytes(): number {
    return this.#halves.success.bytes + this.#halves.denial.bytes
  }

  /** `now` in milliseconds. TTLs are those that are left; 30 s for what is stale (RFC 8767 4). */
  get(key: string, now: number): Hit | undefined {
    for (const kind of ['success', 'denial'] as const) {
      const half = this.#halves[kind]
      const entry = half.get(key)
      if (entry === undefined) continue
      const age = (now - entry.stored) / 1000
      if (age >= entry.ttl + this.#options.stale) {
        half.delete(key)
        continue
      }
      entry.hits++
      entry.last = now
      const stale = age >= entry.ttl
      const whole = Math.floor(age)
      return { kind, stale, hits: entry.hits, left: Math.max(0, 1 - age / entry.ttl), answer: aged(entry.answer, stale ? undefined : whole, entry.ttl) }
    }
    return undefined
  }

  /** Keeps an answer, if it may be kept. Returns for how many seconds. */
  put(key: string, answer: Answer, now: number): number {
    const { success, denial, servfail } = this.#options
    if (answer.truncated === true || answer.drop === true) return 0
    let kind: 'success' | 'denial'
    let ttl: number
    if (answer.rcode === Rcode.NOERROR && answer.answers.length > 0 && answer.answers.some((r) => r.type !== Type.CNAME)) {
      kind = 'success'
      ttl = clamp(Math.min(...answer.answers.map((r) => r.ttl)), success)
    } else if (answer.rcode === Rcode.NXDOMAIN || answer.rcode === Rcode.NOERROR) {
      // RFC 2308 5: without an SOA nobody says for how long.
      const soa = answer.authority.find((r) => r.type === Type.SOA)
      if (soa === undefined) {
        if (answer.answers.length === 0) return 0
        kind = 'success'
        ttl = clamp(Math.min(...answer.answers.map((r) => r.ttl)), success)
      } else {
        kind = 'denial'
        ttl = clamp(Math.min(soa.ttl, minimumOf(soa), ...answer.answers.map((r) => r.ttl)), denial)
      }
    } else if (answer.rcode === Rcode.SERVFAIL && servfail > 0) {
      kind = 'denial'
      ttl = Math.min(servfail, 300)
      // A failure does not drive out what is only stale: that is what it is kept for.
      if (this.#options.stale > 0 && (this.#halves.success.get(key) ?? this.#halves.denial.get(key)) !== undefined) return 0
    } else return 0
    if (ttl <= 0) return 0
    this.#halves[kind === 'success' ? 'denial' : 'success'].delete(key)
    this.#halves[kind].set(key, { answer, stored: now, ttl, size: sizeOf(key, answer), hits: 0, last: now })
    return ttl
  }

  clear(): void {
    this.#halves.success.clear()
    this.#halves.denial.clear()
  }
}

class Half {
  readonly #map = new Map<string, Entry>()
  readonly #options: HalfOptions
  readonly #evicted: () => void
  readonly #gone: (key: string) => void
  bytes = 0

  constructor(options: HalfOptions, evicted: () => void, gone: (key: string) => void) {
    this.#gone = gone
    this.#options = options
    this.#evicted = evicted
  }

  get size(): number {
    return this.#map.size
  }

  get(key: string): Entry | undefined {
    const entry = this.#map.get(key)
    if (entry === undefined) return undefined
    this.#map.delete(key)
    this.#map.set(key, entry)
    return entry
  }

  set(key: string, entry: Entry): void {
    this.delete(key)
    if (entry.size > this.#options.bytes) return
    this.#map.set(key, entry)
    this.bytes += entry.size
    for (const oldest of this.#map.keys()) {
      if (this.#map.size <= this.#options.entries && this.bytes <= this.#options.bytes) break
      this.delete(oldest)
      this.#evicted()
    }
  }

  delete(key: string): void {
    const entry = this.#map.get(key)
    if (entry === undefined) return
    this.#map.delete(key)
    this.bytes -= entry.size
    this.#gone(key)
  }

  clear(): void {
    for (const key of this.#map.keys()) this.#gone(key)
    this.#map.clear()
    this.bytes = 0
  }
}

const clamp = (ttl: number, { least, most }: HalfOptions): number => Math.min(most, Math.max(least, ttl))

/** The MINIMUM field of an SOA record. */
function minimumOf(soa: Rec): number {
  const one = nameEnd(soa.data, 0)
  const two = one < 0 ? -1 : nameEnd(soa.data, one)
  return two < 0 || soa.data.length < two + 20 ? 0 : readU32(soa.data, two + 16)
}

/** An answer as it is after `age` seconds, none of its records with more than what is left of `ttl`; stale when `age` is undefined. */
export function aged(answer: Answer, age: number | undefined, ttl: number): Answer {
  const older = (r: Rec): Rec => ({ ...r, ttl: age === undefined ? staleTtl : Math.max(0, Math.min(Math.max(r.ttl, ttl > r.ttl ? ttl : 0), ttl) - age) })
  return { ...answer, authoritative: false, answers: answer.answers.map(older), authority: answer.authority.map(older), additional: answer.additional.map(older) }
}

const staleTtl = 30

/** About what an entry takes in memory. */
function sizeOf(key: string, answer: Answer): number {
  let size = 300 + key.length
  for (const section of [answer.answers, answer.authority, answer.additional]) for (const r of section) size += 150 + r.name.length + r.data.length
  return size
}
