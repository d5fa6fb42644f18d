import { duration } from '../../../lib/options.ts'
import { isAny, type Answer, type Handler, type Query } from '../../answer.ts'
import { aged, Cache, cacheDefaults, type CacheOptions, type Hit } from '../../cache.ts'
import { optionsKey } from '../../forward.ts'
import { CorefileError, zonesOf, type Line } from '../../corefile.ts'
import { printName, within, type Name } from '../../wire/name.ts'
import { Rcode } from '../../wire/types.ts'
import { unknown, wholeNumber, type Place, type Plugin } from '../plugin.ts'

/** Keeps the answers of upstream servers. What is answered here from our own tables is never kept: it is as quick, and always true. */
export const cache: Plugin = {
  name: 'cache',
  build: (lines, place) => lines.map((line) => build(line, place)),
}

interface Settings {
  readonly zones: readonly Name[]
  readonly cache: CacheOptions
  readonly prefetch: { readonly amount: number; readonly share: number } | undefined
  /** A stale answer is given only after upstream failed. */
  readonly verify: boolean
}

function build(line: Line, place: Place): CacheHandler {
  let options: CacheOptions = cacheDefaults
  let prefetch: Settings['prefetch']
  let verify = false
  let words = [...line.args]
  if (words[0] !== undefined && /^\d+$/.test(words[0])) {
    const most = wholeNumber(words[0], line, 'cache', 1)
    options = { ...options, success: { ...options.success, most }, denial: { ...options.denial, most } }
    words = words.slice(1)
  }
  const zones = words.length > 0 ? words.flatMap((w) => zonesOf(w, line)) : place.zones
  for (const option of line.block) {
    const [first, second, third] = option.args
    switch (option.name) {
      case 'success':
      case 'denial': {
        const half = options[option.name]
        const entries = wholeNumber(first, option, `${option.name} capacity`)
        const most = second === undefined ? half.most : wholeNumber(second, option, `${option.name} TTL`, 1)
        const least = third === undefined ? Math.min(half.least, most) : wholeNumber(third, option, `${option.name} least TTL`)
        options = { ...options, [option.name]: { ...half, entries, most, least } }
        break
      }
      case 'prefetch':
        prefetch = { amount: wholeNumber(first, option, 'prefetch'), share: third === undefined ? 0.1 : wholeNumber(third.replace(/%$/, ''), option, 'prefetch percentage', 10, 90) / 100 }
        break
      case 'serve_stale': {
        const ms = first === undefined || !/^\d/.test(first) ? 3_600_000 : duration(first)
        if (ms === undefined) throw new CorefileError(option, 'serve_stale: expected a duration such as 1h')
        options = { ...options, stale: ms / 1000 }
        verify = option.args.includes('verify')
        break
      }
      case 'servfail': {
        const ms = duration(first ?? '')
        if (ms === undefined || ms > 300_000) throw new CorefileError(option, 'servfail: expected a duration of at most 5m')
        options = { ...options, servfail: ms / 1000 }
        break
      }
      case 'disable':
        if (first !== 'success' && first !== 'denial') throw new CorefileError(option, 'disable: expected success or denial')
        options = { ...options, [first]: { ...options[first], entries: 0 } }
        break
      case 'keepttl':
        break
      default:
        unknown(line, option)
    }
  }
  return new CacheHandler({ zones, cache: options, prefetch, verify }, place)
}

/** Milliseconds upstream gets before a stale answer is given instead (RFC 8767 5: 1.8 s). */
const patience = 1800

/** Keeps the plain answers of a cache where they are found without asking it. */
export interface Shelf {
  put(name: Name, type: number, answer: Answer, seconds: number): void
  gone(name: Name, type: number): void
}

export class CacheHandler implements Handler {
  readonly name = 'cache'
  readonly manner = 'folds'
  readonly #settings: Settings
  readonly #cache: Cache
  readonly #now: () => number
  readonly #count: { hit(kind: string, n: number): void; miss(): void; stale(): void; prefetch(): void }
  /** Told of what is kept; not where popular answers are renewed before their time, since then each question must be seen. */
  readonly shelves = new Set<Shelf>()
  readonly #refreshing = new Set<string>()

