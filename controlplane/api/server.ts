import { createServer as createHttp, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttps } from 'node:https'
import type { Duplex } from 'node:stream'
import { isDeepStrictEqual } from 'node:util'
import { stringify as stringifyYaml, type Tags } from 'yaml'
import type { Authenticate } from '../identity/authenticate.ts'
import type { Authorize, Decision, Target } from '../identity/authorize.ts'
import type { User } from '../identity/user.ts'
import type { Json } from '../kinds/decode.ts'
import { decode } from '../kinds/decode.ts'
import { jsonTrouble } from '../kinds/gojson.ts'
import { FieldErrors } from '../kinds/invalid.ts'
import { apiVersion, since, type Kind } from '../kinds/kind.ts'
import { message, type Message } from '../kinds/schema.ts'
import { explainError, type Log } from '../../lib/log.ts'
import type { Metrics } from '../../lib/metrics.ts'
import { parseJson, parseYamlBody, readBody, type Parsed } from './body.ts'
import { Dry, brief, type Call, type DeleteOptions, type Rest } from './rest.ts'
import type { Cache, Entry } from './cache.ts'
import type { Discovery } from './discovery.ts'
import { managedByUpdate } from './managed.ts'
import { negotiate, type Form } from './negotiate.ts'
import { mergePatch } from '../../kube/patch.ts'
import { jsonPatch, strategicMerge } from './patch.ts'
import { decodeProtobuf } from './protobuf.ts'
import { fieldSelector, labelSelector } from './selectors.ts'
import {
  badRequest,
  Failure,
  forbidden,
  gone,
  internal,
  invalid,
  methodNotAllowed,
  noSuchResource,
  notAcceptable,
  statusOf,
  timeoutTooLarge,
  unauthorized,
  unsupportedMedia,
  unsupportedPatch,
  PlainFailure,
} from './status.ts'
import { reading, type Review } from './review.ts'
import { send } from './send.ts'
import { table, partial, type Include } from './table.ts'
import { objectBytes, serveWatch } from './watch.ts'

/** A request to a subresource that does more than read and write the object. */
export interface SubCall extends Call {
  readonly verb: string
  readonly query: URLSearchParams
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** The body as an object of this type (or of the subresource's own). */
  body(kind: string, group: string, version: string, typeName?: string): Promise<Json>
  /** The patch that was sent, as a function. */
  patch(): Promise<(before: Json, type: Message) => Json>
  answer(code: number, object: Json): void
}
export type SubHandler = (call: SubCall) => Promise<void>

/** What a path that is no resource answers. */
export interface PathAnswer {
  readonly code: number
  readonly type: string
  readonly body: string | Buffer
}
export type PathHandler = (request: IncomingMessage, query: URLSearchParams) => PathAnswer | Promise<PathAnswer>

export interface ServerParts {
  readonly rest: Rest
  readonly cache: Cache
  readonly kinds: readonly Kind[]
  readonly reviews: readonly Review[]
  /** By `pods/log`, `serviceaccounts/token`, … */
  readonly subresources: ReadonlyMap<string, SubHandler>
  readonly upgrades: ReadonlyMap<string, (call: Call & { readonly query: URLSearchParams }, request: IncomingMessage, socket: Duplex, head: Buffer) => Promise<void>>
  readonly discovery: Discovery
  readonly authenticate: Authenticate
  readonly authorize: Authorize
  readonly metrics: Metrics
  readonly log: Log
  /** Answers that belong to no group: by path, or by the path above with `/*`. */
  readonly paths: ReadonlyMap<string, PathHandler>
  readonly ready: () => string | undefined
}

/** What a path names. */
interface Route {
  readonly verb: string
  readonly group: string
  readonly version: string
  readonly resource: string
  readonly namespace: string | undefined
  readonly name: string
  readonly subresource: string
  readonly rest: string
  readonly watch: boolean
}

const bodyTypes = ['application/json', 'application/yaml', 'application/vnd.kubernetes.protobuf']
const patchTypes = ['application/json-patch+json', 'application/merge-patch+json', 'application/strategic-merge-patch+json', 'application/apply-patch+yaml']

/** The API over HTTP. */
export class ApiServer {
  readonly #parts: ServerParts
  readonly #byPath = new Map<string, Kind>()
  readonly #reviews = new Map<string, Review>()
  readonly #servers: Server[] = []
  readonly #requests
  readonly #latency
  #inFlight = { read: 0, write: 0 }

  constructor(parts: ServerParts) {
    this.#parts = parts
    for (const k of parts.kinds) this.#byPath.set(`${k.group}/${k.version}/${k.plural}`, k)
    for (const r of parts.reviews) this.#reviews.set(`${r.group}/v1/${r.plural}`, r)
    this.#requests = parts.metrics.counter('apiserver_request_total', 'Requests by verb, resource and code.')
    this.#latency = parts.metrics.histogram('apiserver_request_duration_seconds', 'Seconds from request to answer, watches left out.', [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5])
  }

