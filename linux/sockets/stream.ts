import { addressText } from '../../lib/sockets/errors.ts'
import type { Address, ListenOptions, Protocol, TlsInfo, Wire } from '../../lib/sockets/seam.ts'
import {
  EPOLLERR,
  EPOLLET,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  F_SETPIPE_SZ,
  MSG_MORE,
  MSG_PEEK,
  O_NONBLOCK,
  SHUT_WR,
  SO_ERROR,
  SO_LINGER,
  SOL_SOCKET,
  SPLICE_F_MOVE,
  SPLICE_F_NONBLOCK,
} from '../ffi/constants.ts'
import { E, errnoName } from '../ffi/errno.ts'
import { Arena } from '../ffi/ffi.ts'
import { readSockaddr } from '../ffi/sockaddr.ts'
import { copySize, receiveSize, type Loop, type Ready } from './loop.ts'

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

/** Not in the epoll set yet. */
const outside = -2

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
  /** What epoll is asked for, besides errors; -1: taken out of it. */
  #interest = EPOLLIN
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
    // Told first: a protocol that pauses at once, as forwarders do, then costs no change of interest.
    this.#interest = outside
    this.protocol.opened(this)
    if (this.#dead) return
    this.#interest = (this.#paused ? 0 : EPOLLIN) | (this.#queued > 0 ? EPOLLOUT : 0)
    const r = this.#loop.add(this.fd, this, this.#interest)
    if (r < 0) this.die(`${errnoName(r)}: epoll_ctl`)
  }

  /** A connection that another thread accepted and put into our set. */
  handed(): void {
    this.#loop.adopt(this.fd, this)
    this.#interest = outside
    this.protocol.opened(this)
    if (this.#dead) return
    this.#interest = (this.#paused ? 0 : EPOLLIN) | (this.#queued > 0 ? EPOLLOUT : 0)
    this.#loop.change(this.fd, this, this.#interest)
  }

  /** A connection under way; `deadline` says until when. */
  connecting(deadline: number): void {
    this.#connecting = true
    this.deadline = deadline
    this.#interest = EPOLLOUT
    const r = this.#loop.add(this.fd, this, EPOLLOUT)
    if (r < 0) this.die(`${errnoName(r)}: epoll_ctl`)
  }

  /** Looks at the first bytes without taking them, until `look` says what to do. */
  peek(look: NonNullable<ListenOptions['peek']>, accept: () => Protocol, handed: boolean): void {
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
      this.#interest = EPOLLIN
      this.#loop.change(this.fd, this, EPOLLIN)
      this.protocol = accept()
      this.protocol.opened(this)
    }
    // Edge-triggered: the same bytes are told once, more of them again.
    this.#interest = EPOLLIN | EPOLLET
    if (handed) {
      this.#loop.adopt(this.fd, this)
      return this.#loop.change(this.fd, this, this.#interest)
    }
    const r = this.#loop.add(this.fd, this, this.#interest)
    if (r < 0) this.die(`${errnoName(r)}: epoll_ctl`)
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
    if (!this.#connecting) this.#ask(this.#interest | EPOLLOUT)
    if (this.#queued <= this.#highWater) return true
    this.#full = true
    return false
  }

  /** Sends what the kernel takes of b[from, to); gives how far it came. */
  #send(b: Buffer, from: number, to: number, more: boolean): number {
    const { sys, copyAt } = this.#loop
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
      const size = Math.min(to - from, copySize)
      const start = inArena ? base + from : copyAt
      if (!inArena) b.copy(arena.buffer, copyAt, from, from + size)
      const n = sys.send(this.fd, arena, start, start + size, more || from + size < to ? MSG_MORE : 0)
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
    if (!this.#dead && !this.#eof && !this.#connecting && (this.#interest === -1 || (this.#interest & EPOLLIN) === 0)) this.#ask((this.#interest === -1 ? 0 : this.#interest) | EPOLLIN)
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
    // Closing sends the FIN as well.
    if (this.#eof) return this.die('')
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
    if (this.#connecting) return this.#connected()
    if (this.#peek !== undefined) return this.#peek()
    if ((events & EPOLLOUT) !== 0) this.#writable()
    if (this.#dead) return
    if ((events & EPOLLIN) !== 0 && !this.#paused && !this.#eof) return this.#joined === undefined ? this.#read() : this.#forward()
    if ((events & EPOLLERR) !== 0) return this.die(this.#error('read from'))
    // Errors and hang-ups are reported whatever one asks for: out of the set until somebody wants to read.
    if ((events & EPOLLHUP) !== 0) {
      if (this.#paused) this.#ask(-1)
      else if (!this.#eof) return this.#joined === undefined ? this.#read() : this.#forward()
      else if (!this.#finSent) return this.die('EPIPE: the connection is gone')
      return
    }
    if ((events & EPOLLIN) !== 0 && (this.#paused || this.#eof)) this.#ask(this.#interest & ~EPOLLIN)
  }

  #read(): void {
    const { sys, arena, receivedAt, received } = this.#loop
    const n = sys.recv(this.fd, arena, receivedAt, receivedAt + receiveSize, 0)
    if (n > 0) return this.protocol.data(received, 0, n)
    if (n === 0) return this.#sawEof()
    if (n !== -E.EAGAIN && n !== -E.EINTR) this.die(`${errnoName(n)}: read from ${addressText({ host: this.peer, port: this.peerPort })}`)
  }

  #sawEof(): void {
    this.#eof = true
    if (this.#joined === undefined) this.protocol.eof()
    else if (this.#inPipe === 0) this.#joined.end()
    this.#finish()
    // Asking for no more is left to the next event: on a short connection there is none.
  }

  #connected(): void {
    const { sys } = this.#loop
    const errno = sys.getOption(this.fd, SOL_SOCKET, SO_ERROR)
    if (errno !== 0) return this.die(`${errnoName(errno)}: connect ${addressText({ host: this.peer, port: this.peerPort })}`)
    this.#connecting = false
    this.deadline = 0
    this.#ask((this.#paused ? 0 : EPOLLIN) | (this.#queued > 0 ? EPOLLOUT : 0))
    this.protocol.opened(this)
    if (!this.#dead) this.#writable()
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
    // What the other connection of a pair has in its pipe comes next.
    if (this.#joined !== undefined && !this.#joined.#pushed()) return
    if (this.#dead) return
    this.#ask(this.#interest & ~EPOLLOUT)
    this.#finish()
  }

  #error(doing: string): string {
    const errno = this.#loop.sys.getOption(this.fd, SOL_SOCKET, SO_ERROR)
    return `${errno === 0 ? 'ECONNRESET' : errnoName(errno)}: ${doing} ${addressText({ host: this.peer, port: this.peerPort })}`
  }

  #ask(events: number): void {
    if (events === this.#interest || this.#interest === outside) return
    const before = this.#interest
    this.#interest = events
    if (events === -1) this.#loop.out(this.fd)
    else if (before === -1) this.#loop.back(this.fd, this, events)
    else this.#loop.change(this.fd, this, events)
  }

  /** From now on what comes goes to `other`, without the protocol. */
  joinTo(other: Stream): void {
    this.#joined = other
    if (!this.#eof) this.#resumeForward()
  }

  /** Reads here and writes there: by copying at first, through a pipe when there is much of it. */
  #forward(): void {
    const { sys, arena, receivedAt, received } = this.#loop
    const other = this.#joined!
    for (let moves = 0; moves < mostMoves; moves++) {
      if (other.#dead) return
      if (other.#queued > 0 || this.#inPipe > 0) return this.#holdForward()
      if (this.#bulk) this.#pipe ??= this.#s.pipes.take()
      if (this.#bulk && this.#pipe !== undefined) {
        const n = sys.splice(this.fd, this.#pipe.w, pipeMove, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if (n <= 0) {
          this.#dropPipe()
          if (n === 0) return this.#sawEof()
          if (n !== -E.EAGAIN && n !== -E.EINTR) this.die(`${errnoName(n)}: read from ${addressText({ host: this.peer, port: this.peerPort })}`)
          return
        }
        this.#inPipe = n
        if (!this.#pushed()) return this.#holdForward()
        if (n < bulk) {
          this.#bulk = false
          return
        }
      } else {
        const n = sys.recv(this.fd, arena, receivedAt, receivedAt + receiveSize, 0)
        if (n === 0) return this.#sawEof()
        if (n < 0) {
          if (n !== -E.EAGAIN && n !== -E.EINTR) this.die(`${errnoName(n)}: read from ${addressText({ host: this.peer, port: this.peerPort })}`)
          return
        }
        other.write(received, 0, n)
        if (n < bulk) return
        this.#bulk = true
      }
    }
  }

  /** Moves what is in the pipe on to the other side; true when nothing is left. */
  #pushed(): boolean {
    const other = this.#joined!
    while (this.#inPipe > 0) {
      if (other.#dead) return false
      const n = this.#loop.sys.splice(this.#pipe!.r, other.fd, this.#inPipe, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
      if (n === -E.EINTR) continue
      if (n <= 0) {
        if (n !== -E.EAGAIN) other.die(`${errnoName(n)}: send to ${addressText({ host: other.peer, port: other.peerPort })}`)
        else other.#ask((other.#interest === -1 ? 0 : other.#interest) | EPOLLOUT)
        return false
      }
      this.#inPipe -= n
    }
    this.#dropPipe()
    if (this.#eof) other.end()
    else if (!this.#dead) this.#resumeForward()
    return true
  }

  #dropPipe(): void {
    if (this.#pipe === undefined || this.#inPipe > 0) return
    this.#s.pipes.give(this.#pipe, true)
    this.#pipe = undefined
  }

  #holdForward(): void {
    this.#paused = true
    if (!this.#dead) this.#ask(this.#interest === -1 ? -1 : this.#interest & ~EPOLLIN)
    const other = this.#joined!
    if (!other.#dead) other.#ask((other.#interest === -1 ? 0 : other.#interest) | EPOLLOUT)
  }

  #resumeForward(): void {
    this.#paused = true
    this.resume()
  }
}
