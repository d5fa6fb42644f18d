import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'tap'
import { seeded } from '../../lib/random.ts'
import { MemoryDriver } from '../../lib/sockets/memory/driver.ts'
import type { Driver } from '../../lib/sockets/seam.ts'
import { noise, Referee } from '../../lib/sockets/suite/suite.ts'
import { openEpoll } from './driver.ts'

/** What both drivers are made to do, by turns. */
type Operation = { readonly what: 'connect' } | { readonly what: 'write' | 'end' | 'abort' | 'pause' | 'resume'; readonly pair: number; readonly side: 0 | 1; readonly length: number }

interface World {
  readonly driver: Driver
  readonly port: number
  readonly pairs: [Referee, Referee | undefined][]
  close(): Promise<void>
}

async function world(driver: Driver): Promise<World> {
  const pairs: [Referee, Referee | undefined][] = []
  const listening = await driver.listen({ host: '127.0.0.1', port: 0 }, () => {
    const r = new Referee()
    pairs.at(-1)![1] = r
    return r
  })
  return {
    driver,
    port: listening.port,
    pairs,
    close: async () => {
      listening.close()
      await driver.close()
    },
  }
}

function perform(w: World, o: Operation): void {
  if (o.what === 'connect') {
    const client = new Referee()
    w.pairs.push([client, undefined])
    client.wire = w.driver.connect({ host: '127.0.0.1', port: w.port }, client)
    return
  }
  const r = w.pairs[o.pair]![o.side]
  if (r?.wire === undefined) return
  r.call(() => {
    switch (o.what) {
      case 'write':
        return void r.wire.write(noise(o.length, o.length), 0, o.length)
      case 'end':
        return r.wire.end()
      case 'abort':
        return r.wire.abort()
      case 'pause':
        return r.wire.pause()
      case 'resume':
        return r.wire.resume()
    }
  })
}

/** Everything a protocol could know, in words. */
function seen(w: World): string {
  return w.pairs
    .map((pair) =>
      pair
        .map((r) =>
          r === undefined
            ? 'none'
            : `${r.state} ${r.bytes} ${r.sha256.slice(0, 8)} ${r.why === undefined ? '' : /^(ECONNRESET|EPIPE)/.test(r.why) ? 'reset' : r.why || 'in order'} ${r.wire?.alive} ${r.wrong ?? ''}`,
        )
        .join(' | '),
    )
    .join('\n')
}

function draw(random: () => number, pairs: number): Operation {
  const pick = (n: number): number => Math.floor(random() * n)
  if (pairs === 0 || random() < 0.1) return { what: 'connect' }
  const what = (['write', 'write', 'write', 'write', 'end', 'abort', 'pause', 'resume', 'resume'] as const)[pick(9)]!
  return { what, pair: pick(pairs), side: pick(2) as 0 | 1, length: pick(4) === 0 ? 1 + pick(20_000) : 1 + pick(50) }
}

test('the same operations in the same order are seen the same on memory and on epoll', async (t) => {
  const first = process.env.TEST_SEED === undefined ? Math.floor(Math.random() * 1e6) : Number(process.env.TEST_SEED)
  t.comment(`seeds from ${first}; TEST_SEED=${first} runs them again`)
  const probe = await openEpoll()
  if (typeof probe === 'string') return void t.pass(probe, { skip: probe })
  await probe.close()
  for (let seed = first; seed < first + 12; seed++) {
    const random = seeded(seed)
    const memory = new MemoryDriver({ seed, auto: false, capacity: 1_000_000 })
    const epoll = await openEpoll()
    if (typeof epoll === 'string') throw new Error(epoll)
    const [a, b] = [await world(memory), await world(epoll)]
    const done: Operation[] = []
    for (let step = 0; step < 60; step++) {
      const o = draw(random, a.pairs.length)
      done.push(o)
      perform(a, o)
      memory.settle()
      perform(b, o)
      const wanted = seen(a)
      for (let i = 0; i < 400 && seen(b) !== wanted; i++) await sleep(i < 20 ? 0 : 5)
      if (seen(b) !== wanted) {
        t.equal(
          seen(b),
          wanted,
          `seed ${seed}, step ${step}: ${done
            .map((x) => JSON.stringify(x))
            .slice(-6)
            .join(' ')}`,
        )
        break
      }
    }
    await Promise.all([a.close(), b.close()])
  }
  t.pass('12 seeds')
})
