import type { Answer, Handler, Query } from '../../answer.ts'
import { CorefileError, type Line } from '../../corefile.ts'
import { fold, nameEnd, parseName, printName, within, type Name } from '../../wire/name.ts'
import type { Rec } from '../../wire/message.ts'
import { Type, typeNumber } from '../../wire/types.ts'
import type { Plugin } from '../plugin.ts'

/** Asks for another name or type than the client did, and answers under the client's. */
export const rewrite: Plugin = {
  name: 'rewrite',
  build: (lines) => [new RewriteHandler(lines.map(ruleOf))],
}

interface Rule {
  readonly stop: boolean
  /** The name that is touched, if it is one. */
  readonly exact: Name | undefined
  name?(name: Name): Name | undefined
  type?(type: number): number | undefined
  /** Changes names of the answer back. */
  readonly back: readonly ((name: Name) => Name)[]
}

function ruleOf(line: Line): Rule {
  let words = [...line.args]
  // A rule may stand in braces over several lines.
  for (const inner of line.block) words.push(inner.name, ...inner.args)
  let stop = true
  if (words[0] === 'continue' || words[0] === 'stop') {
    stop = words[0] === 'stop'
    words = words.slice(1)
  }
  const [field, ...rest] = words
  if (field === 'type') {
    const [from, to] = rest.map((w) => typeNumber(w))
    if (from === undefined || to === undefined) throw new CorefileError(line, 'rewrite type: expected two types')
    return { stop, exact: undefined, type: (type) => (type === from ? to : undefined), back: [] }
  }
  if (field !== 'name') throw new CorefileError(line, `rewrite: only name and type are supported, not ${field ?? 'nothing'}`)
  const kinds = ['exact', 'prefix', 'suffix', 'substring', 'regex']
  const kind = kinds.includes(rest[0] ?? '') ? rest.shift()! : 'exact'
  const [from, to, ...options] = rest
  if (from === undefined || to === undefined) throw new CorefileError(line, `rewrite name ${kind}: expected what to look for and what to put there`)
  const back: ((name: Name) => Name)[] = []
  let auto = false
  for (let i = 0; i < options.length;) {
    if (options[i] === 'answer' && options[i + 1] === 'auto') {
      auto = true
      i += 2
    } else if (options[i] === 'answer' && (options[i + 1] === 'name' || options[i + 1] === 'value') && options[i + 3] !== undefined) {
      const pattern = regex(options[i + 2]!, line)
      const replacement = options[i + 3]!
      back.push((name) => replaced(name, pattern, replacement) ?? name)
      i += 4
    } else throw new CorefileError(line, `rewrite: ${options[i]!} is not supported`)
  }
  switch (kind) {
    case 'exact': {
      const a = nameIn(from, line)
      const b = nameIn(to, line)
      return { stop, exact: a, name: (name) => (name === a ? b : undefined), back }
    }
    case 'suffix': {
      const a = from.replace(/^\./, '')
      const dotted = from.startsWith('.')
      const zone = nameIn(a, line)
      const other = nameIn(to.replace(/^\./, ''), line)
      if (auto) back.push((name) => (within(name, other) ? ((name.slice(0, name.length - other.length) + zone) as Name) : name))
      return { stop, exact: undefined, name: (name) => (within(name, zone) && (!dotted || name !== zone) ? fitting(name.slice(0, name.length - zone.length) + other) : undefined), back }
    }
    case 'prefix': {
      if (auto) back.push((name) => named(printName(name).startsWith(to) ? from + printName(name).slice(to.length) : '') ?? name)
      return { stop, exact: undefined, name: (name) => (printName(name).startsWith(from) ? named(to + printName(name).slice(from.length)) : undefined), back }
    }
    case 'substring':
      return { stop, exact: undefined, name: (name) => (printName(name).includes(from) ? named(printName(name).replace(from, () => to)) : undefined), back }
    default: {
      const pattern = regex(from, line)
      return { stop, exact: undefined, name: (name) => replaced(name, pattern, to), back }
    }
  }
}

/** Go's syntax, where it is also ours; matched against the text of the name with its last dot. */
function regex(text: string, line: Line): RegExp {
  try {
    return new RegExp(text.replaceAll('(?P<', '(?<').replace(/^\(\?i\)/, ''), text.startsWith('(?i)') ? 'i' : '')
  } catch (error) {
    throw new CorefileError(line, `rewrite: ${text} is no regular expression: ${error instanceof Error ? error.message : ''}`)
  }
}

function replaced(name: Name, pattern: RegExp, to: string): Name | undefined {
  const m = pattern.exec(printName(name))
  return m === null ? undefined : named(to.replace(/\{(\d)\}/g, (_, n: string) => m[Number(n)] ?? ''))
}

const named = (text: string): Name | undefined => {
  const name = text === '' ? undefined : parseName(text)
  return name === undefined ? undefined : fold(name)
}
const fitting = (octets: string): Name | undefined => (octets.length > 255 ? undefined : (octets as Name))

function nameIn(text: string, line: Line): Name {
  return named(text) ?? fail(line, text)
}

function fail(line: Line, text: string): never {
  throw new CorefileError(line, `rewrite: ${text} is no name`)
}

export class RewriteHandler implements Handler {
  readonly name = 'rewrite'
  readonly #rules: readonly Rule[]

  constructor(rules: readonly Rule[]) {
    this.#rules = rules
  }

  /** Exact names are known beforehand. */
  get manner(): 'folds' | 'asks' {
    return this.#rules.every((r) => r.exact !== undefined) ? 'folds' : 'asks'
  }

  touches(): readonly Name[] {
    return this.#rules.flatMap((r) => (r.exact === undefined ? [] : [r.exact]))
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    let { name, type } = query
    const used: Rule[] = []
    for (const rule of this.#rules) {
      const otherName = rule.name?.(name)
      const otherType = rule.type?.(type)
      if (otherName === undefined && otherType === undefined) continue
      name = otherName ?? name
      type = otherType ?? type
      used.push(rule)
      if (rule.stop) break
    }
    if (used.length === 0) return next()
    const answer = await next({ ...query, name, type })
    if (name === query.name) return answer
    const back = used.toReversed().flatMap((r) => r.back)
    const own = (r: Rec): Rec => (fold(r.name) === name ? { ...r, name: query.name } : { ...r, name: back.reduce((n, f) => f(n), r.name) })
    const inside = (r: Rec): Rec => {
      if (back.length === 0) return r
      const at = r.type === Type.SRV ? 6 : r.type === Type.CNAME || r.type === Type.PTR ? 0 : r.type === Type.MX ? 2 : -1
      if (at < 0 || nameEnd(r.data, at) !== r.data.length) return r
      return { ...r, data: r.data.slice(0, at) + back.reduce((n, f) => f(n), r.data.slice(at) as Name) }
    }
    return { ...answer, answers: answer.answers.map((r) => inside(own(r))), why: `asked as ${printName(name)}: ${answer.why ?? ''}` }
  }
}
