import { test } from 'tap'
import { Net, route, steady, tableOf } from '../testing/memory.ts'

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'
const forwarded = 'X-Real-IP: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: a.test\r\nX-Forwarded-Port: 80\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Scheme: http\r\nX-Scheme: http\r\n'

void test('a request reaches its endpoint with forwarding fields, and the answer comes back', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  const backend = await net.backend('10.1.0.1:8080', ok)
  const client = await net.connect()
  client.say('GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: me\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n')
  net.settle()
  const peer = client.wire.local.host
  t.equal(steady(backend.got), `GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: me\r\nAccept: */*\r\n${forwarded.replaceAll('10.0.0.1', peer)}\r\n`)
  t.equal(client.got, 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: switchyard\r\n\r\nhi')
  client.got = ''
  client.say('GET /x HTTP/1.1\r\nHost: a.test\r\n\r\nGET /y HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  t.equal(backend.connections.length, 1, 'the connection to the endpoint is kept')
  t.equal(client.got.match(/HTTP\/1\.1 200/g)?.length, 2, 'pipelined requests are answered in order')
})

void test('bodies of every framing pass both ways', async (t) => {
  for (const [request, response, want] of [
    ['Content-Length: 5\r\n\r\nhello', 'Content-Length: 3\r\n\r\nabc', 'abc'],
    ['Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n', 'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nServer-Timing: x\r\n\r\n', '3\r\nabc\r\n0\r\nServer-Timing: x\r\n\r\n'],
  ] as const) {
    for (const size of [1, 2, 3, 7, 100_000]) {
      const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])), { network: { cut: (n) => Math.min(n, size) } })
      const backend = await net.backend('10.1.0.1:8080', `HTTP/1.1 200 OK\r\n${response}`)
      const client = await net.connect()
      client.say(`POST / HTTP/1.1\r\nHost: a.test\r\n${request}`)
      net.settle()
      t.ok(backend.got.endsWith(request.slice(request.indexOf('\r\n\r\n'))), `${size}: the body arrives`)
      t.ok(client.got.endsWith(`\r\n\r\n${want}`), `${size}: the answer arrives: ${JSON.stringify(client.got)}`)
      client.say('GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n')
      net.settle()
      t.equal(client.got.match(/HTTP\/1\.1 200/g)?.length, 2, `${size}: and another request`)
      t.equal(backend.connections.length, 1)
    }
  }
})

void test('an endpoint that refuses is left for another; with none left the answer is 502, with none at all 503, without a route 404', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080', '10.1.0.2:8080']), route('none.test/', []), route('dead.test/', ['10.1.0.3:1'])))
  await net.backend('10.1.0.2:8080', ok)
  for (const [host, status] of [
    ['a.test', 200],
    ['a.test', 200],
    ['none.test', 503],
    ['dead.test', 502],
    ['unknown.test', 404],
  ] as const) {
    const client = await net.connect()
    client.say(`POST / HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 2\r\n\r\nab`)
    net.settle()
    t.match(client.got, new RegExp(`^HTTP/1.1 ${status} `), host)
  }
})

void test('what an endpoint dies on is repeated only when that is safe', async (t) => {
  for (const [method, status] of [
    ['GET', 200],
    ['POST', 502],
  ] as const) {
    const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080', '10.1.0.2:8080'])))
    await net.backend('10.1.0.1:8080', (peer) => peer.wire.abort())
    await net.backend('10.1.0.2:8080', ok)
    const client = await net.connect()
    client.say(`${method} / HTTP/1.1\r\nHost: a.test\r\n\r\n`)
    net.settle()
    t.match(client.got, new RegExp(`^HTTP/1.1 ${status} `), method)
  }
})

void test('a kept connection that the endpoint has closed is replaced without the client seeing it', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  let n = 0
  await net.backend('10.1.0.1:8080', (peer) => (++n === 2 ? peer.wire.abort() : peer.say(ok)))
  const client = await net.connect()
  client.say('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  client.say('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  t.equal(client.got.match(/HTTP\/1\.1 200/g)?.length, 2)
})

