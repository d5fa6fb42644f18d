import { performance } from 'node:perf_hooks'
import * as k from '../ffi/constants.ts'
import { E } from '../ffi/errno.ts'
import { Arena, syscalls } from '../ffi/ffi.ts'
import { ringed, UdpRing } from './udpring.ts'

/** Words that both threads look at. */
export const Control = { stop: 0, generation: 1, failures: 2, words: 16 } as const

/** What a worker is given of a group: shared memory and the number of a socket that the main thread opened. */
export interface UdpShare {
  readonly fd: number
  readonly six: boolean
  readonly wildcard: boolean
  readonly control: SharedArrayBuffer
  readonly ring: SharedArrayBuffer
  /** Nanoseconds slept before the next read when few datagrams came soon after others; 0: not at all. */
  readonly nap: number
}

/** What a worker does with datagrams. */
export interface UdpDuties {
  /** Octets of the answer, written in place over b[from, …room); 0: none; -1: the main thread shall see it. `six`: it came by IPv6. */
  answer(b: Buffer, from: number, to: number, room: number, six: boolean): number
  /** `n` datagrams were answered within `ms`. */
  took(ms: number, n: number): void
  /** The main thread sleeps, and there is something for it. */
  bell(): void
}

/** Datagrams taken by one call. */
const batch = 64
/** No power of two, or all datagrams of a batch fall into the same few cache sets; room for the longest answer. */
const stride = ringed + 4096 + 192
/** A batch is small below so many datagrams, and soon when it began less than so many milliseconds after the one before. */
const small = 8
const soon = 0.2

// Offsets in the arena: headers both ways, so that a datagram without answer leaves no hole.
const receiveAt = 0
const sendAt = receiveAt + batch * 64
const receiveVectorAt = sendAt + batch * 64
const sendVectorAt = receiveVectorAt + batch * 16
const nameAt = sendVectorAt + batch * 16
const controlAt = nameAt + batch * 32
const packetAt = controlAt + batch * 64

/**
 * Reads and answers the datagrams of one socket, in calls that wait: nothing else runs in this thread meanwhile. Returns when `stop` is set, after what had come by then,
 * or when `generation` is no more the one given: then the thread has to learn something first, and its last batch went to the main thread.
 * Not seen from outside: a thread that waits in a call holds up `process.exit()` and `terminate()`, so whoever ends it sets `stop` and shuts the socket (`UdpGroup` does).
 */
export class UdpWorker {
  readonly #share: UdpShare
  readonly #control: Int32Array
  readonly #ring: UdpRing
  readonly #arena = new Arena(packetAt + batch * stride)
  readonly #sys = syscalls()
  /** Low halves of pointers that change from answer to answer. */
  readonly #packetLow: Int32Array
  readonly #nameLow: Int32Array
  readonly #controlLow: Int32Array

  constructor(share: UdpShare) {
    this.#share = share
    this.#control = new Int32Array(share.control)
    this.#ring = new UdpRing(share.ring)
    const arena = this.#arena
    const b = arena.buffer
    const low = (at: number, each: number, size: number): Int32Array => Int32Array.from({ length: batch }, (_, i) => arena.pointer(at + i * each, at + i * each + size) | 0)
    this.#packetLow = low(packetAt, stride, stride)
    this.#nameLow = low(nameAt, 32, 28)
    this.#controlLow = low(controlAt, 64, 64)
    for (let i = 0; i < batch; i++) {
      for (const [headers, vectors] of [
        [receiveAt, receiveVectorAt],
        [sendAt, sendVectorAt],
      ] as const) {
        const h = headers + i * 64
        const v = vectors + i * 16
        arena.setPointer(h + k.msghdr.name, arena, nameAt + i * 32, nameAt + i * 32 + 28)
        b.writeUInt32LE(share.six ? 28 : 16, h + k.msghdr.namelen)
        arena.setPointer(h + k.msghdr.iov, arena, v, v + 16)
        b.writeBigUInt64LE(1n, h + k.msghdr.iovlen)
        arena.setPointer(h + k.msghdr.control, arena, controlAt + i * 64, controlAt + i * 64 + 64)
        b.writeBigUInt64LE(share.wildcard ? 64n : 0n, h + k.msghdr.controllen)
        arena.setPointer(v, arena, packetAt + i * stride, packetAt + i * stride + stride)
        b.writeBigUInt64LE(BigInt(ringed), v + 8)
      }
    }
    // The kernel rounds sleeps up by 50 µs unless told otherwise.
    if (share.nap > 0) this.#sys.prctl(k.PR_SET_TIMERSLACK, 1000)
  }

