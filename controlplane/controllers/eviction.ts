import { isConflict, isNotFound } from '../../kube/client.ts'
import type { Node, Pod, Taint } from '../../kube/objects.ts'
import { keyOf, nodes, pods } from '../../kube/resources.ts'
import { tolerates } from './binder.ts'
import { namespaceOf } from './cluster.ts'
import type { Controller } from './controller.ts'

/** How long a Pod stays that does not say how long it can bear a node it cannot reach; Kubernetes writes the same into each Pod. */
const patience = 300_000 // ms

/** Ends Pods on nodes whose NoExecute taints they do not bear (any longer), and forgets Pods of nodes that have gone. */
export const eviction: Controller = {
  name: 'eviction',
  component: 'taint-eviction-controller',
  start({ client, cluster, queue, events, options, signal }) {
    const grace = options.nodeGrace ?? 40_000
    const all = { nodes: cluster.of(nodes), pods: cluster.of(pods) }
    const work = queue('eviction', sync, { workers: 4 })
    /** Since when we know of a Pod's node that it is not there; a Node may be on its way. */
    const orphaned = new Map<string, number>()
    all.nodes.on((now, before) => {
      if (now !== undefined && before !== undefined && JSON.stringify(now.spec?.taints) === JSON.stringify(before.spec?.taints)) return
      const { name } = (now ?? before)!.metadata
      for (const [key, pod] of all.pods.objects) if (pod.spec.nodeName === name) work.add(key)
    })
    all.pods.on((now, before) => {
      const key = keyOf((now ?? before)!)
      if (now === undefined) orphaned.delete(key)
      else if (now.spec.nodeName !== undefined && (before === undefined || before.spec.nodeName !== now.spec.nodeName || before.spec.tolerations !== now.spec.tolerations)) work.add(key)
    })

    async function sync(key: string): Promise<number | void> {
      const pod = all.pods.objects.get(key)
      if (pod?.spec.nodeName === undefined) return
      const node = all.nodes.objects.get(pod.spec.nodeName)
      if (node === undefined) {
        const since = orphaned.get(key) ?? performance.now()
        orphaned.set(key, since)
        const left = since + grace - performance.now()
        if (left > 0) return left + 5
        // Nobody is left who could end it.
        return end(pod, 0)
      }
      orphaned.delete(key)
      if (pod.metadata.deletionTimestamp !== undefined) return
      const left = staysFor(pod, node, Date.now())
      if (left === undefined) return
      if (left > 0) return left + 5
      events.event(pod, 'Normal', 'TaintManagerEviction', `Marking for deletion Pod ${key}`)
      return end(pod, undefined)
    }

    async function end(pod: Pod, gracePeriodSeconds: number | undefined): Promise<void> {
      try {
        await client.delete(pods, pod.metadata.name, namespaceOf(pod), { uid: pod.metadata.uid, gracePeriodSeconds, signal })
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error
      }
    }
  },
}

/** How many milliseconds a Pod may stay on its node; undefined: as long as it likes. */
export function staysFor(pod: Pod, node: Node, now: number): number | undefined {
  let least: number | undefined
  for (const taint of node.spec?.taints ?? []) {
    if (taint.effect !== 'NoExecute') continue
    const left = bears(pod, taint, now)
    if (left !== undefined && (least === undefined || left < least)) least = left
  }
  return least
}

function bears(pod: Pod, taint: Taint, now: number): number | undefined {
  const fitting = (pod.spec.tolerations ?? []).filter((t) => tolerates([t], taint))
  const since = Date.parse(taint.timeAdded ?? '')
  const until = (ms: number): number => (Number.isNaN(since) ? now : since) + ms - now
  const own = taint.key === 'node.kubernetes.io/not-ready' || taint.key === 'node.kubernetes.io/unreachable'
  if (fitting.length === 0) return own ? until(patience) : 0
  const limits = fitting.flatMap((t) => (t.tolerationSeconds === undefined ? [] : [Math.max(0, t.tolerationSeconds) * 1000]))
  return limits.length === 0 ? undefined : until(Math.min(...limits))
}
