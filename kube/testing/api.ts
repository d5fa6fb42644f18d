import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type Client, type ConnectOptions } from '../client.ts'
import { parseKubeconfig, type Patience } from '../credentials.ts'
import type { KubeObject, Status } from '../objects.ts'
import { equal, jsonPatch, mergePatch, PatchError, strategicMerge, type FieldRule, type JsonOperation, type MergeSchema } from '../patch.ts'
import { apiVersionOf, keyOf, resources, type Resource } from '../resources.ts'
import { matchesFields, matchesLabels, parseFieldSelector, parseLabelSelector, SelectorError } from '../selectors.ts'

/** Which requests a trouble befalls. `any` is all of them. */
export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete'

/** What goes wrong with a request. */
export type Trouble =
  /** An answer with this code; `retryAfter` in seconds; a text body instead of a Status. */
  | { readonly code: number; readonly reason?: string; readonly message?: string; readonly retryAfter?: number; readonly text?: string }
  /** The connection is reset before the answer. */
  | 'reset'
  /** The connection is reset in the middle of the answer, or, on a watch, in the middle of its first event. */
  | 'cut'
  /** Nothing is ever answered. */
  | 'silence'
  /** The answer is 200 and no JSON. */
  | 'garbage'
  /** The change is made and the connection reset before the answer. */
  | 'lost answer'

/** A standing order to misbehave. */
export interface Order {
  readonly trouble: Trouble
  /** Default: any. */
  readonly verbs?: readonly Verb[]
  /** Plural; default: all. */
  readonly resource?: string
  /** How many requests; default: until `behave`. */
  readonly times?: number
}

/** A request that was made, in order. */
export interface Made {
  readonly verb: Verb
  readonly method: string
  /** With the query. */
  readonly path: string
  readonly resource: string
  readonly namespace: string | undefined
  readonly name: string | undefined
  readonly subresource: string | undefined
  readonly headers: http.IncomingHttpHeaders
  readonly body: unknown
  code: number
}

interface Stored extends KubeObject {
  readonly apiVersion: string
  readonly kind: string
}

interface Change {
  readonly revision: number
  readonly resource: Resource
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly now: Stored
  readonly before: Stored | undefined
}

interface Watcher {
  readonly resource: Resource
  readonly response: http.ServerResponse
  readonly bookmarks: boolean
  sees(change: Change): Change | undefined
  muted: boolean
}

export interface FakeApiOptions {
  /** Requests without this token get 401; changeable while it runs (`api.token`). */
  readonly token?: string
  /** Serves HTTPS. */
  readonly tls?: { readonly key: string | Buffer; readonly cert: string | Buffer; readonly ca?: string | Buffer; readonly requestCert?: boolean }
  /** Further kinds to serve, beside those with a constant. */
  readonly kinds?: readonly Resource[]
}

/**
 * An API server in memory for tests, over real HTTP on loopback. It stores what it is given (no defaults, no validation), answers
 * lists, watches and patches as a real one does, and misbehaves when told to.
 */
export class FakeApi {
  /** Set to demand another token from now on. */
  token: string | undefined
  /** How long each answer waits, in milliseconds. */
  delay = 0
  /** What kubeconfigs from here on say about patience: what takes minutes elsewhere takes milliseconds in a test. */
  patience: Patience = { firstWait: 5, mostWait: 50 }
  /** Every request, in order. */
  readonly requests: Made[] = []
  /** Who each request came from: the CN of the client certificate. */
  readonly peers: (string | undefined)[] = []
  /** Called before each write is carried out; what it throws as a `Status` is the answer. For admission in tests. */
  admit: ((verb: Verb, resource: Resource, object: KubeObject) => Status | undefined) | undefined

  readonly #server: http.Server
  readonly #scheme: 'http' | 'https'
  readonly #options: FakeApiOptions
  readonly #kinds: Resource[]
  readonly #objects = new Map<string, Map<string, Stored>>()
  #history: Change[] = []
  #revision = 100
  /** Watches and pages from before this revision are gone. */
  #floor = 0
  readonly #watchers = new Set<Watcher>()
  readonly #sockets = new Set<Socket>()
  #orders: { order: Order; left: number }[] = []
  #folder: string | undefined
  readonly #clients: Client[] = []
  readonly #waiting = new Set<() => void>()

