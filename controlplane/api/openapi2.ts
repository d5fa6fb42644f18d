import { stringify } from 'yaml'
import type { Json } from '../kinds/decode.ts'

// kubectl 1.27 and 1.28 check against, and `kubectl create -f` of a List still asks for, the second version of OpenAPI, which Kubernetes
// sends only as protobuf. The numbers are those of gnostic's openapi.v2.

/** A `Document` of OpenAPI v2 in protobuf, from documents of v3. */
export function documentV2(documents: readonly Json[]): Buffer {
  const paths: Buffer[] = []
  const definitions: Buffer[] = []
  const seen = new Set<string>()
  for (const d of documents) {
    for (const [path, item] of Object.entries(d['paths'] as Json)) paths.push(bytes(2, named(path, pathItem(item))))
    for (const [name, schema] of Object.entries(d['components'].schemas as Json)) {
      if (seen.has(name)) continue
      seen.add(name)
      definitions.push(bytes(1, named(name, schemaOf(schema))))
    }
  }
  return Buffer.concat([text(1, '2.0'), bytes(2, Buffer.concat([text(1, 'Kubernetes'), text(2, 'v1.33.0')])), bytes(8, Buffer.concat(paths)), bytes(9, Buffer.concat(definitions))])
}

const methods: readonly (readonly [string, number])[] = [
  ['get', 2],
  ['put', 3],
  ['post', 4],
  ['delete', 5],
  ['patch', 8],
]

function pathItem(item: Json): Buffer {
  return Buffer.concat([
    ...methods.flatMap(([name, number]) => (item[name] === undefined ? [] : [bytes(number, operation(item[name]))])),
    ...((item['parameters'] ?? []) as Json[]).map((p) => bytes(9, parameter(p))),
  ])
}

function operation(o: Json): Buffer {
  return Buffer.concat([
    text(3, o['description'] ?? ''),
    text(5, o['operationId'] ?? ''),
    text(6, 'application/json'),
    text(7, '*/*'),
    ...((o['parameters'] ?? []) as Json[]).map((p) => bytes(8, parameter(p))),
    bytes(9, bytes(1, named('200', bytes(1, text(1, 'OK'))))),
    ...extensions(13, o),
  ])
}

function parameter(p: Json): Buffer {
  const path = p['in'] === 'path'
  const common = [flag(1, p['required'] === true), text(2, p['in']), text(4, p['name']), text(path ? 5 : 6, p['schema'].type)]
  return bytes(1, bytes(2, bytes(path ? 4 : 3, Buffer.concat(common))))
}

function schemaOf(s: Json): Buffer {
  const one: Json | undefined = s['allOf']?.[0]
  const ref: string | undefined = s['$ref'] ?? one?.['$ref']
  if (ref !== undefined) return Buffer.concat([text(1, ref.replace('#/components/schemas/', '#/definitions/')), ...extensions(31, s)])
  const out: Buffer[] = []
  // A choice of types has no word in v2: it is a string with a format.
  const type: string | undefined = s['oneOf'] === undefined ? s['type'] : 'string'
  if (s['format'] !== undefined) out.push(text(2, s['format']))
  if (s['description'] !== undefined) out.push(text(4, s['description']))
  for (const r of (s['required'] ?? []) as string[]) out.push(text(19, r))
  if (s['additionalProperties'] !== undefined) out.push(bytes(21, bytes(1, schemaOf(s['additionalProperties']))))
  if (type !== undefined) out.push(bytes(22, text(1, type)))
  if (s['items'] !== undefined) out.push(bytes(23, bytes(1, schemaOf(s['items']))))
  if (s['properties'] !== undefined) out.push(bytes(25, Buffer.concat(Object.entries(s['properties'] as Json).map(([name, p]) => bytes(1, named(name, schemaOf(p)))))))
  out.push(...extensions(31, s))
  return Buffer.concat(out)
}

function extensions(number: number, o: Json): Buffer[] {
  return Object.entries(o)
    .filter(([k]) => k.startsWith('x-'))
    .map(([k, v]) => bytes(number, named(k, text(2, stringify(v)))))
}

const named = (name: string, value: Buffer): Buffer => Buffer.concat([text(1, name), bytes(2, value)])
const text = (number: number, value: string): Buffer => (value === '' ? Buffer.alloc(0) : bytes(number, Buffer.from(value)))
const flag = (number: number, value: boolean): Buffer => (value ? Buffer.from([number << 3, 1]) : Buffer.alloc(0))
const bytes = (number: number, value: Buffer): Buffer => Buffer.concat([varint((number << 3) | 2), varint(value.length), value])

function varint(n: number): Buffer {
  const out: number[] = []
  while (n > 127) {
    out.push((n & 127) | 128)
    n >>>= 7
  }
  out.push(n)
  return Buffer.from(out)
}
