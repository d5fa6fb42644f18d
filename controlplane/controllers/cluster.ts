import type { Client } from '../../kube/client.ts'
import { Mirror } from '../../kube/mirror.ts'
import type { ConfigMap, KubeObject, ObjectMeta, Pod, Secret } from '../../kube/objects.ts'
import { keyOf, type Resource } from '../../kube/resources.ts'
import type { Log } from '../../lib/log.ts'

export type Listener<T> = (now: T | undefined, before: T | undefined) => void

/** One mirrored kind, with any number of listeners. */
export interface Watched<T extends KubeObject> {
  readonly objects: ReadonlyMap<string, T>
  /** The objects of one namespace. */
  in(namespace: string): Iterable<T>
  on(listener: Listener<T>): void
  /** Resolves when the mirror shows `written` or something newer, so that the next decision does not rest on what was before. */
  shows(written: T): Promise<void>
  /** Resolves when the mirror no longer shows this very object. */
  lost(object: T): Promise<void>
  /** Resolves when the mirror shows that this very object is being deleted, or has gone. */
  ends(object: T): Promise<void>
}

/** How long to wait for the mirror to show our own writes. */
const mostLag = 3000 // ms

/** The mirrors that the controllers share: one watch a kind, however many controllers look at it. */
export class Cluster {
  readonly client: Client
  readonly #log: Log
  readonly #signal: AbortSignal
  readonly #kinds = new Map<string, { readonly watched: Watched<KubeObject>; readonly synced: Promise<void> }>()

  constructor(client: Client, log: Log, signal: AbortSignal) {
    this.client = client
    this.#log = log
    this.#signal = signal
  }

  /** The shared mirror of a kind. Listeners must be added in the same turn, or they miss the first objects. */
  of<T extends KubeObject>(resource: Resource<T>): Watched<T> {
    const id = `${resource.group}/${resource.plural}`
    const found = this.#kinds.get(id)
    if (found !== undefined) return found.watched as unknown as Watched<T>
    const listeners = new Set<Listener<T>>()
    const byNamespace = new Map<string, Map<string, T>>()
    const none: ReadonlyMap<string, T> = new Map()
    const mirror = new Mirror<T>(this.client, resource, {
      log: this.#log,
      signal: this.#signal,
      mostWait: 5000,
      reduce: (reducers[resource.plural] ?? reduceAny) as unknown as (object: T) => T,
      changed: (now, before) => {
        const object = (now ?? before)!
        const namespace = object.metadata.namespace ?? ''
        let inside = byNamespace.get(namespace)
        if (inside === undefined) byNamespace.set(namespace, (inside = new Map()))
        if (now === undefined) inside.delete(object.metadata.name)
        else inside.set(object.metadata.name, now)
        if (inside.size === 0) byNamespace.delete(namespace)
        for (const listener of listeners) listener(now, before)
      },
    })
    const until = async (holds: () => boolean): Promise<void> => {
      if (holds()) return
      await new Promise<void>((resolve) => {
        const look = (): void => {
          if (!holds()) return
          done()
        }
        const done = (): void => {
          clearTimeout(timer)
          this.#signal.removeEventListener('abort', done)
          listeners.delete(look)
          resolve()
        }
        const timer = setTimeout(done, mostLag)
        this.#signal.addEventListener('abort', done, { once: true })
        listeners.add(look)
      })
    }
    const watched: Watched<T> = {
      objects: mirror.objects,
      in: (namespace) => (byNamespace.get(namespace) ?? none).values(),
      on: (listener) => void listeners.add(listener),
      shows: (written) => until(() => revisionOf(mirror.objects.get(keyOf(written))) >= revisionOf(written)),
      lost: (object) => until(() => mirror.objects.get(keyOf(object))?.metadata.uid !== object.metadata.uid),
      ends: (object) =>
        until(() => {
          const now = mirror.objects.get(keyOf(object))
          return now === undefined || now.metadata.uid !== object.metadata.uid || now.metadata.deletionTimestamp !== undefined
        }),
    }
    const synced = mirror.whenSynced()
    synced.catch(() => {})
    this.#kinds.set(id, { watched: watched as unknown as Watched<KubeObject>, synced })
    return watched
  }

