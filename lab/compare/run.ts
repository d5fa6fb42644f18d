import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { explainError } from '../../lib/log.ts'
import { launcher } from '../launcher.ts'
import { bulk, busy, change, failing, requests, service, wrk, type Strength, type Values } from './loads.ts'
import { end, ready, run } from './processes.ts'
import { ceiling, figure, linear, type Report, type Sample } from './stats.ts'
import { answers, endpoints, makeWorld, type World } from './world.ts'

/** What one comparison is told. */
export interface Plan extends Strength {
  readonly modes: readonly string[]
  readonly sizes: readonly number[]
  readonly rounds: number
  /** Streams, datagrams and failing endpoints too. */
  readonly full: boolean
  /** kube-proxy's list too. */
  readonly linear: boolean
  /** Program of a kube-proxy to measure beside ours. */
  readonly peer: string | undefined
  /** The clock counts instructions: one round says it all, and what takes seconds takes minutes. */
  readonly instructions: boolean
  /** Data of control planes, by size. */
  readonly prepared: string | undefined
}

/** A way to forward, and how it is started. */
interface Contestant {
  readonly name: string
  start(world: World): Promise<Started>
}

interface Started {
  readonly child: ChildProcess | undefined
  /** Resolves when it says it is ready; whoever says nothing is ready when the Service answers. */
  readonly ready: Promise<void>
  stop(): Promise<void>
}

/** Rounds in which the bulk is measured: two show their spread, and it takes longest. */
const bulkRounds = 2
/** The peer's modes, by kube-proxy's own names. */
const peerModes = ['iptables', 'ipvs', 'nftables']

/** The list's name before a mode of the peer. */
const peerName = (mode: string): string => `kube-proxy ${mode}`

