import { test } from 'tap'
import { seeded } from '../lib/random.ts'
import { compileRegex, RegexError } from './regex.ts'

const rows: readonly [pattern: string, text: string, captures: readonly (string | undefined)[] | undefined][] = [
  ['/something(/|$)(.*)', '/something/new', ['/something/new', '/', 'new']],
  ['/something(/|$)(.*)', '/something', ['/something', '', '']],
  ['/something(/|$)(.*)', '/somethingelse', undefined],
  ['/foo/([0-9]+)/x', '/foo/42/x/more', ['/foo/42/x', '42']],
  ['/a.b', '/a.b', ['/a.b']],
  ['/(?:v1|v2)/(.+?)/end', '/v2/a/b/end', ['/v2/a/b/end', 'a/b']],
  ['/(a|ab)(c|bcd)(d*)', '/abcd', ['/abcd', 'a', 'bcd', '']],
  ['/x{2,3}y?$', '/xxxy', ['/xxxy']],
  ['/[^/]+\\.(?:png|jpe?g)$', '/cat.jpeg', ['/cat.jpeg']],
  ['/[[:alpha:]]+\\d\\b', '/abc1-', ['/abc1']],
  ['^/(?<name>\\w+)', '/abc/d', ['/abc', 'abc']],
]
for (const [pattern, text, want] of rows) {
  void test(`${pattern} on ${text}`, async (t) => t.same(compileRegex(pattern).exec(text), want))
}

void test('what is not regular, or too large, is refused', async (t) => {
  for (const p of ['(a)\\1', '(?!x)', '(?<=x)y', 'a++', '(a{1000}){1000}', '(', '[a', 'a)', '*a', '\\p']) t.throws(() => compileRegex(p), RegexError, p)
})

void test('patterns that ruin backtracking run in no time', async (t) => {
  const began = performance.now()
  const text = `/${'a'.repeat(4000)}!`
  for (const p of ['/(a+)+$', '/(a|a)*$', '/(a|aa)+$', '/(.*a){12}$', '/([a-z]+)*$']) t.notOk(compileRegex(p).test(text), p)
  t.ok(performance.now() - began < 1000)
})

void test('random patterns match as the engine of the language does', async (t) => {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000)
  t.comment(`TEST_SEED=${seed}`)
  const random = seeded(seed)
  const pick = (list: readonly string[]): string => list[Math.floor(random() * list.length)]!
  // What may be empty is not made optional: there engines differ by decree, not by theory.
  const letter = (): string => pick(['a', 'b', '/', '.', '[ab]'])
  const make = (depth: number): string => {
    let s = ''
    for (let i = 0; i < 1 + random() * 3; i++) {
      const kind = random()
      let a: string
      if (depth > 0 && kind < 0.3) a = `(${letter()}${make(depth - 1)})`
      else if (depth > 0 && kind < 0.4) a = `(?:${letter()}${make(depth - 1)}|${letter()}${make(depth - 1)})`
      else a = pick(['a', 'b', '/', '.', '[ab]', '[^a]', '\\w', '\\d', '1', 'B'])
      s += a + (a.startsWith('(') ? pick(['', '', '?']) : pick(['', '', '*', '+', '?', '{1,2}', '*?', '+?']))
    }
    return s
  }
  let different = 0
  for (let n = 0; n < 5000 && different < 3; n++) {
    const source = make(2)
    let text = ''
    for (let i = 0; i < random() * 8; i++) text += pick(['a', 'b', 'A', 'B', '/', '1', 'c'])
    const want = new RegExp(`^(?:${source})`, 'i').exec(text)
    const got = compileRegex(source, { ignoreCase: true }).exec(text)
    if (JSON.stringify(got ?? null) !== JSON.stringify(want === null ? null : [...want])) {
      different++
      t.same(got, want === null ? undefined : [...want], `${source} on ${text}`)
    }
  }
  t.equal(different, 0)
})
