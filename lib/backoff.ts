/** How long to wait between tries, in milliseconds. */
export interface BackoffOptions {
  readonly first?: number
  readonly most?: number
  readonly factor?: number
  /** Share of each wait that is random, 0 to 1. */
  readonly jitter?: number
  readonly random?: () => number
}

/** Waits that grow with each failure and start over after a success. */
export class Backoff {
  readonly #first: number
  readonly #most: number
  readonly #factor: number
  readonly #jitter: number
  readonly #random: () => number
  #next: number

  constructor(options: BackoffOptions = {}) {
    this.#first = options.first ?? 200
    this.#most = options.most ?? 30_000
    this.#factor = options.factor ?? 2
    this.#jitter = options.jitter ?? 0.5
    this.#random = options.random ?? Math.random
    this.#next = this.#first
  }

  /** The next wait in milliseconds. */
  next(): number {
    const base = this.#next
    this.#next = Math.min(this.#most, base * this.#factor)
    return base * (1 - this.#jitter * this.#random())
  }

  reset(): void {
    this.#next = this.#first
  }
}
