import type { Metrics } from '../metrics.ts'
import type { Flag } from '../options.ts'
import { explainError } from '../log.ts'
import { openNode } from './node/driver.ts'
import type { Driver } from './seam.ts'

export type Wanted = 'auto' | 'epoll' | 'node'

/** The flag every program with sockets has. */
export const socketsFlag = {
  type: 'string',
  oneOf: ['auto', 'epoll', 'node'],
  default: 'auto',
  help: 'what carries the bytes: epoll (Linux, by FFI), node (node:net), or auto: epoll if its self-test passes',
} as const satisfies Flag

/** The module of the epoll driver, `linux/sockets/driver.ts`; a program's main names it, since lib knows no kernel. */
export interface EpollModule {
  /** A driver that passed its self-test, or why there is none. */
  openEpoll(): Promise<Driver | string>
}

/** A driver and why it is this one: `reason` belongs in the ready line. */
export interface Chosen {
  readonly driver: Driver
  readonly reason: string
}

/**
 * The driver that `wanted` names. `auto` takes epoll when it can be loaded and its self-test passes; `epoll` throws when it does not.
 * Called as `await chooseDriver(values.sockets, () => import('../linux/sockets/driver.ts'))`.
 */
export async function chooseDriver(wanted: string, load: () => Promise<EpollModule>): Promise<Chosen> {
  if (wanted === 'node') return { driver: openNode(), reason: 'asked for' }
  if (wanted !== 'auto' && wanted !== 'epoll') throw new Error(`unknown driver "${wanted}": expected auto, epoll or node`)
  let opened: Driver | string
  try {
    opened = await (await load()).openEpoll()
  } catch (error) {
    opened = explainError(error)
  }
  if (typeof opened !== 'string') return { driver: opened, reason: wanted === 'epoll' ? 'asked for' : 'self-test passed' }
  if (wanted === 'epoll') throw new Error(`the epoll driver does not work here: ${opened}`)
  return { driver: openNode(), reason: `no epoll: ${opened}` }
}

/** Puts the choice, its reason, what does TLS and why, and what the driver counts into /metrics. */
export function socketsMetrics(metrics: Metrics, { driver, reason }: Chosen): void {
  metrics.gauge('switchyard_sockets_info', 'Always 1: what carries the bytes and what secures them, and why.').set(1, { driver: driver.name, reason, tls: driver.tlsBy ?? '' })
  if (driver.counts === undefined) return
  const now = metrics.gauge('switchyard_sockets', 'What the driver of sockets has at this moment, or has counted since the start.')
  metrics.onScrape(() => {
    for (const [what, n] of Object.entries(driver.counts!())) now.set(n, { what })
  })
}
