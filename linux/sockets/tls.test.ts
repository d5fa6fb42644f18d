import { test } from 'tap'
import { MemoryDriver } from '../../lib/sockets/memory/driver.ts'
import { testAuthority } from '../../lib/sockets/suite/certificates.ts'
import { noise, Referee } from '../../lib/sockets/suite/suite.ts'
import type { Driver, Protocol, TlsClient, TlsServer } from '../../lib/sockets/seam.ts'
import { EpollDriver, openEpoll } from './driver.ts'
import { Share } from './share.ts'
import { TicketKeys } from './tickets.ts'
import { openTls, Tls } from './tls.ts'

const opened = openTls()
const ca = testAuthority()
const identity = ca.issue('one.example')
const server: TlsServer = { identity: () => identity, alpn: ['http/1.1'] }
const client: TlsClient = { serverName: 'one.example', ca: ca.ca, alpn: ['http/1.1'] }
const echo = (): Referee => new Referee({ data: (r, b, from, to) => void (r.wire.write(b, from, to) || r.wire.pause()), drain: (r) => r.wire.resume(), eof: (r) => r.wire.end() })

/** A server and a client over `driver`, with the filter on both sides. */
async function pair(tls: Tls, driver: Driver, c: Protocol, accept: () => Protocol, how: TlsClient = client): Promise<void> {
  await driver.listen({ host: '10.0.0.1', port: 443 }, () => tls.server(server, accept, () => driver.now))
  const filter = tls.client(how, '10.0.0.1', c, () => driver.now)
  filter.attach(driver.connect({ host: '10.0.0.1', port: 443 }, filter))
}

