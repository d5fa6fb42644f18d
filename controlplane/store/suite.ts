import { Compacted, Conflict, type Change, type Progress, type Store } from './seam.ts'

/** What the suite needs of a test. */
export interface Check {
  equal(got: unknown, wanted: unknown, about?: string): unknown
  same(got: unknown, wanted: unknown, about?: string): unknown
  ok(got: unknown, about?: string): unknown
  rejects(what: Promise<unknown>, wanted: object, about?: string): Promise<unknown>
}

const bytes = (text: string): Buffer => Buffer.from(text)
const words = (value: Uint8Array | undefined): string | undefined => (value === undefined ? undefined : Buffer.from(value).toString())

/** Reads a watch until `count` changes came. */
async function take(store: Store, prefix: string, from: number, count: number): Promise<Change[]> {
  const out: Change[] = []
  const stop = new AbortController()
  const timer = setTimeout(() => stop.abort(), 3000)
  for await (const batch of store.watch(prefix, from, stop.signal)) {
    out.push(...batch.filter((c: Change | Progress): c is Change => !('progress' in c)))
    if (out.length >= count) break
  }
  clearTimeout(timer)
  return out
}

/** What every store must do, each with a fresh one. */
export const suite: readonly { readonly name: string; readonly run: (store: Store, t: Check) => Promise<void> }[] = [
  {
    name: 'a key that is not there is undefined, a written one has its value and revisions',
    run: async (s, t) => {
      t.equal(await s.get('/a'), undefined)
      const first = await s.put('/a', bytes('1'), 0)
      const second = await s.put('/a', bytes('2'), first)
      const found = (await s.get('/a'))!
      t.same([words(found.value), found.revision, found.created], ['2', second, first])
      t.ok(second > first)
    },
  },
  {
    name: 'a write at another revision than the expected one is a conflict, and tells what is there',
    run: async (s, t) => {
      const first = await s.put('/a', bytes('1'), 0)
      await t.rejects(s.put('/a', bytes('x'), 0), { name: 'Conflict' })
      await t.rejects(s.put('/a', bytes('x'), first + 10), { name: 'Conflict' })
      await t.rejects(s.put('/b', bytes('x'), first), { name: 'Conflict' })
      await t.rejects(s.delete('/a', first + 1), { name: 'Conflict' })
      await t.rejects(s.delete('/none', 0), { name: 'Conflict' })
      try {
        await s.put('/a', bytes('x'), 0)
      } catch (error) {
        t.same([(error as Conflict).actual?.revision, words((error as Conflict).actual?.value)], [first, '1'])
      }
      t.equal(words((await s.get('/a'))!.value), '1')
    },
  },
  {
    name: 'of many writers who expect the same revision exactly one wins',
    run: async (s, t) => {
      const first = await s.put('/a', bytes('0'), 0)
      const done = await Promise.allSettled(Array.from({ length: 50 }, (_, i) => s.put('/a', bytes(`${i}`), first)))
      t.equal(done.filter((d) => d.status === 'fulfilled').length, 1)
    },
  },
  {
    name: 'every change gets the next revision, without gaps, also after refused writes',
    run: async (s, t) => {
      const start = await s.current()
      const done = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => s.put(`/k/${i % 10}`, bytes('x'), 0)))
      const revisions = done.flatMap((d) => (d.status === 'fulfilled' ? [d.value] : [])).sort((a, b) => a - b)
      t.same(
        revisions,
        Array.from({ length: 10 }, (_, i) => start + 1 + i),
      )
      t.equal(await s.current(), start + 10)
    },
  },
  {
    name: 'a list shows the keys under a prefix in order, in pages of one moment',
    run: async (s, t) => {
      for (const k of ['/b/2', '/a/1', '/a/3', '/a/2', '/aa/1', '/b/1']) await s.put(k, bytes(k), 0)
      const all = await s.list('/a/')
      t.same(
        all.items.map((i) => i.key),
        ['/a/1', '/a/2', '/a/3'],
      )
      const one = await s.list('/a/', { limit: 2 })
      t.same([one.items.map((i) => i.key), one.more], [['/a/1', '/a/2'], true])
      await s.put('/a/4', bytes('late'), 0)
      await s.delete('/a/3', all.items[2]!.revision)
      const rest = await s.list('/a/', { at: one.at, after: '/a/2', limit: 2 })
      t.same([rest.items.map((i) => i.key), rest.more], [['/a/3'], false])
      t.same(
        (await s.list('/a/')).items.map((i) => i.key),
        ['/a/1', '/a/2', '/a/4'],
      )
    },
  },
  {
    name: 'a watch tells every change after its revision once, in order, with the value before',
    run: async (s, t) => {
      const r1 = await s.put('/w/a', bytes('1'), 0)
      const pending = take(s, '/w/', r1, 4)
      const r2 = await s.put('/w/a', bytes('2'), r1)
      await s.put('/other', bytes('x'), 0)
      const r3 = await s.put('/w/b', bytes('b'), 0)
      await s.delete('/w/a', r2)
      await s.put('/w/a', bytes('again'), 0)
      const got = await pending
      t.same(
        got.map((c) => [c.key, words(c.value), words(c.before?.value)]),
        [
          ['/w/a', '2', '1'],
          ['/w/b', 'b', undefined],
          ['/w/a', undefined, '2'],
          ['/w/a', 'again', undefined],
        ],
      )
      t.ok(got.every((c, i) => i === 0 || c.revision > got[i - 1]!.revision))
      // The same again, from the history.
      t.same(
        (await take(s, '/w/', r1, 4)).map((c) => c.revision),
        got.map((c) => c.revision),
      )
      t.same(
        (await take(s, '/w/', r3, 2)).map((c) => c.revision),
        got.slice(2).map((c) => c.revision),
      )
    },
  },
  {
    name: 'a watch tells how far it is when nothing under its prefix changes',
    run: async (s, t) => {
      const start = await s.current()
      const stop = new AbortController()
      let at = 0
      const seen = (async () => {
        for await (const batch of s.watch('/quiet/', start, stop.signal)) {
          for (const c of batch) if ('progress' in c) at = c.progress
          if (at > start) return
        }
      })()
      await new Promise((r) => setTimeout(r, 10))
      const later = await s.put('/loud', bytes('x'), 0)
      await Promise.race([seen, new Promise((r) => setTimeout(r, 3000))])
      stop.abort()
      t.equal(at, later)
    },
  },
  {
    name: 'after a compaction older moments are refused, newer ones complete',
    run: async (s, t) => {
      let r = await s.put('/c/a', bytes('1'), 0)
      const old = r
      r = await s.put('/c/a', bytes('2'), r)
      const floor = await s.put('/c/b', bytes('b'), 0)
      const last = await s.put('/c/a', bytes('3'), r)
      await s.compact(floor)
      t.equal(await s.floor(), floor)
      await t.rejects(s.list('/c/', { at: old }), { name: 'Compacted' })
      await t.rejects(take(s, '/c/', old, 1), { name: 'Compacted' })
      t.same(
        (await s.list('/c/', { at: floor })).items.map((i) => [i.key, words(i.value)]),
        [
          ['/c/a', '2'],
          ['/c/b', 'b'],
        ],
      )
      t.same(
        (await take(s, '/c/', floor, 1)).map((c) => [c.revision, words(c.before?.value)]),
        [[last, '2']],
      )
      t.ok(new Compacted(1) instanceof Error)
    },
  },
]
