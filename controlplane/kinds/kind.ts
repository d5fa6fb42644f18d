import type { FieldErrors } from './invalid.ts'
import type { Json } from './decode.ts'
import { message, type Message } from './schema.ts'

/** A column of the table that `kubectl get` prints. */
export interface Column {
  readonly name: string
  readonly type: 'string' | 'integer' | 'date' | 'boolean'
  readonly format?: string
  /** Shown only with `-o wide`. */
  readonly wide?: boolean
}

/** What a rule may know besides the object. */
export interface Rules {
  readonly clusterCIDRs: readonly string[]
}

/** How names are checked. */
export type NameRule = 'subdomain' | 'label' | 'label1035' | 'segment'

/** A type of API object: everything the server needs to serve it. */
export interface Kind {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly singular: string
  readonly shortNames: readonly string[]
  readonly categories: readonly string[]
  readonly namespaced: boolean
  /** One sentence for `kubectl explain`. */
  readonly description: string
  readonly type: Message
  /** Kept under another kind's keys, and converted when read and written. */
  readonly storedAs?: { readonly plural: string; readonly read: (stored: Json) => Json; readonly write: (object: Json) => Json }
  readonly subresources: readonly Subresource[]
  /** False: not to be deleted all at once. */
  readonly collection?: boolean
  /** Only the server itself writes these; everybody else may read. */
  readonly readOnly?: boolean
  readonly status: boolean
  readonly scale: boolean
  readonly nameRule: NameRule
  /** Counts changes of `spec` in `metadata.generation`. */
  readonly generation: boolean
  /** … and changes of the annotations, too. */
  readonly generationOfAnnotations?: boolean
  /** A PUT without a resourceVersion overwrites. */
  readonly unconditional: boolean
  /** A PUT of an object that does not exist creates it. */
  readonly createOnUpdate: boolean
  /** DELETE answers with the object, not with a Status. */
  readonly returnsDeleted: boolean
  /** Seconds a Pod gets to end; undefined: no grace. */
  readonly grace?: (object: Json) => number
  /** Objects go by themselves after this many seconds. */
  readonly ttl?: number
  /** Field selectors besides `metadata.name` and `metadata.namespace`. */
  readonly selectable: Readonly<Record<string, (object: Json) => string>>
  /** How this kind words an unknown field selector. */
  readonly selectorErrors: 'not supported' | 'not known'
  defaults?(object: Json): void
  prepareCreate?(object: Json): void
  prepareUpdate?(now: Json, before: Json): void
  /** Other subresources' share: what `now` keeps of `before` when only `/status` is written is done for every kind. */
  prepareStatus?(now: Json, before: Json): void
  validate?(object: Json, errors: FieldErrors): void
  validateUpdate?(now: Json, before: Json, errors: FieldErrors): void
  /** What may not change is checked after the object itself. */
  readonly immutableLast?: boolean
  validateStatus?(now: Json, before: Json, errors: FieldErrors): void
  warnings?(object: Json, before: Json | undefined): readonly string[]
  readonly columns: readonly Column[]
  cells(object: Json, now: number): readonly unknown[]
}

/** A path below an object. */
export interface Subresource {
  readonly name: string
  readonly verbs: readonly string[]
  readonly kind: string
  readonly group?: string
  readonly version?: string
}

/** Builds a kind from what makes it different. */
export function kind(spec: Partial<Kind> & Pick<Kind, 'kind' | 'plural' | 'namespaced' | 'description'> & { readonly model?: string }): Kind {
  const status = spec.status ?? false
  const scale = spec.scale ?? false
  const group = spec.group ?? ''
  return {
    group,
    version: 'v1',
    singular: spec.kind.toLowerCase(),
    shortNames: [],
    categories: [],
    status,
    scale,
    nameRule: 'subdomain',
    generation: false,
    unconditional: true,
    createOnUpdate: false,
    returnsDeleted: false,
    selectable: {},
    selectorErrors: 'not known',
    columns: nameAndAge,
    cells: (o, now) => [o.metadata.name, age(o, now)],
    ...spec,
    get type() {
      const found = message(spec.model ?? spec.kind)
      Object.defineProperty(this, 'type', { value: found })
      return found
    },
    subresources: [
      ...(spec.subresources ?? []),
      ...(scale ? [{ name: 'scale', verbs: ['get', 'patch', 'update'], kind: 'Scale', group: 'autoscaling', version: 'v1' }] : []),
      ...(status ? [{ name: 'status', verbs: ['get', 'patch', 'update'], kind: spec.kind }] : []),
    ],
  }
}

export const nameColumn: Column = { name: 'Name', type: 'string', format: 'name' }
export const text = (name: string, wide = false): Column => ({ name, type: 'string', ...(wide ? { wide } : {}) })
export const number = (name: string, wide = false): Column => ({ name, type: 'integer', ...(wide ? { wide } : {}) })
const nameAndAge: readonly Column[] = [nameColumn, text('Age')]

/** `v1` or `apps/v1`. */
export const apiVersion = (k: Pick<Kind, 'group' | 'version'>): string => (k.group === '' ? k.version : `${k.group}/${k.version}`)

/** `services` or `deployments.apps`, as error texts name a resource. */
export const resourceName = (k: Pick<Kind, 'group' | 'plural'>): string => (k.group === '' ? k.plural : `${k.plural}.${k.group}`)

/** The age of an object as kubectl prints it. */
export const age = (o: Json, now: number): string => since(o.metadata.creationTimestamp, now)

/** Time since `at` as kubectl prints it; `<unknown>` without one. */
export function since(at: string | null | undefined, now: number): string {
  return at === null || at === undefined || at === '' ? '<unknown>' : humanDuration(now - Date.parse(at))
}

/** `90s`, `5m10s`, `3h`, `2d3h`, `4y20d`: at most two units, as kubectl does. */
export function humanDuration(ms: number): string {
  const s = Math.floor(ms / 1000)
  if (s < -1) return '<invalid>'
  if (s < 0) return '0s'
  if (s < 120) return `${s}s`
  const m = Math.floor(s / 60)
  if (m < 10) return s % 60 === 0 ? `${m}m` : `${m}m${s % 60}s`
  if (m < 180) return `${m}m`
  const h = Math.floor(m / 60)
  if (h < 8) return m % 60 === 0 ? `${h}h` : `${h}h${m % 60}m`
  if (h < 48) return `${h}h`
  const d = Math.floor(h / 24)
  if (h < 192) return h % 24 === 0 ? `${d}d` : `${d}d${h % 24}h`
  if (d < 730) return `${d}d`
  const y = Math.floor(d / 365)
  if (d < 2920) return d % 365 === 0 ? `${y}y` : `${y}y${d % 365}d`
  return `${y}y`
}
