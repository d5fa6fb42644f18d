/** One flag of a command. `list` may be given several times or with commas; `value` names it in the help. */
export interface Flag {
  readonly type: 'string' | 'number' | 'boolean' | 'list' | 'duration'
  readonly help: string
  readonly value?: string
  readonly default?: string | number | boolean | readonly string[]
  readonly required?: boolean
  /** Only these values are accepted. */
  readonly oneOf?: readonly string[]
  /** Not shown in the help. */
  readonly hidden?: boolean
  readonly short?: string
}

export type Flags = Readonly<Record<string, Flag>>

type ValueOf<F> = F extends { readonly type: 'number' | 'duration' } ? number : F extends { readonly type: 'boolean' } ? boolean : F extends { readonly type: 'list' } ? readonly string[] : string

/** The values of `F` after parsing: always there with a default, `required` or `list`; else perhaps `undefined`. Durations are milliseconds. */
export type Values<F extends Flags> = {
  readonly [K in keyof F]: F[K] extends { readonly default: unknown } | { readonly required: true } | { readonly type: 'boolean' | 'list' } ? ValueOf<F[K]> : ValueOf<F[K]> | undefined
}

/** What a user typed that makes no sense; printed without a stack, exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** A parsed command line: flag values, what stood between, what stood after `--`, and which flags were given. */
export interface Parsed<F extends Flags> {
  readonly values: Values<F>
  readonly positionals: readonly string[]
  readonly rest: readonly string[]
  readonly given: ReadonlySet<string>
}

/** Parses `args` against `flags`; throws `UsageError` that names the flag and what was expected. */
export function parse<F extends Flags>(flags: F, args: readonly string[], how: { readonly stopAtPositional?: boolean } = {}): Parsed<F> {
  const values: Record<string, unknown> = {}
  const given = new Set<string>()
  const positionals: string[] = []
  let rest: readonly string[] = []
  const shorts = new Map(Object.entries(flags).flatMap(([name, f]) => (f.short === undefined ? [] : [[f.short, name] as const])))
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!
    if (arg === '--') {
      rest = args.slice(i + 1)
      break
    }
    if (arg === '-' || !arg.startsWith('-')) {
      positionals.push(arg)
      if (how.stopAtPositional === true) {
        rest = args.slice(i + 1)
        break
      }
      continue
    }
    const equals = arg.indexOf('=')
    const typed = equals < 0 ? arg : arg.slice(0, equals)
    const bare = typed.replace(/^--?/, '')
    // `-conf` and `--conf` are the same, as in Go's flag package; one letter is a short flag first.
    const name = typed.startsWith('--') ? bare : (shorts.get(bare) ?? bare)
    const flag = Object.hasOwn(flags, name) ? flags[name] : undefined
    if (flag === undefined) throw new UsageError(`unknown flag ${typed}${suggest(name, Object.keys(flags))}`)
    let text = equals < 0 ? undefined : arg.slice(equals + 1)
    if (text === undefined && flag.type !== 'boolean') {
      text = args[++i]
      if (text === undefined) throw new UsageError(`flag --${name} needs a value: ${flag.value ?? flag.type}`)
    }
    const value = convert(name, flag, text)
    if (flag.type === 'list') values[name] = [...((given.has(name) ? values[name] : []) as string[]), ...(value as string[])]
    else values[name] = value
    given.add(name)
  }
  for (const [name, flag] of Object.entries(flags)) {
    if (given.has(name)) continue
    if (flag.required === true) throw new UsageError(`flag --${name} is required: ${flag.help}`)
    values[name] = flag.default ?? (flag.type === 'boolean' ? false : flag.type === 'list' ? [] : undefined)
    if (flag.type === 'duration' && typeof values[name] === 'string') values[name] = duration(values[name])
  }
  return { values: values as Values<F>, positionals, rest, given }
}

function convert(name: string, flag: Flag, text: string | undefined): unknown {
  switch (flag.type) {
    case 'boolean':
      if (text === undefined || text === 'true') return true
      if (text === 'false') return false
      throw new UsageError(`flag --${name}: expected true or false, got "${text}"`)
    case 'number': {
      const n = Number(text)
      if (text === '' || !Number.isFinite(n)) throw new UsageError(`flag --${name}: expected a number, got "${text}"`)
      return n
    }
    case 'duration': {
      const ms = duration(text!)
      if (ms === undefined) throw new UsageError(`flag --${name}: expected a duration such as 30s or 500ms, got "${text}"`)
      return ms
    }
    case 'list':
      return text!.split(',').filter((s) => s !== '')
    case 'string':
      if (flag.oneOf !== undefined && !flag.oneOf.includes(text!)) throw new UsageError(`flag --${name}: expected one of ${flag.oneOf.join(', ')}, got "${text}"`)
      return text
  }
}

const units: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** A Go duration (`1h2m3.5s`, `500ms`, `0`) in milliseconds; undefined if it is none. */
export function duration(text: string): number | undefined {
  if (text === '0') return 0
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined
  let sum = 0
  for (const [, amount, , unit] of text.matchAll(/(\d+(\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) sum += Number(amount) * units[unit!]!
  return sum
}

/** `, did you mean --mode?` when a known word is close enough, else nothing. */
export function suggest(word: string, known: readonly string[], prefix = '--'): string {
  let best: string | undefined
  let least = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const d = distance(word, candidate)
    if (d < least) [best, least] = [candidate, d]
  }
  return best === undefined ? '' : `, did you mean ${prefix}${best}?`
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1))
    row = next
  }
  return row[b.length]!
}

