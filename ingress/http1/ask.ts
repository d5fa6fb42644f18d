import type { Driver, Protocol, Wire } from '../../lib/sockets/seam.ts'
import { Body, CHUNKED, LENGTH, NONE, UNTIL_CLOSE } from './body.ts'
import type { Asked, Tools } from './exchange.ts'
import { safe } from './exchange.ts'
import { Head, INCOMPLETE, parseResponse } from './head.ts'

/** Answers longer than this are cut off: nobody asks us to carry them. */
const longest = 65_536

/** One request by ourselves, over a connection of its own. */
export function ask(driver: Driver, address: string, request: Parameters<Tools['ask']>[0]): Promise<Asked> {
  const url = new URL(request.url)
  const secure = url.protocol === 'https:'
  return new Promise((resolve, reject) => {
    const asking = new Asking(request.method, (answer) => (answer instanceof Error ? reject(answer) : resolve(answer)))
    const wire = driver.connect({ host: address, port: url.port === '' ? (secure ? 443 : 80) : Number(url.port) }, asking, {
      timeout: request.timeout,
      ...(secure ? { tls: { serverName: url.hostname, verify: true } } : {}),
    })
    let text = `${request.method} ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\n`
    for (const [name, value] of request.headers) text += `${name}: ${safe(value)}\r\n`
    const b = Buffer.from(`${text}Content-Length: 0\r\nConnection: close\r\n\r\n`, 'latin1')
    wire.write(b, 0, b.length)
    const late = setTimeout(() => {
      asking.done(new Error('no answer in time'))
      wire.abort()
    }, request.timeout)
    asking.ended = () => clearTimeout(late)
  })
}

class Asking implements Protocol {
  wire: Wire | undefined
  ended: () => void = () => {}
  readonly #method: string
  readonly #done: (answer: Asked | Error) => void
  #over = false
  #got = Buffer.alloc(0)

  constructor(method: string, done: (answer: Asked | Error) => void) {
    this.#method = method
    this.#done = done
  }

  done(answer: Asked | Error): void {
    if (this.#over) return
    this.#over = true
    this.ended()
    this.#done(answer)
    this.wire?.abort()
  }

  opened(w: Wire): void {
    this.wire = w
  }
  data(b: Buffer, from: number, to: number): void {
    if (this.#over) return
    this.#got = Buffer.concat([this.#got, b.subarray(from, to)])
    this.#look(false)
  }
  drain(): void {}
  eof(): void {
    this.#look(true)
    this.done(new Error('the connection ended before its answer'))
  }
  closed(why: string): void {
    this.done(new Error(why === '' ? 'the connection ended before its answer' : why))
  }

  #look(ended: boolean): void {
    const b = Buffer.from(this.#got)
    const head = new Head()
    let at = 0
    for (;;) {
      const end = parseResponse(head, b, at, b.length)
      if (end === INCOMPLETE) return
      if (end < 0) return this.done(new Error(head.refusal!.reason))
      at = end
      if (head.status >= 200) break
    }
    const headers: (readonly [string, string])[] = []
    for (let i = 0; i < head.lines; i++) headers.push([head.name(i), head.value(i)])
    const body = new Body()
    if (this.#method === 'HEAD' || head.status === 204 || head.status === 304) body.start(NONE)
    else if (head.chunked) body.start(CHUNKED)
    else if (head.contentLength >= 0) body.start(LENGTH, head.contentLength)
    else body.start(UNTIL_CLOSE)
    const payload = { to: at }
    const { status } = head
    if (body.advance(b, at, b.length, payload) < 0) return this.done(new Error(body.bad))
    if (body.done || (ended && body.kind === UNTIL_CLOSE) || payload.to - at > longest) this.done({ status, headers, body: b.toString('utf8', at, Math.min(payload.to, at + longest)) })
  }
}
