import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../lib/lifecycle.ts'
import { difference, hostState, processesOf, switchyard, type Ran } from './host.ts'

/**
 * `lab up` whose launcher gets SIGKILL after `after` ms; what is left of the host's state when the dust has settled, as lines that differ.
 * A lab that its launcher had let go by then stays, as it should: it is taken down by `lab down` first.
 */
export async function killedLauncher(state: string, after: number): Promise<{ readonly ran: Ran; readonly stayed: boolean; readonly left: readonly string[] }> {
  const before = hostState(state)
  const log = join(state, 'default', 'logs', 'holder.log')
  rmSync(log, { force: true })
  const ran = await switchyard(['lab', 'up', '--nodes', '2', '--api-port', '0'], { env: { SWITCHYARD_STATE: state }, started: (child) => void setTimeout(() => child.kill('SIGKILL'), after) })
  // The kernel takes a moment to empty a process namespace.
  const stayed = existsSync(log) && readFileSync(log, 'utf8').includes('the lab stays')
  if (stayed) await switchyard(['lab', 'down'], { env: { SWITCHYARD_STATE: state } })
  for (let i = 0; i < 1000 && processesOf(state).length > 0; i++) await sleep(10)
  return { ran, stayed, left: difference(before, hostState(state)) }
}

/** `lab up && lab down`, and what that leaves. */
export async function upAndDown(state: string): Promise<readonly string[]> {
  const before = hostState(state)
  for (const words of [['up', '--nodes', '2', '--api-port', '0'], ['down']]) {
    const { status, stderr } = await switchyard(['lab', ...words], { env: { SWITCHYARD_STATE: state } })
    if (status !== 0) return [`lab ${words[0]} failed: ${stderr}`]
  }
  return difference(before, hostState(state))
}
