import { test, type Test } from 'tap'
import type { Deployment, Pod, ReplicaSet } from '../../kube/objects.ts'
import { deployments, events, pods, replicasets } from '../../kube/resources.ts'
import { FakeApi } from '../../kube/testing/api.ts'
import { node, pod } from '../../kube/testing/builders.ts'
import { silent } from '../../lib/log.ts'
import { binder } from './binder.ts'
import { deploymentController, rollGoals, scaleGoals } from './deployments.ts'
import { garbageCollector } from './garbage.ts'
import { startControllers } from './main.ts'
import { replicaSetController } from './replicasets.ts'

const ready = (image: string): boolean => image !== 'broken'

/** An API with the controllers and somebody who runs Pods: they are ready after a moment, unless their image is `broken`. */
async function running(t: Test): Promise<FakeApi> {
  const api = await FakeApi.start()
  const ended = new AbortController()
  api.putAll([node('n1'), node('n2')])
  const timer = setInterval(() => {
    for (const p of api.all(pods)) {
      if (p.metadata.deletionTimestamp !== undefined) api.remove(p)
      else if (p.spec.nodeName !== undefined && p.status?.phase === undefined) {
        api.put({
          ...p,
          status: {
            phase: 'Running',
            podIP: '10.244.0.2',
            conditions: [{ type: 'Ready', status: ready(p.spec.containers[0]!.image!) ? 'True' : 'False', lastTransitionTime: new Date().toISOString() }],
          },
        } as Pod)
      }
    }
  }, 5)
  t.teardown(async () => {
    clearInterval(timer)
    ended.abort()
    await api.close()
  })
  await startControllers({
    client: await api.client(),
    log: silent,
    signal: ended.signal,
    only: [replicaSetController, deploymentController, binder, garbageCollector],
    options: { clusterCIDRs: [], serviceCIDRs: [] },
  })
  return api
}

function deployment(image: string, replicas: number, spec: Partial<Deployment['spec']> = {}): Deployment {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'demo' },
    spec: { replicas, selector: { matchLabels: { app: 'web' } }, template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'main', image }] } }, ...spec },
  }
}

const now = (api: FakeApi): Deployment => api.read(deployments, 'demo/web')!
const images = (api: FakeApi): string =>
  api
    .all(pods)
    .filter((p) => p.metadata.deletionTimestamp === undefined)
    .map((p) => p.spec.containers[0]!.image)
    .sort()
    .join(' ')
const condition = (api: FakeApi, type: string): string => {
  const c = now(api).status?.conditions?.find((x) => x.type === type)
  return `${c?.status} ${c?.reason}`
}

test('a Deployment has its Pods, says so, and goes with them', async (t) => {
  const api = await running(t)
  api.put(deployment('v1', 3))
  await api.until(() => now(api).status?.availableReplicas === 3 && condition(api, 'Progressing') === 'True NewReplicaSetAvailable')
  t.match(now(api), {
    metadata: { annotations: { 'deployment.kubernetes.io/revision': '1' } },
    status: { replicas: 3, updatedReplicas: 3, readyReplicas: 3, unavailableReplicas: 0, observedGeneration: now(api).metadata.generation! },
  })
  t.equal(condition(api, 'Available'), 'True MinimumReplicasAvailable')
  const [set] = api.all(replicasets)
  t.match(set, {
    spec: { replicas: 3, selector: { matchLabels: { app: 'web', 'pod-template-hash': /^[a-z0-9]{10}$/ } } },
    metadata: { ownerReferences: [{ kind: 'Deployment', name: 'web', controller: true }] },
  })
  t.equal(set!.metadata.name, `web-${set!.metadata.labels!['pod-template-hash']}`)
  api.remove(now(api))
  await api.until(() => api.all(replicasets).length === 0 && api.all(pods).length === 0)
})

