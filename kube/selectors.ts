import type { KubeObject, LabelSelector } from './objects.ts'

/** One demand on a set of labels. `not in` and `!=` also hold when the label is missing. */
export type Requirement =
  | { readonly key: string; readonly operator: 'in' | 'notin'; readonly values: ReadonlySet<string> }
  | { readonly key: string; readonly operator: 'exists' | 'missing' }
  | { readonly key: string; readonly operator: 'gt' | 'lt'; readonly value: number }

/** A selector that cannot be read. The message says what and where. */
export class SelectorError extends Error {
  override readonly name = 'SelectorError'
}

export type Labels = Readonly<Record<string, string>>

/** Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`. Throws `SelectorError`. */
export function parseLabelSelector(text: string): readonly Requirement[] {
  const tokens = [...text.matchAll(/\s*(?:(==|=|!=|!|<|>|\(|\)|,)|([^\s=!<>(),]+))|\s*$/g)].filter((m) => m[0] !== '' && (m[1] ?? m[2]) !== undefined)
  if (tokens.reduce((n, m) => n + m[0].length, 0) < text.trimEnd().length) throw new SelectorError(`unable to parse requirement: "${text}"`)
  let at = 0
  const peek = (): string | undefined => tokens[at]?.[1] ?? tokens[at]?.[2]
  const word = (what: string): string => {
    const token = tokens[at]
    if (token?.[2] === undefined) throw new SelectorError(`unable to parse requirement: found '${token?.[1] ?? ''}', expected: ${what}`)
    at++
    return token[2]
  }
  const take = (symbol: string): void => {
    if (peek() !== symbol) throw new SelectorError(`unable to parse requirement: found '${peek() ?? ''}', expected: '${symbol}'`)
    at++
  }
  const found: Requirement[] = []
  while (at < tokens.length) {
    found.push(requirement())
    if (at >= tokens.length) break
    take(',')
    if (at >= tokens.length) throw new SelectorError("unable to parse requirement: found '', expected: identifier after ','")
  }
  return found

  function requirement(): Requirement {
    if (peek() === '!') {
      at++
      return { key: labelKey(word('identifier')), operator: 'missing' }
    }
    const key = labelKey(word('!, identifier, or end of string'))
    const operator = peek()
    switch (operator) {
      case undefined:
      case ',':
        return { key, operator: 'exists' }
      case '=':
      case '==':
      case '!=': {
        at++
        const value = tokens[at]?.[2] === undefined ? '' : word('value')
        return { key, operator: operator === '!=' ? 'notin' : 'in', values: new Set([labelValue(value)]) }
      }
      case '<':
      case '>': {
        at++
        const value = word('number')
        if (!/^-?\d+$/.test(value)) throw new SelectorError(`values[0][${key}]: Invalid value: "${value}": for 'Gt', 'Lt' operators, the value must be an integer`)
        return { key, operator: operator === '<' ? 'lt' : 'gt', value: Number(value) }
      }
      case 'in':
      case 'notin': {
        at++
        take('(')
        const values = new Set<string>()
        for (;;) {
          if (peek() === ')' || peek() === ',') values.add('')
          else values.add(labelValue(word('value')))
          if (peek() !== ',') break
          at++
        }
        take(')')
        return { key, operator, values }
      }
      default:
        throw new SelectorError(`unable to parse requirement: found '${operator}', expected: in, notin, =, ==, !=, gt, lt`)
    }
  }
}

const nameForm = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const prefixForm = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/

function labelKey(text: string): string {
  const slash = text.indexOf('/')
  if ((slash >= 0 && (slash > 253 || !prefixForm.test(text.slice(0, slash)))) || !nameForm.test(text.slice(slash + 1)))
    throw new SelectorError(`unable to parse requirement: key: Invalid value: "${text}": is no label key`)
  return text
}

function labelValue(text: string): string {
  if (text !== '' && !nameForm.test(text)) throw new SelectorError(`unable to parse requirement: values[0]: Invalid value: "${text}": is no label value`)
  return text
}

