import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { test, type Test } from 'tap'
import { silent } from '../../lib/log.ts'
import { openNode } from '../../lib/sockets/node/driver.ts'
import type { Driver } from '../../lib/sockets/seam.ts'
import { Referee } from '../../lib/sockets/suite/suite.ts'
import { workerFile } from '../../lib/workers.ts'
import { Crew, type CrewSocket } from './crew.ts'
import { openEpoll } from './driver.ts'

const here: CrewSocket = { at: { host: '127.0.0.1', port: 0 } }

async function crewOf(
  driver: Driver,
  more: { readonly died?: (index: number) => void; readonly heard?: (index: number, words: unknown) => void; readonly count?: number; readonly sockets?: Record<string, CrewSocket> } = {},
) {
  const crew = await Crew.open<string, string, string>({
    driver,
    file: workerFile(import.meta.url, './testdata/echoer.ts'),
    count: more.count ?? 2,
    sockets: more.sockets ?? { echo: here },
    whole: () => 'all',
    ...(more.died === undefined ? {} : { died: more.died }),
    ...(more.heard === undefined ? {} : { message: more.heard }),
    log: silent,
  })
  await crew.ready()
  return crew
}

const connect = (driver: Driver, port: number): Referee => {
  const r = new Referee()
  r.wire = driver.connect({ host: '127.0.0.1', port }, r)
  return r
}

const descriptors = (): number => readdirSync('/proc/self/fd').length
const until = async (holds: () => boolean): Promise<void> => {
  for (let i = 0; i < 2000 && !holds(); i++) await sleep(5)
}

const epoll = await openEpoll()
const drivers: Driver[] = [openNode(), ...(typeof epoll === 'string' ? [] : [epoll])]
const tests: Record<string, (t: Test, driver: Driver) => Promise<void>> = {
  'a crew serves one port with all its workers, and the table reaches each': async (t, driver) => {
    const heard = new Map<number, unknown>()
    const crew = await crewOf(driver, { heard: (index, words) => void heard.set(index, words), sockets: { a: here, b: here } })
    t.not(crew.ports.a, crew.ports.b)
    const clients = Array.from({ length: 40 }, (_, i) => connect(driver, crew.ports[i % 2 === 0 ? 'a' : 'b']!))
    for (const c of clients) await c.until(() => c.bytes === 1)
    t.same([...new Set(clients.map((c) => c.text))].toSorted(), ['0', '1'], 'both serve')
    crew.change(' and more')
    crew.send(0, 'what?')
    crew.send(1, 'what?')
    await until(() => heard.size === 2)
    t.same([heard.get(0), heard.get(1)], ['all and more', 'all and more'])
    for (const c of clients) c.call(() => c.wire.end())
    for (const c of clients) await c.until(() => c.state === 'closed')
    t.same([...new Set(clients.map((c) => c.why))], [''])
    await crew.close()
  },
  'a port that somebody has is an error at the start': async (t, driver) => {
    const crew = await crewOf(driver)
    await t.rejects(crewOf(driver, { sockets: { echo: { at: { host: '127.0.0.1', port: crew.ports.echo! } } } }), { message: /EADDRINUSE/ })
    await crew.close()
    const free = await driver.listen({ host: '127.0.0.1', port: crew.ports.echo! }, () => new Referee())
    free.close()
  },
  'a crew that ends lets its connections end first, and takes nobody new': async (t, driver) => {
    const crew = await crewOf(driver)
    const held = connect(driver, crew.ports.echo!)
    await held.until(() => held.bytes === 1)
    const closing = crew.close(60_000)
    let over = false
    void closing.then(() => (over = true))
    await sleep(50)
    t.equal(over, false, 'it waits')
    if (driver.name === 'epoll') {
      const early = connect(driver, crew.ports.echo!)
      await early.until(() => early.state === 'closed')
      t.match(early.why, /^ECONNREFUSED/, 'who comes meanwhile is refused, and does not hang in a queue')
    }
    held.call(() => void held.wire.write(Buffer.from('still there'), 0, 11))
    await held.until(() => held.bytes === 12)
    held.call(() => held.wire.end())
    await held.until(() => held.state === 'closed')
    t.equal(held.why, '')
    await closing
    const late = connect(driver, crew.ports.echo!)
    await late.until(() => late.state === 'closed')
    t.match(late.why, /^ECONNREFUSED/)
  },
  'a worker that never returns from a call is ended with the crew': async (t, driver) => {
    const crew = await crewOf(driver, { count: 1 })
    const c = connect(driver, crew.ports.echo!)
    await c.until(() => c.bytes === 1)
    c.call(() => void c.wire.write(Buffer.from('stop!'), 0, 5))
    await sleep(50)
    await crew.close(200)
    await c.until(() => c.state === 'eof' || c.state === 'closed')
    t.pass('it ended')
    c.wire.abort()
  },
}
for (const driver of drivers) for (const [name, f] of Object.entries(tests)) test(`${driver.name}: ${name}`, async (t) => f(t, driver))

