import type { Driver, Protocol, Wire } from '../../lib/sockets/seam.ts'
import type { Endpoint } from '../table.ts'
import { endpointKey, type Balance } from './balance.ts'

/** Milliseconds that the first, second … endpoint has to answer; the last holds for all later ones. */
const patience = [250, 500, 1000, 2000] as const
/** Endpoints tried for one connection. */
const mostTries = 8

/** What a forwarder counts. */
export interface Counts {
  open: number
  refused: number
  retried: number
}

/** The client's half of a forwarded connection: finds an endpoint that takes it, then hands bytes on, both ways, with ends and resets. */
export class Forwarded implements Protocol {
  readonly #driver: Driver
  readonly #balance: Balance
  readonly #counts: Counts
  #client!: Wire
  #behind: Behind | undefined
  #gone = false
  #tried: Set<string> | undefined

  constructor(driver: Driver, balance: Balance, counts: Counts) {
    this.#driver = driver
    this.#balance = balance
    this.#counts = counts
  }

  opened(w: Wire): void {
    this.#client = w
    this.#counts.open++
    // Nothing is read before there is someone to give it to: an endpoint that refuses has cost the client no byte.
    w.pause()
    this.#next()
  }

  #next(): void {
    const tries = this.#tried?.size ?? 0
    const endpoint = tries >= mostTries ? undefined : this.#balance.pick(this.#client.peer, this.#driver.now, this.#tried)
    if (endpoint === undefined) {
      this.#counts.refused++
      this.#client.abort()
      return
    }
    // A lone endpoint gets the time that the others would have had.
    const last = this.#balance.endpoints.length - tries <= 1
    const timeout = last ? patience.at(-1)! * 2 : patience[Math.min(tries, patience.length - 1)]!
    const behind: Behind = new Behind(this.#client, {
      opened: () => {
        this.#balance.met(this.#client.peer, endpoint, this.#driver.now)
        if (!this.#driver.splice(this.#client, behind.wire)) this.#client.resume()
      },
      failed: () => {
        if (this.#gone) return
        this.#counts.retried++
        this.#tried ??= new Set()
        this.#tried.add(endpointKey(endpoint))
        this.#next()
      },
    })
    this.#behind = behind
    behind.wire = this.#driver.connect({ host: endpoint.address, port: endpoint.port }, behind, { timeout })
  }

  data(b: Buffer, from: number, to: number): void {
    if (!this.#behind!.wire.write(b, from, to)) this.#client.pause()
  }

  drain(): void {
    this.#behind!.wire.resume()
  }

  eof(): void {
    this.#behind!.wire.end()
  }

  closed(why: string): void {
    this.#gone = true
    this.#counts.open--
    if (why !== '') this.#behind?.wire.abort()
  }
}

/** The endpoint's half. */
class Behind implements Protocol {
  wire!: Wire
  readonly #client: Wire
  readonly #told: { opened(): void; failed(): void }
  #open = false

  constructor(client: Wire, told: { opened(): void; failed(): void }) {
    this.#client = client
    this.#told = told
  }

  opened(w: Wire): void {
    this.wire = w
    this.#open = true
    this.#told.opened()
  }

  data(b: Buffer, from: number, to: number): void {
    if (!this.#client.write(b, from, to)) this.wire.pause()
  }

  drain(): void {
    this.#client.resume()
  }

  eof(): void {
    this.#client.end()
  }

  closed(why: string): void {
    if (!this.#open) this.#told.failed()
    else if (why !== '') this.#client.abort()
  }
}

/** Whether `e` is among these. */
export function hasEndpoint(list: readonly Endpoint[], e: Endpoint): boolean {
  return list.some((x) => x.address === e.address && x.port === e.port)
}
