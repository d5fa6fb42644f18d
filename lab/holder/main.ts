import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { createLog } from '../../lib/log.ts'
import { command } from '../../lib/options.ts'
import { Chaos } from '../chaos.ts'
import { serveControl } from '../control.ts'
import { held, type Work } from '../lifeline.ts'
import type { StatePaths } from '../state.ts'
import type { Topology } from '../topology.ts'
import { findTarget } from '../targets.ts'
import { Hold } from './hold.ts'
import { keepUnderlay } from './underlay.ts'
import { publish } from './publish.ts'

/** What the launcher tells the holder in its first line. */
export interface Order {
  readonly topology: Topology
  readonly paths: StatePaths
  /** Of the API, on the host's 127.0.0.1. */
  readonly apiPort: number
  /** Sockets handed in, in the order of their descriptors. */
  readonly sockets: readonly { readonly fd: number; readonly to: { readonly host: string; readonly port: number } }[]
  /** Descriptors below this number are the launcher's. */
  readonly inherited: number
}

/** Runs the lab inside the holder. `switchyard lab up` starts it; nobody types it. */
export const holdCommand = command({
  name: 'hold',
  summary: 'Runs inside the holder of a lab (started by "switchyard lab up").',
  flags: {},
  run: async (_parsed, context) => {
    const log = createLog()
    const work: Work<Order> = async (order, progress, down) => {
      const hold = new Hold(order.topology, order.paths, order.inherited)
      await serveControl(order.paths.control, verbs(hold, down))
      chmodSync(order.paths.control, 0o600)
      for (const { fd, to } of order.sockets) await publish(fd, to)
      await hold.up(progress)
      hold.underlay = keepUnderlay(hold, log, context.signal)
      writeHostKubeconfig(hold, order)
    }
    await held(work, log, context.signal)
    // Whatever still runs in here ends with us.
    process.exit(0)
  },
})

function verbs(hold: Hold, down: () => void) {
  const chaos = new Chaos(hold)
  const optional = (value: unknown): string | undefined => (value === undefined ? undefined : String(value))
  return {
    status: async () => ({
      mode: hold.mode,
      broken: chaos.broken,
      parts: hold.supervisor.status,
      nodes: [...hold.nodes.values()].map((n) => ({ name: n.node.name, address: n.node.address, mode: hold.modeOf(n.node), pid: n.pid })),
    }),
    target: async (body: Readonly<Record<string, unknown>>) => findTarget(hold, String(body.name)),
    mode: async (body: Readonly<Record<string, unknown>>) => {
      const steps: { what: string; ms: number }[] = []
      await hold.setMode(String(body.mode), (what, ms) => steps.push({ what, ms }))
      return steps
    },
    break: async (body: Readonly<Record<string, unknown>>) => chaos.break(String(body.kind), String(body.target), optional(body.amount)),
    heal: async (body: Readonly<Record<string, unknown>>) => chaos.heal(optional(body.kind), optional(body.target)),
    down: async () => down(),
  }
}

/** The administrator's kubeconfig for the host, where the API is on 127.0.0.1. */
function writeHostKubeconfig(hold: Hold, order: Order): void {
  const text = readFileSync(hold.plan.adminKubeconfig, 'utf8')
  writeFileSync(order.paths.kubeconfig, text.replace(/^(\s*server:\s*).*$/m, `$1https://127.0.0.1:${order.apiPort}`), { mode: 0o600 })
}
