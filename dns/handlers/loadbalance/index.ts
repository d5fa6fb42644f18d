import type { Answer, Handler, Query } from '../../answer.ts'
import { CorefileError } from '../../corefile.ts'
import type { Rec } from '../../wire/message.ts'
import { Type } from '../../wire/types.ts'
import type { Plugin } from '../plugin.ts'

/** Addresses in an order that turns from answer to answer. */
export const loadbalance: Plugin = {
  name: 'loadbalance',
  build: (lines, place) => {
    const line = lines[0]!
    const [policy] = line.args
    if (policy !== undefined && policy !== 'round_robin') throw new CorefileError(line, `loadbalance: only round_robin is supported, not ${policy}`)
    return [new LoadBalance(place.env.random)]
  },
}

/** Rotates the addresses of an answer; aliases stay before what they lead to, as some resolvers need it. */
export class LoadBalance implements Handler {
  readonly name = 'loadbalance'
  readonly manner = 'folds'
  readonly #random: () => number

  constructor(random: () => number) {
    this.#random = random
  }

  async answer(_query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const answer = await next()
    if (answer.answers.length < 2) return answer
    return { ...answer, answers: rotate(answer.answers, this.#random) }
  }
}

/** `records` with each run of addresses of one name turned to a random start. */
export function rotate(records: readonly Rec[], random: () => number): readonly Rec[] {
  const out: Rec[] = []
  for (let i = 0; i < records.length;) {
    const { type, name } = records[i]!
    let j = i + 1
    if (type === Type.A || type === Type.AAAA || type === Type.MX) while (j < records.length && records[j]!.type === type && records[j]!.name === name) j++
    const run = records.slice(i, j)
    if (run.length > 1) run.push(...run.splice(0, Math.floor(random() * run.length)))
    out.push(...run)
    i = j
  }
  return out
}
