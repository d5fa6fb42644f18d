import { types } from './schema.ts'
import { age, kind, nameColumn, text } from './kind.ts'

types(
  'networking.v1',
  `
IngressClass
  metadata 1 ObjectMeta
  spec 2 IngressClassSpec

IngressClassSpec
  controller 1 string
  parameters 2 *IngressClassParametersReference

IngressClassParametersReference
  apiGroup 1 *string
  kind! 2 string required
  name! 3 string required
  scope! 4 *string
  namespace 5 *string
`,
)

/** Which controller serves an Ingress. */
export const ingressclasses = kind({
  group: 'networking.k8s.io',
  kind: 'IngressClass',
  plural: 'ingressclasses',
  namespaced: false,
  description: 'Names the controller that serves the Ingresses of this class.',
  generation: true,
  defaults(o) {
    const p = o['spec'].parameters
    if (p !== undefined) p.scope ??= 'Cluster'
  },
  validate(o, errors) {
    const { controller, parameters } = o['spec']
    if ((controller ?? '') === '') errors.required('spec.controller')
    else if (controller.length > 250) errors.tooLong('spec.controller', 250)
    else if (!controller.includes('/')) errors.invalid('spec.controller', controller, 'must be a domain-prefixed path (such as "acme.io/foo")')
    if (parameters === undefined) return
    if (parameters.kind === '') errors.required('spec.parameters.kind', 'kind is required')
    if (parameters.name === '') errors.required('spec.parameters.name', 'name is required')
    if (parameters.scope !== 'Cluster' && parameters.scope !== 'Namespace') errors.unsupported('spec.parameters.scope', parameters.scope, ['Cluster', 'Namespace'])
    if (parameters.scope === 'Namespace' && (parameters.namespace ?? '') === '') errors.required('spec.parameters.namespace', "`parameters.scope` is set to 'Namespace'")
    if (parameters.scope === 'Cluster' && parameters.namespace !== undefined) errors.forbidden('spec.parameters.namespace', "`parameters.scope` is set to 'Cluster'")
  },
  validateUpdate(now, before, errors) {
    if (now['spec'].controller !== before['spec'].controller) errors.invalid('spec.controller', now['spec'].controller ?? '', 'field is immutable')
  },
  columns: [nameColumn, text('Controller'), text('Parameters'), text('Age')],
  cells(o, now) {
    const p = o['spec']?.parameters
    return [o['metadata'].name, o['spec']?.controller ?? '', p === undefined ? '<none>' : `${p.kind}${p.apiGroup === undefined ? '' : `.${p.apiGroup}`}/${p.name}`, age(o, now)]
  },
})
