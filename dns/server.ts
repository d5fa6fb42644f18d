import { performance } from 'node:perf_hooks'
import type { Log } from '../lib/log.ts'
import type { Address } from '../lib/sockets/seam.ts'
import { bare, type Answer, type Handler, type Query } from './answer.ts'
import { encode, receive, type Draft, type Edns, type Question } from './wire/message.ts'
import { fold, within, type Name } from './wire/name.ts'
import { Class, Flag, Rcode } from './wire/types.ts'

/** A zone and the handlers that answer below it, asked in this order. */
export interface Site {
  readonly zone: Name
  /** As the configuration writes it, e.g. `.`: a label of the metrics. */
  readonly text: string
  readonly handlers: readonly Handler[]
  /** Octets of the longest answer over UDP. */
  readonly bufsize: number
  /** Only questions that fit are served here. */
  readonly view?: { readonly name: string; fits(query: ViewQuery): boolean }
}

/** What a view may look at. */
export type ViewQuery = Pick<Query, 'question' | 'name' | 'type' | 'client' | 'local' | 'protocol' | 'edns'>

/** Where a question came from. */
export interface Origin {
  readonly client: Address
  readonly local: Address
  readonly protocol: 'udp' | 'tcp' | 'tls'
}

/** Told of every question that got an answer, or none. */
export interface Watcher {
  answered(site: Site | undefined, origin: Origin, question: Question, rcode: number, by: string, requestSize: number, responseSize: number, ms: number): void
  failed?(error: unknown): void
}

const headerFlags = Flag.RD | Flag.CD

/** What answers on a port: octets in, octets out. Whatever comes in, it goes on. */
export class Server {
  /** Longest zone first. A question that has begun keeps the sites it began with. */
  sites: readonly Site[]
  readonly #log: Log
  readonly #watcher: Watcher | undefined
  readonly #out = Buffer.allocUnsafe(65_535 + 1024)
  #busy = 0

  constructor(sites: readonly Site[], log: Log, watcher?: Watcher) {
    this.sites = sortSites(sites)
    this.#log = log
    this.#watcher = watcher
  }

  /** Questions so far. */
  asked = 0

  /** Questions under way. */
  get busy(): number {
    return this.#busy
  }

  siteOf(query: ViewQuery): Site | undefined {
    const { sites } = this
    for (const site of sites) if (within(query.name, site.zone) && (site.view === undefined || site.view.fits(query))) return site
    return undefined
  }

  /** The answer to the octets b[from, to), which are not needed once it returns; undefined: none is sent. */
  async respond(b: Buffer, from: number, to: number, origin: Origin): Promise<Buffer | undefined> {
    const got = receive(b, from, to)
    if (got.kind === 'drop') return undefined
    const began = performance.now()
    const { id, flags } = got
    if (got.kind === 'error') {
      const draft: Draft = { id, flags: (flags & (0x7800 | headerFlags)) | Flag.QR, rcode: got.rcode, question: got.question, edns: ourEdns(got.edns, 1232) }
      const reply = this.#encode(draft, limitOf(origin, got.edns, 1232))
      this.#watcher?.answered(undefined, origin, got.question ?? { name: '\0' as Name, type: 0, class: 1 }, got.rcode, '', to - from, reply.length, performance.now() - began)
      return reply
    }
    const { question, edns } = got
    const name = fold(question.name)
    this.#busy++
    this.asked++
    let site: Site | undefined
    try {
      const query: Query = {
        question,
        name,
        type: question.type,
        ...origin,
        edns,
        recursionDesired: (flags & Flag.RD) !== 0,
        checkingDisabled: (flags & Flag.CD) !== 0,
        chain: [],
        lookup: (target, type, chain) => this.#lookup(query, target, type, chain),
      }
      site = this.siteOf(query)
      const answer = await this.answer(query, site)
      if (answer.drop === true) return undefined
      const bits = (answer.authoritative ? Flag.AA : 0) | (answer.authenticated === true ? Flag.AD : 0) | (answer.truncated === true ? Flag.TC : 0)
      const bufsize = site?.bufsize ?? 1232
      const draft: Draft = {
        id,
        flags: Flag.QR | Flag.RA | (flags & headerFlags) | bits,
        rcode: answer.rcode,
        question,
        answers: answer.answers,
        authority: answer.authority,
        additional: answer.additional,
        edns: ourEdns(edns, bufsize),
      }
      const reply = this.#encode(draft, limitOf(origin, edns, bufsize))
      this.#watcher?.answered(site, origin, question, answer.rcode, answer.by ?? '', to - from, reply.length, performance.now() - began)
      return reply
    } catch (error) {
      // What cannot be written (an upstream's record that does not fit a message, say) still gets an answer.
      this.#fail(error)
      return this.#encode({ id, flags: Flag.QR | Flag.RA | (flags & headerFlags), rcode: Rcode.SERVFAIL, question, edns: ourEdns(edns, 1232) }, 512)
    } finally {
      this.#busy--
    }
  }

