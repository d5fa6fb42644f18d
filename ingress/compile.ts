import type { ConfigMap, EndpointSlice, Ingress, IngressBackend, IngressClass, Secret, Service } from '../kube/objects.ts'
import { certificateOf, covers } from './certificates.ts'
import { withHosts, type HostChange } from './hosts.ts'
import { asRegex, merge, pathOf, slashes, validHost, type PieceRule, type Problem } from './merge.ts'
import { plainSettings, type SettingsOf } from './settings.ts'
import { defaultRetries, defaultTimeouts, emptyTable, type Certificate, type ClientAuth, type HostRoutes, type Route, type RouteTable, type Upstream } from './table.ts'
import { sameEndpoints, upstreamOf, type Names } from './upstreams.ts'

/** Our name in `IngressClass.spec.controller`. */
export const controllerName = 'switchyard.dev/ingress'

/** The same of ingress-nginx: served only when asked for, and then with its quirks. */
export const nginxController = 'k8s.io/ingress-nginx'

export const classAnnotation = 'kubernetes.io/ingress.class'
const defaultClassAnnotation = 'ingressclass.kubernetes.io/is-default-class'

/** The API objects a table is made of. */
export interface Objects {
  readonly ingresses: ReadonlyMap<string, Ingress>
  readonly classes: ReadonlyMap<string, IngressClass>
  readonly services: ReadonlyMap<string, Service>
  /** Slices by `namespace/service`. */
  readonly slices: ReadonlyMap<string, readonly EndpointSlice[]>
  readonly secrets: ReadonlyMap<string, Secret>
  /** Where ExternalNames lead; left out: they are not followed. */
  readonly names?: Names | undefined
  /** Rises whenever `names` says something else. */
  readonly namesChanged?: number
  /** ConfigMaps that annotations name, by `namespace/name`. */
  readonly configMaps?: { get(name: string): ConfigMap | undefined }
}

export interface CompileOptions {
  /** Values of `IngressClass.spec.controller` that are ours. */
  readonly controllers: readonly string[]
  /** Only these classes; all of ours if empty. */
  readonly classes: readonly string[]
  /** Classes whose Ingresses go elsewhere. */
  readonly otherClasses?: readonly string[]
  /** `namespace/service` or `namespace/service:port` for what nothing else fits. */
  readonly defaultBackend: string | undefined
  /** `namespace/name` of the Secret shown to clients that name no host of ours. */
  readonly defaultCertificate: string | undefined
  /** Shown when there is no other. */
  readonly fallbackCertificate?: Certificate | undefined
  readonly settings?: SettingsOf
  /** Ingresses that name no class are ours too. */
  readonly withoutClass?: boolean
  /** Ingresses without rules are not. */
  readonly noCatchAll?: boolean
  /** Clients are offered HTTP/2; by default they are. */
  readonly http2?: boolean
}

export interface Compiled {
  readonly table: RouteTable
  readonly problems: readonly Problem[]
  /** How many Ingresses are ours. */
  readonly count: number
  /** They, oldest first, as of now. */
  readonly served: readonly Ingress[]
}

/** What is made of one Ingress; good until it, or something it names, changes. */
interface Piece {
  readonly ingress: Ingress
  /** Service ports it names: `namespace/name` and the upstream's id. */
  readonly services: readonly (readonly [service: string, id: string])[]
  /** Secrets and ConfigMaps, `namespace/name`. */
  readonly secrets: readonly string[]
  readonly configMaps: readonly string[]
  readonly rules: readonly PieceRule[]
  readonly fallback: Route | undefined
  readonly catchAll: boolean
  readonly certificates: readonly (readonly [host: string, certificate: Certificate])[]
  readonly clients: readonly (readonly [host: string, auth: ClientAuth])[]
  readonly passthrough: readonly (readonly [host: string, upstream: Upstream])[]
  /** Its class does not speak HTTP/2. */
  readonly http1: boolean
  readonly problems: readonly Problem[]
}
/** An Ingress that is ours, and what it was made into. */
interface Entry {
  readonly key: string
  /** Sorts by age. */
  readonly order: string
  ingress: Ingress
  piece: Piece
  /** The run that saw it last. */
  seen: number
}

