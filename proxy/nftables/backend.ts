import { explainError, type Log } from '../../lib/log.ts'
import { familyOf, ipBytes, type Ip, type IpFamily } from '../../lib/ip.ts'
import type { Kernel, Netlink } from '../../linux/kernel.ts'
import { chainNames, elements, generation, NftBatch, ruleCounts, setNames } from '../../linux/netlink/nftables.ts'
import type { Backend } from '../backend.ts'
import type { Endpoint, NodeFacts, Refused, ServiceTable } from '../table.ts'
import { endpointData, Shape, slotKey, tableName, type Piece } from './shape.ts'

/** What this backend works with. */
export interface NftablesOptions {
  readonly kernel: Kernel
  readonly log: Log
}

/** Forwards by nftables maps, written by netlink: one lookup says which flavour of Service this is, a second one which endpoint. */
export function create(options: NftablesOptions): Backend {
  return new NftablesBackend(options)
}

/** What the kernel has of one family, if we know. */
interface Committed {
  readonly shape: Shape
  readonly fronts: ReadonlyMap<string, unknown>
  readonly pieces: Map<string, Piece>
  /** Chains, sets and lasting elements written so far. */
  readonly made: Set<string>
  /** How often each address is an endpoint: one that meets itself must not see its own address, or it would answer itself past the translation. */
  readonly hairpin: Map<Ip, number>
  readonly clusterIps: ReadonlySet<Ip>
  /** The kernel's count of changes right after ours; undefined when another's may have come between. */
  generation: number | undefined
}

// Elements of one transaction, in octets, where the kernel takes no long datagram from us (a user namespace without rights over the machine).
const shortBatch = 96 * 1024

class NftablesBackend implements Backend {
  readonly name = 'nftables'
  readonly #kernel: Kernel
  readonly #log: Log
  readonly #committed = new Map<IpFamily, Committed>()
  #netlink: Netlink | undefined
  #limit = Number.POSITIVE_INFINITY

  constructor({ kernel, log }: NftablesOptions) {
    this.#kernel = kernel
    this.#log = log
  }

  get #socket(): Netlink {
    return (this.#netlink ??= this.#kernel.netlink('netfilter'))
  }

