/** Words at the head of a ring. */
const Head = { written: 0, read: 1, sleeping: 2, refused: 3 } as const
const headOctets = 64

/** Datagrams a ring holds; more are refused: who is that far behind gains nothing by more. */
const slots = 256

// Offsets in a slot.
const lengthAt = 0
const controlLengthAt = 4
const nameAt = 8 // 28 octets
const controlAt = 40 // 64 octets
const bytesAt = 104

/** Octets of the longest datagram a ring takes. */
export const ringed = 4096
const slotOctets = bytesAt + ringed

/** One end of a ring of datagrams between two threads: one writes, one reads, nobody waits. */
export class UdpRing {
  readonly memory: SharedArrayBuffer
  readonly #words: Int32Array
  readonly #b: Buffer

  constructor(memory = new SharedArrayBuffer(headOctets + slots * slotOctets)) {
    this.memory = memory
    this.#words = new Int32Array(memory)
    this.#b = Buffer.from(memory)
    // Whoever reads has not looked yet.
    if (Atomics.load(this.#words, Head.written) === 0) Atomics.store(this.#words, Head.sleeping, 1)
  }

  /** Datagrams that found no room. */
  get refused(): number {
    return Atomics.load(this.#words, Head.refused)
  }

  /** Puts a datagram in: its octets, its sender's address (28 octets at `name`) and its control messages. False: no room. */
  put(b: Buffer, from: number, to: number, name: number, control: number, controlLength: number): boolean {
    const words = this.#words
    const written = words[Head.written]!
    if (((written - Atomics.load(words, Head.read)) | 0) >= slots || to - from > ringed) {
      Atomics.add(words, Head.refused, 1)
      return false
    }
    const at = headOctets + (written & (slots - 1)) * slotOctets
    const out = this.#b
    out.writeUInt32LE(to - from, at + lengthAt)
    out.writeUInt32LE(controlLength, at + controlLengthAt)
    b.copy(out, at + nameAt, name, name + 28)
    b.copy(out, at + controlAt, control, control + controlLength)
    b.copy(out, at + bytesAt, from, to)
    Atomics.store(words, Head.written, (written + 1) | 0)
    return true
  }

  /** Whether the reader sleeps and must be woken: true once for each sleep. */
  bell(): boolean {
    return Atomics.exchange(this.#words, Head.sleeping, 0) === 1
  }

  /** Reads at most `most` datagrams; the octets are lent until `take` returns. True: there may be more; false: the bell will tell. */
  drain(most: number, take: (b: Buffer, from: number, to: number, name: number, control: number, controlLength: number) => void): boolean {
    const words = this.#words
    for (let n = 0; n < most; n++) {
      const read = words[Head.read]!
      if (read === Atomics.load(words, Head.written)) {
        Atomics.store(words, Head.sleeping, 1)
        // One may have come between the look and the sleep.
        return read !== Atomics.load(words, Head.written)
      }
      const at = headOctets + (read & (slots - 1)) * slotOctets
      const b = this.#b
      take(b, at + bytesAt, at + bytesAt + b.readUInt32LE(at + lengthAt), at + nameAt, at + controlAt, b.readUInt32LE(at + controlLengthAt))
      Atomics.store(words, Head.read, (read + 1) | 0)
    }
    return true
  }
}
