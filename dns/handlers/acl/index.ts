import { contains, network, parseIp, type Network } from '../../../lib/ip.ts'
import { bare, type Answer, type Handler, type Query } from '../../answer.ts'
import { CorefileError, zonesOf, type Line } from '../../corefile.ts'
import { within, type Name } from '../../wire/name.ts'
import { Rcode, typeNumber } from '../../wire/types.ts'
import type { Plugin } from '../plugin.ts'

/** Who may ask for what. Looked at before any rewrite, with what the client asked. */
export const acl: Plugin = {
  name: 'acl',
  build: (lines, place) => lines.map((line) => new AclHandler(line.args.length > 0 ? line.args.flatMap((a) => zonesOf(a, line)) : place.zones, line.block.map(policyOf))),
}

interface Policy {
  readonly action: 'allow' | 'block' | 'filter' | 'drop'
  readonly types: ReadonlySet<number> | undefined
  readonly nets: readonly Network[] | undefined
}

function policyOf(line: Line): Policy {
  const { name } = line
  if (name !== 'allow' && name !== 'block' && name !== 'filter' && name !== 'drop') throw new CorefileError(line, `acl: expected allow, block, filter or drop, got ${name}`)
  let types: Set<number> | undefined
  let nets: Network[] | undefined
  let reading = ''
  for (const word of line.args) {
    if (word === 'type' || word === 'net') reading = word
    else if (reading === 'type') {
      if (word === '*') continue
      const type = typeNumber(word)
      if (type === undefined) throw new CorefileError(line, `acl: ${word} is no type`)
      ;(types ??= new Set()).add(type)
    } else if (reading === 'net') {
      if (word === '*') continue
      const net = network(word.includes('/') ? word : `${word}/${word.includes(':') ? 128 : 32}`)
      if (net === undefined) throw new CorefileError(line, `acl: ${word} is no network`)
      ;(nets ??= []).push(net)
    } else throw new CorefileError(line, `acl: expected type or net, got ${word}`)
  }
  return { action: name, types, nets }
}

export class AclHandler implements Handler {
  readonly name = 'acl'
  readonly manner = 'asks'
  readonly #zones: readonly Name[]
  readonly #policies: readonly Policy[]

  constructor(zones: readonly Name[], policies: readonly Policy[]) {
    this.#zones = zones
    this.#policies = policies
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    if (!this.#zones.some((zone) => within(query.name, zone))) return next()
    const client = parseIp(query.client.host)
    const policy = this.#policies.find((p) => (p.types === undefined || p.types.has(query.type)) && (p.nets === undefined || (client !== undefined && p.nets.some((n) => contains(n, client)))))
    switch (policy?.action) {
      case 'block':
        return bare(Rcode.REFUSED, this.name, 'the client may not ask this')
      case 'filter':
        return bare(Rcode.NOERROR, this.name, 'the client gets no answer to this')
      case 'drop':
        return { ...bare(Rcode.REFUSED, this.name, 'the client gets nothing'), drop: true }
      default:
        return next()
    }
  }
}
