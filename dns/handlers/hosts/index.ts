import { duration } from '../../../lib/options.ts'
import { parseIp } from '../../../lib/ip.ts'
import { bare, type Answer, type Handler, type Query } from '../../answer.ts'
import { reverseName } from '../../compile.ts'
import { CorefileError, zonesOf, type Line } from '../../corefile.ts'
import { addressData, addressType } from '../../wire/data.ts'
import { fold, parseName, within, type Name, type Octets } from '../../wire/name.ts'
import { Class, Rcode, Type } from '../../wire/types.ts'
import { fallthroughOf, wholeNumber, type Place, type Plugin } from '../plugin.ts'

/** Names from a file like /etc/hosts, or written into the Corefile. */
export const hosts: Plugin = {
  name: 'hosts',
  build: (lines, place) => lines.map((line) => build(line, place)),
}

function build(line: Line, place: Place): HostsHandler {
  const [first, ...rest] = line.args
  const path = first ?? '/etc/hosts'
  const zones = rest.length > 0 ? rest.flatMap((arg) => zonesOf(arg, line)) : place.zones
  let ttl = 3600
  let reverse = true
  let every = 5000
  let fallthrough: readonly Name[] = []
  const inline: string[] = []
  for (const option of line.block) {
    switch (option.name) {
      case 'ttl':
        ttl = wholeNumber(option.args[0], option, 'ttl', 1, 65_535)
        break
      case 'no_reverse':
        reverse = false
        break
      case 'reload': {
        const ms = duration(option.args[0] ?? '')
        if (ms === undefined) throw new CorefileError(option, 'reload: expected a duration such as 15s')
        every = ms
        break
      }
      case 'fallthrough':
        fallthrough = fallthroughOf(option)
        break
      default:
        if (parseIp(option.name) === undefined || option.args.length === 0) throw new CorefileError(option, `hosts: ${option.name} is neither an option nor an address with names`)
        inline.push([option.name, ...option.args].join(' '))
    }
  }
  const handler = new HostsHandler({ zones, ttl, reverse, fallthrough })
  const load = (): void => handler.load([...inline, place.env.read(path) ?? ''].join('\n'))
  load()
  if (every > 0) {
    const timer = setInterval(load, every)
    timer.unref()
    place.closing(() => clearInterval(timer))
  }
  return handler
}

/** What the lines of a hosts file say. */
export class HostsHandler implements Handler {
  readonly name = 'hosts'
  readonly manner = 'folds'
  readonly #options: { readonly zones: readonly Name[]; readonly ttl: number; readonly reverse: boolean; readonly fallthrough: readonly Name[] }
  #text: string | undefined
  #addresses = new Map<Name, Octets[]>()
  #names = new Map<Name, Name[]>()
  /** Told after names changed. */
  changed: (() => void) | undefined

  constructor(options: { readonly zones: readonly Name[]; readonly ttl: number; readonly reverse: boolean; readonly fallthrough: readonly Name[] }) {
    this.#options = options
  }

  load(text: string): void {
    if (text === this.#text) return
    this.#text = text
    this.#addresses = new Map()
    this.#names = new Map()
    for (const line of text.split('\n')) {
      const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/)
      const ip = parseIp(address.replace(/%.*/, ''))
      if (ip === undefined) continue
      for (const word of names) {
        const name = parseName(word)
        if (name === undefined) continue
        push(this.#addresses, fold(name), addressData(ip)!)
        push(this.#names, reverseName(ip)!, fold(name))
      }
    }
    this.changed?.()
  }

  /** Without fallthrough nothing behind it is asked about the zone. */
  touches(): readonly Name[] | 'all' {
    const { fallthrough, zones } = this.#options
    if (zones.some((zone) => !fallthrough.some((f) => within(zone, f)))) return 'all'
    return [...this.#addresses.keys(), ...this.#names.keys()]
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const { zones, ttl, reverse, fallthrough } = this.#options
    if (!zones.some((zone) => within(query.name, zone))) return next()
    const rec = (type: number, data: Octets) => ({ name: query.name, type, class: Class.IN, ttl, data })
    const addresses = this.#addresses.get(query.name)
    const names = reverse && query.type === Type.PTR ? this.#names.get(query.name) : undefined
    if (addresses === undefined && names === undefined) return fallthrough.some((f) => within(query.name, f)) ? next() : bare(Rcode.NXDOMAIN, this.name, 'not in the hosts file', [], true)
    const answers = names !== undefined ? names.map((n) => rec(Type.PTR, n)) : addresses!.filter((data) => addressType(data) === query.type).map((data) => rec(query.type, data))
    return { rcode: Rcode.NOERROR, authoritative: true, answers, authority: [], additional: [], by: this.name, why: 'in the hosts file' }
  }
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key)
  if (list === undefined) map.set(key, [value])
  else if (!list.includes(value)) list.push(value)
}
