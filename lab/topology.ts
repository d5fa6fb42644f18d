import { parseDocument } from 'yaml'
import { nth, network, parseCidr, type Cidr, type Ip } from '../lib/ip.ts'
import { suggest, UsageError } from '../lib/options.ts'

/** One machine of the lab. */
export interface LabNode {
  readonly name: string
  /** On the LAN. */
  readonly address: Ip
  readonly zone: string | undefined
  /** The proxy mode of this node, where it differs from the lab's. */
  readonly mode: string | undefined
}

/** The lab as data: everything that is decided before anything runs. */
export interface Topology {
  readonly name: string
  readonly nodes: readonly LabNode[]
  readonly lan: Cidr
  /** The address of the holder on the LAN: the world outside the cluster. */
  readonly outside: Ip
  readonly serviceRange: string
  readonly podRange: string
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
}

/** A topology file: the same, and what is published. */
export interface TopologyFile extends TopologyOptions {
  readonly publish: readonly string[]
}

/** The ways a proxy can forward. */
export const modes = ['userspace', 'iptables', 'ipvs', 'nftables'] as const

/** Nodes take the addresses from .11 on; private, and inside the range VirtualBox allows, so that the same topology runs in virtual machines. */
const lan = '192.168.56.0/24' as Cidr
const usualServiceRange = '10.96.0.0/16'
const mostNodes = 200

/** The topology that `options` ask for. */
export function topology(options: TopologyOptions = {}): Topology {
  const name = options.name ?? 'default'
  if (!/^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/.test(name)) throw new UsageError(`a lab is named by up to 32 small letters, digits and dashes, not "${name}"`)
  const wanted = options.nodes ?? 3
  const list = typeof wanted === 'number' ? Array.from({ length: wanted }, (_, i) => ({ name: `node${i + 1}` })) : wanted
  if (list.length < 1 || list.length > mostNodes || (typeof wanted === 'number' && !Number.isInteger(wanted))) throw new UsageError(`a lab has 1 to ${mostNodes} nodes, not ${typeof wanted === 'number' ? wanted : list.length}`)
  const names = list.map((n) => n.name)
  for (const [i, n] of names.entries()) {
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(n) || n === 'outside') throw new UsageError(`"${n}" cannot be the name of a node`)
    if (names.indexOf(n) !== i) throw new UsageError(`two nodes are called "${n}"`)
  }
  const serviceRange = options.serviceRange ?? usualServiceRange
  const at = network(lan)!
  return {
    name,
    lan,
    outside: nth(at, 1)!,
    serviceRange,
    podRange: options.podRange ?? '10.244.0.0/16',
    clusterDns: nth(network(serviceRange)!, 10)!,
    clusterDomain: 'cluster.local',
    mode: options.mode ?? 'iptables',
    sockets: options.sockets ?? 'auto',
    apiPort: 6443,
    nodes: list.map((n: { name: string; zone?: string; mode?: string }, i) => ({ name: n.name, address: nth(at, 11 + i)!, zone: n.zone, mode: n.mode })),
  }
}

const fields: Readonly<Record<string, (value: unknown) => string | undefined>> = {
  name: (v) => (typeof v === 'string' ? undefined : 'a name'),
  nodes: (v) => (typeof v === 'number' || (Array.isArray(v) && v.length > 0) ? undefined : 'a number, or a list of nodes'),
  mode: oneOf(modes),
  sockets: oneOf(['auto', 'epoll', 'node']),
  serviceRange: range,
  podRange: range,
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
