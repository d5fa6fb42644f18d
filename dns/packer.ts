import { randomInt } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import type { Handler } from './answer.ts'
import type { ClusterZone } from './cluster.ts'
import { isReverse } from './compile.ts'
import { CacheHandler } from './handlers/cache/index.ts'
import { KubernetesHandler } from './handlers/kubernetes/handler.ts'
import { PackedTable, type PackedAnswer, type PackedZone } from './packed.ts'
import { Count, Resolver } from './resolve.ts'
import type { Site } from './server.ts'
import { CacheShelf } from './shelf.ts'
import { setOf, type RecordSet } from './table.ts'
import { encode } from './wire/message.ts'
import { within, type Name } from './wire/name.ts'
import { Class, Flag, Type } from './wire/types.ts'

/** Octets of records that are still compiled; what is longer is asked for. */
const longest = 16_384
/** Octets of a record at the least: a pointer to its name, type, class, TTL and length. */
const leastRecord = 12
/** Names of which no more is said are compiled at each change; others once nothing of the kind changed for so long (ms). */
const few = 128
const quiet = 100

interface Folding {
  readonly site: number
  readonly handler: KubernetesHandler
  /** Those asked before it. */
  readonly before: readonly Handler[]
  /** Names that they touch; or all. */
  ask: ReadonlySet<Name> | 'all'
}

/** Keeps the compiled answers of a listener: what the handlers would answer for the names of the cluster, octet for octet. */
export class Packer {
  readonly table: PackedTable
  readonly #sites: readonly Site[]
  /** The sites whose names are known beforehand. */
  readonly #folding: readonly Folding[]
  #wasFull = false
  readonly #later = new Map<ClusterZone, Set<Name>>()
  #timer: NodeJS.Timeout | undefined
  readonly #out = Buffer.allocUnsafe(65_535)

  private constructor(sites: readonly Site[], folding: readonly Folding[], options: PackerOptions) {
    this.#sites = sites
    this.#folding = folding
    const rotate = folding.some(({ site }) => sites[site]!.handlers.some((h) => h.name === 'loadbalance'))
    this.table = new PackedTable(options.bytes ?? 256 * 1024 * 1024, { bufsize: sites[folding[0]!.site]!.bufsize, rotate, seed: options.seed ?? randomInt(2 ** 31 - 1), now: () => performance.now() })
    this.refresh()
    for (const f of folding) {
      for (const h of f.before) {
        h.changed = () => {
          const was = f.ask
          f.ask = touchedBy(f.before)
          this.refresh()
          for (const name of was === 'all' ? [] : was) this.#name(f.handler.zone, name)
          this.#all(f)
        }
      }
      this.#all(f)
    }
    for (const [i, site] of sites.entries()) this.#shelve(site, i, rotate)
  }

  /** What the cache of a site keeps stands in the table too, unless it matters who asks. */
  #shelve(site: Site, i: number, turns: boolean): void {
    const cache = site.handlers.find((h) => h instanceof CacheHandler)
    if (cache === undefined || site.view !== undefined) return
    const before = site.handlers.slice(0, site.handlers.indexOf(cache))
    if (before.some((h) => h.manner === 'asks')) return
    const own = site.handlers.filter((h) => h instanceof KubernetesHandler)
    const touched = (name: Name): boolean => {
      const names = touchedBy(before)
      return names === 'all' || names.has(name)
    }
    const shelf = new CacheShelf(this.table, i, turns, (name) => this.#siteOf(name) === i && own.every((h) => h.zoneOf(name) === undefined) && !touched(name))
    cache.shelves.add(shelf)
    for (const h of before) {
      const { changed } = h
      h.changed = () => {
        shelf.clear()
        changed?.()
      }
    }
  }