  private constructor(options: FakeApiOptions) {
    this.#options = options
    this.token = options.token
    this.#kinds = [...resources, ...(options.kinds ?? [])]
    const listener = (request: http.IncomingMessage, response: http.ServerResponse): void => void this.#serve(request, response)
    this.#scheme = options.tls === undefined ? 'http' : 'https'
    this.#server = options.tls === undefined ? http.createServer(listener) : https.createServer({ ...options.tls, rejectUnauthorized: false }, listener)
    this.#server.on(options.tls === undefined ? 'connection' : 'secureConnection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => this.#sockets.delete(socket))
    })
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(options: FakeApiOptions = {}): Promise<FakeApi> {
    const api = new FakeApi(options)
    await new Promise<void>((resolve, reject) => {
      api.#server.once('error', reject)
      api.#server.listen(0, '127.0.0.1', resolve)
    })
    return api
  }

  /** `http://127.0.0.1:PORT`. */
  get url(): string {
    return `${this.#scheme}://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** A path of a kubeconfig file that leads here. Removed by `close`. */
  kubeconfig(): string {
    this.#folder ??= mkdtempSync(join(tmpdir(), 'switchyard-api-'))
    const path = join(this.#folder, 'kubeconfig')
    writeFileSync(path, this.kubeconfigText(), { mode: 0o600 })
    return path
  }

  kubeconfigText(): string {
    const ca = this.#options.tls?.ca ?? this.#options.tls?.cert
    const cluster = {
      server: this.url,
      extensions: [{ name: 'switchyard.dev/patience', extension: this.patience }],
      ...(ca === undefined ? {} : { 'certificate-authority-data': Buffer.from(ca).toString('base64') }),
    }
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'fake', cluster }],
      users: [{ name: 'fake', user: this.token === undefined ? {} : { token: this.token } }],
      contexts: [{ name: 'fake', context: { cluster: 'fake', user: 'fake' } }],
      'current-context': 'fake',
    })
  }

  /** A client of this server, closed with it. Mirrors over it have no patience: what takes minutes elsewhere takes milliseconds here. */
  async client(how: ConnectOptions = {}): Promise<Client> {
    const client = connect(await parseKubeconfig(this.kubeconfigText()), { userAgent: 'test', timeout: 2000, patience: { silence: 1000, firstWait: 5, mostWait: 50 }, ...how })
    this.#clients.push(client)
    return client
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.close()
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    for (const socket of this.#sockets) socket.destroy()
    await closed
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  // What is stored

  /** Creates or replaces an object as it is, and tells the watches. Returns what is stored. */
  put<T extends KubeObject>(object: T): T {
    const resource = this.#resourceOf(object)
    const key = keyOf(object)
    const before = this.#table(resource).get(key)
    return this.#store(resource, object, before) as unknown as T
  }

  /** Puts several objects. */
  putAll(objects: Iterable<KubeObject>): void {
    for (const object of objects) this.put(object)
  }

  /** Deletes an object at once, finalizers or not. */
  remove(object: KubeObject): void {
    const resource = this.#resourceOf(object)
    const before = this.#table(resource).get(keyOf(object))
    if (before !== undefined) this.#erase(resource, before)
  }

  /** The stored object, if there is one. */
  read<T extends KubeObject>(resource: Resource<T>, key: string): T | undefined {
    return this.#table(resource).get(key) as unknown as T | undefined
  }

  /** All stored objects of a kind, by key. */
  all<T extends KubeObject>(resource: Resource<T>): readonly T[] {
    return [...this.#table(resource).entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, o]) => o as unknown as T)
  }

  get revision(): number {
    return this.#revision
  }

  /** Resolves once `claim` holds; looked at after each change and request. Rejects after `ms`. */
  async until(claim: () => boolean, what = 'what was awaited', ms = 5000): Promise<void> {
    if (claim()) return
    await new Promise<void>((resolve, reject) => {
      const done = (): void => {
        this.#waiting.delete(look)
        clearInterval(poll)
        clearTimeout(timer)
      }
      const look = (): void => {
        if (!claim()) return
        done()
        resolve()
      }
      const poll = setInterval(look, 10)
      const timer = setTimeout(() => {
        done()
        reject(new Error(`${what}: did not happen within ${ms} ms`))
      }, ms)
      this.#waiting.add(look)
    })
  }

  // What it can do wrongly

  /** Follows `order` from now on, beside earlier ones; the first that fits a request befalls it. */
  misbehave(order: Order): void {
    this.#orders.push({ order, left: order.times ?? Infinity })
  }

  /** Forgets all orders and answers at once again. Watches that went silent stay so. */
  behave(): void {
    this.#orders = []
    this.delay = 0
  }

  /** Open watches of `plural`, or all. */
  watches(plural?: string): number {
    return [...this.#watchers].filter((w) => plural === undefined || w.resource.plural === plural).length
  }

  /** Ends open watches in good order, as a server does after a while. */
  endWatches(plural?: string): void {
    for (const w of this.#chosen(plural)) w.response.end()
  }

  /** Resets the connections of open watches; `middle` of an event if asked for. */
  resetWatches(plural?: string, middle = false): void {
    for (const w of this.#chosen(plural)) {
      if (middle) w.response.write('{"type":"MODIFIED","object":{"apiVersion":"v1","ki', () => w.response.socket?.resetAndDestroy())
      else w.response.socket?.resetAndDestroy()
    }
  }

  /** Ends open watches with the event of a 410. */
  expireWatches(plural?: string): void {
    for (const w of this.#chosen(plural)) {
      this.#send(w.response, 'ERROR', tooOld('too old resource version'))
      w.response.end()
    }
  }

  /** Open watches stay open and never say anything again. */
  muteWatches(plural?: string): void {
    for (const w of this.#chosen(plural)) w.muted = true
  }

  /** Forgets its history: whoever watches or pages from an older revision gets 410 (watches as an event). */
  compact(): void {
    this.#floor = this.#revision
    this.#history = []
  }

  /** Sends a bookmark to every watch that asked for them. */
  bookmark(): void {
    for (const w of this.#watchers) if (w.bookmarks && !w.muted) this.#send(w.response, 'BOOKMARK', this.#bookmarkOf(w.resource))
  }

  /** As after the restore of an older backup: these objects, a lower revision, no history, all connections gone. */
  restore(objects: Iterable<KubeObject>, revision: number): void {
    this.#objects.clear()
    this.#history = []
    this.#revision = revision
    this.putAll(objects)
    this.#floor = this.#revision
    this.#history = []
    this.resetConnections()
  }

  /** Resets every connection there is. */
  resetConnections(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  // Serving

  *#chosen(plural: string | undefined): Iterable<Watcher> {
    for (const w of Array.from(this.#watchers)) if (plural === undefined || w.resource.plural === plural) yield w
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    response.on('error', () => {})
    const chunks: Buffer[] = []
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer)
    } catch {
      return
    }
    const url = new URL(request.url ?? '/', 'http://api')
    const text = Buffer.concat(chunks).toString('utf8')
    if (url.pathname === '/version') return this.#answer(response, 200, { major: '1', minor: '33', gitVersion: 'v1.33.0' })
    if (['/healthz', '/livez', '/readyz'].includes(url.pathname)) return void response.end('ok')
    const discovery = this.#discovery(url.pathname)
    if (discovery !== undefined) return this.#answer(response, 200, discovery)
    const target = this.#parse(url.pathname)
    if (target === undefined) return this.#answer(response, 404, failure(404, 'NotFound', 'the server could not find the requested resource'))
    const { resource, namespace, name, subresource } = target
    const method = request.method ?? 'GET'
    const watch = method === 'GET' && ['true', '1'].includes(url.searchParams.get('watch') ?? '')
    const verb: Verb = watch ? 'watch' : method === 'GET' ? (name === undefined ? 'list' : 'get') : method === 'POST' ? 'create' : method === 'PUT' ? 'update' : method === 'PATCH' ? 'patch' : 'delete'
    let body: unknown
    try {
      body = text === '' ? undefined : JSON.parse(text)
    } catch {
      body = text
    }
    this.peers.push(commonName(request.socket))
    const made: Made = { verb, method, path: request.url ?? '', resource: resource.plural, namespace, name, subresource, headers: request.headers, body, code: 0 }
    this.requests.push(made)
    response.on('finish', () => (made.code = response.statusCode))
    if (this.delay > 0) await new Promise((resolve) => setTimeout(resolve, this.delay))
    // Whoever asked has hung up meanwhile; nothing would ever close what is opened now.
    if (response.closed || request.socket.destroyed) return

    const trouble = this.#troubleFor(verb, resource)
    if (trouble === 'silence') return this.#wake()
    if (trouble === 'reset') return void (request.socket.resetAndDestroy(), this.#wake())
    if (trouble === 'garbage') return void response.writeHead(200, { 'Content-Type': 'application/json' }).end('<html>hello\n')
    if (typeof trouble === 'object') {
      const headers = trouble.retryAfter === undefined ? {} : { 'Retry-After': String(trouble.retryAfter) }
      if (trouble.text !== undefined) return void response.writeHead(trouble.code, { 'Content-Type': 'text/html', ...headers }).end(trouble.text)
      return this.#answer(response, trouble.code, failure(trouble.code, trouble.reason ?? reasons[trouble.code] ?? 'Unknown', trouble.message ?? `told to answer ${trouble.code}`), headers)
    }
    if (this.token !== undefined && request.headers.authorization !== `Bearer ${this.token}`) return this.#answer(response, 401, failure(401, 'Unauthorized', 'Unauthorized'))

    try {
      if (watch) return this.#watch(response, resource, namespace, name, url.searchParams, trouble === 'cut')
      const result = this.#do(verb, target, url.searchParams, request.headers['content-type'] ?? 'application/json', body)
      if (trouble === 'lost answer') return void request.socket.resetAndDestroy()
      if (trouble === 'cut') {
        const bytes = Buffer.from(JSON.stringify(result.body))
        response.writeHead(result.code, { 'Content-Type': 'application/json', 'Content-Length': bytes.length })
        return void response.write(bytes.subarray(0, bytes.length / 2), () => request.socket.resetAndDestroy())
      }
      this.#answer(response, result.code, result.body)
    } catch (error) {
      if (error instanceof Refusal) this.#answer(response, error.status.code ?? 500, error.status)
      else if (error instanceof SelectorError) this.#answer(response, 400, failure(400, 'BadRequest', error.message))
      else if (error instanceof PatchError) this.#answer(response, 422, failure(422, 'Invalid', error.message))
      else this.#answer(response, 500, failure(500, 'InternalError', String((error as Error).stack)))
    } finally {
      this.#wake()
    }
  }

  #troubleFor(verb: Verb, resource: Resource): Trouble | undefined {
    const found = this.#orders.find(({ order, left }) => left > 0 && (order.verbs === undefined || order.verbs.includes(verb)) && (order.resource === undefined || order.resource === resource.plural))
    if (found === undefined) return undefined
    found.left--
    return found.order.trouble
  }

  #parse(path: string): { resource: Resource; namespace: string | undefined; name: string | undefined; subresource: string | undefined } | undefined {
    const parts = path
      .split('/')
      .filter((p) => p !== '')
      .map(decodeURIComponent)
    const group = parts[0] === 'api' ? '' : parts[0] === 'apis' ? parts[1] : undefined
    if (group === undefined) return undefined
    const [version, ...rest] = parts.slice(group === '' ? 1 : 2)
    const inNamespace = rest[0] === 'namespaces' && rest.length > 2 && !['status', 'finalize'].includes(rest[2]!)
    const [plural, name, ...sub] = inNamespace ? rest.slice(2) : rest
    const resource = this.#kinds.find((r) => r.plural === plural && r.group === group && r.version === version)
    if (resource === undefined) return undefined
    return { resource, namespace: inNamespace ? rest[1] : undefined, name, subresource: sub.length === 0 ? undefined : sub.join('/') }
  }

  #discovery(path: string): unknown {
    const groups = [...new Set(this.#kinds.filter((k) => k.group !== '').map(apiVersionOf))]
    if (path === '/api') return { kind: 'APIVersions', versions: ['v1'] }
    if (path === '/apis')
      return {
        kind: 'APIGroupList',
        apiVersion: 'v1',
        groups: groups.map((v) => ({ name: v.split('/')[0], versions: [{ groupVersion: v, version: v.split('/')[1] }], preferredVersion: { groupVersion: v, version: v.split('/')[1] } })),
      }
    const groupVersion = path === '/api/v1' ? 'v1' : groups.find((v) => path === `/apis/${v}`)
    if (groupVersion === undefined) return undefined
    const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch']
    return {
      kind: 'APIResourceList',
      apiVersion: 'v1',
      groupVersion,
      resources: this.#kinds.filter((k) => apiVersionOf(k) === groupVersion).map((k) => ({ name: k.plural, singularName: k.kind.toLowerCase(), namespaced: k.namespaced, kind: k.kind, verbs })),
    }
  }

  #do(
    verb: Verb,
    { resource, namespace, name, subresource }: { resource: Resource; namespace: string | undefined; name: string | undefined; subresource: string | undefined },
    query: URLSearchParams,
    type: string,
    body: unknown,
  ): { code: number; body: unknown } {
    const table = this.#table(resource)
    const key = name === undefined ? '' : resource.namespaced ? `${namespace ?? ''}/${name}` : name
    const dryRun = query.get('dryRun') === 'All'
    const missing = (): Refusal =>
      new Refusal(
        failure(404, 'NotFound', `${resource.plural}${resource.group === '' ? '' : `.${resource.group}`} "${name ?? ''}" not found`, {
          name: name ?? '',
          group: resource.group,
          kind: resource.plural,
        }),
      )
    const conflict = (): Refusal =>
      new Refusal(
        failure(409, 'Conflict', `Operation cannot be fulfilled on ${resource.plural} "${name ?? ''}": the object has been modified; please apply your changes to the latest version and try again`),
      )
    switch (verb) {
      case 'list':
        return { code: 200, body: this.#list(resource, namespace, query) }
      case 'get': {
        const found = table.get(key)
        if (found === undefined) throw missing()
        return { code: 200, body: found }
      }
      case 'create': {
        const given = body as KubeObject
        if (subresource === 'binding') {
          const before = table.get(key)
          if (before === undefined) throw missing()
          const pod = before as Stored & { spec: { nodeName?: string } }
          if (pod.spec.nodeName !== undefined)
            throw new Refusal(failure(409, 'Conflict', `Operation cannot be fulfilled on pods/binding "${name}": pod ${name} is already assigned to node "${pod.spec.nodeName}"`))
          this.#store(resource, { ...before, spec: { ...pod.spec, nodeName: (given as unknown as { target: { name: string } }).target.name } } as KubeObject, before)
          return { code: 201, body: { kind: 'Status', apiVersion: 'v1', status: 'Success', code: 201 } }
        }
        const newName = given.metadata.name ?? `${given.metadata.generateName ?? ''}${Math.random().toString(36).slice(2, 7)}`
        const object = { ...given, metadata: { ...given.metadata, name: newName, ...(resource.namespaced ? { namespace: namespace ?? given.metadata.namespace ?? 'default' } : {}) } }
        if (table.has(keyOf(object)))
          throw new Refusal(failure(409, 'AlreadyExists', `${resource.plural} "${newName}" already exists`, { name: newName, group: resource.group, kind: resource.plural }))
        this.#admit(verb, resource, object)
        return { code: 201, body: dryRun ? object : this.#store(resource, object, undefined) }
      }
      case 'update': {
        const given = body as KubeObject
        const before = table.get(key)
        if (before === undefined) throw missing()
        const { resourceVersion } = given.metadata
        if (resourceVersion !== undefined && resourceVersion !== before.metadata.resourceVersion) throw conflict()
        return { code: 200, body: this.#change(resource, before, given, subresource, dryRun, verb) }
      }
      case 'patch': {
        const before = table.get(key)
        if (before === undefined && !type.includes('apply-patch')) throw missing()
        const after = patched(
          before ?? ({ apiVersion: apiVersionOf(resource), kind: resource.kind, metadata: { name: name!, ...(resource.namespaced ? { namespace: namespace ?? 'default' } : {}) } } as Stored),
          type,
          body,
        )
        if (before !== undefined && after.metadata.resourceVersion !== before.metadata.resourceVersion) throw conflict()
        return before === undefined ? { code: 201, body: this.#store(resource, after, undefined) } : { code: 200, body: this.#change(resource, before, after, subresource, dryRun, verb) }
      }
      case 'delete': {
        const options = (body ?? {}) as { preconditions?: { uid?: string; resourceVersion?: string }; dryRun?: readonly string[]; gracePeriodSeconds?: number }
        if (name === undefined) {
          for (const object of Array.from(table.values())) if (namespace === undefined || object.metadata.namespace === namespace) this.#delete(resource, object, options.gracePeriodSeconds)
          return { code: 200, body: { kind: 'Status', apiVersion: 'v1', status: 'Success' } }
        }
        const before = table.get(key)
        if (before === undefined) throw missing()
        const { uid, resourceVersion } = options.preconditions ?? {}
        if (uid !== undefined && uid !== before.metadata.uid)
          throw new Refusal(failure(409, 'Conflict', `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${before.metadata.uid}`))
        if (resourceVersion !== undefined && resourceVersion !== before.metadata.resourceVersion) throw conflict()
        this.#admit(verb, resource, before)
        return { code: 200, body: options.dryRun === undefined ? this.#delete(resource, before, options.gracePeriodSeconds) : before }
      }
      case 'watch':
        throw new Error('served elsewhere')
    }
  }

  #admit(verb: Verb, resource: Resource, object: KubeObject): void {
    const status = this.admit?.(verb, resource, object)
    if (status !== undefined) throw new Refusal(status)
  }

  #change(resource: Resource, before: Stored, given: KubeObject, subresource: string | undefined, dryRun: boolean, verb: Verb): Stored {
    const a = before as unknown as Record<string, unknown>
    const b = given as unknown as Record<string, unknown>
    // The status is written through its own path only, and nothing else is written there.
    const merged = (subresource === 'status'
      ? { ...a, status: b['status'], metadata: { ...before.metadata, annotations: given.metadata.annotations, labels: given.metadata.labels } }
      : hasStatus.has(resource.plural) && subresource !== undefined
        ? b
        : { ...b, ...(hasStatus.has(resource.plural) ? { status: a['status'] } : {}) }) as unknown as KubeObject
    const { uid, creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds, resourceVersion } = before.metadata
    const metadata = clean({ ...merged.metadata, uid, creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds, resourceVersion })
    const after = clean({ ...merged, apiVersion: before.apiVersion, kind: before.kind, metadata }) as unknown as Stored
    this.#admit(verb, resource, after)
    if (dryRun || equal(JSON.parse(JSON.stringify(before)), JSON.parse(JSON.stringify(after)))) return dryRun ? after : before
    if (deletionTimestamp !== undefined && (after.metadata.finalizers ?? []).length === 0 && (resource.plural !== 'pods' || deletionGracePeriodSeconds === 0) && !namespaceLingers(after)) {
      this.#erase(resource, after)
      return after
    }
    return this.#store(resource, after, before)
  }

  #delete(resource: Resource, before: Stored, grace: number | undefined): Stored {
    const bound = resource.plural === 'pods' && (before as unknown as { spec?: { nodeName?: string } }).spec?.nodeName !== undefined
    const lingers = (before.metadata.finalizers?.length ?? 0) > 0 || namespaceLingers(before) || (bound && grace !== 0)
    if (!lingers) return this.#erase(resource, before)
    if (before.metadata.deletionTimestamp !== undefined) return before
    const metadata = { ...before.metadata, deletionTimestamp: now(), deletionGracePeriodSeconds: grace ?? (bound ? 30 : 0) }
    const after = { ...before, metadata, ...(resource.plural === 'namespaces' ? { status: { phase: 'Terminating' } } : {}) }
    return this.#store(resource, after, before)
  }

  #list(resource: Resource, namespace: string | undefined, query: URLSearchParams): unknown {
    const chosen = selection(namespace, undefined, query)
    const limit = query.get('resourceVersion') === '0' ? 0 : Number(query.get('limit') ?? 0)
    const token = query.get('continue')
    let after = ''
    let revision = this.#revision
    let objects = this.#table(resource)
    if (token !== null && token !== '') {
      const { rv, key } = JSON.parse(Buffer.from(token, 'base64url').toString()) as { rv: number; key: string }
      if (rv < this.#floor) throw new Refusal(tooOld('The provided continue parameter is too old'))
      after = key
      revision = rv
      objects = this.#at(resource, rv)
    }
    const items = [...objects.entries()].filter(([key, o]) => key > after && chosen(o)).sort(([a], [b]) => (a < b ? -1 : 1))
    const page = limit > 0 ? items.slice(0, limit) : items
    const more = page.length < items.length
    const next = more ? Buffer.from(JSON.stringify({ rv: revision, key: page.at(-1)![0] })).toString('base64url') : undefined
    return {
      apiVersion: apiVersionOf(resource),
      kind: `${resource.kind}List`,
      metadata: { resourceVersion: String(revision), ...(next === undefined ? {} : { continue: next, remainingItemCount: items.length - page.length }) },
      // As in a real list, items do not name their kind.
      items: page.map(([, o]) => ({ ...o, apiVersion: undefined, kind: undefined })),
    }
  }

  /** The objects of a kind as they were at `revision`. */
  #at(resource: Resource, revision: number): Map<string, Stored> {
    const objects = new Map(this.#table(resource))
    for (const change of this.#history.toReversed()) {
      if (change.revision <= revision) break
      if (change.resource.plural !== resource.plural) continue
      if (change.before === undefined) objects.delete(keyOf(change.now))
      else objects.set(keyOf(change.before), change.before)
    }
    return objects
  }

  #watch(response: http.ServerResponse, resource: Resource, namespace: string | undefined, name: string | undefined, query: URLSearchParams, cut: boolean): void {
    const chosen = selection(namespace, name, query)
    const asked = query.get('resourceVersion') ?? ''
    const from = asked === '' || asked === '0' ? undefined : Number(asked)
    response.writeHead(200, { 'Content-Type': 'application/json' })
    response.flushHeaders()
    // A revision from the future is one of another history.
    if (from !== undefined && (from < this.#floor || from > this.#revision)) {
      this.#send(response, 'ERROR', tooOld(`too old resource version: ${from} (${this.#floor})`))
      return void response.end()
    }
    const watcher: Watcher = {
      resource,
      response,
      bookmarks: query.get('allowWatchBookmarks') === 'true',
      muted: false,
      sees: (change) => {
        if (change.resource.plural !== resource.plural || change.resource.group !== resource.group) return undefined
        const was = change.before !== undefined && chosen(change.before)
        const is = change.type !== 'DELETED' && chosen(change.now)
        if (is) return { ...change, type: was ? 'MODIFIED' : 'ADDED' }
        return was ? { ...change, type: 'DELETED' } : undefined
      },
    }
    const first =
      from === undefined
        ? [...this.#table(resource).values()].filter(chosen).map((o): Change => ({ revision: this.#revision, resource, type: 'ADDED', now: o, before: undefined }))
        : this.#history.filter((c) => c.revision > from)
    if (cut) return void response.write('{"type":"ADDED","object":{"apiVer', () => response.socket?.resetAndDestroy())
    for (const change of first) this.#tell(watcher, change)
    this.#watchers.add(watcher)
    const seconds = Number(query.get('timeoutSeconds') ?? 0)
    const timer = seconds > 0 ? setTimeout(() => response.end(), seconds * 1000) : undefined
    response.on('close', () => {
      clearTimeout(timer)
      this.#watchers.delete(watcher)
      this.#wake()
    })
    this.#wake()
  }

  #tell(watcher: Watcher, change: Change): void {
    if (watcher.muted) return
    const seen = watcher.sees(change)
    if (seen !== undefined) this.#send(watcher.response, seen.type, seen.now)
  }

  #send(response: http.ServerResponse, type: string, object: unknown): void {
    response.write(`${JSON.stringify({ type, object })}\n`)
  }

  #bookmarkOf(resource: Resource): unknown {
    return { apiVersion: apiVersionOf(resource), kind: resource.kind, metadata: { resourceVersion: String(this.#revision), creationTimestamp: null } }
  }

  #answer(response: http.ServerResponse, code: number, body: unknown, headers: http.OutgoingHttpHeaders = {}): void {
    response.writeHead(code, { 'Content-Type': 'application/json', ...headers }).end(JSON.stringify(body))
  }

  #resourceOf(object: KubeObject): Resource {
    const found = this.#kinds.find((r) => r.kind === object.kind && apiVersionOf(r) === object.apiVersion)
    if (found === undefined) throw new Error(`the API in memory does not serve ${object.apiVersion ?? ''} ${object.kind ?? ''}; give it with the option "kinds"`)
    return found
  }

  #table(resource: Resource): Map<string, Stored> {
    const id = `${resource.group}/${resource.plural}`
    let table = this.#objects.get(id)
    if (table === undefined) this.#objects.set(id, (table = new Map()))
    return table
  }

  #store(resource: Resource, object: KubeObject, before: Stored | undefined): Stored {
    const revision = ++this.#revision
    const spec = (o: KubeObject | undefined): unknown => (o as { spec?: unknown } | undefined)?.spec
    const generation = before === undefined ? 1 : (before.metadata.generation ?? 1) + (equal(spec(before), spec(object)) ? 0 : 1)
    const metadata = {
      ...object.metadata,
      uid: object.metadata.uid ?? before?.metadata.uid ?? randomUUID(),
      creationTimestamp: object.metadata.creationTimestamp ?? before?.metadata.creationTimestamp ?? now(),
      resourceVersion: String(revision),
      ...(hasGeneration.has(resource.plural) ? { generation } : {}),
    }
    // Through JSON, as over the wire: nobody shares objects with a test.
    const stored = JSON.parse(
      JSON.stringify({ ...(resource.plural === 'endpointslices' ? { endpoints: [], ports: [] } : {}), ...object, apiVersion: apiVersionOf(resource), kind: resource.kind, metadata }),
    ) as Stored
    this.#table(resource).set(keyOf(stored), stored)
    this.#note({ revision, resource, type: before === undefined ? 'ADDED' : 'MODIFIED', now: stored, before })
    return stored
  }

  #erase(resource: Resource, before: Stored): Stored {
    const revision = ++this.#revision
    this.#table(resource).delete(keyOf(before))
    const last = { ...before, metadata: { ...before.metadata, resourceVersion: String(revision) } }
    this.#note({ revision, resource, type: 'DELETED', now: last, before })
    return last
  }

  #note(change: Change): void {
    this.#history.push(change)
    for (const watcher of this.#watchers) this.#tell(watcher, change)
    this.#wake()
  }

  #wake(): void {
    for (const look of Array.from(this.#waiting)) look()
  }
}

