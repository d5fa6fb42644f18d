import { release } from 'node:os'
import tap, { test } from 'tap'
import { inside } from '../../lab/vm/run.ts'
import { Referee } from '../../lib/sockets/suite/suite.ts'
import { openEpoll } from './driver.ts'

// The kernel of this machine may have no SCTP; the one of the virtual machine does.
tap.setTimeout(600_000)

if (await inside(import.meta.filename)) {
  test(`SCTP one-to-one in Linux ${release()}: messages there and back, through a spliced pair, and the end`, async (t) => {
    const driver = await openEpoll()
    if (typeof driver === 'string') throw new Error(driver)
    const echo = (): Referee => new Referee({ data: (r, b, from, to) => void r.wire.write(b, from, to), eof: (r) => r.wire.end() })
    const server = await driver.listen({ host: '127.0.0.1', port: 0 }, echo, { transport: 'sctp' })
    const forwarder = await driver.listen(
      { host: '127.0.0.1', port: 0 },
      () => {
        const back: Referee = new Referee({ opened: (b) => void driver.splice(front.wire, b.wire) })
        const front: Referee = new Referee({
          opened: (r) => {
            r.wire.pause()
            driver.connect({ host: '127.0.0.1', port: server.port }, back, { transport: 'sctp' })
          },
        })
        return front
      },
      { transport: 'sctp' },
    )
    for (const { port } of [server, forwarder]) {
      const parts: string[] = []
      const c = new Referee({ data: (_r, b, from, to) => void parts.push(b.toString('latin1', from, to)) })
      const wire = driver.connect({ host: '127.0.0.1', port }, c, { transport: 'sctp' })
      for (const text of ['one', 'two', 'three']) wire.write(Buffer.from(text), 0, text.length)
      await c.until(() => c.bytes === 11)
      t.same(parts, ['one', 'two', 'three'], 'each message by itself')
      const long = Buffer.alloc(100_000, 'x')
      c.call(() => void wire.write(long, 0, long.length))
      await c.until(() => c.bytes === 100_011)
      c.call(() => wire.end())
      await c.until(() => c.state === 'closed')
      t.equal(c.why, '')
    }
    const refused = new Referee()
    driver.connect({ host: '127.0.0.1', port: 9 }, refused, { transport: 'sctp' })
    await refused.until(() => refused.state === 'closed')
    t.match(refused.why ?? '', /^ECONNREFUSED/)
    server.close()
    forwarder.close()
    await driver.close()
  })
}
