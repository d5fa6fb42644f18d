import { connect } from 'node:net'
import tap, { test } from 'tap'
import { folder, start } from '../testing/plane.ts'

// A busy machine is no failure.
tap.setTimeout(120_000)

const plane = await start(folder(), ['--controllers=false'])
process.on('exit', () => plane.process.kill('SIGKILL'))

interface Answer {
  readonly code: number
  readonly body: any
  readonly headers: Headers
}

async function ask(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const r = await fetch(plane.url + path, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  const text = await r.text()
  let parsed: unknown = text
  try {
    parsed = JSON.parse(text)
  } catch {
    // Some answers are plain text.
  }
  return { code: r.status, body: parsed, headers: r.headers }
}

/** The events of a watch that lasts a second. */
async function watch(path: string, during: () => Promise<void> = async () => {}): Promise<readonly (readonly [string, any])[]> {
  const reading = fetch(`${plane.url}${path}${path.includes('?') ? '&' : '?'}watch=true&timeoutSeconds=1`)
  await new Promise((r) => setTimeout(r, 50))
  await during()
  const text = await (await reading).text()
  return text
    .split('\n')
    .filter((l) => l !== '')
    .map((l) => JSON.parse(l) as { type: string; object: any })
    .map((e) => [e.type, e.object] as const)
}

await ask('POST', '/api/v1/namespaces', { metadata: { name: 'a' } })
await ask('POST', '/api/v1/namespaces/a/serviceaccounts', { metadata: { name: 'default' } })
const maps = '/api/v1/namespaces/a/configmaps'
const services = '/api/v1/namespaces/a/services'

test('an object has a uid, a version and a creation time, and is found again', async (t) => {
  const made = await ask('POST', maps, { metadata: { name: 'c' }, data: { k: 'v' } })
  t.equal(made.code, 201)
  const { body } = await ask('GET', `${maps}/c`)
  t.match(body.metadata, { uid: /^[0-9a-f-]{36}$/, resourceVersion: /^\d+$/, creationTimestamp: /Z$/ })
  t.same([body.kind, body.apiVersion, body.data], ['ConfigMap', 'v1', { k: 'v' }])
  t.equal((await ask('POST', maps, { metadata: { name: 'c' } })).body.reason, 'AlreadyExists')
  t.equal((await ask('GET', `${maps}/none`)).body.message, 'configmaps "none" not found')
})

test('what needs a container runtime is refused in a sentence, also where the connection would change its protocol', async (t) => {
  const { port } = new URL(plane.url)
  for (const sub of ['attach', 'portforward']) {
    const path = `/api/v1/namespaces/a/pods/p/${sub}`
    t.match(await ask('POST', path), { code: 405, body: { kind: 'Status', reason: 'MethodNotAllowed', message: `switchyard does not serve pods/${sub}` } })
    const text = await new Promise<string>((resolve) => {
      const socket = connect(Number(port), '127.0.0.1', () => socket.write(`GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n`))
      let said = ''
      socket.on('data', (part) => (said += part.toString()))
      socket.on('close', () => resolve(said))
    })
    t.match(text, /^HTTP\/1\.1 405 /)
    t.match(text, new RegExp(`"kind":"Status".*switchyard does not serve pods/${sub}`))
  }
})

test('the range of Services is there to read, and nobody writes it', async (t) => {
  const path = '/apis/networking.k8s.io/v1/servicecidrs'
  const { body } = await ask('GET', path)
  t.match(body.items, [{ metadata: { name: 'kubernetes' }, spec: { cidrs: ['10.96.0.0/16'] }, status: { conditions: [{ type: 'Ready', status: 'True' }] } }])
  t.equal((await ask('POST', path, { metadata: { name: 'more' }, spec: { cidrs: ['10.97.0.0/24'] } })).code, 405)
  t.equal((await ask('DELETE', `${path}/kubernetes`)).code, 405)
  const { body: list } = await ask('GET', '/apis/networking.k8s.io/v1')
  t.same(list.resources.find((r: any) => r.name === 'servicecidrs').verbs, ['get', 'list', 'watch'])
})

test('a patch cannot rename an object nor say what it is', async (t) => {
  await ask('POST', maps, { metadata: { name: 'still' } })
  const patch = (body: unknown): ReturnType<typeof ask> => ask('PATCH', `${maps}/still`, body, { 'content-type': 'application/merge-patch+json' })
  t.match(await patch({ metadata: { name: 'other' } }), { code: 400, body: { message: 'the name of the object (other) does not match the name on the URL (still)' } })
  t.match(await patch({ metadata: { namespace: 'other' } }), { code: 400 })
  t.match(await patch({ kind: 'Pod', metadata: { creationTimestamp: '2020-01-01T00:00:00Z' } }), { code: 200, body: { kind: 'ConfigMap', metadata: { creationTimestamp: /^202[^0]/ } } })
})

test('an update at an old version is a conflict, one that changes nothing keeps the version', async (t) => {
  const first = (await ask('GET', `${maps}/c`)).body
  const second = (await ask('PUT', `${maps}/c`, { ...first, data: { k: 'w' } })).body
  t.not(second.metadata.resourceVersion, first.metadata.resourceVersion)
  t.equal((await ask('PUT', `${maps}/c`, { ...first, data: { k: 'x' } })).code, 409)
  t.equal((await ask('PUT', `${maps}/c`, second)).body.metadata.resourceVersion, second.metadata.resourceVersion)
})

test('of a hundred patches at once none is lost', async (t) => {
  await Promise.all(Array.from({ length: 100 }, (_, i) => ask('PATCH', `${maps}/c`, { data: { [`k${i}`]: `${i}` } }, { 'content-type': 'application/merge-patch+json' })))
  t.equal(Object.keys((await ask('GET', `${maps}/c`)).body.data).length, 101)
})

test('Services made at once get addresses and ports of their own, and give them back', async (t) => {
  const made = await Promise.all(Array.from({ length: 30 }, (_, i) => ask('POST', services, { metadata: { name: `s${i}` }, spec: { type: 'NodePort', ports: [{ port: 80 }] } })))
  t.ok(made.every((m) => m.code === 201))
  t.equal(new Set(made.map((m) => m.body.spec.clusterIP)).size, 30)
  t.equal(new Set(made.map((m) => m.body.spec.ports[0].nodePort)).size, 30)
  const { clusterIP, ports } = made[0]!.body.spec
  const again = { metadata: { name: 'again' }, spec: { type: 'NodePort', clusterIP, ports: [{ port: 80, nodePort: ports[0].nodePort }] } }
  t.match((await ask('POST', services, again)).body.message, /already allocated/)
  await ask('DELETE', `${services}/s0`)
  t.equal((await ask('POST', services, again)).code, 201)
  t.match((await ask('POST', services, { metadata: { name: 'out' }, spec: { clusterIP: '192.0.2.1', ports: [{ port: 80 }] } })).body.message, /not in the valid range/)
})

test('what is refused is refused in words that name the field', async (t) => {
  const { code, body } = await ask('POST', services, { metadata: { name: 'bad' }, spec: { ports: [{ port: 70_000 }, { port: 80 }] } })
  t.equal(code, 422)
  t.same(
    body.details.causes.map((c: any) => `${c.field}: ${c.message}`),
    [
      'spec.ports[0].name: Required value',
      'spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive',
      'spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive',
      'spec.ports[1].name: Required value',
    ],
  )
  const strict = await ask('POST', `${services}?fieldValidation=Strict`, '{"metadata":{"name":"x","name":"y"},"spec":{"foo":1,"ports":[{"port":80}]}}')
  t.equal(strict.body.message, 'Service in version "v1" cannot be handled as a Service: strict decoding error: duplicate field "metadata.name", unknown field "spec.foo"')
  const warned = await ask('POST', `${services}?dryRun=All`, '{"metadata":{"name":"x"},"spec":{"foo":1,"ports":[{"port":80}]}}')
  t.same([warned.code, warned.headers.get('warning')], [201, '299 - "unknown field \\"spec.foo\\""'])
})

test('a watch from a version tells what came after it, as its selector sees it', async (t) => {
  const from = (await ask('GET', maps)).body.metadata.resourceVersion
  const change = async (): Promise<void> => {
    await ask('POST', maps, { metadata: { name: 'w', labels: { w: '1' } } })
    await ask('POST', maps, { metadata: { name: 'other' } })
    await ask('PATCH', `${maps}/w`, { data: { a: '1' } }, { 'content-type': 'application/merge-patch+json' })
    await ask('PATCH', `${maps}/w`, { metadata: { labels: { w: '2' } } }, { 'content-type': 'application/merge-patch+json' })
    await ask('PATCH', `${maps}/other`, { metadata: { labels: { w: '1' } } }, { 'content-type': 'application/merge-patch+json' })
    await ask('DELETE', `${maps}/other`)
  }
  const path = `${maps}?labelSelector=w%3D1&resourceVersion=${from}`
  const live = await watch(path, change)
  t.same(
    live.map(([type, o]) => `${type} ${o.metadata.name}`),
    ['ADDED w', 'MODIFIED w', 'DELETED w', 'ADDED other', 'DELETED other'],
  )
  t.same(await watch(path), live, 'and the same again afterwards')
})

test('a watch that begins with everything ends the beginning with a bookmark', async (t) => {
  const events = await watch(`${maps}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&fieldSelector=metadata.name%3Dc`)
  t.same(
    events.map(([type]) => type),
    ['ADDED', 'BOOKMARK'],
  )
  t.equal(events[1]![1].metadata.annotations['k8s.io/initial-events-end'], 'true')
})

test('a list in pages shows one moment', async (t) => {
  const all = (await ask('GET', services)).body
  const first = (await ask('GET', `${services}?limit=10`)).body
  t.equal(first.metadata.remainingItemCount, all.items.length - 10)
  await ask('POST', services, { metadata: { name: 'zz' }, spec: { ports: [{ port: 80 }] } })
  await ask('DELETE', `${services}/s9`)
  const names = first.items.map((i: any) => i.metadata.name)
  for (let token = first.metadata.continue; token !== undefined;) {
    const page: any = (await ask('GET', `${services}?limit=10&continue=${encodeURIComponent(token)}`)).body
    t.equal(page.metadata.resourceVersion, first.metadata.resourceVersion)
    names.push(...page.items.map((i: any) => i.metadata.name))
    token = page.metadata.continue
  }
  t.same(
    names,
    all.items.map((i: any) => i.metadata.name),
  )
})

test('a version that is not here yet is waited for, then a timeout; a bad selector is a bad request', async (t) => {
  const { code, body, headers } = await ask('GET', `${maps}?resourceVersion=99999999`)
  t.same([code, body.details.causes[0].reason, headers.get('retry-after')], [504, 'ResourceVersionTooLarge', '1'])
  t.equal((await ask('GET', `${services}?fieldSelector=spec.foo%3Dbar`)).body.message, 'field label not supported: spec.foo')
  t.equal((await ask('GET', `${maps}?labelSelector=a%20in%20(b`)).code, 400)
})

test('server-side apply keeps owners: a conflict names them, force takes over, what is no longer named goes', async (t) => {
  const apply = (manager: string, data: Record<string, string>, more = ''): Promise<Answer> =>
    ask('PATCH', `${maps}/ssa?fieldManager=${manager}${more}`, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'ssa' }, data }, { 'content-type': 'application/apply-patch+yaml' })
  t.equal((await apply('me', { a: '1', b: '1' })).code, 201)
  t.equal((await apply('you', { a: '2' })).body.message, 'Apply failed with 1 conflict: conflict with "me": .data.a')
  const forced = (await apply('you', { a: '2' }, '&force=true')).body
  t.same(
    forced.metadata.managedFields.map((m: any) => [m.manager, m.fieldsV1]),
    [
      ['me', { 'f:data': { 'f:b': {} } }],
      ['you', { 'f:data': { 'f:a': {} } }],
    ],
  )
  t.same((await apply('me', {})).body.data, { a: '2' })
})

