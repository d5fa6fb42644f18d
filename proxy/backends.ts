import type { Log } from '../lib/log.ts'
import type { Kernel } from '../linux/kernel.ts'
import type { Backend } from './backend.ts'
import type { ProxyOptions } from './options.ts'

/** What a mode is built from. */
export interface BackendTools {
  readonly kernel: Kernel
  readonly log: Log
  readonly options: ProxyOptions
}

/** A way to forward, by the name a user types. Its code is loaded only when it is asked for. */
export interface Mode {
  readonly name: string
  readonly summary: string
  load(tools: BackendTools): Promise<Backend>
}

/** All modes. A new one is a folder and a line here. */
export const modes: readonly Mode[] = [
  {
    name: 'iptables',
    summary: 'a tree of iptables chains, legacy or nft variant, whichever the machine uses',
    load: async ({ kernel, log, options }) => new (await import('./iptables/backend.ts')).IptablesBackend({ kernel, log, render: { liberal: options.tcpBeLiberal } }),
  },
]

/** The mode called `name`. */
export function modeNamed(name: string): Mode | undefined {
  return modes.find((m) => m.name === name)
}
