import type { Topology } from './topology.ts'

/** The holder's end of the cable to the node with this number. */
export function lanPort(index: number): string {
  return `lan${index + 1}`
}

/** The holder's end of the cable to the client with this number. */
export function clientPort(index: number): string {
  return `out${index + 1}`
}

/** A machine on the LAN: a node or a client. */
export interface Host {
  readonly address: string
  readonly address6: string | undefined
}

/** `ip -batch` text for the holder: what the cables of all nodes end in, a switch or a router. Nothing leads out of the lab, and says so at once instead of dropping. */
export function renderLan(t: Topology): string {
  return lines(
    'link set lo up',
    'link add lan type bridge forward_delay 0',
    ...t.outside.map((address, i) => `addr add ${address}${t.network === 'bridge' ? bitsOf(t.lan[i]!) : hostBits(address)} dev lan${nodad(address)}`),
    'link set lan up',
    ...t.lan.map((network) => `route add unreachable ${network.includes(':') ? '::/0' : 'default'} metric 4278198272`),
  )
}

/** `ip -batch` text for the holder: a cable whose other end is `eth0` of process `pid`. */
export function renderCable(port: string, pid: number): string {
  return lines(`link add ${port} type veth peer name eth0 netns ${pid}`)
}

/** `ip -batch` text for the holder: plugs a cable in, also again. A router answers for everybody behind it, so that its hosts see one LAN all the same. */
export function renderPort(t: Topology, port: string, host: Host): string {
  if (t.network === 'bridge') return lines(`link set ${port} master lan up`)
  const others = [...t.nodes, ...t.clients].flatMap((h) => (h.address6 === undefined || h.address === host.address ? [] : [h.address6]))
  return lines(
    `link set ${port} up`,
    `route replace ${host.address}/32 dev ${port} src ${t.outside[0]}`,
    ...(host.address6 === undefined
      ? []
      : [`route replace ${host.address6}/128 dev ${port} src ${t.outside[1]}`, ...[...t.outside.slice(1), ...others].map((a) => `neigh replace proxy ${a} dev ${port}`)]),
  )
}

/** Settings of the kernel, by file below /proc/sys/net, that make `port` one of a router's. */
export function portSettings(t: Topology, port: string): Readonly<Record<string, string>> {
  if (t.network === 'bridge') return {}
  const v4 = { [`ipv4/conf/${port}/proxy_arp`]: '1', [`ipv4/neigh/${port}/proxy_delay`]: '0' }
  return t.lan.length < 2 ? v4 : { ...v4, [`ipv6/conf/${port}/proxy_ndp`]: '1', [`ipv6/neigh/${port}/proxy_delay`]: '0' }
}

/** A node, and the ranges of its Pods. */
export interface Ranges extends Host {
  readonly name: string
  readonly podCIDRs: readonly string[]
}

/** `ip -batch` text for the router: the way to every node's Pods. */
export function renderPodRoutes(nodes: readonly Ranges[]): string {
  return lines(...nodes.flatMap((n) => n.podCIDRs.map((cidr) => `route replace ${cidr} via ${cidr.includes(':') ? n.address6 : n.address}`)))
}

/** Looked up before the main table for addresses of Pods. */
const overlayTable = 84

/** What a node needs for its Pods' packets to travel in VXLAN (RFC 7348): texts for `ip -batch` and `bridge -batch`. Every other node is known by its address, so nothing is flooded or learned. */
export function renderOverlay(
  t: Topology,
  self: Ranges,
  nodes: readonly Ranges[],
): { readonly link: string; readonly rules: readonly (readonly string[])[]; readonly ip: string; readonly fdb: string } {
  const others = nodes.filter((n) => n.name !== self.name)
  const number = (n: Ranges): string => Number(n.address.split('.').at(-1)).toString(16).padStart(2, '0')
  const mac = (n: Ranges): string => `0a:53:59:00:00:${number(n)}`
  // IPv6 takes no gateway that is a neighbour on another link.
  const local = (n: Ranges): string => `fe80::53:${number(n)}`
  const ranges = others.flatMap((n) => n.podCIDRs.map((cidr) => ({ n, cidr, via: cidr.includes(':') ? local(n) : n.address })))
  return {
    link: lines(
      `link add vxlan0 address ${mac(self)} type vxlan id 1 dstport 4789 local ${self.address} dev eth0 nolearning`,
      'link set vxlan0 up',
      ...(t.lan.length < 2 ? [] : [`addr add ${local(self)}/64 dev vxlan0 nodad`]),
    ),
    // `ip -batch` takes every rule for one of IPv4.
    rules: t.podRanges.map((range) => ['ip', range.includes(':') ? '-6' : '-4', 'rule', 'add', 'to', range, 'lookup', String(overlayTable), 'pref', '100']),
    ip: lines(
      ...ranges.flatMap(({ n, via }) => [`neigh replace ${via} lladdr ${mac(n)} dev vxlan0 nud permanent`]),
      // Not any address of the node's, such as one of a proxy's own.
      ...ranges.map(({ cidr, via }) => `route replace ${cidr} via ${via} dev vxlan0 onlink src ${cidr.includes(':') ? self.address6 : self.address} table ${overlayTable}`),
    ),
    fdb: lines(...others.map((n) => `fdb replace ${mac(n)} dev vxlan0 dst ${n.address}`)),
  }
}

/** `ip -batch` text for a node or a client: its addresses, and the outside as its gateway, so that every destination has a route and reaches the proxy's rules. */
export function renderHost(t: Topology, { address, address6 }: Host): string {
  const addresses = [address, ...(address6 === undefined ? [] : [address6])]
  return lines(
    'link set lo up',
    ...addresses.map((a, i) => `addr add ${a}${bitsOf(t.lan[i]!)} dev eth0${nodad(a)}`),
    'link set eth0 up',
    ...t.outside.map((via) => `route add default via ${via} dev eth0`),
  )
}

/** An address whose uniqueness is being checked cannot be used yet; here nobody else hands any out. */
function nodad(address: string): string {
  return address.includes(':') ? ' nodad' : ''
}

function hostBits(address: string): string {
  return address.includes(':') ? '/128' : '/32'
}

function bitsOf(network: string): string {
  return network.slice(network.indexOf('/'))
}

function lines(...text: string[]): string {
  return `${text.join('\n')}\n`
}
