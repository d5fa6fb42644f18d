import { familyOf } from '../lib/ip.ts'
import { CacheHandler } from './handlers/cache/index.ts'
import type { Meters } from './handlers/plugin.ts'
import { Count, countedTypes, durationBuckets } from './resolve.ts'
import type { Site, Watcher } from './server.ts'
import { rcodeName, Type, typeName } from './wire/types.ts'

const durations = [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192]
const sizes = [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000]

/** Types that have a label of their own in the metrics; the others are `other`, so that a flood of odd ones makes no flood of series. */
const counted = new Set<number>([
  Type.A,
  Type.AAAA,
  Type.MX,
  Type.SOA,
  Type.CNAME,
  Type.PTR,
  Type.TXT,
  Type.NS,
  Type.SRV,
  Type.DS,
  Type.DNSKEY,
  Type.RRSIG,
  Type.NSEC,
  Type.NSEC3,
  Type.HTTPS,
  Type.SVCB,
  Type.ANY,
  Type.IXFR,
  Type.AXFR,
  Type.NAPTR,
])

export const typeLabel = (type: number): string => (counted.has(type) ? typeName(type) : 'other')

/** Counts under CoreDNS's names, with its labels and meanings. */
export function observer(meters: Meters, server: string): Watcher {
  const requests = meters.counter('coredns_dns_requests_total', 'Questions per zone, protocol, family and type.')
  const responses = meters.counter('coredns_dns_responses_total', 'Answers per zone, rcode and the handler that made them.')
  const duration = meters.histogram('coredns_dns_request_duration_seconds', 'Time each question took.', durations)
  const requestSize = meters.histogram('coredns_dns_request_size_bytes', 'Size of questions.', sizes)
  const responseSize = meters.histogram('coredns_dns_response_size_bytes', 'Size of answers.', sizes)
  const panics = meters.counter('coredns_panics_total', 'Questions that ended in an error of this program.')
  return {
    answered: (site, origin, question, rcode, by, asked, answered, ms) => {
      const zone = site?.text ?? 'dropped'
      const view = site?.view?.name ?? ''
      const proto = origin.protocol === 'udp' ? 'udp' : 'tcp'
      requests.add(1, { server, zone, view, proto, family: familyOf(origin.client.host) === 4 ? '1' : '2', type: typeLabel(question.type) })
      responses.add(1, { server, zone, view, rcode: rcodeName(rcode), plugin: by })
      duration.observe(ms / 1000, { server, zone, view })
      requestSize.observe(asked, { server, zone, view, proto })
      responseSize.observe(answered, { server, zone, view, proto })
    },
    failed: () => panics.add(1),
  }
}

/** Adds what readers of the compiled table counted by themselves, before each scrape. `plugin` is that of the compiled answers. */
export function foldCounters(meters: Meters, server: string, sites: readonly Site[], proto: 'udp' | 'tcp', now: Uint32Array): () => void {
  const requests = meters.counter('coredns_dns_requests_total', 'Questions per zone, protocol, family and type.')
  const responses = meters.counter('coredns_dns_responses_total', 'Answers per zone, rcode and the handler that made them.')
  const duration = meters.histogram('coredns_dns_request_duration_seconds', 'Time each question took.', durations)
  const requestSize = meters.histogram('coredns_dns_request_size_bytes', 'Size of questions.', sizes)
  const responseSize = meters.histogram('coredns_dns_response_size_bytes', 'Size of answers.', sizes)
  const before = new Uint32Array(now.length)
  return () => {
    // Differences, so that a counter may wrap around.
    const more = (i: number): number => {
      const n = (now[i]! - before[i]!) >>> 0
      before[i] = now[i]!
      return n
    }
    for (const [s, site] of sites.entries()) {
      const zone = site.text
      const cache = site.handlers.find((h) => h instanceof CacheHandler)
      for (const [i, rcode] of ['NOERROR', 'NOERROR', 'NXDOMAIN'].entries()) {
        const n = more(Count.cached + s * 3 + i)
        if (n === 0) continue
        responses.add(n, { server, zone, view: '', rcode, plugin: 'forward' })
        cache?.found(i === 0 ? 'success' : 'denial', n)
      }
      for (let t = 0; t < Count.types; t++) {
        for (const family of [0, 1]) {
          const n = more(Count.requests + (s * Count.types + t) * 2 + family)
          if (n > 0) requests.add(n, { server, zone, view: '', proto, family: family === 0 ? '1' : '2', type: typeLabel(countedTypes[t] ?? 0) })
        }
      }
      for (const [i, rcode] of ['NOERROR', 'NXDOMAIN'].entries()) {
        const n = more(Count.responses + s * 2 + i)
        if (n > 0) responses.add(n, { server, zone, view: '', rcode, plugin: 'kubernetes' })
      }
    }
    // Sizes and times are not kept apart by zone: they stand with that of the first.
    const labels = { server, zone: sites[0]!.text, view: '' }
    for (let i = 0; i < 1024; i++) {
      const n = more(Count.requestSizes + i)
      if (n > 0) requestSize.observe(i, { ...labels, proto }, n)
    }
    for (let i = 0; i < 4352; i++) {
      const n = more(Count.responseSizes + i)
      if (n > 0) responseSize.observe(i, { ...labels, proto }, n)
    }
    const total = more(Count.microseconds) / 1e6
    let n = 0
    for (let i = 0; i <= durationBuckets.length; i++) n += Math.max(0, (now[Count.durations + i]! - before[Count.durations + i]!) >>> 0)
    const mean = n > 0 ? total / n : 0
    for (let i = 0; i <= durationBuckets.length; i++) {
      const here = more(Count.durations + i)
      // Within its bucket, and as near the mean as that allows, so that the sum is about right.
      const least = i === 0 ? 0 : durationBuckets[i - 1]! / 1000
      const most = i < durationBuckets.length ? durationBuckets[i]! / 1000 : Infinity
      if (here > 0) duration.observe(Math.min(most, Math.max(least + 1e-9, mean)), labels, here)
    }
  }
}