  #all(f: Folding): void {
    for (const name of f.ask === 'all' ? [] : f.ask) this.#name(f.handler.zone, name)
    for (const name of f.handler.zone.table.names()) this.#name(f.handler.zone, name)
  }

  /** Undefined when nothing of it can be known beforehand. */
  static of(sites: readonly Site[], options: PackerOptions = {}): Packer | undefined {
    if (sites.length > Count.sites) return undefined
    const folding = sites.flatMap((site, i) => {
      const plan = site.view === undefined ? foldingOf(site.handlers) : undefined
      return plan === undefined ? [] : [{ site: i, ...plan }]
    })
    if (folding.length === 0) return undefined
    // One size for all answers, and one way to turn them.
    const first = sites[folding[0]!.site]!
    const turns = (site: Site): boolean => site.handlers.some((h) => h.name === 'loadbalance')
    if (folding.some(({ site }) => sites[site]!.bufsize !== first.bufsize || turns(sites[site]!) !== turns(first))) return undefined
    return new Packer(sites, folding, options)
  }

  /** A reader with counters of its own. */
  resolver(counters = new Uint32Array(new SharedArrayBuffer(Count.words * 4))): Resolver {
    return new Resolver(this.table.memory, counters, randomInt(2 ** 31 - 1))
  }

  /** Names of a zone changed, because `source` did. */
  changed(zone: ClusterZone, names: readonly Name[], source: string): void {
    const known = new Set(names)
    for (const name of names) this.#changed(zone, name)
    // SRV records carry the addresses they point at.
    for (const e of zone.table.entriesOf(source)) {
      if (e.type !== Type.SRV || known.has(e.name)) continue
      known.add(e.name)
      this.#changed(zone, e.name)
    }
    this.refresh()
  }

  /** What many speak of changes often while objects come in, and each time all of it would be put together: it is asked for until it has been quiet. */
  #changed(zone: ClusterZone, name: Name): void {
    const size = zone.table.get(name)?.size ?? 0
    if (size <= few) return this.#name(zone, name)
    this.#name(zone, name, true)
    let names = this.#later.get(zone)
    if (names === undefined) this.#later.set(zone, (names = new Set()))
    names.add(name)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.settle(), quiet).unref()
  }

  /** Compiles at once what still waits. */
  settle(): void {
    clearTimeout(this.#timer)
    for (const [z, names] of this.#later) for (const name of names) this.#name(z, name)
    this.#later.clear()
  }

  /** Writes the zones again: their serial, and whether what is missing does not exist. */
  refresh(): void {
    const zones: PackedZone[] = []
    for (const [i, site] of this.#sites.entries()) {
      const here = this.#folding.find((f) => f.site === i)
      const add = (name: Name, ask: boolean, negative: PackedZone['negative']): void => {
        if (within(name, site.zone) && this.#siteOf(name) === i && !zones.some((z) => z.name === name)) zones.push({ name, site: i, ask, negative })
      }
      if (here !== undefined) {
        const { handler } = here
        const { settings } = handler.zone
        for (const apex of handler.zones) {
          if (isReverse(apex) || here.ask === 'all') {
            add(apex, true, undefined)
            continue
          }
          const soa = handler.soa(apex)
          add(apex, !handler.cluster.complete || this.table.full || handler.fallthrough.some((z) => within(apex, z)), negativeOf(soa.ttl, soa.data, apex))
          if (settings.pods === 'insecure') add(`\x03pod${apex}` as Name, true, undefined)
          for (const z of handler.fallthrough) if (within(z, apex)) add(z, true, undefined)
          // The names that the SOA record itself compresses against.
          for (const label of ['\x03dns', '\x0ahostmaster']) add((label + apex) as Name, true, undefined)
        }
      }
      add(site.zone, true, undefined)
    }
    this.table.setZones(zones)
  }

  #siteOf(name: Name): number {
    let best = -1
    for (const [i, site] of this.#sites.entries()) if (within(name, site.zone) && (best < 0 || site.zone.length > this.#sites[best]!.zone.length)) best = i
    return best
  }

  #name(zone: ClusterZone, name: Name, asked = false): void {
    const f = this.#folding.find(({ handler, site }) => handler.zone === zone && within(name, this.#sites[site]!.zone))
    if (f === undefined || this.#siteOf(name) !== f.site) return
    const { handler, ask } = f
    const apex = handler.zoneOf(name)
    const node = zone.table.get(name)
    if (apex === undefined) return
    if (ask === 'all') return this.table.set(name, undefined)
    if (!ask.has(name) && node === undefined) return this.table.set(name, undefined)
    // What no answer has room for is not put together at each change: thousands of Services may share a Pod, and with it a PTR.
    if (node !== undefined && (asked || node.size * leastRecord > longest)) return this.table.set(name, [], true, f.site)
    const reverse = isReverse(apex)
    if (node === undefined || ask.has(name)) return this.table.set(name, [], true, f.site)
    // What only stands between our reverse names may be somebody else's.
    if (reverse && node.sets.length === 0) return this.table.set(name, undefined)
    // Aliases, the apex with its serial, and names that the SOA record is written against are asked for.
    if (name === apex || setOf(node, Type.CNAME) !== undefined || this.#nearSoa(name, apex)) return this.table.set(name, [], true, f.site)
    const answers: PackedAnswer[] = []
    for (const set of node.sets) {
      const packed = this.#pack(handler, name, set.type, apex)
      if (packed === undefined) return this.table.set(name, [], true, f.site)
      answers.push(packed)
    }
    this.table.set(name, answers, false, f.site)
    if (this.table.full && !this.#wasFull) {
      this.#wasFull = true
      this.refresh()
    }
  }

  #nearSoa(name: Name, apex: Name): boolean {
    return !isReverse(apex) && (within(name, `\x03dns${apex}` as Name) || within(name, `\x0ahostmaster${apex}` as Name))
  }

  /** The octets behind the question, made by the same hands as every other answer. */
  #pack(handler: KubernetesHandler, name: Name, type: number, apex: Name): PackedAnswer | undefined {
    const found = handler.find(name, type, apex)
    const plain = found.kind === 'records' ? plainly(found.set) : undefined
    if (plain !== undefined) return plain
    if (found.kind === 'alias') return undefined
    const answer = handler.finish(name, apex, found)
    const b = this.#out
    const draft = { id: 0, flags: Flag.QR | Flag.AA, rcode: answer.rcode, question: { name, type, class: Class.IN } }
    const begin = encode(draft, b)
    const answerEnd = encode({ ...draft, answers: answer.answers }, b)
    const end = encode({ ...draft, answers: answer.answers, authority: answer.authority, additional: answer.additional }, b)
    if (end - begin > longest || (b[2]! & 2) !== 0) return undefined
    const equal = (type === Type.A || type === Type.AAAA) && answer.answers.length > 0
    return {
      type,
      rcode: answer.rcode,
      records: Buffer.from(b.subarray(begin, end)),
      answers: answer.answers.length,
      authority: answer.authority.length,
      additional: answer.additional.length,
      answerOctets: answerEnd - begin,
      recordSize: equal ? (answerEnd - begin) / answer.answers.length : 0,
    }
  }
}

export interface PackerOptions {
  readonly bytes?: number
  readonly seed?: number
}

/** The handler whose names can be compiled, if all before it let them through or say which ones they change. */
function foldingOf(handlers: readonly Handler[]): Omit<Folding, 'site'> | undefined {
  const before: Handler[] = []
  for (const h of handlers) {
    if (h instanceof KubernetesHandler) return { handler: h, before, ask: touchedBy(before) }
    if (h.manner === 'asks') return undefined
    before.push(h)
  }
  return undefined
}

function touchedBy(handlers: readonly Handler[]): ReadonlySet<Name> | 'all' {
  const out = new Set<Name>()
  for (const h of handlers) {
    const touched = h.touches?.() ?? []
    if (touched === 'all') return 'all'
    for (const name of touched) out.add(name)
  }
  return out
}

/** Records whose octets need no second look: addresses, and a single name that shares nothing with the question. */
function plainly({ type, ttl, data }: RecordSet): PackedAnswer | undefined {
  const address = type === Type.A || type === Type.AAAA
  if (!address && !(type === Type.PTR && data.length === 1 && !data[0]!.endsWith('\x04arpa\0'))) return undefined
  const size = 12 + data[0]!.length
  if (size * data.length > longest) return undefined
  const records = Buffer.allocUnsafe(size * data.length)
  let p = 0
  for (const d of data) {
    records.writeUInt16BE(0xc00c, p)
    records.writeUInt16BE(type, p + 2)
    records.writeUInt16BE(Class.IN, p + 4)
    records.writeUInt32BE(ttl, p + 6)
    records.writeUInt16BE(d.length, p + 10)
    p += 12 + records.write(d, p + 12, 'latin1')
  }
  return { type, rcode: 0, records, answers: data.length, authority: 0, additional: 0, answerOctets: records.length, recordSize: address ? size : 0 }
}

/** The SOA record of a negative answer, with pointers at the zone wherever it ends a name. */
function negativeOf(ttl: number, data: string, apex: Name): PackedZone['negative'] {
  const parts: Buffer[] = []
  const fixups: number[] = []
  let length = 0
  const push = (octets: string): void => {
    parts.push(Buffer.from(octets, 'latin1'))
    length += octets.length
  }
  const pointer = (): void => {
    fixups.push(length)
    push('\0\0')
  }
  const server = `\x02ns\x03dns${apex}`
  const mailbox = `\x0ahostmaster${apex}`
  if (!data.startsWith(server + mailbox)) return undefined
  const rest = data.slice(server.length + mailbox.length)
  const own = server.length + mailbox.length - apex.length * 2
  pointer()
  const octets = own + 4 + rest.length
  push(`\0\x06\0\x01${String.fromCharCode((ttl >>> 24) & 255, (ttl >>> 16) & 255, (ttl >>> 8) & 255, ttl & 255)}${String.fromCharCode(octets >> 8, octets & 255)}`)
  push('\x02ns\x03dns')
  pointer()
  push('\x0ahostmaster')
  pointer()
  push(rest)
  return { octets: Buffer.concat(parts), fixups }
}
