import { randomFillSync } from 'node:crypto'
import type { Finished } from './http1/engine.ts'

/** A request's place in a trace (W3C Trace Context). */
export interface Span {
  /** 32 and 16 hexadecimal digits. */
  readonly trace: string
  readonly id: string
  readonly parent: string | undefined
  readonly sampled: boolean
}

/** Spans that wait; what is more is dropped. */
const mostWaiting = 2048
/** Milliseconds between two batches. */
const every = 2000

const pool = Buffer.alloc(4096)
let next = pool.length
function hex(bytes: number): string {
  if (next + bytes > pool.length) {
    randomFillSync(pool)
    next = 0
  }
  next += bytes
  return pool.toString('hex', next - bytes, next)
}

/** Our span of a request: in the client's trace if it has a sane one, else in a new one. */
export function spanOf(traceparent: string | undefined, share: number, random: () => number = Math.random): Span {
  const m = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent ?? '')
  const known = m !== null && !/^0+$/.test(m[1]!) && !/^0+$/.test(m[2]!)
  if (known) return { trace: m[1]!, id: hex(8), parent: m[2]!, sampled: (Number.parseInt(m[3]!, 16) & 1) === 1 }
  return { trace: hex(16), id: hex(8), parent: undefined, sampled: random() < share }
}

/** What the endpoint is told. */
export function traceparentOf(span: Span): string {
  return `00-${span.trace}-${span.id}-${span.sampled ? '01' : '00'}`
}

/** Sends spans by OTLP over HTTP, as JSON, in batches. A collector that does not answer costs nobody a request. */
export class Traces {
  readonly #url: string
  readonly #failed: (why: string) => void
  readonly #timer: NodeJS.Timeout
  #waiting: object[] = []
  #sending: Promise<void> | undefined
  #silent = false
  /** Spans that nobody took. */
  dropped = 0

  /** `endpoint`: `http://collector:4318`; `/v1/traces` is added where no path stands. */
  constructor(endpoint: string, failed: (why: string) => void) {
    const url = new URL(endpoint)
    if (url.pathname === '/') url.pathname = '/v1/traces'
    this.#url = url.href
    this.#failed = failed
    this.#timer = setInterval(() => void this.flush(), every).unref()
  }

  finished(x: Finished, span: Span): void {
    if (!span.sampled) return
    if (this.#waiting.length >= mostWaiting) {
      this.dropped++
      return
    }
    const end = Date.now()
    const attribute = (key: string, value: string | number): object => ({ key, value: typeof value === 'number' ? { intValue: String(value) } : { stringValue: value } })
    this.#waiting.push({
      traceId: span.trace,
      spanId: span.id,
      ...(span.parent === undefined ? {} : { parentSpanId: span.parent }),
      name: `${x.method} ${x.route.path === '' ? '/' : x.route.path}`,
      kind: 2,
      startTimeUnixNano: `${Math.round((end - (x.now - x.startedAt)) * 1000)}000`,
      endTimeUnixNano: `${end}000000`,
      attributes: [
        attribute('http.request.method', x.method),
        attribute('http.response.status_code', x.status),
        attribute('server.address', x.host),
        attribute('url.path', x.path),
        attribute('client.address', x.client),
        attribute('http.request.header.x-request-id', x.requestId),
        ...(x.route.owner === '' ? [] : [attribute('k8s.ingress', x.route.owner), attribute('k8s.service', x.route.service)]),
        ...(x.lastEndpoint === '' ? [] : [attribute('network.peer.address', x.lastEndpoint)]),
      ],
      status: x.status >= 500 ? { code: 2, ...(x.reason === '' ? {} : { message: x.reason }) } : {},
    })
  }

  flush(): Promise<void> {
    this.#sending ??= this.#send().finally(() => (this.#sending = undefined))
    return this.#sending
  }

  async #send(): Promise<void> {
    const spans = this.#waiting
    if (spans.length === 0) return
    this.#waiting = []
    const body = JSON.stringify({
      resourceSpans: [{ resource: { attributes: [{ key: 'service.name', value: { stringValue: 'switchyard-ingress' } }] }, scopeSpans: [{ scope: { name: 'switchyard' }, spans }] }],
    })
    try {
      const response = await fetch(this.#url, { method: 'POST', headers: { 'content-type': 'application/json' }, body, signal: AbortSignal.timeout(5000) })
      await response.arrayBuffer()
      if (!response.ok) throw new Error(`the collector answered ${response.status}`)
      this.#silent = false
    } catch (error) {
      this.dropped += spans.length
      if (!this.#silent) this.#failed(error instanceof Error ? error.message : String(error))
      this.#silent = true
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.flush()
  }
}
