import type { Metrics } from '../lib/metrics.ts'
import type { ClientConn } from './http1/client.ts'
import type { Server } from './http1/server.ts'

const buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const limits = Float64Array.from(buckets, (s) => s * 1000)

/** What is counted for one Ingress and Service: numbers in arrays, named only when somebody asks. */
class Series {
  readonly labels: string
  readonly statuses = new Map<number, number>()
  readonly durations = new Float64Array(buckets.length + 1)
  duration = 0
  firstByte = 0
  count = 0
  bytesIn = 0
  bytesOut = 0
  constructor(labels: string) {
    this.labels = labels
  }
}

/**
 * Counts requests by Ingress, Service and status, under the names of ingress-nginx, so that its dashboards draw. Hosts, paths and
 * methods are no labels: clients choose those, and they made it 200,000 series from 642 Ingresses.
 */
export class Stats {
  readonly #series = new Map<string, Series>()
  readonly #base: string

  constructor(metrics: Metrics, server: () => Server, base: { readonly className: string; readonly namespace: string; readonly pod: string }) {
    this.#base = `controller_class="${base.className}",controller_namespace="${base.namespace}",controller_pod="${base.pod}"`
    const each = (name: string, of: (s: Series) => number) => (out: string[]) => {
      for (const s of this.#series.values()) out.push(`${name}{${s.labels}} ${of(s)}`)
    }
    const n = 'nginx_ingress_controller'
    metrics.family(`${n}_requests`, 'counter', 'Requests by Ingress, Service and status.', (out) => {
      for (const s of this.#series.values()) for (const [status, count] of s.statuses) out.push(`${n}_requests{${s.labels},status="${status}"} ${count}`)
    })
    metrics.family(`${n}_request_duration_seconds`, 'histogram', 'From the first octet of a request to the last of its answer.', (out) => {
      for (const s of this.#series.values()) {
        let total = 0
        buckets.forEach((le, i) => out.push(`${n}_request_duration_seconds_bucket{${s.labels},le="${le}"} ${(total += s.durations[i]!)}`))
        out.push(
          `${n}_request_duration_seconds_bucket{${s.labels},le="+Inf"} ${s.count}`,
          `${n}_request_duration_seconds_sum{${s.labels}} ${s.duration / 1000}`,
          `${n}_request_duration_seconds_count{${s.labels}} ${s.count}`,
        )
      }
    })
    metrics.family(
      `${n}_header_duration_seconds_sum`,
      'counter',
      'Time until the first octet of the endpoint’s answer, all together.',
      each(`${n}_header_duration_seconds_sum`, (s) => s.firstByte / 1000),
    )
    metrics.family(
      `${n}_request_size_sum`,
      'counter',
      'Octets of requests.',
      each(`${n}_request_size_sum`, (s) => s.bytesIn),
    )
    metrics.family(
      `${n}_request_size_count`,
      'counter',
      'Requests.',
      each(`${n}_request_size_count`, (s) => s.count),
    )
    metrics.family(
      `${n}_response_size_sum`,
      'counter',
      'Octets of answers.',
      each(`${n}_response_size_sum`, (s) => s.bytesOut),
    )
    metrics.family(
      `${n}_response_size_count`,
      'counter',
      'Answers.',
      each(`${n}_response_size_count`, (s) => s.count),
    )
    metrics.family(`${n}_nginx_process_requests_total`, 'counter', 'Requests of this process.', (out) => out.push(`${n}_nginx_process_requests_total{${this.#base}} ${server().requests}`))
    metrics.family(`${n}_nginx_process_connections`, 'gauge', 'Connections of clients.', (out) => {
      let active = 0
      for (const c of server().clients) if (c.busy) active++
      const all = server().clients.size
      out.push(`${n}_nginx_process_connections{${this.#base},state="active"} ${active}`, `${n}_nginx_process_connections{${this.#base},state="waiting"} ${all - active}`)
    })
    metrics.family(`${n}_nginx_process_connections_total`, 'counter', 'Connections of clients accepted so far.', (out) =>
      out.push(`${n}_nginx_process_connections_total{${this.#base},state="accepted"} ${server().connections}`),
    )
    metrics.family('switchyard_ingress_retries_total', 'counter', 'Requests tried again on another connection or endpoint.', (out) => out.push(`switchyard_ingress_retries_total ${server().retries}`))
    metrics.family('switchyard_ingress_tunnels_total', 'counter', 'Connections that became tunnels.', (out) => out.push(`switchyard_ingress_tunnels_total ${server().tunnels}`))
    metrics.family('switchyard_ingress_connections', 'gauge', 'Open connections.', (out) =>
      out.push(`switchyard_ingress_connections{side="client"} ${server().clients.size}`, `switchyard_ingress_connections{side="endpoint"} ${server().upstreams.size}`),
    )
  }

  finished(x: ClientConn): void {
    const { linked } = x
    const s = (linked.extra ??= this.#of(x)) as Series
    s.statuses.set(x.status, (s.statuses.get(x.status) ?? 0) + 1)
    const ms = x.now - x.startedAt
    let i = 0
    while (i < limits.length && ms > limits[i]!) i++
    s.durations[i]!++
    s.duration += ms
    if (x.firstByteAt > 0) s.firstByte += x.firstByteAt - x.startedAt
    s.count++
    s.bytesIn += x.bytesIn
    s.bytesOut += x.bytesOut
  }

  #of(x: ClientConn): Series {
    const { owner, service } = x.route
    const key = `${owner} ${service}`
    let s = this.#series.get(key)
    if (s === undefined) {
      const slash = owner.indexOf('/')
      const labels = `${this.#base},namespace="${slash < 0 ? '' : owner.slice(0, slash)}",ingress="${owner.slice(slash + 1)}",service="${service.slice(service.indexOf('/') + 1)}",canary=""`
      this.#series.set(key, (s = new Series(labels)))
    }
    return s
  }

  /** Forgets what is counted of Ingresses that are gone. */
  keep(has: (owner: string) => boolean): void {
    for (const key of this.#series.keys()) {
      const owner = key.slice(0, key.indexOf(' '))
      if (owner.includes('/') && !has(owner)) this.#series.delete(key)
    }
  }
}
