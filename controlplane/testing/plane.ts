// For tests: a control plane as its own process, as users start it.
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A control plane that runs. */
export interface Running {
  readonly url: string
  readonly secure: string
  readonly kubeconfig: string
  readonly data: string
  readonly process: ChildProcess
  /** Ends it with SIGTERM, or with SIGKILL. */
  stop(signal?: NodeJS.Signals): Promise<void>
}

/** An empty folder that goes when the test process ends. */
export function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'plane-'))
  process.on('exit', () => rmSync(made, { recursive: true, force: true }))
  return made
}

let next = 20_000 + ((process.pid * 7) % 9000)

/** Starts one on free ports of loopback and waits until it says that it is ready. */
export async function start(data: string, more: readonly string[] = []): Promise<Running> {
  for (let attempt = 0; ; attempt++) {
    const [secure, plain] = [next++, next++]
    const kubeconfig = join(data, 'admin.kubeconfig')
    const args = [
      '--disable-warning=ExperimentalWarning',
      join(import.meta.dirname, '../../cli/main.ts'),
      'controlplane',
      '--data',
      data,
      '--listen',
      `127.0.0.1:${secure}`,
      '--insecure-listen',
      `127.0.0.1:${plain}`,
      '--write-kubeconfig',
      kubeconfig,
      ...more,
    ]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
    const ready = await new Promise<boolean>((resolve) => {
      child.stderr.on('data', (part: Buffer) => {
        said += part.toString()
        if (said.includes('"ready"')) resolve(true)
      })
      child.once('close', () => resolve(false))
    })
    if (ready)
      return {
        url: `http://127.0.0.1:${plain}`,
        secure: `https://127.0.0.1:${secure}`,
        kubeconfig,
        data,
        process: child,
        stop: async (signal = 'SIGTERM') => {
          child.kill(signal)
          await ended
        },
      }
    if (attempt > 5 || !said.includes('in use')) throw new Error(`the control plane did not start: ${said}`)
  }
}
