import { fold, nameEnd, readName, root, type Name, type Octets } from './name.ts'
import { Flag, Rcode, Type } from './types.ts'

/** What is asked. */
export interface Question {
  /** In the case in which it came. */
  readonly name: Name
  readonly type: number
  readonly class: number
}

/** A resource record. `data` is its RDATA with every name in it spelled out. */
export interface Rec {
  readonly name: Name
  readonly type: number
  readonly class: number
  /** Seconds. */
  readonly ttl: number
  readonly data: Octets
}

export interface EdnsOption {
  readonly code: number
  readonly data: Octets
}

/** What the OPT record of a message says (RFC 6891). */
export interface Edns {
  /** Octets its sender takes over UDP. */
  readonly size: number
  readonly version: number
  /** The DO bit: the sender takes DNSSEC records. */
  readonly dnssec: boolean
  readonly options: readonly EdnsOption[]
}

/** A message taken apart. The OPT record stands in `edns`, not in `additional`. */
export interface Message {
  readonly id: number
  /** The second 16-bit word as it stood: QR, opcode, AA, TC, RD, RA, Z, AD, CD and the low four bits of the rcode. */
  readonly flags: number
  /** With the upper bits of the OPT record. */
  readonly rcode: number
  readonly questions: readonly Question[]
  readonly answers: readonly Rec[]
  readonly authority: readonly Rec[]
  readonly additional: readonly Rec[]
  readonly edns: Edns | undefined
}

export const opcodeOf = (flags: number): number => (flags >> 11) & 15

/** Why a message could not be read. */
export class Malformed extends Error {
  override readonly name = 'Malformed'
}

/** The message b[from, to); throws `Malformed`. */
export function decode(b: Buffer, from = 0, to = b.length): Message {
  if (to - from < 12) throw new Malformed('shorter than a header')
  const counts = [0, 1, 2, 3].map((i) => b.readUInt16BE(from + 4 + 2 * i)) as [number, number, number, number]
  const flags = b.readUInt16BE(from + 2)
  const questions: Question[] = []
  let p = from + 12
  for (let i = 0; i < counts[0]; i++) {
    const read = readName(b, from, p, to)
    if (read === undefined || read.next + 4 > to) throw new Malformed('question cut off or with a broken name')
    questions.push({ name: read.name, type: b.readUInt16BE(read.next), class: b.readUInt16BE(read.next + 2) })
    p = read.next + 4
  }
  let edns: Edns | undefined
  let extended = 0
  const sections: Rec[][] = [[], [], []]
  for (const [s, section] of sections.entries()) {
    for (let i = 0; i < counts[s + 1]!; i++) {
      const read = readName(b, from, p, to)
      if (read === undefined || read.next + 10 > to) throw new Malformed('record cut off or with a broken name')
      const type = b.readUInt16BE(read.next)
      const at = read.next + 10
      const end = at + b.readUInt16BE(read.next + 8)
      if (end > to) throw new Malformed('record data cut off')
      if (type === Type.OPT) {
        if (s !== 2) throw new Malformed('OPT outside the additional section')
        if (edns !== undefined) throw new Malformed('more than one OPT record')
        if (read.name !== root) throw new Malformed('OPT record with an owner name')
        extended = b[read.next + 4]!
        edns = { size: b.readUInt16BE(read.next + 2), version: b[read.next + 5]!, dnssec: (b[read.next + 6]! & 0x80) !== 0, options: readOptions(b, at, end) }
      } else {
        const ttl = b.readUInt32BE(read.next + 4)
        // RFC 2181 section 8: a TTL with the top bit set is zero.
        section.push({ name: read.name, type, class: b.readUInt16BE(read.next + 2), ttl: ttl > 0x7fffffff ? 0 : ttl, data: readData(b, from, at, end, type) })
      }
      p = end
    }
  }
  if (p !== to) throw new Malformed('octets after the end')
  return { id: b.readUInt16BE(from), flags, rcode: (extended << 4) | (flags & 15), questions, answers: sections[0]!, authority: sections[1]!, additional: sections[2]!, edns }
}

