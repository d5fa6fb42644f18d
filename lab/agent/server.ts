import type { ChildProcess } from 'node:child_process'
import { createServer, type Server } from 'node:https'
import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { statSync } from 'node:fs'
import type { TLSSocket } from 'node:tls'
import { WebSocketServer } from 'ws'
import { explainError, type Log } from '../../lib/log.ts'
import type { Pod } from '../../kube/objects.ts'
import { carry, protocols } from './exec.ts'
import { readLog, type LogClock, type LogQuery } from './logs.ts'

/** What the API server may ask of this node. */
export interface NodeApi {
  pods(): readonly Pod[]
  /** Runs a program in a container; a sentence if that is not possible. */
  attach(namespace: string, pod: string, container: string, argv: readonly string[], tty: boolean): Promise<ChildProcess | string>
  log(namespace: string, pod: string, container: string, previous: boolean): { readonly file: string; readonly clock: LogClock; readonly running: () => boolean } | undefined
}

export interface ServerOptions {
  readonly host: string
  readonly port: number
  readonly cert: string | Buffer
  readonly key: string | Buffer
  /** Whoever shows a certificate of this authority for the group `system:masters` may ask; nobody else. */
  readonly ca: string | Buffer | undefined
  readonly log: Log
  readonly signal: AbortSignal
}

/** Listens for the API server: TLS with client certificates. */
export async function serveNode(api: NodeApi, options: ServerOptions): Promise<Server> {
  const server = createServer(
    { cert: options.cert, key: options.key, ...(options.ca === undefined ? {} : { ca: options.ca }), requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.2' },
    (request, response) => {
      void answer(api, request, response).catch((error: unknown) => {
        if (response.headersSent) response.destroy()
        else response.writeHead(500, { 'content-type': 'text/plain' }).end(`${explainError(error)}\n`)
      })
    },
  )
  server.headersTimeout = 10_000
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => protocols.find((p) => offered.has(p)) ?? false, maxPayload: 1 << 24 })
  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => {})
    void upgrade(api, sockets, request, socket, head).catch((error: unknown) => hangUp(socket, 500, explainError(error)))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(new Error(`cannot listen on ${options.host}:${options.port}: ${error.code === 'EADDRINUSE' ? 'the port is in use' : error.message}; choose another with --listen`, { cause: error })),
    )
    server.listen(options.port, options.host === '' ? undefined : options.host, resolve)
  })
  options.signal.addEventListener('abort', () => {
    server.close()
    server.closeAllConnections()
    for (const s of sockets.clients) s.terminate()
  })
  return server
}

function hangUp(socket: Duplex, code: number, text: string): void {
  socket.end(`HTTP/1.1 ${code} ${STATUS_CODES[code] ?? ''}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`)
}

/** `/exec/NAMESPACE/POD/CONTAINER?command=…`: the API server hands the client's connection through to here. */
async function upgrade(api: NodeApi, sockets: WebSocketServer, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  const url = new URL(request.url ?? '/', 'https://node')
  const refusal = refused(request.socket as TLSSocket)
  if (refusal !== undefined) return hangUp(socket, refusal.code, refusal.text)
  const m = /^\/exec\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(url.pathname)
  if (m === null) return hangUp(socket, 404, 'not found')
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((p) => p.trim())
  if (!offered.some((p) => protocols.includes(p))) return hangUp(socket, 400, `expected one of the protocols ${protocols.join(', ')}`)
  const argv = url.searchParams.getAll('command')
  if (argv.length === 0) return hangUp(socket, 400, 'you must specify at least 1 command for the container')
  const is = (name: string): boolean => ['true', '1'].includes(url.searchParams.get(name) ?? '')
  const [, namespace = '', pod = '', container = ''] = m.map(decodeURIComponent)
  const child = await api.attach(namespace, pod, container, argv, is('tty'))
  if (typeof child === 'string') return hangUp(socket, 404, child)
  sockets.handleUpgrade(request, socket, head, (wire) => carry(wire, child, { stdin: is('stdin'), stdout: is('stdout'), stderr: is('stderr'), tty: is('tty') }))
}

async function answer(api: NodeApi, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'https://node')
  const say = (code: number, text: string): void => void response.writeHead(code, { 'content-type': 'text/plain; charset=utf-8' }).end(`${text}\n`)
  const refusal = refused(request.socket as TLSSocket)
  if (refusal !== undefined) return say(refusal.code, refusal.text)
  if (request.method !== 'GET') return say(405, 'only GET')
  if (url.pathname === '/healthz') return say(200, 'ok')
  if (url.pathname === '/pods' || url.pathname === '/runningpods/') {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ kind: 'PodList', apiVersion: 'v1', metadata: {}, items: api.pods() }))
    return
  }
  const m = /^\/containerLogs\/([^/]+)\/([^/]+)\/([^/]+)$/.exec(url.pathname)
  if (m === null) return say(404, 'not found')
  const [, namespace = '', pod = '', container = ''] = m.map(decodeURIComponent)
  const query = parseQuery(url.searchParams)
  if (typeof query === 'string') return say(400, query)
  const previous = url.searchParams.get('previous') === 'true'
  const found = api.log(namespace, pod, container, previous)
  if (found === undefined || statSync(found.file, { throwIfNoEntry: false }) === undefined)
    return say(previous ? 400 : 404, previous ? `previous terminated container "${container}" in pod "${pod}" not found` : `container "${container}" in pod "${pod}" is waiting to start`)
  response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' })
  // The client sees the headers before the first line is written.
  response.flushHeaders()
  const ended = new AbortController()
  response.once('close', () => ended.abort())
  for await (const chunk of readLog(found.file, found.clock, query, found.running, ended.signal)) {
    if (!response.write(chunk))
      await new Promise<void>((resolve) => {
        response.once('drain', resolve)
        response.once('close', resolve)
      })
  }
  response.end()
}

function parseQuery(q: URLSearchParams): LogQuery | string {
  const number = (name: string): number | undefined => (q.get(name) === null || q.get(name) === '' ? undefined : Number(q.get(name)))
  const tailLines = number('tailLines')
  const limitBytes = number('limitBytes')
  const sinceSeconds = number('sinceSeconds')
  const sinceTime = q.get('sinceTime')
  for (const [name, value] of Object.entries({ tailLines, limitBytes, sinceSeconds })) if (value !== undefined && !(Number.isInteger(value) && value >= 0)) return `${name}: expected a whole number`
  const since = sinceTime !== null && sinceTime !== '' ? Date.parse(sinceTime) : sinceSeconds === undefined ? undefined : Date.now() - sinceSeconds * 1000
  if (since !== undefined && Number.isNaN(since)) return 'sinceTime: expected a time such as 2026-01-02T15:04:05Z'
  return { follow: q.get('follow') === 'true', tailLines, limitBytes, since, timestamps: q.get('timestamps') === 'true' }
}

function refused(socket: TLSSocket): { readonly code: number; readonly text: string } | undefined {
  if (!socket.authorized) return { code: 401, text: 'Unauthorized: a client certificate of the cluster is needed' }
  const groups: unknown = socket.getPeerCertificate().subject?.O
  return [groups].flat().includes('system:masters') ? undefined : { code: 403, text: 'Forbidden: the certificate is not of the group system:masters' }
}
