import { test } from 'tap'
import { Backoff } from './backoff.ts'
import { sleep } from './lifecycle.ts'
import { reconcile } from './reconcile.ts'

test('many rings are one run, never two at once, and again after failure', async (t) => {
  const ended = new AbortController()
  let running = 0
  let runs = 0
  let most = 0
  const errors: unknown[] = []
  const loop = reconcile(
    async () => {
      most = Math.max(most, ++running)
      runs++
      await sleep(5)
      running--
      if (runs === 2) throw new Error('second')
    },
    { signal: ended.signal, backoff: new Backoff({ first: 1, most: 1 }), failed: (e) => void errors.push(e) },
  )
  for (let i = 0; i < 10; i++) loop.ring()
  await sleep(30)
  t.equal(runs, 1)
  loop.ring()
  while (runs < 3) await sleep(2)
  await sleep(20)
  t.equal(runs, 3, 'the failed run was done again, once')
  t.equal(errors.length, 1)
  t.equal(most, 1)
  ended.abort()
  await loop.ended
})

test('it runs by itself when nobody rings for long', async (t) => {
  const ended = new AbortController()
  let runs = 0
  const loop = reconcile(async () => void runs++, { signal: ended.signal, most: 5 })
  while (runs < 3) await sleep(2)
  ended.abort()
  await loop.ended
  t.ok(runs >= 3)
})

test('runs are not closer than asked', async (t) => {
  const ended = new AbortController()
  const starts: number[] = []
  const loop = reconcile(async () => void starts.push(performance.now()), { signal: ended.signal, least: 40 })
  loop.ring()
  while (starts.length < 1) await sleep(1)
  loop.ring()
  while (starts.length < 2) await sleep(1)
  ended.abort()
  await loop.ended
  // Timers may fire a little early on a busy machine; without the rule the two runs are less than a millisecond apart.
  t.ok(starts[1]! - starts[0]! >= 20)
})
