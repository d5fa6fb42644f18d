import { lookup } from 'node:dns/promises'
import { aborted } from '../lib/lifecycle.ts'
import type { Names } from './upstreams.ts'

/** Milliseconds after which a name is asked again: what Node tells of an address has no lifetime. */
const again = 15_000
/** Names that nobody asked for so long are forgotten. */
const forgetAfter = 600_000

/** Addresses of the names that ExternalName Services lead to; `changed` is called whenever one says something else. */
export class LookedUp implements Names {
  readonly #known = new Map<string, { addresses: readonly string[] | undefined; asked: number }>()
  readonly #changed: () => void
  /** Rises with every change. */
  changes = 0

  constructor(changed: () => void, signal: AbortSignal) {
    this.#changed = changed
    const timer = setInterval(() => void this.#refresh(), again).unref()
    void aborted(signal).then(() => clearInterval(timer))
  }

  addressesOf(name: string): readonly string[] | undefined {
    const known = this.#known.get(name)
    if (known === undefined) {
      this.#known.set(name, { addresses: undefined, asked: performance.now() })
      void this.#ask(name)
      return undefined
    }
    known.asked = performance.now()
    return known.addresses
  }

  async #refresh(): Promise<void> {
    for (const [name, { asked }] of this.#known) if (performance.now() - asked > forgetAfter && this.#known.size > 1000) this.#known.delete(name)
    await Promise.all([...this.#known.keys()].map((name) => this.#ask(name)))
  }

  async #ask(name: string): Promise<void> {
    let addresses: readonly string[]
    try {
      addresses = (await lookup(name, { all: true })).map((a) => a.address).sort()
    } catch {
      // The last answer is better than none.
      return
    }
    const known = this.#known.get(name)
    if (known === undefined || known.addresses?.join() === addresses.join()) return
    known.addresses = addresses
    this.changes++
    this.#changed()
  }
}
