import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { LineCounter, parseAllDocuments } from 'yaml'
import { UsageError } from '../lib/options.ts'
import type { KubeObject } from '../kube/objects.ts'

/** One object as it stands in a file. */
export interface Document {
  /** `FILE, document 2 (line 14)`, for messages. */
  readonly where: string
  readonly object: KubeObject & { readonly apiVersion: string; readonly kind: string; readonly metadata: { readonly name: string } }
}

const most = 10 * 1024 * 1024 // bytes a file

/** Reads every document of files, folders (`*.yaml`, `*.yml`, `*.json`) or standard input (`-`). Throws `UsageError` with all that is wrong: file, document, field, what was expected. */
export function readDocuments(names: readonly string[]): readonly Document[] {
  const documents: Document[] = []
  const wrong: string[] = []
  for (const file of names.flatMap(expand)) readFile(file, documents, wrong)
  if (wrong.length > 0) throw new UsageError(wrong.length === 1 ? wrong[0]! : `\n  ${wrong.join('\n  ')}`)
  if (documents.length === 0) throw new UsageError(`no objects in ${names.join(', ')}`)
  return documents
}

function expand(name: string): readonly string[] {
  if (name === '-') return [name]
  let found
  try {
    found = statSync(name)
  } catch {
    throw new UsageError(`no file ${name}`)
  }
  if (!found.isDirectory()) return [name]
  return readdirSync(name)
    .filter((f) => /\.(ya?ml|json)$/.test(f))
    .toSorted()
    .map((f) => join(name, f))
}

function readFile(file: string, documents: Document[], wrong: string[]): void {
  const text = readFileSync(file === '-' ? 0 : file, 'utf8')
  if (text.length > most) throw new UsageError(`${file}: larger than ${most} bytes`)
  const label = file === '-' ? 'standard input' : file
  const lines = new LineCounter()
  const parsed = parseAllDocuments(text, { lineCounter: lines, version: '1.1', merge: true, stringKeys: false })
  let number = 0
  for (const doc of Array.isArray(parsed) ? parsed : []) {
    const at = lines.linePos(doc.contents?.range?.[0] ?? doc.range[0])
    const where = `${label}, document ${++number} (line ${at.line})`
    if (doc.errors.length > 0) {
      for (const e of doc.errors) wrong.push(`${label}, document ${number}, line ${e.linePos?.[0].line ?? at.line}, column ${e.linePos?.[0].col ?? 1}: ${e.message.split('\n')[0]}`)
      continue
    }
    // Few anchors repeated many times can make a small file huge.
    const value: unknown = doc.toJS({ maxAliasCount: 100 })
    if (value === null || value === undefined) continue
    for (const [i, object] of unwrap(value).entries()) check(object, i === 0 && !isList(value) ? where : `${where}, items[${i}]`, documents, wrong)
  }
}

function isList(value: unknown): value is { readonly items: readonly unknown[] } {
  return typeof value === 'object' && value !== null && 'items' in value && Array.isArray(value.items) && 'kind' in value && typeof value.kind === 'string' && value.kind.endsWith('List')
}

function unwrap(value: unknown): readonly unknown[] {
  return isList(value) ? value.items : [value]
}

function check(value: unknown, where: string, documents: Document[], wrong: string[]): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    wrong.push(`${where}: expected an object, got ${Array.isArray(value) ? 'a list' : JSON.stringify(value)}`)
    return
  }
  const o = value as { readonly apiVersion?: unknown; readonly kind?: unknown; readonly metadata?: { readonly name?: unknown; readonly namespace?: unknown } | null }
  const before = wrong.length
  const text = (field: string, got: unknown): void => {
    if (typeof got !== 'string' || got === '') wrong.push(`${where}: ${field}: expected a text, got ${got === undefined ? 'nothing' : JSON.stringify(got)}`)
  }
  text('apiVersion', o.apiVersion)
  text('kind', o.kind)
  if (typeof o.metadata !== 'object' || o.metadata === null) wrong.push(`${where}: metadata: expected an object with a name, got ${o.metadata === undefined ? 'nothing' : JSON.stringify(o.metadata)}`)
  else {
    text('metadata.name', o.metadata.name)
    if (o.metadata.namespace !== undefined) text('metadata.namespace', o.metadata.namespace)
  }
  if (wrong.length === before) documents.push({ where, object: value as Document['object'] })
}
