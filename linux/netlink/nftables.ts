import type { IpFamily } from '../../lib/ip.ts'
import type { Netlink } from '../kernel.ts'
import { attributes, eachAttribute, F, messages, textOf, Writer } from './codec.ts'

// nf_tables as linux/netfilter/nf_tables.h lays it out. Strings name things, numbers are big-endian unless said otherwise.
const SUBSYSTEM = 10 << 8
const MSG = {
  NEWTABLE: 0,
  DELTABLE: 2,
  NEWCHAIN: 3,
  GETCHAIN: 4,
  DELCHAIN: 5,
  NEWRULE: 6,
  GETRULE: 7,
  DELRULE: 8,
  NEWSET: 9,
  GETSET: 10,
  DELSET: 11,
  NEWSETELEM: 12,
  GETSETELEM: 13,
  DELSETELEM: 14,
  GETGEN: 16,
} as const
const BATCH_BEGIN = 16
const BATCH_END = 17

/** Numbers of nft's data types; several in a row (`typeOf`) name a concatenation. Only `nft list` looks at them. */
export const types = { ipv4: 7, ipv6: 8, proto: 12, port: 13, mark: 19 } as const
export const typeOf = (...parts: readonly number[]): number => parts.reduce((all, part) => (all << 6) | part, 0) >>> 0

/** What a set or map is. Lengths in octets, each part of a key padded to 4. */
export interface SetSpec {
  readonly name: string
  readonly keyType: number
  readonly keyLength: number
  /** A map's values: octets, or verdicts. */
  readonly data?: 'verdict' | { readonly type: number; readonly length: number }
  /** Filled by packets, each element for a time; at most `size` of them. */
  readonly dynamic?: { readonly size: number }
  /** Octets of `NFTA_SET_USERDATA`: how `nft list` shows the set. */
  readonly userdata?: Uint8Array
}

/** `userdata` of a set whose key is one number in host order, so that `nft list` prints 1 and not 16777216. */
export const hostOrder: Uint8Array = Uint8Array.of(0, 4, 1, 0, 0, 0)

/** Where a verdict leads. */
export type Verdict = 'drop' | 'accept' | 'return' | { readonly goto: string } | { readonly jump: string }

/** One expression of a rule, written into the list that is open. */
export type Expression = (w: Writer) => void

const expression = (name: string, body: (w: Writer) => void): Expression => {
  return (w) => {
    const element = w.nest(1)
    w.text(1, name)
    const data = w.nest(2)
    body(w)
    w.unnest(data).unnest(element)
  }
}

// Registers of 32 bits; a value of n octets takes the next n/4 of them.
/** The first register; the last is `register(15)`. */
export const register = (n: number): number => 8 + n

const value = (w: Writer, type: number, octets: Uint8Array): void => {
  const nest = w.nest(type)
  w.data(1, octets).unnest(nest)
}

/** `length` octets of the packet, from `offset` of its network or transport header. */
export const payload = (into: number, base: 'network' | 'transport', offset: number, length: number): Expression =>
  expression(
    'payload',
    (w) =>
      void w
        .u32Be(1, into)
        .u32Be(2, base === 'network' ? 1 : 2)
        .u32Be(3, offset)
        .u32Be(4, length),
  )

const metaKeys = { mark: 3, iifname: 6, oifname: 7, l4proto: 16 } as const
export const meta = (into: number, key: keyof typeof metaKeys): Expression => expression('meta', (w) => void w.u32Be(1, into).u32Be(2, metaKeys[key]))
export const setMark = (from: number): Expression => expression('meta', (w) => void w.u32Be(2, metaKeys.mark).u32Be(3, from))

/** Goes on only if the register begins with `octets`, or does not. */
export const compare = (from: number, octets: Uint8Array, not = false): Expression =>
  expression('cmp', (w) => {
    w.u32Be(1, from).u32Be(2, not ? 1 : 0)
    value(w, 3, octets)
  })

/** (register & mask) ^ xor. */
export const bitwise = (at: number, mask: Uint8Array, xor: Uint8Array): Expression =>
  expression('bitwise', (w) => {
    w.u32Be(1, at).u32Be(2, at).u32Be(3, mask.length)
    value(w, 4, mask)
    value(w, 5, xor)
  })

/** Goes on only if the key from `from` on is in the set. */
export const lookup = (set: string, from: number, not = false): Expression =>
  expression('lookup', (w) => {
    w.text(1, set).u32Be(2, from)
    if (not) w.u32Be(5, 1)
  })

