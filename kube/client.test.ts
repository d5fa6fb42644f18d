import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type Test } from 'tap'
import { ApiError, connect, isConflict, isNotFound, type WatchEvent } from './client.ts'
import { parseKubeconfig } from './credentials.ts'
import { discover } from './discovery.ts'
import { recorder } from './events.ts'
import type { Service } from './objects.ts'
import { events, pods, resourceOf, services, pathOf, nodes, endpointslices } from './resources.ts'
import { FakeApi } from './testing/api.ts'
import { pod, service } from './testing/builders.ts'

test('objects are made, read, changed by every kind of patch, and deleted', async (t) => {
  await using api = await FakeApi.start()
  const client = await api.client()
  const made = await client.create(services, service('demo/web', { clusterIP: '10.96.0.20' }))
  t.match(made, { apiVersion: 'v1', kind: 'Service', metadata: { name: 'web', namespace: 'demo', uid: /./ } })
  t.match(await client.get(services, 'web', 'demo'), made)
  t.equal(await client.find(services, 'other', 'demo'), undefined)
  await client.update(services, { ...made, metadata: { ...made.metadata, labels: { a: '1' } } })
  await client.patch(services, 'web', 'demo', { metadata: { labels: { b: '2' } } }, 'merge')
  await client.patch(services, 'web', 'demo', [{ op: 'remove', path: '/metadata/labels/a' }], 'json')
  await client.patch(services, 'web', 'demo', { spec: { ports: [{ port: 80, name: 'http' }] } }, 'strategic')
  const patched = await client.patch(services, 'web', 'demo', { status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } } }, 'merge', { subresource: 'status' })
  t.match(patched, { metadata: { labels: { b: '2' } }, spec: { ports: [{ port: 80, name: 'http', targetPort: 80 }] }, status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } } })
  t.strictSame(patched.metadata.labels, { b: '2' })
  const types = api.requests.filter((r) => r.verb === 'patch').map((r) => r.headers['content-type'])
  t.strictSame(types, ['application/merge-patch+json', 'application/json-patch+json', 'application/strategic-merge-patch+json', 'application/merge-patch+json'])
  await client.delete(services, 'web', 'demo', { uid: made.metadata.uid })
  t.equal(api.all(services).length, 0)
})

test('what the server refuses is an ApiError with its words', async (t) => {
  await using api = await FakeApi.start()
  const client = await api.client()
  api.put(service('demo/web'))
  t.ok(holds(await thrown(client.get(services, 'nope', 'demo')), (e) => isNotFound(e) && e.message === 'services "nope" not found'))
  t.ok(holds(await thrown(client.create(services, service('demo/web'))), (e) => isConflict(e) && e.reason === 'AlreadyExists'))
  t.ok(holds(await thrown(client.update(services, service('demo/web', {}, { metadata: { resourceVersion: '1' } }))), (e) => isConflict(e) && e.reason === 'Conflict'))
  t.ok(holds(await thrown(client.delete(services, 'web', 'demo', { uid: 'other' })), (e) => isConflict(e)))
  await t.rejects(client.list(services, { labelSelector: 'a in (b' }), { code: 400, reason: 'BadRequest' })
  api.misbehave({ trouble: { code: 429, retryAfter: 3 }, times: 1 })
  t.ok(holds(await thrown(client.list(services)), (e) => e instanceof ApiError && e.code === 429 && e.retryAfter === 3000))
  api.misbehave({ trouble: { code: 502, text: '<html>Bad Gateway</html>' }, times: 1 })
  await t.rejects(client.list(services), { code: 502, message: /GET .*services: 502 <html>Bad Gateway/ })
})

