import { performance } from 'node:perf_hooks'
import { inWorker } from '../../lib/workers.ts'
import { EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, epollEvent } from '../ffi/constants.ts'
import { E } from '../ffi/errno.ts'
import { fdMask, tagShift, type Share } from './share.ts'
import { Arena, syscalls, watch, type Syscalls, type Watch } from '../ffi/ffi.ts'

/** Who is told that its descriptor is ready. */
export interface Ready {
  /** Comes back with each event: one that was meant for an earlier owner of the same descriptor is not told. */
  readonly generation: number
  ready(events: number): void
}

/** Events taken by one `epoll_wait`. */
const batch = 256
/** Times we ask again in one turn before the rest of Node gets its chance, and events that make it likely that there are more by now. */
const mostWaits = 8
const enough = 2
// In words of 32 bits.
const stride = epollEvent.size >> 2
const data = epollEvent.data >> 2

/** Octets of a protocol's view: what one `recv` may bring, and the room behind it. */
export const receiveSize = 256 * 1024
export const roomSize = 32 * 1024
/** Octets one `send` takes at most from the copy area. */
export const copySize = 256 * 1024

/** One epoll descriptor that libuv polls, and the memory that its owners share, used between two events only. */
export class Loop {
  readonly sys: Syscalls
  readonly epoll: number
  readonly arena: Arena
  /** Where received bytes lie: [0, receiveSize), with `roomSize` behind. */
  readonly received: Buffer
  readonly receivedAt: number
  /** Where bytes are copied that are not in an arena. */
  readonly copyAt: number
  /** 64 octets for an address, 64 for option values. */
  readonly nameAt: number
  readonly optionAt: number
  readonly #words: Int32Array
  readonly #owners: (Ready | undefined)[] = []
  readonly #watch: Watch
  readonly #failed: (error: unknown) => void
  readonly #later: (() => void)[] = []
  #again: Ready[] = []
  #againSet = false
  #laterSet = false
  #generation = 1
  #inTurn = false
  #now = 0
  #active = 0
  readonly share: Share | undefined
  readonly index: number
  /** Told of a connection that another thread accepted for us: descriptor, listener, generation, events. */
  stranger: ((fd: number, tag: number, generation: number, events: number) => void) | undefined

