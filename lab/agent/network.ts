import { createHash } from 'node:crypto'
import { contains, familyOf, network, nth, parseIp, sizeOf, type Cidr } from '../../lib/ip.ts'
import type { Node } from '../../kube/objects.ts'

/** The gateway of every Pod: an address nobody has, answered by a permanent neighbour entry. */
const gateway = { 4: '169.254.1.1', 6: 'fe80::1' } as const
/** The node's end of every veth has this hardware address, so that the Pod's entry for its gateway never changes. */
const gatewayMac = 'ee:ee:ee:ee:ee:ee'
/** Marks our routes in the kernel's table (`proto` of ip-route); no routing daemon has this number. */
export const routeProtocol = 83

/** The name of the node's end of a Pod's veth. */
export function vethOf(uid: string): string {
  return `sy${createHash('sha1').update(uid).digest('hex').slice(0, 12)}`
}

function macOf(uid: string): string {
  const hex = createHash('sha1').update(uid).digest('hex')
  // Locally administered, unicast.
  return ['0a', ...[0, 2, 4, 6, 8].map((i) => hex.slice(i, i + 2))].join(':')
}

/** `ip -batch` text for the node: the veth of a Pod whose first process is `pid`, and the way to its addresses. */
export function renderVeth(uid: string, pid: number, addresses: readonly string[], nodeIps: readonly string[]): string {
  const veth = vethOf(uid)
  const mac = macOf(uid)
  return lines(
    `link add ${veth} address ${gatewayMac} type veth peer name eth0 address ${mac} netns ${pid}`,
    `link set ${veth} up`,
    ...addresses.flatMap((address) => {
      const family = familyOf(address)
      const source = nodeIps.find((ip) => familyOf(ip) === family)
      return [
        ...(family === 6 ? [`addr add ${gateway[6]}/64 dev ${veth} nodad`] : []),
        `route replace ${address}/${family === 4 ? 32 : 128} dev ${veth}${source === undefined ? '' : ` src ${source}`}`,
        `neigh replace ${address} lladdr ${mac} dev ${veth} nud permanent`,
      ]
    }),
  )
}

/** `ip -batch` text for the Pod: one address without a network around it, and everything else by the gateway. No bridge, so nothing bypasses the node's rules. */
export function renderPod(addresses: readonly string[]): string {
  return lines(
    'link set lo up',
    ...addresses.map((address) => `addr add ${address}/${familyOf(address) === 4 ? 32 : 128} dev eth0${familyOf(address) === 6 ? ' nodad' : ''}`),
    'link set eth0 up',
    ...[...new Set(addresses.map(familyOf))].flatMap((family) => [
      ...(family === 4 ? [`route add ${gateway[4]} dev eth0 scope link`] : []),
      `neigh replace ${gateway[family]} lladdr ${gatewayMac} dev eth0 nud permanent`,
      `route add default via ${gateway[family]} dev eth0`,
    ]),
  )
}

/** The addresses of a new Pod: the first free place after `last` in each range, the same place in all. The first two and the last are left out. */
export function allocate(podCIDRs: readonly string[], taken: ReadonlySet<string>, last: number): { readonly addresses: readonly string[]; readonly place: number } | undefined {
  const ranges = podCIDRs.map((c) => network(c)).filter((n) => n !== undefined)
  const first = ranges[0]
  if (first === undefined) return undefined
  const sizes = ranges.map((r) => sizeOf(r))
  const smallest = Number(sizes.reduce((a, b) => (b < a ? b : a)))
  const places = Math.min(smallest, 65_536) - 3
  for (let i = 0; i < places; i++) {
    const place = 2 + ((last - 1 + i) % places)
    const addresses = ranges.map((r) => nth(r, place)!)
    if (!addresses.some((a) => taken.has(a))) return { addresses, place }
  }
  return undefined
}

/** Where the Pods of the other nodes are: each of their ranges through their address of the same family. */
export function routesFor(self: string, nodes: Iterable<Pick<Node, 'metadata' | 'spec' | 'status'>>): ReadonlyMap<string, string> {
  const routes = new Map<string, string>()
  for (const node of nodes) {
    if (node.metadata.name === self) continue
    const addresses = (node.status?.addresses ?? [])
      .filter((a) => a.type === 'InternalIP')
      .map((a) => parseIp(a.address))
      .filter((a) => a !== undefined)
    for (const cidr of node.spec?.podCIDRs ?? (node.spec?.podCIDR === undefined ? [] : [node.spec.podCIDR])) {
      const via = addresses.find((a) => familyOf(a) === familyOf(cidr))
      if (via !== undefined && !contains(cidr as Cidr, via)) routes.set(cidr, via)
    }
  }
  return routes
}

/** `ip -batch` text that turns the routes `have` into `want`. */
export function renderRoutes(have: ReadonlyMap<string, string>, want: ReadonlyMap<string, string>): string {
  return lines(
    ...[...have.keys()].filter((cidr) => !want.has(cidr)).map((cidr) => `route del ${cidr} proto ${routeProtocol}`),
    ...[...want].filter(([cidr, via]) => have.get(cidr) !== via).map(([cidr, via]) => `route replace ${cidr} via ${via} proto ${routeProtocol}`),
  )
}

/** Our routes out of what `ip -json route show proto 83` prints. */
export function parseRoutes(json: string): ReadonlyMap<string, string> {
  const rows = json.trim() === '' ? [] : (JSON.parse(json) as readonly { readonly dst?: string; readonly gateway?: string }[])
  return new Map(rows.flatMap((r) => (r.dst === undefined || r.gateway === undefined ? [] : [[r.dst, r.gateway] as const])))
}

function lines(...text: string[]): string {
  return text.map((t) => `${t}\n`).join('')
}
