import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** Where Kubernetes' own OpenAPI documents lie, on machines that have them beside the checkout. */
const folder = join(import.meta.dirname, '../../../shared/data/kubernetes-1.32/openapi-v3')

export const haveSchemas = existsSync(folder)

interface Schema {
  readonly $ref?: string
  readonly allOf?: readonly Schema[]
  readonly oneOf?: readonly Schema[]
  readonly type?: string
  readonly format?: string
  readonly enum?: readonly unknown[]
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly additionalProperties?: Schema
  readonly items?: Schema
}

const documents = new Map<string, Readonly<Record<string, Schema>>>()

/** What of `object` is not as the schema of its kind says; also fields that it does not name. */
export function schemaTrouble(object: { readonly apiVersion: string; readonly kind: string }): readonly string[] {
  const [group, version] = object.apiVersion.includes('/') ? object.apiVersion.split('/') : ['', object.apiVersion]
  const file = join(folder, `${group === '' ? `api__${version}` : `apis__${group}__${version}`}_openapi.json`)
  if (!documents.has(file)) documents.set(file, (JSON.parse(readFileSync(file, 'utf8')) as { components: { schemas: Record<string, Schema> } }).components.schemas)
  const schemas = documents.get(file)!
  const name = Object.keys(schemas).find((n) => n.startsWith('io.k8s.api.') && n.endsWith(`.${version}.${object.kind}`))
  if (name === undefined) return [`${object.apiVersion} has no ${object.kind}`]
  const out: string[] = []
  check(schemas, schemas[name]!, object, '', out)
  return out
}

function check(all: Readonly<Record<string, Schema>>, schema: Schema, value: unknown, at: string, out: string[]): void {
  if (schema.$ref !== undefined) return check(all, all[schema.$ref.slice('#/components/schemas/'.length)]!, value, at, out)
  for (const s of schema.allOf ?? []) check(all, s, value, at, out)
  if (schema.oneOf !== undefined && !schema.oneOf.some((s) => typed(s.type, value))) out.push(`${at}: ${JSON.stringify(value)} is none of ${schema.oneOf.map((s) => s.type).join(', ')}`)
  if (schema.type !== undefined && !typed(schema.type, value)) {
    out.push(`${at}: ${JSON.stringify(value)} is no ${schema.type}`)
    return
  }
  if (schema.enum !== undefined && !schema.enum.includes(value)) out.push(`${at}: ${JSON.stringify(value)} is none of ${schema.enum.join(', ')}`)
  for (const name of schema.required ?? []) if ((value as Record<string, unknown>)[name] === undefined) out.push(`${at}.${name} is missing`)
  if (Array.isArray(value)) {
    if (schema.items !== undefined) for (const [i, v] of value.entries()) check(all, schema.items, v, `${at}[${i}]`, out)
  } else if (typeof value === 'object' && value !== null) {
    for (const [name, v] of Object.entries(value)) {
      const below = schema.properties?.[name] ?? schema.additionalProperties
      if (below !== undefined) check(all, below, v, `${at}.${name}`, out)
      else if (schema.type === 'object') out.push(`${at}.${name} does not exist`)
    }
  }
}

function typed(type: string | undefined, value: unknown): boolean {
  switch (type) {
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value)
    case 'array':
      return Array.isArray(value)
    case 'integer':
      return Number.isInteger(value)
    default:
      return type === undefined || typeof value === type
  }
}
