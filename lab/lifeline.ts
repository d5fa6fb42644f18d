import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { explainError, type Log } from '../lib/log.ts'
import { removeState, type LabRecord, type StatePaths } from './state.ts'

/** The descriptor that ties a holder to its launcher until the lab is up. */
export const lifeline = 3

/** What a holder tells its launcher, a line each. */
type Report = { readonly progress: string; readonly ms: number } | { readonly ready: true } | { readonly error: string }

/** A lab that this process brought up. Until `stay` it lives only as long as this process. */
export interface Up {
  readonly record: LabRecord
  readonly paths: StatePaths
  /** Lets the lab outlive this process. */
  stay(): Promise<void>
  down(): Promise<void>
}

export interface LaunchOptions {
  readonly paths: StatePaths
  /** What was started, for messages. */
  readonly program: string
  readonly progress: (what: string, ms: number) => void
  readonly signal: AbortSignal
  /** Gives the holder its order; called once it has a process. */
  order(pid: number, line: Socket): Promise<LabRecord>
}

/** The launcher's end: orders, and resolves when the holder says that the lab is ready; rejects with the reason when the holder is gone. */
export async function launched(child: ChildProcess, { paths, program, progress, signal, order }: LaunchOptions): Promise<Up> {
  const line = child.stdio[lifeline] as Socket
  line.on('error', () => {})
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, killed) => resolve(killed === null ? `exit status ${code}` : `killed by ${killed}`))
  })
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
  }
  try {
    if (child.pid === undefined) throw new Error(`could not start ${program}: ${await ended}`)
    const record = await order(child.pid, line)
    await Promise.race([reports(line, progress), ended.then((how) => Promise.reject(new Error(`the holder ended (${how})${said(paths)}`))), whenAborted(signal)])
    return {
      record,
      paths,
      stay: () =>
        new Promise((resolve) => {
          line.write('stay\n', () => {
            line.end()
            line.unref()
            child.unref()
            resolve()
          })
        }),
      down: async () => {
        await kill()
        removeState(paths)
      },
    }
  } catch (error) {
    await kill()
    throw error
  }
}

/** Resolves once the holder says that the lab is ready. */
function reports(line: Socket, progress: (what: string, ms: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    byLines(line, (text) => {
      const report = JSON.parse(text) as Report
      if ('progress' in report) progress(report.progress, report.ms)
      else if ('error' in report) reject(new Error(report.error))
      else resolve()
    })
  })
}

/** The last lines of the holder's log, for messages. */
function said(paths: StatePaths): string {
  try {
    const text = readFileSync(join(paths.logs, 'holder.log'), 'utf8').trim()
    return text === '' ? '' : `; it said: ${text.split('\n').slice(-5).join('\n')}`
  } catch (error) {
    return ` and left no log: ${explainError(error)}`
  }
}

function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const give = (): void => reject(new Error('interrupted; the lab is gone again'))
    if (signal.aborted) give()
    else signal.addEventListener('abort', give, { once: true })
  })
}

/** How a holder brings its lab up: told its order, where to report progress, and what ends the lab. */
export type Work<Order> = (order: Order, progress: (what: string, ms: number) => void, down: () => void) => Promise<void>

/** The holder's end: takes the order, works, says how it went, and resolves when the lab is to end, also when the launcher is gone before it said `stay`. */
export async function held<Order>(work: Work<Order>, log: Log, signal: AbortSignal): Promise<void> {
  const line = new Socket({ fd: lifeline })
  line.on('error', () => {})
  const tell = (report: Report): void => void line.write(`${JSON.stringify(report)}\n`)
  let stays = false
  let down: () => void = () => {}
  const ended = new Promise<void>((resolve) => {
    down = resolve
    signal.addEventListener('abort', () => resolve(), { once: true })
    // A launcher that is gone before it said `stay` takes the lab with it.
    line.on('close', () => {
      if (!stays) resolve()
    })
  })
  const order = new Promise<Order>((resolve, reject) => {
    let first = true
    byLines(line, (text) => {
      if (first) {
        first = false
        try {
          resolve(JSON.parse(text) as Order)
        } catch (error) {
          reject(error as Error)
        }
      } else if (text === 'stay') {
        stays = true
        log.info('the lab stays: its launcher let go')
      }
    })
  })
  // What asks for the end gets its answer first.
  const soon = (): void => void setTimeout(down, 10)
  const up = order.then((o) => work(o, (progress, ms) => tell({ progress, ms }), soon)).then(() => tell({ ready: true }))
  await Promise.race([
    ended,
    up.then(
      () => ended,
      (error) => {
        log.error('the lab did not come up', { error: explainError(error) })
        line.end(`${JSON.stringify({ error: explainError(error) } satisfies Report)}\n`)
        return new Promise<void>((resolve) => line.on('close', () => resolve()))
      },
    ),
  ])
}

function byLines(line: Socket, take: (text: string) => void): void {
  let rest = ''
  line.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop()!
    for (const text of parts) take(text)
  })
}
