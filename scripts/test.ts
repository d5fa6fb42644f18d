// Runs the tests, ring by ring, and closes with one line: `N passed, N failed, N skipped`.
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { Parser, type Result } from 'tap-parser'

interface Ring {
  readonly name: string
  readonly suffix: string
  /** Seconds the ring may take on two cores; over it is said, not failed: timings decide nothing. */
  readonly budget: number
  readonly atOnce: number
  readonly cannot?: () => string | undefined
}

const notRoot = (): string | undefined => (process.getuid?.() === 0 ? undefined : 'needs root')

/** The rings of tests, by the end of a file's name. */
const rings: readonly Ring[] = [
  { name: 'pure, fake, loopback', suffix: '.test.ts', budget: 120, atOnce: 2 },
  { name: 'real kernel in namespaces', suffix: '.e2e.ts', budget: 150, atOnce: 1, cannot: notRoot },
  { name: 'virtual machine', suffix: '.vm.ts', budget: 120, atOnce: 1 },
  { name: 'control plane with kubectl and faults', suffix: '.kubectl.ts', budget: 120, atOnce: 1 },
  { name: 'browser', suffix: '.browser.ts', budget: 30, atOnce: 1 },
]
const long: Ring = { name: 'long', suffix: '.long.ts', budget: Infinity, atOnce: 1 }

interface Outcome {
  readonly file: string
  readonly passed: number
  readonly failed: readonly string[]
  readonly skipped: readonly string[]
  readonly seconds: number
}

const root = join(import.meta.dirname, '..')
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { long: { type: 'boolean', default: false }, ring: { type: 'string' }, seed: { type: 'string' }, timeout: { type: 'string' }, verbose: { type: 'boolean', short: 'v', default: false } },
})
const seed = values.seed ?? process.env.TEST_SEED ?? String(Math.floor(Math.random() * 2 ** 31))
const all = [...files(root)].toSorted()
const chosen = (ring: Ring): string[] => all.filter((f) => f.endsWith(ring.suffix) && (positionals.length === 0 || positionals.some((p) => f.startsWith(p) || f.includes(`/${p}`))))

console.log(`seed ${seed} (repeat with --seed ${seed})`)
const failures: string[] = []
const skips: string[] = []
const unsteady: string[] = []
let passed = 0
const table: string[] = []

if (!values.long && positionals.length === 0 && values.ring === undefined) {
  const began = performance.now()
  const checks = await statics()
  passed += checks.passed
  failures.push(...checks.failed)
  table.push(row('types, lint, format', began, checks.passed, checks.failed.length, 0))
}
for (const ring of values.long ? [long] : rings) {
  if (values.ring !== undefined && !ring.suffix.includes(values.ring)) continue
  const list = chosen(ring)
  if (list.length === 0) continue
  const began = performance.now()
  const why = ring.cannot?.()
  const first = why === undefined ? await runAll(list, ring.atOnce) : list.map((file) => ({ file, passed: 0, failed: [], skipped: [why], seconds: 0 }))
  const outcomes = await again(first)
  for (const o of outcomes) {
    passed += o.passed
    failures.push(...o.failed.map((f) => `${o.file}: ${f}`))
    skips.push(...o.skipped.map((s) => `${o.file}: ${s}`))
  }
  const sum = (f: (o: Outcome) => number): number => outcomes.reduce((n, o) => n + f(o), 0)
  table.push(
    row(
      ring.name,
      began,
      sum((o) => o.passed),
      sum((o) => o.failed.length),
      sum((o) => o.skipped.length),
      ring.budget,
    ),
  )
}

if (passed + failures.length + skips.length === 0) failures.push('no test was found')
console.log(['', ...table].join('\n'))
for (const s of skips) console.log(`skipped  ${s}`)
for (const u of unsteady) console.log(`UNSTEADY ${u}: failed, then passed when run again alone`)
for (const f of failures) console.log(`FAILED   ${f}`)
console.log(`${passed} passed, ${failures.length} failed, ${skips.length} skipped`)
process.exitCode = failures.length === 0 ? 0 : 1

function row(name: string, began: number, ok: number, bad: number, skipped: number, budget = Infinity): string {
  const seconds = (performance.now() - began) / 1000
  return `${name.padEnd(40)} ${seconds.toFixed(1).padStart(7)} s${seconds > budget ? ` (budget ${budget} s)` : ''}  ${ok} passed, ${bad} failed, ${skipped} skipped in this ring`
}

function* files(dir: string): Generator<string> {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (entry.name === 'node_modules' || entry.name === 'dist' || entry.name.startsWith('.')) continue
    const path = join(dir, entry.name)
    if (entry.isDirectory()) yield* files(path)
    else if (entry.name.endsWith('.ts')) yield relative(root, path)
  }
}

async function runAll(list: readonly string[], atOnce: number): Promise<Outcome[]> {
  const outcomes: Outcome[] = []
  const queue = [...list]
  const worker = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const o = await runFile(file)
      outcomes.push(o)
      const mark = o.failed.length > 0 ? 'FAILED' : 'ok'
      console.log(
        `${mark.padEnd(7)} ${o.file} (${o.passed} passed${o.failed.length > 0 ? `, ${o.failed.length} failed` : ''}${o.skipped.length > 0 ? `, ${o.skipped.length} skipped` : ''}, ${o.seconds.toFixed(1)} s)`,
      )
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return outcomes
}

