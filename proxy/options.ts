import { hostPort, UsageError, type Flags, type Values } from '../lib/options.ts'
import { parseCidr, type Cidr } from '../lib/ip.ts'
import type { CompileOptions } from './compile.ts'

export const modeNames = ['nftables', 'iptables', 'ipvs', 'userspace'] as const
export type ModeName = (typeof modeNames)[number]

/** Everything a proxy is told. Times in milliseconds. */
export interface ProxyOptions {
  readonly kubeconfig: string | undefined
  readonly node: string
  readonly mode: ModeName
  readonly compile: Omit<CompileOptions, 'localAddresses'>
  readonly localhostNodePorts: boolean
  readonly sockets: 'auto' | 'epoll' | 'node'
  readonly iptablesVariant: 'auto' | 'legacy' | 'nf_tables'
  readonly status: readonly { readonly host: string; readonly port: number }[]
  /** Least time between two writes, and the time after which the kernel is looked at even if nothing changed. */
  readonly minSync: number
  readonly sync: number
  readonly tcpBeLiberal: boolean
  readonly strictArp: boolean
  readonly excludeCidrs: readonly Cidr[]
}

/** The flags of `switchyard proxy`. */
export const flags = {
  kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server; without it, the Pod’s own account' },
  node: { type: 'string', value: 'NAME', help: 'the Node this runs on (default: the host’s name)' },
  mode: { type: 'string', oneOf: modeNames, default: 'nftables', help: 'how connections are forwarded' },
  'cluster-cidr': { type: 'list', value: 'A,B', help: 'ranges of all pods; others are masqueraded on their way to ClusterIPs' },
  'service-cidr': { type: 'list', value: 'A,B', help: 'ranges of ClusterIPs, where the API has no ServiceCIDR objects' },
  'detect-local-mode': { type: 'string', oneOf: ['ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'], default: 'ClusterCIDR', help: 'how pods are told from others' },
  'pod-bridge-interface': { type: 'string', value: 'NAME', help: 'the bridge of --detect-local-mode BridgeInterface' },
  'pod-interface-name-prefix': { type: 'string', value: 'PREFIX', help: 'the beginning of names of --detect-local-mode InterfaceNamePrefix' },
  'nodeport-addresses': { type: 'list', value: 'A,B', help: 'addresses NodePorts answer on: all, primary, localhost or networks (default: all but loopback)' },
  'localhost-nodeports': { type: 'boolean', help: 'NodePorts answer on 127.0.0.1 and ::1 too' },
  'external-ip-ranges': { type: 'list', value: 'A,B', help: 'external IPs are served inside these; "any" for all (default: none)' },
  'service-proxy-name': { type: 'string', value: 'NAME', help: 'serve the Services that name this proxy, and no others' },
  'masquerade-all': { type: 'boolean', help: 'masquerade every connection to a Service' },
  'masquerade-bit': { type: 'number', default: 14, help: 'bit of the packet mark for packets to be masqueraded' },
  'ipvs-scheduler': { type: 'string', value: 'NAME', help: 'scheduler of Services without an annotation' },
  'ipvs-strict-arp': { type: 'boolean', help: 'answer ARP only for addresses of the asked interface' },
  'ipvs-exclude-cidrs': { type: 'list', value: 'A,B', help: 'virtual servers inside these are not ours' },
  'conntrack-tcp-be-liberal': { type: 'boolean', help: 'let packets pass that connection tracking finds out of order' },
  'iptables-variant': { type: 'string', oneOf: ['auto', 'legacy', 'nft'], default: 'auto', help: 'which iptables' },
  sockets: { type: 'string', oneOf: ['auto', 'epoll', 'node'], default: 'auto', help: 'what carries bytes in the userspace mode' },
  status: { type: 'list', value: 'ADDR:PORT', help: 'health (all addresses, 10256), then metrics (127.0.0.1:10249)' },
  'min-sync-period': { type: 'duration', default: '200ms', help: 'least time between two writes; the first change after quiet is written at once' },
  'sync-period': { type: 'duration', default: '30s', help: 'how often the kernel is compared with what was written' },
  cleanup: { type: 'boolean', help: 'remove everything any mode ever made, and end' },
} as const satisfies Flags

