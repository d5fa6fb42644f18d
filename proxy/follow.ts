import { networkInterfaces } from 'node:os'
import { explainError, silent } from '../lib/log.ts'
import { trace as traceIptables, type Machine as IptablesMachine } from '../linux/iptables/trace.ts'
import type { Kernel, NftObject } from '../linux/kernel.ts'
import { Ipvs } from '../linux/netlink/ipvs.ts'
import { addresses } from '../linux/netlink/route.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { listTable } from '../linux/nftables/listing.ts'
import { trace as traceNftables, type Balanced, type Machine as NftablesMachine } from '../linux/nftables/trace.ts'
import { paperKernel } from '../linux/paper.ts'
import { realKernel, run } from '../linux/real.ts'
import type { Packet, Way } from '../linux/trace.ts'
import { modeNames } from './options.ts'
import type { Endpoint, ServiceTable } from './table.ts'

/** One set of rules, as the tools or the kernel print them. */
export type Rules = { readonly name: string; readonly source: 'rendered' | 'live' } & (
  | { readonly kind: 'iptables'; readonly machines: Readonly<Record<4 | 6, IptablesMachine>> }
  /** `listeners`: endpoints behind each socket of the userspace mode, by `address port`. */
  | { readonly kind: 'nftables'; readonly machine: NftablesMachine; readonly listeners?: ReadonlyMap<string, readonly Endpoint[]> }
  | { readonly kind: 'nothing'; readonly error: string }
)

/** What a set of rules does with a packet. */
export interface Followed {
  readonly name: string
  /** From the rules as rendered, or as this machine's kernel has them. */
  readonly source: 'rendered' | 'live'
  readonly ways: readonly Way[]
  readonly error: string | undefined
}

/** Follows a packet through rules; what they are made of that cannot be followed is the error. */
export function follow(rules: Rules, packet: Packet): Followed {
  const { name, source } = rules
  try {
    if (rules.kind === 'nothing') throw new Error(rules.error)
    if (rules.kind === 'iptables') return { name, source, ways: traceIptables(rules.machines[packet.family], packet), error: undefined }
    const ways = traceNftables(rules.machine, packet)
    return { name, source, ways: rules.listeners === undefined ? ways : handedOn(ways, rules.listeners, packet.protocol), error: undefined }
  } catch (error) {
    return { name, source, ways: [], error: explainError(error) }
  }
}

/** The rules of the modes (default: all four) for `table`, on a machine with these addresses. */
export async function rendered(table: ServiceTable, local: readonly string[], modes: readonly string[] = modeNames): Promise<readonly Rules[]> {
  const made = { nftables, iptables, ipvs, userspace } as const
  return Promise.all(
    Object.entries(made)
      .filter(([name]) => modes.includes(name))
      .map(async ([name, make]): Promise<Rules> => {
        try {
          return await make(table, local)
        } catch (error) {
          return { name, source: 'rendered', kind: 'nothing', error: explainError(error) }
        }
      }),
  )
}

const forever = new AbortController().signal

// Each backend writes onto paper, and the tracer reads what stands there: what a renderer gets wrong shows.

async function nftables(table: ServiceTable, local: readonly string[]): Promise<Rules> {
  const kernel = paperKernel(local)
  await (await import('./nftables/backend.ts')).create({ kernel, log: silent }).apply(table, forever)
  return { name: 'nftables', source: 'rendered', kind: 'nftables', machine: { objects: kernel.nftables(), local } }
}

async function iptables(table: ServiceTable, local: readonly string[]): Promise<Rules> {
  const [{ print }, { render }] = await Promise.all([import('./iptables/print.ts'), import('./iptables/render.ts')])
  return { name: 'iptables', source: 'rendered', kind: 'iptables', machines: { 4: { ...print(render(table, 4)), local }, 6: { ...print(render(table, 6)), local } } }
}

async function ipvs(table: ServiceTable, local: readonly string[]): Promise<Rules> {
  const kernel = paperKernel(local)
  const backend = await (await import('./ipvs/backend.ts')).create({ kernel, log: silent })
  await backend.apply(table, forever)
  const rules = { name: 'ipvs', source: 'rendered', kind: 'nftables', machine: { objects: kernel.nftables(), servers: await serversOf(kernel), local: await boundOf(kernel, local) } } as const
  await backend.close()
  return rules
}

