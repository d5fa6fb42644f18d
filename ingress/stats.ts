import type { Metrics } from '../lib/metrics.ts'
import type { Finished } from './http1/engine.ts'
import type { Server } from './http1/server.ts'

const times = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const sizes = [10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000]
const timeLimits = Float64Array.from(times, (s) => s * 1000)
const sizeLimits = Float64Array.from(sizes)

/** What is drawn of each Ingress and Service, under the names of ingress-nginx. Times are milliseconds inside, seconds outside. */
const histograms = [
  { name: 'request_duration_seconds', help: 'From the first octet of a request to the last of its answer.', buckets: times, scale: 1000 },
  { name: 'response_duration_seconds', help: 'From asking the endpoint to the last octet of its answer.', buckets: times, scale: 1000 },
  { name: 'header_duration_seconds', help: 'Until the head of the endpoint’s answer.', buckets: times, scale: 1000 },
  { name: 'connect_duration_seconds', help: 'To connect to the endpoint, where no kept connection was used.', buckets: times, scale: 1000 },
  { name: 'request_size', help: 'Octets of requests.', buckets: sizes, scale: 1 },
  { name: 'response_size', help: 'Octets of answers.', buckets: sizes, scale: 1 },
] as const

/** Where each histogram lies among a series' numbers: its buckets, then the sum and the count. */
const offsets: number[] = []
let width = 0
for (const h of histograms) {
  offsets.push(width)
  width += h.buckets.length + 2
}
const [total, response, header, connect, received, sent] = offsets as [number, number, number, number, number, number]

/** What is counted for one Ingress and Service: numbers in an array, named only when somebody asks. */
interface Series {
  readonly owner: string
  readonly service: string
  /** By status. */
  readonly statuses: Map<number, number>
  readonly numbers: Float64Array
}

/** What one thread has counted; crosses between threads. */
export interface Counts {
  readonly series: readonly Series[]
  readonly requests: number
  readonly connections: number
  readonly active: number
  readonly clients: number
  readonly upstreams: number
  readonly retries: number
  readonly tunnels: number
  readonly http2: number
}

/** Counts requests by Ingress, Service and status. Hosts, paths and methods are no labels: clients choose those, and they made it 200,000 series from 642 Ingresses. */
export class Stats {
  readonly #series = new Map<string, Series>()

  finished(x: Finished): void {
    const s = (x.linked.extra ??= this.#of(x)) as Series
    s.statuses.set(x.status, (s.statuses.get(x.status) ?? 0) + 1)
    const n = s.numbers
    const { now, startedAt, firstByteAt } = x
    observe(n, total, timeLimits, now - startedAt)
    if (firstByteAt > 0) {
      observe(n, response, timeLimits, now - startedAt)
      observe(n, header, timeLimits, firstByteAt - startedAt)
    }
    if (x.connectedAt > 0) observe(n, connect, timeLimits, x.connectedAt - x.connectAt)
    observe(n, received, sizeLimits, x.bytesIn)
    observe(n, sent, sizeLimits, x.bytesOut)
  }

  #of(x: Finished): Series {
    const { owner, service } = x.route
    const key = `${owner} ${service}`
    let s = this.#series.get(key)
    if (s === undefined) this.#series.set(key, (s = { owner, service, statuses: new Map(), numbers: new Float64Array(width) }))
    return s
  }

