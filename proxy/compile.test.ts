import { test } from 'tap'
import { service, slice } from '../kube/testing/builders.ts'
import type { EndpointSlice, Service } from '../kube/objects.ts'
import { seeded } from '../lib/random.ts'
import { compile, Compiler } from './compile.ts'
import { reasons } from './testing/agree.ts'
import { flows, nodes, optionSets } from './testing/flows.ts'
import { seedNow } from './testing/tables.ts'

const seed = seedNow()
const plain = (c: ReturnType<typeof compile>): unknown => ({
  fronts: [...c.table.fronts].sort((a, b) => (a[0] < b[0] ? -1 : 1)),
  node: { ...c.table.node, clusterIps: [...c.table.node.clusterIps].sort() },
  refused: reasons(c).toSorted(),
  healthChecks: [...c.healthChecks].sort((a, b) => (a[0] < b[0] ? -1 : 1)),
})

test(`objects that come and go in any order give the table of what is left (seed ${seed})`, async (t) => {
  const random = seeded(seed)
  const all = [...new Set(flows.flatMap((f) => f.given))]
  const compiler = new Compiler(optionSets.usual)
  for (const n of nodes) compiler.node(n, undefined)
  const there = new Set<Service | EndpointSlice>()
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 12; i++) {
      const o = all[Math.floor(random() * all.length)]!
      const [now, before] = there.has(o) ? [undefined, o] : [o, undefined]
      if ('addressType' in o) compiler.slice(now as EndpointSlice | undefined, before as EndpointSlice | undefined)
      else compiler.service(now as Service | undefined, before as Service | undefined)
      if (now === undefined) there.delete(o)
      else there.add(o)
    }
    const [services, slices] = [[...there].filter((o): o is Service => !('addressType' in o)), [...there].filter((o): o is EndpointSlice => 'addressType' in o)]
    t.same(plain(compiler.compile()), plain(compile({ services, slices, nodes }, optionSets.usual)), `round ${round}`)
  }
})

test('what did not change keeps its identity', async (t) => {
  const compiler = new Compiler(optionSets.usual)
  const web = service('web', { clusterIP: '172.30.0.1', ports: ['http:80->8080'] })
  const [one, other] = [slice('web', ['10.180.0.1@here'], ['http:8080']), slice('web', ['10.180.0.2@here'], ['http:8080'])]
  compiler.service(web, undefined)
  compiler.service(service('still', { clusterIP: '172.30.0.2' }), undefined)
  compiler.slice(one, undefined)
  const a = compiler.compile()
  t.equal(compiler.compile(), a, 'nothing changed: the same value')
  compiler.slice({ ...one, metadata: { ...one.metadata, resourceVersion: '2' } }, one)
  t.equal(compiler.compile().table, a.table, 'a change that means nothing: the same table')
  compiler.slice(other, one)
  const b = compiler.compile()
  t.not(b.table, a.table)
  t.equal(b.table.fronts.get('tcp/172.30.0.2:80'), a.table.fronts.get('tcp/172.30.0.2:80'), 'the other Service keeps its front')
  t.equal(b.table.node, a.table.node, 'the node’s facts too')
})

test('what makes no sense is refused in words, the rest is served', async (t) => {
  const given = (name: string): string[] => {
    const objects = flows.find((f) => f.name === name)!.given
    return [
      ...reasons(compile({ services: objects.filter((o): o is Service => !('addressType' in o)), slices: objects.filter((o): o is EndpointSlice => 'addressType' in o), nodes }, optionSets.usual)),
    ]
  }
  t.same(given('a port number that makes no sense does not spoil the other port'), ['Service default/zero-port: port zero: 0 is not a port number (1 to 65535)'])
  t.same(given('endpoints that make no sense do not spoil the others').sort(), [
    'Service default/bad-endpoints: endpoint address "0.0.0.0" is the unspecified address',
    'Service default/bad-endpoints: endpoint address "127.0.0.1" is a loopback address',
    'Service default/bad-endpoints: endpoint address "169.254.1.1" is a link-local address',
    'Service default/bad-endpoints: endpoint address "224.0.0.1" is a multicast address',
    'Service default/bad-endpoints: endpoint address "999.1.1.1" is not an IP address',
    'Service default/bad-endpoints: endpoint address "nonsense" is not an IP address',
  ])
  t.match(given('of two services that want an address and port, the older gets it'), [
    'Service default/younger: the same address and port belong to Service default/older, which is older or comes first by name',
  ])
  t.match(given('an external IP outside the allowed ranges is not served'), ['Service default/external-elsewhere: external IP 192.0.2.1 is not inside --external-ip-ranges'])
  t.match(given('a source range that makes no sense opens nothing'), [/load balancer source range "nonsense" is not a network/])
})

test('policy Local: no endpoint here is a drop, none anywhere a refusal', async (t) => {
  const local = service('local', { clusterIP: '172.30.0.1', type: 'NodePort', internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30001'] })
  const outcomes = (slices: readonly EndpointSlice[]): unknown => {
    const { fronts } = compile({ services: [local], slices, nodes }, optionSets.usual).table
    return ['tcp/172.30.0.1:80', 'tcp/node4:30001'].map((key) => fronts.get(key)?.routes.map((r) => `${r.from}: ${r.outcome.kind}`))
  }
  t.same(outcomes([slice('local', ['10.180.2.1@there'], ['http:8080'])]), [['anyone: drop'], ['pods here: forward', 'this node: forward', 'anyone: drop']])
  t.same(outcomes([slice('local', ['10.180.0.1@here', '10.180.2.1@there'], ['http:8080'])]), [
    ['pods here: forward', 'anyone: forward'],
    ['pods here: forward', 'this node: forward', 'anyone: forward'],
  ])
  t.same(outcomes([]), [['anyone: reject'], ['anyone: reject']])
})