/**
 * Runs each file that failed once more, alone and with the same seed: machines that others use too are late now and then.
 * A file that passes then counts as passed and is named as unsteady; what is broken fails twice. More than five are no accident.
 */
async function again(outcomes: readonly Outcome[]): Promise<Outcome[]> {
  if (outcomes.filter((o) => o.failed.length > 0).length > 5) return [...outcomes]
  const result: Outcome[] = []
  for (const o of outcomes) {
    const second = o.failed.length > 0 ? (await runAll([o.file], 1))[0]! : o
    if (second !== o && second.failed.length === 0) unsteady.push(...o.failed.map((f) => `${o.file}: ${f}`))
    result.push(second)
  }
  return result
}

/** One file is one process that prints TAP. A file that shows no test, or ends badly, has failed. */
function runFile(file: string): Promise<Outcome> {
  return new Promise((resolve) => {
    const began = performance.now()
    const limit = Number(values.timeout ?? (values.long ? 7200 : 300))
    const child = spawn(join(root, 'scripts/node'), [join(root, file)], {
      cwd: root,
      // tap's own timer would cut files that take longer by design; the limit here stands for it.
      env: { ...process.env, TEST_SEED: seed, TAP: '1', TAP_TIMEOUT: String(limit), ...(values.long ? { TEST_LONG: '1' } : {}) },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    const failed: string[] = []
    const skipped: string[] = []
    const reasons: string[] = []
    let count = 0
    let output = ''
    const parser = new Parser({}, (results) => {
      if (!results.ok && failed.length === 0) failed.push(results.bailout === false ? 'the plan was not kept' : String(results.bailout))
    })
    // A whole file may say why it cannot run here.
    parser.on('complete', (results) => {
      const reason = results.plan.skipReason.replace(/^SKIP\s*/i, '')
      if (results.plan.skipAll && reason !== '') skipped.push(reason)
    })
    parser.on('assert', (a: Result) => {
      if (a.skip !== false) skipped.push(`${a.name}${typeof a.skip === 'string' ? `: ${a.skip}` : ''}`)
      else if (a.todo !== false) skipped.push(`${a.name}: to do`)
      else if (a.ok) count++
      else failed.push(a.name)
    })
    // The assertions inside tell why; the end of the output alone often does not reach back to them.
    const listen = (p: Parser): void => {
      p.on('child', (c: Parser) => {
        c.on('assert', (a: Result) => {
          if (!a.ok && a.skip === false && a.todo === false) reasons.push(`${a.fullname}\n${JSON.stringify(a.diag, undefined, 2).slice(0, 3000)}`)
        })
        listen(c)
      })
    }
    listen(parser)
    const keep = (b: Buffer): void => {
      if (output.length < 200_000) output += b.toString()
      if (values.verbose) process.stdout.write(b)
    }
    child.stdout.on('data', (b: Buffer) => {
      keep(b)
      parser.write(b.toString())
    })
    child.stderr.on('data', keep)
    let late = false
    const timer = setTimeout(() => {
      late = true
      end('SIGTERM')
      setTimeout(() => end('SIGKILL'), 3000).unref()
    }, limit * 1000)
    const end = (signal: NodeJS.Signals): void => {
      try {
        process.kill(-child.pid!, signal)
      } catch {}
    }
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      parser.end()
      if (late) failed.push(`did not end within ${limit} s`)
      else if (code !== 0 && failed.length === 0) failed.push(`ended with ${signal ?? `status ${code}`}`)
      if (count + failed.length + skipped.length === 0) failed.push('showed no test')
      const indented = (text: string): string => text.replaceAll(/^/gm, '    ')
      if (failed.length > 0 && !values.verbose) console.log(indented(output.split('\n').slice(-60).join('\n')))
      for (const reason of failed.length > 0 ? reasons.slice(0, 20) : []) console.log(indented(`not ok: ${reason}`))
      resolve({ file, passed: count, failed, skipped, seconds: (performance.now() - began) / 1000 })
    })
  })
}

/** Type check, lint and format, each counted as one test. */
async function statics(): Promise<{ passed: number; failed: string[] }> {
  const bin = (name: string): string => join(root, 'node_modules/.bin', name)
  const failed: string[] = []
  let ok = 0
  const checks: readonly (readonly [string, readonly string[]])[] = [
    ['types', [bin('tsc'), '-p', root]],
    ['lint', [bin('oxlint'), '--deny-warnings', root]],
    ['format', [bin('oxfmt'), '--check', root]],
  ]
  for (const [name, [program, ...args]] of checks) {
    const { code, text } = await output(program!, args)
    if (code === 0) ok++
    else {
      failed.push(name)
      console.log(text.split('\n').slice(0, 60).join('\n'))
    }
  }
  return { passed: ok, failed }
}

function output(program: string, args: readonly string[]): Promise<{ code: number | null; text: string }> {
  return new Promise((resolve) => {
    // The tools' own start scripts look for `node`: they get the project's.
    const child = spawn(join(root, 'scripts/node'), [program, ...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    child.stdout.on('data', (b: Buffer) => (text += b.toString()))
    child.stderr.on('data', (b: Buffer) => (text += b.toString()))
    child.on('close', (code) => resolve({ code, text }))
  })
}
