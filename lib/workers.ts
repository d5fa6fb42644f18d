import { availableParallelism } from 'node:os'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { Backoff } from './backoff.ts'
import { explainError, type Log } from './log.ts'

/** Milliseconds a worker must have lived for the next one to be started without a wait. */
const livedLong = 10_000

/** Milliseconds between the warning and the end of a worker that is terminated. */
export const terminateAfter = 20

/** Flags of V8 hold for the whole process; a worker that is given them again does not start. */
const ofV8 = /^--(no-)?(max|min|semi|parallel|single|optimize|stack|gc|trace|concurrent)[-_]/

/** What a crew of workers is made of. */
export interface WorkersOptions<Whole> {
  /** The module each runs: `workerFile(import.meta.url, './worker.ts')`. */
  readonly file: URL
  /** Default: one a core. */
  readonly count?: number
  /** What each is given at its start; shared memory stays shared. */
  readonly data?: unknown
  /** The whole table, as it is now. */
  whole(): Whole
  /** Told that a worker is about to be terminated, `terminateAfter` ms before: what could still call into it must not. */
  terminating?(index: number): void
  /** Told when a worker is gone, before another one takes its place. */
  died?(index: number): void
  message?(index: number, message: unknown): void
  readonly log: Log
}

type ToWorker<Whole, Change> =
  | { readonly kind: 'whole'; readonly number: number; readonly whole: Whole }
  | { readonly kind: 'change'; readonly number: number; readonly change: Change }
  | { readonly kind: 'message'; readonly message: unknown }
  | { readonly kind: 'end' }
type ToMain = { readonly kind: 'ready' } | { readonly kind: 'whole?' } | { readonly kind: 'message'; readonly message: unknown }

/** Whether this code runs in a worker, which may be terminated at any time. */
export const inWorker = !isMainThread

/** A module of ours as a worker's file, in a checkout (`.ts`) and in a package (`.js`). */
export function workerFile(from: string, name: string): URL {
  return new URL(from.endsWith('.js') ? name.replace(/\.ts$/, '.js') : name, from)
}

/** Threads that do the same work by the same table: changes reach them in order, each with a number, and one that dies is replaced. */
export class Workers<Whole, Change> {
  readonly #options: WorkersOptions<Whole>
  readonly #slots: Slot[]
  #number = 0
  #ending = false