async function userspace(table: ServiceTable, local: readonly string[]): Promise<Rules> {
  const [{ plan }, { createRules, listenAddress, Redirected }] = await Promise.all([import('./userspace/plan.ts'), import('./userspace/redirect.ts')])
  const { fronts } = plan(table)
  const ports = new Map<string, number>()
  const listeners = new Map<string, readonly Endpoint[]>()
  // The process opens a socket each; on paper they are numbered.
  for (const f of fronts.values())
    for (const l of f.listeners) {
      const port = 32_768 + (ports.size % 28_000)
      ports.set(l.key, port)
      listeners.set(`${l.protocol.toLowerCase()} ${listenAddress[l.family]} ${port}`, l.to)
    }
  const kernel = paperKernel(local)
  await createRules({ kernel, log: silent }).apply(new Redirected().table(table, fronts, ports), forever)
  return { name: 'userspace', source: 'rendered', kind: 'nftables', machine: { objects: kernel.nftables(), local: [...local, ...Object.values(listenAddress)] }, listeners }
}

async function serversOf(kernel: Kernel): Promise<readonly Balanced[]> {
  const netlink = kernel.netlink('generic')
  try {
    const of = await Ipvs.open(netlink)
    const out: Balanced[] = []
    for (const server of await of.servers()) out.push({ server, to: await of.destinations(server) })
    return out
  } finally {
    netlink.close()
  }
}

async function boundOf(kernel: Kernel, local: readonly string[]): Promise<readonly string[]> {
  const netlink = kernel.netlink('route')
  try {
    return [...new Set([...local, ...(await addresses(netlink)).map((a) => a.address)])]
  } finally {
    netlink.close()
  }
}

/** From a socket of the userspace mode to its endpoints. */
function handedOn(ways: readonly Way[], listeners: ReadonlyMap<string, readonly Endpoint[]>, protocol: string): readonly Way[] {
  return ways.flatMap((w) => {
    const to = w.end === 'delivered' ? listeners.get(`${protocol} ${w.destination} ${w.destinationPort}`) : undefined
    if (to === undefined) return [w]
    const step = { table: 'process', chain: `${protocol} ${w.destination}:${w.destinationPort}`, rule: `takes the connection and makes one to an endpoint of ${to.length}` }
    return to.map((e): Way => ({ ...w, probability: w.probability / to.length, destination: e.address, destinationPort: e.port, masqueraded: true, path: [...w.path, step] }))
  })
}

/** Everything this machine's kernel has that may move a Service's packet, whoever wrote it. */
export async function liveRules(family: 4 | 6): Promise<readonly Rules[]> {
  const own = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((a) => a.address))
  const out: Rules[] = []
  for (const variant of ['nf_tables', 'legacy'] as const) {
    const kernel = realKernel({ iptables: variant })
    const save = (f: 4 | 6): Promise<string> =>
      f === family
        ? kernel
            .iptables(f)
            .save(['nat', 'filter'])
            .catch(() => '')
        : Promise.resolve('')
    const rules = { 4: await save(4), 6: await save(6) }
    if (!rules[family].includes('\n-A ')) continue
    const sets = await kernel.ipset.save().catch(() => '')
    out.push({ name: `iptables (${variant})`, source: 'live', kind: 'iptables', machines: { 4: { rules: rules[4], sets, local: own }, 6: { rules: rules[6], sets, local: own } } })
  }
  const kernel = realKernel({ openNetlink })
  const servers = await serversOf(kernel).catch(() => [])
  const objects = await nftTables(kernel)
  if (servers.length > 0) out.push({ name: 'ipvs', source: 'live', kind: 'nftables', machine: { objects, servers, local: await boundOf(kernel, own) } })
  else if (objects.some((o) => 'rule' in o)) out.push({ name: 'nftables', source: 'live', kind: 'nftables', machine: { objects, local: own } })
  return out
}

/** All tables but those that iptables keeps in nf_tables, by `nft`; without it ours, by netlink. */
async function nftTables(kernel: Kernel): Promise<readonly NftObject[]> {
  try {
    const all = (JSON.parse(await run('nft', ['-j', 'list', 'ruleset'])) as { nftables: NftObject[] }).nftables
    const tableOf = (o: NftObject): string => {
      const f = Object.values(o)[0] as { readonly family?: string; readonly table?: string; readonly name?: string }
      return `${f.family} ${f.table ?? f.name}`
    }
    // A match or target of iptables is not told in nft's words.
    const foreign = new Set(all.filter((o) => 'rule' in o && JSON.stringify(o).includes('"xt"')).map(tableOf))
    return all.filter((o) => !foreign.has(tableOf(o)))
  } catch {
    const netlink = kernel.netlink('netfilter')
    try {
      const out: NftObject[] = []
      for (const table of ['switchyard', 'switchyard-userspace']) for (const family of [4, 6] as const) out.push(...(await listTable(netlink, family, table)))
      return out
    } catch {
      return []
    } finally {
      netlink.close()
    }
  }
}
