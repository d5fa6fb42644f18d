import { test } from 'tap'
import { endpoint, namespace, pod, service, slice } from '../kube/testing/builders.ts'
import type { KubeObject } from '../kube/objects.ts'
import { site } from './testing/site.ts'

const shop = namespace('shop')
const api = service('shop/api', { clusterIP: '10.96.8.20', ports: ['http:80', 'm3ua:2905/SCTP', 'syslog:514/UDP'] })
const unnamed = service('shop/plain', { clusterIP: '10.96.8.21', ports: [80] })
const six = service('shop/six', { clusterIP: 'fd00:10:96::20', ports: ['http:80'] })
const dual = service('shop/dual', { clusterIP: '10.96.8.22', clusterIPs: ['10.96.8.22', 'fd00:10:96::22'] })
const balanced = service('shop/front', { type: 'LoadBalancer', clusterIP: '10.96.8.23', externalIPs: ['203.0.113.9'] }, { status: { loadBalancer: { ingress: [{ ip: '198.51.100.7' }] } } })
const db = service('shop/db', { clusterIP: 'None', ports: ['pg:5432'] })
const dbSlice = slice('shop/db', ['10.244.1.5 hostname=db-0', '10.244.2.7 hostname=db-1', '10.244.2.8 notready hostname=db-2', '10.244.2.9 terminating hostname=db-3'], ['pg:15432'])
const bare = service('shop/bare', { clusterIP: 'None', ports: [80] })
const bareSlices = [
  slice('shop/bare', ['10.244.3.7', '10.244.3.8'], [80]),
  slice('shop/bare', ['10.244.3.7'], [80], { suffix: 'again' }),
  slice('shop/bare', ['fd00:244::7', 'fd00:244:1::'], [80], { suffix: 'six' }),
]
const empty = service('shop/empty', { clusterIP: 'None', ports: ['http:80'] })
const portless = service('shop/portless', { clusterIP: 'None', ports: [] })
const portlessSlice = slice('shop/portless', ['10.244.3.9'], [])
const external = (name: string, target: string): KubeObject => service(`shop/${name}`, { type: 'ExternalName', externalName: target, ports: [] })

const cluster: readonly KubeObject[] = [
  shop,
  namespace('quiet'),
  api,
  slice('shop/api', ['10.244.1.1 hostname=a1', '10.244.1.2'], ['http:8080']),
  unnamed,
  six,
  dual,
  balanced,
  db,
  dbSlice,
  bare,
  ...bareSlices,
  empty,
  portless,
  portlessSlice,
  external('in', 'api.shop.svc.cluster.local'),
  external('dotted', 'api.shop.svc.cluster.local.'),
  external('twice', 'in.shop.svc.cluster.local'),
  external('dangling', 'nobody.shop.svc.cluster.local'),
  external('self', 'self.shop.svc.cluster.local'),
  external('ping', 'pong.shop.svc.cluster.local'),
  external('pong', 'ping.shop.svc.cluster.local'),
  external('literal', '192.0.2.7'),
]

const nodata = 'NOERROR aa\nauthority soa cluster.local. 5'
const nxdomain = 'NXDOMAIN aa\nauthority soa cluster.local. 5'
const shopName = (name: string): string => `${name}.shop.svc.cluster.local`
const a = (name: string, ...addresses: readonly string[]): string => ['NOERROR aa', ...addresses.map((x) => `${name}. 5 A ${x}`)].join('\n')

