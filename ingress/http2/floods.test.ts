// What HTTP/2 makes possible and nobody wants: each ends its own connection, or is answered, and the server goes on.
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { test } from 'tap'
import { openNode } from '../../lib/sockets/node/driver.ts'
import { Server } from '../http1/server.ts'
import { route, tableOf } from '../testing/memory.ts'
import { Http2 } from './server.ts'

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}
const [HEADERS, RESET, SETTINGS, PING, CONTINUATION] = [1, 3, 4, 6, 9] as const

/** Literal fields without indexing (RFC 7541 6.2.2). */
const hpack = (fields: readonly (readonly [string, string])[]): Buffer =>
  Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]))
const get = hpack([
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'a.test'],
  [':path', '/'],
])

async function serving(): Promise<{ port: number; asked: () => number; said: () => string; answer(): Promise<number>; end(): Promise<void> }> {
  let asked = 0
  let said = ''
  const endpoint = net.createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (b: Buffer) => {
      asked += b.toString('latin1').split('GET / ').length - 1
      said += b.toString('latin1')
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
  })
  await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve))
  const driver = openNode()
  const http = new Http2({ failed: () => {} })
  const server = new Server({
    driver,
    http2: {
      take: (wire, accept) => http.take(wire, accept),
      connect: () => {
        throw new Error('not here')
      },
    },
  })
  const at = await server.listen({ host: '127.0.0.1', port: 0 }, { table: tableOf(route('a.test/', [`127.0.0.1:${(endpoint.address() as AddressInfo).port}`])), secure: false })
  return {
    port: at.port,
    asked: () => asked,
    said: () => said,
    answer: () =>
      new Promise((resolve, reject) => {
        const session = http2.connect(`http://127.0.0.1:${at.port}`)
        session.on('error', reject)
        const stream = session.request({ ':authority': 'a.test' })
        stream.on('response', (h) => {
          resolve(h[':status']!)
          session.destroy()
        })
      }),
    end: async () => {
      server.close()
      http.close()
      await driver.close()
      endpoint.close()
    },
  }
}

/** Sends it all; resolves with whether the server ended the connection. */
function flood(port: number, bytes: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(bytes))
    const timer = setTimeout(() => {
      resolve(false)
      socket.destroy()
    }, 60_000)
    socket.on('data', () => {})
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(true)
    })
  })
}

const hello = Buffer.concat([preface, frame(SETTINGS, 0, 0)])
const floods: readonly (readonly [name: string, bytes: () => Buffer])[] = [
  [
    'rapid reset (CVE-2023-44487)',
    () => Buffer.concat([hello, ...Array.from({ length: 5000 }, (_, i) => Buffer.concat([frame(HEADERS, 5, i * 2 + 1, get), frame(RESET, 0, i * 2 + 1, Buffer.from([0, 0, 0, 8]))]))]),
  ],
  [
    'CONTINUATION without end (CVE-2024-27983)',
    () => Buffer.concat([hello, frame(HEADERS, 1, 1, get), ...Array.from({ length: 2000 }, () => frame(CONTINUATION, 0, 1, hpack([['x-more', 'x'.repeat(100)]])))]),
  ],
  [
    'a list of fields beyond all limits',
    () =>
      Buffer.concat([
        hello,
        frame(HEADERS, 5, 1, Buffer.concat([get, ...Array.from({ length: 110 }, (_, i) => hpack([[`x-${i}`, 'y'.repeat(120)]]))])),
        ...Array.from({ length: 40 }, (_, i) => frame(HEADERS, 5, i * 2 + 3, Buffer.from([0x80]))),
      ]),
  ],
  ['a pad longer than its frame', () => Buffer.concat([hello, frame(HEADERS, 13, 1, Buffer.from([200, 1]))])],
  ['streams with even numbers', () => Buffer.concat([hello, frame(HEADERS, 5, 2, get)])],
  ['not HTTP/2 after its preface', () => Buffer.concat([preface, Buffer.from('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n'.repeat(10))])],
]

for (const [name, bytes] of floods) {
  void test(`${name}: the connection ends, the server goes on`, async (t) => {
    const s = await serving()
    t.ok(await flood(s.port, bytes()), 'ended')
    t.ok(s.asked() < 400, `the endpoint was asked ${s.asked()} times`)
    t.equal(await s.answer(), 200)
    await s.end()
  })
}

void test('pings and settings in masses are answered or end the connection; the server goes on', async (t) => {
  const s = await serving()
  const socket = net.connect(s.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.on('data', () => {})
  socket.write(Buffer.concat([hello, ...Array.from({ length: 3000 }, () => frame(PING, 0, 0, Buffer.alloc(8))), ...Array.from({ length: 3000 }, () => frame(SETTINGS, 0, 0))]))
  t.equal(await s.answer(), 200)
  socket.destroy()
  await s.end()
})

void test('what cannot be a line of HTTP/1.1 is refused; two hosts are one too many', async (t) => {
  const s = await serving()
  const session = http2.connect(`http://127.0.0.1:${s.port}`)
  const ask = (headers: http2.OutgoingHttpHeaders): Promise<number | string> =>
    new Promise((resolve) => {
      const stream = session.request({ ':authority': 'a.test', ...headers })
      stream.on('response', (h) => resolve(h[':status']!))
      stream.on('error', (e) => resolve(e.message))
      stream.resume()
    })
  t.match(String(await ask({ ':path': '/a b' })), /^400$|PROTOCOL_ERROR/)
  t.equal(await ask({ host: 'other.test' }), 400)
  t.equal(await ask({ ':authority': 'b.test' }), 404)
  t.equal(await ask({ ':path': '/' }), 200)
  session.destroy()
  await s.end()
})

void test('a body that is shorter or longer than it says is no request', async (t) => {
  const s = await serving()
  for (const body of ['12345', '123456789012345']) {
    const session = http2.connect(`http://127.0.0.1:${s.port}`)
    const outcome = await new Promise<string>((resolve) => {
      const stream = session.request({ ':authority': 'a.test', ':method': 'POST', ':path': '/', 'content-length': '10' })
      stream.on('response', (h) => resolve(`answered ${h[':status']}`))
      stream.on('error', () => resolve('reset'))
      stream.on('close', () => resolve('reset'))
      session.on('error', () => resolve('reset'))
      stream.end(body)
    })
    t.match(outcome, /^reset$|^answered 4\d\d$/, `${body.length} octets instead of 10`)
    session.destroy()
  }
  t.equal(await s.answer(), 200)
  await s.end()
})

void test('fields that would frame a message of HTTP/1.1 do not reach the endpoint', async (t) => {
  const s = await serving()
  const smuggle = (fields: readonly (readonly [string, string])[]): Buffer => Buffer.concat([hello, frame(HEADERS, 5, 1, Buffer.concat([get, hpack(fields)]))])
  for (const fields of [[['transfer-encoding', 'chunked']], [['connection', 'keep-alive']], [['x', 'a\r\nx-smuggled: 1']], [['x\r\ny', '1']], [['X-Upper', '1']]] as const) {
    const socket = net.connect(s.port, '127.0.0.1')
    socket.on('error', () => {})
    // Node's own answers wait for ours: what comes back shows that it was read.
    await new Promise<void>((resolve) => {
      socket.on('data', () => {})
      socket.write(smuggle(fields), () => setTimeout(resolve, 50))
    })
    socket.destroy()
  }
  t.equal(await s.answer(), 200)
  // nghttp2 refuses some and leaves others out; either way nothing of them is a line.
  t.notMatch(s.said(), /smuggled|transfer-encoding|connection:|x-upper/i)
  await s.end()
})
