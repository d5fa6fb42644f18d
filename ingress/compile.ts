import { createPrivateKey, X509Certificate } from 'node:crypto'
import { candidates } from '../kube/endpoints.ts'
import type { EndpointSlice, Ingress, IngressBackend, IngressClass, Secret, Service } from '../kube/objects.ts'
import { normalise } from './http1/target.ts'
import { regexOf } from './match.ts'
import { defaultRetries, defaultTimeouts, routeOrder, type Certificate, type ClientAuth, type Endpoint, type HostRoutes, type Policy, type Retries, type Route, type RouteTable, type Timeouts, type Upstream, type UpstreamTls, type BalanceMethod } from './table.ts'

/** Our name in `IngressClass.spec.controller`. */
export const controllerName = 'switchyard.dev/ingress'

export const classAnnotation = 'kubernetes.io/ingress.class'
const defaultClassAnnotation = 'ingressclass.kubernetes.io/is-default-class'

/** The API objects a table is made of. */
export interface Objects {
  readonly ingresses: Iterable<Ingress>
  readonly classes: ReadonlyMap<string, IngressClass>
  readonly services: ReadonlyMap<string, Service>
  /** Slices by `namespace/service`. */
  readonly slices: ReadonlyMap<string, readonly EndpointSlice[]>
  readonly secrets: ReadonlyMap<string, Secret>
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
}

/** What annotations make of an Ingress. */
export interface Settings {
  readonly policies: readonly Policy[]
  readonly timeouts: Timeouts
  readonly maxBody: number
  readonly retries: Retries
  readonly balance: BalanceMethod | undefined
  readonly upstreamTls: UpstreamTls | undefined
  /** Paths are regular expressions. */
  readonly regex: boolean
  /** Further hosts of the same rules. */
  readonly aliases: readonly string[]
  /** Endpoints are the Service's own address. */
  readonly serviceUpstream: boolean
  readonly clientAuth: ClientAuth | undefined
  /** This Ingress takes a share of the requests of another. */
  readonly canary: Canary | undefined
  readonly problems: readonly { readonly reason: string; readonly message: string }[]
}

/** Which requests a canary takes: by field, by cookie, by weight. */
export interface Canary {
  readonly weight: number
  readonly total: number
  readonly header: string | undefined
  readonly headerValue: string | undefined
  readonly headerPattern: string | undefined
  readonly cookie: string | undefined
}

/** Where annotations find what they name. */
export interface SettingsContext {
  readonly secrets: ReadonlyMap<string, Secret>
  readonly services: ReadonlyMap<string, Service>
  readonly hasTls: boolean
  /** The class came from ingress-nginx: its defaults and quirks hold. */
  readonly nginx: boolean
  upstream(namespace: string, service: string, port: string | number | undefined): Upstream | string
}

export type SettingsOf = (ingress: Ingress, context: SettingsContext) => Settings

export const plainSettings: Settings = {
  policies: [],
  timeouts: defaultTimeouts,
  maxBody: 0,
  retries: defaultRetries,
  balance: undefined,
  upstreamTls: undefined,
  regex: false,
  aliases: [],
  serviceUpstream: false,
  clientAuth: undefined,
  canary: undefined,
  problems: [],
}

/** Something that will not be as its author thought. */
export interface Problem {
  readonly ingress: Ingress
  readonly reason: string
  readonly message: string
}

export interface Compiled {
  readonly table: RouteTable
  readonly problems: readonly Problem[]
  /** The Ingresses that are ours, oldest first. */
  readonly served: readonly Ingress[]
}

/** What of an Ingress is the same as long as it and all it names are. */
interface Piece {
  readonly ingress: Ingress
  readonly needs: readonly (readonly [what: string, value: unknown])[]
  readonly rules: readonly PieceRule[]
  readonly fallback: Route | undefined
  readonly catchAll: boolean
  readonly certificates: readonly (readonly [host: string, certificate: Certificate])[]
  readonly clients: readonly (readonly [host: string, auth: ClientAuth])[]
  readonly problems: readonly Problem[]
}
interface PieceRule {
  readonly host: string
  readonly canary: Canary | undefined
  readonly routes: readonly Route[]
}

