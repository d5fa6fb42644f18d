import { test } from 'tap'
import { parse } from '../lib/options.ts'
import { configurationText, parseConfig } from './config.ts'
import { withoutKubeProxy } from './iptables/kubeproxy.ts'
import { flags, proxyOptions } from './options.ts'
import { switches } from './sysctls.ts'

const header = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n'
const options = (yaml: string): ReturnType<typeof proxyOptions> => {
  const { flags: list } = parseConfig(header + yaml, 'config.conf')
  return proxyOptions(
    parse(
      flags,
      list.map(([n, v]) => `--${n}=${v}`),
    ).values,
    'host',
  )
}

test('a file as kubeadm writes it', async (t) => {
  const yaml = `
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:244::/48
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpTimeout: 0s
  udpStreamTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  strictARP: false
  scheduler: rr
logging:
  flushFrequency: 0
  verbosity: 0
metricsBindAddress: "0.0.0.0:10249"
mode: ""
nftables:
  masqueradeAll: true
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
`
  t.same(parseConfig(header + yaml, 'f').warnings, [])
  const o = options(yaml)
  t.match(o, {
    kubeconfig: '/var/lib/kube-proxy/kubeconfig.conf',
    mode: 'iptables',
    node: 'host',
    localhostNodePorts: false,
    compile: { clusterCidrs: ['10.244.0.0/16', 'fd00:244::/48'], masqueradeAll: false },
  })
  t.same(o.status, [
    { host: '', port: 10_256 },
    { host: '0.0.0.0', port: 10_249 },
  ])
})

test('each mode reads its own part', async (t) => {
  const yaml =
    'iptables: { masqueradeBit: 3, syncPeriod: 5s, localhostNodePorts: true }\nnftables: { masqueradeBit: 4, syncPeriod: 6s }\nipvs: { scheduler: sh, strictARP: true, excludeCIDRs: [10.0.0.0/8], minSyncPeriod: 7s }\n'
  t.match(options(`mode: iptables\n${yaml}`), { mode: 'iptables', sync: 5000, localhostNodePorts: true, compile: { masqueradeBit: 3 } })
  t.match(options(`mode: nftables\n${yaml}`), { mode: 'nftables', sync: 6000, localhostNodePorts: false, compile: { masqueradeBit: 4 } })
  t.match(options(`mode: ipvs\n${yaml}`), { mode: 'ipvs', minSync: 7000, strictArp: true, excludeCidrs: ['10.0.0.0/8'], compile: { scheduler: 'sh' } })
})

for (const [what, yaml, why] of [
  ['another kind', 'apiVersion: v1\nkind: ConfigMap\n', /f: kind: expected KubeProxyConfiguration, got "ConfigMap"/],
  ['another version', 'apiVersion: kubeproxy.config.k8s.io/v2\nkind: KubeProxyConfiguration\n', /f: apiVersion: expected/],
  ['nothing', '', /expected a KubeProxyConfiguration, got nothing/],
  ['bad YAML', `${header}mode: [`, /^f: /],
  ['a map for a value', `${header}mode: { a: 1 }\n`, /f: mode: expected a value/],
] as const) {
  test(`a configuration that is ${what} is named`, async (t) => {
    t.throws(() => parseConfig(yaml, 'f'), { message: why })
  })
}

test('unknown fields are named and ignored', async (t) => {
  t.same(parseConfig(`${header}mode: iptables\nmoode: ipvs\niptables: { syncPeriode: 1s }\n`, 'f').warnings, [
    'f: moode is not a field of KubeProxyConfiguration; it is ignored',
    'f: iptables.syncPeriode is not a field of KubeProxyConfiguration; it is ignored',
  ])
})

test('the kernel’s switches', async (t) => {
  const s = (yaml: string): Record<string, string> => Object.fromEntries(switches(options(yaml), 2).map((x) => [x.name.replace('net.netfilter.nf_conntrack_', ''), x.value]))
  t.same(s('mode: iptables'), { 'net.ipv4.ip_forward': '1', max: '131072', tcp_timeout_established: '86400', tcp_timeout_close_wait: '3600' })
  t.match(s('conntrack: { maxPerCore: 100000, udpTimeout: 30s, tcpBeLiberal: true }'), { max: '200000', udp_timeout: '30', tcp_be_liberal: '1' })
  t.match(s('mode: ipvs\nipvs: { strictARP: true }'), { 'net.ipv4.conf.all.arp_ignore': '1', 'net.ipv4.conf.all.arp_announce': '2' })
  t.notOk(
    Object.keys(s('mode: iptables\niptables: { localhostNodePorts: true }')).some((n) => n.includes('route_localnet')),
    'route_localnet never',
  )
})

test('kube-proxy’s rules go, the kubelet’s and others stay', async (t) => {
  const saved =
    '*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-X - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\n-A PREROUTING -j DOCKER\n-A KUBE-SERVICES -j KUBE-SVC-X\nCOMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\nCOMMIT\n'
  t.equal(
    withoutKubeProxy(saved),
    '*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-X - [0:0]\n-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES\n-X KUBE-SERVICES\n-X KUBE-SVC-X\nCOMMIT\n',
  )
  t.equal(withoutKubeProxy('*nat\nCOMMIT\n'), '')
})

test('what is written as a file says the same when it is read', async (t) => {
  const given = [
    '--node',
    'n1',
    '--mode',
    'ipvs',
    '--cluster-cidr',
    '10.244.0.0/16,fd00::/48',
    '--ipvs-scheduler',
    'wlc',
    '--ipvs-strict-arp',
    '--sync-period',
    '45s',
    '--min-sync-period',
    '250ms',
    '--nodeport-addresses',
    '192.168.0.0/16',
    '--conntrack-tcp-timeout-established',
    '3h',
    '--masquerade-bit',
    '9',
  ]
  const values = parse(flags, given).values
  const text = configurationText(values, 'host')
  t.match(text, /^mode: ipvs$/m)
  t.match(text, /tcpEstablishedTimeout: 3h0m0s/)
  const { flags: list, warnings } = parseConfig(text, 'written.conf')
  t.same(warnings, [])
  const again = proxyOptions(
    parse(
      flags,
      list.map(([n, v]) => `--${n}=${v}`),
    ).values,
    'host',
  )
  const before = proxyOptions(values, 'host')
  t.same({ ...again, status: 0 }, { ...before, status: 0 })
  t.same(
    again.status.map((s) => s.port),
    [10_256, 10_249],
  )
})