  /** An HTTPS (with `tls`) or HTTP server for this API, not yet listening. */
  server(tls: { readonly cert: string; readonly key: string; readonly ca: string } | undefined): Server {
    const listener: RequestListener = (request, response) => void this.#serve(request, response)
    const how = { maxHeaderSize: 65_536, keepAliveTimeout: 90_000, headersTimeout: 30_000, requestTimeout: 0 }
    const server = tls === undefined ? createHttp(how, listener) : (createHttps({ ...how, ...tls, requestCert: true, rejectUnauthorized: false, minVersion: 'TLSv1.2' }, listener) as unknown as Server)
    server.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head))
    server.on('clientError', (_error, socket) => {
      if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n')
      else socket.destroy()
    })
    this.#servers.push(server)
    return server
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#servers.map(
        (s) =>
          new Promise<void>((resolve) => {
            s.close(() => resolve())
            s.closeIdleConnections()
            setTimeout(() => s.closeAllConnections(), 200).unref()
          }),
      ),
    )
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const start = performance.now()
    const context: Answering = { request, response, form: undefined, warnings: [] }
    let label = { verb: request.method ?? '', resource: '' }
    const writes = request.method !== 'GET' && request.method !== 'HEAD'
    const slot = writes ? 'write' : 'read'
    try {
      request.on('error', () => {})
      response.on('error', () => {})
      const question = (request.url ?? '/').indexOf('?')
      const path = question < 0 ? (request.url ?? '/') : request.url!.slice(0, question)
      const query = new URLSearchParams(question < 0 ? '' : request.url!.slice(question + 1))
      const user = this.#who(request)
      const route = parseRoute(request.method ?? 'GET', path, query)
      if (route === undefined) {
        await this.#other(context, user, path, query)
        return
      }
      label = { verb: route.verb, resource: route.resource }
      if (this.#inFlight[slot] >= (writes ? 200 : 400) && !route.watch) {
        response.setHeader('retry-after', '1')
        throw new Failure(429, 'TooManyRequests', 'Too many requests, please try again later.', { retryAfterSeconds: 1 })
      }
      if (!route.watch) this.#inFlight[slot]++
      try {
        await this.#resource(context, user, route, query)
      } finally {
        if (!route.watch) this.#inFlight[slot]--
      }
    } catch (error) {
      this.#fail(context, error)
    } finally {
      this.#requests.add(1, { ...label, code: String(response.statusCode) })
      if (label.verb !== 'watch') this.#latency.observe((performance.now() - start) / 1000, { verb: label.verb })
    }
  }

  /** Who asks; with `Impersonate-User`, for whom. */
  #who(request: IncomingMessage): User {
    const user = this.#parts.authenticate(request)
    if (user === undefined) throw unauthorized()
    const as = request.headers['impersonate-user']
    const groups = header(request, 'impersonate-group')
    const uid = request.headers['impersonate-uid']
    const extra: Record<string, string[]> = {}
    for (const name of Object.keys(request.headers)) if (name.startsWith('impersonate-extra-')) extra[decodeURIComponent(name.slice(18))] = header(request, name)
    if (as === undefined) {
      if (groups.length > 0 || uid !== undefined || Object.keys(extra).length > 0)
        throw new PlainFailure(500, '', `Internal Server Error: ${JSON.stringify(request.url)}: requested [${groups.map((g) => `{Group  ${g}  }`).join(' ')}] without impersonating a user\n`)
      return user
    }
    const name = String(as)
    const may = (resource: string, what: string, group = ''): void => {
      const d = this.#parts.authorize(user, 'impersonate', { group, resource }, undefined, what)
      if (!d.allowed) throw this.#refusal(user, 'impersonate', { group, resource }, undefined, what, d)
    }
    if (name.startsWith('system:serviceaccount:')) may('serviceaccounts', name.split(':')[3] ?? '')
    else may('users', name)
    for (const g of groups) may('groups', g)
    for (const [key, values] of Object.entries(extra)) for (const v of values) may(`userextras/${key}`, v, 'authentication.k8s.io')
    const all = [...groups]
    if (name.startsWith('system:serviceaccount:') && groups.length === 0) all.push('system:serviceaccounts', `system:serviceaccounts:${name.split(':')[2]}`)
    if (name === 'system:anonymous') all.push('system:unauthenticated')
    else if (!all.includes('system:authenticated')) all.push('system:authenticated')
    return { name, groups: all, ...(Object.keys(extra).length === 0 ? {} : { extra }), ...(uid === undefined ? {} : { uid: String(uid) }) }
  }

  #refusal(user: User, verb: string, target: Target, namespace: string | undefined, name: string, decision: Decision): Failure {
    const why = decision.reason === '' ? '' : `: ${decision.reason}`
    if ('path' in target) return new Failure(403, 'Forbidden', `forbidden: User ${JSON.stringify(user.name)} cannot ${verb} path ${JSON.stringify(target.path)}${why}`, {})
    const sub = target.subresource === undefined || target.subresource === '' ? '' : `/${target.subresource}`
    return forbidden(
      { group: target.group, plural: target.resource },
      name,
      `User ${JSON.stringify(user.name)} cannot ${verb} resource ${JSON.stringify(`${target.resource}${sub}`)} in API group ${JSON.stringify(target.group)} ${namespace === undefined ? 'at the cluster scope' : `in the namespace ${JSON.stringify(namespace)}`}${why}`,
    )
  }

  /** Discovery, health and what else is no resource. */
  async #other(context: Answering, user: User, path: string, query: URLSearchParams): Promise<void> {
    const { request, response } = context
    const verb = (request.method ?? 'GET').toLowerCase()
    const decision = this.#parts.authorize(user, verb, { path }, undefined, '')
    if (!decision.allowed) throw this.#refusal(user, verb, { path }, undefined, '', decision)
    const trimmed = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path
    if (trimmed === '/readyz' || trimmed === '/livez' || trimmed === '/healthz') {
      const why = trimmed === '/readyz' ? this.#parts.ready() : undefined
      const verbose = query.has('verbose')
      send(
        response,
        why === undefined ? 200 : 503,
        'text/plain; charset=utf-8',
        why === undefined ? (verbose ? `[+]ping ok\n[+]store ok\n${trimmed.slice(1)} check passed\n` : 'ok') : `[-]${why}\n${trimmed.slice(1)} check failed\n`,
        request,
      )
      return
    }
    const found = this.#parts.paths.get(trimmed) ?? this.#parts.paths.get(`${trimmed.slice(0, trimmed.lastIndexOf('/'))}/*`)
    if (found !== undefined) {
      const { code, type, body } = await found(request, query)
      send(response, code, type, body, request)
      return
    }
    if (this.#parts.discovery.answer(trimmed, query, request, response)) return
    // A group that exists answers in JSON for what it lacks, everything else in plain text.
    const m = /^\/apis\/([^/]+)\/([^/]+)$/.exec(trimmed)
    if ((m !== null && this.#parts.discovery.hasGroup(m[1]!)) || /^\/api\/[^/]+$/.test(trimmed)) throw noSuchResource()
    send(response, 404, 'text/plain; charset=utf-8', '404 page not found\n', request)
  }

  async #resource(context: Answering, user: User, route: Route, query: URLSearchParams): Promise<void> {
    const parts = this.#parts
    const { request, response } = context
    const known = this.#byPath.get(`${route.group}/${route.version}/${route.resource}`)
    const target: Target = { group: route.group, resource: route.resource, subresource: route.subresource }
    const decision = parts.authorize(user, route.verb, target, route.namespace, route.name)
    if (!decision.allowed) throw this.#refusal(user, route.verb, target, route.namespace, route.name, decision)
    const review = this.#reviews.get(`${route.group}/${route.version}/${route.resource}`)
    if (review !== undefined) {
      if (route.verb !== 'create' || route.name !== '') throw methodNotAllowed()
      const given = await this.#body(request, { validation: validationOf(query), warnings: context.warnings }, review.kind, review.group, 'v1', review.kind)
      given['metadata'].managedFields = managedByUpdate(
        { group: review.group, version: 'v1', status: false, type: message(review.kind) },
        given,
        undefined,
        { manager: managerOf(request, query), subresource: '' },
        parts.rest.now,
      )
      if (given['metadata'].managedFields.length === 0) delete given['metadata'].managedFields
      this.#object(context, 201, await review.create(user, given, route.namespace))
      return
    }
    const sub = known === undefined ? undefined : `${known.plural}/${route.subresource}`
    if (route.group === 'apiextensions.k8s.io' && route.resource === 'customresourcedefinitions' && route.verb === 'list') {
      // kubectl looks here before it says that a kind does not exist. There are none.
      this.#object(context, 200, { kind: 'CustomResourceDefinitionList', apiVersion: 'apiextensions.k8s.io/v1', metadata: { resourceVersion: String(parts.cache.revision) }, items: [] })
      return
    }
    if (known === undefined || (route.subresource !== '' && !known.subresources.some((s) => s.name === route.subresource))) throw refusedSubresource(route) ?? noSuchResource()
    const k = known
    if (k.readOnly === true && !reading.includes(route.verb)) throw methodNotAllowed()
    if (k.namespaced ? route.namespace === undefined && (route.name !== '' || (route.verb !== 'list' && route.verb !== 'watch')) : route.namespace !== undefined && k.kind !== 'Namespace') {
      throw k.namespaced ? methodNotAllowed() : noSuchResource()
    }
    const dry = query.getAll('dryRun')
    if (dry.some((d) => d !== 'All')) {
      const errors = new FieldErrors()
      errors.unsupported('dryRun', dry, ['All'])
      throw invalid('meta.k8s.io', optionsName(route.verb), '', [
        { reason: 'FieldValueNotSupported', message: `Unsupported value: []string{${dry.map((d) => JSON.stringify(d)).join(', ')}}: supported values: "All"`, field: 'dryRun' },
      ])
    }
    const validation = validationOf(query)
    if (!['Strict', 'Warn', 'Ignore'].includes(validation)) {
      const errors = new FieldErrors()
      errors.unsupported('fieldValidation', validation, ['', 'Ignore', 'Strict', 'Warn'])
      throw invalid('meta.k8s.io', optionsName(route.verb), '', errors.causes)
    }
    const given = query.get('fieldManager') ?? ''
    if (given.length > 128) {
      const errors = new FieldErrors()
      errors.causes.push({ reason: 'FieldValueTooLong', message: 'Too long: may not be more than 128 bytes', field: 'fieldManager' })
      throw invalid('meta.k8s.io', optionsName(route.verb), '', errors.causes)
    }
    const call: Call = {
      user,
      kind: k,
      namespace: route.namespace,
      name: route.name,
      subresource: route.subresource,
      dryRun: dry.length > 0,
      manager: managerOf(request, query),
      validation: validation as Call['validation'],
      warnings: context.warnings,
    }
    const include = (query.get('includeObject') ?? '') as Include | ''
    context.form = negotiate(request.headers.accept, include === '' ? 'Metadata' : include, route.verb === 'watch', route.verb === 'list')
    if (context.form.as === 'table' && !['', 'Metadata', 'Object', 'None'].includes(include))
      throw badRequest(`Unable to convert to Table as requested: includeObject: Invalid value: ${JSON.stringify(include)}: must be 'Metadata', 'Object', 'None', or empty`)
    const handler = sub === undefined || route.subresource === '' ? undefined : parts.subresources.get(sub)
    if (handler !== undefined) {
      const subresource = k.subresources.find((s) => s.name === route.subresource)!
      if (!subresource.verbs.includes(route.verb)) throw methodNotAllowed()
      await handler({
        ...call,
        verb: route.verb,
        query,
        request,
        response,
        body: (kind, group, version, typeName) => this.#body(request, call, kind, group, version, typeName ?? kind),
        patch: () => patchFunction(request),
        answer: (code, object) => {
          if (context.form?.as === 'table') this.#object(context, code, scaleTable(object, parts.rest.now))
          else this.#object(context, code, object)
        },
      })
      return
    }
    if (route.subresource === 'scale') throw methodNotAllowed()
    const status = route.subresource === 'status'
    switch (route.verb) {
      case 'get': {
        checkVersion(query.get('resourceVersion'))
        await this.#notOlder(query.get('resourceVersion'))
        const entry = parts.rest.entry(k, route.namespace, route.name)
        this.#entry(context, 200, k, entry)
        return
      }
      case 'list':
        await this.#list(context, call, query)
        return
      case 'watch':
        await this.#watch(context, call, query, route)
        return
      case 'create': {
        const o = await this.#decoded(request, call)
        this.#entry(context, 201, k, await parts.rest.create(call, o))
        return
      }
      case 'update': {
        const o = await this.#decoded(request, call)
        const name = o['metadata'].name ?? ''
        if (name === '') throw badRequest(`the name of the object (${route.name} based on URL) was undeterminable: name must be provided`)
        if (name !== route.name) throw badRequest(`the name of the object (${name}) does not match the name on the URL (${route.name})`)
        if (k.namespaced && o['metadata'].namespace !== undefined && o['metadata'].namespace !== route.namespace)
          throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
        const existing = parts.rest.find(k, route.namespace, route.name)
        if (existing === undefined && k.createOnUpdate && !status) {
          delete o['metadata'].uid
          this.#entry(context, 201, k, await parts.rest.create(call, o))
          return
        }
        const version = o['metadata'].resourceVersion ?? ''
        if (version === '' && !k.unconditional && existing !== undefined) {
          const errors = new FieldErrors()
          errors.causes.push({ reason: 'FieldValueInvalid', message: 'Invalid value: 0x0: must be specified for an update', field: 'metadata.resourceVersion' })
          throw invalid(k.group, k.kind, route.name, errors.causes)
        }
        this.#entry(context, 200, k, await parts.rest.update(call, () => structuredClone(o), { retry: version === '', ...(status ? { part: 'status' as const } : {}) }))
        return
      }
      case 'patch':
        await this.#patch(context, call, query, status)
        return
      case 'delete': {
        const options = await this.#deleteOptions(request, query, call)
        const { entry, gone: isGone } = await parts.rest.delete(call, options)
        if (isGone && !k.returnsDeleted) {
          const meta = entry.object['metadata']
          this.#object(context, 200, {
            kind: 'Status',
            apiVersion: 'v1',
            metadata: {},
            status: 'Success',
            details: { name: route.name, ...(k.group === '' ? {} : { group: k.group }), kind: k.plural, uid: meta.uid },
          })
          return
        }
        this.#entry(context, 200, k, entry)
        return
      }
      case 'deletecollection': {
        if (k.collection === false) throw methodNotAllowed()
        const options = await this.#deleteOptions(request, query, call)
        const chosen = this.#choose(k, query, route.namespace, '')
        const gone_: Json[] = []
        for (const entry of chosen(parts.cache.of(k).sorted())) {
          const meta = entry.object['metadata']
          try {
            const done = await parts.rest.delete({ ...call, namespace: meta.namespace, name: meta.name }, options)
            gone_.push(parts.rest.read(k, done.entry))
          } catch (error) {
            if (!(error instanceof Failure && error.code === 404)) throw error
          }
        }
        this.#object(context, 200, { kind: `${k.kind}List`, apiVersion: apiVersion(k), metadata: { resourceVersion: String(parts.cache.revision) }, items: gone_ })
        return
      }
      default:
        throw methodNotAllowed()
    }
  }

  async #body(request: IncomingMessage, call: Pick<Call, 'validation' | 'warnings'>, kind: string, group: string, version: string, typeName: string): Promise<Json> {
    const bytes = await readBody(request)
    const parsed = this.#parse(request, bytes, call.validation !== 'Ignore', kind)
    return this.#parts.rest.decodeAs(call, kind, group, version, message(typeName), parsed.value, parsed.duplicates)
  }

  async #decoded(request: IncomingMessage, call: Call): Promise<Json> {
    const bytes = await readBody(request)
    const parsed = this.#parse(request, bytes, call.validation !== 'Ignore', call.kind.kind)
    return this.#parts.rest.decode(call, parsed.value, parsed.duplicates)
  }

  #parse(request: IncomingMessage, bytes: Buffer, duplicates: boolean, kind: string): Parsed {
    const type = mediaType(request.headers['content-type'])
    if (type === 'application/vnd.kubernetes.protobuf') return { value: decodeProtobuf(bytes), duplicates: [] }
    const text = bytes.toString()
    try {
      // kubectl's `scale --current-replicas` sends JSON without saying so.
      if (type === '' || type === 'application/json') return parseJson(text, duplicates)
      if (type === 'application/yaml') return parseYamlBody(text)
    } catch (error) {
      if (error instanceof Failure) throw error
      throw badRequest(
        `the object provided is unrecognized (must be of type ${kind}): couldn't get version/kind; json parse error: ${(error as Error).message} (${bytes.length > 0 && type !== 'application/yaml' ? brief(text) : brief(text)})`,
      )
    }
    throw unsupportedMedia(bodyTypes)
  }

  async #patch(context: Answering, call: Call, query: URLSearchParams, status: boolean): Promise<void> {
    const { request } = context
    const { rest, cache } = this.#parts
    const { kind: k } = call
    const type = mediaType(request.headers['content-type'])
    if (!patchTypes.includes(type)) throw unsupportedPatch()
    const apply = type === 'application/apply-patch+yaml'
    const force = query.get('force')
    if (!apply && force !== null) {
      const errors = new FieldErrors()
      errors.forbidden('force', 'may not be specified for non-apply patch')
      throw invalid('meta.k8s.io', 'PatchOptions', '', errors.causes)
    }
    if (apply && (query.get('fieldManager') ?? '') === '') {
      const errors = new FieldErrors()
      errors.required('fieldManager', 'is required for apply patch')
      throw invalid('meta.k8s.io', 'PatchOptions', '', errors.causes)
    }
    const text = (await readBody(request)).toString()
    if (apply) {
      const { applyPatch } = await import('./apply.ts')
      const { entry, made } = await applyPatch(rest, cache, call, text, { force: force === 'true', ...(status ? { part: 'status' as const } : {}) })
      this.#entry(context, made ? 201 : 200, k, entry)
      return
    }
    let patch: unknown
    let duplicates: readonly string[] = []
    try {
      const parsed = parseJson(text, call.validation !== 'Ignore')
      patch = parsed.value
      duplicates = parsed.duplicates
    } catch (error) {
      if (error instanceof Failure) throw error
      throw badRequest(`error decoding patch: ${(error as Error).message}`)
    }
    const go = typeof patch === 'string' ? 'string' : Array.isArray(patch) ? 'array' : typeof patch === 'number' ? 'number' : typeof patch === 'boolean' ? 'bool' : undefined
    if (go !== undefined && type !== 'application/json-patch+json')
      throw badRequest(`${type === 'application/merge-patch+json' ? 'error decoding patch: ' : ''}json: cannot unmarshal ${go} into Go value of type map[string]interface {}`)
    const entry = await rest.update(
      call,
      (before) => {
        const base: Json = { kind: k.kind, apiVersion: apiVersion(k), ...structuredClone(before) }
        const patched =
          type === 'application/json-patch+json' ? jsonPatch(base, patch) : type === 'application/merge-patch+json' ? mergePatch(base, patch) : strategicMerge(k.type, base, patch as Json)
        // What an object is, and when it was made, is not the patch's to say.
        if (typeof patched === 'object' && patched !== null) {
          Object.assign(patched, { kind: k.kind, apiVersion: apiVersion(k) })
          if (typeof patched.metadata === 'object' && patched.metadata !== null) patched.metadata.creationTimestamp = before['metadata'].creationTimestamp
        }
        let o: Json
        try {
          o = rest.decode(call, sortKeys(patched), duplicates)
        } catch (error) {
          // A patch whose result does not fit the type is told with the whole result; what strict decoding refuses is not.
          if (!(error instanceof Failure) || error.message.includes('strict decoding error')) throw error
          const said = error.message.replace(/^.* cannot be handled as a [^:]*: /, '')
          throw invalid('', '', '', [
            {
              reason: 'FieldValueInvalid',
              message: `Invalid value: ${JSON.stringify(patchedText({ kind: k.kind, apiVersion: apiVersion(k), ...decode(k.type, before) }, patched as Json))}: ${said}`,
              field: 'patch',
            },
          ])
        }
        const name = o['metadata'].name ?? ''
        if (name !== before['metadata'].name) throw badRequest(`the name of the object (${name}) does not match the name on the URL (${call.name})`)
        if (k.namespaced && o['metadata'].namespace !== undefined && o['metadata'].namespace !== before['metadata'].namespace)
          throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
        return o
      },
      { retry: true, patch: true, ...(status ? { part: 'status' as const } : {}) },
    )
    this.#entry(context, 200, k, entry)
  }

  async #deleteOptions(request: IncomingMessage, query: URLSearchParams, call: Call): Promise<DeleteOptions> {
    const bytes = await readBody(request)
    let out: Json = {}
    if (bytes.length > 0) {
      const type = mediaType(request.headers['content-type'])
      if (type === 'application/vnd.kubernetes.protobuf') out = decodeProtobuf(bytes) as Json
      else if (type === '' || type === 'application/json' || type === 'application/yaml') {
        try {
          out = (type === 'application/yaml' ? parseYamlBody(bytes.toString()) : parseJson(bytes.toString(), false)).value as Json
        } catch (error) {
          throw badRequest(`couldn't get version/kind; json parse error: ${(error as Error).message}`)
        }
      } else throw unsupportedMedia(bodyTypes)
      if ((out?.['kind'] ?? 'DeleteOptions') !== 'DeleteOptions')
        throw new Failure(500, '', `no kind ${JSON.stringify(out['kind'])} is registered for version ${JSON.stringify(out['apiVersion'] ?? '')} in scheme "pkg/runtime/scheme.go:100"`)
      try {
        out = decode(message('DeleteOptions'), out ?? {})
      } catch (error) {
        throw badRequest((error as Error).message)
      }
    }
    if (query.has('gracePeriodSeconds')) out['gracePeriodSeconds'] ??= Number(query.get('gracePeriodSeconds'))
    if (query.has('propagationPolicy')) out['propagationPolicy'] ??= query.get('propagationPolicy')
    if (query.has('orphanDependents')) out['orphanDependents'] ??= query.get('orphanDependents') === 'true'
    if ((out['dryRun'] ?? []).length > 0) (call as { dryRun: boolean }).dryRun = true
    const policy = out['propagationPolicy']
    const errors = new FieldErrors()
    if (policy !== undefined && !['Foreground', 'Background', 'Orphan'].includes(policy)) errors.unsupported('propagationPolicy', policy, ['Foreground', 'Background', 'Orphan', 'nil'])
    if (policy !== undefined && out['orphanDependents'] !== undefined) errors.invalid('propagationPolicy', policy, 'orphanDependents and deletionPropagation cannot be both set')
    if (errors.causes.length > 0) throw invalid('meta.k8s.io', 'DeleteOptions', '', errors.causes)
    return out as DeleteOptions
  }

  /** The filter that a query asks for. */
  #choose(k: Kind, query: URLSearchParams, namespace: string | undefined, name: string): (entries: readonly Entry[]) => Entry[] {
    const { prefix, chooses, only } = this.#selection(k, query, namespace, name)
    return (entries) => {
      if (only !== undefined) {
        const found = entries === this.#parts.cache.of(k).sorted() ? this.#parts.cache.of(k).get(only) : entries.find((e) => e.key === only)
        return found !== undefined && (chooses === undefined || chooses(this.#parts.rest.read(k, found))) ? [found] : []
      }
      const out: Entry[] = []
      for (const e of entries) if (e.key.startsWith(prefix) && (chooses === undefined || chooses(this.#parts.rest.read(k, e)))) out.push(e)
      return out
    }
  }

  #selection(
    k: Kind,
    query: URLSearchParams,
    namespace: string | undefined,
    name: string,
  ): { readonly prefix: string; readonly chooses: ((o: Json) => boolean) | undefined; readonly only: string | undefined; readonly selective: boolean } {
    const labels = labelSelector(query.get('labelSelector') ?? undefined)
    const fields = fieldSelector(k, [query.get('fieldSelector') ?? '', ...(name === '' ? [] : [`metadata.name=${name}`])].filter((f) => f !== '').join(','))
    const chooses = labels === undefined ? fields?.chooses : fields === undefined ? labels : (o: Json): boolean => labels(o) && fields.chooses(o)
    const root = this.#parts.cache.of(k).prefix
    const ns = namespace ?? (k.namespaced ? fields?.namespace : undefined)
    const only = fields?.name !== undefined && (!k.namespaced || ns !== undefined) ? `${root}${k.namespaced ? `${ns}/` : ''}${fields.name}` : undefined
    return { prefix: k.namespaced && ns !== undefined ? `${root}${ns}/` : root, chooses, only, selective: chooses !== undefined }
  }

  /** Waits until everything up to `version` is here; 504 when that is in the future. */
  async #notOlder(version: string | null): Promise<void> {
    if (version === null || version === '' || version === '0') return
    if (!(await this.#parts.cache.reached(Number(version)))) throw timeoutTooLarge(version, this.#parts.cache.revision)
  }

  async #list(context: Answering, call: Call, query: URLSearchParams): Promise<void> {
    const { cache } = this.#parts
    const { kind: k } = call
    const limit = integer(query.get('limit'))
    const version = query.get('resourceVersion') ?? ''
    const match = query.get('resourceVersionMatch') ?? ''
    const token = query.get('continue') ?? ''
    const errors = new FieldErrors()
    if (match !== '') {
      if (token !== '') errors.forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden when continue is provided')
      if (version === '') errors.forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden unless resourceVersion is provided')
      if (match !== 'Exact' && match !== 'NotOlderThan') errors.unsupported('resourceVersionMatch', match, ['Exact', 'NotOlderThan', ''])
      if (match === 'Exact' && version === '0') errors.forbidden('resourceVersionMatch', 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    }
    if (query.has('sendInitialEvents')) errors.forbidden('sendInitialEvents', 'sendInitialEvents is forbidden for list')
    if (errors.causes.length > 0) throw invalid('meta.k8s.io', 'ListOptions', '', errors.causes)
    checkVersion(version)
    const { prefix, chooses, only, selective } = this.#selection(k, query, call.namespace, call.name)
    let at = cache.revision
    let after = ''
    if (token !== '') {
      if (version !== '' && version !== '0') throw badRequest('specifying resource version is not allowed when using continue')
      const wrong = (why: string): Failure => badRequest(`invalid continue token: continue key is not valid: ${why}`)
      const strange = token.search(/[^-\w]/)
      if (strange >= 0) throw wrong(`illegal base64 data at input byte ${strange}`)
      const bytes = Buffer.from(token, 'base64url')
      const trouble = jsonTrouble(bytes)
      if (trouble !== undefined) throw wrong(trouble)
      const c = JSON.parse(bytes.toString()) as { readonly v?: string; readonly rv?: number; readonly start?: string }
      if (c.v !== 'meta.k8s.io/v1' || typeof c.start !== 'string') throw wrong(`server does not recognize this encoded version ${JSON.stringify(c.v ?? '')}`)
      after = c.start
      if (c.rv === -1) at = cache.revision
      else {
        at = Number(c.rv)
        if (at < cache.floor)
          throw Object.assign(
            new Failure(
              410,
              'Expired',
              'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.',
            ),
            { listContinue: Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', rv: -1, start: after })).toString('base64url') },
          )
      }
    } else if (version !== '' && version !== '0') {
      await this.#notOlder(version)
      if (match === 'Exact' || (match === '' && limit > 0)) at = Number(version)
      else at = cache.revision
      if (at < cache.floor) throw gone('The resourceVersion for the provided list is too old.')
    }
    const objects = cache.of(k)
    const source = at >= cache.revision ? objects.sorted() : objects.asOf(at)
    const found: Entry[] = []
    let more = 0
    const limited = limit > 0 && !(version === '0' && token === '')
    const start = after === '' ? '' : `${prefixRoot(objects.prefix, prefix)}${after}`
    let last: Entry | undefined
    const read = (e: Entry): Json => this.#parts.rest.read(k, e)
    for (const e of only === undefined ? source : [at >= cache.revision ? objects.get(only) : source.find((x) => x.key === only)]) {
      if (e === undefined || !e.key.startsWith(prefix) || (start !== '' && e.key < start)) continue
      if (chooses !== undefined && !chooses(read(e))) continue
      if (limited && found.length >= limit) {
        more++
        if (selective) break
        continue
      }
      found.push(e)
      last = e
    }
    const metadata: Json = { resourceVersion: String(at) }
    if (more > 0 && last !== undefined) {
      metadata['continue'] = Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', rv: at, start: `${last.key.slice(prefix.length)}\0` })).toString('base64url')
      if (!selective) metadata['remainingItemCount'] = more
    }
    const form = context.form!
    if (form.as === 'object' && form.media === 'json' && k.storedAs === undefined) {
      // Straight from the stored bytes: no object is parsed or printed.
      const parts: Buffer[] = [Buffer.from(`{"kind":"${k.kind}List","apiVersion":"${apiVersion(k)}","metadata":${JSON.stringify(metadata)},"items":[`)]
      found.forEach((e, i) => parts.push(i === 0 ? brace : commaBrace, e.body()))
      parts.push(tail)
      this.#bytes(context, 200, Buffer.concat(parts))
      return
    }
    const list =
      form.as === 'object'
        ? { kind: `${k.kind}List`, apiVersion: apiVersion(k), metadata, items: found.map((e) => read(e)) }
        : form.as === 'partial'
          ? { kind: 'PartialObjectMetadataList', apiVersion: `meta.k8s.io/${form.version}`, metadata, items: found.map((e) => partial(read(e), form.version)) }
          : table(k, found.map(read), metadata, form.include, form.version, this.#parts.rest.now)
    this.#object(context, 200, list, false)
  }

  async #watch(context: Answering, call: Call, query: URLSearchParams, route: Route): Promise<void> {
    const { cache, rest } = this.#parts
    const { kind: k } = call
    const version = query.get('resourceVersion') ?? ''
    const match = query.get('resourceVersionMatch') ?? ''
    const initial = query.get('sendInitialEvents')
    // Rows are no objects: a list cannot be put together from them.
    if (initial === 'true' && context.form?.as === 'table')
      throw notAcceptable('only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf', false)
    const bookmarks = boolean(query.get('allowWatchBookmarks'))
    const timeout = integer(query.get('timeoutSeconds'))
    const errors = new FieldErrors()
    if (initial !== null) {
      if (match !== 'NotOlderThan') {
        errors.forbidden('resourceVersionMatch', 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan')
        if (match !== '') errors.unsupported('resourceVersionMatch', match, ['NotOlderThan'])
      }
    } else if (match !== '') errors.forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided')
    if (errors.causes.length > 0) throw invalid('meta.k8s.io', 'ListOptions', '', errors.causes)
    checkVersion(version)
    const { prefix, chooses } = this.#selection(k, query, route.namespace, route.name)
    const from = initial === 'true' ? undefined : version === '' || version === '0' ? (initial === 'false' ? cache.revision : undefined) : Number(version)
    if (initial === 'true' && version !== '' && version !== '0') await this.#notOlder(version)
    for (const w of context.warnings) context.response.appendHeader('warning', `299 - ${JSON.stringify(w)}`)
    serveWatch(
      cache,
      context.response,
      { kind: k, form: context.form!, prefix, chooses, from, bookmarks, initialEnd: initial === 'true', timeoutMs: timeout > 0 ? timeout * 1000 : (1800 + Math.random() * 1800) * 1000 },
      () => rest.now,
    )
  }

  #entry(context: Answering, code: number, k: Kind, entry: Entry): void {
    const form = context.form!
    if (entry instanceof Dry) {
      const o = { ...entry.object, metadata: { ...entry.object['metadata'] } }
      if (entry.revision === 0) delete o['metadata'].resourceVersion
      const read = k.storedAs === undefined ? o : k.storedAs.read(o)
      const object =
        form.as === 'table'
          ? table(k, [read], {}, form.include, form.version, this.#parts.rest.now)
          : form.as === 'partial'
            ? partial(read, form.version)
            : { kind: k.kind, apiVersion: apiVersion(k), ...read }
      this.#object(context, code, object)
      return
    }
    if (form.media === 'yaml') this.#object(context, code, JSON.parse(objectBytes(k, form, entry, true, this.#parts.rest.now).toString()) as Json)
    else this.#bytes(context, code, objectBytes(k, form, entry, true, this.#parts.rest.now))
  }

  #object(context: Answering, code: number, object: Json, warn = true): void {
    void warn
    if (context.form?.media === 'yaml') {
      this.#bytes(context, code, yamlOf(object), 'application/yaml')
      return
    }
    this.#bytes(context, code, Buffer.from(JSON.stringify(object)))
  }

  #bytes(context: Answering, code: number, bytes: Buffer, type = 'application/json'): void {
    const { request, response, warnings } = context
    for (const w of warnings) response.appendHeader('warning', `299 - ${JSON.stringify(w)}`)
    send(response, code, type, bytes, request)
  }

  #fail(context: Answering, error: unknown): void {
    const { request, response } = context
    if (response.headersSent) {
      response.destroy()
      return
    }
    let failure: Failure
    if (error instanceof PlainFailure) {
      send(response, error.code, 'text/plain; charset=utf-8', error.message, request)
      return
    }
    if (error instanceof Failure) failure = error
    else {
      const e = error as NodeJS.ErrnoException
      if (e.code === 'ECONNRESET' || request.destroyed) {
        response.destroy()
        return
      }
      this.#parts.log.error('a request failed', { path: request.url, error: explainError(error), stack: (error as Error).stack })
      failure = internal(e.message)
    }
    const body = statusOf(failure) as Json
    if ('listContinue' in failure) body['metadata'] = { continue: failure.listContinue }
    if (failure.details?.retryAfterSeconds !== undefined) response.setHeader('retry-after', String(failure.details.retryAfterSeconds))
    if (failure.code === 413) response.setHeader('connection', 'close')
    for (const w of context.warnings) response.appendHeader('warning', `299 - ${JSON.stringify(w)}`)
    const yaml = /^\s*application\/yaml/.test(request.headers.accept ?? '')
    send(response, failure.code, yaml ? 'application/yaml' : 'application/json', yaml ? yamlOf(body, 90) : JSON.stringify(body), request)
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    socket.on('error', () => {})
    const refuse = (failure: Failure): void => {
      const body = JSON.stringify(statusOf(failure))
      socket.end(`HTTP/1.1 ${failure.code} ${failure.reason}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`)
    }
    try {
      const question = (request.url ?? '/').indexOf('?')
      const path = question < 0 ? (request.url ?? '/') : request.url!.slice(0, question)
      const query = new URLSearchParams(question < 0 ? '' : request.url!.slice(question + 1))
      const user = this.#who(request)
      const route = parseRoute(request.method ?? 'GET', path, query)
      const k = route === undefined ? undefined : this.#byPath.get(`${route.group}/${route.version}/${route.resource}`)
      if (route === undefined || k === undefined) throw noSuchResource()
      const verb = request.method === 'POST' ? 'create' : 'get'
      const target: Target = { group: route.group, resource: route.resource, subresource: route.subresource }
      // exec is guarded as `create`, whatever the method that carries it.
      const decision = this.#parts.authorize(user, verb === 'get' ? 'create' : verb, target, route.namespace, route.name)
      if (!decision.allowed) throw this.#refusal(user, 'create', target, route.namespace, route.name, decision)
      const handler = this.#parts.upgrades.get(`${k.plural}/${route.subresource}`)
      if (handler === undefined) throw refusedSubresource(route) ?? badRequest('Upgrade request required')
      await handler(
        { user, kind: k, namespace: route.namespace, name: route.name, subresource: route.subresource, dryRun: false, manager: '', validation: 'Ignore', warnings: [], query },
        request,
        socket,
        head,
      )
    } catch (error) {
      refuse(error instanceof Failure ? error : internal((error as Error).message))
    }
  }
}

/** What a patch led to has no order of its own: Kubernetes reads it in that of its keys. */
function sortKeys(v: unknown): unknown {
  if (Array.isArray(v)) return v.map(sortKeys)
  if (typeof v !== 'object' || v === null) return v
  return Object.fromEntries(
    Object.entries(v)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, key === 'managedFields' ? item : sortKeys(item)]),
  )
}

