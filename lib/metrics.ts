/** Names and values of one series, e.g. `{ code: '200' }`. */
export type Labels = Readonly<Record<string, string>>

export interface Counter {
  add(amount?: number, labels?: Labels): void
  value(labels?: Labels): number
}
export interface Gauge {
  set(value: number, labels?: Labels): void
  add(amount: number, labels?: Labels): void
  value(labels?: Labels): number
  remove(labels: Labels): void
}
export interface Histogram {
  observe(value: number, labels?: Labels, times?: number): void
}

interface Family {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  print(out: string[]): void
}

/** The metrics of one program, printed in Prometheus' text format (version 0.0.4). */
export class Metrics {
  readonly #families = new Map<string, Family>()
  readonly #before: (() => void)[] = []

  /** Called before each scrape: to read what is cheaper to read than to keep. */
  onScrape(f: () => void): void {
    this.#before.push(f)
  }

  counter(name: string, help: string): Counter {
    const values = new Map<string, number>()
    this.#register({ name, type: 'counter', help, print: (out) => printAll(out, name, values) })
    return {
      add: (amount = 1, labels) => {
        const key = labelText(labels)
        values.set(key, (values.get(key) ?? 0) + amount)
      },
      value: (labels) => values.get(labelText(labels)) ?? 0,
    }
  }

  gauge(name: string, help: string): Gauge {
    const values = new Map<string, number>()
    this.#register({ name, type: 'gauge', help, print: (out) => printAll(out, name, values) })
    return {
      set: (value, labels) => void values.set(labelText(labels), value),
      add: (amount, labels) => void values.set(labelText(labels), (values.get(labelText(labels)) ?? 0) + amount),
      value: (labels) => values.get(labelText(labels)) ?? 0,
      remove: (labels) => void values.delete(labelText(labels)),
    }
  }

  histogram(name: string, help: string, buckets: readonly number[] = defaultBuckets): Histogram {
    const series = new Map<string, { readonly counts: Float64Array; sum: number; count: number }>()
    this.#register({
      name,
      type: 'histogram',
      help,
      print: (out) => {
        for (const [key, s] of series) {
          let total = 0
          buckets.forEach((le, i) => out.push(`${name}_bucket{${join(key, `le="${le}"`)}} ${(total += s.counts[i]!)}`))
          out.push(`${name}_bucket{${join(key, 'le="+Inf"')}} ${s.count}`, `${name}_sum${braces(key)} ${s.sum}`, `${name}_count${braces(key)} ${s.count}`)
        }
      },
    })
    return {
      observe: (value, labels, times = 1) => {
        const key = labelText(labels)
        let s = series.get(key)
        if (s === undefined) series.set(key, (s = { counts: new Float64Array(buckets.length), sum: 0, count: 0 }))
        const i = buckets.findIndex((le) => value <= le)
        if (i >= 0) s.counts[i]! += times
        s.sum += value * times
        s.count += times
      },
    }
  }

  /** A family whose lines somebody else keeps: `print` pushes them, e.g. `name{code="200"} 3`. */
  family(name: string, type: 'counter' | 'gauge' | 'histogram', help: string, print: (out: string[]) => void): void {
    this.#register({ name, type, help, print })
  }

  /** The text of a scrape. */
  print(): string {
    for (const f of this.#before) f()
    const out: string[] = []
    for (const family of this.#families.values()) {
      out.push(`# HELP ${family.name} ${family.help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`, `# TYPE ${family.name} ${family.type}`)
      family.print(out)
    }
    return `${out.join('\n')}\n`
  }

  #register(family: Family): void {
    if (this.#families.has(family.name)) throw new Error(`metric ${family.name} registered twice`)
    this.#families.set(family.name, family)
  }
}

const defaultBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

function labelText(labels: Labels | undefined): string {
  if (labels === undefined) return ''
  return Object.entries(labels)
    .map(([k, v]) => `${k}="${v.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`)
    .join(',')
}

const braces = (key: string): string => (key === '' ? '' : `{${key}}`)
const join = (key: string, more: string): string => (key === '' ? more : `${key},${more}`)

function printAll(out: string[], name: string, values: ReadonlyMap<string, number>): void {
  for (const [key, value] of values) out.push(`${name}${braces(key)} ${value}`)
}
