import { formatIp, ipBytes, type Ip, type IpFamily } from '../lib/ip.ts'
import type { Netlink } from './kernel.ts'
import { attributes, F, messages, Writer } from './netlink/codec.ts'
import { NetlinkError } from './netlink/socket.ts'

/** One connection as connection tracking keeps it. */
export interface Tracked {
  readonly family: IpFamily
  /** 6 TCP, 17 UDP, 132 SCTP. */
  readonly protocol: number
  /** As its first packet was sent. */
  readonly original: Tuple
  /** As answers come: its source is where the packet really went. */
  readonly reply: Tuple
  /** The original tuple and the entry's number, in the kernel's form: what deletes exactly this entry. */
  readonly key: { readonly tuple: Buffer; readonly id: Buffer | undefined }
}

/** Addresses and ports of one direction. */
export interface Tuple {
  readonly source: Ip
  readonly sourcePort: number
  readonly destination: Ip
  readonly destinationPort: number
}

/** What entries to look at: of one protocol, and perhaps only those first sent to this address or port. */
export interface TrackedFilter {
  readonly family: IpFamily
  readonly protocol: number
  readonly destination?: Ip
  readonly destinationPort?: number
}

// linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
const CT_GET = 0x0101
const CT_DELETE = 0x0102
const CTA_TUPLE_ORIG = 1
const CTA_TUPLE_REPLY = 2
const CTA_ID = 12
const CTA_FILTER = 25
const CTA_FILTER_ORIG_FLAGS = 1
const CTA_FILTER_REPLY_FLAGS = 2
const CTA_TUPLE_IP = 1
const CTA_TUPLE_PROTO = 2
const CTA_PROTO_NUM = 1
const CTA_PROTO_SRC_PORT = 2
const CTA_PROTO_DST_PORT = 3
const [byDestination, byProtocol, byDestinationPort] = [2, 8, 32]

const nfFamily = (family: IpFamily): number => (family === 4 ? 2 : 10)

/** Entries that fit `filter`. The kernel filters where it can; whatever it sends is filtered again. */
export async function tracked(netlink: Netlink, filter: TrackedFilter): Promise<readonly Tracked[]> {
  let answers: readonly Uint8Array[]
  try {
    answers = await netlink.request(getMessage(filter, true))
  } catch (error) {
    // Before 5.8 there are no filters.
    if (!(error instanceof NetlinkError)) throw error
    answers = await netlink.request(getMessage(filter, false))
  }
  const out: Tracked[] = []
  for (const answer of answers) {
    for (const { type, body } of messages(answer)) {
      if (type >> 8 !== 1) continue
      const entry = readEntry(body, filter.family)
      if (entry === undefined || entry.protocol !== filter.protocol) continue
      if (filter.destination !== undefined && entry.original.destination !== filter.destination) continue
      if (filter.destinationPort !== undefined && entry.original.destinationPort !== filter.destinationPort) continue
      out.push(entry)
    }
  }
  return out
}

/** Deletes exactly these entries; tells how many were still there. */
export async function untrack(netlink: Netlink, entries: readonly Tracked[]): Promise<number> {
  let deleted = 0
  for (let from = 0; from < entries.length; from += 64) {
    const part = entries.slice(from, from + 64)
    const w = new Writer()
    part.forEach(({ family, key }, i) => {
      const start = w.message(CT_DELETE, F.REQUEST | F.ACK, i + 1)
      w.word(nfFamily(family))
      w.data(CTA_TUPLE_ORIG | 0x8000, key.tuple)
      if (key.id !== undefined) w.data(CTA_ID, key.id)
      w.end(start)
    })
    try {
      await netlink.request(w.written)
      deleted += part.length
    } catch (error) {
      // ENOENT: it ended by itself meanwhile.
      if (!(error instanceof NetlinkError) || error.failures.some((f) => f.errno !== 2)) throw error
      deleted += part.length - error.failures.length
    }
  }
  return deleted
}

function getMessage({ family, protocol, destination, destinationPort }: TrackedFilter, filtered: boolean): Buffer {
  const w = new Writer()
  const start = w.message(CT_GET, F.REQUEST | F.DUMP, 1)
  w.word(nfFamily(family))
  if (filtered) {
    const tuple = w.nest(CTA_TUPLE_ORIG)
    if (destination !== undefined) {
      const ip = w.nest(CTA_TUPLE_IP)
      // CTA_IP_V4_DST, CTA_IP_V6_DST
      w.data(family === 4 ? 2 : 4, ipBytes(destination)!)
      w.unnest(ip)
    }
    const proto = w.nest(CTA_TUPLE_PROTO)
    w.u8(CTA_PROTO_NUM, protocol)
    if (destinationPort !== undefined) w.u16Be(CTA_PROTO_DST_PORT, destinationPort)
    w.unnest(proto)
    w.unnest(tuple)
    const flags = w.nest(CTA_FILTER)
    w.u32(CTA_FILTER_ORIG_FLAGS, byProtocol | (destination === undefined ? 0 : byDestination) | (destinationPort === undefined ? 0 : byDestinationPort))
    w.u32(CTA_FILTER_REPLY_FLAGS, 0)
    w.unnest(flags)
  }
  w.end(start)
  return w.written
}

function readEntry(body: Buffer, family: IpFamily): Tracked | undefined {
  const all = attributes(body, 4)
  const [tuple, back] = [all.get(CTA_TUPLE_ORIG), all.get(CTA_TUPLE_REPLY)]
  const original = tuple && readTuple(tuple)
  const reply = back && readTuple(back)
  if (tuple === undefined || original === undefined || reply === undefined) return undefined
  return { family, protocol: original.protocol, original, reply, key: { tuple, id: all.get(CTA_ID) } }
}

function readTuple(b: Buffer): (Tuple & { readonly protocol: number }) | undefined {
  const parts = attributes(b)
  const ip = parts.get(CTA_TUPLE_IP)
  const proto = parts.get(CTA_TUPLE_PROTO)
  if (ip === undefined || proto === undefined) return undefined
  const ips = attributes(ip)
  const ports = attributes(proto)
  const [source, destination] = [ips.get(1) ?? ips.get(3), ips.get(2) ?? ips.get(4)]
  if (source === undefined || destination === undefined) return undefined
  return {
    protocol: ports.get(CTA_PROTO_NUM)?.[0] ?? 0,
    source: formatIp(source),
    destination: formatIp(destination),
    sourcePort: ports.get(CTA_PROTO_SRC_PORT)?.readUInt16BE(0) ?? 0,
    destinationPort: ports.get(CTA_PROTO_DST_PORT)?.readUInt16BE(0) ?? 0,
  }
}
