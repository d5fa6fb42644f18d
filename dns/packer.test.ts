import { test } from 'tap'
import { namespace, service, slice } from '../kube/testing/builders.ts'
import type { KubeObject } from '../kube/objects.ts'
import { Packer } from './packer.ts'
import { PackedTable } from './packed.ts'
import { fastOf, question, slow } from './testing/fast.ts'
import { printMessage, site } from './testing/site.ts'
import { decode } from './wire/message.ts'
import { nameOf } from './wire/name.ts'
import { Flag } from './wire/types.ts'

const many = Array.from({ length: 100 }, (_, i) => `10.244.9.${i}`)
const objects: readonly KubeObject[] = [
  namespace('shop'),
  service('shop/api', { clusterIP: '10.96.8.20', clusterIPs: ['10.96.8.20', 'fd00:10:96::20'], ports: ['http:80', 'dns:53/UDP'] }),
  slice('shop/api', ['10.244.1.1'], ['http:8080']),
  service('shop/db', { clusterIP: 'None', ports: ['pg:5432'] }),
  slice('shop/db', ['10.244.1.5 hostname=db-0', '10.244.1.6 hostname=db-1', '10.244.1.7'], ['pg:15432']),
  service('shop/big', { clusterIP: 'None', ports: ['x:1'] }),
  slice('shop/big', many, ['x:1']),
  service('shop/ext', { type: 'ExternalName', externalName: 'api.shop.svc.cluster.local', ports: [] }),
]

const types = ['A', 'AAAA', 'SRV', 'PTR', 'CNAME', 'SOA', 'NS', 'TXT', 'ANY', 'HTTPS', 'TYPE4711']
const names = [
  'api.shop.svc.cluster.local',
  '_http._tcp.api.shop.svc.cluster.local',
  '_tcp.api.shop.svc.cluster.local',
  '10-244-1-1.api.shop.svc.cluster.local',
  'db.shop.svc.cluster.local',
  '_pg._tcp.db.shop.svc.cluster.local',
  'db-0.db.shop.svc.cluster.local',
  'big.shop.svc.cluster.local',
  '_x._tcp.big.shop.svc.cluster.local',
  'ext.shop.svc.cluster.local',
  'x.ext.shop.svc.cluster.local',
  'nobody.shop.svc.cluster.local',
  'api.nowhere.svc.cluster.local',
  'www.example.com.shop.svc.cluster.local',
  'www.example.com.svc.cluster.local',
  'www.example.com.cluster.local',
  'example.com',
  'shop.svc.cluster.local',
  'svc.cluster.local',
  'pod.cluster.local',
  'shop.pod.cluster.local',
  '1-2-3-4.shop.pod.cluster.local',
  '1-2-3-4.nowhere.pod.cluster.local',
  'cluster.local',
  'dns.cluster.local',
  'ns.dns.cluster.local',
  'x.dns.cluster.local',
  'x.hostmaster.cluster.local',
  'dns-version.cluster.local',
  'xcluster.local',
  'local',
  '.',
  '20.8.96.10.in-addr.arpa',
  '5.1.244.10.in-addr.arpa',
  '8.8.8.8.in-addr.arpa',
  '1.244.10.in-addr.arpa',
  'in-addr.arpa',
  'api\\.shop.svc.cluster.local',
  'a\\000b.shop.svc.cluster.local',
  `${'x'.repeat(63)}.${'y'.repeat(63)}.svc.cluster.local`,
]

const kubernetes = (options = 'pods insecure\n fallthrough in-addr.arpa ip6.arpa'): string => `.:53 {\n errors\n kubernetes cluster.local in-addr.arpa ip6.arpa {\n ${options}\n }\n}`

test('the compiled answer is the answer of the handlers, octet for octet', async (t) => {
  for (const options of [undefined, 'ttl 30', 'fallthrough', 'fallthrough shop.svc.cluster.local', 'pods disabled']) {
    const s = site(objects, { corefile: kubernetes(options) })
    const fast = fastOf(s)
    let compiled = 0
    for (const name of names) {
      for (const type of types) {
        for (const how of [{}, { size: 512 }, { size: 4096, dnssec: true }, { capitals: true, size: 1232 }, { most: 65_535 }]) {
          const quick = fast.ask(name, type, how)
          if (quick === undefined) continue
          compiled++
          const other = await slow(s, name, type, how)
          if (!quick.equals(other)) t.equal(printMessage(decode(quick)) + quick.toString('hex'), printMessage(decode(other)) + other.toString('hex'), `${name} ${type} ${JSON.stringify(how)}`)
        }
      }
    }
    t.ok(compiled > 500, `${compiled} answers compared with "${options ?? ''}"`)
  }
})

