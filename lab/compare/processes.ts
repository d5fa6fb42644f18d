import { execFile, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'

/** Runs a program to its end and gives what it printed; rejects with its own words. */
export function run(program: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${program} failed: ${stderr.trim() || stdout.trim().slice(-500) || error.message}`))
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

/** Resolves when the part says it is ready; rejects with its last line when it ends before. */
export function ready(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let last = ''
    createInterface({ input: child.stderr! }).on('line', (line) => {
      last = line
      if (/\bready\b/.test(line)) resolve()
    })
    child.once('error', reject)
    child.once('close', () => reject(new Error(last)))
  })
}

/** Ends a process, and waits until it has. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill()
  const late = setTimeout(() => child.kill('SIGKILL'), 5000)
  await gone
  clearTimeout(late)
}
