import type { Client } from '../kube/client.ts'
import { Mirror } from '../kube/mirror.ts'
import type { KubeObject } from '../kube/objects.ts'
import { endpointslices, ingresses, namespaces, pods, services, type Resource } from '../kube/resources.ts'
import type { Log } from '../lib/log.ts'
import type { Cluster, Kind, Kinds } from './cluster.ts'
import { reduceIngress, reduceNamespace, reducePod, reduceService, reduceSlice } from './reduce.ts'

/** The mirrors that feed a cluster. */
export interface Sources {
  /** All kinds have been read whole from the API server. */
  readonly synced: boolean
  /** Begins with this kind too, if it has not. */
  add(kind: 'pod' | 'ingress'): void
  /** When the API server was last heard, on the clock of `performance.now()`. */
  readonly lastContact: number
}

/** Mirrors what has names into `cluster`, until the signal fires. `seen` is told of every change. */
export function mirrorInto(
  cluster: Cluster,
  client: Client,
  options: { readonly log: Log; readonly signal: AbortSignal; readonly wanted: ReadonlySet<'pod' | 'ingress'>; readonly seen?: (kind: Kind, key: string) => void },
): Sources {
  const { log, signal } = options
  const mirrors: Mirror<KubeObject>[] = []
  let synced = false
  const add = <K extends Kind>(kind: K, resource: Resource<Kinds[K]>, reduce: (object: Kinds[K]) => Kinds[K], fieldSelector?: string): void => {
    const mirror = new Mirror<Kinds[K]>(client, resource, {
      reduce,
      fieldSelector,
      changed: (now, before) => {
        cluster.put(kind, now, before)
        const { namespace, name } = (now ?? before)!.metadata
        options.seen?.(kind, namespace === undefined ? name : `${namespace}/${name}`)
      },
      log,
      signal,
    })
    mirrors.push(mirror as unknown as Mirror<KubeObject>)
    synced = false
    mirror.whenSynced().then(
      () => {
        // What a kept table still had and the cluster has no more.
        for (const [key, object] of cluster.objects[kind]) if (!mirror.objects.has(key)) cluster.put(kind, undefined, object as Kinds[K])
        if (synced || !mirrors.every((m) => m.synced)) return
        synced = true
        cluster.flush()
        cluster.complete = true
        cluster.stale = false
        options.seen?.(kind, '')
      },
      () => {},
    )
  }
  add('namespace', namespaces, reduceNamespace)
  add('service', services, reduceService)
  add('slice', endpointslices, reduceSlice)
  const added = new Set<Kind>()
  const more = (kind: 'pod' | 'ingress'): void => {
    if (added.has(kind)) return
    added.add(kind)
    if (kind === 'pod') add('pod', pods, reducePod)
    else add('ingress', ingresses, reduceIngress)
  }
  for (const kind of options.wanted) more(kind)
  return {
    get synced() {
      return synced
    },
    add: more,
    get lastContact() {
      return Math.max(...mirrors.map((m) => m.lastContact))
    },
  }
}