/** A Service that somebody names. */
interface Backend {
  readonly key: string
  service: Service | undefined
  slices: readonly EndpointSlice[] | undefined
  /** By port; ` direct` behind it for the Service's own address. */
  readonly upstreams: Map<string, Upstream | string>
  /** How many entries use each of them. */
  readonly uses: Map<string, number>
  readonly users: Set<Entry>
}

/** A Secret that somebody names. */
interface Named {
  secret: Secret | undefined
  readonly users: Set<Entry>
}

/**
 * Makes tables of objects. It remembers what it made of each, so that one change costs comparing pointers and the work of one
 * Ingress, not of all; the result depends on the objects alone, not on what came before.
 */
export class Compiler {
  readonly #options: CompileOptions
  readonly #settingsOf: SettingsOf
  readonly #entries = new Map<string, Entry>()
  /** Ingresses that are somebody else's, so that they are not looked at again. */
  #foreign = new WeakSet<Ingress>()
  /** By age. */
  #served: Entry[] = []
  readonly #backends = new Map<string, Backend>()
  readonly #secrets = new Map<string, Named>()
  readonly #configMaps = new Map<string, { configMap: ConfigMap | undefined; readonly users: Set<Entry> }>()
  #namesChanged: number | undefined
  /** The entries that have rules for a host, by age. */
  readonly #byHost = new Map<string, Entry[]>()
  readonly #conflicts = new Map<string, readonly Problem[]>()
  readonly #troubled = new Set<Entry>()
  #classes = new Map<string, IngressClass>()
  #table: RouteTable = emptyTable
  #run = 0
  #endpointsChanged = true
  /** Some class does not speak HTTP/2. */
  #http1 = false
  #defaultUser: Entry | undefined

  constructor(options: CompileOptions) {
    this.#options = options
    this.#settingsOf = options.settings ?? (() => plainSettings)
  }

  /** The keys of the Ingresses that are ours. */
  get keys(): Iterable<string> {
    return this.#entries.keys()
  }
  serves(key: string): boolean {
    return this.#entries.has(key)
  }

