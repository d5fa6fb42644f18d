import type { Address, Batch, Bound, Driver } from '../../lib/sockets/seam.ts'
import type { Endpoint } from '../table.ts'
import { endpointKey, type Balance } from './balance.ts'
import { hasEndpoint, type Counts } from './streams.ts'

/** Sessions one listener may have; the one quiet for longest makes room. */
const mostSessions = 16_384
/** Datagrams kept until an endpoint has answered, so that another one can be asked. */
const mostKept = 8
/** Octets for each direction of a session's socket. */
const sessionBuffer = 256 * 1024

interface Session {
  readonly client: Address
  readonly local: Address
  endpoint: Endpoint
  bound: Bound | undefined
  /** Sent, or to be sent, and not answered. */
  kept: Buffer[]
  answered: boolean
  last: number
  tried: Set<string> | undefined
  closed: boolean
}

/** Forwards datagrams: each client (address and port) talks with one endpoint, through a socket of its own, until it is quiet for a while. */
export class DatagramForwarder {
  readonly #driver: Driver
  readonly #balance: Balance
  readonly #counts: Counts
  /** Milliseconds of quiet after which a session ends. */
  readonly #idle: number
  // A Map keeps the order of use: sessions are put back at the end when they speak.
  readonly #sessions = new Map<string, Session>()
  bound!: Bound

  constructor(driver: Driver, balance: Balance, counts: Counts, idle: number) {
    this.#driver = driver
    this.#balance = balance
    this.#counts = counts
    this.#idle = idle
  }

  received(batch: Batch): void {
    const now = this.#driver.now
    for (let i = 0; i < batch.count; i++) {
      const client = batch.peer(i)
      if (client.port === 0) continue
      const key = `${client.host} ${client.port}`
      let session = this.#sessions.get(key)
      if (session === undefined) {
        session = this.#open(key, client, batch.local(i), now)
        if (session === undefined) continue
      }
      session.last = now
      if (!session.answered && session.kept.length < mostKept) session.kept.push(Buffer.from(batch.bytes.subarray(batch.start(i), batch.end(i))))
      if (session.bound !== undefined) session.bound.send(batch.bytes, batch.start(i), batch.end(i), target(session.endpoint))
    }
  }

  /** Ends sessions that are quiet. */
  sweep(now: number): void {
    this.#balance.sweep(now)
    for (const [key, session] of this.#sessions) if (now - session.last >= this.#idle) this.#end(key, session)
  }

  /** Ends sessions with endpoints that are no more. */
  endpointsChanged(): void {
    for (const [key, session] of this.#sessions) if (!hasEndpoint(this.#balance.endpoints, session.endpoint)) this.#end(key, session)
  }

  close(): void {
    for (const [key, session] of this.#sessions) this.#end(key, session)
    this.bound.close()
  }

  #open(key: string, client: Address, local: Address, now: number): Session | undefined {
    const endpoint = this.#balance.pick(client.host, now)
    if (endpoint === undefined) {
      this.#counts.refused++
      return undefined
    }
    if (this.#sessions.size >= mostSessions) for (const [oldest, session] of this.#sessions) if (this.#end(oldest, session)) break
    const session: Session = { client, local, endpoint, bound: undefined, kept: [], answered: false, last: now, tried: undefined, closed: false }
    this.#sessions.set(key, session)
    this.#counts.open++
    void this.#dial(key, session)
    return session
  }

  async #dial(key: string, session: Session): Promise<void> {
    const { endpoint } = session
    let bound: Bound | undefined
    try {
      bound = await this.#driver.bind({ host: '', port: 0 }, (batch) => this.#answered(session, batch), {
        connect: target(endpoint),
        bufferSize: sessionBuffer,
        failed: () => this.#failed(key, session, endpoint),
      })
    } catch {
      return this.#failed(key, session, endpoint)
    }
    if (session.closed || session.endpoint !== endpoint) return bound.close()
    session.bound = bound
    for (const b of session.kept) bound.send(b, 0, b.length, target(endpoint))
  }

  #answered(session: Session, batch: Batch): void {
    const now = this.#driver.now
    if (!session.answered) {
      session.answered = true
      session.kept = []
      this.#balance.met(session.client.host, session.endpoint, now)
    }
    session.last = now
    for (let i = 0; i < batch.count; i++) this.bound.send(batch.bytes, batch.start(i), batch.end(i), session.client, session.local)
  }

  /** The endpoint's machine says that nobody is there: another one is asked, with what was not answered. */
  #failed(key: string, session: Session, endpoint: Endpoint): void {
    if (session.closed || session.endpoint !== endpoint) return
    session.bound?.close()
    session.bound = undefined
    session.tried ??= new Set()
    session.tried.add(endpointKey(endpoint))
    const other = this.#balance.pick(session.client.host, this.#driver.now, session.tried)
    if (other === undefined) {
      this.#counts.refused++
      this.#end(key, session)
      return
    }
    this.#counts.retried++
    session.endpoint = other
    session.answered = false
    void this.#dial(key, session)
  }

  #end(key: string, session: Session): true {
    session.closed = true
    session.bound?.close()
    this.#sessions.delete(key)
    this.#counts.open--
    return true
  }
}

const target = (e: Endpoint): Address => ({ host: e.address, port: e.port })