  /** Starts them all; call `ready` before relying on any. */
  constructor(options: WorkersOptions<Whole>) {
    this.#options = options
    this.#slots = Array.from({ length: options.count ?? availableParallelism() }, (_, index) => new Slot(index))
    for (const slot of this.#slots) this.#start(slot)
  }

  get count(): number {
    return this.#slots.length
  }

  /** Resolves when every worker has said that it is ready. */
  async ready(): Promise<void> {
    await Promise.all(this.#slots.map((slot) => slot.ready))
  }

  /** Tells every worker of a change that `whole()` already shows. */
  change(change: Change): void {
    const number = ++this.#number
    for (const slot of this.#slots) this.#post(slot, { kind: 'change', number, change })
  }

  /** Sends everybody the whole table: a change that cannot be told in parts. */
  replace(): void {
    this.#number++
    for (const slot of this.#slots) this.#whole(slot)
  }

  send(index: number, message: unknown): void {
    this.#post(this.#slots[index]!, { kind: 'message', message })
  }

  /** Asks all to end; those that have not after `ms` are ended. */
  async close(ms = 5000): Promise<void> {
    this.#ending = true
    await Promise.all(
      this.#slots.map(async (slot) => {
        clearTimeout(slot.again)
        const { worker } = slot
        if (worker === undefined) return
        const gone = new Promise<void>((resolve) => worker.once('exit', () => resolve()))
        this.#post(slot, { kind: 'end' })
        const timer = setTimeout(() => void this.#terminate(slot), ms)
        await gone
        clearTimeout(timer)
      }),
    )
  }

  /** Ends one at once, as a crash would; for tests. */
  async kill(index: number): Promise<void> {
    await this.#terminate(this.#slots[index]!)
  }

  async #terminate(slot: Slot): Promise<void> {
    const { worker } = slot
    if (worker === undefined) return
    this.#options.terminating?.(slot.index)
    // What was already on its way arrives in this time.
    await new Promise((resolve) => setTimeout(resolve, terminateAfter))
    await worker.terminate()
  }

  #start(slot: Slot): void {
    const { file, data, log } = this.#options
    const worker = new Worker(file, { workerData: { index: slot.index, data }, execArgv: process.execArgv.filter((flag) => !ofV8.test(flag)) })
    const began = performance.now()
    slot.worker = worker
    worker.on('message', (m: ToMain) => {
      if (m.kind === 'ready') slot.isReady()
      else if (m.kind === 'whole?') this.#whole(slot)
      else this.#options.message?.(slot.index, m.message)
    })
    worker.on('error', (error) => log.error('a worker failed', { worker: slot.index, error: explainError(error) }))
    worker.on('exit', (code) => {
      slot.worker = undefined
      if (this.#ending) return
      this.#options.died?.(slot.index)
      log.warn('a worker ended; another one takes its place', { worker: slot.index, status: code })
      if (performance.now() - began > livedLong) slot.backoff.reset()
      slot.again = setTimeout(() => this.#start(slot), slot.backoff.next())
    })
    this.#whole(slot)
  }

  #whole(slot: Slot): void {
    this.#post(slot, { kind: 'whole', number: this.#number, whole: this.#options.whole() })
  }

  #post(slot: Slot, message: ToWorker<Whole, Change>): void {
    // A message to one that is just ending is lost, and so it should be: its successor starts with the whole.
    slot.worker?.postMessage(message)
  }
}

class Slot {
  readonly index: number
  readonly backoff = new Backoff({ first: 50, most: 10_000 })
  readonly ready: Promise<void>
  isReady!: () => void
  worker: Worker | undefined
  again: NodeJS.Timeout | undefined

  constructor(index: number) {
    this.index = index
    this.ready = new Promise((resolve) => (this.isReady = resolve))
  }
}

/** What a worker does with what it is told. */
export interface Duties<Whole, Change> {
  whole(table: Whole): void
  change(change: Change): void
  message?(message: unknown): void
  /** Asked to end: what is under way may be finished first. Afterwards nothing holds the worker. */
  end(): Promise<void> | void
}

/** The worker's side: which one it is, what it was given, and a way to talk back. */
export interface Post {
  readonly index: number
  readonly data: unknown
  send(message: unknown): void
}

/** Takes up the work of this thread. `begin` is called once, with the first table; the worker is ready when what it returns has resolved. */
export function work<Whole, Change>(begin: (post: Post, table: Whole) => Promise<Duties<Whole, Change>> | Duties<Whole, Change>): void {
  const port = parentPort
  if (port === null) throw new Error('this module runs in a worker')
  const { index, data } = workerData as { readonly index: number; readonly data: unknown }
  const say = (message: ToMain): void => port.postMessage(message)
  const post: Post = { index, data, send: (message) => say({ kind: 'message', message }) }
  let duties: Duties<Whole, Change> | undefined
  let at = -1
  let asked = false
  const early: ToWorker<Whole, Change>[] = []
  const take = (m: ToWorker<Whole, Change>): void => {
    switch (m.kind) {
      case 'whole':
        at = m.number
        asked = false
        return duties!.whole(m.whole)
      case 'change':
        if (m.number <= at) return
        if (m.number === at + 1) {
          at = m.number
          return duties!.change(m.change)
        }
        // One was missed: the whole table makes up for it, and for whatever comes before it.
        if (!asked) say({ kind: 'whole?' })
        asked = true
        return
      case 'message':
        return duties!.message?.(m.message)
      case 'end':
        void Promise.resolve(duties!.end()).finally(() => port.close())
    }
  }
  port.on('message', (m: ToWorker<Whole, Change>) => {
    if (duties !== undefined) return take(m)
    if (at < 0 && m.kind === 'whole') {
      at = m.number
      void Promise.resolve(begin(post, m.whole)).then((d) => {
        duties = d
        say({ kind: 'ready' })
        for (const e of early.splice(0)) take(e)
      })
    } else early.push(m)
  })
}
