import { isNotFound } from '../../kube/client.ts'
import type { Condition, Lease, Node, Pod, Taint } from '../../kube/objects.ts'
import { equal } from '../../kube/patch.ts'
import { leases, nodes, pods } from '../../kube/resources.ts'
import { conditionOf, namespaceOf, timestamp } from './cluster.ts'
import type { Controller } from './controller.ts'

const keys = { unreachable: 'node.kubernetes.io/unreachable', notReady: 'node.kubernetes.io/not-ready', unschedulable: 'node.kubernetes.io/unschedulable' } as const

/** Says which nodes live, by their Leases: conditions and taints of the Node, and whether its Pods are ready. */
export const nodeLifecycle: Controller = {
  name: 'nodes',
  component: 'node-controller',
  start({ client, cluster, queue, events, options, signal, log }) {
    const grace = options.nodeGrace ?? 40_000
    const all = { nodes: cluster.of(nodes), leases: cluster.of(leases), pods: cluster.of(pods) }
    /**
     * When each node was last seen to say something new, on our own clock: wall clocks jump and differ. After our own start everybody
     * gets the full time.
     */
    const seen = new Map<string, number>()
    const work = queue('nodes', sync, { workers: 4 })

    all.leases.on((now, before) => {
      if (now === undefined || now.metadata.namespace !== 'kube-node-lease' || renewal(now) === renewal(before)) return
      const { name } = now.metadata
      seen.set(name, performance.now())
      const node = all.nodes.objects.get(name)
      if (node !== undefined && conditionOf(node, 'Ready') === 'Unknown') work.add(name)
      else work.addAfter(name, grace + 5)
    })
    all.nodes.on((now, before) => {
      const { name } = (now ?? before)!.metadata
      if (now === undefined) seen.delete(name)
      else if (before === undefined || before.metadata.uid !== now.metadata.uid || heartbeat(now) !== heartbeat(before)) seen.set(name, performance.now())
      work.add(name)
    })
    // A Pod that comes up in the mirror on a node we know to be away.
    all.pods.on((now) => {
      if (now?.spec.nodeName !== undefined && conditionOf(now, 'Ready') === 'True' && conditionOf(all.nodes.objects.get(now.spec.nodeName), 'Ready') === 'Unknown') work.add(now.spec.nodeName)
    })

    async function sync(name: string): Promise<number | void> {
      let node = all.nodes.objects.get(name)
      if (node === undefined) return
      const quiet = performance.now() - (seen.get(name) ?? performance.now())
      const away = quiet >= grace
      if (away && conditionOf(node, 'Ready') !== 'Unknown') {
        log.warn('a node is not heard any more', { node: name, seconds: Math.round(quiet / 1000) })
        events.event(node, 'Normal', 'NodeNotReady', `Node ${name} status is now: NodeNotReady`)
        const conditions = unknown(node)
        node = await client.patch(nodes, name, undefined, { status: { conditions } }, 'strategic', { subresource: 'status', signal })
        await all.nodes.shows(node)
      }
      await taint(node)
      if (conditionOf(node, 'Ready') === 'Unknown') await podsUnready(name)
      // Looked at again when its time is up.
      return away ? undefined : grace - quiet + 5
    }

    async function taint(node: Node): Promise<void> {
      const before = node.spec?.taints ?? []
      const ready = conditionOf(node, 'Ready')
      const reason = ready === 'True' ? undefined : ready === 'Unknown' ? keys.unreachable : keys.notReady
      const after: Taint[] = before.filter((t) => {
        if (t.key === keys.unschedulable) return node.spec?.unschedulable === true
        return (t.key !== keys.notReady && t.key !== keys.unreachable) || (t.key === reason && (t.effect === 'NoSchedule' || t.effect === 'NoExecute'))
      })
      const add = (t: Taint): void => {
        if (!after.some((o) => o.key === t.key && o.effect === t.effect)) after.push(t.effect === 'NoExecute' ? { ...t, timeAdded: timestamp() } : t)
      }
      if (reason !== undefined) {
        add({ key: reason, effect: 'NoSchedule' })
        if (ready !== undefined) add({ key: reason, effect: 'NoExecute' })
      }
      if (node.spec?.unschedulable === true) add({ key: keys.unschedulable, effect: 'NoSchedule' })
      if (equal(before, after)) return
      const { name, resourceVersion } = node.metadata
      // Taints are merged by key in a strategic patch, so two effects of one key need the whole list; the version keeps it from hitting somebody else's.
      const written = await client.patch(nodes, name, undefined, { metadata: { resourceVersion }, spec: { taints: after.length === 0 ? null : after } }, 'merge', { signal })
      await all.nodes.shows(written)
    }

    /** Nobody else can say it: these Pods may run, but nothing may be sent there. */
    async function podsUnready(node: string): Promise<void> {
      for (const pod of all.pods.objects.values()) {
        if (pod.spec.nodeName !== node || conditionOf(pod, 'Ready') !== 'True') continue
        const condition: Condition = { type: 'Ready', status: 'False', reason: 'NodeNotReady', lastTransitionTime: timestamp() }
        try {
          const written: Pod = await client.patch(pods, pod.metadata.name, namespaceOf(pod), { status: { conditions: [condition] } }, 'strategic', { subresource: 'status', signal })
          events.event(pod, 'Warning', 'NodeNotReady', 'Node is not ready')
          await all.pods.shows(written)
        } catch (error) {
          if (!isNotFound(error)) throw error
        }
      }
    }
  },
}

function renewal(lease: Lease | undefined): string {
  return `${lease?.spec?.renewTime ?? ''} ${lease?.spec?.holderIdentity ?? ''}`
}

/** What a node that has no Lease says by its status. */
function heartbeat(node: Node): string {
  return (node.status?.conditions ?? []).map((c) => (c.reason === 'NodeStatusUnknown' ? '' : `${c.lastHeartbeatTime ?? ''} ${c.status}`)).join()
}

/** The conditions a node can no longer vouch for. */
function unknown(node: Node): readonly Condition[] {
  const types = new Set(['Ready', ...(node.status?.conditions ?? []).map((c) => c.type).filter((t) => ['MemoryPressure', 'DiskPressure', 'PIDPressure'].includes(t))])
  const told = conditionOf(node, 'Ready') !== undefined
  return [...types].map((type) => ({
    type,
    status: 'Unknown',
    reason: told ? 'NodeStatusUnknown' : 'NodeStatusNeverUpdated',
    message: told ? 'Kubelet stopped posting node status.' : 'Kubelet never posted node status.',
    lastTransitionTime: timestamp(),
  }))
}
