import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { launcher } from '../launcher.ts'

/** How a `switchyard` that was run ended. */
export interface Ran {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  /** Run as this user and group. */
  readonly uid?: number
  readonly gid?: number
  /** Given the process as soon as it runs. */
  readonly started?: (child: ChildProcess) => void
}

/** Runs the launcher with these words. */
export function switchyard(words: readonly string[], how: RunOptions = {}): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const child = spawn(launcher, words, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...how.env },
      ...(how.uid === undefined ? {} : { uid: how.uid, gid: how.gid ?? how.uid, cwd: '/' }),
    })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    child.once('error', reject)
    child.once('close', (status, signal) => resolve({ status, signal, stdout, stderr }))
    how.started?.(child)
  })
}

/** What a lab must leave as it was: namespaces, links, addresses, routes, rules, and every process that belongs to a lab of this state folder. */
export function hostState(state: string): string {
  const run = (program: string, ...args: string[]): string => {
    try {
      return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    } catch {
      return `${program} cannot be run\n`
    }
  }
  const rules = (text: string): string => text.replaceAll(/^#.*\n/gm, '').replaceAll(/\[\d+:\d+\]/g, '')
  return [
    run('ip', 'netns'),
    run('ip', '-o', 'link').replaceAll(/qlen \d+/g, ''),
    run('ip', 'addr').replaceAll(/\d+sec/g, ''),
    run('ip', 'route', 'show', 'table', 'all'),
    rules(run('iptables-save')),
    rules(run('iptables-legacy-save')),
    run('nft', 'list', 'ruleset').replaceAll(/counter packets \d+ bytes \d+/g, ''),
    run('ipset', 'list', '-n'),
    readFileSync('/proc/mounts', 'utf8'),
    ...processesOf(state).map((p) => `left: ${p}\n`),
  ].join('--\n')
}

/** The processes whose words or environment name the folder: launcher, holder, parts and Pods of its labs. */
export function processesOf(state: string): readonly string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        const env = readFileSync(`/proc/${pid}/environ`, 'utf8')
        return words.includes(state) || env.includes(`SWITCHYARD_STATE=${state}`) ? [`${pid} ${words}`] : []
      } catch {
        return []
      }
    })
}

/** The lines by which two states of the host differ. */
export function difference(before: string, after: string): readonly string[] {
  const [a, b] = [before, after].map((text) => new Set(text.split('\n')))
  return [...[...b!].filter((line) => !a!.has(line)).map((line) => `+ ${line}`), ...[...a!].filter((line) => !b!.has(line)).map((line) => `- ${line}`)]
}
