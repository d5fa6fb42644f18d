import { Packer } from '../packer.ts'
import type { Resolver } from '../resolve.ts'
import { encode } from '../wire/message.ts'
import { nameOf, type Name } from '../wire/name.ts'
import { Flag, typeNumber } from '../wire/types.ts'
import type { TestSite } from './site.ts'

/** The table of compiled answers over a site, and a reader of it. */
export interface Fast {
  readonly packer: Packer
  readonly resolver: Resolver
  /** The answer's octets; undefined where the handlers are asked. */
  ask(name: string, type: string, how?: How): Buffer | undefined
}
const fill = Buffer.alloc(70_000, 0xee)
const untouched = (b: Buffer, from: number, to: number): boolean => b.compare(fill, 0, to - from, from, to) === 0

export interface How {
  readonly size?: number
  readonly dnssec?: boolean
  readonly most?: number
  readonly capitals?: boolean
}

/** The octets of a question. */
export function question(name: string, type: string, how: How): Buffer {
  const b = Buffer.alloc(600)
  const spelled = how.capitals === true ? (nameOf(name).replaceAll(/[a-z]/g, (c, i: number) => (i % 2 === 0 ? c.toUpperCase() : c)) as Name) : nameOf(name)
  const end = encode(
    {
      id: 0xabcd,
      flags: Flag.RD,
      rcode: 0,
      question: { name: spelled, type: typeNumber(type)!, class: 1 },
      edns: how.size === undefined ? undefined : { size: how.size, dnssec: how.dnssec === true },
    },
    b,
  )
  return Buffer.from(b.subarray(0, end))
}

/** Compiles a site, and keeps it compiled. */
export function fastOf(s: TestSite): Fast {
  const packer = Packer.of(s.server.sites, { bytes: 8 * 1024 * 1024, seed: 7 })!
  s.cluster.onChanged = (zone, changed, source) => packer.changed(zone, changed, source)
  const resolver = packer.resolver()
  const guard = 64
  return {
    packer,
    resolver,
    ask: (name, type, how = {}) => {
      const q = question(name, type, how)
      // Guard octets on both sides: nothing may be written outside.
      const room = how.most === undefined ? 2048 : 20_000
      const b = Buffer.alloc(guard + room + guard, 0xee)
      q.copy(b, guard)
      const n = resolver.resolve(b, guard, guard + q.length, guard + room, how.most ?? 0)
      if (!untouched(b, 0, guard) || !untouched(b, guard + Math.max(n, q.length), b.length)) throw new Error(`${name} ${type}: written outside`)
      if (n < 0 && !b.subarray(guard, guard + q.length).equals(q)) throw new Error(`${name} ${type}: handed over changed`)
      return n < 0 ? undefined : Buffer.from(b.subarray(guard, guard + n))
    },
  }
}

/** What the handlers answer. */
export async function slow(s: TestSite, name: string, type: string, how: How): Promise<Buffer> {
  const q = question(name, type, how)
  return (await s.server.respond(q, 0, q.length, { client: { host: '10.0.0.1', port: 1 }, local: { host: '10.0.0.2', port: 53 }, protocol: how.most === undefined ? 'udp' : 'tcp' }))!
}
