import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Kind } from '../kinds/kind.ts'
import type { OpenApi } from './openapi.ts'
import type { Review } from './review.ts'
import { reading } from './review.ts'
import { send } from './send.ts'

interface Listed {
  readonly name: string
  readonly singularName: string
  readonly namespaced: boolean
  readonly group?: string
  readonly version?: string
  readonly kind: string
  readonly verbs: readonly string[]
  readonly shortNames?: readonly string[]
  readonly categories?: readonly string[]
  readonly storageVersionHash?: string
}

const verbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch']

/** What is served, told in every form that clients ask for: one list a group, or everything at once. */
export class Discovery {
  readonly #groups = new Map<string, { readonly kinds: Kind[]; readonly reviews: Review[] }>()
  readonly #openapi: OpenApi
  readonly #address: () => string
  readonly #cached = new Map<string, { readonly body: Buffer; readonly etag: string }>()

  constructor(kinds: readonly Kind[], reviews: readonly Review[], openapi: OpenApi, address: () => string) {
    for (const k of kinds) this.#group(k.group).kinds.push(k)
    for (const r of reviews) this.#group(r.group).reviews.push(r)
    this.#openapi = openapi
    this.#address = address
  }

  hasGroup(name: string): boolean {
    return name !== '' && this.#groups.has(name)
  }

