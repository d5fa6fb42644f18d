import { ApiError, isConflict, isNotFound } from '../../kube/client.ts'
import type { Served } from '../../kube/discovery.ts'
import type { Condition, Namespace } from '../../kube/objects.ts'
import { apiVersionOf, namespaces, pathOf, pods } from '../../kube/resources.ts'
import { namespaceOf, timestamp } from './cluster.ts'
import type { Controller } from './controller.ts'

/** Empties namespaces that are being deleted, then lets them go. */
export const namespaceController: Controller = {
  name: 'namespaces',
  start({ client, cluster, queue, served, signal }) {
    const all = { namespaces: cluster.of(namespaces), pods: cluster.of(pods) }
    const work = queue('namespaces', sync, { workers: 4 })
    const tries = new Map<string, number>()
    // Both events APIs lead to the same objects.
    const kinds = served.filter((s) => s.namespaced && s.verbs.includes('delete') && s.verbs.includes('list') && s.group !== 'events.k8s.io')
    all.namespaces.on((now, before) => {
      if (now === undefined) tries.delete(before!.metadata.name)
      else if (now.metadata.deletionTimestamp !== undefined) work.add(now.metadata.name)
    })
    // Pods are what takes time to go.
    all.pods.on((now, before) => {
      if (now === undefined && tries.has(namespaceOf(before!))) work.add(namespaceOf(before!))
    })

    async function sync(name: string): Promise<number | void> {
      const namespace = all.namespaces.objects.get(name)
      if (namespace === undefined || namespace.metadata.deletionTimestamp === undefined) return
      const left: string[] = []
      const failures: string[] = []
      const finalizers = new Map<string, number>()
      for (const kind of kinds) {
        try {
          const { remaining, held } = await empty(kind, name)
          if (remaining > 0) left.push(`${kind.plural}${kind.group === '' ? '.' : `.${kind.group}`} has ${remaining} resource instances`)
          for (const f of held) finalizers.set(f, (finalizers.get(f) ?? 0) + 1)
        } catch (error) {
          if (!(error instanceof ApiError)) throw error
          failures.push(`${apiVersionOf(kind)}, Resource=${kind.plural}: ${error.message}`)
        }
      }
      if (left.length > 0 || failures.length > 0) {
        await explain(
          namespace,
          left,
          failures,
          [...finalizers].map(([f, n]) => `${f} in ${n} resource instances`),
        )
        const n = (tries.get(name) ?? 0) + 1
        tries.set(name, n)
        return Math.min(5000, 50 * 2 ** Math.min(n, 10))
      }
      try {
        const fresh = await client.get(namespaces, name, undefined, { signal })
        if (fresh.metadata.uid !== namespace.metadata.uid) return
        await client.update(namespaces, { ...fresh, spec: { finalizers: (fresh.spec?.finalizers ?? []).filter((f) => f !== 'kubernetes') } }, { subresource: 'finalize', signal })
      } catch (error) {
        if (isNotFound(error)) return
        if (isConflict(error)) return 10
        throw error
      }
    }

    /** Deletes everything of one kind; tells how much is still there, and whose finalizers hold it. */
    async function empty(kind: Served, namespace: string): Promise<{ readonly remaining: number; readonly held: readonly string[] }> {
      const before = await client.list(kind, { namespace, signal })
      if (before.items.length === 0) return { remaining: 0, held: [] }
      const doomed = before.items.filter((o) => o.metadata.deletionTimestamp === undefined)
      if (doomed.length > 0) {
        if (kind.verbs.includes('deletecollection')) {
          const answer = await client.raw('DELETE', pathOf(kind, namespace), { body: { kind: 'DeleteOptions', apiVersion: 'v1', propagationPolicy: 'Background' }, signal })
          if (answer.code >= 400 && answer.code !== 405) throw new ApiError(JSON.parse(answer.body.toString('utf8')) as ApiError['status'], `DELETE ${kind.plural}`)
          if (answer.code === 405) await each()
        } else await each()
      }
      const after = await client.list(kind, { namespace, signal })
      return { remaining: after.items.length, held: after.items.flatMap((o) => o.metadata.finalizers ?? []) }

      async function each(): Promise<void> {
        for (const o of doomed) {
          try {
            await client.delete(kind, o.metadata.name, namespace, { uid: o.metadata.uid, propagationPolicy: 'Background', signal })
          } catch (error) {
            if (!isNotFound(error) && !isConflict(error)) throw error
          }
        }
      }
    }

    /** Says in the conditions what keeps the namespace. */
    async function explain(namespace: Namespace, left: readonly string[], failures: readonly string[], finalizers: readonly string[]): Promise<void> {
      const condition = (type: string, bad: boolean, reason: string, goodReason: string, message: string): Condition => ({
        type,
        status: bad ? 'True' : 'False',
        reason: bad ? reason : goodReason,
        message,
        lastTransitionTime: timestamp(),
      })
      const wanted = [
        condition('NamespaceDeletionDiscoveryFailure', false, '', 'ResourcesDiscovered', 'All resources successfully discovered'),
        condition('NamespaceDeletionGroupVersionParsingFailure', false, '', 'ParsedGroupVersions', 'All legacy kube types successfully parsed'),
        condition(
          'NamespaceDeletionContentFailure',
          failures.length > 0,
          'ContentDeletionFailed',
          'ContentDeleted',
          failures.length > 0 ? `Failed to delete all resource types, ${failures.length} remaining: ${failures.join(', ')}` : 'All content successfully deleted, may be waiting on finalization',
        ),
        condition(
          'NamespaceContentRemaining',
          left.length > 0,
          'SomeResourcesRemain',
          'ContentRemoved',
          left.length > 0 ? `Some resources are remaining: ${left.join(', ')}` : 'All content successfully removed',
        ),
        condition(
          'NamespaceFinalizersRemaining',
          finalizers.length > 0,
          'SomeFinalizersRemain',
          'ContentHasNoFinalizers',
          finalizers.length > 0 ? `Some content in the namespace has finalizers remaining: ${finalizers.join(', ')}` : 'All content-preserving finalizers finished',
        ),
      ]
      const old = namespace.status?.conditions ?? []
      const changed = wanted.filter((c) => !old.some((o) => o.type === c.type && o.status === c.status && o.message === c.message))
      if (changed.length === 0) return
      try {
        await client.patch(namespaces, namespace.metadata.name, undefined, { status: { conditions: changed } }, 'strategic', { subresource: 'status', signal })
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error
      }
    }
  },
}
