import { test } from 'tap'
import { namespace, service } from '../kube/testing/builders.ts'
import { bare, type Answer } from './answer.ts'
import { Cache, cacheDefaults, type CacheOptions } from './cache.ts'
import { CacheHandler } from './handlers/cache/index.ts'
import { Metrics } from '../lib/metrics.ts'
import { meters, type Place } from './handlers/plugin.ts'
import { printAnswer, site } from './testing/site.ts'
import { a } from './testing/upstream.ts'
import { soaData } from './wire/data.ts'
import type { Rec } from './wire/message.ts'
import { nameOf, root } from './wire/name.ts'

const soa = (ttl: number, minimum: number): Rec => ({
  name: nameOf('example.com'),
  type: 6,
  class: 1,
  ttl,
  data: soaData({ mname: nameOf('ns.example.com'), rname: root, serial: 1, refresh: 2, retry: 3, expire: 4, minimum }),
})
const yes = (ttl: number, address = '10.0.0.1'): Answer => ({ ...bare(0, 'forward', ''), answers: [a('example.com', address, ttl)] })
const no = (ttl: number, minimum: number, rcode = 3): Answer => bare(rcode, 'forward', '', [soa(ttl, minimum)])

test('for how long an answer is kept', (t) => {
  for (const [what, answer, seconds, options] of [
    ['its TTL', yes(60), 60, {}],
    ['at most the cap', yes(999_999), 3600, {}],
    ['at least the floor', yes(0), 5, {}],
    ['a cap of the configuration', yes(60), 30, { success: { ...cacheDefaults.success, most: 30 } }],
    ['NXDOMAIN: the SOA record’s minimum', no(600, 60), 60, {}],
    ['NXDOMAIN: the SOA record’s own TTL', no(20, 60), 20, {}],
    ['NXDOMAIN: the cap', no(99_999, 99_999), 1800, {}],
    ['no data', no(600, 60, 0), 60, {}],
    ['no data without SOA', bare(0, 'forward', ''), 0, {}],
    ['NXDOMAIN without SOA', bare(3, 'forward', ''), 0, {}],
    ['SERVFAIL', bare(2, 'forward', ''), 5, {}],
    ['SERVFAIL, never longer than five minutes', bare(2, 'forward', ''), 300, { servfail: 900 }],
    ['REFUSED', bare(5, 'forward', ''), 0, {}],
    ['cut', { ...yes(60), truncated: true }, 0, {}],
  ] as const satisfies readonly (readonly [string, Answer, number, Partial<CacheOptions>])[])
    t.equal(new Cache({ ...cacheDefaults, ...options }).put('k', answer, 0), seconds, what)
  t.end()
})

test('TTLs go down, then the answer is gone', (t) => {
  const cache = new Cache(cacheDefaults)
  cache.put('k', yes(60), 0)
  t.equal(cache.get('k', 0)?.answer.answers[0]?.ttl, 60)
  t.equal(cache.get('k', 59_900)?.answer.answers[0]?.ttl, 1)
  t.equal(cache.get('k', 60_000), undefined)
  t.equal(cache.size('success'), 0)
  t.end()
})

test('stale answers have 30 seconds, and a failure does not drive them out', (t) => {
  const cache = new Cache({ ...cacheDefaults, stale: 3600 })
  cache.put('k', yes(60), 0)
  t.match(cache.get('k', 70_000), { stale: true, answer: { answers: [{ ttl: 30 }] } })
  cache.put('k', bare(2, 'forward', ''), 70_000)
  t.match(cache.get('k', 71_000), { kind: 'success', stale: true })
  cache.put('k', no(60, 60), 72_000)
  t.match(cache.get('k', 73_000), { kind: 'denial', stale: false }, 'an answer does')
  t.equal(cache.get('k', 10_000_000), undefined)
  t.end()
})

test('entries and bytes are bounded; what was not asked for longest goes', (t) => {
  let evicted = 0
  const cache = new Cache({ ...cacheDefaults, success: { ...cacheDefaults.success, entries: 3 } }, () => evicted++)
  for (const k of ['a', 'b', 'c']) cache.put(k, yes(60), 0)
  cache.get('a', 1)
  cache.put('d', yes(60), 2)
  t.same(
    ['a', 'b', 'c', 'd'].map((k) => cache.get(k, 3) !== undefined),
    [true, false, true, true],
  )
  t.equal(evicted, 1)
  const bytes = new Cache({ ...cacheDefaults, denial: { ...cacheDefaults.denial, bytes: 100_000 } })
  for (let i = 0; i < 50_000; i++) bytes.put(`k${i}`, no(60, 60), 0)
  t.ok(bytes.bytes <= 100_000, `${bytes.bytes} bytes after 50,000 names that do not exist`)
  t.end()
})

const place = (now: () => number): Place => ({ zones: [root], server: 'dns://:53', options: {}, closing: () => {}, env: { ...site([]).env, metrics: meters(new Metrics()), now } })

test('the handler: hits, prefetch, stale', async (t) => {
  let now = 0
  let asked = 0
  let next: Answer = yes(60)
  const s = site([])
  const query = { question: { name: nameOf('example.com'), type: 1, class: 1 }, name: nameOf('example.com'), type: 1, edns: undefined, checkingDisabled: false } as never
  const handler = (settings: object): CacheHandler =>
    new CacheHandler(
      { zones: [root], cache: { ...cacheDefaults, stale: 3600 }, prefetch: undefined, verify: false, ...settings },
      place(() => now),
    )
  const ask = async (h: CacheHandler): Promise<string> => printAnswer(await h.answer(query, async () => (asked++, next)))
  const plain = handler({})
  t.equal(await ask(plain), 'NOERROR\nexample.com. 60 A 10.0.0.1')
  now = 30_000
  t.equal(await ask(plain), 'NOERROR\nexample.com. 30 A 10.0.0.1')
  t.equal(asked, 1)
  next = yes(60, '10.0.0.2')
  now = 61_000
  t.equal(await ask(plain), 'NOERROR\nexample.com. 30 A 10.0.0.1', 'stale at once, asked behind')
  await new Promise((r) => setImmediate(r))
  t.equal(await ask(plain), 'NOERROR\nexample.com. 60 A 10.0.0.2')
  const verify = handler({ verify: true })
  await ask(verify)
  now += 61_000
  next = bare(2, 'forward', 'down')
  t.equal(await ask(verify), 'NOERROR\nexample.com. 30 A 10.0.0.2', 'stale only after upstream failed')
  next = no(60, 60)
  t.equal(await ask(verify), 'NXDOMAIN')
  const early = handler({ prefetch: { amount: 2, share: 0.5 } })
  next = yes(60)
  await ask(early)
  asked = 0
  now += 20_000
  await ask(early)
  t.equal(asked, 0)
  now += 20_000
  await ask(early)
  t.equal(asked, 1, 'renewed before it expires')
  s.configuration.close()
})

test('what our own tables answer is never kept', async (t) => {
  const s = site([namespace('shop')], { corefile: '. {\n cache 3600\n kubernetes cluster.local\n}' })
  t.match(await s.ask('api.shop.svc.cluster.local'), /NXDOMAIN/)
  s.put(service('shop/api', { clusterIP: '10.96.8.20' }))
  t.match(await s.ask('api.shop.svc.cluster.local'), /10\.96\.8\.20/)
})
