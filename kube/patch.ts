/** A patch that cannot be carried out on this document. `testFailed`: a `test` of a JSON patch did not hold. */
export class PatchError extends Error {
  override readonly name = 'PatchError'
  readonly testFailed: boolean

  constructor(message: string, testFailed = false) {
    super(message)
    this.testFailed = testFailed
  }
}

type Map_ = Readonly<Record<string, unknown>>

function isMap(value: unknown): value is Map_ {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Sets `key` as an own property, whatever its name. */
function put(target: Record<string, unknown>, key: string, value: unknown): void {
  if (key === '__proto__') Object.defineProperty(target, key, { value, enumerable: true, configurable: true, writable: true })
  else target[key] = value
}

function own(map: Map_, key: string): unknown {
  return Object.hasOwn(map, key) ? map[key] : undefined
}

/** Whether two JSON values are equal; the order of keys does not count. */
export function equal(a: unknown, b: unknown): boolean {
  if (a === b) return true
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((v, i) => equal(v, b[i]))
  if (!isMap(a) || !isMap(b)) return false
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length && keys.every((k) => Object.hasOwn(b, k) && equal(a[k], b[k]))
}

// RFC 7386

/** JSON merge patch (RFC 7386): null removes, maps merge, everything else replaces. Neither argument is changed. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isMap(patch)) return patch
  const out: Record<string, unknown> = isMap(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete out[key]
    else put(out, key, mergePatch(own(out, key), value))
  }
  return out
}

// RFC 6902

/** One step of a JSON patch. */
export interface JsonOperation {
  readonly op: 'add' | 'remove' | 'replace' | 'move' | 'copy' | 'test'
  readonly path: string
  readonly from?: string
  readonly value?: unknown
}

/** JSON patch (RFC 6902) on a copy of `document`: all operations or, with a `PatchError`, none. */
export function jsonPatch(document: unknown, operations: readonly JsonOperation[]): unknown {
  // The root is the value of a field, so that replacing it is no special case.
  const root: Record<string, unknown> = { '': structuredClone(document) }
  for (const operation of operations) {
    const { op } = operation
    const at = pointer(operation.path)
    switch (op) {
      case 'add':
        insert(root, at, structuredClone(valueOf(operation)))
        break
      case 'remove':
        take(root, at)
        break
      case 'replace':
        if (at.length > 1) take(root, at)
        insert(root, at, structuredClone(valueOf(operation)))
        break
      case 'move': {
        const from = pointer(operation.from)
        if (at.length > from.length && from.every((step, i) => at[i] === step)) throw new PatchError(`cannot move ${operation.from} into itself`)
        insert(root, at, take(root, from))
        break
      }
      case 'copy':
        insert(root, at, structuredClone(read(root, pointer(operation.from))))
        break
      case 'test':
        if (!equal(read(root, at), valueOf(operation))) throw new PatchError(`testing path ${operation.path} failed`, true)
        break
      default:
        throw new PatchError(`unknown operation "${String(op)}"`)
    }
  }
  return root['']
}

function valueOf(operation: JsonOperation): unknown {
  if (!Object.hasOwn(operation, 'value')) throw new PatchError(`operation ${operation.op} ${operation.path} has no value`)
  return operation.value
}

/** The steps of a JSON pointer (RFC 6901), with the root as the first. */
function pointer(text: string | undefined): readonly string[] {
  if (typeof text !== 'string' || (text !== '' && !text.startsWith('/')) || /~([^01]|$)/.test(text)) throw new PatchError(`"${String(text)}" is no JSON pointer`)
  return text.split('/').map((s) => s.replaceAll('~1', '/').replaceAll('~0', '~'))
}

function read(root: unknown, steps: readonly string[]): unknown {
  let value: unknown = root
  for (const step of steps) {
    if (Array.isArray(value)) value = value[index(step, value.length - 1, steps)]
    else if (isMap(value) && Object.hasOwn(value, step)) value = value[step]
    else throw new PatchError(`there is nothing at ${steps.join('/')}`)
  }
  return value
}

function index(step: string, most: number, steps: readonly string[]): number {
  const i = /^(0|[1-9]\d*)$/.test(step) ? Number(step) : NaN
  if (!(i <= most)) throw new PatchError(`there is no element at ${steps.join('/')}`)
  return i
}

function insert(root: unknown, steps: readonly string[], value: unknown): void {
  const into = read(root, steps.slice(0, -1))
  const last = steps.at(-1)!
  if (Array.isArray(into)) into.splice(last === '-' ? into.length : index(last, into.length, steps), 0, value)
  else if (isMap(into)) put(into as Record<string, unknown>, last, value)
  else throw new PatchError(`there is nothing at ${steps.slice(0, -1).join('/')}`)
}

function take(root: unknown, steps: readonly string[]): unknown {
  const from = read(root, steps.slice(0, -1))
  const last = steps.at(-1)!
  if (Array.isArray(from)) return from.splice(index(last, from.length - 1, steps), 1)[0]
  const value = read(root, steps)
  delete (from as Record<string, unknown>)[last]
  return value
}

// Strategic merge

/** How a strategic merge treats one field. */
export interface FieldRule {
  /** Elements are merged instead of the list replaced: maps by `key`, other values as a set. */
  readonly merge?: boolean | undefined
  readonly key?: string | undefined
  /** The rules below: of the map, or of each element of the list. */
  readonly inner?: MergeSchema | undefined
}

/** The rule of a field of one message; undefined: maps merge, lists are replaced. */
export type MergeSchema = (field: string) => FieldRule | undefined

const setOrder = '$setElementOrder/'
const deletePrimitives = '$deleteFromPrimitiveList/'

/**
 * Kubernetes' strategic merge patch, with `$patch` (replace, delete, merge), `$retainKeys`, `$deleteFromPrimitiveList/FIELD` and
 * `$setElementOrder/FIELD`. Which lists merge, and by which key, `schema` tells. Neither argument is changed.
 */
export function strategicMerge(original: unknown, patch: unknown, schema: MergeSchema = () => undefined): unknown {
  if (!isMap(patch)) throw new PatchError('a strategic merge patch is a map')
  return mergeMaps(isMap(original) ? original : {}, patch, schema)
}

function mergeMaps(original: Map_, patch: Map_, schema: MergeSchema): Record<string, unknown> {
  const directive = patch['$patch']
  if (directive === 'replace') return withoutDirectives(patch)
  if (directive === 'delete') return {}
  if (directive !== undefined && directive !== 'merge') throw new PatchError(`unknown $patch directive "${String(directive)}"`)
  const out: Record<string, unknown> = { ...original }
  const retain = patch['$retainKeys']
  if (retain !== undefined) {
    if (!Array.isArray(retain)) throw new PatchError('$retainKeys: expected a list')
    for (const key of Object.keys(patch)) if (!key.startsWith('$') && patch[key] !== null && !retain.includes(key)) throw new PatchError(`$retainKeys does not name the field "${key}" of its patch`)
    for (const key of Object.keys(out)) if (!retain.includes(key)) delete out[key]
  }
  for (const [key, value] of Object.entries(patch)) {
    if (!key.startsWith(deletePrimitives)) continue
    const field = key.slice(deletePrimitives.length)
    const list = own(out, field)
    if (!Array.isArray(value)) throw new PatchError(`${key}: expected a list`)
    if (Array.isArray(list))
      put(
        out,
        field,
        list.filter((v) => !value.some((w) => equal(v, w))),
      )
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith('$')) continue
    const rule = schema(key)
    const before = own(out, key)
    if (value === null) delete out[key]
    else if (isMap(value)) {
      if (value['$patch'] === 'delete') delete out[key]
      else put(out, key, mergeMaps(isMap(before) ? before : {}, value, rule?.inner ?? untyped))
    } else if (Array.isArray(value)) put(out, key, mergeLists(key, before, value, rule, own(patch, setOrder + key)))
    else put(out, key, value)
  }
  for (const [key, order] of Object.entries(patch)) {
    if (!key.startsWith(setOrder)) continue
    const field = key.slice(setOrder.length)
    const list = own(out, field)
    // Where the field itself is in the patch, its list came out in order already.
    if (Array.isArray(list) && !Array.isArray(own(patch, field))) put(out, field, inOrder(list, order, own(original, field), schema(field), key))
  }
  return out
}

