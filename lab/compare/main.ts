import { spawn, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { command, UsageError } from '../../lib/options.ts'
import { launcher } from '../launcher.ts'
import { mayUnshare, withSystemPrograms } from '../up.ts'
import { renderHtml, renderText } from './render.ts'
import { measure, type Plan } from './run.ts'
import { serve } from './server.ts'
import type { Report } from './stats.ts'

const all = ['nftables', 'iptables', 'ipvs', 'userspace']

/** `switchyard lab compare`. */
export const compareCommand = command({
  name: 'compare',
  summary: 'Measures the proxy modes on this machine and says which to take.',
  flags: {
    quick: { type: 'boolean', help: 'a first answer in two minutes: 1 and 1,000 Services, two rounds of a second' },
    full: { type: 'boolean', help: '10,000 Services too' },
    modes: { type: 'list', value: 'A,B', help: 'these modes (default: all)' },
    sizes: { type: 'list', value: 'N,N', help: 'numbers of Services (default 1,100,1000)' },
    rounds: { type: 'number', help: 'rounds, in which the modes take turns (default 3)' },
    seconds: { type: 'number', help: 'length of one load, whole seconds (default 2)' },
    output: { type: 'string', short: 'o', oneOf: ['table', 'json'], default: 'table', help: 'table or json' },
    json: { type: 'string', value: 'FILE', help: 'write every sample to a file' },
    html: { type: 'string', value: 'FILE', help: 'write a report with curves to a file' },
    role: { type: 'string', oneOf: ['serve', 'inside'], hidden: true, help: 'a process of the comparison itself' },
    plan: { type: 'string', hidden: true, help: 'what the inner process measures' },
  },
  run: async ({ values }, context) => {
    if (values.role === 'serve') return serve()
    if (values.role === 'inside') {
      const found = await measure(JSON.parse(values.plan!) as Plan, (text) => context.err(`  ${text}\n`))
      context.out(`${JSON.stringify(found)}\n`)
      return
    }
    const modes = values.modes.length > 0 ? values.modes : all
    for (const m of modes) if (!all.includes(m)) throw new UsageError(`flag --modes: expected some of ${all.join(', ')}, got "${m}"`)
    const sizes = values.sizes.length > 0 ? values.sizes.map(Number) : values.quick ? [1, 1000] : [1, 100, 1000, ...(values.full ? [10_000] : [])]
    const [rounds, seconds] = [values.rounds ?? (values.quick ? 2 : 3), values.seconds ?? (values.quick ? 1 : 2)]
    if (![...sizes, rounds, seconds].every((n) => Number.isInteger(n) && n > 0 && n <= 50_000)) throw new UsageError('sizes, rounds and seconds are whole numbers above 0')
    const env = { ...process.env, PATH: withSystemPrograms(process.env.PATH) }
    if (spawnSync('wrk', ['-v'], { env }).error !== undefined) throw new Error('the comparison needs the load generator wrk: apt-get install --no-install-recommends wrk')
    const rootless = process.getuid?.() !== 0
    mayUnshare(rootless)
    const plan: Plan = { modes, sizes, rounds, seconds, connections: 16 }
    const spaces = [...(rootless ? ['--user', '--map-root-user'] : []), '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
    const script = 'mount -t tmpfs none /run && mkdir /run/netns && exec "$0" "$@"'
    const argv = ['--pdeathsig', 'KILL', '--', 'unshare', ...spaces, 'sh', '-c', script, launcher, 'lab', 'compare', '--role', 'inside', '--plan', JSON.stringify(plan)]
    const child = spawn('setpriv', argv, { stdio: ['ignore', 'pipe', 'inherit'], env })
    context.signal.addEventListener('abort', () => child.kill('SIGKILL'), { once: true })
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (t: string) => (text += t))
    const status = await new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
    if (status !== 0) return status ?? 130
    const report = JSON.parse(text) as Report
    if (values.json !== undefined) writeFileSync(values.json, text)
    if (values.html !== undefined) writeFileSync(values.html, renderHtml(report))
    context.out(values.output === 'json' ? text : renderText(report))
  },
})
