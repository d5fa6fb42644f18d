import { decode, type Json } from '../kinds/decode.ts'
import { apiVersion, type Kind } from '../kinds/kind.ts'
import type { Field, Message, Type } from '../kinds/schema.ts'
import { equal } from '../../kube/patch.ts'

// Who owns which field, as structured-merge-diff keeps it: a tree in the very form of `fieldsV1`. `f:name` is a field or key, `k:{…}` a list
// element by its keys, `v:…` one by its value; a node is owned itself if it is empty or holds `.`.

/** A set of paths. */
export type FieldSet = { [element: string]: FieldSet }

const itself = '.'

export const isMember = (node: FieldSet): boolean => Object.hasOwn(node, itself) || Object.keys(node).length === 0
export const isEmpty = (set: FieldSet): boolean => Object.keys(set).length === 0

/** Paths, most of the time turned into trees and back. */
export type Path = readonly string[]

export function insert(set: FieldSet, path: Path): void {
  let at = set
  path.forEach((p, i) => {
    const last = i === path.length - 1
    const next = at[p]
    if (next === undefined) at[p] = {}
    else if (last && Object.keys(next).length > 0) next[itself] = {}
    else if (!last && Object.keys(next).length === 0) next[itself] = {}
    at = at[p]!
  })
}

/** Every path of a set, in order. */
export function paths(set: FieldSet, prefix: Path = []): Path[] {
  const out: Path[] = []
  for (const key of Object.keys(set).sort()) {
    if (key === itself) continue
    const node = set[key]!
    const path = [...prefix, key]
    if (isMember(node)) out.push(path)
    out.push(...paths(node, path))
  }
  return out
}

export function has(set: FieldSet, path: Path): boolean {
  let at: FieldSet | undefined = set
  for (const p of path) {
    at = at[p]
    if (at === undefined) return false
  }
  return isMember(at)
}

/** Whether the set holds `path` or anything below it. */
export function touches(set: FieldSet, path: Path): boolean {
  let at: FieldSet | undefined = set
  for (const p of path) {
    at = at[p]
    if (at === undefined) return false
  }
  return true
}

const fromPaths = (list: Iterable<Path>): FieldSet => {
  const out: FieldSet = {}
  for (const p of list) insert(out, p)
  return out
}

export const union = (a: FieldSet, b: FieldSet): FieldSet => fromPaths([...paths(a), ...paths(b)])
export const difference = (a: FieldSet, b: FieldSet): FieldSet => (isEmpty(b) ? a : fromPaths(paths(a).filter((p) => !has(b, p))))
export const intersection = (a: FieldSet, b: FieldSet): Path[] => (isEmpty(b) ? [] : paths(a).filter((p) => has(b, p)))

/** How a value is divided. */
type Shape =
  | { readonly is: 'leaf' }
  | { readonly is: 'struct'; readonly message: Message }
  | { readonly is: 'map'; readonly of: Type }
  | { readonly is: 'list'; readonly of: Type; readonly keys: readonly string[] | undefined }

const leaf: Shape = { is: 'leaf' }

function shapeOf(type: Type, field: Field | undefined): Shape {
  if (field?.atomic === true) return leaf
  switch (type.is) {
    case 'message':
      return type.message.atomic ? leaf : { is: 'struct', message: type.message }
    case 'map':
      return { is: 'map', of: type.of }
    case 'list':
      if (field?.list === 'map') return { is: 'list', of: type.of, keys: field.keys }
      return field?.list === 'set' ? { is: 'list', of: type.of, keys: undefined } : leaf
    case 'scalar':
      return leaf
  }
}

/** `k:{"port":80,"protocol":"TCP"}` */
function elementOf(shape: Shape & { readonly is: 'list' }, item: any): string {
  if (shape.keys === undefined) return `v:${JSON.stringify(item)}`
  const fields = shape.of.is === 'message' ? shape.of.message.fields : undefined
  const keys: Json = {}
  for (const k of [...shape.keys].sort()) {
    const v = item?.[k] ?? fields?.get(k)?.fallback
    if (v !== undefined) keys[k] = v
  }
  return `k:${JSON.stringify(keys)}`
}

