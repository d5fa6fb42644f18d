import type { IpFamily } from '../lib/ip.ts'
import { explainError } from '../lib/log.ts'
import { listenStatus, type StatusAnswer, type StatusHandler, type StatusServer } from '../lib/status.ts'
import type { HealthCheck } from './compile.ts'

/** What `/healthz` and `/livez` say, in kube-proxy's words. Times are milliseconds of the wall clock. */
export class Health {
  readonly #timeout: number
  readonly #now: () => number
  #lastUpdated = 0
  #queued: number | undefined
  #eligible = true
  /** Families that rules are written for; one write is for all of them. */
  families: readonly IpFamily[] = [4]

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
      const lastUpdated = at(this.#lastUpdated)
      const status = Object.fromEntries(this.families.map((f) => [`IPv${f}`, { lastUpdated, healthy: this.healthy }]))
      const body = { lastUpdated, currentTime: at(this.#now()), ...(what === 'healthz' ? { nodeEligible: this.#eligible } : {}), healthy, status }
      return { code, body: JSON.stringify(body), type: 'application/json', headers: { 'x-content-type-options': 'nosniff' } }
    }
  }
}

/** A time as Go prints it: `2026-11-23 19:30:00.123 +0000 UTC`. */
function goTime(ms: number): string {
  return `${new Date(ms).toISOString().replace('T', ' ').replace('Z', '')} +0000 UTC`
}

/** The listeners of `healthCheckNodePort`: a cloud's load balancer asks them which nodes have an endpoint. */
export class HealthChecks {
  readonly #healthy: () => boolean
  readonly #failed: (check: HealthCheck, reason: string) => void
  readonly #open = new Map<number, { check: HealthCheck; readonly servers: readonly StatusServer[] }>()
  /** Addresses they listen on; the empty one is all. */
  #hosts: readonly string[] = ['']
  /** Ports that could not be opened, so that each is complained about once. */
  readonly #shut = new Map<number, string>()

  constructor(healthy: () => boolean, failed: (check: HealthCheck, reason: string) => void) {
    this.#healthy = healthy
    this.#failed = failed
  }

  /** Listens for exactly these, where NodePorts answer. */
  async set(checks: ReadonlyMap<string, HealthCheck>, nodePortAddresses: 'all' | readonly string[] = 'all'): Promise<void> {
    const hosts = nodePortAddresses === 'all' ? [''] : nodePortAddresses
    const moved = hosts.join() !== this.#hosts.join()
    this.#hosts = hosts
    const want = new Map([...checks.values()].map((c) => [c.port, c]))
    for (const [port, { servers }] of this.#open) {
      if (want.has(port) && !moved) continue
      this.#open.delete(port)
      for (const server of servers) await server.close()
    }
    for (const port of this.#shut.keys()) if (!want.has(port)) this.#shut.delete(port)
    for (const [port, check] of want) {
      const open = this.#open.get(port)
      if (open !== undefined) {
        open.check = check
        continue
      }
      const servers: StatusServer[] = []
      try {
        const paths: Record<string, StatusHandler> = {}
        const answer: StatusHandler = () => this.#answer(port)
        for (const path of ['*', '/healthz', '/livez', '/readyz']) paths[path] = answer
        for (const host of hosts) servers.push(await listenStatus({ host, port }, { paths }, 'another healthCheckNodePort'))
        this.#open.set(port, { check, servers })
        this.#shut.delete(port)
      } catch (error) {
        for (const server of servers) await server.close()
        const reason = explainError(error)
        if (this.#shut.get(port) !== reason) this.#failed(check, reason)
        this.#shut.set(port, reason)
      }
    }
  }

  async close(): Promise<void> {
    await this.set(new Map())
  }

  #answer(port: number): StatusAnswer {
    const check = this.#open.get(port)?.check
    const healthy = this.#healthy()
    const localEndpoints = check?.localEndpoints ?? 0
    return {
      code: localEndpoints > 0 && healthy ? 200 : 503,
      body: JSON.stringify({ service: { namespace: check?.namespace, name: check?.name }, localEndpoints, serviceProxyHealthy: healthy }),
      type: 'application/json',
      headers: { 'x-content-type-options': 'nosniff', 'x-load-balancing-endpoint-weight': String(localEndpoints) },
    }
  }
}
