import { formatIp, type IpFamily } from '../../lib/ip.ts'
import type { Netlink, NftObject } from '../kernel.ts'
import { attributes, eachAttribute, messages, textOf } from '../netlink/codec.ts'
import { setNames, tableMessages } from '../netlink/nftables.ts'

type Json = string | number | null | readonly Json[] | { readonly [key: string]: Json }

interface Set {
  readonly key: readonly number[]
  readonly keyLength: number
  readonly data: 'verdict' | readonly number[] | undefined
  readonly flags: number
  readonly elements: Map<string, Json>
}
interface Chain {
  readonly fields: { readonly [key: string]: Json }
  rules: (readonly Json[])[]
}
interface Table {
  readonly chains: Map<string, Chain>
  readonly sets: Map<string, Set>
}

/**
 * Tables of nf_tables as `nft -j list` prints them, read from netlink: from transactions as they are sent, or from dumps as the kernel gives them.
 * It knows what a Service's rules are made of; another expression stands there by its name alone.
 */
export class Listing {
  readonly #tables = new Map<string, Table>()

  /** Takes in a datagram: one or more messages that make, change or tell of tables, chains, rules, sets and elements. */
  add(datagram: Uint8Array): void {
    for (const { type, body } of messages(datagram)) if (type >> 8 === 10) this.#message(type & 255, body)
  }

  objects(): readonly NftObject[] {
    const out: NftObject[] = []
    for (const [id, { chains, sets }] of this.#tables) {
      const [family = '', ...rest] = id.split(' ')
      const of = { family, table: rest.join(' ') }
      out.push({ table: { family, name: of.table } })
      for (const [name, s] of sets) {
        const elem = [...s.elements.values()]
        const more = { ...(s.data === undefined ? {} : { map: s.data === 'verdict' ? 'verdict' : s.data.map(typeName).join(' . ') }), ...(elem.length === 0 ? {} : { elem }) }
        out.push({
          [s.data === undefined ? 'set' : 'map']: {
            ...of,
            name,
            type: s.key.length === 1 ? typeName(s.key[0]!) : s.key.map(typeName),
            ...((s.flags & 0x10) === 0 ? {} : { flags: ['timeout'] }),
            ...more,
          },
        })
      }
      for (const [name, c] of chains) out.push({ chain: { ...of, name, ...c.fields } })
      for (const [chain, c] of chains) for (const expr of c.rules) out.push({ rule: { ...of, chain, expr } })
    }
    return out
  }

  #message(kind: number, body: Buffer): void {
    const family = families[body[0]!] ?? String(body[0])
    const has = attributes(body, 4)
    const id = `${family} ${textOf(has.get(1))}`
    const table = this.#tables.get(id) ?? { chains: new Map<string, Chain>(), sets: new Map<string, Set>() }
    if (kind === 2) return void this.#tables.delete(id)
    this.#tables.set(id, table)
    const name = textOf(has.get(2))
    switch (kind) {
      case 3:
        return chain(table, has)
      case 5:
        return void table.chains.delete(textOf(has.get(3)))
      case 6:
        return void table.chains.get(name)?.rules.push(rule(table, family, has.get(4)))
      case 8:
        for (const [chainName, c] of table.chains) if (name === '' || chainName === name) c.rules = []
        return
      case 9: {
        const flags = number(has.get(3))
        const data = (flags & 0x08) === 0 ? undefined : number(has.get(6)) === 0xffff_ff00 ? 'verdict' : typesOf(number(has.get(6)))
        if (!table.sets.has(name)) table.sets.set(name, { key: typesOf(number(has.get(4))), keyLength: number(has.get(5)), data, flags, elements: new Map() })
        return
      }
      case 11:
        return void table.sets.delete(name)
      case 12:
      case 14: {
        const set = table.sets.get(name)
        if (set === undefined) return
        if (kind === 14 && has.get(3) === undefined) return set.elements.clear()
        for (const [, element] of eachAttribute(has.get(3) ?? none)) {
          const parts = attributes(element)
          const key = attributes(parts.get(1) ?? none).get(1) ?? none
          if (kind === 14) set.elements.delete(key.toString('hex'))
          else {
            const data = attributes(parts.get(2) ?? none)
            const shown = concat(split(key, set.key))
            set.elements.set(key.toString('hex'), set.data === undefined ? shown : [shown, set.data === 'verdict' ? verdict(data.get(2) ?? none) : concat(split(data.get(1) ?? none, set.data))])
          }
        }
      }
    }
  }
}

