import { equal } from '../../kube/patch.ts'
import type { Json } from '../kinds/decode.ts'
import type { Field, Message } from '../kinds/schema.ts'
import { badRequest, Failure } from './status.ts'

const plain = (v: unknown): v is Json => typeof v === 'object' && v !== null && !Array.isArray(v)

const rejected = (): Failure => new Failure(422, 'Invalid', 'the server rejected our request due to an error in our request', {})

/** RFC 6902, on a copy. A failed test or a missing path is a 422. */
export function jsonPatch(document: unknown, operations: unknown): any {
  if (!Array.isArray(operations)) throw badRequest(`error decoding patch: json: cannot unmarshal ${plain(operations) ? 'object' : typeof operations} into Go value of type []handlers.jsonPatchOp`)
  if (operations.length > 10_000) throw new Failure(413, 'RequestEntityTooLarge', `The allowed maximum operations in a JSON patch is 10000, got ${operations.length}`)
  let root: any = structuredClone(document)
  const split = (path: unknown): string[] => {
    if (typeof path !== 'string' || (path !== '' && !path.startsWith('/'))) throw rejected()
    return path
      .split('/')
      .slice(1)
      .map((s) => s.replaceAll('~1', '/').replaceAll('~0', '~'))
  }
  const read = (parts: readonly string[]): any => {
    let at = root
    for (const p of parts) {
      if (Array.isArray(at)) at = at[index(p, at.length - 1)]
      else if (plain(at) && Object.hasOwn(at, p)) at = at[p]
      else throw rejected()
    }
    return at
  }
  const index = (text: string, max: number): number => {
    if (!/^(0|-?[1-9]\d*)$/.test(text)) throw rejected()
    const i = Number(text)
    if (i < 0 || i > max) throw rejected()
    return i
  }
  const add = (parts: readonly string[], value: unknown): void => {
    if (parts.length === 0) {
      root = value
      return
    }
    const parent = read(parts.slice(0, -1))
    const last = parts.at(-1)!
    if (Array.isArray(parent)) parent.splice(last === '-' ? parent.length : index(last, parent.length), 0, value)
    else if (plain(parent)) parent[last] = value
    else throw rejected()
  }
  const remove = (parts: readonly string[]): unknown => {
    const parent = read(parts.slice(0, -1))
    const last = parts.at(-1)
    if (last === undefined) throw rejected()
    if (Array.isArray(parent)) return parent.splice(index(last, parent.length - 1), 1)[0]
    if (!plain(parent) || !Object.hasOwn(parent, last)) throw rejected()
    const value = parent[last]
    delete parent[last]
    return value
  }
  for (const o of operations) {
    if (!plain(o)) throw rejected()
    const path = split(o['path'])
    switch (o['op']) {
      case 'add':
        add(path, structuredClone(o['value']))
        break
      case 'remove':
        remove(path)
        break
      case 'replace':
        if (path.length === 0) root = structuredClone(o['value'])
        else {
          read(path)
          const parent = read(path.slice(0, -1))
          if (Array.isArray(parent)) parent[Number(path.at(-1))] = structuredClone(o['value'])
          else parent[path.at(-1)!] = structuredClone(o['value'])
        }
        break
      case 'move':
        add(path, remove(split(o['from'])))
        break
      case 'copy':
        add(path, structuredClone(read(split(o['from']))))
        break
      case 'test':
        if (!equal(path.length === 0 ? root : readOrNull(read, path), o['value'] ?? null)) throw rejected()
        break
      default:
        throw rejected()
    }
  }
  return root
}

function readOrNull(read: (parts: readonly string[]) => unknown, path: readonly string[]): unknown {
  try {
    return read(path)
  } catch {
    return null
  }
}

/** Kubernetes' strategic merge: lists are merged by the keys that `type` names; `$patch`, `$retainKeys`, `$setElementOrder` and `$deleteFromPrimitiveList` do what they say. */
export function strategicMerge(type: Message, target: Json, patch: Json): Json {
  return mergeObject(type, target, patch)
}

