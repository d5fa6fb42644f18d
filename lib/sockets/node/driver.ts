import { writeSync } from 'node:fs'
import net from 'node:net'
import { performance } from 'node:perf_hooks'
import tls from 'node:tls'
import { SocketError } from '../errors.ts'
import type { Address, BindOptions, Bound, ConnectOptions, Descriptor, Driver, Listening, ListenOptions, Protocol, TlsInfo, Wire } from '../seam.ts'
import { bindDatagrams } from './datagrams.ts'
import { acceptTls, clientOptions, tlsInfo } from './tls.ts'

/** The driver on `node:net`, `node:tls` and `node:dgram`: works wherever Node does. */
export function openNode(): Driver {
  return new NodeDriver()
}

const defaultHighWater = 256 * 1024

class NodeDriver implements Driver {
  readonly name = 'node'
  readonly tlsBy = 'node:tls'
  readonly #servers = new Set<net.Server>()
  readonly #wires = new Set<NodeWire>()
  readonly #bound = new Set<Bound>()
  readonly #timers = new Set<NodeJS.Timeout>()

  get now(): number {
    return performance.now()
  }

  arena(size: number): Buffer {
    return Buffer.alloc(size)
  }

  async listen(at: Address | Descriptor, accept: () => Protocol, how: ListenOptions = {}): Promise<Listening> {
    if (how.transparent === true || how.originalDestination === true || how.peek !== undefined || how.transport === 'sctp') throw new SocketError('listen on', at, 'ENOTSUP')
    const highWater = how.highWater ?? defaultHighWater
    const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      // Errors of a connection that nobody serves yet are its own affair.
      socket.on('error', ignore)
      if (how.tls === undefined) return this.#serve(socket, accept, highWater, undefined)
      acceptTls(socket, how.tls, (secure) => this.#serve(secure, accept, highWater, tlsInfo(secure)))
    })
    this.#servers.add(server)
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => {
        this.#servers.delete(server)
        reject(new SocketError('listen on', at, error.code ?? error.message))
      })
      const more = { backlog: how.backlog ?? 4096, reusePort: how.reusePort ?? false, exclusive: true }
      if ('fd' in at) server.listen({ ...more, fd: at.fd }, resolve)
      else server.listen({ ...more, port: at.port, ...(at.host === '' ? {} : { host: at.host }), ipv6Only: how.ipv6Only ?? false }, resolve)
    })
    server.removeAllListeners('error')
    server.on('error', (error) => how.failed?.(error))
    const address = server.address()
    const close = (): void => {
      this.#servers.delete(server)
      server.close()
    }
    // Connections that the kernel has accepted and we have not are reset by closing; the epoll driver does better.
    return { port: typeof address === 'object' && address !== null ? address.port : 0, drain: close, close }
  }

  #serve(socket: net.Socket, accept: () => Protocol, highWater: number, info: TlsInfo | undefined): void {
    const protocol = accept()
    const wire = new NodeWire(socket, protocol, highWater, this.#wires, unmap(socket.remoteAddress ?? ''), socket.remotePort ?? 0)
    wire.tls = info
    wire.established()
  }

  connect(at: Address, p: Protocol, how: ConnectOptions = {}): Wire {
    const from = how.from === undefined ? {} : { ...(how.from.host === '' ? {} : { localAddress: how.from.host }), ...(how.from.port === 0 ? {} : { localPort: how.from.port }) }
    const target = { host: at.host, port: at.port, ...from, allowHalfOpen: true, noDelay: true, autoSelectFamily: false }
    let socket: net.Socket
    let failed: string | undefined
    try {
      if (how.transparent === true) throw new SocketError('connect transparently to', at, 'ENOTSUP')
      if (how.transport === 'sctp') throw new SocketError('connect by SCTP to', at, 'ENOTSUP')
      if (how.tls === undefined) socket = net.connect(target)
      else {
        // The raw socket is made here: tls.connect would not pass localAddress and noDelay on.
        const raw = net.connect(target)
        raw.on('error', (error) => socket.destroy(error))
        socket = tls.connect({ ...clientOptions(how.tls, at.host), socket: raw })
        socket.once('close', () => raw.destroy())
      }
    } catch (error) {
      socket = new net.Socket()
      failed = error instanceof Error ? error.message : String(error)
    }
    const wire = new NodeWire(socket, p, how.highWater ?? defaultHighWater, this.#wires, at.host, at.port)
    if (failed !== undefined) wire.fail(failed)
    const ms = how.timeout ?? 10_000
    const timer = setTimeout(() => wire.fail(`timeout: no connection to ${at.host}:${at.port} within ${ms} ms`), ms)
    socket.once('close', () => clearTimeout(timer))
    socket.once(how.tls === undefined ? 'connect' : 'secureConnect', () => {
      clearTimeout(timer)
      if (!wire.alive) return
      if (how.tls !== undefined) wire.tls = tlsInfo(socket as tls.TLSSocket)
      wire.established()
    })
    return wire
  }

  async bind(at: Address | Descriptor, received: Parameters<Driver['bind']>[1], how: BindOptions = {}): Promise<Bound> {
    const bound = await bindDatagrams(at, received, how, (gone) => this.#bound.delete(gone))
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

  counts(): Readonly<Record<string, number>> {
    return { connections: this.#wires.size, listeners: this.#servers.size }
  }

  splice(a: Wire, b: Wire): boolean {
    if (!(a instanceof NodeWire) || !(b instanceof NodeWire) || !a.alive || !b.alive) return false
    a.joinTo(b)
    b.joinTo(a)
    return true
  }

  detach(): undefined {
    return undefined
  }

  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer)
    this.#timers.clear()
    for (const bound of this.#bound) bound.close()
    const ended = [...this.#servers].map((server) => new Promise<void>((resolve) => void server.close(() => resolve())))
    this.#servers.clear()
    const left = [...this.#wires].map((wire) => wire.gone())
    for (const wire of this.#wires) wire.abort()
    await Promise.all([...ended, ...left])
  }
}

const nowhere: Address = { host: '', port: 0 }

class NodeWire implements Wire {
  readonly peer: string
  readonly peerPort: number
  tls: TlsInfo | undefined
  readonly #socket: net.Socket
  readonly #protocol: Protocol
  readonly #highWater: number
  readonly #all: Set<NodeWire>
  #local: Address | undefined
  #open = false
  #dead = false
  #why = ''
  #ended = false
  #told = false
  #full = false
  #corked = false
  #waits = false
  #joined: NodeWire | undefined

  constructor(socket: net.Socket, protocol: Protocol, highWater: number, all: Set<NodeWire>, peer: string, peerPort: number) {
    this.#socket = socket
    this.#protocol = protocol
    this.#highWater = highWater
    this.#all = all
    this.peer = peer
    this.peerPort = peerPort
    all.add(this)
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (this.#why === '') this.#why = explain(error)
      this.#dead = true
      // An alert of the other side is an error that Node goes on after.
      socket.destroy()
    })
    socket.on('close', () => this.#closed())
  }

  /** From here on the protocol hears of it. */
  established(): void {
    const socket = this.#socket
    this.#open = true
    this.#protocol.opened(this)
    socket.on('end', () => this.#eof())
    socket.on('data', (chunk: Buffer) => this.#data(chunk))
    if (this.#waits) socket.pause()
  }

  get local(): Address {
    if (this.#local !== undefined) return this.#local
    const host = this.#socket.localAddress
    if (host === undefined) return nowhere
    return (this.#local = { host: unmap(host), port: this.#socket.localPort ?? 0 })
  }

  get alive(): boolean {
    return !this.#dead && !this.#socket.destroyed
  }

  write(b: Buffer, from: number, to: number, more = false): boolean {
    if (!this.alive || this.#ended) return false
    const socket = this.#socket
    if (more && !this.#corked) {
      this.#corked = true
      socket.cork()
      process.nextTick(() => this.#uncork())
    }
    // Streams keep what they are given, and the caller may use the bytes again: they are copied.
    const copy = Buffer.from(b.subarray(from, to))
    if (socket.writableLength + copy.length <= this.#highWater) {
      socket.write(copy)
      if (!more) this.#uncork()
      return true
    }
    socket.write(copy, this.#flushed)
    if (!more) this.#uncork()
    if (socket.writableLength <= this.#highWater) return true
    this.#full = true
    return false
  }

  readonly #flushed = (): void => {
    if (!this.#full || this.#told || !this.alive || this.#socket.writableLength > this.#highWater / 2) return
    this.#full = false
    this.#protocol.drain()
  }

  #uncork(): void {
    if (!this.#corked) return
    this.#corked = false
    this.#socket.uncork()
  }

  pause(): void {
    this.#waits = true
    if (this.#open) this.#socket.pause()
  }

  resume(): void {
    this.#waits = false
    if (this.#open) this.#socket.resume()
  }

  end(): void {
    if (this.#ended || !this.alive) return
    this.#ended = true
    this.#uncork()
    this.#socket.end()
  }

  abort(): void {
    this.fail('aborted')
  }

  /** Ends it now, for this reason. */
  fail(why: string): void {
    if (this.#dead) return
    this.#dead = true
    if (this.#why === '') this.#why = why
    const socket = this.#socket
    // TLS sockets and those without a connection cannot be reset; to the other side of a handshake an end without close_notify is as good.
    // After an end libuv refuses to reset (EINVAL), and Node would leave the descriptor open.
    if (this.#ended || socket instanceof tls.TLSSocket || socket.connecting || socket.pending) socket.destroy()
    else socket.resetAndDestroy()
  }

  /** Resolves when `closed` was told. */
  gone(): Promise<void> {
    return new Promise((resolve) => (this.#told ? resolve() : this.#socket.once('close', () => resolve())))
  }

  /** What comes from now on goes to `other`, without the protocol. */
  joinTo(other: NodeWire): void {
    this.#joined = other
    // Whatever was paused for the protocol's sake flows again.
    this.#waits = false
    if (this.#open) this.#socket.resume()
    this.#socket.on('drain', () => other.#socket.resume())
  }

  #data(chunk: Buffer): void {
    if (this.#dead) return
    const joined = this.#joined
    if (joined === undefined) return this.#protocol.data(chunk, 0, chunk.length)
    // The chunk is ours alone: nobody else holds it, so it needs no copy.
    if (joined.alive && !joined.#ended && !joined.#socket.write(chunk)) this.#socket.pause()
  }

  #eof(): void {
    if (this.#dead) return
    if (this.#joined === undefined) this.#protocol.eof()
    else this.#joined.end()
  }

  #closed(): void {
    if (this.#told) return
    this.#told = true
    this.#dead = true
    this.#all.delete(this)
    // A reset that Node saw as an orderly close of a half still open is told apart by who ended.
    this.#protocol.closed(this.#why)
    if (this.#joined !== undefined && this.#why !== '') this.#joined.fail('aborted')
    this.#joined = undefined
  }
}

/** Why a connection ended: the system's name first, so that it can be matched; what TLS refused begins with `tls`. */
function explain(error: NodeJS.ErrnoException): string {
  const code = error.code ?? ''
  if (/^(ERR_SSL|ERR_TLS|ERR_OSSL|CERT_|DEPTH_|SELF_SIGNED|UNABLE_TO)/.test(code) || (code === 'ECONNRESET' && error.message.includes('TLS'))) return `tls: ${code} ${error.message}`
  return code === '' ? error.message : `${code}: ${error.message}`
}

function unmap(host: string): string {
  return host.startsWith('::ffff:') && host.includes('.') ? host.slice(7) : host
}

function ignore(): void {}