/** What a patch led to, as error texts show it: what it touched in the order of keys, the rest as it was. */
function patchedText(before: Json, now: Json): string {
  const show = (was: any, is: any): any => {
    if (typeof is !== 'object' || is === null || Array.isArray(is)) return is
    if (isDeepStrictEqual(was, is)) return was
    return Object.fromEntries(
      Object.keys(is)
        .sort()
        .map((key) => [key, show(was?.[key], is[key])]),
    )
  }
  return JSON.stringify(show(before, now))
}

async function patchFunction(request: IncomingMessage): Promise<(before: Json, type: Message) => Json> {
  const type = mediaType(request.headers['content-type'])
  if (!patchTypes.includes(type) || type === 'application/apply-patch+yaml') throw unsupportedPatch()
  let patch: unknown
  try {
    patch = parseJson((await readBody(request)).toString(), false).value
  } catch (error) {
    if (error instanceof Failure) throw error
    throw badRequest(`error decoding patch: ${(error as Error).message}`)
  }
  return (before, schema) =>
    type === 'application/json-patch+json' ? jsonPatch(before, patch) : type === 'application/merge-patch+json' ? mergePatch(before, patch) : strategicMerge(schema, before, patch as Json)
}

/** As Kubernetes writes YAML: keys in order, lists not indented, and a dot is a word. (Go folds a line at the first blank after column 80.) */
function yamlOf(object: Json, lineWidth = 0): Buffer {
  const customTags = (tags: Tags): Tags =>
    tags.map((t) => (typeof t === 'object' && 'test' in t && t.test?.test('.') === true ? { ...t, test: /^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)$/ } : t) as Tags[number])
  return Buffer.from(stringifyYaml(object, { sortMapEntries: true, indentSeq: false, lineWidth, version: '1.1', customTags, singleQuote: lineWidth > 0 ? true : null }))
}

