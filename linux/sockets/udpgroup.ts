import type { Address, Bound } from '../../lib/sockets/seam.ts'
import { SocketError } from '../../lib/sockets/errors.ts'
import * as k from '../ffi/constants.ts'
import { errnoName } from '../ffi/errno.ts'
import { Arena, syscalls } from '../ffi/ffi.ts'
import { readSockaddr } from '../ffi/sockaddr.ts'
import { openApart, sentTo, type Apart, type Surroundings } from './datagrams.ts'
import { UdpRing } from './udpring.ts'
import { Control, type UdpShare } from './udpworker.ts'

/** A datagram that a worker did not answer; its octets are lent until the call returns. */
export type Handed = (b: Buffer, from: number, to: number, peer: Address, local: Address, bound: Bound) => void

/** Datagrams the main thread takes in one turn, before others get theirs. */
const mostATurn = 256

/** The main thread's half of sockets that workers read: opens them, answers what workers hand over, ends them. */
export class UdpGroup {
  readonly address: Address
  /** One for each worker. */
  readonly shares: readonly UdpShare[]
  readonly #sockets: readonly Apart[]
  readonly #rings: readonly UdpRing[]
  readonly #controls: readonly Int32Array[]
  readonly #handed: Handed
  readonly #shut = (): void => this.stop()
  #generation = 0
  #closed = false

  /** Binds `count` sockets at one address, among which the kernel spreads datagrams at random: by address a few clients would all meet one worker. */
  constructor(at: Address, options: { readonly count: number; readonly nap: number; readonly handed: Handed }) {
    const { count } = options
    const place = surroundings()
    const { sys, arena } = place
    const sockets: Apart[] = []
    try {
      for (let i = 0; i < count; i++) {
        const s = openApart(place, { host: at.host, port: sockets[0]?.address.port ?? at.port }, { reusePort: count > 1 })
        sockets.push(s)
        // The net below the exit hook: nobody waits in a call for longer than that.
        arena.buffer.writeBigInt64LE(1n, optionAt)
        arena.buffer.writeBigInt64LE(0n, optionAt + 8)
        sys.setsockopt(s.fd, k.SOL_SOCKET, k.SO_RCVTIMEO, arena, optionAt, optionAt + 16)
        // Answers are short enough for every path: what somebody claims a path's MTU to be is not believed (RFC 9715).
        if (s.six) sys.setOption(s.fd, k.IPPROTO_IPV6, k.IPV6_MTU_DISCOVER, k.IP_PMTUDISC_PROBE)
        sys.setOption(s.fd, k.IPPROTO_IP, k.IP_MTU_DISCOVER, k.IP_PMTUDISC_PROBE)
      }
      if (count > 1) spread(place, sockets[0]!.fd, count, at)
    } catch (error) {
      for (const s of sockets) s.close()
      throw error
    }
    this.#sockets = sockets
    this.#handed = options.handed
    this.address = sockets[0]!.address
    this.#rings = sockets.map(() => new UdpRing())
    const controls = sockets.map(() => new SharedArrayBuffer(Control.words * 4))
    this.#controls = controls.map((c) => new Int32Array(c))
    this.shares = sockets.map((s, i) => ({ fd: s.fd, six: s.six, wildcard: s.wildcard, control: controls[i]!, ring: this.#rings[i]!.memory, nap: options.nap }))
    // Whoever waits in a call would hold up the end of the process for ever.
    process.on('exit', this.#shut)
  }

  /** Datagrams that got lost because nobody was quick enough. */
  get dropped(): number {
    return this.#sockets.reduce((sum, s, i) => sum + s.dropped + this.#rings[i]!.refused, 0)
  }

  /** Workers that were not told of this generation let the main thread answer until they are. */
  get generation(): number {
    return this.#generation
  }
  set generation(value: number) {
    this.#generation = value
    for (const c of this.#controls) Atomics.store(c, Control.generation, value)
  }

  /** Takes what worker `i` handed over; call it when that worker rings. */
  drain(i: number): void {
    if (this.#closed) return
    const bound = this.#sockets[i]!
    const more = this.#rings[i]!.drain(mostATurn, (b, from, to, name, control, length) => {
      const peer = readSockaddr(b, name)
      if (peer !== undefined) this.#handed(b, from, to, peer, length === 0 ? bound.address : sentTo(b, control, length, bound.address), bound)
    })
    if (more) setImmediate(() => this.drain(i))
  }

  /** Lets the workers end, after what has come by now. Answers can still be sent. */
  stop(): void {
    if (this.#closed) return
    for (const [i, s] of this.#sockets.entries()) {
      Atomics.store(this.#controls[i]!, Control.stop, 1)
      // It says that nobody is connected, and wakes whoever waits.
      surroundings().sys.shutdown(s.fd, k.SHUT_RD)
    }
  }

  /** Call it when the workers have ended. */
  close(): void {
    if (this.#closed) return
    this.stop()
    this.#closed = true
    process.off('exit', this.#shut)
    for (const s of this.#sockets) s.close()
  }
}

/** Three instructions of classic BPF: a random number, modulo the number of sockets. */
function spread(place: Surroundings, fd: number, count: number, at: Address): void {
  const { sys, arena } = place
  const b = arena.buffer
  const program = [
    [0x20, -0x1000 + 56], // ld [SKF_AD_OFF + SKF_AD_RANDOM]
    [0x94, count], // mod #count
    [0x16, 0], // ret a
  ] as const
  for (const [i, [code, value]] of program.entries()) {
    b.writeUInt32LE(code, programAt + i * 8)
    b.writeInt32LE(value, programAt + i * 8 + 4)
  }
  b.writeBigUInt64LE(BigInt(program.length), optionAt)
  arena.setPointer(optionAt + 8, arena, programAt, programAt + program.length * 8)
  const r = sys.setsockopt(fd, k.SOL_SOCKET, k.SO_ATTACH_REUSEPORT_CBPF, arena, optionAt, optionAt + 16)
  if (r < 0) throw new SocketError('spread datagrams at', at, errnoName(r))
}

const nameAt = 0
const optionAt = 64
const programAt = 128

let made: Surroundings | undefined
function surroundings(): Surroundings {
  return (made ??= { sys: syscalls(), arena: new Arena(4096), nameAt, optionAt, forget: () => {}, later: (f) => void setImmediate(f), nextGeneration: () => 0 })
}
