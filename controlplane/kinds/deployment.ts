import type { Json } from './decode.ts'
import { GoText, type FieldErrors } from './invalid.ts'
import { age, kind, nameColumn, number, text } from './kind.ts'
import { podDefaults, validatePodSpec } from './podspec.ts'
import type { Json } from './decode.ts'
import { GoText, type FieldErrors } from './invalid.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { types } from './schema.ts'
import { containerCells, selectorImmutable, templateDefaults, validateCounts, validateWorkload } from './workload.ts'
import { immutable, selects, validateAnnotations, validateLabels, validateLabelSelector } from './validate.ts'
import { same } from '../api/patch.ts'

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


/** Pods of one template, rolled out step by step when the template changes. */
export const deployments = kind({
  group: 'apps',
  kind: 'Deployment',
  plural: 'deployments',
  namespaced: true,
  shortNames: ['deploy'],
  categories: ['all'],
  description: 'A number of Pods of one template; a changed template replaces them step by step.',
  status: true,
  scale: true,
  generation: true,
  defaults(o) {
    const { spec } = o as { spec: Json }
    spec['replicas'] ??= 1
    spec['revisionHistoryLimit'] ??= 10
    spec['progressDeadlineSeconds'] ??= 600
    spec['strategy'] ??= {}
    const strategy = spec['strategy'] as Json
    strategy['type'] ??= 'RollingUpdate'
    if (strategy['type'] === 'RollingUpdate') {
      strategy['rollingUpdate'] ??= {}
      strategy['rollingUpdate'].maxUnavailable ??= '25%'
      strategy['rollingUpdate'].maxSurge ??= '25%'
    }
    templateDefaults(spec)
  },
  prepareCreate(o) {
    o['status'] = {}
  },
  validate(o, errors) {
    const { spec } = o as { spec: Json }
    validateScaled(spec, 'deployment', errors)
    for (const name of ['minReadySeconds', 'revisionHistoryLimit', 'progressDeadlineSeconds']) notNegative(spec[name], `spec.${name}`, errors)
    if (spec['progressDeadlineSeconds'] <= (spec['minReadySeconds'] ?? 0)) errors.invalid('spec.progressDeadlineSeconds', spec['progressDeadlineSeconds'], 'must be greater than minReadySeconds')
    const { type, rollingUpdate } = spec['strategy'] as Json
    if (type === 'Recreate') {
      if (rollingUpdate !== undefined) errors.forbidden('spec.strategy.rollingUpdate', "may not be specified when strategy `type` is 'Recreate'")
    } else if (type === 'RollingUpdate') {
      const at = 'spec.strategy.rollingUpdate'
      for (const name of ['maxUnavailable', 'maxSurge']) amountOrPart(rollingUpdate[name], `${at}.${name}`, errors)
      if (zero(rollingUpdate.maxUnavailable) && zero(rollingUpdate.maxSurge)) errors.invalid(`${at}.maxUnavailable`, rollingUpdate.maxUnavailable, 'may not be 0 when `maxSurge` is 0')
      if (typeof rollingUpdate.maxUnavailable === 'string' && Number.parseInt(rollingUpdate.maxUnavailable, 10) > 100) errors.invalid(`${at}.maxUnavailable`, rollingUpdate.maxUnavailable, 'must not be greater than 100%')
    } else errors.unsupported('spec.strategy.type', type, ['Recreate', 'RollingUpdate'])
  },
  validateUpdate(now, before, errors) {
    if (!same(now['spec'].selector, before['spec'].selector)) immutable(errors, 'spec.selector', new GoText(goSelector(now['spec'].selector)))
  },
  columns: [nameColumn, text('Ready'), number('Up-to-date'), number('Available'), text('Age'), text('Containers', true), text('Images', true), text('Selector', true)],
  cells(o, now) {
    const { spec, status = {} } = o as { spec: Json; status?: Json }
    return [o['metadata'].name, `${status['readyReplicas'] ?? 0}/${spec['replicas'] ?? 0}`, status['updatedReplicas'] ?? 0, status['availableReplicas'] ?? 0, age(o, now), ...templateCells(spec)]
  },
})

/** The defaults of the Pods that a `template` makes. */
export function templateDefaults(spec: Json): void {
  if (spec['template'] === undefined) return
  spec['template'].spec ??= {}
  podDefaults(spec['template'].spec)
}

/** What ReplicaSets and Deployments demand alike of `replicas`, `selector` and `template`. */
export function validateScaled(spec: Json, what: string, errors: FieldErrors): void {
  notNegative(spec['replicas'], 'spec.replicas', errors)
  const { selector, template } = spec as { selector?: Json; template?: Json }
  if (selector === undefined) errors.required('spec.selector')
  else {
    validateLabelSelector(selector, 'spec.selector', errors)
    if (Object.keys(selector['matchLabels'] ?? {}).length + (selector['matchExpressions'] ?? []).length === 0) errors.invalid('spec.selector', new GoText(goSelector(selector)), `empty selector is invalid for ${what}`)
  }
  if (template === undefined) return errors.required('spec.template')
  const labels = template['metadata']?.labels as Record<string, string> | undefined
  if (selector !== undefined && !selects(selector, labels)) errors.invalid('spec.template.metadata.labels', new GoText(goMap(labels ?? {})), '`selector` does not match template `labels`')
  validateLabels(labels, 'spec.template.labels', errors)
  validateAnnotations(template['metadata']?.annotations, 'spec.template.annotations', errors)
  validatePodSpec(template['spec'], 'spec.template.spec', errors)
  if (template['spec'].restartPolicy !== 'Always') errors.unsupported('spec.template.spec.restartPolicy', template['spec'].restartPolicy, ['Always'])
  if (template['spec'].activeDeadlineSeconds !== undefined) errors.forbidden('spec.template.spec.activeDeadlineSeconds', 'activeDeadlineSeconds in ReplicaSet is not Supported')
}

