import { createHash } from 'node:crypto'
import { ApiError, isConflict, isNotFound } from '../../kube/client.ts'
import type { Condition, Deployment, Draft, IntOrString, OwnerReference, PodTemplate, ReplicaSet } from '../../kube/objects.ts'
import { equal } from '../../kube/patch.ts'
import { deployments, keyOf, pods, replicasets } from '../../kube/resources.ts'
import { fromLabelSelector, matchesLabels } from '../../kube/selectors.ts'
import { namespaceOf, timestamp } from './cluster.ts'
import type { Controller } from './controller.ts'
import { controllerOf } from './replicasets.ts'

const hashLabel = 'pod-template-hash'
const annotation = {
  revision: 'deployment.kubernetes.io/revision',
  history: 'deployment.kubernetes.io/revision-history',
  desired: 'deployment.kubernetes.io/desired-replicas',
  most: 'deployment.kubernetes.io/max-replicas',
} as const
/** Annotations of a Deployment that its ReplicaSets do not get. */
const kept: ReadonlySet<string> = new Set(['kubectl.kubernetes.io/last-applied-configuration', ...Object.values(annotation)])

/** Rolls Deployments out: a ReplicaSet for each template, the newest growing as the others shrink. */
export const deploymentController: Controller = {
  name: 'deployments',
  component: 'deployment-controller',
  needs: [deployments, replicasets],
  start({ client, cluster, queue, events, signal }) {
    const all = { deployments: cluster.of(deployments), sets: cluster.of(replicasets), pods: cluster.of(pods) }
    const work = queue('deployments', sync, { workers: 4 })
    all.deployments.on((now, before) => work.add(keyOf((now ?? before)!)))
    all.sets.on((now, before) => {
      for (const set of [now, before]) {
        if (set === undefined) continue
        const owner = controllerOf(set)
        if (owner?.kind === 'Deployment') work.add(`${namespaceOf(set)}/${owner.name}`)
        else if (owner === undefined && set === now)
          for (const d of all.deployments.in(namespaceOf(set))) if (matchesLabels(fromLabelSelector(d.spec.selector), set.metadata.labels)) work.add(keyOf(d))
      }
    })
    // Recreate waits for the last old Pod.
    all.pods.on((now, before) => {
      if (now !== undefined) return
      const owner = controllerOf(before!)
      const set = owner?.kind === 'ReplicaSet' ? all.sets.objects.get(`${namespaceOf(before!)}/${owner.name}`) : undefined
      const top = set === undefined ? undefined : controllerOf(set)
      if (top !== undefined) work.add(`${namespaceOf(before!)}/${top.name}`)
    })

    async function sync(key: string): Promise<number | void> {
      const deployment = all.deployments.objects.get(key)
      if (deployment === undefined || deployment.metadata.deletionTimestamp !== undefined) return
      try {
        return await roll(deployment)
      } catch (error) {
        if (isNotFound(error)) return
        // Somebody scaled or edited meanwhile; the mirror will show it.
        if (isConflict(error)) return 10
        throw error
      }
    }

    async function roll(deployment: Deployment): Promise<number | void> {
      const sets = await claim(deployment)
      const template = withoutHash(deployment.spec.template)
      let newest = sets.filter((s) => equal(withoutHash(s.spec.template), template)).toSorted(byAge)[0]
      const old = sets.filter((s) => s !== newest)
      const paused = deployment.spec.paused === true
      let failure: Condition | undefined

      const revision = Math.max(0, ...old.map(revisionOf)) + 1
      const recreate = deployment.spec.strategy?.type === 'Recreate'
      if (!paused && recreate && (old.some((s) => (s.spec.replicas ?? 1) > 0) || old.some(hasPods)) && (newest?.spec.replicas ?? 0) === 0) {
        for (const s of old) await scale(deployment, s, 0)
        const rest = old.some((s) => hasPods(all.sets.objects.get(keyOf(s)) ?? s))
        if (rest) return report(deployment, newest, refresh(old), failure)
      }
      if (!paused && newest === undefined) {
        try {
          newest = await make(deployment, revision, old)
        } catch (error) {
          if (!(error instanceof ApiError) || error.code === 409) throw error
          failure = { type: 'ReplicaFailure', status: 'True', reason: 'FailedCreate', message: error.message, lastTransitionTime: timestamp() }
          events.event(deployment, 'Warning', 'ReplicaSetCreateError', `Failed to create new replica set: ${error.message}`)
        }
      }
      if (newest !== undefined && !paused) {
        newest = await mark(deployment, newest, Math.max(revision, revisionOf(newest)))
        await markRevision(deployment, String(revisionOf(newest)))
      }
      const goals =
        paused || isScaled(deployment, [...old, ...(newest === undefined ? [] : [newest])])
          ? scaleGoals(deployment, newest, old)
          : recreate
            ? recreateGoals(deployment, newest, old)
            : rollGoals(deployment, newest, old)
      for (const [set, replicas] of goals) await scale(deployment, set, replicas)
      const [newNow] = newest === undefined ? [undefined] : refresh([newest])
      const oldNow = refresh(old)
      if (!paused) await tidy(deployment, newNow, oldNow)
      return report(deployment, newNow, oldNow, failure)
    }

    function refresh(sets: readonly ReplicaSet[]): readonly ReplicaSet[] {
      return sets.flatMap((s) => all.sets.objects.get(keyOf(s)) ?? [])
    }

    function hasPods(set: ReplicaSet): boolean {
      for (const p of all.pods.in(namespaceOf(set))) if (controllerOf(p)?.uid === set.metadata.uid && p.status?.phase !== 'Succeeded' && p.status?.phase !== 'Failed') return true
      return false
    }

    async function claim(deployment: Deployment): Promise<readonly ReplicaSet[]> {
      const selector = fromLabelSelector(deployment.spec.selector)
      const mine: ReplicaSet[] = []
      for (const set of Array.from(all.sets.in(namespaceOf(deployment)))) {
        const owner = controllerOf(set)
        if (owner !== undefined) {
          if (owner.uid === deployment.metadata.uid) mine.push(set)
        } else if (set.metadata.deletionTimestamp === undefined && matchesLabels(selector, set.metadata.labels)) {
          const ownerReferences = [...(set.metadata.ownerReferences ?? []), referenceOf(deployment)]
          const written = await client.patch(replicasets, set.metadata.name, namespaceOf(set), { metadata: { uid: set.metadata.uid, ownerReferences } }, 'merge', { signal })
          await all.sets.shows(written)
          mine.push(written)
        }
      }
      return mine
    }

    async function make(deployment: Deployment, revision: number, old: readonly ReplicaSet[]): Promise<ReplicaSet> {
      const { name } = deployment.metadata
      const hash = hashOf(deployment.spec.template, deployment.status?.collisionCount ?? 0)
      const [, replicas] = rollGoals(deployment, emptySet(deployment), old).find(([s]) => s.metadata.name === '') ?? [undefined, 0]
      const labels = { ...deployment.spec.template.metadata?.labels, [hashLabel]: hash }
      const set: Draft<ReplicaSet> = {
        metadata: { name: `${name}-${hash}`, namespace: namespaceOf(deployment), labels, annotations: annotationsFor(deployment, revision), ownerReferences: [referenceOf(deployment)] },
        spec: {
          replicas: old.length === 0 || deployment.spec.strategy?.type === 'Recreate' ? (deployment.spec.replicas ?? 1) : replicas,
          ...(deployment.spec.minReadySeconds === undefined ? {} : { minReadySeconds: deployment.spec.minReadySeconds }),
          selector: { ...deployment.spec.selector, matchLabels: { ...deployment.spec.selector.matchLabels, [hashLabel]: hash } },
          template: { ...deployment.spec.template, metadata: { ...deployment.spec.template.metadata, labels } },
        },
      }
      try {
        const written = await client.create(replicasets, set, { signal })
        events.event(deployment, 'Normal', 'ScalingReplicaSet', `Scaled up replica set ${written.metadata.name} from 0 to ${written.spec.replicas ?? 0}`)
        await all.sets.shows(written)
        return written
      } catch (error) {
        if (!(error instanceof ApiError) || error.reason !== 'AlreadyExists') throw error
        const there = await client.get(replicasets, set.metadata.name!, namespaceOf(deployment), { signal })
        if (controllerOf(there)?.uid === deployment.metadata.uid && equal(withoutHash(there.spec.template), withoutHash(deployment.spec.template))) {
          await all.sets.shows(there)
          return there
        }
        // Two templates of one hash: the next try gives another.
        await client.patch(deployments, name, namespaceOf(deployment), { status: { collisionCount: (deployment.status?.collisionCount ?? 0) + 1 } }, 'merge', { subresource: 'status', signal })
        throw error
      }
    }

    /** Keeps the annotations of the newest set, by which kubectl tells revisions. */
    async function mark(deployment: Deployment, set: ReplicaSet, revision: number): Promise<ReplicaSet> {
      const before = set.metadata.annotations ?? {}
      const wanted: Record<string, string> = { ...before, ...annotationsFor(deployment, revision) }
      const was = before[annotation.revision]
      if (was !== undefined && was !== String(revision)) wanted[annotation.history] = [...(before[annotation.history]?.split(',') ?? []), was].join()
      // How large it was meant to be stays until it is resized: the difference is what tells of a resizing.
      for (const key of [annotation.desired, annotation.most]) if (before[key] !== undefined) wanted[key] = before[key]
      if (equal(before, wanted) && (set.spec.minReadySeconds ?? 0) === (deployment.spec.minReadySeconds ?? 0)) return set
      const written = await client.patch(
        replicasets,
        set.metadata.name,
        namespaceOf(set),
        { metadata: { annotations: wanted }, spec: { minReadySeconds: deployment.spec.minReadySeconds ?? 0 } },
        'merge',
        { signal },
      )
      await all.sets.shows(written)
      return written
    }

    // By way of the status: a change of annotations on the object itself counts as a new generation.
    async function markRevision(deployment: Deployment, revision: string): Promise<void> {
      if (deployment.metadata.annotations?.[annotation.revision] === revision) return
      const written = await client.patch(deployments, deployment.metadata.name, namespaceOf(deployment), { metadata: { annotations: { [annotation.revision]: revision } } }, 'merge', {
        subresource: 'status',
        signal,
      })
      await all.deployments.shows(written)
    }

    async function scale(deployment: Deployment, set: ReplicaSet, replicas: number): Promise<void> {
      const from = set.spec.replicas ?? 1
      const notes = notesFor(deployment)
      const stale = Object.entries(notes).some(([k, v]) => set.metadata.annotations?.[k] !== v)
      if (from === replicas && !stale) return
      const written = await client.patch(replicasets, set.metadata.name, namespaceOf(set), { metadata: { uid: set.metadata.uid, annotations: notes }, spec: { replicas } }, 'merge', { signal })
      if (from !== replicas) events.event(deployment, 'Normal', 'ScalingReplicaSet', `Scaled ${replicas > from ? 'up' : 'down'} replica set ${set.metadata.name} from ${from} to ${replicas}`)
      await all.sets.shows(written)
    }

    /** Old sets without Pods go, but for as many as one may want to go back to. */
    async function tidy(deployment: Deployment, newest: ReplicaSet | undefined, old: readonly ReplicaSet[]): Promise<void> {
      if (newest === undefined || !isComplete(deployment, newest, old)) return
      const spare = old.filter((s) => (s.spec.replicas ?? 1) === 0 && (s.status?.replicas ?? 0) === 0 && s.metadata.deletionTimestamp === undefined).toSorted((a, b) => revisionOf(a) - revisionOf(b))
      for (const set of spare.slice(0, Math.max(0, spare.length - (deployment.spec.revisionHistoryLimit ?? 10)))) {
        await client.delete(replicasets, set.metadata.name, namespaceOf(set), { uid: set.metadata.uid, signal })
        await all.sets.lost(set)
      }
    }

    async function report(given: Deployment, newest: ReplicaSet | undefined, old: readonly ReplicaSet[], failure: Condition | undefined): Promise<number | void> {
      const deployment = all.deployments.objects.get(keyOf(given)) ?? given
      const { status, next } = compileStatus(deployment, newest, old, failure, Date.now())
      const before = { conditions: [], ...deployment.status }
      if (!equal(clean(before), clean(status))) {
        const written = await client.update(deployments, { ...deployment, status }, { subresource: 'status', signal })
        await all.deployments.shows(written)
      }
      return next
    }

    function annotationsFor(deployment: Deployment, revision: number): Record<string, string> {
      const own = Object.fromEntries(Object.entries(deployment.metadata.annotations ?? {}).filter(([k]) => !kept.has(k)))
      return { ...own, [annotation.revision]: String(revision), ...notesFor(deployment) }
    }
  },
}

