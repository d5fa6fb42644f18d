import type { Json } from './decode.ts'
import { age, humanDuration, kind, nameColumn, text } from './kind.ts'
import { amount, containersOf, podDefaults, validatePodSpec } from './podspec.ts'
import { familyOf } from './validate.ts'
import { equal } from '../../kube/patch.ts'

/** Programs that run together on one node. */
export const pods = kind({
  kind: 'Pod',
  plural: 'pods',
  namespaced: true,
  shortNames: ['po'],
  categories: ['all'],
  description: 'Programs that run together on one node and share its network address.',
  status: true,
  subresources: [
    { name: 'binding', verbs: ['create'], kind: 'Binding' },
    { name: 'eviction', verbs: ['create'], kind: 'Eviction', group: 'policy', version: 'v1' },
    { name: 'exec', verbs: ['create', 'get'], kind: 'PodExecOptions' },
    { name: 'log', verbs: ['get'], kind: 'Pod' },
  ],
  returnsDeleted: true,
  grace: (o) => o['spec'].terminationGracePeriodSeconds ?? 30,
  selectable: {
    'spec.nodeName': (o) => o['spec'].nodeName ?? '',
    'spec.restartPolicy': (o) => o['spec'].restartPolicy ?? '',
    'spec.schedulerName': (o) => o['spec'].schedulerName ?? '',
    'spec.serviceAccountName': (o) => o['spec'].serviceAccountName ?? '',
    'spec.hostNetwork': (o) => String(o['spec'].hostNetwork ?? false),
    'status.phase': (o) => o['status']?.phase ?? '',
    'status.podIP': (o) => o['status']?.podIP ?? '',
    'status.podIPs': (o) => o['status']?.podIP ?? '',
    'status.nominatedNodeName': (o) => o['status']?.nominatedNodeName ?? '',
  },
  selectorErrors: 'not supported',
  defaults(o) {
    podDefaults(o['spec'])
    o['spec'].enableServiceLinks ??= true
    // Whoever limits a resource and asks for none asks for the limit: decided for a Pod, not for its template.
    for (const c of containersOf(o['spec']))
      for (const [name, limit] of Object.entries(c['resources']?.limits ?? {})) {
        c['resources'].requests ??= {}
        c['resources'].requests[name] ??= limit
      }
    if (o['status']?.podIP !== undefined && o['status'].podIPs === undefined) o['status'].podIPs = [{ ip: o['status'].podIP }]
  },
  prepareCreate(o) {
    o['status'] = { phase: 'Pending', qosClass: quality(o['spec']) }
  },
  validate(o, errors) {
    validatePodSpec(o['spec'], 'spec', errors)
  },
  validateUpdate(now, before, errors) {
    const mutable = (o: Json): Json => {
      const s: Json = structuredClone(o['spec'])
      for (const c of containersOf(s)) delete c['image']
      if (now['spec'].activeDeadlineSeconds !== undefined) delete s['activeDeadlineSeconds']
      delete s['tolerations']
      delete s['ephemeralContainers']
      if (now['spec'].terminationGracePeriodSeconds === 1 && before['spec'].terminationGracePeriodSeconds < 0) delete s['terminationGracePeriodSeconds']
      return s
    }
    const [deadline, was] = [now['spec'].activeDeadlineSeconds, before['spec'].activeDeadlineSeconds]
    if (deadline !== undefined && was !== undefined && deadline > was) errors.invalid('spec.activeDeadlineSeconds', deadline, 'must be less than or equal to previous value')
    const [a, b] = [mutable(now), mutable(before)]
    if (a['containers'].length !== b['containers'].length) errors.forbidden('spec.containers', 'pod updates may not add or remove containers')
    else if (!equal(a, b))
      errors.forbidden(
        'spec',
        'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n',
      )
  },
  validateStatus(now, _before, errors) {
    ;((now['status'].podIPs ?? []) as Json[]).forEach((p, i) => {
      if (familyOf(p['ip'] ?? '') === undefined) errors.invalid(`status.podIPs[${i}]`, p['ip'] ?? '', 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)')
    })
  },
  prepareStatus(now, before) {
    if (before['status']?.qosClass !== undefined) now['status'].qosClass = before['status'].qosClass
  },
  columns: [nameColumn, text('Ready'), text('Status'), text('Restarts'), text('Age'), text('IP', true), text('Node', true), text('Nominated Node', true), text('Readiness Gates', true)],
  cells(o, now) {
    const { ready, total, reason, restarts, lastRestart } = state(o)
    const again = restarts !== 0 && lastRestart !== undefined ? `${restarts} (${humanDuration(now - lastRestart)} ago)` : String(restarts)
    const gates = (o['spec'].readinessGates ?? []) as Json[]
    const met = gates.filter((g) => ((o['status']?.conditions ?? []) as Json[]).some((c) => c['type'] === g['conditionType'] && c['status'] === 'True')).length
    const or = (v: string | undefined): string => (v === undefined || v === '' ? '<none>' : v)
    return [
      o['metadata'].name,
      `${ready}/${total}`,
      reason,
      again,
      age(o, now),
      or(o['status']?.podIPs?.[0]?.ip),
      or(o['spec'].nodeName),
      or(o['status']?.nominatedNodeName),
      gates.length === 0 ? '<none>' : `${met}/${gates.length}`,
    ]
  },
})

