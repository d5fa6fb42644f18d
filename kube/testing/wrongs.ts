import type { Test } from 'tap'
import type { Client } from '../client.ts'
import type { Patience } from '../credentials.ts'
import type { KubeObject } from '../objects.ts'
import { FakeApi } from './api.ts'

/** One way in which an API server, or the network before it, misbehaves. It gets over it by itself. */
export interface Wrong {
  readonly name: string
  /** A mirror has to list again; else it goes on from the revision it knows. */
  readonly relists: boolean
  /** Begins to do wrong. */
  readonly begin: (api: FakeApi) => void
  /** Done after the objects changed. */
  readonly meanwhile?: (api: FakeApi) => void
}

/** Everything that a program over mirrors has to live through. */
export const wrongs: readonly Wrong[] = [
  { name: 'the watch is ended in good order', relists: false, begin: (api) => api.endWatches() },
  { name: 'the watch is reset', relists: false, begin: (api) => api.resetWatches() },
  { name: 'the watch is reset in the middle of an event', relists: false, begin: (api) => api.resetWatches(undefined, true) },
  { name: '410 comes as an event', relists: true, begin: (api) => api.expireWatches() },
  {
    name: '410 comes as a status, twice',
    relists: true,
    begin: (api) => {
      api.misbehave({ verbs: ['watch'], trouble: { code: 410 }, times: 2 })
      api.endWatches()
    },
  },
  {
    name: 'the history is gone while the connection is down',
    relists: true,
    begin: (api) => {
      api.misbehave({ verbs: ['watch'], trouble: 'reset', times: 2 })
      api.resetWatches()
    },
    meanwhile: (api) => api.compact(),
  },
  {
    name: '429 with Retry-After',
    relists: false,
    begin: (api) => {
      api.misbehave({ verbs: ['watch'], trouble: { code: 429, retryAfter: 0.05 }, times: 2 })
      api.endWatches()
    },
  },
  {
    name: '5xx for a while',
    relists: false,
    begin: (api) => {
      api.misbehave({ trouble: { code: 503 }, times: 2 })
      api.misbehave({ trouble: { code: 500, text: '<html>oops</html>' }, times: 2 })
      api.resetWatches()
    },
  },
  { name: 'the watch falls silent', relists: false, begin: (api) => api.muteWatches() },
  {
    name: 'requests are never answered',
    relists: false,
    begin: (api) => {
      api.misbehave({ trouble: 'silence', times: 2 })
      api.resetWatches()
    },
  },
  {
    name: 'every list answer is cut and every watch too, for a while',
    relists: true,
    begin: (api) => {
      api.misbehave({ verbs: ['list', 'watch'], trouble: 'cut', times: 3 })
      api.expireWatches()
    },
  },
  {
    name: 'answers are no JSON',
    relists: true,
    begin: (api) => {
      api.misbehave({ trouble: 'garbage', times: 2 })
      api.expireWatches()
    },
  },
  {
    name: 'answers are slow',
    relists: true,
    begin: (api) => {
      api.delay = 60
      api.expireWatches()
    },
  },
  {
    name: 'access is refused for a while',
    relists: false,
    begin: (api) => {
      api.misbehave({ trouble: { code: 401 }, times: 2 })
      api.misbehave({ trouble: { code: 403 }, times: 2 })
      api.resetWatches()
    },
  },
  { name: 'every connection is reset', relists: false, begin: (api) => api.resetConnections() },
]

/** A program over mirrors, as `underEachWrong` needs it. */
export interface Subject {
  /** What is there when the program starts. */
  readonly before: readonly KubeObject[]
  /** Starts the program, or the part of it that mirrors, over `client`; it ends with `signal`. `api.kubeconfig()` serves those who want a file. */
  start(around: { readonly client: Client; readonly api: FakeApi; readonly signal: AbortSignal }): Promise<Running> | Running
  /** Changes objects while the API does wrong; at least one addition, one change and one deletion. */
  change(api: FakeApi): void
}

/** A program that runs. The claims are looked at again and again until they hold, or the test fails. */
export interface Running {
  /** It shows the first objects. */
  settled(): boolean | Promise<boolean>
  /** It shows the changed ones, and nothing of what went. */
  changed(): boolean | Promise<boolean>
  /** It shows that its copy is whole, whatever the API does. Looked at all the time while the API does wrong: what a program has, it keeps serving. */
  serving?(): boolean | Promise<boolean>
  /** Waited for at the end. */
  readonly ended?: Promise<unknown>
}

/** For `api.patience`, before `api.kubeconfig()` is handed out: silence is noticed in milliseconds. */
export const impatient: Patience = { timeout: 400, silence: 150, firstWait: 5, mostWait: 20 }

/** Runs a program under each wrong: it must settle, go on serving meanwhile, and end up with what is true. */
export function underEachWrong(t: Test, what: string, subject: Subject, only: readonly Wrong[] = wrongs): void {
  for (const wrong of only) {
    void t.test(`${what} ends up right when ${wrong.name}`, async (t) => {
      const api = await FakeApi.start()
      const ended = new AbortController()
      api.putAll(subject.before)
      // Programs that are given `api.kubeconfig()` learn it from there.
      api.patience = impatient
      const client = await api.client({ patience: api.patience, timeout: 400 })
      const program = await subject.start({ client, api, signal: ended.signal })
      t.teardown(async () => {
        ended.abort(new Error('over'))
        await program.ended
        await api.close()
      })
      await holds(() => program.settled(), 'the program shows the first objects')
      await api.until(() => api.watches() > 0, 'it watches')
      let served = true
      let over = false
      const watching = (async () => {
        while (!over) {
          served &&= (await program.serving?.()) ?? true
          await new Promise((resolve) => setTimeout(resolve, 2))
        }
      })()
      try {
        wrong.begin(api)
        subject.change(api)
        wrong.meanwhile?.(api)
        await holds(() => program.changed(), 'the program shows the changed objects')
      } finally {
        over = true
        await watching
      }
      t.ok(served, 'it went on serving')
    })
  }
}

async function holds(claim: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const late = performance.now() + 8000
  while (!(await claim())) {
    if (performance.now() > late) throw new Error(`${what}: not within 8 s`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