/** Makes tables of objects, and remembers what it made of each, so that one change costs little. The result depends on the objects alone. */
export class Compiler {
  readonly #options: CompileOptions
  readonly #settingsOf: SettingsOf
  #pieces = new Map<string, Piece>()
  #upstreams = new Map<string, { readonly service: Service | undefined; readonly slices: readonly EndpointSlice[] | undefined; readonly made: Upstream | string }>()
  readonly #touched = new Set<string>()
  #hosts = new Map<string, { readonly parts: readonly PieceRule[]; readonly made: HostRoutes }>()

  constructor(options: CompileOptions) {
    this.#options = options
    this.#settingsOf = options.settings ?? (() => plainSettings)
  }

  compile(objects: Objects): Compiled {
    const options = this.#options
    this.#touched.clear()
    const served = [...objects.ingresses].filter((i) => i.metadata.deletionTimestamp === undefined && classOf(i, objects.classes, options) !== undefined).sort(byAge)
    const pieces = new Map<string, Piece>()
    const problems: Problem[] = []
    const byHost = new Map<string, { parts: PieceRule[]; fallback: Route | undefined; owners: Ingress[] }>()
    const exact = new Map<string, Certificate>()
    const wild = new Map<string, Certificate>()
    const clients = new Map<string, ClientAuth>()
    let fallback: Route | undefined
    let fallbackOwner: Ingress | undefined
    const fallbacks = new Map<string, Route>()

    for (const ingress of served) {
      const key = `${ingress.metadata.namespace}/${ingress.metadata.name}`
      const before = this.#pieces.get(key)
      const piece = before !== undefined && before.ingress === ingress && before.needs.every(([what, value]) => this.#look(what, objects) === value) ? before : this.#safely(ingress, objects)
      pieces.set(key, piece)
      problems.push(...piece.problems)
      for (const rule of piece.rules) {
        const found = byHost.get(rule.host)
        if (found === undefined) byHost.set(rule.host, { parts: [rule], fallback: undefined, owners: [ingress] })
        else {
          found.parts.push(rule)
          found.owners.push(ingress)
        }
        if (piece.fallback !== undefined && !fallbacks.has(rule.host)) fallbacks.set(rule.host, piece.fallback)
      }
      if (piece.catchAll) {
        if (fallback === undefined) {
          fallback = piece.fallback
          fallbackOwner = ingress
        } else problems.push({ ingress, reason: 'Conflict', message: `the default backend is already that of the older Ingress ${nameOf(fallbackOwner!)}` })
      }
      for (const [host, certificate] of piece.certificates) {
        const map = host.startsWith('*.') ? wild : exact
        const name = host.startsWith('*.') ? host.slice(2) : host
        if (!map.has(name)) map.set(name, certificate)
      }
      for (const [host, auth] of piece.clients) if (!clients.has(host)) clients.set(host, auth)
    }
    this.#pieces = pieces

    const hosts = new Map<string, HostRoutes>()
    const wildcards = new Map<string, HostRoutes>()
    let any: HostRoutes | undefined
    const made = new Map<string, { readonly parts: readonly PieceRule[]; readonly made: HostRoutes }>()
    for (const [host, { parts, owners }] of byHost) {
      const before = this.#hosts.get(host)
      const hostFallback = fallbacks.get(host)
      let routes: HostRoutes
      const same = before !== undefined && before.made.fallback === hostFallback && before.parts.length === parts.length && before.parts.every((p, i) => p === parts[i])
      const merged = same && before.parts.length === 1 ? before.made : merge(host, parts, owners, hostFallback, problems)
      routes = same ? before.made : merged
      made.set(host, { parts, made: routes })
      if (host === '') any = routes
      else if (host.startsWith('*.')) wildcards.set(host.slice(2), routes)
      else hosts.set(host, routes)
    }
    this.#hosts = made

    if (fallback === undefined && options.defaultBackend !== undefined) fallback = this.#defaultRoute(options.defaultBackend, objects)
    const endpoints = new Set<string>()
    for (const id of this.#upstreams.keys()) if (!this.#touched.has(id)) this.#upstreams.delete(id)
    for (const [, u] of this.#upstreams) if (typeof u.made !== 'string') for (const e of u.made.endpoints) endpoints.add(e.key)
    const chosen = options.defaultCertificate === undefined ? undefined : certificateOf(objects.secrets.get(options.defaultCertificate), options.defaultCertificate)
    const table: RouteTable = {
      hosts,
      wildcards,
      any,
      fallback,
      certificates: { exact, wildcards: wild, fallback: (typeof chosen === 'object' ? chosen : undefined) ?? options.fallbackCertificate, clients },
      endpoints,
    }
    return { table, problems, served }
  }

  /** The value a piece depends on, by name; looked at again to see whether the piece still holds. */
  #look(what: string, objects: Objects): unknown {
    const kind = what.slice(0, what.indexOf(' '))
    const name = what.slice(kind.length + 1)
    if (kind === 'upstream') {
      const [namespace, service, port, how] = name.split(' ') as [string, string, string, string]
      return this.#upstream(namespace, service, /^\d+$/.test(port) ? Number(port) : port, how === 'service', objects)
    }
    if (kind === 'secret') return objects.secrets.get(name)
    if (kind === 'service') return objects.services.get(name)
    return objects.classes.get(name)
  }

  /** One bad Ingress never takes another one down. */
  #safely(ingress: Ingress, objects: Objects): Piece {
    try {
      return this.#piece(ingress, objects)
    } catch (error) {
      const message = `cannot be read: ${error instanceof Error ? error.message : String(error)}`
      return { ingress, needs: [], rules: [], fallback: undefined, catchAll: false, certificates: [], clients: [], problems: [{ ingress, reason: 'Invalid', message }] }
    }
  }

  #piece(ingress: Ingress, objects: Objects): Piece {
    const namespace = ingress.metadata.namespace ?? 'default'
    const problems: Problem[] = []
    const needs = new Map<string, unknown>()
    const problem = (reason: string, message: string): void => void problems.push({ ingress, reason, message })
    const spec = ingress.spec ?? {}
    const className = classOf(ingress, objects.classes, this.#options) ?? ''
    needs.set(`class ${className}`, objects.classes.get(className))

    const secrets: ReadonlyMap<string, Secret> = watched(objects.secrets, (name) => needs.set(`secret ${name}`, objects.secrets.get(name)))
    const services: ReadonlyMap<string, Service> = watched(objects.services, (name) => needs.set(`service ${name}`, objects.services.get(name)))
    const upstream = (ns: string, service: string, port: string | number | undefined, direct: boolean): Upstream | string => {
      const made = this.#upstream(ns, service, port ?? '', direct, objects)
      needs.set(`upstream ${ns} ${service} ${port ?? ''} ${direct ? 'service' : 'endpoints'}`, made)
      return made
    }
    const settings = this.#settingsOf(ingress, {
      secrets,
      services,
      hasTls: (spec.tls?.length ?? 0) > 0,
      nginx: objects.classes.get(className)?.spec?.controller === 'k8s.io/ingress-nginx',
      upstream: (ns, service, port) => upstream(ns, service, port, false),
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
      if (settings.upstreamTls !== undefined || settings.balance !== undefined) {
        to = { ...to, ...(settings.upstreamTls === undefined ? {} : { tls: settings.upstreamTls }), ...(settings.balance === undefined ? {} : { balance: settings.balance }) }
      }
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
        rules.push({ host: name, canary: settings.canary, routes })
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
    if (!hasRules && fallback === undefined) problem('Empty', 'has neither rules nor a defaultBackend')
    return { ingress, needs: [...needs], rules, fallback, catchAll: !hasRules && fallback !== undefined, certificates, clients, problems }
  }

  /** The endpoints of a Service port; why there are none if the Service or the port does not exist. */
  #upstream(namespace: string, name: string, port: string | number, direct: boolean, objects: Objects): Upstream | string {
    const key = `${namespace}/${name}`
    const service = objects.services.get(key)
    const slices = objects.slices.get(key)
    const id = `${key}:${port}${direct ? ' direct' : ''}`
    this.#touched.add(id)
    const before = this.#upstreams.get(id)
    if (before !== undefined && before.service === service && before.slices === slices) return before.made
    let made = upstreamOf(namespace, name, port, service, slices ?? [], direct)
    // The same endpoints keep their identity: routes that lead there stay as they are.
    if (before !== undefined && typeof made !== 'string' && typeof before.made !== 'string' && sameEndpoints(before.made.endpoints, made.endpoints)) made = before.made
    this.#upstreams.set(id, { service, slices, made })
    return made
  }

