import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { LogClock, readLog, type LogQuery } from './logs.ts'

const folder = mkdtempSync(join(tmpdir(), 'switchyard-logs-'))
const file = join(folder, '0.log')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const all: LogQuery = { follow: false, tailLines: undefined, limitBytes: undefined, since: undefined, timestamps: false }

async function text(query: Partial<LogQuery>, clock = new LogClock()): Promise<string> {
  const out: Buffer[] = []
  for await (const chunk of readLog(file, clock, { ...all, ...query }, () => false, new AbortController().signal)) out.push(chunk)
  return Buffer.concat(out).toString()
}

test('a log is read whole, from its end, or in part', async (t) => {
  writeFileSync(file, 'one\ntwo\nthree\n')
  const rows: readonly [Partial<LogQuery>, string][] = [
    [{}, 'one\ntwo\nthree\n'],
    [{ tailLines: 2 }, 'two\nthree\n'],
    [{ tailLines: 9 }, 'one\ntwo\nthree\n'],
    [{ tailLines: 0 }, ''],
    [{ limitBytes: 5 }, 'one\nt'],
  ]
  for (const [query, wanted] of rows) t.equal(await text(query), wanted, JSON.stringify(query))
  writeFileSync(file, 'one\ntwo')
  t.equal(await text({ tailLines: 1 }), 'two', 'a last line without an end is a line')
  writeFileSync(file, `${'x'.repeat(200_000)}\n`.repeat(3))
  t.equal((await text({ tailLines: 2 })).length, 400_002, 'also over many blocks')
})

test('lines carry the time at which they were seen first', async (t) => {
  writeFileSync(file, 'one\ntwo\n')
  const clock = new LogClock()
  clock.note(4, Date.parse('2026-01-01T00:00:00Z'))
  clock.note(8, Date.parse('2026-01-01T00:00:09Z'))
  t.equal(await text({ timestamps: true }, clock), '2026-01-01T00:00:00.000Z one\n2026-01-01T00:00:09.000Z two\n')
  t.equal(await text({ since: Date.parse('2026-01-01T00:00:05Z') }, clock), 'two\n')
})

test('following ends when the writer has ended, with its last words', async (t) => {
  writeFileSync(file, 'one\n')
  let running = true
  const got: string[] = []
  for await (const chunk of readLog(file, new LogClock(), { ...all, follow: true }, () => running, new AbortController().signal)) {
    got.push(chunk.toString())
    if (got.length === 1) setTimeout(() => appendFileSync(file, 'two\n'), 5)
    if (got.length === 2) {
      appendFileSync(file, 'three\n')
      running = false
    }
  }
  t.equal(got.join(''), 'one\ntwo\nthree\n')
})