/** What a command finds around it: a signal that fires on SIGTERM and SIGINT, and a place for results. */
export interface Context {
  readonly signal: AbortSignal
  /** Standard output, for results. */
  out(text: string): void
  /** Standard error, for people. */
  err(text: string): void
}

/** A verb of `switchyard`. Returns the exit status (0 if none). */
export interface Command {
  readonly name: string
  readonly summary: string
  /** What stands after the name in the usage line, e.g. `NODE -- CMD…`. */
  readonly usage?: string
  readonly flags?: Flags
  /** More text for `--help`. */
  readonly details?: string
  /** Verbs below this one; then `run` is called only when none is named. */
  readonly verbs?: readonly (Command | LazyCommand)[]
  run?(args: readonly string[], context: Context): Promise<number | void>
}

/** A verb whose module is loaded only when it is asked for. */
export interface LazyCommand {
  readonly name: string
  readonly summary: string
  load(): Promise<Command>
}

/** Builds a command whose `run` gets parsed flags. */
export function command<F extends Flags>(
  spec: Omit<Command, 'run' | 'flags'> & { readonly flags: F; readonly stopAtPositional?: boolean; run(parsed: Parsed<F>, context: Context): Promise<number | void> },
): Command {
  return {
    ...spec,
    run: async (args, context) => spec.run(parse(spec.flags, args, spec.stopAtPositional === undefined ? {} : { stopAtPositional: spec.stopAtPositional }), context),
  }
}

/** Finds the verb that `args` name below `root` and runs it; prints help; turns `UsageError` into a sentence and status 2. */
export async function dispatch(root: Command, args: readonly string[], context: Context, path: readonly string[] = [root.name]): Promise<number> {
  const first = args[0]
  const verb = first === undefined || first.startsWith('-') ? undefined : root.verbs?.find((v) => v.name === first)
  if (verb !== undefined) {
    const next = 'load' in verb ? await verb.load() : verb
    return dispatch(next, args.slice(1), context, [...path, verb.name])
  }
  const stop = args.indexOf('--')
  const own = stop < 0 ? args : args.slice(0, stop)
  // Words behind a positional belong to it where a command takes another's arguments, so only leading flags ask for help there.
  if (own[0] === '--help' || own[0] === '-h' || (root.verbs === undefined && (own.includes('--help') || own.includes('-h'))) || (first === 'help' && root.verbs !== undefined)) {
    context.out(help(root, path))
    return 0
  }
  try {
    if (root.run === undefined || (root.verbs !== undefined && first !== undefined && !first.startsWith('-') && root.flags === undefined)) {
      if (first === undefined) {
        context.err(help(root, path))
        return 2
      }
      throw new UsageError(`unknown ${first.startsWith('-') ? 'flag' : 'verb'} ${first}${suggest(first, root.verbs?.map((v) => v.name) ?? [], '')}`)
    }
    return (await root.run(args, context)) ?? 0
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    context.err(`${path.join(' ')}: ${error.message}\nTry "${path.join(' ')} --help".\n`)
    return 2
  }
}

/** The help text of one command. */
export function help(c: Command, path: readonly string[]): string {
  const lines = [`${c.summary}`, '', `Usage: ${path.join(' ')}${c.verbs === undefined ? '' : ' VERB'}${c.usage === undefined ? '' : ` ${c.usage}`}${c.flags === undefined ? '' : ' [flags]'}`]
  if (c.verbs !== undefined) {
    const wide = Math.max(...c.verbs.map((v) => v.name.length))
    lines.push('', 'Verbs:', ...c.verbs.map((v) => `  ${v.name.padEnd(wide)}  ${v.summary}`))
  }
  const flags = Object.entries(c.flags ?? {}).filter(([, f]) => f.hidden !== true)
  if (flags.length > 0) {
    const left = flags.map(
      ([name, f]) =>
        `${f.short === undefined ? '' : `-${f.short}, `}--${name}${f.type === 'boolean' ? '' : ` ${f.oneOf?.join('|') ?? f.value ?? { number: 'N', list: 'A,B', duration: '30s', string: 'TEXT' }[f.type]}`}`,
    )
    const wide = Math.min(38, Math.max(...left.map((l) => l.length)))
    lines.push('', 'Flags:')
    flags.forEach(([, f], i) => {
      const fallback = f.default === undefined || f.default === '' || f.default === false || (Array.isArray(f.default) && f.default.length === 0) ? '' : ` (default ${String(f.default)})`
      lines.push(`  ${left[i]!.padEnd(wide)}  ${f.help}${f.required === true ? ' (required)' : fallback}`)
    })
  }
  if (c.details !== undefined) lines.push('', c.details)
  return `${lines.join('\n')}\n`
}

/** `ADDR:PORT`, `[V6]:PORT` or `:PORT` taken apart; throws `UsageError` naming `--flag`. */
export function hostPort(text: string, flag: string): { readonly host: string; readonly port: number } {
  const m = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text)
  const port = Number(m?.[3])
  if (m === null || port > 65_535) throw new UsageError(`flag --${flag}: expected ADDR:PORT, got "${text}"`)
  return { host: m[1] ?? m[2] ?? '', port }
}
