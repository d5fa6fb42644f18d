import type { Field, Message, Scalar, Type } from './schema.ts'

/** JSON as it is after parsing. */
export type Json = { [key: string]: any }

/** Thrown when a value has the wrong type; the text is Go's. */
export class DecodeError extends Error {
  override readonly name = 'DecodeError'
}

/** Called with the path of each field that the type does not have. */
export type Unknown = (path: string) => void

/**
 * `value` as an object of type `type`: unknown fields told to `unknown` and left out, fields in the order of the type, zeros and empties
 * kept or dropped as Go's encoder does, so that what is stored and answered looks as it does from Kubernetes.
 */
export function decode(type: Message, value: unknown, unknown: Unknown = ignore): Json {
  return decodeMessage(type, value, { unknown, root: type.model.slice(type.model.lastIndexOf('.') + 1) }, '', '', type.name)
}

const ignore = (): void => {}

interface Context {
  readonly unknown: Unknown
  readonly root: string
}

function decodeMessage(type: Message, value: unknown, context: Context, path: string, fieldPath: string, owner: string): Json {
  if (value === null || value === undefined) value = empty
  if (typeof value !== 'object' || Array.isArray(value)) throw mismatch(value, goName(type), owner, fieldPath)
  const given = value as Json
  const { fields } = type
  for (const key in given) {
    if (!fields.has(key)) {
      if (path === '' && (key === 'kind' || key === 'apiVersion')) continue
      context.unknown(path === '' ? key : `${path}.${key}`)
    }
  }
  const out: Json = {}
  const name = type.model.slice(type.model.lastIndexOf('.') + 1)
  for (const f of fields.values()) {
    const v = given[f.name]
    if (v === undefined || v === null) {
      const zero = f.pointer ? undefined : absent(f, context)
      if (zero !== undefined) out[f.name] = zero
      continue
    }
    const decoded = decodeValue(f.type, v, context, path === '' ? f.name : `${path}.${f.name}`, fieldPath === '' ? f.name : `${fieldPath}.${f.name}`, name)
    if (f.pointer || !isZero(f.type, decoded)) out[f.name] = decoded
    else {
      const zero = f.always && (f.type.is === 'list' || f.type.is === 'map') ? decoded : absent(f, context)
      if (zero !== undefined) out[f.name] = zero
    }
  }
  return out
}

const empty: Json = Object.freeze({})

/** What stands for a field that was not given; undefined: nothing. */
function absent(f: Field, context: Context): unknown {
  const { type } = f
  switch (type.is) {
    case 'message':
      return decodeMessage(type.message, empty, context, '', '', '')
    case 'list':
    case 'map':
      return f.always ? null : undefined
    case 'scalar':
      switch (type.scalar) {
        case 'Time':
        case 'MicroTime':
          return null
        case 'IntOrString':
          return 0
        case 'Quantity':
          return '0'
        case 'string':
        case 'bytes':
          return f.always ? '' : undefined
        case 'bool':
          return f.always ? false : undefined
        case 'int32':
        case 'int64':
        case 'double':
          return f.always ? 0 : undefined
        case 'Raw':
        case 'FieldsV1':
        case 'ExtraValue':
          return undefined
      }
  }
}

function isZero(type: Type, v: unknown): boolean {
  if (type.is === 'list') return (v as unknown[]).length === 0
  if (type.is === 'map') {
    for (const _ in v as Json) return false
    return true
  }
  if (type.is === 'message') return false
  return v === '' || v === 0 || v === false
}

function decodeValue(type: Type, v: unknown, context: Context, path: string, fieldPath: string, owner: string): unknown {
  switch (type.is) {
    case 'message':
      return decodeMessage(type.message, v, context, path, fieldPath, owner)
    case 'list': {
      if (!Array.isArray(v)) throw mismatch(v, goType(type), owner, fieldPath)
      return v.map((item, i) => (item === null && type.of.is !== 'message' ? zeroOf(type.of) : decodeValue(type.of, item, context, `${path}[${i}]`, fieldPath, owner)))
    }
    case 'map': {
      if (typeof v !== 'object' || v === null || Array.isArray(v)) throw mismatch(v, goType(type), owner, fieldPath)
      const out: Json = {}
      for (const key of Object.keys(v).sort()) {
        const item = (v as Json)[key]
        out[key] = item === null && type.of.is !== 'message' ? zeroOf(type.of) : decodeValue(type.of, item, context, `${path}.${key}`, fieldPath, owner)
      }
      return out
    }
    case 'scalar':
      return decodeScalar(type.scalar, v, owner, fieldPath)
  }
}

const zeroOf = (type: Type): unknown =>
  type.is === 'scalar'
    ? { string: '', bytes: '', bool: false, int32: 0, int64: 0, double: 0, Time: null, MicroTime: null, Quantity: '0', IntOrString: 0, FieldsV1: {}, Raw: null, ExtraValue: [] }[type.scalar]
    : null