type Goals = readonly (readonly [set: ReplicaSet, replicas: number])[]

function emptySet(deployment: Deployment): ReplicaSet {
  return { metadata: { name: '', namespace: namespaceOf(deployment) }, spec: { replicas: 0, selector: {} } }
}

/** How large each set is to be in the next step of a rolling update. */
export function rollGoals(deployment: Deployment, newest: ReplicaSet | undefined, old: readonly ReplicaSet[]): Goals {
  const want = deployment.spec.replicas ?? 1
  const { surge, unavailable } = bounds(deployment)
  const goals = new Map<ReplicaSet, number>([...old, ...(newest === undefined ? [] : [newest])].map((s) => [s, s.spec.replicas ?? 1]))
  const total = (): number => [...goals.values()].reduce((a, b) => a + b, 0)
  if (newest !== undefined) {
    const size = goals.get(newest)!
    if (size > want) goals.set(newest, want)
    else goals.set(newest, size + Math.max(0, Math.min(want + surge - total(), want - size)))
  }
  const least = want - unavailable
  const starting = newest === undefined ? 0 : goals.get(newest)! - Math.min(goals.get(newest)!, newest.status?.availableReplicas ?? 0)
  let room = total() - least - starting
  const byBirth = old.filter((s) => goals.get(s)! > 0).toSorted(byAge)
  // First those Pods that are no use anyway.
  for (const s of byBirth) {
    if (room <= 0) break
    const down = Math.min(room, Math.max(0, goals.get(s)! - (s.status?.availableReplicas ?? 0)))
    goals.set(s, goals.get(s)! - down)
    room -= down
  }
  const available = [...goals].reduce((n, [s, size]) => n + Math.min(size, s.status?.availableReplicas ?? 0), 0)
  room = Math.min(room, available - least)
  for (const s of byBirth) {
    if (room <= 0) break
    const down = Math.min(room, goals.get(s)!)
    goals.set(s, goals.get(s)! - down)
    room -= down
  }
  return [...goals]
}

