import { bracketed } from '../../../lib/ip.ts'
import type { Answer, Handler, Query } from '../../answer.ts'
import { CorefileError, type Line, zonesOf } from '../../corefile.ts'
import { printName, within, type Name } from '../../wire/name.ts'
import { Rcode, rcodeName, typeName } from '../../wire/types.ts'
import { unknown, type Environment, type Plugin } from '../plugin.ts'

/** A line for every question; of the classes success, denial and error. */
export const log: Plugin = {
  name: 'log',
  build: (lines, place) => lines.map((line) => new LogHandler(zonesIn(line, place.zones), classesIn(line), place.env)),
}

const classes = ['success', 'denial', 'error', 'all']

function zonesIn(line: Line, zones: readonly Name[]): readonly Name[] {
  // Behind the zones may stand a format; what is logged here are fields.
  const names = line.args.filter((a) => !a.includes('{'))
  return names.length === 0 ? zones : names.flatMap((a) => zonesOf(a, line))
}

function classesIn(line: Line): ReadonlySet<string> {
  const out = new Set<string>()
  for (const option of line.block) {
    if (option.name !== 'class') unknown(line, option)
    for (const c of option.args) {
      if (!classes.includes(c)) throw new CorefileError(option, `log: expected ${classes.join(', ')}, got ${c}`)
      out.add(c)
    }
  }
  return out.size === 0 ? new Set(['all']) : out
}

/** Every question is seen, so none has a compiled answer: a log of all questions costs more than answering them. */
class LogHandler implements Handler {
  readonly name = 'log'
  readonly manner = 'asks'
  readonly #zones: readonly Name[]
  readonly #classes: ReadonlySet<string>
  readonly #env: Environment

  constructor(zones: readonly Name[], wanted: ReadonlySet<string>, env: Environment) {
    this.#zones = zones
    this.#classes = wanted
    this.#env = env
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const began = this.#env.now()
    const answer = await next()
    const kind = answer.rcode === Rcode.NXDOMAIN || (answer.rcode === Rcode.NOERROR && answer.answers.length === 0) ? 'denial' : answer.rcode === Rcode.NOERROR ? 'success' : 'error'
    if (this.#zones.some((zone) => within(query.name, zone)) && (this.#classes.has('all') || this.#classes.has(kind))) {
      this.#env.log.info('question', {
        client: `${bracketed(query.client.host)}:${query.client.port}`,
        protocol: query.protocol,
        name: printName(query.question.name),
        type: typeName(query.type),
        rcode: rcodeName(answer.rcode),
        answers: answer.answers.length,
        handler: answer.by,
        ms: Math.round((this.#env.now() - began) * 1000) / 1000,
      })
    }
    return answer
  }
}
