import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Metrics } from './metrics.ts'

/** What an endpoint answers. */
export interface StatusAnswer {
  readonly code: number
  readonly body: string
  readonly type?: string
  readonly headers?: Readonly<Record<string, string>>
}
export type StatusHandler = (request: IncomingMessage) => StatusAnswer | Promise<StatusAnswer>

/** What a program says of itself. A check returns a reason when it fails, nothing when all is well. */
export interface StatusOptions {
  readonly metrics?: Metrics
  readonly live?: () => string | undefined
  readonly ready?: () => string | undefined
  /** More paths, or other answers for the usual ones; `*` answers every other path. */
  readonly paths?: Readonly<Record<string, StatusHandler>>
}

/** The answers of a status listener: `/healthz`, `/livez`, `/readyz` and `/metrics`, and what `paths` adds. */
export function statusHandlers(options: StatusOptions): Readonly<Record<string, StatusHandler>> {
  const check = (f: (() => string | undefined) | undefined) => (): StatusAnswer => {
    const reason = f?.()
    return reason === undefined ? { code: 200, body: 'ok' } : { code: 503, body: `${reason}\n` }
  }
  const { metrics } = options
  return {
    '/healthz': check(options.live),
    '/livez': check(options.live),
    '/readyz': check(options.ready),
    ...(metrics === undefined ? {} : { '/metrics': () => ({ code: 200, body: metrics.print(), type: 'text/plain; version=0.0.4; charset=utf-8' }) }),
    ...options.paths,
  }
}

/** A status listener that runs. */
export interface StatusServer {
  readonly address: string
  readonly port: number
  close(): Promise<void>
}

/** Listens at `at` and answers `statusHandlers(options)`. Rejects, naming the address and `flag`, when the port is taken. */
export async function listenStatus(at: { readonly host: string; readonly port: number }, options: StatusOptions, flag = '--status'): Promise<StatusServer> {
  const handlers = statusHandlers(options)
  const server = createServer((request, response) => void answer(handlers, request, response))
  server.headersTimeout = 5000
  server.requestTimeout = 10_000
  await listening(server, at, flag)
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : at.port
  return {
    address: at.host,
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function listening(server: Server, at: { readonly host: string; readonly port: number }, flag: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'the port is in use' : error.code === 'EADDRNOTAVAIL' ? 'the address is not on this machine' : error.message
      reject(new Error(`cannot listen on ${at.host.includes(':') ? `[${at.host}]` : at.host}:${at.port} for status: ${why}; choose another with ${flag}`, { cause: error }))
    })
    server.listen(at.port, at.host === '' ? undefined : at.host, resolve)
  })
}

async function answer(handlers: Readonly<Record<string, StatusHandler>>, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? '/').split('?', 1)[0]!
  const handler = Object.hasOwn(handlers, path) ? handlers[path] : handlers['*']
  let said: StatusAnswer
  if (request.method !== 'GET' && request.method !== 'HEAD') said = { code: 405, body: 'only GET\n' }
  else if (handler === undefined) said = { code: 404, body: 'not found\n' }
  else {
    try {
      said = await handler(request)
    } catch (error) {
      said = { code: 500, body: `${error instanceof Error ? error.message : String(error)}\n` }
    }
  }
  response.writeHead(said.code, { 'content-type': said.type ?? 'text/plain; charset=utf-8', 'x-content-type-options': 'nosniff', ...said.headers })
  response.end(request.method === 'HEAD' ? undefined : said.body)
}