/** A table as the kernel tells it by netlink, in the words of `nft -j list table`: for machines without `nft`. */
export async function listTable(netlink: Netlink, family: IpFamily, table: string): Promise<readonly NftObject[]> {
  const listing = new Listing()
  const sets = await setNames(netlink, family, table)
  for (const what of ['sets', ...sets.map((name) => ({ set: name })), 'chains', 'rules'] as const) for (const m of await tableMessages(netlink, family, table, what)) listing.add(m)
  return listing.objects()
}

const none = Buffer.alloc(0)
const families: Readonly<Record<number, string>> = { 1: 'inet', 2: 'ip', 10: 'ip6' }
const hooks = ['prerouting', 'input', 'forward', 'output', 'postrouting']
const number = (b: Buffer | undefined): number => (b === undefined || b.length < 4 ? 0 : b.readUInt32BE())
const host = (b: Buffer): number => (b.length < 4 ? (b[0] ?? 0) : b.readUInt32LE())

function chain(table: Table, has: ReadonlyMap<number, Buffer>): void {
  const name = textOf(has.get(3))
  if (table.chains.has(name)) return
  const hook = has.get(4)
  if (hook === undefined) return void table.chains.set(name, { fields: {}, rules: [] })
  const at = attributes(hook)
  const policy = has.get(5) === undefined || number(has.get(5)) === 1 ? 'accept' : 'drop'
  table.chains.set(name, { fields: { type: textOf(has.get(7)), hook: hooks[number(at.get(1))] ?? '?', prio: at.get(2)?.readInt32BE() ?? 0, policy }, rules: [] })
}

// Types of nft's data by number; a set's key is a row of them, six bits each.
const typeNames: Readonly<Record<number, string>> = { 5: 'ifname', 7: 'ipv4_addr', 8: 'ipv6_addr', 12: 'inet_proto', 13: 'inet_service', 19: 'mark' }
const typeName = (n: number): string => typeNames[n] ?? `type${n}`
const protocols: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'ipv6-icmp', 132: 'sctp' }

function typesOf(n: number): readonly number[] {
  const out: number[] = []
  for (let rest = n; rest > 0; rest >>>= 6) out.unshift(rest & 63)
  return out
}

function split(octets: Buffer, types: readonly number[]): readonly Json[] {
  let at = 0
  return types.map((t) => {
    const length = t === 8 || t === 5 ? 16 : 4
    const part = octets.subarray(at, at + length)
    at += length
    return shown(part, t)
  })
}

function shown(b: Buffer, type: number): Json {
  if (type === 7 || type === 8) return formatIp(b)
  if (type === 5) return name(b)
  if (type === 12) return protocols[b[0]!] ?? b[0]!
  if (type === 13) return b.readUInt16BE()
  return host(b)
}

/** An interface's name, or its beginning. */
const name = (b: Buffer): string => (b.includes(0) ? textOf(b) : `${b.toString('latin1')}*`)
const concat = (parts: readonly Json[]): Json => (parts.length === 1 ? parts[0]! : { concat: parts })

function verdict(b: Buffer): Json {
  const has = attributes(b)
  const code = has.get(1)?.readInt32BE() ?? 0
  if (code === -3 || code === -4) return { [code === -3 ? 'jump' : 'goto']: { target: textOf(has.get(2)) } }
  return { [{ 0: 'drop', 1: 'accept', [-1]: 'continue', [-5]: 'return' }[code] ?? `verdict ${code}`]: null }
}

/** What a register holds. */
interface Held {
  readonly json: Json
  /** Words of four octets. */
  readonly words: number
  /** How a value it is compared with is written. */
  readonly as: 'ip' | 'port' | 'protocol' | 'name' | 'kind' | 'number'
  readonly mask?: Buffer
  readonly xor?: Buffer
  /** A constant's octets. */
  readonly raw?: Buffer
}

// Registers have two names: four of sixteen octets, and sixteen of four.
const word = (b: Buffer | undefined): number => (number(b) >= 8 ? number(b) - 8 : (number(b) - 1) * 4)
const kinds: Readonly<Record<number, string>> = { 1: 'unicast', 2: 'local', 3: 'broadcast', 4: 'anycast', 5: 'multicast' }
const metaKeys: Readonly<Record<number, string>> = { 3: 'mark', 6: 'iifname', 7: 'oifname', 15: 'nfproto', 16: 'l4proto' }
const ctKeys: Readonly<Record<number, string>> = { 0: 'state', 1: 'direction', 2: 'status', 3: 'mark' }
const statusBits: readonly (readonly [number, string])[] = [
  [0x10, 'snat'],
  [0x20, 'dnat'],
]

