import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { connect, type Client } from '../../kube/client.ts'
import { parseKubeconfig } from '../../kube/credentials.ts'
import { recorder } from '../../kube/events.ts'
import type { Pod } from '../../kube/objects.ts'
import { leases, nodes, pods } from '../../kube/resources.ts'
import { FakeApi, type Order } from '../../kube/testing/api.ts'
import { node, pod } from '../../kube/testing/builders.ts'
import { underEachWrong } from '../../kube/testing/wrongs.ts'
import { silent } from '../../lib/log.ts'
import { Agent } from './agent.ts'
import { keepAlive, register } from './node.ts'
import type { Process, Runtime } from './sandbox.ts'

/** Pods that run nowhere: every run goes on until it gets a signal. */
class FakeRuntime implements Runtime {
  readonly running = new Map<number, { readonly ended: () => void; readonly sandbox: number; stubborn: boolean }>()
  readonly exits = new Map<number, { code: number; ended: number }>()
  readonly sandboxes = new Set<number>()
  #next = 100

  async create(_spec: unknown, network: (pid: number) => Promise<void>): Promise<Process> {
    const pid = this.#next++
    await network(pid)
    this.sandboxes.add(pid)
    return { pid, began: '1' }
  }

  alive(p: Process): boolean {
    return this.sandboxes.has(p.pid)
  }

  async start(sandbox: Process, run: { readonly argv: readonly string[] }, ended: () => void): Promise<Process> {
    const pid = this.#next++
    this.running.set(pid, { ended, sandbox: sandbox.pid, stubborn: run.argv.includes('stubborn') })
    return { pid, began: '1' }
  }

  exited(run: Process): { readonly code: number; readonly ended: number } | undefined {
    return this.exits.get(run.pid)
  }

  signal(run: Process, signal: NodeJS.Signals): void {
    const p = this.running.get(run.pid)
    if (p !== undefined && (signal === 'SIGKILL' || !p.stubborn)) this.end(run.pid, signal === 'SIGKILL' ? 137 : 143)
  }

  end(pid: number, code: number): void {
    const p = this.running.get(pid)
    this.running.delete(pid)
    this.exits.set(pid, { code, ended: Date.now() })
    p?.ended()
  }

  async exec(): Promise<{ code: number; output: string }> {
    return { code: 0, output: '' }
  }

  attach(_sandbox: Process, run: { readonly argv: readonly string[] }): ChildProcess {
    return spawn(run.argv[0]!, run.argv.slice(1), { detached: true })
  }

  async destroy(sandbox: Process): Promise<void> {
    this.sandboxes.delete(sandbox.pid)
    for (const [pid, p] of this.running) if (p.sandbox === sandbox.pid) this.end(pid, 137)
  }
}

function agentOver(client: Client, state: string, signal: AbortSignal) {
  const runtime = new FakeRuntime()
  const routes: string[] = []
  const agent = new Agent({
    client,
    events: recorder(client, 'agent', { log: silent, signal }),
    runtime,
    network: { connect: async () => {}, route: async (want) => void routes.push([...want].map((r) => r.join(' via ')).join(', ')) },
    node: 'node1',
    nodeIps: ['192.168.56.11'],
    state,
    names: { clusterDns: ['10.96.0.10'], clusterDomain: 'cluster.local' },
    mirror: { silence: 300, firstWait: 5, mostWait: 50 },
    log: silent,
    signal,
  })
  return { agent, runtime, routes }
}

const own = node('node1', { ip: '192.168.56.11', podCIDR: '10.244.0.0/24' })
const isReady = (p: Pod | undefined): boolean => p?.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true

async function agentOf(t: Test) {
  const api = await FakeApi.start()
  const state = mkdtempSync(join(tmpdir(), 'switchyard-agent-'))
  const ended = new AbortController()
  const { signal } = ended
  const client = connect(await parseKubeconfig(api.kubeconfigText()), { timeout: 500 })
  const { agent, runtime, routes } = agentOver(client, state, signal)
  t.teardown(async () => {
    ended.abort()
    client.close()
    await api.close()
    rmSync(state, { recursive: true, force: true })
  })
  api.put(own)
  await agent.start()
  const get = (name: string): Pod | undefined => api.read(pods, `demo/${name}`)
  const ready = (name: string): boolean => isReady(get(name))
  return { api, agent, runtime, client, routes, get, ready, signal }
}

void test('the agent under each wrong of the API', async (t) => {
  const gone = pod('demo/gone', { node: 'node1' })
  underEachWrong(t, 'what runs on the node', {
    before: [own, pod('demo/kept', { node: 'node1' }), gone],
    async start({ client, api, signal }) {
      const state = t.testdir({})
      const { agent, runtime, routes } = agentOver(client, state, signal)
      await agent.start()
      const ready = (name: string): boolean => isReady(api.read(pods, `demo/${name}`))
      let begun = false
      return {
        settled: () => (begun ||= ready('kept') && ready('gone') && runtime.sandboxes.size === 2),
        changed: () => ready('kept') && ready('come') && runtime.sandboxes.size === 2 && runtime.running.size === 2 && routes.at(-1) === '10.244.1.0/24 via 192.168.56.12',
        // Nothing that ran for the Pod that nobody touched is ended: whatever ends belongs to the one that went.
        serving: () => !begun || runtime.exits.size <= 1,
      }
    },
    change(api) {
      api.remove(api.read(pods, 'demo/gone')!)
      api.put(pod('demo/come', { node: 'node1' }))
      api.put(node('node2', { ip: '192.168.56.12', podCIDR: '10.244.1.0/24' }))
    },
  })
})

