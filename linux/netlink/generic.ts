import type { Netlink } from '../kernel.ts'
import { attributes, eachAttribute, F, messages, textOf, Writer } from './codec.ts'

/** A family of generic netlink, as the kernel numbered it. */
export interface GenericFamily {
  readonly id: number
  readonly version: number
  /** Multicast groups by name. */
  readonly groups: ReadonlyMap<string, number>
}

const CTRL = 16
const GETFAMILY = 3

/** Finds the family called `name`; rejects with ENOENT when the kernel has none (the kernel loads its module by itself where it can). */
export async function genericFamily(netlink: Netlink, name: string): Promise<GenericFamily> {
  const w = new Writer(64)
  const start = w.message(CTRL, F.REQUEST | F.ACK, 1)
  w.word(GETFAMILY | (1 << 8))
    .text(2, name)
    .end(start)
  for (const answer of await netlink.request(w.written)) {
    for (const { body } of messages(answer)) {
      const found = attributes(body, 4)
      const groups = new Map<string, number>()
      for (const [, group] of eachAttribute(found.get(7) ?? Buffer.alloc(0))) {
        const one = attributes(group)
        groups.set(textOf(one.get(1)), one.get(2)?.readUInt32LE() ?? 0)
      }
      return { id: found.get(1)!.readUInt16LE(), version: found.get(3)?.readUInt32LE() ?? 1, groups }
    }
  }
  throw new Error(`generic netlink: no family ${name}`)
}