  compile(objects: Objects): Compiled {
    const run = ++this.#run
    const dirty = new Set<Entry>()
    const dirtyHosts = new Set<string>()
    let certificatesChanged = run === 1
    let fallbackChanged = run === 1

    if (!sameMap(this.#classes, objects.classes)) {
      this.#classes = new Map(objects.classes)
      this.#foreign = new WeakSet()
      for (const e of this.#entries.values()) dirty.add(e)
    }
    const renamed = objects.namesChanged !== this.#namesChanged
    this.#namesChanged = objects.namesChanged
    for (const [key, named] of this.#configMaps) {
      const found = objects.configMaps?.get(key)
      if (found === named.configMap) continue
      named.configMap = found
      for (const e of named.users) dirty.add(e)
    }
    for (const [key, named] of this.#secrets) {
      const secret = objects.secrets.get(key)
      if (secret === named.secret) continue
      named.secret = secret
      for (const e of named.users) dirty.add(e)
    }
    for (const backend of this.#backends.values()) {
      const external = renamed && backend.service?.spec.type === 'ExternalName'
      if (!external && backend.service === objects.services.get(backend.key) && backend.slices === objects.slices.get(backend.key)) continue
      this.#endpointsChanged = true
      if (this.#refresh(backend, objects)) for (const e of backend.users) dirty.add(e)
    }

    // What an entry had before and has now decides what has to be put together anew.
    const affects = (piece: Piece): void => {
      for (const rule of piece.rules) dirtyHosts.add(rule.host)
      if (piece.certificates.length > 0 || piece.clients.length > 0 || piece.passthrough.length > 0 || piece.http1 || this.#http1) certificatesChanged = true
      if (piece.catchAll) fallbackChanged = true
    }
    const forget = (e: Entry): void => {
      affects(e.piece)
      this.#unlink(e)
      this.#entries.delete(e.key)
      this.#served.splice(this.#served.indexOf(e), 1)
    }
    let present = 0
    for (const [key, ingress] of objects.ingresses) {
      const e = this.#entries.get(key)
      if (e !== undefined && e.ingress === ingress && !dirty.has(e)) {
        e.seen = run
        present++
        continue
      }
      if (e === undefined && this.#foreign.has(ingress)) continue
      if (ingress.metadata.deletionTimestamp !== undefined || classOf(ingress, objects.classes, this.#options) === undefined) {
        this.#foreign.add(ingress)
        continue
      }
      const order = `${ingress.metadata.creationTimestamp ?? ''} ${key}`
      if (e !== undefined && e.order === order) {
        affects(e.piece)
        this.#unlink(e)
        e.ingress = ingress
        e.piece = this.#safely(ingress, objects)
        e.seen = run
        affects(e.piece)
        this.#link(e, objects)
      } else {
        if (e !== undefined) forget(e)
        const entry: Entry = { key, order, ingress, piece: this.#safely(ingress, objects), seen: run }
        affects(entry.piece)
        this.#entries.set(key, entry)
        insert(this.#served, entry)
        this.#link(entry, objects)
      }
      present++
    }
    if (present !== this.#entries.size) for (const e of this.#entries.values()) if (e.seen !== run) forget(e)

    const before = this.#table
    const { defaultBackend, defaultCertificate } = this.#options
    let { fallback } = before
    if (fallbackChanged) {
      fallback = undefined
      // The controller's own default backend may come or go with it.
      this.#endpointsChanged = true
      const conflicts: Problem[] = []
      let owner: Entry | undefined
      for (const e of this.#served) {
        if (!e.piece.catchAll) continue
        if (owner === undefined) {
          owner = e
          fallback = e.piece.fallback
        } else conflicts.push({ ingress: e.ingress, reason: 'Conflict', message: `the default backend is already that of the older Ingress ${owner.key}` })
      }
      this.#conflicts.set(' default', conflicts)
      this.#defaultUser = owner
    }
    if (defaultBackend !== undefined && this.#defaultUser === undefined) {
      const made = this.#defaultRoute(defaultBackend, objects)
      if (fallback === undefined || made?.upstream.name !== fallback.upstream.name || !sameEndpoints(made.upstream.endpoints, fallback.upstream.endpoints)) {
        fallback = made
        this.#endpointsChanged = true
      }
    }

    const changes: HostChange<HostRoutes>[] = []
    const wild: HostChange<HostRoutes>[] = []
    let { any } = before
    for (const host of dirtyHosts) {
      const list = this.#byHost.get(host)
      const made = list === undefined ? undefined : this.#merge(host, list)
      if (list === undefined) this.#conflicts.delete(host)
      if (host === '') any = made
      else if (host.startsWith('*.')) wild.push([host.slice(2), made])
      else changes.push([host, made])
    }
    const hosts = withHosts(before.hosts, changes)
    const wildcards = withHosts(before.wildcards, wild)

    let { certificates, passthrough } = before
    const chosen = defaultCertificate === undefined ? undefined : certificateOf(objects.secrets.get(defaultCertificate), defaultCertificate)
    const shown = (typeof chosen === 'object' ? chosen : undefined) ?? this.#options.fallbackCertificate
    if (certificatesChanged || certificates.fallback !== shown) {
      const exact = new Map<string, Certificate>()
      const wild = new Map<string, Certificate>()
      const clients = new Map<string, ClientAuth>()
      const http1 = new Set<string>()
      const through = new Map<string, Upstream>()
      this.#http1 = false
      let all = this.#served.length > 0
      for (const { piece } of this.#served) {
        if (piece.http1) {
          this.#http1 = true
          for (const rule of piece.rules) http1.add(rule.host)
        } else all = false
        for (const [host, upstream] of piece.passthrough) if (!through.has(host)) through.set(host, upstream)
        for (const [host, certificate] of piece.certificates) {
          const map = host.startsWith('*.') ? wild : exact
          const name = host.startsWith('*.') ? host.slice(2) : host
          if (!map.has(name)) map.set(name, certificate)
        }
        for (const [host, auth] of piece.clients) if (!clients.has(host)) clients.set(host, auth)
      }
      certificates = { exact, wildcards: wild, fallback: shown, clients, http1: all ? 'all' : http1 }
      passthrough = through
    }

    let { endpoints } = before
    if (this.#endpointsChanged) {
      this.#endpointsChanged = false
      const all = new Set<string>()
      for (const backend of this.#backends.values()) for (const u of backend.upstreams.values()) if (typeof u !== 'string') for (const e of u.endpoints) all.add(e.key)
      for (const e of fallback?.upstream.endpoints ?? []) all.add(e.key)
      endpoints = all
    }
    this.#table = { hosts, wildcards, any, fallback, certificates, passthrough, endpoints }

    const problems: Problem[] = []
    for (const e of this.#troubled) problems.push(...e.piece.problems)
    for (const list of this.#conflicts.values()) problems.push(...list)
    const served = this.#served
    return {
      table: this.#table,
      problems,
      count: served.length,
      get served() {
        return served.map((e) => e.ingress)
      },
    }
  }

  /** Makes the upstreams of a Service anew; whether one of them is another than before. */
  #refresh(backend: Backend, objects: Objects): boolean {
    backend.service = objects.services.get(backend.key)
    backend.slices = objects.slices.get(backend.key)
    let other = false
    for (const [id, before] of backend.upstreams) {
      const made = makeUpstream(backend, id, objects.names)
      // The same endpoints keep their identity: routes that lead there stay as they are.
      if (typeof made === 'string' ? made === before : typeof before !== 'string' && sameEndpoints(before.endpoints, made.endpoints)) continue
      backend.upstreams.set(id, made)
      other = true
    }
    return other
  }

  #link(e: Entry, objects: Objects): void {
    const { piece } = e
    for (const rule of piece.rules) {
      const list = this.#byHost.get(rule.host)
      if (list === undefined) this.#byHost.set(rule.host, [e])
      else if (!list.includes(e)) insert(list, e)
    }
    for (const [name, id] of piece.services) {
      const backend = this.#backend(name, objects)
      backend.users.add(e)
      backend.uses.set(id, (backend.uses.get(id) ?? 0) + 1)
    }
    for (const name of piece.secrets) {
      const named = this.#secrets.get(name)
      if (named === undefined) this.#secrets.set(name, { secret: objects.secrets.get(name), users: new Set([e]) })
      else named.users.add(e)
    }
    for (const name of piece.configMaps) {
      const named = this.#configMaps.get(name)
      if (named === undefined) this.#configMaps.set(name, { configMap: objects.configMaps?.get(name), users: new Set([e]) })
      else named.users.add(e)
    }
    if (piece.problems.length > 0) this.#troubled.add(e)
  }

  #unlink(e: Entry): void {
    const { piece } = e
    for (const rule of piece.rules) {
      const list = this.#byHost.get(rule.host)
      const i = list?.indexOf(e) ?? -1
      if (list === undefined || i < 0) continue
      if (list.length === 1) this.#byHost.delete(rule.host)
      else list.splice(i, 1)
    }
    for (const [name, id] of piece.services) {
      const backend = this.#backends.get(name)
      if (backend === undefined) continue
      backend.users.delete(e)
      const left = (backend.uses.get(id) ?? 1) - 1
      if (left > 0) backend.uses.set(id, left)
      else {
        backend.uses.delete(id)
        backend.upstreams.delete(id)
        this.#endpointsChanged = true
      }
      if (backend.uses.size === 0) this.#backends.delete(name)
    }
    for (const name of piece.secrets) {
      const named = this.#secrets.get(name)
      named?.users.delete(e)
      if (named?.users.size === 0) this.#secrets.delete(name)
    }
    for (const name of piece.configMaps) {
      const named = this.#configMaps.get(name)
      named?.users.delete(e)
      if (named?.users.size === 0) this.#configMaps.delete(name)
    }
    this.#troubled.delete(e)
  }

  #backend(key: string, objects: Objects): Backend {
    let backend = this.#backends.get(key)
    if (backend === undefined)
      this.#backends.set(key, (backend = { key, service: objects.services.get(key), slices: objects.slices.get(key), upstreams: new Map(), uses: new Map(), users: new Set() }))
    return backend
  }

  /** The endpoints of a Service port; why there are none if the Service or the port does not exist. */
  #upstream(namespace: string, name: string, port: string | number, direct: boolean, objects: Objects): Upstream | string {
    const backend = this.#backend(`${namespace}/${name}`, objects)
    // A port may be named by digits only as a number: names hold a letter.
    const id = `${port}${direct ? ' direct' : ''}`
    let made = backend.upstreams.get(id)
    if (made === undefined) {
      backend.upstreams.set(id, (made = makeUpstream(backend, id, objects.names)))
      this.#endpointsChanged = true
    }
    return made
  }

  #merge(host: string, list: readonly Entry[]): HostRoutes {
    const parts: PieceRule[] = []
    const owners: Ingress[] = []
    let fallback: Route | undefined
    for (const e of list) {
      for (const rule of e.piece.rules) {
        if (rule.host !== host) continue
        parts.push(rule)
        owners.push(e.ingress)
        fallback ??= e.piece.fallback
      }
    }
    const problems: Problem[] = []
    // ingress-nginx: one Ingress with regular expressions makes all paths of the host ones, also those of other Ingresses.
    const spreads = parts.findIndex((p) => p.nginx === 'regex')
    if (spreads >= 0) {
      parts.forEach((part, i) => {
        if (part.nginx !== 'plain') return
        parts[i] = { ...part, routes: part.routes.flatMap((r) => asRegex(r) ?? []) }
        problems.push({
          ingress: owners[i]!,
          reason: 'RegexSpread',
          message: `the paths of ${host === '' ? 'any host' : host} are regular expressions in any letter case, because of the Ingress ${nameOf(owners[spreads]!)}, as ingress-nginx has it`,
        })
      })
    }
    const made = merge(host, parts, owners, fallback, problems)
    if (problems.length > 0) this.#conflicts.set(host, problems)
    else this.#conflicts.delete(host)
    return made
  }

  #defaultRoute(backend: string, objects: Objects): Route | undefined {
    const m = /^([^/]+)\/([^:]+)(?::(.+))?$/.exec(backend)
    if (m === null) return undefined
    const [, namespace, name, port] = m as unknown as [string, string, string, string | undefined]
    const number = port ?? objects.services.get(`${namespace}/${name}`)?.spec.ports?.[0]?.port ?? 80
    const key = `${namespace}/${name}`
    const to = upstreamOf(namespace, name, typeof number === 'string' && /^\d+$/.test(number) ? Number(number) : number, {
      service: objects.services.get(key),
      slices: objects.slices.get(key) ?? [],
      names: objects.names,
    })
    return {
      host: '',
      path: '/',
      kind: 'prefix',
      owner: 'default backend',
      service: `${namespace}/${name}`,
      upstream: typeof to === 'string' ? { name: `${namespace}/${name}:${number}`, endpoints: [] } : to,
      policies: [],
      timeouts: defaultTimeouts,
      maxBody: 0,
      retries: defaultRetries,
    }
  }

  /** One bad Ingress never takes another one down. */
  #safely(ingress: Ingress, objects: Objects): Piece {
    try {
      return this.#piece(ingress, objects)
    } catch (error) {
      const message = `cannot be read: ${error instanceof Error ? error.message : String(error)}`
      return {
        ingress,
        services: [],
        secrets: [],
        configMaps: [],
        rules: [],
        fallback: undefined,
        catchAll: false,
        certificates: [],
        clients: [],
        passthrough: [],
        http1: false,
        problems: [{ ingress, reason: 'Invalid', message }],
      }
    }
  }

  #piece(ingress: Ingress, objects: Objects): Piece {
    const namespace = ingress.metadata.namespace ?? 'default'
    const problems: Problem[] = []
    const used = new Map<string, readonly [string, string]>()
    const usedSecrets = new Set<string>()
    const usedConfigMaps = new Set<string>()
    const problem = (reason: string, message: string): void => void problems.push({ ingress, reason, message })
    const spec = ingress.spec ?? {}
    const className = classOf(ingress, objects.classes, this.#options) ?? ''

    const secrets: ReadonlyMap<string, Secret> = watched(objects.secrets, (name) => void usedSecrets.add(name))
    const upstream = (ns: string, service: string, port: string | number | undefined, direct: boolean): Upstream | string => {
      const id = `${port ?? ''}${direct ? ' direct' : ''}`
      used.set(`${ns}/${service} ${id}`, [`${ns}/${service}`, id])
      return this.#upstream(ns, service, port ?? '', direct, objects)
    }
    const nginx = objects.classes.get(className)?.spec?.controller === nginxController
    const settings = this.#settingsOf(ingress, {
      secrets,
      configMap: (name) => {
        usedConfigMaps.add(name)
        return objects.configMaps?.get(name)
      },
      hasTls: (spec.tls?.length ?? 0) > 0,
      nginx,
      upstream: (ns, service, port) => upstream(ns, service, port, false),
      defaultBackend: () => {
        const m = /^([^/]+)\/([^:]+)(?::(.+))?$/.exec(this.#options.defaultBackend ?? '')
        if (m === null) return undefined
        const port = m[3] ?? objects.services.get(`${m[1]}/${m[2]}`)?.spec.ports?.[0]?.port
        return upstream(m[1]!, m[2]!, typeof port === 'string' && /^\d+$/.test(port) ? Number(port) : port, false)
      },
    })
    for (const p of settings.problems) problem(p.reason, p.message)

    const routeTo = (backend: IngressBackend | undefined, host: string, path: string, kind: Route['kind'], where: string): Route | undefined => {
      if (backend?.service === undefined) {
        problem('InvalidBackend', backend?.resource === undefined ? `${where} has no service` : `${where}: backends that are no Service (${backend.resource.kind}) are not supported`)
        return undefined
      }
      const { service } = backend
      const port = service.port?.name ?? service.port?.number
      const found = upstream(namespace, service.name, port, settings.serviceUpstream)
      let to: Upstream
      if (typeof found === 'string') {
        problem('BackendNotFound', `${where}: ${found}`)
        to = { name: `${namespace}/${service.name}:${port ?? ''}`, endpoints: [] }
      } else to = found
      to = settings.sends(to)
      return {
        host,
        path,
        kind,
        owner: nameOf(ingress),
        service: `${namespace}/${service.name}`,
        upstream: to,
        policies: settings.policies,
        timeouts: settings.timeouts,
        maxBody: settings.maxBody,
        retries: settings.retries,
        ...(settings.silent ? { silent: true } : {}),
        ...(host === '' || host === declared ? {} : { declared }),
      }
    }

    let declared = ''
    const rules: PieceRule[] = []
    const hasRules = (spec.rules?.length ?? 0) > 0
    const fallback = spec.defaultBackend === undefined ? undefined : routeTo(spec.defaultBackend, '', '/', 'prefix', 'defaultBackend')
    for (const [i, rule] of (spec.rules ?? []).entries()) {
      const host = (rule.host ?? '').toLowerCase()
      if (host !== '' && !validHost(host)) {
        problem('InvalidHost', `rule ${i}: "${rule.host}" is no host name`)
        continue
      }
      declared = host
      const names = host === '' ? [''] : [host, ...settings.aliases.filter((a) => a !== host)]
      for (const name of names) {
        const routes: Route[] = []
        for (const [j, p] of (rule.http?.paths ?? []).entries()) {
          const where = `rule ${i}, path ${j}`
          const path = pathOf(p.path ?? '/', settings.regex)
          if (path === undefined) {
            problem('InvalidPath', `${where}: "${p.path}" is no path that could be asked for`)
            continue
          }
          if (!(p.pathType === 'Exact' || p.pathType === 'Prefix' || p.pathType === 'ImplementationSpecific')) {
            problem('InvalidPath', `${where}: unknown pathType ${String(p.pathType)}`)
            continue
          }
          const kind = settings.regex && p.pathType !== 'Exact' ? 'regex' : p.pathType === 'Exact' ? 'exact' : 'prefix'
          const route = routeTo(p.backend, name, path, kind, where)
          if (route !== undefined) routes.push(route)
        }
        if (nginx && !settings.regex) routes.push(...slashes(routes))
        rules.push({ host: name, nginx: nginx ? (settings.regex ? 'regex' : 'plain') : undefined, canary: settings.canary, routes })
      }
    }

    const certificates: (readonly [string, Certificate])[] = []
    const clients: (readonly [string, ClientAuth])[] = []
    for (const [i, tls] of (spec.tls ?? []).entries()) {
      const hosts = tls.hosts ?? []
      if (settings.clientAuth !== undefined) for (const h of hosts) clients.push([h.toLowerCase(), settings.clientAuth])
      if (tls.secretName === undefined || tls.secretName === '') continue
      const name = `${namespace}/${tls.secretName}`
      const certificate = certificateOf(secrets.get(name), name)
      if (typeof certificate === 'string') {
        problem('InvalidCertificate', `tls ${i}: ${certificate}`)
        continue
      }
      for (const host of hosts.length > 0 ? hosts : certificate.names) {
        const lower = host.toLowerCase()
        if (!covers(certificate.names, lower)) problem('CertificateMismatch', `tls ${i}: the certificate of Secret ${name} is not for ${lower} but for ${certificate.names.join(', ') || 'no host'}`)
        certificates.push([lower, certificate])
      }
    }
    const passthrough: (readonly [string, Upstream])[] = []
    if (settings.passthrough) {
      // As in ingress-nginx: all of the host's bytes go to the backend of the path /, or of its first path.
      for (const rule of rules) {
        const route = rule.routes.find((r) => r.path === '/') ?? rule.routes[0]
        if (rule.host === '') problem('InvalidAnnotation', 'annotation ssl-passthrough: a rule without a host has no name to be found by')
        else if (route !== undefined) passthrough.push([rule.host, route.upstream])
      }
    }
    const http1 = this.#options.http2 === false || objects.classes.get(className)?.metadata.annotations?.['switchyard.dev/http2'] === 'off'
    if (!hasRules && fallback !== undefined && this.#options.noCatchAll === true) problem('CatchAllDisabled', 'has no rules, and --disable-catch-all refuses that')
    if (!hasRules && fallback === undefined) problem('Empty', 'has neither rules nor a defaultBackend')
    return {
      ingress,
      services: [...used.values()],
      secrets: [...usedSecrets],
      configMaps: [...usedConfigMaps],
      rules,
      fallback,
      catchAll: !hasRules && fallback !== undefined && this.#options.noCatchAll !== true,
      certificates,
      clients,
      passthrough,
      http1,
      problems,
    }
  }
}

/** A table of objects, all at once. */
export function compile(objects: Objects, options: CompileOptions): Compiled {
  return new Compiler(options).compile(objects)
}

/** The class by which `ingress` is ours; undefined if it is not. */
export function classOf(ingress: Ingress, classes: ReadonlyMap<string, IngressClass>, options: CompileOptions): string | undefined {
  const name = ingress.metadata.annotations?.[classAnnotation] ?? ingress.spec?.ingressClassName
  const ours = (c: IngressClass | undefined): boolean => c !== undefined && options.controllers.includes(c.spec?.controller ?? '')
  const wanted = (n: string): boolean => (options.classes.length === 0 || options.classes.includes(n)) && !(options.otherClasses?.includes(n) ?? false)
  if (name !== undefined && name !== '') {
    const known = classes.get(name)
    // A class that was asked for by name need not exist as an object, as long as it is nobody else's.
    return wanted(name) && (known === undefined ? options.classes.includes(name) : ours(known)) ? name : undefined
  }
  for (const [n, c] of classes) if (c.metadata.annotations?.[defaultClassAnnotation] === 'true' && ours(c) && wanted(n)) return n
  return options.withoutClass === true ? '' : undefined
}

function nameOf(ingress: Ingress): string {
  return `${ingress.metadata.namespace}/${ingress.metadata.name}`
}

/** Puts an entry where its age belongs. */
function insert(list: Entry[], e: Entry): void {
  let low = 0
  let high = list.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (list[middle]!.order < e.order) low = middle + 1
    else high = middle
  }
  list.splice(low, 0, e)
}

function sameMap<V>(a: ReadonlyMap<string, V>, b: ReadonlyMap<string, V>): boolean {
  if (a.size !== b.size) return false
  for (const [k, v] of a) if (b.get(k) !== v) return false
  return true
}

function makeUpstream(backend: Backend, id: string, names: Names | undefined): Upstream | string {
  const direct = id.endsWith(' direct')
  const port = direct ? id.slice(0, -7) : id
  const slash = backend.key.indexOf('/')
  return upstreamOf(backend.key.slice(0, slash), backend.key.slice(slash + 1), /^\d+$/.test(port) ? Number(port) : port, { service: backend.service, slices: backend.slices ?? [], direct, names })
}

/** Remembers which keys were looked at. */
function watched<T>(map: ReadonlyMap<string, T>, saw: (key: string) => void): ReadonlyMap<string, T> {
  const view = Object.create(map) as ReadonlyMap<string, T>
  return Object.assign(view, {
    get: (key: string) => {
      saw(key)
      return map.get(key)
    },
    has: (key: string) => {
      saw(key)
      return map.has(key)
    },
  })
}
