import { Backoff } from '../../lib/backoff.ts'
import { explainError, type Log } from '../../lib/log.ts'

/** Work by key: a key is never worked on twice at once, once for many additions, and again after failure. */
export interface Queue {
  add(key: string): void
  /** Adds the key after a while; an earlier appointment stays. */
  addAfter(key: string, ms: number): void
  /** Resolves when there is nothing to do now. */
  idle(): Promise<void>
}

export interface QueueOptions {
  readonly name: string
  /** Work begins when this resolves. */
  readonly ready: Promise<void>
  readonly signal: AbortSignal
  readonly log: Log
  /** Keys worked on at once; default 1. */
  readonly workers?: number
}

/** A queue that runs `work` for each key. What `work` resolves to is a time in milliseconds after which to look again. */
export function queue(work: (key: string) => Promise<number | void>, options: QueueOptions): Queue {
  const { name, ready, signal, log, workers = 1 } = options
  const waiting = new Set<string>()
  const running = new Set<string>()
  const timers = new Map<string, { readonly at: number; readonly timer: NodeJS.Timeout }>()
  const backoffs = new Map<string, Backoff>()
  const idlers: (() => void)[] = []
  let open = false
  let planned = false
  ready.then(
    () => {
      open = true
      plan()
    },
    () => {},
  )
  signal.addEventListener(
    'abort',
    () => {
      for (const { timer } of timers.values()) clearTimeout(timer)
      timers.clear()
      waiting.clear()
    },
    { once: true },
  )

  const self: Queue = {
    add(key) {
      if (signal.aborted) return
      waiting.add(key)
      plan()
    },
    addAfter(key, ms) {
      if (signal.aborted) return
      const at = performance.now() + ms
      const before = timers.get(key)
      if (before !== undefined && before.at <= at) return
      clearTimeout(before?.timer)
      const timer = setTimeout(() => {
        timers.delete(key)
        self.add(key)
      }, ms)
      timers.set(key, { at, timer })
    },
    idle: () => new Promise((resolve) => (open && waiting.size === 0 && running.size === 0 ? resolve() : idlers.push(resolve))),
  }
  return self

  /** Starts after the events that are being delivered: one run for all of them. */
  function plan(): void {
    if (!open || planned || signal.aborted) return
    planned = true
    setImmediate(() => {
      planned = false
      for (const key of waiting) {
        if (running.size >= workers) return
        if (running.has(key)) continue
        waiting.delete(key)
        running.add(key)
        void one(key)
      }
    })
  }

  async function one(key: string): Promise<void> {
    try {
      const again = await work(key)
      backoffs.delete(key)
      if (typeof again === 'number') self.addAfter(key, again)
    } catch (error) {
      if (!signal.aborted) {
        let backoff = backoffs.get(key)
        if (backoff === undefined) backoffs.set(key, (backoff = new Backoff({ first: 20, most: 60_000 })))
        const wait = backoff.next()
        // A conflict with another writer settles itself at once; whatever lasts is worth a line.
        log[wait > 500 ? 'warn' : 'debug']('a controller failed, trying again', { controller: name, key, error: explainError(error), waitMs: Math.round(wait) })
        self.addAfter(key, wait)
      }
    } finally {
      running.delete(key)
      if (waiting.size > 0) plan()
      else if (running.size === 0) for (const wake of idlers.splice(0)) wake()
    }
  }
}
