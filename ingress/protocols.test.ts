// What comes and goes by other protocols than HTTP/1.1 over plain sockets, on the driver that SOCKETS names.
import dgram from 'node:dgram'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import tls from 'node:tls'
import { test } from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { FakeApi } from '../kube/testing/api.ts'
import { ingress, ingressClass, object, secret, service, slice } from '../kube/testing/builders.ts'
import type { KubeObject } from '../kube/objects.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import { ask, backend, start, until } from './testing/run.ts'

const annotation = (key: string, value: string): Record<string, string> => ({ [`nginx.ingress.kubernetes.io/${key}`]: value })

interface Answer {
  readonly status: number
  readonly text: string
  readonly headers: http2.IncomingHttpHeaders
  readonly trailers: http2.IncomingHttpHeaders
}

function request(session: http2.ClientHttp2Session, headers: http2.OutgoingHttpHeaders, body?: string | Buffer): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers)
    let text = ''
    let got: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader = {}
    let trailers: http2.IncomingHttpHeaders = {}
    stream.on('response', (h) => (got = h))
    stream.on('trailers', (t) => (trailers = t))
    stream.on('data', (piece: Buffer) => (text += piece.toString()))
    stream.on('end', () => resolve({ status: got[':status'] ?? 0, text, headers: got, trailers }))
    stream.on('error', reject)
    stream.end(body)
  })
}

const listening = async (server: net.Server): Promise<number> => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

/** A server that answers as gRPC does: the status comes in trailers, or in the head when there is nothing else. */
function grpc(server: http2.Http2Server | http2.Http2SecureServer): typeof server {
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    if (headers[':path'] === '/svc/Missing') return void stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '12' }, { endStream: true })
    const got: Buffer[] = []
    stream.on('data', (piece: Buffer) => got.push(piece))
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'x-te': String(headers.te), 'x-authority': String(headers[':authority']) }, { waitForTrailers: true })
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'grpc-message': 'fine' }))
    stream.on('end', () => stream.end(`${headers[':path']} ${Buffer.concat(got).length}`))
  })
  return server
}

for (const sockets of ['node', 'auto']) {
  void test(`HTTP/2 to clients and to endpoints, with trailers, on ${sockets}`, async (t) => {
    await using api = await FakeApi.start()
    const authority = testAuthority()
    const { cert, key } = authority.issue('x.test')
    const plain = grpc(http2.createServer())
    const secure = grpc(http2.createSecureServer({ ...authority.issue('endpoint.test') }))
    const [plainPort, securePort] = [await listening(plain), await listening(secure)]
    const one = await backend('one')
    api.putAll([
      ingressClass('sy'),
      service('one', { ports: [80] }),
      slice('one', ['127.0.0.1@n1'], [one.port]),
      service('g', { ports: [80] }),
      slice('g', ['127.0.0.1@n1'], [plainPort]),
      service('gs', { ports: [443] }),
      slice('gs', ['127.0.0.1@n1'], [securePort]),
      service('app', { ports: [{ port: 80, targetPort: 80, protocol: 'TCP', appProtocol: 'kubernetes.io/h2c' }] }),
      slice('app', ['127.0.0.1@n1'], [plainPort]),
      secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
      secret('ca', { 'ca.crt': authority.ca }),
      ingress('one', { 'x.test': { '/': 'one:80' } }, { class: 'sy', tls: { cert: ['x.test'] } }),
      ingress('g', { 'x.test': { '/svc': 'g:80' } }, { class: 'sy', tls: { cert: ['x.test'] }, annotations: annotation('backend-protocol', 'GRPC') }),
      ingress('app', { 'app.test': { '/': 'app:80' } }, { class: 'sy' }),
      ingress(
        'gs',
        { 'gs.test': { '/': 'gs:443' } },
        {
          class: 'sy',
          annotations: {
            ...annotation('backend-protocol', 'GRPCS'),
            ...annotation('proxy-ssl-secret', 'default/ca'),
            ...annotation('proxy-ssl-name', 'endpoint.test'),
            ...annotation('proxy-ssl-server-name', 'on'),
          },
        },
      ),
    ])
    const running = await start(api, '--sockets', sockets)
    const session = http2.connect(`https://127.0.0.1:${running.https}`, { ca: authority.ca, servername: 'x.test' })
    await new Promise((resolve, reject) => session.once('connect', resolve).once('error', reject))
    t.equal(session.alpnProtocol, 'h2')
    t.equal((await request(session, { ':path': '/a', ':authority': 'x.test' })).text, 'one GET /a https')
    const said = await request(session, { ':path': '/svc/Do', ':method': 'POST', ':authority': 'x.test', 'content-type': 'application/grpc', te: 'trailers' }, Buffer.alloc(100_000))
    t.match(said, { status: 200, text: '/svc/Do 100000', headers: { 'x-te': 'trailers', 'x-authority': 'x.test' }, trailers: { 'grpc-status': '0', 'grpc-message': 'fine' } })
    const missing = await request(session, { ':path': '/svc/Missing', ':method': 'POST', ':authority': 'x.test', 'content-type': 'application/grpc', te: 'trailers' }, 'x')
    t.match(missing.headers, { ':status': 200, 'grpc-status': '12' }, 'an answer of trailers alone')
    const many = await Promise.all(Array.from({ length: 150 }, (_, i) => request(session, { ':path': `/svc/${i}`, ':method': 'POST', ':authority': 'x.test' }, 'x'.repeat(i))))
    t.same(
      many.map((m) => m.text),
      many.map((_, i) => `/svc/${i} ${i}`),
      'many streams at a time',
    )
    session.destroy()

    const known = http2.connect(`http://127.0.0.1:${running.http}`)
    t.match(
      await request(known, { ':path': '/', ':authority': 'gs.test', ':method': 'POST' }, 'abc'),
      { status: 200, text: '/ 3', trailers: { 'grpc-status': '0' } },
      'h2c from a client that knows, TLS to the endpoint',
    )
    known.destroy()
    t.equal(await ask({ port: running.http }, 'app.test', '/svc/over/1.1'), '200 /svc/over/1.1 0', 'appProtocol kubernetes.io/h2c, asked by HTTP/1.1')
    plain.close()
    await running.end()
    secure.close()
    one.close()
  })
}