const untyped: MergeSchema = () => undefined

function mergeLists(field: string, before: unknown, patch: readonly unknown[], rule: FieldRule | undefined, order: unknown): readonly unknown[] {
  const inner = rule?.inner ?? untyped
  const old: readonly unknown[] = Array.isArray(before) ? before : []
  if (rule?.merge !== true) return patch.filter((e) => !(isMap(e) && e['$patch'] !== undefined)).map(withoutDeep)
  if (!patch.some(isMap) && rule.key === undefined) {
    const all = [...old, ...patch.filter((v) => !old.some((w) => equal(v, w)))]
    return order === undefined ? all : inOrder(all, order, old, rule, setOrder + field)
  }
  const key = rule.key
  if (key === undefined) throw new PatchError(`${field}: elements cannot be merged without a merge key`)
  if (patch.some((e) => isMap(e) && e['$patch'] === 'replace')) return patch.filter((e) => !(isMap(e) && e['$patch'] !== undefined)).map(withoutDeep)
  let out: unknown[] = [...old]
  for (const element of patch) {
    if (!isMap(element)) throw new PatchError(`${field}: expected a map for each element`)
    const id = own(element, key)
    if (id === undefined) throw new PatchError(`${field}: an element does not have the merge key "${key}"`)
    const at = out.findIndex((e) => isMap(e) && equal(own(e, key), id))
    if (element['$patch'] === 'delete') out = out.filter((e) => !(isMap(e) && equal(own(e, key), id)))
    else if (at < 0) out.push(mergeMaps({}, element, inner))
    else out[at] = mergeMaps(out[at] as Map_, element, inner)
  }
  return order === undefined ? out : inOrder(out, order, old, rule, setOrder + field)
}

