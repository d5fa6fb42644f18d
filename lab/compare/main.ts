import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { command, UsageError } from '../../lib/options.ts'
import { launcher } from '../launcher.ts'
import { mayUnshare, withSystemPrograms } from '../up.ts'
import { inVm, vmLacking } from '../vm/run.ts'
import { renderHtml, renderSvg } from './html.ts'
import { renderText } from './render.ts'
import { measure, type Plan } from './run.ts'
import { serve } from './server.ts'
import { measures, type Report } from './stats.ts'
import { prepare } from './world.ts'

const all = ['nftables', 'iptables', 'ipvs', 'userspace']
/** A machine whose clock counts instructions takes some minutes for what takes seconds out here. */
const vmPatience = 3 * 3600_000

/** `switchyard lab compare`. */
export const compareCommand = command({
  name: 'compare',
  summary: 'Measures the proxy modes on this machine and says which to take.',
  flags: {
    quick: { type: 'boolean', help: 'a first answer in two minutes: 1 and 1,000 Services, two rounds, requests and changes only' },
    vm: { type: 'boolean', help: "in a virtual machine's kernel, where every mode runs; its clock counts instructions" },
    vagrant: { type: 'boolean', hidden: true, help: 'over the machines of `vagrant up`' },
    full: { type: 'boolean', help: 'with --vm: throughput, UDP and failing endpoints too, however long it takes' },
    modes: { type: 'list', value: 'A,B', help: 'these modes (default: all)' },
    sizes: { type: 'list', value: 'N,N', help: 'numbers of Services (default 1,100,1000,10000)' },
    rounds: { type: 'number', help: 'rounds, in which the modes take turns (default 3; 1 with --vm)' },
    seconds: { type: 'number', help: 'length of one load, whole seconds (default 1)' },
    peer: { type: 'string', value: 'kube-proxy=PATH', help: 'a kube-proxy to measure beside ours, in the same modes' },
    output: { type: 'string', short: 'o', oneOf: ['table', 'json'], default: 'table', help: 'table or json' },
    json: { type: 'string', value: 'FILE', help: 'write every sample to a file' },
    html: { type: 'string', value: 'FILE', help: 'write a report with curves to a file that needs no other' },
    svg: { type: 'string', value: 'FOLDER', help: 'write each curve to a file of its own' },
    role: { type: 'string', oneOf: ['serve', 'inside', 'prepare'], hidden: true, help: 'a process of the comparison itself' },
    plan: { type: 'string', hidden: true, help: 'what the inner process measures' },
  },
  run: async ({ values }, context) => {
    const progress = (text: string): void => context.err(`  ${text}\n`)
    if (values.role === 'serve') return serve()
    if (values.role !== undefined) {
      const plan = JSON.parse(values.plan!) as Plan
      if (values.role === 'prepare') return prepare(plan.prepared!, plan.sizes, progress)
      context.out(`${JSON.stringify(await measure(plan, progress))}\n`)
      return
    }
    const plan = planOf(values)
    if (values.vagrant) throw new UsageError('flag --vagrant: not there yet; --vm measures in the same kind of kernel')
    if (plan.peer !== undefined && !existsSync(plan.peer)) throw new UsageError(`flag --peer: no file ${plan.peer}`)
    const env = { ...process.env, PATH: withSystemPrograms(process.env.PATH) }
    if (spawnSync('wrk', ['-v'], { env }).error !== undefined) throw new Error('the comparison needs the load generator wrk: apt-get install --no-install-recommends wrk')
    const text = values.vm ? await inMachine(plan, progress, context.signal) : await inNamespaces('inside', plan, context.signal)
    const report = JSON.parse(text) as Report
    if (values.json !== undefined) writeFileSync(values.json, text)
    if (values.html !== undefined) writeFileSync(values.html, renderHtml(report))
    if (values.svg !== undefined) {
      mkdirSync(values.svg, { recursive: true })
      for (const m of measures) {
        const svg = renderSvg(report, m)
        if (svg !== undefined) writeFileSync(join(values.svg, `${m.key}.svg`), svg)
      }
    }
    context.out(values.output === 'json' ? text : renderText(report))
    return report.modes.some((m) => m.failures !== undefined) ? 1 : 0
  },
})

