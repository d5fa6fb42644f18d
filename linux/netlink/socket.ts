import { closeSync, openSync } from 'node:fs'
import { AF_NETLINK, CLONE_NEWNET, MSG_DONTWAIT, SO_RCVBUFFORCE, SO_SNDBUFFORCE, SOCK_NONBLOCK, SOCK_RAW, SOL_SOCKET } from '../ffi/constants.ts'
import { checked, E, errnoName, SystemError } from '../ffi/errno.ts'
import { Arena, syscalls, type Syscalls } from '../ffi/ffi.ts'
import type { Netlink, NetlinkProtocol } from '../kernel.ts'
import { attributes, F, HEADER, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, textOf } from './codec.ts'

const numbers: Readonly<Record<NetlinkProtocol, number>> = { route: 0, netfilter: 12, generic: 16 }

const SOL_NETLINK = 270
const NETLINK_CAP_ACK = 10
const NETLINK_EXT_ACK = 11

/** One message the kernel refused. */
export interface Failure {
  readonly sequence: number
  readonly errno: number
  /** The kernel's own words, where it has some. */
  readonly words: string
}

/** A request of which the kernel refused at least one message. `code` and `errno` are of the first. */
export class NetlinkError extends SystemError {
  readonly failures: readonly Failure[]
  /** What came back beside the refusals. */
  readonly answers: readonly Uint8Array[]

  constructor(protocol: string, failures: readonly Failure[], answers: readonly Uint8Array[]) {
    const first = failures[0]!
    super(`netlink ${protocol}: message ${first.sequence}${failures.length > 1 ? ` and ${failures.length - 1} more` : ''}`, first.errno)
    if (first.words !== '') this.message += ` (${first.words})`
    this.failures = failures
    this.answers = answers
  }
}

/** Where a socket is opened. */
export interface NetlinkOptions {
  /** A network namespace as a file, e.g. `/run/netns/a`; the thread's own if left out. */
  readonly namespace?: string
}

// One pair of arenas a thread: the kernel handles a request before `send` returns, so no two are ever under way.
let sending: Arena | undefined
let receiving: Arena | undefined

/**
 * A socket to the kernel. A request is handled whole while `request` runs, without waiting: the kernel acts, and queues its answers, inside `send`.
 * Answers are single messages, header included, without acknowledgements. When any message fails, `request` rejects with a `NetlinkError` that names each.
 */
export function openNetlink(protocol: NetlinkProtocol, options: NetlinkOptions = {}): Netlink {
  const sys = syscalls()
  const fd = options.namespace === undefined ? open(sys, protocol) : insideNamespace(sys, options.namespace, () => open(sys, protocol))
  let sendBuffer = 0
  let closed = false
  receiving ??= new Arena(512 * 1024)
  return {
    async request(message) {
      if (closed) throw new Error(`netlink ${protocol}: the socket is closed`)
      drain(sys, fd, receiving!)
      const given = Arena.of(message)
      const arena = given ?? copied(message)
      const from = given === undefined ? 0 : message.byteOffset - given.buffer.byteOffset
      if (message.length > 64 * 1024 && message.length * 2 > sendBuffer) {
        // Without privilege over the machine (a user namespace) this is refused; long batches then end in EMSGSIZE, and their makers cut them.
        sendBuffer = message.length * 2
        sys.setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, sendBuffer)
      }
      const expected = expectations(message)
      checked(`netlink ${protocol}: send of ${message.length} octets`, sys.send(fd, arena, from, from + message.length, 0))
      return collect(sys, fd, protocol, receiving!, expected)
    },
    close() {
      if (closed) return
      closed = true
      sys.close(fd)
    },
  }
}

function open(sys: Syscalls, protocol: NetlinkProtocol): number {
  const fd = checked(`netlink ${protocol}: socket`, sys.socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, numbers[protocol]))
  // Acknowledgements without the request repeated in them, and with words. Old kernels know neither: no harm.
  sys.setOption(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1)
  sys.setOption(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1)
  sys.setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, 8 * 1024 * 1024)
  return fd
}

