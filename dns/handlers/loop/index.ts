import { randomInt } from 'node:crypto'
import { bare, type Answer, type Handler, type Query } from '../../answer.ts'
import { below, nameOf, printName, type Name } from '../../wire/name.ts'
import { Rcode, Type } from '../../wire/types.ts'
import type { Environment, Place, Plugin } from '../plugin.ts'

/** Finds out whether the upstream servers ask us what we ask them, says so, and answers SERVFAIL instead of going round. */
export const loop: Plugin = {
  name: 'loop',
  build: (_lines, place) => [new LoopHandler(place)],
}

export class LoopHandler implements Handler {
  readonly name = 'loop'
  readonly manner = 'folds'
  /** A name nobody else asks for. */
  readonly probe: Name
  readonly #place: Place
  readonly #env: Environment
  #seen = 0

  constructor(place: Place) {
    this.#place = place
    this.#env = place.env
    const zone = place.zones[0]!
    this.probe = below(String(randomInt(2 ** 47)), below(String(randomInt(2 ** 47)), zone) ?? nameOf('.')) ?? zone
  }

  /** The question that is sent round. Called now and then by whoever owns the server, with `ask` putting it to the server. */
  async look(ask: (name: Name, type: number) => Promise<unknown>): Promise<void> {
    if (!(this.#place.options.forwarders ?? []).some((f) => f.upstreams.length > 0)) return
    const was = this.#place.options.forwarders?.some((f) => f.looping !== undefined) === true
    this.#seen = 0
    for (const f of this.#place.options.forwarders ?? []) f.looping = undefined
    await ask(this.probe, Type.HINFO)
    if (this.#seen < 2) {
      if (was) this.#env.log.info('the upstream servers do not lead back here any more')
      return
    }
    for (const f of this.#place.options.forwarders ?? []) f.looping = 'the upstream servers ask this server what it asks them'
    if (!was)
      this.#env.log.error('forwarding goes in a circle: names outside the cluster are answered SERVFAIL until the upstream servers are others', {
        upstream: this.#place.options.forwarders?.flatMap((f) => f.upstreams).join(', '),
        probe: printName(this.probe),
      })
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    if (query.type !== Type.HINFO || query.name !== this.probe) return next()
    // Once is our own; the second time it came back.
    if (++this.#seen > 1) return bare(Rcode.SERVFAIL, this.name, 'our own question came back')
    return next()
  }
}
