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
  readonly ipvsTimeouts: { readonly tcp: number; readonly tcpFin: number; readonly udp: number }
  readonly conntrack: ConntrackOptions
  readonly oomScoreAdj: number | undefined
}

/** Limits of connection tracking; 0 leaves the kernel's. Times in milliseconds. */
export interface ConntrackOptions {
  readonly maxPerCore: number
  readonly min: number
  readonly tcpEstablished: number
  readonly tcpCloseWait: number
  readonly udp: number
  readonly udpStream: number
}

// kube-proxy's flags for what there is nothing of here: taken, so that its command line works, and named when given.
const idle = [
  'bind-address',
  'config-sync-period',
  'feature-gates',
  'kube-api-burst',
  'kube-api-content-type',
  'kube-api-qps',
  'log-flush-frequency',
  'logging-format',
  'master',
  'proxy-port-range',
  'show-hidden-metrics-for-version',
  'v',
  'vmodule',
] as const
const idleSwitches = ['bind-address-hard-fail', 'profiling'] as const
/** Flags that are taken and change nothing. */
export const idleFlags: ReadonlySet<string> = new Set([...idle, ...idleSwitches])

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
  config: { type: 'string', value: 'FILE', help: 'a KubeProxyConfiguration; flags given beside it win' },
  'conntrack-max-per-core': { type: 'number', default: 32_768, help: 'connections tracked a core; 0 leaves the limit as it is' },
  'conntrack-min': { type: 'number', default: 131_072, help: 'connections tracked at least, whatever the cores' },
  'conntrack-tcp-timeout-established': { type: 'duration', default: '24h', help: 'how long a quiet TCP connection is remembered; 0 leaves it as it is' },
  'conntrack-tcp-timeout-close-wait': { type: 'duration', default: '1h', help: 'how long one in CLOSE_WAIT is remembered; 0 leaves it as it is' },
  'conntrack-udp-timeout': { type: 'duration', default: '0', help: 'how long an unanswered datagram is remembered; 0 leaves it as it is' },
  'conntrack-udp-timeout-stream': { type: 'duration', default: '0', help: 'how long an exchange of datagrams is remembered; 0 leaves it as it is' },
  'ipvs-tcp-timeout': { type: 'duration', default: '0', help: 'how long IPVS keeps a quiet TCP connection; 0 leaves it as it is' },
  'ipvs-tcpfin-timeout': { type: 'duration', default: '0', help: 'how long IPVS keeps a TCP connection after FIN; 0 leaves it as it is' },
  'ipvs-udp-timeout': { type: 'duration', default: '0', help: 'how long IPVS keeps an exchange of datagrams; 0 leaves it as it is' },
  'oom-score-adj': { type: 'number', help: 'how soon the kernel ends this process when memory is short, -1000 to 1000' },
  'write-config-to': { type: 'string', value: 'FILE', help: 'write all of this as a KubeProxyConfiguration, and end' },
  cleanup: { type: 'boolean', help: 'remove everything any mode ever made, and end' },
  'cleanup-kube-proxy': { type: 'boolean', help: 'remove what kube-proxy left, once our rules forward (with --cleanup: at once)' },
  'init-only': { type: 'boolean', help: 'set the kernel’s switches, which needs privileges, and end' },
  // kube-proxy's words for the same things.
  'proxy-mode': { type: 'string', oneOf: modeNames, hidden: true, help: 'as --mode' },
  'hostname-override': { type: 'string', hidden: true, help: 'as --node' },
  'healthz-bind-address': { type: 'string', hidden: true, help: 'as the first of --status' },
  'metrics-bind-address': { type: 'string', hidden: true, help: 'as the second of --status' },
  'iptables-masquerade-bit': { type: 'number', hidden: true, help: 'as --masquerade-bit' },
  'iptables-localhost-nodeports': { type: 'boolean', hidden: true, help: 'as --localhost-nodeports' },
  'iptables-min-sync-period': { type: 'duration', hidden: true, help: 'as --min-sync-period' },
  'iptables-sync-period': { type: 'duration', hidden: true, help: 'as --sync-period' },
  'ipvs-min-sync-period': { type: 'duration', hidden: true, help: 'as --min-sync-period' },
  'ipvs-sync-period': { type: 'duration', hidden: true, help: 'as --sync-period' },
  ...Object.fromEntries(idle.map((name) => [name, { type: 'string', hidden: true, help: 'means nothing here' }] as const)),
  ...Object.fromEntries(idleSwitches.map((name) => [name, { type: 'boolean', hidden: true, help: 'means nothing here' }] as const)),
} as const satisfies Flags

