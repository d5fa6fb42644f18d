import { test, type Test } from 'tap'
import { configmaps, endpoints, endpointslices, events, namespaces, nodes, pods, secrets, serviceaccounts, services } from '../../kube/resources.ts'
import { FakeApi } from '../../kube/testing/api.ts'
import { lease, meta, namespace, node, object, pod, secret, service } from '../../kube/testing/builders.ts'
import { silent } from '../../lib/log.ts'
import type { Controller, ControllerOptions } from './controller.ts'
import { binder } from './binder.ts'
import { endpointsController, mirroring } from './endpoints.ts'
import { endpointSliceController } from './endpointslices.ts'
import { eviction, staysFor } from './eviction.ts'
import { garbageCollector } from './garbage.ts'
import { startControllers } from './main.ts'
import { kubernetesService } from './kubernetes.ts'
import { loadBalancers } from './loadbalancers.ts'
import { namespaceController } from './namespaces.ts'
import { nodeLifecycle } from './nodes.ts'
import { podCidrs } from './podcidrs.ts'
import { serviceAccounts } from './serviceaccounts.ts'

async function running(t: Test, only: readonly Controller[], given: Parameters<FakeApi['putAll']>[0] = [], options: Partial<ControllerOptions> = {}): Promise<FakeApi> {
  const api = await FakeApi.start()
  const ended = new AbortController()
  api.putAll(given)
  t.teardown(async () => {
    ended.abort()
    await api.close()
  })
  await startControllers({ client: await api.client(), log: silent, signal: ended.signal, only, options: { clusterCIDRs: ['10.244.0.0/16'], serviceCIDRs: ['10.96.0.0/16'], ...options } })
  return api
}

/** What the slices of a Service say, a line each. */
function said(api: FakeApi, name: string): readonly string[] {
  return api
    .all(endpointslices)
    .filter((s) => s.metadata.labels?.['kubernetes.io/service-name'] === name)
    .map((s) => {
      const list = s.endpoints.map(
        (e) =>
          `${e.addresses[0]}${e.nodeName === undefined ? '' : `@${e.nodeName}`}${e.conditions?.ready === true ? '' : e.conditions?.serving === true ? ' serving' : ' unready'}${e.conditions?.terminating === true ? ' terminating' : ''}`,
      )
      return `${s.addressType} ${s.ports?.map((p) => `${p.name}:${p.port}/${p.protocol}`).join() ?? ''} [${list.sort().join(', ')}]`
    })
    .sort()
}

const labels = { app: 'web' }
const web = service('demo/web', { selector: labels, clusterIP: '10.96.0.20', ports: ['http:80->web'] })
const n1 = node('n1', { ip: '192.168.56.11', zone: 'a' })
const n2 = node('n2', { ip: '192.168.56.12', zone: 'b' })
const a = pod('demo/a', { ip: '10.244.1.2', node: 'n1', labels, ports: ['web:8080'] })
const b = pod('demo/b', { ip: '10.244.2.2', node: 'n2', labels, ports: ['web:8080'] })

test('slices follow Pods as they become ready, terminate and go', async (t) => {
  const api = await running(t, [endpointSliceController], [n1, n2, web])
  await api.until(() => said(api, 'web').length === 1)
  t.strictSame(said(api, 'web'), ['IPv4  []'], 'an empty slice says that there are none')
  api.put(pod('demo/a', { ip: '10.244.1.2', node: 'n1', labels, ports: ['web:8080'], ready: false }))
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1 unready]')
  api.put(a)
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1]')
  api.put(b)
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1, 10.244.2.2@n2]')
  api.put({ ...a, metadata: { ...a.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' } })
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1 serving terminating, 10.244.2.2@n2]')
  api.remove(a)
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.2.2@n2]')
  const [slice] = api.all(endpointslices)
  t.match(slice, {
    metadata: {
      name: /^web-/,
      labels: { 'kubernetes.io/service-name': 'web', 'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io' },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Service', name: 'web', controller: true, uid: api.read(services, 'demo/web')!.metadata.uid! }],
    },
    endpoints: [{ zone: 'b', targetRef: { kind: 'Pod', name: 'b', namespace: 'demo' } }],
  })
  t.equal(api.requests.filter((r) => r.verb === 'create').length, 1, 'one slice all the time: rewritten, never replaced')
  api.remove(web)
  await api.until(() => said(api, 'web').length === 0)
})