/** Runs `f` with this thread in the network namespace `file`, and comes back. `f` must not wait. */
export function insideNamespace<T>(sys: Syscalls, file: string, f: () => T): T {
  const own = openSync('/proc/thread-self/ns/net', 'r')
  try {
    const other = openSync(file, 'r')
    try {
      checked(`setns ${file}`, sys.setns(other, CLONE_NEWNET))
      try {
        return f()
      } finally {
        checked('setns back', sys.setns(own, CLONE_NEWNET))
      }
    } finally {
      closeSync(other)
    }
  } finally {
    closeSync(own)
  }
}

function copied(message: Uint8Array): Arena {
  if (sending === undefined || sending.size < message.length) {
    let size = 1024 * 1024
    while (size < message.length) size *= 2
    sending = new Arena(size)
  }
  sending.buffer.set(message)
  return sending
}

/** Sequence numbers of messages that end in an acknowledgement, and of dumps that end in DONE. */
function expectations(message: Uint8Array): Set<number> {
  const b = Buffer.from(message.buffer, message.byteOffset, message.byteLength)
  const expected = new Set<number>()
  for (let at = 0; at + HEADER <= b.length;) {
    const length = b.readUInt32LE(at)
    if (length < HEADER) break
    const flags = b.readUInt16LE(at + 6)
    if ((flags & F.ACK) !== 0 || (flags & F.DUMP) === F.DUMP) expected.add(b.readUInt32LE(at + 8))
    at += (length + 3) & ~3
  }
  return expected
}

function collect(sys: Syscalls, fd: number, protocol: string, arena: Arena, expected: Set<number>): readonly Uint8Array[] {
  const answers: Uint8Array[] = []
  const failures: Failure[] = []
  const b = arena.buffer
  for (;;) {
    const n = sys.recv(fd, arena, 0, arena.size, MSG_DONTWAIT)
    if (n === -E.EINTR) continue
    if (n === -E.EAGAIN) break
    if (n < 0) throw new SystemError(`netlink ${protocol}: receive`, n)
    for (let at = 0; at + HEADER <= n;) {
      const length = b.readUInt32LE(at)
      if (length < HEADER || at + length > n) break
      const type = b.readUInt16LE(at + 4)
      const flags = b.readUInt16LE(at + 6)
      const sequence = b.readUInt32LE(at + 8)
      if (type === NLMSG_ERROR || (type === NLMSG_DONE && length >= HEADER + 4)) {
        const errno = b.readInt32LE(at + HEADER)
        if (errno < 0) failures.push({ sequence, errno, words: words(b.subarray(at, at + length), type, flags) })
        expected.delete(sequence)
      } else if (type === NLMSG_DONE) expected.delete(sequence)
      else if (type !== NLMSG_NOOP) answers.push(Buffer.from(b.subarray(at, at + length)))
      at += (length + 3) & ~3
    }
  }
  if (failures.length > 0) throw new NetlinkError(protocol, failures, answers)
  if (expected.size > 0) throw new Error(`netlink ${protocol}: no answer to message ${[...expected].slice(0, 3).join(', ')}${expected.size > 3 ? ` and ${expected.size - 3} more` : ''}`)
  return answers
}

/** The text of an extended acknowledgement: attributes behind errno and the refused header (with its body, unless it was capped). */
function words(b: Buffer, type: number, flags: number): string {
  if ((flags & 0x200) === 0) return '' // NLM_F_ACK_TLVS
  const capped = (flags & 0x100) !== 0
  const from = type === NLMSG_DONE ? HEADER + 4 : HEADER + 4 + (capped ? HEADER : (b.readUInt32LE(HEADER + 4) + 3) & ~3)
  return textOf(attributes(b, from).get(1))
}

/** Throws away what an earlier request left, so that answers cannot be mixed up. */
function drain(sys: Syscalls, fd: number, arena: Arena): void {
  for (;;) {
    const n = sys.recv(fd, arena, 0, 4096, MSG_DONTWAIT)
    if (n === -E.EAGAIN) return
    if (n < 0 && n !== -E.EINTR && n !== -E.ENOBUFS) throw new Error(`netlink: ${errnoName(n)}`)
  }
}
