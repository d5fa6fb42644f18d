import { test } from 'tap'
import { cases, noise, Referee } from '../suite/suite.ts'
import { MemoryDriver, type MemoryOptions } from './driver.ts'

const networks: readonly (readonly [string, MemoryOptions])[] = [
  ['by seed', { seed: 1 }],
  ['whole and at once', { cut: (n) => n, take: (n) => n, splice: true }],
  ['with little room', { seed: 3, capacity: 4096, room: 0, splice: false }],
]

for (const [network, options] of networks) {
  for (const { name, run, needs } of cases) {
    test(`${network}: ${name}`, async (t) => {
      const driver = new MemoryDriver(options)
      driver.unreachable('192.0.2.1')
      const fixture = { driver, tls: false, bounded: 1024 * 1024, silent: '192.0.2.1', advance: (ms: number) => driver.advance(ms) }
      if (needs?.(fixture) === false) return void t.pass(name, { skip: 'not for this driver' })
      await run(fixture)
      await driver.close()
      t.pass()
    })
  }
}

test('an echo is the same bytes wherever they are cut', async (t) => {
  const body = noise(64)
  for (let at = 1; at < body.length; at++) {
    const driver = new MemoryDriver({ auto: false, cut: (n, offset) => (offset < at ? Math.min(n, at - offset) : n) })
    await driver.listen({ host: '', port: 80 }, () => new Referee({ data: (r, b, from, to) => void r.wire.write(b, from, to), eof: (r) => r.wire.end() }))
    const c = new Referee({ opened: (r) => (r.wire.write(body, 0, body.length), r.wire.end()) })
    driver.connect({ host: '10.0.0.1', port: 80 }, c)
    driver.settle()
    t.equal(Buffer.concat(c.parts).equals(body), true)
    t.equal(c.parts[0]!.length, at)
    t.match([c.state, c.why, c.wrong], ['closed', '', undefined])
  }
})

test('one seed gives one run, another seed another', async (t) => {
  const run = async (seed: number): Promise<string> => {
    const driver = new MemoryDriver({ seed, auto: false })
    const seen: number[] = []
    await driver.listen({ host: '', port: 80 }, () => new Referee({ data: (_r, _b, from, to) => void seen.push(from, to) }))
    for (let i = 0; i < 3; i++) driver.connect({ host: '10.0.0.1', port: 80 }, new Referee({ opened: (r) => void r.wire.write(noise(500), 0, 500) }))
    driver.settle()
    return seen.join()
  }
  t.equal(await run(5), await run(5))
  t.not(await run(5), await run(6))
})

test('the network can break a connection, and both ends learn of it', async (t) => {
  const driver = new MemoryDriver({ auto: false })
  const servers: Referee[] = []
  await driver.listen({ host: '', port: 80 }, () => (servers.push(new Referee()), servers.at(-1)!))
  const c = new Referee()
  const wire = driver.connect({ host: '10.0.0.1', port: 80 }, c)
  driver.settle()
  driver.reset(wire)
  t.equal(wire.alive, true, 'nobody knows yet')
  driver.settle()
  t.match([c.why, servers[0]!.why], [/^ECONNRESET/, /^ECONNRESET/])
  t.equal(driver.wires.size, 0)
})

test('time moves by hand, and what is due happens in order', async (t) => {
  const driver = new MemoryDriver({ auto: false })
  driver.unreachable('10.0.0.9')
  const seen: string[] = []
  driver.every(40, () => seen.push(`tick at ${driver.now}`))
  driver.connect({ host: '10.0.0.9', port: 1 }, new Referee({ closed: (_r, why) => void seen.push(`${why} at ${driver.now}`) }), { timeout: 50 })
  driver.advance(100)
  t.same(seen, ['tick at 40', 'timeout: no connection to 10.0.0.9:1 within 50 ms at 50', 'tick at 80'])
})