/** Puts the map's value at `into`, or follows its verdict (`into` 0); stops the rule if there is none. */
export const lookupMap = (map: string, from: number, into: number): Expression => expression('lookup', (w) => void w.text(1, map).u32Be(2, from).u32Be(3, into))

/** A number from `offset` up to `offset + modulus`, by chance or in turn. */
export const numgen = (into: number, how: 'random' | 'inc', modulus: number, offset = 0): Expression =>
  expression(
    'numgen',
    (w) =>
      void w
        .u32Be(1, into)
        .u32Be(2, modulus)
        .u32Be(3, how === 'random' ? 1 : 0)
        .u32Be(4, offset),
  )

/** What kind of address the packet's source or destination is, as the routing table has it: 2 is this machine's own. */
export const addressKind = (into: number, of: 'source' | 'destination'): Expression =>
  expression(
    'fib',
    (w) =>
      void w
        .u32Be(1, into)
        .u32Be(2, 3)
        .u32Be(3, of === 'source' ? 1 : 2),
  )
export const LOCAL = u32(2)

export const conntrackStatus = (into: number): Expression => expression('ct', (w) => void w.u32Be(1, into).u32Be(2, 2))
/** Bit of the status of a connection whose destination was translated. */
export const DNAT = u32(0x20)

export const verdict = (v: Verdict): Expression =>
  expression('immediate', (w) => {
    w.u32Be(1, 0)
    writeVerdict(w, 2, v)
  })

/** To the address at `address` and the port at `port`. */
export const dnat = (family: IpFamily, address: number, port: number): Expression =>
  expression(
    'nat',
    (w) =>
      void w
        .u32Be(1, 1)
        .u32Be(2, family === 4 ? 2 : 10)
        .u32Be(3, address)
        .u32Be(5, port),
  )

/** To a port of this machine. */
export const redirect = (port: number): Expression => expression('redir', (w) => void w.u32Be(1, port))

export const masquerade: Expression = expression('masq', (w) => void w.u32Be(1, 0x10)) // fully random ports

export const reject = (family: IpFamily, how: 'port unreachable' | 'tcp reset'): Expression =>
  expression('reject', (w) => void (how === 'tcp reset' ? w.u32Be(1, 1).u8(2, 0) : w.u32Be(1, 0).u8(2, family === 4 ? 3 : 4)))

/** Puts the key from `from` on into a dynamic set, for `seconds` from now. */
export const remember = (set: string, from: number, seconds: number): Expression =>
  expression(
    'dynset',
    (w) =>
      void w
        .text(1, set)
        .u32Be(3, 1)
        .u32Be(4, from)
        .u64Be(6, BigInt(seconds) * 1000n),
  )

/** Four octets in host order. */
export function u32(n: number): Uint8Array {
  return Uint8Array.of(n & 255, (n >>> 8) & 255, (n >>> 16) & 255, (n >>> 24) & 255)
}

function writeVerdict(w: Writer, type: number, v: Verdict): void {
  const data = w.nest(type)
  const nest = w.nest(2)
  if (typeof v === 'string') w.u32Be(1, v === 'drop' ? 0 : v === 'accept' ? 1 : -5)
  else if ('goto' in v) w.u32Be(1, -4).text(2, v.goto)
  else w.u32Be(1, -3).text(2, v.jump)
  w.unnest(nest).unnest(data)
}

// An attribute's length is 16 bits: a list of elements is cut below that.
const listLimit = 60_000

/** What `NftBatch` keeps of one message, to name it when the kernel refuses it. */
type Label = string

/**
 * One transaction: everything in it happens, or nothing. Deleting and adding the same key works in that order.
 * `send` clears it for the next use.
 */
export class NftBatch {
  readonly #w = new Writer(64 * 1024)
  readonly #labels: Label[] = []
  readonly #family: number
  readonly #table: string
  #list: { readonly kind: number; readonly set: string; readonly message: number; readonly elements: number } | undefined
  #setId = 0

  constructor(family: IpFamily, table: string) {
    this.#family = family === 4 ? 2 : 10
    this.#table = table
    this.#begin()
  }

  /** Octets so far. */
  get size(): number {
    return this.#w.at
  }

  get empty(): boolean {
    return this.#labels.length <= 1
  }

  table(): this {
    return this.#one(MSG.NEWTABLE, F.CREATE, 'table', () => this.#w.u32Be(2, 0))
  }

  deleteTable(): this {
    return this.#one(MSG.DELTABLE, 0, 'delete table', () => {})
  }