test('a changed selector changes the slices, and a Pod whose labels change leaves', async (t) => {
  const api = await running(t, [endpointSliceController], [n1, n2, web, a, pod('demo/c', { ip: '10.244.1.9', labels: { app: 'other' }, ports: ['web:9090'] })])
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1]')
  api.put({ ...web, spec: { ...web.spec, selector: { app: 'other' } } })
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:9090/TCP [10.244.1.9]')
  api.put(pod('demo/c', { ip: '10.244.1.9', labels: { app: 'third' }, ports: ['web:9090'] }))
  await api.until(() => said(api, 'web')[0]?.endsWith('[]') === true)
  t.pass()
})

test('a slice that another hand deletes or changes is put right', async (t) => {
  const api = await running(t, [endpointSliceController], [n1, web, a])
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1]')
  api.remove(api.all(endpointslices)[0]!)
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1]')
  api.put({ ...api.all(endpointslices)[0]!, endpoints: [] })
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1]')
  t.pass()
})

test('a ready Pod stands in a slice within 100 ms', async (t) => {
  const api = await running(t, [endpointSliceController], [n1, web])
  await api.until(() => said(api, 'web').length === 1)
  const times: number[] = []
  for (let i = 0; i < 20; i++) {
    const began = performance.now()
    const ip = `10.244.1.${10 + i}`
    api.put(pod(`demo/p${i}`, { ip, node: 'n1', labels, ports: ['web:8080'] }))
    await api.until(() => said(api, 'web').join().includes(ip))
    times.push(performance.now() - began)
  }
  // The middle one: on a busy machine a single one says more about the machine.
  const middle = times.toSorted((x, y) => x - y)[10]!
  t.ok(middle < 100, `${middle.toFixed(1)} ms`)
})

test('after 409 and lost answers the slices end up right, without doubles', async (t) => {
  const api = await running(t, [endpointSliceController], [n1, web])
  await api.until(() => said(api, 'web').length === 1)
  api.misbehave({ verbs: ['update'], resource: 'endpointslices', trouble: { code: 409 }, times: 2 })
  api.misbehave({ verbs: ['update', 'create'], resource: 'endpointslices', trouble: 'lost answer', times: 2 })
  for (let i = 0; i < 150; i++) api.put(pod(`demo/p${i}`, { ip: `10.244.1.${i}`, node: 'n1', labels, ports: ['web:8080'] }))
  await api.until(() => new Set(api.all(endpointslices).flatMap((s) => s.endpoints.map((e) => e.addresses[0]))).size === 150)
  t.equal(api.all(endpointslices).flatMap((s) => s.endpoints).length, 150)
  t.ok(api.all(endpointslices).every((s) => s.endpoints.length <= 100))
})

test('Pods go to the Ready node with the fewest Pods that selector and taints allow', async (t) => {
  const api = await running(
    t,
    [binder],
    [
      n1,
      node('n2', { labels: { disk: 'ssd' } }),
      node('n3', { ready: false }),
      node('n4', { spec: { taints: [{ key: 'only', value: 'gpu', effect: 'NoSchedule' }] } }),
      pod('demo/here', { node: 'n1' }),
      pod('demo/p1'),
    ],
  )
  const where = (name: string): string | undefined => api.read(pods, `demo/${name}`)?.spec.nodeName
  await api.until(() => where('p1') === 'n2')
  api.put(pod('demo/p2'))
  await api.until(() => where('p2') === 'n1', 'the tie goes to the first')
  api.put(pod('demo/ssd', { spec: { nodeSelector: { disk: 'ssd' } } }))
  await api.until(() => where('ssd') === 'n2')
  api.put(pod('demo/gpu', { spec: { tolerations: [{ key: 'only', operator: 'Exists' }] } }))
  await api.until(() => where('gpu') === 'n4')
  await api.until(() => api.all(events).some((e) => e.reason === 'Scheduled' && e.message === 'Successfully assigned demo/p1 to n2'))
  t.pass()
})

