import { alertRecord, readClientHello } from '../lib/sockets/clienthello.ts'
import type { Address, Protocol, TlsInfo, Wire } from '../lib/sockets/seam.ts'
import { readProxy } from './proxyprotocol.ts'

/** What a door does with a connection once it has seen its first bytes. */
export interface DoorOptions {
  /** Every connection begins with a header of the PROXY protocol, which is believed. */
  readonly proxied: boolean
  /** Behind it comes TLS; the name in its first message is looked at. */
  readonly secure: boolean
  /** The protocol for a connection; `serverName` is what TLS asks for. Undefined refuses it. */
  inside(serverName: string | undefined): Protocol | undefined
}

/** Milliseconds for the first bytes. */
export const doorTimeout = 10_000

/** Looks at the first bytes of a connection before anybody else does: who it is for, and for whom it speaks. Then it only hands on. */
export class Door implements Protocol {
  readonly #options: DoorOptions
  readonly #done: (door: Door) => void
  wire!: Wire
  #inside: Protocol | undefined
  #held: Buffer | undefined
  #shown: Wire | undefined
  #refused = false
  #eof = false

  /** `waiting`: told when the door begins to wait; `done`: when it does no longer. */
  constructor(options: DoorOptions, waiting: (door: Door) => void, done: (door: Door) => void) {
    this.#options = options
    this.#done = done
    waiting(this)
  }

  opened(w: Wire): void {
    this.wire = w
  }

  data(b: Buffer, from: number, to: number): void {
    if (this.#inside !== undefined) return this.#inside.data(b, from, to)
    if (this.#refused) return
    this.#held = this.#held === undefined ? Buffer.from(b.subarray(from, to)) : Buffer.concat([this.#held, b.subarray(from, to)])
    this.#look()
  }

  #look(): void {
    let held = this.#held!
    if (this.#options.proxied && this.#shown === undefined) {
      const said = readProxy(held, 0, held.length)
      if (said === 'more') return
      if (said === 'bad') return this.#refuse()
      this.#shown = said.peer === undefined ? this.wire : new NamedWire(this.wire, said.peer, said.local ?? this.wire.local)
      this.#held = held = held.subarray(said.end)
    }
    let name: string | undefined
    if (this.#options.secure) {
      const hello = readClientHello(held, 0, held.length)
      if (hello === 'more') return
      if (hello === 'bad') return this.#refuse(50)
      name = hello.serverName
    }
    const inside = this.#options.inside(name)
    if (inside === undefined) return this.#refuse(112)
    this.#done(this)
    this.#inside = inside
    this.#held = undefined
    inside.opened(this.#shown ?? this.wire)
    if (held.length > 0) inside.data(held, 0, held.length)
    if (this.#eof) inside.eof()
  }

  #refuse(alert?: number): void {
    this.#refused = true
    this.#done(this)
    if (alert === undefined) return this.wire.abort()
    const record = alertRecord(alert)
    this.wire.write(record, 0, record.length)
    this.wire.end()
  }

  drain(): void {
    this.#inside?.drain()
  }
  eof(): void {
    this.#eof = true
    if (this.#inside !== undefined) this.#inside.eof()
    else this.wire.end()
  }
  closed(why: string): void {
    if (this.#inside === undefined) this.#done(this)
    else this.#inside.closed(why)
  }
}

/** A wire whose other end is who a proxy in front says it is. */
class NamedWire implements Wire {
  readonly peer: string
  readonly peerPort: number
  readonly local: Address
  readonly #wire: Wire
  constructor(wire: Wire, peer: Address, local: Address) {
    this.#wire = wire
    this.peer = peer.host
    this.peerPort = peer.port
    this.local = local
  }
  get tls(): TlsInfo | undefined {
    return this.#wire.tls
  }
  get alive(): boolean {
    return this.#wire.alive
  }
  write(b: Buffer, from: number, to: number, more?: boolean): boolean {
    return this.#wire.write(b, from, to, more)
  }
  pause(): void {
    this.#wire.pause()
  }
  resume(): void {
    this.#wire.resume()
  }
  end(): void {
    this.#wire.end()
  }
  abort(): void {
    this.#wire.abort()
  }
}
