import { test } from 'tap'
import type { Ip } from '../../lib/ip.ts'
import { MemoryDriver } from '../../lib/sockets/memory/driver.ts'
import { noise, Referee } from '../../lib/sockets/suite/suite.ts'
import type { Endpoint } from '../table.ts'
import { Balance } from './balance.ts'
import { DatagramForwarder } from './datagrams.ts'
import { Forwarded } from './streams.ts'

const endpoint = (address: string, port = 80): Endpoint => ({ address: address as Ip, port, local: true })
const counts = () => ({ open: 0, refused: 0, retried: 0 })

test('bytes, ends and their order survive every seed, spliced or copied, whichever endpoints refuse', async (t) => {
  const body = noise(100_003)
  for (let seed = 1; seed <= 40; seed++) {
    const driver = new MemoryDriver({ seed, auto: false, capacity: seed % 3 === 0 ? 1000 : 65_536 })
    const balance = new Balance(driver.random)
    balance.set([endpoint('10.0.0.1'), endpoint('10.0.0.2'), endpoint('10.0.0.3')], undefined)
    const c = counts()
    await driver.listen(
      { host: '10.0.0.3', port: 80 },
      () => new Referee({ data: (r, b, from, to) => void (r.wire.write(b, from, to) || r.wire.pause()), drain: (r) => r.wire.resume(), eof: (r) => r.wire.end() }),
    )
    await driver.listen({ host: '', port: 1 }, () => new Forwarded(driver, balance, c))
    const client = new Referee({ opened: (r) => (r.wire.write(body, 0, body.length), r.wire.end()) })
    driver.connect({ host: '10.9.9.9', port: 1 }, client)
    driver.settle()
    if (!Buffer.concat(client.parts).equals(body) || client.why !== '' || c.open !== 0 || driver.wires.size !== 0 || client.wrong !== undefined)
      t.fail(`seed ${seed}: ${client.bytes} bytes, why ${client.why}, ${c.open} open`)
  }
  t.pass('40 seeds')
})

test('when every endpoint refuses, each is asked once and the client is reset', async (t) => {
  const driver = new MemoryDriver({ auto: false })
  const balance = new Balance(driver.random)
  balance.set([endpoint('10.0.0.1'), endpoint('10.0.0.2')], undefined)
  const c = counts()
  await driver.listen({ host: '', port: 1 }, () => new Forwarded(driver, balance, c))
  const client = new Referee()
  driver.connect({ host: '10.9.9.9', port: 1 }, client)
  driver.settle()
  t.match(client.why, /^ECONNRESET/)
  t.same(c, { open: 0, refused: 1, retried: 2 })
})

test('an endpoint that does not answer is left for another one within half a second, and affinity moves with it', async (t) => {
  const driver = new MemoryDriver({ auto: false })
  driver.unreachable('10.0.0.1')
  const balance = new Balance(() => 0)
  balance.set([endpoint('10.0.0.1'), endpoint('10.0.0.2')], 100)
  const servers: Referee[] = []
  await driver.listen({ host: '10.0.0.2', port: 80 }, () => (servers.push(new Referee()), servers.at(-1)!))
  await driver.listen({ host: '', port: 1 }, () => new Forwarded(driver, balance, counts()))
  driver.connect({ host: '10.9.9.9', port: 1 }, new Referee())
  driver.advance(500)
  t.equal(servers.length, 1)
  t.equal(balance.pick('127.0.0.1', driver.now)?.address, '10.0.0.2', 'met again')
  t.equal(balance.pick('127.0.0.2', driver.now)?.address, '10.0.0.1')
  t.equal(balance.pick('127.0.0.1', driver.now + 101_000)?.address, '10.0.0.1', 'until its time is over')
})

test('a reset goes through in both directions, at any time', async (t) => {
  for (let seed = 1; seed <= 30; seed++) {
    const driver = new MemoryDriver({ seed, auto: false })
    const balance = new Balance(driver.random)
    balance.set([endpoint('10.0.0.3')], undefined)
    const c = counts()
    const servers: Referee[] = []
    await driver.listen({ host: '10.0.0.3', port: 80 }, () => (servers.push(new Referee()), servers.at(-1)!))
    await driver.listen({ host: '', port: 1 }, () => new Forwarded(driver, balance, c))
    const client = new Referee({ opened: (r) => void r.wire.write(noise(1000), 0, 1000) })
    const wire = driver.connect({ host: '10.9.9.9', port: 1 }, client)
    for (let i = 0; i < seed; i++) driver.step()
    const clientFirst = seed % 2 === 0 || servers[0]?.wire === undefined
    if (clientFirst) wire.abort()
    else servers[0]!.wire.abort()
    driver.settle()
    const other = clientFirst ? servers[0] : client
    if (driver.wires.size !== 0 || c.open !== 0 || (other !== undefined && other.state !== 'new' && other.why?.startsWith('ECONNRESET') !== true))
      t.fail(`seed ${seed}: ${driver.wires.size} wires, ${c.open} open, ${other?.state} ${other?.why}`)
  }
  t.pass('30 seeds')
})

test('datagrams of a client go to one endpoint, to another when it refuses, and sessions end when quiet', async (t) => {
  const driver = new MemoryDriver({ auto: false })
  const balance = new Balance(() => 0)
  balance.set([endpoint('10.0.0.1', 53), endpoint('10.0.0.2', 53)], undefined)
  const c = counts()
  await driver.bind({ host: '10.0.0.2', port: 53 }, (batch) => {
    for (let i = 0; i < batch.count; i++) batch.answer(i, batch.bytes, batch.start(i), batch.end(i))
  })
  const forwarder = new DatagramForwarder(driver, balance, c, 1000)
  forwarder.bound = await driver.bind({ host: '10.9.9.9', port: 1 }, (batch) => forwarder.received(batch))
  const got: string[] = []
  const client = await driver.bind({ host: '10.5.5.5', port: 7 }, (batch) => {
    for (let i = 0; i < batch.count; i++) got.push(`${batch.bytes.toString('latin1', batch.start(i), batch.end(i))} from ${batch.peer(i).host}`)
  })
  const rest = async (): Promise<void> => {
    for (let i = 0; i < 20; i++) {
      driver.settle()
      await Promise.resolve()
    }
  }
  client.send(Buffer.from('one'), 0, 3, { host: '10.9.9.9', port: 1 })
  client.send(Buffer.from('two'), 0, 3, { host: '10.9.9.9', port: 1 })
  await rest()
  t.same(got, ['one from 10.9.9.9', 'two from 10.9.9.9'])
  t.same(c, { open: 1, refused: 0, retried: 1 })
  driver.advance(999)
  forwarder.sweep(driver.now)
  t.equal(c.open, 1)
  driver.advance(2)
  forwarder.sweep(driver.now)
  t.equal(c.open, 0)
  balance.set([], undefined)
  client.send(Buffer.from('three'), 0, 5, { host: '10.9.9.9', port: 1 })
  await rest()
  t.match(c, { open: 0, refused: 1 })
  forwarder.close()
})
