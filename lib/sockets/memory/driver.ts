import { seeded } from '../../random.ts'
import { addressText, SocketError } from '../errors.ts'
import type { Address, Batch, BindOptions, Bound, ConnectOptions, Descriptor, Driver, Listening, ListenOptions, Protocol, TlsInfo, TlsServer, Wire } from '../seam.ts'

/** How the network in memory behaves. Everything left out is drawn from the seed. */
export interface MemoryOptions {
  readonly seed?: number
  /** How many of `available` bytes are told next, at least 1; `offset` counts the bytes this end was told before. */
  readonly cut?: (available: number, offset: number) => number
  /** How many of `n` bytes the network takes from a write at once; the rest waits in the driver. */
  readonly take?: (n: number) => number
  /** Bytes that may be under way in one direction; what is more waits in the driver. Default 64 KiB. */
  readonly capacity?: number
  /** Bytes a protocol finds behind those it is told. */
  readonly room?: number
  /** Whether `splice` does it or says that it cannot. */
  readonly splice?: boolean
  /** Goes on by itself, a little each turn of the loop. Otherwise only `settle` and `step` let anything happen. Default true. */
  readonly auto?: boolean
}

/** A driver whose network is in memory, for tests: the seed decides what the network does, and time moves by hand. */
export class MemoryDriver implements Driver {
  readonly name = 'memory'
  now = 0
  readonly options: MemoryOptions
  readonly random: () => number
  readonly #listeners = new Map<string, MemoryListener>()
  readonly #bound = new Map<string, MemoryBound>()
  readonly #active: Actor[] = []
  readonly #ends = new Set<MemoryWire>()
  readonly #unreachable = new Set<string>()
  readonly #timers = new Set<{ at: number; readonly every: number | undefined; readonly f: () => void }>()
  #port = 32_768
  #busy = false
  #scheduled = false

  constructor(options: MemoryOptions = {}) {
    this.options = options
    this.random = seeded(options.seed ?? 1)
  }

  /** The connections that live, both ends of each. */
  get wires(): ReadonlySet<Wire> {
    return this.#ends
  }

  arena(size: number): Buffer {
    return Buffer.alloc(size)
  }