/** The word in the Status column, and the counts beside it. */
function state(o: Json): { readonly ready: number; readonly total: number; readonly reason: string; readonly restarts: number; readonly lastRestart: number | undefined } {
  const status = o['status'] ?? {}
  let reason: string = status.phase ?? ''
  if ((status.reason ?? '') !== '') reason = status.reason
  if (((status.conditions ?? []) as Json[]).some((c) => c['type'] === 'PodScheduled' && c['reason'] === 'SchedulingGated')) reason = 'SchedulingGated'
  let ready = 0
  let restarts = 0
  let lastRestart: number | undefined
  let initializing = false
  const total = (o['spec'].containers ?? []).length
  const noteRestart = (c: Json): void => {
    restarts += c['restartCount'] ?? 0
    const at = c['lastState']?.terminated?.finishedAt
    if (at !== undefined && at !== null) lastRestart = Math.max(lastRestart ?? 0, Date.parse(at))
  }
  const inits = (status.initContainerStatuses ?? []) as Json[]
  for (let i = 0; i < inits.length; i++) {
    const c = inits[i]!
    noteRestart(c)
    const { terminated, waiting } = c['state'] ?? {}
    if (terminated !== undefined && (terminated.exitCode ?? 0) === 0) continue
    if (terminated !== undefined)
      reason = (terminated.reason ?? '') === '' ? ((terminated.signal ?? 0) !== 0 ? `Init:Signal:${terminated.signal}` : `Init:ExitCode:${terminated.exitCode}`) : `Init:${terminated.reason}`
    else if (waiting?.reason !== undefined && waiting.reason !== 'PodInitializing') reason = `Init:${waiting.reason}`
    else reason = `Init:${i}/${(o['spec'].initContainers ?? []).length}`
    initializing = true
    break
  }
  if (!initializing) {
    restarts = 0
    let running = false
    for (const c of [...((status.containerStatuses ?? []) as Json[])].reverse()) {
      noteRestart(c)
      const { terminated, waiting, running: runs } = c['state'] ?? {}
      if (waiting !== undefined && (waiting.reason ?? '') !== '') reason = waiting.reason
      else if (terminated !== undefined)
        reason = (terminated.reason ?? '') !== '' ? terminated.reason : (terminated.signal ?? 0) !== 0 ? `Signal:${terminated.signal}` : `ExitCode:${terminated.exitCode ?? 0}`
      else if (c['ready'] === true && runs !== undefined) {
        running = true
        ready++
      }
    }
    if (reason === 'Completed' && running) reason = ((status.conditions ?? []) as Json[]).some((c) => c['type'] === 'Ready' && c['status'] === 'True') ? 'Running' : 'NotReady'
  }
  if (o['metadata'].deletionTimestamp !== undefined) reason = status.reason === 'NodeLost' ? 'Unknown' : ['Succeeded', 'Failed'].includes(status.phase) ? reason : 'Terminating'
  return { ready, total, reason, restarts, lastRestart }
}

function quality(spec: Json): string {
  let guaranteed = true
  let any = false
  for (const c of containersOf(spec)) {
    const { requests = {}, limits = {} } = c['resources'] ?? {}
    for (const name of ['cpu', 'memory']) {
      if (requests[name] !== undefined && amount(requests[name]) > 0) any = true
      if (limits[name] !== undefined && amount(limits[name]) > 0) any = true
      if (limits[name] === undefined || requests[name] !== limits[name]) guaranteed = false
    }
  }
  return !any ? 'BestEffort' : guaranteed ? 'Guaranteed' : 'Burstable'
}
