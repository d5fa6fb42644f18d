import type { TlsClient } from '../../../lib/sockets/seam.ts'
import { duration } from '../../../lib/options.ts'
import { isLoopback } from '../../addresses.ts'
import { bare, type Answer, type Handler, type Query } from '../../answer.ts'
import { CorefileError, isAddress, zonesOf, type Line } from '../../corefile.ts'
import { Forwarder, forwardDefaults, parseResolvConf, type ForwardOptions, type UpstreamAddress } from '../../forward.ts'
import { anySet } from '../kubernetes/handler.ts'
import { within, type Name } from '../../wire/name.ts'
import { Class, Rcode, rcodeName, rcodeNumber, Type } from '../../wire/types.ts'
import { unknown, wholeNumber, type Place, type Plugin } from '../plugin.ts'

/** Asks other servers. */
export const forward: Plugin = {
  name: 'forward',
  build: (lines, place) => lines.map((line) => build(line, place)),
}

function build(line: Line, place: Place): ForwardHandler {
  const { env } = place
  const [from, ...to] = line.args
  if (from === undefined || to.length === 0) throw new CorefileError(line, 'forward: expected a zone and where to forward it')
  const zones = zonesOf(from, line)
  let options: ForwardOptions = { ...forwardDefaults, upstreams: [] }
  let except: Name[] = []
  let serverName: string | undefined
  let tls: TlsClient = {}
  for (const option of line.block) {
    const [first, ...more] = option.args
    switch (option.name) {
      case 'except':
        except = [...except, ...option.args.flatMap((arg) => zonesOf(arg, option))]
        break
      case 'force_tcp':
        options = { ...options, forceTcp: true }
        break
      case 'prefer_udp':
        break
      case 'max_fails':
        options = { ...options, maxFails: wholeNumber(first, option, 'max_fails') }
        break
      case 'max_concurrent':
        options = { ...options, maxConcurrent: wholeNumber(first, option, 'max_concurrent', 1) }
        break
      case 'policy':
        if (first !== 'random' && first !== 'round_robin' && first !== 'sequential') throw new CorefileError(option, `policy: expected random, round_robin or sequential, got "${first}"`)
        options = { ...options, policy: first }
        break
      case 'health_check':
        options = { ...options, healthCheck: time(first, option) }
        break
      case 'expire':
      case 'max_idle_conns':
      case 'max_age':
      case 'failfast_all_unhealthy_upstreams':
        break
      case 'next':
      case 'failover': {
        const rcodes = option.args.map((arg) => rcodeNumber(arg) ?? fail(option, `${option.name}: ${arg} is no rcode`))
        options = { ...options, failover: new Set(rcodes) }
        break
      }
      case 'tls_servername':
        serverName = first
        break
      case 'tls': {
        const file = (path: string): string => env.read(path) ?? fail(option, `tls: cannot read ${path}`)
        if (first !== undefined && more.length > 0) tls = { ...tls, identity: { cert: file(first), key: file(more[0]!) } }
        const ca = more.length === 0 ? first : more[1]
        if (ca !== undefined) tls = { ...tls, ca: file(ca) }
        break
      }
      default:
        unknown(line, option)
    }
  }
  if (serverName !== undefined) tls = { ...tls, serverName }
  const upstreams = to.flatMap((text) => upstreamsOf(text, line, place, tls))
  if (upstreams.length > 15) throw new CorefileError(line, `forward: at most 15 servers, these are ${upstreams.length}`)
  const requests = env.metrics.counter('coredns_proxy_request_count_total', 'Questions sent to an upstream.')
  const durations = env.metrics.histogram('coredns_proxy_request_duration_seconds', 'Time until an upstream answered, by its rcode.', durationBuckets)
  const health = env.metrics.counter('coredns_proxy_healthcheck_failures_total', 'Times an upstream was found not to answer.')
  const rejected = env.metrics.counter('coredns_forward_max_concurrent_rejects_total', 'Questions refused because too many were waiting for upstream.')
  const forwarder = new Forwarder(env.driver, { ...options, upstreams }, env.log, {
    asked: (address, protocol, rcode, ms) => {
      requests.add(1, { proxy_name: 'forward', to: address, proto: protocol })
      if (rcode !== undefined) durations.observe(ms / 1000, { proxy_name: 'forward', to: address, rcode: rcodeName(rcode) })
    },
    health: (address, healthy) => {
      if (!healthy) health.add(1, { proxy_name: 'forward', to: address })
    },
    rejected: () => rejected.add(1),
  })
  place.options.forwarders = [...(place.options.forwarders ?? []), forwarder]
  place.closing(() => forwarder.close())
  return new ForwardHandler(zones, except, forwarder)
}

