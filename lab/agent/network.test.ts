import { test } from 'tap'
import { node } from '../../kube/testing/builders.ts'
import { allocate, parseRoutes, renderPod, renderRoutes, renderVeth, routesFor } from './network.ts'

test('a Pod hangs on a veth of its own, without a bridge', async (t) => {
  t.equal(
    renderVeth('uid-1', 77, ['10.244.0.2'], ['192.168.56.11']),
    `link add syf05529772f0a address ee:ee:ee:ee:ee:ee type veth peer name eth0 address 0a:f0:55:29:77:2f netns 77
link set syf05529772f0a up
route replace 10.244.0.2/32 dev syf05529772f0a src 192.168.56.11
neigh replace 10.244.0.2 lladdr 0a:f0:55:29:77:2f dev syf05529772f0a nud permanent
`,
  )
  t.equal(
    renderPod(['10.244.0.2', 'fd00:10:244::2']),
    `link set lo up
addr add 10.244.0.2/32 dev eth0
addr add fd00:10:244::2/128 dev eth0 nodad
link set eth0 up
route add 169.254.1.1 dev eth0 scope link
neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent
route add default via 169.254.1.1 dev eth0
neigh replace fe80::1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent
route add default via fe80::1 dev eth0
`,
  )
})

test('addresses are given in turn, and none twice', async (t) => {
  const taken = new Set<string>()
  let place = 1
  const given: string[] = []
  for (;;) {
    const found = allocate(['10.244.0.0/29', 'fd00::/64'], taken, place)
    if (found === undefined) break
    for (const a of found.addresses) taken.add(a)
    place = found.place
    given.push(found.addresses.join(' '))
  }
  t.strictSame(given, ['10.244.0.2 fd00::2', '10.244.0.3 fd00::3', '10.244.0.4 fd00::4', '10.244.0.5 fd00::5', '10.244.0.6 fd00::6'])
  taken.delete('10.244.0.3')
  taken.delete('fd00::3')
  t.strictSame(allocate(['10.244.0.0/29', 'fd00::/64'], taken, place)?.addresses, ['10.244.0.3', 'fd00::3'], 'what became free is used again')
  t.equal(allocate([], taken, 1), undefined)
})

test('routes lead to the ranges of the other nodes, and go with them', async (t) => {
  const nodes = [node('node1', { ip: '192.168.56.11', podCIDR: '10.244.0.0/24' }), node('node2', { ip: '192.168.56.12', podCIDR: '10.244.1.0/24' }), node('node3', { ip: '192.168.56.13' })]
  const want = routesFor('node1', nodes)
  t.strictSame([...want], [['10.244.1.0/24', '192.168.56.12']])
  const have = parseRoutes('[{"dst":"10.244.1.0/24","gateway":"192.168.56.99"},{"dst":"10.244.7.0/24","gateway":"192.168.56.17"}]')
  t.equal(renderRoutes(have, want), 'route del 10.244.7.0/24 proto 83\nroute replace 10.244.1.0/24 via 192.168.56.12 proto 83\n')
  t.equal(renderRoutes(want, want), '')
  t.strictSame([...parseRoutes('')], [])
})
