import type { Ingress } from '../../kube/objects.ts'
import type { Settings, SettingsContext } from '../settings.ts'
import type { Step, Tools } from '../http1/exchange.ts'
import type { Policy } from '../table.ts'

/** The prefixes under which every key is understood: ingress-nginx's, as people's YAML has it, and our own. */
export const prefixes = ['switchyard.dev/', 'nginx.ingress.kubernetes.io/'] as const

/** What an annotation is for, and what holds without it. */
export interface Key {
  readonly help: string
  readonly default?: string
  /** How far we go: wholly, with a difference that is named, taken without effect, or refused. */
  readonly support?: 'full' | 'differs' | 'ignored' | 'refused'
  /** In what it differs, or why it has no effect or is refused. */
  readonly note?: string
}

/** A group of annotations that do one thing. Adding one takes a file and a line in `list.ts`. */
export interface Feature {
  /** Also the name of its policies. */
  readonly name: string
  /** By key, without prefix. */
  readonly keys: Readonly<Record<string, Key>>
  /** Changes the draft, and returns the policy of its own that requests go through, if any. */
  read(a: Annotations, draft: Draft, context: SettingsContext): Policy | undefined | void
  /** Makes the policy ready. */
  step?(policy: never, tools: Tools): Step
}

export type Draft = { -readonly [K in keyof Settings]: Settings[K] }

/** The annotations of one Ingress, read by type. What cannot be read is told, and counts as not there. */
export class Annotations {
  readonly ingress: Ingress
  readonly namespace: string
  readonly #values = new Map<string, string>()
  readonly problems: { reason: string; message: string }[] = []
  /** Set when something that guards requests cannot be done: then nobody passes. */
  closed: string | undefined

  readonly #defaults: ReadonlyMap<string, string> | undefined

  constructor(ingress: Ingress, defaults?: ReadonlyMap<string, string>) {
    this.#defaults = defaults
    this.ingress = ingress
    this.namespace = ingress.metadata.namespace ?? 'default'
    for (const prefix of [...prefixes].reverse()) {
      for (const [key, value] of Object.entries(ingress.metadata.annotations ?? {})) if (key.startsWith(prefix)) this.#values.set(key.slice(prefix.length), value)
    }
  }

  get keys(): Iterable<string> {
    return this.#values.keys()
  }

  problem(key: string, message: string): void {
    this.problems.push({ reason: 'InvalidAnnotation', message: `annotation ${key}: ${message}` })
  }

  /** Tells of keys that another one leaves without effect on what it is about. */
  ignoredBeside(key: string, others: readonly string[]): void {
    for (const other of others) if (this.#values.has(other)) this.problem(other, `has no effect on TLS that ${key} passes on`)
  }

  /** As `problem`, for what guards requests: they are refused until it is mended. */
  refuse(key: string, message: string): void {
    this.problem(key, `${message}; requests are refused until it is mended`)
    this.closed ??= `annotation ${key}: ${message}`
  }

  has(key: string): boolean {
    return this.#values.has(key) || this.#defaults?.has(key) === true
  }

  text(key: string): string | undefined {
    const value = (this.#values.get(key) ?? this.#defaults?.get(key))?.trim()
    if (value === undefined || value === '') return undefined
    // Whatever ends a line could end one of ours.
    // eslint-disable-next-line no-control-regex
    if (/[\u0000-\u0008\u000a-\u001f\u007f]/.test(value) && !/snippet|-list|range|cors-/.test(key)) {
      this.problem(key, 'holds control characters')
      return undefined
    }
    return value.replace(/\s*[\r\n]+\s*/g, ' ')
  }

  flag(key: string): boolean | undefined {
    const value = this.text(key)?.toLowerCase()
    if (value === undefined) return undefined
    if (value === 'true' || value === 'on' || value === '1') return true
    if (value === 'false' || value === 'off' || value === '0') return false
    this.problem(key, `expected true or false, got "${value}"`)
    return undefined
  }

  number(key: string, least = 0, most = 1e9): number | undefined {
    const value = this.text(key)
    if (value === undefined) return undefined
    const n = Number(value)
    if (/^\d+$/.test(value) && n >= least && n <= most) return n
    this.problem(key, `expected a number from ${least} to ${most}, got "${value}"`)
    return undefined
  }

  /** Seconds, bare or with a unit as nginx writes them, in milliseconds. */
  time(key: string): number | undefined {
    const value = this.text(key)
    if (value === undefined) return undefined
    const m = /^(\d+)(ms|s|m|h|d)?$/.exec(value)
    const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[m?.[2] ?? 's']
    if (m !== null && unit !== undefined) return Number(m[1]) * unit
    this.problem(key, `expected seconds, got "${value}"`)
    return undefined
  }

  /** Octets: `8m`, `512k`, `1g`, `0`. */
  size(key: string): number | undefined {
    const value = this.text(key)
    if (value === undefined) return undefined
    const m = /^(\d+)([kmg]?)$/i.exec(value)
    if (m !== null) return Number(m[1]) * { '': 1, k: 1024, m: 1_048_576, g: 1_073_741_824 }[m[2]!.toLowerCase() as '' | 'k' | 'm' | 'g']
    this.problem(key, `expected a size such as 8m, got "${value}"`)
    return undefined
  }

  list(key: string): readonly string[] | undefined {
    const value = this.text(key)
    return value
      ?.split(',')
      .map((s) => s.trim())
      .filter((s) => s !== '')
  }

  oneOf<T extends string>(key: string, words: readonly T[]): T | undefined {
    const value = this.text(key)
    if (value === undefined) return undefined
    const found = words.find((w) => w.toLowerCase() === value.toLowerCase())
    if (found === undefined) this.problem(key, `expected ${words.join(', ')}, got "${value}"`)
    return found
  }
}
