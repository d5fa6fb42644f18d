import { test } from 'tap'
import { namespace, pod, service, slice } from '../kube/testing/builders.ts'
import { candidates, printExplanation, settingsOf, walk } from './explain.ts'
import { site } from './testing/site.ts'
import { printData } from './wire/data.ts'
import { printName } from './wire/name.ts'
import { rcodeName, typeName } from './wire/types.ts'

const objects = [
  namespace('shop'),
  namespace('other'),
  service('shop/api', { clusterIP: '10.96.8.20', ports: ['http:80'] }),
  service('shop/db', { clusterIP: 'None' }),
  service('other/db', { clusterIP: 'None' }),
  slice('other/db', ['10.244.1.5 hostname=db-0', '10.244.1.6']),
  service('shop/ext', { type: 'ExternalName', externalName: 'api.shop.svc.cluster.local', ports: [] }),
]
const inShop = settingsOf(pod('shop/p'), 'cluster.local')

test('the names a Pod tries', (t) => {
  const search = ['shop.svc.cluster.local.', 'svc.cluster.local.', 'cluster.local.']
  t.same(candidates('api', inShop), [...search.map((s) => `api.${s}`), 'api.'])
  t.same(candidates('api.shop.svc.cluster.local', inShop), [...search.map((s) => `api.shop.svc.cluster.local.${s}`), 'api.shop.svc.cluster.local.'], 'four dots are fewer than five')
  t.same(candidates('a.b.c.d.e.f', inShop)[0], 'a.b.c.d.e.f.')
  t.same(candidates('api.', inShop), ['api.'])
  t.match(settingsOf({ ...pod('shop/p'), spec: { containers: [], dnsPolicy: 'None', dnsConfig: { searches: ['x.org'], options: [{ name: 'ndots', value: '2' }] } } }, 'cluster.local'), {
    ndots: 2,
    search: ['x.org'],
  })
  t.match(settingsOf({ ...pod('shop/p'), spec: { containers: [], hostNetwork: true } }, 'cluster.local'), { ndots: 1, search: [] })
  t.end()
})

test('why a name has no answer, or this one', async (t) => {
  const s = site(objects)
  const why = async (name: string, type = 'A'): Promise<string> => (await walk(name, [type], { ndots: 0, search: [] }, s.server)).questions[0]!.why
  t.equal(await why('api.nowhere.svc.cluster.local'), 'Namespace nowhere does not exist')
  t.equal(await why('nobody.shop.svc.cluster.local'), 'Namespace shop has no Service nobody')
  t.equal(await why('db.shop.svc.cluster.local'), 'Service shop/db is headless and has no ready endpoint')
  t.equal(await why('_x._tcp.api.shop.svc.cluster.local'), 'Service shop/api has no such named port')
  t.equal(await why('db-9.db.other.svc.cluster.local'), 'Service other/db has no ready endpoint of this name (of 2)')
  t.equal(await why('api.shop.cluster.local'), 'below cluster.local. there are only svc and pod, no shop')
  t.equal(await why('api.shop.svc.cluster.local', 'AAAA'), 'the name exists, but has no record of this type')
  t.equal(await why('_tcp.api.shop.svc.cluster.local'), 'the name exists only because of names below it')
  t.equal(
    printExplanation(await walk('api', ['A', 'AAAA'], inShop, s.server, 'pod/shop/p')),
    `api from pod/shop/p: ndots 5, search shop.svc.cluster.local svc.cluster.local cluster.local
  api.shop.svc.cluster.local. A  NOERROR  [kubernetes] exists
      api.shop.svc.cluster.local. 5 A 10.96.8.20
      from Service shop/api
  api.shop.svc.cluster.local. AAAA  NOERROR (no data)  [kubernetes] the name exists, but has no record of this type
found as api.shop.svc.cluster.local.
`,
  )
  t.match(printExplanation(await walk('db.other', ['A'], inShop, s.server)), /from Service other\/db, EndpointSlice other\/db-abcde/)
})

test('what is said is what a query then gets', async (t) => {
  const s = site(objects)
  let seed = 20_261_123
  const random = (n: number): number => ((seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) >>> 8) % n
  const words = ['api', 'db', 'ext', 'nobody', 'shop', 'other', 'nowhere', 'svc', 'pod', 'cluster', 'local', 'db-0', '_http', '_tcp', '10-244-1-6', 'example', 'com']
  t.comment(`seed ${seed}`)
  for (let i = 0; i < 100; i++) {
    const name = random(2) === 0 ? Array.from({ length: 1 + random(4) }, () => words[random(words.length)]!).join('.') : `${words[random(8)]!}.${words[4 + random(3)]!}.svc.cluster.local`
    const said = await walk(name, ['A', 'AAAA', 'SRV'], inShop, s.server)
    for (const q of said.questions) {
      const m = (await s.message(q.name, q.type))!
      t.same(
        [q.rcode, q.answers],
        [rcodeName(m.rcode), m.answers.map((r) => ({ name: printName(r.name), ttl: r.ttl, type: typeName(r.type), data: printData(r.type, r.data) }))],
        `${q.name} ${q.type}`,
      )
    }
  }
})
