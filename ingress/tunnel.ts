import type { Driver, Protocol, Wire } from '../lib/sockets/seam.ts'
import type { Endpoint, Upstream } from './table.ts'
import { writeProxy } from './proxyprotocol.ts'

/** Bytes of a client that wait for an endpoint. */
const mostHeld = 262_144

export interface TunnelOptions {
  readonly driver: Driver
  /** Milliseconds to connect to one endpoint. */
  readonly connectTimeout: number
  /** Tells the endpoint by the PROXY protocol who the client is. */
  readonly announces: boolean
  /** Takes what the client says only when it has said it: otherwise the endpoint is asked at once, since it may speak first. */
  readonly failed?: (why: string) => void
  readonly ended?: (bytesIn: number, bytesOut: number) => void
}

const turns = new Map<string, number>()

/** The endpoints of `upstream`, beginning with the next one's turn. */
export function inTurn(upstream: Upstream): readonly Endpoint[] {
  const { endpoints, name } = upstream
  const at = turns.get(name) ?? 0
  turns.set(name, (at + 1) % 1_000_003)
  return endpoints.map((_, i) => endpoints[(at + i) % endpoints.length]!)
}

/** Carries a connection's bytes to one of the endpoints and back, without a look at them. */
export class Tunnel implements Protocol {
  readonly #options: TunnelOptions
  readonly #left: Endpoint[]
  #client: Wire | undefined
  #up: Wire | undefined
  #standing = false
  /** What the client said before an endpoint was found: another one must get it too. */
  #held: Buffer[] = []
  #heldLength = 0
  #eof = false
  #over = false
  #in = 0
  #out = 0

  constructor(upstream: Upstream, options: TunnelOptions) {
    this.#options = options
    this.#left = [...inTurn(upstream)]
  }

  opened(w: Wire): void {
    this.#client = w
    this.#next('')
  }

  #next(why: string): void {
    const client = this.#client!
    const endpoint = this.#left.shift()
    if (endpoint === undefined) {
      this.#options.failed?.(why === '' ? 'no endpoint' : why)
      this.#over = true
      client.abort()
      return
    }
    const { driver, connectTimeout, announces } = this.#options
    const up: Protocol = {
      opened: (w) => {
        this.#standing = true
        for (const piece of this.#held) w.write(piece, 0, piece.length)
        this.#held = []
        this.#heldLength = 0
        client.resume()
        if (this.#eof) w.end()
        driver.splice(client, w)
      },
      data: (b, from, to) => {
        this.#out += to - from
        if (!client.write(b, from, to)) this.#up!.pause()
      },
      drain: () => client.resume(),
      eof: () => client.end(),
      closed: (reason) => {
        this.#up = undefined
        if (this.#over) return
        if (!this.#standing) this.#next(reason)
        else if (reason === '') client.end()
        else client.abort()
      },
    }
    this.#up = driver.connect({ host: endpoint.address, port: endpoint.port }, up, { timeout: connectTimeout })
    if (announces) {
      const header = writeProxy({ host: client.peer, port: client.peerPort }, client.local)
      this.#up.write(header, 0, header.length)
    }
  }

  data(b: Buffer, from: number, to: number): void {
    this.#in += to - from
    if (this.#standing) {
      if (this.#up !== undefined && !this.#up.write(b, from, to)) this.#client!.pause()
      return
    }
    this.#held.push(Buffer.from(b.subarray(from, to)))
    this.#heldLength += to - from
    if (this.#heldLength >= mostHeld) this.#client!.pause()
  }
  drain(): void {
    this.#up?.resume()
  }
  eof(): void {
    this.#eof = true
    if (this.#standing) this.#up?.end()
  }
  closed(why: string): void {
    this.#over = true
    this.#held = []
    if (why === '') this.#up?.end()
    else this.#up?.abort()
    this.#options.ended?.(this.#in, this.#out)
  }
}
