import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Json } from '../kinds/decode.ts'
import type { Kind } from '../kinds/kind.ts'
import { message, type Field, type Message, type Type } from '../kinds/schema.ts'
import { documentV2 } from './openapi2.ts'
import type { Review } from './review.ts'
import { send } from './send.ts'

/** The API described for clients, from the kinds: `/openapi/v3` and a document a group. */
export class OpenApi {
  readonly #kinds: readonly Kind[]
  readonly #reviews: readonly Review[]
  readonly #documents = new Map<string, { readonly body: string; readonly hash: string }>()

  #second: Buffer | undefined

  constructor(kinds: readonly Kind[], reviews: readonly Review[]) {
    this.#kinds = kinds
    this.#reviews = reviews
  }

  answer(path: string, query: URLSearchParams, request: IncomingMessage, response: ServerResponse): boolean {
    if (path === '/openapi/v3') {
      const paths: Record<string, object> = {}
      for (const g of this.#groups()) paths[pathOf(g)] = { serverRelativeURL: `/openapi/v3/${pathOf(g)}?hash=${this.#document(g).hash}` }
      // As text/plain, like Kubernetes: clients parse it all the same.
      send(response, 200, 'text/plain; charset=utf-8', JSON.stringify({ paths }), request)
      return true
    }
    if (path === '/openapi/v2') {
      const type = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf'
      this.#second ??= documentV2(this.#groups().map((g) => JSON.parse(this.#document(g).body) as Json))
      send(response, 200, type, this.#second, request)
      return true
    }
    const m = /^\/openapi\/v3\/(.+)$/.exec(path)
    const group = m === null ? undefined : this.#groups().find((g) => pathOf(g) === m[1])
    if (group === undefined) return false
    const { body, hash } = this.#document(group)
    if (query.get('hash') !== null && query.get('hash') !== hash) {
      response.writeHead(301, { location: `/openapi/v3/${pathOf(group)}?hash=${hash}` })
      response.end()
      return true
    }
    response.setHeader('etag', `"${hash}"`)
    send(response, 200, 'application/json', body, request)
    return true
  }

  #groups(): string[] {
    return [...new Set([...this.#kinds.map((k) => k.group), ...this.#reviews.map((r) => r.group)])]
  }

  #document(group: string): { readonly body: string; readonly hash: string } {
    let d = this.#documents.get(group)
    if (d === undefined) {
      const body = JSON.stringify(this.#describe(group))
      d = { body, hash: createHash('sha512').update(body).digest('hex').toUpperCase() }
      this.#documents.set(group, d)
    }
    return d
  }

  #describe(group: string): object {
    const schemas: Record<string, object> = {}
    const paths: Record<string, object> = {}
    const add = (m: Message, extra: object = {}): void => {
      if (schemas[m.model] !== undefined && Object.keys(extra).length === 0) return
      schemas[m.model] = { type: 'object' }
      schemas[m.model] = { ...schemaOf(m, add), ...extra }
    }
    for (const k of this.#kinds.filter((x) => x.group === group)) {
      const gvk = { group: k.group, kind: k.kind, version: k.version }
      const top = k.type
      schemas[top.model] = { type: 'object' }
      const full = schemaOf(top, add) as { properties: Record<string, object> }
      schemas[top.model] = {
        ...full,
        description: k.description,
        properties: {
          apiVersion: { type: 'string', description: 'The version of this form of the object.' },
          kind: { type: 'string', description: 'The name of this form of the object.' },
          ...full.properties,
        },
        'x-kubernetes-group-version-kind': [gvk],
      }
      schemas[`${top.model}List`] = {
        type: 'object',
        description: `A list of ${k.plural}.`,
        properties: { apiVersion: { type: 'string' }, kind: { type: 'string' }, metadata: ref(message('ListMeta').model), items: { type: 'array', items: ref(top.model) } },
        required: ['items'],
        'x-kubernetes-group-version-kind': [{ ...gvk, kind: `${k.kind}List` }],
      }
      add(message('ListMeta'))
      const base = `${k.group === '' ? '/api/v1' : `/apis/${k.group}/v1`}`
      const collection = k.namespaced ? `${base}/namespaces/{namespace}/${k.plural}` : `${base}/${k.plural}`
      const operation = (action: string, extra: readonly object[] = [], body?: string): object => ({
        description: `${action} ${k.kind}`,
        operationId: `${action}${k.group === '' ? 'Core' : titled(k.group.split('.')[0]!)}V1${k.namespaced ? 'Namespaced' : ''}${k.kind}`,
        tags: [`${k.group === '' ? 'core' : k.group.split('.')[0]}_v1`],
        parameters: extra,
        ...(body === undefined ? {} : { requestBody: { content: { [body]: { schema: ref(top.model) } } } }),
        responses: { '200': { description: 'OK', content: { 'application/json': { schema: ref(top.model) } } } },
        'x-kubernetes-action': action === 'replace' ? 'put' : action === 'create' ? 'post' : action === 'read' ? 'get' : action,
        'x-kubernetes-group-version-kind': gvk,
      })
      const writes = ['dryRun', 'fieldManager', 'fieldValidation'].map((n) => parameter(n))
      const about = { parameters: [...(k.namespaced ? [inPath('namespace')] : []), parameter('pretty')] }
      const named = { parameters: [inPath('name'), ...about.parameters] }
      paths[collection] = { get: operation('list', listParameters), post: operation('create', writes, '*/*'), delete: operation('deletecollection', listParameters), ...about }
      const item = {
        get: operation('read'),
        put: operation('replace', writes, '*/*'),
        patch: operation('patch', [...writes, parameter('force', 'boolean')], 'application/apply-patch+yaml'),
        delete: operation(
          'delete',
          ['dryRun', 'gracePeriodSeconds', 'orphanDependents', 'propagationPolicy'].map((n) => parameter(n)),
        ),
        ...named,
      }
      paths[`${collection}/{name}`] = item
      for (const s of k.subresources) if (s.name === 'status') paths[`${collection}/{name}/status`] = { get: item.get, put: item.put, patch: item.patch, ...named }
      if (k.namespaced) paths[`${base}/${k.plural}`] = { get: operation('list', listParameters) }
    }
    for (const r of this.#reviews.filter((x) => x.group === group)) {
      const gvk = { group: r.group, kind: r.kind, version: 'v1' }
      const m = message(r.kind)
      const full = schemaOf(m, add) as { properties: Record<string, object> }
      schemas[m.model] = { ...full, properties: { apiVersion: { type: 'string' }, kind: { type: 'string' }, ...full.properties }, 'x-kubernetes-group-version-kind': [gvk] }
      paths[`/apis/${r.group}/v1/${r.namespaced ? 'namespaces/{namespace}/' : ''}${r.plural}`] = {
        post: {
          operationId: `create${r.kind}`,
          parameters: ['dryRun', 'fieldManager', 'fieldValidation'].map((n) => parameter(n)),
          requestBody: { content: { '*/*': { schema: ref(m.model) } } },
          responses: { '200': { description: 'OK' } },
          'x-kubernetes-action': 'post',
          'x-kubernetes-group-version-kind': gvk,
        },
      }
    }
    for (const name of ['Time', 'MicroTime'] as const) schemas[`io.k8s.apimachinery.pkg.apis.meta.v1.${name}`] = { type: 'string', format: 'date-time' }
    schemas['io.k8s.apimachinery.pkg.api.resource.Quantity'] = { oneOf: [{ type: 'string' }, { type: 'number' }] }
    schemas['io.k8s.apimachinery.pkg.util.intstr.IntOrString'] = { oneOf: [{ type: 'integer' }, { type: 'string' }], format: 'int-or-string' }
    schemas['io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1'] = { type: 'object' }
    schemas['io.k8s.apimachinery.pkg.runtime.RawExtension'] = { type: 'object' }
    return { openapi: '3.0.0', info: { title: 'Kubernetes', version: 'v1.33.0' }, paths, components: { schemas } }
  }
}

const pathOf = (group: string): string => (group === '' ? 'api/v1' : `apis/${group}/v1`)
const titled = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)
const ref = (model: string): object => ({ $ref: `#/components/schemas/${model}` })
const parameter = (name: string, type = 'string'): object => ({
  name,
  in: 'query',
  schema: { type: name === 'gracePeriodSeconds' || name === 'limit' || name === 'timeoutSeconds' ? 'integer' : name === 'orphanDependents' || name === 'watch' ? 'boolean' : type, uniqueItems: true },
})
const inPath = (name: string): object => ({ name, in: 'path', required: true, schema: { type: 'string', uniqueItems: true } })
const listParameters = ['allowWatchBookmarks', 'continue', 'fieldSelector', 'labelSelector', 'limit', 'resourceVersion', 'resourceVersionMatch', 'sendInitialEvents', 'timeoutSeconds', 'watch'].map(
  (n) => parameter(n),
)

function schemaOf(m: Message, add: (m: Message) => void): object {
  const properties: Record<string, object> = {}
  const required: string[] = []
  for (const f of m.fields.values()) {
    properties[f.name] = property(f, add)
    if (f.required) required.push(f.name)
  }
  return { type: 'object', properties, ...(required.length === 0 ? {} : { required }), ...(m.atomic ? { 'x-kubernetes-map-type': 'atomic' } : {}) }
}

function property(f: Field, add: (m: Message) => void): object {
  const base = typeSchema(f.type, add, f.pointer)
  return {
    ...base,
    ...(f.fallback === undefined ? {} : { default: f.fallback }),
    ...(f.values === undefined ? {} : { enum: f.values }),
    ...(f.list === undefined ? {} : { 'x-kubernetes-list-type': f.list }),
    ...(f.list === 'map' ? { 'x-kubernetes-list-map-keys': f.keys } : {}),
    ...(f.atomic && f.type.is !== 'list' ? { 'x-kubernetes-map-type': 'atomic' } : {}),
    ...(f.merge || f.retainKeys ? { 'x-kubernetes-patch-strategy': [...(f.merge ? ['merge'] : []), ...(f.retainKeys ? ['retainKeys'] : [])].join(',') } : {}),
    ...(f.mergeKey === undefined ? {} : { 'x-kubernetes-patch-merge-key': f.mergeKey }),
  }
}

function typeSchema(type: Type, add: (m: Message) => void, pointer = true): object {
  switch (type.is) {
    case 'list':
      return { type: 'array', items: typeSchema(type.of, add, false) }
    case 'map':
      return { type: 'object', additionalProperties: typeSchema(type.of, add, false) }
    case 'message':
      add(type.message)
      return pointer ? { allOf: [ref(type.message.model)] } : { allOf: [ref(type.message.model)], default: {} }
    case 'scalar':
      switch (type.scalar) {
        case 'string':
          return { type: 'string' }
        case 'bool':
          return { type: 'boolean' }
        case 'int32':
        case 'int64':
          return { type: 'integer', format: type.scalar }
        case 'double':
          return { type: 'number', format: 'double' }
        case 'bytes':
          return { type: 'string', format: 'byte' }
        case 'Time':
        case 'MicroTime':
          return { allOf: [ref(`io.k8s.apimachinery.pkg.apis.meta.v1.${type.scalar}`)] }
        case 'Quantity':
          return { allOf: [ref('io.k8s.apimachinery.pkg.api.resource.Quantity')] }
        case 'IntOrString':
          return { allOf: [ref('io.k8s.apimachinery.pkg.util.intstr.IntOrString')] }
        case 'FieldsV1':
          return { allOf: [ref('io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1')] }
        case 'Raw':
          return { allOf: [ref('io.k8s.apimachinery.pkg.runtime.RawExtension')] }
        case 'ExtraValue':
          return { type: 'array', items: { type: 'string' } }
      }
  }
}
