// A process that the bench of sockets starts: `node bench/sockets-roles.ts ROLE '{…}'`. It says `{"port":N}` when ready, and answers each line on its standard input.
import { createInterface } from 'node:readline'
import dgram from 'node:dgram'
import net from 'node:net'
import type { Ip } from '../lib/ip.ts'
import { chooseDriver } from '../lib/sockets/choose.ts'
import type { Driver, Protocol, TlsIdentity, Wire } from '../lib/sockets/seam.ts'
import { Balance } from '../proxy/userspace/balance.ts'
import { Forwarded } from '../proxy/userspace/streams.ts'

const request = 500
const response = 200

const [role = '', json = '{}'] = process.argv.slice(2)
const options = JSON.parse(json) as {
  readonly driver?: string
  readonly target?: number
  readonly host?: string
  readonly to?: string
  readonly connections?: number
  readonly tls?: TlsIdentity
  readonly ca?: string
  readonly fresh?: boolean
}
const { driver } = await chooseDriver(options.driver === 'bare' ? 'node' : (options.driver ?? 'epoll'), () => import('../linux/sockets/driver.ts'))
/** Where to listen, and where the next one is. */
const { host = '127.0.0.1', to = '127.0.0.1' } = options
const quiet = { opened: () => {}, drain: () => {}, eof: () => {}, closed: () => {} }
const say = (what: unknown): void => void process.stdout.write(`${JSON.stringify(what)}\n`)
const lines = createInterface({ input: process.stdin })
process.stdin.on('end', () => process.exit())

switch (role) {
  case 'answerer':
    say({ port: (await driver.listen({ host: '127.0.0.1', port: 0 }, () => new Answerer())).port })
    break
  case 'forwarder': {
    const balance = new Balance()
    balance.set([{ address: to as Ip, port: options.target!, local: true }], undefined)
    const counts = { open: 0, refused: 0, retried: 0 }
    const { tls } = options
    say({ port: (await driver.listen({ host, port: 0 }, () => new Forwarded(driver, balance, counts), tls === undefined ? {} : { tls: { identity: () => tls } })).port })
    break
  }
  case 'bare': {
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (a) => {
      const b = net.connect({ host: '127.0.0.1', port: options.target!, allowHalfOpen: true, noDelay: true })
      a.on('error', () => b.destroy())
      b.on('error', () => a.destroy())
      a.pipe(b).pipe(a)
    })
    server.listen(0, '127.0.0.1', () => say({ port: (server.address() as net.AddressInfo).port }))
    break
  }
  case 'sink':
    say({ port: (await driver.listen({ host, port: 0 }, () => new Sink())).port })
    break
  case 'load':
    load(driver)
    break
  case 'bulk':
    bulk(driver)
    break
  case 'echo': {
    if (options.driver === 'bare') {
      const s = dgram.createSocket('udp4')
      s.on('message', (b, r) => s.send(b, r.port, r.address))
      s.bind(0, '127.0.0.1', () => say({ port: s.address().port }))
      break
    }
    const bound = await driver.bind({ host: '127.0.0.1', port: 0 }, (batch) => {
      for (let i = 0; i < batch.count; i++) batch.answer(i, batch.bytes, batch.start(i), batch.end(i))
    })
    say({ port: bound.address.port })
    break
  }
  case 'flood':
    await flood(driver)
    break
  case 'idle': {
    const l = await driver.listen({ host: '127.0.0.1', port: 0 }, () => ({ ...quiet, data: () => {} }), options.tls === undefined ? {} : { tls: { identity: () => options.tls! } })
    say({ port: l.port })
    lines.on('line', () => {
      ;(globalThis as { gc?: () => void }).gc?.()
      const m = process.memoryUsage()
      say({ heap: m.heapUsed + m.external, rss: m.rss })
    })
    break
  }
  case 'hold': {
    let open = 0
    const wanted = options.connections!
    const connect = (): void => {
      driver.connect(
        { host: '127.0.0.1', port: options.target! },
        {
          ...quiet,
          data: () => {},
          opened: () => {
            open++
            if (open === wanted) say({ open })
            else if (open + 200 <= wanted) connect()
          },
        },
        options.ca === undefined ? {} : { tls: { serverName: 'bench.test', ca: options.ca, groups: 'X25519' } },
      )
    }
    for (let i = 0; i < Math.min(200, wanted); i++) connect()
    break
  }
  default:
    throw new Error(`no role "${role}"`)
}

