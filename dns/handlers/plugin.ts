import type { Log } from '../../lib/log.ts'
import type { Metrics } from '../../lib/metrics.ts'
import type { Driver } from '../../lib/sockets/seam.ts'
import type { Handler } from '../answer.ts'
import type { Cluster } from '../cluster.ts'
import type { Forwarder } from '../forward.ts'
import type { Site } from '../server.ts'
import { CorefileError, zonesOf, type Line } from '../corefile.ts'
import { root, type Name } from '../wire/name.ts'

/** A directive of a Corefile: a folder here and a line in `list.ts`. */
export interface Plugin {
  readonly name: string
  /**
   * What the lines of one server block with this word make; nothing when they only set options. Throws `CorefileError` that names the line
   * for what it does not know.
   */
  build(lines: readonly Line[], place: Place): readonly Handler[]
}

/** Options of a server block that are no handlers. */
export interface BlockOptions {
  bufsize?: number
  bind?: string[]
  health?: { host: string; port: number; lameduck: number }
  ready?: { host: string; port: number }
  prometheus?: { host: string; port: number }
  reload?: number
  /** Milliseconds. */
  idle?: number
  message?: number
  tls?: { cert: string; key: string; ca?: string }
  /** Those of the block, so that the loop detection finds them. */
  forwarders?: Forwarder[]
  view?: Site['view']
}

/** What a handler finds around it when it is made. */
export interface Place {
  /** The zones of the server block. */
  readonly zones: readonly Name[]
  /** Label of the metrics: `dns://:53`. */
  readonly server: string
  readonly options: BlockOptions
  readonly env: Environment
  /** Ends with the configuration the handler belongs to. */
  readonly closing: (close: () => void) => void
}

/** What a server of one process shares among its handlers. */
export interface Environment {
  readonly log: Log
  readonly metrics: Meters
  readonly driver: Driver
  readonly resolvConf: string
  /** The objects that the `kubernetes` handlers are about. */
  readonly cluster: Cluster
  /** Asked for by a handler: objects of this kind are mirrored too. */
  want(kind: 'pod' | 'ingress'): void
  /** Text of a file; undefined if it cannot be read. */
  read(path: string): string | undefined
  /** Addresses and port this server listens on, so that it does not ask itself. */
  readonly self: readonly { readonly host: string; readonly port: number }[]
  /** Milliseconds, monotonic. */
  now(): number
  random(): number
  /** A number below `n`. */
  below?(n: number): number
}

/** Counters under CoreDNS's names; made once, kept over reloads. */
export interface Meters {
  readonly registry: Metrics
  counter(name: string, help: string): ReturnType<Metrics['counter']>
  gauge(name: string, help: string): ReturnType<Metrics['gauge']>
  histogram(name: string, help: string, buckets?: readonly number[]): ReturnType<Metrics['histogram']>
}

/** `Meters` over a registry: asking twice gives the same one. */
export function meters(registry: Metrics): Meters {
  const made = new Map<string, unknown>()
  const once = <T>(name: string, make: () => T): T => {
    if (!made.has(name)) made.set(name, make())
    return made.get(name) as T
  }
  return {
    registry,
    counter: (name, help) => once(name, () => registry.counter(name, help)),
    gauge: (name, help) => once(name, () => registry.gauge(name, help)),
    histogram: (name, help, buckets) => once(name, () => registry.histogram(name, help, buckets)),
  }
}

/** Throws for a line in braces that the directive does not know. */
export function unknown(directive: Line, line: Line): never {
  throw new CorefileError(line, `${directive.name}: ${line.name} is not supported`)
}

/** A whole number in a range, or an error that names the line. */
export function wholeNumber(text: string | undefined, at: Line, what: string, least = 0, most = 2 ** 31 - 1): number {
  const n = Number(text)
  if (text === undefined || !/^\d+$/.test(text) || n < least || n > most)
    throw new CorefileError(at, `${what}: expected a number from ${least} to ${most}, got ${text === undefined ? 'nothing' : `"${text}"`}`)
  return n
}

/** `:9153`, `0.0.0.0:9153` or nothing after a directive that listens. */
export function listenAddress(line: Line, port: number): { readonly host: string; readonly port: number } {
  const text = line.args[0]
  if (text === undefined) return { host: '', port }
  const m = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text)
  if (m === null || Number(m[3]) > 65_535) throw new CorefileError(line, `${line.name}: expected ADDRESS:PORT, got "${text}"`)
  return { host: m[1] ?? m[2] ?? '', port: Number(m[3]) }
}

/** `fallthrough`: every name that is not here goes on to the next handler; `fallthrough ZONE…`: those in the zones. */
export function fallthroughOf(line: Line): readonly Name[] {
  return line.args.length === 0 ? [root] : line.args.flatMap((arg) => zonesOf(arg, line))
}