void test('an endpoint that speaks no HTTP/2 is told as 502, one that is not there too; a class may switch HTTP/2 off', async (t) => {
  await using api = await FakeApi.start()
  const authority = testAuthority()
  const one = await backend('one')
  const { cert, key } = authority.issue('x.test', 'y.test')
  const classOff = ingressClass('off')
  api.putAll([
    ingressClass('sy'),
    { ...classOff, metadata: { ...classOff.metadata, annotations: { 'switchyard.dev/http2': 'off' } } } as KubeObject,
    service('one', { ports: [80] }),
    slice('one', ['127.0.0.1@n1'], [one.port]),
    service('none', { ports: [80] }),
    slice('none', ['127.0.0.1@n1'], [1]),
    secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
    ingress('a', { 'a.test': { '/': 'one:80' } }, { class: 'sy', annotations: annotation('backend-protocol', 'GRPC') }),
    ingress('b', { 'b.test': { '/': 'none:80' } }, { class: 'sy', annotations: annotation('backend-protocol', 'GRPC') }),
    ingress('x', { 'x.test': { '/': 'one:80' } }, { class: 'sy', tls: { cert: ['x.test'] } }),
    ingress('y', { 'y.test': { '/': 'one:80' } }, { class: 'off', tls: { cert: ['y.test'] } }),
  ])
  const running = await start(api)
  t.match(await ask({ port: running.http }, 'a.test', '/'), /^502/)
  t.match(await ask({ port: running.http }, 'b.test', '/'), /^502/)
  const offered = (servername: string): Promise<string | false | null> =>
    new Promise((resolve, reject) => {
      const socket = tls.connect({ port: running.https, host: '127.0.0.1', ca: authority.ca, servername, ALPNProtocols: ['h2', 'http/1.1'] }, () => {
        resolve(socket.alpnProtocol)
        socket.destroy()
      })
      socket.on('error', reject)
    })
  t.equal(await offered('x.test'), 'h2')
  t.equal(await offered('y.test'), 'http/1.1')
  await running.end()
  one.close()
})

/** Says `bytes` to a port, then hears until the other side ends or `enough` came. */
function talk(port: number, bytes: string | Buffer, enough: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(bytes))
    let heard = ''
    socket.on('data', (piece: Buffer) => {
      heard += piece.toString()
      if (enough.test(heard)) socket.destroy()
    })
    socket.on('close', () => resolve(heard))
    socket.on('error', (error) => (heard === '' ? resolve(`failed: ${error.message}`) : reject(error)))
  })
}

