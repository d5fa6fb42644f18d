import http from 'node:http'
import https from 'node:https'
import type { Credentials, Identity, Patience, TlsIdentity } from './credentials.ts'
import type { Draft, KubeObject, List, Status } from './objects.ts'
import { apiVersionOf, pathOf, type Resource } from './resources.ts'

/** The API server said no. `reason` is `NotFound`, `Conflict`, `AlreadyExists`, `Invalid`, `Expired` … */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  readonly code: number
  readonly reason: string
  readonly status: Status
  /** From `Retry-After` or the Status, in milliseconds. */
  readonly retryAfter: number | undefined

  constructor(status: Status, request: string, retryAfter?: number) {
    super(status.message ?? `${request}: ${status.code ?? 0} ${status.reason ?? ''}`)
    this.status = status
    this.code = status.code ?? 0
    this.reason = status.reason ?? ''
    this.retryAfter = retryAfter
  }
}

/** Whether `error` is the API's 404: what was asked for does not exist. */
export function isNotFound(error: unknown): error is ApiError {
  return error instanceof ApiError && error.code === 404
}

/** Whether `error` is the API's 409: somebody else wrote first, or the object exists already. */
export function isConflict(error: unknown): error is ApiError {
  return error instanceof ApiError && error.code === 409
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
}

export interface ListOptions extends CallOptions {
  /** All namespaces if left out. */
  readonly namespace?: string | undefined
  readonly labelSelector?: string | undefined
  readonly fieldSelector?: string | undefined
  readonly limit?: number | undefined
  readonly continue?: string | undefined
  readonly resourceVersion?: string | undefined
  readonly resourceVersionMatch?: 'Exact' | 'NotOlderThan' | undefined
}

export interface WatchOptions extends CallOptions {
  readonly namespace?: string | undefined
  readonly labelSelector?: string | undefined
  readonly fieldSelector?: string | undefined
  /** Events after this revision. */
  readonly resourceVersion?: string | undefined
  readonly bookmarks?: boolean | undefined
  /** The server ends the watch after this time. */
  readonly timeoutSeconds?: number | undefined
  /** Called at every byte that arrives, also before an event is whole. */
  readonly heard?: (() => void) | undefined
}

export interface WriteOptions extends CallOptions {
  readonly dryRun?: boolean | undefined
  readonly fieldManager?: string | undefined
  readonly fieldValidation?: 'Strict' | 'Warn' | 'Ignore' | undefined
  readonly subresource?: string | undefined
  /** Told of each `Warning` header. */
  readonly warned?: ((text: string) => void) | undefined
}

export interface PatchOptions extends WriteOptions {
  /** Takes fields over from other managers (`apply` only). */
  readonly force?: boolean | undefined
}

export interface DeleteOptions extends CallOptions {
  readonly propagationPolicy?: 'Background' | 'Foreground' | 'Orphan' | undefined
  readonly gracePeriodSeconds?: number | undefined
  /** Deletes only this very object. */
  readonly uid?: string | undefined
  readonly resourceVersion?: string | undefined
  readonly dryRun?: boolean | undefined
}

