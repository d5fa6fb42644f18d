/** A moment in the life of a store; grows by one with every change. */
export type Revision = number
export type Seconds = number
export type Bytes = Uint8Array

/** A value under a key, with the revision that wrote it and the one that made the key. */
export interface Stored {
  readonly key: string
  readonly value: Bytes
  readonly revision: Revision
  readonly created: Revision
}

/** Keys in order as of revision `at`; `more` if the limit cut it short. */
export interface Page {
  readonly at: Revision
  readonly items: readonly Stored[]
  readonly more: boolean
}

/** A key was written (`value`) or deleted (no `value`); `before` is what it held. */
export interface Change {
  readonly key: string
  readonly revision: Revision
  readonly value: Bytes | undefined
  readonly created: Revision
  readonly before: Stored | undefined
}

/** Everything up to `progress` was told. */
export interface Progress {
  readonly progress: Revision
}

/** The key is not at the expected revision; `actual` is what it holds. */
export class Conflict extends Error {
  override readonly name = 'Conflict'
  readonly key: string
  readonly actual: Stored | undefined
  constructor(key: string, actual: Stored | undefined) {
    super(`${key} is at revision ${actual?.revision ?? 0}`)
    this.key = key
    this.actual = actual
  }
}

/** The history asked for is gone; it begins after `floor`. */
export class Compacted extends Error {
  override readonly name = 'Compacted'
  readonly floor: Revision
  constructor(floor: Revision) {
    super(`history up to revision ${floor} is gone`)
    this.floor = floor
  }
}

/** Objects under keys, each change with the next revision. What was acknowledged is durable; what is told by a watch was acknowledged or is about to be. */
export interface Store {
  get(key: string): Promise<Stored | undefined>
  /** All keys under `prefix` as of one revision; at most `limit`, after the key `after`. Rejects with `Compacted`. */
  list(prefix: string, page?: { readonly at?: Revision; readonly limit?: number; readonly after?: string }): Promise<Page>
  /** Writes if the key is still at `expected` (0: does not exist). Otherwise rejects with `Conflict`. Gone by itself after `expires` seconds. */
  put(key: string, value: Bytes, expected: Revision, expires?: Seconds): Promise<Revision>
  delete(key: string, expected: Revision): Promise<Revision>
  /** All changes after `from`, each with the value before it, and now and then a progress mark. Rejects with `Compacted`. */
  watch(prefix: string, from: Revision, signal: AbortSignal): AsyncIterable<readonly (Change | Progress)[]>
  /** The newest revision any copy of the store has acknowledged: what a consistent read must have seen. */
  current(): Promise<Revision>
  /** The oldest revision that `list` and `watch` can still start from. */
  floor(): Promise<Revision>
  compact(before: Revision): Promise<void>
  close(): Promise<void>
}
