import { test } from 'tap'
import type { PodSpec } from '../../kube/objects.ts'
import { pod } from '../../kube/testing/builders.ts'
import { podStatus, type ContainerFacts } from './status.ts'

const now = Date.parse('2026-01-02T03:04:05Z')
const base = { restarts: 0, ready: false, started: false } as const
const running = (name = 'main', ready = true): ContainerFacts => ({ ...base, name, state: { kind: 'running', since: now }, ready, started: true })
const exited = (code: number, name = 'main'): ContainerFacts => ({ ...base, name, state: { kind: 'exited', code, began: now - 1000, ended: now } })
const waiting = (reason: string, last?: number): ContainerFacts => ({
  ...base,
  name: 'main',
  state: { kind: 'waiting', reason },
  last: last === undefined ? undefined : { code: last, began: now - 2000, ended: now - 1000 },
})

test('the phase of a Pod follows from its containers and its restart policy', async (t) => {
  const rows: readonly [string, Partial<PodSpec>, readonly ContainerFacts[], readonly ContainerFacts[], string, string][] = [
    ['nothing has begun', {}, [], [waiting('ContainerCreating')], 'Pending', 'False'],
    ['it runs and is ready', {}, [], [running()], 'Running', 'True'],
    ['it runs and is not ready', {}, [], [running('main', false)], 'Running', 'False'],
    ['it waits to be started again', {}, [], [waiting('CrashLoopBackOff', 1)], 'Running', 'False'],
    ['it ended well and starts again', { restartPolicy: 'Always' }, [], [exited(0)], 'Running', 'False'],
    ['it ended well', { restartPolicy: 'OnFailure' }, [], [exited(0)], 'Succeeded', 'False'],
    ['it failed and is tried again', { restartPolicy: 'OnFailure' }, [], [exited(1)], 'Running', 'False'],
    ['it failed', { restartPolicy: 'Never' }, [], [exited(1)], 'Failed', 'False'],
    ['one of two still runs', { restartPolicy: 'Never' }, [], [exited(1), running('other')], 'Running', 'False'],
    ['an init container runs', {}, [running('init')], [waiting('PodInitializing')], 'Pending', 'False'],
    ['an init container failed for good', { restartPolicy: 'Never' }, [exited(1, 'init')], [waiting('PodInitializing')], 'Failed', 'False'],
  ]
  for (const [name, spec, init, containers, phase, ready] of rows) {
    const status = podStatus(
      pod('demo/web', { spec: { ...spec, initContainers: init.map((c) => ({ name: c.name })) } }),
      { addresses: ['10.244.0.2'], hostIPs: ['192.168.56.11'], startTime: now, init, containers },
      now,
    )
    t.equal(status.phase, phase, name)
    t.equal(status.conditions?.find((c) => c.type === 'Ready')?.status, ready, `${name}: ready`)
  }
})

test('a condition keeps the time since when it holds', async (t) => {
  const facts = { addresses: ['10.244.0.2'], hostIPs: [], startTime: now, init: [], containers: [running()] }
  const first = podStatus(pod('demo/web'), facts, now)
  const web = { ...pod('demo/web'), status: { ...first, conditions: [...first.conditions!, { type: 'example.com/gate', status: 'True' as const }] } }
  const later = podStatus(web, { ...facts, containers: [running('main', false)] }, now + 60_000)
  const at = (type: string) => later.conditions?.find((c) => c.type === type)?.lastTransitionTime
  t.equal(at('Initialized'), '2026-01-02T03:04:05Z')
  t.equal(at('Ready'), '2026-01-02T03:05:05Z')
  t.ok(
    later.conditions?.some((c) => c.type === 'example.com/gate'),
    "others' conditions stay",
  )
})

test('a readiness gate that nobody opened keeps the Pod unready', async (t) => {
  const status = podStatus(
    pod('demo/web', { spec: { readinessGates: [{ conditionType: 'example.com/gate' }] } }),
    { addresses: [], hostIPs: [], startTime: now, init: [], containers: [running()] },
    now,
  )
  t.match(
    status.conditions?.find((c) => c.type === 'Ready'),
    { status: 'False', reason: 'ReadinessGatesNotReady' },
  )
  t.match(
    status.conditions?.find((c) => c.type === 'ContainersReady'),
    { status: 'True' },
  )
})