function recreateGoals(deployment: Deployment, newest: ReplicaSet | undefined, old: readonly ReplicaSet[]): Goals {
  return [...old.map((s) => [s, 0] as const), ...(newest === undefined ? [] : [[newest, deployment.spec.replicas ?? 1] as const])]
}

/** Whether somebody changed `replicas` since the sets were last sized. */
function isScaled(deployment: Deployment, sets: readonly ReplicaSet[]): boolean {
  const want = String(deployment.spec.replicas ?? 1)
  return sets.some((s) => (s.spec.replicas ?? 1) > 0 && s.metadata.annotations?.[annotation.desired] !== undefined && s.metadata.annotations[annotation.desired] !== want)
}

/** Sizes after a change of `replicas`, or while paused: each set keeps its share. */
export function scaleGoals(deployment: Deployment, newest: ReplicaSet | undefined, old: readonly ReplicaSet[]): Goals {
  const want = deployment.spec.replicas ?? 1
  const sets = [...(newest === undefined ? [] : [newest]), ...old]
  const active = sets.filter((s) => (s.spec.replicas ?? 1) > 0)
  if (active.length === 0) {
    const only = newest ?? old.toSorted(byAge).at(-1)
    return only === undefined ? [] : [[only, want]]
  }
  if (active.length === 1) return [[active[0]!, want]]
  if (newest !== undefined && newest.spec.replicas === want && (newest.status?.availableReplicas ?? 0) === want) return old.map((s) => [s, 0] as const)
  const { surge } = bounds(deployment)
  const allowed = want > 0 ? want + (deployment.spec.strategy?.type === 'Recreate' ? 0 : surge) : 0
  const total = active.reduce((n, s) => n + (s.spec.replicas ?? 1), 0)
  let left = allowed - total
  const grows = left > 0
  // The largest first; when growing, of equal ones the newest.
  const order = active.toSorted((a, b) => (b.spec.replicas ?? 1) - (a.spec.replicas ?? 1) || (grows ? -byAge(a, b) : byAge(a, b)))
  const goals = new Map<ReplicaSet, number>()
  for (const s of order) {
    const size = s.spec.replicas ?? 1
    const before = Number(s.metadata.annotations?.[annotation.most] ?? total) || total
    const share = left === 0 ? 0 : grows ? Math.max(0, Math.min(Math.round((size * allowed) / before) - size, left)) : Math.min(0, Math.max(Math.round((size * allowed) / before) - size, left, -size))
    goals.set(s, size + share)
    left -= share
  }
  const first = order[0]!
  goals.set(first, Math.max(0, goals.get(first)! + left))
  return [...goals]
}