if (typeof opened === 'string') test('the TLS filter', async (t) => void t.pass(opened, { skip: opened }))
else {
  const tls = opened

  test('a handshake and an echo survive a cut at every byte, and every seed', async (t) => {
    const body = noise(40_000)
    const run = async (driver: MemoryDriver): Promise<string> => {
      const c = new Referee({ opened: (r) => (r.wire.write(body, 0, body.length), r.wire.end()) })
      const servers: Referee[] = []
      await pair(tls, driver, c, () => (servers.push(echo()), servers.at(-1)!))
      // Timers of OpenSSL's tickets and the like do not exist; only nextTicks of resumed filters run beside the network.
      for (let i = 0; i < 200 && c.state !== 'closed'; i++) {
        driver.settle()
        await Promise.resolve()
      }
      return Buffer.concat(c.parts).equals(body) && c.why === '' && c.wrong === undefined && servers[0]!.wrong === undefined ? '' : `${c.state} ${c.bytes} ${c.why} ${c.wrong} ${servers[0]?.wrong}`
    }
    for (let at = 1; at < 1800; at += at < 700 ? 1 : 13) {
      const wrong = await run(new MemoryDriver({ auto: false, take: (n) => n, cut: (n, offset) => (offset < at ? Math.min(n, at - offset) : n) }))
      if (wrong !== '') return void t.fail(`cut at ${at}: ${wrong}`)
    }
    for (let seed = 1; seed <= 60; seed++) {
      const wrong = await run(new MemoryDriver({ auto: false, seed, capacity: seed % 2 === 0 ? 1500 : 65_536 }))
      if (wrong !== '') return void t.fail(`seed ${seed}: ${wrong}`)
    }
    t.equal(tls.counts.made, tls.counts.freed, 'every SSL is freed')
  })

  test('bytes that were changed on the way end the connection, and nothing is told that was not sent', async (t) => {
    for (let at = 0; at < 900; at += 7) {
      const driver = new MemoryDriver({ auto: false, take: (n) => n, cut: (n) => n })
      const c = new Referee({ opened: (r) => void r.wire.write(Buffer.from('secret'), 0, 6) })
      const servers: Referee[] = []
      // A man in the middle changes one byte of what the client says.
      await driver.listen({ host: '10.0.0.2', port: 443 }, () =>
        tls.server(
          server,
          () => (servers.push(new Referee()), servers.at(-1)!),
          () => driver.now,
        ),
      )
      await driver.listen({ host: '10.0.0.1', port: 443 }, () => {
        let offset = 0
        const back = new Referee({ data: (_r, b, from, to) => void front.wire.write(b, from, to), eof: () => front.wire.end(), closed: () => front.wire.abort() })
        const front: Referee = new Referee({
          opened: () => void (back.wire = driver.connect({ host: '10.0.0.2', port: 443 }, back)),
          data: (_r, b, from, to) => {
            if (at >= offset && at < offset + to - from) b[from + at - offset]! ^= 0x20
            offset += to - from
            back.wire.write(b, from, to)
          },
          eof: () => back.wire.end(),
          closed: () => back.wire.abort(),
        })
        return front
      })
      const filter = tls.client(client, '10.0.0.1', c, () => driver.now)
      filter.attach(driver.connect({ host: '10.0.0.1', port: 443 }, filter))
      driver.settle()
      const got = servers.map((s) => s.text).join('')
      if (got !== '' && got !== 'secret') t.fail(`byte ${at}: the server was told "${got}"`)
      if (c.wrong !== undefined || servers.some((s) => s.wrong !== undefined)) t.fail(`byte ${at}: ${c.wrong}`)
      await driver.close()
    }
    t.equal(tls.counts.made, tls.counts.freed, 'every SSL is freed')
  })

  test('a connection that ends anywhere in a handshake leaves nothing', async (t) => {
    for (let steps = 0; steps < 60; steps++) {
      const driver = new MemoryDriver({ auto: false, seed: steps, capacity: 300 })
      const c = new Referee()
      await pair(tls, driver, c, echo)
      for (let i = 0; i < steps; i++) driver.step()
      for (const w of driver.wires) driver.reset(w)
      driver.settle()
      if (c.state !== 'closed' || driver.wires.size !== 0) t.fail(`after ${steps} steps: ${c.state}`)
    }
    t.equal(tls.shaking.size, 0)
    t.equal(tls.counts.made, tls.counts.freed, 'every SSL is freed')
  })

  test('a client that never says anything is ended after a while', async (t) => {
    const driver = new MemoryDriver({ auto: false })
    await driver.listen({ host: '10.0.0.1', port: 443 }, () => tls.server(server, echo, () => driver.now))
    const silent = new Referee()
    driver.connect({ host: '10.0.0.1', port: 443 }, silent)
    driver.advance(9000)
    tls.sweep(driver.now)
    driver.settle()
    t.equal(silent.state, 'open')
    driver.advance(2000)
    tls.sweep(driver.now)
    driver.settle()
    t.match(silent.why, /^ECONNRESET/)
  })

  test('TLS 1.2 alone is spoken to those who cannot do better, unless the least version forbids it', async (t) => {
    const driver = await openEpoll()
    if (!(driver instanceof EpollDriver)) return void t.pass('no epoll driver', { skip: String(driver) })
    t.type(driver.tls, 'object', 'the filter is in use')
    const { connect } = await import('node:tls')
    const strict = { ...identity, minVersion: 'TLSv1.3' as const }
    const l = await driver.listen({ host: '127.0.0.1', port: 0 }, echo, { tls: { identity: (name) => (name === 'strict.example' ? strict : identity) } })
    const ask = (servername: string, maxVersion: 'TLSv1.2' | 'TLSv1.3'): Promise<string> =>
      new Promise((resolve) => {
        const s = connect({ host: '127.0.0.1', port: l.port, servername, maxVersion, rejectUnauthorized: false }, () => s.write('hello'))
        s.on('data', (b: Buffer) => (resolve(`${s.getProtocol()} ${String(b)}`), s.destroy()))
        s.on('error', (e: NodeJS.ErrnoException) => resolve(e.code ?? e.message))
      })
    t.equal(await ask('one.example', 'TLSv1.2'), 'TLSv1.2 hello')
    t.equal(await ask('one.example', 'TLSv1.3'), 'TLSv1.3 hello')
    t.match(await ask('strict.example', 'TLSv1.2'), /ERR_SSL/)
    t.equal(await ask('strict.example', 'TLSv1.3'), 'TLSv1.3 hello')
    l.close()
    await driver.close()
    const counts = driver.tls
    t.equal(typeof counts === 'object' && counts.made - counts.freed, 0)
  })

  test('a session is resumed by whoever shares the keys of tickets, until its key is rotated away', async (t) => {
    const share = new Share()
    const drivers = [await openEpoll({ share, index: 0 }), await openEpoll({ share, index: 1 })]
    if (!drivers.every((d) => d instanceof EpollDriver)) return void t.pass('no epoll driver', { skip: String(drivers[0]) })
    const { connect } = await import('node:tls')
    const ports: number[] = []
    for (const d of drivers) ports.push((await d.listen({ host: '127.0.0.1', port: 0 }, echo, { tls: { identity: () => ({ ...identity }) } })).port)
    const ask = (port: number, maxVersion: 'TLSv1.2' | 'TLSv1.3', session?: Buffer): Promise<{ readonly session: Buffer; readonly reused: boolean }> =>
      new Promise((resolve, reject) => {
        let ticket = session
        let reused = false
        const s = connect({ host: '127.0.0.1', port, servername: 'one.example', ca: ca.ca, maxVersion, ...(session === undefined ? {} : { session }) }, () => {
          reused = s.isSessionReused()
          s.write('hello')
        })
        s.on('session', (b: Buffer) => (ticket = b))
        s.on('data', () => s.end())
        s.on('close', () => (ticket === undefined ? reject(new Error('no ticket came')) : resolve({ session: ticket, reused })))
        s.on('error', reject)
      })
    for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
      const first = await ask(ports[0]!, version)
      t.equal(first.reused, false)
      t.equal((await ask(ports[0]!, version, first.session)).reused, true, `${version}: by the same worker`)
      const second = await ask(ports[1]!, version, first.session)
      t.equal(second.reused, true, `${version}: by another one`)
      share.tickets.rotate()
      const third = await ask(ports[1]!, version, second.session)
      t.equal(third.reused, true, `${version}: after a rotation`)
      for (let i = 0; i < 3; i++) share.tickets.rotate()
      t.equal((await ask(ports[0]!, version, second.session)).reused, false, `${version}: not when the key is gone`)
    }
    for (const d of drivers) {
      await d.close()
      const counts = d.tls
      t.ok(typeof counts === 'object' && counts.resumed > 0, 'resumptions are counted')
      t.equal(typeof counts === 'object' && counts.made - counts.freed, 0, 'every SSL is freed')
    }
  })

  test('more handshakes at once than the limit are turned away, the others go on', async (t) => {
    const few = new Tls(tls.ssl, new TicketKeys(), { handshakes: 2 })
    const driver = new MemoryDriver({ auto: false })
    await driver.listen({ host: '10.0.0.1', port: 443 }, () => few.server(server, echo, () => driver.now))
    const silent = [new Referee(), new Referee()]
    for (const s of silent) driver.connect({ host: '10.0.0.1', port: 443 }, s)
    driver.settle()
    const third = new Referee()
    const attempt = (r: Referee): void => {
      const filter = tls.client(client, '10.0.0.1', r, () => driver.now)
      filter.attach(driver.connect({ host: '10.0.0.1', port: 443 }, filter))
      driver.settle()
    }
    attempt(third)
    t.equal(third.state, 'closed', 'the third one')
    t.equal(few.counts.failed, 1)
    silent[0]!.wire.abort()
    driver.settle()
    const fourth = new Referee()
    attempt(fourth)
    t.equal(fourth.state, 'open', 'the fourth one, when there is room again')
    await driver.close()
    t.equal(few.shaking.size, 0)
    t.equal(few.counts.made, few.counts.freed, 'every SSL is freed')
  })

  test('a connection that is paused keeps its bytes while others read and write', async (t) => {
    const driver = new MemoryDriver({ auto: false, take: (n) => n, cut: (n) => n })
    const servers: Referee[] = []
    const clients = [new Referee(), new Referee()]
    await driver.listen({ host: '10.0.0.1', port: 443 }, () =>
      tls.server(
        server,
        () => (servers.push(new Referee({ data: (r) => r.wire.pause() })), servers.at(-1)!),
        () => driver.now,
      ),
    )
    for (const c of clients) {
      const filter = tls.client(client, '10.0.0.1', c, () => driver.now)
      filter.attach(driver.connect({ host: '10.0.0.1', port: 443 }, filter))
    }
    driver.settle()
    // Two records that come together: the first pauses, the second waits; meanwhile the other connection is served.
    for (let round = 0; round < 3; round++)
      for (const [i, c] of clients.entries()) {
        const text = `record ${i} ${round} `
        c.call(() => void c.wire.write(Buffer.from(text), 0, text.length))
        if (i === 1) driver.settle()
      }
    for (let round = 0; round < 8; round++)
      for (const s of servers) {
        s.call(() => s.wire.resume())
        await new Promise((resolve) => setImmediate(resolve))
        driver.settle()
        await new Promise((resolve) => setImmediate(resolve))
      }
    t.same(servers.map((s) => s.text).toSorted(), ['record 0 0 record 0 1 record 0 2 ', 'record 1 0 record 1 1 record 1 2 '])
    await driver.close()
    t.equal(tls.counts.made, tls.counts.freed, 'every SSL is freed')
  })
}
