import { addressText } from '../../lib/sockets/errors.ts'
import type { Address, ListenOptions, Protocol, TlsInfo, Wire } from '../../lib/sockets/seam.ts'
import {
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  EPOLLPRI,
  EPOLLRDHUP,
  F_SETPIPE_SZ,
  IPPROTO_TCP,
  MSG_MORE,
  MSG_PEEK,
  O_NONBLOCK,
  SHUT_WR,
  SO_ERROR,
  SO_KEEPALIVE,
  SO_LINGER,
  SOL_SOCKET,
  SPLICE_F_MOVE,
  SPLICE_F_NONBLOCK,
  TCP_KEEPIDLE,
  TCP_NODELAY,
} from '../ffi/constants.ts'
import { E, errnoName } from '../ffi/errno.ts'
import { Arena } from '../ffi/ffi.ts'
import { readSockaddr } from '../ffi/sockaddr.ts'
import { copySize, receiveSize, type Loop, type Ready } from './loop.ts'
import { bothWays, incoming } from './share.ts'

/** A read of this much makes a spliced direction go through a pipe; one below it, back to copying. */
const bulk = 16 * 1024
/** Octets moved at once through a pipe, and the pipe's size. */
const pipeMove = 256 * 1024
const pipeSize = 1024 * 1024
/** Moves one readable event may cause, before others get their turn. */
const mostMoves = 16
const idlePipes = 64

/** A pipe: its ends. */
interface Pipe {
  readonly r: number
  readonly w: number
}

/** Pipes that hold no byte, ready to be used again. */
export class Pipes {
  readonly #loop: Loop
  readonly #idle: Pipe[] = []
  /** Pipes open at this moment, idle ones too. */
  open = 0

  constructor(loop: Loop) {
    this.#loop = loop
  }

  take(): Pipe | undefined {
    const idle = this.#idle.pop()
    if (idle !== undefined) return idle
    const ends = this.#loop.sys.pipe(O_NONBLOCK)
    if (typeof ends === 'number') return undefined
    // Refused above pipe-user-pages-soft; then it keeps its 64 KiB.
    this.#loop.sys.fcntl(ends[1], F_SETPIPE_SZ, pipeSize)
    for (const fd of ends) this.#loop.share?.own(this.#loop.index, fd)
    this.open++
    return { r: ends[0], w: ends[1] }
  }

  /** `empty`: no byte is left in it. */
  give(pipe: Pipe, empty: boolean): void {
    if (empty && this.#idle.length < idlePipes) this.#idle.push(pipe)
    else this.#close(pipe)
  }

  close(): void {
    for (const pipe of this.#idle.splice(0)) this.#close(pipe)
  }

  #close(pipe: Pipe): void {
    this.open--
    for (const fd of [pipe.r, pipe.w]) {
      this.#loop.share?.disown(this.#loop.index, fd)
      this.#loop.sys.close(fd)
    }
  }
}

/** What streams of one driver share. */
export interface Streams {
  readonly loop: Loop
  readonly pipes: Pipes
  readonly all: Set<Stream>
}

/** Seconds of quiet after which the kernel asks whether the other side is still there. */
export const keepAliveIdle = 120
/** Octets of one SCTP message that we send; longer writes become several. */
const longestMessage = 32 * 1024
/** Reads one event may cause, before others get their turn. */
const mostReads = 4
/** A first write of this much goes into one segment anywhere, so Nagle's algorithm does not hold it back. */
const oneSegment = 500

const nowhere: Address = { host: '', port: 0 }

/** One TCP connection: the wire that its protocol sees, over a descriptor. */
export class Stream implements Wire, Ready {
  readonly generation: number
  readonly peer: string
  readonly peerPort: number
  tls: TlsInfo | undefined
  fd: number
  protocol: Protocol
  /** Set until the connection is made, or its first bytes were looked at: when the wait for that ends. */
  deadline = 0
  /** SCTP: a read brings one message, so a short one proves nothing; a write is one message, as long as it fits. */
  messages = false
  /** Counts among its worker's connections. */
  counted = false
  readonly #s: Streams
  readonly #loop: Loop
  readonly #highWater: number
  #local: Address | undefined
  #connecting = false
  #peek: (() => void) | undefined
  #dead = false
  #paused = false
  #full = false
  #ended = false
  #finSent = false
  #eof = false
  /** What epoll is asked for. */
  #mask: number = incoming
  #inSet = false
  /** There may be bytes, or an end, to be read; a short read says that it was all, unless there is an end or an urgent mark behind it. */
  #readable = false
  #toTheEnd = false
  /** The kernel asks whether the other side is still there (accepted connections inherit that from their listener). */
  #keptAlive = true
  /** Small segments are still held back (an outgoing connection before its second write). */
  #nagle = false
  #sent = false
  #queue: Buffer[] | undefined
  #queued = 0
  /** The other connection of a spliced pair, and the bytes from here that are on their way to it. */
  #joined: Stream | undefined
  #bulk = false
  #pipe: Pipe | undefined
  #inPipe = 0

