import { bare, type Answer, type Handler, type Query } from '../../answer.ts'
import type { Cluster, ClusterZone } from '../../cluster.ts'
import { isReverse, serverName, undashed } from '../../compile.ts'
import { setOf, type Node, type RecordSet } from '../../table.ts'
import { addressData, addressType, soaData, txtData } from '../../wire/data.ts'
import { labelsBefore, nameEnd, within, type Name } from '../../wire/name.ts'
import type { Rec } from '../../wire/message.ts'
import { Class, Rcode, Type } from '../../wire/types.ts'

/** Zones whose names that do not exist here go on to the next handler. */
export type Fallthrough = readonly Name[]

/** Most CNAMEs in a row. */
const longestChain = 10

/** What the zone says of a name, before aliases are followed. */
export type Finding =
  | { readonly kind: 'records'; readonly set: RecordSet; readonly why: string }
  | { readonly kind: 'alias'; readonly set: RecordSet; readonly why: string }
  | { readonly kind: 'nodata'; readonly why: string }
  | { readonly kind: 'nxdomain'; readonly why: string }

/** Answers for Services and Pods from the table of records. */
export class KubernetesHandler implements Handler {
  readonly name = 'kubernetes'
  readonly manner = 'folds'
  readonly cluster: Cluster
  readonly zone: ClusterZone
  readonly fallthrough: Fallthrough
  /** Longest first. */
  readonly zones: readonly Name[]

  constructor(cluster: Cluster, zone: ClusterZone, fallthrough: Fallthrough) {
    this.cluster = cluster
    this.zone = zone
    this.fallthrough = fallthrough
    this.zones = [...zone.settings.zones, ...zone.settings.reverse].toSorted((a, b) => b.length - a.length)
  }

  /** Whether a name that does not exist goes on. */
  falls(name: Name): boolean {
    return this.fallthrough.some((zone) => within(name, zone))
  }

  /** The zone of ours that a name lies in. */
  zoneOf(name: Name): Name | undefined {
    return this.zones.find((zone) => within(name, zone))
  }

  async answer(query: Query, next: (query?: Query) => Promise<Answer>): Promise<Answer> {
    const apex = this.zoneOf(query.name)
    if (apex === undefined) return next()
    const found = this.find(query.name, query.type, apex)
    if (found.kind === 'nxdomain') {
      // Until everything was read once, nobody can say what does not exist.
      if (!this.cluster.complete) return bare(Rcode.SERVFAIL, this.name, 'the objects of the cluster have not been read yet', [this.soa(apex)])
      if (this.falls(query.name)) return next()
    }
    if (found.kind === 'alias') return this.#follow(query, apex, found)
    return this.finish(query.name, apex, found)
  }

  /** The answer that needs nobody else: what is compiled for the hot path too. */
  finish(name: Name, apex: Name, found: Exclude<Finding, { kind: 'alias' }>): Answer {
    switch (found.kind) {
      case 'records':
        return { rcode: Rcode.NOERROR, authoritative: true, answers: this.records(name, found.set), authority: [], additional: this.#additional(found.set), by: this.name, why: found.why }
      case 'nodata':
        return bare(Rcode.NOERROR, this.name, found.why, [this.soa(apex)], true)
      case 'nxdomain':
        return bare(Rcode.NXDOMAIN, this.name, found.why, [this.soa(apex)], true)
    }
  }

  /** What the table says of a folded name in the zone `apex`. */
  find(name: Name, type: number, apex: Name): Finding {
    const { table, settings } = this.zone
    const node = table.get(name) ?? this.#insecurePod(name, apex)
    if (node === undefined) return { kind: 'nxdomain', why: 'no such name' }
    if (name === apex && type === Type.SOA) return { kind: 'records', set: { type: Type.SOA, ttl: settings.ttl, data: [this.soa(apex).data] }, why: 'apex of the zone' }
    // Reverse zones are shared with others: what only stands between our names is not ours.
    if (node.sets.length === 0 && name !== apex && isReverse(apex) && this.falls(name)) return { kind: 'nxdomain', why: 'no such address' }
    const set = setOf(node, type)
    if (set !== undefined) return { kind: 'records', set, why: 'exists' }
    const alias = setOf(node, Type.CNAME)
    if (alias !== undefined) {
      if (type === Type.ANY) return { kind: 'records', set: alias, why: 'an alias' }
      return { kind: 'alias', set: alias, why: 'an alias' }
    }
    // RFC 8482: something small, that exists.
    if (type === Type.ANY) return { kind: 'records', set: anySet(settings.ttl), why: 'all records are not given at once (RFC 8482)' }
    return { kind: 'nodata', why: node.sets.length === 0 ? 'the name exists only because of names below it' : 'the name exists, but has no record of this type' }
  }

  /** In mode `insecure` every address has a name in every namespace. */
  #insecurePod(name: Name, apex: Name): Node | undefined {
    const { settings, table } = this.zone
    if (settings.pods !== 'insecure' || isReverse(apex)) return undefined
    const labels = labelsBefore(name, apex)
    if (labels.length !== 3 || labels[2] !== 'pod') return undefined
    const address = undashed(labels[0]!)
    if (address === undefined || table.get(name.slice(labels[0]!.length + 1) as Name) === undefined) return undefined
    const data = addressData(address)!
    return { size: 1, sets: [{ type: addressType(data), ttl: settings.ttl, data: [data] }] }
  }

