import { familyOf } from '../lib/ip.ts'
import type { Meters } from './handlers/plugin.ts'
import type { Watcher } from './server.ts'
import { rcodeName, Type, typeName } from './wire/types.ts'

const durations = [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192]
const sizes = [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000]

/** Types that have a label of their own in the metrics; the others are `other`, so that a flood of odd ones makes no flood of series. */
const counted = new Set<number>([Type.A, Type.AAAA, Type.MX, Type.SOA, Type.CNAME, Type.PTR, Type.TXT, Type.NS, Type.SRV, Type.DS, Type.DNSKEY, Type.RRSIG, Type.NSEC, Type.NSEC3, Type.HTTPS, Type.SVCB, Type.ANY, Type.IXFR, Type.AXFR, Type.NAPTR])

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
      const proto = origin.protocol === 'udp' ? 'udp' : 'tcp'
      requests.add(1, { server, zone, view: '', proto, family: familyOf(origin.client.host) === 4 ? '1' : '2', type: typeLabel(question.type) })
      responses.add(1, { server, zone, view: '', rcode: rcodeName(rcode), plugin: by })
      duration.observe(ms / 1000, { server, zone, view: '' })
      requestSize.observe(asked, { server, zone, view: '', proto })
      responseSize.observe(answered, { server, zone, view: '', proto })
    },
    failed: () => panics.add(1),
  }
}