  async listen(at: Address | Descriptor, accept: () => Protocol, how: ListenOptions = {}): Promise<Listening> {
    if ('fd' in at) throw new SocketError('listen on', at, 'ENOTSUP')
    const port = at.port === 0 ? this.#port++ : at.port
    const key = addressText({ host: wildcard(at.host), port })
    if (this.#listeners.has(key)) throw new SocketError('listen on', at, 'EADDRINUSE')
    this.#listeners.set(key, { accept, how })
    const close = (): void => void this.#listeners.delete(key)
    return { port, drain: close, close }
  }

  connect(at: Address, p: Protocol, how: ConnectOptions = {}): Wire {
    const from = { host: how.from?.host || (at.host.includes(':') ? '::1' : '127.0.0.1'), port: how.from?.port || this.#port++ }
    const wire = new MemoryWire(this, p, at, from, how.highWater)
    this.#ends.add(wire)
    const ms = how.timeout ?? 10_000
    const timer = this.#timer(ms, undefined, () => wire.fail(`timeout: no connection to ${addressText(at)} within ${ms} ms`))
    wire.connecting = () => {
      if (this.#unreachable.has(at.host)) return
      timer()
      const listener = this.#listenerAt(at)
      if (listener === undefined) return wire.fail(`ECONNREFUSED: connect ${addressText(at)}`)
      const shaken = shakeHands(how, listener.how.tls)
      if (typeof shaken === 'string') return wire.fail(shaken)
      const other = new MemoryWire(this, listener.accept(), from, at, listener.how.highWater)
      this.#ends.add(other)
      other.tls = shaken.server
      wire.tls = shaken.client
      wire.meet(other)
    }
    this.touch(wire)
    return wire
  }

  async bind(at: Address | Descriptor, received: (batch: Batch, bound: Bound) => void, how: BindOptions = {}): Promise<Bound> {
    if ('fd' in at) throw new SocketError('bind', at, 'ENOTSUP')
    const host = how.connect === undefined || at.host !== '' ? at.host : how.connect.host.includes(':') ? '::1' : '127.0.0.1'
    const address = { host, port: at.port === 0 ? this.#port++ : at.port }
    const key = addressText({ host: wildcard(host), port: address.port })
    if (this.#bound.has(key)) throw new SocketError('bind', at, 'EADDRINUSE')
    const bound = new MemoryBound(this, address, received, how, () => this.#bound.delete(key))
    this.#bound.set(key, bound)
    return bound
  }

  every(ms: number, f: () => void): () => void {
    return this.#timer(ms, ms, f)
  }

  flush(): void {}

  splice(a: Wire, b: Wire): boolean {
    if (!(a instanceof MemoryWire) || !(b instanceof MemoryWire) || !a.alive || !b.alive) return false
    if (!(this.options.splice ?? this.random() < 0.5)) return false
    a.joinTo(b)
    b.joinTo(a)
    return true
  }

  detach(): undefined {
    return undefined
  }

  async close(): Promise<void> {
    this.#listeners.clear()
    this.#timers.clear()
    for (const bound of this.#bound.values()) bound.close()
    for (const wire of this.#ends) wire.abort()
    if (!this.#busy) this.settle()
  }

  /** The network breaks this connection: both ends learn of it. */
  reset(w: Wire): void {
    if (w instanceof MemoryWire) w.broken()
  }

  /** From now on nothing answers at `host`; connecting to it ends by its timeout. */
  unreachable(host: string): void {
    this.#unreachable.add(host)
  }

  /** Lets one thing happen; false when there is nothing. */
  step(): boolean {
    if (this.#busy) throw new Error('a protocol called step() from inside a call of the driver')
    this.#busy = true
    try {
      while (this.#active.length > 0) {
        const i = Math.floor(this.random() * this.#active.length)
        const actor = this.#active[i]!
        if (actor.act()) return true
        // Nothing for it to do now; whoever changes that touches it again.
        const last = this.#active.pop()!
        if (last !== actor) this.#active[i] = last
        actor.waits = false
      }
      return false
    } finally {
      this.#busy = false
    }
  }

  /** Lets things happen until nothing is left to happen. */
  settle(): void {
    for (let steps = 0; this.step(); steps++) if (steps > 50_000_000) throw new Error('the network does not come to rest')
  }

  /** Moves time, running what is due in order; between, everything comes to rest. */
  advance(ms: number): void {
    const until = this.now + ms
    this.settle()
    for (;;) {
      let next: { at: number; readonly every: number | undefined; readonly f: () => void } | undefined
      for (const timer of this.#timers) if (timer.at <= until && (next === undefined || timer.at < next.at)) next = timer
      if (next === undefined) break
      this.now = next.at
      if (next.every === undefined) this.#timers.delete(next)
      else next.at += next.every
      next.f()
      this.settle()
    }
    this.now = until
  }

  /** Something may happen at `actor`. */
  touch(actor: Actor): void {
    if (actor.waits) return
    actor.waits = true
    this.#active.push(actor)
    if (this.options.auto === false || this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.#run())
  }

  #run(): void {
    let left = 256
    while (left-- > 0 && this.step());
    this.#scheduled = this.#active.length > 0
    if (this.#scheduled) setImmediate(() => this.#run())
  }

  gone(wire: MemoryWire): void {
    this.#ends.delete(wire)
  }

  /** Who gets a datagram sent to `at`. */
  boundAt(at: Address): MemoryBound | undefined {
    return this.#bound.get(addressText(at)) ?? this.#bound.get(addressText({ host: '', port: at.port }))
  }

  #listenerAt(at: Address): MemoryListener | undefined {
    return this.#listeners.get(addressText(at)) ?? this.#listeners.get(addressText({ host: '', port: at.port }))
  }

  #timer(ms: number, every: number | undefined, f: () => void): () => void {
    const timer = { at: this.now + ms, every, f }
    this.#timers.add(timer)
    return () => void this.#timers.delete(timer)
  }
}

interface MemoryListener {
  readonly accept: () => Protocol
  readonly how: ListenOptions
}

/** Something that may have a next thing to do. */
interface Actor {
  /** Stands in the list of those who may. */
  waits: boolean
  /** Does one thing; false when there was none. */
  act(): boolean
}

/** One end of a connection in memory. */
export class MemoryWire implements Wire, Actor {
  readonly peer: string
  readonly peerPort: number
  readonly local: Address
  tls: TlsInfo | undefined
  waits = false
  /** Set until the connection is made or has failed. */
  connecting: (() => void) | undefined
  readonly #driver: MemoryDriver
  readonly #protocol: Protocol
  readonly #highWater: number
  #other: MemoryWire | undefined
  #opened = false
  #paused = false
  #why: string | undefined
  #told = false
  /** Under way to this end. */
  readonly #incoming: Buffer[] = []
  #incomingBytes = 0
  #finArrived = false
  #resetArrived = ''
  #eofTold = false
  #offset = 0
  /** Written, and not yet taken by the network. */
  readonly #waiting: Buffer[] = []
  #waitingBytes = 0
  #full = false
  #ended = false
  #finSent = false
  #joined: MemoryWire | undefined

  constructor(driver: MemoryDriver, protocol: Protocol, peer: Address, local: Address, highWater = 256 * 1024) {
    this.#driver = driver
    this.#protocol = protocol
    this.peer = peer.host
    this.peerPort = peer.port
    this.local = local
    this.#highWater = highWater
  }

  get alive(): boolean {
    return this.#why === undefined
  }

  write(b: Buffer, from: number, to: number): boolean {
    if (from < 0 || to > b.length || from > to) throw new RangeError(`write of [${from}, ${to}) from a buffer of ${b.length} bytes`)
    if (!this.alive || this.#ended) return false
    if (to > from) {
      this.#waiting.push(Buffer.from(b.subarray(from, to)))
      this.#waitingBytes += to - from
      this.#flush()
    }
    this.#driver.touch(this)
    if (this.#waitingBytes <= this.#highWater) return true
    this.#full = true
    return false
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    this.#paused = false
    this.#driver.touch(this)
  }

  end(): void {
    if (this.#ended || !this.alive) return
    this.#ended = true
    this.#flush()
    this.#driver.touch(this)
  }

  abort(): void {
    this.fail('aborted')
  }

  /** Ends it for this reason; the other end sees a reset. */
  fail(why: string): void {
    if (!this.alive) return
    this.#why = why
    // A connection that both have ended is over: the kernel has nothing left to reset, though the other end may not have read it all.
    if (this.#other !== undefined && !(this.#finSent && this.#finArrived)) this.#other.#arriveReset()
    this.#driver.touch(this)
  }

  /** The network breaks the connection. */
  broken(): void {
    if (this.#other === undefined) return this.fail('ECONNRESET: connection reset')
    this.#other.#arriveReset()
    this.#arriveReset()
  }

  #arriveReset(): void {
    if (!this.alive) return
    this.#resetArrived = 'ECONNRESET: connection reset'
    this.#driver.touch(this)
  }

  /** The connection is made. */
  meet(other: MemoryWire): void {
    this.connecting = undefined
    this.#other = other
    other.#other = this
    this.#flush()
    this.#driver.touch(this)
    this.#driver.touch(other)
  }

  joinTo(other: MemoryWire): void {
    this.#joined = other
    this.#paused = false
    this.#driver.touch(this)
  }

  act(): boolean {
    if (this.#told) return false
    if (this.#why !== undefined) return this.#close()
    if (this.connecting !== undefined) {
      const connect = this.connecting
      this.connecting = undefined
      connect()
      return true
    }
    if (this.#other === undefined) return false
    if (!this.#opened) {
      this.#opened = true
      this.#protocol.opened(this)
      return true
    }
    const can: (() => void)[] = []
    const readable = !this.#paused && (this.#joined === undefined || this.#joined.#waitingBytes <= this.#joined.#highWater)
    if (readable && this.#incomingBytes > 0) can.push(() => this.#deliver())
    else if (readable && this.#finArrived && !this.#eofTold && this.#resetArrived === '') can.push(() => this.#eof())
    // A reset overtakes bytes that nobody wants, not those that are being read.
    if (this.#resetArrived !== '' && (this.#incomingBytes === 0 || this.#paused)) can.push(() => void (this.#why = this.#resetArrived))
    if (this.#waitingBytes > 0 && this.#other.#incomingBytes < this.#capacity) can.push(() => this.#flush())
    if (this.#full && this.#waitingBytes <= this.#highWater / 2) can.push(() => this.#drained())
    if (can.length === 0) {
      if (this.#finSent && this.#eofTold) this.#why = ''
      return this.#why !== undefined
    }
    can[Math.floor(this.#driver.random() * can.length)]!()
    return true
  }

  get #capacity(): number {
    return this.#driver.options.capacity ?? 65_536
  }

  /** Gives the network as much as it takes. */
  #flush(): void {
    const other = this.#other
    if (other === undefined || !this.alive) return
    const space = Math.min(this.#waitingBytes, this.#capacity - other.#incomingBytes)
    if (space > 0) {
      let n = this.#driver.options.take?.(space) ?? (this.#driver.random() < 0.5 ? space : Math.floor(this.#driver.random() * (space + 1)))
      n = Math.max(0, Math.min(space, n))
      // What is gone when nobody reads any more is gone.
      const taken = takeFrom(this.#waiting, n)
      this.#waitingBytes -= n
      if (other.alive && !other.#told) {
        other.#incoming.push(...taken)
        other.#incomingBytes += n
        this.#driver.touch(other)
      }
    }
    if (this.#ended && this.#waitingBytes === 0 && !this.#finSent) {
      this.#finSent = true
      other.#finArrived = true
      this.#driver.touch(other)
    }
    this.#driver.touch(this)
  }

  #deliver(): void {
    const options = this.#driver.options
    const available = this.#incomingBytes
    const random = this.#driver.random
    const wanted = options.cut?.(available, this.#offset) ?? (random() < 0.3 ? available : 1 + Math.floor(random() * available))
    const n = Math.max(1, Math.min(available, wanted))
    const bytes = takeFrom(this.#incoming, n)
    this.#incomingBytes -= n
    this.#offset += n
    if (this.#other !== undefined) this.#driver.touch(this.#other)
    if (this.#joined !== undefined) {
      for (const b of bytes) this.#joined.write(b, 0, b.length)
      this.#driver.touch(this)
      return
    }
    const front = Math.floor(random() * 8)
    const room = options.room ?? (random() < 0.5 ? 0 : 1024)
    const lent = Buffer.alloc(front + n + room, 0xdb)
    let at = front
    for (const b of bytes) at += b.copy(lent, at)
    this.#protocol.data(lent, front, front + n)
    // Whoever kept a reference reads this, and their test fails.
    lent.fill(0xdb)
  }

  #eof(): void {
    this.#eofTold = true
    if (this.#joined === undefined) this.#protocol.eof()
    else this.#joined.end()
  }

  #drained(): void {
    this.#full = false
    if (this.#joined !== undefined) this.#driver.touch(this.#joined)
    else this.#protocol.drain()
  }

  #close(): true {
    this.#told = true
    this.#driver.gone(this)
    this.#incoming.length = 0
    this.#incomingBytes = 0
    if (this.#other !== undefined) this.#driver.touch(this.#other)
    this.#protocol.closed(this.#why!)
    if (this.#joined !== undefined && this.#why !== '') this.#joined.fail('aborted')
    this.#joined = undefined
    return true
  }
}

/** The first `n` bytes of a queue, taken out of it. */
function takeFrom(queue: Buffer[], n: number): Buffer[] {
  const out: Buffer[] = []
  let done = 0
  let left = n
  while (left > 0) {
    const first = queue[done]!
    if (first.length <= left) {
      out.push(first)
      done++
    } else {
      out.push(first.subarray(0, left))
      queue[done] = first.subarray(left)
    }
    left -= Math.min(left, first.length)
  }
  queue.splice(0, done)
  return out
}

interface Datagram {
  readonly bytes: Buffer
  readonly peer: Address
  readonly local: Address
}

class MemoryBound implements Bound, Actor {
  readonly address: Address
  dropped = 0
  waits = false
  readonly #driver: MemoryDriver
  readonly #received: (batch: Batch, bound: Bound) => void
  readonly #most: number
  readonly #how: BindOptions
  readonly #gone: () => void
  readonly #queue: Datagram[] = []
  #bytes = 0
  #closed = false
  #refused = false

  constructor(driver: MemoryDriver, address: Address, received: (batch: Batch, bound: Bound) => void, how: BindOptions, gone: () => void) {
    this.#driver = driver
    this.address = address
    this.#received = received
    this.#most = how.bufferSize ?? 4 * 1024 * 1024
    this.#how = how
    this.#gone = gone
  }

  send(b: Buffer, from: number, to: number, peer: Address, local?: Address): boolean {
    if (this.#closed || to - from > 65_507 || peer.port === 0) return false
    const host = local?.host ?? (wildcard(this.address.host) === '' ? (peer.host.includes(':') ? '::1' : '127.0.0.1') : this.address.host)
    const target = this.#driver.boundAt(peer)
    target?.arrive({ bytes: Buffer.from(b.subarray(from, to)), peer: { host, port: this.address.port }, local: peer })
    if (target === undefined && this.#how.connect !== undefined) {
      this.#refused = true
      this.#driver.touch(this)
    }
    return true
  }

  arrive(datagram: Datagram): void {
    const only = this.#how.connect
    if (only !== undefined && (only.host !== datagram.peer.host || only.port !== datagram.peer.port)) return
    if (this.#bytes + datagram.bytes.length > this.#most) {
      this.dropped++
      return
    }
    this.#bytes += datagram.bytes.length + 1
    this.#queue.push(datagram)
    this.#driver.touch(this)
  }

  act(): boolean {
    if (this.#closed) return false
    if (this.#refused) {
      this.#refused = false
      this.#how.failed?.(new SocketError('send to', this.#how.connect!, 'ECONNREFUSED', ''))
      return true
    }
    if (this.#queue.length === 0) return false
    const batch = this.#queue.splice(0, 1 + Math.floor(this.#driver.random() * Math.min(64, this.#queue.length)))
    const starts: number[] = []
    let size = 0
    const room = this.#driver.options.room ?? 4096
    for (const { bytes } of batch) {
      starts.push(size)
      size += bytes.length + room
      this.#bytes -= bytes.length + 1
    }
    const lent = Buffer.alloc(size, 0xdb)
    batch.forEach(({ bytes }, i) => bytes.copy(lent, starts[i]!))
    this.#received(
      {
        count: batch.length,
        bytes: lent,
        start: (i) => starts[i]!,
        end: (i) => starts[i]! + batch[i]!.bytes.length,
        room: (i) => starts[i]! + batch[i]!.bytes.length + room,
        peer: (i) => batch[i]!.peer,
        local: (i) => batch[i]!.local,
        answer: (i, b, from, to) => void this.send(b, from, to, batch[i]!.peer, batch[i]!.local),
      },
      this,
    )
    lent.fill(0xdb)
    return true
  }

  close(): void {
    this.#closed = true
    this.#queue.length = 0
    this.#gone()
  }
}

/**
 * What a TLS handshake between the two would tell, without one: names, ALPN and certificates are compared, nothing is encrypted or verified.
 * A string is why it fails, as the client hears it.
 */
function shakeHands(client: ConnectOptions, server: TlsServer | undefined): { readonly client: TlsInfo | undefined; readonly server: TlsInfo | undefined } | string {
  if (server === undefined && client.tls === undefined) return { client: undefined, server: undefined }
  if (server === undefined) return 'tls: the server does not speak TLS'
  if (client.tls === undefined) return 'ECONNRESET: the server speaks TLS'
  const serverName = client.tls.serverName
  const identity = server.identity(serverName)
  if (identity === undefined) return 'tls: unrecognized name'
  if (identity.clientCertificate === 'require' && client.tls.identity === undefined) return 'tls: certificate required'
  const offered = client.tls.alpn ?? []
  const alpn = server.alpn?.find((p) => offered.includes(p))
  if (alpn === undefined && offered.length > 0 && (server.alpn?.length ?? 0) > 0) return 'tls: no application protocol'
  const common = { serverName, alpn, version: 'TLSv1.3' }
  return {
    client: { ...common, peerCertificate: Buffer.from(identity.cert) },
    server: { ...common, peerCertificate: identity.clientCa === undefined || client.tls.identity === undefined ? undefined : Buffer.from(client.tls.identity.cert) },
  }
}

function wildcard(host: string): string {
  return host === '0.0.0.0' || host === '::' ? '' : host
}