  /** Answers `path` if it is discovery's. */
  answer(path: string, query: URLSearchParams, request: IncomingMessage, response: ServerResponse): boolean {
    if (path === '/api' || path === '/apis') {
      const wanted = aggregated(request.headers.accept)
      if (wanted !== undefined) this.#aggregate(path, wanted, request, response)
      else
        json(
          response,
          path === '/api'
            ? { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: this.#address() }] }
            : { kind: 'APIGroupList', apiVersion: 'v1', groups: this.#names().map((g) => group(g)) },
          request,
        )
      return true
    }
    const m = /^\/apis\/([^/]+)(?:\/([^/]+))?$/.exec(path)
    const name = path === '/api/v1' ? '' : m?.[1]
    if (name !== undefined && this.#groups.has(name) && (path === '/api/v1' || name !== '')) {
      if (m !== null && m[2] === undefined) {
        json(response, { kind: 'APIGroup', apiVersion: 'v1', ...group(name) }, request)
        return true
      }
      if (m !== null && m[2] !== 'v1') return false
      const version = name === '' ? 'v1' : `${name}/v1`
      json(response, { kind: 'APIResourceList', ...(name === '' ? {} : { apiVersion: 'v1' }), groupVersion: version, resources: this.#listed(name) }, request)
      return true
    }
    return this.#openapi.answer(path, query, request, response)
  }

  #group(name: string): { readonly kinds: Kind[]; readonly reviews: Review[] } {
    let g = this.#groups.get(name)
    if (g === undefined) this.#groups.set(name, (g = { kinds: [], reviews: [] }))
    return g
  }

  /** In the order that Kubernetes lists its groups. */
  #names(): string[] {
    const order = [
      'apps',
      'events.k8s.io',
      'authentication.k8s.io',
      'authorization.k8s.io',
      'autoscaling',
      'networking.k8s.io',
      'policy',
      'rbac.authorization.k8s.io',
      'coordination.k8s.io',
      'discovery.k8s.io',
    ]
    return [...this.#groups.keys()].filter((g) => g !== '').sort((a, b) => order.indexOf(a) - order.indexOf(b))
  }

  #listed(name: string): Listed[] {
    const { kinds, reviews } = this.#groups.get(name)!
    const out: Listed[] = []
    for (const k of kinds) {
      out.push({
        name: k.plural,
        singularName: k.singular,
        namespaced: k.namespaced,
        kind: k.kind,
        verbs: k.readOnly === true ? reading : k.collection === false ? verbs.filter((v) => v !== 'deletecollection') : verbs,
        ...(k.shortNames.length === 0 ? {} : { shortNames: k.shortNames }),
        ...(k.categories.length === 0 ? {} : { categories: k.categories }),
        storageVersionHash: createHash('sha256')
          .update(`${k.storedAs === undefined ? k.group : ''}/${k.version}/${k.kind}`)
          .digest()
          .subarray(0, 8)
          .toString('base64'),
      })
      for (const s of k.subresources)
        out.push({ name: `${k.plural}/${s.name}`, singularName: '', namespaced: k.namespaced, ...(s.group === undefined ? {} : { group: s.group, version: s.version! }), kind: s.kind, verbs: s.verbs })
    }
    for (const r of reviews) out.push({ name: r.plural, singularName: r.singular, namespaced: r.namespaced, kind: r.kind, verbs: ['create'] })
    return out.sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  #aggregate(path: string, version: string, request: IncomingMessage, response: ServerResponse): void {
    const key = `${path} ${version}`
    let cached = this.#cached.get(key)
    if (cached === undefined) {
      const items = (path === '/api' ? [''] : this.#names()).map((g) => ({
        metadata: { ...(g === '' ? {} : { name: g }), creationTimestamp: null },
        versions: [{ version: 'v1', resources: this.#nested(g), freshness: 'Current' }],
      }))
      const body = (v: string): string => JSON.stringify({ kind: 'APIGroupDiscoveryList', apiVersion: `apidiscovery.k8s.io/${v}`, metadata: {}, items })
      // The same tag for both versions: it says what is served, not how it is told.
      cached = { body: Buffer.from(body(version)), etag: `"${createHash('sha512').update(JSON.stringify(items)).digest('hex').toUpperCase()}"` }
      this.#cached.set(key, cached)
    }
    response.setHeader('vary', 'Accept')
    response.setHeader('etag', cached.etag)
    response.setHeader('cache-control', 'public')
    if (request.headers['if-none-match'] === cached.etag) {
      response.writeHead(304)
      response.end()
      return
    }
    response.writeHead(200, { 'content-type': `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`, 'content-length': cached.body.length })
    response.end(cached.body)
  }

  #nested(name: string): object[] {
    const flat = this.#listed(name)
    return flat
      .filter((r) => !r.name.includes('/'))
      .map((r) => {
        const subs = flat.filter((s) => s.name.startsWith(`${r.name}/`))
        // Empty is the group and version that it is listed under.
        const gvk = (l: Listed): object => ({ group: l.group ?? '', version: l.version ?? '', kind: l.kind })
        return {
          resource: r.name,
          responseKind: gvk(r),
          scope: r.namespaced ? 'Namespaced' : 'Cluster',
          singularResource: r.singularName,
          verbs: r.verbs,
          ...(r.shortNames === undefined ? {} : { shortNames: r.shortNames }),
          ...(r.categories === undefined ? {} : { categories: r.categories }),
          ...(subs.length === 0 ? {} : { subresources: subs.map((s) => ({ subresource: s.name.slice(r.name.length + 1), responseKind: gvk(s), verbs: s.verbs })) }),
        }
      })
  }
}

const group = (name: string): object => {
  const version = { groupVersion: `${name}/v1`, version: 'v1' }
  return { name, versions: [version], preferredVersion: version }
}

/** The version of aggregated discovery that an Accept header takes first. */
function aggregated(accept: string | undefined): string | undefined {
  for (const part of (accept ?? '').split(',')) {
    const p = part.split(';').map((x) => x.trim())
    if (p[0] === 'application/json' && p.length === 1) return undefined
    if (p[0] === 'application/json' && p.includes('g=apidiscovery.k8s.io') && p.includes('as=APIGroupDiscoveryList')) {
      if (p.includes('v=v2')) return 'v2'
      if (p.includes('v=v2beta1')) return 'v2beta1'
    }
  }
  return undefined
}

const json = (response: ServerResponse, body: object, request: IncomingMessage): void => send(response, 200, 'application/json', JSON.stringify(body), request)