/** What is asked, and the whole answer. */
const rows: readonly (readonly [what: string, name: string, type: string, answer: string])[] = [
  ['a cluster IP', shopName('api'), 'A', a(shopName('api'), '10.96.8.20')],
  ['a cluster IP in capitals', 'API.Shop.svc.cluster.LOCAL', 'A', a('API.Shop.svc.cluster.LOCAL', '10.96.8.20')],
  ...['AAAA', 'TXT', 'MX', 'HTTPS', 'SVCB', 'CNAME', 'NS', 'SOA', 'TYPE4711'].map((type) => [`${type} of an IPv4 Service`, shopName('api'), type, nodata] as const),
  ['an IPv6 cluster IP', shopName('six'), 'AAAA', `NOERROR aa\n${shopName('six')}. 5 AAAA fd00:10:96::20`],
  ['A of an IPv6 Service', shopName('six'), 'A', nodata],
  ['a dual-stack Service', shopName('dual'), 'A', a(shopName('dual'), '10.96.8.22')],
  ['a dual-stack Service, the other family', shopName('dual'), 'AAAA', `NOERROR aa\n${shopName('dual')}. 5 AAAA fd00:10:96::22`],
  ['a Service without endpoints', shopName('plain'), 'A', a(shopName('plain'), '10.96.8.21')],
  ['a load balancer: never the outer address', shopName('front'), 'A', a(shopName('front'), '10.96.8.23')],
  ['a named port', `_http._tcp.${shopName('api')}`, 'SRV', `NOERROR aa\n_http._tcp.${shopName('api')}. 5 SRV 0 100 80 ${shopName('api')}.\nadditional ${shopName('api')}. 5 A 10.96.8.20`],
  ['a port over SCTP', `_m3ua._sctp.${shopName('api')}`, 'SRV', `NOERROR aa\n_m3ua._sctp.${shopName('api')}. 5 SRV 0 100 2905 ${shopName('api')}.\nadditional ${shopName('api')}. 5 A 10.96.8.20`],
  ['a port over UDP', `_syslog._udp.${shopName('api')}`, 'SRV', `NOERROR aa\n_syslog._udp.${shopName('api')}. 5 SRV 0 100 514 ${shopName('api')}.\nadditional ${shopName('api')}. 5 A 10.96.8.20`],
  ['the wrong protocol', `_http._udp.${shopName('api')}`, 'SRV', nxdomain],
  ['a port nobody has', `_nope._tcp.${shopName('api')}`, 'SRV', nxdomain],
  ['another type at a port', `_http._tcp.${shopName('api')}`, 'A', nodata],
  ['a protocol above ports', `_tcp.${shopName('api')}`, 'A', nodata],
  ['no underscores', `http.tcp.${shopName('api')}`, 'SRV', nxdomain],
  ['an empty port', `_._tcp.${shopName('api')}`, 'SRV', nxdomain],
  ['a port of a Service whose port has no name', `_x._tcp.${shopName('plain')}`, 'SRV', nxdomain],
  [
    'all ports at the bare name',
    shopName('api'),
    'SRV',
    `NOERROR aa\n${[80, 514, 2905].map((p) => `${shopName('api')}. 5 SRV 0 33 ${p} ${shopName('api')}.`).join('\n')}\nadditional ${shopName('api')}. 5 A 10.96.8.20`,
  ],
  ['a cluster IP backwards', '20.8.96.10.in-addr.arpa', 'PTR', `NOERROR aa\n20.8.96.10.in-addr.arpa. 5 PTR ${shopName('api')}.`],
  ['a cluster IP backwards, another type', '20.8.96.10.in-addr.arpa', 'A', 'NOERROR aa\nauthority soa in-addr.arpa. 5'],
  [
    'an IPv6 cluster IP backwards, in capitals',
    '0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.D.F.ip6.arpa',
    'PTR',
    `NOERROR aa\n0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.D.F.ip6.arpa. 5 PTR ${shopName('six')}.`,
  ],
  ['a headless Service: ready endpoints', shopName('db'), 'A', a(shopName('db'), '10.244.1.5', '10.244.2.7')],
  ['a headless Service, the other family', shopName('db'), 'AAAA', nodata],
  ['an endpoint in two slices once', shopName('bare'), 'A', a(shopName('bare'), '10.244.3.7', '10.244.3.8')],
  ['a headless Service without slices', shopName('empty'), 'A', nxdomain],
  ['a headless Service without slices, AAAA', shopName('empty'), 'AAAA', nxdomain],
  ['an endpoint by hostname', `db-0.${shopName('db')}`, 'A', a(`db-0.${shopName('db')}`, '10.244.1.5')],
  ['an endpoint that is not ready', `db-2.${shopName('db')}`, 'A', nxdomain],
  ['an endpoint that terminates', `db-3.${shopName('db')}`, 'A', nxdomain],
  ['an endpoint nobody has', `db-9.${shopName('db')}`, 'A', nxdomain],
  ['an endpoint with hostname by its address', `10-244-1-5.${shopName('db')}`, 'A', nxdomain],
  ['an endpoint by its address', `10-244-3-7.${shopName('bare')}`, 'A', a(`10-244-3-7.${shopName('bare')}`, '10.244.3.7')],
  ['an endpoint by its IPv6 address', `fd00-244--7.${shopName('bare')}`, 'AAAA', `NOERROR aa\nfd00-244--7.${shopName('bare')}. 5 AAAA fd00:244::7`],
  ['an endpoint by an IPv6 address that ends in colons', `fd00-244-1--0.${shopName('bare')}`, 'AAAA', `NOERROR aa\nfd00-244-1--0.${shopName('bare')}. 5 AAAA fd00:244:1::`],
  [
    'a named port of a headless Service: the port of the slice',
    `_pg._tcp.${shopName('db')}`,
    'SRV',
    `NOERROR aa\n${['db-0', 'db-1'].map((h) => `_pg._tcp.${shopName('db')}. 5 SRV 0 50 15432 ${h}.${shopName('db')}.`).join('\n')}\nadditional db-0.${shopName('db')}. 5 A 10.244.1.5\nadditional db-1.${shopName('db')}. 5 A 10.244.2.7`,
  ],
  ['a headless Service without ports', shopName('portless'), 'A', a(shopName('portless'), '10.244.3.9')],
  ['a headless Service without ports, SRV', shopName('portless'), 'SRV', nodata],
  ['an endpoint backwards', '5.1.244.10.in-addr.arpa', 'PTR', `NOERROR aa\n5.1.244.10.in-addr.arpa. 5 PTR db-0.${shopName('db')}.`],
  ['an endpoint in two slices backwards', '7.3.244.10.in-addr.arpa', 'PTR', `NOERROR aa\n7.3.244.10.in-addr.arpa. 5 PTR 10-244-3-7.${shopName('bare')}.`],
  ['an endpoint of a cluster IP Service by hostname', `a1.${shopName('api')}`, 'A', a(`a1.${shopName('api')}`, '10.244.1.1')],
  ['an endpoint of a cluster IP Service backwards', '2.1.244.10.in-addr.arpa', 'PTR', `NOERROR aa\n2.1.244.10.in-addr.arpa. 5 PTR 10-244-1-2.${shopName('api')}.`],
  ['an external name in the zone', shopName('in'), 'A', `NOERROR aa\n${shopName('in')}. 5 CNAME ${shopName('api')}.\n${shopName('api')}. 5 A 10.96.8.20`],
  ['an external name with a dot at its end', shopName('dotted'), 'A', `NOERROR aa\n${shopName('dotted')}. 5 CNAME ${shopName('api')}.\n${shopName('api')}. 5 A 10.96.8.20`],
  [
    'an external name of an external name',
    shopName('twice'),
    'A',
    `NOERROR aa\n${shopName('twice')}. 5 CNAME ${shopName('in')}.\n${shopName('in')}. 5 CNAME ${shopName('api')}.\n${shopName('api')}. 5 A 10.96.8.20`,
  ],
  ['an external name, only the alias', shopName('in'), 'CNAME', `NOERROR aa\n${shopName('in')}. 5 CNAME ${shopName('api')}.`],
  ['an external name, a type its target has not', shopName('in'), 'AAAA', `NOERROR aa\n${shopName('in')}. 5 CNAME ${shopName('api')}.\nauthority soa cluster.local. 5`],
  ['an external name that leads nowhere', shopName('dangling'), 'A', `NXDOMAIN aa\n${shopName('dangling')}. 5 CNAME ${shopName('nobody')}.\nauthority soa cluster.local. 5`],
  ['an external name of itself', shopName('self'), 'A', nodata],
  ['external names in a circle', shopName('ping'), 'A', nodata],
  ['an external name that is an address', shopName('literal'), 'A', nxdomain],
  ['below an external name', `x.${shopName('in')}`, 'A', nxdomain],
  ['the version of the schema', 'dns-version.cluster.local', 'TXT', 'NOERROR aa\ndns-version.cluster.local. 28800 TXT "1.1.0"'],
  ['the version of the schema, another type', 'dns-version.cluster.local', 'A', nodata],
  ['a Pod by any address', '10-244-5-9.shop.pod.cluster.local', 'A', a('10-244-5-9.shop.pod.cluster.local', '10.244.5.9')],
  ['a Pod by any IPv6 address', 'fd00-244--9.shop.pod.cluster.local', 'AAAA', 'NOERROR aa\nfd00-244--9.shop.pod.cluster.local. 5 AAAA fd00:244::9'],
  ['a Pod, the other family', '10-244-5-9.shop.pod.cluster.local', 'AAAA', nodata],
  ['a Pod by an address that is none', '10-244-5-999.shop.pod.cluster.local', 'A', nxdomain],
  ['a Pod in no Namespace', '10-244-5-9.nowhere.pod.cluster.local', 'A', nxdomain],
  ['below a Pod', 'x.10-244-5-9.shop.pod.cluster.local', 'A', nxdomain],
  ['the apex, SOA', 'cluster.local', 'SOA', 'NOERROR aa\nsoa cluster.local. 5'],
  ['the apex, NS', 'cluster.local', 'NS', 'NOERROR aa\ncluster.local. 5 NS ns.dns.cluster.local.\nadditional ns.dns.cluster.local. 5 A 10.96.0.10'],
  ['the apex, another type', 'cluster.local', 'A', nodata],
  ['the server itself', 'ns.dns.cluster.local', 'A', a('ns.dns.cluster.local', '10.96.0.10')],
  ['svc', 'svc.cluster.local', 'A', nodata],
  ['pod', 'pod.cluster.local', 'A', nodata],
  ['neither svc nor pod', 'api.shop.cluster.local', 'A', nxdomain],
  ['a Namespace', 'quiet.svc.cluster.local', 'A', nodata],
  ['a Namespace of Pods', 'quiet.pod.cluster.local', 'A', nodata],
  ['a Namespace nobody has', 'nowhere.svc.cluster.local', 'A', nxdomain],
  ['a Service in a Namespace nobody has', 'api.nowhere.svc.cluster.local', 'AAAA', nxdomain],
  ['a Service nobody has', shopName('nobody'), 'A', nxdomain],
  ['a Service nobody has, AAAA', shopName('nobody'), 'AAAA', nxdomain],
  ['three labels below a Service', `x._http._tcp.${shopName('api')}`, 'A', nxdomain],
  ['a name with a dot in a label', 'api\\.shop.svc.cluster.local', 'A', nxdomain],
  ['a zone whose name only ends like ours', 'api.shop.svc.xcluster.local', 'A', 'REFUSED'],
  ['a reverse name that is not ours goes on', '8.8.8.8.in-addr.arpa', 'PTR', 'REFUSED'],
  ['what stands above our reverse names goes on', '8.96.10.in-addr.arpa', 'PTR', 'REFUSED'],
  ['another domain goes on', 'example.com', 'A', 'REFUSED'],
  ['everything about a name (RFC 8482)', shopName('api'), 'ANY', `NOERROR aa\n${shopName('api')}. 5 HINFO "RFC8482" ""`],
  ['everything about a name nobody has', shopName('nobody'), 'ANY', nxdomain],
]

