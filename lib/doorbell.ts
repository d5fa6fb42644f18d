/** Tells that something changed, not what. Rings before `wait` are kept: one wait ends for all of them. */
export class Doorbell {
  #rung = false
  #wake: (() => void) | undefined

  ring(): void {
    this.#rung = true
    this.#wake?.()
  }

  /** Resolves at the next ring, at once if it has rung since the last wait, or when `signal` fires. */
  async wait(signal?: AbortSignal): Promise<void> {
    if (!this.#rung && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        signal?.addEventListener('abort', () => resolve(), { once: true })
      })
      this.#wake = undefined
    }
    this.#rung = false
  }
}
