import { spawn, type ChildProcess } from 'node:child_process'
import { appendFileSync, renameSync, statSync } from 'node:fs'
import { Backoff } from '../../lib/backoff.ts'
import { sleep } from '../../lib/lifecycle.ts'

/** A long-running program of a node. */
export interface Part {
  /** `NODE/PART`, e.g. `node1/proxy`. */
  readonly name: string
  readonly argv: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Its own output goes here. */
  readonly log: string
}

/** What is known of a part. */
export interface PartStatus {
  readonly name: string
  readonly state: 'starting' | 'ready' | 'waiting to restart' | 'stopped'
  readonly pid: number | undefined
  readonly restarts: number
  /** Milliseconds from start to its ready line. */
  readonly readyAfter: number | undefined
  /** What its ready line said. */
  readonly listens: Readonly<Record<string, unknown>> | undefined
  /** How it ended last. */
  readonly lastEnd: string | undefined
}

/** A part that ran this long (ms) is healthy: its next failure starts the waits over. */
const healthyAfter = 10_000
/** After SIGTERM a part has this long (ms). */
const graceful = 3000
/** A log file that reaches this size (bytes) becomes FILE.old. */
const logLimit = 8 << 20

/** Keeps parts running: what ends is started again, at once the first time and then after growing waits. */
export class Supervisor {
  readonly #parts = new Map<string, Running>()

  /** Starts `part`, in place of one of the same name. */
  async start(part: Part): Promise<void> {
    await this.stop(part.name)
    this.#parts.set(part.name, new Running(part))
  }

  /** Ends the part and forgets it. */
  async stop(name: string): Promise<void> {
    const running = this.#parts.get(name)
    if (running === undefined) return
    await running.stop()
    if (this.#parts.get(name) === running) this.#parts.delete(name)
  }

  /** Resolves when the part has said it is ready; rejects when it has not within `ms` or has ended `tries` times before, with the last lines it wrote. */
  async whenReady(name: string, ms: number, tries = Infinity): Promise<PartStatus> {
    const until = performance.now() + ms
    for (;;) {
      const running = this.#parts.get(name)
      if (running?.status.state === 'ready') return running.status
      if (running?.status.lastEnd !== undefined && running.status.restarts + 1 >= tries) throw new Error(`${name} does not start: ${running.tail.at(-1) ?? running.status.lastEnd}`)
      if (running === undefined || performance.now() > until) {
        const said = running?.tail.join('\n') ?? ''
        throw new Error(`${name} was not ready within ${Math.round(ms / 1000)} s (${running?.status.lastEnd ?? 'it still runs'})${said === '' ? '' : `; it said last:\n${said}`}`)
      }
      await Promise.race([running.changed(), sleep(Math.min(250, Math.max(1, until - performance.now())))])
    }
  }

  part(name: string): Part | undefined {
    return this.#parts.get(name)?.part
  }

  /** Sends a signal to the part's process, as chaos does; the supervisor acts on what follows. */
  kill(name: string, signal: NodeJS.Signals): boolean {
    return this.#parts.get(name)?.kill(signal) ?? false
  }

  get status(): readonly PartStatus[] {
    return [...this.#parts.values()].map((r) => r.status)
  }

  async close(): Promise<void> {
    await Promise.all([...this.#parts.keys()].map((name) => this.stop(name)))
  }
}

class Running {
  readonly part: Part
  /** The last lines it wrote. */
  readonly tail: string[] = []
  readonly #backoff = new Backoff({ first: 100, most: 10_000, jitter: 0 })
  readonly #stopped = new AbortController()
  readonly #ended: Promise<void>
  #child: ChildProcess | undefined
  #state: PartStatus['state'] = 'starting'
  #restarts = 0
  #readyAfter: number | undefined
  #listens: Readonly<Record<string, unknown>> | undefined
  #lastEnd: string | undefined
  #wake: (() => void)[] = []

  constructor(part: Part) {
    this.part = part
    this.#ended = this.#loop()
  }

  get status(): PartStatus {
    return { name: this.part.name, state: this.#state, pid: this.#child?.pid, restarts: this.#restarts, readyAfter: this.#readyAfter, listens: this.#listens, lastEnd: this.#lastEnd }
  }

  changed(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve))
  }

  kill(signal: NodeJS.Signals): boolean {
    return this.#child?.kill(signal) ?? false
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    // A frozen process takes no SIGTERM until it runs again.
    this.kill('SIGCONT')
    this.kill('SIGTERM')
    const timer = setTimeout(() => this.kill('SIGKILL'), graceful)
    await this.#ended
    clearTimeout(timer)
  }

  async #loop(): Promise<void> {
    const { signal } = this.#stopped
    while (!signal.aborted) {
      const began = performance.now()
      this.#set('starting')
      this.#lastEnd = await this.#once(began)
      this.#child = undefined
      this.#log(`${JSON.stringify({ time: new Date().toISOString(), level: signal.aborted ? 'info' : 'warn', message: 'ended', part: this.part.name, how: this.#lastEnd })}\n`)
      if (signal.aborted) break
      if (performance.now() - began > healthyAfter) this.#backoff.reset()
      this.#set('waiting to restart')
      await sleep(this.#backoff.next(), signal)
      this.#restarts++
    }
    this.#set('stopped')
  }

  #once(began: number): Promise<string> {
    return new Promise((resolve) => {
      const child = spawn(this.part.argv[0]!, this.part.argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...this.part.env } })
      this.#child = child
      let rest = ''
      const read = (chunk: string): void => {
        this.#log(chunk)
        const lines = (rest + chunk).split('\n')
        rest = lines.pop()!
        for (const line of lines) this.#line(line, began)
      }
      child.stdout!.setEncoding('utf8').on('data', read)
      child.stderr!.setEncoding('utf8').on('data', read)
      child.on('error', (error) => resolve(`could not be started: ${error.message}`))
      child.on('close', (code, signal) => resolve(signal === null ? `exit status ${code}` : `killed by ${signal}`))
    })
  }

  #line(line: string, began: number): void {
    this.tail.push(line)
    if (this.tail.length > 20) this.tail.shift()
    if (this.#state !== 'starting' || !line.startsWith('{')) return
    try {
      const { message, time: _time, level: _level, ...fields } = JSON.parse(line) as Record<string, unknown>
      if (message !== 'ready') return
      this.#readyAfter = Math.round(performance.now() - began)
      this.#listens = fields
      this.#set('ready')
    } catch {
      // Not a line of ours: a tool's own output.
    }
  }

  #set(state: PartStatus['state']): void {
    this.#state = state
    for (const wake of this.#wake.splice(0)) wake()
  }

  #log(text: string): void {
    const file = this.part.log
    try {
      if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > logLimit) renameSync(file, `${file}.old`)
      appendFileSync(file, text)
    } catch {
      // A full disk must not end the part.
    }
  }
}
