import { Duplex } from 'node:stream'
import type { Protocol, Wire } from '../../lib/sockets/seam.ts'

/** A wire as a stream of Node's, for what Node brings and works on streams: HTTP/2, and TLS behind first bytes that were read already. */
export class WireDuplex extends Duplex {
  #wire: Wire | undefined
  /** Bytes that wait for the wire to take more. */
  #taken: (() => void) | undefined
  #gone = false
  /** Why the wire ended, as the driver told it. */
  why = ''

  constructor(wire?: Wire) {
    super({ allowHalfOpen: true, highWaterMark: 262_144 })
    this.#wire = wire
  }

  /** The wire of a connection that is being made: writable before it stands. */
  attach(wire: Wire): this {
    this.#wire = wire
    return this
  }

  /** The driver's side of it. */
  readonly protocol: Protocol = {
    opened: (w) => {
      this.#wire = w
      this.emit('standing', w)
    },
    // Streams keep what they are given, drivers lend it.
    data: (b, from, to) => {
      if (!this.push(Buffer.from(b.subarray(from, to)))) this.#wire!.pause()
    },
    drain: () => {
      const taken = this.#taken
      this.#taken = undefined
      taken?.()
    },
    eof: () => void this.push(null),
    closed: (why) => {
      this.#gone = true
      this.why = why
      this.protocol.drain()
      if (why === '') this.push(null)
      this.destroy(why === '' || why === 'aborted' ? undefined : new Error(why))
    },
  }

  // Duplex.

  override _read(): void {
    this.#wire?.resume()
  }
  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.#put(chunk, done)
  }
  override _writev(chunks: readonly { readonly chunk: Buffer }[], done: (error?: Error) => void): void {
    this.#put(chunks.length === 1 ? chunks[0]!.chunk : Buffer.concat(chunks.map((c) => c.chunk)), done)
  }
  #put(b: Buffer, done: (error?: Error) => void): void {
    const wire = this.#wire
    if (wire === undefined || this.#gone) done(new Error('the connection is closed'))
    else if (wire.write(b, 0, b.length) || !wire.alive) done()
    else this.#taken = done
  }
  override _final(done: (error?: Error) => void): void {
    this.#wire?.end()
    done()
  }
  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.#gone) {
      if (this.writableFinished) this.#wire?.end()
      else this.#wire?.abort()
    }
    done(error)
  }
}