void test('the PROXY protocol tells who the client is, over plain HTTP and TLS; without it nobody is let in', async (t) => {
  await using api = await FakeApi.start()
  const authority = testAuthority()
  const { cert, key } = authority.issue('x.test')
  const one = await backend('one')
  one.server.removeAllListeners('request')
  one.server.on('request', (q, response) => response.end(`from ${q.headers['x-real-ip']} port ${q.headers['x-forwarded-port']}`))
  api.putAll([
    ingressClass('sy'),
    service('one', { ports: [80] }),
    slice('one', ['127.0.0.1@n1'], [one.port]),
    secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
    ingress('x', { 'x.test': { '/': 'one:80' } }, { class: 'sy', tls: { cert: ['x.test'] }, annotations: annotation('ssl-redirect', 'false') }),
  ])
  const running = await start(api, '--proxy-protocol')
  const get = 'GET / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\n\r\n'
  t.match(await talk(running.http, `PROXY TCP4 192.0.2.7 198.51.100.1 5678 8080\r\n${get}`, /port \d+/), /from 192\.0\.2\.7 port 8080/)
  const v2 = Buffer.from('0d0a0d0a000d0a515549540a21110010c0000209c63364010bb80050040001ff', 'hex')
  t.match(await talk(running.http, Buffer.concat([v2, Buffer.from(get)]), /port \d+/), /from 192\.0\.2\.9 port 80/)
  t.match(await talk(running.http, `PROXY UNKNOWN\r\n${get}`, /port \d+/), /from 127\.0\.0\.1/)
  t.notMatch(await talk(running.http, get, /HTTP/), /HTTP/, 'no header: not served')
  const secure = await new Promise<string>((resolve, reject) => {
    const raw = net.connect(running.https, '127.0.0.1', () => {
      raw.write('PROXY TCP6 2001:db8::7 2001:db8::1 5678 443\r\n')
      const socket = tls.connect({ socket: raw, ca: authority.ca, servername: 'x.test', ALPNProtocols: ['http/1.1'] }, () => socket.write(get))
      let heard = ''
      socket.on('data', (piece: Buffer) => (heard += piece.toString()))
      socket.on('end', () => resolve(heard))
      socket.on('error', reject)
    })
  })
  t.match(secure, /from 2001:db8::7 port 443/)
  const raw = net.connect(running.https, '127.0.0.1')
  raw.write('PROXY TCP4 192.0.2.8 198.51.100.1 5678 443\r\n')
  const session = http2.connect('https://x.test', { createConnection: () => tls.connect({ socket: raw, ca: authority.ca, servername: 'x.test', ALPNProtocols: ['h2'] }) })
  t.equal((await request(session, { ':path': '/' })).text, 'from 192.0.2.8 port 443', 'HTTP/2 behind it')
  session.destroy()
  await running.end()
  one.close()
})

void test('TLS of a host with ssl-passthrough is not opened; other hosts are served as ever', async (t) => {
  await using api = await FakeApi.start()
  const authority = testAuthority()
  const inside = authority.issue('deep.test')
  const { cert, key } = authority.issue('x.test')
  const one = await backend('one')
  const deep = tls.createServer({ ...inside }, (socket) => socket.end('this is the endpoint itself'))
  const deepPort = await listening(deep)
  api.putAll([
    ingressClass('sy'),
    service('one', { ports: [80] }),
    slice('one', ['127.0.0.1@n1'], [one.port]),
    service('deep', { ports: [443] }),
    slice('deep', ['127.0.0.1@n1'], [deepPort]),
    secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
    ingress('x', { 'x.test': { '/': 'one:80' } }, { class: 'sy', tls: { cert: ['x.test'] } }),
    ingress('deep', { 'deep.test': { '/': 'deep:443' } }, { class: 'sy', annotations: annotation('ssl-passthrough', 'true') }),
  ])
  const running = await start(api, '--enable-ssl-passthrough')
  const hear = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = tls.connect({ port: running.https, host: '127.0.0.1', ca: authority.ca, servername: 'deep.test' })
      let heard = ''
      socket.on('data', (piece: Buffer) => (heard += piece.toString()))
      socket.on('close', () => resolve(heard))
      socket.on('error', reject)
    })
  t.equal(await hear(), 'this is the endpoint itself')
  t.equal(await ask({ port: running.https, ca: authority.ca, servername: 'x.test' }, 'x.test', '/p'), '200 one GET /p https')
  api.put(slice('deep', [], [deepPort]))
  await until(async () => (await hear().catch(() => '')) === '')
  t.pass('no endpoint: the connection ends')
  await running.end()
  deep.close()
  one.close()
})

async function freePort(): Promise<number> {
  const probe = net.createServer()
  const port = await listening(probe)
  await new Promise((resolve) => probe.close(resolve))
  return port
}

