import { isConflict, isNotFound } from '../../kube/client.ts'
import type { Served } from '../../kube/discovery.ts'
import type { KubeObject, OwnerReference } from '../../kube/objects.ts'
import { apiVersionOf, keyOf } from '../../kube/resources.ts'
import type { Watched } from './cluster.ts'
import type { Controller } from './controller.ts'

const waits = (o: KubeObject | undefined): boolean => o?.metadata.deletionTimestamp !== undefined && o.metadata.finalizers?.includes('foregroundDeletion') === true

// A conflict means it changed: the mirror brings us back.
function ignoreGone(error: unknown): void {
  if (!isNotFound(error) && !isConflict(error)) throw error
}

/** Deletes what belongs to objects that have gone, or that wait for what belongs to them. */
export const garbageCollector: Controller = {
  name: 'garbage',
  start({ client, cluster, queue, served, signal, log }) {
    // Events belong to nobody, and there are many.
    const kinds = served.filter((s) => s.plural !== 'events' && ['list', 'watch', 'delete'].every((v) => s.verbs.includes(v)))
    const mirrors = new Map<string, { readonly kind: Served; readonly objects: Watched<KubeObject> }>()
    /** Every object there is, by uid. */
    const present = new Map<string, { readonly kind: Served; readonly key: string }>()
    const dependents = new Map<string, Set<string>>()
    const work = queue('garbage', sync, { workers: 4 })

    for (const kind of kinds) {
      const id = `${kind.plural}.${kind.group}`
      const objects = cluster.of(kind)
      mirrors.set(id, { kind, objects })
      objects.on((now, before) => {
        const object = (now ?? before)!
        const key = keyOf(object)
        const place = `${id} ${key}`
        for (const o of before?.metadata.ownerReferences ?? []) forget(o.uid, place)
        for (const o of now?.metadata.ownerReferences ?? []) {
          let set = dependents.get(o.uid)
          if (set === undefined) dependents.set(o.uid, (set = new Set()))
          set.add(place)
        }
        if (before?.metadata.uid !== undefined && before.metadata.uid !== now?.metadata.uid) {
          present.delete(before.metadata.uid)
          for (const dependent of dependents.get(before.metadata.uid) ?? []) work.add(dependent)
        }
        if (now?.metadata.uid !== undefined) present.set(now.metadata.uid, { kind, key })
        if ((now?.metadata.ownerReferences ?? []).length > 0 || waits(now)) work.add(place)
        // What holds its owner up went, or lets go of it.
        for (const o of before?.metadata.ownerReferences ?? []) {
          const owner = present.get(o.uid)
          if (owner !== undefined) work.add(`${owner.kind.plural}.${owner.kind.group} ${owner.key}`)
        }
        if (waits(now)) for (const dependent of dependents.get(now!.metadata.uid ?? '') ?? []) work.add(dependent)
        // Marked, and then nobody came to take it away: the server ended in between.
        if (now?.metadata.deletionTimestamp !== undefined && now.metadata.deletionGracePeriodSeconds === 0 && kind.plural === 'pods') work.addAfter(place, 5000)
      })
    }

    function forget(owner: string, place: string): void {
      const set = dependents.get(owner)
      set?.delete(place)
      if (set?.size === 0) dependents.delete(owner)
    }

    async function sync(place: string): Promise<void> {
      const space = place.indexOf(' ')
      const { kind, objects } = mirrors.get(place.slice(0, space))!
      const object = objects.objects.get(place.slice(space + 1))
      if (object === undefined) return
      if (object.metadata.deletionTimestamp !== undefined) {
        if (waits(object)) await letGo(kind, object)
        else if (kind.plural === 'pods' && object.metadata.deletionGracePeriodSeconds === 0 && (object.metadata.finalizers ?? []).length === 0)
          await client.delete(kind, object.metadata.name, object.metadata.namespace, { uid: object.metadata.uid, gracePeriodSeconds: 0, signal }).catch(ignoreGone)
        return
      }
      const owners = object.metadata.ownerReferences ?? []
      const gone: OwnerReference[] = []
      const waiting: OwnerReference[] = []
      for (const owner of owners) {
        if (await isGone(owner, object)) gone.push(owner)
        else if (waits(ownerOf(owner))) waiting.push(owner)
      }
      if (gone.length + waiting.length === 0) return
      const { name, namespace, uid } = object.metadata
      try {
        if (gone.length + waiting.length === owners.length) {
          log.debug('deleting what belonged to an object that has gone', { object: place, owner: `${(gone[0] ?? waiting[0])!.kind} ${(gone[0] ?? waiting[0])!.name}` })
          const holds = waiting.length > 0 && (dependents.get(uid ?? '')?.size ?? 0) > 0
          await client.delete(kind, name, namespace, { uid, propagationPolicy: holds ? 'Foreground' : 'Background', signal })
        } else {
          const left = owners.filter((o) => !gone.includes(o) && !waiting.includes(o))
          await client.patch(kind, name, namespace, { metadata: { uid, resourceVersion: object.metadata.resourceVersion, ownerReferences: left } }, 'merge', { signal })
        }
      } catch (error) {
        // A conflict means it changed: the mirror brings us back.
        if (!isNotFound(error) && !isConflict(error)) throw error
      }
    }

    function ownerOf(owner: OwnerReference): KubeObject | undefined {
      const at = present.get(owner.uid)
      return at === undefined ? undefined : mirrors.get(`${at.kind.plural}.${at.kind.group}`)!.objects.objects.get(at.key)
    }

    /** Ends the wait of an owner that nothing holds up any more. */
    async function letGo(kind: Served, owner: KubeObject): Promise<void> {
      const { name, namespace, uid, resourceVersion, finalizers = [] } = owner.metadata
      for (const place of dependents.get(uid ?? '') ?? []) {
        const space = place.indexOf(' ')
        const dependent = mirrors.get(place.slice(0, space))!.objects.objects.get(place.slice(space + 1))
        if (dependent?.metadata.ownerReferences?.some((o) => o.uid === uid && o.blockOwnerDeletion === true) === true) return
      }
      await client.patch(kind, name, namespace, { metadata: { uid, resourceVersion, finalizers: finalizers.filter((f) => f !== 'foregroundDeletion') } }, 'merge', { signal }).catch(ignoreGone)
    }

    /** Asks the API where the mirrors know nothing: an owner may be younger than their last event. */
    async function isGone(owner: OwnerReference, dependent: KubeObject): Promise<boolean> {
      const kind = served.find((k) => k.kind === owner.kind && (apiVersionOf(k) === owner.apiVersion || k.group === owner.apiVersion.split('/').at(-2)))
      // Of what we do not serve we cannot say that it has gone.
      if (kind === undefined || !kind.verbs.includes('get')) return false
      const namespace = kind.namespaced ? dependent.metadata.namespace : undefined
      // Something outside namespaces cannot belong to something inside one; nobody knows which.
      if (kind.namespaced && namespace === undefined) return false
      const known = present.get(owner.uid)
      // The owner is meant to live beside its dependent, whatever its uid.
      if (known !== undefined && known.kind === kind && known.key === (namespace === undefined ? owner.name : `${namespace}/${owner.name}`)) return false
      const found = await client.find(kind, owner.name, namespace, { signal })
      return found === undefined || found.metadata.uid !== owner.uid
    }
  },
}
