import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { network } from '../../lib/ip.ts'
import type { Backend } from '../backend.ts'
import { compileGroup, packetOf } from './agree.ts'
import { groups, world, type Flow, type ModeName, type OptionsName, type Sender } from './flows.ts'
import type { Order, Outcome, PeerData } from './peer.ts'

/** A backend to be proven with real packets. */
export interface Candidate {
  /** What is different about this one, e.g. `legacy`. */
  readonly name: string
  readonly mode: ModeName
  make(): Promise<Backend>
  /** Why this backend cannot do a flow; flows' own `cannot` is asked too. */
  cannot?(flow: Flow): string | undefined
  /** Sources are never kept: a proxy between. */
  readonly alwaysMasquerades?: boolean
}

/**
 * Runs the calling file again in namespaces of its own, root of nothing outside: `if (await insideNamespaces(import.meta.filename)) { … }`.
 * The namespace it finds itself in is the node `here`. Not root: says so and skips.
 */
export function insideNamespaces(file: string): boolean {
  if (process.env.SWITCHYARD_NAMESPACE === '1') return true
  if (emulated) {
    // The machine is thrown away, and another process costs it seconds.
    sh('mkdir -p /run/netns')
    return true
  }
  if (process.getuid?.() !== 0) {
    process.stdout.write('TAP version 14\n1..0 # SKIP network namespaces need root\n')
    return false
  }
  const root = join(import.meta.dirname, '../..')
  // A /run of its own: the lock of iptables is a file there, and so are the names of network namespaces.
  const script = 'mount -t tmpfs none /run && mkdir /run/netns && exec "$0" "$@"'
  const args = ['-n', '-m', '-p', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script, 'sh', join(root, 'scripts/node'), file]
  const done = spawnSync('unshare', args, { stdio: 'inherit', env: { ...process.env, SWITCHYARD_NAMESPACE: '1' } })
  process.exitCode = done.status ?? 1
  return false
}

/** An emulated machine is ten to thirty times slower. */
const emulated = process.env.SWITCHYARD_VM === '1'

/** Namespaces of pods, another node and a client around this one, and a peer in each. */
export class Scene {
  readonly #peers = new Map<string, Peer>()

