import type { Endpoint, Seconds } from '../table.ts'

/** The endpoints of one listener, and which client met which. */
export class Balance {
  #endpoints: readonly Endpoint[] = []
  #affinity: Seconds | undefined
  readonly #met = new Map<string, { endpoint: string; until: number }>()
  readonly #random: () => number

  constructor(random: () => number = Math.random) {
    this.#random = random
  }

  get endpoints(): readonly Endpoint[] {
    return this.#endpoints
  }

  set(endpoints: readonly Endpoint[], affinity: Seconds | undefined): void {
    this.#endpoints = endpoints
    this.#affinity = affinity
    if (affinity === undefined) this.#met.clear()
  }

  /** An endpoint for `client` that is not among `tried`; the one it met before, if that is there. Times in milliseconds. */
  pick(client: string, now: number, tried?: ReadonlySet<string>): Endpoint | undefined {
    const before = this.#met.get(client)
    if (before !== undefined && before.until > now && tried?.has(before.endpoint) !== true) {
      const same = this.#endpoints.find((e) => endpointKey(e) === before.endpoint)
      if (same !== undefined) return same
    }
    const left = tried === undefined || tried.size === 0 ? this.#endpoints : this.#endpoints.filter((e) => !tried.has(endpointKey(e)))
    return left[Math.floor(this.#random() * left.length)]
  }

  /** `endpoint` took `client`: with affinity it is met again. */
  met(client: string, endpoint: Endpoint, now: number): void {
    if (this.#affinity !== undefined) this.#met.set(client, { endpoint: endpointKey(endpoint), until: now + this.#affinity * 1000 })
  }

  /** Forgets those whose time is over. */
  sweep(now: number): void {
    for (const [client, { until }] of this.#met) if (until <= now) this.#met.delete(client)
  }
}

/** What tells endpoints apart. */
export function endpointKey(e: Endpoint): string {
  return `${e.address} ${e.port}`
}
