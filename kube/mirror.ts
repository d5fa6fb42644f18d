import { Backoff } from '../lib/backoff.ts'
import { sleep } from '../lib/lifecycle.ts'
import { explainError, type Log } from '../lib/log.ts'
import { ApiError, type Client } from './client.ts'
import type { KubeObject } from './objects.ts'
import { keyOf, type Resource } from './resources.ts'

export interface MirrorOptions<T extends KubeObject, K = T> {
  readonly namespace?: string | undefined
  readonly labelSelector?: string | undefined
  readonly fieldSelector?: string | undefined
  /** Makes of an object what is kept of it. Without it everything is kept but `managedFields`. */
  readonly reduce?: ((object: T) => K) | undefined
  /** Told after `objects` was updated. `now` is missing after a deletion, `before` after an addition. */
  readonly changed?: ((now: K | undefined, before: K | undefined) => void) | undefined
  readonly log: Log
  readonly signal: AbortSignal
  /** A server that says nothing for so long is hung up on and asked again; default 90,000 ms. */
  readonly silence?: number | undefined
  /** First and longest wait after a failure; default 200 and 30,000 ms. */
  readonly firstWait?: number | undefined
  readonly mostWait?: number | undefined
  /** Objects asked for at a time; default 500. */
  readonly page?: number | undefined
}

interface Kept<K> {
  readonly value: K
  /** Tells two states of an object apart, also of two objects of one name. */
  readonly version: string
}

/**
 * A local copy of one kind, kept by list and watch from construction until the signal fires. Whatever the server does it goes on:
 * after a lost connection from the revision it knows, after 410 from a new list, which also reports what has gone meanwhile.
 */
export class Mirror<T extends KubeObject, K = T> {
  readonly resource: Resource<T>
  readonly #client: Client
  readonly #options: MirrorOptions<T, K>
  readonly #objects = new Map<string, K>()
  readonly #versions = new Map<string, string>()
  readonly #backoff: Backoff
  readonly #whenSynced: Promise<void>
  #synced = false
  #resolveSynced!: () => void
  #lastContact = 0
  /** Where the next watch begins; undefined: list first. */
  #revision: string | undefined
  #failing = false

