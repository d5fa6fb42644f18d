import type { Client } from '../../kube/client.ts'
import { discover, type Served } from '../../kube/discovery.ts'
import { recorder } from '../../kube/events.ts'
import { Backoff } from '../../lib/backoff.ts'
import { aborted, sleep } from '../../lib/lifecycle.ts'
import { explainError, type Log } from '../../lib/log.ts'
import { binder } from './binder.ts'
import { Cluster } from './cluster.ts'
import type { Controller, ControllerOptions } from './controller.ts'
import { deploymentController } from './deployments.ts'
import { endpointsController, mirroring } from './endpoints.ts'
import { endpointSliceController } from './endpointslices.ts'
import { eviction } from './eviction.ts'
import { garbageCollector } from './garbage.ts'
import { kubernetesService } from './kubernetes.ts'
import { loadBalancers } from './loadbalancers.ts'
import { namespaceController } from './namespaces.ts'
import { nodeLifecycle } from './nodes.ts'
import { podCidrs } from './podcidrs.ts'
import { queue, type Queue } from './queue.ts'
import { replicaSetController } from './replicasets.ts'
import { serviceAccounts, tokenSecrets } from './serviceaccounts.ts'

export type { ControllerOptions } from './controller.ts'

/** Every controller. Adding one is a file and a line here. */
export const controllers: readonly Controller[] = [
  kubernetesService,
  nodeLifecycle,
  eviction,
  podCidrs,
  binder,
  endpointSliceController,
  endpointsController,
  mirroring,
  serviceAccounts,
  tokenSecrets,
  namespaceController,
  garbageCollector,
  loadBalancers,
  replicaSetController,
  deploymentController,
]

/** Running controllers. */
export interface Controllers {
  /** Resolves when no controller has anything to do at this moment. For tests. */
  idle(): Promise<void>
}

/** Starts the controllers, and resolves once everything is mirrored and work has begun; they end with `signal`. */
export async function startControllers(given: {
  readonly client: Client
  readonly log: Log
  readonly signal: AbortSignal
  readonly options: ControllerOptions
  readonly only?: readonly Controller[]
}): Promise<Controllers> {
  const { client, signal, options } = given
  const log = given.log.with({ part: 'controllers' })
  const served = await discovered(client, log, signal)
  const cluster = new Cluster(client, log, signal)
  const queues: Queue[] = []
  let begin!: () => void
  const ready = new Promise<void>((resolve) => (begin = resolve))
  for (const controller of given.only ?? controllers) {
    if (controller.needs?.some((n) => !served.some((s) => s.plural === n.plural && s.group === n.group)) === true) continue
    controller.start({
      client,
      cluster,
      events: recorder(client, controller.component ?? 'switchyard-controllers', { log, signal }),
      log: log.with({ controller: controller.name }),
      signal,
      options,
      served,
      queue: (name, work, how = {}) => {
        const made = queue(work, { name, ready, signal, log, ...how })
        queues.push(made)
        return made
      },
    })
  }
  await Promise.race([cluster.synced(), aborted(signal)])
  begin()
  return { idle: async () => void (await Promise.all(queues.map((q) => q.idle()))) }
}

async function discovered(client: Client, log: Log, signal: AbortSignal): Promise<readonly Served[]> {
  const backoff = new Backoff({ first: 20, most: 5000 })
  for (;;) {
    try {
      return await discover(client, { signal })
    } catch (error) {
      if (signal.aborted) throw error
      const wait = backoff.next()
      log.warn('cannot learn which kinds are served, trying again', { error: explainError(error), waitMs: Math.round(wait) })
      await sleep(wait, signal)
    }
  }
}