if (typeof epoll === 'string') test('the hand-over', async (t) => void t.pass(epoll, { skip: epoll }))
else {
  test('connections are spread evenly over the workers that share a socket, whoever accepts them', async (t) => {
    const crew = await crewOf(epoll)
    const clients = Array.from({ length: 64 }, () => connect(epoll, crew.ports.echo!))
    for (const c of clients) {
      await c.until(() => c.bytes === 1)
      c.call(() => void c.wire.write(Buffer.from('hello'), 0, 5))
    }
    for (const c of clients) await c.until(() => c.bytes === 6)
    const first = clients.filter((c) => c.text.startsWith('0')).length
    t.ok(first >= 24 && first <= 40, `${first} of 64 went to the first`)
    t.equal(crew.connections[0]! + crew.connections[1]!, 64)
    for (const c of clients) c.call(() => c.wire.end())
    for (const c of clients) await c.until(() => c.state === 'closed')
    t.same([...new Set(clients.map((c) => c.why))], [''])
    await until(() => crew.connections.every((n) => n === 0))
    t.same(crew.connections, [0, 0])
    await crew.close()
  })

  for (const how of ['terminated', 'thrown'])
    test(`a worker that dies under load (${how}) takes only its own connections with it, nobody is refused, and the next one serves`, async (t) => {
      const died: number[] = []
      const before = descriptors()
      const crew = await crewOf(epoll, { died: (index) => died.push(index) })
      const port = crew.ports.echo!
      const held = Array.from({ length: 20 }, () => connect(epoll, port))
      for (const c of held) await c.until(() => c.bytes === 1)
      let going = true
      const served: string[] = []
      const wrong: string[] = []
      const loading = (async () => {
        while (going) {
          const c = connect(epoll, port)
          await c.until(() => c.bytes > 0 || c.state === 'eof' || c.state === 'closed')
          if (c.bytes > 0) served.push(c.text)
          // One that the dying worker had just been given is ended; refused is nobody.
          else if (died.length === 0 || (c.why !== undefined && !c.why.startsWith('ECONNRESET'))) wrong.push(c.why ?? 'ended')
          c.wire.abort()
        }
      })()
      await sleep(100)
      if (how === 'terminated') await crew.kill(1)
      else {
        const c = held.find((h) => h.text === '1')!
        c.call(() => void c.wire.write(Buffer.from('fail!'), 0, 5))
      }
      for (const c of held.filter((h) => h.text === '1')) await c.until(() => c.state === 'eof' || c.state === 'closed')
      await until(() => died.length > 0)
      t.same(died, [1])
      served.length = 0
      await until(() => served.includes('1'))
      going = false
      await loading
      t.ok(served.includes('1'), 'the one that took its place serves')
      t.same(wrong, [])
      const others = held.filter((h) => h.text === '0')
      t.ok(others.length > 0)
      t.same(
        others.filter((h) => h.state !== 'open').map((h) => h.why),
        [],
        'those of the other one live on',
      )
      for (const c of held) c.wire.abort()
      await crew.close()
      await until(() => descriptors() <= before)
      t.ok(descriptors() <= before, `${descriptors()} descriptors, ${before} before`)
    })

  test('who waits in the queue when the crew ends is served', async (t) => {
    const crew = await crewOf(epoll)
    // The workers stop looking while connections come; their end finds them in the queue.
    const clients = Array.from({ length: 200 }, () => connect(epoll, crew.ports.echo!))
    await sleep(0)
    const closing = crew.close(60_000)
    for (const c of clients) {
      await c.until(() => c.bytes === 1 || c.state === 'closed')
      if (c.state !== 'closed') c.call(() => c.wire.end())
    }
    for (const c of clients) await c.until(() => c.state === 'closed')
    t.same(
      [...new Set(clients.map((c) => c.why))].filter((w) => w !== '' && !w!.startsWith('ECONNREFUSED')),
      [],
      'served or refused, never reset',
    )
    await closing
  })
}
test('the end', async () => {
  for (const driver of drivers) await driver.close()
})