function decodeScalar(scalar: Scalar, v: unknown, owner: string, path: string): unknown {
  switch (scalar) {
    case 'string':
      if (typeof v === 'string') return v
      throw mismatch(v, 'string', owner, path)
    case 'bool':
      if (typeof v === 'boolean') return v
      throw mismatch(v, 'bool', owner, path)
    case 'int32':
      if (typeof v === 'number' && Number.isInteger(v) && v >= -2_147_483_648 && v <= 2_147_483_647) return v
      throw mismatch(v, 'int32', owner, path, true)
    case 'int64':
      if (typeof v === 'number' && Number.isInteger(v)) return v
      throw mismatch(v, 'int64', owner, path, true)
    case 'double':
      if (typeof v === 'number') return v
      throw mismatch(v, 'float64', owner, path)
    case 'bytes':
      if (typeof v !== 'string') throw mismatch(v, '[]uint8', owner, path)
      return checkBase64(v)
    case 'Time':
      return decodeTime(v, false)
    case 'MicroTime':
      return decodeTime(v, true)
    case 'Quantity':
      return quantity(v)
    case 'IntOrString':
      if (typeof v === 'string') return v
      if (typeof v === 'number' && Number.isInteger(v) && Math.abs(v) <= 2_147_483_647) return v
      throw typeof v === 'number' ? new DecodeError(`json: cannot unmarshal number ${v} into Go value of type int32`) : mismatch(v, 'intstr.IntOrString', owner, path)
    case 'ExtraValue':
      if (!Array.isArray(v)) throw mismatch(v, 'v1.ExtraValue', owner, path)
      return v
    case 'FieldsV1':
    case 'Raw':
      return v
  }
}

function mismatch(v: unknown, wanted: string, owner: string, path: string, digits = false): DecodeError {
  const got = typeof v === 'number' ? (digits ? `number ${v}` : 'number') : typeof v === 'boolean' ? 'bool' : typeof v === 'string' ? 'string' : Array.isArray(v) ? 'array' : 'object'
  return new DecodeError(path === '' ? `json: cannot unmarshal ${got} into Go value of type ${wanted}` : `json: cannot unmarshal ${got} into Go struct field ${owner}.${path} of type ${wanted}`)
}

function goType(type: Type): string {
  switch (type.is) {
    case 'message':
      return goName(type.message)
    case 'list':
      return `[]${goType(type.of)}`
    case 'map':
      return `map[string]${goType(type.of)}`
    case 'scalar':
      return {
        string: 'string',
        bool: 'bool',
        int32: 'int32',
        int64: 'int64',
        double: 'float64',
        bytes: '[]uint8',
        Time: 'v1.Time',
        MicroTime: 'v1.MicroTime',
        Quantity: 'resource.Quantity',
        IntOrString: 'intstr.IntOrString',
        FieldsV1: 'v1.FieldsV1',
        Raw: 'runtime.RawExtension',
        ExtraValue: 'v1.ExtraValue',
      }[type.scalar]
  }
}

/** `v1.ServiceSpec`, as Go prints a type. */
export const goName = (type: Message): string => `v1.${type.model.slice(type.model.lastIndexOf('.') + 1)}`

function checkBase64(text: string): string {
  const clean = text.replace(/[\r\n]/g, '')
  const bad = /[^A-Za-z0-9+/=]/.exec(clean)
  if (bad !== null) throw new DecodeError(`illegal base64 data at input byte ${bad.index}`)
  const equals = clean.indexOf('=')
  const body = equals < 0 ? clean.length : equals
  if (clean.length % 4 !== 0 || clean.length - body > 2 || body % 4 === 1)
    throw new DecodeError(`illegal base64 data at input byte ${equals >= 0 && clean.length % 4 === 0 ? equals : clean.length - (clean.length % 4)}`)
  return clean
}

function decodeTime(v: unknown, micro: boolean): string {
  if (typeof v !== 'string') throw new DecodeError(`json: cannot unmarshal ${Array.isArray(v) ? 'array' : typeof v === 'boolean' ? 'bool' : typeof v} into Go value of type string`)
  const m = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$/.exec(v)
  const at = m === null ? Number.NaN : Date.parse(v)
  // Go wants exactly the digits of the layout: six of them in a MicroTime.
  if (m === null || Number.isNaN(at) || (micro && m[3]?.length !== 7))
    throw new DecodeError(`parsing time ${JSON.stringify(v)} as "${micro ? '2006-01-02T15:04:05.000000Z07:00' : '2006-01-02T15:04:05Z07:00'}": ${timeTrouble(v, micro)}`)
  const seconds = m[4] === 'Z' ? `${m[1]}T${m[2]}` : new Date(at).toISOString().slice(0, 19)
  return micro ? `${seconds}${m[3]}Z` : `${seconds}Z`
}