export interface RawOptions extends CallOptions {
  /** A string or bytes go as they are, anything else as JSON. */
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** A whole answer; also of failures: `raw` throws only when there was no answer. */
export interface RawAnswer {
  readonly code: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

export type PatchType = 'merge' | 'strategic' | 'json' | 'apply'

/** One change seen by a watch. A bookmark's object has only `metadata.resourceVersion`. */
export type WatchEvent<T> = { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK'; readonly object: T }

/**
 * Talks to one API server. Refusals reject with `ApiError`, lost connections with an `Error` that names the request. Nothing is
 * tried again by itself, but for GET requests that a kept-alive connection lost before the first byte of an answer.
 */
export interface Client {
  readonly credentials: Credentials
  /** How patient mirrors over this client are, where they are not told themselves. */
  readonly patience: Patience
  get<T extends KubeObject>(resource: Resource<T>, name: string, namespace?: string, options?: CallOptions): Promise<T>
  /** As `get`, but an object that does not exist is `undefined`. */
  find<T extends KubeObject>(resource: Resource<T>, name: string, namespace?: string, options?: CallOptions): Promise<T | undefined>
  list<T extends KubeObject>(resource: Resource<T>, options?: ListOptions): Promise<List<T>>
  create<T extends KubeObject>(resource: Resource<T>, object: Draft<T>, options?: WriteOptions): Promise<T>
  update<T extends KubeObject>(resource: Resource<T>, object: T, options?: WriteOptions): Promise<T>
  patch<T extends KubeObject>(resource: Resource<T>, name: string, namespace: string | undefined, body: unknown, type: PatchType, options?: PatchOptions): Promise<T>
  /** Resolves to what the server answers: the object (it may linger for its finalizers) or a Status. */
  delete<T extends KubeObject>(resource: Resource<T>, name: string, namespace?: string, options?: DeleteOptions): Promise<T | Status>
  /** Ends when the server ends the watch; an ERROR event (410 Expired) rejects with `ApiError`. */
  watch<T extends KubeObject>(resource: Resource<T>, options?: WatchOptions): AsyncIterable<WatchEvent<T>>
  raw(method: string, path: string, options?: RawOptions): Promise<RawAnswer>
  /** Drops idle connections. */
  close(): void
}

export interface ConnectOptions {
  readonly userAgent?: string
  readonly patience?: Patience
  /** Most time for a whole answer, but for watches, in milliseconds; default 30,000. */
  readonly timeout?: number
}

/** A client; connects at the first request. */
export function connect(credentials: Credentials, options: ConnectOptions = {}): Client {
  const transport = new Transport(credentials, options)
  const json = <T>(method: string, path: string, body: unknown, how: Json = {}): Promise<T> => transport.json<T>(method, path, body, how)

  return {
    credentials,
    patience: options.patience ?? credentials.patience ?? {},
    get: async (resource, name, namespace, how = {}) => named(resource, await json('GET', pathOf(resource, namespace, name), undefined, how)),
    find: async (resource, name, namespace, how = {}) => {
      try {
        return named(resource, await json('GET', pathOf(resource, namespace, name), undefined, how))
      } catch (error) {
        if (isNotFound(error)) return undefined
        throw error
      }
    },
    list: async <T extends KubeObject>(resource: Resource<T>, how: ListOptions = {}) => {
      const { signal, namespace, ...query } = how
      const list = await json<List<T>>('GET', pathOf(resource, namespace), undefined, { signal, query })
      // Items come without their kind, and Go writes an empty list as null.
      return { ...list, items: (list.items ?? []).map((item) => named(resource, item)) }
    },
    create: async (resource, object, how = {}) => {
      const body = { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object }
      return named(
        resource,
        await json('POST', pathOf(resource, namespaceOf(resource, object.metadata.namespace, credentials), ...pathTail(how.subresource, object.metadata.name)), body, writing(how)),
      )
    },
    update: async (resource, object, how = {}) => {
      const { name, namespace } = object.metadata
      const body = { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object }
      return named(resource, await json('PUT', pathOf(resource, namespace, name, how.subresource), body, writing(how)))
    },
    patch: async (resource, name, namespace, body, type, how = {}) => {
      const { force, ...rest } = how
      const { query, ...others } = writing(rest)
      return named(resource, await json('PATCH', pathOf(resource, namespace, name, how.subresource), body, { ...others, query: { ...query, force }, type: patchTypes[type] }))
    },
    delete: async (resource, name, namespace, how = {}) => {
      const { signal, propagationPolicy, gracePeriodSeconds, uid, resourceVersion, dryRun } = how
      const preconditions = uid === undefined && resourceVersion === undefined ? undefined : { uid, resourceVersion }
      const body = { apiVersion: 'v1', kind: 'DeleteOptions', propagationPolicy, gracePeriodSeconds, preconditions, dryRun: dryRun === true ? ['All'] : undefined }
      return json('DELETE', pathOf(resource, namespace, name), body, { signal })
    },
    watch: (resource, how = {}) => transport.watch(resource, how),
    raw: (method, path, how = {}) => transport.whole(method, path, how.body, how),
    close: () => transport.close(),
  }
}

const patchTypes: Readonly<Record<PatchType, string>> = {
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  json: 'application/json-patch+json',
  apply: 'application/apply-patch+yaml',
}

/** An event larger than this ends the watch: no server sends one (objects are limited to 3 MiB). */
const largestEvent = 64 * 1024 * 1024

interface Json extends CallOptions {
  readonly query?: Query
  readonly type?: string
  readonly warned?: ((text: string) => void) | undefined
}

type Query = Readonly<Record<string, string | number | boolean | undefined>>

function writing(how: WriteOptions): Json {
  const { signal, dryRun, fieldManager, fieldValidation, warned } = how
  return { signal, warned, query: { dryRun: dryRun === true ? 'All' : undefined, fieldManager, fieldValidation } }
}

function pathTail(subresource: string | undefined, name: string | undefined): [] | [string | undefined, string] {
  return subresource === undefined ? [] : [name, subresource]
}

function namespaceOf(resource: Resource, namespace: string | undefined, credentials: Credentials): string | undefined {
  return resource.namespaced ? (namespace ?? credentials.namespace) : undefined
}

function named<T extends KubeObject>(resource: Resource<T>, object: T): T {
  if (resource.plural === 'endpointslices') withoutNulls(object as { endpoints?: unknown; ports?: unknown })
  if (object.kind !== undefined) return object
  return { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object }
}

/** Go writes an empty list of a field that is always there as null; nobody should have to know which fields those are. */
function withoutNulls(slice: { endpoints?: unknown; ports?: unknown }): void {
  if (slice.endpoints === null || slice.endpoints === undefined) slice.endpoints = []
  if (slice.ports === null || slice.ports === undefined) slice.ports = []
}

function withQuery(path: string, query: Query | undefined): string {
  if (query === undefined) return path
  const words: string[] = []
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== '') words.push(`${name}=${encodeURIComponent(value)}`)
  return words.length === 0 ? path : `${path}?${words.join('&')}`
}

class Transport {
  readonly #credentials: Credentials
  readonly #base: URL
  readonly #userAgent: string
  readonly #timeout: number
  #agent: http.Agent | undefined
  #agentTls: TlsIdentity | undefined

