import { ApiError, isConflict, isNotFound } from '../../kube/client.ts'
import { explainError } from '../../lib/log.ts'
import type { Condition, Draft, OwnerReference, Pod, ReplicaSet } from '../../kube/objects.ts'
import { equal } from '../../kube/patch.ts'
import { keyOf, pods, replicasets } from '../../kube/resources.ts'
import { fromLabelSelector, matchesLabels } from '../../kube/selectors.ts'
import { conditionOf, deletionCost, namespaceOf, timestamp } from './cluster.ts'
import type { Controller } from './controller.ts'

/** Pods made at a time, at most: a template that the API refuses should not be tried a thousand times. */
const mostAtOnce = 100

/** Keeps as many Pods as each ReplicaSet wants. */
export const replicaSetController: Controller = {
  name: 'replicasets',
  component: 'replicaset-controller',
  needs: [replicasets],
  start({ client, cluster, queue, events, signal, log }) {
    const all = { sets: cluster.of(replicasets), pods: cluster.of(pods) }
    const work = queue('replicasets', sync, { workers: 4 })
    all.sets.on((now, before) => work.add(keyOf((now ?? before)!)))
    all.pods.on((now, before) => {
      for (const pod of [now, before]) {
        if (pod === undefined) continue
        const owner = controllerOf(pod)
        if (owner?.kind === 'ReplicaSet') work.add(`${namespaceOf(pod)}/${owner.name}`)
        // An orphan may be anybody's.
        else if (owner === undefined && pod === now) for (const s of all.sets.in(namespaceOf(pod))) if (matchesLabels(fromLabelSelector(s.spec.selector), pod.metadata.labels)) work.add(keyOf(s))
      }
    })

    async function sync(key: string): Promise<number | void> {
      const set = all.sets.objects.get(key)
      if (set === undefined) return
      const own = await claim(set)
      const active = own.filter(isActive)
      let failure: Condition | undefined
      if (set.metadata.deletionTimestamp === undefined) failure = await adjust(set, active)
      const now = [...all.pods.in(namespaceOf(set))].filter((p) => controllerOf(p)?.uid === set.metadata.uid && isActive(p))
      return report(set, now, failure)
    }

    /** The Pods of a set: adopts orphans that its selector fits, lets go of its own that it no longer fits. */
    async function claim(set: ReplicaSet): Promise<readonly Pod[]> {
      const selector = fromLabelSelector(set.spec.selector)
      const mine: Pod[] = []
      for (const pod of Array.from(all.pods.in(namespaceOf(set)))) {
        const owner = controllerOf(pod)
        const fits = matchesLabels(selector, pod.metadata.labels)
        if (owner !== undefined && owner.uid !== set.metadata.uid) continue
        if (owner !== undefined && fits) mine.push(pod)
        else if (pod.metadata.deletionTimestamp === undefined && set.metadata.deletionTimestamp === undefined && (owner !== undefined || (fits && isActive(pod)))) {
          const others = (pod.metadata.ownerReferences ?? []).filter((o) => o.uid !== set.metadata.uid)
          const ownerReferences = fits ? [...others, referenceOf(set)] : others
          try {
            const written = await client.patch(pods, pod.metadata.name, namespaceOf(pod), { metadata: { uid: pod.metadata.uid, ownerReferences } }, 'merge', { signal })
            await all.pods.shows(written)
            if (fits) mine.push(all.pods.objects.get(keyOf(pod)) ?? pod)
          } catch (error) {
            if (!isNotFound(error) && !isConflict(error)) throw error
          }
        }
      }
      return mine
    }

    /** Makes Pods or deletes some; tells why it could not. */
    async function adjust(set: ReplicaSet, active: readonly Pod[]): Promise<Condition | undefined> {
      const missing = (set.spec.replicas ?? 1) - active.length
      const seen: Promise<void>[] = []
      try {
        if (missing > 0) {
          // One, two, four …: when the first is refused, the others would be too.
          for (let made = 0, batch = 1; made < Math.min(missing, mostAtOnce); made += batch, batch *= 2) {
            const count = Math.min(batch, Math.min(missing, mostAtOnce) - made)
            const results = await Promise.allSettled(Array.from({ length: count }, () => client.create(pods, podOf(set), { signal })))
            for (const result of results) {
              if (result.status === 'rejected') throw result.reason
              seen.push(all.pods.shows(result.value))
              events.event(set, 'Normal', 'SuccessfulCreate', `Created pod: ${result.value.metadata.name}`)
            }
          }
        } else if (missing < 0) {
          for (const pod of byWorth(active).slice(0, -missing)) {
            try {
              await client.delete(pods, pod.metadata.name, namespaceOf(pod), { uid: pod.metadata.uid, signal })
              events.event(set, 'Normal', 'SuccessfulDelete', `Deleted pod: ${pod.metadata.name}`)
              seen.push(all.pods.ends(pod))
            } catch (error) {
              if (!isNotFound(error) && !isConflict(error)) throw error
            }
          }
        }
      } catch (error) {
        if (!(error instanceof ApiError)) throw error
        const reason = missing > 0 ? 'FailedCreate' : 'FailedDelete'
        events.event(set, 'Warning', reason, `Error ${missing > 0 ? 'creating' : 'deleting'}: ${error.message}`)
        log.debug('a ReplicaSet cannot have its Pods', { key: keyOf(set), error: explainError(error) })
        work.addAfter(keyOf(set), 5000)
        return { type: 'ReplicaFailure', status: 'True', reason, message: error.message, lastTransitionTime: timestamp() }
      } finally {
        await Promise.all(seen)
      }
      return undefined
    }

    async function report(set: ReplicaSet, active: readonly Pod[], failure: Condition | undefined): Promise<number | void> {
      const template = fromLabelSelector({ matchLabels: set.spec.template?.metadata?.labels ?? {} })
      const ready = active.filter((p) => conditionOf(p, 'Ready') === 'True')
      const { count, next } = availability(ready, set.spec.minReadySeconds ?? 0)
      const old = set.status ?? {}
      const conditions = [
        ...(old.conditions ?? []).filter((c) => c.type !== 'ReplicaFailure'),
        ...(failure === undefined ? [] : [old.conditions?.find((c) => c.type === 'ReplicaFailure' && c.message === failure.message) ?? failure]),
      ]
      const status = {
        replicas: active.length,
        fullyLabeledReplicas: active.filter((p) => matchesLabels(template, p.metadata.labels)).length,
        readyReplicas: ready.length,
        availableReplicas: count,
        observedGeneration: set.metadata.generation ?? 0,
        conditions,
      }
      const known = { replicas: 0, fullyLabeledReplicas: 0, readyReplicas: 0, availableReplicas: 0, observedGeneration: -1, ...old, conditions: old.conditions ?? [] }
      if (!equal(known, status)) {
        try {
          const written = await client.update(replicasets, { ...set, status }, { subresource: 'status', signal })
          await all.sets.shows(written)
        } catch (error) {
          if (isNotFound(error)) return
          if (isConflict(error)) return 5
          throw error
        }
      }
      return next
    }
  },
}