/** Flag values as options; throws `UsageError` for what makes no sense. */
export function proxyOptions(v: Values<typeof flags>, hostname: string): ProxyOptions {
  const bit = v['iptables-masquerade-bit'] ?? v['masquerade-bit']
  if (!Number.isInteger(bit) || bit < 0 || bit > 31) throw new UsageError(`flag --masquerade-bit: expected a bit from 0 to 31, got ${bit}`)
  const addresses = v['nodeport-addresses']
  for (const word of addresses)
    if (!['all', 'primary', 'localhost'].includes(word) && parseCidr(word) === undefined)
      throw new UsageError(`flag --nodeport-addresses: expected all, primary, localhost or a network such as 10.0.0.0/8, got "${word}"`)
  const others = addresses.filter((a) => a !== 'localhost')
  const externalRanges = v['external-ip-ranges']
  const detectLocal = detector(v)
  const nodeName = v.node ?? v['hostname-override'] ?? hostname
  const mode = (v['proxy-mode'] ?? v.mode) as ModeName
  const period = (what: 'min-sync-period' | 'sync-period'): number => (mode === 'ipvs' ? v[`ipvs-${what}`] : mode === 'iptables' ? v[`iptables-${what}`] : undefined) ?? v[what]
  return {
    kubeconfig: v.kubeconfig,
    node: nodeName,
    mode,
    compile: {
      node: nodeName,
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
    localhostNodePorts: v['localhost-nodeports'] || v['iptables-localhost-nodeports'] || addresses.includes('localhost'),
    sockets: v.sockets as ProxyOptions['sockets'],
    iptablesVariant: v['iptables-variant'] === 'nft' ? 'nf_tables' : (v['iptables-variant'] as 'auto' | 'legacy'),
    status: statusOf(v),
    minSync: period('min-sync-period'),
    // kube-proxy's files say 0 where they mean the default.
    sync: period('sync-period') || 30_000,
    tcpBeLiberal: v['conntrack-tcp-be-liberal'],
    strictArp: v['ipvs-strict-arp'],
    excludeCidrs: cidrs(v['ipvs-exclude-cidrs'], 'ipvs-exclude-cidrs'),
    ipvsTimeouts: { tcp: v['ipvs-tcp-timeout'], tcpFin: v['ipvs-tcpfin-timeout'], udp: v['ipvs-udp-timeout'] },
    conntrack: {
      maxPerCore: v['conntrack-max-per-core'],
      min: v['conntrack-min'],
      tcpEstablished: v['conntrack-tcp-timeout-established'],
      tcpCloseWait: v['conntrack-tcp-timeout-close-wait'],
      udp: v['conntrack-udp-timeout'],
      udpStream: v['conntrack-udp-timeout-stream'],
    },
    oomScoreAdj: v['oom-score-adj'],
  }
}

function statusOf(v: Values<typeof flags>): ProxyOptions['status'] {
  const given = v.status.map((s) => hostPort(s, 'status'))
  const named = (flag: 'healthz-bind-address' | 'metrics-bind-address', port: number): { host: string; port: number } | undefined => {
    const text = v[flag]
    // kube-proxy takes an address alone, and the empty string for no listener.
    return text === undefined ? undefined : /:\d+$/.test(text) && !/^[^[]*:.*:/.test(text) ? hostPort(text, flag) : { host: text.replaceAll(/[[\]]/g, ''), port }
  }
  const health = given[0] ?? named('healthz-bind-address', 10_256) ?? { host: '', port: 10_256 }
  const metrics = given[1] ?? (given.length > 0 ? undefined : (named('metrics-bind-address', 10_249) ?? { host: '127.0.0.1', port: 10_249 }))
  return [health, ...(metrics === undefined ? [] : [metrics]), ...given.slice(2)]
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
