import { test } from 'tap'
import { ingress, namespace, pod, service } from '../../kube/testing/builders.ts'
import { openNode } from '../../lib/sockets/node/driver.ts'
import { CorefileError } from '../corefile.ts'
import { site } from '../testing/site.ts'
import { a, upstream } from '../testing/upstream.ts'

const zone = 'kubernetes cluster.local\n'
const objects = [namespace('shop'), service('shop/api', { clusterIP: '10.96.8.20', ports: ['http:80'] }), service('edge/ingress', { clusterIP: '10.96.1.1', ports: ['http:80'] }), namespace('edge')]
const from = (corefile: string, more = {}) => site(objects, { corefile, ...more })

function saidOf(corefile: string): string {
  try {
    from(corefile)
    return 'nothing'
  } catch (error) {
    if (error instanceof CorefileError) return error.message
    throw error
  }
}

test('template makes records of patterns', async (t) => {
  const s = from(`.:53 {
  template IN A ip.test {
    match ^ip-(?P<a>\\d+)-(?P<b>\\d+)\\.ip\\.test\\.$
    match ^x([0-9a-f]{2})\\.ip\\.test\\.$
    answer "{{ .Name }} 60 IN {{ .Type }} 10.0.{{ .Group.a }}{{ index .Match 1 }}.{{ .Group.b }}"
    fallthrough no.ip.test
  }
  template ANY ANY alias.test {
    match "^(.*)\\.alias\\.test\\.$"
    answer "{{ .Name }} CNAME {{ index .Match 1 }}.shop.svc.cluster.local."
  }
  template IN TXT ip.test {
    answer "{{ .Name }} 1 TXT \\"for {{ .Remote }} in {{ .Zone }}\\" {{ .Class }}"
    additional "{{ .Name }} 1 A 10.0.0.1"
  }
  template IN ANY gone.test {
    rcode NXDOMAIN
    authority "gone.test. 5 IN SOA ns.gone.test. h.gone.test. (1 2 3 4 5)"
  }
  template IN ANY bad.test {
    rcode SERVFAIL
  }
  ${zone}}`)
  t.equal(await s.ask('ip-10-7.ip.test'), 'SERVFAIL', 'what makes no record is SERVFAIL')
  t.equal(await s.ask('ip--.ip.test'), 'NXDOMAIN aa', 'no pattern fits')
  t.equal(await s.ask('y.no.ip.test'), 'REFUSED', 'falls through to nobody')
  t.equal(await s.ask('x.ip.test', 'TXT'), 'NOERROR aa\nx.ip.test. 1 TXT "for 10.244.1.9 in ip.test." "IN"\nadditional x.ip.test. 1 A 10.0.0.1')
  t.equal(await s.ask('api.alias.test'), 'NOERROR aa\napi.alias.test. 3600 CNAME api.shop.svc.cluster.local.\napi.shop.svc.cluster.local. 5 A 10.96.8.20')
  t.equal(await s.ask('x.bad.test'), 'SERVFAIL')
  t.equal(await s.ask('api.shop.svc.cluster.local', 'A', { brief: true }), 'NOERROR aa\napi.shop.svc.cluster.local. 5 A 10.96.8.20', 'others are not touched')
  const one = from(`.:53 {\n template IN A t.test {\n match ^(\\d+)-(?P<hex>..)\\.t\\.test\\.$\n answer "{{ .Name }} A 10.0.{{ parseInt .Group.hex 16 8 }}.{{ index .Match 1 }}"\n}\n}`)
  t.equal(await one.ask('7-ff.t.test'), 'NOERROR aa\n7-ff.t.test. 3600 A 10.0.255.7')
  for (const [line, said] of [
    ['template CH A', 'Corefile:2: template: only class IN is answered, not CH'],
    ['template IN', 'Corefile:2: template: expected a class and a type'],
    ['template IN A {\n match (\n}', /Corefile:3: match: \( is no regular expression/],
    ['template IN A {\n answer "{{ .What }}"\n}', 'Corefile:3: answer: {{ .What }} is not supported'],
    ['template IN A {\n ederror 1\n}', 'Corefile:3: template: ederror is not supported'],
  ] as const)
    t.match(saidOf(`.:53 {\n${line}\n}`), said)
})

test('view serves clients apart', async (t) => {
  const pods = [pod('shop/inner', { ip: '10.244.1.9', labels: { tier: 'web' } }), pod('other/outer', { ip: '10.244.2.9' })]
  const hosts = (ip: string): string => `hosts {\n${ip} split.test\n}\n`
  const s = site([...objects, ...pods], {
    corefile: `.:53 {
  view shop {
    expr metadata('kubernetes/client-namespace') == 'shop' && metadata('kubernetes/client-label/tier') in ['web', 'db']
  }
  ${hosts('10.1.1.1')}
}
.:53 {
  view tcp {
    expr incidr(client_ip(), '10.244.2.0/24') and not (type() == 'AAAA' or name() endsWith 'x.')
    expr name() matches '^split' && proto() != 'udp'
  }
  ${hosts('10.2.2.2')}
}
.:53 {
  ${hosts('10.3.3.3')}
}`,
  })
  const at = (client: string, protocol: 'udp' | 'tcp' = 'tcp'): Promise<string> => s.ask('split.test', 'A', { client, protocol })
  t.equal(await at('10.244.1.9'), 'NOERROR aa\nsplit.test. 3600 A 10.1.1.1')
  t.equal(await at('10.244.2.9'), 'NOERROR aa\nsplit.test. 3600 A 10.2.2.2')
  t.equal(await at('10.244.2.9', 'udp'), 'NOERROR aa\nsplit.test. 3600 A 10.3.3.3')
  t.equal(await at('192.0.2.1'), 'NOERROR aa\nsplit.test. 3600 A 10.3.3.3')
  s.remove(pods[0]!)
  t.equal(await at('10.244.1.9'), 'NOERROR aa\nsplit.test. 3600 A 10.3.3.3', 'no Pod is there any more')
  for (const [expr, said] of [
    ['nonsense() == 1', 'Corefile:3: expr: nonsense() is not known in nonsense() == 1'],
    ["name() == 'a", /Corefile:3: expr: /],
    ["incidr(client_ip(), 'x')", /x is no network/],
    ["metadata('forward/upstream') == 'x'", /there is no metadata forward\/upstream/],
  ] as const)
    t.match(saidOf(`.:53 {\nview v {\nexpr ${expr}\n}\n}`), said)
  t.match(saidOf(`.:53 {\n${zone}}\n.:53 {\nview late {\nexpr true\n}\n}`), /served by another block already/)
})

test('rewrite: ttl, class, and what upstream servers are sent', async (t) => {
  const s = from(`.:53 {
  rewrite continue class CH IN
  rewrite ttl exact api.shop.svc.cluster.local 30-300
  rewrite ttl suffix .edge.svc.cluster.local 0
  ${zone}}`)
  t.equal(await s.ask('api.shop.svc.cluster.local', 'A', { brief: true }), 'NOERROR aa\napi.shop.svc.cluster.local. 30 A 10.96.8.20')
  t.equal(await s.ask('ingress.edge.svc.cluster.local', 'A', { brief: true }), 'NOERROR aa\ningress.edge.svc.cluster.local. 0 A 10.96.1.1')
  const chaos = await s.message('api.shop.svc.cluster.local', 'A', { class: 3 })
  t.same([chaos?.rcode, chaos?.questions[0]?.class, chaos?.answers.map((r) => r.class)], [0, 3, [3]])
  t.equal((await s.message('api.shop.svc.cluster.local', 'A', { class: 4 }))?.rcode, 5, 'other classes stay refused')
  t.equal((await from(`.:53 {\n${zone}}`).message('api.shop.svc.cluster.local', 'A', { class: 3 }))?.rcode, 5)

  const up = await upstream((m) => ({ answers: [{ ...a('x', '10.7.7.7'), name: m.questions[0]!.name }] }))
  t.teardown(() => up.close())
  const driver = openNode()
  t.teardown(() => driver.close())
  const f = from(
    `.:53 {
  rewrite continue edns0 local set 0xffee 0x61626364
  rewrite continue edns0 local append 0xffef hello
  rewrite continue edns0 local replace 0xfff0 never
  rewrite continue edns0 local set 0xfff1 {client_ip}
  rewrite continue edns0 nsid set
  rewrite edns0 subnet set 20 56
  forward . 127.0.0.1:${up.port}
}`,
    { env: { driver } },
  )
  t.teardown(() => f.configuration.close())
  t.match(await f.ask('example.com'), /10\.7\.7\.7/)
  t.same(
    up.asked[0]?.message.edns?.options.map((o) => `${o.code} ${Buffer.from(o.data, 'latin1').toString('hex')}`),
    ['65518 61626364', '65519 68656c6c6f', '65521 0af40109', '3 ', '8 000114000af400'],
  )
  for (const [line, said] of [
    ['rewrite ttl a.test x', /expected seconds/],
    ['rewrite class CH XX', /expected two classes/],
    ['rewrite edns0 local set 0xffee {what}', /\{what\} is not known/],
    ['rewrite rcode a b', /only name, type, class, ttl and edns0 are supported, not rcode/],
  ] as const)
    t.match(saidOf(`.:53 {\n${line}\n}`), said)
})

test('ingress: hosts resolve to the Service that serves Ingresses', async (t) => {
  const s = site(
    [
      ...objects,
      ingress('shop/web', { 'www.example.org': { '/': 'api:80' }, '*.apps.example.org': { '/': 'api:80' } }, { class: 'switchyard' }),
      ingress('shop/other', { 'x.example.org': { '/': 'api:80' } }, { class: 'nginx' }),
    ],
    {
      corefile: `.:53 {\n ingress example.org {\n service edge/ingress\n class switchyard\n ttl 7\n}\n ${zone}}`,
    },
  )
  const answer = (name: string): string => `NOERROR aa\n${name}. 7 A 10.96.1.1`
  t.equal(await s.ask('www.example.org'), answer('www.example.org'))
  t.equal(await s.ask('WWW.example.org', 'AAAA'), 'NOERROR aa')
  t.equal(await s.ask('a.apps.example.org'), answer('a.apps.example.org'))
  t.equal(await s.ask('b.a.apps.example.org'), 'REFUSED', 'a star is one label')
  t.equal(await s.ask('x.example.org'), 'REFUSED', 'of another class')
  s.remove(ingress('shop/web', {}))
  t.equal(await s.ask('www.example.org'), 'REFUSED', 'gone with the Ingress')
  s.put(ingress('shop/web', { 'new.example.org': {} }, { class: 'switchyard' }))
  t.equal(await s.ask('new.example.org'), answer('new.example.org'))
  s.remove(service('edge/ingress'))
  t.equal(await s.ask('new.example.org'), 'REFUSED', 'without the Service the next handler is asked')
  t.match(saidOf('.:53 {\n ingress\n}'), /expected service NAMESPACE\/NAME/)
})
