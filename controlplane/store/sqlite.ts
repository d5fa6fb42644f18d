import { chmodSync, closeSync, openSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { Compacted, Conflict, type Bytes, type Change, type Page, type Progress, type Revision, type Seconds, type Store, type Stored } from './seam.ts'

/** The format of the file; a newer one is refused. */
const format = 1

interface Write {
  readonly key: string
  readonly value: Bytes | undefined
  readonly expected: Revision
  readonly expires: Seconds | undefined
  readonly done: (revision: Revision) => void
  readonly failed: (error: Error) => void
}

interface Row {
  readonly rev: number
  readonly key: string
  readonly created: number
  readonly prev: number
  readonly value: Uint8Array | null
}

/** Named places where a test may end the process: before a group is written, before it is made durable, before it is answered. */
export type FailPoint = 'write' | 'commit' | 'answer'

export interface SqliteOptions {
  /** At most this many writes in one transaction; more wait for the next. */
  readonly group?: number
  readonly failPoint?: (at: FailPoint) => void
  /** Called when the disk refused a write: nothing was acknowledged, and nothing more may be. */
  readonly broken?: (error: Error) => void
  readonly now?: () => number
}

/**
 * The embedded store: one SQLite file in WAL mode, `synchronous=FULL`. Writes that arrive together share a transaction (group commit):
 * checked, written, made durable, then told to watchers, then acknowledged. Revisions are given here, in the only writer, without gaps.
 */
export class SqliteStore implements Store {
  readonly #db: DatabaseSync
  readonly #options: SqliteOptions
  readonly #queue: Write[] = []
  readonly #watchers = new Set<Watcher>()
  readonly #expiring: NodeJS.Timeout
  readonly #sql: Readonly<Record<'insert' | 'head' | 'setHead' | 'row' | 'since' | 'expired' | 'meta', StatementSync>>
  #revision: Revision
  #floor: Revision
  #scheduled = false
  #failed: Error | undefined
  #closed = false

  constructor(file: string, options: SqliteOptions = {}) {
    this.#options = options
    // Secrets are in it: nobody else may read it, nor the files that SQLite makes beside it with the same mode.
    if (file !== ':memory:') {
      closeSync(openSync(file, 'a', 0o600))
      for (const f of [file, `${file}-wal`, `${file}-shm`]) {
        try {
          chmodSync(f, 0o600)
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
        }
      }
    }
    this.#db = new DatabaseSync(file)
    const db = this.#db
    // One process owns the file: a second one fails here instead of giving revisions twice.
    db.exec('PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000; PRAGMA cache_size=-16000')
    db.exec(`
      CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS history (rev INTEGER PRIMARY KEY, key TEXT NOT NULL, created INTEGER NOT NULL, prev INTEGER NOT NULL, expires INTEGER, value BLOB);
      CREATE INDEX IF NOT EXISTS history_key ON history (key, rev);
      CREATE INDEX IF NOT EXISTS history_expires ON history (expires) WHERE expires IS NOT NULL;
      CREATE TABLE IF NOT EXISTS head (key TEXT PRIMARY KEY, rev INTEGER NOT NULL) WITHOUT ROWID;`)
    this.#sql = {
      insert: db.prepare('INSERT INTO history (rev, key, created, prev, expires, value) VALUES (?, ?, ?, ?, ?, ?)'),
      head: db.prepare('SELECT h.rev, h.key, h.created, h.prev, h.value FROM head JOIN history h ON h.rev = head.rev WHERE head.key = ?'),
      setHead: db.prepare('INSERT INTO head (key, rev) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET rev = excluded.rev'),
      row: db.prepare('SELECT rev, key, created, prev, value FROM history WHERE rev = ?'),
      since: db.prepare('SELECT rev, key, created, prev, value FROM history WHERE rev > ? AND rev <= ? ORDER BY rev LIMIT ?'),
      expired: db.prepare('SELECT h.key, h.rev FROM history h JOIN head ON head.key = h.key AND head.rev = h.rev WHERE h.expires IS NOT NULL AND h.expires <= ? LIMIT 500'),
      meta: db.prepare('INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value'),
    }
    const meta = (name: string): number | undefined => (db.prepare('SELECT value FROM meta WHERE name = ?').get(name) as { value: number } | undefined)?.value
    const found = meta('format')
    if (found !== undefined && found > format) {
      db.close()
      throw new Error(`${file} was written by a newer version (format ${found}, this program knows ${format})`)
    }
    if (found === undefined) this.#sql.meta.run('format', format)
    this.#floor = meta('floor') ?? 0
    this.#revision = Math.max(meta('revision') ?? 0, (db.prepare('SELECT max(rev) AS rev FROM history').get() as { rev: number | null }).rev ?? 0, this.#floor)
    this.#expiring = setInterval(() => this.#expire(), 5000)
    this.#expiring.unref()
  }

  async get(key: string): Promise<Stored | undefined> {
    return this.#head(key)
  }

  async list(prefix: string, page: { readonly at?: Revision; readonly limit?: number; readonly after?: string } = {}): Promise<Page> {
    const at = page.at ?? this.#revision
    if (at < this.#floor) throw new Compacted(this.#floor)
    const limit = page.limit ?? Number.MAX_SAFE_INTEGER - 1
    const [low, high] = [page.after === undefined || page.after < prefix ? prefix : `${page.after}\0`, after(prefix)]
    const sql =
      at >= this.#revision
        ? this.#db
            .prepare('SELECT h.rev, h.key, h.created, h.prev, h.value FROM head JOIN history h ON h.rev = head.rev WHERE head.key >= ? AND head.key < ? ORDER BY head.key LIMIT ?')
            .all(low, high, limit + 1)
        : this.#db
            .prepare(
              `SELECT h.rev, h.key, h.created, h.prev, h.value FROM history h WHERE h.key >= ? AND h.key < ? AND h.value IS NOT NULL
               AND h.rev = (SELECT max(x.rev) FROM history x WHERE x.key = h.key AND x.rev <= ?) ORDER BY h.key LIMIT ?`,
            )
            .all(low, high, at, limit + 1)
    const rows = sql as unknown as Row[]
    return { at, items: rows.slice(0, limit).map(stored), more: rows.length > limit }
  }

  put(key: string, value: Bytes, expected: Revision, expires?: Seconds): Promise<Revision> {
    return this.#enqueue(key, value, expected, expires)
  }

  delete(key: string, expected: Revision): Promise<Revision> {
    return this.#enqueue(key, undefined, expected, undefined)
  }

  async *watch(prefix: string, from: Revision, signal: AbortSignal): AsyncGenerator<readonly (Change | Progress)[]> {
    if (from < this.#floor) throw new Compacted(this.#floor)
    const watcher: Watcher = { prefix, pending: [], wake: () => {} }
    const until = this.#revision
    this.#watchers.add(watcher)
    const stop = (): void => watcher.wake()
    signal.addEventListener('abort', stop, { once: true })
    try {
      let at = from
      while (at < until && !signal.aborted) {
        if (at < this.#floor) throw new Compacted(this.#floor)
        const rows = this.#sql.since.all(at, until, 1000) as unknown as Row[]
        const batch = rows.filter((r) => r.key.startsWith(prefix)).map((r) => this.#change(r))
        at = rows.length < 1000 ? until : rows.at(-1)!.rev
        if (batch.length > 0) yield batch
      }
      yield [{ progress: until }]
      while (!signal.aborted && !this.#closed) {
        if (watcher.pending.length === 0) {
          await new Promise<void>((resolve) => {
            watcher.wake = resolve
            if (signal.aborted) resolve()
          })
          continue
        }
        const batch = watcher.pending
        watcher.pending = []
        yield batch
      }
    } finally {
      this.#watchers.delete(watcher)
      signal.removeEventListener('abort', stop)
    }
  }

  async current(): Promise<Revision> {
    return this.#revision
  }

  async floor(): Promise<Revision> {
    return this.#floor
  }

  async compact(before: Revision): Promise<void> {
    const floor = Math.min(before, this.#revision)
    if (floor <= this.#floor) return
    // The floor is durable before anything below it goes: a restart must not promise history that is half gone.
    this.#db.exec('BEGIN IMMEDIATE')
    this.#sql.meta.run('floor', floor)
    this.#sql.meta.run('revision', this.#revision)
    this.#db.exec('COMMIT')
    this.#floor = floor
    const some = this.#db.prepare(
      `DELETE FROM history WHERE rev IN (SELECT h.rev FROM history h WHERE h.rev <= ? AND
         (h.value IS NULL OR EXISTS (SELECT 1 FROM history x WHERE x.key = h.key AND x.rev > h.rev AND x.rev <= ?)) LIMIT 500)`,
    )
    // In small bites, so that no write waits long.
    while (!this.#closed) {
      const { changes } = some.run(floor, floor)
      if (Number(changes) < 500) break
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  /** Copies the whole store, as of now, into `file`. */
  backup(file: string): void {
    this.#db.prepare('VACUUM INTO ?').run(file)
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#flush()
    this.#closed = true
    clearInterval(this.#expiring)
    for (const w of this.#watchers) w.wake()
    this.#db.close()
  }

  #enqueue(key: string, value: Bytes | undefined, expected: Revision, expires: Seconds | undefined): Promise<Revision> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed)
    if (this.#closed) return Promise.reject(new Error('the store is closed'))
    return new Promise((done, failed) => {
      this.#queue.push({ key, value, expected, expires, done, failed })
      if (this.#scheduled) return
      this.#scheduled = true
      setImmediate(() => this.#flush())
    })
  }

  #flush(): void {
    this.#scheduled = false
    if (this.#closed || this.#queue.length === 0) return
    const group = this.#queue.splice(0, this.#options.group ?? 512)
    if (this.#queue.length > 0) {
      this.#scheduled = true
      setImmediate(() => this.#flush())
    }
    const now = this.#options.now?.() ?? Date.now()
    const start = this.#revision
    const changes: Change[] = []
    const answers: (() => void)[] = []
    try {
      this.#options.failPoint?.('write')
      this.#db.exec('BEGIN IMMEDIATE')
      for (const w of group) {
        const before = this.#head(w.key)
        if ((before?.revision ?? 0) !== w.expected) {
          answers.push(() => w.failed(new Conflict(w.key, before)))
          continue
        }
        if (w.value === undefined && before === undefined) {
          answers.push(() => w.failed(new Conflict(w.key, undefined)))
          continue
        }
        const revision = ++this.#revision
        const created = before?.created ?? revision
        this.#sql.insert.run(revision, w.key, created, before?.revision ?? 0, w.expires === undefined ? null : Math.floor(now / 1000) + w.expires, w.value ?? null)
        if (w.value === undefined) this.#db.prepare('DELETE FROM head WHERE key = ?').run(w.key)
        else this.#sql.setHead.run(w.key, revision)
        changes.push({ key: w.key, revision, value: w.value, created, before })
        answers.push(() => w.done(revision))
      }
      this.#options.failPoint?.('commit')
      this.#db.exec('COMMIT')
    } catch (error) {
      // After a failed write or fsync nobody knows what is on disk: answer no one with success, take no more writes.
      this.#revision = start
      this.#failed = new Error('the store could not write', { cause: error })
      try {
        this.#db.exec('ROLLBACK')
      } catch {
        // Already rolled back by SQLite.
      }
      for (const w of group) w.failed(this.#failed)
      for (const w of this.#queue.splice(0)) w.failed(this.#failed)
      this.#options.broken?.(this.#failed)
      return
    }
    for (const w of this.#watchers) {
      const mine = w.prefix === '' ? changes : changes.filter((c) => c.key.startsWith(w.prefix))
      if (mine.length > 0) w.pending.push(...mine)
      else if (w.pending.length === 0) w.pending.push({ progress: this.#revision })
      w.wake()
    }
    this.#options.failPoint?.('answer')
    for (const answer of answers) answer()
  }

  #expire(): void {
    if (this.#closed || this.#failed !== undefined) return
    const rows = this.#sql.expired.all(Math.floor((this.#options.now?.() ?? Date.now()) / 1000)) as unknown as { key: string; rev: number }[]
    for (const { key, rev } of rows) this.delete(key, rev).catch(() => {})
  }

  #head(key: string): Stored | undefined {
    const row = this.#sql.head.get(key) as unknown as Row | undefined
    return row === undefined ? undefined : stored(row)
  }

  #change(row: Row): Change {
    const before = row.prev === 0 ? undefined : (this.#sql.row.get(row.prev) as unknown as Row | undefined)
    return { key: row.key, revision: row.rev, value: row.value ?? undefined, created: row.created, before: before === undefined || before.value === null ? undefined : stored(before) }
  }
}

interface Watcher {
  readonly prefix: string
  pending: (Change | Progress)[]
  wake: () => void
}

const stored = (row: Row): Stored => ({ key: row.key, value: row.value!, revision: row.rev, created: row.created })

/** The first key that is not under `prefix`. */
const after = (prefix: string): string => (prefix === '' ? '\u{10ffff}' : prefix.slice(0, -1) + String.fromCodePoint(prefix.codePointAt(prefix.length - 1)! + 1))
