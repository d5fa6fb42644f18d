import { formatIp, ipBytes, parseIp, type Ip } from '../lib/ip.ts'
import type { Kernel, Netlink, NftObject } from './kernel.ts'
import { attributes, messages, textOf, Writer } from './netlink/codec.ts'
import { Listing } from './nftables/listing.ts'

/** A kernel that only notes what it is told: nf_tables, virtual servers and addresses by netlink; what it noted can be asked back, as from the real one. */
export interface PaperKernel extends Kernel {
  /** What `nft -j list ruleset` would print. */
  nftables(): readonly NftObject[]
}

/** `own`: addresses that the machine has. */
export function paperKernel(own: readonly string[]): PaperKernel {
  const listing = new Listing()
  const servers = new PaperServers()
  const route = new PaperRoute(own)
  const nobody = async (): Promise<never> => {
    throw new Error('a tool cannot be run on paper')
  }
  const sockets: Readonly<Record<string, (message: Uint8Array) => readonly Uint8Array[]>> = {
    netfilter: (message) => netfilter(listing, message),
    generic: (message) => servers.request(message),
    route: (message) => route.request(message),
  }
  const sysctls = new Map<string, string>()
  return {
    nftables: () => listing.objects(),
    iptables: () => ({ restore: nobody, save: nobody, variant: async () => 'nf_tables' }),
    nft: { run: nobody, list: async () => [...listing.objects()] },
    ipset: { restore: nobody, save: nobody },
    netlink: (protocol): Netlink => ({ request: async (message) => sockets[protocol]!(message), close: () => {} }),
    sysctl: { get: async (name) => sysctls.get(name) ?? '', set: async (name, value) => void sysctls.set(name, value) },
  }
}

const GETGEN = 16

function netfilter(listing: Listing, message: Uint8Array): readonly Uint8Array[] {
  const first = [...messages(message)][0]
  if (first?.type === ((10 << 8) | GETGEN)) return [answer((10 << 8) | 15, (w) => void w.word(0).u32Be(1, 1))]
  // A dump; nothing was there before.
  if (first !== undefined && (first.flags & 0x300) === 0x300) return []
  // What is under way lives in a buffer that is used again.
  listing.add(Buffer.from(message))
  return []
}

function answer(type: number, body: (w: Writer) => void): Uint8Array {
  const w = new Writer(256)
  const start = w.message(type, 2, 1)
  body(w)
  w.end(start)
  return w.written
}

const IPVS = 40

/** Virtual servers by generic netlink, as they were said. */
class PaperServers {
  readonly #servers = new Map<string, { readonly said: Buffer; readonly destinations: Map<string, Buffer> }>()

  request(message: Uint8Array): readonly Uint8Array[] {
    const out: Uint8Array[] = []
    for (const { type, body } of messages(Buffer.from(message))) {
      if (type !== IPVS) out.push(answer(type, (w) => void w.word(0).u16(1, IPVS).u32(3, 1)))
      else out.push(...this.#command(body))
    }
    return out
  }

  #command(body: Buffer): readonly Uint8Array[] {
    const has = attributes(body, 4)
    const server = has.get(1)
    const to = has.get(2)
    const key = server === undefined ? '' : idOf(server, [1, 2, 3, 4, 5])
    const known = this.#servers.get(key)
    const one = (kind: number, said: Buffer): Uint8Array => answer(IPVS, (w) => void w.word(0).data(kind, said))
    switch (body[0]) {
      case 1:
      case 2:
        this.#servers.set(key, { said: Buffer.from(server!), destinations: known?.destinations ?? new Map() })
        return []
      case 3:
        this.#servers.delete(key)
        return []
      case 4:
        return [...this.#servers.values()].map(({ said }) => one(1, said))
      case 5:
      case 6:
        known?.destinations.set(idOf(to!, [1, 2]), Buffer.from(to!))
        return []
      case 7:
        known?.destinations.delete(idOf(to!, [1, 2]))
        return []
      case 8:
        return [...(known?.destinations.values() ?? [])].map((said) => one(2, said))
      default:
        return []
    }
  }
}

function idOf(nest: Buffer, types: readonly number[]): string {
  const has = attributes(nest)
  return types.map((t) => has.get(t)?.toString('hex') ?? '').join(' ')
}

/** Devices and addresses. */
class PaperRoute {
  readonly #links: string[] = ['lo', 'eth0']
  readonly #addresses = new Map<string, number>()

  constructor(own: readonly string[]) {
    for (const text of own) {
      const ip = parseIp(text)
      if (ip !== undefined) this.#addresses.set(ip, ip.startsWith('127.') || ip === '::1' ? 1 : 2)
    }
  }

  request(message: Uint8Array): readonly Uint8Array[] {
    const out: Uint8Array[] = []
    for (const { type, body } of messages(Buffer.from(message))) {
      if (type === 16) {
        const name = textOf(attributes(body, 16).get(3))
        if (name !== '' && !this.#links.includes(name)) this.#links.push(name)
      } else if (type === 18) {
        this.#links.forEach((name, i) =>
          out.push(
            answer(
              16,
              (w) =>
                void w
                  .word(0)
                  .word(i + 1)
                  .word(1)
                  .word(0)
                  .text(3, name),
            ),
          ),
        )
      } else if (type === 20 || type === 21) {
        const ip = formatIp(attributes(body, 8).get(2)!)
        if (type === 20) this.#addresses.set(ip, body.readUInt32LE(4))
        else this.#addresses.delete(ip)
      } else if (type === 22) for (const [ip, index] of this.#addresses) out.push(addressed(ip as Ip, index))
    }
    return out
  }
}

function addressed(ip: Ip, index: number): Uint8Array {
  const octets = ip.includes(':') ? 16 : 4
  return answer(20, (w) => {
    w.word((octets === 4 ? 2 : 10) | ((octets * 8) << 8)).word(index)
    w.data(2, ipBytes(ip)!)
  })
}
