import { test } from 'tap'
import { namespace, service } from '../kube/testing/builders.ts'
import { Metrics } from '../lib/metrics.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import { meters } from './handlers/plugin.ts'
import { foldCounters } from './observe.ts'
import { Count } from './resolve.ts'
import { fastOf, slow } from './testing/fast.ts'
import { printMessage, site } from './testing/site.ts'
import { a, cname, upstream } from './testing/upstream.ts'
import { soaData } from './wire/data.ts'
import { decode, type Rec } from './wire/message.ts'
import { nameOf } from './wire/name.ts'

const soa: Rec = {
  name: nameOf('example.com'),
  type: 6,
  class: 1,
  ttl: 300,
  data: soaData({ mname: nameOf('ns.example.com'), rname: nameOf('h.example.com'), serial: 1, refresh: 2, retry: 3, expire: 4, minimum: 60 }),
}
/** Without order and TTLs: a second may pass between two answers. */
const plain = (b: Buffer): string =>
  printMessage(decode(b))
    .replaceAll(/ \d+ (A|CNAME) | (300|30|29|28|27)$/gm, ' $1 ')
    .split('\n')
    .toSorted()
    .join('\n')
const four = ['10.7.7.1', '10.7.7.2', '10.7.7.3', '10.7.7.4']

test('what the cache keeps is found without asking it, as it would be answered', async (t) => {
  const up = await upstream((m) => {
    const name = m.questions[0]!.name
    if (name.startsWith('\x02no')) return { rcode: 3, authority: [soa] }
    if (m.questions[0]!.type !== 1) return { authority: [soa] }
    if (name.startsWith('\x05alias')) return { answers: [cname('Alias.example.com', 'Many.example.com', 50), ...four.map((ip) => a('Many.example.com', ip, 40))] }
    return { answers: four.map((ip) => ({ ...a('x', ip, 20), name })) }
  })
  t.teardown(() => up.close())
  const driver = openNode()
  t.teardown(() => driver.close())
  const registry = new Metrics()
  const s = site([namespace('shop'), service('shop/api', { clusterIP: '10.96.8.20' })], {
    corefile: `.:53 {\n errors\n kubernetes cluster.local\n hosts {\n 10.9.9.9 pinned.example.com\n fallthrough\n }\n loadbalance\n rewrite name moved.example.com www.example.com\n forward . 127.0.0.1:${up.port}\n cache 30\n}\nother.test:53 {\n forward . 127.0.0.1:${up.port}\n cache {\n prefetch 2\n }\n}\nstub.test:53 {\n forward . 127.0.0.1:${up.port}\n cache\n}`,
    env: { driver, metrics: meters(registry) },
  })
  t.teardown(() => s.configuration.close())
  const fast = fastOf(s)
  const resolver = fast.resolver
  const fold = foldCounters(s.env.metrics, 'dns://:53', s.server.sites, 'udp', resolver.counters)
  for (const [name, type] of [
    ['www.example.com', 'A'],
    ['alias.example.com', 'A'],
    ['alias.example.com', 'AAAA'],
    ['no.example.com', 'A'],
    ['x.stub.test', 'A'],
  ] as const) {
    t.equal(fast.ask(name, type), undefined, `${name} ${type}: not known yet`)
    await slow(s, name, type, {})
    for (const how of [{}, { size: 1232 }, { size: 4096, capitals: true }, { most: 65_535 }]) {
      const got = fast.ask(name, type, how)
      if (!t.ok(got, `${name} ${type}`)) continue
      t.equal(plain(got!), plain(await slow(s, name, type, how)), `${name} ${type} ${JSON.stringify(how)}`)
      t.equal(decode(got!).flags & 0x8780, 0x8180 & 0x8780, 'nobody’s authority')
    }
    t.equal(fast.ask(name, type, { size: 1232, dnssec: true }), undefined, 'DNSSEC records are asked for')
    t.equal(fast.ask(name, 'TXT'), undefined, 'so are other types')
  }
  const firsts = new Set(Array.from({ length: 100 }, () => decode(fast.ask('alias.example.com', 'A')!).answers[1]!.data))
  t.equal(firsts.size, 4, 'addresses turn, behind their alias')
  t.equal(decode(fast.ask('alias.example.com', 'A')!).answers[0]!.type, 5)
  for (const name of ['pinned.example.com', 'moved.example.com', 'x.other.test', 'api.shop.svc.cluster.local']) {
    await slow(s, name, 'A', {})
    if (name.startsWith('pinned')) t.equal(fast.ask(name, 'A'), undefined, name)
    else if (name.startsWith('api')) t.ok(fast.ask(name, 'A'), name)
    else t.equal(fast.ask(name, 'A'), undefined, name)
  }
  fold()
  const text = registry.print()
  t.match(text, /coredns_dns_responses_total\{[^}]*zone="\.",[^}]*rcode="NXDOMAIN",plugin="forward"\} 4/)
  t.match(text, /coredns_cache_hits_total\{[^}]*zones="stub\.test\.",[^}]*type="success"\} [48]/)
  t.ok(resolver.counters.subarray(Count.cached, Count.words).some((n) => n > 100))
})

test('it is gone when its time is over, and when the cache gives it up', async (t) => {
  const up = await upstream((m) => ({ answers: [{ ...a('x', '10.7.7.7', 1), name: m.questions[0]!.name }] }))
  t.teardown(() => up.close())
  const driver = openNode()
  t.teardown(() => driver.close())
  const s = site([namespace('shop')], {
    corefile: `.:53 {\n kubernetes cluster.local\n forward . 127.0.0.1:${up.port}\n cache {\n success 2 1 1\n }\n}`,
    env: { driver },
  })
  t.teardown(() => s.configuration.close())
  const fast = fastOf(s)
  const before = fast.packer.table.names
  await slow(s, 'a.test', 'A', {})
  // Two seconds begin at most one after the other.
  while (fast.ask('a.test', 'A') !== undefined) await new Promise((r) => setTimeout(r, 50))
  t.pass('expired')
  for (const name of ['b.test', 'c.test', 'd.test']) await slow(s, name, 'A', {})
  t.equal(fast.ask('b.test', 'A'), undefined, 'the oldest went')
  t.ok(fast.packer.table.names <= before + 2, 'and takes no room')
})
