import type { IncomingMessage } from 'node:http'
import { parse as parseYaml } from 'yaml'
import { jsonTrouble } from '../kinds/gojson.ts'
import { badRequest, tooLarge } from './status.ts'

const limit = 3_145_728

/** The bytes of a request; 413 above 3 MiB. */
export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const declared = Number(request.headers['content-length'] ?? 0)
  if (declared > limit) {
    request.resume()
    throw tooLarge(limit)
  }
  const parts: Buffer[] = []
  let size = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.length
    if (size > limit) throw tooLarge(limit)
    parts.push(part)
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
}

const deepest = 10_000

/** A JSON text that was parsed, and the paths of keys that came twice. */
export interface Parsed {
  readonly value: unknown
  readonly duplicates: readonly string[]
}

/** Reads JSON; throws a SyntaxError in Go's words. */
export function parseJson(text: string, duplicates: boolean): Parsed {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new SyntaxError(jsonTrouble(text) ?? (error as Error).message)
  }
  return { value, duplicates: duplicates ? findDuplicates(text) : [] }
}

/** Walks JSON that is known to be valid; collects the paths of keys that an object has twice. */
function findDuplicates(text: string): string[] {
  const out: string[] = []
  const stack: { readonly keys: Set<string> | undefined; index: number; path: string }[] = []
  let at = 0
  let path = ''
  const child = (name: string): string => (path === '' ? name : `${path}.${name}`)
  for (;;) {
    // At the start of a value.
    while (at < text.length && ' \t\r\n'.includes(text[at]!)) at++
    const c = text[at]
    if (c === undefined) return out
    if (stack.length > deepest) throw badRequest('exceeded max depth')
    if (c === '{' || c === '[') {
      stack.push({ keys: c === '{' ? new Set() : undefined, index: 0, path })
      at++
      while (' \t\r\n'.includes(text[at]!)) at++
      if (text[at] === '}' || text[at] === ']') {
        at++
        path = stack.pop()!.path
      } else {
        if (c === '{') key()
        else path = `${path}[0]`
        continue
      }
    } else if (c === '"') at = endOfString(text, at)
    else while (at < text.length && !',]} \t\r\n'.includes(text[at]!)) at++
    // After a value: up the stack as far as objects and lists end here.
    for (;;) {
      while (at < text.length && ' \t\r\n'.includes(text[at]!)) at++
      const top = stack.at(-1)
      if (top === undefined) return out
      const d = text[at]
      at++
      path = top.path
      if (d === ',') {
        while (' \t\r\n'.includes(text[at]!)) at++
        if (top.keys !== undefined) key()
        else path = `${path}[${++top.index}]`
        break
      }
      stack.pop()
    }
  }
  function key(): void {
    const end = endOfString(text, at)
    const name = JSON.parse(text.slice(at, end)) as string
    const top = stack.at(-1)!
    path = top.path
    const full = child(name)
    if (top.keys!.has(name)) {
      if (!out.includes(full)) out.push(full)
    } else top.keys!.add(name)
    path = full
    at = end
    while (text[at] !== ':') at++
    at++
  }
}

function endOfString(text: string, start: number): number {
  for (let i = start + 1; ; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === '"') return i + 1
  }
}

/** YAML as JSON values, as Kubernetes reads it (YAML 1.1 words, keys are strings); duplicates are told. */
export function parseYamlBody(text: string): Parsed {
  const duplicates: string[] = []
  const value: unknown = parseYaml(text, { version: '1.1', merge: true, uniqueKeys: false, stringKeys: false, maxAliasCount: 100, logLevel: 'silent' })
  return { value: JSON.parse(JSON.stringify(value ?? null)), duplicates }
}
