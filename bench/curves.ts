import type { Row } from './row.ts'

const wide = 640 // a picture, in pixels
const high = 300
const left = 70
const bottom = 40
const inks = ['#2563eb', '#c2410c', '#15803d', '#7c3aed']

/** The rows that are points of curves as one SVG, a picture each, both axes logarithmic. */
export function curves(rows: readonly Row[]): string {
  const names = [...new Set(rows.flatMap((r) => r.at?.curve ?? []))]
  const pictures = names.map((name, i) => picture(name, rows, i * high))
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" height="${Math.max(1, names.length) * high}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>${pictures.join('')}</svg>\n`
}

function picture(name: string, rows: readonly Row[], top: number): string {
  const points = rows.flatMap((r) => (r.at?.curve === name ? [{ series: r.at.series, x: r.at.x, y: Math.max(r.ours, 1e-6) }] : []))
  const [x, y] = [
    scale(
      points.map((p) => p.x),
      left,
      wide - 130,
    ),
    scale(
      points.map((p) => p.y),
      top + high - bottom,
      top + 40,
    ),
  ]
  const out = [`<text x="${left}" y="${top + 20}" font-weight="bold">${escaped(name)}</text>`]
  for (const n of x.ticks) out.push(`<path d="M${x.at(n)} ${top + 40}V${top + high - bottom}" stroke="#ddd"/><text x="${x.at(n)}" y="${top + high - bottom + 16}" text-anchor="middle">${n}</text>`)
  for (const n of y.ticks) out.push(`<path d="M${left} ${y.at(n)}H${wide - 130}" stroke="#ddd"/><text x="${left - 6}" y="${y.at(n) + 4}" text-anchor="end">${n}</text>`)
  for (const [i, series] of [...new Set(points.map((p) => p.series))].entries()) {
    const own = points.filter((p) => p.series === series).sort((a, b) => a.x - b.x)
    const ink = inks[i % inks.length]!
    out.push(`<path d="${own.map((p, k) => `${k === 0 ? 'M' : 'L'}${x.at(p.x)} ${y.at(p.y)}`).join('')}" fill="none" stroke="${ink}" stroke-width="2"/>`)
    for (const p of own) out.push(`<circle cx="${x.at(p.x)}" cy="${y.at(p.y)}" r="3" fill="${ink}"><title>${escaped(`${series}, ${p.x}: ${p.y.toPrecision(3)}`)}</title></circle>`)
    out.push(`<text x="${wide - 122}" y="${y.at(own.at(-1)!.y) + 4}" fill="${ink}">${escaped(series)}</text>`)
  }
  return out.join('')
}

/** Powers of ten that hold all of `values`, from pixel `from` to pixel `to`. */
function scale(values: readonly number[], from: number, to: number): { readonly ticks: readonly number[]; at(n: number): number } {
  const low = Math.floor(Math.log10(Math.min(...values)))
  const top = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))))
  return { ticks: Array.from({ length: top - low + 1 }, (_, i) => 10 ** (low + i)), at: (n) => Math.round((from + ((Math.log10(n) - low) / (top - low)) * (to - from)) * 10) / 10 }
}

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