test('many Pods at once are spread evenly', async (t) => {
  const api = await running(t, [binder], [n1, n2, node('n3')])
  for (let i = 0; i < 30; i++) api.put(pod(`demo/p${i}`))
  await api.until(() => api.all(pods).every((p) => p.spec.nodeName !== undefined))
  for (const n of ['n1', 'n2', 'n3']) t.equal(api.all(pods).filter((p) => p.spec.nodeName === n).length, 10)
})

test('a Pod that fits nowhere says why, and goes when a node can take it', async (t) => {
  const api = await running(t, [binder], [n1, pod('demo/p', { spec: { nodeSelector: { disk: 'ssd' } } })])
  await api.until(() => api.all(events).some((e) => e.reason === 'FailedScheduling'))
  t.equal(api.all(events)[0]!.message, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
  await api.until(() => api.read(pods, 'demo/p')?.status?.conditions?.some((c) => c.type === 'PodScheduled' && c.reason === 'Unschedulable') === true)
  api.put(node('n1', { labels: { disk: 'ssd' } }))
  await api.until(() => api.read(pods, 'demo/p')?.spec.nodeName === 'n1')
  t.equal(api.all(events).filter((e) => e.reason === 'FailedScheduling').length, 1)
})

test('each node gets a range of its own, of both families', async (t) => {
  const api = await running(t, [podCidrs], [node('n1', { podCIDR: '10.244.1.0/24' }), node('n2'), node('n3')], { clusterCIDRs: ['10.244.0.0/16', 'fd00:10:244::/56'] })
  await api.until(() => api.all(nodes).every((n) => n.spec?.podCIDR !== undefined))
  const given = api.all(nodes).map((n) => n.spec!.podCIDRs!.join())
  t.strictSame(given.toSorted(), ['10.244.0.0/24,fd00:10:244::/64', '10.244.1.0/24', '10.244.2.0/24,fd00:10:244:1::/64'])
})

test('many nodes at once get different parts, even while the watch says nothing and answers are lost', async (t) => {
  const api = await FakeApi.start()
  const ended = new AbortController()
  t.teardown(async () => {
    ended.abort()
    await api.close()
  })
  const names = Array.from({ length: 60 }, (_, i) => `n${i}`)
  api.putAll(names.map((n) => node(n)))
  api.misbehave({ trouble: 'silence', verbs: ['watch'], resource: 'nodes' })
  api.misbehave({ trouble: 'lost answer', verbs: ['patch'], resource: 'nodes', times: 3 })
  await startControllers({ client: await api.client(), log: silent, signal: ended.signal, only: [podCidrs], options: { clusterCIDRs: ['10.244.0.0/16'], serviceCIDRs: [] } })
  await api.until(() => api.all(nodes).every((n) => n.spec?.podCIDR !== undefined))
  t.equal(new Set(api.all(nodes).map((n) => n.spec!.podCIDR)).size, names.length)
})

test('when no range is left a node waits for one that goes', async (t) => {
  const api = await running(t, [podCidrs], [node('n1'), node('n2'), node('n3')], { clusterCIDRs: ['10.244.0.0/23'] })
  await api.until(() => api.all(events).some((e) => e.reason === 'CIDRNotAvailable'))
  const without = api.all(nodes).find((n) => n.spec?.podCIDR === undefined)!
  const gone = api.all(nodes).find((n) => n.spec?.podCIDR !== undefined)!
  api.remove(gone)
  await api.until(() => api.read(nodes, without.metadata.name)?.spec?.podCIDR === gone.spec!.podCIDR)
  t.pass()
})

test('a node whose Lease stands still is unreachable and its Pods are not ready; when it speaks again the taints go', async (t) => {
  const api = await running(t, [nodeLifecycle, endpointSliceController], [n1, n2, lease('n1'), lease('n2'), web, a, b], { nodeGrace: 150 })
  const beat = setInterval(() => api.put(lease('n2')), 30)
  t.teardown(() => clearInterval(beat))
  await api.until(() => api.read(nodes, 'n1')?.status?.conditions?.find((c) => c.type === 'Ready')?.status === 'Unknown')
  await api.until(() => api.read(nodes, 'n1')?.spec?.taints?.length === 2)
  t.strictSame(
    api
      .read(nodes, 'n1')!
      .spec!.taints!.map((x) => `${x.key}:${x.effect}`)
      .sort(),
    ['node.kubernetes.io/unreachable:NoExecute', 'node.kubernetes.io/unreachable:NoSchedule'],
  )
  await api.until(() => said(api, 'web')[0] === 'IPv4 http:8080/TCP [10.244.1.2@n1 unready, 10.244.2.2@n2]')
  t.equal(api.read(nodes, 'n2')!.status!.conditions![0]!.status, 'True')
  api.put(lease('n1', new Date(Date.now() + 1000)))
  api.put({ ...n1, spec: { ...api.read(nodes, 'n1')!.spec } })
  await api.until(() => (api.read(nodes, 'n1')?.spec?.taints ?? []).length === 0)
  t.equal(api.read(nodes, 'n2')!.spec?.taints, undefined)
})

test('a cordoned node is tainted, and free again afterwards', async (t) => {
  const api = await running(t, [nodeLifecycle], [n1])
  api.put({ ...n1, spec: { unschedulable: true } })
  await api.until(() => api.read(nodes, 'n1')?.spec?.taints?.[0]?.key === 'node.kubernetes.io/unschedulable')
  api.put({ ...n1, spec: { taints: api.read(nodes, 'n1')!.spec!.taints! } })
  await api.until(() => (api.read(nodes, 'n1')?.spec?.taints ?? []).length === 0)
  t.pass()
})

test('the namespaces of every cluster and the Service kubernetes are there, and come back', async (t) => {
  const api = await running(t, [kubernetesService], [], { advertiseAddress: '192.168.56.11', advertisePort: 6443 })
  await api.until(() => api.read(endpoints, 'default/kubernetes') !== undefined)
  t.strictSame(
    api.all(namespaces).map((n) => n.metadata.name),
    ['default', 'kube-node-lease', 'kube-public', 'kube-system'],
  )
  t.match(api.read(services, 'default/kubernetes'), { spec: { clusterIP: '10.96.0.1', ports: [{ name: 'https', port: 443, targetPort: 6443 }] } })
  t.match(api.read(endpointslices, 'default/kubernetes'), { endpoints: [{ addresses: ['192.168.56.11'] }], ports: [{ name: 'https', port: 6443 }] })
  api.remove(api.read(endpointslices, 'default/kubernetes')!)
  await api.until(() => api.read(endpointslices, 'default/kubernetes') !== undefined)
})

test('every namespace has a default account and the certificate of the API', async (t) => {
  const api = await running(t, [serviceAccounts], [namespace('demo')], { rootCertificate: 'PEM' })
  await api.until(() => api.read(configmaps, 'demo/kube-root-ca.crt') !== undefined)
  t.ok(api.read(serviceaccounts, 'demo/default'))
  api.put(namespace('late'))
  await api.until(() => api.read(configmaps, 'late/kube-root-ca.crt') !== undefined)
  api.put({ ...api.read(configmaps, 'late/kube-root-ca.crt')!, data: { 'ca.crt': 'other' } })
  await api.until(() => api.read(configmaps, 'late/kube-root-ca.crt')?.data?.['ca.crt'] === 'PEM')
})

test('Endpoints of old clients follow Pods, and go with their Service', async (t) => {
  const api = await running(t, [endpointsController], [n1, n2, web, a, b])
  await api.until(() => api.read(endpoints, 'demo/web')?.subsets?.[0]?.addresses?.length === 2)
  t.match(api.read(endpoints, 'demo/web')!.subsets, [
    { addresses: [{ ip: '10.244.1.2', nodeName: 'n1', targetRef: { kind: 'Pod', name: 'a' } }, { ip: '10.244.2.2' }], ports: [{ name: 'http', port: 8080, protocol: 'TCP' }] },
  ])
  api.put(pod('demo/b', { ip: '10.244.2.2', node: 'n2', labels, ports: ['web:8080'], ready: false }))
  await api.until(() => api.read(endpoints, 'demo/web')?.subsets?.[0]?.notReadyAddresses?.[0]?.ip === '10.244.2.2')
  api.remove(web)
  await api.until(() => api.all(endpoints).length === 0)
})

test('hand-made Endpoints of a Service without selector are mirrored, both families, and follow', async (t) => {
  const outside = service('demo/db', { clusterIP: '10.96.0.30', ports: ['db:5432'] })
  const made = {
    ...object('v1', 'Endpoints', 'demo/db'),
    subsets: [{ addresses: [{ ip: '192.0.2.1' }, { ip: '2001:db8::1' }], notReadyAddresses: [{ ip: '192.0.2.2' }], ports: [{ name: 'db', port: 5432 }] }],
  }
  const api = await running(t, [mirroring, endpointsController], [outside, made])
  await api.until(() => said(api, 'db').length === 2)
  t.strictSame(said(api, 'db'), ['IPv4 db:5432/TCP [192.0.2.1, 192.0.2.2 unready]', 'IPv6 db:5432/TCP [2001:db8::1]'])
  api.put({ ...made, subsets: [{ addresses: [{ ip: '192.0.2.9' }], ports: [{ name: 'db', port: 5432 }] }] })
  await api.until(() => said(api, 'db').join() === 'IPv4 db:5432/TCP [192.0.2.9]')
  api.put({ ...made, metadata: meta('demo/db', { labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } }) })
  await api.until(() => said(api, 'db').length === 0)
})