  /** What the handlers of a site say. Never rejects. */
  async answer(query: Query, site = this.siteOf(query)): Promise<Answer> {
    if (site === undefined) return bare(Rcode.REFUSED, '', 'no zone of ours')
    const { handlers } = site
    const step = async (i: number, q: Query): Promise<Answer> => {
      const handler = handlers[i]
      if (handler === undefined) return bare(Rcode.REFUSED, '', 'no handler knows the name')
      // Other classes are nobody's, unless a handler makes them ours.
      if (q.question.class !== Class.IN && !handlers.slice(i).some((h) => h.foreign === true)) return bare(Rcode.REFUSED, '', 'class')
      return handler.answer(q, (other) => step(i + 1, other ?? q))
    }
    try {
      return await step(0, query)
    } catch (error) {
      this.#fail(error)
      return bare(Rcode.SERVFAIL, '', 'internal error')
    }
  }

  /** A question of our own. */
  ask(name: Name, type: number, client = '127.0.0.1'): Promise<Answer> {
    const here = { host: '127.0.0.1', port: 0 }
    const query: Query = {
      question: { name, type, class: Class.IN },
      name,
      type,
      client: { host: client, port: 0 },
      local: here,
      protocol: 'udp',
      edns: undefined,
      recursionDesired: true,
      checkingDisabled: false,
      chain: [],
      lookup: (n, t, c) => this.#lookup(query, n, t, c),
    }
    return this.answer(query)
  }

  #lookup(query: Query, name: Name, type: number, chain: readonly Name[]): Promise<Answer> {
    const inner: Query = { ...query, question: { name, type, class: query.question.class }, name, type, chain, lookup: (n, t, c) => this.#lookup(inner, n, t, c) }
    return this.answer(inner)
  }

  #encode(draft: Draft, limit: number): Buffer {
    return Buffer.from(this.#out.subarray(0, encode(draft, this.#out, 0, limit)))
  }

  #fail(error: unknown): void {
    this.#watcher?.failed?.(error)
    this.#log.error('a question could not be answered', { error, stack: error instanceof Error ? error.stack : undefined })
  }
}

export function sortSites(sites: readonly Site[]): readonly Site[] {
  return sites.toSorted((a, b) => b.zone.length - a.zone.length)
}

/** Our OPT record where the question had one: our size, its DO bit, none of its options. */
function ourEdns(edns: Edns | undefined, size: number): Draft['edns'] {
  return edns === undefined ? undefined : { size, dnssec: edns.dnssec }
}

/** Octets the answer may have: what both sides take, over UDP. */
export function limitOf(origin: Origin, edns: Edns | undefined, bufsize: number): number {
  return origin.protocol === 'udp' ? Math.min(bufsize, Math.max(512, edns?.size ?? 512)) : 65_535
}