  run(generation: number, duties: UdpDuties): 'stop' | 'generation' {
    const { fd, six, wildcard, nap } = this.#share
    const control = this.#control
    const sys = this.#sys
    const arena = this.#arena
    const b = arena.buffer
    const h = new Int32Array(b.buffer, b.byteOffset, packetAt >> 2)
    const packetLow = this.#packetLow
    const nameLow = this.#nameLow
    const controlLow = this.#controlLow
    let sleepy = false
    let last = 0
    for (;;) {
      if (sleepy && nap > 0) sys.nanosleep(nap)
      const stopping = Atomics.load(control, Control.stop) !== 0
      const n = sys.recvmmsg(fd, arena, receiveAt, batch, stopping ? k.MSG_DONTWAIT : k.MSG_WAITFORONE)
      if (n <= 0) {
        if (stopping) return 'stop'
        if (n !== -E.EINTR && n !== -E.EAGAIN) Atomics.add(control, Control.failures, 1)
        continue
      }
      const began = performance.now()
      sleepy = n < small && began - last < soon
      last = began
      const current = Atomics.load(control, Control.generation) === generation
      let answers = 0
      let done = 0
      let over = false
      for (let i = 0; i < n; i++) {
        const r = (receiveAt >> 2) + (i << 4)
        const length = h[r + 14]!
        // A socket that was shut gives datagrams of nobody and nothing.
        if (h[r + 2] === 0) {
          over = true
          h[r + 2] = six ? 28 : 16
          continue
        }
        const name = nameAt + i * 32
        const controls = h[r + 10]!
        h[r + 10] = wildcard ? 64 : 0
        // Nobody can be answered at port 0, and it breaks batches; and of what was cut nothing is known.
        if ((b[name + 2]! | b[name + 3]!) === 0 || (h[r + 12]! & k.MSG_TRUNC) !== 0) continue
        const from = packetAt + i * stride
        const out = current ? duties.answer(b, from, from + length, from + stride, six && !(h[(name >> 2) + 4] === -0x10000 && (h[(name >> 2) + 2]! | h[(name >> 2) + 3]!) === 0)) : -1
        if (out > 0) {
          const t = (sendAt >> 2) + (answers << 4)
          const v = (sendVectorAt >> 2) + (answers << 2)
          h[t] = nameLow[i]!
          h[v] = packetLow[i]!
          h[v + 2] = out
          if (wildcard) {
            h[t + 8] = controlLow[i]!
            h[t + 10] = controls
            const c = controlAt + i * 64 + k.cmsghdr.data
            // Routing decides the way out; only link-local addresses need their device.
            if (!six) h[c >> 2] = 0
            else if (b[c] !== 0xfe) h[(c + k.in6Pktinfo.ifindex) >> 2] = 0
          }
          answers++
          done++
        } else if (out === 0) done++
        else this.#ring.put(b, from, from + length, name, controlAt + i * 64, wildcard ? controls : 0)
      }
      for (let sent = 0; sent < answers;) {
        const s = sys.sendmmsg(fd, arena, sendAt + sent * 64, answers - sent, k.MSG_DONTWAIT)
        if (s > 0) sent += s
        // That one cannot go; those behind it can.
        else if (s !== -E.EINTR) {
          Atomics.add(control, Control.failures, 1)
          sent++
        }
      }
      if (done > 0) duties.took(performance.now() - began, done)
      if (done < n && this.#ring.bell()) duties.bell()
      if (over && stopping) return 'stop'
      if (!current) return 'generation'
    }
  }
}
