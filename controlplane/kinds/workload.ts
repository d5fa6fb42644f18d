import type { Json } from './decode.ts'
import { GoText, type FieldErrors } from './invalid.ts'
import { podDefaults, validatePodSpec } from './podspec.ts'
import { selects, validateAnnotations, validateLabels, validateLabelSelector } from './validate.ts'
import { equal } from '../../kube/patch.ts'

// What a ReplicaSet and a Deployment have in common.

/** Defaults of the Pods to make. */
export function templateDefaults(o: Json): void {
  podDefaults(o['spec'].template.spec)
  o['spec'].replicas ??= 1
}

const goMap = (m: Json | undefined): string =>
  m === undefined
    ? 'map[string]string(nil)'
    : `map[string]string{${Object.keys(m)
        .sort()
        .map((k) => `${JSON.stringify(k)}:${JSON.stringify(m[k])}`)
        .join(', ')}}`
const goList = (l: readonly string[] | undefined): string => (l === undefined ? '[]string(nil)' : `[]string{${l.map((x) => JSON.stringify(x)).join(', ')}}`)

/** A LabelSelector as Go prints it. */
export function goSelector(s: Json): GoText {
  const list: Json[] | undefined = s['matchExpressions']
  const requirements =
    list === undefined
      ? '[]v1.LabelSelectorRequirement(nil)'
      : `[]v1.LabelSelectorRequirement{${list.map((r) => `v1.LabelSelectorRequirement{Key:${JSON.stringify(r['key'])}, Operator:${JSON.stringify(r['operator'])}, Values:${goList(r['values'])}}`).join(', ')}}`
  return new GoText(`v1.LabelSelector{MatchLabels:${goMap(s['matchLabels'])}, MatchExpressions:${requirements}}`)
}

/** Checks replicas, selector and template; `kind` is as the texts name it. */
export function validateWorkload(o: Json, kind: string, errors: FieldErrors): void {
  const spec = o['spec']
  const { selector, template } = spec
  if (spec.replicas < 0) errors.invalid('spec.replicas', spec.replicas, 'must be greater than or equal to 0')
  if (selector === undefined) errors.required('spec.selector')
  else {
    validateLabelSelector(selector, 'spec.selector', errors)
    if (Object.keys(selector).length === 0) errors.invalid('spec.selector', goSelector(selector), `empty selector is invalid for ${kind}`)
  }
  const bad = ((selector?.matchExpressions ?? []) as Json[]).find((r) => !['In', 'NotIn', 'Exists', 'DoesNotExist'].includes(r['operator']))
  if (bad !== undefined) errors.invalid('spec.selector', goSelector(selector), 'invalid label selector')
  else {
    const labels: Json | undefined = template.metadata.labels
    if (selector === undefined || (Object.keys(selector).length > 0 && !selects(selector, labels)))
      errors.invalid('spec.template.metadata.labels', new GoText(goMap(labels)), '`selector` does not match template `labels`')
    validateLabels(labels, 'spec.template.labels', errors)
    validateAnnotations(template.metadata.annotations, 'spec.template.annotations', errors)
    validatePodSpec(template.spec, 'spec.template.spec', errors)
    if (template.spec.restartPolicy !== 'Always' && ['OnFailure', 'Never'].includes(template.spec.restartPolicy))
      errors.unsupported('spec.template.spec.restartPolicy', template.spec.restartPolicy, ['Always'])
    if (template.spec.activeDeadlineSeconds !== undefined)
      errors.forbidden('spec.template.spec.activeDeadlineSeconds', `activeDeadlineSeconds in ${kind === 'deployment' ? 'Deployment' : 'ReplicaSet'} is not Supported`)
  }
  if ((spec.minReadySeconds ?? 0) < 0) errors.invalid('spec.minReadySeconds', spec.minReadySeconds, 'must be greater than or equal to 0')
}

/** The selector stays what it was. */
export function selectorImmutable(now: Json, before: Json, errors: FieldErrors): void {
  if (!equal(now['spec'].selector, before['spec'].selector) && now['spec'].selector !== undefined) errors.invalid('spec.selector', goSelector(now['spec'].selector), 'field is immutable')
}

/** Counts in a status are never negative. */
export function validateCounts(status: Json, names: readonly string[], errors: FieldErrors): void {
  for (const n of names) if ((status[n] ?? 0) < 0) errors.invalid(`status.${n}`, status[n], 'must be greater than or equal to 0')
}

/** A LabelSelector in its text form, as the Scale subresource and tables show it. */
export function selectorText(s: Json | undefined): string {
  const parts = Object.entries((s?.['matchLabels'] ?? {}) as Record<string, string>).map(([k, v]) => `${k}=${v}`)
  for (const r of (s?.['matchExpressions'] ?? []) as Json[]) {
    const values = [...((r['values'] ?? []) as string[])].sort().join(',')
    parts.push(r['operator'] === 'In' ? `${r['key']} in (${values})` : r['operator'] === 'NotIn' ? `${r['key']} notin (${values})` : r['operator'] === 'Exists' ? r['key'] : `!${r['key']}`)
  }
  return parts.sort().join(',')
}

/** The columns at the right of a wide table. */
export function containerCells(o: Json): readonly string[] {
  const list = (o['spec'].template?.spec?.containers ?? []) as Json[]
  const text = selectorText(o['spec'].selector)
  return [list.map((c) => c['name']).join(','), list.map((c) => c['image']).join(','), text === '' ? '<none>' : text]
}
