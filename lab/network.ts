import type { Topology } from './topology.ts'

/** Port of the LAN's bridge that `node` hangs on. */
export function lanPort(index: number): string {
  return `lan${index + 1}`
}

/** `ip -batch` text for the holder: the bridge all nodes hang on. Nothing leads out of the lab, and says so at once instead of dropping. */
export function renderLan(t: Topology): string {
  const bits = t.lan.slice(t.lan.indexOf('/'))
  return lines('link set lo up', 'link add lan type bridge forward_delay 0', `addr add ${t.outside}${bits} dev lan`, 'link set lan up', 'route add unreachable default metric 4278198272')
}

/** `ip -batch` text for the holder: the cable to the node that runs as process `pid`. */
export function renderCable(index: number, pid: number): string {
  return lines(`link add ${lanPort(index)} type veth peer name eth0 netns ${pid}`, `link set ${lanPort(index)} master lan up`)
}

/** `ip -batch` text for a node: its address, and the outside as its gateway, so that every destination has a route and reaches the proxy's rules. */
export function renderNode(t: Topology, index: number): string {
  const bits = t.lan.slice(t.lan.indexOf('/'))
  return lines('link set lo up', `addr add ${t.nodes[index]!.address}${bits} dev eth0`, 'link set eth0 up', `route add default via ${t.outside}`)
}

function lines(...text: string[]): string {
  return `${text.join('\n')}\n`
}