test('each row of the record table', async (t) => {
  const s = site(cluster)
  for (const [what, name, type, answer] of rows) t.equal(await s.ask(name, type), answer, `${what}: ${name} ${type}`)
})

test('the order in which objects come changes no answer', async (t) => {
  const s = site([])
  for (const object of cluster.toReversed()) s.put(object)
  for (const [what, name, type, answer] of rows) t.equal(await s.ask(name, type), answer, `${what}: ${name} ${type}`)
})

test('a server after many changes answers like a fresh one', async (t) => {
  const s = site(cluster)
  let seed = 4711
  const random = (n: number): number => ((seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0) >>> 8) % n
  for (let i = 0; i < 300; i++) {
    const object = cluster[random(cluster.length)]!
    if (random(2) === 0) s.remove(object)
    else s.put(object)
  }
  s.remove(...cluster)
  t.equal([...s.cluster.zones[0]!.table.sources()].join(), 'zone')
  s.put(...cluster)
  for (const [what, name, type, answer] of rows) t.equal(await s.ask(name, type), answer, `${what}: ${name} ${type}`)
  const fresh = site(cluster)
  t.same([...s.cluster.zones[0]!.table.names()].toSorted(), [...fresh.cluster.zones[0]!.table.names()].toSorted(), 'and has the same names')
})

