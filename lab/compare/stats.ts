/** What is measured; `key` is its name in the JSON report. */
export interface Measure {
  readonly key: MeasureKey
  readonly title: string
  readonly unit: string
  readonly better: 'more' | 'less'
  readonly digits: number
}

export type MeasureKey = (typeof keys)[number]

const keys = [
  ...(['connections', 'requests', 'p50', 'p90', 'p99', 'p999', 'connectionUser', 'connectionKernel', 'connectionSoftirq'] as const),
  ...(['requestUser', 'requestKernel', 'requestSoftirq', 'stream', 'streams', 'datagrams', 'cold', 'change', 'failed', 'heal', 'memory'] as const),
] as const

const measure = (key: MeasureKey, title: string, unit: string, better: Measure['better'], digits: number): Measure => ({ key, title, unit, better, digits })

/** All measures, the most telling first. */
export const measures: readonly Measure[] = [
  measure('connections', 'New connections', '/s', 'more', 0),
  measure('requests', 'Requests on kept-alive connections', '/s', 'more', 0),
  measure('p50', 'Latency of a kept-alive request, median', 'ms', 'less', 2),
  measure('p90', 'Latency of a kept-alive request, 90 %', 'ms', 'less', 2),
  measure('p99', 'Latency of a kept-alive request, 99 %', 'ms', 'less', 2),
  measure('p999', 'Latency of a kept-alive request, 99.9 %', 'ms', 'less', 2),
  measure('connectionUser', 'CPU a new connection: user', 'µs', 'less', 1),
  measure('connectionKernel', 'CPU a new connection: kernel', 'µs', 'less', 1),
  measure('connectionSoftirq', 'CPU a new connection: softirq', 'µs', 'less', 1),
  measure('requestUser', 'CPU a kept-alive request: user', 'µs', 'less', 1),
  measure('requestKernel', 'CPU a kept-alive request: kernel', 'µs', 'less', 1),
  measure('requestSoftirq', 'CPU a kept-alive request: softirq', 'µs', 'less', 1),
  measure('stream', 'Throughput of one stream', 'Gbit/s', 'more', 2),
  measure('streams', 'Throughput of eight streams', 'Gbit/s', 'more', 2),
  measure('datagrams', 'UDP datagrams of 512 bytes that arrive', '/s', 'more', 0),
  measure('cold', 'Start until the first answer', 'ms', 'less', 0),
  measure('change', 'One change until it is in force', 'ms', 'less', 1),
  measure('failed', 'Connections lost to an endpoint that fails', '', 'less', 0),
  measure('heal', 'From the news that it failed to the last loss', 'ms', 'less', 1),
  measure('memory', 'Memory of the proxy', 'MiB', 'less', 0),
]

/** Name of the line without a proxy: the client asks the endpoint itself. */
export const ceiling = 'direct'
/** Name of the line that shows kube-proxy's list of rules, rendered by a helper of the tests. */
export const linear = 'linear list'

/** One visit to one mode. */
export interface Sample {
  readonly mode: string
  readonly services: number
  readonly round: number
  readonly values: Readonly<Partial<Record<MeasureKey, number>>>
  /** Requests that failed under load. */
  readonly errors: number
}

/** Someone who was asked for: with `reason`, he cannot run here; with `failures`, he should have and did not. */
export interface Contender {
  readonly name: string
  readonly reason?: string
  readonly failures?: readonly string[]
}

/** Everything one run found, as `--json` writes it. */
export interface Report {
  readonly when: string
  readonly where: 'namespaces' | 'virtual machine'
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly memory: number
    readonly kernel: string
    readonly node: string
    /** The share of the processors that others used before the run began. */
    readonly busy: number
  }
  readonly settings: {
    readonly sizes: readonly number[]
    readonly rounds: number
    readonly seconds: number
    readonly connections: number
    /** The clock counts instructions. */ readonly instructions: boolean
  }
  readonly modes: readonly Contender[]
  readonly samples: readonly Sample[]
  /** What was left out, and why. */
  readonly left: readonly string[]
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