/** Flag values as options; throws `UsageError` for what makes no sense. */
export function proxyOptions(v: Values<typeof flags>, hostname: string): ProxyOptions {
  const bit = v['masquerade-bit']
  if (!Number.isInteger(bit) || bit < 0 || bit > 31) throw new UsageError(`flag --masquerade-bit: expected a bit from 0 to 31, got ${bit}`)
  const addresses = v['nodeport-addresses']
  for (const word of addresses) if (!['all', 'primary', 'localhost'].includes(word) && parseCidr(word) === undefined) throw new UsageError(`flag --nodeport-addresses: expected all, primary, localhost or a network such as 10.0.0.0/8, got "${word}"`)
  const others = addresses.filter((a) => a !== 'localhost')
  const externalRanges = v['external-ip-ranges']
  const detectLocal = detector(v)
  const status = v.status.length > 0 ? v.status.map((s) => hostPort(s, 'status')) : [{ host: '', port: 10_256 }, { host: '127.0.0.1', port: 10_249 }]
  return {
    kubeconfig: v.kubeconfig,
    node: v.node ?? hostname,
    mode: v.mode as ModeName,
    compile: {
      node: v.node ?? hostname,
      clusterCidrs: cidrs(v['cluster-cidr'], 'cluster-cidr'),
      serviceCidrs: cidrs(v['service-cidr'], 'service-cidr'),
      ...(detectLocal === undefined ? {} : { detectLocal }),
      nodePortAddresses: addresses.includes('all') || others.length === 0 ? 'all' : others,
      externalIpRanges: externalRanges.includes('any') ? 'any' : cidrs(externalRanges, 'external-ip-ranges'),
      ...(v['service-proxy-name'] === undefined ? {} : { serviceProxyName: v['service-proxy-name'] }),
      masqueradeAll: v['masquerade-all'],
      masqueradeBit: bit,
      ...(v['ipvs-scheduler'] === undefined ? {} : { scheduler: v['ipvs-scheduler'] }),
    },
    localhostNodePorts: v['localhost-nodeports'] || addresses.includes('localhost'),
    sockets: v.sockets as ProxyOptions['sockets'],
    iptablesVariant: v['iptables-variant'] === 'nft' ? 'nf_tables' : (v['iptables-variant'] as 'auto' | 'legacy'),
    status,
    minSync: v['min-sync-period'],
    sync: v['sync-period'],
    tcpBeLiberal: v['conntrack-tcp-be-liberal'],
    strictArp: v['ipvs-strict-arp'],
    excludeCidrs: cidrs(v['ipvs-exclude-cidrs'], 'ipvs-exclude-cidrs'),
  }
}

function detector(v: Values<typeof flags>): CompileOptions['detectLocal'] {
  const mode = v['detect-local-mode']
  if (mode === 'ClusterCIDR' || mode === 'NodeCIDR') return { mode }
  const flag = mode === 'BridgeInterface' ? 'pod-bridge-interface' : 'pod-interface-name-prefix'
  const name = v[flag]
  if (name === undefined || name === '') throw new UsageError(`flag --detect-local-mode ${mode} needs --${flag}`)
  if (!/^[^\s/]{1,15}$/.test(name)) throw new UsageError(`flag --${flag}: "${name}" cannot be an interface’s name`)
  return { mode: mode as 'BridgeInterface' | 'InterfaceNamePrefix', name }
}

function cidrs(texts: readonly string[], flag: string): readonly Cidr[] {
  return texts.map((text) => {
    const cidr = parseCidr(text)
    if (cidr === undefined) throw new UsageError(`flag --${flag}: expected a network such as 10.0.0.0/8, got "${text}"`)
    return cidr
  })
}