test('answers follow the objects', async (t) => {
  const s = site(cluster)
  s.put(slice('shop/db', ['10.244.1.5 hostname=db-0', '10.244.2.8 hostname=db-2'], ['pg:15432']))
  t.equal(await s.ask(shopName('db'), 'A'), a(shopName('db'), '10.244.1.5', '10.244.2.8'), 'an endpoint became ready and another went')
  t.equal(await s.ask(`db-1.${shopName('db')}`, 'A'), nxdomain)
  t.equal(await s.ask('7.2.244.10.in-addr.arpa', 'PTR'), 'REFUSED', 'its address has no name any more')
  s.put(slice('shop/db', [], []))
  t.equal(await s.ask(shopName('db'), 'A'), nxdomain, 'the last endpoint went')
  s.put(service('shop/in', { clusterIP: '10.96.8.77' }))
  t.equal(await s.ask(shopName('in'), 'A'), a(shopName('in'), '10.96.8.77'), 'an external name became a cluster IP')
  s.remove(api)
  t.equal(await s.ask(shopName('api'), 'A'), nxdomain, 'deleted')
  s.put(service('shop/api', { clusterIP: '10.96.8.99', ports: ['web:80'] }))
  t.equal(await s.ask(shopName('api'), 'A'), a(shopName('api'), '10.96.8.99'), 'and made again elsewhere')
  t.equal(await s.ask('20.8.96.10.in-addr.arpa', 'PTR'), 'REFUSED')
  s.remove(...cluster.filter((o) => o.metadata.namespace === 'shop'), shop, service('shop/api'))
  t.equal(await s.ask('shop.svc.cluster.local', 'A'), nxdomain, 'the Namespace went with everything in it')
})

