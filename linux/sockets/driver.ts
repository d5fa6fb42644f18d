import { writeSync } from 'node:fs'
import { familyOf } from '../../lib/ip.ts'
import { addressText, SocketError } from '../../lib/sockets/errors.ts'
import { openNode } from '../../lib/sockets/node/driver.ts'
import type { Address, BindOptions, Bound, ConnectOptions, Descriptor, Driver, Listening, ListenOptions, Protocol, Wire } from '../../lib/sockets/seam.ts'
import * as k from '../ffi/constants.ts'
import { E, errnoName } from '../ffi/errno.ts'
import { Arena } from '../ffi/ffi.ts'
import { selfTest } from '../ffi/selftest.ts'
import { readSockaddr, writeSockaddr } from '../ffi/sockaddr.ts'
import { openDatagrams } from './datagrams.ts'
import { Loop, type Ready } from './loop.ts'
import type { Share } from './share.ts'
import { keepAliveIdle, Pipes, Stream, type Streams } from './stream.ts'
import { TicketKeys, ticketRotation } from './tickets.ts'
import { openTls, type Tls, type TlsCounts } from './tls.ts'

const defaultHighWater = 256 * 1024
/** Connections taken by one event, before others get their turn. */
const mostAccepts = 64
/** The highest descriptor of a listener whose connections are handed over: what is left of an event's data for it. */
const mostShared = 2047
/** Milliseconds until accepting is tried again when no descriptor was left. */
const acceptAgain = 100
/** Milliseconds a client has to send the first bytes that are looked at. */
const defaultPeekTimeout = 10_000
/** How exactly connect and peek timeouts are kept, in milliseconds. */
const sweepEvery = 50

/** The epoll driver if its self-test passes here, else why not. */
export async function openEpoll(how: { readonly share?: Share; readonly index?: number } = {}): Promise<EpollDriver | string> {
  const why = selfTest()
  if (why !== undefined) return why
  const driver = new EpollDriver(how.share, how.index)
  const broken = await echoes(driver)
  if (broken === undefined) return driver
  await driver.close()
  return broken
}

/** Sends a few bytes through the whole driver, there and back. */
function echoes(driver: EpollDriver): Promise<string | undefined> {
  return new Promise((resolve) => {
    const over = (why: string | undefined): void => {
      clearTimeout(timer)
      listening?.close()
      resolve(why)
    }
    const timer = setTimeout(() => over('libuv does not tell of events on an epoll descriptor'), 2000)
    let listening: Listening | undefined
    const quiet = { opened: () => {}, drain: () => {}, eof: () => {}, closed: () => {} }
    driver
      .listen({ host: '127.0.0.1', port: 0 }, () => {
        let wire: Wire
        return { ...quiet, opened: (w) => (wire = w), data: (b, from, to) => void wire.write(b, from, to), eof: () => wire.end() }
      })
      .then((l) => {
        listening = l
        const hello = Buffer.from('does it work?')
        let got = ''
        const wire: Wire = driver.connect(
          { host: '127.0.0.1', port: l.port },
          {
            ...quiet,
            data: (b, from, to) => {
              got += b.toString('latin1', from, to)
              if (got.length >= hello.length) wire.end()
            },
            closed: (reason) => over(reason === '' && got === 'does it work?' ? undefined : `a connection to ourselves ended with "${reason}" after "${got}"`),
          },
        )
        wire.write(hello, 0, hello.length)
      })
      .catch((error: Error) => over(error.message))
  })
}

/** The driver on epoll by FFI: libuv polls the epoll descriptor, so everything else of Node goes on working beside it. */
export class EpollDriver implements Driver {
  readonly name = 'epoll'
  readonly #loop: Loop
  readonly #streams: Streams
  readonly #listeners = new Set<Listener>()
  readonly #bound = new Set<Bound>()
  /** What connections become that others accepted for us, by the listener they came by. */
  readonly #tags = new Map<number, { readonly accept: () => Protocol; readonly how: ListenOptions }>()
  readonly #timers = new Set<NodeJS.Timeout>()
  readonly #connecting = new Map<Stream, number>()
  readonly #looking = new Map<Stream, number>()
  #unheard = 0
  #sweeper: NodeJS.Timeout | undefined
  /** TLS connections, where the OpenSSL inside Node cannot be used. */
  #node: Driver | undefined
  #filter: Tls | string | undefined