  constructor(credentials: Credentials, options: ConnectOptions) {
    this.#credentials = credentials
    this.#base = new URL(credentials.server)
    this.#userAgent = options.userAgent ?? 'switchyard'
    this.#timeout = options.timeout ?? options.patience?.timeout ?? credentials.patience?.timeout ?? 30_000
  }

  async json<T>(method: string, path: string, body: unknown, how: Json): Promise<T> {
    const target = withQuery(path, how.query)
    const headers = how.type === undefined ? {} : { 'Content-Type': how.type }
    const answer = await this.whole(method, target, body, { signal: how.signal, headers })
    if (how.warned !== undefined) for (const text of warnings(answer.headers['warning'])) how.warned(text)
    if (answer.code < 200 || answer.code > 299) throw failure(answer, `${method} ${target}`)
    try {
      return JSON.parse(answer.body.toString('utf8')) as T
    } catch (cause) {
      throw new Error(`${method} ${this.#credentials.server}${target}: the answer is not JSON`, { cause })
    }
  }

  async whole(method: string, path: string, body: unknown, how: { readonly signal?: AbortSignal | undefined; readonly headers?: Readonly<Record<string, string>> | undefined }): Promise<RawAnswer> {
    // By hand: `AbortSignal.any` would hang one more dependent signal on a signal that lives as long as the process.
    const limit = new AbortController()
    const given = how.signal
    const onAbort = (): void => limit.abort(given!.reason)
    if (given?.aborted === true) onAbort()
    given?.addEventListener('abort', onAbort, { once: true })
    const timer = setTimeout(() => limit.abort(new Error(`no answer within ${this.#timeout} ms`)), this.#timeout)
    const chunks: Buffer[] = []
    let response: http.IncomingMessage
    try {
      response = await this.#open(method, path, body, { signal: limit.signal, headers: how.headers })
      try {
        for await (const chunk of response) chunks.push(chunk as Buffer)
        if (!response.complete) throw new Error('the answer ended early')
      } catch (cause) {
        throw this.#lost(method, path, limit.signal, cause)
      }
    } finally {
      clearTimeout(timer)
      given?.removeEventListener('abort', onAbort)
    }
    return { code: response.statusCode ?? 0, headers: response.headers, body: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks) }
  }

