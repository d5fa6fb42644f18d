import type { TlsInfo } from '../../lib/sockets/seam.ts'
import type { Endpoint, Policy, Route, Upstream } from '../table.ts'

/** What the server says by itself instead of forwarding. */
export interface Answer {
  readonly status: number
  readonly headers?: readonly (readonly [name: string, value: string])[]
  /** Plain text unless a Content-Type is among the headers. */
  readonly body?: string
  /** Why, for the log and `explain`. */
  readonly reason?: string
}

/** One request as a step sees it: the identity that was matched, and what will be forwarded. */
export interface Exchange {
  readonly route: Route
  readonly method: string
  readonly secure: boolean
  /** Normalised. */
  readonly host: string
  /** As the client wrote it, port included. */
  readonly authority: string
  /** Normalised, percent-encoded. */
  readonly path: string
  /** With its `?`, or empty. */
  readonly query: string
  /** The client's address: the peer's, or what a trusted proxy in front said. */
  readonly client: string
  readonly requestId: string
  readonly port: number
  readonly tls: TlsInfo | undefined
  readonly now: number
  /** Request fields; only until the step returns, also when it returns a promise. */
  header(name: string): string | undefined
  headers(name: string): string[]
  cookie(name: string): string | undefined
  /** Forwarded instead of path and query. */
  target: string | undefined
  /** `Host` towards the endpoint. */
  upstreamHost: string | undefined
  upstream: Upstream
  /** Taken if it is among the upstream's endpoints. */
  endpoint: Endpoint | undefined
  /** The endpoint this client is bound to, if any. */
  sticky: Endpoint | undefined
  /** The endpoint that was asked last. */
  readonly asked: Endpoint | undefined
  /** One of several conditions holds, and one is enough. */
  satisfied: boolean
  dropRequest(name: string): void
  addRequest(name: string, value: string): void
  dropResponse(name: string): void
  addResponse(name: string, value: string): void
  /** Called once when the exchange is over, however it ended. */
  onEnd(f: () => void): void
}

/** A response as a step sees it. */
export interface ResponseView {
  readonly status: number
  header(name: string): string | undefined
  headers(name: string): string[]
}

/** A policy made ready. `request` may answer, at once or later; nothing returned lets the request go on. */
export interface Step {
  request?(x: Exchange): Answer | undefined | Promise<Answer | undefined>
  /** Before the head of the endpoint's answer is passed on. Returning an answer, at once or later, replaces it. */
  response?(x: Exchange, response: ResponseView): Answer | undefined | Promise<Answer>
}

/** Makes steps of policies; one for each name in `Policy.use`. */
export type Middleware = (policy: Policy, tools: Tools) => Step

/** What middleware may use beside the exchange. */
export interface Tools {
  readonly now: () => number
  readonly random: () => number
  /** State that outlives tables, made at the first call. */
  shared<T>(key: string, make: () => T): T
  /** One request to `url` by the server itself; for external authorisation and the like. */
  ask(request: { readonly url: string; readonly method: string; readonly headers: readonly (readonly [string, string])[]; readonly timeout: number }): Promise<Asked>
}

export interface Asked {
  readonly status: number
  readonly headers: readonly (readonly [string, string])[]
  readonly body: string
}

const reasons: Readonly<Record<number, string>> = {
  200: 'OK',
  204: 'No Content',
  301: 'Moved Permanently',
  302: 'Found',
  303: 'See Other',
  307: 'Temporary Redirect',
  308: 'Permanent Redirect',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  413: 'Content Too Large',
  414: 'URI Too Long',
  417: 'Expectation Failed',
  421: 'Misdirected Request',
  429: 'Too Many Requests',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
  505: 'HTTP Version Not Supported',
}

/** The phrase that goes with a status. */
export function phraseOf(status: number): string {
  return reasons[status] ?? 'Unknown'
}

/** A whole response of our own. `close`: the connection ends after it. */
export function renderAnswer(answer: Answer, how: { readonly head: boolean; readonly close: boolean; readonly http10KeepAlive: boolean; readonly requestId: string; readonly extra: string }): string {
  const bodyless = answer.status === 204 || answer.status === 304
  const body = bodyless ? '' : (answer.body ?? `${answer.status} ${phraseOf(answer.status)}\n`)
  let text = `HTTP/1.1 ${answer.status} ${phraseOf(answer.status)}\r\nServer: switchyard\r\n`
  let typed = false
  for (const [name, value] of answer.headers ?? []) {
    text += `${name}: ${safe(value)}\r\n`
    if (name.toLowerCase() === 'content-type') typed = true
  }
  if (!bodyless) text += `${typed ? '' : 'Content-Type: text/plain; charset=utf-8\r\n'}Content-Length: ${Buffer.byteLength(body)}\r\n`
  if (how.requestId !== '') text += `X-Request-ID: ${how.requestId}\r\n`
  text += how.extra
  if (how.close) text += 'Connection: close\r\n'
  else if (how.http10KeepAlive) text += 'Connection: keep-alive\r\n'
  return `${text}\r\n${how.head ? '' : latin1(body)}`
}

/** A value that cannot end its line. */
export function safe(value: string): string {
  return unsafe.test(value) ? value.replace(/[\u0000-\u0008\u000a-\u001f\u007f]/g, ' ').replace(/[^\u0000-\u00ff]/g, '?') : value
}

const unsafe = /[^\t\u0020-\u007e\u0080-\u00ff]/

/** The octets of `text` in UTF-8, one a character: what `latin1Write` needs. */
function latin1(text: string): string {
  // eslint-disable-next-line no-control-regex
  return /[^\u0000-\u007f]/.test(text) ? Buffer.from(text).latin1Slice(0, Buffer.byteLength(text)) : text
}