function rule(table: Table, family: string, expressions: Buffer | undefined): readonly Json[] {
  const out: Json[] = []
  const held: (Held | undefined)[] = []
  const put = (at: number, h: Held): void => {
    held[at] = h
    for (let i = 1; i < h.words; i++) held[at + i] = undefined
  }
  /** The registers from `at` on, `octets` long, as one expression. */
  const key = (at: number, octets: number): Json => {
    const parts: Json[] = []
    for (let i = at; i < at + octets / 4;) {
      const h = held[i]
      if (h === undefined) return '?'
      parts.push(plain(h))
      i += h.words
    }
    return concat(parts)
  }
  for (const [, element] of eachAttribute(expressions ?? none)) {
    const parts = attributes(element)
    const has = attributes(parts.get(2) ?? none)
    const kind = textOf(parts.get(1))
    switch (kind) {
      case 'payload':
        put(word(has.get(1)), payload(family, number(has.get(2)), number(has.get(3)), number(has.get(4))))
        break
      case 'meta': {
        const json = { meta: { key: metaKeys[number(has.get(2))] ?? `key${number(has.get(2))}` } }
        const from = has.get(3)
        const as = json.meta.key === 'l4proto' ? 'protocol' : json.meta.key.endsWith('name') ? 'name' : 'number'
        if (from === undefined) put(word(has.get(1)), { json, words: as === 'name' ? 4 : 1, as })
        else out.push({ mangle: { key: json, value: held[word(from)] === undefined ? '?' : plain(held[word(from)]!) } })
        break
      }
      case 'ct': {
        const k = ctKeys[number(has.get(2))] ?? `key${number(has.get(2))}`
        if (has.get(1) !== undefined) put(word(has.get(1)), { json: { ct: { key: k } }, words: 1, as: 'number' })
        else out.push({ mangle: { key: { ct: { key: k } }, value: '?' } })
        break
      }
      case 'fib':
        put(word(has.get(1)), { json: { fib: { result: number(has.get(2)) === 3 ? 'type' : 'oif', flags: [number(has.get(3)) === 1 ? 'saddr' : 'daddr'] } }, words: 1, as: 'kind' })
        break
      case 'numgen':
        put(word(has.get(1)), { json: { numgen: { mode: number(has.get(3)) === 1 ? 'random' : 'inc', mod: number(has.get(2)), offset: number(has.get(4)) } }, words: 1, as: 'number' })
        break
      case 'bitwise': {
        const h = held[word(has.get(1))]
        if (h !== undefined) put(word(has.get(2)), { ...h, mask: attributes(has.get(4) ?? none).get(1) ?? none, xor: attributes(has.get(5) ?? none).get(1) ?? none })
        break
      }
      case 'cmp': {
        const h = held[word(has.get(1))]
        const op = ['==', '!=', '<', '<=', '>', '>='][number(has.get(2))]!
        out.push(h === undefined ? { cmp: null } : match(h, op, attributes(has.get(3) ?? none).get(1) ?? none))
        break
      }
      case 'lookup': {
        const set = table.sets.get(textOf(has.get(1)))
        const data = `@${textOf(has.get(1))}`
        const what = key(word(has.get(2)), set?.keyLength ?? 4)
        if (has.get(3) === undefined) out.push({ match: { op: (number(has.get(5)) & 1) === 0 ? '==' : '!=', left: what, right: data } })
        else if (number(has.get(3)) === 0) out.push({ vmap: { key: what, data } })
        else
          put(word(has.get(3)), {
            json: { map: { key: what, data } },
            words: set?.data === undefined || set.data === 'verdict' ? 1 : set.data.reduce((n, t) => n + (t === 8 ? 4 : 1), 0),
            as: 'number',
          })
        break
      }
      case 'immediate': {
        const data = attributes(has.get(2) ?? none)
        const value = data.get(1)
        if (value === undefined) out.push(verdict(data.get(2) ?? none))
        else put(word(has.get(1)), { json: host(value), words: Math.ceil(value.length / 4), as: 'number', raw: value })
        break
      }
      case 'nat': {
        const [address, port] = [has.get(3), has.get(5)]
        const to = address === undefined ? undefined : held[word(address)]
        const own = port === undefined ? undefined : held[word(port)]
        const addr = to === undefined ? {} : { addr: to.raw === undefined ? to.json : formatIp(to.raw) }
        out.push({
          [number(has.get(1)) === 0 ? 'snat' : 'dnat']: { family: families[number(has.get(2))] ?? family, ...addr, ...(own === undefined ? {} : { port: own.raw?.readUInt16BE() ?? own.json }) },
        })
        break
      }
      case 'redir': {
        const h = has.get(1) === undefined ? undefined : held[word(has.get(1))]
        out.push({ redirect: h === undefined ? null : { port: h.raw?.readUInt16BE() ?? h.json } })
        break
      }
      case 'masq':
        out.push({ masquerade: null })
        break
      case 'reject': {
        const [type, code] = [number(has.get(1)), has.get(2)?.[0] ?? 0]
        const unreachable = (type === 2 ? code === 1 : family === 'ip6' ? code === 4 : code === 3) ? 'port-unreachable' : `code ${code}`
        out.push({ reject: type === 1 ? { type: 'tcp reset' } : { type: type === 2 ? 'icmpx' : family === 'ip6' ? 'icmpv6' : 'icmp', expr: unreachable } })
        break
      }
      case 'dynset':
        out.push({
          set: {
            op: number(has.get(3)) === 1 ? 'update' : 'add',
            elem: { elem: { val: key(word(has.get(4)), table.sets.get(textOf(has.get(1)))?.keyLength ?? 4), timeout: Number((has.get(6)?.readBigUInt64BE() ?? 0n) / 1000n) } },
            set: `@${textOf(has.get(1))}`,
          },
        })
        break
      default:
        out.push({ [kind]: null })
    }
  }
  return out
}

