import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { askControl } from './control.ts'
import { launcher } from './launcher.ts'
import { childrenOf, readRecord, recordForm, statePaths, type LabRecord, type StatePaths } from './state.ts'
import type { Target } from './targets.ts'
import { withSystemPrograms } from './up.ts'

/** A lab that is up, or an error that says how to get one. */
export function runningLab(name: string): { readonly record: LabRecord; readonly paths: StatePaths } {
  const paths = statePaths(name)
  const record = readRecord(paths)
  const flag = name === 'default' ? '' : ` --lab ${name}`
  if (record === undefined) throw new Error(`the lab "${name}" is not up; "switchyard lab up${flag}" brings it up`)
  if (record.form !== recordForm)
    throw new Error(`the lab "${name}" was brought up by another version of switchyard; "switchyard lab down${flag}" ends it, and "switchyard lab up${flag}" brings up one that this version knows`)
  return { record, paths }
}

/** The words that run `argv` in a place of the lab, from the host: first into the holder, then into the place. Both steps die with who typed them. */
export async function execArgv(lab: { readonly record: LabRecord; readonly paths: StatePaths }, place: string, argv: readonly string[]): Promise<readonly string[]> {
  if (lab.record.machines) return [launcher, 'lab', 'in', lab.paths.control, place, '--', ...argv]
  const target = await askControl<Target & { env?: Readonly<Record<string, string>> }>(lab.paths.control, 'target', { name: place })
  const [init] = childrenOf(lab.record.pid)
  if (init === undefined) throw new Error('the lab has just ended')
  const tied = ['setpriv', '--pdeathsig', 'KILL', '--']
  const holder = [...tied, 'nsenter', '-t', String(init), ...(lab.record.rootless ? ['-U', '--preserve-credentials'] : []), '-n', '-m', '-u', '-i', '-p', '--wd=/', '--', ...tied]
  const path = withSystemPrograms(process.env.PATH)
  switch (target.kind) {
    case 'outside':
      return [...holder, 'env', `PATH=${path}`, ...argv]
    case 'node':
      return [...holder, 'nsenter', '-t', String(target.pid), '-n', '-m', '-u', '--', 'env', `PATH=${path}`, `KUBECONFIG=${lab.paths.inside}/kubeconfigs/admin.yaml`, ...argv]
    case 'pod': {
      const terminal = process.env.TERM === undefined ? [] : [`TERM=${process.env.TERM}`]
      return [
        ...holder,
        'nsenter',
        '-t',
        String(target.pid),
        '-n',
        '-m',
        '-u',
        '-i',
        '-p',
        '--wd=/',
        '--',
        'env',
        '-i',
        ...terminal,
        ...Object.entries(target.env ?? {}).map(([k, v]) => `${k}=${v}`),
        ...argv,
      ]
    }
  }
}

/** Runs `argv` in a place of the lab with this terminal; resolves to its exit status. */
export async function exec(name: string, place: string, argv: readonly string[]): Promise<number> {
  const [program, ...words] = await execArgv(runningLab(name), place, argv)
  const child = spawn(program!, words, { stdio: 'inherit' })
  // Ctrl-C reaches the whole foreground group by itself; what is sent to us alone is passed on.
  const pass = (signal: NodeJS.Signals) => (): void => void child.kill(signal)
  process.on('SIGTERM', pass('SIGTERM'))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(code ?? 128 + (constants.signals[signal!] ?? 0)))
  })
}

/** Runs `argv` in a place of the lab and gives what it printed and its exit status. */
export async function capture(name: string, place: string, argv: readonly string[]): Promise<{ readonly status: number; readonly stdout: string; readonly stderr: string }> {
  const [program, ...words] = await execArgv(runningLab(name), place, argv)
  const child = spawn(program!, words, { stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ status: code ?? 128 + (constants.signals[signal!] ?? 0), stdout, stderr }))
  })
}
