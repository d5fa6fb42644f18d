import type { Answer } from './answer.ts'
import type { Shelf } from './handlers/cache/index.ts'
import type { PackedAnswer, PackedTable } from './packed.ts'
import { seconds } from './resolve.ts'
import { encode } from './wire/message.ts'
import type { Name } from './wire/name.ts'
import { Class, Flag, Rcode, Type } from './wire/types.ts'

/** Octets of records that are still put there; what is longer is asked for. */
const longest = 4096

/** Puts what a cache keeps into a table of compiled answers, where it is found until it expires. */
export class CacheShelf implements Shelf {
  readonly #table: PackedTable
  readonly #site: number
  readonly #turns: boolean
  readonly #takes: (name: Name) => boolean
  readonly #names = new Map<Name, Map<number, PackedAnswer>>()
  readonly #out = Buffer.allocUnsafe(65_535)

  /** `turns`: addresses are given in an order that changes. `takes`: the name is nobody else's. */
  constructor(table: PackedTable, site: number, turns: boolean, takes: (name: Name) => boolean) {
    this.#table = table
    this.#site = site
    this.#turns = turns
    this.#takes = takes
  }

  put(name: Name, type: number, answer: Answer, ttl: number): void {
    const packed = this.#takes(name) ? this.#pack(name, type, answer, ttl) : undefined
    if (packed === undefined) return this.gone(name, type)
    let all = this.#names.get(name)
    if (all === undefined) this.#names.set(name, (all = new Map()))
    all.set(type, packed)
    this.#write(name, all)
  }

  gone(name: Name, type: number): void {
    const all = this.#names.get(name)
    if (all?.delete(type) === true) this.#write(name, all)
  }

  /** Forgets all: names may be somebody else's now. */
  clear(): void {
    for (const name of this.#names.keys()) this.#table.set(name, undefined)
    this.#names.clear()
  }

  #write(name: Name, all: ReadonlyMap<number, PackedAnswer>): void {
    if (all.size === 0) this.#names.delete(name)
    this.#table.set(name, all.size === 0 ? undefined : [...all.values()], false, this.#site)
  }

  #pack(name: Name, type: number, answer: Answer, ttl: number): PackedAnswer | undefined {
    const { rcode, answers, authority, additional } = answer
    if ((rcode !== Rcode.NOERROR && rcode !== Rcode.NXDOMAIN) || answer.authenticated === true || answer.truncated === true) return undefined
    const b = this.#out
    const draft = { id: 0, flags: Flag.QR, rcode, question: { name, type, class: Class.IN } }
    const begin = encode(draft, b)
    const answerEnd = encode({ ...draft, answers }, b)
    const end = encode({ ...draft, answers, authority, additional }, b)
    if (end - begin > longest || (b[2]! & 2) !== 0) return undefined
    const starts: number[] = []
    const ttls: number[] = []
    for (let p = begin; p < end;) {
      starts.push(p - begin)
      while (b[p]! !== 0 && b[p]! < 192) p += b[p]! + 1
      p += b[p] === 0 ? 1 : 2
      ttls.push(p + 4 - begin)
      p += 10 + b.readUInt16BE(p + 8)
    }
    // What turns are the addresses at the end, all equally long; other sets that would turn are left to the handlers.
    let first = answers.length
    while (first > 0 && (type === Type.A || type === Type.AAAA) && answers[first - 1]!.type === type && answers[first - 1]!.name === answers.at(-1)!.name) first--
    const turning = answers.length - first
    const octets = answerEnd - begin
    const turnAt = first === answers.length ? octets : starts[first]!
    if (this.#turns && answers.slice(0, first).some((r, i) => r.type !== Type.CNAME && answers[i + 1]?.type === r.type)) return undefined
    if (this.#turns && turning > 1 && starts.slice(first, answers.length).some((s, i) => s !== turnAt + (i * (octets - turnAt)) / turning)) return undefined
    return {
      type,
      rcode,
      records: Buffer.from(b.subarray(begin, end)),
      answers: answers.length,
      authority: authority.length,
      additional: additional.length,
      answerOctets: octets,
      recordSize: turning > 1 ? (octets - turnAt) / turning : 0,
      turnAt,
      timed: { expires: seconds() + ttl, kind: answers.length > 0 && rcode === Rcode.NOERROR ? 'success' : 'denial', ttls },
    }
  }
}
