import { sleep } from '../../lib/lifecycle.ts'
import { difference, hostState, processesOf, switchyard, type Ran } from './host.ts'

/** `lab up` whose launcher gets SIGKILL after `after` ms; what is left of the host's state when the dust has settled, as lines that differ. */
export async function killedLauncher(state: string, after: number): Promise<{ readonly ran: Ran; readonly left: readonly string[] }> {
  const before = hostState(state)
  const ran = await switchyard(['lab', 'up', '--nodes', '2', '--api-port', '0'], { env: { SWITCHYARD_STATE: state }, started: (child) => void setTimeout(() => child.kill('SIGKILL'), after) })
  // The kernel takes a moment to empty a process namespace.
  for (let i = 0; i < 300 && processesOf(state).length > 0; i++) await sleep(10)
  return { ran, left: difference(before, hostState(state)) }
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
