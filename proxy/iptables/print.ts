import { jumps, type Rendered } from './render.ts'

const builtin = { nat: ['PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'], filter: ['INPUT', 'FORWARD', 'OUTPUT'] } as const

/** What `iptables-save` and `ipset save` would print of a machine that has these rules and no others. */
export function print(rendered: Rendered): { readonly rules: string; readonly sets: string } {
  const rules: string[] = []
  for (const table of ['nat', 'filter'] as const) {
    const chains = [...rendered[table]].sort((a, b) => (a[0] < b[0] ? -1 : 1))
    rules.push(`*${table}`, ...builtin[table].map((c) => `:${c} ACCEPT [0:0]`), ...chains.map(([name]) => `:${name} - [0:0]`))
    for (const [t, chain, rule] of jumps) if (t === table) rules.push(`-A ${chain} ${rule}`)
    for (const [name, list] of chains) for (const rule of list) rules.push(`-A ${name} ${rule}`)
    rules.push('COMMIT')
  }
  const sets: string[] = []
  for (const [name, set] of rendered.sets) {
    sets.push(`create ${name} ${set.create}`)
    for (const e of set.elements) sets.push(`add ${name} ${e}`)
  }
  return { rules: `${rules.join('\n')}\n`, sets: `${sets.join('\n')}\n` }
}