  static async build(): Promise<Scene> {
    const scene = new Scene()
    sh(layout())
    for (const name of ['here', 'a', 'b', 'c', 'd', 'there', 'client'])
      scene.#peers.set(name, new Peer({ name, namespace: name === 'here' ? undefined : `/run/netns/${name}`, tcp: [8080, 9090], udp: [5353, 8080] }))
    await Promise.all([...scene.#peers.values()].map((p) => p.ready))
    return scene
  }

  ask(from: Sender, order: Omit<Order, 'id'>): Promise<Outcome> {
    const patience = emulated ? 4 : 1
    return this.#peers.get(from.replace('pod ', ''))!.ask({ ...order, timeout: order.timeout * patience })
  }

  async close(): Promise<void> {
    await Promise.all([...this.#peers.values()].map((p) => p.close()))
  }
}

/** What is to be said about a proof besides its outcome. */
type Tell = (what: string) => void

/**
 * Proves one flow with packets; undefined if they went as it says. A wrong answer counts at once. Silence where somebody should have
 * spoken may be a busy machine: it is told, and asked again with more patience, twice, before it counts.
 */
export async function prove(scene: Scene, flow: Flow, alwaysMasquerades = false, tell: Tell = () => {}): Promise<string | undefined> {
  const packet = packetOf(flow)
  const order = { protocol: packet.protocol as 'tcp' | 'udp', host: packet.destination, port: packet.destinationPort }
  const { arrives } = flow
  const ask = async (timeout: number): Promise<Outcome> => {
    let said = await scene.ask(flow.from, { ...order, timeout })
    for (let times = 2; times <= 3 && (said.kind === 'silence' || said.kind === 'error'); times++) {
      tell(`${flow.name}: ${words(said)} after ${timeout} ms; asking again`)
      said = await scene.ask(flow.from, { ...order, timeout: timeout * 2 * times })
    }
    return said
  }
  if (arrives === 'dropped' || arrives === 'untouched') {
    const said = await scene.ask(flow.from, { ...order, timeout: 350 })
    if (arrives === 'dropped') return said.kind === 'silence' ? undefined : `expected dropped: ${words(said)}`
    const reached = said.by === undefined || (addressesOf(said.by.name).includes(packet.destination) && said.by.port === packet.destinationPort)
    return reached ? undefined : `expected untouched: ${words(said)}`
  }
  if (arrives === 'rejected') {
    const said = await ask(1500)
    return said.kind === 'refused' ? undefined : `expected rejected: ${words(said)}`
  }
  const seen = new Set<string>()
  const judge = (o: Outcome): string | undefined => {
    if (o.by === undefined) return `expected an answer: ${words(o)}`
    const v6 = packet.family === 6
    const who = addressesOf(o.by.name).map((a) => (a.includes(':') ? `[${a}]` : a) + `:${o.by!.port}`)
    const end = arrives.find((a) => who.includes(a) && a.startsWith('[') === v6)
    if (end === undefined) return `expected ${arrives.join(' or ')}: ${who.join(' or ')} answered`
    seen.add(end)
    const masqueraded = o.by.peer !== packet.source
    if (flow.masqueraded !== undefined && !alwaysMasquerades && masqueraded !== flow.masqueraded) return `expected ${flow.masqueraded ? '' : 'not '}masqueraded: ${end} saw ${o.by.peer}`
    return undefined
  }
  const several = arrives.length > 1 && flow.sticky !== true
  // Affinity begins with the first connection that is made, so that one comes alone. Of several endpoints two must be seen, within so many
  // tries that chance cannot keep one away; those who take turns may be in step with another flow's connections, so a round is not all.
  const rounds = flow.sticky === true ? [1, 7] : several ? Array.from({ length: 10 }, () => 6) : [2]
  let tries = 0
  for (const round of rounds) {
    tries += round
    for (const o of await Promise.all(Array.from({ length: round }, () => ask(5000)))) {
      const wrong = judge(o)
      if (wrong !== undefined) return wrong
    }
    if (several && seen.size > 1) return undefined
  }
  if (several) return `expected several endpoints: only ${[...seen].join()} in ${tries} tries`
  return flow.sticky === true && seen.size > 1 ? `expected one endpoint: ${[...seen].join(' ')}` : undefined
}

const words = (o: Outcome): string => `${o.kind}${o.by === undefined ? '' : ` by ${o.by.name}:${o.by.port}`}${o.error === undefined ? '' : ` (${o.error})`}`

/** Registers one test for each candidate and group of flows. Call it inside `insideNamespaces`. */
export async function provePackets(candidates: readonly Candidate[], only?: (name: OptionsName) => boolean): Promise<void> {
  // Not at the top: the process outside the namespaces has no tests.
  const { t: root, test } = await import('tap')
  root.setTimeout(290_000)
  const scene = await Scene.build()
  const named = [...groups()].filter(([name]) => only?.(name) !== false)
  const closing = candidates.flatMap((candidate) => {
    // One backend for all groups: each table follows the last one.
    let backend: Promise<Backend> | undefined
    let why: string | undefined
    return named.map(([name, { flows }], i) =>
      test(`packets agree with the flows: ${candidate.name}, ${name}`, { timeout: 240_000 }, async (t) => {
        if (backend === undefined) why = await (await (backend = candidate.make())).probe()
        const b = await backend
        if (why !== undefined) {
          t.comment(`skipped: ${why}`)
          return
        }
        await b.apply(compileGroup(name).table, new AbortController().signal)
        // Several at a time: most of what takes time is waiting for packets that were dropped.
        const proofs = new Map<Flow, Promise<string | undefined>>()
        const tested = flows.filter((f) => reasonNotTo(candidate, f) === undefined)
        let next = 0
        const worker = async (): Promise<void> => {
          for (let flow = tested[next++]; flow !== undefined; flow = tested[next++]) {
            const proof = prove(scene, flow, candidate.alwaysMasquerades, (what) => t.comment(what))
            proofs.set(flow, proof)
            await proof
          }
        }
        await Promise.all(Array.from({ length: emulated ? 6 : 12 }, worker))
        for (const flow of flows) {
          const reason = reasonNotTo(candidate, flow)
          if (reason !== undefined) {
            t.pass(flow.name, { skip: reason })
            continue
          }
          t.equal(await proofs.get(flow), undefined, flow.name)
        }
        t.same(await b.check(), [], 'the kernel is as written')
        // In the emulated machine looking after what drains costs more than beginning anew.
        if (emulated || i === named.length - 1) {
          await b.cleanup()
          await b.close()
          backend = undefined
        }
        spawnSync('conntrack', ['-F'], { stdio: 'ignore' })
      }),
    )
  })
  void Promise.allSettled(closing).then(() => scene.close())
}

const reasonNotTo = (candidate: Candidate, flow: Flow): string | undefined => flow.traceOnly ?? flow.cannot?.[candidate.mode] ?? candidate.cannot?.(flow)

function addressesOf(name: string): readonly string[] {
  if (name === 'here') return [...world.here.ips, ...world.here.also]
  if (name === 'there') return world.there.ips
  if (name === 'client') return world.client.ips
  return world.pods[name as 'a'].ips
}

/** Commands that lay the scene out; run in the namespace that is the node `here`. */
function layout(): string {
  const { here, there, client, pods } = world
  const [v4, v6] = [0, 1]
  const out: string[] = [
    'ip link set lo up',
    'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done',
    'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
    // Refusals by ICMP are rationed otherwise, and the ration of a test is soon gone.
    'for f in net/ipv4/icmp_ratelimit net/ipv4/icmp_ratemask net/ipv6/icmp/ratelimit; do echo 0 > /proc/sys/$f; done; echo > /proc/sys/net/ipv6/icmp/ratemask || true',
    // The ration of the whole machine is the first namespace's to set, before Linux 6.13.
    'echo 100000 > /proc/sys/net/ipv4/icmp_msgs_per_sec || true',
    'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad',
  ]
  for (const name of ['a', 'b', 'c', 'd', 'there', 'client']) {
    out.push(`ip netns add ${name}`)
    out.push(
      `ip netns exec ${name} sh -c 'ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter'`,
    )
  }
  const link = (near: string, nearNs: string, far: string, farNs: string): void => {
    out.push(`ip link add ${near}${nearNs === '' ? '' : ` netns ${nearNs}`} type veth peer name ${far} netns ${farNs}`)
  }
  const on = (ns: string): string => (ns === '' ? 'ip' : `ip -n ${ns}`)
  const pod = (name: 'a' | 'b' | 'c' | 'd', nodeNs: string): void => {
    const veth = `pod${name}`
    link(veth, nodeNs, 'eth0', name)
    const ips = pods[name].ips
    const node = on(nodeNs)
    out.push(`${node} addr add 169.254.1.1/32 dev ${veth} scope link`, `${node} addr add fe80::1/64 dev ${veth} nodad`, `${node} link set ${veth} up`)
    out.push(`${node} route add ${ips[v4]}/32 dev ${veth}`, `${on(name)} addr add ${ips[v4]}/32 dev eth0`, `${on(name)} addr add ${ips[v6]}/128 dev eth0 nodad`, `${on(name)} link set eth0 up`)
    out.push(`${node} -6 route add ${ips[v6]}/128 dev ${veth}`)
    out.push(`${on(name)} route add 169.254.1.1 dev eth0 scope link`, `${on(name)} route add default via 169.254.1.1 dev eth0`, `${on(name)} -6 route add default via fe80::1 dev eth0`)
  }
  out.push('ip netns exec there sh -c "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"')
  pod('a', '')
  pod('b', '')
  pod('c', 'there')
  pod('d', 'there')
  link('peer', '', 'peer', 'there')
  out.push(`ip addr add ${here.ips[v4]}/24 dev peer`, `ip addr add ${here.ips[v6]}/64 dev peer nodad`, 'ip link set peer up')
  out.push(`ip -n there addr add ${there.ips[v4]}/24 dev peer`, `ip -n there addr add ${there.ips[v6]}/64 dev peer nodad`, 'ip -n there link set peer up')
  link('out', '', 'eth0', 'client')
  out.push('ip addr add 198.51.100.1/24 dev out', 'ip addr add fd00:198::1/64 dev out nodad', `ip addr add ${here.also[0]}/32 dev out`, 'ip link set out up')
  out.push(`ip -n client addr add ${client.ips[v4]}/24 dev eth0`, `ip -n client addr add ${client.ips[v6]}/64 dev eth0 nodad`, 'ip -n client link set eth0 up')
  for (const [i, cidr] of there.podCidrs.entries()) out.push(`ip ${network(cidr)!.family === 6 ? '-6 ' : ''}route add ${cidr} via ${there.ips[i]}`)
  for (const ns of ['there', 'client']) {
    const [near, near6] = ns === 'there' ? here.ips : (['198.51.100.1', 'fd00:198::1'] as const)
    out.push(`ip -n ${ns} route add default via ${near}`, `ip -n ${ns} -6 route add default via ${near6}`)
  }
  // Everything has a way out, where nobody answers.
  out.push(`ip route add default via ${client.ips[v4]} src ${here.ips[v4]}`, `ip -6 route add default via ${client.ips[v6]} src ${here.ips[v6]}`)
  return `set -e\n${out.join('\n')}\n`
}

function sh(script: string): void {
  const done = spawnSync('sh', ['-s'], { input: script, encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`the scene could not be laid out: ${done.stderr}`)
}

/** A thread in a namespace that answers, and connects when asked. */
class Peer {
  readonly ready: Promise<void>
  readonly #worker: Worker
  readonly #waiting = new Map<number, (o: Outcome) => void>()
  #next = 1

  constructor(data: PeerData) {
    this.#worker = new Worker(new URL('peer.ts', import.meta.url), { workerData: data })
    this.ready = new Promise((resolve, reject) => {
      this.#worker.once('error', reject)
      this.#worker.on('message', (value: 'ready' | Outcome) => {
        if (value === 'ready') return resolve()
        this.#waiting.get(value.id)?.(value)
        this.#waiting.delete(value.id)
      })
    })
  }

  ask(order: Omit<Order, 'id'>): Promise<Outcome> {
    const id = this.#next++
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve)
      const message: Order = { id, ...order }
      this.#worker?.postMessage(message)
    })
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
  }
}