  /** A chain; with `hook` one that packets come to by themselves. */
  chain(name: string, hook?: { readonly at: 'prerouting' | 'output' | 'postrouting'; readonly type: 'nat'; readonly priority: number }): this {
    return this.#one(MSG.NEWCHAIN, F.CREATE, `chain ${name}`, (w) => {
      w.text(3, name)
      if (hook === undefined) return
      const nest = w.nest(4)
      w.u32Be(1, { prerouting: 0, output: 3, postrouting: 4 }[hook.at]).u32Be(2, hook.priority).unnest(nest)
      w.u32Be(5, 1).text(7, hook.type)
    })
  }

  deleteChain(name: string): this {
    return this.#one(MSG.DELCHAIN, 0, `delete chain ${name}`, (w) => void w.text(3, name))
  }

  /** Empties a chain, or with no name every chain of the table. */
  deleteRules(chain?: string): this {
    return this.#one(MSG.DELRULE, 0, `delete rules of ${chain ?? 'all chains'}`, (w) => void (chain === undefined || w.text(2, chain)))
  }

  rule(chain: string, expressions: readonly Expression[]): this {
    return this.#one(MSG.NEWRULE, F.CREATE | F.APPEND, `rule of chain ${chain}`, (w) => {
      w.text(2, chain)
      const list = w.nest(4)
      for (const write of expressions) write(w)
      w.unnest(list)
    })
  }

  set(spec: SetSpec): this {
    const flags = (spec.data === undefined ? 0 : 0x08) | (spec.dynamic === undefined ? 0 : 0x30)
    return this.#one(MSG.NEWSET, F.CREATE, `set ${spec.name}`, (w) => {
      w.text(2, spec.name).u32Be(3, flags).u32Be(4, spec.keyType).u32Be(5, spec.keyLength)
      if (spec.data === 'verdict') w.u32Be(6, 0xffff_ff00)
      else if (spec.data !== undefined) w.u32Be(6, spec.data.type).u32Be(7, spec.data.length)
      w.u32Be(10, ++this.#setId)
      if (spec.dynamic !== undefined) {
        const desc = w.nest(9)
        w.u32Be(1, spec.dynamic.size).unnest(desc)
      }
      if (spec.userdata !== undefined) w.data(13, spec.userdata)
    })
  }

  deleteSet(name: string): this {
    return this.#one(MSG.DELSET, 0, `delete set ${name}`, (w) => void w.text(2, name))
  }

  /** Empties a set or map. */
  deleteElements(set: string): this {
    return this.#one(MSG.DELSETELEM, 0, `delete elements of ${set}`, (w) => void w.text(2, set))
  }

  /** Adds an element: of a set, or of a map to octets or to a verdict. One that is there with the same value is fine; with another it is EEXIST. */
  add(set: string, key: Uint8Array, data?: Uint8Array | Verdict): this {
    const w = this.#open(MSG.NEWSETELEM, set)
    const element = w.nest(1)
    value(w, 1, key)
    if (data instanceof Uint8Array) value(w, 2, data)
    else if (data !== undefined) writeVerdict(w, 2, data)
    w.unnest(element)
    return this
  }

  /** Takes an element out; one that is not there is ENOENT, and undoes the batch. */
  remove(set: string, key: Uint8Array): this {
    const w = this.#open(MSG.DELSETELEM, set)
    const element = w.nest(1)
    value(w, 1, key)
    w.unnest(element)
    return this
  }

  /** The datagram, finished; valid until the batch is used again. */
  finish(): Uint8Array {
    this.#closeList()
    // The acknowledgement of the whole. Old kernels give none for the end: there the last real message carries it.
    if (this.#last >= 0) this.#w.addFlags(this.#last, F.ACK)
    const end = this.#w.message(BATCH_END, F.REQUEST, this.#labels.length)
    this.#w.word(0x0a00_0000).end(end)
    return this.#w.written
  }

  /** Sends the transaction and starts a new one. Rejects with which part the kernel refused; then nothing of it happened. */
  async send(netlink: Netlink): Promise<void> {
    const labels = [...this.#labels]
    try {
      if (!this.empty) await netlink.request(this.finish())
    } catch (error) {
      const failures = (error as { failures?: readonly { sequence: number }[] }).failures
      const what = [...new Set(failures?.map((f) => labels[f.sequence] ?? 'the transaction as a whole') ?? [])].slice(0, 3).join(', ')
      throw new Error(`nftables table ${this.#table}${what === '' ? '' : `: ${what}`}`, { cause: error })
    } finally {
      this.#w.reset()
      this.#labels.length = 0
      this.#list = undefined
      this.#begin()
    }
  }

  #last = -1

  #begin(): void {
    this.#last = -1
    this.#labels.push('begin')
    const start = this.#w.message(BATCH_BEGIN, F.REQUEST, 0)
    // nfgenmsg: family 0, version 0, res_id in network order: which subsystem the batch is for.
    this.#w.word(0x0a00_0000).end(start)
  }

  #one(kind: number, flags: number, label: Label, body: (w: Writer) => void): this {
    this.#closeList()
    const start = this.#header(kind, flags, label)
    this.#w.text(1, this.#table)
    body(this.#w)
    this.#w.end(start)
    return this
  }

  #header(kind: number, flags: number, label: Label): number {
    const start = this.#w.message(SUBSYSTEM | kind, F.REQUEST | flags, this.#labels.length)
    this.#labels.push(label)
    this.#w.word(this.#family)
    this.#last = start
    return start
  }

  #open(kind: number, set: string): Writer {
    const open = this.#list
    if (open !== undefined && open.kind === kind && open.set === set && this.#w.at - open.elements < listLimit) return this.#w
    this.#closeList()
    const message = this.#header(kind, kind === MSG.NEWSETELEM ? F.CREATE : 0, `${kind === MSG.NEWSETELEM ? 'add to' : 'remove from'} ${set}`)
    this.#w.text(1, this.#table).text(2, set)
    this.#list = { kind, set, message, elements: this.#w.nest(3) }
    return this.#w
  }

  #closeList(): void {
    if (this.#list === undefined) return
    this.#w.unnest(this.#list.elements).end(this.#list.message)
    this.#list = undefined
  }
}