  constructor(s: Streams, fd: number, protocol: Protocol, peer: string, peerPort: number, highWater: number, generation = s.loop.nextGeneration(fd)) {
    this.#s = s
    this.#loop = s.loop
    this.generation = generation
    this.fd = fd
    this.protocol = protocol
    this.peer = peer
    this.peerPort = peerPort
    this.#highWater = highWater
    s.all.add(this)
  }

  /** Takes its place in the loop: an accepted connection. */
  accepted(): void {
    this.protocol.opened(this)
    if (!this.#dead) this.#enter()
  }

  /** A connection that another thread accepted and put into our set. */
  handed(events: number): void {
    this.#adopted()
    this.protocol.opened(this)
    if (!this.#dead) this.ready(events)
  }

  /** A connection under way; `deadline` says until when. */
  connecting(deadline: number): void {
    this.#connecting = true
    // An SCTP socket has no such option; messages that are complete go out.
    this.#nagle = !this.messages
    this.#keptAlive = false
    this.deadline = deadline
    this.#mask = bothWays
    this.#enter()
  }

  #enter(): void {
    this.#inSet = true
    const r = this.#loop.add(this.fd, this, this.#mask)
    if (r < 0) this.die(`${errnoName(r)}: epoll_ctl`)
  }

  #adopted(): void {
    this.#inSet = true
    this.#mask = bothWays
    this.#loop.adopt(this.fd, this)
  }

