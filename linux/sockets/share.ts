import { EPOLL_CTL_ADD, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP } from '../ffi/constants.ts'
import { syscalls } from '../ffi/ffi.ts'
import { TicketKeys, ticketRoom } from './tickets.ts'

/** The event's data names the descriptor in the low bits; above, for one that was handed over, the listener it came by. */
export const fdMask = (1 << 20) - 1
export const tagShift = 20

/** What a connection is asked for, once: each event is told once and remembered, so that pausing, resuming and ending cost no call. */
export const incoming = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET
/** With it when bytes wait to be sent; from the beginning where the first event is that one can send. */
export const bothWays = incoming | EPOLLOUT

/** Workers one share can have, and descriptors it knows of. */
const mostWorkers = 64
const mostDescriptors = 1 << 20

// Words of the shared memory: for each worker its epoll descriptor + 1 (0: nobody), whether it takes connections from others, and how many it has; then the generation of each descriptor.
const epollWord = (index: number): number => index * 4
const joinedWord = (index: number): number => index * 4 + 1
const countWord = (index: number): number => index * 4 + 2
const generationWord = mostWorkers * 4
const ownerByte = (generationWord + mostDescriptors) * 4
const ticketByte = ownerByte + mostDescriptors

/**
 * What the epoll drivers of several threads share, so that one of them may accept a connection for another. Descriptors belong to the process: putting one
 * into another thread's epoll set is all it takes, and that thread meets an event for a descriptor it has not seen, whose generation is the current one.
 */
export class Share {
  readonly buffer: SharedArrayBuffer
  /** A TLS session begun with one worker is resumed by any; the main thread rotates the keys. */
  readonly tickets: TicketKeys
  readonly #words: Int32Array
  readonly #owners: Uint8Array

  constructor(buffer?: SharedArrayBuffer) {
    // Zeroed memory that nobody touched costs nothing.
    this.buffer = buffer ?? new SharedArrayBuffer(ticketByte + ticketRoom)
    this.#words = new Int32Array(this.buffer, 0, generationWord + mostDescriptors)
    this.#owners = new Uint8Array(this.buffer, ownerByte, mostDescriptors)
    this.tickets = new TicketKeys(this.buffer, ticketByte)
  }

  /** Takes the place `index`, which nobody has. */
  enter(index: number, epoll: number): void {
    if (index < 0 || index >= mostWorkers) throw new RangeError(`worker ${index} of at most ${mostWorkers}`)
    Atomics.store(this.#words, epollWord(index), epoll + 1)
    this.own(index, epoll)
  }

  /** From now on others may give connections to `index`, by putting them into its epoll set. */
  join(index: number): void {
    Atomics.store(this.#words, joinedWord(index), 1)
  }

  /** Gets no more connections from others. */
  leave(index: number): void {
    Atomics.store(this.#words, joinedWord(index), 0)
  }

  /**
   * Makes sure that nothing wakes `index` any more, which is about to be terminated: an event that meets a thread which may not run JavaScript any longer ends the whole process
   * (koffi throws where nobody can catch). Another set, an empty one, takes the place of its epoll descriptor; the old one is gone with all that was in it.
   */
  silence(index: number): void {
    const epoll = this.epollOf(index)
    this.leave(index)
    if (epoll < 0) return
    const sys = syscalls()
    const empty = sys.epollCreate()
    if (empty < 0) return
    sys.dup3(empty, epoll, 0x8_0000)
    sys.close(empty)
  }

  /** A new owner of `fd`, or none any more: events for the one before are stale. */
  nextGeneration(fd: number): number {
    return (Atomics.add(this.#words, generationWord + fd, 1) + 1) & 0x3fff_ffff
  }

  isCurrent(fd: number, generation: number): boolean {
    return (Atomics.load(this.#words, generationWord + fd) & 0x3fff_ffff) === generation
  }

  /** The worker with the fewest connections; `own` if it is as good as any (-1: the caller takes none; -1 again when nobody does). */
  least(own: number): number {
    let best = own
    let fewest = own < 0 ? Infinity : Atomics.load(this.#words, joinedWord(own)) === 0 ? Infinity : Atomics.load(this.#words, countWord(own))
    for (let i = 0; i < mostWorkers; i++) {
      if (i === own || Atomics.load(this.#words, joinedWord(i)) === 0) continue
      const n = Atomics.load(this.#words, countWord(i))
      if (n < fewest) [best, fewest] = [i, n]
    }
    return best
  }

  /** Puts a connection that came by `listener` into the set of `target`; false when that one is gone. */
  hand(target: number, fd: number, listener: number): boolean {
    if (target < 0 || fd > fdMask) return false
    const generation = this.nextGeneration(fd)
    this.taken(target, fd)
    // Writable at once, so the other one hears of it also when the client waits to be spoken to.
    if (syscalls().epollControl(this.epollOf(target), EPOLL_CTL_ADD, fd, bothWays, fd | (listener << tagShift), generation) >= 0) return true
    this.released(target, fd)
    return false
  }

  epollOf(index: number): number {
    return Atomics.load(this.#words, epollWord(index)) - 1
  }

  connections(index: number): number {
    return Atomics.load(this.#words, countWord(index))
  }

  /** An accepted connection is `index`'s. */
  taken(index: number, fd: number): void {
    Atomics.add(this.#words, countWord(index), 1)
    this.own(index, fd)
  }

  /** An accepted connection of `index` is no more; to be said before the descriptor is closed. */
  released(index: number, fd: number): void {
    Atomics.sub(this.#words, countWord(index), 1)
    this.disown(index, fd)
  }

  /** Any descriptor that only `index` has: when it dies nobody else knows of it. */
  own(index: number, fd: number): void {
    if (fd < mostDescriptors) this.#owners[fd] = index + 1
  }

  disown(index: number, fd: number): void {
    if (fd < mostDescriptors && this.#owners[fd] === index + 1) this.#owners[fd] = 0
  }

  /** Closes what a worker had that is no more. */
  bury(index: number): number {
    const sys = syscalls()
    this.leave(index)
    let closed = 0
    for (let fd = this.#owners.indexOf(index + 1); fd >= 0; fd = this.#owners.indexOf(index + 1, fd + 1)) {
      this.#owners[fd] = 0
      this.nextGeneration(fd)
      sys.close(fd)
      closed++
    }
    Atomics.store(this.#words, epollWord(index), 0)
    Atomics.store(this.#words, countWord(index), 0)
    return closed
  }
}
