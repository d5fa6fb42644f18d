import { test } from 'tap'
import http from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { FakeApi } from '../kube/testing/api.ts'
import { ingress, ingressClass, secret, service, slice } from '../kube/testing/builders.ts'
import { impatient, wrongs } from '../kube/testing/wrongs.ts'
import { events, ingresses } from '../kube/resources.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import { ask, backend, start, until } from './testing/run.ts'

void test('an Ingress is served by host and path, over TLS, changed while it runs, and its status written', async (t) => {
  await using api = await FakeApi.start()
  const one = await backend('one')
  const two = await backend('two')
  const authority = testAuthority()
  const { cert, key } = authority.issue('x.test')
  api.putAll([
    ingressClass('sy'),
    service('one', { ports: ['http:80'] }),
    slice('one', ['127.0.0.1@n1'], [`http:${one.port}`]),
    service('two', { ports: ['http:80'] }),
    slice('two', ['127.0.0.1@n1'], [`http:${two.port}`]),
    secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
    ingress('i', { 'x.test': { '/': 'one:http', '/two': 'two:80' } }, { class: 'sy', tls: { cert: ['x.test'] } }),
  ])
  const running = await start(api, '--publish-address', '192.0.2.7')
  t.equal(await ask({ port: running.https, ca: authority.ca, servername: 'x.test' }, 'x.test', '/secure'), '200 one GET /secure https')
  t.equal(await ask({ port: running.https, ca: authority.ca, servername: 'x.test' }, 'x.test', '/two/3'), '200 two GET /two/3 https')
  t.equal(await ask({ port: running.http }, 'unknown.test', '/'), '404 404 Not Found')
  await api.until(() => api.read(ingresses, 'default/i')?.status?.loadBalancer?.ingress?.[0]?.ip === '192.0.2.7', 'the status')

  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  api.put(ingress('j', { 'y.test': { '/': 'one:80' } }, { class: 'sy' }))
  await until(async () => (await ask({ port: running.http, agent }, 'y.test', '/')) === '200 one GET / http')
  api.put(ingress('j', { 'y.test': { '/': 'two:80' } }, { class: 'sy' }))
  await until(async () => (await ask({ port: running.http, agent }, 'y.test', '/')) === '200 two GET / http')
  api.put(slice('two', [], [`http:${two.port}`]))
  await until(async () => (await ask({ port: running.http, agent }, 'y.test', '/')).startsWith('503'))
  t.pass('routes and endpoints change on one kept connection')
  t.match(await ask({ port: running.status }, 'status', '/readyz'), /^200 ok/)
  t.match(await ask({ port: running.status }, 'status', '/metrics'), /nginx_ingress_controller_requests\{.*ingress="i",service="one".*status="200"\} 1/)
  agent.destroy()
  await running.end()
  one.close()
  two.close()
})

void test('what is not served as it says is told by Events on its Ingress', async (t) => {
  await using api = await FakeApi.start()
  const dates = (n: number): { creationTimestamp: string } => ({ creationTimestamp: `2026-01-01T00:00:0${n}Z` })
  api.putAll([
    ingressClass('sy'),
    ingress('old', { 'x.test': { '/': 'one:80' } }, { class: 'sy', metadata: dates(1) }),
    ingress('young', { 'x.test': { '/': 'one:80' } }, { class: 'sy', metadata: dates(2), annotations: { 'nginx.ingress.kubernetes.io/ssl-redirct': 'true' } }),
  ])
  const running = await start(api)
  const told = (): string[] => api.all(events).map((e) => `${e.involvedObject.name} ${e.type} ${e.reason}: ${e.message}`)
  await until(async () => told().length >= 4)
  t.ok(told().includes('young Warning Conflict: x.test/ is already served for the older Ingress default/old'))
  t.ok(told().includes('young Warning UnknownAnnotation: unknown annotation ssl-redirct, did you mean ssl-redirect?'))
  await running.end()
})

