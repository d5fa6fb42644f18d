import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { seeded } from '../../random.ts'
import type { Batch, Bound, Driver, Listening, Protocol, Wire } from '../seam.ts'
import { testAuthority } from './certificates.ts'

/** What a driver's tests tell the suite about it. */
export interface Fixture {
  readonly driver: Driver
  /** An address where nothing answers, if this place has one. */
  readonly silent?: string
  /** Moves the driver's time on; real drivers just wait. */
  advance?(ms: number): void
  /** TLS is real: certificates are verified. */
  readonly tls: boolean
  /** `pause` keeps a peer's writes bounded by what the system and both buffers hold, in bytes. */
  readonly bounded: number
}

/** One thing that every driver must do. */
export interface Case {
  readonly name: string
  run(f: Fixture): Promise<void>
  readonly needs?: (f: Fixture) => boolean
}

/**
 * A protocol that keeps the seam's rules in view: it fails when the driver calls it from inside one of its own calls, before `opened`, after `closed`,
 * twice, or lends bytes outside their buffer. Behaviour is added by the hooks.
 */
export class Referee implements Protocol {
  wire!: Wire
  readonly hooks: Hooks
  state: 'new' | 'open' | 'eof' | 'closed' = 'new'
  why: string | undefined
  readonly parts: Buffer[] = []
  bytes = 0
  drains = 0
  wrong: string | undefined
  /** Where a case changes behaviour on the way. */
  hooks2: Hooks | undefined
  readonly #hash = createHash('sha256')
  #inside = false
  readonly #waiters: { readonly when: () => boolean; readonly done: () => void }[] = []

  constructor(hooks: Hooks = {}) {
    this.hooks = hooks
  }

  opened(w: Wire): void {
    this.#call('opened', this.state === 'new', () => {
      this.state = 'open'
      this.wire = w
      this.hooks.opened?.(this)
    })
  }

  data(b: Buffer, from: number, to: number): void {
    this.#call('data', this.state === 'open' && from >= 0 && to > from && to <= b.length, () => {
      this.bytes += to - from
      this.#hash.update(b.subarray(from, to))
      if (this.hooks.keep !== false) this.parts.push(Buffer.from(b.subarray(from, to)))
      this.hooks.data?.(this, b, from, to)
      // Until it returns these bytes are the protocol's: it may spoil them.
      b.fill(0xee, from, b.length)
    })
  }

  drain(): void {
    this.#call('drain', this.state === 'open' || this.state === 'eof', () => {
      this.drains++
      this.hooks.drain?.(this)
    })
  }

  eof(): void {
    this.#call('eof', this.state === 'open', () => {
      this.state = 'eof'
      this.hooks.eof?.(this)
    })
  }

  closed(why: string): void {
    this.#call('closed', this.state !== 'closed', () => {
      if (this.wire !== undefined && this.wire.alive) this.wrong ??= 'closed was told of a wire that says it is alive'
      this.state = 'closed'
      this.why = why
      this.hooks.closed?.(this, why)
    })
  }

  get text(): string {
    return Buffer.concat(this.parts).toString()
  }

  get sha256(): string {
    return this.#hash.copy().digest('hex')
  }

  /** Calls into the driver from outside its callbacks; a callback meanwhile is a breach. */
  call(f: () => void): void {
    const before = this.#inside
    this.#inside = true
    try {
      f()
    } finally {
      this.#inside = before
    }
  }

  /** Resolves when this holds; rejects after a while, or when the rules are broken. */
  until(when: () => boolean, what = String(when)): Promise<void> {
    if (when()) return Promise.resolve()
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`waited in vain for: ${what}; state ${this.state}, ${this.bytes} bytes, why ${this.why}`)), 20_000)
      this.#waiters.push({
        when: () => when() || this.wrong !== undefined,
        done: () => {
          clearTimeout(timer)
          if (this.wrong === undefined) resolve()
          else reject(new Error(this.wrong))
        },
      })
    })
  }

  check(): void {
    assert.equal(this.wrong, undefined)
  }

  #call(name: string, allowed: boolean, f: () => void): void {
    if (this.#inside) this.wrong ??= `${name} was called from inside another call`
    if (!allowed) this.wrong ??= `${name} was called in state ${this.state}`
    this.#inside = true
    try {
      f()
    } finally {
      this.#inside = false
    }
    const ready = this.#waiters.filter((w) => w.when())
    for (const waiter of ready) {
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1)
      waiter.done()
    }
  }
}

export interface Hooks {
  readonly opened?: (r: Referee) => void
  readonly data?: (r: Referee, b: Buffer, from: number, to: number) => void
  readonly drain?: (r: Referee) => void
  readonly eof?: (r: Referee) => void
  readonly closed?: (r: Referee, why: string) => void
  /** False: `parts` stays empty; only counted and hashed. */
  readonly keep?: boolean
}

