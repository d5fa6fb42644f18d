import dgram from 'node:dgram'
import { networkInterfaces } from 'node:os'
import { SocketError } from '../errors.ts'
import type { Address, Batch, BindOptions, Bound, Descriptor } from '../seam.ts'

const defaultBuffer = 4 * 1024 * 1024
/** Milliseconds between looks at the machine's addresses, for sockets on all of them. */
const lookAgain = 5000

/** Binds a datagram socket on `node:dgram`; on a wildcard address one for every address of the machine. */
export async function bindDatagrams(at: Address | Descriptor, received: (batch: Batch, bound: Bound) => void, how: BindOptions, gone: (bound: Bound) => void): Promise<Bound> {
  if (how.transparent === true || how.originalDestination === true) throw new SocketError('bind', at, 'ENOTSUP')
  if (how.client !== true && how.connect === undefined && !('fd' in at) && (at.host === '' || at.host === '0.0.0.0' || at.host === '::')) return bindEverywhere(at, received, how, gone)
  const one = await open(at, how)
  const bound: Bound = {
    address: one.local,
    dropped: 0,
    send: (b, from, to, peer) => one.send(b, from, to, peer),
    close: () => {
      one.close()
      gone(bound)
    },
  }
  one.receive((batch) => received(batch, bound))
  return bound
}

/**
 * Node does not tell where a datagram was sent to, and an answer from a wildcard socket leaves from whatever address the route prefers: a client that
 * asked another one throws it away. So each address of the machine gets a socket of its own, and new addresses get one within seconds.
 */
async function bindEverywhere(at: Address, received: (batch: Batch, bound: Bound) => void, how: BindOptions, gone: (bound: Bound) => void): Promise<Bound> {
  const sockets = new Map<string, One>()
  let closed = false
  // Bound and closed again: finds a free port, and learns of a stranger on the same one.
  const probe = await open({ host: at.host === '' ? (hasIpv6() ? '::' : '0.0.0.0') : at.host, port: at.port }, how)
  const port = probe.local.port
  await probe.close()
  const bound: Bound = {
    address: { host: at.host, port },
    dropped: 0,
    send: (b, from, to, peer, local) => {
      const family = peer.host.includes(':')
      const one = (local === undefined ? undefined : sockets.get(local.host)) ?? sockets.get(family ? '::1' : '127.0.0.1')
      if (local !== undefined || isLoopback(peer.host)) return one?.send(b, from, to, peer) ?? false
      for (const [host, other] of sockets) if (!isLoopback(host) && host.includes(':') === family) return other.send(b, from, to, peer)
      return one?.send(b, from, to, peer) ?? false
    },
    close: () => {
      closed = true
      clearInterval(timer)
      for (const one of sockets.values()) one.close()
      sockets.clear()
      gone(bound)
    },
  }
  let looking: Promise<void> | undefined
  const look = async (): Promise<void> => {
    const now = new Set(addresses(at.host))
    for (const [host, one] of sockets) {
      if (now.has(host)) continue
      sockets.delete(host)
      one.close()
    }
    for (const host of now) {
      if (closed || sockets.has(host)) continue
      try {
        const one = await open({ host, port }, how)
        if (closed) return void one.close()
        sockets.set(host, one)
        one.receive((batch) => received(batch, bound))
      } catch (error) {
        // An address may be gone again, or still be tried by the kernel (duplicate address detection): the next look finds out.
        if ((error as SocketError).code === 'EADDRNOTAVAIL') continue
        if (looking === undefined) throw error
        how.failed?.(error as Error)
      }
    }
  }
  const timer = setInterval(() => {
    looking ??= look().finally(() => (looking = undefined))
  }, lookAgain).unref()
  try {
    await look()
  } catch (error) {
    bound.close()
    throw error
  }
  return bound
}

interface One {
  readonly local: Address
  receive(f: (batch: Batch) => void): void
  send(b: Buffer, from: number, to: number, peer: Address): boolean
  close(): Promise<void>
}

