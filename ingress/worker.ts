import { createLog, explainError } from '../lib/log.ts'
import { crewWork } from '../linux/sockets/crew.ts'
import { Plane, type PlaneConfig, type Wanted, type WantedChange } from './plane.ts'

/** What a worker is given at its start. */
export interface WorkerData {
  readonly config: PlaneConfig
  readonly grace: number
}

// One of the threads that carry requests; everything that is decided reaches it from the main thread.
crewWork<Wanted, WantedChange>(async (post, wanted) => {
  const { config, grace } = post.data as WorkerData
  const log = createLog()
  const plane = new Plane(post.driver, config, wanted, (what, error) => log.error(what, { worker: post.index, error: error === undefined ? undefined : explainError(error) }))
  for (const [name, { at, how }] of Object.entries(post.sockets)) {
    const [kind, group] = name.split(' ')
    await plane.listen(Number(group), kind === 'https', at, { ...how, failed: (error) => log.error('a listener failed', { error: explainError(error) }) })
  }
  return {
    whole: (w) => plane.replace(w),
    change: (c) => plane.change(c),
    message: (m) => {
      if (m === 'counts') post.send({ counts: plane.counts() })
    },
    end: async () => {
      await plane.drain(grace)
      await plane.close()
    },
  }
})
