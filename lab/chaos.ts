import { existsSync, readFileSync, readdirSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { suggest, UsageError } from '../lib/options.ts'
import { run, type Hold } from './holder/hold.ts'
import { lanPort } from './network.ts'
import type { PodRecord } from './targets.ts'

/** A way to break a lab. */
export interface Fault {
  readonly kind: string
  /** What stands after the kind. */
  readonly usage: string
  readonly summary: string
  /** Breaks it; returns how to mend it, unless it mends itself. */
  break(hold: Hold, target: string, amount: string | undefined): Promise<(() => Promise<void>) | undefined>
}

/** All ways to break a lab. A new one is an entry here. */
export const faults: readonly Fault[] = [
  {
    kind: 'cut',
    usage: 'NODE',
    summary: 'pulls the cable of a node',
    break: async (hold, target) => {
      const port = lanPort(nodeIndex(hold, target))
      await run('ip', ['link', 'set', port, 'down'])
      return () => plug(hold, target)
    },
  },
  netem('delay', 'delays what a node is sent', '100ms', /^\d+(\.\d+)?(us|ms|s)$/, (amount) => ['delay', amount]),
  netem('loss', 'loses part of what a node is sent', '10%', /^\d+(\.\d+)?%$/, (amount) => ['loss', amount]),
  {
    kind: 'kill',
    usage: 'NODE/PART',
    summary: 'kills a part; the supervisor starts it again',
    break: async (hold, target) => {
      partOf(hold, target)
      hold.supervisor.kill(target, 'SIGKILL')
      return undefined
    },
  },
  {
    kind: 'stop',
    usage: 'NODE/PART',
    summary: 'ends a part, and nobody starts it again',
    break: async (hold, target) => {
      const part = partOf(hold, target)
      await hold.supervisor.stop(target)
      return () => hold.supervisor.start(part)
    },
  },
  {
    kind: 'freeze',
    usage: 'NODE/PART',
    summary: 'stops a part in its tracks: connections stay open and nothing answers',
    break: async (hold, target) => {
      partOf(hold, target)
      hold.supervisor.kill(target, 'SIGSTOP')
      return async () => void hold.supervisor.kill(target, 'SIGCONT')
    },
  },
  {
    kind: 'disk',
    usage: 'NODE|controlplane',
    summary: "fills the disk of a node's agent, or of the control plane",
    break: async (hold, target) => {
      const folder = target === 'controlplane' ? join(hold.paths.inside, 'controlplane') : join(hold.paths.inside, 'nodes', hold.topology.nodes[nodeIndex(hold, target)]!.name)
      const { bsize, blocks, bfree } = statfsSync(folder)
      // A disk exactly as large as what lies on it is full, and costs no memory.
      await run('mount', ['-o', `remount,size=${(blocks - bfree) * bsize}`, folder])
      return async () => void (await run('mount', ['-o', `remount,size=${blocks * bsize}`, folder]))
    },
  },
  {
    kind: 'node',
    usage: 'NODE',
    summary: 'kills a node: its parts, its Pods and its cable',
    break: async (hold, target) => {
      const index = nodeIndex(hold, target)
      const port = lanPort(index)
      const parts = hold.supervisor.status.filter((p) => p.name.startsWith(`${target}/`)).map((p) => hold.supervisor.part(p.name)!)
      await run('ip', ['link', 'set', port, 'down'])
      for (const part of parts) hold.supervisor.kill(part.name, 'SIGKILL')
      killPods(join(hold.paths.inside, 'nodes', target, 'agent', 'pods'))
      await Promise.all(parts.map((p) => hold.supervisor.stop(p.name)))
      return async () => {
        await plug(hold, target)
        await Promise.all(parts.map((p) => hold.supervisor.start(p)))
      }
    },
  },
]

/** What is broken in a lab at the moment, and how it is mended. */
export class Chaos {
  readonly #hold: Hold
  readonly #broken = new Map<string, () => Promise<void>>()

  constructor(hold: Hold) {
    this.#hold = hold
  }

  get broken(): readonly string[] {
    return [...this.#broken.keys()]
  }

  async break(kind: string, target: string, amount: string | undefined): Promise<void> {
    const fault = faults.find((f) => f.kind === kind)
    if (fault === undefined)
      throw new UsageError(
        `cannot break "${kind}"; there are ${faults.map((f) => f.kind).join(', ')}${suggest(
          kind,
          faults.map((f) => f.kind),
          '',
        )}`,
      )
    const key = `${kind} ${target}`
    if (this.#broken.has(key)) throw new UsageError(`${key} is broken already`)
    const mend = await fault.break(this.#hold, target, amount)
    if (mend !== undefined) this.#broken.set(key, mend)
  }

  /** Mends what fits, all if nothing is named; tells what was mended. */
  async heal(kind: string | undefined, target: string | undefined): Promise<readonly string[]> {
    const fitting = [...this.#broken].filter(([key]) => (kind === undefined || key.startsWith(`${kind} `)) && (target === undefined || key.endsWith(` ${target}`)))
    // Newest first: a node comes back before its cable gets its delay off.
    for (const [key, mend] of fitting.reverse()) {
      await mend()
      this.#broken.delete(key)
    }
    return fitting.map(([key]) => key)
  }
}

function netem(kind: string, summary: string, usual: string, form: RegExp, words: (amount: string) => readonly string[]): Fault {
  return {
    kind,
    usage: `NODE [${usual}]`,
    summary: `${summary} (where the kernel has netem)`,
    break: async (hold, target, amount = usual) => {
      if (!form.test(amount)) throw new UsageError(`${kind}: expected something like ${usual}, got "${amount}"`)
      const port = lanPort(nodeIndex(hold, target))
      try {
        await run('tc', ['qdisc', 'replace', 'dev', port, 'root', 'netem', ...words(amount)])
      } catch (error) {
        throw new Error('this kernel has no netem (module sch_netem), so links cannot be made worse here; "switchyard lab vm" runs a kernel that has it', { cause: error })
      }
      return async () => void (await run('tc', ['qdisc', 'del', 'dev', port, 'root']))
    },
  }
}

async function plug(hold: Hold, node: string): Promise<void> {
  const index = nodeIndex(hold, node)
  await hold.plug(lanPort(index), hold.topology.nodes[index]!)
}

function nodeIndex(hold: Hold, name: string): number {
  const index = hold.topology.nodes.findIndex((n) => n.name === name)
  if (index < 0) throw new UsageError(`there is no node "${name}"; there are ${hold.topology.nodes.map((n) => n.name).join(', ')}`)
  return index
}

function partOf(hold: Hold, name: string) {
  const part = hold.supervisor.part(name)
  if (part === undefined) throw new UsageError(`there is no part "${name}"; there are ${hold.supervisor.status.map((p) => p.name).join(', ')}`)
  return part
}

function killPods(folder: string): void {
  if (!existsSync(folder)) return
  for (const uid of readdirSync(folder)) {
    try {
      const { pid } = JSON.parse(readFileSync(join(folder, uid, 'pod.json'), 'utf8')) as PodRecord
      if (pid > 0) process.kill(pid, 'SIGKILL')
    } catch {
      // It is on its way out.
    }
  }
}
