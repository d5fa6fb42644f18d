import type { Client } from '../../kube/client.ts'
import { recorder } from '../../kube/events.ts'
import { aborted } from '../../lib/lifecycle.ts'
import type { Log } from '../../lib/log.ts'
import { binder } from './binder.ts'
import { Cluster } from './cluster.ts'
import type { Controller, ControllerOptions } from './controller.ts'
import { endpointSliceController } from './endpointslices.ts'
import { kubernetesService } from './kubernetes.ts'
import { nodeLifecycle } from './nodes.ts'
import { podCidrs } from './podcidrs.ts'
import { queue, type Queue } from './queue.ts'
import { serviceAccounts } from './serviceaccounts.ts'

export type { ControllerOptions } from './controller.ts'

/** Every controller. Adding one is a file and a line here. */
export const controllers: readonly Controller[] = [kubernetesService, nodeLifecycle, podCidrs, binder, endpointSliceController, serviceAccounts]

/** Running controllers. */
export interface Controllers {
  /** Everything is mirrored and work has begun. */
  readonly ready: Promise<void>
  /** Resolves when no controller has anything to do at this moment. For tests. */
  idle(): Promise<void>
}

/** Starts the controllers; they end with `signal`. */
export function startControllers(given: { readonly client: Client; readonly log: Log; readonly signal: AbortSignal; readonly options: ControllerOptions; readonly only?: readonly Controller[] }): Controllers {
  const { client, signal, options } = given
  const log = given.log.with({ part: 'controllers' })
  const cluster = new Cluster(client, log, signal)
  const events = recorder(client, 'switchyard-controllers', { log, signal })
  const queues: Queue[] = []
  let begin!: () => void
  const ready = new Promise<void>((resolve) => (begin = resolve))
  for (const controller of given.only ?? controllers) {
    controller.start({
      client,
      cluster,
      events,
      log: log.with({ controller: controller.name }),
      signal,
      options,
      queue: (name, work, how = {}) => {
        const made = queue(work, { name, ready, signal, log, ...how })
        queues.push(made)
        return made
      },
    })
  }
  void Promise.race([cluster.synced(), aborted(signal)]).then(begin, () => {})
  return { ready, idle: async () => void (await Promise.all(queues.map((q) => q.idle()))) }
}