  /** Resolves when all mirrors asked for so far are whole. */
  async synced(): Promise<void> {
    await Promise.all([...this.#kinds.values()].map((k) => k.synced))
  }
}

function revisionOf(object: KubeObject | undefined): bigint {
  const text = object?.metadata.resourceVersion ?? ''
  return /^\d+$/.test(text) ? BigInt(text) : 0n
}

/** What is kept of the kinds whose objects are large; nothing here reads the rest. */
const reducers: Readonly<Record<string, (object: never) => KubeObject>> = {
  pods: reducePod,
  // No controller keeps secrets in its memory; of a token it is enough to know that it is there.
  secrets: ({ apiVersion, kind, metadata, type, data }: Secret): Secret => ({
    apiVersion: apiVersion!,
    kind: kind!,
    metadata: slim(metadata),
    ...(type === undefined ? {} : { type }),
    ...(data?.['token'] === undefined ? {} : { data: { token: '' } }),
  }),
  configmaps: ({ data, ...rest }: ConfigMap): ConfigMap => ({ ...reduceAny(rest), ...(rest.metadata.name === 'kube-root-ca.crt' && data !== undefined ? { data } : {}) }),
}

function reduceAny<T extends KubeObject>(object: T): T {
  return object.metadata.managedFields === undefined ? object : { ...object, metadata: slim(object.metadata) }
}

function slim(metadata: ObjectMeta): ObjectMeta {
  const { managedFields: _, ...rest } = metadata
  return rest
}

/** Which Pods of a ReplicaSet go first. */
export const deletionCost = 'controller.kubernetes.io/pod-deletion-cost'

/** What the controllers read of a Pod; environments, probes and volumes are most of its size. */
function reducePod(pod: Pod): Pod {
  const { spec, status, metadata } = pod
  const { managedFields: _, annotations, ...rest } = metadata
  const cost = annotations?.[deletionCost]
  const kept = cost === undefined ? rest : { ...rest, annotations: { [deletionCost]: cost } }
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: kept,
    spec: {
      containers: spec.containers.map((c) => ({ name: c.name, ...(c.ports === undefined ? {} : { ports: c.ports }) })),
      ...(spec.initContainers === undefined
        ? {}
        : { initContainers: spec.initContainers.filter((c) => c.restartPolicy === 'Always').map((c) => ({ name: c.name, ...(c.ports === undefined ? {} : { ports: c.ports }) })) }),
      ...(spec.nodeName === undefined ? {} : { nodeName: spec.nodeName }),
      ...(spec.hostname === undefined ? {} : { hostname: spec.hostname }),
      ...(spec.subdomain === undefined ? {} : { subdomain: spec.subdomain }),
      ...(spec.hostNetwork === undefined ? {} : { hostNetwork: spec.hostNetwork }),
      ...(spec.nodeSelector === undefined ? {} : { nodeSelector: spec.nodeSelector }),
      ...(spec.tolerations === undefined ? {} : { tolerations: spec.tolerations }),
      ...(spec.schedulerName === undefined ? {} : { schedulerName: spec.schedulerName }),
    },
    ...(status === undefined
      ? {}
      : {
          status: {
            ...(status.phase === undefined ? {} : { phase: status.phase }),
            ...(status.conditions === undefined ? {} : { conditions: status.conditions }),
            ...(status.podIP === undefined ? {} : { podIP: status.podIP }),
            ...(status.podIPs === undefined ? {} : { podIPs: status.podIPs }),
            ...(status.containerStatuses === undefined
              ? {}
              : { containerStatuses: status.containerStatuses.map(({ name, ready, restartCount }) => ({ name, ready, restartCount, image: '', imageID: '' })) }),
          },
        }),
  }
}

/** The status of a condition, if the object has it. */
export function conditionOf(object: { readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] } } | undefined, type: string): string | undefined {
  return object?.status?.conditions?.find((c) => c.type === type)?.status
}

/** The namespace of an object; empty outside namespaces. */
export function namespaceOf(object: KubeObject): string {
  return object.metadata.namespace ?? ''
}

/** Now, as Kubernetes writes times. */
export function timestamp(at: Date = new Date()): string {
  return `${at.toISOString().slice(0, 19)}Z`
}