test('a rolling update never has fewer Pods available nor more in all than it may', async (t) => {
  const api = await running(t)
  api.put(deployment('v1', 4, { strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 1 } } }))
  await api.until(() => now(api).status?.availableReplicas === 4)
  let least = Infinity
  let most = 0
  const look = (): void => {
    const alive = api.all(pods).filter((p) => p.metadata.deletionTimestamp === undefined)
    most = Math.max(most, alive.length)
    least = Math.min(least, alive.filter((p) => p.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true).length)
  }
  const watching = setInterval(look, 1)
  t.teardown(() => clearInterval(watching))
  api.put({ ...now(api), spec: deployment('v2', 4, { strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 1 } } }).spec })
  await api.until(() => images(api) === 'v2 v2 v2 v2' && condition(api, 'Progressing') === 'True NewReplicaSetAvailable')
  t.ok(least >= 3, `at least ${least} were ready`)
  t.ok(most <= 5, `at most ${most} existed`)
  t.equal(now(api).metadata.annotations!['deployment.kubernetes.io/revision'], '2')
  t.equal(api.all(replicasets).length, 2, 'the old one is kept, empty, to go back to')

  api.put({ ...now(api), spec: { ...now(api).spec, template: deployment('v1', 4).spec.template } })
  await api.until(() => images(api) === 'v1 v1 v1 v1' && now(api).metadata.annotations!['deployment.kubernetes.io/revision'] === '3')
  t.equal(api.all(replicasets).length, 2, 'going back takes the old set again')
  await api.until(() => api.all(events).some((e) => e.reason === 'ScalingReplicaSet' && /^Scaled up replica set web-\w+ from 0 to 4$/.test(e.message ?? '')))
})

test('a rollout that cannot become ready stops while enough of the old still run', async (t) => {
  const api = await running(t)
  api.put(deployment('v1', 4))
  await api.until(() => now(api).status?.availableReplicas === 4)
  api.put({ ...now(api), spec: { ...deployment('broken', 4).spec, progressDeadlineSeconds: 1 } })
  await api.until(() => condition(api, 'Progressing') === 'False ProgressDeadlineExceeded')
  t.equal(images(api), 'broken broken v1 v1 v1')
})

test('Recreate ends all old Pods before the first new one begins', async (t) => {
  const api = await running(t)
  api.put(deployment('v1', 3, { strategy: { type: 'Recreate' } }))
  await api.until(() => now(api).status?.availableReplicas === 3)
  const mixes = new Set<string>()
  const watching = setInterval(() => mixes.add([...new Set(api.all(pods).map((p) => p.spec.containers[0]!.image))].sort().join('+')), 1)
  t.teardown(() => clearInterval(watching))
  api.put({ ...now(api), spec: deployment('v2', 3, { strategy: { type: 'Recreate' } }).spec })
  await api.until(() => images(api) === 'v2 v2 v2')
  t.notOk(mixes.has('v1+v2'))
})

test('a paused Deployment is scaled but not rolled out', async (t) => {
  const api = await running(t)
  api.put(deployment('v1', 2))
  await api.until(() => now(api).status?.availableReplicas === 2)
  api.put({ ...now(api), spec: deployment('v2', 3, { paused: true }).spec })
  await api.until(() => images(api) === 'v1 v1 v1' && condition(api, 'Progressing') === 'Unknown DeploymentPaused')
  api.put({ ...now(api), spec: deployment('v2', 3).spec })
  await api.until(() => images(api) === 'v2 v2 v2')
  t.pass()
})

test('old sets beyond the history limit go', async (t) => {
  const api = await running(t)
  for (const image of ['v1', 'v2', 'v3', 'v4']) {
    const before = api.read(deployments, 'demo/web')
    api.put({ ...(before ?? deployment(image, 1)), spec: deployment(image, 1, { revisionHistoryLimit: 1 }).spec })
    await api.until(() => images(api) === image && condition(api, 'Progressing') === 'True NewReplicaSetAvailable' && now(api).status?.replicas === 1)
  }
  await api.until(() => api.all(replicasets).length === 2)
  t.strictSame(
    api
      .all(replicasets)
      .map((s) => s.metadata.annotations!['deployment.kubernetes.io/revision'])
      .sort(),
    ['3', '4'],
  )
})

test('a ReplicaSet replaces what goes, adopts orphans and lets go of strangers', async (t) => {
  const api = await running(t)
  const orphan = pod('demo/orphan', { labels: { app: 'rs' }, node: 'n1', ip: '10.244.0.9' })
  api.put(orphan)
  const set: ReplicaSet = {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: { name: 'rs', namespace: 'demo' },
    spec: { replicas: 3, selector: { matchLabels: { app: 'rs' } }, template: { metadata: { labels: { app: 'rs' } }, spec: { containers: [{ name: 'c', image: 'v1' }] } } },
  }
  api.put(set)
  await api.until(() => api.read(replicasets, 'demo/rs')?.status?.readyReplicas === 3)
  t.equal(api.all(pods).length, 3)
  t.match(api.read(pods, 'demo/orphan')!.metadata.ownerReferences, [{ kind: 'ReplicaSet', name: 'rs', controller: true }])
  const victim = api.all(pods).find((p) => p.metadata.name !== 'orphan')!
  api.remove(victim)
  await api.until(() => api.all(pods).length === 3 && api.read(replicasets, 'demo/rs')?.status?.readyReplicas === 3)
  api.put({ ...api.read(pods, 'demo/orphan')!, metadata: { ...api.read(pods, 'demo/orphan')!.metadata, labels: { app: 'free' } } })
  await api.until(() => (api.read(pods, 'demo/orphan')!.metadata.ownerReferences ?? []).length === 0 && api.all(pods).length === 4)
  api.put({ ...api.read(replicasets, 'demo/rs')!, spec: { ...set.spec, replicas: 0 } })
  await api.until(() => api.all(pods).length === 1)
})

