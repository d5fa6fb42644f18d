import { explainError, type Log } from './log.ts'

/** Things to end, ended last first, once. */
export class Closers {
  readonly #list: { readonly what: string; readonly close: () => Promise<void> | void }[] = []
  #ended: Promise<void> | undefined

  add(what: string, close: () => Promise<void> | void): void {
    this.#list.push({ what, close })
  }

  /** Ends everything, newest first; what fails is logged and does not keep the others open. */
  close(log: Log): Promise<void> {
    this.#ended ??= (async () => {
      for (const { what, close } of this.#list.splice(0).reverse()) {
        try {
          await close()
        } catch (error) {
          log.warn('could not close', { what, error: explainError(error) })
        }
      }
    })()
    return this.#ended
  }
}

/** A signal that fires at the first SIGTERM or SIGINT; a second one ends the process at once. */
export function untilSignal(): AbortSignal {
  const ended = new AbortController()
  const onSignal = (name: NodeJS.Signals): void => {
    if (ended.signal.aborted) process.exit(name === 'SIGINT' ? 130 : 143)
    ended.abort(new Error(`got ${name}`))
  }
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  return ended.signal
}

/** Resolves when `signal` fires. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

/** Waits `ms` milliseconds; ends early, without an error, when `signal` fires. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', done, { once: true })
  })
}