const durationBuckets = [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192]

function fail(line: Line, what: string): never {
  throw new CorefileError(line, what)
}

function time(text: string | undefined, line: Line): number {
  return (text === undefined ? undefined : duration(text)) ?? fail(line, `${line.name}: expected a duration such as 500ms`)
}

/** An address (`10.0.0.2`, `10.0.0.2:5353`, `[fd00::2]:53`, `tls://9.9.9.9`), or a file like /etc/resolv.conf. */
function upstreamsOf(text: string, line: Line, place: Place, tls: TlsClient): UpstreamAddress[] {
  const m = /^(?:(dns|tls):\/\/)?(?:\[([^\]]+)\]|([^:]+|[^:]*:[^:]*:.*))(?::(\d+))?$/.exec(text.replace(/%[^\]@:]*/, ''))
  const host = m?.[2] ?? m?.[3]
  if (host !== undefined && isAddress(host)) {
    const secure = m![1] === 'tls'
    const port = m![4] === undefined ? (secure ? 853 : 53) : Number(m![4])
    return [{ host, port, ...(secure ? { tls } : {}) }]
  }
  if (/^[a-z]+:\/\//.test(text)) fail(line, `forward: ${text} is not supported (an address, dns://ADDRESS or tls://ADDRESS)`)
  const path = text === '/etc/resolv.conf' ? place.env.resolvConf : text
  const file = place.env.read(path)
  if (file === undefined) {
    // As with an empty file: names outside the cluster answer SERVFAIL at once.
    if (text === '/etc/resolv.conf') return []
    fail(line, `forward: ${text} is neither an address nor a file that can be read`)
  }
  return parseResolvConf(file)
    .map((address) => ({ host: address, port: 53 }))
    .filter((u) => {
      const own = place.env.self.some((s) => s.port === u.port && (s.host === u.host || ((s.host === '' || s.host === '0.0.0.0' || s.host === '::') && isLoopback(u.host))))
      if (own) place.env.log.warn('resolver left out: it is this server itself', { resolver: u.host, file: path })
      return !own
    })
}

/** Forwards the names of its zones, but for those excepted. */
export class ForwardHandler implements Handler {
  readonly name = 'forward'
  readonly manner = 'folds'
  readonly zones: readonly Name[]
  readonly except: readonly Name[]
  readonly forwarder: Forwarder

  constructor(zones: readonly Name[], except: readonly Name[], forwarder: Forwarder) {
    this.zones = zones
    this.except = except
    this.forwarder = forwarder
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    if (!this.zones.some((zone) => within(query.name, zone)) || this.except.some((zone) => within(query.name, zone))) return next()
    if (query.type === Type.ANY) {
      const { type, ttl, data } = anySet(8482)
      return { ...bare(Rcode.NOERROR, this.name, 'all records are not given at once (RFC 8482)'), answers: [{ name: query.name, type, class: Class.IN, ttl, data: data[0]! }] }
    }
    return this.forwarder.ask({ name: query.name, type: query.type, dnssec: query.edns?.dnssec === true, checkingDisabled: query.checkingDisabled, options: query.options })
  }
}
