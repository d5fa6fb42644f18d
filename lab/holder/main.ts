import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { Socket } from 'node:net'
import { createLog, explainError } from '../../lib/log.ts'
import { command } from '../../lib/options.ts'
import { Chaos } from '../chaos.ts'
import { serveControl } from '../control.ts'
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

/** What the holder tells the launcher, a line each. */
export type Report = { readonly progress: string; readonly ms: number } | { readonly ready: true } | { readonly error: string }

/** The descriptor that ties the holder to its launcher until the lab is up. */
export const lifeline = 3

/** Runs the lab inside the holder. `switchyard lab up` starts it; nobody types it. */
export const holdCommand = command({
  name: 'hold',
  summary: 'Runs inside the holder of a lab (started by "switchyard lab up").',
  flags: {},
  run: async (_parsed, context) => {
    const log = createLog()
    const line = new Socket({ fd: lifeline })
    line.on('error', () => {})
    const tell = (report: Report): void => void line.write(`${JSON.stringify(report)}\n`)
    let stays = false
    const ended = new Promise<void>((resolve) => {
      context.signal.addEventListener('abort', () => resolve(), { once: true })
      // A launcher that is gone before it said `stay` takes the lab with it.
      line.on('close', () => {
        if (!stays) resolve()
      })
    })
    let down: () => void = () => {}
    const asked = new Promise<void>((resolve) => (down = resolve))
    const lines = read(line, (text) => {
      if (text !== 'stay') return
      stays = true
      log.info('the lab stays: its launcher let go')
    })
    const work = async (): Promise<void> => {
      const order = await lines
      const hold = new Hold(order.topology, order.paths, order.inherited)
      await serveControl(
        order.paths.control,
        verbs(hold, () => void setTimeout(down, 10)),
      )
      chmodSync(order.paths.control, 0o600)
      for (const { fd, to } of order.sockets) await publish(fd, to)
      await hold.up((progress, ms) => tell({ progress, ms }))
      hold.underlay = keepUnderlay(hold, log, context.signal)
      writeHostKubeconfig(hold, order)
      tell({ ready: true })
    }
    await Promise.race([
      ended,
      asked,
      work().then(
        () => Promise.race([ended, asked]),
        (error) => {
          log.error('the lab did not come up', { error: explainError(error) })
          line.end(`${JSON.stringify({ error: explainError(error) } satisfies Report)}\n`)
          return new Promise<void>((resolve) => line.on('close', () => resolve()))
        },
      ),
    ])
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

/** The first line is the order; what follows are words. */
function read(line: Socket, word: (text: string) => void): Promise<Order> {
  return new Promise((resolve, reject) => {
    let rest = ''
    let first = true
    line.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (rest + chunk).split('\n')
      rest = parts.pop()!
      for (const text of parts) {
        if (first) {
          first = false
          try {
            resolve(JSON.parse(text) as Order)
          } catch (error) {
            reject(error as Error)
          }
        } else word(text)
      }
    })
  })
}
