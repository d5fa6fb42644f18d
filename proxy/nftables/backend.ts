import { explainError, type Log } from '../../lib/log.ts'
import { familyOf, ipBytes, type Ip, type IpFamily } from '../../lib/ip.ts'
import type { Kernel, Netlink } from '../../linux/kernel.ts'
import { chainNames, Digest, digest, generation, holds, NftBatch, ruleCounts, setNames } from '../../linux/netlink/nftables.ts'
import type { Backend } from '../backend.ts'
import type { Endpoint, NodeFacts, Refused, ServiceTable } from '../table.ts'
import { endpointData, endpointMap, keyOf, Shape, slotKey, verdictMap, type Forwarder, type Piece } from './shape.ts'

/** What this backend works with. */
export interface NftablesOptions {
  readonly kernel: Kernel
  readonly log: Log
  /** Another mode's forwarder, whose packets these rules only refuse, drop and mark. */
  readonly forwarder?: Forwarder
  /** Our table's name, one in each family. Default `switchyard`. */
  readonly table?: string
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

// Services up to which a check compares every element.
const mostListed = 2000

class NftablesBackend implements Backend {
  readonly name = 'nftables'
  readonly #kernel: Kernel
  readonly #log: Log
  readonly #committed = new Map<IpFamily, Committed>()
  #netlink: Netlink | undefined
  readonly #forwarder: Forwarder | undefined
  readonly #table: string
  #limit = Number.POSITIVE_INFINITY

  constructor({ kernel, log, forwarder, table }: NftablesOptions) {
    this.#table = table ?? 'switchyard'
    this.#kernel = kernel
    this.#log = log
    this.#forwarder = forwarder
  }

  get #socket(): Netlink {
    return (this.#netlink ??= this.#kernel.netlink('netfilter'))
  }

