import type { Answer, Handler, Query } from '../../answer.ts'
import { CorefileError, type Line } from '../../corefile.ts'
import { addressData, u16 } from '../../wire/data.ts'
import { fold, nameEnd, parseName, printName, within, type Name, type Octets } from '../../wire/name.ts'
import type { EdnsOption, Rec } from '../../wire/message.ts'
import { Class, Type, typeNumber } from '../../wire/types.ts'
import type { Plugin } from '../plugin.ts'
import { goRegex } from '../regex.ts'

/** Asks for another name or type than the client did, and answers under the client's. */
export const rewrite: Plugin = {
  name: 'rewrite',
  build: (lines) => [new RewriteHandler(lines.map(ruleOf))],
}

/** What a rule makes of a question. */
interface Change {
  readonly name?: Name
  readonly type?: number
  readonly class?: number
  readonly options?: readonly EdnsOption[]
  /** TTL of the records of the answer. */
  readonly ttl?: readonly [least: number, most: number]
}

interface Rule {
  readonly stop: boolean
  /** The names that are touched, if they are known beforehand. */
  readonly touches: readonly Name[] | undefined
  /** Makes another class ours. */
  readonly foreign: boolean
  apply(query: Query): Change | undefined
  /** Changes names of the answer back. */
  readonly back: readonly ((name: Name) => Name)[]
}

const kinds = ['exact', 'prefix', 'suffix', 'substring', 'regex']

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
  const base = { stop, touches: undefined, foreign: false, back: [] }
  switch (field) {
    case 'type': {
      const [from, to] = rest.map((w) => typeNumber(w))
      if (from === undefined || to === undefined) throw new CorefileError(line, 'rewrite type: expected two types')
      return { ...base, apply: (q) => (q.type === from ? { type: to } : undefined) }
    }
    case 'class': {
      const [from, to] = rest.map((w) => classNumber(w))
      if (from === undefined || to === undefined) throw new CorefileError(line, 'rewrite class: expected two classes')
      return { ...base, foreign: from !== Class.IN, apply: (q) => (q.question.class === from ? { class: to } : undefined) }
    }
    case 'ttl': {
      const kind = kinds.includes(rest[0] ?? '') ? rest.shift()! : 'exact'
      const [from, seconds] = rest
      if (from === undefined || seconds === undefined) throw new CorefileError(line, 'rewrite ttl: expected a name and seconds')
      const ttl = secondsOf(seconds, line)
      const fits = matcher(kind, from, line)
      return { ...base, touches: kind === 'exact' ? [nameIn(from, line)] : undefined, apply: (q) => (fits(q.name) ? { ttl } : undefined) }
    }
    case 'edns0':
      return { ...base, apply: ednsOf(rest, line) }
    case 'name':
      return { ...base, ...nameRule(rest, line) }
    default:
      throw new CorefileError(line, `rewrite: only name, type, class, ttl and edns0 are supported, not ${field ?? 'nothing'}`)
  }
}

function classNumber(text: string): number | undefined {
  const upper = text.toUpperCase()
  return upper === 'IN' ? Class.IN : upper === 'CH' ? Class.CH : upper === 'HS' ? Class.HS : undefined
}

/** `30`, `30-300`, `-300`, `30-`: the least and the most. */
function secondsOf(text: string, line: Line): readonly [number, number] {
  const m = /^(?:(\d+)|(\d*)-(\d*))$/.exec(text)
  const [least, most] = m === null ? [NaN, NaN] : m[1] !== undefined ? [Number(m[1]), Number(m[1])] : [m[2] === '' ? 0 : Number(m[2]), m[3] === '' ? 2 ** 31 - 1 : Number(m[3])]
  if (!(least <= most && most < 2 ** 31)) throw new CorefileError(line, `rewrite ttl: expected seconds, or the least and the most as 30-300, got "${text}"`)
  return [least, most]
}

