import { advise, count, show, within } from './advice.ts'
import { machineOf, measured, remarks, rows } from './render.ts'
import { ceiling, figureOf, lines, linear, noise, type Measure, type Report } from './stats.ts'

/** The report as one page that needs nothing else: words, curves, tables; for light, dark and paper. */
export function renderHtml(report: Report): string {
  const sections = measured(report).map((m) => {
    const n = noise(report, m.key)
    const [head, ...body] = rows(report, m)
    const table = `<table><thead><tr><th></th>${head!.cells.map((c) => `<th scope="col">${c}</th>`).join('')}</tr></thead><tbody>${body.map((r) => `<tr><th scope="row">${escape(r.name)}</th>${r.cells.map((c) => `<td>${c}</td>`).join('')}</tr>`).join('')}</tbody></table>`
    return `<section id="${m.key}"><h2>${m.title}</h2><p class="small">${m.better === 'more' ? 'More' : 'Less'} is better${n === undefined ? '' : `; ${within(n)}`}.</p>${curve(report, m)}<div class="wide">${table}</div></section>`
  })
  const advice = advise(report).sentences.map((s) => `<p>${escape(s)}</p>`)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Proxy modes compared</title>
<style>${colours('body')}${page}${drawing}</style>
</head>
<body>
<h1>Proxy modes compared</h1>
<p>${escape(machineOf(report))}</p>
<div class="advice">${advice.join('')}</div>
${remarks(report)
  .map((r) => `<p class="small">${escape(r)}</p>`)
  .join('\n')}
${sections.join('\n')}
</body>
</html>
`
}

/** One curve as a file of its own; undefined where nothing was measured. */
export function renderSvg(report: Report, m: Measure): string | undefined {
  if (!measured(report).includes(m)) return undefined
  return curve(report, m)
    .replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ')
    .replace('>', `><style>${colours('svg')}svg{background:var(--back);font-family:sans-serif}${drawing}</style><text x="40" y="14">${m.title}</text>`)
}

/** The same colours wherever a curve stands; on paper, those of light. */
function colours(root: string): string {
  const light = '--ink:#222;--back:#fff;--faint:#ddd;--c0:#0a58ca;--c1:#b3400a;--c2:#177245;--c3:#8a2a8a;--c4:#7a6a00;--c5:#00707a'
  const dark = '--ink:#ddd;--back:#181818;--faint:#444;--c0:#7db1ff;--c1:#ff9c66;--c2:#5fd39b;--c3:#e08be0;--c4:#d9c64a;--c5:#58cbd6'
  return `${root}{color-scheme:light dark;${light}}@media(prefers-color-scheme:dark){${root}{${dark}}}@media print{${root}{${light}}}`
}

const page = `body{font:15px/1.5 sans-serif;color:var(--ink);background:var(--back);max-width:56em;margin:2em auto;padding:0 1em}
h2{margin:1.6em 0 0}.small{font-size:13px;margin:.3em 0}.wide{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.1em .8em;text-align:right;font-weight:normal;white-space:nowrap}tbody tr{border-top:1px solid var(--faint)}
.advice{border-left:4px solid var(--c0);padding-left:1em}@media print{section{break-inside:avoid}body{margin:0;max-width:none}}`
const drawing = 'svg{width:100%;max-width:640px;height:auto;display:block}text{fill:var(--ink);font-size:12px}.axis{fill:none;stroke:var(--ink)}.grid{stroke:var(--faint)}'

/** One measure over the number of Services: medians as a line, least and most as bars, the ceiling and the linear list dashed. */
function curve(report: Report, m: Measure): string {
  const sizes = report.settings.sizes
  const names = lines(report).filter((name) => report.samples.some((s) => s.mode === name && s.values[m.key] !== undefined))
  const points = names.map((name) => sizes.flatMap((s, i) => [figureOf(report, name, s, m.key)].filter((f) => f !== undefined).map((f) => ({ i, f }))))
  const most = Math.max(1e-9, ...points.flat().map((p) => p.f.most))
  const x = (i: number): number => Math.round(140 + (sizes.length < 2 ? 230 : (450 * i) / (sizes.length - 1)))
  const y = (v: number): number => Math.round((220 - (190 * v) / most) * 10) / 10
  const out: string[] = []
  for (const part of [0, 0.5, 1]) out.push(`<path class="grid" d="M130 ${y(most * part)}H635"/><text x="124" y="${y(most * part) + 4}" text-anchor="end">${show(m, most * part)}</text>`)
  out.push('<path class="axis" d="M130 20V220H635"/>')
  sizes.forEach((s, i) => out.push(`<text x="${x(i)}" y="238" text-anchor="middle">${count(s)}</text>`))
  points.forEach((line, k) => {
    const name = names[k]!
    const colour = name === ceiling ? 'var(--ink)' : `var(--c${(k - (names[0] === ceiling ? 1 : 0)) % 6})`
    const dash = name === ceiling || name === linear ? ' stroke-dasharray="5 4"' : ''
    out.push(`<polyline fill="none" stroke="${colour}" stroke-width="2"${dash} points="${line.map((p) => `${x(p.i)},${y(p.f.median)}`).join(' ')}"/>`)
    for (const p of line)
      out.push(
        `${p.f.rounds > 1 ? `<path d="M${x(p.i)} ${y(p.f.least)}V${y(p.f.most)}" stroke="${colour}"/>` : ''}<circle cx="${x(p.i)}" cy="${y(p.f.median)}" r="3" fill="${colour}"><title>${escape(name)}, ${count(sizes[p.i]!)}: ${show(m, p.f.median)}</title></circle>`,
      )
    const [column, line2] = [k % 4, Math.floor(k / 4)]
    out.push(`<rect x="${100 + column * 135}" y="${248 + line2 * 18}" width="10" height="10" fill="${colour}"/><text x="${114 + column * 135}" y="${257 + line2 * 18}">${escape(name)}</text>`)
  })
  return `<svg viewBox="0 0 640 ${270 + 18 * Math.floor((names.length - 1) / 4)}" role="img" aria-label="${m.title}">${out.join('')}</svg>`
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
}
