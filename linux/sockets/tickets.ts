import { randomFillSync } from 'node:crypto'

/** Octets of one key: its name, then the secrets that encrypt and that authenticate. */
export const ticketKeySize = 16 + 32 + 32
/** The key that seals, and those before it that still open: with an hour each, a ticket is good for two hours at least. */
export const ticketKeys = 3
/** Milliseconds a key seals. */
export const ticketRotation = 3_600_000

/** Octets of shared memory that hold the keys: a counter, then the keys, newest first. */
export const ticketRoom = 8 + ticketKeys * ticketKeySize

/** The keys of TLS session tickets, shared by all threads that serve the same names: a session begun with one is resumed by any. Rotated by one of them. */
export class TicketKeys {
  readonly #version: Int32Array
  readonly #keys: Uint8Array

  /** Over memory that somebody else has filled, or over new one with new keys. */
  constructor(buffer?: SharedArrayBuffer, at = 0) {
    const memory = buffer ?? new SharedArrayBuffer(ticketRoom)
    this.#version = new Int32Array(memory, at, 1)
    this.#keys = new Uint8Array(memory, at + 8, ticketKeys * ticketKeySize)
    if (this.version === 0) for (let i = 0; i < ticketKeys; i++) this.rotate()
  }

  /** Changes with each rotation; odd while one is under way. */
  get version(): number {
    return Atomics.load(this.#version, 0)
  }

  /** From now on a new key seals; the oldest opens no more. */
  rotate(): void {
    const key = randomFillSync(Buffer.alloc(ticketKeySize))
    Atomics.add(this.#version, 0, 1)
    this.#keys.copyWithin(ticketKeySize, 0, (ticketKeys - 1) * ticketKeySize)
    this.#keys.set(key)
    Atomics.add(this.#version, 0, 1)
    key.fill(0)
  }

  /** Writes the keys at `at` of `b`, and gives the version they are of. */
  copy(b: Buffer, at: number): number {
    for (;;) {
      const version = this.version
      if ((version & 1) === 1) continue
      b.set(this.#keys, at)
      if (this.version === version) return version
    }
  }
}
