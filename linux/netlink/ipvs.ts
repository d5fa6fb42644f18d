import { formatIp, ipBytes, type Ip } from '../../lib/ip.ts'
import type { Netlink } from '../kernel.ts'
import { attributes, F, messages, textOf, Writer } from './codec.ts'
import { genericFamily } from './generic.ts'

/** What identifies a virtual server: where packets go, or the mark they carry. */
export type VirtualAt = { readonly protocol: 'TCP' | 'UDP' | 'SCTP'; readonly address: Ip; readonly port: number } | { readonly mark: number; readonly family: 4 | 6 }

/** A virtual server of the kernel. */
export type VirtualServer = VirtualAt & {
  readonly scheduler: string
  /** Seconds a client keeps its destination; 0: none. */
  readonly persistence: number
  /** Flags of the scheduler: `sh-port`, `mh-port`, `sh-fallback`, `mh-fallback`. */
  readonly schedulerFlags: number
}

/** A destination of a virtual server; connections are masqueraded to it. */
export interface Destination {
  readonly address: Ip
  readonly port: number
  /** 0: existing connections go on, new ones go elsewhere. */
  readonly weight: number
}

/** A destination as the kernel reports it. */
export interface DestinationState extends Destination {
  readonly active: number
  readonly inactive: number
  readonly persistent: number
}

/** The scheduler's second flag: source port counts in `sh` and `mh`. */
export const SCHEDULER_PORT = 0x10
/** The scheduler's first flag: skip destinations of weight 0. */
export const SCHEDULER_FALLBACK = 0x08

const CMD = { NEW_SERVICE: 1, SET_SERVICE: 2, DEL_SERVICE: 3, GET_SERVICE: 4, NEW_DEST: 5, SET_DEST: 6, DEL_DEST: 7, GET_DEST: 8, SET_CONFIG: 12, FLUSH: 17 } as const
const numbers = { TCP: 6, UDP: 17, SCTP: 132 } as const
const protocols: Readonly<Record<number, 'TCP' | 'UDP' | 'SCTP'>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' }

// The kernel handles a batch inside one `send`; this keeps its acknowledgements below the default receive buffer.
const batch = 24 * 1024

/** A failed command of a batch: what it was, and the errno's name. */
export interface IpvsFailure {
  readonly what: string
  readonly code: string
}

/** IPVS of one network namespace, spoken by generic netlink. Changes are collected and go in batches with `flush`. */
export class Ipvs {
  readonly #netlink: Netlink
  readonly #family: number
  readonly #writer = new Writer(64 * 1024)
  #names: string[] = []
  #failures: IpvsFailure[] = []

  private constructor(netlink: Netlink, family: number) {
    this.#netlink = netlink
    this.#family = family
  }

  /** Rejects with ENOENT when the kernel has no IPVS (it loads the module by itself where there is one and the process may). */
  static async open(netlink: Netlink): Promise<Ipvs> {
    return new Ipvs(netlink, (await genericFamily(netlink, 'IPVS')).id)
  }

  /** All virtual servers. */
  async servers(): Promise<VirtualServer[]> {
    const found: VirtualServer[] = []
    for (const body of await this.#dump(CMD.GET_SERVICE)) {
      const has = attributes(attributes(body, 4).get(1)!)
      const family = has.get(1)!.readUInt16LE()
      const mark = has.get(5)?.readUInt32LE() ?? 0
      const protocol = protocols[has.get(2)?.readUInt16LE() ?? 0]
      if (mark === 0 && protocol === undefined) continue
      const at: VirtualAt = mark !== 0 || protocol === undefined ? { mark, family: family === 2 ? 4 : 6 } : { protocol, address: addressOf(has.get(3)!, family), port: has.get(4)!.readUInt16BE() }
      const flags = has.get(7)?.readUInt32LE() ?? 0
      found.push({ ...at, scheduler: textOf(has.get(6)), persistence: (flags & 1) === 0 ? 0 : (has.get(8)?.readUInt32LE() ?? 0), schedulerFlags: flags & 0x38 })
    }
    return found
  }

  async destinations(of: VirtualAt): Promise<DestinationState[]> {
    const found: DestinationState[] = []
    for (const body of await this.#dump(CMD.GET_DEST, of)) {
      const has = attributes(attributes(body, 4).get(2)!)
      const family = has.get(11)?.readUInt16LE() ?? (familyOf(of) === 4 ? 2 : 10)
      const number = (type: number): number => has.get(type)?.readUInt32LE() ?? 0
      found.push({ address: addressOf(has.get(1)!, family), port: has.get(2)!.readUInt16BE(), weight: number(4), active: number(7), inactive: number(8), persistent: number(9) })
    }
    return found
  }

  async add(server: VirtualServer): Promise<void> {
    await this.#command(CMD.NEW_SERVICE, server, undefined, `add ${name(server)}`)
  }

  async change(server: VirtualServer): Promise<void> {
    await this.#command(CMD.SET_SERVICE, server, undefined, `change ${name(server)}`)
  }

  async remove(server: VirtualAt): Promise<void> {
    await this.#command(CMD.DEL_SERVICE, server, undefined, `remove ${name(server)}`)
  }

