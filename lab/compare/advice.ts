import { ceiling, differ, figureOf, lines, linear, measures, noise, type Figure, type Measure, type MeasureKey, type Noise, type Report } from './stats.ts'

/** What to take, and why. */
export interface Advice {
  /** Modes that nothing measured sets apart, the first of them the one to take. */
  readonly take: readonly string[]
  readonly sentences: readonly string[]
}

/** Asked one after the other until one mode is left. The percentiles follow the rate; one of them is enough. */
const deciding: readonly MeasureKey[] = ['connections', 'requests', 'p99', 'change', 'failed', 'cold', 'memory']
/** Who wins when nothing tells the modes apart: the newest interface of the kernel, which Kubernetes moves to. */
const preferred = ['nftables', 'iptables', 'ipvs', 'userspace']

/** The recommendation, with the figures it rests on. */
export function advise(report: Report): Advice {
  const ran = lines(report).filter((name) => preferred.includes(name))
  if (ran.length === 0) return { take: [], sentences: ['No mode could run here.'] }
  const sentences: string[] = []
  const services = Math.max(...report.settings.sizes)
  let left = ran.toSorted((a, b) => preferred.indexOf(a) - preferred.indexOf(b))
  if (ran.length === 1) sentences.push(`Take ${ran[0]}: no other mode was measured.`)
  else {
    for (const key of deciding) {
      if (left.length === 1) break
      const found = compareBy(report, measureOf(key), services, left)
      if (found === undefined) continue
      sentences.push(found.sentence)
      left = left.filter((name) => !found.behind.includes(name))
    }
    const [first] = left
    sentences.push(
      left.length === 1
        ? `Take ${first}.`
        : `Nothing measured here sets ${list(left)} apart; any of them will do. Take ${first}, for it is the interface of the kernel that is being developed further among them.`,
    )
  }
  sentences.push(...growth(report))
  const failed = ran.filter((name) => report.samples.some((s) => s.mode === name && s.errors > 0))
  if (failed.length > 0) sentences.push(`Some requests failed under load by ${list(failed)}; look at the errors before taking these figures for granted.`)
  for (const m of report.modes)
    if (m.failures !== undefined) sentences.push(`${m.name} should run here and failed ${m.failures.length} times, last with: ${m.failures.at(-1)!.trim().split('\n').at(-1)}`)
  if (report.machine.busy > 0.15)
    sentences.push(`Others used ${Math.round(report.machine.busy * 100)} % of the processors before the run began; on a quiet machine the figures are better, and differences show that are lost here.`)
  if (report.settings.rounds < 3 && !report.settings.instructions)
    sentences.push(`${report.settings.rounds === 1 ? 'One round shows' : 'Two rounds show'} little of the noise; a longer run says more.`)
  return { take: left, sentences }
}

/** Who is behind the best of `names` for sure. */
function compareBy(report: Report, measure: Measure, services: number, names: readonly string[]): { readonly sentence: string; readonly behind: readonly string[] } | undefined {
  const known = names.map((name) => ({ name, f: figureOf(report, name, services, measure.key) })).filter((x): x is { name: string; f: Figure } => x.f !== undefined)
  if (known.length < names.length) return undefined
  const best = known.reduce((a, b) => ((measure.better === 'more' ? b.f.median > a.f.median : b.f.median < a.f.median) ? b : a))
  const behind = known.filter((x) => x !== best && differ(report, measure.key, services, best.name, x.name)).map((x) => x.name)
  const said = `${measure.title} with ${count(services)}: ${known.map((x) => `${x.name} ${show(measure, x.f.median)}`).join(', ')}.`
  if (behind.length > 0) return { sentence: `${said} ${list(behind)} ${behind.length === 1 ? 'is' : 'are'} behind for sure.`, behind }
  const n = noise(report, measure.key)
  return { sentence: `${said} The difference is inside the noise${n === undefined ? '' : ` (${within(n)})`}.`, behind }
}

/** Who gets slower as Services are added, and who does not. */
function growth(report: Report): readonly string[] {
  const sizes = report.settings.sizes.toSorted((a, b) => a - b)
  const [few, many] = [sizes[0]!, sizes.at(-1)!]
  if (sizes.length < 2) return []
  const said = lines(report)
    .filter((name) => name !== ceiling)
    .flatMap((name) => {
      const [a, b] = [figureOf(report, name, few, 'connections'), figureOf(report, name, many, 'connections')]
      return a === undefined || b === undefined ? [] : [`${name === linear ? "kube-proxy's linear list (rendered by a helper)" : name} ${Math.round((b.median / a.median) * 100)} %`]
    })
  return said.length === 0 ? [] : [`Of its new connections a second with ${count(few)}, with ${count(many)} each still has: ${said.join(', ')}.`]
}

function measureOf(key: MeasureKey): Measure {
  return measures.find((m) => m.key === key)!
}

/** `1,000 Services`. */
export function count(services: number): string {
  return `${services.toLocaleString('en')} Service${services === 1 ? '' : 's'}`
}

/** A value with its unit. */
export function show(measure: Measure, value: number): string {
  const text = value.toLocaleString('en', { maximumFractionDigits: measure.digits, minimumFractionDigits: measure.digits })
  return `${text}${measure.unit === '' || measure.unit.startsWith('/') ? '' : ' '}${measure.unit}`
}

/** The noise in words: two standard deviations, inside which nineteen of twenty repetitions lie. */
export function within(n: Noise): string {
  const share = 200 * n.deviation
  if (share > 100) return 'repetitions lie far apart'
  return `repetitions lie within ±${share.toFixed(share < 10 ? 1 : 0)} %`
}

function list(names: readonly string[]): string {
  return names.length < 2 ? (names[0] ?? '') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}