function matcher(kind: string, from: string, line: Line): (name: Name) => boolean {
  switch (kind) {
    case 'exact': {
      const exact = nameIn(from, line)
      return (name) => name === exact
    }
    case 'prefix':
      return (name) => printName(name).startsWith(from)
    case 'suffix': {
      const end = from.endsWith('.') ? from : `${from}.`
      return (name) => printName(name).endsWith(end)
    }
    case 'substring':
      return (name) => printName(name).includes(from)
    default: {
      const pattern = goRegex(from, line)
      return (name) => pattern.test(printName(name))
    }
  }
}

const option = { nsid: 3, subnet: 8 } as const

/** `edns0 local|nsid|subnet set|append|replace …`: what upstream servers are sent. */
function ednsOf(words: readonly string[], line: Line): (query: Query) => Change | undefined {
  const [what, action, ...rest] = words
  if (action !== 'set' && action !== 'append' && action !== 'replace') throw new CorefileError(line, `rewrite edns0 ${what ?? ''}: expected set, append or replace`)
  let made: (query: Query) => EdnsOption | undefined
  if (what === 'nsid') made = () => ({ code: option.nsid, data: '' })
  else if (what === 'subnet') {
    const [four, six] = rest.map(Number)
    if (!(four! >= 0 && four! <= 32 && six! >= 0 && six! <= 128)) throw new CorefileError(line, 'rewrite edns0 subnet: expected the bits of IPv4 and of IPv6')
    made = (query) => subnetOption(query.client.host, four!, six!)
  } else if (what === 'local') {
    const [code, data] = rest
    const number = Number(code)
    if (data === undefined || !Number.isInteger(number) || number < 0 || number > 65_535) throw new CorefileError(line, 'rewrite edns0 local: expected a code such as 0xffee, and data')
    if (/^\{.*\}$/.test(data)) {
      const known: Readonly<Record<string, (q: Query) => Octets>> = {
        '{qname}': (q) => printName(q.name),
        '{qtype}': (q) => u16(q.type),
        '{client_ip}': (q) => addressData(q.client.host) ?? '',
        '{client_port}': (q) => u16(q.client.port),
        '{protocol}': (q) => (q.protocol === 'udp' ? 'udp' : 'tcp'),
        '{server_ip}': (q) => addressData(q.local.host) ?? '',
        '{server_port}': (q) => u16(q.local.port),
      }
      const value = known[data]
      if (value === undefined) throw new CorefileError(line, `rewrite edns0 local: ${data} is not known`)
      made = (query) => ({ code: number, data: value(query) })
    } else {
      const fixed = /^0x(?:[0-9a-f]{2})*$/i.test(data) ? Buffer.from(data.slice(2), 'hex').toString('latin1') : Buffer.from(data).toString('latin1')
      made = () => ({ code: number, data: fixed })
    }
  } else throw new CorefileError(line, `rewrite edns0: only local, nsid and subnet are supported, not ${what ?? 'nothing'}`)
  return (query) => {
    const one = made(query)
    if (one === undefined) return undefined
    const all = query.options ?? []
    const has = all.some((o) => o.code === one.code)
    if (action === 'replace' && !has) return undefined
    return { options: action === 'append' ? [...all, one] : [...all.filter((o) => o.code !== one.code), one] }
  }
}

/** RFC 7871 6: family, bits, and as many octets of the address as hold them. */
function subnetOption(host: string, four: number, six: number): EdnsOption | undefined {
  const data = addressData(host)
  if (data === undefined) return undefined
  const bits = data.length === 4 ? four : six
  const octets = Array.from(data.slice(0, Math.ceil(bits / 8)), (c) => c.charCodeAt(0))
  if (bits % 8 !== 0) octets[octets.length - 1]! &= 0xff << (8 - (bits % 8))
  return { code: option.subnet, data: u16(data.length === 4 ? 1 : 2) + String.fromCharCode(bits, 0, ...octets) }
}