  /** What was counted so far, by this and by `server`. */
  counts(server: Server, http2: number): Counts {
    let active = 0
    for (const c of server.clients) if (c.busy) active++
    return {
      series: [...this.#series.values()],
      requests: server.requests,
      connections: server.connections,
      active,
      clients: server.clients.size,
      upstreams: server.upstreams.size,
      retries: server.retries,
      tunnels: server.tunnels,
      http2,
    }
  }

  /** Forgets what is counted of Ingresses that are gone. */
  forget(owners: ReadonlySet<string>): void {
    for (const [key, s] of this.#series) if (owners.has(s.owner)) this.#series.delete(key)
  }
}

function observe(n: Float64Array, at: number, limits: Float64Array, value: number): void {
  const { length } = limits
  let i = 0
  while (i < length && value > limits[i]!) i++
  // The last of the buckets is the count.
  if (i < length) n[at + i]!++
  n[at + length]! += value
  n[at + length + 1]!++
}

/** One thread's counts, all threads' counts. */
function add(counts: readonly Counts[]): Counts {
  if (counts.length === 1) return counts[0]!
  const series = new Map<string, Series>()
  for (const c of counts) {
    for (const s of c.series) {
      const key = `${s.owner} ${s.service}`
      const sum = series.get(key)
      if (sum === undefined) series.set(key, { ...s, statuses: new Map(s.statuses), numbers: s.numbers.slice() })
      else {
        for (const [status, n] of s.statuses) sum.statuses.set(status, (sum.statuses.get(status) ?? 0) + n)
        for (let i = 0; i < width; i++) sum.numbers[i]! += s.numbers[i]!
      }
    }
  }
  const of = (f: (c: Counts) => number): number => counts.reduce((n, c) => n + f(c), 0)
  return {
    series: [...series.values()],
    requests: of((c) => c.requests),
    connections: of((c) => c.connections),
    active: of((c) => c.active),
    clients: of((c) => c.clients),
    upstreams: of((c) => c.upstreams),
    retries: of((c) => c.retries),
    tunnels: of((c) => c.tunnels),
    http2: of((c) => c.http2),
  }
}

/** Registers what is printed of requests; `read` gives each thread's counts. Its names are ingress-nginx's, so that its dashboards draw. */
export function printStats(metrics: Metrics, base: { readonly className: string; readonly namespace: string; readonly pod: string }, read: () => readonly Counts[]): void {
  const who = `controller_class="${base.className}",controller_namespace="${base.namespace}",controller_pod="${base.pod}"`
  const n = 'nginx_ingress_controller'
  let sum = add([{ series: [], requests: 0, connections: 0, active: 0, clients: 0, upstreams: 0, retries: 0, tunnels: 0, http2: 0 }])
  let labels: string[] = []
  metrics.onScrape(() => {
    sum = add(read())
    labels = sum.series.map(({ owner, service }) => {
      const slash = owner.indexOf('/')
      return `${who},namespace="${slash < 0 ? '' : owner.slice(0, slash)}",ingress="${owner.slice(slash + 1)}",service="${service.slice(service.indexOf('/') + 1)}",canary=""`
    })
  })
  metrics.family(`${n}_requests`, 'counter', 'Requests by Ingress, Service and status.', (out) => {
    sum.series.forEach((s, i) => {
      for (const [status, count] of s.statuses) out.push(`${n}_requests{${labels[i]},status="${status}"} ${count}`)
    })
  })
  histograms.forEach((h, k) => {
    const name = `${n}_${h.name}`
    const at = offsets[k]!
    metrics.family(name, 'histogram', h.help, (out) => {
      sum.series.forEach(({ numbers }, i) => {
        let below = 0
        h.buckets.forEach((le, b) => out.push(`${name}_bucket{${labels[i]},le="${le}"} ${(below += numbers[at + b]!)}`))
        const count = numbers[at + h.buckets.length + 1]!
        out.push(`${name}_bucket{${labels[i]},le="+Inf"} ${count}`, `${name}_sum{${labels[i]}} ${numbers[at + h.buckets.length]! / h.scale}`, `${name}_count{${labels[i]}} ${count}`)
      })
    })
  })
  const one = (name: string, type: 'counter' | 'gauge', help: string, lines: () => readonly (readonly [labels: string, value: number])[]): void =>
    metrics.family(name, type, help, (out) => {
      for (const [l, value] of lines()) out.push(`${name}{${l}} ${value}`)
    })
  one(`${n}_nginx_process_requests_total`, 'counter', 'Requests of this process.', () => [[who, sum.requests]])
  one(`${n}_nginx_process_connections`, 'gauge', 'Connections of clients.', () => [
    [`${who},state="active"`, sum.clients],
    [`${who},state="reading"`, 0],
    [`${who},state="writing"`, sum.active],
    [`${who},state="waiting"`, sum.clients - sum.active],
  ])
  one(`${n}_nginx_process_connections_total`, 'counter', 'Connections of clients accepted so far.', () => [
    [`${who},state="accepted"`, sum.connections],
    [`${who},state="handled"`, sum.connections],
  ])
  const began = Math.floor(Date.now() / 1000)
  one(`${n}_nginx_process_resident_memory_bytes`, 'gauge', 'Memory of this process.', () => [[who, process.memoryUsage.rss()]])
  one(`${n}_nginx_process_cpu_seconds_total`, 'counter', 'CPU time of this process.', () => {
    const { user, system } = process.cpuUsage()
    return [[who, (user + system) / 1e6]]
  })
  one(`${n}_nginx_process_oldest_start_time_seconds`, 'gauge', 'When this process began, seconds since 1970.', () => [[who, began]])
  one(`${n}_nginx_process_num_procs`, 'gauge', 'Always 1.', () => [[who, 1]])
  one('switchyard_ingress_retries_total', 'counter', 'Requests tried again on another connection or endpoint.', () => [['', sum.retries]])
  one('switchyard_ingress_tunnels_total', 'counter', 'Connections that became tunnels.', () => [['', sum.tunnels]])
  one('switchyard_ingress_connections', 'gauge', 'Open connections.', () => [
    ['side="client"', sum.clients],
    ['side="client",protocol="h2"', sum.http2],
    ['side="endpoint"', sum.upstreams],
  ])
}
