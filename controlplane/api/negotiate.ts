import { notAcceptable } from './status.ts'
import type { Include } from './table.ts'

/** In what form an answer goes out. */
export interface Form {
  readonly as: 'object' | 'table' | 'partial'
  readonly version: string
  readonly media: 'json' | 'yaml'
  readonly include: Include
  readonly type: string
}

const plain: Form = { as: 'object', version: 'v1', media: 'json', include: 'Metadata', type: 'application/json' }

/** The form that an Accept header asks for; 406 if none of its wishes can be met. */
export function negotiate(accept: string | undefined, include: Include, watch: boolean, list: boolean): Form {
  if (accept === undefined || accept === '' || accept === '*/*' || accept === 'application/json') return plain
  const ranges = accept
    .split(',')
    .map((text) => {
      const [type, ...parameters] = text.trim().split(';')
      const p = new Map(parameters.map((x) => x.trim().split('=') as [string, string]))
      return { type: type!.trim().toLowerCase(), p, q: Number(p.get('q') ?? 1) }
    })
    .sort((a, b) => b.q - a.q)
  let form = false
  let yaml = false
  for (const { type, p } of ranges) {
    const media = type === 'application/json' || type === '*/*' || type === 'application/*' ? 'json' : type === 'application/yaml' && !watch ? 'yaml' : undefined
    if (media === undefined) {
      yaml ||= type === 'application/yaml'
      if (type === 'application/vnd.kubernetes.protobuf' && (p.get('as') ?? '') !== '') form = true
      continue
    }
    const as = p.get('as')
    const contentType = media === 'json' ? 'application/json' : 'application/yaml'
    if (as === undefined) return { ...plain, media, type: contentType }
    const version = p.get('v') ?? 'v1'
    if (p.get('g') === 'meta.k8s.io' && (version === 'v1' || version === 'v1beta1')) {
      if (as === 'Table') return { as: 'table', version, media, include, type: contentType }
      if (as === 'PartialObjectMetadata' || (as === 'PartialObjectMetadataList' && list)) return { as: 'partial', version, media, include, type: contentType }
    }
    form = true
  }
  if (yaml) throw notAcceptable('only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch', false)
  throw form
    ? notAcceptable('only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf', false)
    : notAcceptable(
        `406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf${watch ? ', application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch' : ''}`,
      )
}
