import { accessSync, constants, existsSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { userInfo } from 'node:os'
import type { Topology } from './topology.ts'

/** Told apart from what other versions wrote: raise it when the record or what the holder answers changes. */
export const recordForm = 2

/** What is known about a lab that was brought up, on the host's disk. */
export interface LabRecord {
  readonly form: number
  readonly topology: Topology
  /** The `unshare` process on the host whose end ends the lab, and when it began (field 22 of /proc/PID/stat), so that a recycled pid fools nobody. */
  readonly pid: number
  readonly began: string
  readonly rootless: boolean
  /** The nodes are virtual machines. */
  readonly machines?: true
  /** Of the API on 127.0.0.1. */
  readonly apiPort: number
  readonly published: readonly { readonly port: number; readonly to: string }[]
}

/** Where a lab keeps what outlives its launcher. Each path is one the host sees; `inside` is filled only within the holder. */
export interface StatePaths {
  readonly dir: string
  readonly record: string
  readonly control: string
  readonly kubeconfig: string
  readonly logs: string
  readonly inside: string
}

/** The state folder of the lab `name` of this user. */
export function statePaths(name: string): StatePaths {
  const dir = join(baseFolder(), name)
  return { dir, record: join(dir, 'lab.json'), control: join(dir, 'control.sock'), kubeconfig: join(dir, 'kubeconfig'), logs: join(dir, 'logs'), inside: join(dir, 'inside') }
}

function baseFolder(): string {
  const own = process.env.SWITCHYARD_STATE
  if (own !== undefined && own !== '') return own
  const runtime = process.env.XDG_RUNTIME_DIR
  if (runtime !== undefined && runtime !== '' && writable(runtime)) return join(runtime, 'switchyard')
  if (process.getuid?.() === 0 && writable('/run')) return '/run/switchyard'
  return `/tmp/switchyard-${userInfo().uid}`
}

function writable(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** Makes the state folder anew. Only this user may read it: the administrator's key lies there. */
export function makeState(paths: StatePaths): void {
  const base = dirname(paths.dir)
  mkdirSync(base, { recursive: true, mode: 0o700 })
  // In /tmp anybody may have made the folder first.
  const found = lstatSync(base)
  if (!found.isDirectory() || found.uid !== process.getuid?.()) throw new Error(`${base} belongs to somebody else; name another folder with SWITCHYARD_STATE`)
  rmSync(paths.dir, { recursive: true, force: true })
  mkdirSync(paths.dir, { mode: 0o700 })
  mkdirSync(paths.logs)
  mkdirSync(paths.inside)
}

/** Takes the state folder away. */
export function removeState(paths: StatePaths): void {
  rmSync(paths.dir, { recursive: true, force: true })
}

/** Writes the record whole or not at all. */
export function writeRecord(paths: StatePaths, record: LabRecord): void {
  writeFileSync(`${paths.record}.new`, `${JSON.stringify(record, null, 2)}\n`)
  renameSync(`${paths.record}.new`, paths.record)
}

/** The record of the lab, if it is still running. */
export function readRecord(paths: StatePaths): LabRecord | undefined {
  if (!existsSync(paths.record)) return undefined
  try {
    const record = JSON.parse(readFileSync(paths.record, 'utf8')) as LabRecord
    return beginning(record.pid) === record.began ? record : undefined
  } catch {
    return undefined
  }
}

/** When process `pid` began, in the kernel's ticks; undefined when there is none, or it is a zombie. */
export function beginning(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' ? undefined : fields[19]
  } catch {
    return undefined
  }
}

/** The children of process `pid`. */
export function childrenOf(pid: number): readonly number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .filter((s) => s !== '')
      .map(Number)
  } catch {
    return []
  }
}
