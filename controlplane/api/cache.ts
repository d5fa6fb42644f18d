import { apiVersion, type Kind } from '../kinds/kind.ts'
import type { Json } from '../kinds/decode.ts'
import { Compacted, type Change, type Progress, type Revision, type Store } from '../store/seam.ts'
import { explainError, type Log } from '../../lib/log.ts'
import { sleep } from '../../lib/lifecycle.ts'

const opening = '{"metadata":{'

/** An object as stored: JSON without kind, apiVersion and resourceVersion, which are put in when it is sent. */
export class Entry {
  readonly key: string
  readonly revision: Revision
  readonly stored: Buffer
  #object: Json | undefined
  /** Bytes of other representations, each made once. */
  #forms: Map<string, Buffer> | undefined

  constructor(key: string, revision: Revision, stored: Uint8Array) {
    this.key = key
    this.revision = revision
    this.stored = Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength)
  }

  /** The object, parsed once, with its resourceVersion; not to be changed. */
  get object(): Json {
    if (this.#object === undefined) {
      const o = JSON.parse(this.stored.toString()) as Json
      o['metadata'].resourceVersion = String(this.revision)
      this.#object = o
    }
    return this.#object
  }

  /** Lets the parsed object go; it is parsed again when asked for. */
  forget(): void {
    this.#object = undefined
    this.#forms = undefined
  }

  /** The bytes of `form`, made by `make` the first time. */
  form(form: string, make: () => Buffer): Buffer {
    this.#forms ??= new Map()
    let bytes = this.#forms.get(form)
    if (bytes === undefined) this.#forms.set(form, (bytes = make()))
    return bytes
  }

  /** `"metadata":{"resourceVersion":"7",…}` and the rest, without the opening brace. */
  body(): Buffer {
    const head = `"metadata":{"resourceVersion":"${this.revision}"${this.stored[opening.length] === 0x7d ? '' : ','}`
    const out = Buffer.allocUnsafe(head.length + this.stored.length - opening.length)
    out.write(head, 0, 'latin1')
    this.stored.copy(out, head.length, opening.length)
    return out
  }

  /** The same object under the revision that removed it. */
  at(revision: Revision): Entry {
    return new Entry(this.key, revision, this.stored)
  }
}

/** What is stored of `object`. */
export function encode(object: Json): Buffer {
  const { kind: _k, apiVersion: _a, metadata, ...rest } = object
  const { resourceVersion: _r, ...meta } = metadata
  return Buffer.from(JSON.stringify({ metadata: meta, ...rest }))
}

/** One change of one object, as watchers see it. */
export class Happening {
  readonly revision: Revision
  readonly now: Entry | undefined
  readonly before: Entry | undefined
  #gone: Entry | undefined
  constructor(revision: Revision, now: Entry | undefined, before: Entry | undefined) {
    this.revision = revision
    this.now = now
    this.before = before
  }
  /** The last state, under the revision of this change: what a DELETED event shows. */
  get gone(): Entry {
    return (this.#gone ??= this.before!.at(this.revision))
  }
}

/** Told of changes as they come, and of progress. */
export interface Follower {
  changed(h: Happening): void
  /** The stream has a hole or the server ends. */
  ended(): void
}

/** All objects of one kind, and the recent changes. */
export class KindCache {
  readonly prefix: string
  readonly entries = new Map<string, Entry>()
  readonly followers = new Set<Follower>()
  /** In order of revision; the first is the oldest still known. */
  #recent: Happening[] = []
  #sorted: Entry[] | undefined

  constructor(prefix: string) {
    this.prefix = prefix
  }

  get(key: string): Entry | undefined {
    return this.entries.get(key)
  }

  /** In order of keys. */
  sorted(): readonly Entry[] {
    this.#sorted ??= [...this.entries.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
    return this.#sorted
  }

  /** As it was at `revision`, in order of keys. */
  asOf(revision: Revision): readonly Entry[] {
    const undone = new Map<string, Entry | undefined>()
    for (let i = this.#recent.length - 1; i >= 0 && this.#recent[i]!.revision > revision; i--) {
      const h = this.#recent[i]!
      undone.set((h.now ?? h.before)!.key, h.before)
    }
    if (undone.size === 0) return this.sorted()
    const all = new Map(this.entries)
    for (const [key, entry] of undone) {
      if (entry === undefined) all.delete(key)
      else all.set(key, entry)
    }
    return [...all.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
  }

  /** Changes after `revision`, in order. */
  since(revision: Revision): readonly Happening[] {
    let low = 0
    let high = this.#recent.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#recent[middle]!.revision <= revision) low = middle + 1
      else high = middle
    }
    return this.#recent.slice(low)
  }

  load(entry: Entry): void {
    this.entries.set(entry.key, entry)
    this.#sorted = undefined
  }