const hasStatus: ReadonlySet<string> = new Set(['services', 'nodes', 'pods', 'namespaces', 'ingresses', 'replicasets', 'deployments'])
const hasGeneration: ReadonlySet<string> = new Set(['pods', 'ingresses', 'ingressclasses', 'replicasets', 'deployments', 'endpointslices'])
const reasons: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  409: 'Conflict',
  410: 'Expired',
  422: 'Invalid',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
}

class Refusal extends Error {
  readonly status: Status
  constructor(status: Status) {
    super(status.message)
    this.status = status
  }
}

function failure(code: number, reason: string, message: string, details?: Status['details']): Status {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code, ...(details === undefined ? {} : { details }) }
}

function commonName(socket: Socket): string | undefined {
  const cn = socket instanceof TLSSocket ? socket.getPeerCertificate()?.subject?.CN : undefined
  return Array.isArray(cn) ? cn[0] : cn
}

function tooOld(message: string): Status {
  return failure(410, 'Expired', message)
}

function now(): string {
  return `${new Date().toISOString().slice(0, 19)}Z`
}

function namespaceLingers(object: KubeObject): boolean {
  return object.kind === 'Namespace' && ((object as { spec?: { finalizers?: readonly string[] } }).spec?.finalizers?.length ?? 0) > 0
}

