import type { Topology } from './topology.ts'

/** Port of the LAN's bridge that `node` hangs on. */
export function lanPort(index: number): string {
  return `lan${index + 1}`
}

/** `ip -batch` text for the holder: the bridge all nodes hang on. Nothing leads out of the lab, and says so at once instead of dropping. */
export function renderLan(t: Topology): string {
  return lines(
    'link set lo up',
    'link add lan type bridge forward_delay 0',
    ...t.outside.map((address, i) => `addr add ${address}${bitsOf(t.lan[i]!)} dev lan${nodad(address)}`),
    'link set lan up',
    ...t.lan.map((network) => `route add unreachable ${network.includes(':') ? '::/0' : 'default'} metric 4278198272`),
  )
}

/** `ip -batch` text for the holder: the cable to the node that runs as process `pid`. */
export function renderCable(index: number, pid: number): string {
  return lines(`link add ${lanPort(index)} type veth peer name eth0 netns ${pid}`, `link set ${lanPort(index)} master lan up`)
}

/** `ip -batch` text for a node: its addresses, and the outside as its gateway, so that every destination has a route and reaches the proxy's rules. */
export function renderNode(t: Topology, index: number): string {
  const { address, address6 } = t.nodes[index]!
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

function bitsOf(network: string): string {
  return network.slice(network.indexOf('/'))
}

function lines(...text: string[]): string {
  return `${text.join('\n')}\n`
}
