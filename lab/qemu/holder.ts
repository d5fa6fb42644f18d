import { spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, closeSync, writeFileSync } from 'node:fs'
import { connect as client } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { services } from '../../kube/resources.ts'
import { createLog } from '../../lib/log.ts'
import { command } from '../../lib/options.ts'
import { clusterPlan, kubeDnsService } from '../cluster.ts'
import { serveControl } from '../control.ts'
import type { PartStatus } from '../holder/supervisor.ts'
import { launcher } from '../launcher.ts'
import { held } from '../lifeline.ts'
import type { StatePaths } from '../state.ts'
import type { Topology } from '../topology.ts'
import { guestKernel, qemu } from '../vm/kernel.ts'
import { acceleratorHere, machineArgs, machineFiles, prelude, segmentArgs, tail } from '../vm/run.ts'
import { answers, must, type Door } from './client.ts'
import { inside, type GuestOrder } from './guest.ts'

/** What the launcher tells the holder of machines in its first line. */
export interface VmOrder {
  readonly topology: Topology
  readonly paths: StatePaths
  readonly apiPort: number
  /** By node, in order: its door, and the ports of the host that lead into it. */
  readonly machines: readonly { readonly door: Door; readonly forwards: readonly { readonly host: string; readonly from: number; readonly to: number }[] }[]
  /** MiB of each. */
  readonly memory: number
}

/** The port of a machine that takes requests. */
const guestPort = 10_300
/** How long machines may take to boot (ms). */
const patience = 600_000

/** `switchyard lab hold-vm`: holds the machines of a lab; they die with it. `switchyard lab up --vm` starts it; nobody types it. */
export const holdVmCommand = command({
  name: 'hold-vm',
  summary: 'Holds the machines of a lab (started by "switchyard lab up --vm").',
  flags: {},
  run: async (_parsed, context) => {
    await held<VmOrder>((order, progress, down) => new Machines(order, context.signal).up(progress, down), createLog(), context.signal)
    process.exit(0)
  },
})

/** What a machine says of itself. */
interface GuestStatus {
  readonly parts: readonly PartStatus[]
  readonly pods: readonly string[]
  readonly mode: string
}

class Machines {
  readonly #order: VmOrder
  readonly #signal: AbortSignal
  readonly #running: ChildProcess[] = []

  constructor(order: VmOrder, signal: AbortSignal) {
    this.#order = order
    this.#signal = signal
  }