async function open(at: Address | Descriptor, how: BindOptions): Promise<One> {
  const peer = how.connect
  const six = peer === undefined ? !('fd' in at) && at.host.includes(':') : peer.host.includes(':')
  const size = how.bufferSize ?? defaultBuffer
  const socket = dgram.createSocket({
    type: six ? 'udp6' : 'udp4',
    ipv6Only: !('fd' in at) && at.host === '::' && (how.ipv6Only ?? false),
    ...(how.reusePort === true ? { reusePort: true } : {}),
    // Every address here is a literal; asking the resolver would cost a thread and a turn a datagram.
    lookup: (host, _options, done) => done(null, host, host.includes(':') ? 6 : 4),
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('error', (error: NodeJS.ErrnoException) => reject(new SocketError('bind', at, error.code ?? error.message)))
    if ('fd' in at) socket.bind({ fd: at.fd }, resolve)
    else socket.bind({ port: at.port, exclusive: true, ...(at.host === '' ? {} : { address: at.host }) }, resolve)
  }).catch((error: unknown) => {
    socket.close()
    throw error
  })
  if (peer !== undefined) {
    await new Promise<void>((resolve, reject) => {
      // Node tells a failure by the callback, whatever its types say.
      socket.connect(peer.port, peer.host, ((error?: NodeJS.ErrnoException) => (error ? reject(new SocketError('connect to', peer, error.code ?? error.message)) : resolve())) as () => void)
    }).catch((error: unknown) => {
      socket.close()
      throw error
    })
  }
  socket.removeAllListeners('error')
  socket.on('error', (error) => how.failed?.(error))
  try {
    socket.setRecvBufferSize(size)
    socket.setSendBufferSize(size)
  } catch {
    // The kernel's limit holds then.
  }
  const where = socket.address()
  const local: Address = { host: where.address, port: where.port }
  let closed: Promise<void> | undefined
  const send = (b: Buffer, from: number, to: number, target: Address): boolean => {
    if (closed !== undefined || to - from > 65_507 || target.port === 0 || socket.getSendQueueSize() > size) return false
    try {
      // The socket keeps what it could not send at once, so the bytes are copied. What cannot be sent is lost, as datagrams are.
      const copy = Buffer.from(b.subarray(from, to))
      if (peer === undefined) socket.send(copy, target.port, target.host, ignore)
      else socket.send(copy, (error) => (error === null ? undefined : how.failed?.(error)))
      return true
    } catch {
      return false
    }
  }
  return {
    local,
    send,
    receive: (f) => {
      const batch = new Single(local, send)
      socket.on('message', (message, from) => {
        batch.set(message, from)
        f(batch)
      })
    },
    close: () => (closed ??= new Promise((resolve) => void socket.close(() => resolve()))),
  }
}

/** A batch of one: Node hands datagrams over one by one. */
class Single implements Batch {
  readonly count = 1
  bytes: Buffer = Buffer.alloc(0)
  readonly #local: Address
  readonly #send: (b: Buffer, from: number, to: number, peer: Address) => boolean
  #peer: Address = { host: '', port: 0 }
  #length = 0

  constructor(local: Address, send: (b: Buffer, from: number, to: number, peer: Address) => boolean) {
    this.#local = local
    this.#send = send
  }

  set(message: Buffer, from: { readonly address: string; readonly port: number }): void {
    this.#peer = { host: from.address, port: from.port }
    this.#length = message.length
    // Protocols that answer in place want room behind the question.
    if (message.length <= 4096) {
      this.bytes = this.bytes.length === 8192 ? this.bytes : Buffer.allocUnsafe(8192)
      message.copy(this.bytes)
    } else this.bytes = message
  }

  start(): number {
    return 0
  }
  end(): number {
    return this.#length
  }
  room(): number {
    return this.bytes.length
  }
  peer(): Address {
    return this.#peer
  }
  local(): Address {
    return this.#local
  }
  answer(_i: number, b: Buffer, from: number, to: number): void {
    this.#send(b, from, to, this.#peer)
  }
}

function addresses(wanted: string): string[] {
  const out: string[] = []
  for (const list of Object.values(networkInterfaces())) {
    for (const a of list ?? []) {
      const six = a.family === 'IPv6'
      if ((six && wanted === '0.0.0.0') || (!six && wanted === '::') || (six && a.address.startsWith('fe80:'))) continue
      out.push(a.address)
    }
  }
  return out
}

function hasIpv6(): boolean {
  return addresses('::').length > 0
}

function isLoopback(host: string): boolean {
  return host === '::1' || host.startsWith('127.')
}

function ignore(): void {}
