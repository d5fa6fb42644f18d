import type { Answer, Handler, Query } from '../../answer.ts'
import { printName } from '../../wire/name.ts'
import { Rcode, rcodeName, typeName } from '../../wire/types.ts'
import type { Environment, Plugin } from '../plugin.ts'

/** Logs questions that could not be answered; equal reasons once a while, with their number. */
export const errors: Plugin = {
  name: 'errors',
  build: (_lines, place) => {
    const handler = new Errors(place.env)
    place.closing(() => handler.close())
    return [handler]
  },
}

/** Milliseconds over which equal reasons are told once. */
const gather = 30_000

class Errors implements Handler {
  readonly name = 'errors'
  readonly manner = 'counts'
  readonly #env: Environment
  readonly #seen = new Map<string, { count: number; since: number }>()

  constructor(env: Environment) {
    this.#env = env
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const answer = await next()
    // Questions of our own, the loop detection's, are nobody's trouble.
    if (answer.rcode !== Rcode.SERVFAIL || answer.why === undefined || query.client.port === 0) return answer
    const now = this.#env.now()
    const seen = this.#seen.get(answer.why)
    if (seen !== undefined && now - seen.since < gather) {
      seen.count++
      return answer
    }
    if (this.#seen.size > 100) this.#seen.clear()
    this.#seen.set(answer.why, { count: 0, since: now })
    this.#env.log.warn('question not answered', {
      name: printName(query.question.name),
      type: typeName(query.type),
      rcode: rcodeName(answer.rcode),
      handler: answer.by,
      why: answer.why,
      ...(seen === undefined || seen.count === 0 ? {} : { equal: seen.count }),
    })
    return answer
  }

  close(): void {
    this.#seen.clear()
  }
}
