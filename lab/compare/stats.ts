/** What is measured; `key` is its name in the JSON report. */
export interface Measure {
  readonly key: MeasureKey
  readonly title: string
  readonly unit: string
  readonly better: 'more' | 'less'
  readonly digits: number
}

export type MeasureKey = 'connections' | 'requests' | 'p50' | 'p90' | 'p99' | 'p999' | 'cold' | 'change' | 'memory'

/** All measures, the most telling first. */
export const measures: readonly Measure[] = [
  { key: 'connections', title: 'New connections', unit: '/s', better: 'more', digits: 0 },
  { key: 'requests', title: 'Requests on kept-alive connections', unit: '/s', better: 'more', digits: 0 },
  { key: 'p50', title: 'Latency, median', unit: 'ms', better: 'less', digits: 2 },
  { key: 'p90', title: 'Latency, 90 %', unit: 'ms', better: 'less', digits: 2 },
  { key: 'p99', title: 'Latency, 99 %', unit: 'ms', better: 'less', digits: 2 },
  { key: 'p999', title: 'Latency, 99.9 %', unit: 'ms', better: 'less', digits: 2 },
  { key: 'cold', title: 'Start until the first answer', unit: 'ms', better: 'less', digits: 0 },
  { key: 'change', title: 'One change until it is in force', unit: 'ms', better: 'less', digits: 1 },
  { key: 'memory', title: 'Memory of the proxy', unit: 'MiB', better: 'less', digits: 0 },
]

/** Name of the line without a proxy: the client asks the endpoint itself. */
export const ceiling = 'direct'

/** One visit to one mode. */
export interface Sample {
  readonly mode: string
  readonly services: number
  readonly round: number
  readonly values: Readonly<Partial<Record<MeasureKey, number>>>
  /** Requests that failed under load. */
  readonly errors: number
}

/** Everything one run found, as `--json` writes it. */
export interface Report {
  readonly when: string
  readonly machine: { readonly cpu: string; readonly cores: number; readonly memory: number; readonly kernel: string; readonly node: string }
  readonly settings: { readonly sizes: readonly number[]; readonly rounds: number; readonly seconds: number; readonly connections: number }
  /** Modes that were asked for; those with a reason cannot run here. */
  readonly modes: readonly { readonly name: string; readonly reason?: string }[]
  readonly samples: readonly Sample[]
  readonly took: number
}

/** Rounds of one figure. */
export interface Figure {
  readonly median: number
  readonly least: number
  readonly most: number
  readonly rounds: number
}

/** Median, least and most; undefined of nothing. */
export function figure(values: readonly number[]): Figure | undefined {
  const sorted = values.toSorted((a, b) => a - b)
  if (sorted.length === 0) return undefined
  const half = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
  return { median, least: sorted[0]!, most: sorted.at(-1)!, rounds: sorted.length }
}

/** The figure of a mode at a number of Services; of the ceiling over all numbers, as it knows none. */
export function figureOf(report: Report, mode: string, services: number, key: MeasureKey): Figure | undefined {
  const visits = report.samples.filter((s) => s.mode === mode && (mode === ceiling || s.services === services))
  return figure(visits.map((s) => s.values[key]).filter((v) => v !== undefined))
}

/** How far apart the same measurement of the same thing lay in this run, as a share of its median: 0.1 is 10 %. What the ceiling does not know has none. */
export function noise(report: Report, key: MeasureKey): number | undefined {
  const f = figureOf(report, ceiling, 0, key)
  return f === undefined || f.median === 0 ? undefined : (f.most - f.least) / f.median
}

/** Differences below this share are never called one, however quiet the machine was. */
const least = 0.05

/** Whether `a` and `b` differ for sure: no round of one reaches into those of the other, each had two or more, and the medians are further apart than the noise. */
export function differ(a: Figure, b: Figure, noise: number | undefined): boolean {
  const apart = a.most < b.least || b.most < a.least
  const share = Math.abs(a.median - b.median) / Math.max(1e-9, Math.min(a.median, b.median))
  return a.rounds > 1 && b.rounds > 1 && apart && share > Math.max(least, noise ?? 0)
}