/** How many of these ready Pods have been so for `minReady` seconds, and in how many milliseconds the next will have been. */
export function availability(ready: readonly Pod[], minReady: number): { readonly count: number; readonly next: number | undefined } {
  let count = 0
  let next: number | undefined
  for (const pod of ready) {
    const since = Date.parse(pod.status?.conditions?.find((c) => c.type === 'Ready')?.lastTransitionTime ?? '')
    const left = minReady <= 0 || Number.isNaN(since) ? 0 : since + minReady * 1000 - Date.now()
    if (left <= 0) count++
    else next = Math.min(next ?? Infinity, left + 10)
  }
  return { count, next }
}

/** The reference that says who manages an object. */
export function controllerOf(object: { readonly metadata: { readonly ownerReferences?: readonly OwnerReference[] } }): OwnerReference | undefined {
  return object.metadata.ownerReferences?.find((o) => o.controller === true)
}

function isActive(pod: Pod): boolean {
  return pod.metadata.deletionTimestamp === undefined && pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed'
}

function referenceOf(set: ReplicaSet): OwnerReference {
  return { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: set.metadata.name, uid: set.metadata.uid ?? '', controller: true, blockOwnerDeletion: true }
}

function podOf(set: ReplicaSet): Draft<Pod> {
  const { metadata, spec } = set.spec.template ?? { spec: { containers: [] } }
  const { labels, annotations, finalizers } = metadata ?? {}
  return {
    metadata: {
      generateName: `${set.metadata.name}-`,
      namespace: namespaceOf(set),
      ...(labels === undefined ? {} : { labels }),
      ...(annotations === undefined ? {} : { annotations }),
      ...(finalizers === undefined ? {} : { finalizers }),
      ownerReferences: [referenceOf(set)],
    },
    spec,
  }
}

/** Those whose end harms least come first. */
function byWorth(active: readonly Pod[]): readonly Pod[] {
  const onNode = new Map<string, number>()
  for (const p of active) if (p.spec.nodeName !== undefined) onNode.set(p.spec.nodeName, (onNode.get(p.spec.nodeName) ?? 0) + 1)
  const phase = { Pending: 0, Unknown: 1, Running: 2, Succeeded: 0, Failed: 0 } as const
  const restarts = (p: Pod): number => Math.max(0, ...(p.status?.containerStatuses ?? []).map((c) => c.restartCount))
  const rank = (p: Pod): readonly number[] => [
    p.spec.nodeName === undefined ? 0 : 1,
    phase[p.status?.phase ?? 'Pending'],
    conditionOf(p, 'Ready') === 'True' ? 1 : 0,
    Number(p.metadata.annotations?.[deletionCost] ?? 0) || 0,
    // The node that has most of them can best do without one.
    -(onNode.get(p.spec.nodeName ?? '') ?? 0),
    -restarts(p),
    -Date.parse(p.metadata.creationTimestamp ?? '') || 0,
  ]
  const ranked = active.map((p) => [rank(p), p] as const)
  return ranked
    .toSorted(([a, p], [b, q]) => {
      for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i]! - b[i]!
      return p.metadata.name < q.metadata.name ? -1 : 1
    })
    .map(([, p]) => p)
}