void test('TCP and UDP ports are passed to Services as ConfigMaps say, and follow them', async (t) => {
  await using api = await FakeApi.start()
  const echo = net.createServer((socket) => {
    socket.write('hello ')
    socket.pipe(socket)
    socket.on('error', () => {})
  })
  const echoPort = await listening(echo)
  const udp = dgram.createSocket('udp4', (message, from) => udp.send(`echo ${message.toString()}`, from.port, from.address))
  await new Promise<void>((resolve) => udp.bind(0, '127.0.0.1', resolve))
  const [tcp, tcpProxied, udpPort] = [await freePort(), await freePort(), await freePort()]
  const map = (name: string, data: Record<string, string>): KubeObject => object('v1', 'ConfigMap', name, { data })
  api.putAll([
    ingressClass('sy'),
    service('e', { ports: ['echo:7', 'udp:7/UDP'] }),
    slice('e', ['127.0.0.1@n1'], [`echo:${echoPort}`, `udp:${udp.address().port}/UDP`]),
    map('tcp', { [tcp]: 'default/e:echo', [tcpProxied]: 'default/e:7:PROXY:PROXY', nonsense: 'x' }),
    map('udp', { [udpPort]: 'default/e:udp' }),
  ])
  const running = await start(api, '--tcp-services-configmap', 'default/tcp', '--udp-services-configmap', 'default/udp')
  await until(async () => (await talk(tcp, 'world', /world/)) === 'hello world')
  t.pass('TCP')
  t.equal(await talk(tcpProxied, 'PROXY TCP4 192.0.2.7 198.51.100.1 5678 8080\r\nworld', /world/), 'hello PROXY TCP4 192.0.2.7 198.51.100.1 5678 8080\r\nworld', 'the PROXY protocol in and out')
  const client = dgram.createSocket('udp4')
  const answers: string[] = []
  client.on('message', (m) => answers.push(m.toString()))
  await until(async () => {
    client.send('ping', udpPort, '127.0.0.1')
    await new Promise((resolve) => setTimeout(resolve, 20))
    return answers.includes('echo ping')
  })
  t.pass('UDP')
  api.put(map('tcp', { [tcpProxied]: 'default/e:7:PROXY:PROXY' }))
  await until(async () => (await talk(tcp, 'world', /world/)).startsWith('failed'))
  t.pass('a port that is taken out of the ConfigMap is closed')
  client.close()
  udp.close()
  await running.end()
  echo.close()
})

void test('ExternalName is followed only when that is allowed', async (t) => {
  await using api = await FakeApi.start()
  const one = await backend('one')
  api.putAll([ingressClass('sy'), service('out', { type: 'ExternalName', externalName: 'localhost', ports: [one.port] }), ingress('x', { 'x.test': { '/': `out:${one.port}` } }, { class: 'sy' })])
  const no = await start(api)
  t.match(await ask({ port: no.http }, 'x.test', '/'), /^503/)
  await no.end()
  const yes = await start(api, '--allow-external-names')
  await until(async () => (await ask({ port: yes.http }, 'x.test', '/p')) === '200 one GET /p http')
  t.pass('followed')
  await yes.end()
  one.close()
})

for (const sockets of ['auto', 'node']) {
  void test(`workers carry requests on ${sockets}; changes reach them, WebSockets survive them, and counts come back`, async (t) => {
    await using api = await FakeApi.start()
    const one = await backend('one')
    api.putAll([ingressClass('sy'), service('one', { ports: [80] }), slice('one', ['127.0.0.1@n1'], [one.port]), ingress('i', { 'x.test': { '/': 'one:80' } }, { class: 'sy' })])
    const websockets = new WebSocketServer({ server: one.server })
    websockets.on('connection', (socket) => socket.on('message', (data: Buffer) => socket.send(`echo ${data.toString()}`)))
    const running = await start(api, '--workers', '2', '--sockets', sockets)
    const chats = await Promise.all(
      Array.from({ length: 6 }, async () => {
        const socket = new WebSocket(`ws://127.0.0.1:${running.http}/chat`, { headers: { host: 'x.test' } })
        await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
        return socket
      }),
    )
    for (let i = 0; i < 10; i++) t.equal(await ask({ port: running.http, agent: false }, 'x.test', `/${i}`), `200 one GET /${i} http`)
    api.put(ingress('j', { 'y.test': { '/': 'one:80' } }, { class: 'sy' }))
    for (let i = 0; i < 5; i++) await until(async () => (await ask({ port: running.http, agent: false }, 'y.test', '/')) === '200 one GET / http')
    api.remove(ingress('i', {}))
    for (let i = 0; i < 5; i++) await until(async () => (await ask({ port: running.http, agent: false }, 'x.test', '/')).startsWith('404'))
    for (const socket of chats) {
      socket.send('still here')
      t.equal(await new Promise((resolve) => socket.once('message', (data: Buffer) => resolve(data.toString()))), 'echo still here')
      socket.close()
    }
    const metrics = await ask({ port: running.status }, 'status', '/metrics')
    t.match(metrics, /nginx_ingress_controller_requests\{.*ingress="j",service="one".*status="200"\} \d+/)
    await running.end()
    websockets.close()
    one.close()
  })
}
