import { networkInterfaces } from 'node:os'
import { suggest } from '../lib/options.ts'
import type { Handler } from './answer.ts'
import { CorefileError, isAddress, type Line, type ServerBlock } from './corefile.ts'
import { plugins } from './handlers/list.ts'
import type { BlockOptions, Environment } from './handlers/plugin.ts'
import type { Site } from './server.ts'
import { printName } from './wire/name.ts'

/** An address that is listened on, and what is served there. */
export interface ListenPlan {
  readonly scheme: 'dns' | 'tls'
  readonly host: string
  readonly port: number
  readonly sites: readonly Site[]
  readonly options: BlockOptions
}

/** A configuration ready to serve. */
export interface Configuration {
  readonly listeners: readonly ListenPlan[]
  /** Of all blocks together: where one says something, it holds. */
  readonly options: BlockOptions
  /** Ends what its handlers keep. */
  close(): void
}

/** What a cluster of kubeadm runs, with the address cache of our own zone left out of the way. */
export const defaultCorefile = `.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    prometheus :9153
    forward . /etc/resolv.conf
    cache 30
    loop
    reload
    loadbalance
}
`

/** Makes the handlers of all server blocks. `hosts`: where blocks without `bind` are served. Throws `CorefileError`; then nothing of it stays. */
export function configure(blocks: readonly ServerBlock[], env: Environment, hosts: readonly string[]): Configuration {
  const closers: (() => void)[] = []
  const close = (): void => {
    for (const f of closers.splice(0).reverse()) f()
  }
  const plans = new Map<string, { scheme: 'dns' | 'tls'; host: string; port: number; sites: Site[]; options: BlockOptions }>()
  const all: BlockOptions = {}
  try {
    for (const block of blocks) {
      const options: BlockOptions = {}
      const zones = block.keys.map((k) => k.zone)
      const first = block.keys[0]!
      const server = `${first.scheme}://:${first.port}`
      const known = new Set(plugins.map((p) => p.name))
      const byName = Map.groupBy(block.lines, (line: Line) => line.name)
      for (const line of block.lines) if (!known.has(line.name)) throw new CorefileError(line, `${line.name}: no such directive${suggest(line.name, [...known], '')}`)
      const handlers: Handler[] = []
      for (const plugin of plugins) {
        const lines = byName.get(plugin.name)
        if (lines !== undefined) handlers.push(...plugin.build(lines, { zones, server, options, env, closing: (f) => void closers.push(f) }))
      }
      Object.assign(all, options)
      for (const key of block.keys) {
        if (key.scheme === 'tls' && options.tls === undefined) throw new CorefileError(block, `${key.text}: tls:// needs a tls directive with certificate and key`)
        for (const host of options.bind?.flatMap((word) => bindHosts(word, block)) ?? hosts) {
          const where = `${key.scheme} ${host} ${key.port}`
          let plan = plans.get(where)
          if (plan === undefined) plans.set(where, (plan = { scheme: key.scheme, host, port: key.port, sites: [], options }))
          // Of several views the first that fits is taken; behind one that takes all, nobody is reached.
          if (plan.sites.some((s) => s.zone === key.zone && s.view === undefined)) throw new CorefileError(block, `${key.text} is served by another block already`)
          plan.sites.push({ zone: key.zone, text: printName(key.zone), handlers, bufsize: options.bufsize ?? 1232, ...(options.view === undefined ? {} : { view: options.view }) })
        }
      }
    }
  } catch (error) {
    close()
    throw error
  }
  return { listeners: [...plans.values()], options: all, close }
}

/** An address, or those of an interface. */
function bindHosts(word: string, block: ServerBlock): string[] {
  if (isAddress(word)) return [word]
  const list = networkInterfaces()[word]
  if (list === undefined) throw new CorefileError(block, `bind: ${word} is neither an address nor an interface of this machine`)
  return list.filter((a) => !a.address.startsWith('fe80:')).map((a) => a.address)
}
