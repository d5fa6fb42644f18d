import type { Json } from '../kinds/decode.ts'
import { message, type Field, type Message, type Scalar, type Type } from '../kinds/schema.ts'
import { badRequest } from './status.ts'

const magic = Buffer.from([0x6b, 0x38, 0x73, 0x00])

/** A request body in Kubernetes' protobuf envelope, as JSON would have said it. */
export function decodeProtobuf(bytes: Buffer): Json {
  if (bytes.length < 4 || !bytes.subarray(0, 4).equals(magic)) throw badRequest('provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]')
  let version = ''
  let kind = ''
  let raw: Buffer = Buffer.alloc(0)
  read(bytes.subarray(4), (number, _wire, value) => {
    if (number === 1) {
      read(value as Buffer, (n, _w, v) => {
        if (n === 1) version = (v as Buffer).toString()
        else if (n === 2) kind = (v as Buffer).toString()
      })
    } else if (number === 2) raw = value as Buffer
  })
  let type: Message
  try {
    type = message(version === 'events.k8s.io/v1' && kind === 'Event' ? 'EventsEvent' : kind)
  } catch {
    throw badRequest(`no kind ${JSON.stringify(kind)} is registered for version ${JSON.stringify(version)} in scheme "pkg/api/legacyscheme/scheme.go:30"`)
  }
  return { apiVersion: version, kind, ...fromWire(type, raw) }
}

const byNumber = new WeakMap<Message, { readonly own: Map<number, Field>; readonly embedded: Map<number, Map<number, Field>> }>()

function numbers(type: Message): { readonly own: Map<number, Field>; readonly embedded: Map<number, Map<number, Field>> } {
  let n = byNumber.get(type)
  if (n === undefined) {
    n = { own: new Map(), embedded: new Map() }
    for (const f of type.fields.values()) {
      if (f.inside.length === 0) n.own.set(f.number, f)
      else {
        const at = f.inside[0]!
        let inner = n.embedded.get(at)
        if (inner === undefined) n.embedded.set(at, (inner = new Map()))
        inner.set(f.number, f)
      }
    }
    byNumber.set(type, n)
  }
  return n
}

/** A message from its bytes; fields that are not known are left out. */
export function fromWire(type: Message, bytes: Buffer): Json {
  const out: Json = {}
  const { own, embedded } = numbers(type)
  read(bytes, (number, _wire, value) => {
    const f = own.get(number)
    if (f !== undefined) put(out, f, value)
    else {
      const inner = embedded.get(number)
      if (inner !== undefined)
        read(value as Buffer, (n, _w, v) => {
          const g = inner.get(n)
          if (g !== undefined) put(out, g, v)
        })
    }
  })
  return out
}

function put(out: Json, f: Field, value: number | bigint | Buffer): void {
  const { type } = f
  if (type.is === 'list') {
    const list = (out[f.name] ??= []) as unknown[]
    // Packed numbers come as one piece.
    if (type.of.is === 'scalar' && (type.of.scalar === 'int32' || type.of.scalar === 'int64') && Buffer.isBuffer(value)) {
      let at = 0
      while (at < value.length) {
        const [n, next] = varint(value, at)
        list.push(signed(n))
        at = next
      }
    } else list.push(single(type.of, value))
  } else if (type.is === 'map') {
    const map = (out[f.name] ??= {}) as Json
    let key = ''
    let item: unknown = zero(type.of)
    read(value as Buffer, (n, _w, v) => {
      if (n === 1) key = (v as Buffer).toString()
      else if (n === 2) item = single(type.of, v)
    })
    map[key] = item
  } else out[f.name] = single(type, value)
}

const zero = (type: Type): unknown =>
  type.is === 'scalar' ? (type.scalar === 'string' || type.scalar === 'bytes' ? '' : type.scalar === 'Quantity' ? '0' : type.scalar === 'ExtraValue' ? [] : 0) : {}