  async *watch<T extends KubeObject>(resource: Resource<T>, how: WatchOptions): AsyncGenerator<WatchEvent<T>, void, undefined> {
    const { signal, namespace, labelSelector, fieldSelector, resourceVersion, bookmarks, timeoutSeconds, heard } = how
    const path = withQuery(pathOf(resource, namespace), { watch: true, allowWatchBookmarks: bookmarks === true ? true : undefined, labelSelector, fieldSelector, resourceVersion, timeoutSeconds })
    const response = await this.#open('GET', path, undefined, { signal })
    heard?.()
    if (response.statusCode !== 200) {
      const chunks: Buffer[] = []
      try {
        for await (const chunk of response) chunks.push(chunk as Buffer)
      } catch (cause) {
        throw this.#lost('GET', path, signal, cause)
      }
      throw failure({ code: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }, `GET ${path}`)
    }
    let parts: Buffer[] = []
    let length = 0
    try {
      for await (const chunk of response as AsyncIterable<Buffer>) {
        heard?.()
        let from = 0
        for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
          parts.push(chunk.subarray(from, end))
          from = end + 1
          const line = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
          parts = []
          length = 0
          const event = readEvent(resource, line, `GET ${path}`)
          if (event !== undefined) yield event
        }
        if (from < chunk.length) {
          parts.push(chunk.subarray(from))
          length += chunk.length - from
          if (length > largestEvent) throw new Error('an event is too large')
        }
      }
      if (!response.complete) throw new Error('the stream ended early')
      if (length > 0) throw new Error('the stream ended in the middle of an event')
    } catch (cause) {
      if (cause instanceof ApiError) throw cause
      throw this.#lost('GET', path, signal, cause)
    } finally {
      if (!response.complete) response.destroy()
    }
  }

  close(): void {
    this.#agent?.destroy()
    this.#agent = undefined
    this.#agentTls = undefined
  }

  /** Sends a request and resolves at the headers of its answer. */
  async #open(
    method: string,
    path: string,
    body: unknown,
    how: { readonly signal?: AbortSignal | undefined; readonly headers?: Readonly<Record<string, string>> | undefined },
  ): Promise<http.IncomingMessage> {
    const bytes = body === undefined ? undefined : typeof body === 'string' || body instanceof Uint8Array ? Buffer.from(body as string) : Buffer.from(JSON.stringify(body))
    let identity = await this.#credentials.current()
    for (let again = false; ; again = true) {
      let response: http.IncomingMessage
      try {
        response = await this.#send(method, path, bytes, identity, how)
      } catch (error) {
        // A kept-alive connection that the server had closed already: nothing was answered, and a GET changes nothing.
        if (!again && method === 'GET' && error instanceof Stale && how.signal?.aborted !== true) continue
        throw this.#lost(method, path, how.signal, error instanceof Stale ? error.cause : error)
      }
      if (response.statusCode !== 401 || again) return response
      // The token may have been replaced a moment ago.
      const fresh = await this.#credentials.current(true)
      if (fresh.token === identity.token && fresh.tls === identity.tls) return response
      response.resume()
      identity = fresh
    }
  }