/** How many Pods more and fewer than wanted there may be meanwhile. */
function bounds(deployment: Deployment): { readonly surge: number; readonly unavailable: number } {
  const want = deployment.spec.replicas ?? 1
  if (deployment.spec.strategy?.type === 'Recreate') return { surge: 0, unavailable: want }
  const { maxSurge = '25%', maxUnavailable = '25%' } = deployment.spec.strategy?.rollingUpdate ?? {}
  const surge = part(maxSurge, want, Math.ceil)
  const unavailable = Math.min(part(maxUnavailable, want, Math.floor), want)
  // With neither, nothing could ever move.
  return surge === 0 && unavailable === 0 ? { surge, unavailable: 1 } : { surge, unavailable }
}

function part(value: IntOrString, of: number, round: (n: number) => number): number {
  if (typeof value === 'number') return value
  return value.endsWith('%') ? round((Number(value.slice(0, -1)) * of) / 100) : Number(value) || 0
}

function notesFor(deployment: Deployment): Record<string, string> {
  const want = deployment.spec.replicas ?? 1
  return { [annotation.desired]: String(want), [annotation.most]: String(want + bounds(deployment).surge) }
}

function isComplete(deployment: Deployment, newest: ReplicaSet, old: readonly ReplicaSet[]): boolean {
  const want = deployment.spec.replicas ?? 1
  return (
    (newest.status?.replicas ?? 0) === want &&
    (newest.status?.availableReplicas ?? 0) >= want &&
    (newest.spec.replicas ?? 1) === want &&
    old.every((s) => (s.status?.replicas ?? 0) === 0 && (s.spec.replicas ?? 1) === 0)
  )
}

