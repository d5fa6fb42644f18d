import { bare, type Answer, type Handler, type Query } from '../../answer.ts'
import { CorefileError, zonesOf, type Line } from '../../corefile.ts'
import type { Rec } from '../../wire/message.ts'
import { fold, printName, within, type Name } from '../../wire/name.ts'
import { parseRecord } from '../../wire/parse.ts'
import { className, Rcode, rcodeNumber, Type, typeName, typeNumber } from '../../wire/types.ts'
import { clientOf, clientWords } from '../client.ts'
import { fallthroughOf, unknown, type Place, type Plugin } from '../plugin.ts'
import { goRegex } from '../regex.ts'

/** Answers written down as patterns over the name that was asked for. */
export const template: Plugin = {
  name: 'template',
  build: (lines, place) => lines.map((line) => new TemplateHandler(ruleOf(line, place), place)),
}

type Fill = (query: Query, match: RegExpExecArray, zone: Name) => string

interface Rule {
  /** Undefined: any. */
  readonly type: number | undefined
  readonly zones: readonly Name[]
  readonly matches: readonly RegExp[]
  readonly answer: readonly Fill[]
  readonly authority: readonly Fill[]
  readonly additional: readonly Fill[]
  readonly rcode: number
  readonly fallthrough: readonly Name[]
}

function ruleOf(line: Line, place: Place): Rule {
  const [cls, type, ...zones] = line.args
  if (cls === undefined || type === undefined) throw new CorefileError(line, 'template: expected a class and a type')
  if (cls.toUpperCase() !== 'IN' && cls.toUpperCase() !== 'ANY') throw new CorefileError(line, `template: only class IN is answered, not ${cls}`)
  const number = typeNumber(type)
  if (number === undefined) throw new CorefileError(line, `template: ${type} is no type`)
  const matches: RegExp[] = []
  const fills = { answer: [] as Fill[], authority: [] as Fill[], additional: [] as Fill[] }
  let rcode: number = Rcode.NOERROR
  let fallthrough: readonly Name[] = []
  for (const option of line.block) {
    switch (option.name) {
      case 'match':
        if (option.args.length === 0) throw new CorefileError(option, 'match: expected a regular expression')
        matches.push(...option.args.map((a) => goRegex(a, option)))
        break
      case 'answer':
      case 'authority':
      case 'additional':
        if (option.args.length === 0) throw new CorefileError(option, `${option.name}: expected a record`)
        fills[option.name].push(...option.args.map((a) => fillOf(a, option, place)))
        break
      case 'rcode':
        rcode = rcodeNumber(option.args[0] ?? '') ?? bad(option, `rcode: ${option.args[0] ?? 'nothing'} is no rcode`)
        break
      case 'fallthrough':
        fallthrough = fallthroughOf(option)
        break
      // Of old versions; aliases are always followed.
      case 'upstream':
        break
      default:
        unknown(line, option)
    }
  }
  return {
    type: number === Type.ANY ? undefined : number,
    zones: zones.length === 0 ? place.zones : zones.flatMap((z) => zonesOf(z, line)),
    matches: matches.length === 0 ? [/^/] : matches,
    ...fills,
    rcode,
    fallthrough,
  }
}

function bad(line: Line, what: string): never {
  throw new CorefileError(line, what)
}

/** Text with `{{ … }}` in it, made ready. What may stand there: see the README. */
function fillOf(text: string, line: Line, place: Place): Fill {
  const parts: (string | Fill)[] = []
  let at = 0
  for (const m of text.matchAll(/\{\{-?\s*(.*?)\s*-?\}\}/g)) {
    parts.push(text.slice(at, m.index), expression(m[1]!, line, place))
    at = m.index + m[0].length
  }
  parts.push(text.slice(at))
  return (query, match, zone) => parts.map((p) => (typeof p === 'string' ? p : p(query, match, zone))).join('')
}

function expression(text: string, line: Line, place: Place): Fill {
  switch (text) {
    case '.Name':
    case '.Question.Name':
      return (query) => printName(query.name)
    case '.Type':
      return (query) => typeName(query.type)
    case '.Class':
      return (query) => className(query.question.class)
    case '.Zone':
      return (_query, _match, zone) => printName(zone)
    case '.Remote':
      return (query) => query.client.host
  }
  const index = /^index \.Match (\d+)$/.exec(text)
  if (index !== null) return (_query, match) => match[Number(index[1])] ?? ''
  const group = /^(?:\.Group\.(\w+)|index \.Group "(\w+)")$/.exec(text)
  if (group !== null) return (_query, match) => match.groups?.[group[1] ?? group[2]!] ?? ''
  const number = /^parseInt (.+) (\d+) (\d+)$/.exec(text)
  if (number !== null) {
    const inner = expression(number[1]!.replace(/^\((.*)\)$/, '$1'), line, place)
    return (query, match, zone) => String(Number.parseInt(inner(query, match, zone), Number(number[2])))
  }
  const meta = /^\.Meta "([^"]+)"$/.exec(text)
  if (meta !== null) {
    const word = clientWords(meta[1]!) ?? bad(line, `${line.name}: there is no metadata ${meta[1]!}`)
    place.env.want('pod')
    return (query) => clientOf(place.env.cluster, query.client.host, word)
  }
  return bad(line, `${line.name}: {{ ${text} }} is not supported`)
}

export class TemplateHandler implements Handler {
  readonly name = 'template'
  readonly manner = 'asks'
  readonly #rule: Rule
  readonly #log: Place['env']['log']

  constructor(rule: Rule, place: Place) {
    this.#rule = rule
    this.#log = place.env.log
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const { type, zones, matches, fallthrough, rcode } = this.#rule
    // The longest zone that holds the name.
    const zone = zones.filter((z) => within(query.name, z)).toSorted((a, b) => b.length - a.length)[0]
    if (zone === undefined || (type !== undefined && type !== query.type)) return next()
    const text = printName(query.name)
    let match: RegExpExecArray | null = null
    for (const m of matches) if ((match = m.exec(text)) !== null) break
    if (match === null) return fallthrough.some((z) => within(query.name, z)) ? next() : bare(Rcode.NXDOMAIN, this.name, 'no pattern fits the name', [], true)
    if (rcode === Rcode.SERVFAIL) return bare(rcode, this.name, 'the template says so')
    try {
      const records = (fills: readonly Fill[]): Rec[] => fills.map((f) => parseRecord(f(query, match, zone)))
      const answers = records(this.#rule.answer)
      const last = answers.at(-1)
      if (last?.type === Type.CNAME && query.type !== Type.CNAME && query.chain.length < 10) {
        const led = await query.lookup(fold(last.data as Name), query.type, [...query.chain, query.name])
        answers.push(...led.answers)
      }
      return { rcode, authoritative: true, answers, authority: records(this.#rule.authority), additional: records(this.#rule.additional), by: this.name, why: 'a pattern fits the name' }
    } catch (error) {
      this.#log.debug('a template made no record', { name: text, error })
      return bare(Rcode.SERVFAIL, this.name, `the template makes no record: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
}