test('a lost connection names the request, and is not repeated for writes', async (t) => {
  await using api = await FakeApi.start()
  const client = await api.client()
  for (const trouble of ['reset', 'cut', 'garbage'] as const) {
    api.misbehave({ trouble, verbs: ['list'], times: 2 })
    await t.rejects(client.list(services), { message: /GET http:\/\/127\.0\.0\.1:\d+\/api\/v1\/services/ })
    api.behave()
  }
  await client.list(services)
  api.misbehave({ trouble: 'reset', verbs: ['create'] })
  await t.rejects(client.create(services, service('demo/web')), /POST/)
  t.equal(api.requests.filter((r) => r.verb === 'create').length, 1)
  api.behave()
  api.misbehave({ trouble: 'silence' })
  const impatient = connect(client.credentials, { timeout: 50 })
  t.ok(holds(await thrown(impatient.list(services)), (e) => /no answer within 50 ms/.test(String((e as Error).cause))))
  const ended = new AbortController()
  const asked = client.list(services, { signal: ended.signal })
  setTimeout(() => ended.abort(new Error('enough')), 20)
  t.ok(holds(await thrown(asked), (e) => /enough/.test(String((e as Error).cause))))
})

test('a GET on a kept connection that the server has closed meanwhile is asked again', async (t) => {
  let served = 0
  const server = http.createServer((request, response) => {
    served++
    // The second request of a connection finds it closed, as when an idle time ran out just now.
    if (served === 2) return void request.socket.resetAndDestroy()
    response.end(JSON.stringify({ kind: 'ServiceList', metadata: { resourceVersion: '1' }, items: null }))
  })
  const url = await listening(t, server)
  const client = connect(
    await parseKubeconfig(JSON.stringify({ clusters: [{ name: 'c', cluster: { server: `${url}/prefix` } }], contexts: [{ name: 'x', context: { cluster: 'c' } }], 'current-context': 'x' })),
  )
  t.strictSame((await client.list(services)).items, [], 'a list that is null is empty')
  await client.list(services)
  t.equal(served, 3)
  client.close()
})

