import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { explainError } from '../../lib/log.ts'
import { page } from './page.ts'

/** What the page is fed with. */
export interface Source {
  /** The newest picture and figures, as JSON; `changed` tells of newer ones until `signal` fires. */
  follow(changed: (json: string) => void, signal: AbortSignal): void
  explain(from: string, to: string): Promise<string>
}

/** Only this page's own requests: a name of ours in Host keeps pages of others, whose names were made to lead here, from reading. */
export function refused(request: Pick<IncomingMessage, 'headers' | 'method'>, port: number): string | undefined {
  const host = request.headers.host ?? ''
  if (![`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`].includes(host)) return `this page is not called "${host}"`
  const site = request.headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return 'another page may not ask this one'
  return request.method === 'GET' ? undefined : 'only GET'
}

/** Names of the API and their ports, and nothing a command line could take for a flag. */
const end = /^(?:(?:pod|node|service)\/[a-z0-9][a-z0-9./-]*(?::[a-z0-9-]+)?|(?:tcp|udp)\/[0-9a-f.:[\]]+)$/

/** Serves the page on 127.0.0.1; resolves to its port. */
export function serveView(port: number, source: Source, signal: AbortSignal): Promise<number> {
  let bound = port
  const server = createServer((request, response) => {
    response.setHeader('x-content-type-options', 'nosniff').setHeader('cache-control', 'no-store').setHeader('referrer-policy', 'no-referrer')
    response.setHeader(
      'content-security-policy',
      "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    )
    const why = refused(request, bound)
    if (why !== undefined) return void response.writeHead(403, { 'content-type': 'text/plain; charset=utf-8' }).end(`${why}\n`)
    void answer(request, response, source)
  })
  signal.addEventListener('abort', () => {
    server.close()
    server.closeAllConnections()
  })
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(error.code === 'EADDRINUSE' ? new Error(`port ${port} is in use; choose another with --port`) : error))
    server.listen({ host: '127.0.0.1', port }, () => {
      bound = (server.address() as { port: number }).port
      resolve(bound)
    })
  })
}

async function answer(request: IncomingMessage, response: ServerResponse, source: Source): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://localhost')
  if (url.pathname === '/') {
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page)
  } else if (url.pathname === '/events') {
    const gone = new AbortController()
    response.on('close', () => gone.abort())
    response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
    source.follow((json) => void response.write(`data: ${json}\n\n`), gone.signal)
  } else if (url.pathname === '/explain') {
    const [from, to] = [url.searchParams.get('from') ?? '', url.searchParams.get('to') ?? '']
    const fits = end.test(from) && end.test(to)
    const text = fits ? await source.explain(from, to).catch((error: unknown) => explainError(error)) : 'from and to are named as by "switchyard explain packet"'
    response.writeHead(fits ? 200 : 400, { 'content-type': 'text/plain; charset=utf-8' }).end(text)
  } else response.writeHead(404, { 'content-type': 'text/plain; charset=utf-8' }).end('there is /, /events and /explain\n')
}
