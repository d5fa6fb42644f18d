import { spawn, execFile, type ChildProcess } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, isConflict } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { services } from '../../kube/resources.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { explainError } from '../../lib/log.ts'
import { clusterPlan, kubeDnsService, nodeFiles, type ClusterPlan, type PlannedPart } from '../cluster.ts'
import { launcher } from '../launcher.ts'
import { clientPort, lanPort, portSettings, renderCable, renderHost, renderLan, renderPort, type Host } from '../network.ts'
import type { StatePaths } from '../state.ts'
import type { LabClient, LabNode, Topology } from '../topology.ts'
import { renderHolderNat, renderNodeNat, uplink } from '../uplink.ts'
import { nodeInit } from './scripts.ts'
import { Supervisor, type Part } from './supervisor.ts'

/** A node that runs: the process that holds its namespaces, as seen in the holder. */
export interface RunningNode {
  readonly node: LabNode
  readonly pid: number
}

/** Told as the lab comes up: what, and how long it took (ms). */
export type Progress = (what: string, ms: number) => void

/** A part must be ready within this time (ms); a loaded machine is slow, not broken. */
const patience = 60_000
/** A part that ended so often without being ready will not be. */
const tries = 4

/** The lab, seen from inside its holder. */
export class Hold {
  readonly topology: Topology
  readonly paths: StatePaths
  readonly supervisor = new Supervisor()
  readonly plan: ClusterPlan
  readonly nodes = new Map<string, RunningNode>()
  /** Clients outside, and the processes that hold their namespaces. */
  readonly clients = new Map<string, { readonly client: LabClient; readonly pid: number }>()
  /** What keeps the network between the nodes, where it takes more than a switch. */
  underlay: { ring(): void } | undefined
  readonly #inherited: number
  #mode: string
  #changed = false

  /** `inherited`: descriptors below this number came from the launcher and are no business of the parts. */
  constructor(topology: Topology, paths: StatePaths, inherited: number) {
    this.topology = topology
    this.paths = paths
    this.#inherited = inherited
    this.#mode = topology.mode
    this.plan = clusterPlan(topology, { launcher, logs: paths.logs, inside: paths.inside })
  }

  get mode(): string {
    return this.#mode
  }

  /** The mode of one node: its own, until the lab's was changed for all. */
  modeOf(node: LabNode): string {
    return this.#changed ? this.#mode : (node.mode ?? this.#mode)
  }