/** Whether `labels` meet every requirement. */
export function matchesLabels(requirements: readonly Requirement[], labels: Labels | undefined): boolean {
  return requirements.every((r) => {
    const value = labels !== undefined && Object.hasOwn(labels, r.key) ? labels[r.key] : undefined
    switch (r.operator) {
      case 'in':
        return value !== undefined && r.values.has(value)
      case 'notin':
        return value === undefined || !r.values.has(value)
      case 'exists':
        return value !== undefined
      case 'missing':
        return value === undefined
      case 'gt':
        return value !== undefined && /^-?\d+$/.test(value) && Number(value) > r.value
      case 'lt':
        return value !== undefined && /^-?\d+$/.test(value) && Number(value) < r.value
    }
  })
}

/** Whether `labels` hold everything of a plain map, as in a Service's selector. An empty map selects everything. */
export function selects(selector: Labels, labels: Labels | undefined): boolean {
  for (const key in selector) if (labels?.[key] !== selector[key]) return false
  return true
}

/** The requirements of a `LabelSelector` object, as in a Deployment. */
export function fromLabelSelector(selector: LabelSelector | undefined): readonly Requirement[] {
  return [
    ...Object.entries(selector?.matchLabels ?? {}).map(([key, value]): Requirement => ({ key, operator: 'in', values: new Set([value]) })),
    ...(selector?.matchExpressions ?? []).map(({ key, operator, values }): Requirement => {
      switch (operator) {
        case 'In':
          return { key, operator: 'in', values: new Set(values) }
        case 'NotIn':
          return { key, operator: 'notin', values: new Set(values) }
        case 'Exists':
          return { key, operator: 'exists' }
        case 'DoesNotExist':
          return { key, operator: 'missing' }
      }
    }),
  ]
}

/** One term of a field selector. */
export interface FieldTerm {
  readonly field: string
  readonly equal: boolean
  readonly value: string
}

/** Reads `metadata.name=web,spec.nodeName!=n1`; in values `\,`, `\=` and `\\` stand for themselves. Throws `SelectorError`. */
export function parseFieldSelector(text: string): readonly FieldTerm[] {
  if (text.trim() === '') return []
  return splitUnescaped(text).map((term) => {
    const m = /^\s*([^=!\s]+)\s*(==|!=|=)(.*)$/s.exec(term)
    if (m === null) throw new SelectorError(`invalid selector: '${text}'; can't understand '${term}'`)
    return { field: m[1]!, equal: m[2] !== '!=', value: unescape(m[3]!.trim(), text) }
  })
}

function splitUnescaped(text: string): readonly string[] {
  const terms: string[] = []
  let from = 0
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === ',') {
      terms.push(text.slice(from, i))
      from = i + 1
    }
  }
  terms.push(text.slice(from))
  return terms.filter((t) => t !== '')
}

function unescape(value: string, whole: string): string {
  return value.replace(/\\(.?)|[,=]/gs, (all, after: string | undefined) => {
    if (after === undefined || !['\\', ',', '='].includes(after)) throw new SelectorError(`invalid field selector: invalid escape sequence or unescaped "${all}" in "${whole}"`)
    return after
  })
}

/** Whether an object meets every term, with fields read by `read` (default: by path; missing counts as empty). */
export function matchesFields(terms: readonly FieldTerm[], object: KubeObject, read: (object: KubeObject, field: string) => string = fieldOf): boolean {
  return terms.every(({ field, equal, value }) => (read(object, field) === value) === equal)
}

/** The text of a field by its path; `status.podIPs` gives the first. */
export function fieldOf(object: KubeObject, field: string): string {
  let value: unknown = object
  for (const step of field.split('.')) {
    if (typeof value !== 'object' || value === null) return ''
    value = (value as Record<string, unknown>)[step]
  }
  return value === undefined || value === null || typeof value === 'object' ? '' : String(value)
}
