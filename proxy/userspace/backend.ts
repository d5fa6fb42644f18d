import { explainError, type Log } from '../../lib/log.ts'
import { chooseDriver } from '../../lib/sockets/choose.ts'
import type { Driver, Listening } from '../../lib/sockets/seam.ts'
import type { Ip, IpFamily } from '../../lib/ip.ts'
import type { Kernel } from '../../linux/kernel.ts'
import { changeAddresses, links } from '../../linux/netlink/route.ts'
import type { Backend } from '../backend.ts'
import type { Refused, ServiceTable } from '../table.ts'
import { Balance } from './balance.ts'
import { DatagramForwarder } from './datagrams.ts'
import { plan, type ListenerPlan } from './plan.ts'
import { createRules, listenAddress, Redirected } from './redirect.ts'
import { Forwarded, type Counts } from './streams.ts'

/** What this backend works with. */
export interface UserspaceOptions {
  readonly kernel: Kernel
  readonly log: Log
  readonly driver: Driver
  /** Milliseconds of quiet after which a datagram session ends. Default 60,000. */
  readonly udpIdle?: number
}

/** The backend with the driver that `options.sockets` names; the kernel it forwards for is the one this process runs on. */
export async function create({ kernel, log, options }: { readonly kernel: Kernel; readonly log: Log; readonly options: { readonly sockets: string } }): Promise<UserspaceBackend> {
  const { driver, reason } = await chooseDriver(options.sockets, () => import('../../linux/sockets/driver.ts'))
  return new UserspaceBackend({ kernel, log, driver }, reason)
}

interface Listener {
  plan: ListenerPlan
  readonly balance: Balance
  readonly port: number
  /** For datagrams. */
  readonly forwarder: DatagramForwarder | undefined
  close(): void
}

/**
 * Forwards by this very process: the kernel leads a front's packets to a socket of its own, and what comes in there is handed on to an endpoint.
 * Endpoints see this node as the sender. It dies with the process; what the kernel modes cannot do, try another endpoint when one refuses, it can.
 */
export class UserspaceBackend implements Backend {
  readonly name = 'userspace'
  /** For the line that says what is ready. */
  readonly details: { readonly sockets: string; readonly why: string }
  readonly counts: Record<'TCP' | 'UDP', Counts> = { TCP: { open: 0, refused: 0, retried: 0 }, UDP: { open: 0, refused: 0, retried: 0 } }
  readonly #kernel: Kernel
  readonly #driver: Driver
  readonly #idle: number
  readonly #listeners = new Map<string, Listener>()
  readonly #stop: () => void
  readonly #rules: Backend
  readonly #redirected = new Redirected()
  #tracked: ServiceTable | undefined
  readonly #addressed = new Set<IpFamily>()

  constructor({ kernel, log, driver, udpIdle }: UserspaceOptions, why = 'asked for') {
    this.#kernel = kernel
    this.#rules = createRules({ kernel, log })
    this.#driver = driver
    this.#idle = udpIdle ?? 60_000
    this.details = { sockets: driver.name, why }
    this.#stop = driver.every(Math.min(5000, Math.max(20, this.#idle / 4)), () => this.#sweep())
  }

  async probe(): Promise<string | undefined> {
    try {
      const netlink = this.#kernel.netlink('route')
      await links(netlink)
      netlink.close()
    } catch (error) {
      return explainError(error)
    }
    return this.#rules.probe()
  }

  async apply(desired: ServiceTable, signal: AbortSignal): Promise<{ readonly refused: readonly Refused[] }> {
    const { fronts, refused } = plan(desired)
    const failed: Refused[] = [...refused]
    // New sockets first, then the way to them; old ones go after nothing leads there any more.
    const wanted = new Set<string>()
    for (const [key, f] of fronts) {
      try {
        await this.#address(f.front.family)
        for (const l of f.listeners) {
          wanted.add(l.key)
          await this.#open(l)
        }
      } catch (error) {
        failed.push({ front: key, object: `Service ${f.front.port}`, reason: explainError(error) })
      }
    }
    const ports = new Map([...this.#listeners].map(([key, l]) => [key, l.port]))
    const redirected = this.#redirected.table(desired, fronts, ports)
    failed.push(...(await this.#rules.apply(redirected, signal)).refused)
    this.#tracked = redirected
    for (const [key, l] of this.#listeners) {
      if (wanted.has(key)) continue
      this.#listeners.delete(key)
      l.close()
    }
    return { refused: failed }
  }

  tracked(): ServiceTable | undefined {
    return this.#tracked
  }

  async check(): Promise<readonly string[]> {
    const netlink = this.#kernel.netlink('route')
    try {
      for (const family of this.#addressed) await changeAddresses(netlink, 1, { add: [listenAddress[family] as Ip] })
    } finally {
      netlink.close()
    }
    return this.#rules.check()
  }

  async close(): Promise<void> {
    this.#stop()
    for (const l of this.#listeners.values()) l.close()
    this.#listeners.clear()
    await this.#rules.close()
    await this.#driver.close()
  }

  async cleanup(): Promise<void> {
    await this.#rules.cleanup()
    await this.#ended()
    const netlink = this.#kernel.netlink('route')
    try {
      for (const family of [4, 6] as const) await changeAddresses(netlink, 1, { remove: [listenAddress[family] as Ip] }).catch(() => {})
    } finally {
      netlink.close()
    }
    this.#addressed.clear()
  }

  async #open(l: ListenerPlan): Promise<void> {
    const there = this.#listeners.get(l.key)
    if (there !== undefined) {
      if (there.plan !== l) {
        there.plan = l
        there.balance.set(l.to, l.affinity)
        there.forwarder?.endpointsChanged()
      }
      return
    }
    await this.#address(l.family)
    const balance = new Balance()
    balance.set(l.to, l.affinity)
    const at = { host: listenAddress[l.family], port: 0 }
    if (l.protocol === 'TCP') {
      const listening: Listening = await this.#driver.listen(at, () => new Forwarded(this.#driver, balance, this.counts.TCP))
      this.#listeners.set(l.key, { plan: l, balance, port: listening.port, forwarder: undefined, close: () => listening.drain() })
    } else {
      const forwarder = new DatagramForwarder(this.#driver, balance, this.counts.UDP, this.#idle)
      forwarder.bound = await this.#driver.bind(at, (batch) => forwarder.received(batch))
      this.#listeners.set(l.key, { plan: l, balance, port: forwarder.bound.address.port, forwarder, close: () => forwarder.close() })
    }
  }

  /** Gives the node the address that listeners have. */
  async #address(family: IpFamily): Promise<void> {
    if (this.#addressed.has(family)) return
    const netlink = this.#kernel.netlink('route')
    try {
      await changeAddresses(netlink, 1, { add: [listenAddress[family] as Ip] })
      this.#addressed.add(family)
    } finally {
      netlink.close()
    }
  }

  #sweep(): void {
    const now = this.#driver.now
    for (const l of this.#listeners.values()) {
      if (l.forwarder === undefined) l.balance.sweep(now)
      else l.forwarder.sweep(now)
    }
  }

  /** Waits a little for connections under way: without the address that they came to they would hang. */
  async #ended(): Promise<void> {
    const until = performance.now() + 2000
    if (this.#listeners.size > 0)
      do await new Promise((resolve) => setTimeout(resolve, 50))
      while (this.counts.TCP.open > 0 && performance.now() < until)
  }
}
