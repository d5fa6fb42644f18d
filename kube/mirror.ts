import type { Log } from '../lib/log.ts'
import type { Client } from './client.ts'
import type { KubeObject } from './objects.ts'
import type { Resource } from './resources.ts'

export interface MirrorOptions<T extends KubeObject, K = T> {
  readonly namespace?: string | undefined
  readonly labelSelector?: string | undefined
  readonly fieldSelector?: string | undefined
  /** Makes of an object what is kept of it. Without it everything is kept but `managedFields`. */
  readonly reduce?: ((object: T) => K) | undefined
  /** Told after `objects` was updated. `now` is missing after a deletion, `before` after an addition. */
  readonly changed?: ((now: K | undefined, before: K | undefined) => void) | undefined
  readonly log: Log
  readonly signal: AbortSignal
  /** A watch that says nothing for so long is dropped and opened again; default 90,000 ms. */
  readonly silence?: number | undefined
  /** First and longest wait after a failure; default 200 and 30,000 ms. */
  readonly firstWait?: number | undefined
  readonly mostWait?: number | undefined
}

/** A local copy of one kind, kept by list and watch, for as long as its signal does not fire. */
export class Mirror<T extends KubeObject, K = T> {
  readonly resource: Resource<T>

  constructor(_client: Client, resource: Resource<T>, _options: MirrorOptions<T, K>) {
    this.resource = resource
  }

  /** By `namespace/name`, or `name` outside namespaces. */
  get objects(): ReadonlyMap<string, K> {
    throw new Error('not written yet')
  }

  /** Has been listed whole at least once. */
  get synced(): boolean {
    return false
  }

  /** When the server was last heard, on the clock of `performance.now()`; 0: never. */
  get lastContact(): number {
    return 0
  }

  /** Resolves once `synced`; rejects when the signal fires before. */
  whenSynced(): Promise<void> {
    throw new Error('not written yet')
  }
}
