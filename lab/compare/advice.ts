import { differ, figureOf, measures, noise, type Figure, type Measure, type MeasureKey, type Report } from './stats.ts'

/** What to take, and why. */
export interface Advice {
  /** Modes that nothing measured sets apart, the first of them the one to take. */
  readonly take: readonly string[]
  readonly sentences: readonly string[]
}

/** Asked one after the other until one mode is left. The percentiles follow the rate; one of them is enough. */
const deciding: readonly MeasureKey[] = ['connections', 'requests', 'p99', 'change', 'cold', 'memory']
/** Who wins when nothing tells the modes apart: the newest interface of the kernel, which Kubernetes moves to. */
const preferred = ['nftables', 'iptables', 'ipvs', 'userspace']

/** The recommendation, with the figures it rests on. */
export function advise(report: Report): Advice {
  const ran = report.modes.filter((m) => m.reason === undefined && report.samples.some((s) => s.mode === m.name)).map((m) => m.name)
  if (ran.length === 0) return { take: [], sentences: ['No mode could run here.'] }
  if (ran.length === 1) return { take: ran, sentences: [`Take ${ran[0]}: no other mode was measured.`] }
  const services = Math.max(...report.settings.sizes)
  const at = `with ${count(services)}`
  const sentences: string[] = []
  let left = ran.toSorted((a, b) => rank(a) - rank(b))
  for (const key of deciding) {
    if (left.length === 1) break
    const measure = measures.find((m) => m.key === key)!
    const known = left.map((name) => ({ name, f: figureOf(report, name, services, key) })).filter((x): x is { name: string; f: Figure } => x.f !== undefined)
    if (known.length < left.length) continue
    const best = known.reduce((a, b) => ((measure.better === 'more' ? b.f.median > a.f.median : b.f.median < a.f.median) ? b : a))
    const n = noise(report, key)
    const behind = known.filter((x) => differ(best.f, x.f, n))
    const said = known.map((x) => `${x.name} ${show(measure, x.f.median)}`).join(', ')
    if (behind.length === 0) {
      sentences.push(`${measure.title} ${at}: ${said}. The difference is inside the noise${n === undefined ? ' of the rounds' : ` (${percent(n)})`}.`)
      continue
    }
    left = left.filter((name) => !behind.some((b) => b.name === name))
    sentences.push(`${measure.title} ${at}: ${said}. ${list(behind.map((b) => b.name))} ${behind.length === 1 ? 'is' : 'are'} behind for sure.`)
  }
  const [first, ...more] = left
  sentences.push(
    more.length === 0
      ? `Take ${first}.`
      : `Nothing measured here sets ${list(left)} apart; any of them will do. Take ${first}, for it is the interface of the kernel that is being developed further among them.`,
  )
  const failed = ran.filter((name) => report.samples.some((s) => s.mode === name && s.errors > 0))
  if (failed.length > 0) sentences.push(`Some requests failed under load by ${list(failed)}; look at the errors before taking these figures for granted.`)
  if (report.settings.rounds < 3) sentences.push(`${report.settings.rounds === 1 ? 'One round shows' : 'Two rounds show'} little of the noise; a longer run says more.`)
  return { take: left, sentences }
}

/** `1,000 Services`. */
export function count(services: number): string {
  return `${services.toLocaleString('en')} Service${services === 1 ? '' : 's'}`
}

/** A value with its unit. */
export function show(measure: Measure, value: number): string {
  const text = value.toLocaleString('en', { maximumFractionDigits: measure.digits, minimumFractionDigits: measure.digits })
  return `${text}${measure.unit.startsWith('/') ? '' : ' '}${measure.unit}`
}

/** A share in words. */
export function percent(share: number): string {
  return `±${(share * 50).toFixed(share < 0.1 ? 1 : 0)} %`
}

function list(names: readonly string[]): string {
  return names.length < 2 ? (names[0] ?? '') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}

function rank(name: string): number {
  const at = preferred.indexOf(name)
  return at < 0 ? preferred.length : at
}
