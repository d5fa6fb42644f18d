import dgram from 'node:dgram'
import net from 'node:net'
import { test } from 'tap'
import { namespace, service, slice } from '../kube/testing/builders.ts'
import { silent } from '../lib/log.ts'
import { openEpoll } from '../linux/sockets/driver.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import type { Driver } from '../lib/sockets/seam.ts'
import type { Answer, Handler, Query } from './answer.ts'
import { Packer } from './packer.ts'
import { serveDatagrams, serveStreams, type StreamLimits } from './serve.ts'
import { Server } from './server.ts'
import { printMessage, site } from './testing/site.ts'
import { decode, encode } from './wire/message.ts'
import { labelsOf, nameOf, root } from './wire/name.ts'
import { Class, Flag, Rcode, Type, typeNumber } from './wire/types.ts'

const many = Array.from({ length: 100 }, (_, i) => `10.244.9.${i}`)
const cluster = site([namespace('shop'), service('shop/api', { clusterIP: '10.96.8.20' }), service('shop/big', { clusterIP: 'None' }), slice('shop/big', many)])

/** `slow250.test` is answered after 250 ms, `drop.test` not at all, `throw.test` with an error. */
class Testing implements Handler {
  readonly name = 'testing'
  readonly manner = 'asks'
  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const [label, zone] = labelsOf(query.name)
    if (zone !== 'test') return next()
    const base = { rcode: Rcode.NOERROR, authoritative: true, answers: [], authority: [], additional: [] }
    if (label === 'drop') return { ...base, drop: true }
    if (label === 'throw') throw new Error('on purpose')
    if (label === 'unwritable') return { ...base, answers: [{ name: query.name, type: Type.TXT, class: Class.IN, ttl: 2 ** 32, data: 'x'.repeat(70_000) }] }
    await new Promise((r) => setTimeout(r, Number(label!.slice(4))))
    return { ...base, answers: [{ name: query.name, type: Type.A, class: Class.IN, ttl: 1, data: '\x0a\0\0\x01' }] }
  }
}

const server = new Server([{ zone: root, text: '.', bufsize: 1232, handlers: [new Testing(), ...cluster.server.sites[0]!.handlers] }], silent)

const drivers: Readonly<Record<string, () => Promise<Driver | string>>> = { node: async () => openNode(), epoll: openEpoll }

async function serving(
  fast: boolean,
  limits: Partial<StreamLimits> = {},
  open: () => Promise<Driver | string> = drivers['node']!,
): Promise<{ readonly driver: Driver; readonly port: number; readonly streams: { readonly connections: number; drain(): void }; close(): Promise<void> }> {
  const driver = (await open()) as Driver
  const packer = fast ? Packer.of(cluster.server.sites, { bytes: 8 * 1024 * 1024 }) : undefined
  // The port that is free for one transport may be taken for the other.
  let udp = await serveDatagrams(driver, { host: '127.0.0.1', port: 0 }, server, { fast: packer?.resolver() })
  let streams: Awaited<ReturnType<typeof serveStreams>> | undefined
  for (let i = 0; streams === undefined; i++) {
    try {
      streams = await serveStreams(driver, { host: '127.0.0.1', port: udp.port }, server, { limits, fast: packer?.resolver() })
    } catch (error) {
      udp.close()
      if (i > 5) throw error
      udp = await serveDatagrams(driver, { host: '127.0.0.1', port: 0 }, server, { fast: packer?.resolver() })
    }
  }
  const listening = streams
  return {
    driver,
    port: udp.port,
    streams: listening,
    close: async () => {
      udp.close()
      listening.close()
      await driver.close()
    },
  }
}

function question(id: number, name: string, type = 'A', size?: number): Buffer {
  const b = Buffer.alloc(600)
  return Buffer.from(
    b.subarray(0, encode({ id, flags: Flag.RD, rcode: 0, question: { name: nameOf(name), type: typeNumber(type)!, class: 1 }, edns: size === undefined ? undefined : { size, dnssec: false } }, b)),
  )
}