test('what must be asked for is asked for, and the main traffic is not', (t) => {
  const fast = fastOf(site(objects))
  for (const [name, type, compiled] of [
    ['api.shop.svc.cluster.local', 'A', true],
    ['api.shop.svc.cluster.local', 'HTTPS', true],
    ['www.example.com.shop.svc.cluster.local', 'A', true],
    ['www.example.com.svc.cluster.local', 'AAAA', true],
    ['www.example.com.cluster.local', 'AAAA', true],
    ['5.1.244.10.in-addr.arpa', 'PTR', true],
    ['example.com', 'A', false],
    ['8.8.8.8.in-addr.arpa', 'PTR', false],
    ['ext.shop.svc.cluster.local', 'A', false],
    ['1-2-3-4.shop.pod.cluster.local', 'A', false],
    ['cluster.local', 'SOA', false],
    ['api.shop.svc.cluster.local', 'ANY', false],
    ['api.shop.svc.cluster.local', 'AXFR', false],
  ] as const)
    t.equal(fast.ask(name, type) !== undefined, compiled, `${name} ${type}`)
  t.end()
})

test('compiled answers follow the objects, whatever the order', async (t) => {
  const s = site([])
  const fast = fastOf(s)
  let seed = 99
  const random = (n: number): number => ((seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0) >>> 8) % n
  const variants = [
    ...objects,
    service('shop/api', { clusterIP: '10.96.8.21', ports: ['web:81'] }),
    slice('shop/db', ['10.244.1.6 hostname=db-0'], ['pg:9']),
    service('shop/ext', { clusterIP: '10.96.8.22' }),
    slice('shop/big', many.slice(50)),
  ]
  for (let round = 0; round < 40; round++) {
    const object = variants[random(variants.length)]!
    if (random(3) === 0) s.remove(object)
    else s.put(object)
    fast.packer.refresh()
    for (const name of names) {
      for (const type of ['A', 'SRV', 'PTR']) {
        const quick = fast.ask(name, type, { most: 65_535 })
        if (quick === undefined) continue
        const other = await slow(s, name, type, { most: 65_535 })
        if (!quick.equals(other)) t.equal(printMessage(decode(quick)), printMessage(decode(other)), `round ${round}: ${name} ${type}`)
      }
    }
  }
  t.end()
})

test('missing names are denied only when all has been read', (t) => {
  const s = site(objects, { complete: false })
  const fast = fastOf(s)
  t.equal(fast.ask('nobody.shop.svc.cluster.local', 'A'), undefined)
  t.ok(fast.ask('api.shop.svc.cluster.local', 'A'))
  s.cluster.complete = true
  fast.packer.refresh()
  t.ok(fast.ask('nobody.shop.svc.cluster.local', 'A'))
  t.end()
})

test('addresses are turned, all of them stay, and what does not fit is cut at a record', (t) => {
  const s = site(objects, { corefile: kubernetes().replace('errors', 'errors\n loadbalance') })
  const fast = fastOf(s)
  const first = new Set<string>()
  for (let i = 0; i < 200; i++) {
    const m = decode(fast.ask('db.shop.svc.cluster.local', 'A')!)
    t.equal(m.answers.length, 3)
    first.add(m.answers[0]!.data)
  }
  t.equal(first.size, 3, 'each comes first sometimes')
  for (let i = 0; i < 50; i++) {
    const b = fast.ask('big.shop.svc.cluster.local', 'A', { size: 1232 })!
    const m = decode(b)
    t.ok(b.length <= 1232)
    t.equal(m.flags & Flag.TC, Flag.TC)
    t.equal(new Set(m.answers.map((r) => r.data)).size, 73, 'whole records, none twice')
  }
  t.equal(new Set(decode(fast.ask('big.shop.svc.cluster.local', 'A', { most: 65_535 })!).answers.map((r) => r.data)).size, 100)
  t.end()
})