function single(type: Type, value: number | bigint | Buffer): unknown {
  if (type.is === 'message') return fromWire(type.message, value as Buffer)
  if (type.is !== 'scalar') return undefined
  return scalar(type.scalar, value)
}

function scalar(kind: Scalar, value: number | bigint | Buffer): unknown {
  switch (kind) {
    case 'string':
      return (value as Buffer).toString()
    case 'bytes':
      return (value as Buffer).toString('base64')
    case 'bool':
      return value !== 0n
    case 'int32':
    case 'int64':
      return signed(value as bigint)
    case 'double':
      return value
    case 'Time':
    case 'MicroTime': {
      let seconds = 0n
      let nanos = 0n
      let any = false
      read(value as Buffer, (n, _w, v) => {
        any = true
        if (n === 1) seconds = v as bigint
        else if (n === 2) nanos = v as bigint
      })
      if (!any) return null
      const at = new Date(signed(seconds) * 1000).toISOString().slice(0, 19)
      return kind === 'Time' ? `${at}Z` : `${at}.${String(Math.floor(signed(nanos) / 1000)).padStart(6, '0')}Z`
    }
    case 'Quantity': {
      let text = '0'
      read(value as Buffer, (n, _w, v) => {
        if (n === 1) text = (v as Buffer).toString()
      })
      return text
    }
    case 'IntOrString': {
      let isText = false
      let number = 0
      let text = ''
      read(value as Buffer, (n, _w, v) => {
        if (n === 1) isText = v !== 0n
        else if (n === 2) number = signed(v as bigint)
        else if (n === 3) text = (v as Buffer).toString()
      })
      return isText ? text : number
    }
    case 'FieldsV1':
    case 'Raw': {
      let raw = ''
      read(value as Buffer, (n, _w, v) => {
        if (n === 1) raw = (v as Buffer).toString()
      })
      try {
        return raw === '' ? {} : JSON.parse(raw)
      } catch {
        throw badRequest('invalid JSON in a protobuf field')
      }
    }
    case 'ExtraValue': {
      const out: string[] = []
      read(value as Buffer, (n, _w, v) => {
        if (n === 1) out.push((v as Buffer).toString())
      })
      return out
    }
  }
}

const signed = (n: bigint): number => Number(BigInt.asIntN(64, n))

/** Calls `each` for every field of a message. */
function read(bytes: Buffer, each: (number: number, wire: number, value: number | bigint | Buffer) => void): void {
  let at = 0
  while (at < bytes.length) {
    const [tag, next] = varint(bytes, at)
    at = next
    const number = Number(tag >> 3n)
    const wire = Number(tag & 7n)
    switch (wire) {
      case 0: {
        const [v, end] = varint(bytes, at)
        at = end
        each(number, wire, v)
        break
      }
      case 1:
        need(bytes, at, 8)
        each(number, wire, bytes.readDoubleLE(at))
        at += 8
        break
      case 2: {
        const [n, start] = varint(bytes, at)
        const length = Number(n)
        need(bytes, start, length)
        at = start + length
        each(number, wire, bytes.subarray(start, at))
        break
      }
      case 5:
        need(bytes, at, 4)
        each(number, wire, BigInt(bytes.readUInt32LE(at)))
        at += 4
        break
      default:
        throw badRequest(`proto: illegal wireType ${wire}`)
    }
  }
}

function need(bytes: Buffer, at: number, n: number): void {
  if (at + n > bytes.length) throw badRequest('unexpected EOF')
}

function varint(bytes: Buffer, start: number): [bigint, number] {
  let n = 0n
  let shift = 0n
  for (let i = start; i < bytes.length && i < start + 10; i++) {
    const b = bytes[i]!
    n |= BigInt(b & 127) << shift
    if (b < 128) return [n, i + 1]
    shift += 7n
  }
  throw badRequest('unexpected EOF')
}
