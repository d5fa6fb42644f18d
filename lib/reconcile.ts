import { Backoff } from './backoff.ts'
import { Doorbell } from './doorbell.ts'
import { sleep } from './lifecycle.ts'

/** How often a reconciler runs. Times in milliseconds. */
export interface ReconcileOptions {
  /** Least time between the starts of two runs; the first after quiet starts at once. */
  readonly least?: number
  /** Runs at least this often, also when nobody rings; none if left out. */
  readonly most?: number
  readonly backoff?: Backoff
  readonly signal: AbortSignal
  /** Told of every failure; the run is tried again after a growing wait. */
  readonly failed?: (error: unknown) => void
  readonly succeeded?: () => void
}

/** A loop that is never running twice at once, runs once for many rings, and again after failure. */
export interface Reconciler {
  ring(): void
  /** Ends when the signal fires and the run under way is over. */
  readonly ended: Promise<void>
}

/** Starts the loop; it waits for the first ring. */
export function reconcile(run: (signal: AbortSignal) => Promise<void>, options: ReconcileOptions): Reconciler {
  const bell = new Doorbell()
  const backoff = options.backoff ?? new Backoff()
  const { signal } = options
  const loop = async (): Promise<void> => {
    let began = -Infinity
    while (!signal.aborted) {
      await waitFor(bell, options.most, signal)
      if (signal.aborted) return
      const early = began + (options.least ?? 0) - performance.now()
      if (early > 0) await sleep(early, signal)
      if (signal.aborted) return
      began = performance.now()
      try {
        await run(signal)
        backoff.reset()
        options.succeeded?.()
      } catch (error) {
        if (signal.aborted) return
        options.failed?.(error)
        bell.ring()
        await sleep(backoff.next(), signal)
      }
    }
  }
  return { ring: () => bell.ring(), ended: loop() }
}

async function waitFor(bell: Doorbell, most: number | undefined, signal: AbortSignal): Promise<void> {
  if (most === undefined) return bell.wait(signal)
  const timer = setTimeout(() => bell.ring(), most)
  try {
    await bell.wait(signal)
  } finally {
    clearTimeout(timer)
  }
}
