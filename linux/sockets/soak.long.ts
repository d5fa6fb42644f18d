import { readdirSync } from 'node:fs'
import t0, { test } from 'tap'
import { testAuthority } from '../../lib/sockets/suite/certificates.ts'
import type { Driver, Protocol, Wire } from '../../lib/sockets/seam.ts'
import { EpollDriver, openEpoll } from './driver.ts'

/** Exchanges; `SOAK=100000` makes it short. */
const exchanges = Number(process.env.SOAK ?? 10_000_000)

class Echo implements Protocol {
  #w!: Wire
  opened(w: Wire): void {
    this.#w = w
  }
  data(b: Buffer, from: number, to: number): void {
    this.#w.write(b, from, to)
  }
  drain(): void {}
  eof(): void {
    this.#w.end()
  }
  closed(): void {}
}

t0.setTimeout(3_600_000)

/** Exchanges over `width` connections at once, each ended after a hundred and opened again; every tenth is aborted instead. */
function exchange(d: Driver, port: number, count: number, width: number, how: Parameters<Driver['connect']>[2]): Promise<void> {
  const question = Buffer.from('how long is a small exchange?')
  let left = count
  let open = 0
  return new Promise((resolve) => {
    const start = (n: number): void => {
      open++
      let w: Wire
      let got = 0
      let rounds = 0
      d.connect(
        { host: '127.0.0.1', port },
        {
          opened: (x) => (w = x).write(question, 0, question.length),
          data: (_b, from, to) => {
            got += to - from
            if (got < question.length) return
            got -= question.length
            left--
            if (++rounds < 100 && left > 0) w.write(question, 0, question.length)
            else if (n % 10 === 9) w.abort()
            else w.end()
          },
          drain: () => {},
          eof: () => {},
          closed: () => {
            open--
            if (left > 0) start(n + 1)
            else if (open === 0) resolve()
          },
        },
        how,
      )
    }
    for (let i = 0; i < width; i++) start(i)
  })
}

test(`${exchanges} small exchanges leave memory flat and no descriptor, pipe or SSL behind`, { timeout: 3_600_000 }, async (t) => {
  const driver = await openEpoll()
  if (!(driver instanceof EpollDriver)) return void t.pass(driver, { skip: driver })
  const ca = testAuthority()
  const identity = ca.issue('soak.example')
  const plain = await driver.listen({ host: '127.0.0.1', port: 0 }, () => new Echo())
  const secure = await driver.listen({ host: '127.0.0.1', port: 0 }, () => new Echo(), { tls: { identity: () => identity } })
  const tls = { tls: { serverName: 'soak.example', ca: ca.ca } }
  const some = async (n: number): Promise<void> => {
    await Promise.all([exchange(driver, plain.port, Math.floor(n * 0.9), 50, {}), exchange(driver, secure.port, Math.ceil(n * 0.1), 10, tls)])
  }
  const descriptors = (): number => readdirSync('/proc/self/fd').length
  const began = descriptors()
  // What is made once, and V8's own growth, belongs to the beginning.
  await some(Math.min(200_000, exchanges / 5))
  const rss = process.memoryUsage().rss
  for (let i = 0; i < 10; i++) await some(exchanges / 10)
  const grown = process.memoryUsage().rss - rss
  plain.close()
  secure.close()
  await new Promise((resolve) => setTimeout(resolve, 1500))
  t.equal(driver.open.connections, 0)
  const counts = driver.tls
  t.equal(typeof counts === 'object' ? counts.made - counts.freed : counts, 0, 'every SSL is freed')
  t.ok(descriptors() <= began, `${descriptors()} descriptors, ${began} before`)
  t.ok(grown < 64 * 1024 * 1024, `${Math.round(grown / 1048576)} MiB more than after the beginning`)
  await driver.close()
  t.equal(driver.open.pipes, 0)
})