interface Chosen {
  readonly quick: boolean
  readonly vm: boolean
  readonly full: boolean
  readonly modes: readonly string[]
  readonly sizes: readonly string[]
  readonly rounds: number | undefined
  readonly seconds: number | undefined
  readonly peer: string | undefined
}

/** What to measure, from the flags. */
export function planOf(values: Chosen): Plan {
  const modes = values.modes.length > 0 ? values.modes : all
  for (const m of modes) if (!all.includes(m)) throw new UsageError(`flag --modes: expected some of ${all.join(', ')}, got "${m}"`)
  const sizes = values.sizes.length > 0 ? values.sizes.map(Number) : values.quick ? [1, 1000] : [1, 100, 1000, 10_000]
  const [rounds, seconds] = [values.rounds ?? (values.vm ? 1 : values.quick ? 2 : 3), values.seconds ?? 1]
  if (![...sizes, rounds, seconds].every((n) => Number.isInteger(n) && n > 0 && n <= 50_000)) throw new UsageError('sizes, rounds and seconds are whole numbers above 0')
  const peer = values.peer === undefined ? undefined : /^kube-proxy=(.+)$/.exec(values.peer)?.[1]
  if (values.peer !== undefined && peer === undefined) throw new UsageError(`flag --peer: expected kube-proxy=PATH, got "${values.peer}"`)
  return { modes, sizes, rounds, seconds, connections: 16, full: values.vm ? values.full : !values.quick, linear: !values.quick, peer, instructions: values.vm, prepared: undefined }
}

/** Runs a role in namespaces that go with it, and gives what it printed. */
async function inNamespaces(role: 'inside' | 'prepare', plan: Plan, signal: AbortSignal): Promise<string> {
  const rootless = process.getuid?.() !== 0
  mayUnshare(rootless)
  const spaces = [...(rootless ? ['--user', '--map-root-user'] : []), '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
  const script = 'mount -t tmpfs none /run && mkdir /run/netns && exec "$0" "$@"'
  const argv = ['--pdeathsig', 'KILL', '--', 'unshare', ...spaces, 'sh', '-c', script, launcher, 'lab', 'compare', '--role', role, '--plan', JSON.stringify(plan)]
  const child = spawn('setpriv', argv, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, PATH: withSystemPrograms(process.env.PATH) } })
  signal.addEventListener('abort', () => child.kill('SIGKILL'), { once: true })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (t: string) => (text += t))
  const status = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (status !== 0) throw new Error(signal.aborted ? 'interrupted' : `the comparison ended with status ${status}`)
  return text
}

/** The same in a virtual machine. The Services are made out here, where it takes seconds. */
async function inMachine(plan: Plan, progress: (text: string) => void, signal: AbortSignal): Promise<string> {
  const reason = await vmLacking()
  if (reason !== undefined) throw new Error(reason)
  const prepared = mkdtempSync(join(tmpdir(), 'switchyard-compare-'))
  try {
    await inNamespaces('prepare', { ...plan, prepared }, signal)
    const inner = [launcher, 'lab', 'compare', '--role', 'inside', '--plan', JSON.stringify({ ...plan, prepared })]
    const found = await inVm(inner, { instructions: true, memory: 3072, timeout: vmPatience, said: progress, signal, stderr: (b) => void process.stderr.write(b) })
    if (found.status !== 0) throw new Error(`the comparison in the virtual machine ended with status ${found.status}`)
    return found.stdout
  } finally {
    rmSync(prepared, { recursive: true, force: true })
  }
}
