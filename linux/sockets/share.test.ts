import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'tap'
import { silent } from '../../lib/log.ts'
import { Referee } from '../../lib/sockets/suite/suite.ts'
import { Workers, workerFile } from '../../lib/workers.ts'
import { openEpoll, type EpollDriver } from './driver.ts'
import { Share } from './share.ts'

async function crew(driver: EpollDriver, died: (index: number) => void = () => {}) {
  const share = new Share()
  const { fd, port, close } = driver.reserve({ host: '127.0.0.1', port: 0 })
  const workers = new Workers<null, null>({
    file: workerFile(import.meta.url, './testdata/echoer.ts'),
    count: 2,
    data: { share: share.buffer, fd },
    whole: () => null,
    died: (index) => {
      share.bury(index)
      died(index)
    },
    log: silent,
  })
  await workers.ready()
  return { share, port, close, workers }
}

const connect = (driver: EpollDriver, port: number): Referee => {
  const r = new Referee()
  r.wire = driver.connect({ host: '127.0.0.1', port }, r)
  return r
}

const probe = await openEpoll()
if (typeof probe === 'string') test('the hand-over', async (t) => void t.pass(probe, { skip: probe }))
else {
  await probe.close()

  test('connections are spread evenly over the workers that share a socket, whoever accepts them', async (t) => {
    const driver = (await openEpoll()) as EpollDriver
    const { share, port, close, workers } = await crew(driver)
    const clients = Array.from({ length: 64 }, () => connect(driver, port))
    for (const c of clients) {
      await c.until(() => c.bytes === 1)
      c.call(() => void c.wire.write(Buffer.from('hello'), 0, 5))
    }
    for (const c of clients) await c.until(() => c.bytes === 6)
    const first = clients.filter((c) => c.text.startsWith('0')).length
    t.ok(first >= 24 && first <= 40, `${first} of 64 went to the first`)
    t.equal(share.connections(0) + share.connections(1), 64)
    for (const c of clients) c.call(() => c.wire.end())
    for (const c of clients) await c.until(() => c.state === 'closed')
    t.same([...new Set(clients.map((c) => c.why))], [''])
    for (let i = 0; i < 100 && share.connections(0) + share.connections(1) > 0; i++) await sleep(5)
    t.equal(share.connections(0) + share.connections(1), 0)
    await workers.close()
    close()
    await driver.close()
  })

  test('a worker that dies under load takes only its own connections with it, and nobody is refused', async (t) => {
    const driver = (await openEpoll()) as EpollDriver
    const before = readdirSync('/proc/self/fd').length
    const died: number[] = []
    const { port, close, workers } = await crew(driver, (index) => died.push(index))
    const held = Array.from({ length: 20 }, () => connect(driver, port))
    for (const c of held) await c.until(() => c.bytes === 1)
    let going = true
    let served = 0
    const wrong: string[] = []
    const loading = (async () => {
      while (going) {
        const c = connect(driver, port)
        await c.until(() => c.bytes > 0 || c.state === 'eof' || c.state === 'closed')
        if (c.bytes > 0) served++
        // One that the dying worker had just been given is ended; refused is nobody.
        else if (died.length === 0 || (c.why !== undefined && !c.why.startsWith('ECONNRESET'))) wrong.push(c.why ?? 'ended')
        c.wire.abort()
      }
    })()
    await sleep(100)
    await workers.kill(1)
    for (const c of held.filter((h) => h.text === '1')) await c.until(() => c.state === 'eof' || c.state === 'closed')
    t.same(died, [1])
    await sleep(600)
    going = false
    await loading
    t.same(wrong, [])
    t.ok(served > 20, `${served} were served meanwhile`)
    t.same(
      held
        .filter((h) => h.text === '0')
        .map((h) => h.state)
        .filter((s) => s !== 'open'),
      [],
      'those of the other one live on',
    )
    for (const c of held) c.wire.abort()
    await workers.close()
    close()
    await sleep(50)
    t.ok(readdirSync('/proc/self/fd').length <= before + 4, 'no descriptor is left')
    await driver.close()
  })
}