  async probe(): Promise<string | undefined> {
    // Everything the shape needs, made and deleted within one transaction: nobody ever sees it.
    const facts: NodeFacts = { name: '', localPods: { kind: 'none' }, clusterCidrs: [], serviceCidrs: [], clusterIps: new Set(), nodePortAddresses: 'all', masqueradeAll: false, masqueradeMark: 0x4000 }
    const shape = new Shape(4, facts)
    const to = [{ address: '192.0.2.1' as Ip, port: 1, local: false }]
    const common = { protocol: 'TCP', family: 4, sources: 'any', scheduler: undefined, port: 'probe/probe:', routes: [{ from: 'this node', outcome: { kind: 'forward', to }, masquerade: 'always' }, { from: 'anyone', outcome: { kind: 'forward', to }, masquerade: 'hairpin only' }] } as const
    const piece = shape.piece({ ...common, at: { address: '192.0.2.2' as Ip, port: 1, kind: 'cluster' }, affinity: 10 }, undefined)!
    try {
      const batch = new NftBatch(4, 'switchyard-probe')
      batch.table()
      writeFrame(shape, batch)
      shape.write(piece.chain, new Set(), batch)
      batch.deleteTable()
      await batch.send(this.#socket)
      return undefined
    } catch (error) {
      return explainError(error)
    }
  }

  async apply(desired: ServiceTable, signal: AbortSignal): Promise<{ readonly refused: readonly Refused[] }> {
    const refused: Refused[] = []
    for (const family of [4, 6] as const) {
      signal.throwIfAborted()
      if (family === 6 && !this.#committed.has(6) && !wants(desired, 6)) continue
      try {
        await this.#applyFamily(family, desired, refused)
      } catch (error) {
        this.#committed.delete(family)
        if (family === 4 || !isMissing(error)) throw error
        for (const [key, f] of desired.fronts) if (f.family === 6) refused.push({ front: key, object: `Service ${f.port}`, reason: explainError(error) })
      }
    }
    return { refused }
  }

  async #applyFamily(family: IpFamily, desired: ServiceTable, refused: Refused[]): Promise<void> {
    const known = this.#committed.get(family)
    if (known !== undefined && sameRules(known.shape.facts, desired.node)) {
      try {
        await this.#change(family, known, desired, refused)
        return
      } catch (error) {
        // Whatever the reason: what the kernel has is no longer known, so everything is written again.
        this.#log.warn('nftables refused a change; writing everything', { family, error: explainError(error) })
        this.#committed.delete(family)
      }
    }
    await this.#refill(family, desired, refused, known)
  }

  /** A few elements, in one transaction. */
  async #change(family: IpFamily, known: Committed, desired: ServiceTable, refused: Refused[]): Promise<void> {
    const { shape, made } = known
    const next: [string, Piece | undefined][] = []
    if (known.fronts !== desired.fronts) {
      for (const [key, piece] of known.pieces) if (desired.fronts.get(key) !== piece.front) next.push([key, this.#piece(shape, key, desired, piece, refused)])
      for (const [key, front] of desired.fronts) if (front.family === family && !known.pieces.has(key)) next.push([key, this.#piece(shape, key, desired, undefined, refused)])
    }
    const batch = new NftBatch(family, tableName)
    const wasMade = new Set(made)
    const hairpin = new Map(known.hairpin)
    for (const [, piece] of next) if (piece !== undefined) shape.write(piece.chain, made, batch)
    try {
      // Out first, then in: one key may do both.
      const adds: (() => void)[] = []
      const touched = new Set<Ip>()
      for (const [key, piece] of next) diffPiece(known.pieces.get(key), piece, batch, adds, hairpin, touched)
      for (const ip of touched) {
        const had = known.hairpin.has(ip)
        if (had && !hairpin.has(ip)) batch.remove('hairpin', twice(ip))
        else if (!had && hairpin.has(ip)) adds.push(() => void batch.add('hairpin', twice(ip)))
      }
      const now = clusterIpsOf(desired, family)
      if (known.clusterIps !== now) {
        for (const ip of known.clusterIps) if (!now.has(ip)) batch.remove('addresses', ipBytes(ip)!)
        for (const ip of now) if (!known.clusterIps.has(ip)) adds.push(() => void batch.add('addresses', ipBytes(ip)!))
      }
      for (const add of adds) add()
      if (batch.empty) {
        this.#committed.set(family, { ...known, fronts: desired.fronts, clusterIps: now })
        return
      }
      const size = batch.size
      const before = known.generation === undefined ? undefined : await generation(this.#socket)
      await batch.send(this.#socket)
      for (const [key, piece] of next) {
        if (piece === undefined) known.pieces.delete(key)
        else known.pieces.set(key, piece)
      }
      this.#committed.set(family, { ...known, fronts: desired.fronts, hairpin, clusterIps: now, generation: before !== undefined && before === known.generation ? await this.#generationAfter(before) : undefined })
      this.#log.debug('elements written', { family, fronts: next.length, bytes: size })
    } catch (error) {
      made.clear()
      for (const name of wasMade) made.add(name)
      throw error
    }
  }

  /** Everything anew in one transaction; affinity's memory stays. Falls back to a table from nothing. */
  async #refill(family: IpFamily, desired: ServiceTable, refused: Refused[], before: Committed | undefined): Promise<void> {
    for (const manner of ['over what is there', 'from nothing'] as const) {
      const shape = new Shape(family, desired.node)
      const made = new Set<string>()
      const pieces = new Map<string, Piece>()
      const hairpin = new Map<Ip, number>()
      const clusterIps = clusterIpsOf(desired, family)
      const mine: Refused[] = []
      for (const [key, front] of desired.fronts) {
        if (front.family !== family) continue
        const piece = this.#piece(shape, key, desired, before?.pieces.get(key), mine)
        if (piece !== undefined) pieces.set(key, piece)
      }
      const batch = new NftBatch(family, tableName)
      try {
        batch.table()
        if (manner === 'from nothing') batch.deleteTable().table()
        else await this.#empty(family, shape, pieces, batch)
        writeFrame(shape, batch)
        for (const piece of pieces.values()) shape.write(piece.chain, made, batch)
        const adds: (() => void)[] = []
        for (const piece of pieces.values()) diffPiece(undefined, piece, batch, adds, hairpin, new Set())
        // Endpoints before the verdicts that lead to them, should this need several transactions.
        for (const add of adds) {
          add()
          if (batch.size > this.#limit) await batch.send(this.#socket)
        }
        for (const ip of hairpin.keys()) batch.add('hairpin', twice(ip))
        for (const ip of clusterIps) batch.add('addresses', ipBytes(ip)!)
        const size = batch.size
        const count = await generation(this.#socket)
        await batch.send(this.#socket)
        this.#committed.set(family, { shape, fronts: desired.fronts, pieces, made, hairpin, clusterIps, generation: this.#limit === Number.POSITIVE_INFINITY ? await this.#generationAfter(count) : undefined })
        this.#log.debug('table written', { family, fronts: pieces.size, bytes: size, manner })
        refused.push(...mine)
        return
      } catch (error) {
        if (hasCode(error, 'EMSGSIZE') && this.#limit > shortBatch) {
          this.#log.info('the kernel takes no long transactions from us: writing in several', { octets: batch.size })
          this.#limit = shortBatch
          return this.#refill(family, desired, refused, before)
        }
        if (manner === 'from nothing' || isMissing(error)) throw error
        this.#log.warn('the table there cannot be written over; making it anew', { family, error: explainError(error) })
      }
    }
  }

  /** Takes out what the table has of an earlier shape: all rules and elements, and chains and sets that will not be needed. Never the memory of affinity that still counts. */
  async #empty(family: IpFamily, shape: Shape, pieces: ReadonlyMap<string, Piece>, batch: NftBatch): Promise<void> {
    const chains = await chainNames(this.#socket, family, tableName)
    if (chains.length === 0) return
    const wanted = new Set<string>()
    const dry = new NftBatch(family, tableName)
    for (const piece of pieces.values()) shape.write(piece.chain, wanted, dry)
    for (const { name } of shape.frameChains()) wanted.add(name)
    for (const { name } of shape.frameSets()) wanted.add(`set ${name}`)
    batch.deleteRules()
    const sets = await setNames(this.#socket, family, tableName)
    for (const set of sets) if (!set.startsWith('sticky-')) batch.deleteElements(set)
    for (const chain of chains) if (!wanted.has(chain)) batch.deleteChain(chain)
    for (const set of sets) if (!wanted.has(`set ${set}`)) batch.deleteSet(set)
  }

  #piece(shape: Shape, key: string, desired: ServiceTable, before: Piece | undefined, refused: Refused[]): Piece | undefined {
    const front = desired.fronts.get(key)
    if (front === undefined) return undefined
    const piece = shape.piece(front, before)
    if (piece === undefined) refused.push({ front: key, object: `Service ${front.port}`, reason: 'more than two different lists of endpoints for one address' })
    return piece
  }

  async #generationAfter(before: number): Promise<number | undefined> {
    const now = await generation(this.#socket)
    return now === before + 1 ? now : undefined
  }

  async check(): Promise<readonly string[]> {
    const wrong: string[] = []
    for (const [family, known] of this.#committed) {
      const now = await generation(this.#socket)
      // Nobody has changed any rule of this namespace since we did.
      if (known.generation !== undefined && now === known.generation) continue
      const found = await this.#compare(family, known)
      if (found.length === 0) {
        if ((await generation(this.#socket)) === now) known.generation = now
        continue
      }
      wrong.push(...found)
      this.#committed.delete(family)
    }
    return wrong
  }

  async #compare(family: IpFamily, known: Committed): Promise<string[]> {
    const wrong: string[] = []
    const words = (what: string): string => `IPv${family}: ${what}`
    const { shape } = known
    const counts = await ruleCounts(this.#socket, family, tableName)
    const frame = shape.frameChains()
    const chains = new Set(await chainNames(this.#socket, family, tableName))
    if (chains.size === 0) return [words(`table ${tableName} is gone`)]
    for (const name of [...frame.map((c) => c.name), ...[...known.made].filter((n) => !n.includes(' '))]) {
      const want = shape.ruleCount(name)
      if (!chains.has(name)) wrong.push(words(`chain ${name} is gone`))
      else if ((counts.get(name) ?? 0) !== want) wrong.push(words(`chain ${name} has ${counts.get(name) ?? 0} rules, not ${want}`))
    }
    const want = new Map<string, Map<string, string>>(shape.frameSets().map((s) => [s.name, new Map()]))
    for (const piece of known.pieces.values()) {
      want.get(piece.map)!.set(hex(piece.key), `goto ${piece.chain}`)
      for (const { map, slots } of piece.lists) slots.forEach((e, i) => want.get(map)!.set(hex(slotKey(piece.key, i)), hex(endpointData(e))))
    }
    for (const ip of known.hairpin.keys()) want.get('hairpin')!.set(hex(twice(ip)), '')
    for (const ip of known.clusterIps) want.get('addresses')!.set(hex(ipBytes(ip)!), '')
    for (const [set, wanted] of want) {
      const have = await elements(this.#socket, family, tableName, set)
      let missing = 0
      for (const [key, data] of wanted) if (have.get(key) !== data) missing++
      if (missing > 0) wrong.push(words(`${set} lacks ${missing} of ${wanted.size} elements`))
      if (have.size - (wanted.size - missing) > 0) wrong.push(words(`${set} has ${have.size - (wanted.size - missing)} elements that are not ours`))
    }
    return wrong
  }

  async close(): Promise<void> {
    this.#netlink?.close()
    this.#netlink = undefined
  }

  async cleanup(): Promise<void> {
    for (const family of [4, 6] as const) {
      this.#committed.delete(family)
      try {
        // Made first, so that deleting never fails for want of it.
        await new NftBatch(family, tableName).table().deleteTable().send(this.#socket)
      } catch (error) {
        if (!isMissing(error)) throw error
      }
    }
  }
}

function writeFrame(shape: Shape, batch: NftBatch): void {
  for (const spec of shape.frameSets()) batch.set(spec)
  for (const { name, hook, rules } of shape.frameChains()) {
    batch.chain(name, hook)
    for (const rule of rules) batch.rule(name, rule)
  }
}

/** Writes what must go, and keeps for later what must come, to make `after` of `before`; counts endpoints. */
function diffPiece(before: Piece | undefined, after: Piece | undefined, batch: NftBatch, adds: (() => void)[], hairpin: Map<Ip, number>, touched: Set<Ip>): void {
  const lists = new Set([...(before?.lists.map((l) => l.map) ?? []), ...(after?.lists.map((l) => l.map) ?? [])])
  for (const map of lists) {
    const old = before?.lists.find((l) => l.map === map)?.slots ?? []
    const now = after?.lists.find((l) => l.map === map)?.slots ?? []
    const key = (after ?? before)!.key
    for (let i = 0; i < Math.max(old.length, now.length); i++) {
      const was = old[i]
      const is = now[i]
      if (was !== undefined && is !== undefined && was.address === is.address && was.port === is.port) continue
      if (was !== undefined) batch.remove(map, slotKey(key, i))
      if (is !== undefined) adds.push(() => void batch.add(map, slotKey(key, i), endpointData(is)))
    }
  }
  if (before !== undefined && before.chain !== after?.chain) batch.remove(before.map, before.key)
  if (after !== undefined && before?.chain !== after.chain) adds.push(() => void batch.add(after.map, after.key, { goto: after.chain }))
  count(before, -1, hairpin, touched)
  count(after, 1, hairpin, touched)
}

function count(piece: Piece | undefined, by: 1 | -1, hairpin: Map<Ip, number>, touched: Set<Ip>): void {
  for (const list of piece?.lists ?? []) {
    for (const e of new Set<Endpoint>(list.slots)) {
      touched.add(e.address)
      const n = (hairpin.get(e.address) ?? 0) + by
      if (n === 0) hairpin.delete(e.address)
      else hairpin.set(e.address, n)
    }
  }
}

function twice(ip: Ip): Uint8Array {
  const octets = ipBytes(ip)!
  const both = new Uint8Array(octets.length * 2)
  both.set(octets)
  both.set(octets, octets.length)
  return both
}

const hex = (b: Uint8Array): string => Buffer.from(b.buffer, b.byteOffset, b.byteLength).toString('hex')

const clusterIpCache = new WeakMap<ReadonlySet<Ip>, Map<IpFamily, ReadonlySet<Ip>>>()

/** The allocated addresses of one family; the same value for the same table. */
function clusterIpsOf(table: ServiceTable, family: IpFamily): ReadonlySet<Ip> {
  const all = table.node.clusterIps
  let cached = clusterIpCache.get(all)
  if (cached === undefined) clusterIpCache.set(all, (cached = new Map()))
  let own = cached.get(family)
  if (own === undefined) cached.set(family, (own = new Set([...all].filter((ip) => familyOf(ip) === family))))
  return own
}

function wants(table: ServiceTable, family: IpFamily): boolean {
  if (table.node.serviceCidrs.some((c) => familyOf(c) === family)) return true
  for (const front of table.fronts.values()) if (front.family === family) return true
  return false
}

/** Whether the rules made for `a` are those for `b`: allocated addresses are only elements. */
function sameRules(a: NodeFacts, b: NodeFacts): boolean {
  return a === b || (a.masqueradeMark === b.masqueradeMark && JSON.stringify([a.localPods, a.serviceCidrs, a.nodePortAddresses]) === JSON.stringify([b.localPods, b.serviceCidrs, b.nodePortAddresses]))
}

function hasCode(error: unknown, code: string): boolean {
  for (let e = error; e instanceof Error; e = e.cause) if ((e as { code?: string }).code === code) return true
  return false
}

/** Whether the kernel lacks nf_tables for this family. */
const isMissing = (error: unknown): boolean => ['EAFNOSUPPORT', 'EOPNOTSUPP', 'EPROTONOSUPPORT'].some((code) => hasCode(error, code))