function payload(family: string, base: number, offset: number, length: number): Held {
  const field = (protocol: string, name: string, as: Held['as'], more: Partial<Held> = {}): Held => ({ json: { payload: { protocol, field: name } }, words: Math.ceil(length / 4), as, ...more })
  const [size, from, to] = family === 'ip6' ? [16, 8, 24] : [4, 12, 16]
  if (base === 1 && (offset === from || offset === to) && length <= size) {
    // The beginning of an address is a network's test.
    const mask = Buffer.alloc(size)
    mask.fill(255, 0, length)
    return field(family === 'ip6' ? 'ip6' : 'ip', offset === from ? 'saddr' : 'daddr', 'ip', length === size ? {} : { mask, xor: Buffer.alloc(size) })
  }
  if (base === 2 && length === 2 && offset <= 2) return field('th', offset === 0 ? 'sport' : 'dport', 'port')
  if (base === 2 && length === 1 && offset === 13) return field('tcp', 'flags', 'number')
  return { json: { payload: { base: base === 1 ? 'nh' : 'th', offset: offset * 8, len: length * 8 } }, words: Math.ceil(length / 4), as: 'number' }
}

/** What a register holds, with what was done to it. */
function plain({ json, mask, xor }: Held): Json {
  if (mask === undefined || xor === undefined) return json
  const [m, x] = [host(mask), host(xor)]
  if (x === 0) return { '&': [json, m] }
  return (m & x) === 0 && (m | x) >>> 0 === 0xffff_ffff ? { '|': [json, x] } : { '^': [{ '&': [json, m] }, x] }
}

function match(h: Held, op: string, value: Buffer): Json {
  if (h.as === 'ip') {
    if (h.mask === undefined) return { match: { op, left: h.json, right: formatIp(value) } }
    const whole = Buffer.alloc(h.mask.length)
    value.copy(whole)
    let len = 0
    for (const b of h.mask) len += b.toString(2).replaceAll('0', '').length
    return { match: { op, left: h.json, right: { prefix: { addr: formatIp(whole), len } } } }
  }
  if (h.mask !== undefined && (h.json as { ct?: Json }).ct !== undefined && op === '!=' && host(value) === 0) {
    const names = statusBits.flatMap(([bit, text]) => ((host(h.mask!) & bit) === 0 ? [] : [text]))
    return { match: { op: 'in', left: h.json, right: names.length === 1 ? names[0]! : names } }
  }
  if (h.as === 'protocol') return { match: { op, left: h.json, right: protocols[value[0]!] ?? value[0]! } }
  if (h.as === 'port') return { match: { op, left: h.json, right: value.readUInt16BE() } }
  if (h.as === 'name') return { match: { op, left: h.json, right: name(value) } }
  if (h.as === 'kind') return { match: { op, left: h.json, right: kinds[host(value)] ?? host(value) } }
  return { match: { op, left: plain(h), right: host(value) } }
}
