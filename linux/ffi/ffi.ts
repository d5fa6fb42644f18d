import { createRequire } from 'node:module'
import { arch, platform } from 'node:process'
import type * as Koffi from 'koffi'
import { epollEvent, mmsghdr, msghdr, nr } from './constants.ts'
import { errnoName } from './errno.ts'

// This folder is the only importer of koffi. Rules that keep it safe:
// - The kernel gets addresses only out of an Arena, whose memory lies between pages nobody may touch: a length that is wrong all the same gives a short count or EFAULT.
// - Each length is compared with its arena in the one function that makes the call.
// - Every call returns what the kernel would: a result of 0 or more, or minus the errno. `errno` is read before anything else can run.
// - Numbers are addresses: user space ends below 2^47, where doubles are exact. BigInt and Buffer arguments cost 5 to 50 % more a call.

/** Why this process cannot call the kernel directly; undefined if it can. */
export const missing: string | undefined = whyMissing()
const koffi = missing === undefined ? load() : undefined

function whyMissing(): string | undefined {
  if (platform !== 'linux') return `not Linux but ${platform}`
  if (arch !== 'x64' && arch !== 'arm64') return `no layouts known for ${arch}`
  try {
    load()
    return undefined
  } catch (error) {
    // Node's permission model refuses native code unless --allow-addons; a package without its binary ends here as well.
    return `koffi cannot be loaded: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`
  }
}

function load(): typeof Koffi {
  return createRequire(import.meta.url)('koffi') as typeof Koffi
}

/** C types by the names koffi gives them; pointers are `uintptr_t`, which takes an address as a number. */
export type CType = 'void' | 'int' | 'uint' | 'long' | 'ulong' | 'size_t' | 'intptr_t' | 'uintptr_t' | 'uint64_t'

/** A C function of this very process (libc, or the OpenSSL inside Node). Throws when there is none by that name. Results come as they are: whoever wants errno uses `syscalls`. */
export function foreign(name: string, returns: CType, takes: readonly CType[]): (...args: readonly (number | bigint)[]) => number {
  return (process_ ??= required().load(null)).func(name, returns, [...takes]) as unknown as (...args: readonly (number | bigint)[]) => number
}
let process_: Koffi.LibraryHandle | undefined

/** The address of a C function pointer that calls `f`, for good. An exception must not leave `f`. */
export function callback(returns: CType, takes: readonly CType[], f: (...args: number[]) => number): number {
  const k = required()
  const proto = k.proto(`callback_${callbacks++}`, returns, [...takes])
  return Number(k.address(k.register(f, k.pointer(proto))))
}
let callbacks = 0

/** Octets at an address of this process, copied. Only for what C code hands over (strings of OpenSSL); never in a hot path. */
export function peek(address: number, length: number): Buffer {
  return Buffer.from(new Uint8Array(required().view(BigInt(address), length)).slice())
}

function required(): typeof Koffi {
  if (koffi === undefined) throw new Error(`direct system calls are not available: ${missing}`)
  return koffi
}

/** The errno of the last call made through `foreign`; read it before anything else. */
export function lastErrno(): number {
  return required().errno()
}

// A reserved, unreadable stretch on both sides; only address space. As long as the longest length a mistake is likely to carry.
const guard = 16 * 1024 * 1024
const page = 64 * 1024 // arm64 kernels may have pages of 64 KiB

let addressOf: (arena: Arena) => number
const arenas = new WeakMap<ArrayBufferLike, Arena>()

/**
 * Memory the kernel may read and write. It never moves, is zeroed at first, lives as long as the process, and does not cross a 4 GiB boundary (so the upper half of every pointer into it is the same).
 * Offsets count from its beginning. Make few, large ones: one a loop, not one a connection.
 */
export class Arena {
  readonly size: number
  /** The whole of it, for JavaScript. */
  readonly buffer: Buffer
  readonly #at: number

  static {
    addressOf = (arena) => arena.#at
  }