/** The status of a Deployment, and in how many milliseconds it would say something else if nothing changes. */
export function compileStatus(
  deployment: Deployment,
  newest: ReplicaSet | undefined,
  old: readonly ReplicaSet[],
  failure: Condition | undefined,
  now: number,
): { readonly status: NonNullable<Deployment['status']>; readonly next: number | undefined } {
  const want = deployment.spec.replicas ?? 1
  const sets = [...(newest === undefined ? [] : [newest]), ...old]
  const sum = (f: (s: ReplicaSet) => number): number => sets.reduce((n, s) => n + f(s), 0)
  const replicas = sum((s) => s.status?.replicas ?? 0)
  const availableReplicas = sum((s) => s.status?.availableReplicas ?? 0)
  const readyReplicas = sum((s) => s.status?.readyReplicas ?? 0)
  const updatedReplicas = newest?.status?.replicas ?? 0
  const unavailableReplicas = Math.max(0, sum((s) => s.spec.replicas ?? 1) - availableReplicas)
  const before = deployment.status ?? {}
  const conditions: Condition[] = []
  const time = timestamp(new Date(now))
  const put = (type: string, status: Condition['status'], reason: string, message: string, touched = false): void => {
    const was = before.conditions?.find((c) => c.type === type)
    if (was !== undefined && was.status === status && was.reason === reason && !touched) return void conditions.push(was)
    conditions.push({ type, status, reason, message, lastUpdateTime: time, lastTransitionTime: was?.status === status ? (was.lastTransitionTime ?? time) : time })
  }
  const enough = availableReplicas >= want - bounds(deployment).unavailable
  put(
    'Available',
    enough ? 'True' : 'False',
    enough ? 'MinimumReplicasAvailable' : 'MinimumReplicasUnavailable',
    enough ? 'Deployment has minimum availability.' : 'Deployment does not have minimum availability.',
  )

  let next: number | undefined
  const was = before.conditions?.find((c) => c.type === 'Progressing')
  const deadline = deployment.spec.progressDeadlineSeconds ?? 600
  if (newest !== undefined && isComplete(deployment, newest, old) && deployment.spec.paused !== true)
    put('Progressing', 'True', 'NewReplicaSetAvailable', `ReplicaSet "${newest.metadata.name}" has successfully progressed.`)
  else if (deployment.spec.paused === true) put('Progressing', 'Unknown', 'DeploymentPaused', 'Deployment is paused')
  else if (was === undefined) put('Progressing', 'True', 'NewReplicaSetCreated', `Created new replica set "${newest?.metadata.name ?? ''}"`)
  else if (was.reason === 'DeploymentPaused') put('Progressing', 'Unknown', 'DeploymentResumed', 'Deployment is resumed')
  else {
    const moved =
      updatedReplicas > (before.updatedReplicas ?? 0) ||
      availableReplicas > (before.availableReplicas ?? 0) ||
      readyReplicas > (before.readyReplicas ?? 0) ||
      replicas - updatedReplicas < (before.replicas ?? 0) - (before.updatedReplicas ?? 0) ||
      before.observedGeneration !== deployment.metadata.generation
    if (moved) put('Progressing', 'True', 'ReplicaSetUpdated', `ReplicaSet "${newest?.metadata.name ?? ''}" is progressing.`, true)
    else if (was.reason === 'NewReplicaSetAvailable' && was.status === 'True') conditions.push(was)
    else {
      const since = Date.parse(was.lastUpdateTime ?? was.lastTransitionTime ?? time)
      const left = since + deadline * 1000 - now
      if (left <= 0) put('Progressing', 'False', 'ProgressDeadlineExceeded', `ReplicaSet "${newest?.metadata.name ?? ''}" has timed out progressing.`)
      else {
        conditions.push(was)
        next = left + 10
      }
    }
  }
  const broken = failure ?? sets.flatMap((s) => s.status?.conditions ?? []).find((c) => c.type === 'ReplicaFailure')
  if (broken !== undefined) put('ReplicaFailure', 'True', broken.reason ?? '', broken.message ?? '')
  const order = (before.conditions ?? []).map((c) => c.type)
  conditions.sort((a, b) => (order.indexOf(a.type) < 0 ? 99 : order.indexOf(a.type)) - (order.indexOf(b.type) < 0 ? 99 : order.indexOf(b.type)))
  return {
    status: {
      replicas,
      updatedReplicas,
      readyReplicas,
      availableReplicas,
      unavailableReplicas,
      observedGeneration: deployment.metadata.generation ?? 0,
      ...(before.collisionCount === undefined ? {} : { collisionCount: before.collisionCount }),
      conditions,
    },
    next,
  }
}