function scaleTable(o: Json, now: number): Json {
  if (o['kind'] !== 'Scale') return o
  const columns = ['Name', 'Desired', 'Available', 'Age'].map((name) => ({ name, type: name === 'Desired' || name === 'Available' ? 'integer' : 'string', format: '', description: '', priority: 0 }))
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: { resourceVersion: o['metadata'].resourceVersion },
    columnDefinitions: columns,
    rows: [{ cells: [o['metadata'].name, o['spec'].replicas ?? 0, o['status'].replicas, since(o['metadata'].creationTimestamp, now)], object: partial(o) }],
  }
}

interface Answering {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  form: Form | undefined
  readonly warnings: string[]
}

const brace = Buffer.from('{')
const commaBrace = Buffer.from(',{')
const tail = Buffer.from(']}')

const prefixRoot = (_root: string, prefix: string): string => prefix

/** Subresources that Kubernetes has and we do not: the answer says so. */
function refusedSubresource(route: Route): Failure | undefined {
  if (route.group !== '' || route.resource !== 'pods') return undefined
  if (!['attach', 'portforward', 'ephemeralcontainers', 'proxy', 'resize'].includes(route.subresource)) return undefined
  return new Failure(405, 'MethodNotAllowed', `switchyard does not serve pods/${route.subresource}`, { kind: 'pods', name: route.name })
}