  constructor(size: number, over?: SharedArrayBuffer) {
    if (!Number.isInteger(size) || size <= 0 || size > 0x4000_0000) throw new RangeError(`an arena of ${size} octets`)
    if (over === undefined) {
      const rounded = Math.ceil(size / page) * page
      this.#at = mapped(rounded)
      this.size = rounded
      this.buffer = Buffer.from(required().view(BigInt(this.#at), rounded))
    } else {
      this.#at = Number(required().address(over))
      this.size = size
      this.buffer = Buffer.from(over, 0, size)
    }
    arenas.set(this.buffer.buffer, this)
  }

  /** An arena over shared memory, for what several threads look at. It has no guard pages: write its pointers once, from constants. */
  static over(shared: SharedArrayBuffer): Arena {
    return new Arena(shared.byteLength, shared)
  }

  /** The arena that `buffer` is a part of, if it is one's: then `buffer.byteOffset` is an offset into it. */
  static of(buffer: Uint8Array): Arena | undefined {
    return arenas.get(buffer.buffer)
  }

  /** The address of [from, to), for a pointer inside a structure of the kernel. */
  pointer(from: number, to: number): number {
    this.check(from, to)
    return this.#at + from
  }

  /** Writes the address of `target`'s [from, to) at offset `where` of this arena, as 64 bits. */
  setPointer(where: number, target: Arena, from: number, to: number): void {
    this.check(where, where + 8)
    this.buffer.writeBigUInt64LE(BigInt(target.pointer(from, to)), where)
  }

  /** Throws unless [from, to) lies inside. */
  check(from: number, to: number): void {
    if (from !== (from | 0) || to !== (to | 0) || from < 0 || to < from || to > this.size) throw new RangeError(`[${from}, ${to}) is not inside an arena of ${this.size} octets`)
  }
}

function mapped(size: number): number {
  const c = libc()
  for (let tries = 0; tries < 4; tries++) {
    const base = Number(c.mmap(0, size + 2 * guard, 0 /* PROT_NONE */, 0x4022 /* PRIVATE | ANONYMOUS | NORESERVE */, -1, 0))
    if (base === -1 || base > 2 ** 53) throw new Error(`mmap of ${size} octets: ${errnoName(lastErrno())}`)
    const at = base + guard
    if (Math.floor(at / 2 ** 32) !== Math.floor((at + size - 1) / 2 ** 32)) continue // wasted address space, no memory
    if (c.mprotect(at, size, 3 /* READ | WRITE */) < 0) throw new Error(`mprotect of ${size} octets: ${errnoName(lastErrno())}`)
    return at
  }
  throw new Error(`mmap gave no ${size} octets within 4 GiB`)
}

function libc() {
  return (libc_ ??= bindLibc())
}
let libc_: ReturnType<typeof bindLibc> | undefined

function bindLibc() {
  const f = foreign
  return {
    mmap: f('mmap', 'uintptr_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'intptr_t']),
    mprotect: f('mprotect', 'int', ['uintptr_t', 'size_t', 'int']),
    socket: f('socket', 'int', ['int', 'int', 'int']),
    socketpair: f('socketpair', 'int', ['int', 'int', 'int', 'uintptr_t']),
    bind: f('bind', 'int', ['int', 'uintptr_t', 'uint']),
    listen: f('listen', 'int', ['int', 'int']),
    accept4: f('accept4', 'int', ['int', 'uintptr_t', 'uintptr_t', 'int']),
    connect: f('connect', 'int', ['int', 'uintptr_t', 'uint']),
    getsockname: f('getsockname', 'int', ['int', 'uintptr_t', 'uintptr_t']),
    getpeername: f('getpeername', 'int', ['int', 'uintptr_t', 'uintptr_t']),
    setsockopt: f('setsockopt', 'int', ['int', 'int', 'int', 'uintptr_t', 'uint']),
    getsockopt: f('getsockopt', 'int', ['int', 'int', 'int', 'uintptr_t', 'uintptr_t']),
    shutdown: f('shutdown', 'int', ['int', 'int']),
    close: f('close', 'int', ['int']),
    // koffi knows no ssize_t: intptr_t is the same.
    read: f('read', 'intptr_t', ['int', 'uintptr_t', 'size_t']),
    write: f('write', 'intptr_t', ['int', 'uintptr_t', 'size_t']),
    recv: f('recv', 'intptr_t', ['int', 'uintptr_t', 'size_t', 'int']),
    send: f('send', 'intptr_t', ['int', 'uintptr_t', 'size_t', 'int']),
    recvfrom: f('recvfrom', 'intptr_t', ['int', 'uintptr_t', 'size_t', 'int', 'uintptr_t', 'uintptr_t']),
    sendto: f('sendto', 'intptr_t', ['int', 'uintptr_t', 'size_t', 'int', 'uintptr_t', 'uint']),
    recvmsg: f('recvmsg', 'intptr_t', ['int', 'uintptr_t', 'int']),
    sendmsg: f('sendmsg', 'intptr_t', ['int', 'uintptr_t', 'int']),
    epoll_create1: f('epoll_create1', 'int', ['int']),
    epoll_ctl: f('epoll_ctl', 'int', ['int', 'int', 'int', 'uintptr_t']),
    epoll_wait: f('epoll_wait', 'int', ['int', 'uintptr_t', 'int', 'int']),
    eventfd: f('eventfd', 'int', ['uint', 'int']),
    splice: f('splice', 'intptr_t', ['int', 'uintptr_t', 'int', 'uintptr_t', 'size_t', 'uint']),
    pipe2: f('pipe2', 'int', ['uintptr_t', 'int']),
    fcntl: f('fcntl', 'int', ['int', 'int', 'long']),
    dup3: f('dup3', 'int', ['int', 'int', 'int']),
    setns: f('setns', 'int', ['int', 'int']),
    unshare: f('unshare', 'int', ['int']),
    prctl: f('prctl', 'int', ['int', 'ulong', 'ulong', 'ulong', 'ulong']),
    nanosleep: f('nanosleep', 'int', ['uintptr_t', 'uintptr_t']),
    syscall: f('syscall', 'long', ['long', 'long', 'long', 'long', 'long', 'long', 'long']),
  }
}

/**
 * The system calls of this project. Each returns the kernel's result, or minus the errno (`-E.EAGAIN`). `arena, from, to` is memory [from, to) of that arena. Descriptors are always opened close-on-exec.
 * None of them waits unless the descriptor blocks; one that blocks holds its thread, and with it `process.exit()`.
 */
export interface Syscalls {
  socket(family: number, type: number, protocol: number): number
  /** Two joined sockets, or minus the errno. */
  socketpair(family: number, type: number, protocol: number): readonly [number, number] | number
  bind(fd: number, arena: Arena, from: number, to: number): number
  listen(fd: number, backlog: number): number
  /** The next connection, non-blocking. The peer's address is written at `from` when `to - from` is not 0. */
  accept4(fd: number, flags: number, arena: Arena, from: number, to: number): number
  connect(fd: number, arena: Arena, from: number, to: number): number
  /** Length of the address written at `from`. */
  getsockname(fd: number, arena: Arena, from: number, to: number): number
  getpeername(fd: number, arena: Arena, from: number, to: number): number
  setsockopt(fd: number, level: number, name: number, arena: Arena, from: number, to: number): number
  /** `setsockopt` of one int. */
  setOption(fd: number, level: number, name: number, value: number): number
  /** Length of the value written at `from`. */
  getsockopt(fd: number, level: number, name: number, arena: Arena, from: number, to: number): number
  /** An int option's value; throws on failure, since every number may be a value. */
  getOption(fd: number, level: number, name: number): number
  shutdown(fd: number, how: number): number
  close(fd: number): number
  read(fd: number, arena: Arena, from: number, to: number): number
  write(fd: number, arena: Arena, from: number, to: number): number
  recv(fd: number, arena: Arena, from: number, to: number, flags: number): number
  /** MSG_NOSIGNAL is added. */
  send(fd: number, arena: Arena, from: number, to: number, flags: number): number
  /** Like `recv`; the sender's address is written at `name` (28 octets of room). */
  recvfrom(fd: number, arena: Arena, from: number, to: number, flags: number, name: number): number
  /** Like `send`, to the address of `length` octets at `name`. */
  sendto(fd: number, arena: Arena, from: number, to: number, flags: number, name: number, length: number): number
  /** `header`: offset of a msghdr whose pointers were written by `setPointer`. */
  recvmsg(fd: number, arena: Arena, header: number, flags: number): number
  sendmsg(fd: number, arena: Arena, header: number, flags: number): number
  /** `headers`: offset of `count` mmsghdr. By number, since musl's `sendmmsg` is a loop. */
  recvmmsg(fd: number, arena: Arena, headers: number, count: number, flags: number): number
  sendmmsg(fd: number, arena: Arena, headers: number, count: number, flags: number): number
  epollCreate(): number
  /** `low` and `high`: the 64 bits of data that come back with each event. */
  epollControl(epoll: number, op: number, fd: number, events: number, low: number, high: number): number
  /** How many events were written from offset `events` on, `epollEvent.size` octets each; `timeout` in ms, -1 for ever. */
  epollWait(epoll: number, arena: Arena, events: number, most: number, timeout: number): number
  eventfd(initial: number, flags: number): number
  splice(from: number, to: number, length: number, flags: number): number
  /** Read end and write end, close-on-exec, or minus the errno. */
  pipe(flags: number): readonly [number, number] | number
  fcntl(fd: number, command: number, argument: number): number
  dup3(fd: number, to: number, flags: number): number
  /** Moves the calling thread into a namespace; what it opens next belongs there. */
  setns(fd: number, kind: number): number
  unshare(flags: number): number
  prctl(option: number, argument: number): number
  /** Sleeps the thread; for the nap of a worker that blocks anyway. */
  nanosleep(nanoseconds: number): number
  /** Any call by its number (`nr`). */
  syscall(number: number, ...args: readonly number[]): number
}

/** The calls, bound once a thread. Throws with `missing` where there are none. */
export function syscalls(): Syscalls {
  return (syscalls_ ??= bindSyscalls())
}
let syscalls_: Syscalls | undefined

function bindSyscalls(): Syscalls {
  const c = libc()
  const errno = required().errno
  // Small values the calls point at: ints, lengths, one epoll_event, a timespec.
  const small = new Arena(page)
  const at = addressOf(small)
  const words = new Int32Array(small.buffer.buffer, small.buffer.byteOffset, 64)
  const eventAt = 64
  const event = new DataView(small.buffer.buffer, small.buffer.byteOffset + eventAt, epollEvent.size)
  const time = new BigInt64Array(small.buffer.buffer, small.buffer.byteOffset + 128, 2)
  const place = (arena: Arena, from: number, to: number): number => {
    arena.check(from, to)
    return addressOf(arena) + from
  }
  const named = (call: (fd: number, name: number, length: number) => number, fd: number, arena: Arena, from: number, to: number): number => {
    words[0] = to - from
    const n = call(fd, place(arena, from, to), at)
    return n < 0 ? -errno() : words[0]!
  }
  return {
    socket(family, type, protocol) {
      const n = c.socket(family, type | 0x8_0000, protocol)
      return n < 0 ? -errno() : n
    },
    socketpair(family, type, protocol) {
      const n = c.socketpair(family, type | 0x8_0000, protocol, at)
      return n < 0 ? -errno() : [words[0]!, words[1]!]
    },
    bind(fd, arena, from, to) {
      const n = c.bind(fd, place(arena, from, to), to - from)
      return n < 0 ? -errno() : n
    },
    listen(fd, backlog) {
      const n = c.listen(fd, backlog)
      return n < 0 ? -errno() : n
    },
    accept4(fd, flags, arena, from, to) {
      words[0] = to - from
      const n = from === to ? c.accept4(fd, 0, 0, flags | 0x8_0000) : c.accept4(fd, place(arena, from, to), at, flags | 0x8_0000)
      return n < 0 ? -errno() : n
    },
    connect(fd, arena, from, to) {
      const n = c.connect(fd, place(arena, from, to), to - from)
      return n < 0 ? -errno() : n
    },
    getsockname: (fd, arena, from, to) => named(c.getsockname, fd, arena, from, to),
    getpeername: (fd, arena, from, to) => named(c.getpeername, fd, arena, from, to),
    setsockopt(fd, level, name, arena, from, to) {
      const n = c.setsockopt(fd, level, name, place(arena, from, to), to - from)
      return n < 0 ? -errno() : n
    },
    setOption(fd, level, name, value) {
      words[0] = value
      const n = c.setsockopt(fd, level, name, at, 4)
      return n < 0 ? -errno() : n
    },
    getsockopt(fd, level, name, arena, from, to) {
      words[0] = to - from
      const n = c.getsockopt(fd, level, name, place(arena, from, to), at)
      return n < 0 ? -errno() : words[0]!
    },
    getOption(fd, level, name) {
      words[0] = 4
      if (c.getsockopt(fd, level, name, at + 4, at) < 0) throw new Error(`getsockopt ${level}/${name}: ${errnoName(errno())}`)
      return words[1]!
    },
    shutdown(fd, how) {
      const n = c.shutdown(fd, how)
      return n < 0 ? -errno() : n
    },
    close(fd) {
      const n = c.close(fd)
      return n < 0 ? -errno() : n
    },
    read(fd, arena, from, to) {
      const n = c.read(fd, place(arena, from, to), to - from)
      return n < 0 ? -errno() : n
    },
    write(fd, arena, from, to) {
      const n = c.write(fd, place(arena, from, to), to - from)
      return n < 0 ? -errno() : n
    },
    recv(fd, arena, from, to, flags) {
      const n = c.recv(fd, place(arena, from, to), to - from, flags)
      return n < 0 ? -errno() : n
    },
    send(fd, arena, from, to, flags) {
      const n = c.send(fd, place(arena, from, to), to - from, flags | 0x4000)
      return n < 0 ? -errno() : n
    },
    recvfrom(fd, arena, from, to, flags, name) {
      words[0] = 28
      const n = c.recvfrom(fd, place(arena, from, to), to - from, flags, place(arena, name, name + 28), at)
      return n < 0 ? -errno() : n
    },
    sendto(fd, arena, from, to, flags, name, length) {
      const n = c.sendto(fd, place(arena, from, to), to - from, flags | 0x4000, place(arena, name, name + length), length)
      return n < 0 ? -errno() : n
    },
    recvmsg(fd, arena, header, flags) {
      const n = c.recvmsg(fd, place(arena, header, header + msghdr.size), flags)
      return n < 0 ? -errno() : n
    },
    sendmsg(fd, arena, header, flags) {
      const n = c.sendmsg(fd, place(arena, header, header + msghdr.size), flags | 0x4000)
      return n < 0 ? -errno() : n
    },
    recvmmsg(fd, arena, headers, count, flags) {
      const n = c.syscall(nr.recvmmsg, fd, place(arena, headers, headers + count * mmsghdr.size), count, flags, 0, 0)
      return n < 0 ? -errno() : n
    },
    sendmmsg(fd, arena, headers, count, flags) {
      const n = c.syscall(nr.sendmmsg, fd, place(arena, headers, headers + count * mmsghdr.size), count, flags | 0x4000, 0, 0)
      return n < 0 ? -errno() : n
    },
    epollCreate() {
      const n = c.epoll_create1(0x8_0000)
      return n < 0 ? -errno() : n
    },
    epollControl(epoll, op, fd, events, low, high) {
      event.setInt32(0, events, true)
      event.setInt32(epollEvent.data, low, true)
      event.setInt32(epollEvent.data + 4, high, true)
      const n = c.epoll_ctl(epoll, op, fd, at + eventAt)
      return n < 0 ? -errno() : n
    },
    epollWait(epoll, arena, events, most, timeout) {
      const n = c.epoll_wait(epoll, place(arena, events, events + most * epollEvent.size), most, timeout)
      return n < 0 ? -errno() : n
    },
    eventfd(initial, flags) {
      const n = c.eventfd(initial, flags | 0x8_0000)
      return n < 0 ? -errno() : n
    },
    splice(from, to, length, flags) {
      const n = c.splice(from, 0, to, 0, length, flags)
      return n < 0 ? -errno() : n
    },
    pipe(flags) {
      const n = c.pipe2(at, flags | 0x8_0000)
      return n < 0 ? -errno() : [words[0]!, words[1]!]
    },
    fcntl(fd, command, argument) {
      const n = c.fcntl(fd, command, argument)
      return n < 0 ? -errno() : n
    },
    dup3(fd, to, flags) {
      const n = c.dup3(fd, to, flags)
      return n < 0 ? -errno() : n
    },
    setns(fd, kind) {
      const n = c.setns(fd, kind)
      return n < 0 ? -errno() : n
    },
    unshare(flags) {
      const n = c.unshare(flags)
      return n < 0 ? -errno() : n
    },
    prctl(option, argument) {
      const n = c.prctl(option, argument, 0, 0, 0)
      return n < 0 ? -errno() : n
    },
    nanosleep(nanoseconds) {
      time[0] = BigInt(Math.floor(nanoseconds / 1e9))
      time[1] = BigInt(nanoseconds % 1e9)
      const n = c.nanosleep(at + 128, 0)
      return n < 0 ? -errno() : n
    },
    syscall(number, ...args) {
      const n = c.syscall(number, args[0] ?? 0, args[1] ?? 0, args[2] ?? 0, args[3] ?? 0, args[4] ?? 0, args[5] ?? 0)
      return n < 0 ? -errno() : n
    },
  }
}

/** A descriptor that libuv polls for us. Keep it in a field: what nobody holds is collected, and goes silent. */
export interface Watch {
  /** Ends the watching; the descriptor stays open. */
  close(): void
  /** Whether it keeps the process alive (at first it does). */
  ref(): void
  unref(): void
}

/**
 * Calls `ready` from the event loop whenever `fd` (a socket, or a whole epoll descriptor) is readable, until closed. Level-triggered: read until there is no more, or it comes again at once.
 * `apart`: not from inside the native callback but right after it, at a small price. A worker that is terminated while it runs inside the callback takes the whole process with it.
 * What `ready` throws goes to `failed`: left alone it would stay pending inside N-API and end the process at some later garbage collection, naming nothing of ours.
 */
export function watch(fd: number, ready: () => void, failed: (error: unknown) => void = raise, apart = false): Watch {
  let open = true
  const told = (): void => {
    if (!open) return
    try {
      ready()
    } catch (error) {
      failed(error)
    }
  }
  const handle = required().node.poll(fd, { readable: true }, apart ? () => void setImmediate(told) : told)
  return { close: () => ((open = false), handle.close()), ref: () => handle.ref(), unref: () => handle.unref() }
}

function raise(error: unknown): void {
  process.nextTick(() => {
    throw error
  })
}