void test('a silent endpoint is a 504, a broken answer ends the connection', async (t) => {
  const net = new Net(tableOf(route('slow.test/', ['10.1.0.1:8080']), route('broken.test/', ['10.1.0.2:8080']), route('bad.test/', ['10.1.0.3:8080'])))
  await net.backend('10.1.0.1:8080')
  await net.backend('10.1.0.2:8080', (peer) => {
    peer.say('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc')
    peer.wire.end()
  })
  await net.backend('10.1.0.3:8080', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na')
  const slow = await net.connect()
  const broken = await net.connect()
  const bad = await net.connect()
  slow.say('POST / HTTP/1.1\r\nHost: slow.test\r\n\r\n')
  broken.say('GET / HTTP/1.1\r\nHost: broken.test\r\n\r\n')
  bad.say('GET / HTTP/1.1\r\nHost: bad.test\r\n\r\n')
  net.settle()
  t.match(bad.got, /^HTTP\/1.1 502 /)
  t.match(broken.got, /abc$/)
  t.type(broken.gone, 'string', 'the client sees that it is not whole')
  net.driver.advance(61_000)
  t.match(slow.got, /^HTTP\/1.1 504 /)
})

void test('an upgrade becomes a tunnel when the endpoint agrees, h2c is not passed on', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  const backend = await net.backend('10.1.0.1:8080', (peer, head) =>
    peer.say(/upgrade: websocket/i.test(head) ? 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfirst' : ok),
  )
  const client = await net.connect()
  client.say('GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n')
  net.settle()
  t.match(client.got, /^HTTP\/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nfirst$/)
  client.say('ping')
  net.settle()
  t.match(backend.got, /ping$/)
  backend.connections[0]!.say('pong')
  backend.connections[0]!.wire.end()
  net.settle()
  t.match(client.got, /firstpong$/)
  t.equal(client.ended, true)
  const other = await net.connect()
  other.say('GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n')
  net.settle()
  t.match(other.got, /^HTTP\/1.1 200 /)
  t.notMatch(backend.connections[1]!.got, /upgrade|http2/i)
})

void test('a request that has begun keeps its table; idle connections of endpoints that went are closed', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  const first = await net.backend('10.1.0.1:8080')
  await net.backend('10.1.0.2:8080', ok)
  const client = await net.connect()
  client.say('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  net.server.use(net.frontend, tableOf(route('a.test/', ['10.1.0.2:8080'])))
  net.settle()
  first.connections[0]!.say('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold')
  net.settle()
  t.match(client.got, /old$/)
  t.type(first.connections[0]!.gone, 'string', 'its connection is not kept')
  client.say('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  t.match(client.got, /hi$/, 'the same client, the new table')
})

void test('HTTP/1.0 clients get bodies without chunks, and are kept alive when they ask', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  await net.backend('10.1.0.1:8080', (peer, head) => peer.say(head.includes('/chunks') ? 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n' : ok))
  const client = await net.connect()
  client.say('GET / HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n')
  net.settle()
  t.match(client.got, /Connection: keep-alive\r\n\r\nhi$/)
  client.say('GET /chunks HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n')
  net.settle()
  t.match(client.got, /Connection: close\r\n\r\nabcde$/)
  t.equal(client.ended, true)
})

void test('an answer that comes before the body is whole is passed on, and neither connection is used again', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  const backend = await net.backend('10.1.0.1:8080')
  const client = await net.connect()
  client.say('POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100\r\n\r\nabc')
  net.settle()
  backend.connections[0]!.say('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno')
  net.settle()
  t.match(client.got, /^HTTP\/1.1 403 Forbidden\r\n.*Connection: close\r\n\r\nno$/s)
  t.equal(client.ended, true)
  t.type(backend.connections[0]!.gone, 'string')
})

void test('back pressure reaches the other side both ways, and every octet arrives', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  const big = 'x'.repeat(3_000_000)
  const backend = await net.backend('10.1.0.1:8080', (peer) => peer.say(`HTTP/1.1 200 OK\r\nContent-Length: ${big.length}\r\n\r\n${big}`))
  const client = await net.connect()
  client.say(`POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: ${big.length}\r\n\r\n${big}`)
  net.settle()
  t.equal(backend.got.length - backend.got.indexOf('\r\n\r\n') - 4, big.length)
  t.equal(client.got.length - client.got.indexOf('\r\n\r\n') - 4, big.length)
})

void test('limits: 431, 414, 413, 408, and an idle connection that is closed without a word', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'], { maxBody: 10 })))
  await net.backend('10.1.0.1:8080', ok)
  for (const [text, status] of [
    [`GET / HTTP/1.1\r\nHost: a.test\r\nX: ${'a'.repeat(40_000)}\r\n\r\n`, 431],
    [`GET / HTTP/1.1\r\nHost: a.test\r\n${'X: a\r\n'.repeat(200)}\r\n`, 431],
    [`GET /${'a'.repeat(9000)} HTTP/1.1\r\nHost: a.test\r\n\r\n`, 414],
    ['POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 11\r\n\r\n', 413],
    ['POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n', 413],
    ['GET / HTTP/1.1\r\nHost: a.te', 408],
    ['POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nabc', 408],
  ] as const) {
    const client = await net.connect()
    client.say(text)
    net.settle()
    if (status === 408) net.driver.advance(130_000)
    t.match(client.got, new RegExp(`^HTTP/1.1 ${status} `), `${status}`)
    t.equal(client.ended, true)
  }
  const idle = await net.connect()
  net.settle()
  net.driver.advance(80_000)
  t.equal(idle.got, '')
  t.equal(idle.ended, true)
})