  constructor(client: Client, resource: Resource<T>, options: MirrorOptions<T, K>) {
    this.resource = resource
    this.#client = client
    this.#options = options
    this.#backoff = new Backoff({ first: options.firstWait ?? client.patience.firstWait ?? 200, most: options.mostWait ?? client.patience.mostWait ?? 30_000 })
    const { signal } = options
    this.#whenSynced = new Promise((resolve, reject) => {
      this.#resolveSynced = resolve
      if (signal.aborted) reject(signal.reason as Error)
      else signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    })
    // Nobody has to wait for it.
    this.#whenSynced.catch(() => {})
    void this.#run()
  }

  /** By `namespace/name`, or `name` outside namespaces. Always the same map: it changes under its readers, between their turns. */
  get objects(): ReadonlyMap<string, K> {
    return this.#objects
  }

  /** Has been listed whole at least once. */
  get synced(): boolean {
    return this.#synced
  }

  /** When the server was last heard, on the clock of `performance.now()`; 0: never. */
  get lastContact(): number {
    return this.#lastContact
  }

  /** Resolves once `synced`; rejects when the signal fires before. */
  whenSynced(): Promise<void> {
    return this.#whenSynced
  }

  async #run(): Promise<void> {
    const { signal, log } = this.#options
    const what = { resource: this.resource.plural }
    while (!signal.aborted) {
      const began = performance.now()
      try {
        await this.#watched(async (turn, heard) => {
          if (this.#revision === undefined) await this.#list(turn, heard)
          await this.#watch(turn, heard)
        })
        // The server ended the watch, as it does now and then. One that does so at once, over and over, is slowed down.
        if (performance.now() - began < 1000) await sleep(this.#backoff.next(), signal)
        else this.#backoff.reset()
      } catch (error) {
        if (signal.aborted) return
        const code = error instanceof ApiError ? error.code : undefined
        const asked = error instanceof ApiError ? (error.retryAfter ?? 0) : 0
        // A revision that the server calls too old, too new or nonsense is of no more use; who may not ask, or asks too much, keeps it.
        const lost = code !== undefined && ((code >= 400 && code < 500 && ![401, 403, 408, 429].includes(code)) || (code === 504 && (error as ApiError).message.includes('resource version')))
        if (lost) this.#revision = undefined
        if (performance.now() - began > 60_000) this.#backoff.reset()
        // No server's word makes us deaf for longer than this.
        const wait = Math.max(Math.min(asked, 120_000), this.#backoff.next())
        const level = code === 410 ? 'info' : this.#failing ? 'debug' : 'warn'
        this.#failing = code !== 410
        log[level]('lost touch with the API server, trying again', { ...what, error: explainError(error), waitMs: Math.round(wait), relist: this.#revision === undefined })
        await sleep(wait, signal)
      }
    }
  }

  /** Runs `ask` under a signal that fires with ours, or when `heard` was not called for too long. */
  async #watched(ask: (turn: AbortSignal, heard: () => void) => Promise<void>): Promise<void> {
    const { signal } = this.#options
    const silence = this.#options.silence ?? this.#client.patience.silence ?? 90_000
    const turn = new AbortController()
    const end = (): void => turn.abort(signal.reason)
    signal.addEventListener('abort', end, { once: true })
    let last = performance.now()
    const heard = (): void => {
      last = performance.now()
      this.#lastContact = last
    }
    // Looked at now and then: arming a timer at each byte would cost more than it is worth.
    const timer = setInterval(
      () => {
        if (performance.now() - last >= silence) turn.abort(new Error(`the server has said nothing for ${silence} ms`))
      },
      Math.max(5, silence / 8),
    )
    try {
      await ask(turn.signal, heard)
    } finally {
      clearInterval(timer)
      signal.removeEventListener('abort', end)
    }
  }

  async #list(signal: AbortSignal, heard: () => void): Promise<void> {
    const { namespace, labelSelector, fieldSelector, page = 500 } = this.#options
    const found = new Map<string, Kept<K>>()
    let limit: number | undefined = page
    let next: string | undefined
    for (;;) {
      let list
      try {
        list = await this.#client.list(this.resource, { namespace, labelSelector, fieldSelector, limit, continue: next, signal })
      } catch (error) {
        // The revision of the first page is gone already: the store changes faster than we turn pages, so ask for all at once.
        if (!(error instanceof ApiError && error.code === 410 && next !== undefined)) throw error
        found.clear()
        limit = undefined
        next = undefined
        continue
      }
      heard()
      for (const object of list.items) {
        const key = keyOf(object)
        const version = versionOf(object)
        // What did not change keeps its identity.
        found.set(key, this.#versions.get(key) === version && this.#objects.has(key) ? { value: this.#objects.get(key)!, version } : { value: this.#reduce(object), version })
      }
      next = list.metadata.continue
      if (next !== undefined && next !== '') continue
      if (list.metadata.resourceVersion === undefined) throw new Error(`the list of ${this.resource.plural} has no resourceVersion`)
      this.#replace(found)
      this.#revision = list.metadata.resourceVersion
      this.#recovered()
      return
    }
  }

  /** Makes the copy equal to `found`, then reports what that changed. */
  #replace(found: ReadonlyMap<string, Kept<K>>): void {
    const changes: (readonly [now: K | undefined, before: K | undefined])[] = []
    for (const [key, before] of this.#objects) {
      if (found.has(key)) continue
      this.#objects.delete(key)
      this.#versions.delete(key)
      changes.push([undefined, before])
    }
    for (const [key, { value, version }] of found) {
      if (this.#versions.get(key) === version) continue
      changes.push([value, this.#objects.get(key)])
      this.#objects.set(key, value)
      this.#versions.set(key, version)
    }
    const first = !this.#synced
    this.#synced = true
    for (const [now, before] of changes) this.#report(now, before)
    if (first) this.#resolveSynced()
  }

  async #watch(signal: AbortSignal, heard: () => void): Promise<void> {
    const { namespace, labelSelector, fieldSelector } = this.#options
    // A different length for each, so that a thousand clients do not come back in the same second.
    const timeoutSeconds = 300 + Math.floor(Math.random() * 300)
    const events = this.#client.watch(this.resource, { namespace, labelSelector, fieldSelector, resourceVersion: this.#revision, bookmarks: true, timeoutSeconds, signal, heard })
    for await (const { type, object } of events) {
      this.#recovered()
      const key = type === 'BOOKMARK' ? '' : keyOf(object)
      const before = this.#objects.get(key)
      const revision = object.metadata.resourceVersion
      switch (type) {
        case 'BOOKMARK':
          break
        case 'DELETED':
          this.#objects.delete(key)
          if (this.#versions.delete(key)) this.#report(undefined, before)
          break
        default: {
          const version = versionOf(object)
          if (this.#versions.get(key) === version) break
          const value = this.#reduce(object)
          this.#objects.set(key, value)
          this.#versions.set(key, version)
          this.#report(value, before)
        }
      }
      // Only now: whatever is thrown above must not skip the event.
      if (revision !== undefined && revision !== '') this.#revision = revision
    }
  }

  #reduce(object: T): K {
    const { reduce } = this.#options
    if (reduce !== undefined) return reduce(object)
    if (object.metadata.managedFields === undefined) return object as unknown as K
    const { managedFields: _, ...metadata } = object.metadata
    return { ...object, metadata } as unknown as K
  }

  #report(now: K | undefined, before: K | undefined): void {
    try {
      this.#options.changed?.(now, before)
    } catch (error) {
      this.#options.log.error('a listener of a mirror failed', { resource: this.resource.plural, error: explainError(error) })
    }
  }

  #recovered(): void {
    if (!this.#failing) return
    this.#failing = false
    this.#backoff.reset()
    this.#options.log.info('in touch with the API server again', { resource: this.resource.plural })
  }
}

function versionOf({ metadata }: KubeObject): string {
  return `${metadata.uid ?? ''} ${metadata.resourceVersion ?? ''}`
}