function mergeObject(type: Message | undefined, target: Json, patch: Json): Json {
  const directive = patch['$patch']
  if (directive !== undefined) {
    if (directive === 'replace') {
      const { $patch: _, ...rest } = patch
      return rest
    }
    if (directive === 'delete') return {}
    if (directive !== 'merge') throw badRequest(`Unknown patch type: ${String(directive)}`)
  }
  let out: Json = { ...target }
  const retain = patch['$retainKeys']
  if (Array.isArray(retain)) {
    const kept: Json = {}
    for (const key of retain) if (Object.hasOwn(out, key)) kept[key] = out[key]
    out = kept
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key === '$patch' || key === '$retainKeys') continue
    if (key.startsWith('$deleteFromPrimitiveList/')) {
      const name = key.slice(25)
      if (Array.isArray(out[name]) && Array.isArray(value)) out[name] = out[name].filter((v: unknown) => !value.some((x) => equal(x, v)))
      continue
    }
    if (key.startsWith('$setElementOrder/')) {
      const name = key.slice(17)
      // Only the order was sent: nothing of the list changes but that.
      if (!Object.hasOwn(patch, name) && Array.isArray(out[name])) out[name] = ordered(type?.fields.get(name), out[name], value as unknown[], [])
      continue
    }
    if (value === null) {
      delete out[key]
      continue
    }
    const field = type?.fields.get(key)
    const old = out[key]
    if (plain(value)) {
      const inner = field?.type.is === 'message' ? field.type.message : undefined
      out[key] = value['$patch'] === 'delete' ? undefined : mergeObject(inner, plain(old) ? old : {}, value)
      if (out[key] === undefined) delete out[key]
    } else if (Array.isArray(value) && field !== undefined && field.merge && field.type.is === 'list') {
      const order = patch[`$setElementOrder/${key}`] as unknown[] | undefined
      const before = Array.isArray(old) ? old : []
      let merged: unknown[]
      if (field.mergeKey === undefined || field.type.of.is !== 'message') {
        merged = [...before]
        for (const v of value) if (!merged.some((x) => equal(x, v))) merged.push(v)
      } else merged = mergeList(field.type.of.message, field.mergeKey, key, before, value)
      // Without an order of its own the patch's elements come in the patch's order, new ones before what only the server has.
      out[key] = ordered(field, merged, order ?? value, before)
    } else out[key] = Array.isArray(value) ? clean(value) : value
  }
  return out
}

function mergeList(type: Message, mergeKey: string, name: string, before: readonly Json[], patch: readonly unknown[]): Json[] {
  let out = [...before]
  const replace = patch.some((p) => plain(p) && p['$patch'] === 'replace')
  if (replace) return patch.filter((p): p is Json => plain(p) && p['$patch'] !== 'replace')
  for (const p of patch) {
    if (!plain(p)) throw badRequest(`map: ${JSON.stringify(p)} does not contain declared merge key: ${mergeKey}`)
    if (p['$patch'] === 'merge' && Object.keys(p).length === 1) continue
    const key = p[mergeKey]
    if (key === undefined) throw new Failure(500, '', `map: ${goMap(p)} does not contain declared merge key: ${mergeKey}`)
    if (p['$patch'] === 'delete') {
      out = out.filter((x) => !equal(x[mergeKey], key))
      continue
    }
    const i = out.findIndex((x) => equal(x[mergeKey], key))
    if (i < 0) {
      const { $patch: _, ...rest } = p
      out.push(mergeObject(type, {}, rest))
    } else out[i] = mergeObject(type, out[i]!, p)
  }
  void name
  return out
}

/** `map[name:z]`, as Go prints a map. */
function goMap(v: unknown): string {
  if (Array.isArray(v)) return `[${v.map(goMap).join(' ')}]`
  if (plain(v))
    return `map[${Object.keys(v)
      .sort()
      .map((k) => `${k}:${goMap(v[k])}`)
      .join(' ')}]`
  return String(v)
}

function ordered(field: Field | undefined, list: readonly any[], order: readonly any[], before: readonly any[]): unknown[] {
  const key = field?.mergeKey
  const idOf = (v: any): unknown => (key !== undefined && plain(v) ? v[key] : v)
  const rank = (v: any): number => order.findIndex((o) => equal(idOf(o), idOf(v)))
  const named = list.filter((v) => rank(v) >= 0).sort((a, b) => rank(a) - rank(b))
  const serverOnly = list.filter((v) => rank(v) < 0)
  // What only the server has stays before the element it stood before.
  const place = (v: any): number => before.findIndex((x) => equal(idOf(x), idOf(v)))
  const out: any[] = []
  let i = 0
  let j = 0
  while (i < named.length && j < serverOnly.length) {
    const a = place(named[i])
    const b = place(serverOnly[j])
    if (a >= 0 && b >= 0 && b < a) out.push(serverOnly[j++])
    else out.push(named[i++])
  }
  return [...out, ...named.slice(i), ...serverOnly.slice(j)]
}

/** A list that is taken whole loses the directives it may carry. */
function clean(list: readonly unknown[]): unknown[] {
  return list.filter((v) => !(plain(v) && Object.keys(v).length === 1 && v['$patch'] === 'replace'))
}