test('a namespace that is being deleted is emptied, and goes when its last Pod has stopped', async (t) => {
  const api = await running(t, [namespaceController], [namespace('demo'), namespace('other'), web, a, secret('demo/s', { k: 'v' }), secret('other/s', { k: 'v' })])
  const client = await api.client()
  await client.delete(namespaces, 'demo')
  await api.until(() => api.read(services, 'demo/web') === undefined && api.read(pods, 'demo/a')?.metadata.deletionTimestamp !== undefined)
  await api.until(
    () => api.read(namespaces, 'demo')?.status?.conditions?.find((c) => c.type === 'NamespaceContentRemaining')?.message === 'Some resources are remaining: pods. has 1 resource instances',
  )
  await client.delete(pods, 'a', 'demo', { gracePeriodSeconds: 0 })
  await api.until(() => api.read(namespaces, 'demo') === undefined)
  t.ok(api.read(secrets, 'other/s'), 'nothing outside is touched')
  t.notOk(api.read(secrets, 'demo/s'))
})

test('what belongs to an object goes with it; what belongs to its namesake, or also to another, stays', async (t) => {
  const api = await running(t, [garbageCollector])
  const owner = api.put(service('demo/owner'))
  const other = api.put(service('demo/other'))
  const ref = (o: typeof owner, uid = o.metadata.uid!) => ({ apiVersion: 'v1', kind: 'Service', name: o.metadata.name, uid })
  const child = (name: string, ...refs: ReturnType<typeof ref>[]) => api.put({ ...secret(`demo/${name}`, {}), metadata: meta(`demo/${name}`, { ownerReferences: refs }) })
  child('one', ref(owner))
  child('both', ref(owner), ref(other))
  child('stale', ref(owner, 'uid-of-an-earlier-one'))
  api.put({ ...secret('elsewhere/wrong', {}), metadata: meta('elsewhere/wrong', { ownerReferences: [ref(owner)] }) })
  api.put({ ...secret('demo/foreign', {}), metadata: meta('demo/foreign', { ownerReferences: [{ apiVersion: 'example.com/v1', kind: 'Thing', name: 'x', uid: 'y' }] }) })
  await api.until(() => api.read(secrets, 'demo/stale') === undefined, 'an owner of another uid is gone')
  await api.until(() => api.read(secrets, 'elsewhere/wrong') === undefined, 'an owner lives in the same namespace')
  t.ok(api.read(secrets, 'demo/one'))
  api.remove(owner)
  const again = api.put(service('demo/owner'))
  child('new', ref(again))
  await api.until(() => api.read(secrets, 'demo/one') === undefined)
  await api.until(() => api.read(secrets, 'demo/both')?.metadata.ownerReferences?.length === 1)
  t.ok(api.read(secrets, 'demo/new'))
  t.ok(api.read(secrets, 'demo/foreign'), 'of a kind that is not served nobody knows')
})

