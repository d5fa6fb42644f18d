import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { connect as connectHttp2, createSecureServer } from 'node:http2'
import { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'tap'
import { Metrics } from '../../lib/metrics.ts'
import { chooseDriver, socketsMetrics } from '../../lib/sockets/choose.ts'
import { readClientHello } from '../../lib/sockets/clienthello.ts'
import { testAuthority } from '../../lib/sockets/suite/certificates.ts'
import { cases, Referee, within } from '../../lib/sockets/suite/suite.ts'
import { AF_INET, SOCK_NONBLOCK, SOCK_STREAM } from '../ffi/constants.ts'
import { Arena, syscalls } from '../ffi/ffi.ts'
import { readSockaddr, writeSockaddr } from '../ffi/sockaddr.ts'
import { openEpoll } from './driver.ts'

const why = await openEpoll()
if (typeof why === 'string') test('the epoll driver', async (t) => void t.pass(why, { skip: why }))
else {
  await why.close()
  for (const { name, run, needs } of cases) {
    test(name, async (t) => {
      const driver = await openEpoll()
      if (typeof driver === 'string') throw new Error(driver)
      const fixture = { driver, tls: true, bounded: 32 * 1024 * 1024 }
      if (needs?.(fixture) === false) return void t.pass(name, { skip: 'not for this driver' })
      await run(fixture)
      await driver.close()
      t.pass()
    })
  }
}

test('connecting to a machine that does not answer ends by the timeout, other errors at once', async (t) => {
  const driver = await openEpoll()
  if (typeof driver === 'string') return void t.pass(driver, { skip: driver })
  const full = fullListener()
  const began = driver.now
  const c = new Referee()
  driver.connect({ host: '127.0.0.1', port: full.port }, c, { timeout: 200 })
  await c.until(() => c.state === 'closed')
  t.match(c.why, /^timeout/)
  t.ok(driver.now - began >= 200)
  for (const [host, from, why] of [
    ['255.255.255.255', undefined, /^(ENETUNREACH|EACCES|EINVAL)/],
    ['127.0.0.1', '192.0.2.1', /^EADDRNOTAVAIL: bind to 192\.0\.2\.1/],
  ] as const) {
    const d = new Referee()
    driver.connect({ host, port: 9 }, d, from === undefined ? {} : { from: { host: from, port: 0 } })
    await d.until(() => d.state === 'closed')
    t.match(d.why, why)
  }
  full.close()
  await driver.close()
})

test('when no descriptor is left accepting waits, spins not, and goes on when there is one again', async (t) => {
  // In a process of its own, since the limit holds for the whole of it.
  const code = `
    import { openEpoll } from '${new URL('./driver.ts', import.meta.url).href}'
    import { openSync, closeSync } from 'node:fs'
    const quiet = { opened() {}, data() {}, drain() {}, eof() {}, closed() {} }
    const driver = await openEpoll()
    if (typeof driver === 'string') { console.log('skip'); process.exit() }
    let accepted = 0
    const l = await driver.listen({ host: '127.0.0.1', port: 0 }, () => ({ ...quiet, opened() { accepted++ } }))
    const clients = Array.from({ length: 4 }, () => ({ ...quiet, open: false, opened() { this.open = true } }))
    clients.forEach((c) => driver.connect({ host: '127.0.0.1', port: l.port }, c))
    const hoard = []
    try { for (;;) hoard.push(openSync('/dev/null')) } catch {}
    await new Promise((r) => setTimeout(r, 300))
    const none = accepted, cpu = process.cpuUsage()
    await new Promise((r) => setTimeout(r, 500))
    const used = process.cpuUsage(cpu)
    hoard.forEach(closeSync)
    for (let i = 0; i < 1000 && accepted < 4; i++) await new Promise((r) => setTimeout(r, 10))
    console.log(JSON.stringify({ waits: none < 3, busy: (used.user + used.system) / 500000 > 0.3, accepted }))
    process.exit()`
  const out = execFileSync('sh', ['-c', 'ulimit -n 64; exec "$@"', 'sh', process.execPath, '--input-type=module', '-e', code], { encoding: 'utf8' }).trim()
  if (out === 'skip') return void t.pass(out, { skip: 'no epoll driver here' })
  t.same(JSON.parse(out), { waits: true, busy: false, accepted: 4 })
})

test('ten thousand connections at once live, cost little, and leave nothing', async (t) => {
  const driver = await openEpoll()
  if (typeof driver === 'string') return void t.pass(driver, { skip: driver })
  const limit = Number(/Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
  const many = Math.min(10_000, Math.floor((limit - 200) / 2))
  const before = readdirSync('/proc/self/fd').length
  let open = 0
  let closed = 0
  const quiet = { drain: () => {}, eof: () => {}, data: () => {}, closed: () => void closed++ }
  const l = await driver.listen({ host: '127.0.0.1', port: 0 }, () => ({ ...quiet, opened: () => void open++ }))
  const heap = process.memoryUsage().heapUsed
  for (let i = 0; i < many; i += 500) {
    for (let j = i; j < Math.min(many, i + 500); j++) driver.connect({ host: '127.0.0.1', port: l.port }, { ...quiet, opened: () => void open++ })
    for (let n = 0; n < 500 && open < Math.min(many, i + 500) * 2; n++) await sleep(2)
  }
  t.equal(open, many * 2)
  t.comment(`${many} pairs, ${Math.round((process.memoryUsage().heapUsed - heap) / many / 2)} bytes of heap an end before collection`)
  l.close()
  await driver.close()
  t.equal(closed, many * 2)
  t.ok(readdirSync('/proc/self/fd').length <= before + 2)
})

test('the first bytes can be looked at, and a connection given away whole by its descriptor', async (t) => {
  const driver = await openEpoll()
  if (typeof driver === 'string') return void t.pass(driver, { skip: driver })
  const servers: Referee[] = []
  let given: number | undefined
  const l = await driver.listen({ host: '127.0.0.1', port: 0 }, () => (servers.push(new Referee()), servers.at(-1)!), {
    peek: (first, w) => {
      if (first.length < 4) return 'more'
      if (first.toString('latin1', 0, 4) !== 'PRI ') return 'keep'
      given = driver.detach(w)?.fd
      return 'detached'
    },
  })
  const kept = new Referee()
  const wire = driver.connect({ host: '127.0.0.1', port: l.port }, kept)
  for (const part of ['G', 'E', 'T /']) {
    wire.write(Buffer.from(part), 0, part.length)
    await sleep(10)
  }
  await within(
    'a server',
    (async () => {
      while (servers.length === 0) await sleep(2)
    })(),
  )
  await servers[0]!.until(() => servers[0]!.text === 'GET /')
  const away = new Referee()
  const other = driver.connect({ host: '127.0.0.1', port: l.port }, away)
  other.write(Buffer.from('PRI * HTTP/2.0'), 0, 14)
  while (given === undefined) await sleep(2)
  const socket = new Socket({ fd: given })
  let got = ''
  socket.on('data', (b: Buffer) => (got += String(b)))
  socket.write('hello from elsewhere')
  await away.until(() => away.text === 'hello from elsewhere')
  t.equal(got, 'PRI * HTTP/2.0')
  t.equal(servers.length, 1)
  socket.destroy()
  l.close()
  await driver.close()
})

test('a client that never sends its first bytes is reset after a time, and counted', async (t) => {
  const driver = await openEpoll()
  if (typeof driver === 'string') return void t.pass(driver, { skip: driver })
  const servers: Referee[] = []
  const l = await driver.listen({ host: '127.0.0.1', port: 0 }, () => (servers.push(new Referee()), servers.at(-1)!), { peek: (first) => (first.length < 4 ? 'more' : 'keep'), peekTimeout: 150 })
  const [silent, slow, good] = [new Referee(), new Referee(), new Referee()]
  driver.connect({ host: '127.0.0.1', port: l.port }, silent)
  const dribble = driver.connect({ host: '127.0.0.1', port: l.port }, slow)
  dribble.write(Buffer.from('GE'), 0, 2)
  const whole = driver.connect({ host: '127.0.0.1', port: l.port }, good)
  whole.write(Buffer.from('GET /'), 0, 5)
  await silent.until(() => silent.state === 'closed')
  await slow.until(() => slow.state === 'closed')
  t.match(silent.why, /^ECONNRESET/)
  await sleep(100)
  t.equal(driver.open.unheard, 2)
  t.equal(servers.length, 1)
  t.equal(good.state, 'open', 'who spoke in time stays')
  l.close()
  await driver.close()
})

/** A listener whose queue is full: further connections get no answer. */
function fullListener(): { readonly port: number; close(): void } {
  const sys = syscalls()
  const arena = new Arena(4096)
  const fds: number[] = []
  const listener = sys.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
  fds.push(listener)
  const length = writeSockaddr(arena.buffer, 0, '127.0.0.1', 0)
  sys.bind(listener, arena, 0, length)
  sys.listen(listener, 0)
  sys.getsockname(listener, arena, 0, 28)
  const { port } = readSockaddr(arena.buffer, 0)!
  for (let i = 0; i < 4; i++) {
    const fd = sys.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
    fds.push(fd)
    writeSockaddr(arena.buffer, 0, '127.0.0.1', port)
    sys.connect(fd, arena, 0, length)
  }
  return { port, close: () => fds.forEach((fd) => sys.close(fd)) }
}

test('a connection that asks for h2 is handed to node:http2 whole, others stay', async (t) => {
  const driver = await openEpoll()
  if (typeof driver === 'string') return void t.pass(driver, { skip: driver })
  const identity = testAuthority().issue('one.example')
  const http2 = createSecureServer({ ...identity, ALPNProtocols: ['h2'] }, (request, response) => response.end(`h2 for ${request.headers[':path'] as string}`))
  const kept: Referee[] = []
  const l = await driver.listen({ host: '127.0.0.1', port: 0 }, () => (kept.push(new Referee()), kept.at(-1)!), {
    tls: { identity: () => identity, alpn: ['http/1.1'] },
    peek: (first, w) => {
      const hello = readClientHello(first, 0, first.length)
      if (hello === 'more') return 'more'
      if (hello === 'bad' || !hello.alpn.includes('h2')) return 'keep'
      const given = driver.detach(w)
      if (given === undefined) return 'keep'
      http2.emit('connection', new Socket({ fd: given.fd }))
      return 'detached'
    },
  })
  const session = connectHttp2(`https://127.0.0.1:${l.port}`, { servername: 'one.example', rejectUnauthorized: false })
  const ask = (path: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const stream = session.request({ ':path': path })
      let body = ''
      stream.setEncoding('utf8').on('data', (part: string) => (body += part))
      stream.on('end', () => resolve(body)).on('error', reject)
      session.on('error', reject)
    })
  t.same(await Promise.all(['/a', '/b'].map(ask)), ['h2 for /a', 'h2 for /b'])
  t.equal(kept.length, 0)
  const client = new Referee()
  driver.connect({ host: '127.0.0.1', port: l.port }, client, { tls: { serverName: 'one.example', verify: false, alpn: ['http/1.1'] } })
  await client.until(() => client.state !== 'new')
  t.equal(client.wire.tls?.alpn, 'http/1.1')
  // The client's handshake is over before the server's.
  await within(
    'a server',
    (async () => {
      while (kept.length === 0) await sleep(2)
    })(),
  )
  client.wire.abort()
  session.destroy()
  http2.close()
  l.close()
  await driver.close()
})

test('the choice and its reasons stand in the metrics', async (t) => {
  const metrics = new Metrics()
  const chosen = await chooseDriver('auto', () => import('./driver.ts'))
  socketsMetrics(metrics, chosen)
  const l = await chosen.driver.listen({ host: '127.0.0.1', port: 0 }, () => new Referee())
  const text = metrics.print()
  t.match(text, new RegExp(`switchyard_sockets_info\\{driver="${chosen.driver.name}",reason="[^"]+",tls="[^"]+"\\} 1`))
  t.match(text, /switchyard_sockets\{what="listeners"\} 1/)
  l.close()
  await chosen.driver.close()
})