/** The figure of a mode at a number of Services. */
export function figureOf(report: Report, mode: string, services: number, key: MeasureKey): Figure | undefined {
  return figure(valuesOf(report, mode, services, key))
}

function valuesOf(report: Report, mode: string, services: number, key: MeasureKey): readonly number[] {
  return report.samples.flatMap((s) => (s.mode === mode && s.services === services && s.values[key] !== undefined ? [s.values[key]!] : []))
}

/** Those that were measured at least once, in the order asked for, the ceiling first. */
export function lines(report: Report): readonly string[] {
  const seen = new Set(report.samples.map((s) => s.mode))
  return [ceiling, ...report.modes.map((m) => m.name)].filter((name) => seen.has(name))
}

/** How far the same thing measured again lay away, as a share: the standard deviation of the logarithm within the rounds of one mode at one size, over all of them. */
export interface Noise {
  readonly deviation: number
  /** On how many repetitions it rests. */
  readonly freedom: number
}

/** The noise of a measure in this run; undefined where nothing was measured twice. */
export function noise(report: Report, key: MeasureKey): Noise | undefined {
  let squares = 0
  let freedom = 0
  for (const mode of lines(report))
    for (const size of report.settings.sizes) {
      const logs = valuesOf(report, mode, size, key).map(logOf)
      if (logs.length < 2) continue
      const mean = logs.reduce((a, b) => a + b) / logs.length
      squares += logs.reduce((sum, l) => sum + (l - mean) ** 2, 0)
      freedom += logs.length - 1
    }
  return freedom === 0 ? undefined : { deviation: Math.sqrt(squares / freedom), freedom }
}

/** Differences below this share are never called one, however quiet the machine was. */
const least = 0.05
/** So many standard errors apart. With a hundred comparisons in a report, less calls chance a difference; the noise is estimated too, hence more where it rests on little. */
const apart = (freedom: number): number => (freedom >= 20 ? 4 : freedom >= 8 ? 5 : freedom >= 4 ? 7 : 12)
/** What was measured once, on a clock that counts instructions and repeats within 1 %. */
const once = 0.2

/**
 * Whether two modes differ for sure, so that the next run will say the same: no round of one reaches into those of the other, and the means of the
 * logarithms are further apart than chance makes them out of the noise of the whole run.
 */
export function differ(report: Report, key: MeasureKey, services: number, a: string, b: string): boolean {
  const [va, vb] = [valuesOf(report, a, services, key), valuesOf(report, b, services, key)]
  const [fa, fb] = [figure(va), figure(vb)]
  if (fa === undefined || fb === undefined || !(fa.most < fb.least || fb.most < fa.least)) return false
  const mean = (values: readonly number[]): number => values.map(logOf).reduce((x, y) => x + y) / values.length
  const share = Math.abs(mean(va) - mean(vb))
  const n = noise(report, key)
  if (n === undefined) return report.settings.instructions && share > once
  const bar = apart(n.freedom) * n.deviation * Math.sqrt(1 / va.length + 1 / vb.length)
  return share > Math.max(least, bar)
}

/** Of a count that may be 0, too. */
function logOf(value: number): number {
  return Math.log(Math.max(value, 1e-3))
}

/** Differences that one of two runs calls sure and whose order the other run does not have, in words; none of two runs of one machine should be. */
export function contradictions(first: Report, second: Report): readonly string[] {
  const out: string[] = []
  const names = lines(first).filter((name) => name !== ceiling && lines(second).includes(name))
  for (const { key } of measures)
    for (const services of first.settings.sizes)
      for (const [i, a] of names.entries())
        for (const b of names.slice(i + 1)) {
          if (!differ(first, key, services, a, b) && !differ(second, key, services, a, b)) continue
          const [x, y] = [first, second].map((r) => [figureOf(r, a, services, key), figureOf(r, b, services, key)])
          if (x!.some((f) => f === undefined) || y!.some((f) => f === undefined)) continue
          if (x![0]!.median < x![1]!.median !== y![0]!.median < y![1]!.median) out.push(`${key} with ${services} Services: ${a} and ${b}`)
        }
  return out
}
