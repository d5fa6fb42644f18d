import { test } from 'tap'
import { silent } from './log.ts'
import { Workers, workerFile } from './workers.ts'

interface Said {
  readonly index: number
  readonly data: unknown
  readonly words: readonly string[]
}

function crew(words: string[]) {
  const waiting: ((said: Said) => void)[] = []
  const died: number[] = []
  const workers = new Workers<readonly string[], string>({
    file: workerFile(import.meta.url, './testdata/counter.ts'),
    count: 2,
    data: 'given',
    whole: () => words,
    died: (index) => void died.push(index),
    message: (_index, m) => waiting.shift()?.(m as Said),
    log: silent,
  })
  const ask = (index: number): Promise<Said> =>
    new Promise((resolve) => {
      waiting.push(resolve)
      workers.send(index, 'what?')
    })
  const add = (word: string): void => {
    words.push(word)
    workers.change(word)
  }
  /** Resolves when a worker answers again. */
  const back = async (index: number): Promise<void> => {
    let heard = false
    for (let i = 0; i < 400 && !heard; i++) {
      waiting.push(() => (heard = true))
      workers.send(index, 'what?')
      await new Promise((resolve) => setTimeout(resolve, 10))
      if (!heard) waiting.length = 0
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
    waiting.length = 0
  }
  return { workers, died, ask, add, back }
}

test('changes reach every worker in order, and one that dies starts with the whole table', async (t) => {
  const { workers, died, ask, add, back } = crew(['one'])
  add('two')
  await workers.ready()
  add('three')
  t.same(await ask(0), { index: 0, data: 'given', words: ['one', 'two', 'three'] })
  t.same((await ask(1)).words, ['one', 'two', 'three'])
  workers.send(1, 'throw')
  while (died.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  add('four')
  t.same((await ask(0)).words, ['one', 'two', 'three', 'four'])
  await back(1)
  t.same((await ask(1)).words, ['one', 'two', 'three', 'four'])
  t.same(died, [1])
  await workers.close()
})

test('a worker that does not end when asked is ended', async (t) => {
  const { workers } = crew([])
  await workers.ready()
  workers.send(0, 'hang')
  const began = performance.now()
  await workers.close(200)
  t.ok(performance.now() - began < 3000)
})

test('a worker is found in a checkout and in a package', async (t) => {
  t.equal(workerFile('file:///a/main.ts', './worker.ts').href, 'file:///a/worker.ts')
  t.equal(workerFile('file:///a/main.js', './worker.ts').href, 'file:///a/worker.js')
})