/** The parts of a value by path element, with the shape of each. */
function* parts(shape: Shape, value: any): Iterable<readonly [string, Shape, any]> {
  if (value === undefined || value === null) return
  switch (shape.is) {
    case 'leaf':
      return
    case 'struct':
      for (const f of shape.message.fields.values()) if (value[f.name] !== undefined) yield [`f:${f.name}`, shapeOf(f.type, f), value[f.name]]
      return
    case 'map':
      for (const key of Object.keys(value)) yield [`f:${key}`, shapeOf(shape.of, undefined), value[key]]
      return
    case 'list':
      for (const item of value) yield [elementOf(shape, item), shapeOf(shape.of, undefined), item]
  }
}

const isBare = (shape: Shape, value: any): boolean => value === undefined || value === null || (shape.is === 'list' ? value.length === 0 : Object.keys(value).length === 0)

/** What is different between two values. */
export interface Difference {
  readonly added: FieldSet
  readonly changed: FieldSet
  readonly removed: FieldSet
}

function compare(shape: Shape, before: any, now: any, path: Path, out: Difference): void {
  if (before === undefined && now === undefined) return
  if (path.length > 0) {
    if (before === undefined) insert(out.added, path)
    else if (now === undefined) insert(out.removed, path)
  }
  if (shape.is === 'leaf' || (isBare(shape, before) && isBare(shape, now))) {
    if (before !== undefined && now !== undefined && !equal(before, now)) insert(out.changed, path)
    return
  }
  const old = new Map<string, any>()
  for (const [element, , value] of parts(shape, before)) old.set(element, value)
  for (const [element, inner, value] of parts(shape, now)) {
    compare(inner, old.get(element), value, [...path, element], out)
    old.delete(element)
  }
  if (old.size === 0) return
  for (const [element, inner, value] of parts(shape, before)) if (old.has(element)) compare(inner, value, undefined, [...path, element], out)
}

function setOf(shape: Shape, value: any, path: Path, out: FieldSet): void {
  if (shape.is === 'leaf') {
    insert(out, path)
    return
  }
  for (const [element, inner, v] of parts(shape, value)) {
    const at = [...path, element]
    setOf(inner, v, at, out)
    if (shape.is !== 'struct' || v === null || isBare(inner, v)) insert(out, at)
  }
}

const stripped = new Set(['name', 'namespace', 'creationTimestamp', 'selfLink', 'uid', 'generation', 'managedFields', 'resourceVersion', 'deletionTimestamp', 'deletionGracePeriodSeconds'])

/** Without what nobody owns: names, versions, and the part that this request may not write. */
export function strip(set: FieldSet, subresource: string, hasStatus: boolean): FieldSet {
  const out: FieldSet = {}
  for (const [key, node] of Object.entries(set)) {
    if (key === 'f:apiVersion' || key === 'f:kind') continue
    if (key === 'f:status' && hasStatus && subresource !== 'status') continue
    if (key === 'f:spec' && subresource === 'status') continue
    if (key !== 'f:metadata') {
      out[key] = node
      continue
    }
    const meta: FieldSet = {}
    for (const [name, inner] of Object.entries(node)) if (name !== itself && !stripped.has(name.slice(2))) meta[name] = inner
    if (Object.keys(meta).length > 0) out[key] = meta
  }
  return out
}

export function compareObjects(k: Pick<Kind, 'type' | 'status'>, before: Json | undefined, now: Json, subresource: string): Difference {
  const out: Difference = { added: {}, changed: {}, removed: {} }
  compare({ is: 'struct', message: k.type }, before ?? decode(k.type, {}), now, [], out)
  return { added: strip(out.added, subresource, k.status), changed: strip(out.changed, subresource, k.status), removed: strip(out.removed, subresource, k.status) }
}

/** The paths that an applied object names. */
export function setOfObject(type: Message, object: Json, subresource: string, hasStatus: boolean): FieldSet {
  const out: FieldSet = {}
  setOf({ is: 'struct', message: type }, object, [], out)
  return strip(out, subresource, hasStatus)
}

/** One who wrote, and what is theirs. */
export interface Manager {
  readonly manager: string
  readonly operation: 'Apply' | 'Update'
  readonly apiVersion: string
  readonly subresource: string
  readonly time: string | undefined
  readonly set: FieldSet
}

