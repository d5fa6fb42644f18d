import { randomBytes, randomInt } from 'node:crypto'
import type { Log } from '../lib/log.ts'
import type { Address, Bound, Driver, Protocol, TlsClient, Wire } from '../lib/sockets/seam.ts'
import { bracketed } from '../lib/ip.ts'
import { bare, type Answer } from './answer.ts'
import { decode, encode, Malformed, opcodeOf, type EdnsOption, type Message, type Question, type Rec } from './wire/message.ts'
import { fold, type Name, root } from './wire/name.ts'
import { Class, Flag, Rcode, rcodeName, Type } from './wire/types.ts'

/** A server that is asked what we do not know. */
export interface UpstreamAddress extends Address {
  readonly tls?: TlsClient
}

export type Policy = 'random' | 'round_robin' | 'sequential'

export interface ForwardOptions {
  readonly upstreams: readonly UpstreamAddress[]
  readonly policy: Policy
  /** Failures in a row after which a server is left out until it answers again. 0: never. */
  readonly maxFails: number
  /** Milliseconds between questions to a server that is left out. */
  readonly healthCheck: number
  /** Always by TCP. */
  readonly forceTcp: boolean
  /** Questions that may wait for upstream at a time; more are refused. */
  readonly maxConcurrent: number
  /** Rcodes for which the next server is asked. */
  readonly failover: ReadonlySet<number>
  /** Milliseconds for one try, and for all. */
  readonly tryTimeout: number
  readonly timeout: number
  readonly name?: string
}

export const forwardDefaults = {
  policy: 'sequential' as Policy,
  maxFails: 2,
  healthCheck: 500,
  forceTcp: false,
  maxConcurrent: 1000,
  failover: new Set<number>([Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP]),
  tryTimeout: 1500,
  timeout: 5000,
}

/** What a forwarder tells of its work. */
export interface ForwardWatcher {
  asked?(to: string, protocol: 'udp' | 'tcp', rcode: number | undefined, ms: number): void
  health?(to: string, healthy: boolean): void
  rejected?(): void
}

/** A question for upstream. */
export interface Asked {
  readonly name: Name
  readonly type: number
  readonly dnssec: boolean
  readonly checkingDisabled: boolean
  /** EDNS options that are sent along. */
  readonly options?: readonly EdnsOption[] | undefined
}

interface Server {
  readonly at: UpstreamAddress
  readonly text: string
  fails: number
  down: boolean
  /** When it was last asked whether it is back, on the driver's clock. */
  probed: number
  stream: Stream | undefined
}

interface Waiting {
  readonly question: Question
  readonly server: Server
  readonly bound: Bound
  /** Answers that came for it but were not: after a few of them somebody is guessing, and TCP is taken. */
  wrong: number
  done(answer: Message | undefined, why: string): void
}

const udpSize = 1232
/** Sockets to ask from: each has a random port, each question takes one at random. */
const sockets = 8

/** Asks other servers: random ids and ports, the answer must echo the question (RFC 5452), equal questions are asked once, TCP where an answer was cut. */
export class Forwarder {
  readonly #driver: Driver
  readonly #options: ForwardOptions
  readonly #log: Log
  readonly #watcher: ForwardWatcher
  readonly #servers: readonly Server[]
  readonly #waiting = new Map<string, Waiting>()
  readonly #flights = new Map<string, Promise<Answer>>()
  readonly #bounds = new Map<4 | 6, Promise<Bound[]>>()
  readonly #open: Bound[] = []
  readonly #stop: () => void
  readonly #out = Buffer.allocUnsafe(1024)
  #turn = 0
  #concurrent = 0
  #closed = false
  /** Set by the loop detection: every question would come back to us. */
  looping: string | undefined

  constructor(driver: Driver, options: ForwardOptions, log: Log, watcher: ForwardWatcher = {}) {
    this.#driver = driver
    this.#options = options
    this.#log = log
    this.#watcher = watcher
    this.#servers = options.upstreams.map((at) => ({ at, text: `${at.tls === undefined ? '' : 'tls://'}${bracketed(at.host)}:${at.port}`, fails: 0, down: false, probed: 0, stream: undefined }))
    this.#stop = driver.every(Math.max(100, options.healthCheck), () => this.#probe())
  }

  get upstreams(): readonly string[] {
    return this.#servers.map((s) => s.text)
  }
  get inFlight(): number {
    return this.#flights.size
  }
  /** Some server is not left out. */
  get healthy(): boolean {
    return this.#servers.some((s) => !s.down)
  }

