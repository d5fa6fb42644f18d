import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { SqliteStore } from './sqlite.ts'
import type { Check } from './suite.ts'

tap.setTimeout(120_000)

const folder = mkdtempSync(join(tmpdir(), 'crash-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
const writer = join(import.meta.dirname, '../testing/writer.ts')

/** Lets a writer run until it dies; what it had been told is durable. */
function run(
  file: string,
  point: string,
  after: number,
  killAfterMs?: number,
): Promise<{ readonly start: number; readonly acks: readonly { readonly key: string; readonly revision: number; readonly value: string }[] }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', writer, file, point, String(after)], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.on('data', (part: Buffer) => (text += part.toString()))
    const timer = setTimeout(() => child.kill('SIGKILL'), killAfterMs ?? 20_000)
    child.on('error', reject)
    child.on('close', () => {
      clearTimeout(timer)
      const lines = text.split('\n').filter((l) => l !== '')
      // A last line may be cut by the kill; an acknowledgement that was not said in full was not heard.
      if (!text.endsWith('\n')) lines.pop()
      resolve({
        start: Number(lines[0]?.split(' ')[1] ?? 0),
        acks: lines
          .slice(1)
          .map((l) => l.split(' '))
          .map(([, id, revision, value]) => ({ key: `/k/${id}`, revision: Number(revision), value: value! })),
      })
    })
  })
}

/** Checks that the store holds everything acknowledged, and nothing in half. */
async function holds(t: Check, file: string, before: number, acks: Awaited<ReturnType<typeof run>>['acks']): Promise<number> {
  const store = new SqliteStore(file)
  const current = await store.current()
  const newest = new Map<string, { readonly revision: number; readonly value: string }>()
  for (const a of acks) if ((newest.get(a.key)?.revision ?? 0) < a.revision) newest.set(a.key, a)
  let lost = 0
  for (const [key, a] of newest) {
    const found = await store.get(key)
    // Newer than the last acknowledgement is allowed: it was durable, its answer was not heard.
    if (found === undefined || found.revision < a.revision || (found.revision === a.revision && !Buffer.from(found.value).toString().startsWith(a.value))) lost++
  }
  t.equal(lost, 0, `all of ${acks.length} acknowledged writes are there`)
  t.ok(current >= Math.max(before, ...acks.map((a) => a.revision)), 'the revision did not go back')
  const all = await store.list('/k/')
  t.ok(
    all.items.every((i) => Buffer.from(i.value).toString().endsWith('x'.repeat(500))),
    'no value is cut',
  )
  const revisions: number[] = []
  const stop = new AbortController()
  for await (const batch of store.watch('/k/', before, stop.signal)) {
    for (const c of batch) if (!('progress' in c)) revisions.push(c.revision)
    if (batch.some((c) => 'progress' in c)) break
  }
  t.same(
    revisions,
    Array.from({ length: current - before }, (_, i) => before + 1 + i),
    'the history has no hole',
  )
  await store.close()
  return current
}

for (const point of ['write', 'commit', 'answer'])
  test(`a kill at "${point}" loses nothing that was acknowledged`, async (t) => {
    const file = join(folder, `${point}.db`)
    let before = 0
    for (const after of [0, 7, 40]) {
      const { acks } = await run(file, point, after)
      if (after > 0) t.ok(acks.length > 0, `${acks.length} writes were acknowledged before the kill`)
      before = await holds(t as unknown as Check, file, before, acks)
    }
  })

test('a kill at any moment loses nothing that was acknowledged', async (t) => {
  const file = join(folder, 'random.db')
  let before = 0
  for (const ms of [260, 330, 410, 550]) {
    const { acks } = await run(file, 'never', 0, ms)
    before = await holds(t as unknown as Check, file, before, acks)
  }
})

test('a torn end of the log is cut back to the last whole transaction', async (t) => {
  const file = join(folder, 'torn.db')
  const { acks } = await run(file, 'answer', 30)
  const log = `${file}-wal`
  truncateSync(log, statSync(log).size - 1000)
  const store = new SqliteStore(file)
  const current = await store.current()
  t.ok(current >= Math.max(...acks.map((a) => a.revision)) - 16, `at revision ${current}`)
  t.ok((await store.list('/k/')).items.every((i) => Buffer.from(i.value).toString().endsWith('x'.repeat(500))))
  await store.close()
})