  apply(change: Change): void {
    const before = this.entries.get(change.key)
    const now = change.value === undefined ? undefined : new Entry(change.key, change.revision, change.value)
    if (now === undefined) this.entries.delete(change.key)
    else this.entries.set(change.key, now)
    if (before === undefined || now === undefined) this.#sorted = undefined
    else if (this.#sorted !== undefined) {
      const i = position(this.#sorted, change.key)
      this.#sorted[i] = now
    }
    if (now === undefined && before === undefined) return
    const h = new Happening(change.revision, now, before)
    this.#recent.push(h)
    for (const f of this.followers) f.changed(h)
  }

  /** Forgets changes up to `floor`. */
  trim(floor: Revision): void {
    const keep = this.since(floor)
    if (keep.length !== this.#recent.length) this.#recent = [...keep]
  }

  clear(): void {
    this.entries.clear()
    this.#recent = []
    this.#sorted = undefined
    for (const f of [...this.followers]) f.ended()
  }
}

function position(sorted: readonly Entry[], key: string): number {
  let low = 0
  let high = sorted.length - 1
  while (low < high) {
    const middle = (low + high) >> 1
    if (sorted[middle]!.key < key) low = middle + 1
    else high = middle
  }
  return low
}

/** `/registry/services/`: where the objects of a kind are kept. */
export const prefixOf = (k: Kind): string => (k.storedAs === undefined ? `/registry/${k.group === '' ? '' : `${k.group}/`}${k.plural}/` : `/registry/${k.storedAs.plural}/`)

/** The whole store in memory, kept up to date by its watch: every read is answered from here. */
export class Cache {
  readonly #store: Store
  readonly #log: Log
  readonly #kinds = new Map<string, KindCache>()
  #revision: Revision = 0
  #floor: Revision = 0
  #ready = false
  readonly #waiting: { readonly revision: Revision; readonly done: () => void }[] = []

  constructor(store: Store, kinds: readonly Kind[], log: Log) {
    this.#store = store
    this.#log = log
    for (const k of kinds) {
      const prefix = prefixOf(k)
      if (!this.#kinds.has(prefix)) this.#kinds.set(prefix, new KindCache(prefix))
    }
  }

  get revision(): Revision {
    return this.#revision
  }
  get floor(): Revision {
    return this.#floor
  }
  get ready(): boolean {
    return this.#ready
  }

  of(k: Kind): KindCache {
    return this.#kinds.get(prefixOf(k))!
  }

  /** Loads the store and follows it until `signal` fires; loads again when the watch has a hole. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#load()
        for await (const batch of this.#store.watch('/registry/', this.#revision, signal)) this.#apply(batch)
      } catch (error) {
        if (signal.aborted) break
        this.#ready = false
        if (!(error instanceof Compacted)) this.#log.error('the store does not answer; trying again', { error: explainError(error) })
        await sleep(error instanceof Compacted ? 0 : 500, signal)
      }
    }
    for (const k of this.#kinds.values()) for (const f of [...k.followers]) f.ended()
  }

  /** Resolves when everything up to `revision` is here; false after `ms`. */
  reached(revision: Revision, ms = 3000): Promise<boolean> {
    if (this.#revision >= revision) return Promise.resolve(true)
    return new Promise((resolve) => {
      const entry = {
        revision,
        done: () => {
          clearTimeout(timer)
          resolve(true)
        },
      }
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1)
        resolve(false)
      }, ms)
      this.#waiting.push(entry)
    })
  }

  /** Forgets history up to `floor`. */
  trim(floor: Revision): void {
    if (floor <= this.#floor) return
    this.#floor = floor
    for (const k of this.#kinds.values()) k.trim(floor)
  }

  async #load(): Promise<void> {
    for (const k of this.#kinds.values()) k.clear()
    // From the oldest moment the store knows, so that watches opened before a restart go on without a hole.
    const floor = await this.#store.floor()
    const page = await this.#store.list('/registry/', { at: floor })
    for (const item of page.items) this.#kindOf(item.key)?.load(new Entry(item.key, item.revision, item.value))
    this.#floor = page.at
    this.#revision = page.at
  }

  #apply(batch: readonly (Change | Progress)[]): void {
    for (const c of batch) {
      if ('progress' in c) {
        this.#revision = Math.max(this.#revision, c.progress)
        this.#ready = true
        continue
      }
      this.#revision = c.revision
      this.#kindOf(c.key)?.apply(c)
    }
    if (this.#waiting.length === 0) return
    for (const w of this.#waiting.filter((x) => x.revision <= this.#revision)) {
      this.#waiting.splice(this.#waiting.indexOf(w), 1)
      w.done()
    }
  }

  #kindOf(key: string): KindCache | undefined {
    let end = key.indexOf('/', 10)
    const found = this.#kinds.get(key.slice(0, end + 1))
    if (found !== undefined) return found
    end = key.indexOf('/', end + 1)
    return this.#kinds.get(key.slice(0, end + 1))
  }
}

/** `"kind":"Service","apiVersion":"v1",` */
export const typeMeta = (k: Kind): string => `"kind":${JSON.stringify(k.kind)},"apiVersion":${JSON.stringify(apiVersion(k))},`