void test('classes apart: each on its own address, with its own Ingresses', async (t) => {
  await using api = await FakeApi.start()
  const one = await backend('one')
  api.putAll([
    ingressClass('public'),
    ingressClass('admin'),
    service('one', { ports: [80] }),
    slice('one', ['127.0.0.1@n1'], [one.port]),
    ingress('p', { 'x.test': { '/': 'one:80' } }, { class: 'public' }),
    ingress('a', { 'adm.test': { '/': 'one:80' } }, { class: 'admin' }),
  ])
  const running = await start(api, '--class', 'public', '--class', 'admin=127.0.0.1:0')
  const admin = Number(running.others[0]!.http!.split(':')[1])
  t.match(await ask({ port: running.http }, 'x.test', '/'), /^200/)
  t.match(await ask({ port: running.http }, 'adm.test', '/'), /^404/)
  t.match(await ask({ port: admin }, 'adm.test', '/'), /^200/)
  t.match(await ask({ port: admin }, 'x.test', '/'), /^404/)
  await running.end()
  one.close()
})

void test('client certificates are required where an Ingress says so; who names no host gets a placeholder', async (t) => {
  await using api = await FakeApi.start()
  const one = await backend('one')
  const authority = testAuthority()
  const clients = testAuthority('clients')
  const tls = (name: string, host: string) => {
    const { cert, key } = authority.issue(host)
    return secret(name, { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls')
  }
  api.putAll([
    ingressClass('sy'),
    service('one', { ports: [80] }),
    slice('one', ['127.0.0.1@n1'], [one.port]),
    tls('x', 'x.test'),
    tls('y', 'y.test'),
    secret('ca', { 'ca.crt': clients.ca }),
    ingress('x', { 'x.test': { '/': 'one:80' } }, { class: 'sy', tls: { x: ['x.test'] }, annotations: { 'nginx.ingress.kubernetes.io/auth-tls-secret': 'default/ca' } }),
    ingress('y', { 'y.test': { '/': 'one:80' } }, { class: 'sy', tls: { y: ['y.test'] } }),
  ])
  const running = await start(api)
  const at = { port: running.https, ca: authority.ca }
  t.match(await ask({ ...at, servername: 'x.test' }, 'x.test', '/').catch((error: Error) => `failed: ${error.message}`), /^failed|^400/)
  t.match(await ask({ ...at, servername: 'x.test', ...clients.issue('somebody') }, 'x.test', '/'), /^200 one/)
  t.match(await ask({ ...at, servername: 'y.test' }, 'y.test', '/'), /^200 one/)
  t.match(await ask({ ...at, servername: 'y.test' }, 'x.test', '/'), /^421/, 'another name’s handshake does not open the door')
  t.match(await ask({ ...at, servername: 'nobody.test', rejectUnauthorized: false } as http.RequestOptions & { ca: string }, 'nobody.test', '/'), /^404/)
  await running.end()
  one.close()
})

void test('HTTP/2 over the epoll driver: the same routes, bodies both ways', async (t) => {
  await using api = await FakeApi.start()
  const server = http.createServer((request, response) => {
    const got: Buffer[] = []
    request.on('data', (piece: Buffer) => got.push(piece))
    request.on('end', () => {
      response.setHeader('set-cookie', ['a=1', 'b=2'])
      response.end(`${request.method} ${request.url} ${request.headers.host} ${Buffer.concat(got).length} ${request.headers['x-forwarded-proto']}`)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const authority = testAuthority()
  const { cert, key } = authority.issue('x.test')
  api.putAll([
    ingressClass('sy'),
    service('one', { ports: [80] }),
    slice('one', ['127.0.0.1@n1'], [port]),
    secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
    ingress('i', { 'x.test': { '/': 'one:80' } }, { class: 'sy', tls: { cert: ['x.test'] } }),
  ])
  const running = await start(api, '--sockets', 'auto')
  const session = http2.connect(`https://127.0.0.1:${running.https}`, { ca: authority.ca, servername: 'x.test' })
  const negotiated = await new Promise<string>((resolve, reject) => session.once('connect', () => resolve(session.alpnProtocol ?? '')).once('error', (e) => reject(e))).catch((e: Error) => e.message)
  if (negotiated === 'h2') {
    const request = (headers: http2.OutgoingHttpHeaders, body?: string): Promise<{ status: number; text: string; cookies: unknown }> =>
      new Promise((resolve, reject) => {
        const stream = session.request({ ':authority': 'x.test', ...headers })
        let text = ''
        let status = 0
        let cookies: unknown
        stream.on('response', (h) => {
          status = h[':status']!
          cookies = h['set-cookie']
        })
        stream.on('data', (piece: Buffer) => (text += piece.toString()))
        stream.on('end', () => resolve({ status, text, cookies }))
        stream.on('error', reject)
        stream.end(body)
      })
    t.same(await request({ ':path': '/a?b' }), { status: 200, text: 'GET /a?b x.test 0 https', cookies: ['a=1', 'b=2'] })
    t.equal((await request({ ':path': '/up', ':method': 'POST' }, 'x'.repeat(300_000))).text, 'POST /up x.test 300000 https')
    t.equal((await request({ ':path': '/up', ':method': 'PUT', 'content-length': 5 }, 'hello')).text, 'PUT /up x.test 5 https')
    t.equal((await request({ ':path': '/', ':authority': 'unknown.test' })).status, 404)
    const many = await Promise.all(Array.from({ length: 50 }, (_, i) => request({ ':path': `/${i}` })))
    t.ok(
      many.every((m, i) => m.text === `GET /${i} x.test 0 https`),
      'fifty streams at a time',
    )
  } else t.comment(`HTTP/2 is not offered here: ${negotiated}`)
  session.destroy()
  t.equal(await ask({ port: running.https, ca: authority.ca, servername: 'x.test' }, 'x.test', '/h1'), '200 GET /h1 x.test 0 https')
  await running.end()
  server.closeAllConnections()
  server.close()
})

void test('whatever the API server does, requests are served by the last table, and the next one comes', async (t) => {
  await using api = await FakeApi.start()
  const one = await backend('one')
  api.putAll([ingressClass('sy'), service('one', { ports: [80] }), slice('one', ['127.0.0.1@n1'], [one.port]), ingress('i', { 'x.test': { '/': 'one:80' } }, { class: 'sy' })])
  api.misbehave({ trouble: { code: 503 }, verbs: ['list'], times: 2 })
  api.patience = impatient
  const running = await start(api)
  for (const [i, wrong] of wrongs.entries()) {
    const { name } = wrong
    wrong.begin(api)
    t.match(await ask({ port: running.http }, 'x.test', '/'), /^200 one/, `${name}: the old table`)
    api.put(ingress(`n${i}`, { [`n${i}.test`]: { '/': 'one:80' } }, { class: 'sy' }))
    if (i > 0) api.remove(ingress(`n${i - 1}`, {}))
    wrong.meanwhile?.(api)
    await until(async () => (await ask({ port: running.http }, `n${i}.test`, '/')).startsWith('200'), 15_000)
    if (i > 0) await until(async () => (await ask({ port: running.http }, `n${i - 1}.test`, '/')).startsWith('404'), 15_000)
    t.pass(`${name}: the new one`)
    api.behave()
  }
  await running.end()
  one.close()
})

void test('a WebSocket passes, and survives a change of the table', async (t) => {
  await using api = await FakeApi.start()
  const one = await backend('one')
  const sockets = new WebSocketServer({ server: one.server })
  sockets.on('connection', (socket) => socket.on('message', (data: Buffer) => socket.send(`echo ${data.toString()}`)))
  api.putAll([ingressClass('sy'), service('one', { ports: [80] }), slice('one', ['127.0.0.1@n1'], [one.port]), ingress('i', { 'x.test': { '/': 'one:80' } }, { class: 'sy' })])
  const running = await start(api)
  const socket = new WebSocket(`ws://127.0.0.1:${running.http}/chat`, { headers: { host: 'x.test' } })
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  const heard = async (text: string): Promise<string> => {
    socket.send(text)
    return new Promise((resolve) => socket.once('message', (data: Buffer) => resolve(data.toString())))
  }
  t.equal(await heard('1'), 'echo 1')
  api.remove(ingress('i', {}))
  await until(async () => (await ask({ port: running.http }, 'x.test', '/')).startsWith('404'))
  t.equal(await heard('x'.repeat(200_000)), `echo ${'x'.repeat(200_000)}`)
  socket.close()
  await new Promise((resolve) => socket.once('close', resolve))
  await running.end()
  sockets.close()
  one.close()
})