  async addDestination(of: VirtualAt, to: Destination): Promise<void> {
    await this.#command(CMD.NEW_DEST, of, to, `add ${name(of)} → ${to.address}:${to.port}`)
  }

  async changeDestination(of: VirtualAt, to: Destination): Promise<void> {
    await this.#command(CMD.SET_DEST, of, to, `change ${name(of)} → ${to.address}:${to.port}`)
  }

  async removeDestination(of: VirtualAt, to: Destination): Promise<void> {
    await this.#command(CMD.DEL_DEST, of, to, `remove ${name(of)} → ${to.address}:${to.port}`)
  }

  /** Sends what was collected; gives every command the kernel refused since the last call. */
  async flush(): Promise<readonly IpvsFailure[]> {
    await this.#send()
    return this.#failures.splice(0)
  }

  /** Seconds until connections are forgotten; 0 leaves one as it is. */
  async timeouts(t: { readonly tcp: number; readonly tcpFin: number; readonly udp: number }): Promise<void> {
    const w = this.#writer
    const start = this.#begin(CMD.SET_CONFIG, F.REQUEST | F.ACK, 'timeouts')
    w.u32(4, t.tcp).u32(5, t.tcpFin).u32(6, t.udp).end(start)
    await this.#send()
  }

  async #dump(command: number, of?: VirtualAt): Promise<Buffer[]> {
    await this.#send()
    const w = new Writer(256)
    const start = w.message(this.#family, F.REQUEST | F.DUMP, 1)
    w.word(command | (1 << 8))
    if (of !== undefined) writeServer(w, of)
    w.end(start)
    return (await this.#netlink.request(w.written)).flatMap((a) => [...messages(a)].map((m) => m.body))
  }

  async #command(command: number, server: VirtualServer | VirtualAt, to: Destination | undefined, what: string): Promise<void> {
    const start = this.#begin(command, F.REQUEST | F.ACK, what)
    writeServer(this.#writer, server)
    if (to !== undefined) writeDestination(this.#writer, to, command !== CMD.DEL_DEST)
    this.#writer.end(start)
    if (this.#writer.at > batch) await this.#send()
  }

  #begin(command: number, flags: number, what: string): number {
    const start = this.#writer.message(this.#family, flags, this.#names.length)
    this.#names.push(what)
    this.#writer.word(command | (1 << 8))
    return start
  }

  async #send(): Promise<void> {
    if (this.#writer.at === 0) return
    const names = this.#names
    try {
      await this.#netlink.request(this.#writer.written)
    } catch (error) {
      const failures = (error as { failures?: readonly { sequence: number; errno: number }[]; code?: string }).failures
      if (failures === undefined) throw error
      for (const f of failures) this.#failures.push({ what: names[f.sequence] ?? '?', code: codeOf(f.errno) })
    } finally {
      this.#writer.reset()
      this.#names = []
    }
  }
}

const codes: Readonly<Record<number, string>> = { 1: 'EPERM', 2: 'ENOENT', 3: 'ESRCH', 12: 'ENOMEM', 17: 'EEXIST', 22: 'EINVAL', 93: 'EPROTONOSUPPORT', 97: 'EAFNOSUPPORT' }
const codeOf = (errno: number): string => codes[Math.abs(errno)] ?? `errno ${Math.abs(errno)}`

const name = (v: VirtualAt): string => ('mark' in v ? `mark ${v.mark}` : `${v.protocol} ${v.address}:${v.port}`)
const familyOf = (v: VirtualAt): 4 | 6 => ('mark' in v ? v.family : v.address.includes(':') ? 6 : 4)

function writeServer(w: Writer, v: VirtualServer | VirtualAt): void {
  const four = familyOf(v) === 4
  const nest = w.nest(1)
  w.u16(1, four ? 2 : 10)
  if ('mark' in v) w.u32(5, v.mark)
  else
    w.u16(2, numbers[v.protocol])
      .data(3, room(ipBytes(v.address)!))
      .u16Be(4, v.port)
  if ('scheduler' in v) {
    // Flags, and a mask of those meant: without it `persistent` could not be taken back.
    const flags = Buffer.alloc(8)
    flags.writeUInt32LE((v.persistence > 0 ? 1 : 0) | v.schedulerFlags, 0)
    flags.writeUInt32LE(0x39, 4)
    w.text(6, v.scheduler)
      .data(7, flags)
      .u32(8, v.persistence)
      .u32(9, four ? 0xffff_ffff : 128)
  }
  w.unnest(nest)
}

function writeDestination(w: Writer, to: Destination, whole: boolean): void {
  const octets = ipBytes(to.address)!
  const nest = w.nest(2)
  w.data(1, room(octets)).u16Be(2, to.port)
  if (whole) w.u32(3, 0 /* masquerade */).u32(4, to.weight).u32(5, 0).u32(6, 0)
  w.u16(11, octets.length === 4 ? 2 : 10).unnest(nest)
}

/** union nf_inet_addr: 16 octets, an IPv4 address in the first four. */
function room(octets: Uint8Array): Uint8Array {
  if (octets.length === 16) return octets
  const whole = new Uint8Array(16)
  whole.set(octets)
  return whole
}

function addressOf(octets: Buffer, family: number): Ip {
  return formatIp(octets.subarray(0, family === 2 ? 4 : 16))
}