test('until everything was read, what is missing is not denied', async (t) => {
  const s = site(cluster, { complete: false })
  t.equal(await s.ask(shopName('api'), 'A'), a(shopName('api'), '10.96.8.20'))
  t.equal(await s.ask(shopName('nobody'), 'A'), 'SERVFAIL\nauthority soa cluster.local. 5')
  t.equal(await s.ask('8.8.8.8.in-addr.arpa', 'PTR'), 'SERVFAIL\nauthority soa in-addr.arpa. 5')
})

test('endpoints that are published although not ready, and those that do not say', async (t) => {
  const s = site([
    shop,
    db,
    slice('shop/db', [
      { addresses: ['10.244.1.5'], hostname: 'db-0' },
      { addresses: ['10.244.1.6'], conditions: { ready: true, serving: false }, hostname: 'db-1' },
    ]),
  ])
  t.equal(await s.ask(shopName('db'), 'A'), a(shopName('db'), '10.244.1.5', '10.244.1.6'))
})

test('equal hostnames are one name with several addresses', async (t) => {
  const s = site([shop, db, slice('shop/db', ['10.244.1.5 hostname=same', '10.244.1.6 hostname=same'])])
  t.equal(await s.ask(`same.${shopName('db')}`, 'A'), a(`same.${shopName('db')}`, '10.244.1.5', '10.244.1.6'))
})

