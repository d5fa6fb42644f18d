import { connect } from 'node:tls'
import { Duplex } from 'node:stream'
import { test } from 'tap'
import { readClientHello } from './clienthello.ts'

/** The first bytes a real client sends. */
function hello(options: object): Promise<Buffer> {
  return new Promise((resolve) => {
    const parts: Buffer[] = []
    const stream = new Duplex({ read() {}, write: (chunk, _e, done) => (parts.push(chunk), done(), setImmediate(() => resolve(Buffer.concat(parts)))) })
    connect({ socket: stream as never, ...options }).on('error', () => {})
  })
}

test('name and protocols of a hello are read, from any cut of it', async (t) => {
  const b = await hello({ servername: 'Shop.Example.com', ALPNProtocols: ['h2', 'http/1.1'] })
  const wanted = { serverName: 'shop.example.com', alpn: ['h2', 'http/1.1'] }
  t.same(readClientHello(b, 0, b.length), wanted)
  for (let n = 0; n < b.length; n++) if (readClientHello(b, 0, n) !== 'more') t.fail(`${n} bytes are not enough`)
  const shifted = Buffer.concat([Buffer.from('xx'), b, Buffer.from('yy')])
  t.same(readClientHello(shifted, 2, 2 + b.length), wanted)
})

test('a hello may be spread over many records', async (t) => {
  const b = await hello({ servername: 'a.example' })
  const records: Buffer[] = []
  for (let at = 5; at < b.length; at += 7) {
    const part = b.subarray(at, Math.min(b.length, at + 7))
    records.push(Buffer.from([22, 3, 1, 0, part.length]), part)
  }
  const spread = Buffer.concat(records)
  t.same(readClientHello(spread, 0, spread.length), { serverName: 'a.example', alpn: [] })
  for (let n = 0; n < spread.length; n++) if (readClientHello(spread, 0, n) !== 'more') t.fail(`${n} bytes are not enough`)
})

test('what is no hello is refused at once', async (t) => {
  const b = await hello({ servername: 'a.example' })
  const broken = (at: number, value: number): Buffer => {
    const c = Buffer.from(b)
    c[at] = value
    return c
  }
  for (const [what, bytes] of [
    ['plain HTTP', Buffer.from('GET / HTTP/1.1\r\n')],
    ['one wrong byte', Buffer.from('G')],
    ['another handshake message', broken(5, 2)],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0])],
    ['a message too long', broken(6, 1)],
    ['a session id beyond the end', broken(43, 255)],
  ] as const)
    t.equal(readClientHello(bytes, 0, bytes.length), 'bad', what)
  // Whatever is changed, nothing throws and nothing is read beyond the end.
  for (let at = 0; at < b.length; at++) for (const value of [0, 1, 127, 255]) readClientHello(broken(at, value), 0, b.length)
})
