import { SocketError } from '../../lib/sockets/errors.ts'
import type { Address, Batch, BindOptions, Bound, Descriptor } from '../../lib/sockets/seam.ts'
import * as k from '../ffi/constants.ts'
import { E, errnoName } from '../ffi/errno.ts'
import { Arena } from '../ffi/ffi.ts'
import { readSockaddr, writeSockaddr } from '../ffi/sockaddr.ts'
import type { Loop, Ready } from './loop.ts'

/** What a socket needs around it: a loop, or for one that no loop watches only calls and a little memory. */
export type Surroundings = Pick<Loop, 'sys' | 'arena' | 'nameAt' | 'optionAt' | 'forget' | 'later' | 'nextGeneration'>

const defaultBuffer = 4 * 1024 * 1024
/** Datagrams taken by one call. */
const batchSize = 64
/** Batches taken by one event, before others get their turn. */
const mostBatches = 4
/** A datagram's place: the longest one and room behind it; no power of two, or all of them fall into the same few cache sets. */
const stride = 65_536 + 4160
/** Answers up to this length are copied and sent together; longer ones go at once. */
const copied = 2048

// Offsets in the arena that the sockets of one loop share, between two events only.
const receiveAt = 0 // mmsghdr[batchSize]
const sendAt = receiveAt + batchSize * 64
const receiveVectorAt = sendAt + batchSize * 64 // iovec[batchSize]
const sendVectorAt = receiveVectorAt + batchSize * 16
const nameAt = sendVectorAt + batchSize * 16 // 32 octets each
const controlAt = nameAt + batchSize * 32 // 64 octets each
const outNameAt = controlAt + batchSize * 64
const outControlAt = outNameAt + batchSize * 32
const outAt = outControlAt + batchSize * 64 // copies of answers
const oneAt = outAt + batchSize * copied // one long datagram
const packetAt = (oneAt + 65_536 + 4095) & ~4095
const arenaSize = packetAt + batchSize * stride

interface Shared {
  readonly arena: Arena
  readonly b: Buffer
  readonly words: Int32Array
  /** The part that batches show: datagrams and the room behind them. */
  readonly bytes: Buffer
  readonly nameLow: Int32Array
  readonly controlLow: Int32Array
  readonly outLow: Int32Array
  /** Receive headers that the last batch used. */
  touched: number
}

const arenas = new WeakMap<Surroundings, Shared>()

/** Headers, vectors and buffers of a batch: all pointers are written once; afterwards only lengths and low halves change. */
function shared(loop: Surroundings): Shared {
  const known = arenas.get(loop)
  if (known !== undefined) return known
  const arena = new Arena(arenaSize)
  const b = arena.buffer
  const low = (at: number, size: number, each: number): Int32Array => Int32Array.from({ length: batchSize }, (_, i) => arena.pointer(at + i * each, at + i * each + size) | 0)
  for (let i = 0; i < batchSize; i++) {
    for (const [header, vector, name, control, bytes, length] of [
      [receiveAt, receiveVectorAt, nameAt, controlAt, packetAt + i * stride, 65_536],
      [sendAt, sendVectorAt, outNameAt, outControlAt, outAt + i * copied, 0],
    ] as const) {
      const h = header + i * 64
      arena.setPointer(h + k.msghdr.name, arena, name + i * 32, name + i * 32 + 28)
      b.writeUInt32LE(28, h + k.msghdr.namelen)
      arena.setPointer(h + k.msghdr.iov, arena, vector + i * 16, vector + i * 16 + 16)
      b.writeBigUInt64LE(1n, h + k.msghdr.iovlen)
      arena.setPointer(h + k.msghdr.control, arena, control + i * 64, control + i * 64 + 64)
      b.writeBigUInt64LE(64n, h + k.msghdr.controllen)
      arena.setPointer(vector + i * 16, arena, bytes, bytes + Math.max(length, 1))
      b.writeBigUInt64LE(BigInt(length), vector + i * 16 + 8)
    }
  }
  const made: Shared = {
    arena,
    b,
    words: new Int32Array(b.buffer, b.byteOffset, packetAt >> 2),
    bytes: b.subarray(packetAt, packetAt + batchSize * stride),
    nameLow: low(nameAt, 28, 32),
    controlLow: low(controlAt, 64, 64),
    outLow: low(outAt, copied, copied),
    touched: 0,
  }
  arenas.set(loop, made)
  return made
}

