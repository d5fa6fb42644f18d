import type { Ip } from '../../lib/ip.ts'
import { explainError, type Log } from '../../lib/log.ts'
import type { Kernel } from '../../linux/kernel.ts'
import { addresses as addressesOf, changeAddresses, ensureLink, links, removeLink } from '../../linux/netlink/route.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import { removeRules, renderRules, table } from './render.ts'

/** The device that holds the addresses. */
export const device = 'sy-dns'
/** Milliseconds between two looks whether all is as it should be. */
const every = 60_000

export interface NodeCacheOptions {
  readonly addresses: readonly Ip[]
  readonly port: number
  readonly log: Log
  readonly kernel?: Kernel
}

/** A node's own DNS address, and the rules by which questions to it meet no connection tracking: no entry to run out of, no race of A and AAAA. */
export class NodeCache {
  readonly #options: NodeCacheOptions
  readonly #kernel: Kernel
  #timer: NodeJS.Timeout | undefined

  constructor(options: NodeCacheOptions) {
    this.#options = options
    this.#kernel = options.kernel ?? realKernel({ openNetlink })
  }

  /** Makes device, addresses and rules, and looks after them from now on. Rejects when this node cannot. */
  async open(): Promise<void> {
    await this.apply()
    this.#timer = setInterval(() => void this.check(), every).unref()
  }

  async apply(): Promise<void> {
    const { addresses, port } = this.#options
    const route = this.#kernel.netlink('route')
    // Kernels without dummy devices have bridges: one without ports does as well.
    const index = await ensureLink(route, device, 'dummy').catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'EOPNOTSUPP') throw new Error(`cannot make the device ${device} for --node-cache`, { cause: error })
      return ensureLink(route, device, 'bridge')
    })
    const have = (await addressesOf(route)).filter((a) => a.index === index && a.bits === (a.address.includes(':') ? 128 : 32)).map((a) => a.address)
    await changeAddresses(route, index, { add: addresses, remove: have.filter((a) => !addresses.includes(a)) })
    await this.#kernel.nft.run(renderRules(addresses, port), AbortSignal.timeout(10_000))
  }

  /** Puts right what somebody changed. */
  async check(): Promise<void> {
    const { log } = this.#options
    try {
      const wrong = await this.#wrong()
      if (wrong === undefined) return
      log.warn('node cache: put right', { wrong })
      await this.apply()
    } catch (error) {
      log.error('node cache: could not be put right', { error: explainError(error) })
    }
  }

  async #wrong(): Promise<string | undefined> {
    const route = this.#kernel.netlink('route')
    const link = (await links(route)).find((l) => l.name === device)
    if (link?.up !== true) return `device ${device} is ${link === undefined ? 'gone' : 'down'}`
    const have = new Set((await addressesOf(route)).filter((a) => a.index === link.index).map((a) => a.address))
    const gone = this.#options.addresses.filter((a) => !have.has(a))
    if (gone.length > 0) return `${gone.join(', ')} is gone from ${device}`
    const rules = await this.#kernel.nft.list(`inet ${table}`).catch(() => [])
    const wanted = renderRules(this.#options.addresses, this.#options.port).split('notrack').length - 1
    if (rules.filter((o) => 'rule' in o).length !== wanted) return `rules of table ${table} are not as they were`
    return undefined
  }

  /** Removes it all: Pods ask the cluster's DNS again. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#kernel.nft.run(removeRules, AbortSignal.timeout(5000))
    await removeLink(this.#kernel.netlink('route'), device)
  }
}