function nameRule(words: string[], line: Line): Pick<Rule, 'touches' | 'apply' | 'back'> {
  const kind = kinds.includes(words[0] ?? '') ? words.shift()! : 'exact'
  const [from, to, ...options] = words
  if (from === undefined || to === undefined) throw new CorefileError(line, `rewrite name ${kind}: expected what to look for and what to put there`)
  const back: ((name: Name) => Name)[] = []
  let auto = false
  for (let i = 0; i < options.length;) {
    if (options[i] === 'answer' && options[i + 1] === 'auto') {
      auto = true
      i += 2
    } else if (options[i] === 'answer' && (options[i + 1] === 'name' || options[i + 1] === 'value') && options[i + 3] !== undefined) {
      const pattern = goRegex(options[i + 2]!, line)
      const replacement = options[i + 3]!
      back.push((name) => replaced(name, pattern, replacement) ?? name)
      i += 4
    } else throw new CorefileError(line, `rewrite: ${options[i]!} is not supported`)
  }
  const rule = (change: (name: Name) => Name | undefined, touches?: readonly Name[]): Pick<Rule, 'touches' | 'apply' | 'back'> => ({
    touches,
    back,
    apply: ({ name }) => {
      const other = change(name)
      return other === undefined ? undefined : { name: other }
    },
  })
  switch (kind) {
    case 'exact': {
      const a = nameIn(from, line)
      const b = nameIn(to, line)
      return rule((name) => (name === a ? b : undefined), [a])
    }
    case 'suffix': {
      const dotted = from.startsWith('.')
      const zone = nameIn(from.replace(/^\./, ''), line)
      const other = nameIn(to.replace(/^\./, ''), line)
      if (auto) back.push((name) => (within(name, other) ? ((name.slice(0, name.length - other.length) + zone) as Name) : name))
      return rule((name) => (within(name, zone) && (!dotted || name !== zone) ? fitting(name.slice(0, name.length - zone.length) + other) : undefined))
    }
    case 'prefix':
      if (auto) back.push((name) => named(printName(name).startsWith(to) ? from + printName(name).slice(to.length) : '') ?? name)
      return rule((name) => (printName(name).startsWith(from) ? named(to + printName(name).slice(from.length)) : undefined))
    case 'substring':
      return rule((name) => (printName(name).includes(from) ? named(printName(name).replace(from, () => to)) : undefined))
    default: {
      const pattern = goRegex(from, line)
      return rule((name) => replaced(name, pattern, to))
    }
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
    return this.#rules.every((r) => r.touches !== undefined || r.foreign) ? 'folds' : 'asks'
  }

  get foreign(): boolean {
    return this.#rules.some((r) => r.foreign)
  }

  touches(): readonly Name[] {
    return this.#rules.flatMap((r) => r.touches ?? [])
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    let asked = query
    let ttl: Change['ttl']
    const used: Rule[] = []
    for (const rule of this.#rules) {
      const change = rule.apply(asked)
      if (change === undefined) continue
      ttl = change.ttl ?? ttl
      asked = {
        ...asked,
        name: change.name ?? asked.name,
        type: change.type ?? asked.type,
        question: change.class === undefined ? asked.question : { ...asked.question, class: change.class },
        ...(change.options === undefined ? {} : { options: change.options }),
      }
      used.push(rule)
      if (rule.stop) break
    }
    if (used.length === 0) return next()
    const answer = await next(asked)
    const { name } = asked
    const back = used.toReversed().flatMap((r) => r.back)
    const changed = (r: Rec): Rec => {
      const owner = name === query.name ? r.name : fold(r.name) === name ? query.name : back.reduce((n, f) => f(n), r.name)
      return {
        ...r,
        name: owner,
        class: r.class === asked.question.class ? query.question.class : r.class,
        ttl: ttl === undefined ? r.ttl : Math.min(ttl[1], Math.max(ttl[0], r.ttl)),
        data: back.length === 0 || name === query.name ? r.data : inside(r, back),
      }
    }
    return { ...answer, answers: answer.answers.map(changed), why: name === query.name ? (answer.why ?? '') : `asked as ${printName(name)}: ${answer.why ?? ''}` }
  }
}

/** The name in a record's data changed back. */
function inside(r: Rec, back: readonly ((name: Name) => Name)[]): Octets {
  const at = r.type === Type.SRV ? 6 : r.type === Type.CNAME || r.type === Type.PTR ? 0 : r.type === Type.MX ? 2 : -1
  if (at < 0 || nameEnd(r.data, at) !== r.data.length) return r.data
  return r.data.slice(0, at) + back.reduce((n, f) => f(n), r.data.slice(at) as Name)
}
