import { parseDocument } from 'yaml'
import { nth, network, parseCidr, type Cidr, type Ip } from '../lib/ip.ts'
import { suggest, UsageError } from '../lib/options.ts'

/** One machine of the lab. */
export interface LabNode {
  readonly name: string
  /** On the LAN. */
  readonly address: Ip
  /** Its IPv6 address there, in a lab of both families. */
  readonly address6: Ip | undefined
  readonly zone: string | undefined
  /** The proxy mode of this node, where it differs from the lab's. */
  readonly mode: string | undefined
}

/** A machine on the LAN that is no part of the cluster: where people and other programs connect from. */
export interface LabClient {
  readonly name: string
  readonly address: Ip
  readonly address6: Ip | undefined
}

/**
 * What lies between the nodes. `bridge`: a switch, over which nodes send each other's Pods packets by routes of their own. `routes`: a router that knows
 * every node's range of Pods, a link of its own for each node. `vxlan`: the same router, but one that knows no Pods; their packets go in VXLAN from node to node.
 */
export const networks = ['bridge', 'routes', 'vxlan'] as const
export type Network = (typeof networks)[number]

/** A way out of the lab in user mode, and the program it is made by. */
export const uplinks = ['pasta', 'slirp4netns'] as const
export type Uplink = (typeof uplinks)[number]

/** The lab as data: everything that is decided before anything runs. */
export interface Topology {
  readonly name: string
  readonly nodes: readonly LabNode[]
  /** Outside the cluster, on the same LAN. */
  readonly clients: readonly LabClient[]
  readonly network: Network
  readonly uplink: Uplink | undefined
  /** One network of each family. */
  readonly lan: readonly Cidr[]
  /** The addresses of the holder on the LAN: the world outside the cluster. */
  readonly outside: readonly Ip[]
  readonly serviceRanges: readonly string[]
  readonly podRanges: readonly string[]
  /** The tenth address of the first service range. */
  readonly clusterDns: Ip
  readonly clusterDomain: string
  readonly mode: string
  readonly sockets: string
  readonly apiPort: number
}

/** What may be chosen; the rest follows. */
export interface TopologyOptions {
  readonly name?: string
  readonly nodes?: number | readonly { readonly name: string; readonly zone?: string; readonly mode?: string }[]
  readonly mode?: string
  readonly sockets?: string
  readonly serviceRange?: string
  readonly podRange?: string
  /** IPv6 beside IPv4, for nodes, Pods and Services. */
  readonly dualStack?: boolean
  readonly network?: Network
  /** Names of the clients outside, or how many. */
  readonly clients?: number | readonly string[]
  readonly uplink?: Uplink
}

/** A topology file: the same, and what is published. */
export interface TopologyFile extends TopologyOptions {
  readonly publish: readonly string[]
}

/** The ways a proxy can forward. */
export const modes = ['userspace', 'iptables', 'ipvs', 'nftables'] as const

/** Nodes take the addresses from .11 on; private, and inside the range VirtualBox allows, so that the same topology runs in virtual machines. */
const lan = { 4: '192.168.56.0/24' as Cidr, 6: 'fd00:192:168:56::/64' as Cidr }
const services = { 4: '10.96.0.0/16', 6: 'fd00:10:96::/112' }
const pods = { 4: '10.244.0.0/16', 6: 'fd00:10:244::/56' }
const mostNodes = 200
/** Clients take the addresses from .2 on, below the nodes'. */
const mostClients = 9

