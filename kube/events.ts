import type { Log } from '../lib/log.ts'
import type { Client } from './client.ts'
import type { KubeObject } from './objects.ts'

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
}

/** A recorder whose events come from `component`, e.g. `switchyard-ingress`. The same event again raises a count; a flood about one object is cut. */
export function recorder(_client: Client, _component: string, _options: RecorderOptions = {}): Recorder {
  throw new Error('not written yet')
}
