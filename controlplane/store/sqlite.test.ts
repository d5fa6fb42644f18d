import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { SqliteStore } from './sqlite.ts'
import { suite } from './suite.ts'

tap.setTimeout(120_000)

const folder = mkdtempSync(join(tmpdir(), 'store-'))
let n = 0
const file = (): string => join(folder, `${n++}.db`)
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

for (const { name, run } of suite)
  test(name, async (t) => {
    const store = new SqliteStore(file())
    await run(store, t as never)
    await store.close()
  })

test('everything is there again after the store was closed and opened, also its history', async (t) => {
  const path = file()
  const one = new SqliteStore(path)
  const r = await one.put('/a', Buffer.from('1'), 0)
  await one.put('/a', Buffer.from('2'), r)
  await one.close()
  const two = new SqliteStore(path)
  t.equal(await two.current(), r + 1)
  t.equal(Buffer.from((await two.get('/a'))!.value).toString(), '2')
  t.equal(Buffer.from((await two.list('/', { at: r })).items[0]!.value).toString(), '1')
  await two.close()
})

test('the revision does not go back when the newest changes were deletions that a compaction took', async (t) => {
  const path = file()
  const one = new SqliteStore(path)
  const r = await one.put('/a', Buffer.from('1'), 0)
  const gone = await one.delete('/a', r)
  await one.compact(gone)
  await one.close()
  const two = new SqliteStore(path)
  t.equal(await two.current(), gone)
  t.equal(await two.put('/b', Buffer.from('x'), 0), gone + 1)
  await two.close()
})

test('a key with a time to live goes by itself, and watchers are told', async (t) => {
  let now = 1_000_000
  const store = new SqliteStore(file(), { now: () => now })
  await store.put('/e', Buffer.from('x'), 0, 10)
  t.ok(await store.get('/e'))
  now += 11_000
  await new Promise((resolve) => setTimeout(resolve, 5300))
  t.equal(await store.get('/e'), undefined)
  await store.close()
})

test('a failed commit acknowledges nothing and takes nothing more', async (t) => {
  let fail = false
  let told = false
  const store = new SqliteStore(file(), {
    failPoint: (at) => {
      if (fail && at === 'commit') throw new Error('no space left on device')
    },
    broken: () => (told = true),
  })
  const r = await store.put('/a', Buffer.from('1'), 0)
  fail = true
  await t.rejects(store.put('/a', Buffer.from('2'), r), /could not write/)
  fail = false
  await t.rejects(store.put('/b', Buffer.from('2'), 0), /could not write/)
  t.ok(told)
  t.equal(Buffer.from((await store.get('/a'))!.value).toString(), '1')
  t.equal(await store.current(), r)
  await store.close()
})

test('a file of a newer format is refused', async (t) => {
  const path = file()
  const store = new SqliteStore(path)
  await store.close()
  const { DatabaseSync } = await import('node:sqlite')
  const db = new DatabaseSync(path)
  db.exec("UPDATE meta SET value = 99 WHERE name = 'format'")
  db.close()
  t.throws(() => new SqliteStore(path), /newer version/)
})

test('a second process is refused while the first one has the file', async (t) => {
  const path = file()
  const one = new SqliteStore(path)
  await one.put('/a', Buffer.from('1'), 0)
  t.throws(() => new SqliteStore(path), /locked/)
  await one.close()
})
