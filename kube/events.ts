import { createHash } from 'node:crypto'
import { explainError, silent, type Log } from '../lib/log.ts'
import { isNotFound, type Client } from './client.ts'
import type { Event, KubeObject, ObjectReference } from './objects.ts'
import { events } from './resources.ts'

/** Tells users what happened to an object, in its Events. Never throws and never waits: what cannot be told is logged. */
export interface Recorder {
  event(object: KubeObject, type: 'Normal' | 'Warning', reason: string, message: string): void
  /** Resolves when everything told so far was sent or given up. */
  flush(): Promise<void>
}

export interface RecorderOptions {
  readonly log?: Log
  readonly signal?: AbortSignal
  readonly now?: () => Date
  /** Host in the event's source; a node's name. */
  readonly host?: string
  /** Events about one object that may come at once, and after how many milliseconds one more; default 25 and 300,000. */
  readonly burst?: number
  readonly refill?: number
}

/** Told events kept in mind, to count repetitions. */
const mostRemembered = 4096
/** Events waiting to be sent; more are dropped. */
const mostWaiting = 1000

interface Told {
  readonly name: string
  readonly namespace: string
  count: number
}

/** A recorder whose events come from `component`, e.g. `switchyard-ingress`. The same event again raises a count; a flood about one object is cut. */
export function recorder(client: Client, component: string, options: RecorderOptions = {}): Recorder {
  const { log = silent, signal, now = () => new Date(), host, burst = 25, refill = 300_000 } = options
  const told = new Map<string, Told>()
  const buckets = new Map<string, { left: number; at: number }>()
  let waiting = 0
  let last: Promise<void> = Promise.resolve()

  return {
    event(object, type, reason, message) {
      const about = referenceTo(object)
      if (waiting >= mostWaiting || !allowed(about)) return
      const at = now()
      waiting++
      last = last
        .then(() => tell(about, type, reason, message.slice(0, 1024), at))
        .catch((error: unknown) => {
          if (signal?.aborted !== true) log.debug('could not record an event', { reason, object: `${about.namespace ?? ''}/${about.name ?? ''}`, error: explainError(error) })
        })
        .finally(() => waiting--)
    },
    flush: () => last,
  }

  /** A bucket for each object: a thing that fails in a loop must not fill the store. */
  function allowed(about: ObjectReference): boolean {
    const key = `${about.kind} ${about.namespace} ${about.name} ${about.uid}`
    const at = now().getTime()
    const bucket = buckets.get(key) ?? { left: burst, at }
    buckets.delete(key)
    buckets.set(key, bucket)
    forgetOldest(buckets)
    bucket.left = Math.min(burst, bucket.left + (at - bucket.at) / refill)
    bucket.at = at
    if (bucket.left < 1) return false
    bucket.left--
    return true
  }

  async function tell(about: ObjectReference, type: 'Normal' | 'Warning', reason: string, message: string, at: Date): Promise<void> {
    if (signal?.aborted === true) return
    const key = JSON.stringify([about.kind, about.namespace, about.name, about.uid, type, reason, message])
    const before = told.get(key)
    const time = `${at.toISOString().slice(0, 19)}Z`
    if (before !== undefined) {
      before.count++
      try {
        await client.patch(events, before.name, before.namespace, { count: before.count, lastTimestamp: time }, 'merge', { signal })
        return
      } catch (error) {
        // Events do not live for ever.
        if (!isNotFound(error)) throw error
        told.delete(key)
      }
    }
    const namespace = about.namespace ?? 'default'
    const unique = createHash('sha256').update(`${key} ${at.getTime()} ${Math.random()}`).digest('hex').slice(0, 16)
    const event: Event = {
      metadata: { name: `${about.name ?? ''}.${unique}`, namespace },
      involvedObject: about,
      type,
      reason,
      message,
      count: 1,
      firstTimestamp: time,
      lastTimestamp: time,
      source: { component, ...(host === undefined ? {} : { host }) },
      reportingComponent: component,
      reportingInstance: host ?? '',
    }
    await client.create(events, event, { signal })
    told.delete(key)
    told.set(key, { name: event.metadata.name, namespace, count: 1 })
    forgetOldest(told)
  }
}

function forgetOldest(map: Map<string, unknown>): void {
  if (map.size > mostRemembered) map.delete(map.keys().next().value!)
}

/** A reference to an object, as Events carry it. */
export function referenceTo(object: KubeObject): ObjectReference {
  const { apiVersion, kind, metadata } = object
  return {
    ...(apiVersion === undefined ? {} : { apiVersion }),
    ...(kind === undefined ? {} : { kind }),
    ...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace }),
    name: metadata.name,
    ...(metadata.uid === undefined ? {} : { uid: metadata.uid }),
    ...(metadata.resourceVersion === undefined ? {} : { resourceVersion: metadata.resourceVersion }),
  }
}
