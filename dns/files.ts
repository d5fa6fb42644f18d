import { globSync, readFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

/** The text of a file; undefined if it cannot be read. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** The files that a path or glob in a Corefile names, relative to it, in the order of their names. */
export function findFiles(pattern: string, from: string): { readonly path: string; readonly text: string }[] {
  const absolute = resolve(dirname(from), pattern)
  const paths = /[*?[]/.test(absolute) ? globSync(absolute).toSorted() : [absolute]
  return paths.flatMap((path) => {
    const text = readText(path)
    return text === undefined ? [] : [{ path, text }]
  })
}