  records(name: Name, set: RecordSet): Rec[] {
    return set.data.map((data) => ({ name, type: set.type, class: Class.IN, ttl: set.ttl, data }))
  }

  /** Addresses of the names that SRV and NS records point at. */
  #additional(set: RecordSet): Rec[] {
    if (set.type !== Type.SRV && set.type !== Type.NS) return []
    const out: Rec[] = []
    const at = set.type === Type.SRV ? 6 : 0
    for (const target of new Set(set.data.map((data) => data.slice(at, nameEnd(data, at)) as Name))) {
      const node = this.zone.table.get(target)
      for (const s of node?.sets ?? []) if (s.type === Type.A || s.type === Type.AAAA) out.push(...this.records(target, s))
    }
    return out
  }

  /** The SOA record of a zone; its serial is the time of the last change. */
  soa(apex: Name): Rec {
    const { settings, table } = this.zone
    const home = isReverse(apex) ? (settings.zones[0] ?? apex) : apex
    const data = soaData({ mname: serverName(settings, apex), rname: `\x0ahostmaster${home}` as Name, serial: table.serial, refresh: 7200, retry: 1800, expire: 86_400, minimum: settings.ttl })
    return { name: apex, type: Type.SOA, class: Class.IN, ttl: settings.ttl, data }
  }

  /** The alias first, then what its target answers, ours or not. The last name of the chain decides about the rcode (RFC 6604). */
  async #follow(query: Query, apex: Name, found: Extract<Finding, { kind: 'alias' }>): Promise<Answer> {
    const alias = this.records(query.name, found.set)
    const target = found.set.data[0]! as Name
    const chain = [...query.chain, query.name]
    if (chain.includes(target) || chain.length > longestChain) return { ...bare(Rcode.NOERROR, this.name, 'the aliases lead back to themselves', [this.soa(apex)], true), loops: true }
    const rest = await query.lookup(target, query.type, chain)
    if (rest.loops === true) return { ...bare(Rcode.NOERROR, this.name, 'the aliases lead back to themselves', [this.soa(apex)], true), loops: true }
    const known = rest.rcode === Rcode.NOERROR || rest.rcode === Rcode.NXDOMAIN
    return {
      rcode: known ? rest.rcode : Rcode.SERVFAIL,
      authoritative: true,
      answers: [...alias, ...rest.answers],
      authority: rest.answers.length === 0 ? rest.authority : [],
      additional: [],
      ...(rest.truncated === undefined ? {} : { truncated: rest.truncated }),
      by: this.name,
      why: `${found.why}; its target: ${rest.why ?? ''}`,
    }
  }
}

/** The answer to ANY that says as little as can be (RFC 8482 4.2). */
export function anySet(ttl: number): RecordSet {
  return { type: Type.HINFO, ttl, data: [txtData('RFC8482', '')] }
}
