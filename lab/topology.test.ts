import { test } from 'tap'
import { clusterPlan, nodeFiles } from './cluster.ts'
import { renderCable, renderHost, renderLan, renderOverlay, renderPodRoutes, renderPort } from './network.ts'
import { parseTopology, topology } from './topology.ts'
import { uplinkLine } from './uplink.ts'
import { parsePublish, publishTarget, userNamespaceAdvice } from './up.ts'

test('a topology follows from few words', async (t) => {
  const made = topology({ nodes: 2 })
  t.strictSame(
    made.nodes.map((n) => `${n.name} ${n.address}`),
    ['node1 192.168.56.11', 'node2 192.168.56.12'],
  )
  t.equal(made.clusterDns, '10.96.0.10', 'the tenth address of the service range')
  t.throws(() => topology({ nodes: 0 }), { message: 'a lab has 1 to 200 nodes, not 0' })
  t.throws(() => topology({ nodes: 1.5 }), /not 1.5/)
  t.throws(() => topology({ name: '../x' }), /a lab is named by/)
})

test('the nodes hang on one LAN that leads nowhere', async (t) => {
  const made = topology({ nodes: 2 })
  t.equal(renderLan(made), 'link set lo up\nlink add lan type bridge forward_delay 0\naddr add 192.168.56.1/24 dev lan\nlink set lan up\nroute add unreachable default metric 4278198272\n')
  t.equal(renderCable('lan2', 42), 'link add lan2 type veth peer name eth0 netns 42\n')
  t.equal(renderPort(made, 'lan2', made.nodes[1]!), 'link set lan2 master lan up\n')
  t.equal(renderHost(made, made.nodes[1]!), 'link set lo up\naddr add 192.168.56.12/24 dev eth0\nlink set eth0 up\nroute add default via 192.168.56.1 dev eth0\n')
  t.match(nodeFiles(made, made.nodes[1]!.name).hosts, '192.168.56.11 node1')
})

test('behind a router a node has a link of its own, and Pods go by its routes or in VXLAN', async (t) => {
  const made = topology({ nodes: 2, clients: 1, network: 'routes', dualStack: true })
  t.match(renderLan(made), 'addr add 192.168.56.1/32 dev lan\n')
  t.equal(
    renderPort(made, 'lan1', made.nodes[0]!),
    [
      'link set lan1 up',
      'route replace 192.168.56.11/32 dev lan1 src 192.168.56.1',
      'route replace fd00:192:168:56::b/128 dev lan1 src fd00:192:168:56::1',
      'neigh replace proxy fd00:192:168:56::1 dev lan1',
      'neigh replace proxy fd00:192:168:56::c dev lan1',
      'neigh replace proxy fd00:192:168:56::2 dev lan1',
      '',
    ].join('\n'),
  )
  const ranges = made.nodes.map((n, i) => ({ ...n, podCIDRs: [`10.244.${i}.0/24`, `fd00:10:244:${i}::/64`] }))
  t.equal(renderPodRoutes(ranges.slice(1)), 'route replace 10.244.1.0/24 via 192.168.56.12\nroute replace fd00:10:244:1::/64 via fd00:192:168:56::c\n')
  const overlay = renderOverlay(made, ranges[0]!, ranges)
  t.equal(overlay.rules.at(-1)!.join(' '), 'ip -6 rule add to fd00:10:244::/56 lookup 84 pref 100')
  t.match(overlay.ip, 'route replace 10.244.1.0/24 via 192.168.56.12 dev vxlan0 onlink src 192.168.56.11 table 84\n')
  t.equal(overlay.fdb, 'fdb replace 0a:53:59:00:00:0c dev vxlan0 dst 192.168.56.12\n')
})

test('a way out is in user mode, and leads to nothing on the loopback of the host', async (t) => {
  t.match(uplinkLine('pasta', false), /-t none -u none -T none -U none --no-map-gw .*--dns-forward 10\.0\.2\.3 /)
  t.match(uplinkLine('slirp4netns', true), '--disable-host-loopback --userns-path=/proc/$pid/ns/user $pid uplink0')
  t.match(nodeFiles(topology({ uplink: 'pasta' }), 'node1')['resolv.conf'], 'nameserver 10.0.2.3')
})

test('a lab of both families has two of everything', async (t) => {
  const made = topology({ nodes: 1, dualStack: true })
  t.strictSame([made.serviceRanges, made.podRanges, made.nodes[0]!.address6], [['10.96.0.0/16', 'fd00:10:96::/112'], ['10.244.0.0/16', 'fd00:10:244::/56'], 'fd00:192:168:56::b'])
  t.match(
    renderHost(made, made.nodes[0]!),
    'addr add fd00:192:168:56::b/64 dev eth0 nodad\nlink set eth0 up\nroute add default via 192.168.56.1 dev eth0\nroute add default via fd00:192:168:56::1 dev eth0\n',
  )
  t.match(clusterPlan(made, { launcher: 's', logs: '/l', inside: '/i' }).others[0]!.argv.join(' '), '--node-ip 192.168.56.11,fd00:192:168:56::b')
})