export function readManagers(fields: readonly Json[] | undefined): Manager[] {
  return (fields ?? [])
    .filter((f) => f['fieldsV1'] !== undefined)
    .map((f) => ({
      manager: f['manager'] ?? '',
      operation: f['operation'],
      apiVersion: f['apiVersion'] ?? '',
      subresource: f['subresource'] ?? '',
      time: f['time'] ?? undefined,
      set: f['fieldsV1'] as FieldSet,
    }))
}

export function writeManagers(managers: readonly Manager[]): Json[] {
  const text = (a: string | undefined, b: string | undefined): number => ((a ?? '') < (b ?? '') ? -1 : (a ?? '') > (b ?? '') ? 1 : 0)
  return managers
    .filter((m) => !isEmpty(m.set))
    .toSorted((a, b) => text(a.operation, b.operation) || text(a.time, b.time) || text(a.manager, b.manager) || text(a.apiVersion, b.apiVersion) || text(a.subresource, b.subresource))
    .map((m) => ({
      manager: m.manager,
      operation: m.operation,
      apiVersion: m.apiVersion,
      ...(m.time === undefined ? {} : { time: m.time }),
      fieldsType: 'FieldsV1',
      fieldsV1: m.set,
      ...(m.subresource === '' ? {} : { subresource: m.subresource }),
    }))
}

export const stampOf = (now: number): string => `${new Date(now).toISOString().slice(0, 19)}Z`
const mostUpdaters = 10

/** Who writes, and to which part of the object. */
export interface Writer {
  readonly manager: string
  readonly subresource: string
}

/** Who set which field, after an update by `call`. `given`: the managedFields that the client sent back, if it did. */
export function managedByUpdate(k: Pick<Kind, 'group' | 'version' | 'type' | 'status'>, now: Json, before: Json | undefined, call: Writer, at: number, given?: readonly Json[]): Json[] {
  let managers = readManagers(given !== undefined && given.length > 0 ? given : before?.['metadata'].managedFields)
  // One empty entry is how a client says: forget it all.
  if (given !== undefined && given.length === 1 && given[0]!['manager'] === undefined && given[0]!['fieldsV1'] === undefined) managers = []
  // An object that nobody owns a part of stays so until somebody applies it.
  if (before !== undefined && managers.length === 0) return []
  const d = compareObjects(k, before, now, call.subresource)
  const mine = union(d.added, d.changed)
  const version = apiVersion(k)
  const isMe = (m: Manager): boolean => m.manager === call.manager && m.operation === 'Update' && m.apiVersion === version && m.subresource === call.subresource
  if (isEmpty(mine) && isEmpty(d.removed)) return writeManagers(managers)
  managers = managers.map((m) => ({ ...m, set: difference(difference(m.set, mine), d.removed) }))
  if (!isEmpty(mine)) {
    const old = managers.find(isMe)
    managers = [
      ...managers.filter((m) => !isMe(m)),
      { manager: call.manager, operation: 'Update', apiVersion: version, subresource: call.subresource, time: stampOf(at), set: old === undefined ? mine : union(old.set, mine) },
    ]
  }
  return writeManagers(capped(managers.filter((m) => !isEmpty(m.set))))
}

/** Too many updaters become one, the oldest first. */
function capped(managers: readonly Manager[]): readonly Manager[] {
  const updaters = managers.filter((m) => m.operation === 'Update')
  if (updaters.length <= mostUpdaters) return managers
  const oldest = updaters.toSorted((a, b) => ((a.time ?? '') < (b.time ?? '') ? -1 : 1)).slice(0, updaters.length - mostUpdaters + 1)
  const merged: Manager = {
    manager: 'ancient-changes',
    operation: 'Update',
    apiVersion: oldest[0]!.apiVersion,
    subresource: oldest[0]!.subresource,
    time: oldest.at(-1)!.time,
    set: oldest.reduce((all, m) => union(all, m.set), {} as FieldSet),
  }
  return [...managers.filter((m) => !oldest.includes(m)), merged]
}

