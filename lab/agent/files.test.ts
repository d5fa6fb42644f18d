import { test } from 'tap'
import { pod } from '../../kube/testing/builders.ts'
import type { PodSpec } from '../../kube/objects.ts'
import { etcFiles, hostnameOf, type NameSettings } from './files.ts'

const settings: NameSettings = {
  clusterDns: ['10.96.0.10'],
  clusterDomain: 'cluster.local',
  nodeResolvConf: 'domain old\nsearch corp.example\nnameserver 192.0.2.1\noptions edns0\n',
  nodeHosts: '127.0.0.1 localhost\n',
  nodeName: 'node1',
}

const cluster = 'nameserver 10.96.0.10\nsearch demo.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n'
const own = 'nameserver 192.0.2.1\nsearch corp.example\noptions edns0\n'

test('resolv.conf follows dnsPolicy and dnsConfig', async (t) => {
  const rows: readonly [string, Partial<PodSpec>, string][] = [
    ['the cluster DNS by default', {}, cluster],
    ["the node's own for a Pod of the host network", { hostNetwork: true }, own],
    ['the cluster DNS for one that asks for it', { hostNetwork: true, dnsPolicy: 'ClusterFirstWithHostNet' }, cluster],
    ["the node's own where Default is asked for", { dnsPolicy: 'Default' }, own],
    [
      'nothing but dnsConfig with None',
      { dnsPolicy: 'None', dnsConfig: { nameservers: ['192.0.2.9'], searches: ['a.example'], options: [{ name: 'ndots', value: '2' }, { name: 'rotate' }] } },
      'nameserver 192.0.2.9\nsearch a.example\noptions ndots:2 rotate\n',
    ],
    [
      'dnsConfig beside the policy, its options before ours',
      { dnsConfig: { searches: ['more.example'], options: [{ name: 'ndots', value: '1' }] } },
      cluster.replace('corp.example', 'corp.example more.example').replace('ndots:5', 'ndots:1'),
    ],
  ]
  for (const [name, spec, wanted] of rows) t.equal(etcFiles(pod('demo/web', { spec }), ['10.244.0.2'], settings)['resolv.conf'], wanted, name)
})

test('a Pod finds itself in its hosts', async (t) => {
  const { hosts } = etcFiles(pod('demo/web', { spec: { hostname: 'w', subdomain: 'all', hostAliases: [{ ip: '192.0.2.7', hostnames: ['a', 'b'] }] } }), ['10.244.0.2', 'fd00::2'], settings)
  t.match(hosts, '\n10.244.0.2\tw.all.demo.svc.cluster.local\tw\nfd00::2\tw.all.demo.svc.cluster.local\tw\n192.0.2.7\ta\tb\n')
  t.equal(etcFiles(pod('demo/web', { spec: { hostNetwork: true } }), [], settings).hosts, settings.nodeHosts, 'on the host network it is the node')
  t.equal(etcFiles(pod('demo/web', { spec: { hostNetwork: true } }), [], settings).hostname, 'node1\n')
})

test('a host name is never longer than one may be', async (t) => {
  t.equal(hostnameOf(pod(`demo/${'a'.repeat(62)}-b`)), 'a'.repeat(62))
})