  #defaultRoute(backend: string, objects: Objects): Route | undefined {
    const m = /^([^/]+)\/([^:]+)(?::(.+))?$/.exec(backend)
    if (m === null) return undefined
    const [, namespace, name, port] = m as unknown as [string, string, string, string | undefined]
    const number = port ?? objects.services.get(`${namespace}/${name}`)?.spec.ports?.[0]?.port ?? 80
    const to = this.#upstream(namespace, name, typeof number === 'string' && /^\d+$/.test(number) ? Number(number) : number, false, objects)
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
  return undefined
}

function nameOf(ingress: Ingress): string {
  return `${ingress.metadata.namespace}/${ingress.metadata.name}`
}

function byAge(a: Ingress, b: Ingress): number {
  const x = a.metadata.creationTimestamp ?? ''
  const y = b.metadata.creationTimestamp ?? ''
  if (x !== y) return x < y ? -1 : 1
  return nameOf(a) < nameOf(b) ? -1 : 1
}

/** One host's routes out of the rules of several Ingresses, oldest first. */
function merge(host: string, parts: readonly PieceRule[], owners: readonly Ingress[], fallback: Route | undefined, problems: Problem[]): HostRoutes {
  const taken = new Map<string, Route>()
  // A host that only an alias names yields to any rule that has it, without a word.
  for (const alias of [false, true]) {
    parts.forEach((part, i) => {
      if (part.canary !== undefined) return
      for (const route of part.routes) {
        if ((route.declared !== undefined) !== alias) continue
        const key = `${route.kind} ${route.path}`
        const first = taken.get(key)
        if (first === undefined) taken.set(key, route)
        else if (!alias && (first.owner !== route.owner || first.upstream !== route.upstream)) {
          problems.push({ ingress: owners[i]!, reason: 'Conflict', message: `${host === '' ? 'any host' : host}${route.path} is already served for ${first.owner === route.owner ? 'an earlier rule' : `the older Ingress ${first.owner}`}` })
        }
      }
    })
  }
  const had = new Set<string>()
  parts.forEach((part, i) => {
    if (part.canary === undefined) return
    for (const route of part.routes) {
      const key = `${route.kind} ${route.path}`
      const main = taken.get(key)
      if (main === undefined) problems.push({ ingress: owners[i]!, reason: 'CanaryAlone', message: `${host}${route.path}: no other Ingress has this host and path, a canary alone gets nothing` })
      else if (had.has(key)) problems.push({ ingress: owners[i]!, reason: 'Conflict', message: `${host}${route.path} has a canary already` })
      else {
        had.add(key)
        taken.set(key, withCanary(main, route, part.canary))
      }
    }
  })
  return { host, routes: [...taken.values()].sort(routeOrder), fallback }
}

