// For tests: replays recorded sessions of Kubernetes against a control plane, and tells what differs without being meant to.
import { spawn } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { excuse } from './differences.ts'

/** Where the recordings lie: beside a checkout, or where SWITCHYARD_TRANSCRIPTS says. They are no part of the project. */
export const recordings = process.env['SWITCHYARD_TRANSCRIPTS'] ?? join(import.meta.dirname, '../../../shared/data/transcripts')

/** Why nothing can be replayed here; undefined if it can. */
export const missing = (): string | undefined => (existsSync(join(recordings, 'compare.mjs')) ? undefined : `no recorded sessions at ${recordings}; SWITCHYARD_TRANSCRIPTS names another folder`)

/** Where kubectl lies in a version: on the PATH, or beside the file that the plain name leads to. */
export function findKubectl(version: string): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(':')
  for (const f of [...folders]) if (existsSync(join(f, 'kubectl'))) folders.push(dirname(realpathSync(join(f, 'kubectl'))))
  return folders.map((f) => join(f, `kubectl.${version}`)).find((f) => existsSync(f))
}

/** How a replay went. */
export interface Replayed {
  readonly steps: number
  /** Steps that differ on purpose, with the reason. */
  readonly excused: readonly string[]
  /** Steps that differ and should not, with what differs. */
  readonly wrong: readonly string[]
}

/** Replays `what`: the sessions of a kubectl, or the single requests. */
export async function replay(what: { readonly kubectl: string } | 'http', kubeconfig: string, more: readonly string[] = [], kubectl?: string): Promise<Replayed> {
  const script = what === 'http' ? ['http.mjs', kubeconfig] : ['compare.mjs', kubeconfig, '--kubectl', what.kubectl]
  const child = spawn(process.execPath, [join(recordings, script[0]!), ...script.slice(1), ...more], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...(kubectl === undefined ? {} : { KUBECTL: kubectl }) },
  })
  let out = ''
  child.stdout.on('data', (part: Buffer) => (out += part.toString()))
  child.stderr.on('data', (part: Buffer) => (out += part.toString()))
  await new Promise((resolve) => child.once('close', resolve))
  const counts = /(\d+) passed, (\d+) failed/.exec(out)
  if (counts === null) throw new Error(`the replay did not finish:\n${out.slice(-2000)}`)
  const excused: string[] = []
  const wrong: string[] = []
  for (const part of out.split(/^(?=FAIL |ok {3}|SKIP |NOTE )/m)) {
    const m = what === 'http' ? /^FAIL ()(.*)$/m.exec(part) : /^FAIL (\S+) step \d+: (.*)$/m.exec(part)
    if (!part.startsWith('FAIL ') || m === null) continue
    const why = excuse(what === 'http' ? 'http' : m[1]!, m[2]!)
    if (why === undefined) wrong.push(part.slice(0, 3000))
    else excused.push(`${m[1]} ${m[2]}: ${why}`)
  }
  return { steps: Number(counts[1]) + Number(counts[2]), excused, wrong }
}