async function listening(t: Test, server: http.Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

test('a watch gives events whole, however the bytes are cut, with their kind', async (t) => {
  const object = { metadata: { name: 'wéb', namespace: 'demo', resourceVersion: '5' }, spec: {} }
  const bytes = Buffer.from(
    ['ADDED', 'MODIFIED', 'DELETED'].map((type) => `${JSON.stringify({ type, object })}\n`).join('') + `${JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion: '9' } } })}\n`,
  )
  const server = http.createServer((request, response) => {
    const size = Number(new URL(request.url!, 'http://x').searchParams.get('resourceVersion'))
    void (async () => {
      for (let at = 0; at < bytes.length; at += size) {
        response.write(bytes.subarray(at, at + size))
        if (size < 50) await new Promise(setImmediate)
      }
      response.end()
    })()
  })
  const url = await listening(t, server)
  const client = connect(await parseKubeconfig(JSON.stringify({ clusters: [{ name: 'c', cluster: { server: url } }], contexts: [{ name: 'x', context: { cluster: 'c' } }], 'current-context': 'x' })))
  for (const size of [1, 2, 7, 64, 200, 10_000]) {
    const seen: WatchEvent<Service>[] = []
    for await (const event of client.watch(services, { resourceVersion: String(size) })) seen.push(event)
    t.strictSame(
      seen.map((e) => `${e.type} ${e.object.metadata.name ?? ''} ${e.object.kind ?? ''} ${e.object.metadata.resourceVersion}`),
      ['ADDED wéb Service 5', 'MODIFIED wéb Service 5', 'DELETED wéb Service 5', 'BOOKMARK   9'],
      `cut at every ${size}`,
    )
  }
  client.close()
})

test('a watch ends with the server, fails when cut, and lets go when its reader stops', async (t) => {
  await using api = await FakeApi.start()
  const client = await api.client()
  api.put(service('demo/web'))
  const reading = (async () => {
    for await (const _ of client.watch(services));
  })()
  await api.until(() => api.watches() === 1)
  api.endWatches()
  await reading
  const failing = (async () => {
    for await (const _ of client.watch(services));
  })()
  await api.until(() => api.watches() === 1)
  api.resetWatches()
  await t.rejects(failing, /GET .*watch=true/)
  api.compact()
  await t.rejects(
    (async () => {
      for await (const _ of client.watch(services, { resourceVersion: '1' }));
    })(),
    { code: 410, reason: 'Expired' },
  )
  for await (const event of client.watch(services)) {
    t.equal(event.type, 'ADDED')
    break
  }
  await api.until(() => api.watches() === 0)
})

test('lists that Go writes as null are empty lists', async (t) => {
  const item = '{"metadata":{"name":"web-x","namespace":"demo","resourceVersion":"2"},"addressType":"IPv4","endpoints":null,"ports":null}'
  const server = http.createServer((request, response) =>
    response.end(request.url!.includes('watch') ? `{"type":"ADDED","object":${item}}\n` : `{"metadata":{"resourceVersion":"2"},"items":[${item}]}`),
  )
  const url = await listening(t, server)
  const client = connect(await parseKubeconfig(JSON.stringify({ clusters: [{ name: 'c', cluster: { server: url } }], contexts: [{ name: 'x', context: { cluster: 'c' } }], 'current-context': 'x' })))
  t.match((await client.list(endpointslices)).items, [{ endpoints: [], ports: [] }])
  for await (const { object } of client.watch(endpointslices)) t.match(object, { endpoints: [], ports: [] })
  client.close()
})

test('warnings are told', async (t) => {
  const server = http.createServer((_request, response) => response.writeHead(201, { Warning: '299 - "first \\"word\\"", 299 - "second"' }).end('{"metadata":{"name":"x"}}'))
  const url = await listening(t, server)
  const client = connect(await parseKubeconfig(JSON.stringify({ clusters: [{ name: 'c', cluster: { server: url } }], contexts: [{ name: 'x', context: { cluster: 'c' } }], 'current-context': 'x' })))
  const told: string[] = []
  await client.create(services, service('demo/web'), { warned: (w) => told.push(w) })
  t.strictSame(told, ['first "word"', 'second'])
  client.close()
})

test('paths are those of the API', async (t) => {
  t.equal(pathOf(nodes, undefined, 'n1', 'status'), '/api/v1/nodes/n1/status')
  t.equal(pathOf(endpointslices, 'demo'), '/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices')
  t.equal(pathOf(endpointslices), '/apis/discovery.k8s.io/v1/endpointslices')
  t.equal(resourceOf('v1', 'Pod'), pods)
  t.equal(resourceOf('v1', 'Deployment'), undefined)
})

test('the kinds a server serves are discovered', async (t) => {
  await using api = await FakeApi.start()
  const found = await discover(await api.client())
  t.match(
    found.find((r) => r.plural === 'endpointslices'),
    { group: 'discovery.k8s.io', version: 'v1', kind: 'EndpointSlice', namespaced: true },
  )
  t.match(
    found.find((r) => r.plural === 'nodes'),
    { group: '', version: 'v1', kind: 'Node', namespaced: false },
  )
})

test('an event told again raises its count, a flood about one object is cut, failures harm nobody', async (t) => {
  await using api = await FakeApi.start()
  const web = api.put(pod('demo/web'))
  const other = api.put(pod('demo/other'))
  const r = recorder(await api.client(), 'test', { burst: 5, now: () => new Date('2026-01-01T00:00:00Z') })
  for (let i = 0; i < 3; i++) r.event(web, 'Warning', 'BackOff', 'again')
  r.event(web, 'Normal', 'Started', 'Started container')
  await r.flush()
  t.match(
    api.all(events).find((e) => e.reason === 'BackOff'),
    { type: 'Warning', count: 3, message: 'again', involvedObject: { kind: 'Pod', name: 'web', namespace: 'demo', uid: web.metadata.uid! }, source: { component: 'test' } },
  )
  for (let i = 0; i < 50; i++) r.event(web, 'Warning', 'Flood', `number ${i}`)
  await r.flush()
  t.equal(api.all(events).length, 3, 'five about this Pod, three of them the same')
  api.misbehave({ trouble: { code: 500 }, times: 1 })
  r.event(other, 'Normal', 'Lost', 'lost')
  r.event(other, 'Normal', 'Told', 'told')
  await r.flush()
  t.strictSame(
    api
      .all(events)
      .filter((e) => e.involvedObject.name === 'other')
      .map((e) => e.reason),
    ['Told'],
  )
})

/** What a promise is rejected with. */
async function thrown(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error('it was not rejected'),
    (error: unknown) => error,
  )
}

function holds(error: unknown, claim: (e: unknown) => boolean): boolean {
  return claim(error)
}