/** The last columns: what runs, and how it is chosen. */
export function templateCells(spec: Json): readonly string[] {
  const containers = (spec['template']?.spec?.containers ?? []) as Json[]
  return [containers.map((c) => c['name']).join(','), containers.map((c) => c['image'] ?? '').join(','), selectorText(spec['selector'])]
}

/** A LabelSelector in the short form that kubectl shows. */
export function selectorText(selector: Json | undefined): string {
  const words: [string, string][] = Object.entries((selector?.['matchLabels'] ?? {}) as Record<string, string>).map(([k, v]) => [k, `${k}=${v}`])
  for (const r of (selector?.['matchExpressions'] ?? []) as Json[]) {
    const { key, operator, values = [] } = r as { key: string; operator: string; values?: string[] }
    const list = values.toSorted().join(',')
    words.push([key, operator === 'In' ? `${key} in (${list})` : operator === 'NotIn' ? `${key} notin (${list})` : operator === 'Exists' ? key : `!${key}`])
  }
  return words.length === 0 ? '<none>' : words.toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, w]) => w).join(',')
}

export function notNegative(value: number | undefined, path: string, errors: FieldErrors): void {
  if (value !== undefined && value < 0) errors.invalid(path, value, 'must be greater than or equal to 0')
}

function amountOrPart(value: unknown, path: string, errors: FieldErrors): void {
  if (typeof value === 'number') notNegative(value, path, errors)
  else if (typeof value === 'string' && !/^\d+%$/.test(value)) errors.invalid(path, value, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%', or '93%', regex used for validation is '[0-9]+%')")
}

function zero(value: unknown): boolean {
  return value === 0 || value === '0%'
}

function goMap(labels: Readonly<Record<string, string>>): string {
  return `map[string]string{${Object.entries(labels).toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([k, v]) => `${JSON.stringify(k)}:${JSON.stringify(v)}`).join(', ')}}`
}

/** A LabelSelector as an error text shows it. */
export function goSelector(selector: Json | undefined): string {
  return JSON.stringify({ ...(selector?.['matchLabels'] === undefined ? {} : { matchLabels: selector['matchLabels'] }), ...(selector?.['matchExpressions'] === undefined ? {} : { matchExpressions: selector['matchExpressions'] }) })
}
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
      if (typeof maxUnavailable === 'string' && percent.test(maxUnavailable) && Number.parseInt(maxUnavailable, 10) > 100) errors.invalid('spec.strategy.rollingUpdate.maxUnavailable', go(maxUnavailable), 'must not be greater than 100%')
    } else errors.unsupported('spec.strategy', new GoText(`apps.DeploymentStrategy{Type:${JSON.stringify(type)}, RollingUpdate:(*apps.RollingUpdateDeployment)(nil)}`), ['Recreate', 'RollingUpdate'])
    if (revisionHistoryLimit < 0) errors.invalid('spec.revisionHistoryLimit', revisionHistoryLimit, 'must be greater than or equal to 0')
    if (progressDeadlineSeconds < 0) errors.invalid('spec.progressDeadlineSeconds', progressDeadlineSeconds, 'must be greater than or equal to 0')
    if ((minReadySeconds ?? 0) >= 0 && progressDeadlineSeconds > 0 && progressDeadlineSeconds <= (minReadySeconds ?? 0)) errors.invalid('spec.progressDeadlineSeconds', progressDeadlineSeconds, 'must be greater than minReadySeconds')
  },
  validateUpdate: selectorImmutable,
  validateStatus: (now, _before, errors) => validateCounts(now['status'], ['observedGeneration', 'replicas', 'updatedReplicas', 'readyReplicas', 'availableReplicas', 'unavailableReplicas'], errors),
  columns: [nameColumn, text('Ready'), text('Up-to-date'), text('Available'), text('Age'), text('Containers', true), text('Images', true), text('Selector', true)],
  cells: (o, now) => [o['metadata'].name, `${o['status']?.readyReplicas ?? 0}/${o['spec'].replicas ?? 0}`, o['status']?.updatedReplicas ?? 0, o['status']?.availableReplicas ?? 0, age(o, now), ...containerCells(o)],
})

const zero = (v: number | string): boolean => v === 0 || v === '0%'
const go = (v: number | string): GoText => new GoText(typeof v === 'number' ? `intstr.IntOrString{Type:0, IntVal:${v}, StrVal:""}` : `intstr.IntOrString{Type:1, IntVal:0, StrVal:${JSON.stringify(v)}}`)

function step(path: string, v: number | string, errors: FieldErrors): void {
  if (typeof v === 'number') {
    if (v < 0) errors.invalid(path, v, 'must be greater than or equal to 0')
  } else if (!percent.test(v)) errors.invalid(path, go(v), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')")
}