  #send(
    method: string,
    path: string,
    bytes: Buffer | undefined,
    identity: Identity,
    how: { readonly signal?: AbortSignal | undefined; readonly headers?: Readonly<Record<string, string>> | undefined },
  ): Promise<http.IncomingMessage> {
    const secure = this.#base.protocol === 'https:'
    const prefix = this.#base.pathname.replace(/\/$/, '')
    return new Promise((resolve, reject) => {
      const request = (secure ? https : http).request({
        method,
        protocol: this.#base.protocol,
        host: this.#base.hostname.replace(/^\[|\]$/g, ''),
        port: this.#base.port === '' ? (secure ? 443 : 80) : Number(this.#base.port),
        path: prefix + path,
        agent: this.#agentFor(identity.tls),
        signal: how.signal,
        headers: {
          Accept: 'application/json',
          'User-Agent': this.#userAgent,
          ...(identity.token !== undefined ? { Authorization: `Bearer ${identity.token}` } : identity.basic !== undefined ? { Authorization: `Basic ${identity.basic}` } : {}),
          ...identity.impersonate,
          ...(bytes === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': bytes.length }),
          ...how.headers,
        },
      })
      request.on('response', resolve)
      // `upgrade` is not asked for here; a server that does it anyway is out of step.
      request.on('error', (error: NodeJS.ErrnoException) =>
        reject(request.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE') ? new Stale(error.message, { cause: error }) : error),
      )
      request.end(bytes)
    })
  }

  #agentFor(tls: TlsIdentity): http.Agent {
    if (this.#agent !== undefined && this.#agentTls === tls) return this.#agent
    // Requests under way, watches above all, finish on the old connections; idle ones carry an old certificate.
    for (const sockets of Object.values(this.#agent?.freeSockets ?? {})) for (const socket of sockets ?? []) socket.destroy()
    const common = { keepAlive: true, keepAliveMsecs: 30_000, maxFreeSockets: 16 }
    this.#agentTls = tls
    this.#agent =
      this.#base.protocol === 'https:'
        ? new https.Agent({
            ...common,
            rejectUnauthorized: !tls.insecure,
            ...(tls.ca === undefined ? {} : { ca: tls.ca }),
            ...(tls.cert === undefined ? {} : { cert: tls.cert }),
            ...(tls.privateKey === undefined ? {} : { key: tls.privateKey }),
            ...(tls.serverName === undefined ? {} : { servername: tls.serverName }),
          })
        : new http.Agent(common)
    return this.#agent
  }

  #lost(method: string, path: string, signal: AbortSignal | undefined, cause: unknown): Error {
    const what = `${method} ${this.#credentials.server}${path}`
    return new Error(what, { cause: signal?.aborted === true ? signal.reason : cause })
  }
}

/** A kept-alive connection broke before the answer began. */
class Stale extends Error {
  override readonly name = 'Stale'
}

function failure(answer: RawAnswer, request: string): ApiError {
  const after = Number(answer.headers['retry-after'])
  const text = answer.body.toString('utf8')
  let status: Status | undefined
  try {
    const parsed = JSON.parse(text) as Status
    if (parsed !== null && typeof parsed === 'object' && parsed.kind === 'Status') status = parsed
  } catch {
    // A proxy in between answers with words of its own.
  }
  const words = text.trim().slice(0, 200)
  status = { code: answer.code, ...(status ?? { kind: 'Status', apiVersion: 'v1', status: 'Failure', message: `${request}: ${answer.code}${words === '' ? '' : ` ${words}`}` }) }
  const seconds = Number.isFinite(after) && after >= 0 && answer.headers['retry-after'] !== undefined ? after : status.details?.retryAfterSeconds
  return new ApiError(status, request, seconds === undefined ? undefined : seconds * 1000)
}

function readEvent<T extends KubeObject>(resource: Resource<T>, line: Buffer, request: string): WatchEvent<T> | undefined {
  if (line.length === 0 || (line.length === 1 && line[0] === 13)) return undefined
  const event = JSON.parse(line.toString('utf8')) as { type: string; object: unknown }
  switch (event.type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
      return { type: event.type, object: named(resource, event.object as T) }
    case 'BOOKMARK':
      return { type: 'BOOKMARK', object: event.object as T }
    case 'ERROR': {
      const status = event.object as Status
      const seconds = status.details?.retryAfterSeconds
      throw new ApiError(status, request, seconds === undefined ? undefined : seconds * 1000)
    }
    default:
      throw new Error(`unknown kind of watch event "${event.type}"`)
  }
}

function warnings(header: string | string[] | undefined): readonly string[] {
  const text = Array.isArray(header) ? header.join(', ') : (header ?? '')
  return [...text.matchAll(/299 \S+ "((?:[^"\\]|\\.)*)"/g)].map((m) => m[1]!.replace(/\\(.)/g, '$1'))
}