/** Gives 200 bytes for each 500. */
class Answerer implements Protocol {
  #w!: Wire
  #have = 0
  static readonly answer = driver.arena(64 * 1024)
  opened(w: Wire): void {
    this.#w = w
  }
  data(_b: Buffer, from: number, to: number): void {
    this.#have += to - from
    while (this.#have >= request) {
      this.#have -= request
      this.#w.write(Answerer.answer, 0, response)
    }
  }
  drain(): void {}
  eof(): void {
    this.#w.end()
  }
  closed(): void {}
}

class Sink implements Protocol {
  #w!: Wire
  opened(w: Wire): void {
    this.#w = w
  }
  data(): void {}
  drain(): void {}
  eof(): void {
    this.#w.end()
  }
  closed(): void {}
}

/** Exchanges for as many milliseconds as each line says, over kept or fresh connections. */
function load(d: Driver): void {
  const question = d.arena(64 * 1024)
  let done = 0
  let running = false
  const how = options.ca === undefined ? {} : { tls: { serverName: 'bench.test', ca: options.ca, groups: 'X25519' } }
  const waiting: Client[] = []
  class Client implements Protocol {
    #w!: Wire
    #have = 0
    ask(): void {
      this.#w.write(question, 0, request)
    }
    opened(w: Wire): void {
      this.#w = w
      if (running) this.ask()
      else waiting.push(this)
    }
    data(_b: Buffer, from: number, to: number): void {
      this.#have += to - from
      if (this.#have < response) return
      this.#have -= response
      done++
      if (options.fresh === true) return this.#w.end()
      if (running) this.ask()
      else waiting.push(this)
    }
    drain(): void {}
    eof(): void {
      this.#w.end()
    }
    closed(): void {
      if (options.fresh === true && running) start()
    }
  }
  const start = (): void => void d.connect({ host: '127.0.0.1', port: options.target! }, new Client(), how)
  if (options.fresh !== true) for (let i = 0; i < (options.connections ?? 64); i++) start()
  say({ port: 0 })
  lines.on('line', (line) => {
    done = 0
    running = true
    if (options.fresh === true) for (let i = 0; i < (options.connections ?? 32); i++) start()
    for (const c of waiting.splice(0)) c.ask()
    setTimeout(() => {
      running = false
      setTimeout(() => say({ done }), 50)
    }, Number(line))
  })
}

/** Sends as many MiB as each line says over one connection, and says when the other side has ended. */
function bulk(d: Driver): void {
  const block = d.arena(256 * 1024)
  say({ port: 0 })
  lines.on('line', (line) => {
    let left = Number(line) * 4
    let w: Wire
    const push = (): void => {
      while (left > 0) {
        left--
        if (!w.write(block, 0, block.length)) return
      }
      w.end()
    }
    d.connect({ host: to, port: options.target! }, { ...quiet, opened: (x) => ((w = x), push()), drain: push, data: () => {}, eof: () => {}, closed: (why) => say({ done: Number(line), why }) })
  })
}

/** Keeps 64 datagrams under way on each of four sockets. */
async function flood(d: Driver): Promise<void> {
  let done = 0
  let running = false
  const target = { host: '127.0.0.1', port: options.target! }
  const payload = Buffer.alloc(64, 1)
  const sockets = await Promise.all(
    Array.from({ length: 4 }, () =>
      d.bind({ host: '127.0.0.1', port: 0 }, (batch, bound) => {
        done += batch.count
        if (running) for (let i = 0; i < batch.count; i++) batch.answer(i, batch.bytes, batch.start(i), batch.end(i))
        void bound
      }),
    ),
  )
  say({ port: 0 })
  lines.on('line', (line) => {
    done = 0
    running = true
    for (const s of sockets) for (let i = 0; i < 64; i++) s.send(payload, 0, payload.length, target)
    setTimeout(() => {
      running = false
      setTimeout(() => say({ done }), 50)
    }, Number(line))
  })
}
