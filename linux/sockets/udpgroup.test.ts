import { spawn } from 'node:child_process'
import dgram from 'node:dgram'
import { test, type Test } from 'tap'
import { silent } from '../../lib/log.ts'
import { Workers } from '../../lib/workers.ts'
import { missing } from '../ffi/ffi.ts'
import { UdpGroup, type Handed } from './udpgroup.ts'
import { UdpRing } from './udpring.ts'

const skip = missing ?? false
const file = new URL('./testdata/udpechoer.ts', import.meta.url)

async function start(t: Test, host: string, options: { readonly count?: number; readonly nap?: number } = {}) {
  const count = options.count ?? 2
  const handed: { readonly text: string; readonly local: string }[] = []
  const take: Handed = (b, from, to, peer, local, bound) => {
    handed.push({ text: b.toString('latin1', from, Math.min(to, from + 20)), local: local.host })
    bound.send(Buffer.from('M'), 0, 1, peer, local)
  }
  const group = new UdpGroup({ host, port: 0 }, { count, nap: options.nap ?? 0, handed: take })
  const workers = new Workers<null, never>({ file, count, data: { shares: group.shares }, whole: () => null, message: (i) => group.drain(i), log: silent })
  t.teardown(async () => {
    group.stop()
    await workers.close()
    group.close()
  })
  await workers.ready()
  return { group, workers, handed, port: group.address.port }
}

interface Client {
  /** Sends all, and gives what came back: `text from ADDRESS`, sorted. Those that are lost are sent again. */
  ask(texts: readonly (string | Buffer)[], port: number, host: string, wanted?: number, ms?: number): Promise<string[]>
}

async function client(t: Test, type: 'udp4' | 'udp6' = 'udp4'): Promise<Client> {
  const socket = dgram.createSocket({ type, ...(type === 'udp6' ? { ipv6Only: true } : {}) })
  await new Promise<void>((r) => socket.bind(0, type === 'udp4' ? '0.0.0.0' : '::', r))
  t.teardown(() => new Promise<void>((r) => socket.close(r)))
  return {
    ask: async (texts, port, host, wanted = texts.length, ms = 20_000) => {
      const got: string[] = []
      const all = Promise.withResolvers<void>()
      const on = (b: Buffer, from: dgram.RemoteInfo): void => {
        got.push(`${b.length > 40 ? b.length : b.toString('latin1')} from ${from.address}`)
        if (got.length >= wanted) all.resolve()
      }
      socket.on('message', on)
      for (const text of texts) socket.send(text, port, host)
      if (wanted > 0) await Promise.race([all.promise, new Promise((r) => setTimeout(r, ms).unref())])
      socket.off('message', on)
      return got.toSorted()
    },
  }
}

test('datagrams are answered by workers, or by the main thread', { skip }, async (t) => {
  const s = await start(t, '127.0.0.1')
  const c = await client(t)
  t.same(await c.ask(['a', 'b', 'm1', 'd', '', 'm2'], s.port, '127.0.0.1', 4), ['M from 127.0.0.1', 'M from 127.0.0.1', 'a from 127.0.0.1', 'b from 127.0.0.1'])
  t.same(s.handed.map((h) => h.text).toSorted(), ['m1', 'm2'])
  t.same(await c.ask([Buffer.alloc(4096, 0x61), Buffer.alloc(5000, 0x61), 'z'], s.port, '127.0.0.1', 2), ['4096 from 127.0.0.1', 'z from 127.0.0.1'], 'what is longer than any question is dropped')
  for (let round = 0; round < 20; round++) {
    const many = Array.from({ length: 50 }, (_, i) => `${i % 5 === 0 ? 'm' : 'x'}${i}`)
    const got = await c.ask(many, s.port, '127.0.0.1')
    t.equal(got.length, 50)
  }
  t.equal(s.group.dropped, 0)
})

test('one client meets every worker', { skip }, async (t) => {
  const s = await start(t, '127.0.0.1', { count: 3 })
  const c = await client(t)
  await c.ask(
    Array.from({ length: 100 }, (_, i) => `x${i}`),
    s.port,
    '127.0.0.1',
  )
  // A worker that is killed takes its batch with it; another one reads on from the same socket.
  for (let i = 0; i < 3; i++) await c.ask(['k'], s.port, '127.0.0.1', 0)
  const texts = Array.from({ length: 30 }, (_, i) => `y${i}`)
  let got: readonly string[] = []
  for (let tries = 0; tries < 60 && got.length < texts.length; tries++) got = await c.ask(texts, s.port, '127.0.0.1', texts.length, 500)
  t.equal(got.length, texts.length, 'all are answered again')
})

test('an answer leaves from the address that was asked', { skip }, async (t) => {
  for (const [host, asked, six] of [
    ['0.0.0.0', '127.0.0.5', false],
    ['', '127.0.0.6', false],
    ['', '::1', true],
  ] as const) {
    const s = await start(t, host, { nap: 50_000 })
    const c = await client(t, six ? 'udp6' : 'udp4')
    t.same(await c.ask(['a', 'm'], s.port, asked), [`M from ${asked}`, `a from ${asked}`], `${host === '' ? 'dual' : host}, ${asked}`)
    t.same(s.handed, [{ text: 'm', local: asked }])
  }
})

test('what came before the end is answered', { skip }, async (t) => {
  const s = await start(t, '127.0.0.1', { count: 1 })
  const c = await client(t)
  const asking = c.ask(
    Array.from({ length: 40 }, (_, i) => `x${i}`),
    s.port,
    '127.0.0.1',
  )
  await new Promise((r) => setTimeout(r, 20))
  s.group.stop()
  await s.workers.close()
  t.equal((await asking).length, 40)
})

test('a process ends although workers wait', { skip }, async (t) => {
  for (const [how, code] of [
    ['exit', 0],
    ['throw', 1],
  ] as const) {
    const child = spawn(process.execPath, [new URL('./testdata/udpexit.ts', import.meta.url).pathname, how], { stdio: 'ignore' })
    const timer = setTimeout(() => child.kill('SIGKILL'), 60_000)
    t.equal(await new Promise((r) => child.once('exit', r)), code, how)
    clearTimeout(timer)
  }
})

test('a ring that is full refuses, counts, and rings once for each sleep', (t) => {
  const ring = new UdpRing()
  const other = new UdpRing(ring.memory)
  const b = Buffer.from('x'.repeat(200))
  t.equal(ring.bell(), true, 'nobody has looked yet')
  t.equal(ring.bell(), false)
  let taken = 0
  for (let i = 0; i < 256; i++) ring.put(b, 0, 1 + (i % 100), 100, 130, 32)
  t.equal(ring.put(b, 0, 1, 100, 130, 0), false)
  t.equal(other.refused, 1)
  t.equal(
    other.drain(200, (bytes, from, to, _name, _control, length) => {
      t.equal(bytes.toString('latin1', from, to), 'x'.repeat(1 + (taken++ % 100)))
      t.equal(length, 32)
    }),
    true,
  )
  t.equal(ring.bell(), false, 'the reader is awake')
  t.equal(
    other.drain(200, () => taken++),
    false,
  )
  t.equal(taken, 256)
  t.equal(ring.bell(), true)
  t.end()
})