  /** Of those that `share` joins, this one is `index`. */
  constructor(share?: Share, index = 0) {
    this.#loop = new Loop(
      (error) => {
        // A protocol that throws has lost its state: as with any uncaught error the process ends, with the right stack.
        process.nextTick(() => {
          throw error
        })
      },
      share,
      index,
    )
    if (share !== undefined) {
      share.enter(index, this.#loop.epoll)
      this.#loop.stranger = (fd, tag, generation, events) => this.#handedOver(fd, tag, generation, events)
    }
    this.#streams = { loop: this.#loop, pipes: new Pipes(this.#loop), all: new Set() }
    this.every((keepAliveIdle * 1000) / 4, () => {
      for (const stream of this.#streams.all) stream.keepAlive()
    })
  }

  get now(): number {
    return this.#loop.now
  }

  /** All listeners are there: from now on the others of the share may hand connections over. */
  join(): void {
    this.#loop.share?.join(this.#loop.index)
  }

  /** For tests and metrics. `unheard`: connections ended because their first bytes did not come in time. */
  get open(): { readonly connections: number; readonly pipes: number; readonly listeners: number; readonly unheard: number } {
    return { connections: this.#streams.all.size, pipes: this.#streams.pipes.open, listeners: this.#listeners.size, unheard: this.#unheard }
  }

  arena(size: number): Buffer {
    return new Arena(size).buffer.subarray(0, size)
  }

  async listen(at: Address | Descriptor, accept: () => Protocol, how: ListenOptions = {}): Promise<Listening> {
    if (how.tls !== undefined) {
      const filter = this.#tls
      if (typeof filter === 'string') return this.#fallback.listen(at, accept, how)
      const { tls, ...rest } = how
      return this.listen(at, () => filter.server(tls, accept, () => this.#loop.now), rest)
    }
    const fd = 'fd' in at ? this.#adopt(at) : this.#openListener(at, how)
    // An inherited socket that others listen on too stays theirs.
    const shared = 'fd' in at && this.#loop.share !== undefined && fd <= mostShared
    const listener = new Listener(this.#loop, fd, shared, (client, peer, peerPort) => this.#taken(fd, shared, client, peer, peerPort, accept, how), how)
    if (shared) this.#tags.set(fd, { accept, how })
    const r = this.#loop.add(fd, listener, shared ? k.EPOLLIN | k.EPOLLEXCLUSIVE : k.EPOLLIN, shared)
    if (r < 0) {
      if (!shared) this.#loop.sys.close(fd)
      throw new SocketError('listen on', at, errnoName(r))
    }
    this.#listeners.add(listener)
    const { sys, arena, nameAt } = this.#loop
    sys.getsockname(fd, arena, nameAt, nameAt + 28)
    const gone = (): void => {
      this.#listeners.delete(listener)
      listener.close()
    }
    return {
      port: readSockaddr(arena.buffer, nameAt)?.port ?? 0,
      drain: () => {
        // Gets no more from the others; but those who wait in the queue were promised a connection by the kernel, and we may be the last to look.
        if (shared) this.#loop.share?.leave(this.#loop.index)
        if (this.#listeners.has(listener)) listener.acceptAll()
        gone()
        // What others have given us before is met now: whoever counts what is left to do must see it.
        if (shared) this.#loop.turn()
      },
      close: gone,
    }
  }

  /** A connection just accepted: ours, or that of the worker with the fewest. */
  #taken(listener: number, shared: boolean, fd: number, peer: string, peerPort: number, accept: () => Protocol, how: ListenOptions): void {
    const { share, index } = this.#loop
    if (!shared || share === undefined) return this.#accept(fd, peer, peerPort, accept, how)
    const target = share.least(index)
    if (target !== index && share.hand(target, fd, listener)) return
    share.taken(index, fd)
    this.#accept(fd, peer, peerPort, accept, how, true)
  }

  #handedOver(fd: number, tag: number, generation: number, events: number): void {
    const { sys, arena, nameAt } = this.#loop
    const listener = this.#tags.get(tag)
    const named = sys.getpeername(fd, arena, nameAt, nameAt + 28)
    const peer = named < 0 ? undefined : readSockaddr(arena.buffer, nameAt)
    if (listener === undefined) {
      this.#loop.share?.released(this.#loop.index, fd)
      this.#loop.share?.nextGeneration(fd)
      sys.close(fd)
      return
    }
    this.#accept(fd, peer?.host ?? '', peer?.port ?? 0, listener.accept, listener.how, true, { generation, events })
  }

  /** A listening socket for workers to share, in nobody's epoll set: each gives it to `listen` as a descriptor. */
  reserve(at: Address | Descriptor, how: ListenOptions = {}): Reserved {
    const fd = 'fd' in at ? this.#adopt(at) : this.#openListener(at, how)
    const { sys, arena, nameAt } = this.#loop
    if (fd > mostShared) throw new SocketError('share the listening socket on', at, 'EMFILE')
    sys.getsockname(fd, arena, nameAt, nameAt + 28)
    return {
      fd,
      port: readSockaddr(arena.buffer, nameAt)?.port ?? 0,
      drain: (share) => {
        refuseNew(this.#loop, fd)
        for (;;) {
          const client = sys.accept4(fd, k.SOCK_NONBLOCK, arena, nameAt, nameAt)
          if (client === -E.EINTR || client === -E.ECONNABORTED) continue
          if (client < 0) break
          if (!share.hand(share.least(-1), client, fd)) sys.close(client)
        }
        // The workers still know the number: something that never wakes takes its place until they do not.
        const nothing = sys.eventfd(0, k.O_NONBLOCK)
        if (nothing < 0) return
        sys.dup3(nothing, fd, 0x8_0000)
        sys.close(nothing)
      },
      close: () => void sys.close(fd),
    }
  }

  #accept(fd: number, peer: string, peerPort: number, accept: () => Protocol, how: ListenOptions, counted = false, handed?: { readonly generation: number; readonly events: number }): void {
    const highWater = how.highWater ?? defaultHighWater
    const stream = new Stream(this.#streams, fd, how.peek === undefined ? accept() : waiting, peer, peerPort, highWater, handed?.generation)
    stream.counted = counted
    stream.messages = how.transport === 'sctp'
    if (how.originalDestination === true) {
      const original = this.#originalDestination(fd, peer)
      if (original !== undefined) stream.local = original
    }
    if (handed !== undefined && how.peek === undefined) stream.handed(handed.events)
    else if (how.peek === undefined) stream.accepted()
    else {
      const ms = how.peekTimeout ?? defaultPeekTimeout
      stream.deadline = this.#loop.now + ms
      this.#looking.set(stream, ms)
      this.#sweeper ??= setInterval(() => this.#sweep(), sweepEvery).unref()
      stream.peek(how.peek, accept, handed?.events)
    }
  }

  /** Where the client wanted to go before a redirect; undefined when nobody redirected it. */
  #originalDestination(fd: number, peer: string): Address | undefined {
    const { sys, arena, nameAt } = this.#loop
    const [level, name] = familyOf(peer) === 4 ? [k.IPPROTO_IP, k.SO_ORIGINAL_DST] : [k.IPPROTO_IPV6, k.IP6T_SO_ORIGINAL_DST]
    if (sys.getsockopt(fd, level, name, arena, nameAt, nameAt + 28) < 0) return undefined
    return readSockaddr(arena.buffer, nameAt)
  }

  #adopt({ fd }: Descriptor): number {
    const { sys } = this.#loop
    const flags = sys.fcntl(fd, k.F_GETFL, 0)
    if (flags < 0) throw new SocketError('listen on', { fd }, errnoName(flags))
    sys.fcntl(fd, k.F_SETFL, flags | k.O_NONBLOCK)
    return fd
  }

  #openListener(at: Address, how: ListenOptions): number {
    const { sys, arena, nameAt } = this.#loop
    const any = at.host === ''
    let family: number = any || at.host.includes(':') ? k.AF_INET6 : k.AF_INET
    const sctp = how.transport === 'sctp'
    const protocol = sctp ? k.IPPROTO_SCTP : 0
    let fd = sys.socket(family, k.SOCK_STREAM | k.SOCK_NONBLOCK, protocol)
    if (fd === -E.EAFNOSUPPORT && any) fd = sys.socket((family = k.AF_INET), k.SOCK_STREAM | k.SOCK_NONBLOCK, protocol)
    const check = (r: number): void => {
      if (r >= 0) return
      if (fd >= 0) sys.close(fd)
      throw new SocketError('listen on', at, errnoName(r))
    }
    check(fd)
    check(sys.setOption(fd, k.SOL_SOCKET, k.SO_REUSEADDR, 1))
    if (family === k.AF_INET6) check(sys.setOption(fd, k.IPPROTO_IPV6, k.IPV6_V6ONLY, any || at.host === '::' ? Number(how.ipv6Only ?? false) : 1))
    if (how.reusePort === true) check(sys.setOption(fd, k.SOL_SOCKET, k.SO_REUSEPORT, 1))
    if (how.transparent === true) {
      if (family === k.AF_INET6) check(sys.setOption(fd, k.IPPROTO_IPV6, k.IPV6_TRANSPARENT, 1))
      if (family === k.AF_INET || at.host === '') check(sys.setOption(fd, k.IPPROTO_IP, k.IP_TRANSPARENT, 1))
    }
    // What is set here the accepted connections inherit, without a call each.
    if (sctp) sys.setOption(fd, k.IPPROTO_SCTP, k.SCTP_NODELAY, 1)
    else {
      sys.setOption(fd, k.IPPROTO_TCP, k.TCP_NODELAY, 1)
      sys.setOption(fd, k.SOL_SOCKET, k.SO_KEEPALIVE, 1)
      sys.setOption(fd, k.IPPROTO_TCP, k.TCP_KEEPIDLE, keepAliveIdle)
    }
    const length = writeSockaddr(arena.buffer, nameAt, any ? (family === k.AF_INET6 ? '::' : '0.0.0.0') : at.host, at.port)
    check(sys.bind(fd, arena, nameAt, nameAt + length))
    check(sys.listen(fd, how.backlog ?? 4096))
    return fd
  }

  connect(at: Address, p: Protocol, how: ConnectOptions = {}): Wire {
    if (how.tls !== undefined) {
      const filter = this.#tls
      if (typeof filter === 'string') return this.#fallback.connect(at, p, how)
      const { tls, ...rest } = how
      const client = filter.client(tls, at.host, p, () => this.#loop.now)
      return client.attach(this.connect(at, client, rest))
    }
    const { sys, arena, nameAt } = this.#loop
    const sctp = how.transport === 'sctp'
    let r = sys.socket(at.host.includes(':') ? k.AF_INET6 : k.AF_INET, k.SOCK_STREAM | k.SOCK_NONBLOCK, sctp ? k.IPPROTO_SCTP : 0)
    const fd = r
    let doing = 'connect'
    if (r >= 0) {
      if (how.transparent === true) r = at.host.includes(':') ? sys.setOption(fd, k.IPPROTO_IPV6, k.IPV6_TRANSPARENT, 1) : sys.setOption(fd, k.IPPROTO_IP, k.IP_TRANSPARENT, 1)
      if (r >= 0 && how.from !== undefined) {
        doing = `bind to ${addressText(how.from)} and connect`
        // The port is chosen when the other end is known: many more connections fit.
        if (how.from.port === 0) sys.setOption(fd, k.IPPROTO_IP, k.IP_BIND_ADDRESS_NO_PORT, 1)
        const length = writeSockaddr(arena.buffer, nameAt, how.from.host === '' ? (at.host.includes(':') ? '::' : '0.0.0.0') : how.from.host, how.from.port)
        r = sys.bind(fd, arena, nameAt, nameAt + length)
      }
      if (r >= 0) {
        const length = writeSockaddr(arena.buffer, nameAt, at.host, at.port)
        r = sys.connect(fd, arena, nameAt, nameAt + length)
      }
    }
    const stream = new Stream(this.#streams, fd, p, at.host, at.port, how.highWater ?? defaultHighWater)
    stream.messages = sctp
    if (r < 0 && r !== -E.EINPROGRESS) stream.die(`${errnoName(r)}: ${doing} ${addressText(at)}`)
    else {
      const ms = how.timeout ?? 10_000
      stream.connecting(this.#loop.now + ms)
      this.#connecting.set(stream, ms)
      this.#sweeper ??= setInterval(() => this.#sweep(), sweepEvery).unref()
    }
    return stream
  }

  #sweep(): void {
    const now = this.#loop.now
    for (const [stream, ms] of this.#connecting) {
      if (stream.deadline === 0 || !stream.alive) this.#connecting.delete(stream)
      else if (stream.deadline <= now) {
        this.#connecting.delete(stream)
        stream.timeout(ms)
      }
    }
    for (const [stream, ms] of this.#looking) {
      if (stream.deadline === 0 || !stream.alive) this.#looking.delete(stream)
      else if (stream.deadline <= now) {
        this.#looking.delete(stream)
        this.#unheard++
        stream.silent(ms)
      }
    }
    if (this.#connecting.size + this.#looking.size > 0) return
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }

  async bind(at: Address | Descriptor, received: Parameters<Driver['bind']>[1], how: BindOptions = {}): Promise<Bound> {
    const bound: Bound = openDatagrams(this.#loop, at, received, how, () => this.#bound.delete(bound))
    this.#bound.add(bound)
    return bound
  }

  every(ms: number, f: () => void): () => void {
    const timer = setInterval(f, ms).unref()
    this.#timers.add(timer)
    return () => {
      this.#timers.delete(timer)
      clearInterval(timer)
    }
  }

  flush(fd: number, b: Buffer, n: number): void {
    for (let done = 0; done < n;) {
      try {
        done += writeSync(fd, b, done, n - done)
      } catch (error) {
        // A pipe that is full loses log lines; it does not stop the server.
        if ((error as NodeJS.ErrnoException).code !== 'EINTR') return
      }
    }
  }

  splice(a: Wire, b: Wire): boolean {
    if (!(a instanceof Stream) || !(b instanceof Stream)) return this.#node?.splice(a, b) ?? false
    if (!a.alive || !b.alive) return false
    a.joinTo(b)
    b.joinTo(a)
    return true
  }

  detach(w: Wire): Descriptor | undefined {
    return w instanceof Stream && w.alive ? { fd: w.release() } : undefined
  }

  async close(): Promise<void> {
    if (this.#loop.share !== undefined) {
      this.#loop.share.leave(this.#loop.index)
      // What others gave us and we have not met yet must be known to be ended.
      this.#loop.turn()
    }
    for (const timer of this.#timers) clearInterval(timer)
    this.#timers.clear()
    clearInterval(this.#sweeper)
    for (const listener of this.#listeners) listener.close()
    this.#listeners.clear()
    for (const bound of this.#bound) bound.close()
    for (const stream of this.#streams.all) stream.abort()
    await this.#node?.close()
    // What is told later is told before this resolves.
    await new Promise<void>((resolve) => setImmediate(resolve))
    this.#streams.pipes.close()
    this.#loop.close()
    // Given to us between the last look and now: nobody else would end them.
    this.#loop.share?.bury(this.#loop.index)
  }

  get tlsBy(): string {
    const filter = this.#tls
    return typeof filter === 'string' ? `node:tls (${filter})` : `OpenSSL ${process.versions.openssl} over memory`
  }

  counts(): Readonly<Record<string, number>> {
    const filter = this.#filter
    const tls = typeof filter !== 'object' ? {} : Object.fromEntries(Object.entries(filter.counts).map(([name, n]) => [`tls ${name}`, n]))
    return { ...this.open, ...(typeof filter === 'object' ? { 'tls handshakes under way': filter.shaking.size } : {}), ...tls }
  }

  /** How TLS is done: counts of the filter, or why `node:tls` does it. */
  get tls(): Readonly<TlsCounts> | string {
    const filter = this.#tls
    return typeof filter === 'string' ? filter : filter.counts
  }

  get #tls(): Tls | string {
    if (this.#filter === undefined) {
      const keys = this.#loop.share?.tickets ?? new TicketKeys()
      if (this.#loop.share === undefined) this.every(ticketRotation, () => keys.rotate())
      this.#filter = process.env.SWITCHYARD_TLS === 'node' ? 'SWITCHYARD_TLS=node' : openTls(keys)
      const filter = this.#filter
      if (typeof filter !== 'string') this.every(1000, () => filter.sweep(this.#loop.now))
    }
    return this.#filter
  }

  get #fallback(): Driver {
    return (this.#node ??= openNode())
  }
}

/** Stands in for the protocol of a connection that is still being looked at. */
const waiting: Protocol = { opened: () => {}, data: () => {}, drain: () => {}, eof: () => {}, closed: () => {} }

/** A listening socket that workers share. */
export interface Reserved {
  readonly fd: number
  readonly port: number
  /** Ends listening: whoever waits in the queue is given to the workers of `share`, others are refused from now on. The number stays taken until `close`. */
  drain(share: Share): void
  close(): void
}

/** From now on the kernel drops the first packet of new connections, so that no one can get into the queue between the last look at it and its end. Who was dropped tries again after a second, and is refused. */
function refuseNew({ sys, arena, nameAt, optionAt }: Loop, fd: number): void {
  // Octet 13 of a TCP header holds the flags: SYN without ACK is dropped, everything else passes.
  const program = [
    [0x30, 0, 0, 13],
    [0x54, 0, 0, 0x12],
    [0x15, 0, 1, 0x02],
    [0x06, 0, 0, 0],
    [0x06, 0, 0, 0xffff_ffff],
  ] as const
  const b = arena.buffer
  for (const [i, [code, yes, no, value]] of program.entries()) {
    b.writeUInt16LE(code, nameAt + i * 8)
    b[nameAt + i * 8 + 2] = yes
    b[nameAt + i * 8 + 3] = no
    b.writeUInt32LE(value, nameAt + i * 8 + 4)
  }
  b.fill(0, optionAt, optionAt + 16)
  b.writeUInt16LE(program.length, optionAt)
  arena.setPointer(optionAt + 8, arena, nameAt, nameAt + program.length * 8)
  sys.setsockopt(fd, k.SOL_SOCKET, k.SO_ATTACH_FILTER, arena, optionAt, optionAt + 16)
}

/** A listening socket in the loop. */
class Listener implements Ready {
  readonly generation: number
  readonly #loop: Loop
  readonly #fd: number
  readonly #shared: boolean
  readonly #taken: (fd: number, peer: string, port: number) => void
  readonly #how: ListenOptions
  #again: NodeJS.Timeout | undefined
  #closed = false

  constructor(loop: Loop, fd: number, shared: boolean, taken: (fd: number, peer: string, port: number) => void, how: ListenOptions) {
    this.#loop = loop
    this.generation = loop.nextGeneration()
    this.#fd = fd
    this.#shared = shared
    this.#taken = taken
    this.#how = how
  }

  ready(): void {
    // Shared: a few at a time, the others are awake as well.
    for (let i = 0; i < (this.#shared ? 8 : mostAccepts) && !this.#closed; i++) if (!this.#one()) return
  }

  acceptAll(): void {
    if (!this.#shared) refuseNew(this.#loop, this.#fd)
    while (this.#one());
  }

  /** Accepts one; false when there is none, or no descriptor left for it. */
  #one(): boolean {
    const { sys, arena, nameAt } = this.#loop
    const fd = sys.accept4(this.#fd, k.SOCK_NONBLOCK, arena, nameAt, nameAt + 28)
    if (fd >= 0) {
      const peer = readSockaddr(arena.buffer, nameAt)
      this.#taken(fd, peer?.host ?? '', peer?.port ?? 0)
      return true
    }
    // Gone before we came; the next one may be there.
    if (fd === -E.ECONNABORTED || fd === -E.EINTR || fd === -E.EPROTO) return true
    // ENOTSOCK: the crew has ended the socket for all.
    if (fd === -E.EAGAIN || (this.#shared && (fd === -E.ENOTSOCK || fd === -E.EINVAL))) return false
    if (fd === -E.EMFILE || fd === -E.ENFILE || fd === -E.ENOBUFS || fd === -E.ENOMEM) {
      // Nothing to take it with: the queue waits, and the socket keeps silent meanwhile instead of telling us again at once.
      this.#loop.out(this.#fd)
      this.#again = setTimeout(() => this.#loop.back(this.#fd, this, k.EPOLLIN), acceptAgain).unref()
      return false
    }
    this.#how.failed?.(new Error(`accept: ${errnoName(fd)}`))
    this.close()
    return false
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#again)
    this.#loop.forget(this.#fd)
    // A socket that others listen on too only leaves our set: nobody in its queue is lost.
    if (this.#shared) this.#loop.out(this.#fd)
    else this.#loop.sys.close(this.#fd)
  }
}