/** A server of referees and the clients of one case; ends everything afterwards. */
export class Stage {
  readonly f: Fixture
  readonly servers: Referee[] = []
  readonly all: Referee[] = []
  listening!: Listening
  #more: (() => void) | undefined

  constructor(f: Fixture) {
    this.f = f
  }

  async listen(hooks: Hooks, how?: Parameters<Driver['listen']>[2], host = '127.0.0.1'): Promise<number> {
    this.listening = await this.f.driver.listen(
      { host, port: 0 },
      () => {
        const r = new Referee(hooks)
        this.servers.push(r)
        this.all.push(r)
        this.#more?.()
        return r
      },
      how,
    )
    return this.listening.port
  }

  connect(port: number, hooks: Hooks = {}, how?: Parameters<Driver['connect']>[2], host = '127.0.0.1'): Referee {
    const r = new Referee(hooks)
    this.all.push(r)
    r.call(() => {
      r.wire = this.f.driver.connect({ host, port }, r, how)
    })
    return r
  }

  /** The n-th connection the server took. */
  async server(n = 0): Promise<Referee> {
    if (this.servers.length <= n) await within('a connection arrives', new Promise<void>((resolve) => (this.#more = () => void (this.servers.length > n && resolve()))))
    const r = this.servers[n]!
    await r.until(() => r.state !== 'new', 'the server opens')
    return r
  }

  async end(): Promise<void> {
    this.listening?.close()
    for (const r of this.all) r.wire?.abort()
    await Promise.all(this.all.map((r) => r.until(() => r.state === 'closed' || r.wire === undefined || (r.state === 'new' && !r.wire.alive), 'closed')))
    for (const r of this.all) r.check()
  }
}

/** `p`, or an error that says what did not come in time. */
export async function within<T>(what: string, p: Promise<T>, ms = 20_000): Promise<T> {
  const ended = new AbortController()
  const late = sleep(ms, undefined, { signal: ended.signal }).then(
    () => Promise.reject(new Error(`did not happen within ${ms} ms: ${what}`)),
    () => undefined as never,
  )
  try {
    return await Promise.race([p, late])
  } finally {
    ended.abort()
  }
}

/** Bytes that a seed decides. */
export function noise(length: number, seed = 7): Buffer {
  const random = seeded(seed)
  const b = Buffer.alloc(length)
  for (let i = 0; i + 4 <= length; i += 4) b.writeInt32LE((random() * 0x1_0000_0000) | 0, i)
  return b
}

const sha = (b: Buffer): string => createHash('sha256').update(b).digest('hex')
const all = (w: Wire, text: string | Buffer): boolean => {
  const b = Buffer.from(text as string)
  const kept = w.write(b, 0, b.length)
  // What was taken is taken: the caller's bytes may change at once.
  b.fill(0x21)
  return kept
}
const echo: Hooks = {
  data: (r, b, from, to) => {
    if (!r.wire.write(b, from, to)) r.wire.pause()
  },
  drain: (r) => r.wire.resume(),
  eof: (r) => r.wire.end(),
}

/** Sends `body` in pieces, stopping when told to, then ends. */
function pour(r: Referee, body: Buffer, piece = 50_000): () => void {
  let at = 0
  return () => {
    while (at < body.length) {
      const to = Math.min(body.length, at + piece)
      const more = r.wire.write(body, at, to)
      at = to
      if (!more) return
    }
    r.wire.end()
  }
}

/** What every driver does with streams. */
export const streams: readonly Case[] = [
  {
    name: 'bytes come back as they were sent, and both ends close in order',
    run: staged(async (s) => {
      const port = await s.listen(echo)
      const c = s.connect(port)
      c.call(() => void all(c.wire, 'before the connection is made, '))
      await c.until(() => c.state === 'open')
      c.call(() => void all(c.wire, 'and after'))
      await c.until(() => c.text === 'before the connection is made, and after')
      c.call(() => c.wire.end())
      await c.until(() => c.state === 'closed')
      const server = await s.server()
      await server.until(() => server.state === 'closed')
      assert.deepEqual([c.why, server.why], ['', ''])
    }),
  },
  {
    name: 'both ends know their addresses',
    run: staged(async (s) => {
      const port = await s.listen({})
      const c = s.connect(port)
      const server = await s.server()
      await c.until(() => c.state === 'open')
      assert.deepEqual([c.wire.peer, c.wire.peerPort], ['127.0.0.1', port])
      assert.deepEqual(server.wire.local, { host: '127.0.0.1', port })
      assert.deepEqual(c.wire.local, { host: server.wire.peer, port: server.wire.peerPort })
      assert.equal(c.wire.tls, undefined)
    }),
  },
  {
    name: 'an end of one side leaves the other way open',
    run: staged(async (s) => {
      const port = await s.listen({ eof: (r) => void setTimeout(() => (all(r.wire, `you said ${r.text}`), r.wire.end()), 5) })
      const c = s.connect(port)
      c.call(() => (all(c.wire, 'hello'), c.wire.end()))
      await c.until(() => c.state === 'closed')
      assert.equal(c.text, 'you said hello')
      assert.equal(c.why, '')
    }),
  },
  {
    name: 'an end that waits for bytes still unsent comes after them',
    run: staged(async (s) => {
      const body = noise(3_000_000)
      const port = await s.listen({ keep: false })
      const c = s.connect(port)
      c.call(() => (all(c.wire, body), c.wire.end()))
      const server = await s.server()
      await server.until(() => server.state === 'eof')
      assert.equal(server.sha256, sha(body))
    }),
  },
  {
    name: 'a body longer than every buffer arrives whole, both ways at once',
    run: staged(async (s) => {
      const up = noise(10_485_760 + 13, 1)
      const down = noise(10_485_760 + 77, 2)
      const pourers = new Map<Referee, () => void>()
      const both = (body: Buffer): Hooks => ({
        keep: false,
        opened: (r) => (pourers.set(r, pour(r, body)), pourers.get(r)!()),
        drain: (r) => pourers.get(r)!(),
      })
      const port = await s.listen(both(down))
      const c = s.connect(port, both(up))
      const server = await s.server()
      await Promise.all([c.until(() => c.state === 'closed'), server.until(() => server.state === 'closed')])
      assert.deepEqual([c.why, server.why], ['', ''])
      assert.equal(server.sha256, sha(up))
      assert.equal(c.sha256, sha(down))
    }),
  },
  {
    name: 'an echo of ten mebibytes is the same bytes',
    run: staged(async (s) => {
      const body = noise(10_485_760 + 5)
      const port = await s.listen({ ...echo, keep: false })
      let go: () => void
      const c = s.connect(port, { keep: false, opened: (r) => (go = pour(r, body)) && go(), drain: () => go() })
      await c.until(() => c.state === 'closed')
      assert.equal(c.sha256, sha(body))
    }),
  },
  {
    name: 'a reader that stops holds the writer back, and costs bounded memory',
    run: staged(async (s) => {
      const port = await s.listen({ opened: (r) => r.wire.pause(), keep: false })
      const c = s.connect(port, { keep: false }, { highWater: 65_536 })
      await c.until(() => c.state === 'open')
      const server = await s.server()
      const chunk = noise(16_384)
      let sent = 0
      for (let stuck = false; !stuck;) {
        const before = c.drains
        let refused = false
        c.call(() => {
          for (let n = 0; n < 64 && !refused; n++) {
            sent += chunk.length
            refused = !c.wire.write(chunk, 0, chunk.length)
          }
        })
        // Refused and no drain for a while: now everything is full.
        for (let n = 0; n < 5 && c.drains === before && refused; n++) await sleep(10)
        stuck = refused && c.drains === before
        assert.ok(sent < s.f.bounded, `${sent} bytes were taken although nobody reads`)
      }
      assert.equal(server.bytes, 0)
      const drains = c.drains
      server.call(() => server.wire.resume())
      await server.until(() => server.bytes === sent, 'all bytes arrive')
      await c.until(() => c.drains > drains, 'a drain')
    }),
  },
  {
    name: 'pause inside data holds what follows until resume',
    run: staged(async (s) => {
      const port = await s.listen({ data: (r) => r.wire.pause() })
      const c = s.connect(port)
      await c.until(() => c.state === 'open')
      c.call(() => void all(c.wire, 'one'))
      const server = await s.server()
      await server.until(() => server.bytes > 0)
      const seen = server.bytes
      c.call(() => (all(c.wire, 'two'), c.wire.end()))
      await sleep(30)
      assert.equal(server.bytes, seen)
      assert.equal(server.state, 'open')
      for (let i = 0; i < 10 && server.text !== 'onetwo'; i++) {
        server.call(() => server.wire.resume())
        const n = server.bytes
        await server.until(() => server.bytes > n)
      }
      assert.equal(server.text, 'onetwo')
      server.call(() => server.wire.resume())
      await server.until(() => server.state === 'eof')
    }),
  },
  {
    name: 'an abort is told once to the one who called it, and is a reset to the other',
    run: staged(async (s) => {
      const port = await s.listen({})
      const c = s.connect(port)
      const server = await s.server()
      await c.until(() => c.state === 'open')
      c.call(() => {
        c.wire.abort()
        assert.equal(c.wire.alive, false)
        assert.equal(c.wire.write(Buffer.from('x'), 0, 1), false)
        c.wire.end()
        c.wire.pause()
        c.wire.resume()
        c.wire.abort()
      })
      await Promise.all([c.until(() => c.state === 'closed'), server.until(() => server.state === 'closed')])
      assert.equal(c.why, 'aborted')
      assert.match(server.why!, /^ECONNRESET/)
    }),
  },
  ...(['opened', 'data', 'eof'] as const).map((when): Case => ({
    name: `an abort from inside ${when} ends the connection`,
    run: staged(async (s) => {
      const port = await s.listen({ [when]: (r: Referee) => r.wire.abort() })
      const c = s.connect(port)
      c.call(() => (all(c.wire, 'x'), c.wire.end()))
      const server = await s.server()
      await Promise.all([server.until(() => server.state === 'closed'), c.until(() => c.state === 'closed')])
      assert.equal(server.why, 'aborted')
      assert.match(c.why!, /^(ECONNRESET|EPIPE|$)/)
    }),
  })),
  {
    name: 'an abort after an end, at once or later, is told once and harms nothing',
    run: staged(async (s) => {
      for (const later of [false, true]) {
        const port = await s.listen({})
        const c = s.connect(port)
        await c.until(() => c.state === 'open')
        const server = await s.server()
        c.call(() => {
          c.wire.end()
          if (!later) c.wire.abort()
        })
        if (later) {
          await server.until(() => server.state === 'eof')
          c.call(() => c.wire.abort())
        }
        c.call(() => c.wire.abort())
        await c.until(() => c.state === 'closed')
        assert.equal(c.why, 'aborted')
        server.call(() => server.wire.end())
        await server.until(() => server.state === 'closed')
        s.servers.length = 0
      }
    }),
  },
  {
    name: 'an abort before the connection is made is told as closed, without opened',
    run: staged(async (s) => {
      const port = await s.listen({})
      const c = s.connect(port)
      c.call(() => c.wire.abort())
      await c.until(() => c.state === 'closed')
      assert.equal(c.why, 'aborted')
    }),
  },
  {
    name: 'a reset while bytes wait to be sent is told once',
    run: staged(async (s) => {
      const port = await s.listen({ opened: (r) => r.wire.pause() })
      const c = s.connect(port)
      await c.until(() => c.state === 'open')
      const server = await s.server()
      const body = noise(s.f.bounded)
      c.call(() => void c.wire.write(body, 0, body.length))
      await sleep(10)
      server.call(() => server.wire.abort())
      await c.until(() => c.state === 'closed')
      assert.match(c.why!, /^(ECONNRESET|EPIPE)/)
    }),
  },
  {
    name: 'connecting to a port where nobody listens is refused',
    run: staged(async (s) => {
      const port = await s.listen({})
      s.listening.close()
      await sleep(5)
      const c = s.connect(port)
      c.call(() => void all(c.wire, 'nobody will read this'))
      await c.until(() => c.state === 'closed')
      assert.match(c.why!, /^ECONNREFUSED/)
      assert.equal(c.wire.alive, false)
    }),
  },
  {
    name: 'connecting where nothing answers ends by the timeout',
    needs: (f) => f.silent !== undefined,
    run: staged(async (s) => {
      const c = s.connect(9, {}, { timeout: 150 }, s.f.silent)
      await sleep(20)
      assert.notEqual(c.state, 'closed')
      s.f.advance?.(200)
      await c.until(() => c.state === 'closed')
      assert.match(c.why!, /^timeout/)
    }),
  },
  {
    name: 'a port in use is an error that names address and port',
    run: staged(async (s) => {
      const port = await s.listen({})
      await assert.rejects(
        s.f.driver.listen({ host: '127.0.0.1', port }, () => new Referee()),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'EADDRINUSE')
          assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}`))
          return true
        },
      )
    }),
  },
  {
    name: 'IPv6 carries bytes too',
    run: staged(async (s) => {
      const port = await s.listen(echo, {}, '::1')
      const c = s.connect(port, {}, {}, '::1')
      c.call(() => void all(c.wire, 'six'))
      await c.until(() => c.text === 'six')
      const server = await s.server()
      assert.equal(server.wire.peer, '::1')
      assert.deepEqual(server.wire.local, { host: '::1', port })
    }),
  },
  {
    name: 'a listener on every address takes both families, and tells IPv4 addresses as such',
    run: staged(async (s) => {
      const port = await s.listen(echo, {}, '')
      for (const host of ['127.0.0.1', '::1']) {
        const c = s.connect(port, {}, {}, host)
        c.call(() => void all(c.wire, host))
        await c.until(() => c.text === host)
      }
      assert.deepEqual([(await s.server(0)).wire.peer, (await s.server(1)).wire.peer].sort(), ['127.0.0.1', '::1'])
    }),
  },
  {
    name: 'a listener that drains takes nobody new, and those it has live on',
    run: staged(async (s) => {
      const port = await s.listen(echo)
      const c = s.connect(port)
      await s.server()
      s.listening.drain()
      await sleep(5)
      const late = s.connect(port)
      await late.until(() => late.state === 'closed')
      assert.match(late.why!, /^ECONNREFUSED/)
      c.call(() => void all(c.wire, 'still here'))
      await c.until(() => c.text === 'still here')
    }),
  },
  {
    name: 'many small writes, with more to follow and without, keep their order',
    run: staged(async (s) => {
      const port = await s.listen({})
      const c = s.connect(port)
      let expected = ''
      for (let i = 0; i < 200; i++) {
        const text = `${i},`
        expected += text
        c.call(() => void c.wire.write(Buffer.from(`#${text}#`), 1, 1 + text.length, i % 3 !== 2))
        if (i % 20 === 0) await sleep(0)
      }
      const server = await s.server()
      await server.until(() => server.text === expected)
      await sleep(1)
    }),
  },
  {
    name: 'a thousand connections at once each get their own bytes',
    run: staged(async (s) => {
      const port = await s.listen(echo)
      const clients = Array.from({ length: 1000 }, (_, i) => {
        const c = s.connect(port)
        c.call(() => (all(c.wire, `number ${i}`), c.wire.end()))
        return c
      })
      for (const [i, c] of clients.entries()) {
        await c.until(() => c.state === 'closed')
        assert.deepEqual([c.text, c.why], [`number ${i}`, ''])
      }
    }),
  },
  {
    name: 'descriptors that are reused at once do not mix connections up',
    run: staged(async (s) => {
      const port = await s.listen({ ...echo, data: (r, b, from, to) => void (to - from > 3 && r.text.endsWith('!') ? r.wire.abort() : r.wire.write(b, from, to)) })
      for (let round = 0; round < 15; round++) {
        const clients = Array.from({ length: 20 }, (_, i) => {
          const c: Referee = s.connect(port, { data: (r) => void (r.text.length >= 6 && (i % 2 === 0 ? r.wire.abort() : r.wire.end())) })
          c.call(() => void all(c.wire, `${String(round * 20 + i).padStart(5, '0')}${i % 5 === 4 ? '!' : '.'}`))
          return c
        })
        await Promise.all(clients.map((c) => c.until(() => c.state === 'closed')))
        for (const [i, c] of clients.entries()) if (i % 5 !== 4) assert.equal(c.text, `${String(round * 20 + i).padStart(5, '0')}.`)
      }
    }),
  },
  {
    name: 'two connections spliced carry bytes, ends and resets through by themselves',
    run: staged(async (s) => {
      const up = noise(4_000_001, 3)
      const backend = await s.listen({ ...echo, keep: false })
      const backendListening = s.listening
      let spliced = 0
      const forward = await s.f.driver.listen({ host: '127.0.0.1', port: 0 }, () => {
        const front: Referee = new Referee({
          opened: (r) => {
            r.wire.pause()
            const back: Referee = new Referee({
              opened: (b) => {
                if (s.f.driver.splice(r.wire, b.wire)) return void spliced++
                back.hooks2 = copyTo(r)
                front.hooks2 = copyTo(back)
                r.wire.resume()
              },
              data: (x, b, from, to) => x.hooks2?.data?.(x, b, from, to),
              eof: (x) => x.hooks2?.eof?.(x),
              drain: (x) => x.hooks2?.drain?.(x),
              closed: (x, why) => x.hooks2?.closed?.(x, why),
              keep: false,
            })
            s.all.push(back)
            back.wire = s.f.driver.connect({ host: '127.0.0.1', port: backend }, back)
          },
          data: (x, b, from, to) => x.hooks2?.data?.(x, b, from, to),
          eof: (x) => x.hooks2?.eof?.(x),
          drain: (x) => x.hooks2?.drain?.(x),
          closed: (x, why) => x.hooks2?.closed?.(x, why),
          keep: false,
        })
        s.all.push(front)
        return front
      })
      let go: () => void
      const c = s.connect(forward.port, { keep: false, opened: (r) => (go = pour(r, up)) && go(), drain: () => go() })
      await c.until(() => c.state === 'closed')
      assert.equal(c.why, '')
      assert.equal(c.sha256, sha(up))
      // A reset goes through as well.
      const d = s.connect(forward.port)
      d.call(() => void all(d.wire, 'x'))
      await d.until(() => d.text === 'x')
      const behind = s.servers.at(-1)!
      behind.call(() => behind.wire.abort())
      await d.until(() => d.state === 'closed')
      assert.match(d.why!, /^(ECONNRESET|EPIPE)/)
      forward.close()
      backendListening.close()
      void spliced
    }),
  },
  {
    name: 'every() goes on until it is stopped',
    run: staged(async (s) => {
      let n = 0
      const stop = s.f.driver.every(10, () => n++)
      const before = s.f.driver.now
      for (let i = 0; i < 200 && n < 3; i++) {
        s.f.advance?.(10)
        await sleep(5)
      }
      assert.ok(n >= 3)
      assert.ok(s.f.driver.now - before >= 20)
      stop()
      const then = n
      s.f.advance?.(50)
      await sleep(30)
      assert.equal(n, then)
    }),
  },
]

function copyTo(other: Referee): Hooks {
  return {
    data: (r, b, from, to) => void (other.wire.write(b, from, to) || r.wire.pause()),
    drain: () => other.wire.resume(),
    eof: () => other.wire.end(),
    closed: (_r, why) => void (why !== '' && other.wire.abort()),
  }
}

/** What every driver does with datagrams. */
export const datagrams: readonly Case[] = [
  {
    name: 'a datagram is answered from the address it was sent to',
    run: async ({ driver }) => {
      const got: string[] = []
      const server = await driver.bind({ host: '127.0.0.1', port: 0 }, (batch) => {
        for (let i = 0; i < batch.count; i++) {
          assert.deepEqual(batch.local(i), { host: '127.0.0.1', port: server.address.port })
          const at = batch.end(i)
          const out = batch.room(i) >= at + 1 ? batch.bytes : Buffer.alloc(at + 1)
          if (out !== batch.bytes) batch.bytes.copy(out, 0, 0, at)
          out[at] = 0x21
          batch.answer(i, out, batch.start(i), at + 1)
        }
      })
      let done: () => void
      const all = new Promise<void>((resolve) => (done = resolve))
      const client = await driver.bind({ host: '127.0.0.1', port: 0 }, (batch) => {
        for (let i = 0; i < batch.count; i++) {
          assert.deepEqual(batch.peer(i), { host: '127.0.0.1', port: server.address.port })
          got.push(batch.bytes.toString('latin1', batch.start(i), batch.end(i)))
        }
        if (got.length === 10) done()
      })
      for (let i = 0; i < 10; i++) assert.equal(send(client, `q${i}`, server), true)
      await within('ten answers', all)
      assert.deepEqual(
        got.sort(),
        Array.from({ length: 10 }, (_, i) => `q${i}!`),
      )
      client.close()
      server.close()
    },
  },
  {
    name: 'a wildcard socket answers from the address that was asked',
    run: async ({ driver }) => {
      for (const [any, host] of [
        ['', '127.0.0.1'],
        ['', '::1'],
        ['0.0.0.0', '127.0.0.1'],
      ] as const) {
        const server = await driver.bind({ host: any, port: 0 }, (batch) => {
          for (let i = 0; i < batch.count; i++) {
            assert.deepEqual(batch.local(i), { host, port: server.address.port })
            batch.answer(i, batch.bytes, batch.start(i), batch.end(i))
          }
        })
        const { bound, next } = await receiver(driver, host)
        const b = Buffer.from('who?')
        bound.send(b, 0, 4, { host, port: server.address.port })
        const answer = await next()
        assert.deepEqual([answer.bytes.toString(), answer.peer], ['who?', { host, port: server.address.port }])
        bound.close()
        server.close()
      }
    },
  },
  {
    name: 'datagrams of 0 and of 65,507 bytes arrive whole, one more byte cannot be sent',
    run: async ({ driver }) => {
      const server = await receiver(driver, '127.0.0.1')
      const client = await receiver(driver, '127.0.0.1')
      const long = noise(65_508)
      for (const n of [0, 1, 65_507]) {
        client.bound.send(long, 0, n, server.bound.address)
        const got = await server.next()
        assert.equal(got.bytes.length, n)
        assert.equal(sha(got.bytes), sha(long.subarray(0, n)))
      }
      assert.equal(client.bound.send(long, 0, 65_508, server.bound.address), false)
      client.bound.close()
      server.bound.close()
    },
  },
  {
    name: 'an answer to port 0 is not sent, and harms nothing',
    run: async ({ driver }) => {
      const server = await receiver(driver, '127.0.0.1')
      assert.equal(server.bound.send(Buffer.from('x'), 0, 1, { host: '127.0.0.1', port: 0 }), false)
      assert.equal(send(server.bound, 'to myself', server.bound), true)
      assert.equal((await server.next()).bytes.toString(), 'to myself')
      server.bound.close()
    },
  },
  {
    name: 'a datagram socket closed twice is closed, and sends nothing any more',
    run: async ({ driver }) => {
      for (const host of ['127.0.0.1', '']) {
        const bound = await driver.bind({ host, port: 0 }, () => {})
        bound.close()
        bound.close()
        assert.equal(bound.send(Buffer.from('x'), 0, 1, { host: '127.0.0.1', port: 9 }), false)
      }
    },
  },
  {
    name: 'a datagram port in use is an error that names address and port',
    run: async ({ driver }) => {
      for (const host of ['127.0.0.1', '']) {
        const first = await driver.bind({ host, port: 0 }, () => {})
        const port = first.address.port
        await assert.rejects(
          driver.bind({ host, port }, () => {}),
          (error: Error & { code?: string }) => error.code === 'EADDRINUSE' && error.message.includes(String(port)),
        )
        first.close()
      }
    },
  },
  {
    name: 'a connected datagram socket hears its peer alone, and is told when nobody is there',
    run: async ({ driver }) => {
      for (const host of ['127.0.0.1', '::1']) {
        const peer = await receiver(driver, host)
        const stranger = await receiver(driver, host)
        const failures: string[] = []
        let failed: () => void
        const once = new Promise<void>((resolve) => (failed = resolve))
        const got: string[] = []
        let heard: () => void
        const answer = new Promise<void>((resolve) => (heard = resolve))
        const own = await driver.bind(
          { host: '', port: 0 },
          (batch) => {
            for (let i = 0; i < batch.count; i++) got.push(batch.bytes.toString('latin1', batch.start(i), batch.end(i)))
            heard()
          },
          { connect: peer.bound.address, failed: (error) => (failures.push((error as Error & { code: string }).code), failed()) },
        )
        assert.equal(own.address.host, host)
        assert.equal(send(own, 'ping', peer.bound), true)
        const ping = await peer.next()
        assert.deepEqual([ping.bytes.toString(), ping.peer], ['ping', own.address])
        send(stranger.bound, 'psst', own)
        send(peer.bound, 'pong', own)
        await within('an answer', answer)
        assert.deepEqual(got, ['pong'])
        peer.bound.close()
        await sleep(10)
        send(own, 'anybody?', peer.bound)
        await within('a refusal', once)
        assert.deepEqual(failures, ['ECONNREFUSED'])
        own.close()
        stranger.bound.close()
      }
    },
  },
  {
    name: 'IPv6 carries datagrams too',
    run: async ({ driver }) => {
      const server = await receiver(driver, '::1')
      const client = await receiver(driver, '::1')
      assert.equal(send(client.bound, 'six', server.bound), true)
      const got = await server.next()
      assert.deepEqual([got.bytes.toString(), got.peer], ['six', client.bound.address])
      client.bound.close()
      server.bound.close()
    },
  },
]

/** What every driver does with TLS. */
export const secured: readonly Case[] = [
  {
    name: 'TLS: the name chooses the certificate, the handshake is told, bytes come back',
    run: staged(async (s) => {
      const ca = testAuthority()
      const one = ca.issue('one.example', '*.wild.example')
      const two = ca.issue('two.example')
      const asked: (string | undefined)[] = []
      const port = await s.listen(echo, {
        tls: { identity: (name) => (asked.push(name), name === 'two.example' ? two : name === 'one.example' ? one : undefined), alpn: ['h2', 'http/1.1'] },
      })
      for (const name of ['one.example', 'two.example']) {
        const c = s.connect(port, {}, { tls: { serverName: name, ca: ca.ca, alpn: ['http/1.1'] } })
        c.call(() => (all(c.wire, `hello ${name}`), c.wire.end()))
        await c.until(() => c.state === 'closed')
        assert.deepEqual([c.text, c.why], [`hello ${name}`, ''])
        assert.deepEqual([c.wire.tls?.serverName, c.wire.tls?.alpn, c.wire.tls?.version], [name, 'http/1.1', 'TLSv1.3'])
        assert.notEqual(c.wire.tls?.peerCertificate, undefined)
      }
      const server = await s.server(1)
      assert.deepEqual(server.wire.tls, { serverName: 'two.example', alpn: 'http/1.1', version: 'TLSv1.3', peerCertificate: undefined })
      assert.deepEqual(asked, ['one.example', 'two.example'])
    }),
  },
  {
    name: 'TLS: a body longer than every buffer arrives whole both ways',
    run: staged(async (s) => {
      const ca = testAuthority()
      const identity = ca.issue('one.example')
      const body = noise(5_000_003)
      const port = await s.listen({ ...echo, keep: false }, { tls: { identity: () => identity } })
      let go: () => void
      const c = s.connect(port, { keep: false, opened: (r) => (go = pour(r, body)) && go(), drain: () => go() }, { tls: { serverName: 'one.example', ca: ca.ca } })
      await c.until(() => c.state === 'closed')
      assert.equal(c.why, '')
      assert.equal(c.sha256, sha(body))
    }),
  },
  {
    name: 'TLS: a name without a certificate is refused',
    run: staged(async (s) => {
      const port = await s.listen(echo, { tls: { identity: () => undefined } })
      const c = s.connect(port, {}, { tls: { serverName: 'nobody.example' } })
      await c.until(() => c.state === 'closed')
      assert.match(c.why!, /^tls: .*unrecognized.name/i)
      assert.equal(s.servers.length, 0)
    }),
  },
  {
    name: 'TLS: a certificate of a strange CA, for another name or address, is refused',
    needs: (f) => f.tls,
    run: staged(async (s) => {
      const ca = testAuthority()
      const strange = testAuthority('strange CA')
      const identity = ca.issue('one.example', '127.0.0.1')
      const port = await s.listen(echo, { tls: { identity: () => identity } })
      const rows: readonly [string, string, string | undefined, boolean][] = [
        ['right', 'one.example', ca.ca, true],
        ['strange CA', 'one.example', strange.ca, false],
        ['no CA', 'one.example', undefined, false],
        ['other name', 'two.example', ca.ca, false],
      ]
      for (const [what, serverName, trusted, fine] of rows) {
        const c = s.connect(port, {}, { tls: { serverName, ...(trusted === undefined ? {} : { ca: trusted }) } })
        await c.until(() => c.state === 'open' || c.state === 'closed')
        assert.equal(c.state, fine ? 'open' : 'closed', what)
        if (!fine) assert.match(c.why!, /^tls: /, what)
      }
      const byAddress = s.connect(port, {}, { tls: { ca: ca.ca } })
      await byAddress.until(() => byAddress.state === 'open')
      const unverified = s.connect(port, {}, { tls: { serverName: 'two.example', verify: false } })
      await unverified.until(() => unverified.state === 'open')
      assert.equal(unverified.wire.tls?.peerCertificate, undefined)
    }),
  },
  {
    name: 'TLS: client certificates are asked for, verified, and told',
    needs: (f) => f.tls,
    run: staged(async (s) => {
      const ca = testAuthority()
      const strange = testAuthority('strange CA')
      const server = ca.issue('one.example')
      const known = ca.issue('known client')
      const unknown = strange.issue('unknown client')
      let mode: 'request' | 'require' = 'require'
      const modes = { request: { ...server, clientCa: ca.ca, clientCertificate: 'request' as const }, require: { ...server, clientCa: ca.ca, clientCertificate: 'require' as const } }
      const port = await s.listen(echo, { tls: { identity: () => modes[mode] } })
      for (const [asks, identity, works, told] of [
        ['require', known, true, true],
        ['require', unknown, false, false],
        ['require', undefined, false, false],
        ['request', known, true, true],
        ['request', undefined, true, false],
        ['request', unknown, true, false],
      ] as const) {
        mode = asks
        const before = s.servers.length
        const c = s.connect(port, {}, { tls: { serverName: 'one.example', ca: ca.ca, ...(identity === undefined ? {} : { identity }) } })
        c.call(() => void all(c.wire, 'hello'))
        // In TLS 1.3 the client believes it is connected before the server has seen its certificate.
        await c.until(() => c.text === 'hello' || c.state === 'eof' || c.state === 'closed')
        const row = `${asks}, ${identity === known ? 'known' : identity === undefined ? 'none' : 'unknown'}`
        assert.equal(c.text === 'hello', works, `${row}: ${c.why}`)
        assert.equal(s.servers.length - before, works ? 1 : 0, row)
        if (works) assert.equal(s.servers.at(-1)!.wire.tls?.peerCertificate !== undefined, told, row)
      }
    }),
  },
  {
    name: 'TLS: bytes that are no handshake, and a client that goes away early, open nothing',
    needs: (f) => f.tls,
    run: staged(async (s) => {
      const ca = testAuthority()
      const identity = ca.issue('one.example')
      const port = await s.listen(echo, { tls: { identity: () => identity } })
      for (const text of ['GET / HTTP/1.1\r\n\r\n', '\x16\x03\x01', '\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00', '']) {
        const c = s.connect(port)
        c.call(() => (all(c.wire, Buffer.from(text, 'latin1')), c.wire.end()))
        await c.until(() => c.state === 'closed' || c.state === 'eof')
      }
      const c = s.connect(port, {}, { tls: { serverName: 'one.example', ca: ca.ca } })
      await c.until(() => c.state === 'open')
      await s.server(0)
      assert.equal(s.servers.length, 1)
    }),
  },
]

/** Every case. */
export const cases: readonly Case[] = [...streams, ...datagrams, ...secured]

function staged(run: (s: Stage) => Promise<void>): (f: Fixture) => Promise<void> {
  return async (f) => {
    const s = new Stage(f)
    try {
      await run(s)
    } finally {
      await s.end()
    }
  }
}

function send(from: Bound, text: string, to: Bound): boolean {
  const b = Buffer.from(text)
  const sent = from.send(b, 0, b.length, to.address)
  b.fill(0x21)
  return sent
}

interface Received {
  readonly bytes: Buffer
  readonly peer: { readonly host: string; readonly port: number }
}

/** A datagram socket whose datagrams are awaited one by one. */
async function receiver(driver: Driver, host: string): Promise<{ readonly bound: Bound; next(): Promise<Received> }> {
  const queue: Received[] = []
  let wake: (() => void) | undefined
  const bound = await driver.bind({ host, port: 0 }, (batch: Batch) => {
    for (let i = 0; i < batch.count; i++) queue.push({ bytes: Buffer.from(batch.bytes.subarray(batch.start(i), batch.end(i))), peer: batch.peer(i) })
    wake?.()
  })
  return {
    bound,
    next: async () => {
      if (queue.length === 0) await within('a datagram', new Promise<void>((resolve) => (wake = resolve)))
      return queue.shift()!
    },
  }
}
