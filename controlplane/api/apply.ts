import { decode, DecodeError, type Json } from '../kinds/decode.ts'
import { apiVersion, type Kind } from '../kinds/kind.ts'
import type { Message, Type } from '../kinds/schema.ts'
import type { Cache, Entry } from './cache.ts'
import type { Call, Rest } from './rest.ts'
import { parseYamlBody } from './body.ts'
import {
  compareObjects,
  difference,
  intersection,
  isEmpty,
  mergeApplied,
  pathText,
  prune,
  readManagers,
  setOfObject,
  stampOf,
  union,
  writeManagers,
  has,
  type FieldSet,
  type Manager,
  type Path,
} from './managed.ts'
import { badRequest, Failure } from './status.ts'

const lastApplied = 'kubectl.kubernetes.io/last-applied-configuration'

/** Server-side apply: lays what the manager wants over what is there; what it no longer names and nobody else holds goes; others' fields are a conflict unless forced. */
export async function applyPatch(
  rest: Rest,
  _cache: Cache,
  call: Call,
  text: string,
  how: { readonly force: boolean; readonly part?: 'status' },
): Promise<{ readonly entry: Entry; readonly made: boolean }> {
  const { kind: k } = call
  let body: unknown
  try {
    body = parseYamlBody(text).value
  } catch (error) {
    throw badRequest(`error decoding YAML: ${(error as Error).message}`)
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw badRequest('error decoding YAML: json: cannot unmarshal into Go value of type map[string]interface {}')
  const given = body as Json
  const meta: Json = given['metadata'] ?? {}
  if (given['apiVersion'] !== apiVersion(k) || given['kind'] !== k.kind) throw badRequest(`invalid object type: ${groupOf(given['apiVersion'])}, Kind=${given['kind'] ?? ''}`)
  if (meta['managedFields'] !== undefined && meta['managedFields'] !== null) throw badRequest('metadata.managedFields must be nil')
  const name = meta['name'] ?? call.name
  if (name !== call.name) throw badRequest(`the name of the object (${name}) does not match the name on the URL (${call.name})`)
  if (k.namespaced && meta['namespace'] !== undefined && meta['namespace'] !== call.namespace) throw badRequest('the namespace of the provided object does not match the namespace sent on the request')
  const about = `failed to create typed patch object (${meta['namespace'] ?? ''}/${name}; ${k.group}/${k.version}, Kind=${k.kind})`
  const trouble = typed(k.type, given, '')
  if (trouble.length > 0) throw new Failure(500, '', `${about}: ${trouble.length === 1 ? trouble[0] : `errors:\n${trouble.map((t) => `  ${t}`).join('\n')}`}`)
  const applied = normalize(k, { ...given, metadata: { ...meta, name } })
  const version = apiVersion(k)
  const set = setOfObject(k.type, applied, call.subresource, k.status)
  const isMe = (m: Manager): boolean => m.manager === call.manager && m.operation === 'Apply' && m.subresource === call.subresource
  const existing = rest.find(k, call.namespace, call.name)
  if (existing === undefined) {
    if (how.part !== undefined) rest.entry(k, call.namespace, call.name)
    if (meta['uid'] !== undefined)
      throw new Failure(
        409,
        'Conflict',
        `Operation cannot be fulfilled on ${k.plural} ${JSON.stringify(name)}: uid mismatch: the provided object specified uid ${meta['uid']}, and no existing object was found`,
        { name, kind: k.plural },
      )
    const object = rest.decode(call, { ...given, metadata: { ...meta, name } })
    delete object['metadata'].resourceVersion
    const fields = writeManagers([{ manager: call.manager, operation: 'Apply', apiVersion: version, subresource: call.subresource, time: stampOf(rest.now), set }])
    return { entry: await rest.create(call, object, { managed: () => fields }), made: true }
  }
  let fields: Json[] = []
  const entry = await rest.update(
    call,
    (before) => {
      const live: Json = { kind: k.kind, apiVersion: version, ...structuredClone(before) }
      const base = live
      const managers = readManagers(before['metadata'].managedFields)
      const mine = managers.find(isMe)
      const others = managers.filter((m) => !isMe(m))
      // What kubectl applied from its own side before is its own, also when it is recorded under the older name.
      const annotation: string | undefined = before['metadata'].annotations?.[lastApplied]
      let now = mergeApplied(k.type, base, applied)
      if (mine !== undefined) {
        const gone = difference(mine.set, set)
        if (!isEmpty(gone)) now = prune(k.type, now, gone, [set, ...others.map((m) => m.set)])
      }
      // Compare as the server would keep both, so that forms of the same value are no change.
      const clean: Json = { ...decode(k.type, now) }
      const d = compareObjects(k, before, clean, call.subresource)
      const touched = union(d.added, d.changed)
      const conflicts: { readonly manager: Manager; readonly path: Path }[] = []
      for (const m of others) for (const path of intersection(m.set, touched)) conflicts.push({ manager: m, path })
      if (conflicts.length > 0 && !how.force && !excused(k, call, annotation, conflicts)) throw conflictOf(conflicts)
      const left = others.map((m) => ({ ...m, set: difference(difference(m.set, fromConflicts(m, conflicts)), d.removed) }))
      // An apply that changes nothing leaves no time, only who would own it.
      const unchanged = isEmpty(touched) && isEmpty(d.removed)
      fields = writeManagers([...left, { manager: call.manager, operation: 'Apply', apiVersion: version, subresource: call.subresource, time: unchanged ? mine?.time : stampOf(rest.now), set }])
      const result: Json = { kind: k.kind, apiVersion: version, ...clean }
      // Older kubectl reads what it applied from the annotation: keep it true. It belongs to nobody anew, so it is no conflict.
      if (call.manager === 'kubectl' && annotation !== undefined)
        result['metadata'] = { ...result['metadata'], annotations: { ...result['metadata'].annotations, [lastApplied]: `${JSON.stringify(withAnnotations(given))}\n` } }
      if (applied['metadata'].resourceVersion !== undefined) result['metadata'].resourceVersion = applied['metadata'].resourceVersion
      else result['metadata'].resourceVersion = before['metadata'].resourceVersion
      return result
    },
    { retry: applied['metadata'].resourceVersion === undefined, managed: () => fields, ...(how.part === undefined ? {} : { part: how.part }) },
  )
  return { entry, made: false }
}

function fromConflicts(m: Manager, conflicts: readonly { readonly manager: Manager; readonly path: Path }[]): FieldSet {
  let out: FieldSet = {}
  for (const c of conflicts)
    if (c.manager === m)
      out = union(
        out,
        c.path.reduceRight<FieldSet>((inner, p) => ({ [p]: inner }), {}),
      )
  return out
}

/** A kubectl that once applied from its own side may take over what it had applied then. */
function excused(k: Kind, call: Call, annotation: string | undefined, conflicts: readonly { readonly path: Path }[]): boolean {
  if (call.manager !== 'kubectl' || annotation === undefined) return false
  try {
    const set = setOfObject(k.type, normalize(k, JSON.parse(annotation) as Json), '', k.status)
    return conflicts.every((c) => has(set, c.path))
  } catch {
    return false
  }
}

function withAnnotations(given: Json): Json {
  const { annotations, ...meta } = given['metadata'] ?? {}
  const { [lastApplied]: _, ...rest } = annotations ?? {}
  return { ...given, metadata: { ...(annotations === undefined ? {} : { annotations: rest }), ...meta } }
}

/** The applied object with canonical values, but without anything that was not said. */
function normalize(k: Kind, given: Json): Json {
  const { kind: _k, apiVersion: _a, ...rest } = given
  try {
    return thin(k.type, rest, decode(k.type, rest))
  } catch (error) {
    if (error instanceof DecodeError) throw badRequest(`${k.kind} in version ${JSON.stringify(k.version)} cannot be handled as a ${k.kind}: ${error.message}`)
    throw error
  }
}

/** `full` cut down to the fields that `said` names. */
function thin(type: Message, said: Json, full: Json): Json {
  const out: Json = {}
  for (const f of type.fields.values()) {
    const s = said[f.name]
    if (s === undefined || s === null) continue
    const v = full[f.name]
    if (f.type.is === 'message') out[f.name] = thin(f.type.message, s, v ?? {})
    else if (f.type.is === 'list' && f.type.of.is === 'message') {
      const inner = f.type.of.message
      out[f.name] = (s as Json[]).map((item, i) => thin(inner, item ?? {}, (v ?? [])[i] ?? {}))
    } else out[f.name] = v ?? s
  }
  return out
}

const groupOf = (version: unknown): string => {
  const text = typeof version === 'string' ? version : ''
  return text.includes('/') ? text : `/${text}`
}

/** Why a value does not fit its type, in structured-merge-diff's words. */
function typed(type: Message, value: Json, at: string): string[] {
  const out: string[] = []
  for (const key of Object.keys(value)) {
    if (at === '' && (key === 'kind' || key === 'apiVersion')) continue
    const f = type.fields.get(key)
    if (f === undefined) {
      out.push(`${at}.${key}: field not declared in schema`)
      continue
    }
    out.push(...typedValue(f.type, value[key], `${at}.${key}`, f.list === 'map' ? f.keys : undefined, f.list === 'set'))
  }
  return out
}

function typedValue(type: Type, v: unknown, at: string, keys: readonly string[] | undefined, set: boolean): string[] {
  if (v === null || v === undefined) return []
  switch (type.is) {
    case 'message':
      return typeof v === 'object' && !Array.isArray(v) ? typed(type.message, v as Json, at) : [`${at}: expected map, got &{${String(v)}}`]
    case 'map':
      return typeof v === 'object' && !Array.isArray(v)
        ? Object.entries(v as Json).flatMap(([k, x]) => typedValue(type.of, x, `${at}.${k}`, undefined, false))
        : [`${at}: expected map, got &{${String(v)}}`]
    case 'list': {
      if (!Array.isArray(v)) return [`${at}: expected list, got &{${String(v)}}`]
      const out: string[] = []
      const seen = new Set<string>()
      v.forEach((item, i) => {
        let where = `${at}[${i}]`
        if (keys !== undefined && typeof item === 'object' && item !== null) {
          const fields = type.of.is === 'message' ? type.of.message.fields : undefined
          const id = [...keys].sort().map((k) => `${k}=${JSON.stringify((item as Json)[k] ?? fields?.get(k)?.fallback)}`)
          where = `${at}[${id.join(',')}]`
          const missing = keys.find((k) => (item as Json)[k] === undefined && fields?.get(k)?.fallback === undefined)
          if (missing !== undefined) out.push(`${at}: element ${i}: associative list with keys has an element that omits key field ${JSON.stringify(missing)} (and doesn't have default value)`)
          else if (seen.has(where)) out.push(`${at}: duplicate entries for key [${id.join(',')}]`)
          seen.add(where)
        } else if (set) {
          where = `${at}[=${JSON.stringify(item)}]`
          if (seen.has(where)) out.push(`${at}: duplicate entries for key [=${JSON.stringify(item)}]`)
          seen.add(where)
        }
        out.push(...typedValue(type.of, item, where, undefined, false))
      })
      return out
    }
    case 'scalar':
      switch (type.scalar) {
        case 'string':
        case 'bytes':
        case 'Time':
        case 'MicroTime':
          return typeof v === 'string' ? [] : [`${at}: expected string, got &value.valueUnstructured{Value:${goValue(v)}}`]
        case 'bool':
          return typeof v === 'boolean' ? [] : [`${at}: expected boolean, got &value.valueUnstructured{Value:${goValue(v)}}`]
        case 'int32':
        case 'int64':
        case 'double':
          return typeof v === 'number' ? [] : [`${at}: expected numeric (int or float), got &value.valueUnstructured{Value:${goValue(v)}}`]
        default:
          return []
      }
  }
}

const goValue = (v: unknown): string => (typeof v === 'string' ? JSON.stringify(v) : String(v))

function conflictOf(conflicts: readonly { readonly manager: Manager; readonly path: Path }[]): Failure {
  const who = (m: Manager): string =>
    `${JSON.stringify(m.manager)}${m.subresource === '' ? '' : ` with subresource ${JSON.stringify(m.subresource)}`}${m.operation === 'Update' ? ` using ${m.apiVersion}` : ''}`
  const causes = conflicts.map((c) => ({ reason: 'FieldManagerConflict', message: `conflict with ${who(c.manager)}`, field: pathText(c.path) }))
  let text: string
  if (conflicts.length === 1) text = `Apply failed with 1 conflict: conflict with ${who(conflicts[0]!.manager)}: ${pathText(conflicts[0]!.path)}`
  else {
    const lines: string[] = []
    for (const m of [...new Set(conflicts.map((c) => c.manager))].toSorted((a, b) => (who(a) < who(b) ? -1 : 1))) {
      lines.push(`conflicts with ${who(m)}:`)
      for (const c of conflicts) if (c.manager === m) lines.push(`- ${pathText(c.path)}`)
    }
    text = `Apply failed with ${conflicts.length} conflicts: ${lines.join('\n')}`
  }
  return new Failure(409, 'Conflict', text, { causes })
}
