import * as k from './constants.ts'
import { E, errnoName } from './errno.ts'
import { Arena, missing, syscalls } from './ffi.ts'
import { readSockaddr, writeSockaddr } from './sockaddr.ts'

/**
 * Why direct system calls cannot be used here, in words for a log line; undefined when every layout and call was seen to work:
 * data comes back from epoll, the guards of an arena hold, datagrams cross a loopback pair in a batch and tell where they were sent to.
 */
export function selfTest(): string | undefined {
  if (missing !== undefined) return missing
  const open: number[] = []
  const keep = (what: string, fd: number): number => {
    if (fd < 0) throw new Error(`${what}: ${errnoName(fd)}`)
    open.push(fd)
    return fd
  }
  try {
    const sys = syscalls()
    const arena = new Arena(64 * 1024)
    epollBringsDataBack(sys, arena, keep)
    guardsHold(sys, arena, keep)
    batchesCross(sys, arena, keep)
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  } finally {
    for (const fd of open) syscalls().close(fd)
  }
}

type Sys = ReturnType<typeof syscalls>
type Keep = (what: string, fd: number) => number

function must(what: string, result: number): number {
  if (result < 0) throw new Error(`${what}: ${errnoName(result)}`)
  return result
}

function epollBringsDataBack(sys: Sys, arena: Arena, keep: Keep): void {
  const epoll = keep('epoll_create1', sys.epollCreate())
  const event = keep('eventfd', sys.eventfd(1, k.EFD_NONBLOCK))
  const second = keep('eventfd', sys.eventfd(1, k.EFD_NONBLOCK))
  must('epoll_ctl', sys.epollControl(epoll, k.EPOLL_CTL_ADD, event, k.EPOLLIN, 0x1234_5678, -77))
  must('epoll_ctl', sys.epollControl(epoll, k.EPOLL_CTL_ADD, second, k.EPOLLIN, 42, 43))
  const n = must('epoll_wait', sys.epollWait(epoll, arena, 0, 4, 0))
  const seen = Array.from({ length: n }, (_, i) => {
    const at = i * k.epollEvent.size
    return `${arena.buffer.readUInt32LE(at)} ${arena.buffer.readInt32LE(at + k.epollEvent.data)} ${arena.buffer.readInt32LE(at + k.epollEvent.data + 4)}`
  })
  if (seen.toSorted().join(', ') !== '1 305419896 -77, 1 42 43') throw new Error(`struct epoll_event is laid out otherwise here: ${seen.join(', ')}`)
}

function guardsHold(sys: Sys, arena: Arena, keep: Keep): void {
  const pair = sys.socketpair(k.AF_UNIX, k.SOCK_DGRAM | k.SOCK_NONBLOCK, 0)
  if (typeof pair === 'number') throw new Error(`socketpair: ${errnoName(pair)}`)
  pair.forEach((fd) => keep('socketpair', fd))
  arena.buffer.fill(7, 0, 64)
  must('send', sys.send(pair[0], arena, 0, 64, 0))
  // Deliberately past the end, behind the back of the checks: the kernel must refuse, not write.
  const behind = arena.pointer(arena.size, arena.size)
  const n = sys.syscall(process.arch === 'x64' ? 45 : 207, pair[1], behind, 64, k.MSG_DONTWAIT, 0, 0)
  if (n !== -E.EFAULT) throw new Error(`the page behind an arena can be written (recvfrom gave ${n < 0 ? errnoName(n) : n})`)
  if (sys.recv(pair[1], arena, 0, 64, 0) >= 0) {
    // Some kernels keep the datagram after EFAULT, some drop it; both are fine.
  }
}

function batchesCross(sys: Sys, arena: Arena, keep: Keep): void {
  const b = arena.buffer
  const names = 4096
  const server = keep('socket', sys.socket(k.AF_INET, k.SOCK_DGRAM | k.SOCK_NONBLOCK, 0))
  const client = keep('socket', sys.socket(k.AF_INET, k.SOCK_DGRAM | k.SOCK_NONBLOCK, 0))
  const length = writeSockaddr(b, names, '127.0.0.1', 0)
  for (const fd of [server, client]) must('bind to 127.0.0.1', sys.bind(fd, arena, names, names + length))
  must('IP_PKTINFO', sys.setOption(server, k.IPPROTO_IP, k.IP_PKTINFO, 1))
  must('getsockname', sys.getsockname(client, arena, names, names + 28))
  const from = readSockaddr(b, names)!
  must('getsockname', sys.getsockname(server, arena, names, names + 28))
  // Two messages out: headers at 0, iovecs at 512, octets at 1024 and 1100; the name is the server's.
  for (let i = 0; i < 2; i++) {
    b.fill(0, i * 64, i * 64 + 64)
    arena.setPointer(i * 64 + k.msghdr.name, arena, names, names + 28)
    b.writeUInt32LE(16, i * 64 + k.msghdr.namelen)
    arena.setPointer(i * 64 + k.msghdr.iov, arena, 512 + i * 16, 528 + i * 16)
    b.writeBigUInt64LE(1n, i * 64 + k.msghdr.iovlen)
    arena.setPointer(512 + i * 16, arena, 1024 + i * 76, 1100 + i * 76)
    b.writeBigUInt64LE(BigInt(3 + i), 512 + i * 16 + 8)
    b.fill(65 + i, 1024 + i * 76, 1100 + i * 76)
  }
  const sent = must('sendmmsg', sys.sendmmsg(client, arena, 0, 2, 0))
  if (sent !== 2) throw new Error(`sendmmsg took ${sent} of 2 messages`)
  const back = 8192
  for (let i = 0; i < 2; i++) {
    const at = back + i * 64
    b.fill(0, at, at + 64)
    arena.setPointer(at + k.msghdr.name, arena, back + 2048 + i * 32, back + 2080 + i * 32)
    b.writeUInt32LE(28, at + k.msghdr.namelen)
    arena.setPointer(at + k.msghdr.iov, arena, back + 512 + i * 16, back + 528 + i * 16)
    b.writeBigUInt64LE(1n, at + k.msghdr.iovlen)
    arena.setPointer(back + 512 + i * 16, arena, back + 1024 + i * 128, back + 1152 + i * 128)
    b.writeBigUInt64LE(128n, back + 512 + i * 16 + 8)
    arena.setPointer(at + k.msghdr.control, arena, back + 3072 + i * 64, back + 3136 + i * 64)
    b.writeBigUInt64LE(64n, at + k.msghdr.controllen)
  }
  const got = must('recvmmsg', sys.recvmmsg(server, arena, back, 2, k.MSG_DONTWAIT))
  const seen = Array.from({ length: got }, (_, i) => {
    const at = back + i * 64
    const size = b.readUInt32LE(at + k.mmsghdr.len)
    const control = back + 3072 + i * 64
    const peer = readSockaddr(b, back + 2048 + i * 32)
    return `${b.toString('latin1', back + 1024 + i * 128, back + 1024 + i * 128 + size)} from ${peer?.host}:${peer?.port === from.port ? 'client' : peer?.port} control ${b.readUInt32LE(control)} ${b.readInt32LE(control + 8)} ${b.readInt32LE(control + 12)} to ${[...b.subarray(control + 24, control + 28)].join('.')}`
  })
  const wanted = ['AAA', 'BBBB'].map((text) => `${text} from 127.0.0.1:client control 28 0 8 to 127.0.0.1`)
  if (seen.join('; ') !== wanted.join('; ')) throw new Error(`datagrams in a batch came back as ${seen.join('; ') || 'nothing'}`)
}
