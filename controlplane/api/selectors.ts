import type { Json } from '../kinds/decode.ts'
import type { Kind } from '../kinds/kind.ts'
import { badRequest } from './status.ts'

/** Whether an object is chosen. */
export type Chooses = (object: Json) => boolean

interface Requirement {
  readonly key: string
  readonly op: '=' | '!=' | 'in' | 'notin' | 'exists' | '!' | 'gt' | 'lt'
  readonly values: readonly string[]
}

const everything: Chooses = () => true

/** A label selector in its text form; undefined if it chooses everything. Throws 400 with Kubernetes' words. */
export function labelSelector(text: string | undefined): Chooses | undefined {
  if (text === undefined || text.trim() === '') return undefined
  const requirements = parse(text)
  return requirements.length === 0
    ? everything
    : (o) => {
        const labels = (o['metadata'].labels ?? {}) as Record<string, string>
        return requirements.every((r) => holds(r, labels))
      }
}

function holds(r: Requirement, labels: Readonly<Record<string, string>>): boolean {
  const value = Object.hasOwn(labels, r.key) ? labels[r.key] : undefined
  switch (r.op) {
    case '=':
    case 'in':
      return value !== undefined && r.values.includes(value)
    case '!=':
    case 'notin':
      return value === undefined || !r.values.includes(value)
    case 'exists':
      return value !== undefined
    case '!':
      return value === undefined
    case 'gt':
      return value !== undefined && Number(value) > Number(r.values[0])
    case 'lt':
      return value !== undefined && Number(value) < Number(r.values[0])
  }
}

interface Token {
  readonly kind: 'word' | ',' | '(' | ')' | '=' | '==' | '!=' | '!' | '>' | '<' | 'end'
  readonly text: string
}

function tokens(text: string): Token[] {
  const out: Token[] = []
  let i = 0
  while (i < text.length) {
    const c = text[i]!
    if (/\s/.test(c)) {
      i++
      continue
    }
    const two = text.slice(i, i + 2)
    if (two === '==' || two === '!=') {
      out.push({ kind: two, text: two })
      i += 2
      continue
    }
    if (',()=!><'.includes(c)) {
      out.push({ kind: c as Token['kind'], text: c })
      i++
      continue
    }
    const start = i
    while (i < text.length && !/[\s,()=!><]/.test(text[i]!)) i++
    out.push({ kind: 'word', text: text.slice(start, i) })
  }
  out.push({ kind: 'end', text: '' })
  return out
}