  constructor(failed: (error: unknown) => void, share?: Share, index = 0) {
    this.#failed = failed
    this.share = share
    this.index = index
    this.sys = syscalls()
    this.arena = new Arena(1024 * 1024)
    const events = batch * epollEvent.size
    this.nameAt = 8192
    this.optionAt = this.nameAt + 64
    this.receivedAt = 65_536
    this.received = this.arena.buffer.subarray(this.receivedAt, this.receivedAt + receiveSize + roomSize)
    this.copyAt = this.receivedAt + receiveSize + roomSize + 4096
    this.#words = new Int32Array(this.arena.buffer.buffer, this.arena.buffer.byteOffset, events / 4)
    this.epoll = this.sys.epollCreate()
    if (this.epoll < 0) throw new Error(`epoll_create1: errno ${-this.epoll}`)
    this.#watch = watch(this.epoll, () => this.turn(), failed, inWorker)
    this.#watch.unref()
    // Runs before the thread of a worker is torn down, also by an uncaught error.
    if (inWorker) process.on('exit', this.#unwatch)
  }
  readonly #unwatch = (): void => this.#watch.close()

  /** Milliseconds; while events are being told, when they came. */
  get now(): number {
    return this.#inTurn ? this.#now : performance.now()
  }

  nextGeneration(fd = -1): number {
    if (this.share !== undefined && fd >= 0) return this.share.nextGeneration(fd)
    return (this.#generation = (this.#generation + 1) & 0x3fff_ffff)
  }

  /** `everybodys`: other threads have the descriptor too. */
  add(fd: number, owner: Ready, events: number, everybodys = false): number {
    this.#owners[fd] = owner
    const r = this.sys.epollControl(this.epoll, EPOLL_CTL_ADD, fd, events, fd, owner.generation)
    if (r < 0) this.#owners[fd] = undefined
    else {
      if (this.#active++ === 0) this.#watch.ref()
      if (!everybodys) this.share?.own(this.index, fd)
    }
    return r
  }

  /** Takes over a descriptor that already is in the set. */
  adopt(fd: number, owner: Ready): void {
    this.#owners[fd] = owner
    if (this.#active++ === 0) this.#watch.ref()
  }

  change(fd: number, owner: Ready, events: number): void {
    this.sys.epollControl(this.epoll, EPOLL_CTL_MOD, fd, events, fd, owner.generation)
  }

  /** Keeps `fd` out of the epoll descriptor although somebody owns it; `back` ends that. */
  out(fd: number): void {
    this.sys.epollControl(this.epoll, EPOLL_CTL_DEL, fd, 0, 0, 0)
  }
  back(fd: number, owner: Ready, events: number): void {
    this.sys.epollControl(this.epoll, EPOLL_CTL_ADD, fd, events, fd, owner.generation)
  }

  /** Forgets the owner of `fd`, which is about to be closed or given away. */
  forget(fd: number): void {
    if (this.#owners[fd] === undefined) return
    this.#owners[fd] = undefined
    this.share?.disown(this.index, fd)
    if (--this.#active === 0) this.#watch.unref()
  }

  /** Runs `f` when nobody's call is under way: at the end of this turn, or right after the code that runs now. */
  later(f: () => void): void {
    this.#later.push(f)
    if (this.#inTurn || this.#laterSet) return
    this.#laterSet = true
    process.nextTick(() => {
      this.#laterSet = false
      if (!this.#inTurn) this.#runLater()
    })
  }

  /** Calls `ready(0)` when others had their turn: for one that left something undone, which an edge-triggered descriptor does not tell again. */
  again(owner: Ready): void {
    this.#again.push(owner)
    if (this.#inTurn || this.#againSet) return
    this.#againSet = true
    setImmediate(this.#onceMore)
  }
  readonly #onceMore = (): void => {
    this.#againSet = false
    try {
      this.turn()
    } catch (error) {
      this.#failed(error)
    }
  }

  close(): void {
    this.#again = []
    this.#watch.close()
    process.off('exit', this.#unwatch)
    this.share?.disown(this.index, this.epoll)
    this.sys.close(this.epoll)
  }

  /** Tells what is ready; libuv calls it. */
  turn(): void {
    if (this.#inTurn) return
    this.#inTurn = true
    try {
      this.#now = performance.now()
      for (let waits = 0; waits < mostWaits; waits++) {
        if (this.#again.length > 0) {
          const again = this.#again
          this.#again = []
          for (const owner of again) owner.ready(0)
        }
        const n = this.sys.epollWait(this.epoll, this.arena, 0, batch, 0)
        if (n === -E.EINTR) continue
        if (n > 0) this.#tell(n)
        if (this.#later.length > 0) this.#runLater()
        if (n < enough) break
      }
    } finally {
      this.#inTurn = false
      if (this.#later.length > 0) this.#runLater()
      if (this.#again.length > 0 && !this.#againSet) {
        this.#againSet = true
        setImmediate(this.#onceMore)
      }
    }
  }

  #tell(n: number): void {
    this.#now = performance.now()
    const words = this.#words
    for (let i = 0, at = 0; i < n; i++, at += stride) {
      const low = words[at + data]!
      const owner = this.#owners[low & fdMask]
      // The descriptor may have been closed, and opened again by somebody else, since the kernel wrote this.
      if (owner !== undefined && owner.generation === words[at + data + 1]) owner.ready(words[at]!)
      else if (low >>> tagShift !== 0 && this.share?.isCurrent(low & fdMask, words[at + data + 1]!) === true) this.stranger?.(low & fdMask, low >>> tagShift, words[at + data + 1]!, words[at]!)
    }
  }

  #runLater(): void {
    for (let i = 0; i < this.#later.length; i++) this.#later[i]!()
    this.#later.length = 0
  }
}