  async probe(): Promise<string | undefined> {
    // Everything the shape needs, made and deleted within one transaction: nobody ever sees it.
    const facts: NodeFacts = {
      name: '',
      localPods: { kind: 'none' },
      clusterCidrs: [],
      serviceCidrs: [],
      clusterIps: new Set(),
      nodePortAddresses: 'all',
      masqueradeAll: false,
      masqueradeMark: 0x4000,
    }
    const shape = new Shape(4, facts, this.#forwarder)
    const to = [{ address: '192.0.2.1' as Ip, port: 1, local: false }]
    const common = {
      protocol: 'TCP',
      family: 4,
      sources: 'any',
      scheduler: undefined,
      port: 'probe/probe:',
      routes: [
        { from: 'this node', outcome: { kind: 'forward', to }, masquerade: 'always' },
        { from: 'anyone', outcome: { kind: 'forward', to }, masquerade: 'hairpin only' },
      ],
    } as const
    const piece = shape.piece({ ...common, at: { address: '192.0.2.2' as Ip, port: 1, kind: 'cluster' }, affinity: 10 }, undefined)!
    try {
      const batch = new NftBatch(4, `${this.#table}-probe`)
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
    const { shape, pieces } = known
    const changes: { readonly key: string; readonly before: Piece | undefined; readonly after: Piece | undefined }[] = []
    if (known.fronts !== desired.fronts) {
      let seen = 0
      for (const [key, front] of desired.fronts) {
        const before = pieces.get(key)
        if (before !== undefined) seen++
        if (before?.front !== front && front.family === family) changes.push({ key, before, after: this.#piece(shape, key, desired, before, refused) })
      }
      if (seen < pieces.size) for (const [key, before] of pieces) if (!desired.fronts.has(key)) changes.push({ key, before, after: undefined })
    }
    const batch = new NftBatch(family, this.#table)
    for (const { after } of changes) if (after !== undefined) shape.write(after.chain, known.made, batch)
    // Out first, then in: one key may do both.
    const change = new Map<Ip, number>()
    for (const { before, after } of changes) {
      remove(before, after, batch, shape)
      countEndpoints(before, -1, change)
      countEndpoints(after, 1, change)
    }
    const met = [...change].filter(([, by]) => by !== 0).map(([ip, by]) => ({ ip, had: known.hairpin.get(ip) ?? 0, has: (known.hairpin.get(ip) ?? 0) + by }))
    const now = shape.addressesIn(desired)
    for (const { ip, had, has } of met) if (had > 0 && has === 0) batch.remove('hairpin', twice(ip))
    if (known.clusterIps !== now) for (const ip of known.clusterIps) if (!now.has(ip)) batch.remove('addresses', ipBytes(ip)!)
    for (const { before, after } of changes) add(before, after, batch, shape)
    for (const { ip, had, has } of met) if (had === 0 && has > 0) batch.add('hairpin', twice(ip))
    if (known.clusterIps !== now) for (const ip of now) if (!known.clusterIps.has(ip)) batch.add('addresses', ipBytes(ip)!)

    let latest = known.generation
    if (!batch.empty) {
      const before = latest === undefined ? undefined : await generation(this.#socket)
      await batch.send(this.#socket)
      latest = before !== undefined && before === known.generation ? await this.#generationAfter(before) : undefined
    }
    for (const { key, after } of changes) {
      if (after === undefined) pieces.delete(key)
      else pieces.set(key, after)
    }
    for (const { ip, has } of met) {
      if (has === 0) known.hairpin.delete(ip)
      else known.hairpin.set(ip, has)
    }
    this.#committed.set(family, { ...known, fronts: desired.fronts, clusterIps: now, generation: latest })
  }

  /** Everything anew in one transaction; affinity's memory stays. Falls back to a table from nothing. */
  async #refill(family: IpFamily, desired: ServiceTable, refused: Refused[], before: Committed | undefined): Promise<void> {
    for (const manner of ['over what is there', 'from nothing'] as const) {
      const shape = new Shape(family, desired.node, this.#forwarder)
      const made = new Set<string>()
      const pieces = new Map<string, Piece>()
      const hairpin = new Map<Ip, number>()
      const clusterIps = shape.addressesIn(desired)
      const mine: Refused[] = []
      for (const [key, front] of desired.fronts) {
        if (front.family !== family) continue
        const piece = this.#piece(shape, key, desired, before?.pieces.get(key), mine)
        if (piece !== undefined) pieces.set(key, piece)
      }
      const batch = new NftBatch(family, this.#table)
      try {
        batch.table()
        if (manner === 'from nothing') batch.deleteTable().table()
        else await this.#empty(family, shape, pieces, batch)
        writeFrame(shape, batch)
        for (const piece of pieces.values()) shape.write(piece.chain, made, batch)
        for (const piece of pieces.values()) {
          add(undefined, piece, batch, shape)
          countEndpoints(piece, 1, hairpin)
          if (batch.size > this.#limit) await batch.send(this.#socket)
        }
        for (const ip of hairpin.keys()) {
          batch.add('hairpin', twice(ip))
          if (batch.size > this.#limit) await batch.send(this.#socket)
        }
        for (const ip of clusterIps) {
          batch.add('addresses', ipBytes(ip)!)
          if (batch.size > this.#limit) await batch.send(this.#socket)
        }
        const size = batch.size
        const count = await generation(this.#socket)
        await batch.send(this.#socket)
        this.#committed.set(family, {
          shape,
          fronts: desired.fronts,
          pieces,
          made,
          hairpin,
          clusterIps,
          generation: this.#limit === Number.POSITIVE_INFINITY ? await this.#generationAfter(count) : undefined,
        })
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
    const chains = await chainNames(this.#socket, family, this.#table)
    if (chains.length === 0) return
    const wanted = new Set<string>()
    const dry = new NftBatch(family, this.#table)
    for (const piece of pieces.values()) shape.write(piece.chain, wanted, dry)
    for (const { name } of shape.frameChains()) wanted.add(name)
    for (const { name } of shape.frameSets()) wanted.add(`set ${name}`)
    batch.deleteRules()
    const sets = await setNames(this.#socket, family, this.#table)
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
    const counts = await ruleCounts(this.#socket, family, this.#table)
    const frame = shape.frameChains()
    const chains = new Set(await chainNames(this.#socket, family, this.#table))
    if (chains.size === 0) return [words(`table ${this.#table} is gone`)]
    for (const name of [...frame.map((c) => c.name), ...[...known.made].filter((n) => !n.includes(' '))]) {
      const want = shape.ruleCount(name)
      if (!chains.has(name)) wrong.push(words(`chain ${name} is gone`))
      else if ((counts.get(name) ?? 0) !== want) wrong.push(words(`chain ${name} has ${counts.get(name) ?? 0} rules, not ${want}`))
    }
    // The kernel lists a set in time that grows with the square of its size: of large ones, a sample.
    if (known.pieces.size > mostListed) {
      const pieces = [...known.pieces.values()]
      const sample = Array.from({ length: 100 }, () => pieces[Math.floor(Math.random() * pieces.length)]!)
      for (const map of ['services', 'ports'] as const) {
        const keys = sample.filter((p) => verdictMap(p.front) === map).map((p) => keyOf(p.front).slice())
        if (keys.length > 0 && !(await holds(this.#socket, family, this.#table, map, keys))) wrong.push(words(`${map} lacks elements of ours`))
      }
      for (const list of shape.forwarder === undefined ? [0, 1] : []) {
        for (const node of [true, false]) {
          const some = sample.filter((p) => p.lists[list] !== undefined && 'nodePort' in p.front.at === node)
          if (
            some.length > 0 &&
            !(await holds(
              this.#socket,
              family,
              this.#table,
              endpointMap(some[0]!.front, list),
              some.map((p) => (keyOf(p.front), slotKey(p.front, 0).slice())),
            ))
          )
            wrong.push(words(`${endpointMap(some[0]!.front, list)} lacks elements of ours`))
        }
      }
      return wrong
    }
    const want = new Map(shape.frameSets().map((spec) => [spec.name, new Digest()]))
    for (const { front, chain, lists } of known.pieces.values()) {
      want.get(verdictMap(front))!.add(keyOf(front), chain)
      if (shape.forwarder === undefined)
        lists.forEach((slots, list) => {
          const digest = want.get(endpointMap(front, list))!
          slots.forEach((e, i) => digest.add(slotKey(front, i), endpointData(e, front.family)))
        })
    }
    for (const ip of known.hairpin.keys()) want.get('hairpin')!.add(twice(ip), '')
    for (const ip of known.clusterIps) want.get('addresses')!.add(ipBytes(ip)!, '')
    for (const [set, wanted] of want) {
      const have = await digest(this.#socket, family, this.#table, set)
      if (have.count !== wanted.count) wrong.push(words(`${set} has ${have.count} elements, not ${wanted.count}`))
      else if (!have.equals(wanted)) wrong.push(words(`${set} has other elements than ours`))
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
        // The table of the mode nftables has the same name, and holds endpoints: it is not what another forwarder left.
        if (this.#forwarder !== undefined && (await setNames(this.#socket, family, this.#table)).includes('endpoints')) continue
        // Made first, so that deleting never fails for want of it.
        await new NftBatch(family, this.#table).table().deleteTable().send(this.#socket)
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

/** Writes the elements that must go, to make `after` of `before`. */
function remove(before: Piece | undefined, after: Piece | undefined, batch: NftBatch, shape: Shape): void {
  if (before === undefined) return
  const { front } = before
  const key = keyOf(front)
  if (before.chain !== after?.chain) batch.remove(verdictMap(front), key)
  if (shape.forwarder === undefined)
    before.lists.forEach((slots, list) => {
      const now = after?.lists[list] ?? []
      const map = endpointMap(front, list)
      for (let i = 0; i < slots.length; i++) if (!same(slots[i], now[i])) batch.remove(map, slotKey(front, i))
    })
}

/** Writes the elements that must come; endpoints before the verdict that leads to them. */
function add(before: Piece | undefined, after: Piece | undefined, batch: NftBatch, shape: Shape): void {
  if (after === undefined) return
  const { front } = after
  const key = keyOf(front)
  if (shape.forwarder === undefined)
    after.lists.forEach((slots, list) => {
      const old = before?.lists[list] ?? []
      const map = endpointMap(front, list)
      for (let i = 0; i < slots.length; i++) if (!same(slots[i], old[i])) batch.add(map, slotKey(front, i), endpointData(slots[i]!, front.family))
    })
  if (before?.chain !== after.chain) batch.add(verdictMap(front), key, { goto: after.chain })
}

const same = (a: Endpoint | undefined, b: Endpoint | undefined): boolean => a === b || (a !== undefined && b !== undefined && a.address === b.address && a.port === b.port)

function countEndpoints(piece: Piece | undefined, by: 1 | -1, counts: Map<Ip, number>): void {
  for (const slots of piece?.lists ?? []) for (const e of piece!.front.affinity === undefined ? slots : new Set(slots)) counts.set(e.address, (counts.get(e.address) ?? 0) + by)
}

function twice(ip: Ip): Uint8Array {
  const octets = ipBytes(ip)!
  const both = new Uint8Array(octets.length * 2)
  both.set(octets)
  both.set(octets, octets.length)
  return both
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