/** Binds a datagram socket in the loop. */
export function openDatagrams(loop: Loop, at: Address | Descriptor, received: (batch: Batch, bound: Bound) => void, how: BindOptions, gone: () => void): Bound {
  const socket = openSocket(loop, at, received, how, gone, k.SOCK_NONBLOCK)
  const r = loop.add(socket.fd, socket, k.EPOLLIN)
  if (r >= 0) return socket
  loop.sys.close(socket.fd)
  throw new SocketError('bind', at, errnoName(r))
}

/** A socket that somebody else reads, by calls that wait. */
export interface Apart extends Bound {
  readonly fd: number
  /** Of family AF_INET6. */
  readonly six: boolean
  /** Datagrams come with the address they were sent to. */
  readonly wildcard: boolean
}

/** Binds a datagram socket whose reads wait; no loop watches it. */
export function openApart(place: Surroundings, at: Address, how: BindOptions): Apart {
  return openSocket(
    place,
    at,
    () => {},
    how,
    () => {},
    0,
  )
}

function openSocket(loop: Surroundings, at: Address | Descriptor, received: (batch: Batch, bound: Bound) => void, how: BindOptions, gone: () => void, type: number): Datagrams {
  const { sys, arena, nameAt: name } = loop
  let fd: number
  const peer = how.connect
  let wildcard = false
  let family = 0
  const check = (r: number, tried = 'bind'): void => {
    if (r >= 0) return
    if (fd >= 0) sys.close(fd)
    throw new SocketError(tried, at, errnoName(r))
  }
  if ('fd' in at) {
    fd = at.fd
    const flags = sys.fcntl(fd, k.F_GETFL, 0)
    check(flags)
    sys.fcntl(fd, k.F_SETFL, flags | k.O_NONBLOCK)
  } else {
    const any = at.host === ''
    family = (any ? (peer === undefined ? true : peer.host.includes(':')) : at.host.includes(':')) ? k.AF_INET6 : k.AF_INET
    fd = sys.socket(family, k.SOCK_DGRAM | type, 0)
    if (fd === -E.EAFNOSUPPORT && any) fd = sys.socket((family = k.AF_INET), k.SOCK_DGRAM | type, 0)
    check(fd)
    if (family === k.AF_INET6) check(sys.setOption(fd, k.IPPROTO_IPV6, k.IPV6_V6ONLY, (any || at.host === '::') && peer === undefined ? Number(how.ipv6Only ?? false) : 1))
    if (how.reusePort === true) check(sys.setOption(fd, k.SOL_SOCKET, k.SO_REUSEPORT, 1))
    if (how.transparent === true) {
      if (family === k.AF_INET6) check(sys.setOption(fd, k.IPPROTO_IPV6, k.IPV6_TRANSPARENT, 1))
      check(sys.setOption(fd, k.IPPROTO_IP, k.IP_TRANSPARENT, 1))
    }
    wildcard = peer === undefined && how.client !== true && (any || at.host === '::' || at.host === '0.0.0.0')
  }
  const size = how.bufferSize ?? defaultBuffer
  for (const [force, plain] of [
    [k.SO_RCVBUFFORCE, k.SO_RCVBUF],
    [k.SO_SNDBUFFORCE, k.SO_SNDBUF],
  ] as const)
    if (sys.setOption(fd, k.SOL_SOCKET, force, size) < 0) sys.setOption(fd, k.SOL_SOCKET, plain, size)
  // On a dual socket IPv6's option alone tells both: IPv4 comes with a mapped address, and goes back by it.
  if (wildcard) check(family === k.AF_INET6 ? sys.setOption(fd, k.IPPROTO_IPV6, k.IPV6_RECVPKTINFO, 1) : sys.setOption(fd, k.IPPROTO_IP, k.IP_PKTINFO, 1))
  if (how.originalDestination === true) check(family === k.AF_INET6 ? sys.setOption(fd, k.IPPROTO_IPV6, k.IPV6_RECVORIGDSTADDR, 1) : sys.setOption(fd, k.IPPROTO_IP, k.IP_RECVORIGDSTADDR, 1))
  if (!('fd' in at)) {
    const length = writeSockaddr(arena.buffer, name, at.host === '' ? (family === k.AF_INET6 ? '::' : '0.0.0.0') : at.host, at.port)
    check(sys.bind(fd, arena, name, name + length))
  }
  if (peer !== undefined) {
    const length = writeSockaddr(arena.buffer, name, peer.host, peer.port)
    check(sys.connect(fd, arena, name, name + length), 'connect from')
  }
  check(sys.getsockname(fd, arena, name, name + 28))
  const local = readSockaddr(arena.buffer, name) ?? { host: '', port: 0 }
  if (family === 0) family = local.host.includes(':') ? k.AF_INET6 : k.AF_INET
  return new Datagrams(loop, fd, family, wildcard, !('fd' in at) && at.host === '' && peer === undefined ? { host: '', port: local.port } : local, received, how, gone)
}