test('what many speak of is asked for while it changes, and compiled once it is quiet', async (t) => {
  const s = site([namespace('shop')])
  const fast = fastOf(s)
  const pointer = '1.0.244.10.in-addr.arpa'
  const put = (i: number): void => {
    s.put(service(`shop/s${i}`, { clusterIP: 'None', ports: ['x:1'] }))
    s.put(slice(`shop/s${i}`, ['10.244.0.1 hostname=h'], ['x:1']))
  }
  for (let i = 0; i < 128; i++) put(i)
  t.ok(fast.ask(pointer, 'PTR', { most: 65_535 }), 'few are compiled at once')
  for (let i = 128; i < 200; i++) put(i)
  t.equal(fast.ask(pointer, 'PTR', { most: 65_535 }), undefined, 'many are asked for')
  t.ok(fast.ask('h.s199.shop.svc.cluster.local', 'A'), 'their own names are not')
  fast.packer.settle()
  t.same(fast.ask(pointer, 'PTR', { most: 65_535 }), await slow(s, pointer, 'PTR', { most: 65_535 }), 'until it has been quiet')
  for (let i = 200; i < 1500; i++) put(i)
  fast.packer.settle()
  t.equal(fast.ask(pointer, 'PTR', { most: 65_535 }), undefined, 'what no compiled answer has room for stays asked for')
})

test('names that a handler before it touches are asked for', (t) => {
  const s = site(objects, { corefile: '.:53 {\n kubernetes cluster.local\n}\nshop.svc.cluster.local:53 {\n errors\n}' })
  const fast = fastOf(s)
  t.equal(fast.ask('api.shop.svc.cluster.local', 'A'), undefined, 'another block answers there')
  t.equal(fast.ask('nobody.shop.svc.cluster.local', 'A'), undefined)
  t.ok(fast.ask('api.other.svc.cluster.local', 'A'))
  t.end()
})

test('mutated questions: no error, nothing over the limit, nothing outside, and what is answered is answered as by the handlers', async (t) => {
  const s = site(objects)
  const packer = Packer.of(s.server.sites, { bytes: 8 * 1024 * 1024 })!
  const resolver = packer.resolver()
  let seed = 4242
  const random = (n: number): number => ((seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) >>> 8) % n
  const models = names.flatMap((name) => [question(name, 'A', {}), question(name, 'SRV', { size: 1232 }), question(name, 'PTR', { size: 4096, dnssec: true })])
  let answered = 0
  for (let i = 0; i < 30_000; i++) {
    const model = models[random(models.length)]!
    const q = Buffer.from(model.subarray(0, random(8) === 0 ? random(model.length + 1) : model.length))
    for (let n = random(4); n > 0 && q.length > 0; n--) q[random(q.length)] = random(2) === 0 ? [0, 0xc0, 0xff, 1][random(4)]! : random(256)
    const b = Buffer.alloc(2200, 0xee)
    q.copy(b, 37)
    const n = resolver.resolve(b, 37, 37 + q.length, 37 + 2048)
    if (n > 1232) t.fail(`${n} octets for ${q.toString('hex')}`)
    if (b.subarray(37 + 2048).some((x) => x !== 0xee)) t.fail(`written outside for ${q.toString('hex')}`)
    if (n <= 0) continue
    answered++
    const quick = b.subarray(37, 37 + n)
    if (i % 10 === 0) {
      const other = await s.server.respond(q, 0, q.length, { client: { host: '10.0.0.1', port: 1 }, local: { host: '10.0.0.2', port: 53 }, protocol: 'udp' })
      if (other === undefined || !quick.equals(other)) t.equal(quick.toString('hex'), other?.toString('hex'), q.toString('hex'))
    }
  }
  t.ok(answered > 5000, `${answered} answered at once`)
})

test('a table that is full has no wrong answers', (t) => {
  let now = 0
  const table = new PackedTable(64 * 1024, { bufsize: 1232, rotate: false, seed: 1, now: () => now })
  for (let i = 0; i < 5000; i++) table.set(nameOf(`x${i}.cluster.local`), [])
  t.ok(table.full)
  const before = table.octets
  t.ok(before <= 64 * 1024)
  for (let i = 0; i < 5000; i++) table.set(nameOf(`x${i}.cluster.local`), undefined)
  t.equal(table.names, 0)
  now += 10_000
  table.set(nameOf('again.cluster.local'), [])
  t.equal(table.names, 1, 'room that was given back is used again')
  t.equal(table.octets, before)
  t.end()
})