  /** Brings everything up; resolves when every part has said it is ready. */
  async up(progress: Progress): Promise<void> {
    const began = performance.now()
    const since = (): number => Math.round(performance.now() - began)
    mkdirSync(join(this.paths.inside, 'kubeconfigs'), { recursive: true })
    for (const folder of ['controlplane', ...this.topology.nodes.map((n) => join('nodes', n.name))]) await disk(join(this.paths.inside, folder))
    await ip(renderLan(this.topology))
    // The holder forwards nothing, but as a router it can say so.
    for (const name of ['ipv4/ip_forward', ...(this.topology.lan.length > 1 ? ['ipv6/conf/all/forwarding'] : [])]) writeFileSync(`/proc/sys/net/${name}`, '1')
    // The control plane is what everybody waits for: its node first.
    await this.#node(0)
    await this.#start(this.plan.controlplane)
    await Promise.all([...this.topology.nodes.slice(1).map((_, i) => this.#node(i + 1)), ...this.topology.clients.map((_, i) => this.#client(i))])
    progress(`${this.topology.nodes.length} nodes on ${this.topology.network === 'bridge' ? 'one LAN' : `a router${this.topology.network === 'vxlan' ? ', Pods in VXLAN' : ''}`}`, since())
    if (this.topology.uplink !== undefined) {
      await this.#uplink()
      progress(`a way out by ${this.topology.uplink}`, since())
    }
    await this.supervisor.whenReady(this.plan.controlplane.name, patience, tries)
    progress('control plane', since())
    const dns = this.#kubeDns()
    dns.catch(() => {})
    const [program, ...words] = this.within(this.topology.nodes[0]!.name, this.plan.identities)
    await run(program!, words)
    await Promise.all(this.plan.others.map((part) => this.#start(part)))
    for (const part of this.plan.others) await this.supervisor.whenReady(part.name, patience, tries)
    await dns
    progress('agent, proxy and DNS on each node, ingress', since())
  }

  /** Starts a planned part inside its node. */
  async #start(planned: PlannedPart): Promise<void> {
    await this.supervisor.start(this.#inside(planned))
  }

  #inside(planned: PlannedPart): Part {
    return { name: planned.name, argv: this.within(planned.node.name, planned.argv), log: planned.log }
  }

  /** The command line that runs `argv` on a node. */
  within(name: string, argv: readonly string[]): readonly string[] {
    const closed = Array.from({ length: this.#inherited - 3 }, (_, i) => `${i + 3}<&-`).join(' ')
    return ['nsenter', '-t', String(this.nodes.get(name)!.pid), '-n', '-m', '-u', '--', 'sh', '-c', `cd /; exec "$@" ${closed}`, 'sh', ...argv]
  }

  /** Starts the proxies again in `mode`, on all nodes at once. Where it cannot run the old mode comes back, and the reason is told. */
  async setMode(mode: string, progress: Progress): Promise<void> {
    const began = performance.now()
    try {
      await this.#proxies(() => mode)
    } catch (error) {
      await this.#proxies((node) => this.modeOf(node))
      throw error
    }
    this.#mode = mode
    this.#changed = true
    progress(`proxy in mode ${mode} on each node`, Math.round(performance.now() - began))
  }

  async #proxies(modeOf: (node: LabNode) => string): Promise<void> {
    const nodes = this.topology.nodes.map((n) => ({ ...n, mode: modeOf(n) }))
    const plan = clusterPlan({ ...this.topology, nodes }, { launcher, logs: this.paths.logs, inside: this.paths.inside })
    const proxies = plan.others.filter((p) => p.name.endsWith('/proxy'))
    await Promise.all(proxies.map((p) => this.#start(p)))
    await Promise.all(proxies.map((p) => this.supervisor.whenReady(p.name, patience, 1)))
  }

  /** The Service by which Pods reach the DNS. The control plane may take a moment until its namespace is there. */
  async #kubeDns(): Promise<void> {
    const client = connect(await loadCredentials(this.plan.adminKubeconfig), { userAgent: 'switchyard-lab' })
    try {
      for (let tries = 0; ; tries++) {
        try {
          await client.create(services, kubeDnsService(this.topology))
          return
        } catch (error) {
          if (isConflict(error)) return
          if (tries === 50) throw new Error('cannot create the Service kube-dns', { cause: error })
          await sleep(100)
        }
      }
    } finally {
      client.close()
    }
  }

  async #node(index: number): Promise<void> {
    const node = this.topology.nodes[index]!
    const pid = await this.#machine(node, lanPort(index))
    this.nodes.set(node.name, { node, pid })
    if (this.topology.uplink !== undefined) await run('nsenter', ['-t', String(pid), '-n', '--', 'nft', '-f', '-'], renderNodeNat(this.topology))
  }

  async #client(index: number): Promise<void> {
    const client = this.topology.clients[index]!
    this.clients.set(client.name, { client, pid: await this.#machine(client, clientPort(index)) })
  }

  /** Namespaces of a machine's own, and its cable. */
  async #machine(host: Host & { readonly name: string }, port: string): Promise<number> {
    const files = join(this.paths.inside, 'nodes', host.name, 'etc')
    mkdirSync(files, { recursive: true })
    for (const [name, text] of Object.entries(nodeFiles(this.topology, host.name))) writeFileSync(join(files, name), text)
    const holds = spawn('unshare', ['--net', '--mount', '--uts', '--kill-child', '--', 'sh', '-c', nodeInit, 'node', this.paths.dir, host.name, files], { stdio: ['ignore', 'pipe', 'pipe'] })
    await saysUp(holds, host.name)
    await ip(renderCable(port, holds.pid!))
    for (const [file, value] of Object.entries(portSettings(this.topology, port))) writeFileSync(`/proc/sys/net/${file}`, value)
    await this.plug(port, host)
    await ip(renderHost(this.topology, host), holds.pid!)
    return holds.pid!
  }

  /** Plugs a cable in, also one that was pulled. */
  async plug(port: string, host: Host): Promise<void> {
    await ip(renderPort(this.topology, port, host))
    this.underlay?.ring()
  }

  /** Waits for the link that the host puts in here, and takes it into use. */
  async #uplink(): Promise<void> {
    const until = performance.now() + patience
    while (!(await run('ip', ['-4', 'route', 'show', 'default'])).includes(uplink.link)) {
      if (performance.now() > until) throw new Error(`${this.topology.uplink} made no way out; see ${this.paths.logs}/uplink.log`)
      await sleep(50)
    }
    await run('nft', ['-f', '-'], renderHolderNat())
  }
}

/** A disk of its own, so that it can be full by itself. */
async function disk(folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true })
  await run('mount', ['-t', 'tmpfs', '-o', 'mode=700,size=1g', 'tmpfs', folder])
}

/** Hands `text` to `ip -batch`, in the network of process `pid` if one is named. */
export async function ip(text: string, pid?: number): Promise<void> {
  const words = ['ip', '-batch', '-']
  const [program, ...rest] = pid === undefined ? words : ['nsenter', '-t', String(pid), '-n', '--', ...words]
  await run(program!, rest, text)
}

/** Runs a program to its end and gives what it printed. Rejects with its own words. */
export function run(program: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`${[program, ...args].join(' ')} failed: ${stderr.trim() || explainError(error)}${input === undefined ? '' : `\nit was given:\n${input}`}`))
    })
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}

function saysUp(child: ChildProcess, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let complaint = ''
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (complaint += text))
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('up')) resolve()
    })
    child.on('error', reject)
    child.on('exit', (code) => reject(new Error(`node ${name} did not start (exit status ${code}): ${complaint.trim()}`)))
  })
}
