import { formatIp, ipBytes, type Ip } from '../../lib/ip.ts'
import type { Netlink } from '../kernel.ts'
import { attributes, F, messages, textOf, Writer } from './codec.ts'

/** A network device. */
export interface Link {
  readonly index: number
  readonly name: string
  readonly up: boolean
  /** `veth`, `bridge`, `dummy`…; empty for devices without a kind. */
  readonly kind: string
  readonly loopback: boolean
}

/** An address of a device. */
export interface LinkAddress {
  readonly index: number
  readonly address: Ip
  readonly bits: number
  /** `global`, `link` or `host`. */
  readonly scope: 'global' | 'link' | 'host'
}

/** A route to a unicast destination. */
export interface Route {
  readonly destination: string
  readonly gateway: Ip | undefined
  readonly index: number | undefined
  readonly table: number
}

const RTM = { NEWLINK: 16, DELLINK: 17, GETLINK: 18, NEWADDR: 20, DELADDR: 21, GETADDR: 22, NEWROUTE: 24, DELROUTE: 25, GETROUTE: 26 } as const
const AF = { 4: 2, 6: 10 } as const

/** All devices of the namespace. */
export async function links(netlink: Netlink): Promise<Link[]> {
  const w = new Writer(64)
  const start = w.message(RTM.GETLINK, F.REQUEST | F.DUMP, 1)
  w.word(0).word(0).word(0).word(0).end(start)
  const found: Link[] = []
  for (const { type, body } of await answers(netlink, w)) {
    if (type !== RTM.NEWLINK) continue
    const has = attributes(body, 16)
    const flags = body.readUInt32LE(8)
    const info = has.get(18)
    found.push({ index: body.readInt32LE(4), name: textOf(has.get(3)), up: (flags & 1) !== 0, loopback: (flags & 8) !== 0, kind: info === undefined ? '' : textOf(attributes(info).get(1)) })
  }
  return found
}

/** All addresses of the namespace, of one family or both. */
export async function addresses(netlink: Netlink, family?: 4 | 6): Promise<LinkAddress[]> {
  const w = new Writer(64)
  const start = w.message(RTM.GETADDR, F.REQUEST | F.DUMP, 1)
  w.word(family === undefined ? 0 : AF[family])
    .word(0)
    .end(start)
  const found: LinkAddress[] = []
  for (const { type, body } of await answers(netlink, w)) {
    if (type !== RTM.NEWADDR) continue
    const has = attributes(body, 8)
    // IFA_LOCAL is ours; on point-to-point links IFA_ADDRESS is the other end's.
    const octets = has.get(2) ?? has.get(1)
    if (octets === undefined) continue
    const scope = body[3]!
    found.push({ index: body.readUInt32LE(4), address: formatIp(octets), bits: body[1]!, scope: scope >= 254 ? 'host' : scope >= 253 ? 'link' : 'global' })
  }
  return found
}

/** Unicast routes of one family. */
export async function routes(netlink: Netlink, family: 4 | 6): Promise<Route[]> {
  const w = new Writer(64)
  const start = w.message(RTM.GETROUTE, F.REQUEST | F.DUMP, 1)
  w.word(AF[family]).word(0).word(0).end(start)
  const found: Route[] = []
  for (const { type, body } of await answers(netlink, w)) {
    if (type !== RTM.NEWROUTE || body[7] !== 1) continue
    const has = attributes(body, 12)
    const to = has.get(1)
    const gateway = has.get(5)
    found.push({
      destination: `${to === undefined ? (family === 4 ? '0.0.0.0' : '::') : formatIp(to)}/${body[1]}`,
      gateway: gateway === undefined ? undefined : formatIp(gateway),
      index: has.get(4)?.readUInt32LE(),
      table: has.get(15)?.readUInt32LE() ?? body[4]!,
    })
  }
  return found
}

/** Makes a device of `kind` (`dummy`, `bridge`) and brings it up; fine when there is one by that name. Rejects with EOPNOTSUPP when the kernel has no such kind. */
export async function ensureLink(netlink: Netlink, name: string, kind: string): Promise<number> {
  const w = new Writer(256)
  const there = (await links(netlink)).find((l) => l.name === name)
  if (there === undefined) {
    const start = w.message(RTM.NEWLINK, F.REQUEST | F.ACK | F.CREATE | F.EXCL, 1)
    w.word(0).word(0).word(0).word(0).text(3, name)
    const info = w.nest(18)
    w.text(1, kind).unnest(info).end(start)
    await netlink.request(w.written)
  }
  const index = there?.index ?? (await links(netlink)).find((l) => l.name === name)!.index
  if (there?.up !== true) {
    const up = w.reset().message(RTM.NEWLINK, F.REQUEST | F.ACK, 2)
    w.word(0).word(index).word(1).word(1).end(up)
    await netlink.request(w.written)
  }
  return index
}

/** Removes a device; fine when there is none. */
export async function removeLink(netlink: Netlink, name: string): Promise<void> {
  const there = (await links(netlink)).find((l) => l.name === name)
  if (there === undefined) return
  const w = new Writer(64)
  const start = w.message(RTM.DELLINK, F.REQUEST | F.ACK, 1)
  w.word(0).word(there.index).word(0).word(0).end(start)
  await netlink.request(w.written)
}

/** Adds and removes host addresses (/32, /128) of a device, many in one datagram. Those already there, or already gone, are fine. */
export async function changeAddresses(netlink: Netlink, index: number, change: { readonly add?: Iterable<Ip>; readonly remove?: Iterable<Ip> }): Promise<void> {
  const w = new Writer(64 * 1024)
  let sequence = 0
  const flush = async (): Promise<void> => {
    if (w.at === 0) return
    const batch = w.written
    await netlink.request(batch).catch((error: unknown) => {
      const failures = (error as { failures?: readonly { errno: number }[] }).failures
      // EEXIST 17, EADDRNOTAVAIL 99.
      if (failures === undefined || !failures.every((f) => f.errno === -17 || f.errno === -99)) throw error
    })
    w.reset()
  }
  const put = async (type: number, address: Ip): Promise<void> => {
    const octets = ipBytes(address)!
    const start = w.message(type, F.REQUEST | F.ACK | (type === RTM.NEWADDR ? F.CREATE | F.REPLACE : 0), ++sequence)
    // NODAD: nobody else on the link may have it, and IPv6 would wait a second. NOPREFIXROUTE spares a route each.
    w.word(AF[octets.length === 4 ? 4 : 6] | ((octets.length * 8) << 8) | (0x02 << 16))
      .word(index)
      .data(2, octets)
      .data(1, octets)
    if (octets.length === 16) w.u32(8, 0x202)
    w.end(start)
    if (w.at > 24 * 1024) await flush()
  }
  for (const address of change.remove ?? []) await put(RTM.DELADDR, address)
  for (const address of change.add ?? []) await put(RTM.NEWADDR, address)
  await flush()
}

async function answers(netlink: Netlink, w: Writer) {
  return (await netlink.request(w.written)).flatMap((a) => [...messages(a)])
}
