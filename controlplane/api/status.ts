import type { Cause } from '../kinds/invalid.ts'
import { resourceName, type Kind } from '../kinds/kind.ts'

/** The answer to a request that failed: a Kubernetes `Status`. */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly code: number
  readonly reason: string
  readonly details: Details | undefined
  constructor(code: number, reason: string, text: string, details?: Details) {
    super(text)
    this.code = code
    this.reason = reason
    this.details = details
  }
}

/** What a Status says about the object and the reasons. */
export interface Details {
  readonly name?: string
  readonly group?: string
  readonly kind?: string
  readonly uid?: string
  readonly causes?: readonly Partial<Cause>[]
  readonly retryAfterSeconds?: number
}

/** A refusal from before the API: Kubernetes tells it in plain text. */
export class PlainFailure extends Failure {}

type Named = Pick<Kind, 'group' | 'plural'>

const details = (k: Named, name: string): Details => ({ ...(name === '' ? {} : { name }), ...(k.group === '' ? {} : { group: k.group }), kind: k.plural })

export const badRequest = (text: string): Failure => new Failure(400, 'BadRequest', text)
export const unauthorized = (): Failure => new Failure(401, 'Unauthorized', 'Unauthorized')
export const forbidden = (k: Named, name: string, why: string, causes?: readonly Partial<Cause>[]): Failure =>
  new Failure(403, 'Forbidden', `${resourceName(k)}${name === '' ? '' : ` ${JSON.stringify(name)}`} is forbidden: ${why}`, { ...details(k, name), ...(causes === undefined ? {} : { causes }) })
export const notFound = (k: Named, name: string): Failure => new Failure(404, 'NotFound', `${resourceName(k)} ${JSON.stringify(name)} not found`, details(k, name))
export const noSuchResource = (): Failure => new Failure(404, 'NotFound', 'the server could not find the requested resource', {})
export const methodNotAllowed = (): Failure => new Failure(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource', {})
export const exists = (k: Named, name: string, deleting = false): Failure =>
  new Failure(409, 'AlreadyExists', `${deleting ? 'object is being deleted: ' : ''}${resourceName(k)} ${JSON.stringify(name)} already exists`, details(k, name))
export const conflict = (k: Named, name: string, why: string): Failure =>
  new Failure(409, 'Conflict', `Operation cannot be fulfilled on ${resourceName(k)} ${JSON.stringify(name)}: ${why}`, details(k, name))
export const modified = 'the object has been modified; please apply your changes to the latest version and try again'
export const gone = (text: string): Failure => new Failure(410, 'Expired', text)
export const tooOld = 'The resourceVersion for the provided watch is too old.'
export const tooLarge = (limit: number): Failure => new Failure(413, 'RequestEntityTooLarge', `Request entity too large: limit is ${limit}`)
/** A patch in a form that no patch has: refused before anybody looked at it. */
export const unsupportedPatch = (): Failure => new Failure(415, 'UnsupportedMediaType', '415: Unsupported Media Type', {})
export const unsupportedMedia = (accepted: readonly string[]): Failure =>
  new Failure(415, 'UnsupportedMediaType', `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`)
export const notAcceptable = (text: string, empty = true): Failure => new Failure(406, 'NotAcceptable', text, empty ? {} : undefined)
export const internal = (text: string): Failure => new Failure(500, 'InternalError', `Internal error occurred: ${text}`, { causes: [{ message: text }] })
export const timeoutTooLarge = (asked: string, current: number): Failure =>
  new Failure(504, 'Timeout', `Timeout: Too large resource version: ${asked}, current: ${current}`, {
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
    retryAfterSeconds: 1,
  })

/** 422: the object breaks rules. */
export function invalid(group: string, kind: string, name: string, causes: readonly Cause[]): Failure {
  const texts = causes.map((c) => `${c.field}: ${c.message}`)
  // The same reason is said once, as Kubernetes' aggregate does.
  const unique = [...new Set(texts)]
  return new Failure(422, 'Invalid', `${group === '' ? kind : `${kind}.${group}`} ${JSON.stringify(name)} is invalid: ${unique.length === 1 ? unique[0] : `[${unique.join(', ')}]`}`, {
    ...(name === '' ? {} : { name }),
    ...(group === '' ? {} : { group }),
    ...(kind === '' ? {} : { kind }),
    causes,
  })
}

/** The body of a failure. */
export function statusOf(f: Failure): object {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: f.message,
    ...(f.reason === '' ? {} : { reason: f.reason }),
    ...(f.details === undefined ? {} : { details: f.details }),
    code: f.code,
  }
}