function clean<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined)) as T
}

function selection(namespace: string | undefined, name: string | undefined, query: URLSearchParams): (o: KubeObject) => boolean {
  const labels = parseLabelSelector(query.get('labelSelector') ?? '')
  const fields = parseFieldSelector(query.get('fieldSelector') ?? '')
  return (o) =>
    (namespace === undefined || o.metadata.namespace === namespace) && (name === undefined || o.metadata.name === name) && matchesLabels(labels, o.metadata.labels) && matchesFields(fields, o)
}

function patched(before: Stored, type: string, body: unknown): KubeObject {
  if (type.includes('json-patch+json')) return jsonPatch(before, body as readonly JsonOperation[]) as KubeObject
  if (type.includes('strategic-merge') || type.includes('apply-patch')) return strategicMerge(before, body, coreSchema) as KubeObject
  if (type.includes('merge-patch')) return mergePatch(before, body) as KubeObject
  throw new Refusal(failure(415, 'UnsupportedMediaType', `the body of the request was in an unknown format: ${type}`))
}

/** Merge keys of the lists that tests patch. */
const keys: Readonly<Record<string, string>> = {
  conditions: 'type',
  containers: 'name',
  initContainers: 'name',
  volumes: 'name',
  env: 'name',
  ownerReferences: 'uid',
  taints: 'key',
  addresses: 'type',
  podIPs: 'ip',
  volumeMounts: 'mountPath',
}
const coreSchema: MergeSchema = (field): FieldRule => {
  if (field === 'ports') return { merge: true, key: 'port', inner: coreSchema }
  if (field === 'finalizers' || field === 'podCIDRs') return { merge: true }
  return keys[field] === undefined ? { inner: coreSchema } : { merge: true, key: keys[field], inner: coreSchema }
}