/** How often the rule sets of this network namespace were changed, by anybody. */
export async function generation(netlink: Netlink): Promise<number> {
  const w = new Writer(32)
  const start = w.message(SUBSYSTEM | MSG.GETGEN, F.REQUEST, 1)
  w.word(0).end(start)
  for (const answer of await netlink.request(w.written)) for (const { body } of messages(answer)) return attributes(body, 4).get(1)?.readUInt32BE() ?? 0
  throw new Error('nftables: the kernel does not tell its generation')
}

/** Names of a table's chains, without their rules. */
export async function chainNames(netlink: Netlink, family: IpFamily, table: string): Promise<string[]> {
  const found: string[] = []
  for (const has of await dump(netlink, MSG.GETCHAIN, family, () => {})) if (textOf(has.get(1)) === table) found.push(textOf(has.get(3)))
  return found
}

/** How many rules each chain of a table has. */
export async function ruleCounts(netlink: Netlink, family: IpFamily, table: string): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  for (const has of await dump(netlink, MSG.GETRULE, family, (w) => void w.text(1, table))) {
    if (textOf(has.get(1)) !== table) continue
    const chain = textOf(has.get(2))
    found.set(chain, (found.get(chain) ?? 0) + 1)
  }
  return found
}

/** Names of a table's sets and maps. */
export async function setNames(netlink: Netlink, family: IpFamily, table: string): Promise<string[]> {
  const found: string[] = []
  for (const has of await dump(netlink, MSG.GETSET, family, (w) => void w.text(1, table))) if (textOf(has.get(1)) === table) found.push(textOf(has.get(2)))
  return found
}

/** What the kernel tells of a table, as messages: its sets, the elements of one, its chains, its rules. */
export async function tableMessages(netlink: Netlink, family: IpFamily, table: string, what: 'sets' | 'chains' | 'rules' | { readonly set: string }): Promise<readonly Uint8Array[]> {
  if (typeof what === 'object') return request(netlink, MSG.GETSETELEM, family, (w) => void w.text(1, table).text(2, what.set))
  const found = await request(netlink, { sets: MSG.GETSET, chains: MSG.GETCHAIN, rules: MSG.GETRULE }[what], family, (w) => void w.text(1, table))
  return found.filter((m) => [...messages(m)].every(({ body }) => textOf(attributes(body, 4).get(1)) === table))
}

/** The elements of a set or map as hex: key to value, to `goto CHAIN`, or to nothing. */
export async function elements(netlink: Netlink, family: IpFamily, table: string, set: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const has of await dump(netlink, MSG.GETSETELEM, family, (w) => void w.text(1, table).text(2, set))) {
    for (const [, element] of eachAttribute(has.get(3) ?? Buffer.alloc(0))) {
      const parts = attributes(element)
      const data = parts.get(2) === undefined ? undefined : attributes(parts.get(2)!)
      const to = data?.get(2) === undefined ? undefined : attributes(data.get(2)!)
      found.set(
        attributes(parts.get(1)!).get(1)!.toString('hex'),
        to === undefined ? (data?.get(1)?.toString('hex') ?? '') : `${{ 0: 'drop', 1: 'accept', [-3]: 'jump ', [-4]: 'goto ', [-5]: 'return' }[to.get(1)!.readInt32BE()] ?? '?'}${textOf(to.get(2))}`,
      )
    }
  }
  return found
}