/** Measures inside namespaces of its own (see `main.ts`): lays Pods out, feeds real proxies from a real control plane, and loads them in turns. */
export async function measure(plan: Plan, progress: (text: string) => void): Promise<Report> {
  const began = performance.now()
  const quiet = await busy()
  const world = await makeWorld(plan.prepared, progress)
  const left: string[] = []
  try {
    const iperf = plan.full && spawnSync('iperf3', ['--version']).error === undefined
    if (plan.full && !iperf) left.push('Throughput and UDP were not measured: iperf3 is not installed (apt-get install --no-install-recommends iperf3).')
    const contestants: Contestant[] = [...plan.modes.map(ours), ...(plan.peer === undefined ? [] : peerModes.filter((m) => plan.modes.includes(m)).map((m) => theirs(plan.peer!, m)))]
    const listed = plan.linear ? await listOf() : undefined
    if (typeof listed === 'string') left.push(listed)
    const list = typeof listed === 'function' ? listed : undefined
    const reasons = new Map<string, string>()
    const failures = new Map<string, string[]>()
    const samples: Sample[] = []
    const names = [ceiling, ...contestants.map((c) => c.name), ...(list === undefined ? [] : [linear])]
    // On a clock that counts instructions one round is enough, and the ceiling visited twice shows it.
    const turnsOf = (round: number): readonly string[] => {
      const turn = round % names.length
      return [...names.slice(turn), ...names.slice(0, turn), ...(plan.instructions ? [ceiling] : [])]
    }
    const total = plan.sizes.length * plan.rounds * turnsOf(0).length
    let visits = 0
    const visited = (what: string): void => {
      const rest = (((performance.now() - began) / Math.max(1, visits)) * (total - visits)) / 1000
      progress(`${visits + 1} of ${total}: ${what}${visits < 2 ? '' : `; some ${Math.ceil(rest)} s left`}`)
      visits++
    }
    await warmUp(world, plan)
    let cached = !plan.instructions
    for (const size of plan.sizes.toSorted((a, b) => a - b)) {
      await world.grow(size)
      if (!cached) {
        // While a program is read from the host the machine is idle, and an idle clock that counts instructions leaps: everything is read once before it is measured.
        for (const contestant of contestants) await rehearse(world, contestant, progress)
        cached = true
      }
      for (let round = 0; round < plan.rounds; round++) {
        for (const name of turnsOf(round)) {
          visited(`${name}, ${size} Service${size === 1 ? '' : 's'}, round ${round + 1}`)
          if (reasons.has(name) || (failures.get(name)?.length ?? 0) >= 3) continue
          const heavy = plan.full && round < bulkRounds
          try {
            const found =
              name === ceiling
                ? await visitCeiling(world, plan, heavy && iperf)
                : name === linear
                  ? await visitList(world, plan, list!)
                  : await visit(
                      world,
                      plan,
                      contestants.find((c) => c.name === name)!,
                      heavy,
                      iperf,
                    )
            samples.push({ mode: name, services: size, round, ...found })
          } catch (error) {
            const words = explainError(error)
            const cannot = /cannot work here: (.*)/.exec(words)
            if (cannot !== null) reasons.set(name, cannot[1]!.replace(/\\?"[},].*$/, ''))
            else failures.set(name, [...(failures.get(name) ?? []), words])
            progress(`${name}: ${cannot === null ? 'failed' : 'cannot run here'}: ${words}`)
          }
          await run('conntrack', ['-F']).catch(() => {})
        }
      }
    }
    return {
      when: new Date().toISOString(),
      where: process.env.SWITCHYARD_VM === '1' ? 'virtual machine' : 'namespaces',
      machine: { cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, memory: totalmem(), kernel: release(), node: process.version, busy: quiet },
      settings: { sizes: plan.sizes, rounds: plan.rounds, seconds: plan.seconds, connections: plan.connections, instructions: plan.instructions },
      modes: names
        .filter((name) => name !== ceiling)
        .map((name) => ({ name, ...(reasons.has(name) ? { reason: reasons.get(name)! } : {}), ...(failures.has(name) ? { failures: failures.get(name)! } : {}) })),
      samples,
      left,
      took: Math.round((performance.now() - began) / 1000),
    }
  } finally {
    await world.close()
  }
}

/** Starts and ends a proxy, for nothing but its files. */
async function rehearse(world: World, contestant: Contestant, progress: (text: string) => void): Promise<void> {
  progress(`${contestant.name}, not measured: its files are read`)
  const started = await contestant.start(world)
  await started.ready.catch(() => {})
  await started.stop()
}

/** The endpoint is slow until its code is compiled; nobody's figures shall have that in them. */
async function warmUp(world: World, plan: Plan): Promise<void> {
  const url = `http://${endpoints[0]}:${await world.fresh()}/`
  for (const headers of [[], ['Connection: close']]) await wrk({ ...plan, seconds: plan.rounds === 1 ? 1 : 2 }, url, ...headers)
}

async function visitCeiling(world: World, plan: Plan, heavy: boolean): Promise<Pick<Sample, 'values' | 'errors'>> {
  const port = world.unused()
  const found = await requests(plan, async () => `http://${endpoints[0]}:${await world.fresh()}/`)
  return { ...found, values: { ...found.values, ...(heavy ? await bulk(plan, { host: endpoints[0], port, serverPort: port }) : {}) } }
}

/** One proxy, from its start to its end. */
async function visit(world: World, plan: Plan, contestant: Contestant, heavy: boolean, iperf: boolean): Promise<Pick<Sample, 'values' | 'errors'>> {
  const port = await world.fresh()
  await world.point(port)
  const from = performance.now()
  const started = await contestant.start(world)
  try {
    await started.ready
    await answers(port)
    const cold = performance.now() - from
    const url = async (): Promise<string> => {
      const next = await world.fresh()
      await world.point(next)
      await answers(next)
      return `http://${service.host}/`
    }
    // What carries bytes itself is slow until its code is compiled.
    if (contestant.name === 'userspace') await wrk({ ...plan, seconds: 1 }, await url())
    const { values, errors } = await requests(plan, url)
    const changes: number[] = []
    for (let i = 0; i < (plan.instructions ? 2 : 3); i++) changes.push(await change(world))
    const more: Values = {}
    if (heavy) {
      Object.assign(more, await failing(world))
      if (iperf) {
        const serverPort = world.unused()
        await world.point(serverPort)
        Object.assign(more, await bulk(plan, { ...service, serverPort }))
      }
    }
    const memory = started.child === undefined ? undefined : residentOf(started.child.pid!)
    return { errors, values: { ...values, ...more, cold, change: figure(changes)!.median, ...(memory === undefined ? {} : { memory }) } }
  } finally {
    await started.stop()
  }
}

function residentOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024
}

/** Our proxy in one mode. */
function ours(mode: string): Contestant {
  return {
    name: mode,
    start: async (world) => {
      const words = [
        '--kubeconfig',
        world.kubeconfig,
        '--node',
        'node1',
        '--mode',
        mode,
        '--cluster-cidr',
        '10.244.0.0/16',
        '--conntrack-max-per-core',
        '0',
        '--status',
        '127.0.0.1:10256,127.0.0.1:10249',
      ]
      const child = spawn(launcher, ['proxy', ...words], { stdio: ['ignore', 'ignore', 'pipe'] })
      return {
        child,
        ready: ready(child),
        stop: async () => {
          await end(child)
          await run(launcher, ['proxy', ...words, '--cleanup']).catch(() => {})
        },
      }
    },
  }
}

/** A real kube-proxy. It says nothing when it is done, so its start ends with the first answer. */
function theirs(program: string, mode: string): Contestant {
  return {
    name: peerName(mode),
    start: async (world) => {
      const words = ['--kubeconfig', world.kubeconfig, '--hostname-override', 'node1', '--proxy-mode', mode, '--cluster-cidr', '10.244.0.0/16', '--conntrack-max-per-core', '0']
      const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'] })
      let last = ''
      child.stderr.setEncoding('utf8').on('data', (text: string) => (last = text.trim().split('\n').at(-1) ?? last))
      const gone = new Promise<never>((_, reject) => child.once('error', reject).once('exit', (code) => reject(new Error(`kube-proxy ended with ${code}: ${last}`))))
      gone.catch(() => {})
      return {
        child,
        ready: Promise.race([gone, new Promise<void>((resolve) => setTimeout(resolve, 50))]),
        stop: async () => {
          await end(child)
          await run(program, ['--cleanup', '--proxy-mode', mode]).catch(() => {})
          await run(launcher, ['proxy', '--cleanup', '--cleanup-kube-proxy']).catch(() => {})
        },
      }
    },
  }
}

type List = typeof import('../testing/linear.ts').linearList

/** The helper that renders kube-proxy's list, or why there is none. */
async function listOf(): Promise<List | string> {
  if (spawnSync('iptables-legacy-restore', ['--version']).status !== 0) return "kube-proxy's list was not measured: there is no iptables-legacy-restore (Debian package iptables)."
  // The nft variant takes minutes for a list that long.
  if (spawnSync('iptables-legacy', ['-t', 'nat', '-S']).status !== 0) return "kube-proxy's list was not measured: this kernel has no legacy NAT table (module iptable_nat)."
  try {
    return (await import('../testing/linear.ts')).linearList
  } catch {
    return "kube-proxy's list was not measured: the helper that renders it comes with a checkout, not with the package."
  }
}

/** The list in the kernel, and nobody who keeps it. */
async function visitList(world: World, plan: Plan, list: List): Promise<Pick<Sample, 'values' | 'errors'>> {
  const load = async (): Promise<string> => {
    const next = await world.fresh()
    await run('iptables-legacy-restore', [], list(world.listed(next)))
    return `http://${service.host}/`
  }
  try {
    await load()
    return await requests(plan, load)
  } finally {
    await run('sh', ['-c', 'iptables-legacy -t nat -F && iptables-legacy -t nat -X'])
  }
}