/**
 * Elements that `order` names stand in that order; the others, which the patch did not know of, keep their place relative to their
 * old neighbours.
 */
function inOrder(list: readonly unknown[], order: unknown, old: unknown, rule: FieldRule | undefined, where: string): readonly unknown[] {
  if (!Array.isArray(order)) throw new PatchError(`${where}: expected a list`)
  const key = rule?.key
  const idOf = (e: unknown): unknown => (key !== undefined && isMap(e) ? own(e, key) : e)
  const place = (id: unknown): number => order.findIndex((o) => equal(idOf(o), id))
  const oldIds = (Array.isArray(old) ? old : []).map(idOf)
  const oldPlace = (id: unknown): number => oldIds.findIndex((o) => equal(o, id))
  const named = list.filter((e) => place(idOf(e)) >= 0).sort((a, b) => place(idOf(a)) - place(idOf(b)))
  const others = list.filter((e) => place(idOf(e)) < 0).sort((a, b) => oldPlace(idOf(a)) - oldPlace(idOf(b)))
  const out: unknown[] = []
  let i = 0
  let j = 0
  while (i < named.length || j < others.length) {
    if (i >= named.length) out.push(others[j++])
    else if (j >= others.length) out.push(named[i++])
    else {
      const a = oldPlace(idOf(named[i]))
      const b = oldPlace(idOf(others[j]))
      // One of the server's own that stood before the next named one stays before it.
      if (b >= 0 && (a < 0 || b < a)) out.push(others[j++])
      else out.push(named[i++])
    }
  }
  return out
}

function withoutDirectives(map: Map_): Record<string, unknown> {
  const out: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(map)) if (!key.startsWith('$') && value !== null) put(out, key, withoutDeep(value))
  return out
}

function withoutDeep(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDeep)
  return isMap(value) ? withoutDirectives(value) : value
}