test('parts are started by the words a user would type, each as who it is', async (t) => {
  const plan = clusterPlan(topology({ nodes: 2, mode: 'userspace', sockets: 'node' }), { launcher: 'switchyard', logs: '/l', inside: '/i' })
  t.match(plan.controlplane.argv.join(' '), 'switchyard controlplane --data /i/controlplane --listen 192.168.56.11:6443 --write-kubeconfig /i/kubeconfigs/admin.yaml')
  t.strictSame(
    plan.others.map((p) => p.name),
    ['node1/agent', 'node1/proxy', 'node1/dns', 'node1/ingress', 'node2/agent', 'node2/proxy', 'node2/dns'],
  )
  t.match(plan.others[5]!.argv.join(' '), /proxy --kubeconfig \/i\/kubeconfigs\/system-kube-proxy.yaml --node node2 --mode userspace .*--sockets node/)
  t.match(
    plan.identities.join(' '),
    'switchyard kubeconfig system:kube-proxy system:dns system:ingress system:node:node1 system:node:node2 --data /i/controlplane --server https://192.168.56.11:6443 --folder /i/kubeconfigs',
  )
})

test('a published port names where it leads', async (t) => {
  const made = topology()
  for (const [text, wanted] of [
    ['8080:ingress', '127.0.0.1:8080 192.168.56.11:80'],
    ['8443:ingress-https', '127.0.0.1:8443 192.168.56.11:443'],
    ['0.0.0.0:8080:node3:30080', '0.0.0.0:8080 192.168.56.13:30080'],
    ['81:192.168.56.12:9', '127.0.0.1:81 192.168.56.12:9'],
  ] as const) {
    const p = parsePublish(text)
    t.equal(`${p.host}:${p.port} ${publishTarget(made, p.to)}`, wanted, text)
  }
  for (const text of ['8080', 'x:ingress', '70000:ingress']) t.throws(() => parsePublish(text), /flag --publish: expected/, text)
  t.throws(() => publishTarget(made, 'node9:80'), /there is no "node9:80"/)
})

test('who may not make user namespaces is told which setting forbids it', async (t) => {
  const advice = (have: Readonly<Record<string, string>>): string => userNamespaceAdvice((file) => have[file])
  t.match(advice({ 'kernel/apparmor_restrict_unprivileged_userns': '1' }), 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0')
  t.match(advice({ 'kernel/unprivileged_userns_clone': '0' }), 'sysctl -w kernel.unprivileged_userns_clone=1')
  t.match(advice({ 'user/max_user_namespaces': '0' }), 'sysctl -w user.max_user_namespaces=15000')
  t.match(advice({}), 'sudo')
})

test('a topology file says which field is wrong, and what was expected', async (t) => {
  const file = parseTopology('nodes:\n  - {name: a, zone: east, mode: userspace}\n  - {name: b}\nmode: nftables\npodRange: 10.8.0.0/16\npublish: ["8080:ingress"]\n', 'lab.yaml')
  const made = topology(file)
  t.strictSame(
    made.nodes.map((n) => `${n.name} ${n.address} ${n.zone} ${n.mode}`),
    ['a 192.168.56.11 east userspace', 'b 192.168.56.12 undefined undefined'],
  )
  t.strictSame(made.podRanges, ['10.8.0.0/16'])
  const plan = clusterPlan(made, { launcher: 'switchyard', logs: '/l', inside: '/i' })
  t.match(plan.others.find((p) => p.name === 'a/agent')!.argv.join(' '), '--labels topology.kubernetes.io/zone=east')
  t.match(plan.others.find((p) => p.name === 'b/proxy')!.argv.join(' '), '--mode nftables')
  for (const [text, wanted] of [
    ['nodes: many', 'lab.yaml: nodes: expected a number, or a list of nodes, got "many"'],
    ['node: 3', 'lab.yaml: node: no such field, did you mean nodes?; there are name, nodes, mode, sockets, serviceRange, podRange, network, clients, uplink, dualStack, publish'],
    ['mode: fast', 'lab.yaml: mode: expected one of userspace, iptables, ipvs, nftables, got "fast"'],
    ['nodes: [{zone: a}]', 'lab.yaml: nodes[0].name: expected a name'],
    ['podRange: 10.8.0.0', 'lab.yaml: podRange: expected a network such as 10.96.0.0/16, got "10.8.0.0"'],
    ['- 3', 'lab.yaml: the file: expected fields'],
  ] as const)
    t.throws(() => parseTopology(text, 'lab.yaml'), { message: wanted }, text)
  t.strictSame(
    topology(parseTopology('clients: [anna, bert]\nnetwork: vxlan\n', 'lab.yaml')).clients.map((c) => `${c.name} ${c.address}`),
    ['anna 192.168.56.2', 'bert 192.168.56.3'],
  )
  t.throws(() => topology({ clients: ['node1'] }), /"node1" cannot be the name of a client/)
  t.throws(() => topology({ clients: 10 }), { message: 'a lab has at most 9 clients, not 10' })
  t.throws(() => topology({ nodes: [{ name: 'a' }, { name: 'a' }] }), { message: 'two nodes are called "a"' })
})