function parseRoute(method: string, path: string, query: URLSearchParams): Route | undefined {
  let parts = path.split('/').slice(1)
  if (parts.at(-1) === '') parts.pop()
  let group = ''
  if (parts[0] === 'api') {
    if (parts.length < 3) return undefined
    parts = parts.slice(1)
  } else if (parts[0] === 'apis') {
    if (parts.length < 4) return undefined
    group = parts[1]!
    parts = parts.slice(2)
  } else return undefined
  const version = parts[0]!
  let rest = parts.slice(1).map(unescape_)
  let oldWatch = false
  if (rest[0] === 'watch' && rest.length > 1) {
    oldWatch = true
    rest = rest.slice(1)
  }
  if (rest.includes('')) return { verb: 'get', group, version, resource: '', namespace: undefined, name: '', subresource: '', rest: '', watch: false }
  let namespace: string | undefined
  if (rest[0] === 'namespaces' && rest.length > 2 && rest[2] !== 'status' && rest[2] !== 'finalize') {
    namespace = rest[1]
    rest = rest.slice(2)
  }
  const [resource = '', name = '', subresource = ''] = rest
  if (resource === 'namespaces' && namespace === undefined && name !== '') namespace = undefined
  const watch = oldWatch || boolean(query.get('watch'))
  let verb: string
  switch (method) {
    case 'GET':
      // One object is watched by a field selector; beside its name `watch` says nothing.
      verb = watch && subresource === '' && (name === '' || oldWatch) ? 'watch' : name === '' ? 'list' : 'get'
      break
    case 'POST':
      verb = 'create'
      break
    case 'PUT':
      verb = 'update'
      break
    case 'PATCH':
      verb = 'patch'
      break
    case 'DELETE':
      verb = name === '' ? 'deletecollection' : 'delete'
      break
    default:
      verb = method.toLowerCase()
  }
  if (verb === 'create' && name !== '' && subresource === '') verb = 'post'
  if ((verb === 'update' || verb === 'patch') && name === '') verb = `${verb} of a collection`
  return { verb, group, version, resource, namespace, name, subresource, rest: rest.slice(3).join('/'), watch: verb === 'watch' }
}

