import { advise, count, show, within } from './advice.ts'
import { figureOf, lines, linear, measures, noise, type Measure, type Report } from './stats.ts'

/** The table and the recommendation for a terminal. */
export function renderText(report: Report): string {
  const out: string[] = [machineOf(report), '']
  for (const m of measured(report)) {
    const n = noise(report, m.key)
    out.push(`${m.title}${n === undefined ? '' : ` (${within(n)})`}`)
    for (const row of rows(report, m)) out.push(`  ${row.name.padEnd(20)}${row.cells.map((c) => c.padStart(32)).join('')}`)
    out.push('')
  }
  out.push(...remarks(report))
  return `${[...out, '', ...advise(report).sentences].join('\n')}\n`
}

/** The measures this run has figures of. */
export function measured(report: Report): readonly Measure[] {
  return measures.filter((m) => report.samples.some((s) => s.values[m.key] !== undefined))
}

/** What a reader must know beside the figures. */
export function remarks(report: Report): readonly string[] {
  return [
    ...report.modes.flatMap((m) => (m.reason === undefined ? [] : [`${m.name} cannot run here: ${m.reason}`])),
    ...report.modes.flatMap((m) => (m.failures === undefined ? [] : [`${m.name} failed ${m.failures.length} times: ${m.failures.at(-1)!.trim()}`])),
    ...(lines(report).includes(linear)
      ? [
          `"${linear}" is the shape of kube-proxy's rules, rendered by a helper of the tests and loaded by iptables-legacy: what it would cost, not a way to run. The Service that is measured stands in its middle.`,
        ]
      : []),
    ...report.left,
    'CPU is that of the whole machine, with the load generator and the endpoint; the direct line has those alone. How much memory the kernel takes for rules cannot be read.',
  ]
}

/** The figures of one measure: a row a mode, a column a number of Services; the first row is the head. */
export function rows(report: Report, m: Measure): readonly { readonly name: string; readonly cells: readonly string[] }[] {
  const cell = (name: string, size: number): string => {
    const f = figureOf(report, name, size, m.key)
    if (f === undefined) return ''
    return f.rounds === 1 ? show(m, f.median) : `${show(m, f.median)} (${[f.least, f.most].map((v) => v.toFixed(m.digits)).join(' to ')})`
  }
  const names = lines(report).filter((name) => report.samples.some((s) => s.mode === name && s.values[m.key] !== undefined))
  return [{ name: '', cells: report.settings.sizes.map(count) }, ...names.map((name) => ({ name, cells: report.settings.sizes.map((s) => cell(name, s)) }))]
}

/** Where, when and how the figures came about. */
export function machineOf({ machine: h, settings: s, where, took, when }: Report): string {
  const clock = s.instructions ? '; its clock counts instructions, a nanosecond each: compare the figures with each other, not with any other machine' : ''
  return `${where === 'namespaces' ? 'In namespaces of this machine' : `In a virtual machine${clock}`}: ${h.cpu}, ${h.cores} core${h.cores === 1 ? '' : 's'}, ${Math.round(h.memory / 2 ** 30)} GiB, Linux ${h.kernel}, Node ${h.node}; ${Math.round(h.busy * 100)} % of the processors in use before; ${s.rounds} round${s.rounds === 1 ? '' : 's'} of ${s.seconds} s, ${s.connections} connections; ${when}, took ${took} s`
}