function timeTrouble(v: string, micro: boolean): string {
  const parts: readonly (readonly [RegExp, string])[] = [
    [/^\d{4}/, '2006'],
    [/^-/, '-'],
    [/^(0[1-9]|1[0-2])/, '01'],
    [/^-/, '-'],
    [/^([0-2]\d|3[01])/, '02'],
    [/^T/, 'T'],
    [/^\d\d/, '15'],
    [/^:/, ':'],
    [/^\d\d/, '04'],
    [/^:/, ':'],
    micro ? [/^\d\d/, '05'] : [/^\d\d(\.\d+)?/, '05'],
    ...(micro ? [[/^\.\d{6}(?!\d)/, '.000000'] as const] : []),
    [/^(Z|[+-]\d\d:\d\d)/, 'Z07:00'],
  ]
  let rest = v
  for (const [pattern, name] of parts) {
    const m = pattern.exec(rest)
    if (m === null) return `cannot parse ${JSON.stringify(rest)} as ${JSON.stringify(name)}`
    rest = rest.slice(m[0].length)
  }
  return rest === '' ? 'day out of range' : `extra text: ${JSON.stringify(rest)}`
}

const suffixes: Readonly<Record<string, bigint>> = { Ki: 1024n, Mi: 1024n ** 2n, Gi: 1024n ** 3n, Ti: 1024n ** 4n, Pi: 1024n ** 5n, Ei: 1024n ** 6n }
const decimals: readonly (readonly [string, number])[] = [
  ['n', -9],
  ['u', -6],
  ['m', -3],
  ['', 0],
  ['k', 3],
  ['M', 6],
  ['G', 9],
  ['T', 12],
  ['P', 15],
  ['E', 18],
]

/** A quantity in Kubernetes' canonical form: `1000m` is `1`, `1024Ki` is `1Mi`, `0.5` is `500m`. */
export function quantity(v: unknown): string {
  const text = typeof v === 'number' ? String(v) : v
  const m = typeof text === 'string' ? /^([+-]?)(\d*)(?:\.(\d*))?(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?$/.exec(text) : null
  if (m === null || (m[2] === '' && (m[3] ?? '') === '')) throw new DecodeError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
  const sign = m[1] === '-' ? '-' : ''
  const fraction = m[3] ?? ''
  const suffix = m[4] ?? ''
  let digits = BigInt(`${m[2]}${fraction}` || '0')
  if (digits === 0n) return '0'
  const binary = suffixes[suffix]
  if (binary !== undefined) {
    const scale = 10n ** BigInt(fraction.length)
    let value = digits * binary
    if (value % scale === 0n && value / scale >= 1024n) {
      value /= scale
      let at = ''
      for (const [name, size] of Object.entries(suffixes)) if (value % size === 0n) at = name
      return `${sign}${value / (suffixes[at] ?? 1n)}${at}`
    }
    return sign + decimal(value, -fraction.length)
  }
  const exponent = /^[eE]/.test(suffix) && suffix.length > 1 ? Number(suffix.slice(1)) : decimals.find(([name]) => name === suffix)![1]
  if (/^[eE]/.test(suffix) && suffix.length > 1) {
    let e = exponent - fraction.length
    while (digits % 10n === 0n) [digits, e] = [digits / 10n, e + 1]
    while (e % 3 !== 0) [digits, e] = [digits * 10n, e - 1]
    return e === 0 ? `${sign}${digits}` : `${sign}${digits}e${e}`
  }
  return sign + decimal(digits, exponent - fraction.length)
}

function decimal(digits: bigint, exponent: number): string {
  while (digits % 10n === 0n) [digits, exponent] = [digits / 10n, exponent + 1]
  while (exponent % 3 !== 0) [digits, exponent] = [digits * 10n, exponent - 1]
  while (exponent < -9) [digits, exponent] = [(digits + 999n) / 1000n, exponent + 3]
  while (exponent > 18) [digits, exponent] = [digits * 1000n, exponent - 3]
  return `${digits}${decimals.find(([, e]) => e === exponent)![0]}`
}

/** Fills in the defaults that the type tables name. */
export function fallbacks(type: Message, value: Json): void {
  for (const f of type.fields.values()) {
    const v = value[f.name]
    if (v === undefined || v === null) {
      if (f.fallback !== undefined) value[f.name] = f.fallback
      continue
    }
    fallbacksIn(f.type, v)
  }
}

function fallbacksIn(type: Type, v: any): void {
  if (type.is === 'message') fallbacks(type.message, v)
  else if (type.is === 'list' && type.of.is !== 'scalar') for (const item of v) fallbacksIn(type.of, item)
  else if (type.is === 'map' && type.of.is !== 'scalar') for (const key in v) fallbacksIn(type.of, v[key])
}