/** Sends datagrams and gathers what comes back within `ms`, or until `n` came. */
async function datagrams(port: number, all: readonly Buffer[], n: number, ms = 300): Promise<Buffer[]> {
  const socket = dgram.createSocket('udp4')
  const out: Buffer[] = []
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms)
    socket.on('message', (m) => {
      out.push(m)
      if (out.length < n) return
      clearTimeout(timer)
      resolve()
    })
    for (const b of all) socket.send(b, port, '127.0.0.1')
  })
  await new Promise<void>((resolve) => socket.close(() => resolve()))
  return out
}

const framed = (b: Buffer): Buffer => Buffer.concat([Buffer.from([b.length >> 8, b.length & 255]), b])

interface Client {
  readonly socket: net.Socket
  /** Messages so far. */
  readonly got: Buffer[]
  readonly ended: Promise<string>
  until(n: number): Promise<void>
}

async function stream(port: number): Promise<Client> {
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const got: Buffer[] = []
  let rest: Buffer = Buffer.alloc(0)
  let wake = (): void => {}
  socket.on('data', (b) => {
    rest = Buffer.concat([rest, b])
    while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
      got.push(rest.subarray(2, 2 + rest.readUInt16BE(0)))
      rest = rest.subarray(2 + rest.readUInt16BE(0))
    }
    wake()
  })
  const ended = new Promise<string>((resolve) => {
    socket.on('end', () => resolve('end'))
    socket.on('error', (e: NodeJS.ErrnoException) => resolve(e.code ?? 'error'))
    socket.on('close', () => resolve('close'))
  })
  await new Promise<void>((resolve) => socket.once('connect', resolve))
  return {
    socket,
    got,
    ended,
    until: async (n) => {
      const late = performance.now() + 60_000
      while (got.length < n && performance.now() < late) await Promise.race([new Promise<void>((r) => (wake = r)), new Promise((r) => setTimeout(r, 50))])
    },
  }
}

