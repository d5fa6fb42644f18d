import { syscalls } from '../ffi/ffi.ts'

/** Workers one share can have, and descriptors it knows of. */
const mostWorkers = 64
const mostDescriptors = 1 << 20

// Words of the shared memory: for each worker its epoll descriptor + 1 (0: nobody) and its connections; then the generation of each descriptor.
const epollWord = (index: number): number => index * 2
const countWord = (index: number): number => index * 2 + 1
const generationWord = mostWorkers * 2
const ownerByte = (generationWord + mostDescriptors) * 4

/**
 * What the epoll drivers of several threads share, so that one of them may accept a connection for another. Descriptors belong to the process: putting one
 * into another thread's epoll set is all it takes, and that thread meets an event for a descriptor it has not seen, whose generation is the current one.
 */
export class Share {
  readonly buffer: SharedArrayBuffer
  readonly #words: Int32Array
  readonly #owners: Uint8Array

  constructor(buffer?: SharedArrayBuffer) {
    // Zeroed memory that nobody touched costs nothing.
    this.buffer = buffer ?? new SharedArrayBuffer(ownerByte + mostDescriptors)
    this.#words = new Int32Array(this.buffer, 0, generationWord + mostDescriptors)
    this.#owners = new Uint8Array(this.buffer, ownerByte)
  }

  /** Takes the place `index`, which nobody has. */
  join(index: number, epoll: number): void {
    if (index < 0 || index >= mostWorkers) throw new RangeError(`worker ${index} of at most ${mostWorkers}`)
    Atomics.store(this.#words, countWord(index), 0)
    Atomics.store(this.#words, epollWord(index), epoll + 1)
  }

  /** Gets no more connections from others. */
  leave(index: number): void {
    Atomics.store(this.#words, epollWord(index), 0)
  }

  /** A new owner of `fd`, or none any more: events for the one before are stale. */
  nextGeneration(fd: number): number {
    return (Atomics.add(this.#words, generationWord + fd, 1) + 1) & 0x3fff_ffff
  }

  isCurrent(fd: number, generation: number): boolean {
    return (Atomics.load(this.#words, generationWord + fd) & 0x3fff_ffff) === generation
  }

  /** The worker with the fewest connections; `own` if it is as good as any. */
  least(own: number): number {
    let best = own
    let fewest = Atomics.load(this.#words, epollWord(own)) === 0 ? Infinity : Atomics.load(this.#words, countWord(own))
    for (let i = 0; i < mostWorkers; i++) {
      if (i === own || Atomics.load(this.#words, epollWord(i)) === 0) continue
      const n = Atomics.load(this.#words, countWord(i))
      if (n < fewest) [best, fewest] = [i, n]
    }
    return best
  }

  epollOf(index: number): number {
    return Atomics.load(this.#words, epollWord(index)) - 1
  }

  connections(index: number): number {
    return Atomics.load(this.#words, countWord(index))
  }

  taken(index: number, fd: number): void {
    Atomics.add(this.#words, countWord(index), 1)
    Atomics.store(this.#owners, fd, index + 1)
  }

  released(index: number, fd: number): void {
    Atomics.sub(this.#words, countWord(index), 1)
    Atomics.store(this.#owners, fd, 0)
  }

  /** Closes what a worker had that is no more: nobody else knows of those descriptors. */
  bury(index: number): number {
    const sys = syscalls()
    const epoll = this.epollOf(index)
    this.leave(index)
    let closed = 0
    for (let fd = this.#owners.indexOf(index + 1); fd >= 0; fd = this.#owners.indexOf(index + 1, fd + 1)) {
      this.#owners[fd] = 0
      this.nextGeneration(fd)
      sys.close(fd)
      closed++
    }
    if (epoll >= 0) sys.close(epoll)
    Atomics.store(this.#words, countWord(index), 0)
    return closed
  }
}