test('a Pod on a node gets time to end, one without a node goes at once', async (t) => {
  const pod = (name: string, nodeName?: string): object => ({ metadata: { name }, spec: { containers: [{ name: 'c', image: 'x' }], ...(nodeName === undefined ? {} : { nodeName }) } })
  await ask('POST', '/api/v1/namespaces/a/pods', pod('free'))
  await ask('POST', '/api/v1/namespaces/a/pods', pod('bound', 'n1'))
  await ask('DELETE', '/api/v1/namespaces/a/pods/free')
  t.equal((await ask('GET', '/api/v1/namespaces/a/pods/free')).code, 404)
  const { body } = await ask('DELETE', '/api/v1/namespaces/a/pods/bound')
  t.same([body.metadata.deletionGracePeriodSeconds, typeof body.metadata.deletionTimestamp], [30, 'string'])
  await ask('DELETE', '/api/v1/namespaces/a/pods/bound', { gracePeriodSeconds: 0 })
  t.equal((await ask('GET', '/api/v1/namespaces/a/pods/bound')).code, 404)
})

test('an object with a finalizer waits for it', async (t) => {
  await ask('POST', maps, { metadata: { name: 'f', finalizers: ['example.com/hold'] } })
  await ask('DELETE', `${maps}/f`)
  t.ok((await ask('GET', `${maps}/f`)).body.metadata.deletionTimestamp)
  await ask('PATCH', `${maps}/f`, { metadata: { finalizers: null } }, { 'content-type': 'application/merge-patch+json' })
  t.equal((await ask('GET', `${maps}/f`)).code, 404)
})

test('only the status is taken from a write to /status, and never by others', async (t) => {
  await ask('POST', '/apis/networking.k8s.io/v1/namespaces/a/ingresses', { metadata: { name: 'i' }, spec: { rules: [{ host: 'x.example.com' }] } })
  const path = '/apis/networking.k8s.io/v1/namespaces/a/ingresses/i'
  const ingress = (await ask('GET', path)).body
  const status = (await ask('PUT', `${path}/status`, { ...ingress, spec: {}, status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } } })).body
  t.same([status.spec, status.status.loadBalancer.ingress[0].ip], [ingress.spec, '192.0.2.1'])
  const spec = (await ask('PUT', path, { ...status, status: {}, spec: { rules: [{ host: 'y.example.com' }] } })).body
  t.same([spec.spec.rules[0].host, spec.status.loadBalancer.ingress[0].ip, spec.metadata.generation], ['y.example.com', '192.0.2.1', 2])
})

test('a body above three mebibytes is refused', async (t) => {
  t.equal((await ask('POST', maps, { metadata: { name: 'large' }, data: { a: 'x'.repeat(3_300_000) } })).code, 413)
})

test('it ends when asked', async () => {
  await plane.stop()
})