  async up(progress: (what: string, ms: number) => void, down: () => void): Promise<void> {
    const { topology: t, paths, machines, apiPort } = this.#order
    const began = performance.now()
    const since = (): number => Math.round(performance.now() - began)
    const kernel = await guestKernel((what) => progress(what, since()))
    const accelerator = await acceleratorHere(kernel, (what) => progress(what, since()))
    await serveControl(paths.control, this.#verbs(down))
    chmodSync(paths.control, 0o600)
    const failed = Promise.all(t.nodes.map((_, i) => this.#boot(i, kernel, accelerator))).then(() => undefined)
    failed.catch(() => {})
    const go = async (): Promise<void> => {
      const until = performance.now() + patience
      await Promise.all(machines.map((m) => answers(m.door, until, this.#signal)))
      progress(`${t.nodes.length} machines, Linux ${kernel.release}, ${accelerator === 'kvm' ? 'KVM' : 'software emulation'}`, since())
      const first = machines[0]!.door
      await must(first, { start: 'controlplane' })
      progress('control plane', since())
      const plan = clusterPlan(t, { launcher, logs: `${inside}/logs`, inside })
      await must(first, { run: plan.identities })
      // The machines share no disk that is written to: each gets its own files.
      const kubeconfigs = `${inside}/kubeconfigs`
      const read = (identity: string): Promise<string> => must(first, { run: ['cat', `${kubeconfigs}/${identity.replaceAll(':', '-')}.yaml`] })
      for (const [i, node] of t.nodes.entries()) {
        if (i === 0) continue
        for (const identity of ['system:kube-proxy', 'system:dns', `system:node:${node.name}`])
          await must(
            machines[i]!.door,
            { run: ['sh', '-c', `umask 077; mkdir -p ${kubeconfigs}; cat > ${kubeconfigs}/${identity.replaceAll(':', '-')}.yaml`] },
            { stdin: Buffer.from(await read(identity)) },
          )
      }
      writeFileSync(paths.kubeconfig, (await read('admin')).replace(/^(\s*server:\s*).*$/m, `$1https://127.0.0.1:${apiPort}`), { mode: 0o600 })
      const api = client(await loadCredentials(paths.kubeconfig), { userAgent: 'switchyard-lab' })
      await api.create(services, kubeDnsService(t)).finally(() => api.close())
      await Promise.all(machines.map((m) => must(m.door, { start: 'others' })))
      progress('agent, proxy and DNS on each node, ingress', since())
    }
    await Promise.race([go(), failed])
  }

  /** Rejects when the machine ends. */
  async #boot(index: number, kernel: Awaited<ReturnType<typeof guestKernel>>, accelerator: 'kvm' | 'emulated'): Promise<void> {
    const { topology: t, machines, memory } = this.#order
    const { door, forwards } = machines[index]!
    const order: GuestOrder = { topology: t, index, secret: door.secret, port: guestPort }
    const files = machineFiles(kernel, startScript(order))
    const leads = [{ host: '127.0.0.1', from: door.port, to: guestPort }, ...forwards].map((f) => `hostfwd=tcp:${f.host}:${f.from}-10.0.2.15:${f.to}`)
    const args = [
      ...machineArgs(kernel, accelerator, { cores: 1, memory }),
      ...segmentArgs({ name: `${this.#order.paths.dir} ${this.#order.apiPort}`, machine: 11 + index }),
      ...['-netdev', ['user', 'id=host', 'net=10.0.2.0/24', ...leads].join(','), '-device', 'virtio-net-pci,netdev=host'],
    ]
    // They die with this process, however it dies.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', qemu, ...args], { stdio: ['ignore', 'ignore', 'pipe', 'ignore', 'ignore', 'ignore', ...files] })
    this.#running.push(child)
    let said = ''
    child.stderr!.on('data', (b: Buffer) => (said += b.toString()))
    const how = await new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message))
      child.once('close', (code, signal) => resolve(signal ?? `exit status ${code}`))
    })
    const last = tail(files[1])
    for (const fd of files) closeSync(fd)
    throw new Error(`the machine ${t.nodes[index]!.name} ended (${how})${said === '' ? '' : `: ${said.trim()}`}${last}`)
  }

  #verbs(down: () => void) {
    const { topology: t, machines } = this.#order
    const status = async (door: Door): Promise<GuestStatus> => JSON.parse(await must(door, { status: true })) as GuestStatus
    const never = async (): Promise<never> => {
      throw new Error('nothing is broken on purpose in a lab of virtual machines; pull its plug with "switchyard lab exec NODE -- …"')
    }
    return {
      status: async () => {
        const all = await Promise.all(machines.map((m) => status(m.door)))
        return {
          mode: [...new Set(all.map((s) => s.mode))].join(', '),
          broken: [],
          parts: all.flatMap((s) => s.parts),
          nodes: t.nodes.map((n, i) => ({ name: n.name, address: n.address, pid: this.#running[i]?.pid ?? 0 })),
        }
      },
      machine: async (body: Readonly<Record<string, unknown>>) => {
        const name = String(body.name)
        const index = t.nodes.findIndex((n) => n.name === name)
        if (index >= 0) return { door: machines[index]!.door }
        const found = (await Promise.all(machines.map(async (m) => (await status(m.door)).pods.map((pod) => ({ door: m.door, pod }))))).flat()
        const fits = found.filter(({ pod }) => pod === name || pod.endsWith(`/${name}`))
        if (fits.length > 1) throw new Error(`"${name}" is in several namespaces: ${fits.map((f) => f.pod).join(', ')}`)
        if (fits[0] === undefined) throw new Error(`no node or running Pod is called "${name}"; there are ${[...t.nodes.map((n) => n.name), ...found.map((f) => f.pod)].join(', ')}`)
        return fits[0]
      },
      mode: async (body: Readonly<Record<string, unknown>>) => {
        const began = performance.now()
        await Promise.all(machines.map((m) => must(m.door, { mode: String(body.mode) })))
        return [{ what: `proxy in mode ${String(body.mode)} on each node`, ms: Math.round(performance.now() - began) }]
      },
      break: never,
      heal: async () => [],
      down: async () => down(),
    }
  }
}

/** The first program of a machine. */
function startScript(order: GuestOrder): string {
  const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`
  return [
    prelude,
    `export PATH=${quoted(process.env.PATH ?? '')}:/usr/sbin:/usr/bin:/sbin:/bin:/run/vm/bin HOME=/root TERM=dumb`,
    // Under emulation the compiled code of the programs is worth reading; new code is kept in memory.
    `export XDG_CACHE_HOME=${quoted(process.env.XDG_CACHE_HOME ?? `${process.env.HOME ?? '/root'}/.cache`)}`,
    'modprobe virtio_net',
    'mkdir -p /run/lab /run/netns /run/lock; chmod 700 /run/lab',
    `$b printf %s ${quoted(JSON.stringify(order))} > /run/lab/order.json`,
    `${quoted(launcher)} lab guest /run/lab/order.json < /dev/null > /dev/ttyS0 2>&1`,
    '$b echo o > /proc/sysrq-trigger',
    '$b sleep 60',
    '',
  ].join('\n')
}