/** What can go wrong with the API, and what an agent survives. */
const troubles: readonly [string, Order][] = [
  ['410 for lists and watches', { trouble: { code: 410, reason: 'Expired' }, times: 3 }],
  ['429 with Retry-After', { trouble: { code: 429, retryAfter: 1 }, times: 2 }],
  ['503', { trouble: { code: 503 }, times: 4 }],
  ['resets', { trouble: 'reset', times: 4 }],
  ['answers cut in the middle', { trouble: 'cut', times: 4 }],
  ['silence', { trouble: 'silence', times: 2 }],
  ['garbage', { trouble: 'garbage', times: 3 }],
  ['answers that are lost after the write', { trouble: 'lost answer', verbs: ['patch', 'delete', 'create'], times: 3 }],
]

for (const [name, order] of troubles)
  test(`a Pod comes and goes under ${name}`, async (t) => {
    const { api, get, ready, runtime } = await agentOf(t)
    api.misbehave(order)
    api.put(pod('demo/web', { node: 'node1' }))
    await api.until(() => ready('web'), 'the Pod is ready', 10_000)
    api.misbehave(order)
    const now = get('web')!
    api.put({ ...now, metadata: { ...now.metadata, deletionTimestamp: new Date().toISOString(), deletionGracePeriodSeconds: 30 } })
    await api.until(() => get('web') === undefined, 'the object is gone', 10_000)
    t.equal(runtime.running.size, 0)
    t.equal(runtime.sandboxes.size, 0)
  })

test('a Pod that is taken from the API is ended at once, and another of its name is another Pod', async (t) => {
  const { api, get, ready, runtime } = await agentOf(t)
  api.put(pod('demo/web', { node: 'node1', metadata: { uid: 'one' } }))
  await api.until(() => ready('web'), 'ready')
  api.remove(get('web')!)
  api.put(pod('demo/web', { node: 'node1', metadata: { uid: 'two' } }))
  await api.until(() => get('web')?.metadata.uid === 'two' && ready('web') && runtime.sandboxes.size === 1, 'the second runs alone')
  t.equal(get('web')?.status?.podIP, '10.244.0.3', 'and has another address')
})

test('who does not heed SIGTERM gets SIGKILL after its grace', async (t) => {
  const { api, get, ready } = await agentOf(t)
  api.put(pod('demo/web', { node: 'node1', containers: [{ name: 'main', command: ['stubborn'] }] }))
  await api.until(() => ready('web'), 'ready')
  const now = get('web')!
  const began = performance.now()
  api.put({ ...now, metadata: { ...now.metadata, deletionTimestamp: new Date(Date.now() + 300).toISOString(), deletionGracePeriodSeconds: 1 } })
  await api.until(() => get('web') === undefined, 'gone')
  t.ok(performance.now() - began > 300, 'not before')
})

test('a container that ends is started again at once, and then ever later', async (t) => {
  const { api, get, ready, runtime } = await agentOf(t)
  api.put(pod('demo/web', { node: 'node1' }))
  await api.until(() => ready('web'), 'ready')
  runtime.end([...runtime.running.keys()][0]!, 1)
  await api.until(() => ready('web') && get('web')?.status?.containerStatuses?.[0]?.restartCount === 1, 'started again')
  runtime.end([...runtime.running.keys()][0]!, 1)
  await api.until(() => get('web')?.status?.containerStatuses?.[0]?.state?.waiting?.reason === 'CrashLoopBackOff', 'waits')
  t.match(get('web')?.status?.containerStatuses?.[0]?.state?.waiting?.message, 'back-off 10s restarting failed container=main pod=demo/web')
  t.equal(get('web')?.status?.phase, 'Running')
})

test('routes follow the nodes', async (t) => {
  const { api, routes } = await agentOf(t)
  api.put(node('node2', { ip: '192.168.56.12', podCIDR: '10.244.1.0/24' }))
  await api.until(() => routes.at(-1) === '10.244.1.0/24 via 192.168.56.12', 'a route')
  api.remove(api.read(nodes, 'node2')!)
  await api.until(() => routes.at(-1) === '', 'no route')
  t.pass('and they are gone with them')
})

test('a node registers and keeps its Lease, also when the API comes late', async (t) => {
  const { api, client, signal } = await agentOf(t)
  api.remove(api.read(nodes, 'node1')!)
  api.misbehave({ trouble: { code: 503 }, times: 2 })
  const facts = { name: 'node1', addresses: ['192.168.56.11'], port: 10_250, labels: { 'topology.kubernetes.io/zone': 'east' } }
  const made = await register(client, facts, silent, signal)
  t.match(made.status?.addresses, [{ type: 'InternalIP', address: '192.168.56.11' }])
  t.match(made.metadata.labels, { 'kubernetes.io/hostname': 'node1', 'topology.kubernetes.io/zone': 'east' })
  let beats = 0
  void keepAlive(client, facts, made.metadata.uid, () => beats++, silent, signal)
  await api.until(() => beats > 0, 'a heartbeat')
  t.match(api.read(leases, 'kube-node-lease/node1')?.spec, { holderIdentity: 'node1', leaseDurationSeconds: 40 })
})