const canaries = new WeakMap<Route, { readonly canary: Route; readonly made: Route }>()

/** The main route with the step that sends a share elsewhere; the same for the same two. */
function withCanary(main: Route, canary: Route, how: Canary): Route {
  const before = canaries.get(main)
  if (before?.canary === canary) return before.made
  // It is decided before affinity and what else looks at the endpoints.
  const at = main.policies.findIndex((p) => p.use === 'affinity' || p.use === 'upstream' || p.use === 'rewrite')
  const policy = { use: 'canary', ...how, upstream: canary.upstream }
  const made: Route = { ...main, policies: at < 0 ? [...main.policies, policy] : [...main.policies.slice(0, at), policy, ...main.policies.slice(at)] }
  canaries.set(main, { canary, made })
  return made
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

function sameEndpoints(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  return a.length === b.length && a.every((e, i) => e.key === b[i]!.key)
}

function upstreamOf(namespace: string, name: string, port: string | number, service: Service | undefined, slices: readonly EndpointSlice[], direct: boolean): Upstream | string {
  if (service === undefined) return `Service ${namespace}/${name} does not exist`
  if (service.spec.type === 'ExternalName') return `Service ${namespace}/${name} is an ExternalName; those are not followed`
  const ports = (service.spec.ports ?? []).filter((p) => (p.protocol ?? 'TCP') === 'TCP')
  const found = port === '' ? (ports.length === 1 ? ports[0] : undefined) : ports.find((p) => (typeof port === 'number' ? p.port === port : p.name === port))
  if (found === undefined) return `Service ${namespace}/${name} has no TCP port ${port === '' ? '(none was named and there is not exactly one)' : `"${port}"`}`
  const label = `${namespace}/${name}:${port}`
  if (direct) {
    const ip = service.spec.clusterIP
    if (ip === undefined || ip === '' || ip === 'None') return `Service ${namespace}/${name} has no cluster IP`
    return { name: label, endpoints: [endpoint(ip, found.port)] }
  }
  // Of a dual-stack Service's two lists the first family's: the same pods stand in both.
  const family = service.spec.ipFamilies?.[0] ?? (slices.some((s) => s.addressType === 'IPv4') ? 'IPv4' : 'IPv6')
  const all = candidates(slices.filter((s) => s.addressType === family), found.name ?? '', 'TCP')
  let usable = all.filter((c) => c.ready)
  if (usable.length === 0) usable = all.filter((c) => c.serving && c.terminating)
  return { name: label, endpoints: usable.map((c) => endpoint(c.address, c.port)) }
}

function endpoint(address: string, port: number): Endpoint {
  return { address, port, key: address.includes(':') ? `[${address}]:${port}` : `${address}:${port}` }
}

const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const hostPattern = new RegExp(`^(?:\\*\\.)?${label}(?:\\.${label})*$`)

function validHost(host: string): boolean {
  return host.length <= 253 && hostPattern.test(host) && !/^\d+(\.\d+){3}$/.test(host)
}

function pathOf(path: string, regex: boolean): string | undefined {
  if (!path.startsWith('/') || path.length > 4096) return undefined
  for (let i = 0; i < path.length; i++) {
    const c = path.charCodeAt(i)
    if (c <= 32 || c >= 127) return undefined
  }
  if (regex) {
    try {
      regexOf(path)
      return path
    } catch {
      return undefined
    }
  }
  if (/[?#\\]/.test(path)) return undefined
  return normalise(path)
}

const certificates = new WeakMap<Secret, Certificate | string>()

/** The certificate of a `kubernetes.io/tls` Secret, or what is wrong with it. */
export function certificateOf(secret: Secret | undefined, name: string): Certificate | string {
  if (secret === undefined) return `Secret ${name} does not exist`
  let made = certificates.get(secret)
  if (made === undefined) certificates.set(secret, (made = readCertificate(secret, name)))
  return made
}

function readCertificate(secret: Secret, name: string): Certificate | string {
  const crt = secret.data?.['tls.crt']
  const key = secret.data?.['tls.key']
  if (crt === undefined || key === undefined) return `Secret ${name} lacks ${crt === undefined ? 'tls.crt' : 'tls.key'}`
  try {
    const cert = Buffer.from(crt, 'base64').toString()
    const pem = Buffer.from(key, 'base64').toString()
    const x509 = new X509Certificate(cert)
    if (!x509.checkPrivateKey(createPrivateKey(pem))) return `Secret ${name}: the key does not belong to the certificate`
    const names = (x509.subjectAltName ?? '').split(', ').flatMap((n) => (n.startsWith('DNS:') ? [n.slice(4).toLowerCase()] : []))
    return { cert, key: pem, owner: name, names, notAfter: Date.parse(x509.validTo) }
  } catch (error) {
    return `Secret ${name} cannot be used: ${error instanceof Error ? error.message : String(error)}`
  }
}

function covers(names: readonly string[], host: string): boolean {
  return names.includes(host) || names.includes(`*.${host.slice(host.indexOf('.') + 1)}`)
}