class Datagrams implements Apart, Batch, Ready {
  readonly generation: number
  readonly address: Address
  readonly bytes: Buffer
  count = 0
  readonly #loop: Surroundings
  readonly #s: Shared
  readonly fd: number
  readonly six: boolean
  readonly wildcard: boolean
  readonly #control: boolean
  readonly #received: (batch: Batch, bound: Bound) => void
  readonly #how: BindOptions
  readonly #gone: () => void
  readonly #lengths = new Int32Array(batchSize)
  /** Places in the send headers that are filled. */
  #answers = 0
  #closed = false
  #lastDropped = 0

  constructor(loop: Surroundings, fd: number, family: number, wildcard: boolean, address: Address, received: (batch: Batch, bound: Bound) => void, how: BindOptions, gone: () => void) {
    this.#loop = loop
    this.generation = loop.nextGeneration()
    this.#s = shared(loop)
    this.fd = fd
    this.six = family === k.AF_INET6
    this.wildcard = wildcard
    this.#control = wildcard || how.originalDestination === true
    this.address = address
    this.bytes = this.#s.bytes
    this.#received = received
    this.#how = how
    this.#gone = gone
  }

  ready(events: number): void {
    const { words } = this.#s
    for (let i = 0; i < mostBatches && !this.#closed; i++) {
      // The kernel writes lengths into the headers, and other sockets use them too: those it touched last are put right.
      for (let j = this.#s.touched - 1; j >= 0; j--) {
        const h = (receiveAt + j * 64) >> 2
        words[h + 2] = 28
        words[h + 10] = 64
      }
      const n = this.#loop.sys.recvmmsg(this.fd, this.#s.arena, receiveAt, batchSize, k.MSG_DONTWAIT)
      if (n <= 0) {
        if (n === -E.EAGAIN && (events & k.EPOLLERR) === 0) return
        if (n !== -E.EAGAIN && n !== -E.EINTR) this.#tell(n)
        return
      }
      this.#s.touched = n
      let kept = 0
      for (let j = 0; j < n; j++) {
        this.#lengths[j] = words[(receiveAt + j * 64 + k.mmsghdr.len) >> 2]!
        // Source port 0 can be forged, and nobody can be answered there.
        if (this.#s.b.readUInt16BE(nameAt + j * 32 + 2) === 0 && this.#how.connect === undefined) this.#lengths[j] = -1
        else kept++
      }
      this.count = n
      if (kept < n) this.#squeeze()
      if (this.count > 0) {
        this.#received(this, this)
        this.#flush()
      }
      if (n < batchSize) return
    }
  }

  /** Puts a batch without those of port 0 together again; rare, so copying is fine. */
  #squeeze(): void {
    const { b } = this.#s
    let to = 0
    for (let i = 0; i < this.count; i++) {
      if (this.#lengths[i]! < 0) continue
      if (to !== i) {
        b.copy(b, nameAt + to * 32, nameAt + i * 32, nameAt + i * 32 + 32)
        b.copy(b, controlAt + to * 64, controlAt + i * 64, controlAt + i * 64 + 64)
        b.copy(b, receiveAt + to * 64 + k.msghdr.controllen, receiveAt + i * 64 + k.msghdr.controllen, receiveAt + i * 64 + k.msghdr.controllen + 8)
        this.bytes.copy(this.bytes, to * stride, i * stride, i * stride + this.#lengths[i]!)
        this.#lengths[to] = this.#lengths[i]!
      }
      to++
    }
    this.count = to
  }

  start(i: number): number {
    return i * stride
  }
  end(i: number): number {
    return i * stride + this.#lengths[i]!
  }
  room(i: number): number {
    return i * stride + stride
  }

  peer(i: number): Address {
    return readSockaddr(this.#s.b, nameAt + i * 32) ?? { host: '', port: 0 }
  }

  local(i: number): Address {
    if (!this.#control) return this.address
    const { b } = this.#s
    return sentTo(b, controlAt + i * 64, b.readUInt32LE(receiveAt + i * 64 + k.msghdr.controllen), this.address)
  }

  answer(i: number, bytes: Buffer, from: number, to: number): void {
    const length = to - from
    if (length > 65_507 || length < 0) return
    const { words, b, arena } = this.#s
    const own = bytes.buffer === arena.buffer.buffer
    if (length > copied && !own) {
      // Too long to be kept: what waits goes first, then this one alone.
      this.#flush()
      bytes.copy(b, oneAt, from, to)
      this.#place(i, arena.pointer(oneAt, oneAt + Math.max(length, 1)) | 0, length)
      this.#flush()
      return
    }
    let low: number
    if (own) {
      // In place: the datagram's own octets, lent until `received` returns.
      const at = bytes.byteOffset - arena.buffer.byteOffset + from
      low = arena.pointer(at, at + length) | 0
    } else {
      bytes.copy(b, outAt + this.#answers * copied, from, to)
      low = this.#s.outLow[this.#answers]!
    }
    void words
    this.#place(i, low, length)
    if (this.#answers === batchSize) this.#flush()
  }

  /** Fills the next send header: to the sender of datagram i, from where it was sent to. */
  #place(i: number, low: number, length: number): void {
    const { words, b, nameLow, controlLow } = this.#s
    const t = (sendAt + this.#answers * 64) >> 2
    const v = (sendVectorAt + this.#answers * 16) >> 2
    words[t] = nameLow[i]!
    words[t + 2] = this.six ? 28 : 16
    words[v] = low
    words[v + 2] = length
    if (this.#how.connect !== undefined) words[t + 2] = 0
    if (this.wildcard) {
      const c = controlAt + i * 64
      words[t + 8] = controlLow[i]!
      // Only the first message goes back, where it came to: the kernel refuses to send an original destination.
      words[t + 10] = Math.min(words[(receiveAt + i * 64 + k.msghdr.controllen) >> 2]!, this.six ? 40 : 32)
      // Routing decides the way out; only link-local addresses need their device.
      if (!this.six) words[(c + k.cmsghdr.data) >> 2] = 0
      else if (b[c + k.cmsghdr.data] !== 0xfe) words[(c + k.cmsghdr.data + k.in6Pktinfo.ifindex) >> 2] = 0
    } else words[t + 10] = 0
    this.#answers++
  }

  #flush(): void {
    const all = this.#answers
    this.#answers = 0
    for (let done = 0; done < all;) {
      const n = this.#loop.sys.sendmmsg(this.fd, this.#s.arena, sendAt + done * 64, all - done, k.MSG_DONTWAIT)
      if (n > 0) done += n
      // That one cannot go; those behind it can.
      else if (n !== -E.EINTR) done++
    }
  }

  send(bytes: Buffer, from: number, to: number, peer: Address, local?: Address): boolean {
    const length = to - from
    if (this.#closed || length > 65_507 || length < 0 || peer.port === 0) return false
    const { b, arena, words } = this.#s
    const sys = this.#loop.sys
    bytes.copy(b, oneAt, from, to)
    const name = this.#loop.nameAt
    if (this.#how.connect !== undefined) {
      for (let tries = 0; tries < 2; tries++) {
        const n = sys.send(this.fd, arena, oneAt, oneAt + length, k.MSG_DONTWAIT)
        if (n >= 0) return true
        // The answer to an earlier datagram; this one has not been tried yet.
        if (n !== -E.ECONNREFUSED && n !== -E.EHOSTUNREACH) return false
        this.#tell(n)
      }
      return false
    }
    if (peer.host.includes(':') && !this.six) return false
    if (local === undefined || !this.wildcard) {
      const size = writeSockaddr(this.#loop.arena.buffer, name, peer.host, peer.port, this.six)
      this.#loop.arena.buffer.copy(b, outNameAt, name, name + size)
      return sys.sendto(this.fd, arena, oneAt, oneAt + length, k.MSG_DONTWAIT, outNameAt, size) >= 0
    }
    // From a given address: a control message of our own. What waits to be answered has its own headers; those are flushed first.
    this.#flush()
    const t = sendAt >> 2
    const size = writeSockaddr(b, outNameAt, peer.host, peer.port, this.six)
    words[t] = arena.pointer(outNameAt, outNameAt + 28) | 0
    words[t + 2] = size
    words[sendVectorAt >> 2] = arena.pointer(oneAt, oneAt + Math.max(length, 1)) | 0
    words[(sendVectorAt >> 2) + 2] = length
    words[t + 8] = arena.pointer(outControlAt, outControlAt + 64) | 0
    b.fill(0, outControlAt, outControlAt + 64)
    const scratch = outControlAt + 64
    writeSockaddr(b, scratch, local.host, 0, this.six)
    if (this.six) {
      b.writeUInt32LE(36, outControlAt)
      b.writeInt32LE(k.IPPROTO_IPV6, outControlAt + 8)
      b.writeInt32LE(k.IPV6_PKTINFO, outControlAt + 12)
      b.copy(b, outControlAt + 16, scratch + 8, scratch + 24)
      words[t + 10] = 40
    } else {
      b.writeUInt32LE(28, outControlAt)
      b.writeInt32LE(k.IPPROTO_IP, outControlAt + 8)
      b.writeInt32LE(k.IP_PKTINFO, outControlAt + 12)
      b.copy(b, outControlAt + 16 + k.inPktinfo.source, scratch + 4, scratch + 8)
      words[t + 10] = 32
    }
    return sys.sendmmsg(this.fd, arena, sendAt, 1, k.MSG_DONTWAIT) === 1
  }

  get dropped(): number {
    if (this.#closed) return this.#lastDropped
    const { sys, arena, optionAt } = this.#loop
    if (sys.getsockopt(this.fd, k.SOL_SOCKET, k.SO_MEMINFO, arena, optionAt, optionAt + 36) >= 36) this.#lastDropped = arena.buffer.readUInt32LE(optionAt + 32)
    return this.#lastDropped
  }

  #tell(errno: number): void {
    if (this.#how.failed === undefined) return
    this.#loop.later(() => {
      if (!this.#closed) this.#how.failed?.(new SocketError(this.#how.connect === undefined ? 'read from' : 'send to', this.#how.connect ?? this.address, errnoName(errno)))
    })
  }

  close(): void {
    if (this.#closed) return
    void this.dropped
    this.#closed = true
    this.#loop.forget(this.fd)
    this.#loop.sys.close(this.fd)
    this.#gone()
  }
}

/** Where a datagram was sent to, by its control messages [at, at + length) of `b`; `bound`: what the socket is bound to. */
export function sentTo(b: Buffer, controls: number, length: number, bound: Address): Address {
  let { host } = bound
  for (let at = 0; at + k.cmsghdr.size <= length;) {
    const c = controls + at
    const size = b.readUInt32LE(c)
    if (size < k.cmsghdr.size) break
    const level = b.readInt32LE(c + k.cmsghdr.level)
    const type = b.readInt32LE(c + k.cmsghdr.type)
    if ((level === k.IPPROTO_IP && type === k.IP_RECVORIGDSTADDR) || (level === k.IPPROTO_IPV6 && type === k.IPV6_RECVORIGDSTADDR)) return readSockaddr(b, c + k.cmsghdr.data) ?? bound
    if (level === k.IPPROTO_IP && type === k.IP_PKTINFO) host = hostAt(b, c + k.cmsghdr.data + k.inPktinfo.address, 4)
    if (level === k.IPPROTO_IPV6 && type === k.IPV6_PKTINFO) host = hostAt(b, c + k.cmsghdr.data, 16)
    at += (size + 7) & ~7
  }
  return { host, port: bound.port }
}

function hostAt(b: Buffer, at: number, size: 4 | 16): string {
  // By way of a sockaddr, which knows mapped addresses.
  const name = Buffer.alloc(28)
  name.writeUInt16LE(size === 4 ? k.AF_INET : k.AF_INET6)
  b.copy(name, size === 4 ? 4 : 8, at, at + size)
  return readSockaddr(name, 0)!.host
}
