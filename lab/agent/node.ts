import { arch, cpus, release, totalmem } from 'node:os'
import { readFileSync } from 'node:fs'
import { isNotFound, type Client } from '../../kube/client.ts'
import type { Condition, Node, NodeStatus } from '../../kube/objects.ts'
import { leases, nodes } from '../../kube/resources.ts'
import { explainError, type Log } from '../../lib/log.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { version } from '../../lib/version.ts'
import { time } from './status.ts'

/** What a node says of itself. */
export interface NodeFacts {
  readonly name: string
  readonly addresses: readonly string[]
  /** Port of the API for logs. */
  readonly port: number
  readonly labels: Readonly<Record<string, string>>
}

/** Kubernetes' interval and duration of the heartbeat, in seconds. */
const heartbeat = 10
const leaseDuration = 40
/** The Node's status is written again at least this often (ms), changed or not. */
const statusEvery = 300_000

/** The version whose API the agent speaks; clients compare it with their own. */
export const kubeletVersion = `v1.32.0+switchyard.${version}`

/** The labels that every node carries. */
export function nodeLabels(facts: NodeFacts): Readonly<Record<string, string>> {
  const architecture = { x64: 'amd64', ia32: '386' }[arch() as string] ?? arch()
  return { 'kubernetes.io/hostname': facts.name, 'kubernetes.io/os': 'linux', 'kubernetes.io/arch': architecture, ...facts.labels }
}

/** The status to report; `before` keeps the times since when conditions hold. */
export function nodeStatus(facts: NodeFacts, before: NodeStatus | undefined, now: number): NodeStatus {
  const resources = { cpu: String(cpus().length), memory: `${Math.floor(totalmem() / 1024)}Ki`, pods: '110' }
  const conditions: readonly Pick<Condition, 'type' | 'status' | 'reason' | 'message'>[] = [
    { type: 'MemoryPressure', status: 'False', reason: 'KubeletHasSufficientMemory', message: 'the agent does not measure memory' },
    { type: 'DiskPressure', status: 'False', reason: 'KubeletHasNoDiskPressure', message: 'the agent does not measure disks' },
    { type: 'PIDPressure', status: 'False', reason: 'KubeletHasSufficientPID', message: 'the agent does not count processes' },
    { type: 'Ready', status: 'True', reason: 'KubeletReady', message: 'the agent is posting ready status' },
  ]
  return {
    addresses: [...facts.addresses.map((address) => ({ type: 'InternalIP' as const, address })), { type: 'Hostname', address: facts.name }],
    capacity: resources,
    allocatable: resources,
    conditions: conditions.map((c) => {
      const old = before?.conditions?.find((b) => b.type === c.type)
      return { ...c, lastHeartbeatTime: time(now), lastTransitionTime: old?.status === c.status && old.lastTransitionTime !== undefined ? old.lastTransitionTime : time(now) }
    }),
    daemonEndpoints: { kubeletEndpoint: { Port: facts.port } },
    nodeInfo: {
      architecture: nodeLabels(facts)['kubernetes.io/arch']!,
      bootID: text('/proc/sys/kernel/random/boot_id'),
      containerRuntimeVersion: `switchyard://${version}`,
      kernelVersion: release(),
      kubeProxyVersion: kubeletVersion,
      kubeletVersion,
      machineID: text('/etc/machine-id'),
      operatingSystem: 'linux',
      osImage: osImage(),
      systemUUID: text('/etc/machine-id'),
    },
  }
}

/** Makes the Node, or brings the one that exists up to date; tries until it works. Resolves to the Node. */
export async function register(client: Client, facts: NodeFacts, log: Log, signal: AbortSignal): Promise<Node> {
  for (let wait = 100; ; wait = Math.min(5000, wait * 2)) {
    try {
      return await registerOnce(client, facts, signal)
    } catch (error) {
      if (signal.aborted) throw error
      log.warn('cannot register the node', { error: explainError(error), after: wait })
      await sleep(wait, signal)
      if (signal.aborted) throw error
    }
  }
}

async function registerOnce(client: Client, facts: NodeFacts, signal: AbortSignal): Promise<Node> {
  const { name } = facts
  let node = await client.find(nodes, name, undefined, { signal })
  if (node === undefined) {
    try {
      // A new node is not ready until its status says so.
      node = await client.create(nodes, { apiVersion: 'v1', kind: 'Node', metadata: { name, labels: nodeLabels(facts) }, spec: {} }, { signal })
    } catch (error) {
      node = await client.find(nodes, name, undefined, { signal })
      if (node === undefined) throw error
    }
  }
  const labels = nodeLabels(facts)
  if (Object.entries(labels).some(([k, v]) => node!.metadata.labels?.[k] !== v)) node = await client.patch<Node>(nodes, name, undefined, { metadata: { labels } }, 'merge', { signal })
  return client.patch<Node>(nodes, name, undefined, { status: nodeStatus(facts, node.status, Date.now()) }, 'merge', { subresource: 'status', signal })
}

/** Renews the node's Lease until `signal` fires, and its status now and then. `beat` is told of every success. */
export async function keepAlive(client: Client, facts: NodeFacts, uid: string | undefined, beat: () => void, log: Log, signal: AbortSignal): Promise<void> {
  let wrote = performance.now()
  let failing = false
  while (!signal.aborted) {
    try {
      await renew(client, facts.name, uid, signal)
      if (performance.now() - wrote > statusEvery) {
        wrote = performance.now()
        await registerOnce(client, facts, signal)
      }
      if (failing) log.info('the control plane answers again')
      failing = false
      beat()
    } catch (error) {
      if (signal.aborted) return
      if (!failing) log.warn('cannot renew the lease of the node', { error: explainError(error) })
      failing = true
    }
    await sleep((failing ? 0.2 : 1) * heartbeat * 1000, signal)
  }
}

async function renew(client: Client, name: string, uid: string | undefined, signal: AbortSignal): Promise<void> {
  const renewTime = new Date().toISOString().replace('Z', '000Z')
  const spec = { holderIdentity: name, leaseDurationSeconds: leaseDuration, renewTime }
  try {
    await client.patch(leases, name, 'kube-node-lease', { spec }, 'merge', { signal })
  } catch (error) {
    if (!isNotFound(error)) throw error
    const ownerReferences = uid === undefined ? [] : [{ apiVersion: 'v1', kind: 'Node', name, uid }]
    await client.create(leases, { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name, namespace: 'kube-node-lease', ownerReferences }, spec }, { signal })
  }
}

function text(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return ''
  }
}

function osImage(): string {
  return /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(text('/etc/os-release'))?.[1] ?? 'Linux'
}