  constructor(settings: Settings, place: Place) {
    this.#settings = settings
    this.#now = place.env.now
    const { metrics } = place.env
    const labels = { server: place.server, zones: settings.zones.map(printName).join(','), view: '' }
    const evictions = metrics.counter('coredns_cache_evictions_total', 'Answers given up because the cache was full.')
    const hits = metrics.counter('coredns_cache_hits_total', 'Questions answered from the cache.')
    const misses = metrics.counter('coredns_cache_misses_total', 'Questions the cache could not answer.')
    const requests = metrics.counter('coredns_cache_requests_total', 'Questions put to the cache.')
    const stale = metrics.counter('coredns_cache_served_stale_total', 'Questions answered after the time of the answer.')
    const prefetched = metrics.counter('coredns_cache_prefetch_total', 'Answers renewed before they expired.')
    const entries = metrics.gauge('coredns_cache_entries', 'Answers kept.')
    this.#cache = new Cache(
      settings.cache,
      (type) => evictions.add(1, { ...labels, type }),
      (key) => this.#gone(key),
    )
    let open = true
    place.closing(() => {
      open = false
      this.#cache.clear()
    })
    metrics.registry.onScrape(() => {
      if (open) for (const type of ['success', 'denial'] as const) entries.set(this.#cache.size(type), { ...labels, type })
    })
    this.#count = {
      hit: (type, n) => {
        hits.add(n, { ...labels, type })
        requests.add(n, labels)
      },
      miss: () => {
        misses.add(1, labels)
        requests.add(1, labels)
      },
      stale: () => stale.add(1, labels),
      prefetch: () => prefetched.add(1, labels),
    }
  }

  /** `n` questions were answered from a shelf. */
  found(kind: 'success' | 'denial', n: number): void {
    this.#count.hit(kind, n)
  }

  #gone(key: string): void {
    const m = /^(\d+) 00(?!\+)/.exec(key)
    if (m !== null) for (const shelf of this.shelves) shelf.gone(key.slice(m[0].length) as Name, Number(m[1]))
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const { zones, prefetch, verify } = this.#settings
    if (isAny(query) || !zones.some((zone) => within(query.name, zone))) return next()
    // Plain questions are `TYPE 00NAME`, and nothing else is.
    const key = `${query.type} ${query.edns?.dnssec === true ? 1 : 0}${query.checkingDisabled ? 1 : 0}${query.options === undefined ? '' : '+'}${query.name}${optionsKey(query.options)}`
    const hit = this.#cache.get(key, this.#now())
    if (hit === undefined) return this.#ask(key, next, true)
    if (!hit.stale) {
      this.#count.hit(hit.kind, 1)
      if (prefetch !== undefined && hit.hits >= prefetch.amount && hit.left <= prefetch.share && this.#refresh(key, next)) this.#count.prefetch()
      return { ...hit.answer, why: `${hit.answer.why ?? ''}, from the cache` }
    }
    if (!verify) {
      this.#refresh(key, next)
      return this.#stale(hit)
    }
    // The new answer, unless it takes too long or is no answer; it is kept in any case when it comes.
    const asked = this.#ask(key, next, true)
    const timer = Promise.withResolvers<undefined>()
    const timeout = setTimeout(() => timer.resolve(undefined), patience)
    const fresh = await Promise.race([asked, timer.promise])
    clearTimeout(timeout)
    return fresh === undefined || fresh.rcode === Rcode.SERVFAIL || fresh.rcode === Rcode.REFUSED ? this.#stale(hit) : fresh
  }

  #stale(hit: Hit): Answer {
    this.#count.hit(hit.kind, 1)
    this.#count.stale()
    return { ...hit.answer, why: `${hit.answer.why ?? ''}, from the cache and past its time` }
  }

  async #ask(key: string, next: () => Promise<Answer>, counts: boolean): Promise<Answer> {
    const answer = await next()
    if (answer.by !== 'forward') return answer
    if (counts) this.#count.miss()
    const ttl = this.#cache.put(key, answer, this.#now())
    const m = ttl > 0 && this.#settings.prefetch === undefined ? /^(\d+) 00(?!\+)/.exec(key) : null
    if (m !== null) for (const shelf of this.shelves) shelf.put(key.slice(m[0].length) as Name, Number(m[1]), aged(answer, 0, ttl), ttl)
    return answer
  }

  #refresh(key: string, next: () => Promise<Answer>): boolean {
    if (this.#refreshing.has(key)) return false
    this.#refreshing.add(key)
    void this.#ask(key, next, false)
      .catch(() => {})
      .finally(() => this.#refreshing.delete(key))
    return true
  }
}
