import { isConflict, isNotFound } from '../../kube/client.ts'
import type { Node } from '../../kube/objects.ts'
import { nodes } from '../../kube/resources.ts'
import { contains, formatCidr, fromBigInt, network, toBigInt, type Network } from '../../lib/ip.ts'
import type { Controller } from './controller.ts'

/** Gives each Node its part of the ranges of Pods. */
export const podCidrs: Controller = {
  name: 'podcidrs',
  component: 'cidrAllocator',
  start({ client, cluster, queue, events, options, signal, log }) {
    const all = cluster.of(nodes)
    const ranges = options.clusterCIDRs.map((text) => network(text)).filter((n) => n !== undefined)
    const work = queue('podcidrs', sync)
    const waiting = new Set<string>()
    // What was given away and is not yet seen: a watch that lags must not make us give it twice.
    const given = new Map<string, { readonly uid: string | undefined; readonly podCIDRs: readonly string[] }>()
    all.on((now, before) => {
      const name = (now ?? before)!.metadata.name
      if (now === undefined || cidrsOf(now).length > 0 || now.metadata.uid !== given.get(name)?.uid) given.delete(name)
      if (now !== undefined && cidrsOf(now).length === 0) work.add(now.metadata.name)
      // A node that goes leaves its part to one that waits.
      if (now === undefined && before !== undefined) for (const other of waiting) work.add(other)
    })

    async function sync(name: string): Promise<void> {
      const node = all.objects.get(name)
      waiting.delete(name)
      if (node === undefined || cidrsOf(node).length > 0) return
      const taken = [...all.objects.values()].flatMap(cidrsOf)
      for (const [other, { podCIDRs: theirs }] of given) if (other !== name) taken.push(...theirs)
      // An answer that was lost may have been a yes: the same again.
      const podCIDRs: string[] = [...(given.get(name)?.podCIDRs ?? [])]
      for (const range of podCIDRs.length > 0 ? [] : ranges) {
        const bits = range.family === 4 ? (options.nodeCidrMaskSize ?? 24) : (options.nodeCidrMaskSizeIPv6 ?? 64)
        const part = freePart(range, bits, taken)
        if (part === undefined) {
          waiting.add(name)
          events.event(node, 'Warning', 'CIDRNotAvailable', `Node ${name} status is now: CIDRNotAvailable`)
          log.warn('no part of the range of Pods is left for a node', { node: name, range: formatCidr(range), bits })
          return
        }
        podCIDRs.push(part)
      }
      if (podCIDRs.length === 0) return
      given.set(name, { uid: node.metadata.uid, podCIDRs })
      try {
        // Only this very node; the API refuses to change ranges once there are some.
        await client.patch(nodes, name, undefined, { metadata: { uid: node.metadata.uid }, spec: { podCIDR: podCIDRs[0], podCIDRs } }, 'merge', { signal })
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error
        given.delete(name)
        work.addAfter(name, 20)
      }
    }
  },
}

function cidrsOf(node: Node): readonly string[] {
  return node.spec?.podCIDRs ?? (node.spec?.podCIDR === undefined ? [] : [node.spec.podCIDR])
}

/** The first part of `bits` in `range` that does not touch any of `taken`; undefined when there is none. */
export function freePart(range: Network, bits: number, taken: readonly string[]): string | undefined {
  if (bits < range.bits) return undefined
  const width = range.family === 4 ? 32 : 128
  const step = 1n << BigInt(width - bits)
  const base = toBigInt(range.bytes)
  const end = base + (1n << BigInt(width - range.bits))
  const busy = taken.map((text) => network(text)).filter((n) => n !== undefined && n.family === range.family) as readonly Network[]
  // Node after node the first free one is near the end of what is taken; a range of a few thousand parts is walked in no time.
  const starts = new Map(busy.map((n) => [toBigInt(n.bytes), n] as const))
  for (let at = base; at < end; at += step) {
    if (starts.has(at)) continue
    const bytes = fromBigInt(at, width / 8)
    if (bytes === undefined) return undefined
    const part: Network = { family: range.family, bytes, bits }
    if (busy.some((n) => overlaps(n, part))) continue
    return formatCidr(part)
  }
  return undefined
}

function overlaps(a: Network, b: Network): boolean {
  return contains(a, b.bytes) || contains(b, a.bytes)
}
