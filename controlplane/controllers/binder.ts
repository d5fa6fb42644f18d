import { isConflict, isNotFound } from '../../kube/client.ts'
import type { Node, Pod, Taint, Toleration } from '../../kube/objects.ts'
import { keyOf, nodes, pods } from '../../kube/resources.ts'
import { selects } from '../../kube/selectors.ts'
import { conditionOf, namespaceOf, timestamp } from './cluster.ts'
import type { Controller } from './controller.ts'

/** Gives each Pod without a node the Ready node with the fewest Pods that it may run on. */
export const binder: Controller = {
  name: 'binder',
  component: 'default-scheduler',
  start({ client, cluster, queue, events, signal }) {
    const all = { pods: cluster.of(pods), nodes: cluster.of(nodes) }
    /** Pods that count on each node, kept as they come and go. */
    const counts = new Map<string, number>()
    /** Bound by us, not yet seen so in the mirror. */
    const assumed = new Map<string, string>()
    const unplaced = new Set<string>()
    // What is chosen counts at once, so many can be written at a time.
    const work = queue('binder', bind, { workers: 8 })

    all.pods.on((now, before) => {
      count(before, -1)
      count(now, 1)
      const key = keyOf((now ?? before)!)
      if (now?.spec.nodeName !== undefined || now === undefined) assumed.delete(key)
      if (now !== undefined && pending(now)) {
        if (before === undefined || !pending(before) || !unplaced.has(key)) work.add(key)
      } else unplaced.delete(key)
      // Room where there was none.
      if (before !== undefined && occupies(before) && (now === undefined || !occupies(now))) retry()
    })
    all.nodes.on((now, before) => {
      if (now === undefined || before === undefined || looks(now) !== looks(before)) retry()
    })

    function retry(): void {
      for (const key of unplaced) work.add(key)
    }

    function count(pod: Pod | undefined, by: number): void {
      if (pod !== undefined && occupies(pod)) counts.set(pod.spec.nodeName!, (counts.get(pod.spec.nodeName!) ?? 0) + by)
    }

    function load(node: string): number {
      let sum = counts.get(node) ?? 0
      for (const name of assumed.values()) if (name === node) sum++
      return sum
    }

    async function bind(key: string): Promise<void> {
      const pod = all.pods.objects.get(key)
      if (pod === undefined || !pending(pod) || assumed.has(key)) return
      const { name, uid } = pod.metadata
      const namespace = namespaceOf(pod)
      const choice = choose(pod, [...all.nodes.objects.values()], load)
      if (choice.node === undefined) {
        unplaced.add(key)
        const before = pod.status?.conditions?.find((c) => c.type === 'PodScheduled')
        if (before?.status === 'False' && before.message === choice.why) return
        events.event(pod, 'Warning', 'FailedScheduling', choice.why)
        const condition = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: choice.why, lastTransitionTime: timestamp() }
        try {
          await client.patch(pods, name, namespace, { metadata: { uid }, status: { conditions: [condition] } }, 'strategic', { subresource: 'status', signal })
        } catch (error) {
          if (!isNotFound(error) && !isConflict(error)) throw error
        }
        return
      }
      const binding = { apiVersion: 'v1', kind: 'Binding', metadata: { name, namespace, ...(uid === undefined ? {} : { uid }) }, target: { apiVersion: 'v1', kind: 'Node', name: choice.node } }
      assumed.set(key, choice.node)
      try {
        await client.create(pods, binding as unknown as Pod, { subresource: 'binding', signal })
      } catch (error) {
        assumed.delete(key)
        // Gone, or somebody else was faster.
        if (isNotFound(error) || isConflict(error)) return
        throw error
      }
      const shown = all.pods.objects.get(key)
      if (shown === undefined || shown.spec.nodeName !== undefined) assumed.delete(key)
      unplaced.delete(key)
      events.event(pod, 'Normal', 'Scheduled', `Successfully assigned ${key} to ${choice.node}`)
    }
  },
}

/** Waits for us, not for a scheduler of its own. */
function pending(pod: Pod): boolean {
  return (
    pod.spec.nodeName === undefined &&
    pod.metadata.deletionTimestamp === undefined &&
    (pod.spec.schedulerName ?? 'default-scheduler') === 'default-scheduler' &&
    pod.status?.phase !== 'Succeeded' &&
    pod.status?.phase !== 'Failed'
  )
}

/** Takes a place on its node. */
function occupies(pod: Pod): boolean {
  return pod.spec.nodeName !== undefined && pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed'
}

/** What of a node decides about Pods. */
function looks(node: Node): string {
  return JSON.stringify([node.metadata.labels, node.spec?.taints, node.spec?.unschedulable, conditionOf(node, 'Ready'), node.status?.allocatable?.['pods']])
}

/** The node a Pod goes to, or why it goes nowhere, in the scheduler's words. */
export function choose(pod: Pod, all: readonly Node[], load: (node: string) => number): { readonly node: string } | { readonly node: undefined; readonly why: string } {
  const reasons = new Map<string, number>()
  let best: { node: string; load: number; avoid: number } | undefined
  for (const node of all) {
    const { name } = node.metadata
    const no = refusal(pod, node, load(name))
    if (no !== undefined) {
      reasons.set(no, (reasons.get(no) ?? 0) + 1)
      continue
    }
    const mine = { node: name, load: load(name), avoid: untolerated(node, pod, 'PreferNoSchedule').length }
    if (best === undefined || mine.avoid < best.avoid || (mine.avoid === best.avoid && (mine.load < best.load || (mine.load === best.load && mine.node < best.node)))) best = mine
  }
  if (best !== undefined) return { node: best.node }
  if (all.length === 0) return { node: undefined, why: 'no nodes available to schedule pods' }
  const list = [...reasons.entries()].map(([why, n]) => `${n} ${why}`).sort()
  return { node: undefined, why: `0/${all.length} nodes are available: ${list.join(', ')}.` }
}

/** Why a Pod may not run on a node. */
function refusal(pod: Pod, node: Node, load: number): string | undefined {
  if (pod.spec.nodeSelector !== undefined && !selects(pod.spec.nodeSelector, node.metadata.labels)) return "node(s) didn't match Pod's node affinity/selector"
  const bad = untolerated(node, pod, 'NoSchedule', 'NoExecute')[0]
  if (bad !== undefined) return `node(s) had untolerated taint {${bad.key}: ${bad.value ?? ''}}`
  if (node.spec?.unschedulable === true && !tolerates(pod.spec.tolerations ?? [], { key: 'node.kubernetes.io/unschedulable', effect: 'NoSchedule' })) return 'node(s) were unschedulable'
  if (conditionOf(node, 'Ready') !== 'True') return 'node(s) were not ready'
  const room = Number(node.status?.allocatable?.['pods'] ?? Infinity)
  if (load >= room) return 'Too many pods'
  return undefined
}

function untolerated(node: Node, pod: Pod, ...effects: readonly Taint['effect'][]): readonly Taint[] {
  return (node.spec?.taints ?? []).filter((t) => effects.includes(t.effect) && !tolerates(pod.spec.tolerations ?? [], t))
}

/** Whether one of `tolerations` fits a taint. */
export function tolerates(tolerations: readonly Toleration[], taint: Taint): boolean {
  return tolerations.some((t) => {
    if (t.effect !== undefined && t.effect !== taint.effect) return false
    const operator = t.operator ?? 'Equal'
    if (t.key === undefined || t.key === '') return operator === 'Exists'
    return t.key === taint.key && (operator === 'Exists' || (t.value ?? '') === (taint.value ?? ''))
  })
}