test('a ReplicaSet that may not have Pods says why, and makes them once it may', async (t) => {
  const api = await running(t)
  api.admit = (verb, resource) => (verb === 'create' && resource.plural === 'pods' ? { kind: 'Status', code: 403, reason: 'Forbidden', message: 'pods are forbidden: exceeded quota' } : undefined)
  api.put(deployment('v1', 2))
  await api.until(() => condition(api, 'ReplicaFailure') === 'True FailedCreate')
  t.ok(api.requests.filter((r) => r.verb === 'create' && r.resource === 'pods').length < 20, 'it does not hammer')
  api.admit = undefined
  api.put({ ...now(api), spec: { ...now(api).spec, replicas: 1 } })
  await api.until(() => now(api).status?.availableReplicas === 1 && condition(api, 'ReplicaFailure') === 'undefined undefined')
})

const set = (name: string, replicas: number, available: number, notes: Record<string, string> = {}): ReplicaSet => ({
  metadata: { name, creationTimestamp: `2026-01-0${name.slice(-1)}T00:00:00Z`, annotations: notes },
  spec: { replicas, selector: {} },
  status: { availableReplicas: available },
})
const sizes = (goals: readonly (readonly [ReplicaSet, number])[]): string =>
  goals
    .map(([s, n]) => `${s.metadata.name}:${n}`)
    .sort()
    .join(' ')

const rolls: readonly (readonly [name: string, want: number, surge: number | string, unavailable: number | string, newest: ReplicaSet, old: readonly ReplicaSet[], goal: string])[] = [
  ['the first step adds the surge and takes the allowance', 10, 3, 2, set('n2', 0, 0), [set('o1', 10, 10)], 'n2:3 o1:8'],
  ['nothing more while the new ones start', 10, 3, 2, set('n2', 3, 0), [set('o1', 8, 8)], 'n2:5 o1:8'],
  ['as new ones come up, old ones go', 10, 3, 2, set('n2', 5, 5), [set('o1', 8, 8)], 'n2:5 o1:3'],
  ['old Pods that do not run go first', 10, 0, 2, set('n3', 0, 0), [set('o1', 5, 0), set('o2', 5, 5)], 'n3:0 o1:3 o2:5'],
  ['percentages: surge is rounded up, unavailability down', 3, '25%', '25%', set('n2', 0, 0), [set('o1', 3, 3)], 'n2:1 o1:3'],
  ['with neither, one goes first', 2, 0, 0, set('n2', 0, 0), [set('o1', 2, 2)], 'n2:0 o1:1'],
  ['the last step', 2, 1, 0, set('n2', 2, 2), [set('o1', 1, 1)], 'n2:2 o1:0'],
]
for (const [name, want, maxSurge, maxUnavailable, newest, old, goal] of rolls) {
  test(`a step of a rolling update: ${name}`, async (t) => {
    t.equal(sizes(rollGoals(deployment('x', want, { strategy: { rollingUpdate: { maxSurge, maxUnavailable } } }), newest, old)), goal)
  })
}

test('a change of replicas in the middle of a rollout is shared', async (t) => {
  const most = { 'deployment.kubernetes.io/max-replicas': '12', 'deployment.kubernetes.io/desired-replicas': '10' }
  const d = deployment('x', 20, { strategy: { rollingUpdate: { maxSurge: 4, maxUnavailable: 0 } } })
  t.equal(sizes(scaleGoals(d, set('n2', 4, 4, most), [set('o1', 8, 8, most)])), 'n2:8 o1:16')
  t.equal(sizes(scaleGoals(deployment('x', 0), set('n2', 4, 4, most), [set('o1', 8, 8, most)])), 'n2:0 o1:0')
})
