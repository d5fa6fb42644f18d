import { parentOf, root, type Name, type Octets } from './wire/name.ts'

/** One record of the cluster's, or with type 0 only that the name exists. */
export interface Entry {
  /** Folded. */
  readonly name: Name
  readonly type: number
  /** Seconds. */
  readonly ttl: number
  readonly data: Octets
}

/** All records of one type at a name, each once, in the order of their octets. */
export interface RecordSet {
  readonly type: number
  readonly ttl: number
  readonly data: readonly Octets[]
}

/** What exists at a name; no sets at all when it only stands between others (an empty non-terminal). */
export interface Node {
  readonly sets: readonly RecordSet[]
  /** How much is said of it: no set has more records. */
  readonly size: number
}

/** What sources say of a name: most have one record, so one stands without a list. */
class OwnNode implements Node {
  parts: Entry | Entry[] | undefined = undefined
  children = 0

  /** Put together when asked for: who asks often has compiled answers. */
  get sets(): readonly RecordSet[] {
    const { parts } = this
    if (parts === undefined) return noSets
    if (Array.isArray(parts)) return setsOf(parts)
    return parts.type === 0 ? noSets : [{ type: parts.type, ttl: parts.ttl, data: [parts.data] }]
  }

  get size(): number {
    return Array.isArray(this.parts) ? this.parts.length : this.parts === undefined ? 0 : 1
  }

  add(e: Entry): void {
    const { parts } = this
    if (parts === undefined) this.parts = e
    else if (Array.isArray(parts)) parts.push(e)
    else this.parts = [parts, e]
  }

  remove(gone: ReadonlySet<Entry>): void {
    const { parts } = this
    if (Array.isArray(parts)) {
      const left = parts.filter((p) => !gone.has(p))
      this.parts = left.length > 1 ? left : left[0]
    } else if (parts !== undefined && gone.has(parts)) this.parts = undefined
  }

  has(e: Entry): boolean {
    return Array.isArray(this.parts) ? this.parts.includes(e) : this.parts === e
  }
}

const noSets: readonly RecordSet[] = []

const nothing: readonly Entry[] = []

/**
 * Everything the cluster's names say, kept as contributions of sources (a Service with its slices, a Namespace, a Pod, the zone itself).
 * A name exists when a source speaks of it or of a name below it, so "no node" is NXDOMAIN and "no set" is NODATA.
 * One writer; a source is replaced whole, and only the names whose records differ are touched.
 */
export class RecordTable {
  readonly #nodes = new Map<Name, OwnNode>()
  readonly #sources = new Map<string, readonly Entry[]>()
  #serial = 0
  readonly #now: () => number

  /** `now` gives seconds since 1970: the serial of the zone is the time of the last change. */
  constructor(now: () => number = () => Math.floor(Date.now() / 1000)) {
    this.#now = now
  }

  get serial(): number {
    return this.#serial
  }
  get size(): number {
    return this.#nodes.size
  }

  /** What exists at the folded name. */
  get(name: Name): Node | undefined {
    return this.#nodes.get(name)
  }

  names(): IterableIterator<Name> {
    return this.#nodes.keys()
  }

  sources(): IterableIterator<string> {
    return this.#sources.keys()
  }

  entriesOf(source: string): readonly Entry[] {
    return this.#sources.get(source) ?? nothing
  }

  /** The sources that speak of a name: for people who ask why. */
  sourcesOf(name: Name): string[] {
    const node = this.#nodes.get(name)
    if (node === undefined) return []
    return [...this.#sources].filter(([, entries]) => entries.some((e) => node.has(e))).map(([source]) => source)
  }

  /** Replaces what `source` says by `entries` (none: it is gone). Returns the names whose answers changed, those that came to be or ceased to exist among them. */
  put(source: string, entries: readonly Entry[]): readonly Name[] {
    const before = this.#sources.get(source) ?? nothing
    if (before.length === 0 && entries.length === 0) return []
    if (before.length === 0) return this.#first(source, entries)
    const old = new Map<string, Entry>()
    // The same record twice (an endpoint in two slices, say) stands twice at its name.
    const surplus: Entry[] = []
    for (const e of before) {
      const key = keyOf(e)
      if (old.has(key)) surplus.push(e)
      else old.set(key, e)
    }
    const kept: Entry[] = []
    const added: Entry[] = []
    const seen = new Set<string>()
    for (const e of entries) {
      const key = keyOf(e)
      if (seen.has(key)) continue
      seen.add(key)
      const same = old.get(key)
      if (same !== undefined) old.delete(key)
      else added.push(e)
      kept.push(same ?? e)
    }
    if (kept.length === 0) this.#sources.delete(source)
    else this.#sources.set(source, kept)
    if (added.length === 0 && old.size === 0 && surplus.length === 0) return []
    const changed = new Set<Name>()
    for (const e of added) this.#ensure(e.name, changed).add(e)
    const gone = new Map<Name, Set<Entry>>()
    for (const e of [...old.values(), ...surplus]) {
      const here = gone.get(e.name)
      if (here === undefined) gone.set(e.name, new Set([e]))
      else here.add(e)
    }
    for (const [name, entriesGone] of gone) {
      this.#nodes.get(name)!.remove(entriesGone)
      changed.add(name)
    }
    for (const e of added) changed.add(e.name)
    for (const name of gone.keys()) this.#prune(name, changed)
    // Never backwards, also when two changes fall into one second or the clock is set back.
    this.#serial = Math.max(this.#serial + 1, this.#now())
    return [...changed]
  }

  /** A source that said nothing before: most of them, when a server begins. */
  #first(source: string, entries: readonly Entry[]): readonly Name[] {
    this.#sources.set(source, entries)
    const changed = new Set<Name>()
    for (const e of entries) {
      this.#ensure(e.name, changed).add(e)
      changed.add(e.name)
    }
    this.#serial = Math.max(this.#serial + 1, this.#now())
    return [...changed]
  }

  #ensure(name: Name, changed: Set<Name>): OwnNode {
    const known = this.#nodes.get(name)
    if (known !== undefined) return known
    const node = new OwnNode()
    this.#nodes.set(name, node)
    changed.add(name)
    if (name !== root) this.#ensure(parentOf(name), changed).children++
    return node
  }

  #prune(name: Name, changed: Set<Name>): void {
    const node = this.#nodes.get(name)
    if (node === undefined || node.parts !== undefined || node.children > 0) return
    this.#nodes.delete(name)
    changed.add(name)
    if (name === root) return
    const parent = parentOf(name)
    this.#nodes.get(parent)!.children--
    this.#prune(parent, changed)
  }
}

const keyOf = (e: Entry): string => `${e.type} ${e.ttl} ${e.name}${e.data}`

function setsOf(parts: readonly Entry[]): RecordSet[] {
  const sets = new Map<number, { type: number; ttl: number; data: Octets[] }>()
  for (const { type, ttl, data } of parts) {
    if (type === 0) continue
    const set = sets.get(type)
    if (set === undefined) sets.set(type, { type, ttl, data: [data] })
    else {
      set.data.push(data)
      // RFC 2181 5.2: one TTL for a set.
      if (ttl < set.ttl) set.ttl = ttl
    }
  }
  for (const set of sets.values()) if (set.data.length > 1) set.data = [...new Set(set.data)].toSorted()
  return [...sets.values()]
}

/** The set of one type at a node. */
export function setOf(node: Node, type: number): RecordSet | undefined {
  for (const set of node.sets) if (set.type === type) return set
  return undefined
}
