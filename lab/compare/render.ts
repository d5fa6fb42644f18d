import { advise, count, percent, show } from './advice.ts'
import { ceiling, figureOf, measures, noise, type Measure, type Report } from './stats.ts'

/** The table and the recommendation for a terminal. */
export function renderText(report: Report): string {
  const out: string[] = [machineOf(report), '']
  for (const m of measures) {
    const n = noise(report, m.key)
    out.push(`${m.title}${n === undefined ? '' : ` (noise of this machine ${percent(n)})`}`)
    for (const row of rows(report, m)) out.push(`  ${row.name.padEnd(12)}${row.cells.map((c) => c.padStart(30)).join('')}`)
    out.push('')
  }
  for (const m of report.modes) if (m.reason !== undefined) out.push(`${m.name} cannot run here: ${m.reason}`)
  return `${[...out, ...advise(report).sentences].join('\n')}\n`
}

/** The same as one page that needs nothing else: curves, tables, words; for light, dark and paper. */
export function renderHtml(report: Report): string {
  const cannot = report.modes.filter((m) => m.reason !== undefined).map((m) => `<p>${escape(m.name)} cannot run here: ${escape(m.reason!)}</p>`)
  const parts = measures.map((m) => {
    const n = noise(report, m.key)
    const [head, ...body] = rows(report, m)
    const table = `<table><tr><th></th>${head!.cells.map((c) => `<th>${c}</th>`).join('')}</tr>${body.map((r) => `<tr><th>${escape(r.name)}</th>${r.cells.map((c) => `<td>${c}</td>`).join('')}</tr>`).join('')}</table>`
    return `<section><h2>${m.title}</h2>${n === undefined ? '' : `<p>Noise of this machine: ${percent(n)}</p>`}${renderCurve(report, m)}${table}</section>`
  })
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Proxy modes compared</title><style>${style}</style><h1>Proxy modes compared</h1><p>${escape(machineOf(report))}</p><div class="advice">${advise(
    report,
  )
    .sentences.map((s) => `<p>${escape(s)}</p>`)
    .join('')}</div>${cannot.join('')}${parts.join('')}</html>\n`
}

const style = `:root{color-scheme:light dark;--ink:#222;--back:#fff;--c0:#0a58ca;--c1:#b3400a;--c2:#177245;--c3:#8a2a8a}
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--back:#181818;--c0:#7db1ff;--c1:#ff9c66;--c2:#5fd39b;--c3:#e08be0}}
@media print{:root{--ink:#000;--back:#fff;--c0:#0a58ca;--c1:#b3400a;--c2:#177245;--c3:#8a2a8a}section{break-inside:avoid}}
body{font:15px/1.5 sans-serif;color:var(--ink);background:var(--back);max-width:50em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}td,th{padding:.1em .8em;text-align:right;font-weight:normal}svg{width:100%;height:auto}text{fill:var(--ink);font-size:12px}.advice{border-left:4px solid var(--c0);padding-left:1em}`

/** One measure over the number of Services: medians as a line, least and most as bars, the ceiling dashed. */
export function renderCurve(report: Report, m: Measure): string {
  const sizes = report.settings.sizes
  const names = report.modes.filter((x) => x.reason === undefined).map((x) => x.name)
  const points = names.map((name) => sizes.flatMap((s, i) => [figureOf(report, name, s, m.key)].filter((f) => f !== undefined).map((f) => ({ i, f }))))
  const top = figureOf(report, ceiling, 0, m.key)
  const most = Math.max(1e-9, top?.most ?? 0, ...points.flat().map((p) => p.f.most))
  const x = (i: number): number => Math.round(80 + (sizes.length < 2 ? 220 : (440 * i) / (sizes.length - 1)))
  const y = (v: number): number => Math.round(200 - (180 * v) / most)
  const out = [`<path d="M70 20V200H540" fill="none" stroke="var(--ink)"/><text x="66" y="24" text-anchor="end">${show(m, most)}</text><text x="66" y="204" text-anchor="end">0</text>`]
  sizes.forEach((s, i) => out.push(`<text x="${x(i)}" y="218" text-anchor="middle">${count(s)}</text>`))
  if (top !== undefined) out.push(`<path d="M70 ${y(top.median)}H540" stroke="var(--ink)" stroke-dasharray="4 4"/><text x="546" y="${y(top.median) + 4}">${ceiling}</text>`)
  points.forEach((line, k) => {
    const colour = `var(--c${k % 4})`
    out.push(`<polyline fill="none" stroke="${colour}" stroke-width="2" points="${line.map((p) => `${x(p.i)},${y(p.f.median)}`).join(' ')}"/>`)
    for (const p of line) out.push(`<path d="M${x(p.i)} ${y(p.f.least)}V${y(p.f.most)}" stroke="${colour}"/><circle cx="${x(p.i)}" cy="${y(p.f.median)}" r="3" fill="${colour}"/>`)
    out.push(`<rect x="${80 + k * 120}" y="228" width="10" height="10" fill="${colour}"/><text x="${94 + k * 120}" y="237">${escape(names[k]!)}</text>`)
  })
  return `<svg viewBox="0 0 620 245" role="img" aria-label="${m.title}">${out.join('')}</svg>`
}

function rows(report: Report, m: Measure): readonly { readonly name: string; readonly cells: readonly string[] }[] {
  const cell = (name: string, size: number): string => {
    const f = figureOf(report, name, size, m.key)
    return f === undefined ? '' : `${show(m, f.median)} (${[f.least, f.most].map((v) => v.toFixed(m.digits)).join(' to ')})`
  }
  const names = [...(figureOf(report, ceiling, 0, m.key) === undefined ? [] : [ceiling]), ...report.modes.filter((x) => x.reason === undefined).map((x) => x.name)]
  return [{ name: '', cells: report.settings.sizes.map(count) }, ...names.map((name) => ({ name, cells: report.settings.sizes.map((s) => cell(name, s)) }))]
}

function machineOf({ machine: h, settings: s, took, when }: Report): string {
  return `${h.cpu}, ${h.cores} cores, ${Math.round(h.memory / 2 ** 30)} GiB, Linux ${h.kernel}, Node ${h.node}; ${s.rounds} rounds of ${s.seconds} s, ${s.connections} connections; ${when}, took ${took} s`
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
}