function revisionOf(set: ReplicaSet): number {
  return Number(set.metadata.annotations?.[annotation.revision] ?? 0) || 0
}

function byAge(a: ReplicaSet, b: ReplicaSet): number {
  const [x, y] = [a.metadata.creationTimestamp ?? '', b.metadata.creationTimestamp ?? '']
  return x === y ? (a.metadata.name < b.metadata.name ? -1 : 1) : x < y ? -1 : 1
}

function referenceOf(deployment: Deployment): OwnerReference {
  return { apiVersion: 'apps/v1', kind: 'Deployment', name: deployment.metadata.name, uid: deployment.metadata.uid ?? '', controller: true, blockOwnerDeletion: true }
}

function withoutHash(template: PodTemplate | undefined): unknown {
  if (template === undefined) return undefined
  const { [hashLabel]: _, ...labels } = template.metadata?.labels ?? {}
  return { ...template, metadata: clean({ ...template.metadata, creationTimestamp: undefined, labels: Object.keys(labels).length === 0 ? undefined : labels }) }
}

/** A name for a template that is the same after every restart: a number whose digits are written so that they spell no word. */
function hashOf(template: PodTemplate, collisions: number): string {
  const number = createHash('sha256')
    .update(`${canonical(withoutHash(template))} ${collisions}`)
    .digest()
    .readUInt32BE()
  // At least seven digits, as everywhere else where such hashes are told from names.
  return String(number)
    .padStart(10, '1')
    .replace(/\d/g, (digit) => '456789bcdf'[Number(digit)]!)
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  return `{${Object.keys(value)
    .sort()
    .map((k) => `${k}:${canonical((value as Record<string, unknown>)[k])}`)
    .join()}}`
}

function clean<T extends object>(value: T): Partial<T> {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined && v !== 0)) as Partial<T>
}