/** `.spec.ports[port=80,protocol="TCP"].name` */
export function pathText(path: Path): string {
  return path
    .map((p) => {
      if (p.startsWith('f:')) return `.${p.slice(2)}`
      if (p.startsWith('v:')) return `[=${p.slice(2)}]`
      const keys = JSON.parse(p.slice(2)) as Json
      return `[${Object.keys(keys)
        .sort()
        .map((k) => `${k}=${JSON.stringify(keys[k])}`)
        .join(',')}]`
    })
    .join('')
}

/** `applied` laid over `live`, as server-side apply merges: structs and maps by key, lists by their keys or values, the rest whole. */
export function mergeApplied(type: Message, live: Json, applied: Json): Json {
  return mergeShape({ is: 'struct', message: type }, live, applied) as Json
}

function mergeShape(shape: Shape, live: any, applied: any): any {
  if (applied === undefined) return live
  if (applied === null || live === undefined || live === null || shape.is === 'leaf') return applied
  if (shape.is === 'list') {
    const mine = new Map<string, any>()
    for (const item of applied) mine.set(elementOf(shape, item), item)
    const inner = shapeOf(shape.of, undefined)
    const theirs = new Map<string, any>()
    for (const item of live) theirs.set(elementOf(shape, item), item)
    // Applied elements in the order applied; what only the server has keeps its place between them.
    const out: any[] = []
    const order = [...mine.keys()]
    const done = new Set<string>()
    let i = 0
    for (const [element, item] of theirs) {
      if (!mine.has(element)) {
        out.push(item)
        continue
      }
      if (done.has(element)) continue
      while (i < order.length) {
        const next = order[i]!
        i++
        if (done.has(next)) continue
        done.add(next)
        out.push(mergeShape(inner, theirs.get(next), mine.get(next)))
        if (next === element) break
      }
    }
    while (i < order.length) {
      const next = order[i++]!
      if (!done.has(next)) out.push(mergeShape(inner, theirs.get(next), mine.get(next)))
    }
    return out
  }
  const out: Json = { ...live }
  for (const key of Object.keys(applied)) {
    const field = shape.is === 'struct' ? shape.message.fields.get(key) : undefined
    if (shape.is === 'struct' && field === undefined) {
      out[key] = applied[key]
      continue
    }
    const inner = shape.is === 'struct' ? shapeOf(field!.type, field) : shapeOf(shape.of, undefined)
    out[key] = mergeShape(inner, live[key], applied[key])
  }
  return out
}

/** `object` without the paths of `gone` that nobody in `owned` holds; containers that become empty by it go too. */
export function prune(type: Message, object: Json, gone: FieldSet, owned: readonly FieldSet[]): Json {
  return pruneShape({ is: 'struct', message: type }, object, gone, owned) as Json
}

function pruneShape(shape: Shape, value: any, gone: FieldSet, owned: readonly FieldSet[]): any {
  if (value === undefined || value === null || shape.is === 'leaf') return value
  const inner = (sets: readonly FieldSet[], element: string): FieldSet[] => sets.map((s) => s[element]).filter((s) => s !== undefined)
  const keep = (element: string, childShape: Shape, child: any): any => {
    const node = gone[element]
    if (node === undefined) return child
    const others = inner(owned, element)
    if (others.length === 0) {
      // A list element or a leaf goes whole; a struct goes too, all that it held was ours.
      if (isMember(node) || childShape.is === 'struct' || childShape.is === 'map') {
        if (isMember(node)) return undefined
        const left = pruneShape(childShape, child, node, [])
        return isBare(childShape, left) ? undefined : left
      }
      return pruneShape(childShape, child, node, [])
    }
    return pruneShape(childShape, child, node, others)
  }
  if (shape.is === 'list') {
    const itemShape = shapeOf(shape.of, undefined)
    return value.map((item: any) => keep(elementOf(shape, item), itemShape, item)).filter((item: any) => item !== undefined)
  }
  const out: Json = {}
  for (const key of Object.keys(value)) {
    const field = shape.is === 'struct' ? shape.message.fields.get(key) : undefined
    const childShape = shape.is === 'struct' ? (field === undefined ? leaf : shapeOf(field.type, field)) : shapeOf(shape.of, undefined)
    const kept = keep(`f:${key}`, childShape, value[key])
    if (kept !== undefined) out[key] = kept
  }
  return out
}