/** How many elements there are, and a sum over all of them that does not depend on their order. */
export class Digest {
  count = 0
  #a = 0
  #b = 0

  /** `value`: octets, or the chain a verdict leads to, or nothing. */
  add(key: Uint8Array, value: Uint8Array | string): void {
    let a = 0x811c9dc5
    let b = 0x9e3779b9
    for (let i = 0; i < key.length; i++) {
      a = Math.imul(a ^ key[i]!, 0x0100_0193)
      b = Math.imul(b ^ key[i]!, 0x85eb_ca6b) ^ (b >>> 13)
    }
    for (let i = 0; i < value.length; i++) {
      const c = typeof value === 'string' ? value.codePointAt(i)! : value[i]!
      a = Math.imul(a ^ c, 0x0100_0193)
      b = Math.imul(b ^ c, 0x85eb_ca6b) ^ (b >>> 13)
    }
    this.count++
    this.#a = (this.#a + a) | 0
    this.#b = (this.#b + b) | 0
  }

  equals(other: Digest): boolean {
    return this.count === other.count && this.#a === other.#a && this.#b === other.#b
  }
}

/** The digest of a set's or map's elements. */
export async function digest(netlink: Netlink, family: IpFamily, table: string, set: string): Promise<Digest> {
  const sum = new Digest()
  const word = (b: Uint8Array, at: number): number => b[at]! | (b[at + 1]! << 8)
  for (const answer of await request(netlink, MSG.GETSETELEM, family, (w) => void w.text(1, table).text(2, set))) {
    // Walked by hand: there may be a million of them. Header, nfgenmsg, then attributes.
    const b = answer
    for (let at = 20; at + 4 <= b.length; at += (word(b, at) + 3) & ~3) {
      if ((word(b, at + 2) & 0x3fff) !== 3) continue
      const end = at + word(b, at)
      for (let e = at + 4; e + 4 <= end; e += (word(b, e) + 3) & ~3) {
        let key: Uint8Array = none
        let value: Uint8Array | string = ''
        for (let p = e + 4; p + 4 <= e + word(b, e); p += (word(b, p) + 3) & ~3) {
          const type = word(b, p + 2) & 0x3fff
          if (type === 1) key = b.subarray(p + 8, p + 4 + word(b, p + 4))
          else if (type === 2 && (word(b, p + 6) & 0x3fff) === 1) value = b.subarray(p + 8, p + 4 + word(b, p + 4))
          else if (type === 2) value = textOf(attributes(Buffer.from(b.buffer, b.byteOffset + p + 8, word(b, p + 4) - 4)).get(2))
        }
        sum.add(key, value)
      }
    }
  }
  return sum
}
const none = new Uint8Array(0)

/** Whether a set or map holds all of these keys; cheap, whatever its size. */
export async function holds(netlink: Netlink, family: IpFamily, table: string, set: string, keys: readonly Uint8Array[]): Promise<boolean> {
  const w = new Writer(4096)
  const start = w.message(SUBSYSTEM | MSG.GETSETELEM, F.REQUEST | F.ACK, 1)
  w.word(family === 4 ? 2 : 10)
    .text(1, table)
    .text(2, set)
  const list = w.nest(3)
  for (const key of keys) {
    const element = w.nest(1)
    value(w, 1, key)
    w.unnest(element)
  }
  w.unnest(list).end(start)
  try {
    await netlink.request(w.written)
    return true
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return false
    throw error
  }
}

async function dump(netlink: Netlink, kind: number, family: IpFamily, body: (w: Writer) => void): Promise<Map<number, Buffer>[]> {
  return (await request(netlink, kind, family, body)).flatMap((a) => [...messages(a)].map((m) => attributes(m.body, 4)))
}

async function request(netlink: Netlink, kind: number, family: IpFamily, body: (w: Writer) => void): Promise<readonly Uint8Array[]> {
  const w = new Writer(128)
  const start = w.message(SUBSYSTEM | kind, F.REQUEST | F.DUMP, 1)
  w.word(family === 4 ? 2 : 10)
  body(w)
  w.end(start)
  try {
    return await netlink.request(w.written)
  } catch (error) {
    // No such table or set: nothing is in it.
    if ((error as { code?: string }).code === 'ENOENT') return []
    throw error
  }
}
