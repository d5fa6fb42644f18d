import { explainError } from '../lib/log.ts'
import { chooseDriver } from '../lib/sockets/choose.ts'
import type { Driver } from '../lib/sockets/seam.ts'
import type { Endpoint, Front, Refused, ServiceTable } from './table.ts'
import { Balance } from './userspace/balance.ts'
import { DatagramForwarder } from './userspace/datagrams.ts'
import { Forwarded, type Counts } from './userspace/streams.ts'

interface Listener {
  readonly balance: Balance
  to: readonly Endpoint[]
  sweep(now: number): void
  close(): void
}

/** Milliseconds of quiet after which an exchange of datagrams ends. */
const quiet = 60_000

/**
 * NodePorts on 127.0.0.1 and ::1, the same in every mode: a forwarder of this process. The kernel could do it only with
 * `route_localnet`, which opens loopback to the neighbours (CVE-2020-8558).
 */
export class LocalhostNodePorts {
  readonly #driver: Driver
  readonly #listeners = new Map<string, Listener>()
  readonly #counts: Counts = { open: 0, refused: 0, retried: 0 }
  readonly #stop: () => void

  static async create(sockets: string): Promise<LocalhostNodePorts> {
    const { driver } = await chooseDriver(sockets, () => import('../linux/sockets/driver.ts'))
    return new LocalhostNodePorts(driver)
  }

  constructor(driver: Driver) {
    this.#driver = driver
    this.#stop = driver.every(5000, () => {
      for (const l of this.#listeners.values()) l.sweep(driver.now)
    })
  }

  /** Listens for exactly the NodePorts that somebody serves; tells those it cannot listen for. Nobody there: nobody listens, so the kernel refuses. */
  async apply(table: ServiceTable): Promise<readonly Refused[]> {
    const refused: Refused[] = []
    const want = new Map<string, Front>()
    for (const [key, front] of table.fronts) if ('nodePort' in front.at && endpointsOf(front).length > 0) want.set(key, front)
    for (const [key, l] of this.#listeners) {
      if (want.has(key)) continue
      this.#listeners.delete(key)
      l.close()
    }
    for (const [key, front] of want) {
      const to = endpointsOf(front)
      let l = this.#listeners.get(key)
      try {
        if (l === undefined) this.#listeners.set(key, (l = await this.#open(front)))
        l.balance.set(to, front.affinity)
        l.to = to
      } catch (error) {
        refused.push({ front: key, object: `Service ${front.port}`, reason: `on loopback: ${explainError(error)}` })
      }
    }
    return refused
  }

  async close(): Promise<void> {
    this.#stop()
    for (const l of this.#listeners.values()) l.close()
    this.#listeners.clear()
    await this.#driver.close()
  }

  async #open(front: Front): Promise<Listener> {
    if (!('nodePort' in front.at)) throw new Error('not a NodePort')
    const at = { host: front.family === 4 ? '127.0.0.1' : '::1', port: front.at.nodePort }
    const balance = new Balance()
    if (front.protocol === 'TCP') {
      const listening = await this.#driver.listen(at, () => new Forwarded(this.#driver, balance, this.#counts))
      return { balance, to: [], sweep: (now) => balance.sweep(now), close: () => listening.drain() }
    }
    if (front.protocol === 'SCTP') throw new Error('this process has no SCTP sockets')
    const forwarder = new DatagramForwarder(this.#driver, balance, this.#counts, quiet)
    forwarder.bound = await this.#driver.bind(at, (batch) => forwarder.received(batch))
    return { balance, to: [], sweep: (now) => forwarder.sweep(now), close: () => forwarder.close() }
  }
}

/** Where a process of this node is sent. */
function endpointsOf(front: Front): readonly Endpoint[] {
  const route = front.routes.find((r) => r.from === 'this node') ?? front.routes.find((r) => r.from === 'anyone')
  return route?.outcome.kind === 'forward' ? route.outcome.to : []
}