test('load balancers get addresses from the pool, the one asked for if it is free, and give them back', async (t) => {
  const lb = (name: string, spec = {}) => service(`demo/${name}`, { type: 'LoadBalancer', ...spec })
  const api = await running(t, [loadBalancers], [lb('a'), lb('asks', { loadBalancerIP: '203.0.113.10' }), lb('foreign', { loadBalancerClass: 'other.example/lb' })], {
    loadBalancerCIDRs: ['203.0.113.8/30'],
  })
  const given = (name: string): string =>
    api
      .read(services, `demo/${name}`)
      ?.status?.loadBalancer?.ingress?.map((i) => i.ip)
      .join() ?? ''
  await api.until(() => given('a') !== '' && given('asks') !== '')
  t.equal(given('a'), '203.0.113.9')
  t.equal(given('asks'), '203.0.113.10')
  api.put(lb('b'))
  await api.until(() => api.all(events).some((e) => e.message?.includes('no IPv4 address is left') === true))
  t.equal(given('b') + given('foreign'), '', 'nobody shares')
  api.remove(lb('a'))
  await api.until(() => given('b') === '203.0.113.9')
})

const unreachable = { key: 'node.kubernetes.io/unreachable', effect: 'NoExecute', timeAdded: '2026-01-01T00:00:00Z' } as const
const at = Date.parse('2026-01-01T00:01:00Z')
const stays: readonly (readonly [
  name: string,
  taints: NonNullable<Parameters<typeof staysFor>[1]['spec']>['taints'],
  tolerations: NonNullable<Parameters<typeof staysFor>[0]['spec']['tolerations']>,
  left: number | undefined,
])[] = [
  ['without taints for ever', [], [], undefined],
  ['NoSchedule does not matter', [{ key: 'a', effect: 'NoSchedule' }], [], undefined],
  ['an unreachable node is borne five minutes', [unreachable], [], 240_000],
  ['or as long as the Pod says', [unreachable], [{ key: unreachable.key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 90 }], 30_000],
  ['or for ever', [unreachable], [{ operator: 'Exists' }], undefined],
  ['another taint not at all', [{ key: 'a', effect: 'NoExecute' }], [], 0],
  ['the first of several decides', [unreachable, { key: 'a', value: 'x', effect: 'NoExecute', timeAdded: '2026-01-01T00:00:50Z' }], [{ key: 'a', value: 'x', tolerationSeconds: 15 }], 5000],
]
for (const [name, taints, tolerations, left] of stays) {
  test(`how long a Pod stays on a tainted node: ${name}`, async (t) => {
    t.equal(staysFor(pod('demo/a', { node: 'n1', spec: { tolerations } }), node('n1', { spec: { taints: taints ?? [] } }), at), left)
  })
}

test('Pods leave a node whose taint they do not bear, and are forgotten with a node that has gone', async (t) => {
  const api = await running(t, [eviction], [n1, n2, a, b, pod('demo/bears', { node: 'n1', spec: { tolerations: [{ operator: 'Exists' }] } })], { nodeGrace: 100 })
  api.put({ ...n1, spec: { taints: [{ key: 'out', effect: 'NoExecute' }] } })
  await api.until(() => api.read(pods, 'demo/a')?.metadata.deletionTimestamp !== undefined)
  t.equal(api.read(pods, 'demo/bears')?.metadata.deletionTimestamp, undefined)
  t.equal(api.read(pods, 'demo/b')?.metadata.deletionTimestamp, undefined)
  api.remove(n2)
  await api.until(() => api.read(pods, 'demo/b') === undefined)
})
