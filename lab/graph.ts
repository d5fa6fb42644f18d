import type { EndpointSlice, Ingress, Node, Pod, Service } from '../kube/objects.ts'

/** What a picture of a lab is drawn from. */
export interface GraphObjects {
  readonly nodes: readonly Node[]
  readonly pods: readonly Pod[]
  readonly services: readonly Service[]
  readonly slices: readonly EndpointSlice[]
  readonly ingresses: readonly Ingress[]
}

// Sizes in pixels.
const wide = 190
const gap = 30
const row = 44
const margin = 24

interface Box {
  readonly key: string
  readonly x: number
  readonly y: number
  readonly lines: readonly string[]
  readonly kind: 'ingress' | 'service' | 'pod'
  readonly dim: boolean
}

/** An SVG of the lab: Ingress rules, Services, nodes with their Pods, and which leads where. One file, for light and dark. */
export function renderGraph(title: string, o: GraphObjects): string {
  const routes = o.ingresses.flatMap((i) =>
    (i.spec?.rules ?? []).flatMap((r) =>
      (r.http?.paths ?? []).map((p) => ({
        key: `ingress ${r.host ?? '*'}${p.path ?? '/'}`,
        text: `${r.host ?? '*'}${p.path ?? '/'}`,
        service: `${i.metadata.namespace}/${p.backend.service?.name ?? ''}`,
      })),
    ),
  )
  const nodes = o.nodes.toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
  const podsOf = (node: string): readonly Pod[] => o.pods.filter((p) => p.spec.nodeName === node).toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
  const columns = Math.max(1, routes.length, o.services.length, nodes.length)
  const width = margin * 2 + columns * wide + (columns - 1) * gap
  // Each row is centred by itself.
  const x = (i: number, of: number): number => (width - (of * wide + (of - 1) * gap)) / 2 + i * (wide + gap)
  const boxes: Box[] = []
  const top = { ingress: 60, services: routes.length > 0 ? 60 + row + 50 : 60, nodes: 0 }
  top.nodes = top.services + (o.services.length > 0 ? row + 70 : 0)
  routes.forEach((r, i) => boxes.push({ key: r.key, x: x(i, routes.length), y: top.ingress, lines: [r.text, 'Ingress'], kind: 'ingress', dim: false }))
  const services = o.services.toSorted((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
  services.forEach((s, i) => {
    const ports = (s.spec.ports ?? []).map((p) => `${p.port}${p.protocol === 'UDP' ? '/UDP' : ''}`).join(', ')
    boxes.push({ key: `service ${keyOf(s)}`, x: x(i, services.length), y: top.services, lines: [keyOf(s), `${s.spec.clusterIP ?? ''}:${ports}`], kind: 'service', dim: false })
  })
  const frames: string[] = []
  const most = Math.max(0, ...nodes.map((n) => podsOf(n.metadata.name).length))
  const height = 34 + Math.max(1, most) * (row + 10) + 10
  nodes.forEach((n, i) => {
    const left = x(i, nodes.length)
    const ready = n.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true
    const zone = n.metadata.labels?.['topology.kubernetes.io/zone']
    const address = n.status?.addresses?.find((a) => a.type === 'InternalIP')?.address ?? ''
    frames.push(
      `<rect class="node${ready ? '' : ' dim'}" x="${left - 8}" y="${top.nodes}" width="${wide + 16}" height="${height}" rx="8"/>`,
      `<text class="title" x="${left + wide / 2}" y="${top.nodes + 20}">${escape(`${n.metadata.name}${zone === undefined ? '' : ` (${zone})`} ${address}${ready ? '' : ' (not ready)'}`)}</text>`,
      `<line class="lan" x1="${left + wide / 2}" y1="${top.nodes + height}" x2="${left + wide / 2}" y2="${top.nodes + height + 24}"/>`,
    )
    podsOf(n.metadata.name).forEach((p, j) => {
      const up = p.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true
      boxes.push({
        key: `pod ${keyOf(p)}`,
        x: left,
        y: top.nodes + 34 + j * (row + 10),
        lines: [keyOf(p), `${p.status?.podIP ?? 'no address'}${up ? '' : `, ${p.status?.phase ?? 'Pending'}, not ready`}`],
        kind: 'pod',
        dim: !up,
      })
    })
  })
  const at = new Map(boxes.map((b) => [b.key, b]))
  const lines = [
    ...routes.map((r) => [r.key, `service ${r.service}`] as const),
    ...o.slices.flatMap((s) => {
      const service = `service ${s.metadata.namespace}/${s.metadata.labels?.['kubernetes.io/service-name'] ?? ''}`
      return (s.endpoints ?? []).filter((e) => e.conditions?.ready !== false && e.targetRef?.kind === 'Pod').map((e) => [service, `pod ${e.targetRef!.namespace}/${e.targetRef!.name}`] as const)
    }),
  ]
  const drawn = [...new Set(lines.map((l) => l.join('\n')))].flatMap((l) => {
    const [from, to] = l.split('\n').map((key) => at.get(key))
    if (from === undefined || to === undefined) return []
    const [x1, y1, x2, y2] = [from.x + wide / 2, from.y + row, to.x + wide / 2, to.y]
    return [`<path class="way" d="M${x1} ${y1} C${x1} ${(y1 + y2) / 2} ${x2} ${(y1 + y2) / 2} ${x2} ${y2}"/>`]
  })
  const lan = top.nodes + height + 24
  const bottom = lan + 34
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${bottom}" width="${width}" height="${bottom}" role="img" aria-label="${escape(title)}">
<style>
svg { color-scheme: light dark; background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #1c2530; text-anchor: middle; } .title { font-weight: 600; } .small { fill: #5a6673; font-size: 11px; }
.node { fill: #f3f5f7; stroke: #a9b4bf; } .lan { stroke: #a9b4bf; stroke-width: 2; } .way { fill: none; stroke: #2f7f79; stroke-opacity: .55; stroke-width: 1.5; }
.pod { fill: #fff; stroke: #2f7f79; } .service { fill: #e4f1ef; stroke: #2f7f79; } .ingress { fill: #fdf0dc; stroke: #b07a1e; } .dim { stroke-dasharray: 4 3; opacity: .6; }
@media (prefers-color-scheme: dark) { svg { background: #12171d; } text { fill: #e6ebf0; } .small { fill: #9aa7b4; } .node { fill: #1a2129; stroke: #46525e; } .lan { stroke: #46525e; } .pod { fill: #12171d; } .service { fill: #173330; } .ingress { fill: #3a2c12; } }
</style>
<text class="title" x="${width / 2}" y="30" font-size="15">${escape(title)}</text>
${[...frames, ...drawn, ...boxes.map(box)].join('\n')}
<line class="lan" x1="${margin}" y1="${lan}" x2="${width - margin}" y2="${lan}"/>
<text class="small" x="${width / 2}" y="${lan + 20}">LAN</text>
</svg>
`
}

function box(b: Box): string {
  const middle = b.x + wide / 2
  return `<g data-key="${escape(b.key)}" tabindex="0"><rect class="${b.kind}${b.dim ? ' dim' : ''}" x="${b.x}" y="${b.y}" width="${wide}" height="${row}" rx="5"/>\n<text x="${middle}" y="${b.y + 18}">${escape(short(b.lines[0]!))}</text>\n<text class="small" x="${middle}" y="${b.y + 34}">${escape(short(b.lines[1]!))}</text></g>`
}

/** What fits into a box. */
function short(text: string): string {
  return text.length > 30 ? `${text.slice(0, 29)}…` : text
}

function keyOf(o: { readonly metadata: { readonly namespace?: string; readonly name: string } }): string {
  return `${o.metadata.namespace}/${o.metadata.name}`
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}
