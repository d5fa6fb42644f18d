import { createReadStream, statSync, watch } from 'node:fs'
import { open } from 'node:fs/promises'
import { sleep } from '../../lib/lifecycle.ts'

/** What of a log is asked for, as `kubectl logs` asks. */
export interface LogQuery {
  readonly follow: boolean
  /** Only the last lines. */
  readonly tailLines: number | undefined
  readonly limitBytes: number | undefined
  /** Only what was written after this instant (ms). */
  readonly since: number | undefined
  readonly timestamps: boolean
}

/** When which part of a log was written. The programs write to the file by themselves, so that it outlives the agent; the agent looks now and then how far it got. */
export class LogClock {
  readonly #marks: { readonly size: number; readonly at: number }[] = []

  /** The file had `size` bytes at `at` (ms). */
  note(size: number, at: number): void {
    if (size > (this.#marks.at(-1)?.size ?? 0)) this.#marks.push({ size, at })
    // Old marks grow coarse rather than many.
    if (this.#marks.length > 10_000) for (let i = 0; i < 5000; i++) this.#marks.splice(i, 1)
  }

  /** When the byte at `offset` was there for sure. */
  timeOf(offset: number, now: number): number {
    let low = 0
    let high = this.#marks.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#marks[middle]!.size > offset) high = middle
      else low = middle + 1
    }
    return this.#marks[low]?.at ?? now
  }

  /** From which byte on everything was written after `since`. */
  offsetAt(since: number): number {
    let offset = 0
    for (const m of this.#marks) if (m.at < since) offset = m.size
    return offset
  }
}

/** Follows a file whose writer says nothing at least this often (ms); a watch alone misses changes on some file systems. */
const look = 500

/** The log `file` as `query` asks for it; with `follow` until `running` says no and everything was given, or `signal` fires. */
export async function* readLog(file: string, clock: LogClock, query: LogQuery, running: () => boolean, signal: AbortSignal): AsyncGenerator<Buffer> {
  const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0
  clock.note(size, Date.now())
  let offset = query.since === undefined ? 0 : clock.offsetAt(query.since)
  if (query.tailLines !== undefined) offset = Math.max(offset, await tailOffset(file, size, query.tailLines))
  let left = query.limitBytes ?? Infinity
  const wake = new EventTarget()
  const watcher = query.follow ? watch(file, () => wake.dispatchEvent(new Event('change'))) : undefined
  let carried: Buffer = Buffer.alloc(0)
  try {
    for (;;) {
      // Asked before the file is read: what a process wrote last is there once it has ended.
      const more = query.follow && running()
      const end = statSync(file, { throwIfNoEntry: false })?.size ?? 0
      // A file that shrank was begun anew.
      if (end < offset) offset = 0
      if (end > offset && left > 0) {
        clock.note(end, Date.now())
        for await (const chunk of createReadStream(file, { start: offset, end: end - 1 })) {
          const at = offset
          offset += (chunk as Buffer).length
          let out = chunk as Buffer
          if (query.timestamps) {
            const whole = Buffer.concat([carried, out])
            const cut = more ? whole.lastIndexOf(10) + 1 : offset === end ? whole.length : whole.lastIndexOf(10) + 1
            out = stamp(whole.subarray(0, cut), at - carried.length, clock)
            carried = Buffer.from(whole.subarray(cut))
          }
          if (out.length > left) out = out.subarray(0, left)
          left -= out.length
          if (out.length > 0) yield out
          if (left <= 0 || signal.aborted) return
        }
      }
      if (!more || left <= 0 || signal.aborted) return
      await changed(wake, signal)
    }
  } finally {
    watcher?.close()
  }
}

async function changed(wake: EventTarget, signal: AbortSignal): Promise<void> {
  const stop = new AbortController()
  const end = (): void => stop.abort()
  wake.addEventListener('change', end, { once: true })
  signal.addEventListener('abort', end, { once: true })
  await sleep(look, stop.signal)
  wake.removeEventListener('change', end)
  signal.removeEventListener('abort', end)
}

function stamp(lines: Buffer, at: number, clock: LogClock): Buffer {
  const out: Buffer[] = []
  for (let from = 0; from < lines.length;) {
    const newline = lines.indexOf(10, from)
    const to = newline < 0 ? lines.length : newline + 1
    out.push(Buffer.from(`${new Date(clock.timeOf(at + from, Date.now())).toISOString()} `), lines.subarray(from, to))
    from = to
  }
  return Buffer.concat(out)
}

/** Where the last `lines` lines of the file begin; read from its end. */
async function tailOffset(file: string, size: number, lines: number): Promise<number> {
  if (lines <= 0) return size
  const handle = await open(file, 'r')
  try {
    const block = Buffer.alloc(65_536)
    let found = 0
    for (let end = size; end > 0;) {
      const start = Math.max(0, end - block.length)
      const { bytesRead } = await handle.read(block, 0, end - start, start)
      for (let i = bytesRead - 1; i >= 0; i--) {
        // The newline that ends the last line begins no other.
        if (block[i] === 10 && start + i !== size - 1 && ++found === lines) return start + i + 1
      }
      end = start
    }
    return 0
  } finally {
    await handle.close()
  }
}
