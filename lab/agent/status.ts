import type { Condition, Container, ContainerStatus, Pod, PodStatus } from '../../kube/objects.ts'

/** What is known of one container of a Pod. Times are milliseconds since 1970. */
export interface ContainerFacts {
  readonly name: string
  readonly state:
    | { readonly kind: 'waiting'; readonly reason: string; readonly message?: string }
    | { readonly kind: 'running'; readonly since: number }
    | { readonly kind: 'exited'; readonly code: number; readonly began: number; readonly ended: number; readonly message?: string }
  /** How it ended before the present state. */
  readonly last?: { readonly code: number; readonly began: number; readonly ended: number } | undefined
  readonly id?: string | undefined
  readonly restarts: number
  /** Its readiness probe says so, or it runs and has none. */
  readonly ready: boolean
  /** Its startup probe has succeeded, or it runs and has none. */
  readonly started: boolean
}

/** Everything that the status of a Pod follows from. */
export interface PodFacts {
  readonly addresses: readonly string[]
  readonly hostIPs: readonly string[]
  readonly startTime: number | undefined
  readonly init: readonly ContainerFacts[]
  readonly containers: readonly ContainerFacts[]
  /** The Pod can never run, or was ended by the agent. */
  readonly failed?: { readonly reason: string; readonly message: string } | undefined
}

/** The status to report. Conditions that others set are kept, and so is the time since when one holds. */
export function podStatus(pod: Pod, facts: PodFacts, now: number): PodStatus {
  const phase = phaseOf(pod, facts)
  const initialized = facts.init.every((c) => c.state.kind === 'exited' && c.state.code === 0)
  const unready = facts.containers.filter((c) => !c.ready).map((c) => c.name)
  const done = phase === 'Succeeded' || phase === 'Failed'
  const gates = (pod.spec.readinessGates ?? []).filter((g) => pod.status?.conditions?.find((c) => c.type === g.conditionType)?.status !== 'True').map((g) => g.conditionType)
  const ready: Pick<Condition, 'status' | 'reason' | 'message'> = done
    ? { status: 'False', reason: phase === 'Succeeded' ? 'PodCompleted' : 'PodFailed' }
    : unready.length > 0
      ? { status: 'False', reason: 'ContainersNotReady', message: `containers with unready status: [${unready.join(' ')}]` }
      : { status: 'True' }
  const conditions: Pick<Condition, 'type' | 'status' | 'reason' | 'message'>[] = [
    { type: 'PodReadyToStartContainers', status: facts.addresses.length > 0 && !done ? 'True' : 'False' },
    initialized
      ? { type: 'Initialized', status: 'True', ...(phase === 'Succeeded' ? { reason: 'PodCompleted' } : {}) }
      : {
          type: 'Initialized',
          status: 'False',
          reason: 'ContainersNotInitialized',
          message: `containers with incomplete status: [${facts.init
            .filter((c) => c.state.kind !== 'exited' || c.state.code !== 0)
            .map((c) => c.name)
            .join(' ')}]`,
        },
    {
      type: 'Ready',
      ...(ready.status === 'True' && gates.length > 0 ? { status: 'False' as const, reason: 'ReadinessGatesNotReady', message: `the condition ${gates.join(', ')} is not True` } : ready),
    },
    { type: 'ContainersReady', ...ready },
    { type: 'PodScheduled', status: 'True' },
  ]
  const before = new Map((pod.status?.conditions ?? []).map((c) => [c.type, c]))
  const [hostIP] = facts.hostIPs
  const [podIP] = facts.addresses
  return {
    phase,
    conditions: [
      ...conditions.map((c) => {
        const old = before.get(c.type)
        return { ...c, lastTransitionTime: old?.status === c.status && old.lastTransitionTime !== undefined ? old.lastTransitionTime : time(now) }
      }),
      ...(pod.status?.conditions ?? []).filter((c) => !conditions.some((own) => own.type === c.type)),
    ],
    ...(facts.failed === undefined ? {} : facts.failed),
    ...(hostIP === undefined ? {} : { hostIP, hostIPs: facts.hostIPs.map((ip) => ({ ip })) }),
    ...(podIP === undefined ? {} : { podIP, podIPs: facts.addresses.map((ip) => ({ ip })) }),
    ...(facts.startTime === undefined ? {} : { startTime: time(facts.startTime) }),
    qosClass: qosClass(pod),
    ...(facts.init.length === 0 ? {} : { initContainerStatuses: facts.init.map((c) => containerStatus(pod.spec.initContainers ?? [], c, true)) }),
    containerStatuses: facts.containers.map((c) => containerStatus(pod.spec.containers, c, false)),
  }
}

function phaseOf(pod: Pod, facts: PodFacts): NonNullable<PodStatus['phase']> {
  if (facts.failed !== undefined) return 'Failed'
  const policy = pod.spec.restartPolicy ?? 'Always'
  if (policy === 'Never' && facts.init.some((c) => c.state.kind === 'exited' && c.state.code !== 0)) return 'Failed'
  const { containers } = facts
  if (containers.length > 0 && containers.every((c) => c.state.kind === 'exited') && policy !== 'Always') {
    if (containers.every((c) => c.state.kind === 'exited' && c.state.code === 0)) return 'Succeeded'
    if (policy === 'Never') return 'Failed'
  }
  // A container that has run once keeps the Pod Running, whatever happens to it later.
  const begun = (c: ContainerFacts): boolean => c.state.kind !== 'waiting' || c.last !== undefined
  return containers.length > 0 && containers.every(begun) ? 'Running' : 'Pending'
}

function containerStatus(specs: readonly Container[], c: ContainerFacts, init: boolean): ContainerStatus {
  const { state } = c
  const ended = (e: { readonly code: number; readonly began: number; readonly ended: number; readonly message?: string }) => ({
    terminated: {
      exitCode: e.code,
      reason: e.code === 0 ? 'Completed' : 'Error',
      ...(e.message === undefined ? {} : { message: e.message }),
      startedAt: time(e.began),
      finishedAt: time(e.ended),
      ...(c.id === undefined ? {} : { containerID: c.id }),
    },
  })
  return {
    name: c.name,
    image: specs.find((s) => s.name === c.name)?.image ?? '',
    imageID: '',
    ...(c.id === undefined ? {} : { containerID: c.id }),
    restartCount: c.restarts,
    ready: init ? state.kind === 'exited' && state.code === 0 : c.ready,
    started: c.started,
    state:
      state.kind === 'waiting'
        ? { waiting: { reason: state.reason, ...(state.message === undefined ? {} : { message: state.message }) } }
        : state.kind === 'running'
          ? { running: { startedAt: time(state.since) } }
          : ended(state),
    lastState: c.last === undefined ? {} : ended(c.last),
  }
}

function qosClass(pod: Pod): string {
  const all = [...(pod.spec.initContainers ?? []), ...pod.spec.containers]
  const resources = all.map((c) => c.resources ?? {})
  if (resources.every((r) => Object.keys(r.requests ?? {}).length === 0 && Object.keys(r.limits ?? {}).length === 0)) return 'BestEffort'
  return resources.every((r) => ['cpu', 'memory'].every((name) => r.limits?.[name] !== undefined && (r.requests?.[name] ?? r.limits[name]) === r.limits[name])) ? 'Guaranteed' : 'Burstable'
}

/** As the API writes times: to the second. */
export function time(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`
}