for (const [fast, name] of [
  [false, 'node'],
  [true, 'node'],
  [false, 'epoll'],
  [true, 'epoll'],
] as const) {
  const path = `${fast ? 'compiled' : 'handlers'}, ${name}`
  const open = drivers[name]!
  const there = await open()
  const skip = typeof there === 'string' ? `no ${name} driver: ${there}` : false
  if (typeof there !== 'string') await there.close()
  test(`datagrams (${path})`, { skip }, async (t) => {
    const s = await serving(fast, {}, open)
    t.teardown(() => s.close())
    const [reply] = await datagrams(s.port, [question(7, 'api.shop.svc.cluster.local')], 1)
    t.equal(printMessage(decode(reply!)), 'NOERROR aa\napi.shop.svc.cluster.local. 5 A 10.96.8.20')
    t.equal(decode(reply!).id, 7)
    const response = question(8, 'api.shop.svc.cluster.local')
    response[2]! |= 0x80
    t.same(await datagrams(s.port, [response, Buffer.alloc(0), Buffer.alloc(11), question(9, 'drop.test')], 1, 100), [], 'no answer to responses, nothing and too little')
    const [broken] = await datagrams(s.port, [question(10, 'api.shop.svc.cluster.local').subarray(0, 20)], 1)
    t.equal(broken!.toString('hex'), `000a810100000000${'00'.repeat(4)}`, 'FORMERR with a header only')
    const [failed] = await datagrams(s.port, [question(11, 'throw.test')], 1)
    t.equal(decode(failed!).rcode, Rcode.SERVFAIL)
    const [unwritable] = await datagrams(s.port, [question(12, 'unwritable.test')], 1)
    t.ok(unwritable !== undefined, 'what cannot be written is answered')
    const [refused] = await datagrams(s.port, [question(13, 'example.com')], 1)
    t.equal(printMessage(decode(refused!)), 'REFUSED')
    for (const [size, most, records] of [
      [undefined, 512, 29],
      [100, 512, 28],
      [1232, 1232, 73],
      [65_535, 1232, 73],
    ] as const) {
      const [cut] = await datagrams(s.port, [question(14, 'big.shop.svc.cluster.local', 'A', size)], 1)
      const m = decode(cut!)
      t.ok(cut!.length <= most)
      t.same([m.flags & Flag.TC, m.answers.length, m.edns?.size], [Flag.TC, records, size === undefined ? undefined : 1232], `${size} octets asked`)
    }
    const bad = question(15, 'api.shop.svc.cluster.local', 'A', 1232)
    bad[bad.length - 5] = 1
    const [version] = await datagrams(s.port, [bad], 1)
    t.equal(decode(version!).rcode, Rcode.BADVERS)
    t.equal((await datagrams(s.port, [question(16, 'api.shop.svc.cluster.local')], 1)).length, 1, 'it goes on')
  })

  test(`connections (${path})`, { skip }, async (t) => {
    const s = await serving(fast, { idle: 400, message: 300 }, open)
    t.teardown(() => s.close())
    const c = await stream(s.port)
    c.socket.write(Buffer.concat([framed(question(1, 'slow250.test')), framed(question(2, 'api.shop.svc.cluster.local')), framed(question(3, 'slow50.test')), framed(question(4, 'drop.test'))]))
    await c.until(3)
    t.same(
      c.got.map((b) => decode(b).id),
      [2, 3, 1],
      'each answer as soon as it is there',
    )
    t.equal(decode(c.got[0]!).answers.length, 1)
    c.socket.end()
    t.equal(await c.ended, 'end')

    const big = await stream(s.port)
    big.socket.write(framed(question(5, 'big.shop.svc.cluster.local')))
    await big.until(1)
    t.same([decode(big.got[0]!).answers.length, decode(big.got[0]!).flags & Flag.TC], [100, 0], 'whole over TCP')
    big.socket.destroy()

    const half = await stream(s.port)
    half.socket.end(framed(question(6, 'slow100.test')))
    await half.until(1)
    t.equal(decode(half.got[0]!).id, 6, 'a client that ends after its question gets its answer')
    t.equal(await half.ended, 'end')

    const pieces = await stream(s.port)
    for (const octet of framed(question(7, 'api.shop.svc.cluster.local'))) {
      pieces.socket.write(Buffer.from([octet]))
      await new Promise((r) => setImmediate(r))
    }
    await pieces.until(1)
    t.equal(decode(pieces.got[0]!).id, 7, 'octet by octet')

    t.equal(await pieces.ended, 'end', 'an idle connection is closed in order')
    const unfinished = await stream(s.port)
    unfinished.socket.write(Buffer.from([0, 50, 1]))
    t.match(await unfinished.ended, /ECONNRESET|close|end/, 'one with half a message too')
    const http = await stream(s.port)
    http.socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    t.match(await http.ended, /ECONNRESET|close|end/, 'another protocol ends in a timeout')
    t.same(http.got, [])
  })
}

test('many questions at once on one connection are all answered, and no more than allowed are under way', async (t) => {
  const s = await serving(false, { concurrent: 8, queries: 300 })
  t.teardown(() => s.close())
  const c = await stream(s.port)
  let most = 0
  const look = setInterval(() => (most = Math.max(most, server.busy)), 1)
  c.socket.end(Buffer.concat(Array.from({ length: 100 }, (_, i) => framed(question(i, 'slow5.test')))))
  await c.until(100)
  clearInterval(look)
  t.equal(new Set(c.got.map((b) => decode(b).id)).size, 100)
  t.ok(most <= 8, `${most} at once`)
  t.equal(await c.ended, 'end')
  const over = await stream(s.port)
  over.socket.write(Buffer.concat(Array.from({ length: 400 }, (_, i) => framed(question(i, 'slow0.test')))))
  t.match(await over.ended, /end|ECONNRESET|close/)
  t.equal(over.got.length, 300, 'after so many the connection is closed')
})

test('draining: no connection is taken, those that are there get their answers', async (t) => {
  const s = await serving(false)
  t.teardown(() => s.close())
  const c = await stream(s.port)
  c.socket.write(framed(question(1, 'slow200.test')))
  await new Promise((r) => setTimeout(r, 50))
  s.streams.drain()
  await c.until(1)
  t.equal(c.got.length, 1)
  t.equal(await c.ended, 'end')
})
