/** Severity of a log line. */
export type Level = 'debug' | 'info' | 'warn' | 'error'

/** Writes one line per event that matters; `with` adds fields to every line. Values are never secrets. */
export interface Log {
  debug(message: string, fields?: Fields): void
  info(message: string, fields?: Fields): void
  warn(message: string, fields?: Fields): void
  error(message: string, fields?: Fields): void
  with(fields: Fields): Log
}

export type Fields = Readonly<Record<string, unknown>>

/** Where lines go and how they look: JSON for machines, words for people at a terminal. */
export interface LogOptions {
  readonly write?: (line: string) => void
  readonly json?: boolean
  readonly level?: Level
  readonly now?: () => Date
}

const order: Readonly<Record<Level, number>> = { debug: 0, info: 1, warn: 2, error: 3 }

/** A log to standard error: one JSON object a line, readable text on a terminal. */
export function createLog(options: LogOptions = {}, base: Fields = {}): Log {
  const write = options.write ?? ((line: string) => void process.stderr.write(line))
  const json = options.json ?? !process.stderr.isTTY
  const least = order[options.level ?? 'info']
  const now = options.now ?? (() => new Date())
  const put = (level: Level, message: string, fields: Fields = {}): void => {
    if (order[level] < least) return
    const all = { ...base, ...fields }
    write(json ? jsonLine(now(), level, message, all) : textLine(now(), level, message, all))
  }
  return {
    debug: (m, f) => put('debug', m, f),
    info: (m, f) => put('info', m, f),
    warn: (m, f) => put('warn', m, f),
    error: (m, f) => put('error', m, f),
    with: (fields) => createLog(options, { ...base, ...fields }),
  }
}

/** A log that writes nothing. */
export const silent: Log = createLog({ write: () => {} })

function jsonLine(at: Date, level: Level, message: string, fields: Fields): string {
  return `${JSON.stringify({ time: at.toISOString(), level, message, ...plain(fields) })}\n`
}

function textLine(at: Date, level: Level, message: string, fields: Fields): string {
  const words = Object.entries(plain(fields)).map(([k, v]) => `${k}=${typeof v === 'string' ? v : JSON.stringify(v)}`)
  const mark = level === 'info' ? '' : `${level}: `
  return `${at.toISOString().slice(11, 23)} ${mark}${message}${words.length > 0 ? `  ${words.join(' ')}` : ''}\n`
}

function plain(fields: Fields): Record<string, unknown> {
  const out: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(fields)) if (value !== undefined) out[key] = value instanceof Error ? explainError(value) : value
  return out
}

/** An error in one line: what was tried, then each cause after a colon. */
export function explainError(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : `: ${explainError(error.cause)}`
  return `${error.message || error.name}${cause}`
}
