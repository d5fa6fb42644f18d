import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { GoText, type FieldErrors } from './invalid.ts'
import { all, familyOf, label1035Trouble, validateBalancer, portNameTrouble, portTrouble, subdomainTrouble, wildcardTrouble } from './validate.ts'

types(
  'networking.v1',
  `
Ingress
  metadata 1 ObjectMeta
  spec 2 IngressSpec
  status 3 IngressStatus

IngressSpec
  ingressClassName 4 *string
  defaultBackend 1 *IngressBackend
  tls 2 []IngressTLS atomic
  rules 3 []IngressRule atomic

IngressStatus
  loadBalancer 1 IngressLoadBalancerStatus

IngressBackend
  service 4 *IngressServiceBackend
  resource 3 *TypedLocalObjectReference

IngressTLS
  hosts 1 []string atomic
  secretName 2 string

IngressRule
  host 1 string
  ...IngressRuleValue 2

IngressLoadBalancerStatus
  ingress 1 []IngressLoadBalancerIngress atomic

IngressServiceBackend
  name! 1 string required
  port 2 ServiceBackendPort

IngressRuleValue
  http 1 *HTTPIngressRuleValue

IngressLoadBalancerIngress
  ip 1 string
  hostname 2 string
  ports 4 []IngressPortStatus atomic

ServiceBackendPort atomic
  name 1 string
  number 2 int32

HTTPIngressRuleValue
  paths! 1 []HTTPIngressPath atomic required

IngressPortStatus
  port! 1 int32 required
  protocol! 2 string required enum=SCTP|TCP|UDP
  error 3 *string

HTTPIngressPath
  path 1 string
  pathType! 3 *string required enum=Exact|ImplementationSpecific|Prefix
  backend! 2 IngressBackend required
`,
)

const pathTypes = ['Exact', 'ImplementationSpecific', 'Prefix']

/** Routes from outside to Services. */
export const ingresses = kind({
  group: 'networking.k8s.io',
  kind: 'Ingress',
  plural: 'ingresses',
  namespaced: true,
  shortNames: ['ing'],
  description: 'Routes HTTP requests from outside to Services, by host and path.',
  status: true,
  generation: true,
  prepareCreate(o) {
    o['status'] = { loadBalancer: {} }
  },
  validate(o, errors) {
    const spec = o['spec']
    const rules = (spec.rules ?? []) as Json[]
    if (rules.length === 0 && spec.defaultBackend === undefined)
      errors.invalid('spec', new GoText(spec.rules === undefined ? '[]networking.IngressRule(nil)' : '[]networking.IngressRule{}'), 'either `defaultBackend` or `rules` must be specified')
    if (spec.defaultBackend !== undefined) backend(spec.defaultBackend, 'spec.defaultBackend', errors)
    rules.forEach((r, i) => {
      const at = `spec.rules[${i}]`
      const host = r['host'] ?? ''
      if (host !== '') {
        if (familyOf(host) !== undefined) errors.invalid(`${at}.host`, host, 'must be a DNS name, not an IP address')
        else all(errors, `${at}.host`, host, host.includes('*') ? wildcardTrouble(host) : subdomainTrouble(host))
      }
      if (r['http'] === undefined) return
      const paths = (r['http'].paths ?? []) as Json[]
      if (paths.length === 0) errors.required(`${at}.http.paths`)
      paths.forEach((p, j) => path(p, `${at}.http.paths[${j}]`, errors))
    })
    ;((spec.tls ?? []) as Json[]).forEach((t, i) => {
      ;((t['hosts'] ?? []) as string[]).forEach((h, j) => all(errors, `spec.tls[${i}].hosts[${j}]`, h, h.includes('*') ? wildcardTrouble(h) : subdomainTrouble(h)))
      if ((t['secretName'] ?? '') !== '') all(errors, `spec.tls[${i}].secretName`, t['secretName'], subdomainTrouble(t['secretName']))
    })
    if (spec.ingressClassName !== undefined) all(errors, 'spec.ingressClassName', spec.ingressClassName, subdomainTrouble(spec.ingressClassName))
    const old = o['metadata'].annotations?.['kubernetes.io/ingress.class']
    if (spec.ingressClassName !== undefined && old !== undefined && old !== spec.ingressClassName && o['metadata'].resourceVersion === undefined)
      errors.invalid('annotations.kubernetes.io/ingress.class', old, 'must match `ingressClassName` when both are specified')
  },
  validateStatus(now, _before, errors) {
    validateBalancer(now['status'].loadBalancer, 'status.loadBalancer', errors)
  },
  warnings(o) {
    return o['metadata'].annotations?.['kubernetes.io/ingress.class'] === undefined ? [] : ['annotation "kubernetes.io/ingress.class" is deprecated, please use \'spec.ingressClassName\' instead']
  },
  columns: [nameColumn, text('Class'), text('Hosts'), text('Address'), text('Ports'), text('Age')],
  cells(o, now) {
    const spec = o['spec'] ?? {}
    const hosts = ((spec.rules ?? []) as Json[]).map((r) => (r['host'] ?? '') as string)
    const named = hosts.filter((h) => h !== '')
    const shown = named.length === 0 ? '*' : `${named.slice(0, 3).join(',')}${named.length > 3 ? ` + ${named.length - 3} more...` : ''}`
    const addresses = ((o['status']?.loadBalancer?.ingress ?? []) as Json[]).map((i) => (i['ip'] ?? i['hostname'] ?? '') as string).filter((a) => a !== '')
    return [o['metadata'].name, spec.ingressClassName ?? '<none>', shown, addresses.join(','), spec.tls === undefined ? '80' : '80, 443', age(o, now)]
  },
})

