import { availableParallelism } from 'node:os'
import { writeFile } from 'node:fs/promises'
import { explainError, type Log } from '../lib/log.ts'
import type { Kernel } from '../linux/kernel.ts'
import type { ProxyOptions } from './options.ts'

/** One switch of the kernel: what it should be, and whether to say so when it cannot. */
export interface Switch {
  readonly name: string
  readonly value: string
  readonly needed: boolean
  /** Never made smaller than it is. */
  readonly atLeast?: boolean
}

/** The switches for these options. `route_localnet` is never among them: with it, hosts of the same network reach loopback (CVE-2020-8558). */
export function switches({ conntrack: c, tcpBeLiberal, strictArp, mode }: ProxyOptions, cores: number): readonly Switch[] {
  const seconds = (ms: number): string => String(Math.round(ms / 1000))
  const timeout = (name: string, ms: number): readonly Switch[] => (ms > 0 ? [{ name: `net.netfilter.nf_conntrack_${name}`, value: seconds(ms), needed: false }] : [])
  const max = c.maxPerCore > 0 ? Math.max(c.maxPerCore * cores, c.min) : 0
  return [
    // Without it nothing passes from an interface to another. IPv6 is left to whoever set the node up: turning it on turns router advertisements off.
    { name: 'net.ipv4.ip_forward', value: '1', needed: true },
    ...(max > 0 ? [{ name: 'net.netfilter.nf_conntrack_max', value: String(max), needed: false, atLeast: true }] : []),
    ...timeout('tcp_timeout_established', c.tcpEstablished),
    ...timeout('tcp_timeout_close_wait', c.tcpCloseWait),
    ...timeout('udp_timeout', c.udp),
    ...timeout('udp_timeout_stream', c.udpStream),
    ...(tcpBeLiberal ? [{ name: 'net.netfilter.nf_conntrack_tcp_be_liberal', value: '1', needed: true }] : []),
    ...(mode === 'ipvs' && strictArp
      ? [
          { name: 'net.ipv4.conf.all.arp_ignore', value: '1', needed: true },
          { name: 'net.ipv4.conf.all.arp_announce', value: '2', needed: true },
        ]
      : []),
  ]
}

/** Sets them; what cannot be set is told where it matters, and does not keep the rest. */
export async function setSwitches(options: ProxyOptions, kernel: Kernel, log: Log): Promise<void> {
  for (const { name, value, needed, atLeast } of switches(options, availableParallelism())) {
    try {
      const now = await kernel.sysctl.get(name)
      if (now !== value && !(atLeast === true && Number(now) >= Number(value))) await kernel.sysctl.set(name, value)
    } catch (error) {
      // In a network namespace some belong to the machine, and before the first rule connection tracking may not be there at all.
      if (needed) log.warn('could not set a switch of the kernel', { sysctl: name, value, error: explainError(error) })
      else log.debug('a switch of the kernel is not ours to set', { sysctl: name, error: explainError(error) })
    }
  }
  if (options.oomScoreAdj !== undefined) {
    await writeFile('/proc/self/oom_score_adj', String(options.oomScoreAdj)).catch((error: unknown) => log.warn('could not set --oom-score-adj', { error: explainError(error) }))
  }
}
