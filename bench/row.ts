import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'

/** One measured figure, beside a peer's from the same run. */
export interface Row {
  readonly name: string
  /** Median of the rounds. */
  readonly ours: number
  readonly unit: string
  /** Least and most of the rounds. */
  readonly spread?: readonly [number, number]
  readonly peer?: { readonly name: string; readonly value: number }
  /** A point of a curve, for `--svg`. */
  readonly at?: { readonly curve: string; readonly series: string; readonly x: number }
  /** What it should be: the figure itself, or its ratio to the peer's. */
  readonly bar?: { readonly value: number; readonly of: 'figure' | 'ratio'; readonly atLeast?: boolean }
}

/** What a part's measurements get. */
export interface BenchContext {
  /** Peers named by `--peer`, by name. */
  readonly peers: ReadonlyMap<string, string>
  readonly signal: AbortSignal
  progress(text: string): void
  /** Whether a row of this name is asked for. */
  wants(name: string): boolean
  /** Says that a peer of Debian's packages is not installed. */
  missing(peer: string): void
}

/** What `bench/PART.ts` exports. */
export interface Part {
  rows(context: BenchContext): AsyncIterable<Row>
}

/** The value in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

/** A row of several rounds: median, least and most. */
export function ofRounds(name: string, unit: string, rounds: readonly number[], more: Omit<Partial<Row>, 'name' | 'unit' | 'ours'> = {}): Row {
  return { name, unit, ours: median(rounds), spread: [Math.min(...rounds), Math.max(...rounds)], ...more }
}

/** Where a program of this name is, on the PATH or as `--peer` says. */
export function find(name: string, context: BenchContext): string | undefined {
  const given = context.peers.get(name)
  if (given !== undefined) return given
  for (const dir of [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin', '/sbin']) {
    try {
      accessSync(join(dir, name), constants.X_OK)
      return join(dir, name)
    } catch {}
  }
  return undefined
}