  /** The answer of the first server that has one. Never rejects. */
  ask(asked: Asked): Promise<Answer> {
    const key = `${asked.type} ${asked.dnssec ? 1 : 0}${asked.checkingDisabled ? 1 : 0}${asked.name}${optionsKey(asked.options)}`
    const flight = this.#flights.get(key)
    if (flight !== undefined) return flight
    if (this.#servers.length === 0) return Promise.resolve(bare(Rcode.SERVFAIL, 'forward', 'no resolver is configured for names outside the cluster'))
    if (this.looping !== undefined) return Promise.resolve(bare(Rcode.SERVFAIL, 'forward', this.looping))
    if (this.#concurrent >= this.#options.maxConcurrent) {
      this.#watcher.rejected?.()
      return Promise.resolve(bare(Rcode.REFUSED, 'forward', `more than ${this.#options.maxConcurrent} questions wait for upstream`))
    }
    this.#concurrent++
    const answer = this.#ask(asked)
      .catch((error: unknown) => {
        this.#log.error('forwarding failed', { error })
        return bare(Rcode.SERVFAIL, 'forward', 'internal error')
      })
      .finally(() => {
        this.#concurrent--
        this.#flights.delete(key)
      })
    this.#flights.set(key, answer)
    return answer
  }

  close(): void {
    this.#closed = true
    this.#stop()
    for (const w of this.#waiting.values()) w.done(undefined, 'the server ends')
    for (const s of this.#servers) s.stream?.close()
    for (const b of this.#open.splice(0)) b.close()
  }

  async #ask(asked: Asked): Promise<Answer> {
    const { tryTimeout, timeout, failover } = this.#options
    const began = this.#driver.now
    const deadline = performance.now() + timeout
    let last: Answer | undefined
    let why = ''
    const order = this.#order()
    // A second round only where a single server got too little time to count as dead.
    for (let i = 0; i < order.length * 2; i++) {
      const server = order[i % order.length]!
      const left = deadline - performance.now()
      if (left <= 0 || this.#closed) break
      if (i >= order.length && (last !== undefined || server.down)) continue
      const got = await this.#try(server, asked, Math.min(left, tryTimeout))
      if (typeof got === 'string') {
        why += `${why === '' ? '' : '; '}${server.text}: ${got}`
        continue
      }
      const answer = fromMessage(got, asked.name, server.text)
      if (!failover.has(got.rcode)) return answer
      last = answer
    }
    this.#log.debug('no upstream answered', { name: asked.name.slice(1, 40), why, ms: Math.round(this.#driver.now - began) })
    return last ?? bare(Rcode.SERVFAIL, 'forward', why === '' ? 'no upstream answered' : why)
  }

  /** The servers in the order in which they are asked; those left out come only when there are no others, so that a wrong verdict costs no names. */
  #order(): Server[] {
    const up = this.#servers.filter((s) => !s.down)
    const down = this.#servers.filter((s) => s.down)
    switch (this.#options.policy) {
      case 'sequential':
        break
      case 'round_robin':
        if (up.length > 1) up.push(...up.splice(0, this.#turn++ % up.length))
        break
      case 'random':
        for (let i = up.length - 1; i > 0; i--) {
          const j = randomInt(i + 1)
          ;[up[i], up[j]] = [up[j]!, up[i]!]
        }
    }
    // Everybody is down: one is tried at once, the prober tells about the others.
    return up.length > 0 ? up : [down[this.#turn++ % down.length]!]
  }

  /** One question to one server; why there is no answer, in words. */
  async #try(server: Server, asked: Asked, ms: number): Promise<Message | string> {
    const began = performance.now()
    const tcp = this.#options.forceTcp || server.at.tls !== undefined
    let got = tcp ? await this.#byTcp(server, asked, ms) : await this.#byUdp(server, asked, ms)
    if (typeof got !== 'string' && (got.flags & Flag.TC) !== 0 && !tcp) {
      this.#watcher.asked?.(server.text, 'udp', got.rcode, performance.now() - began)
      const more = await this.#byTcp(server, asked, Math.max(500, ms - (performance.now() - began)))
      // Better cut than nothing: the client can still go on by itself.
      if (typeof more !== 'string') got = more
    } else if (got === suspicious) got = await this.#byTcp(server, asked, ms)
    this.#watcher.asked?.(server.text, tcp ? 'tcp' : 'udp', typeof got === 'string' ? undefined : got.rcode, performance.now() - began)
    if (typeof got === 'string') this.#failed(server)
    else this.#answered(server)
    return got
  }

  #failed(server: Server): void {
    server.fails++
    if (this.#options.maxFails === 0 || server.fails < this.#options.maxFails || server.down) return
    server.down = true
    this.#watcher.health?.(server.text, false)
    this.#log.warn('upstream does not answer, left out', { upstream: server.text })
  }

  #answered(server: Server): void {
    server.fails = 0
    if (!server.down) return
    server.down = false
    this.#watcher.health?.(server.text, true)
    this.#log.info('upstream answers again', { upstream: server.text })
  }

  /** Asks those left out for the root's name servers: any answer will do. */
  #probe(): void {
    for (const server of this.#servers) {
      if (!server.down || this.#closed) continue
      const now = this.#driver.now
      if (now - server.probed < this.#options.healthCheck) continue
      server.probed = now
      void this.#try(server, { name: root, type: Type.NS, dnssec: false, checkingDisabled: false }, 1000)
    }
  }

  #write(id: number, asked: Asked): number {
    const question = { name: asked.name, type: asked.type, class: Class.IN }
    return encode({ id, flags: Flag.RD | (asked.checkingDisabled ? Flag.CD : 0), rcode: 0, question, edns: { size: udpSize, dnssec: asked.dnssec, options: asked.options ?? [] } }, this.#out)
  }

  async #byUdp(server: Server, asked: Asked, ms: number): Promise<Message | string> {
    let bounds: Bound[]
    try {
      bounds = await this.#sockets(server.at.host.includes(':') ? 6 : 4)
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
    if (this.#closed) return 'the server ends'
    const bound = bounds[randomInt(bounds.length)]!
    let id = randomInt(65_536)
    while (this.#waiting.has(`${bound.address.port} ${id}`)) id = randomInt(65_536)
    const key = `${bound.address.port} ${id}`
    const end = this.#write(id, asked)
    return new Promise((resolve) => {
      const timer = setTimeout(() => waiting.done(undefined, `no answer within ${Math.round(ms)} ms`), ms)
      const waiting: Waiting = {
        question: { name: asked.name, type: asked.type, class: Class.IN },
        server,
        bound,
        wrong: 0,
        done: (answer, why) => {
          clearTimeout(timer)
          this.#waiting.delete(key)
          resolve(answer ?? why)
        },
      }
      this.#waiting.set(key, waiting)
      if (!bound.send(this.#out, 0, end, server.at)) waiting.done(undefined, 'the question could not be sent')
    })
  }

  #sockets(family: 4 | 6): Promise<Bound[]> {
    let bounds = this.#bounds.get(family)
    if (bounds === undefined) {
      const at = { host: family === 4 ? '0.0.0.0' : '::', port: 0 }
      const one = (): Promise<Bound> =>
        this.#driver.bind(
          at,
          (batch, bound) => {
            for (let i = 0; i < batch.count; i++) this.#received(bound, batch.bytes, batch.start(i), batch.end(i), batch.peer(i))
          },
          { client: true, ipv6Only: true },
        )
      bounds = Promise.all(Array.from({ length: sockets }, one)).then((list) => {
        this.#open.push(...list)
        if (this.#closed) for (const b of this.#open.splice(0)) b.close()
        return list
      })
      bounds.catch(() => this.#bounds.delete(family))
      this.#bounds.set(family, bounds)
    }
    return bounds
  }

  #received(bound: Bound, b: Buffer, from: number, to: number, peer: Address): void {
    if (to - from < 12) return
    const waiting = this.#waiting.get(`${bound.address.port} ${b.readUInt16BE(from)}`)
    if (waiting === undefined) return
    const { at } = waiting.server
    const message = peer.port === at.port && peer.host === at.host ? read(b, from, to) : undefined
    if (message !== undefined && echoes(message, waiting.question)) waiting.done(message, '')
    // Not what was asked for, or not from there: whoever sends that may be guessing ids. The right answer may still come.
    else if (++waiting.wrong >= 4) waiting.done(undefined, suspicious)
  }

  async #byTcp(server: Server, asked: Asked, ms: number): Promise<Message | string> {
    if (server.stream === undefined || !server.stream.usable) server.stream = new Stream(this.#driver, server.at)
    const end = this.#write(0, asked)
    return server.stream.ask(this.#out, end, { name: asked.name, type: asked.type, class: Class.IN }, ms)
  }
}

/** Equal for equal options. */
export const optionsKey = (options: readonly EdnsOption[] | undefined): string => (options === undefined ? '' : JSON.stringify(options))

const suspicious = 'several answers that were not to the question'

function read(b: Buffer, from: number, to: number): Message | undefined {
  try {
    return decode(b, from, to)
  } catch (error) {
    if (error instanceof Malformed) return undefined
    throw error
  }
}

function echoes(m: Message, q: Question): boolean {
  if ((m.flags & Flag.QR) === 0 || opcodeOf(m.flags) !== 0) return false
  const said = m.questions[0]
  // Servers that do not know EDNS or refuse may leave the question out.
  if (m.questions.length === 0) return m.rcode === Rcode.FORMERR || m.rcode === Rcode.NOTIMP || m.rcode === Rcode.REFUSED
  return m.questions.length === 1 && said !== undefined && said.type === q.type && said.class === q.class && fold(said.name) === q.name
}

/** What is taken from an upstream's message: only records that belong to the question, by its name or the CNAMEs from it. */
function fromMessage(m: Message, name: Name, upstream: string): Answer {
  const known = new Set<Name>([name])
  const answers: Rec[] = []
  for (const r of m.answers) {
    const owner = fold(r.name)
    if (r.class !== Class.IN) continue
    // A DNAME stands above the names it rewrites (RFC 6672).
    if (!known.has(owner) && !(r.type === Type.DNAME && [...known].some((k) => k.endsWith(owner)))) continue
    answers.push(r)
    if (r.type === Type.CNAME) known.add(fold(r.data as Name))
  }
  return {
    rcode: m.rcode,
    authoritative: (m.flags & Flag.AA) !== 0,
    answers,
    authority: m.authority.filter((r) => r.class === Class.IN),
    additional: m.additional.filter((r) => r.class === Class.IN && r.type !== Type.TSIG),
    authenticated: (m.flags & Flag.AD) !== 0,
    truncated: (m.flags & Flag.TC) !== 0,
    by: 'forward',
    why: `${upstream} says ${rcodeName(m.rcode)}`,
  }
}

/** A connection to a server, for any number of questions at a time (RFC 7766 6.2.1.1); opened when asked, closed when idle. */
class Stream implements Protocol {
  readonly #wire: Wire
  readonly #asked = new Map<number, { readonly question: Question; done(answer: Message | string): void }>()
  #buffer = Buffer.alloc(0)
  #dead: string | undefined
  #idle: NodeJS.Timeout | undefined

  constructor(driver: Driver, at: UpstreamAddress) {
    this.#wire = driver.connect(at, this, { timeout: 3000, ...(at.tls === undefined ? {} : { tls: at.tls }) })
  }

  get usable(): boolean {
    return this.#dead === undefined && this.#wire.alive && this.#asked.size < 1000
  }

  ask(message: Buffer, end: number, question: Question, ms: number): Promise<Message | string> {
    let id = randomBytes(2).readUInt16BE()
    while (this.#asked.has(id)) id = randomInt(65_536)
    message.writeUInt16BE(id, 0)
    const framed = Buffer.allocUnsafe(end + 2)
    framed.writeUInt16BE(end, 0)
    message.copy(framed, 2, 0, end)
    clearTimeout(this.#idle)
    return new Promise((resolve) => {
      const timer = setTimeout(() => done(`no answer over TCP within ${Math.round(ms)} ms`), ms)
      const done = (answer: Message | string): void => {
        clearTimeout(timer)
        this.#asked.delete(id)
        if (this.#asked.size === 0) this.#idle = setTimeout(() => this.close(), 5000).unref()
        resolve(answer)
      }
      this.#asked.set(id, { question, done })
      this.#wire.write(framed, 0, framed.length)
    })
  }

  close(): void {
    clearTimeout(this.#idle)
    this.#dead ??= 'closed'
    if (this.#asked.size === 0) this.#wire.end()
    else this.#wire.abort()
  }

  opened(): void {}
  drain(): void {}

  data(b: Buffer, from: number, to: number): void {
    let all = this.#buffer.length === 0 ? b.subarray(from, to) : Buffer.concat([this.#buffer, b.subarray(from, to)])
    while (all.length >= 2) {
      const length = all.readUInt16BE(0)
      if (all.length < 2 + length) break
      this.#message(all, 2, 2 + length)
      all = all.subarray(2 + length)
    }
    this.#buffer = Buffer.from(all)
  }

  #message(b: Buffer, from: number, to: number): void {
    const message = read(b, from, to)
    const asked = message === undefined ? undefined : this.#asked.get(message.id)
    if (message !== undefined && asked !== undefined && echoes(message, asked.question)) asked.done(message)
  }

  eof(): void {
    this.#dead ??= 'closed by the server'
    this.#wire.end()
  }

  closed(why: string): void {
    clearTimeout(this.#idle)
    this.#dead ??= why === '' ? 'closed by the server' : why
    for (const { done } of this.#asked.values()) done(`TCP: ${this.#dead}`)
  }
}

/** The servers of a resolv.conf; port 53. */
export function parseResolvConf(text: string): string[] {
  const out: string[] = []
  for (const line of text.split('\n')) {
    const m = /^\s*nameserver\s+(\S+)/.exec(line)
    if (m !== null) out.push(m[1]!.replace(/%.*$/, ''))
  }
  return out
}