  /** Looks at the first bytes without taking them, until `look` says what to do. */
  peek(look: NonNullable<ListenOptions['peek']>, accept: () => Protocol, handed: number | undefined): void {
    this.#peek = () => {
      const { sys, arena, receivedAt, received } = this.#loop
      const n = sys.recv(this.fd, arena, receivedAt, receivedAt + receiveSize, MSG_PEEK)
      if (n <= 0) {
        if (n !== -E.EAGAIN && n !== -E.EINTR) this.die(n === 0 ? '' : `${errnoName(n)}: peek`)
        return
      }
      const said = look(received.subarray(0, n), this)
      if (said === 'more' || this.#dead) return
      this.#peek = undefined
      this.deadline = 0
      if (said === 'detached') return
      this.protocol = accept()
      this.protocol.opened(this)
      if (!this.#dead) this.ready(EPOLLIN)
    }
    if (handed === undefined) return this.#enter()
    this.#adopted()
    this.ready(handed)
  }

  get alive(): boolean {
    return !this.#dead
  }

  get local(): Address {
    if (this.#local !== undefined) return this.#local
    if (this.fd < 0 || this.#connecting) return nowhere
    const { sys, arena, nameAt } = this.#loop
    if (sys.getsockname(this.fd, arena, nameAt, nameAt + 28) < 0) return nowhere
    return (this.#local = readSockaddr(arena.buffer, nameAt) ?? nowhere)
  }

  set local(at: Address) {
    this.#local = at
  }

  write(b: Buffer, from: number, to: number, more = false): boolean {
    if (this.#dead || this.#ended) return false
    if (from < 0 || to > b.length || from > to) throw new RangeError(`write of [${from}, ${to}) from a buffer of ${b.length} octets`)
    let at = from
    if (this.#queued === 0 && !this.#connecting) at = this.#send(b, from, to, more)
    if (this.#dead) return false
    if (at === to) return true
    ;(this.#queue ??= []).push(Buffer.from(b.subarray(at, to)))
    this.#queued += to - at
    this.#wantsOut()
    if (this.#queued <= this.#highWater) return true
    this.#full = true
    return false
  }

  /** To be told when one can send again. */
  #wantsOut(): void {
    if ((this.#mask & EPOLLOUT) !== 0) return
    this.#mask = bothWays
    if (this.#inSet) this.#loop.change(this.fd, this, bothWays)
  }

  /** Called now and then: only connections that live long are asked about, the short ones are spared the call. */
  keepAlive(): void {
    if (this.#keptAlive || this.#connecting || this.messages) return
    this.#keptAlive = true
    this.#loop.sys.setOption(this.fd, SOL_SOCKET, SO_KEEPALIVE, 1)
    this.#loop.sys.setOption(this.fd, IPPROTO_TCP, TCP_KEEPIDLE, keepAliveIdle)
  }

  /** From the second write on, small segments go out at once; connections with one write are spared the call. */
  #noDelay(): void {
    this.#nagle = false
    this.#loop.sys.setOption(this.fd, IPPROTO_TCP, TCP_NODELAY, 1)
  }

  /** Sends what the kernel takes of b[from, to); gives how far it came. */
  #send(b: Buffer, from: number, to: number, more: boolean): number {
    const { sys, copyAt } = this.#loop
    if (this.#nagle && (this.#sent || to - from > oneSegment)) this.#noDelay()
    this.#sent = true
    let arena = this.#loop.arena
    // Bytes in an arena are sent from where they lie, others from a copy.
    let inArena = b.buffer === arena.buffer.buffer
    if (!inArena) {
      const other = Arena.of(b)
      if (other !== undefined) {
        arena = other
        inArena = true
      }
    }
    const base = inArena ? b.byteOffset - arena.buffer.byteOffset : 0
    while (from < to) {
      const size = Math.min(to - from, this.messages ? longestMessage : copySize)
      const start = inArena ? base + from : copyAt
      if (!inArena) b.copy(arena.buffer, copyAt, from, from + size)
      const n = sys.send(this.fd, arena, start, start + size, !this.messages && (more || from + size < to) ? MSG_MORE : 0)
      if (n < 0) {
        if (n === -E.EAGAIN) return from
        if (n === -E.EINTR) continue
        this.die(`${errnoName(n)}: send to ${addressText({ host: this.peer, port: this.peerPort })}`)
        return from
      }
      from += n
      if (n < size) return from
    }
    return from
  }

  pause(): void {
    this.#paused = true
  }

  resume(): void {
    if (!this.#paused) return
    this.#paused = false
    this.#goOn()
  }

  /** Takes up reading where it was left, when nobody's call is under way. */
  #goOn(): void {
    if (this.#readable && !this.#dead && !this.#eof && !this.#connecting) this.#loop.again(this)
  }

  end(): void {
    if (this.#ended || this.#dead) return
    this.#ended = true
    this.#finish()
  }

  abort(): void {
    this.die('aborted')
  }

  /** Sends the FIN if its time has come, and ends the connection when both have ended. */
  #finish(): void {
    if (this.#dead || this.#connecting) return
    if (!this.#ended || this.#queued > 0) return
    // Closing sends the FIN as well. SCTP has no half-close, and does not tell the one who ends that all is over.
    if (this.#eof || this.messages) return this.die('')
    if (this.#finSent) return
    this.#finSent = true
    this.#loop.sys.shutdown(this.fd, SHUT_WR)
  }

  /** Ends it now. With a reason the other side gets a reset. The protocol is told later. */
  die(why: string): void {
    if (this.#dead) return
    this.#dead = true
    const { sys, arena, optionAt } = this.#loop
    this.#loop.forget(this.fd)
    if (why !== '') {
      arena.buffer.writeInt32LE(1, optionAt)
      arena.buffer.writeInt32LE(0, optionAt + 4)
      sys.setsockopt(this.fd, SOL_SOCKET, SO_LINGER, arena, optionAt, optionAt + 8)
    }
    this.#retire()
    sys.close(this.fd)
    this.fd = -1
    this.#queue = undefined
    this.#queued = 0
    if (this.#pipe !== undefined) {
      this.#s.pipes.give(this.#pipe, this.#inPipe === 0)
      this.#pipe = undefined
    }
    this.#s.all.delete(this)
    this.#loop.later(() => {
      const joined = this.#joined
      this.protocol.closed(why)
      this.#joined = undefined
      if (joined !== undefined && why !== '') joined.die('aborted')
      else if (this.messages) joined?.end()
    })
  }

  /** Lets go of the descriptor without closing it. */
  release(): number {
    const fd = this.fd
    this.#loop.out(fd)
    this.#loop.forget(fd)
    this.#dead = true
    this.#retire()
    this.fd = -1
    this.#s.all.delete(this)
    return fd
  }

  /** The descriptor is nobody's now: what others still may hear of it is stale. */
  #retire(): void {
    const { share, index } = this.#loop
    if (share === undefined || this.fd < 0) return
    share.nextGeneration(this.fd)
    if (this.counted) share.released(index, this.fd)
  }

  ready(events: number): void {
    if (this.#dead) return
    if (this.#connecting && !this.#connected(events)) return
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) !== 0) {
      this.#readable = true
      if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) !== 0) this.#toTheEnd = true
    }
    if (this.#peek !== undefined) return this.#peek()
    if ((events & EPOLLOUT) !== 0) this.#writable()
    if (this.#dead) return
    if (this.#readable && !this.#paused && !this.#eof) return this.#joined === undefined ? this.#read() : this.#forward()
    if ((events & EPOLLERR) !== 0) this.die(this.#error('read from'))
    else if ((events & EPOLLHUP) !== 0 && this.#eof && !this.#finSent) this.die('EPIPE: the connection is gone')
  }

  #read(): void {
    const { arena, receivedAt, received } = this.#loop
    for (let reads = 0; reads < mostReads; reads++) {
      const n = this.#received(this.#loop.sys.recv(this.fd, arena, receivedAt, receivedAt + receiveSize, 0))
      if (n === 0) return
      this.protocol.data(received, 0, n)
      if (!this.#readable || this.#dead || this.#paused) return
      if (this.#joined !== undefined) break
    }
    this.#loop.again(this)
  }

  /** What a read brought; 0 when there is nothing to do with it. */
  #received(n: number): number {
    if (n > 0) {
      if (n < receiveSize && !this.#toTheEnd && !this.messages) this.#readable = false
      return n
    }
    if (n === -E.EINTR) {
      this.#loop.again(this)
      return 0
    }
    this.#readable = false
    this.#toTheEnd = false
    if (n === 0) this.#sawEof()
    else if (n !== -E.EAGAIN) this.die(`${errnoName(n)}: read from ${addressText({ host: this.peer, port: this.peerPort })}`)
    return 0
  }

  #sawEof(): void {
    this.#eof = true
    if (this.#joined === undefined) this.protocol.eof()
    else if (this.#inPipe === 0) this.#joined.end()
    this.#finish()
  }

  /** The first event of an attempt: true when it succeeded. */
  #connected(events: number): boolean {
    if ((events & (EPOLLERR | EPOLLHUP)) !== 0) {
      const errno = this.#loop.sys.getOption(this.fd, SOL_SOCKET, SO_ERROR)
      if (errno !== 0) {
        this.die(`${errnoName(errno)}: connect ${addressText({ host: this.peer, port: this.peerPort })}`)
        return false
      }
    } else if ((events & EPOLLOUT) === 0) return false
    this.#connecting = false
    this.deadline = 0
    this.protocol.opened(this)
    return !this.#dead
  }

  /** Ends an attempt whose time is over. */
  timeout(ms: number): void {
    this.die(`timeout: no connection to ${addressText({ host: this.peer, port: this.peerPort })} within ${ms} ms`)
  }

  /** Ends a connection whose client did not send what it is to be known by. */
  silent(ms: number): void {
    this.die(`timeout: ${addressText({ host: this.peer, port: this.peerPort })} did not send its first bytes within ${ms} ms`)
  }

  #writable(): void {
    while (this.#queued > 0) {
      const first = this.#queue![0]!
      const at = this.#send(first, 0, first.length, this.#queue!.length > 1)
      if (this.#dead) return
      this.#queued -= at
      if (at < first.length) {
        this.#queue![0] = first.subarray(at)
        break
      }
      this.#queue!.shift()
    }
    if (this.#full && this.#queued <= this.#highWater / 2) {
      this.#full = false
      if (this.#joined === undefined) this.protocol.drain()
      if (this.#dead) return
    }
    if (this.#queued > 0) return
    this.#queue = undefined
    const joined = this.#joined
    if (joined !== undefined) {
      // What the other connection of a pair has in its pipe comes next.
      if (!joined.#push()) return
      if (joined.#eof) this.end()
      else joined.#goOn()
    }
    if (!this.#dead) this.#finish()
  }

  #error(doing: string): string {
    const errno = this.#loop.sys.getOption(this.fd, SOL_SOCKET, SO_ERROR)
    return `${errno === 0 ? 'ECONNRESET' : errnoName(errno)}: ${doing} ${addressText({ host: this.peer, port: this.peerPort })}`
  }

  /** From now on what comes goes to `other`, without the protocol. */
  joinTo(other: Stream): void {
    this.#joined = other
    this.#paused = false
    this.#goOn()
  }

  /** Reads here and writes there: by copying at first, through a pipe when there is much of it. Stops while the other side takes no more; it goes on from its `#writable`. */
  #forward(): void {
    const { sys, arena, receivedAt, received } = this.#loop
    const other = this.#joined!
    for (let moves = 0; moves < mostMoves; moves++) {
      if (this.#dead || other.#dead || other.#queued > 0 || this.#inPipe > 0 || other.#connecting) return
      if (this.#bulk) this.#pipe ??= this.#s.pipes.take()
      if (this.#bulk && this.#pipe !== undefined) {
        const n = sys.splice(this.fd, this.#pipe.w, pipeMove, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if (n <= 0) {
          this.#dropPipe()
          this.#received(n)
          return
        }
        this.#inPipe = n
        // Less than there was room for proves nothing: the loop ends at a read that finds nothing.
        if (n < bulk) this.#bulk = false
        if (!this.#push()) return
      } else {
        const n = this.#received(sys.recv(this.fd, arena, receivedAt, receivedAt + receiveSize, 0))
        if (n === 0) return
        this.#bulk = n >= bulk && !this.messages && !other.messages
        other.write(received, 0, n)
        if (!this.#readable) return
      }
    }
    this.#loop.again(this)
  }

  /** Moves what is in the pipe on to the other side; true when nothing is left. */
  #push(): boolean {
    const other = this.#joined!
    while (this.#inPipe > 0) {
      if (other.#dead) return false
      if (other.#nagle) other.#noDelay()
      const n = this.#loop.sys.splice(this.#pipe!.r, other.fd, this.#inPipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
      if (n === -E.EINTR) continue
      if (n <= 0) {
        if (n !== -E.EAGAIN) other.die(`${errnoName(n)}: send to ${addressText({ host: other.peer, port: other.peerPort })}`)
        else other.#wantsOut()
        return false
      }
      this.#inPipe -= n
    }
    this.#dropPipe()
    return true
  }

  #dropPipe(): void {
    if (this.#pipe === undefined || this.#inPipe > 0) return
    this.#s.pipes.give(this.#pipe, true)
    this.#pipe = undefined
  }
}