test('a Pod in two Services has two names backwards', async (t) => {
  const s = site([shop, db, slice('shop/db', ['10.244.1.5 hostname=db-0']), bare, slice('shop/bare', ['10.244.1.5'])])
  t.equal(await s.ask('5.1.244.10.in-addr.arpa', 'PTR'), `NOERROR aa\n5.1.244.10.in-addr.arpa. 5 PTR db-0.${shopName('db')}.\n5.1.244.10.in-addr.arpa. 5 PTR 10-244-1-5.${shopName('bare')}.`)
})

test('a slice that belongs to no Service changes nothing', async (t) => {
  const s = site([shop, slice('shop/db', ['10.244.1.5'], [80], { metadata: { labels: { 'kubernetes.io/service-name': '' } } })])
  t.equal(await s.ask('5.1.244.10.in-addr.arpa', 'PTR'), 'REFUSED')
})

const corefile = (options: string): string => `.:53 {\n kubernetes cluster.local in-addr.arpa ip6.arpa {\n ${options}\n }\n}`

test('options of the kubernetes block', async (t) => {
  const labelled = [
    namespace('shop', { metadata: { labels: { team: 'a' } } }),
    namespace('other', { metadata: { labels: { team: 'b' } } }),
    api,
    service('other/web', { clusterIP: '10.96.9.1' }, { metadata: { labels: { tier: 'web' } } }),
  ]
  const web = 'web.other.svc.cluster.local'
  const cases: readonly (readonly [options: string, name: string, type: string, answer: string])[] = [
    ['ttl 30', shopName('api'), 'A', `NOERROR aa\n${shopName('api')}. 30 A 10.96.8.20`],
    ['ttl 0', shopName('api'), 'A', `NOERROR aa\n${shopName('api')}. 0 A 10.96.8.20`],
    ['pods disabled', '10-244-5-9.shop.pod.cluster.local', 'A', nxdomain],
    ['namespaces other', shopName('api'), 'A', nxdomain],
    ['namespaces other', 'shop.svc.cluster.local', 'A', nxdomain],
    ['namespaces other', web, 'A', a(web, '10.96.9.1')],
    ['labels tier in (web)', shopName('api'), 'A', nxdomain],
    ['labels tier in (web)', web, 'A', a(web, '10.96.9.1')],
    ['namespace_labels team=a', web, 'A', nxdomain],
    ['namespace_labels team=a', shopName('api'), 'A', a(shopName('api'), '10.96.8.20')],
    ['ignore empty_service', shopName('api'), 'A', nxdomain],
    ['fallthrough', shopName('nobody'), 'A', 'REFUSED'],
    ['fallthrough', shopName('api'), 'AAAA', nodata],
    ['fallthrough example.org', shopName('nobody'), 'A', nxdomain],
    ['', '8.8.8.8.in-addr.arpa', 'PTR', 'NXDOMAIN aa\nauthority soa in-addr.arpa. 5'],
  ]
  for (const [options, name, type, answer] of cases) t.equal(await site(labelled, { corefile: corefile(options) }).ask(name, type), answer, `${options}: ${name} ${type}`)
})

test('a Namespace whose labels change hides and shows what is in it', async (t) => {
  const s = site([shop, api], { corefile: corefile('namespace_labels team=a') })
  t.equal(await s.ask(shopName('api')), nxdomain)
  s.put(namespace('shop', { metadata: { labels: { team: 'a' } } }))
  t.equal(await s.ask(shopName('api')), a(shopName('api'), '10.96.8.20'))
  s.put(shop)
  t.equal(await s.ask(shopName('api')), nxdomain)
})

