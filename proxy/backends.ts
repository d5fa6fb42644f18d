import type { Log } from '../lib/log.ts'
import type { Kernel } from '../linux/kernel.ts'
import type { Backend } from './backend.ts'
import type { ProxyOptions } from './options.ts'

/** What a mode is built from. */
export interface BackendTools {
  readonly kernel: Kernel
  readonly log: Log
  readonly options: ProxyOptions
  /** The same kernel by the variant of iptables that is not in use: only to clean up after it. */
  readonly otherIptables?: () => Promise<Kernel>
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
    name: 'nftables',
    summary: 'two maps and one chain per number of endpoints, written by netlink',
    load: async (tools) => (await import('./nftables/backend.ts')).create(tools),
  },
  {
    name: 'iptables',
    summary: 'a tree of iptables chains, legacy or nft variant, whichever the machine uses',
    load: async ({ kernel, log, options }) => new (await import('./iptables/backend.ts')).IptablesBackend({ kernel, log, render: { liberal: options.tcpBeLiberal } }),
  },
  {
    name: 'ipvs',
    summary: 'virtual servers of the kernel’s load balancer, for its schedulers',
    load: async (tools) => (await import('./ipvs/backend.ts')).create(tools),
  },
  {
    name: 'userspace',
    summary: 'a process that takes connections and tries another endpoint when one refuses',
    load: async (tools) => (await import('./userspace/backend.ts')).create(tools),
  },
]

/** Backends that may have left something: those of other modes than `keep`, and iptables by its other variant. */
export async function* others(tools: BackendTools, keep?: string): AsyncGenerator<{ readonly name: string; load(): Promise<Backend> }> {
  // The rules in front of IPVS are the table of the mode nftables: it was rewritten, not left behind.
  for (const mode of modes) if (mode.name !== keep && !(mode.name === 'nftables' && keep === 'ipvs')) yield { name: mode.name, load: () => mode.load(tools) }
  const iptables = modeNamed('iptables')
  const kernel = await tools.otherIptables?.().catch(() => undefined)
  if (iptables !== undefined && kernel !== undefined) yield { name: 'iptables, the other variant', load: () => iptables.load({ ...tools, kernel }) }
}

/** The mode called `name`. */
export function modeNamed(name: string): Mode | undefined {
  return modes.find((m) => m.name === name)
}