function readOptions(b: Buffer, at: number, end: number): Edns['options'] {
  const out: { code: number; data: Octets }[] = []
  for (let p = at; p < end;) {
    if (p + 4 > end) throw new Malformed('EDNS option cut off')
    const next = p + 4 + b.readUInt16BE(p + 2)
    if (next > end) throw new Malformed('EDNS option cut off')
    out.push({ code: b.readUInt16BE(p), data: b.toString('latin1', p + 4, next) })
    p = next
  }
  return out
}

/**
 * Where names stand in the data of a type: octets before the first, how many names, octets behind them (-1: any number).
 * Names in others are never compressed, so their data can be kept as it came (RFC 3597 section 4).
 */
const layouts: Readonly<Record<number, readonly [before: number, names: number, behind: number]>> = {
  [Type.NS]: [0, 1, 0],
  [Type.MD]: [0, 1, 0],
  [Type.MF]: [0, 1, 0],
  [Type.CNAME]: [0, 1, 0],
  [Type.SOA]: [0, 2, 20],
  [Type.MB]: [0, 1, 0],
  [Type.MG]: [0, 1, 0],
  [Type.MR]: [0, 1, 0],
  [Type.PTR]: [0, 1, 0],
  [Type.MINFO]: [0, 2, 0],
  [Type.MX]: [2, 1, 0],
  [Type.RP]: [0, 2, 0],
  [Type.AFSDB]: [2, 1, 0],
  [Type.RT]: [2, 1, 0],
  [Type.SIG]: [18, 1, -1],
  [Type.PX]: [2, 2, 0],
  [Type.NXT]: [0, 1, -1],
  [Type.SRV]: [6, 1, 0],
  [Type.KX]: [2, 1, 0],
  [Type.DNAME]: [0, 1, 0],
}

/** Types whose names a sender may compress: those of RFC 1035. */
const compressible = new Set<number>([Type.NS, Type.MD, Type.MF, Type.CNAME, Type.SOA, Type.MB, Type.MG, Type.MR, Type.PTR, Type.MINFO, Type.MX])

function readData(b: Buffer, start: number, at: number, end: number, type: number): Octets {
  let layout = layouts[type]
  if (type === Type.NAPTR) {
    // order, preference, then three character strings before the name
    let p = at + 4
    for (let i = 0; i < 3 && p < end; i++) p += 1 + b[p]!
    layout = [p - at, 1, 0]
  }
  if (layout === undefined) return b.toString('latin1', at, end)
  const [before, names, behind] = layout
  if (at + before > end) throw new Malformed('record data too short')
  let out = b.toString('latin1', at, at + before)
  let p = at + before
  for (let i = 0; i < names; i++) {
    const read = readName(b, start, p, end)
    if (read === undefined) throw new Malformed('broken name in record data')
    out += read.name
    p = read.next
  }
  if (behind >= 0 && end - p !== behind) throw new Malformed('record data of the wrong length')
  if (out.length + end - p > 65_535) throw new Malformed('record data too long')
  return out + b.toString('latin1', p, end)
}

/** What to write. `edns` undefined writes no OPT record. */
export interface Draft {
  readonly id: number
  /** QR, opcode, AA, RD, RA, AD, CD; TC is added when something had to be left out, the rcode comes from `rcode`. */
  readonly flags: number
  readonly rcode: number
  readonly question: Question | undefined
  readonly answers?: readonly Rec[]
  readonly authority?: readonly Rec[]
  readonly additional?: readonly Rec[]
  readonly edns?: { readonly size: number; readonly dnssec: boolean; readonly options?: readonly EdnsOption[] } | undefined
}

/**
 * Writes `draft` into `into` from `at` and returns where it ends. More than `limit` octets: additional records are given up first, then authority
 * where there are answers, then the last records of the answer, and TC is set. Names are compressed (RFC 1035 4.1.4), in data only where RFC 3597 allows it.
 */
export function encode(draft: Draft, into: Buffer, at = 0, limit = 65_535): number {
  return new Writer(into, at, Math.min(limit, into.length - at)).message(draft)
}

const noRecords: readonly Rec[] = []

class Writer {
  readonly #b: Buffer
  readonly #start: number
  readonly #limit: number
  #p: number
  /** Where names already stand: those of the question in lower case, all others as spelled. */
  readonly #asked = new Map<string, number>()
  readonly #written = new Map<string, number>()

