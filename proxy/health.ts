import type { StatusHandler } from '../lib/status.ts'

/** What `/healthz` and `/livez` say, in kube-proxy's words. Times are milliseconds of the wall clock. */
export class Health {
  readonly #timeout: number
  readonly #now: () => number
  #lastUpdated = 0
  #queued: number | undefined
  #eligible = true

  /** `timeout`: how long a change may wait to be written, in milliseconds. */
  constructor(timeout: number, now: () => number = Date.now) {
    this.#timeout = timeout
    this.#now = now
  }

  /** A change waits to be written. */
  queued(): void {
    this.#queued ??= this.#now()
  }

  /** Everything that waited when the write began is written. */
  updated(began: number): void {
    this.#lastUpdated = this.#now()
    if (this.#queued !== undefined && this.#queued <= began) this.#queued = undefined
  }

  /** Whether load balancers should send to this node: it exists, and is not about to be deleted. */
  set eligible(value: boolean) {
    this.#eligible = value
  }

  /** Changes are written in time; before the first write, nothing is. */
  get healthy(): boolean {
    return this.#lastUpdated > 0 && (this.#queued === undefined || this.#now() - this.#queued < this.#timeout)
  }

  handler(what: 'healthz' | 'livez', counted: (code: number) => void): StatusHandler {
    return () => {
      const healthy = this.healthy && (what === 'livez' || this.#eligible)
      const code = healthy ? 200 : 503
      counted(code)
      const at = (ms: number): string => (ms === 0 ? '0001-01-01 00:00:00 +0000 UTC' : goTime(ms))
      const body = { lastUpdated: at(this.#lastUpdated), currentTime: at(this.#now()), ...(what === 'healthz' ? { nodeEligible: this.#eligible } : {}), healthy }
      return { code, body: JSON.stringify(body), type: 'application/json', headers: { 'x-content-type-options': 'nosniff' } }
    }
  }
}

/** A time as Go prints it: `2026-11-23 19:30:00.123 +0000 UTC`. */
function goTime(ms: number): string {
  return `${new Date(ms).toISOString().replace('T', ' ').replace('Z', '')} +0000 UTC`
}