function unescape_(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Who changes fields: as the request says, else the program that sends it. */
function managerOf(request: IncomingMessage, query: URLSearchParams): string {
  return query.get('fieldManager') || (request.headers['user-agent'] ?? '').split('/')[0] || 'unknown'
}

const mediaType = (header_: string | undefined): string => (header_ ?? '').split(';')[0]!.trim().toLowerCase()
const boolean = (text: string | null): boolean => text !== null && text !== 'false' && text !== '0'
const validationOf = (query: URLSearchParams): Call['validation'] => (query.get('fieldValidation') || 'Warn') as Call['validation']
const optionsName = (verb: string): string => ({ create: 'CreateOptions', update: 'UpdateOptions', patch: 'PatchOptions' })[verb] ?? 'DeleteOptions'

function header(request: IncomingMessage, name: string): string[] {
  const out: string[] = []
  for (let i = 0; i < request.rawHeaders.length; i += 2) if (request.rawHeaders[i]!.toLowerCase() === name) out.push(request.rawHeaders[i + 1]!)
  return out
}

function integer(text: string | null): number {
  if (text === null || text === '') return 0
  if (!/^-?\d+$/.test(text)) throw badRequest(`strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`)
  return Number(text)
}

function checkVersion(text: string | null): void {
  if (text !== null && text !== '' && !/^\d+$/.test(text))
    throw new Failure(500, '', `resourceVersion: Invalid value: ${JSON.stringify(text)}: strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`)
}