  constructor(b: Buffer, at: number, limit: number) {
    this.#b = b
    this.#start = at
    this.#p = at
    this.#limit = limit
  }

  message(d: Draft): number {
    const b = this.#b
    const start = this.#start
    const options = d.edns?.options ?? []
    const optLength = d.edns === undefined ? 0 : 11 + options.reduce((sum, o) => sum + 4 + o.data.length, 0)
    const end = start + this.#limit - optLength
    let flags = (d.flags & ~(15 | Flag.TC)) | (d.rcode & 15)
    if (d.flags & Flag.TC) flags |= Flag.TC
    b.writeUInt16BE(d.id, start)
    b.fill(0, start + 4, start + 12)
    this.#p = start + 12
    if (d.question !== undefined) {
      this.#question(d.question)
      b[start + 5] = 1
    }
    const answers = d.answers ?? noRecords
    const authority = d.authority ?? noRecords
    const additional = d.additional ?? noRecords
    const wroteAnswers = this.#section(answers, end)
    b.writeUInt16BE(wroteAnswers, start + 6)
    if (wroteAnswers < answers.length) flags |= Flag.TC
    else {
      const before = this.#p
      const wroteAuthority = this.#section(authority, end)
      if (wroteAuthority < authority.length) {
        this.#p = before
        if (answers.length === 0) flags |= Flag.TC
      } else {
        b.writeUInt16BE(wroteAuthority, start + 8)
        const wroteAdditional = this.#section(additional, end)
        b.writeUInt16BE(wroteAdditional, start + 10)
      }
    }
    if (d.edns !== undefined) {
      const p = this.#p
      b[p] = 0
      b.writeUInt16BE(Type.OPT, p + 1)
      b.writeUInt16BE(d.edns.size, p + 3)
      b[p + 5] = d.rcode >> 4
      b[p + 6] = 0
      b.writeUInt16BE(d.edns.dnssec ? 0x8000 : 0, p + 7)
      b.writeUInt16BE(optLength - 11, p + 9)
      this.#p = p + 11
      for (const o of options) {
        b.writeUInt16BE(o.code, this.#p)
        b.writeUInt16BE(o.data.length, this.#p + 2)
        b.write(o.data, this.#p + 4, 'latin1')
        this.#p += 4 + o.data.length
      }
      b.writeUInt16BE(b.readUInt16BE(start + 10) + 1, start + 10)
    }
    b.writeUInt16BE(flags, start + 2)
    return this.#p
  }

  #question(q: Question): void {
    const b = this.#b
    const folded = fold(q.name)
    for (let i = 0; i < folded.length - 1; i += folded.charCodeAt(i) + 1) {
      const suffix = folded.slice(i)
      if (!this.#asked.has(suffix)) this.#asked.set(suffix, 12 + i)
    }
    b.write(q.name, this.#p, 'latin1')
    this.#p += q.name.length
    b.writeUInt16BE(q.type, this.#p)
    b.writeUInt16BE(q.class, this.#p + 2)
    this.#p += 4
  }

  /** Writes records as long as they fit whole; returns how many did. */
  #section(records: readonly Rec[], end: number): number {
    let n = 0
    for (const r of records) {
      const before = this.#p
      if (!this.#record(r, end)) {
        this.#p = before
        this.#forget(before - this.#start)
        return n
      }
      n++
    }
    return n
  }

  #record(r: Rec, end: number): boolean {
    const b = this.#b
    // The longest it can be; only near the limit the exact length decides.
    if (this.#p + r.name.length + 10 + r.data.length > end) {
      const exact = this.#measure(r)
      if (this.#p + exact > end) return false
    }
    this.#name(r.name)
    const p = this.#p
    b.writeUInt16BE(r.type, p)
    b.writeUInt16BE(r.class, p + 2)
    b.writeUInt32BE(r.ttl >>> 0, p + 4)
    this.#p = p + 10
    const layout = compressible.has(r.type) ? layouts[r.type] : undefined
    if (layout === undefined) this.#octets(r.data, 0, r.data.length)
    else {
      const [before, names] = layout
      this.#octets(r.data, 0, before)
      let at = before
      for (let i = 0; i < names; i++) {
        const next = nameEnd(r.data, at)
        if (next < 0) {
          this.#octets(r.data, at, r.data.length)
          at = r.data.length
          break
        }
        this.#name(r.data.slice(at, next) as Name)
        at = next
      }
      this.#octets(r.data, at, r.data.length)
    }
    b.writeUInt16BE(this.#p - p - 10, p + 8)
    return true
  }

  #measure(r: Rec): number {
    // Written behind what is there, into a buffer of its own, with the same memory of names.
    const scratch = Buffer.allocUnsafe(r.name.length + 10 + r.data.length)
    const other = new Writer(scratch, 0, scratch.length)
    for (const [k, v] of this.#asked) other.#asked.set(k, v)
    for (const [k, v] of this.#written) other.#written.set(k, v)
    other.#record(r, scratch.length)
    return other.#p
  }

  #octets(data: Octets, from: number, to: number): void {
    if (to > from) this.#b.write(from === 0 && to === data.length ? data : data.slice(from, to), this.#p, 'latin1')
    this.#p += to - from
  }

  #name(name: Name): void {
    const b = this.#b
    const folded = fold(name)
    for (let i = 0; i < name.length - 1;) {
      const exact = name.slice(i)
      const known = this.#asked.get(folded.slice(i)) ?? this.#written.get(exact)
      if (known !== undefined) {
        b.writeUInt16BE(0xc000 | known, this.#p)
        this.#p += 2
        return
      }
      const offset = this.#p - this.#start
      if (offset < 0x4000) this.#written.set(exact, offset)
      const length = name.charCodeAt(i)
      b.write(name.slice(i, i + 1 + length), this.#p, 'latin1')
      this.#p += 1 + length
      i += 1 + length
    }
    b[this.#p++] = 0
  }

  /** Forgets names that stood at or behind `offset`: the record they were in was given up. */
  #forget(offset: number): void {
    for (const [name, at] of this.#written) if (at >= offset) this.#written.delete(name)
  }
}

/** What a server makes of octets that claim to be a query. */
export type Received =
  | { readonly kind: 'query'; readonly id: number; readonly flags: number; readonly question: Question; readonly edns: Edns | undefined }
  /** To be answered with this rcode and nothing else. */
  | { readonly kind: 'error'; readonly id: number; readonly flags: number; readonly rcode: number; readonly question: Question | undefined; readonly edns: Edns | undefined }
  | { readonly kind: 'drop' }

/** Reads a query as a server does: responses and what is shorter than a header are dropped, what is broken gets FORMERR, other opcodes NOTIMP, EDNS versions BADVERS. */
export function receive(b: Buffer, from: number, to: number): Received {
  if (to - from < 12) return { kind: 'drop' }
  const id = b.readUInt16BE(from)
  const flags = b.readUInt16BE(from + 2)
  if ((flags & Flag.QR) !== 0) return { kind: 'drop' }
  const failed = (rcode: number, question?: Question, edns?: Edns): Received => ({ kind: 'error', id, flags, rcode, question, edns })
  if (opcodeOf(flags) !== 0) return failed(Rcode.NOTIMP)
  // RFC 9619: a query has exactly one question. The limits on the others are those of usual servers.
  if (b.readUInt16BE(from + 4) !== 1 || b.readUInt16BE(from + 6) > 1 || b.readUInt16BE(from + 8) > 1 || b.readUInt16BE(from + 10) > 2) return failed(Rcode.FORMERR)
  let m: Message
  try {
    m = decode(b, from, to)
  } catch (error) {
    if (error instanceof Malformed) return failed(Rcode.FORMERR)
    throw error
  }
  const question = m.questions[0]!
  if (m.edns !== undefined && m.edns.version !== 0) return failed(Rcode.BADVERS, question, m.edns)
  if (question.type === Type.OPT) return failed(Rcode.FORMERR, question, m.edns)
  if (question.type === Type.AXFR || question.type === Type.IXFR) return failed(Rcode.REFUSED, question, m.edns)
  if (question.type === Type.MAILA || question.type === Type.MAILB || question.type === Type.TKEY || question.type === Type.TSIG) return failed(Rcode.NOTIMP, question, m.edns)
  return { kind: 'query', id, flags, question, edns: m.edns }
}
