import type { Credentials } from './credentials.ts'
import type { Draft, KubeObject, List, Status } from './objects.ts'
import type { Resource } from './resources.ts'

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
  /** Most time for a whole answer, but for watches, in milliseconds; default 30,000. */
  readonly timeout?: number
}

/** A client; connects at the first request. */
export function connect(_credentials: Credentials, _options: ConnectOptions = {}): Client {
  throw new Error('not written yet')
}
