import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { contradictions, type Report } from '../lab/compare/stats.ts'
import { capture } from '../lab/exec.ts'
import { projectRoot } from '../lab/launcher.ts'
import { vmLacking } from '../lab/vm/run.ts'
import { sleep } from '../lib/lifecycle.ts'
import { ofRounds, type BenchContext, type Row } from './row.ts'

const name = 'bench'
const whole = 'lab compare, whole'

/** How long a newcomer waits. */
export async function* rows(context: BenchContext): AsyncGenerator<Row> {
  if (context.wants('lab up to the first curl by name')) {
    const took: number[] = []
    for (let i = 0; i < 3; i++) {
      context.progress(`lab up, ${i + 1} of 3`)
      took.push(await upToCurl())
    }
    yield ofRounds('lab up to the first curl by name', 's', took, { bar: { of: 'figure', value: 5 } })
  }
  if (context.wants('demo, whole')) {
    context.progress('npm run demo')
    yield { name: 'demo, whole', ours: await timed('./switchyard', 'lab', 'demo'), unit: 's', bar: { of: 'figure', value: 60 } }
  }
  if (context.wants('set-up when nothing is left to do')) {
    context.progress('set-up')
    yield { name: 'set-up when nothing is left to do', ours: await timed('node', join('scripts', 'setup.mjs')), unit: 's', bar: { of: 'figure', value: 2 } }
  }
  if (context.wants(whole)) yield* comparisons(context)
  const machine = 'lab compare --vm'
  if (context.wants(machine)) {
    const reason = await vmLacking()
    if (reason === undefined) {
      context.progress(`${machine}: up to 25 minutes`)
      yield { name: machine, ours: await timed('./switchyard', 'lab', 'compare', '--vm'), unit: 's', bar: { of: 'figure', value: 1500 } }
    } else context.progress(reason)
  }
}

/** Two whole comparisons, and whether they agree. */
async function* comparisons(context: BenchContext): AsyncGenerator<Row> {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-bench-'))
  try {
    const reports: Report[] = []
    const took: number[] = []
    for (let i = 0; i < 2; i++) {
      context.progress(`lab compare, ${i + 1} of 2: up to ten minutes`)
      const json = join(folder, `${i}.json`)
      took.push(await timed('./switchyard', 'lab', 'compare', '--json', json))
      reports.push(JSON.parse(readFileSync(json, 'utf8')) as Report)
    }
    yield ofRounds(whole, 's', took, { bar: { of: 'figure', value: 600 } })
    const against = contradictions(reports[0]!, reports[1]!)
    for (const words of against) context.progress(`the two runs contradict each other: ${words}`)
    yield { name: `${whole}: sure differences that a second run turns round`, ours: against.length, unit: 'differences', bar: { of: 'figure', value: 0 } }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Objects are applied as soon as the API answers; the clock stops when a Pod gets its answer. */
async function upToCurl(): Promise<number> {
  const began = performance.now()
  try {
    await run('./switchyard', ['lab', 'up', '--lab', name])
    const kubeconfig = (await run('./switchyard', ['lab', 'kubeconfig', '--lab', name])).trim()
    await run('./switchyard', ['apply', '--kubeconfig', kubeconfig, '-f', join('lab', 'manifests', 'hello.yaml')])
    for (;;) {
      const { status } = await capture(name, 'demo/client', ['curl', '-sf', '-m', '1', 'http://hello.demo.svc.cluster.local']).catch(() => ({ status: 1 }))
      if (status === 0) return (performance.now() - began) / 1000
      if (performance.now() - began > 60_000) throw new Error('no answer by name within 60 s')
      await sleep(20)
    }
  } finally {
    await run('./switchyard', ['lab', 'down', '--lab', name])
  }
}

async function timed(program: string, ...words: string[]): Promise<number> {
  const began = performance.now()
  await run(program, words)
  return (performance.now() - began) / 1000
}

function run(program: string, words: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, words, { cwd: projectRoot, maxBuffer: 16 << 20 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${program} ${words.join(' ')} failed: ${stderr.trim() || stdout.trim() || error.message}`))
    })
  })
}