function path(p: Json, at: string, errors: FieldErrors): void {
  const { pathType: type, path: text } = p
  if (type === undefined) errors.required(`${at}.pathType`, 'pathType must be specified')
  else if (!pathTypes.includes(type)) errors.unsupported(`${at}.pathType`, type, pathTypes)
  else if (type !== 'ImplementationSpecific') {
    if ((text ?? '') === '' || !text.startsWith('/')) errors.invalid(`${at}.path`, text ?? '', 'must be an absolute path')
    if ((text ?? '') !== '') {
      for (const bad of ['//', '/./', '/../', '%2f', '%2F']) if (text.includes(bad)) errors.invalid(`${at}.path`, text, `must not contain '${bad}'`)
      for (const bad of ['/..', '/.']) if (text.endsWith(bad)) errors.invalid(`${at}.path`, text, `cannot end with '${bad}'`)
    }
  } else if ((text ?? '') !== '' && !text.startsWith('/')) errors.invalid(`${at}.path`, text, 'must be an absolute path')
  backend(p['backend'], `${at}.backend`, errors)
}

function backend(b: Json, at: string, errors: FieldErrors): void {
  const { service, resource } = b
  if (resource !== undefined && service !== undefined) {
    errors.invalid(at, '', 'cannot set both resource and service backends')
    return
  }
  if (resource !== undefined) {
    if ((resource.kind ?? '') === '') errors.required(`${at}.resource.kind`)
    if ((resource.name ?? '') === '') errors.required(`${at}.resource.name`)
    return
  }
  if (service === undefined) {
    errors.invalid(at, '', 'resource or service backend is required')
    return
  }
  if ((service.name ?? '') === '') errors.required(`${at}.service.name`)
  else all(errors, `${at}.service.name`, service.name, label1035Trouble(service.name))
  const { name, number } = service.port ?? {}
  const named = (name ?? '') !== ''
  const numbered = (number ?? 0) !== 0
  if (named && numbered) errors.invalid(at, '', 'cannot set both port name & port number')
  else if (named) all(errors, `${at}.service.port.name`, name, portNameTrouble(name))
  else if (numbered) all(errors, `${at}.service.port.number`, number, portTrouble(number))
  else errors.required(at, 'port name or number is required')
}