function parse(text: string): Requirement[] {
  const list = tokens(text)
  let at = 0
  const peek = (): Token => list[at]!
  const next = (): Token => list[at++]!
  const fail = (why: string): never => {
    throw badRequest(`unable to parse requirement: ${why}`)
  }
  const out: Requirement[] = []
  if (peek().kind === 'end') return out
  for (;;) {
    let not = false
    if (peek().kind === '!') {
      next()
      not = true
    }
    const key = next()
    if (key.kind !== 'word') {
      if (key.kind === 'end' || key.kind === ',') fail(`found '${key.text}', expected: !, identifier, or 'end of string'`)
      fail(`found '${key.text}', expected: identifier`)
    }
    checkKey(key.text)
    if (not) out.push({ key: key.text, op: '!', values: [] })
    else {
      const op = peek()
      if (op.kind === 'end' || op.kind === ',') out.push({ key: key.text, op: 'exists', values: [] })
      else {
        next()
        if (op.kind === '=' || op.kind === '==' || op.kind === '!=') {
          const value = peek().kind === 'word' ? next().text : ''
          if (value === '' && peek().kind !== 'end' && peek().kind !== ',') fail(`found '${peek().text}', expected: identifier`)
          checkValue(key.text, value)
          out.push({ key: key.text, op: op.kind === '!=' ? '!=' : '=', values: [value] })
        } else if (op.kind === '>' || op.kind === '<') {
          const value = next().text
          if (!/^-?\d+$/.test(value)) fail(`values[0][${key.text}]: Invalid value: ${JSON.stringify(value)}: for 'Gt', 'Lt' operators, the value must be an integer`)
          out.push({ key: key.text, op: op.kind === '>' ? 'gt' : 'lt', values: [value] })
        } else if (op.kind === 'word' && (op.text === 'in' || op.text === 'notin')) {
          const open = next()
          if (open.kind !== '(') fail(`found '${open.text}' expected: '('`)
          const values: string[] = []
          if (peek().kind === ')') values.push('')
          for (;;) {
            if (peek().kind === ')') {
              next()
              break
            }
            const v = next()
            if (v.kind === ',') {
              if (peek().kind === ',' || peek().kind === ')') values.push('')
              continue
            }
            if (v.kind !== 'word') fail(`found '${v.text}', expected: ',', ')' or identifier`)
            values.push(v.text)
            if (peek().kind !== ',' && peek().kind !== ')') fail(`found '${peek().text}', expected: ',' or ')'`)
            if (peek().kind === ',') next()
          }
          for (const v of values) checkValue(key.text, v)
          out.push({ key: key.text, op: op.text, values })
        } else fail(`found '${op.text}', expected: in, notin, =, ==, !=, gt, lt`)
      }
    }
    const end = next()
    if (end.kind === 'end') return out
    if (end.kind !== ',') fail(`found '${end.text}', expected: ',' or 'end of string'`)
    if (peek().kind === 'end') fail(`found '', expected: identifier after ','`)
  }
}

const nameTail = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/

function checkKey(key: string): void {
  const slash = key.lastIndexOf('/')
  const name = slash < 0 ? key : key.slice(slash + 1)
  if (!nameTail.test(name) || name.length > 63)
    throw badRequest(
      `unable to parse requirement: <nil>: Invalid value: ${JSON.stringify(key)}: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
    )
}

function checkValue(key: string, value: string): void {
  if (value !== '' && (!nameTail.test(value) || value.length > 63))
    throw badRequest(
      `unable to parse requirement: values[0][${key}]: Invalid value: ${JSON.stringify(value)}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
    )
}

/** A field selector of `k` in its text form; undefined if it chooses everything. `name` is set when it fixes `metadata.name`. */
export function fieldSelector(k: Kind, text: string | undefined): { readonly chooses: Chooses; readonly name: string | undefined; readonly namespace: string | undefined } | undefined {
  if (text === undefined || text === '') return undefined
  const terms: { readonly get: (o: Json) => string; readonly equal: boolean; readonly value: string }[] = []
  let name: string | undefined
  let namespace: string | undefined
  for (const part of text.split(/(?<!\\),/)) {
    if (part === '') continue
    const m = /^(.*?)(==|!=|=)(.*)$/s.exec(part)
    if (m === null) throw badRequest(`invalid selector: '${text}'; can't understand '${part}'`)
    const field = m[1]!
    const value = m[3]!.replace(/\\([\\,=])/g, '$1')
    const equal = m[2] !== '!='
    let get = Object.hasOwn(k.selectable, field) ? k.selectable[field] : undefined
    if (field === 'metadata.name') get = (o) => o['metadata'].name
    else if (field === 'metadata.namespace') get = (o) => o['metadata'].namespace ?? ''
    if (get === undefined)
      throw badRequest(
        k.selectorErrors === 'not supported' ? `field label not supported: ${field}` : `${JSON.stringify(field)} is not a known field selector: only "metadata.name", "metadata.namespace"`,
      )
    if (field === 'metadata.name' && equal) name = value
    if (field === 'metadata.namespace' && equal) namespace = value
    terms.push({ get, equal, value })
  }
  if (terms.length === 0) return undefined
  return { chooses: (o) => terms.every((t) => (t.get(o) === t.value) === t.equal), name, namespace }
}