void test('draining: what is under way is answered, then the connection ends', async (t) => {
  const net = new Net(tableOf(route('a.test/', ['10.1.0.1:8080'])))
  const backend = await net.backend('10.1.0.1:8080')
  const idle = await net.connect()
  net.settle()
  net.driver.advance(1000)
  const client = await net.connect()
  const late = await net.connect()
  client.say('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  const drained = net.server.drain()
  net.settle()
  t.equal(idle.ended, true)
  t.equal(client.ended, false)
  backend.connections[0]!.say(ok)
  net.settle()
  t.match(client.got, /Connection: close\r\n\r\nhi$/)
  late.say('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  backend.connections.at(-1)!.say(ok)
  net.settle()
  t.match(late.got, /Connection: close\r\n\r\nhi$/, 'a connection that had just been opened is not turned away')
  net.driver.advance(1000)
  await drained
})

void test('a step that throws ends its own connection and no other', async (t) => {
  const failures: string[] = []
  const middleware = {
    bad: () => ({
      response: () => {
        throw new Error('oops')
      },
    }),
  }
  const net = new Net(
    tableOf(route('bad.test/', ['10.1.0.1:8080'], { policies: [{ use: 'bad' }] }), route('none.test/', ['10.1.0.1:8080'], { policies: [{ use: 'unknown' }] }), route('a.test/', ['10.1.0.1:8080'])),
    { server: { middleware, failed: (what, error) => void failures.push(`${what}: ${String(error)}`) } },
  )
  await net.backend('10.1.0.1:8080', ok)
  const bad = await net.connect()
  const good = await net.connect()
  const none = await net.connect()
  bad.say('GET / HTTP/1.1\r\nHost: bad.test\r\n\r\n')
  net.settle()
  none.say('GET / HTTP/1.1\r\nHost: none.test\r\n\r\n')
  good.say('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n')
  net.settle()
  t.type(bad.gone, 'string')
  t.match(none.got, /^HTTP\/1.1 500 /, 'a policy nobody understands lets nobody through')
  t.match(good.got, /hi$/)
  t.same(failures, ['a connection failed: Error: oops', 'no middleware for policy unknown: undefined'])
})