/** A name of the DNS. */
const nameForm = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/** The topology that `options` ask for. */
export function topology(options: TopologyOptions = {}): Topology {
  const name = options.name ?? 'default'
  if (!/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name)) throw new UsageError(`a lab is named by up to 32 small letters, digits and dashes, not "${name}"`)
  const wanted = options.nodes ?? 3
  const list = typeof wanted === 'number' ? Array.from({ length: wanted }, (_, i) => ({ name: `node${i + 1}` })) : wanted
  if (list.length < 1 || list.length > mostNodes || (typeof wanted === 'number' && !Number.isInteger(wanted)))
    throw new UsageError(`a lab has 1 to ${mostNodes} nodes, not ${typeof wanted === 'number' ? wanted : list.length}`)
  const names = list.map((n) => n.name)
  for (const [i, n] of names.entries()) {
    if (!nameForm.test(n) || n === 'outside') throw new UsageError(`"${n}" cannot be the name of a node`)
    if (names.indexOf(n) !== i) throw new UsageError(`two nodes are called "${n}"`)
  }
  const asked = options.clients ?? 0
  const clients = typeof asked === 'number' ? Array.from({ length: asked }, (_, i) => `client${i + 1}`) : asked
  if (clients.length > mostClients) throw new UsageError(`a lab has at most ${mostClients} clients, not ${clients.length}`)
  for (const [i, n] of clients.entries())
    if (!nameForm.test(n) || n === 'outside' || names.includes(n) || clients.indexOf(n) !== i)
      throw new UsageError(`"${n}" cannot be the name of a client: names are small letters and digits, each once`)
  const families = options.dualStack === true ? ([4, 6] as const) : ([4] as const)
  const serviceRanges = families.map((f) => (f === 4 ? (options.serviceRange ?? services[4]) : services[6]))
  const at = (family: 4 | 6, place: number): Ip => nth(network(lan[family])!, place)!
  return {
    name,
    lan: families.map((f) => lan[f]),
    outside: families.map((f) => at(f, 1)),
    serviceRanges,
    podRanges: families.map((f) => (f === 4 ? (options.podRange ?? pods[4]) : pods[6])),
    clusterDns: nth(network(serviceRanges[0]!)!, 10)!,
    clusterDomain: 'cluster.local',
    mode: options.mode ?? 'iptables',
    sockets: options.sockets ?? 'auto',
    apiPort: 6443,
    nodes: list.map((n: { name: string; zone?: string; mode?: string }, i) => ({
      name: n.name,
      address: at(4, 11 + i),
      address6: options.dualStack === true ? at(6, 11 + i) : undefined,
      zone: n.zone,
      mode: n.mode,
    })),
    clients: clients.map((n, i) => ({ name: n, address: at(4, 2 + i), address6: options.dualStack === true ? at(6, 2 + i) : undefined })),
    network: options.network ?? 'bridge',
    uplink: options.uplink,
  }
}

const fields: Readonly<Record<string, (value: unknown) => string | undefined>> = {
  name: (v) => (typeof v === 'string' ? undefined : 'a name'),
  nodes: (v) => (typeof v === 'number' || (Array.isArray(v) && v.length > 0) ? undefined : 'a number, or a list of nodes'),
  mode: oneOf(modes),
  sockets: oneOf(['auto', 'epoll', 'node']),
  serviceRange: range,
  podRange: range,
  network: oneOf(networks),
  clients: (v) => (typeof v === 'number' || (Array.isArray(v) && v.every((n) => typeof n === 'string')) ? undefined : 'a number, or a list of names'),
  uplink: oneOf(uplinks),
  dualStack: (v) => (typeof v === 'boolean' ? undefined : 'true or false'),
  publish: (v) => (Array.isArray(v) && v.every((p) => typeof p === 'string') ? undefined : 'a list such as ["8080:ingress"]'),
}
const nodeFields: typeof fields = { name: fields.name!, zone: fields.name!, mode: oneOf(modes) }

/** Reads a topology file; throws with the file, the field and what was expected. */
export function parseTopology(text: string, file: string): TopologyFile {
  const document = parseDocument(text)
  const [error] = document.errors
  if (error !== undefined) throw new UsageError(`${file}: ${error.message}`)
  const value: unknown = document.toJS() ?? {}
  check(value, fields, file, '')
  const { nodes, publish } = value as { readonly nodes?: unknown; readonly publish?: readonly string[] }
  if (Array.isArray(nodes))
    nodes.forEach((node, i) => {
      check(node, nodeFields, file, `nodes[${i}].`)
      if ((node as { name?: unknown }).name === undefined) throw new UsageError(`${file}: nodes[${i}].name: expected a name`)
    })
  return { ...(value as TopologyOptions), publish: publish ?? [] }
}

function check(value: unknown, known: typeof fields, file: string, path: string): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new UsageError(`${file}: ${path === '' ? 'the file' : path.slice(0, -1)}: expected fields`)
  for (const [name, given] of Object.entries(value)) {
    const wanted = Object.hasOwn(known, name) ? known[name] : undefined
    if (wanted === undefined) throw new UsageError(`${file}: ${path}${name}: no such field${suggest(name, Object.keys(known), '')}; there are ${Object.keys(known).join(', ')}`)
    const expected = wanted(given)
    if (expected !== undefined) throw new UsageError(`${file}: ${path}${name}: expected ${expected}, got ${JSON.stringify(given)}`)
  }
}

function oneOf(words: readonly string[]): (value: unknown) => string | undefined {
  return (v) => (typeof v === 'string' && words.includes(v) ? undefined : `one of ${words.join(', ')}`)
}

function range(v: unknown): string | undefined {
  return typeof v === 'string' && !v.includes(':') && parseCidr(v) !== undefined ? undefined : 'a network such as 10.96.0.0/16'
}
