import type { Json } from './decode.ts'
import { GoText, type FieldErrors } from './invalid.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { types } from './schema.ts'
import { containerCells, selectorImmutable, templateDefaults, validateCounts, validateWorkload } from './workload.ts'

types(
  'apps.v1',
  `
Deployment
  metadata 1 ObjectMeta
  spec 2 DeploymentSpec
  status 3 DeploymentStatus

DeploymentSpec
  replicas 1 *int32
  selector! 2 *LabelSelector required
  template! 3 PodTemplateSpec required
  strategy 4 DeploymentStrategy retain
  minReadySeconds 5 int32
  revisionHistoryLimit 6 *int32
  paused 7 bool
  progressDeadlineSeconds 9 *int32

DeploymentStatus
  observedGeneration 1 int64
  replicas 2 int32
  updatedReplicas 3 int32
  readyReplicas 7 int32
  availableReplicas 4 int32
  unavailableReplicas 5 int32
  conditions 6 []DeploymentCondition merge=type map=type
  collisionCount 8 *int32

DeploymentStrategy
  type 1 string
  rollingUpdate 2 *RollingUpdateDeployment

DeploymentCondition
  type! 1 string required
  status! 2 string required
  lastUpdateTime 6 Time
  lastTransitionTime 7 Time
  reason 4 string
  message 5 string

RollingUpdateDeployment
  maxUnavailable 1 *IntOrString
  maxSurge 2 *IntOrString
`,
)

const percent = /^\d+%$/

/** Replaces Pods by newer ones, some at a time. */
export const deployments = kind({
  group: 'apps',
  kind: 'Deployment',
  plural: 'deployments',
  namespaced: true,
  shortNames: ['deploy'],
  categories: ['all'],
  description: 'Keeps a number of equal Pods running, and replaces them step by step when their description changes.',
  status: true,
  scale: true,
  generation: true,
  generationOfAnnotations: true,
  immutableLast: true,
  defaults(o) {
    templateDefaults(o)
    const { spec } = o as { spec: Json }
    spec['strategy'].type ??= 'RollingUpdate'
    if (spec['strategy'].type === 'RollingUpdate') {
      spec['strategy'].rollingUpdate ??= {}
      spec['strategy'].rollingUpdate.maxUnavailable ??= '25%'
      spec['strategy'].rollingUpdate.maxSurge ??= '25%'
    }
    spec['revisionHistoryLimit'] ??= 10
    spec['progressDeadlineSeconds'] ??= 600
  },
  prepareCreate(o) {
    o['status'] = {}
  },
  validate(o, errors) {
    validateWorkload(o, 'deployment', errors)
    const { strategy, revisionHistoryLimit, progressDeadlineSeconds, minReadySeconds } = o['spec']
    const { type, rollingUpdate } = strategy
    if (type === 'Recreate') {
      if (rollingUpdate !== undefined) errors.forbidden('spec.strategy.rollingUpdate', "may not be specified when strategy `type` is 'Recreate'")
    } else if (type === 'RollingUpdate') {
      const { maxSurge, maxUnavailable } = rollingUpdate
      // The unavailable ones first, as Kubernetes looks at them.
      step('spec.strategy.rollingUpdate.maxUnavailable', maxUnavailable, errors)
      step('spec.strategy.rollingUpdate.maxSurge', maxSurge, errors)
      if (zero(maxSurge) && zero(maxUnavailable)) errors.invalid('spec.strategy.rollingUpdate.maxUnavailable', go(maxUnavailable), 'may not be 0 when `maxSurge` is 0')
      if (typeof maxUnavailable === 'string' && percent.test(maxUnavailable) && Number.parseInt(maxUnavailable, 10) > 100)
        errors.invalid('spec.strategy.rollingUpdate.maxUnavailable', go(maxUnavailable), 'must not be greater than 100%')
    } else errors.unsupported('spec.strategy', new GoText(`apps.DeploymentStrategy{Type:${JSON.stringify(type)}, RollingUpdate:(*apps.RollingUpdateDeployment)(nil)}`), ['Recreate', 'RollingUpdate'])
    if (revisionHistoryLimit < 0) errors.invalid('spec.revisionHistoryLimit', revisionHistoryLimit, 'must be greater than or equal to 0')
    if (progressDeadlineSeconds < 0) errors.invalid('spec.progressDeadlineSeconds', progressDeadlineSeconds, 'must be greater than or equal to 0')
    if ((minReadySeconds ?? 0) >= 0 && progressDeadlineSeconds > 0 && progressDeadlineSeconds <= (minReadySeconds ?? 0))
      errors.invalid('spec.progressDeadlineSeconds', progressDeadlineSeconds, 'must be greater than minReadySeconds')
  },
  validateUpdate: selectorImmutable,
  validateStatus: (now, _before, errors) => validateCounts(now['status'], ['observedGeneration', 'replicas', 'updatedReplicas', 'readyReplicas', 'availableReplicas', 'unavailableReplicas'], errors),
  columns: [nameColumn, text('Ready'), text('Up-to-date'), text('Available'), text('Age'), text('Containers', true), text('Images', true), text('Selector', true)],
  cells: (o, now) => [
    o['metadata'].name,
    `${o['status']?.readyReplicas ?? 0}/${o['spec'].replicas ?? 0}`,
    o['status']?.updatedReplicas ?? 0,
    o['status']?.availableReplicas ?? 0,
    age(o, now),
    ...containerCells(o),
  ],
})

const zero = (v: number | string): boolean => v === 0 || v === '0%'
const go = (v: number | string): GoText =>
  new GoText(typeof v === 'number' ? `intstr.IntOrString{Type:0, IntVal:${v}, StrVal:""}` : `intstr.IntOrString{Type:1, IntVal:0, StrVal:${JSON.stringify(v)}}`)

function step(path: string, v: number | string, errors: FieldErrors): void {
  if (typeof v === 'number') {
    if (v < 0) errors.invalid(path, v, 'must be greater than or equal to 0')
  } else if (!percent.test(v)) errors.invalid(path, go(v), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')")
}