test('pods verified: every address of a Pod of that Namespace, and no other', async (t) => {
  const s = site([shop, namespace('other'), pod('shop/p', { ips: ['10.244.5.9', 'fd00:244::9'] }), pod('shop/done', { ip: '10.244.5.10', phase: 'Succeeded' })], {
    corefile: corefile('pods verified'),
  })
  t.equal(await s.ask('10-244-5-9.shop.pod.cluster.local', 'A'), a('10-244-5-9.shop.pod.cluster.local', '10.244.5.9'))
  t.equal(await s.ask('fd00-244--9.shop.pod.cluster.local', 'AAAA'), 'NOERROR aa\nfd00-244--9.shop.pod.cluster.local. 5 AAAA fd00:244::9')
  t.equal(await s.ask('10-244-5-9.other.pod.cluster.local', 'A'), nxdomain, 'of another Namespace')
  t.equal(await s.ask('10-244-5-10.shop.pod.cluster.local', 'A'), nxdomain, 'of a Pod that has ended')
})

test('endpoint_pod_names names endpoints after their Pods', async (t) => {
  const e = { ...endpoint('10.244.1.5'), targetRef: { kind: 'Pod', name: 'web-7d9f', namespace: 'shop' } }
  const s = site([shop, bare, slice('shop/bare', [e])], { corefile: corefile('endpoint_pod_names') })
  t.equal(await s.ask(`web-7d9f.${shopName('bare')}`), a(`web-7d9f.${shopName('bare')}`, '10.244.1.5'))
  t.equal(await s.ask(`10-244-1-5.${shopName('bare')}`), nxdomain)
})

test('noendpoints: headless Services have no names', async (t) => {
  const s = site([shop, db, dbSlice, api], { corefile: corefile('noendpoints') })
  t.equal(await s.ask(shopName('db')), nxdomain)
  t.equal(await s.ask(shopName('api')), a(shopName('api'), '10.96.8.20'))
})

test('several zones hold the same names; backwards leads into the first', async (t) => {
  const s = site([shop, api], { corefile: '.:53 {\n kubernetes cluster.local example.org in-addr.arpa\n}' })
  t.equal(await s.ask('api.shop.svc.example.org'), a('api.shop.svc.example.org', '10.96.8.20'))
  t.equal(await s.ask('20.8.96.10.in-addr.arpa', 'PTR'), `NOERROR aa\n20.8.96.10.in-addr.arpa. 5 PTR ${shopName('api')}.`)
})

test('a name is denied exactly when nothing speaks of it or of a name below it', async (t) => {
  let seed = 20_261_123
  t.comment(`seed ${seed}`)
  const random = (n: number): number => ((seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) >>> 8) % n
  const words = ['api', 'db', 'bare', 'in', 'empty', 'shop', 'quiet', 'nowhere', 'svc', 'pod', 'dns', 'ns', 'dns-version', 'db-0', '_http', '_pg', '_tcp', '_sctp', '10-244-3-7', 'x']
  for (let round = 0; round < 5; round++) {
    const some = cluster.filter(() => random(4) > 0)
    const s = site(some)
    // By hand, from the records alone: no nodes, no counting.
    const { table } = s.cluster.zones[0]!
    const owners = [...table.sources()].flatMap((source) => table.entriesOf(source).map((e) => e.name as string))
    const existing = new Set<string>()
    for (const owner of owners) for (let i = 0; i < owner.length; i += owner.charCodeAt(i) + 1) existing.add(owner.slice(i))
    for (let i = 0; i < 400; i++) {
      const labels = Array.from({ length: random(5) }, () => words[random(words.length)]!)
      const name = [...labels, ...(random(2) === 0 ? ['shop', 'svc'] : []), 'cluster', 'local'].join('.')
      if (/\d-\d.*pod\.cluster/.test(name)) continue
      const type = ['A', 'AAAA', 'SRV', 'TXT', 'HTTPS'][random(5)]!
      const wire = `${name
        .split('.')
        .map((l) => String.fromCharCode(l.length) + l)
        .join('')}\0`
      const m = (await s.message(name, type))!
      const alias = m.answers[0]?.type === 5
      if (!alias) t.equal(m.rcode, existing.has(wire) ? 0 : 3, `${name} ${type}`)
      if (m.answers.length === 0) t.equal(m.authority[0]?.type, 6, `${name} ${type}: with SOA`)
    }
  }
})
