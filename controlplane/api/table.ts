import type { Json } from '../kinds/decode.ts'
import { apiVersion, type Column, type Kind } from '../kinds/kind.ts'

/** What goes with each row of a table. */
export type Include = 'Metadata' | 'Object' | 'None'

export const columnsOf = (columns: readonly Column[]): object[] => columns.map((c) => ({ name: c.name, type: c.type, format: c.format ?? '', description: '', priority: c.wide === true ? 1 : 0 }))

/** One object as a row, as server-side printing does. */
export function row(k: Kind, o: Json, include: Include, version: string, now: number): object {
  const object = include === 'None' ? null : include === 'Object' ? { ...o, kind: k.kind, apiVersion: apiVersion(k) } : partial(o, version)
  return { cells: k.cells(o, now), object }
}

/** Only the metadata of an object. */
export const partial = (o: Json, version = 'v1'): Json => ({ kind: 'PartialObjectMetadata', apiVersion: `meta.k8s.io/${version}`, metadata: o['metadata'] })

/** A whole table. */
export function table(k: Kind, objects: readonly Json[], metadata: object, include: Include, version: string, now: number, headless = false): Json {
  return {
    kind: 'Table',
    apiVersion: `meta.k8s.io/${version}`,
    metadata,
    columnDefinitions: headless ? null : columnsOf(k.columns),
    rows: objects.map((o) => row(k, o, include, version, now)),
  }
}
