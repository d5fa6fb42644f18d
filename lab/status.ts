import type { PartStatus } from './holder/supervisor.ts'

/** What `switchyard lab status -o json` prints. */
export interface LabStatus {
  readonly name: string
  readonly mode: string
  readonly api: string
  readonly kubeconfig: string
  readonly logs: string
  readonly published: readonly { readonly port: number; readonly to: string }[]
  readonly nodes: readonly { readonly name: string; readonly address: string; readonly mode: string; readonly pid: number }[]
  readonly parts: readonly PartStatus[]
  /** Faults that `lab break` made and nobody has mended. */
  readonly broken: readonly string[]
}

/** The same for people. */
export function renderStatus(s: LabStatus): string {
  const rows = s.parts.map((p) => {
    const [node = '', part = ''] = p.name.split('/')
    return [node, s.nodes.find((n) => n.name === node)?.address ?? '', part, p.state, String(p.restarts), p.readyAfter === undefined ? '' : `${(p.readyAfter / 1000).toFixed(1)} s`, p.lastEnd ?? '']
  })
  const others = s.nodes.filter((n) => n.mode !== s.mode).map((n) => `${n.name} ${n.mode}`)
  return `Lab ${s.name}, proxy mode ${s.mode}${others.length === 0 ? '' : ` (${others.join(', ')})`}, API ${s.api}\n${s.published.map((p) => `127.0.0.1:${p.port} leads to ${p.to}\n`).join('')}Logs in ${s.logs}\n${s.broken.map((b) => `Broken: ${b}\n`).join('')}\n${table(['NODE', 'ADDRESS', 'PART', 'STATE', 'RESTARTS', 'READY AFTER', 'LAST END'], rows)}`
}

/** Columns, each as wide as its widest cell. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const wide = head.map((h, i) => Math.max(h.length, ...rows.map((r) => r[i]?.length ?? 0)))
  return [head, ...rows]
    .map(
      (r) =>
        `${r
          .map((cell, i) => cell.padEnd(wide[i]!))
          .join('   ')
          .trimEnd()}\n`,
    )
    .join('')
}
