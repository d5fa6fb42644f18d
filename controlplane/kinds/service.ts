import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { GoText, type FieldErrors } from './invalid.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { all, familyOf, label1035Trouble, labelTrouble, labelValueTrouble, portNameTrouble, portTrouble, qualifiedTrouble, subdomainTrouble, validateBalancer, validateLabels } from './validate.ts'

types(
  'core.v1',
  `
Service
  metadata 1 ObjectMeta
  spec 2 ServiceSpec
  status 3 ServiceStatus

ServiceSpec
  ports 1 []ServicePort merge=port map=port,protocol
  selector 2 {string} atomic
  clusterIP 3 string
  clusterIPs 18 []string atomic
  type 4 string enum=ClusterIP|ExternalName|LoadBalancer|NodePort
  externalIPs 5 []string atomic
  sessionAffinity 7 string enum=ClientIP|None
  loadBalancerIP 8 string
  loadBalancerSourceRanges 9 []string atomic
  externalName 10 string
  externalTrafficPolicy 11 string enum=Cluster|Local
  healthCheckNodePort 12 int32
  publishNotReadyAddresses 13 bool
  sessionAffinityConfig 14 *SessionAffinityConfig
  ipFamilies 19 []string atomic
  ipFamilyPolicy 17 *string enum=PreferDualStack|RequireDualStack|SingleStack
  allocateLoadBalancerNodePorts 20 *bool
  loadBalancerClass 21 *string
  internalTrafficPolicy 22 *string enum=Cluster|Local
  trafficDistribution 23 *string

ServiceStatus
  loadBalancer 1 LoadBalancerStatus
  conditions 2 []Condition merge=type map=type

ServicePort
  name 1 string
  protocol 2 string default=TCP enum=SCTP|TCP|UDP
  appProtocol 6 *string
  port! 3 int32 required
  targetPort 4 IntOrString
  nodePort 5 int32

SessionAffinityConfig
  clientIP 1 *ClientIPConfig

ClientIPConfig
  timeoutSeconds 1 *int32
`,
)

const protocols = ['SCTP', 'TCP', 'UDP']
const kinds = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort']

const usesNodePorts = (spec: Json): boolean => spec['type'] === 'NodePort' || (spec['type'] === 'LoadBalancer' && spec['allocateLoadBalancerNodePorts'] !== false)
const mayUseNodePorts = (spec: Json): boolean => spec['type'] === 'NodePort' || spec['type'] === 'LoadBalancer'
const external = (spec: Json): boolean => spec['type'] === 'NodePort' || spec['type'] === 'LoadBalancer' || (spec['externalIPs'] ?? []).length > 0
const needsHealthPort = (spec: Json): boolean => spec['type'] === 'LoadBalancer' && spec['externalTrafficPolicy'] === 'Local'

/** A stable address for a set of Pods. */
export const services = kind({
  kind: 'Service',
  plural: 'services',
  namespaced: true,
  shortNames: ['svc'],
  categories: ['all'],
  description: 'A stable address and name for a set of Pods.',
  subresources: [],
  status: true,
  nameRule: 'label1035',
  createOnUpdate: true,
  returnsDeleted: true,
  selectable: { 'spec.clusterIP': (o) => o['spec'].clusterIP ?? '', 'spec.type': (o) => o['spec'].type ?? '' },
  selectorErrors: 'not supported',
  defaults(o) {
    const spec = o['spec']
    spec.sessionAffinity ??= 'None'
    if (spec.sessionAffinity === 'None') delete spec.sessionAffinityConfig
    if (spec.sessionAffinity === 'ClientIP') {
      spec.sessionAffinityConfig ??= {}
      spec.sessionAffinityConfig.clientIP ??= {}
      spec.sessionAffinityConfig.clientIP.timeoutSeconds ??= 10_800
    }
    spec.type ??= 'ClusterIP'
    for (const p of (spec.ports ?? []) as Json[]) {
      p['protocol'] ??= 'TCP'
      if ((p['targetPort'] ?? 0) === 0 || p['targetPort'] === '') p['targetPort'] = p['port'] ?? 0
    }
    if (external(spec)) spec.externalTrafficPolicy ??= 'Cluster'
    if (spec.type !== 'ExternalName') spec.internalTrafficPolicy ??= 'Cluster'
    if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true
    for (const i of (o['status']?.loadBalancer?.ingress ?? []) as Json[]) if (i['ip'] !== undefined) i['ipMode'] ??= 'VIP'
  },
  prepareCreate(o) {
    o['status'] = { loadBalancer: {} }
    settle(o['spec'], undefined)
  },
  prepareUpdate(now, before) {
    const spec = now['spec']
    const old = before['spec']
    // What the server chose stays when a client that did not know it writes the object back.
    if (spec.type !== 'ExternalName' && old.type !== 'ExternalName') {
      if ((spec.clusterIP ?? '') === '') spec.clusterIP = old.clusterIP
      if ((spec.clusterIPs ?? []).length === 0 && spec.clusterIP === old.clusterIP) spec.clusterIPs = old.clusterIPs
    }
    if (mayUseNodePorts(spec) && mayUseNodePorts(old)) {
      const had = new Map(((old.ports ?? []) as Json[]).map((p) => [`${p['protocol']}/${p['port']}`, p['nodePort']]))
      const used = new Set(((spec.ports ?? []) as Json[]).map((p) => p['nodePort']).filter((p) => p !== undefined && p !== 0))
      for (const p of (spec.ports ?? []) as Json[]) {
        const port = had.get(`${p['protocol']}/${p['port']}`)
        if ((p['nodePort'] ?? 0) === 0 && port !== undefined && !used.has(port)) p['nodePort'] = port
      }
    }
    if (needsHealthPort(spec) && needsHealthPort(old)) spec.healthCheckNodePort ??= old.healthCheckNodePort
    settle(spec, old)
    if (spec.type !== 'LoadBalancer' && old.type === 'LoadBalancer') now['status'] = { ...now['status'], loadBalancer: {} }
  },
  validate,
  validateUpdate(now, before, errors) {
    const spec = now['spec']
    const old = before['spec']
    if (old.type !== 'ExternalName' && spec.type !== 'ExternalName' && old.clusterIP !== undefined && old.clusterIP !== '') {
      const had: string[] = old.clusterIPs ?? [old.clusterIP]
      const has: string[] = spec.clusterIPs ?? ((spec.clusterIP ?? '') === '' ? [] : [spec.clusterIP])
      if ((had[0] ?? '') !== (has[0] ?? '')) errors.invalid('spec.clusterIPs[0]', has, 'may not change once set')
    }
    if (needsHealthPort(old) && needsHealthPort(spec) && (old.healthCheckNodePort ?? 0) !== (spec.healthCheckNodePort ?? 0)) errors.forbidden('spec.healthCheckNodePort', 'field is immutable')
    if (old.loadBalancerClass !== spec.loadBalancerClass && old.type === 'LoadBalancer' && spec.type === 'LoadBalancer')
      errors.invalid('spec.loadBalancerClass', spec.loadBalancerClass, 'may not change once set')
  },
  validateStatus(now, _before, errors) {
    if (now['spec'].type !== 'LoadBalancer' && (now['status'].loadBalancer?.ingress ?? []).length > 0)
      errors.forbidden('status.loadBalancer.ingress', "may only be used when `spec.type` is 'LoadBalancer'")
    validateBalancer(now['status'].loadBalancer, 'status.loadBalancer', errors)
  },
  warnings(o) {
    const out: string[] = []
    const spec = o['spec']
    if (spec.sessionAffinity === 'ClientIP' && spec.clusterIP === 'None') out.push('spec.SessionAffinity is ignored for headless services')
    return out
  },
  columns: [nameColumn, text('Type'), text('Cluster-IP'), text('External-IP'), text('Port(s)'), text('Age'), text('Selector', true)],
  cells(o, now) {
    const spec = o['spec'] ?? {}
    const ports = ((spec.ports ?? []) as Json[]).map((p) => `${p['port']}${(p['nodePort'] ?? 0) > 0 ? `:${p['nodePort']}` : ''}/${p['protocol']}`).join(',')
    const selector = Object.entries((spec.selector ?? {}) as Record<string, string>)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([k, v]) => `${k}=${v}`)
      .join(',')
    return [
      o['metadata'].name,
      spec.type,
      (spec.clusterIPs ?? [])[0] ?? (spec.clusterIP || '<none>'),
      externalIP(o),
      ports === '' ? '<none>' : ports,
      age(o, now),
      selector === '' ? '<none>' : selector,
    ]
  },
})

function externalIP(o: Json): string {
  const spec = o['spec']
  const extra = (spec.externalIPs ?? []) as string[]
  switch (spec.type) {
    case 'LoadBalancer': {
      const given = [...new Set(((o['status']?.loadBalancer?.ingress ?? []) as Json[]).map((i) => (i['ip'] ?? i['hostname']) as string))].sort()
      const joined = given.join(',')
      const shown = [...(joined === '' ? [] : [joined]), ...extra]
      return shown.length === 0 ? '<pending>' : shown.join(',')
    }
    case 'ExternalName':
      return spec.externalName ?? ''
    default:
      return extra.length === 0 ? '<none>' : extra.join(',')
  }
}

/** Brings the fields that depend on the type in line with it. */
function settle(spec: Json, old: Json | undefined): void {
  const { type } = spec
  // clusterIP and clusterIPs[0] are the same thing twice; who was changed wins.
  if (type !== 'ExternalName') {
    const ips: string[] | undefined = spec['clusterIPs']
    if (old === undefined) {
      if ((spec['clusterIP'] ?? '') !== '' && (ips ?? []).length === 0) spec['clusterIPs'] = [spec['clusterIP']]
    } else {
      const changed = (spec['clusterIP'] ?? '') !== (old['clusterIP'] ?? '')
      const listChanged = JSON.stringify(ips ?? []) !== JSON.stringify(old['clusterIPs'] ?? [])
      if (changed && !listChanged) {
        if ((spec['clusterIP'] ?? '') === '') delete spec['clusterIPs']
        else spec['clusterIPs'] = [spec['clusterIP']]
      } else if (listChanged && !changed && (ips ?? []).length > 0 && type !== old['type'] && (spec['clusterIP'] ?? '') === '') spec['clusterIP'] = ips![0]
    }
  }
  if (old === undefined) return
  const left = (was: (s: Json) => boolean, field: string): void => {
    if (was(old) && !was(spec) && JSON.stringify(spec[field]) === JSON.stringify(old[field])) delete spec[field]
  }
  if (old['type'] !== 'ExternalName' && type === 'ExternalName') {
    if (spec['clusterIP'] === old['clusterIP']) {
      delete spec['clusterIP']
      delete spec['clusterIPs']
    }
    if (JSON.stringify(spec['ipFamilies']) === JSON.stringify(old['ipFamilies'])) delete spec['ipFamilies']
    if (spec['ipFamilyPolicy'] === old['ipFamilyPolicy']) delete spec['ipFamilyPolicy']
    if (spec['internalTrafficPolicy'] === old['internalTrafficPolicy']) delete spec['internalTrafficPolicy']
  }
  if (mayUseNodePorts(old) && !mayUseNodePorts(spec)) {
    const had = new Set(((old['ports'] ?? []) as Json[]).map((p) => p['nodePort']))
    for (const p of (spec['ports'] ?? []) as Json[]) if (had.has(p['nodePort'])) delete p['nodePort']
  }
  left(needsHealthPort, 'healthCheckNodePort')
  left((s) => s['type'] === 'LoadBalancer', 'allocateLoadBalancerNodePorts')
  left((s) => s['type'] === 'LoadBalancer', 'loadBalancerClass')
  left(external, 'externalTrafficPolicy')
}

function validate(o: Json, errors: FieldErrors): void {
  const spec = o['spec']
  const ports = (spec.ports ?? []) as Json[]
  const headless = spec.clusterIP === 'None'
  if (ports.length === 0 && !headless && spec.type !== 'ExternalName') errors.required('spec.ports')
  switch (spec.type) {
    case 'LoadBalancer':
      ports.forEach((p, i) => {
        if (p['port'] === 10_250) errors.invalid(`spec.ports[${i}].port`, 10_250, 'may not expose port 10250 externally since it is used by kubelet')
      })
      if (headless) errors.invalid('spec.clusterIPs[0]', 'None', "may not be set to 'None' for LoadBalancer services")
      break
    case 'NodePort':
      if (headless) errors.invalid('spec.clusterIPs[0]', 'None', "may not be set to 'None' for NodePort services")
      break
    case 'ExternalName': {
      const ips: string[] = spec.clusterIPs ?? (spec.clusterIP === undefined ? [] : [spec.clusterIP])
      if (ips.length > 0) errors.forbidden('spec.clusterIPs', 'may not be set for ExternalName services')
      const name = String(spec.externalName ?? '').replace(/\.$/, '')
      if (name === '') errors.required('spec.externalName')
      else all(errors, 'spec.externalName', name, subdomainTrouble(name))
    }
  }
  const one = ports.length === 1
  const names = new Set<string>()
  const lines = new Set<string>()
  ports.forEach((p, i) => {
    const at = `spec.ports[${i}]`
    const name = p['name'] ?? ''
    if (!one && name === '') errors.required(`${at}.name`)
    else if (name !== '') {
      all(errors, `${at}.name`, name, labelTrouble(name))
      if (names.has(name)) errors.duplicate(`${at}.name`, name)
      else names.add(name)
    }
    all(errors, `${at}.port`, p['port'], portTrouble(p['port']))
    if (!protocols.includes(p['protocol'])) errors.unsupported(`${at}.protocol`, p['protocol'], protocols)
    const target = p['targetPort']
    if (typeof target === 'number') all(errors, `${at}.targetPort`, target, portTrouble(target))
    else all(errors, `${at}.targetPort`, target, portNameTrouble(target))
    if (p['appProtocol'] !== undefined) all(errors, `${at}.appProtocol`, p['appProtocol'], qualifiedTrouble(p['appProtocol']))
  })
  if (spec.selector !== undefined) validateLabels(spec.selector, 'spec.selector', errors)
  if (spec.sessionAffinity !== 'ClientIP' && spec.sessionAffinity !== 'None') errors.unsupported('spec.sessionAffinity', spec.sessionAffinity, ['ClientIP', 'None'])
  if (spec.sessionAffinity === 'ClientIP') {
    const seconds = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds
    if (seconds === undefined) errors.required('spec.sessionAffinityConfig', "must not be empty when `sessionAffinity` is 'ClientIP'")
    else if (seconds <= 0 || seconds > 86_400) errors.invalid('spec.sessionAffinityConfig.clientIP.timeoutSeconds', seconds, 'must be greater than 0 and less than 86400')
  } else if (spec.sessionAffinityConfig !== undefined) errors.forbidden('spec.sessionAffinityConfig', "must not be set when session affinity is 'None'")
  addresses(spec, errors)
  ;((spec.externalIPs ?? []) as string[]).forEach((ip, i) => {
    const at = `spec.externalIPs[${i}]`
    if (familyOf(ip) === undefined) errors.invalid(at, ip, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)')
    else {
      if (ip === '0.0.0.0' || ip === '::') errors.invalid(at, ip, `may not be unspecified (${ip})`)
      if (ip.startsWith('127.') || ip === '::1') errors.invalid(at, ip, 'may not be in the loopback range (127.0.0.0/8, ::1/128)')
      if (ip.startsWith('169.254.') || /^fe[89ab]/i.test(ip)) errors.invalid(at, ip, 'may not be in the link-local range (169.254.0.0/16, fe80::/10)')
      if (ip.startsWith('224.0.0.') || /^ff02:/i.test(ip)) errors.invalid(at, ip, 'may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)')
    }
  })
  if ((spec.type ?? '') === '') errors.required('spec.type')
  else if (!kinds.includes(spec.type)) errors.unsupported('spec.type', spec.type, kinds)
  if (spec.type === 'ClusterIP')
    ports.forEach((p, i) => {
      if ((p['nodePort'] ?? 0) !== 0) errors.forbidden(`spec.ports[${i}].nodePort`, "may not be used when `type` is 'ClusterIP'")
    })
  const taken = new Set<string>()
  ports.forEach((p, i) => {
    if ((p['nodePort'] ?? 0) === 0) return
    const id = `${p['protocol']}/${p['nodePort']}`
    if (taken.has(id)) errors.invalid(`spec.ports[${i}].nodePort`, p['nodePort'], 'provided port is already allocated')
    taken.add(id)
  })
  ports.forEach((p, i) => {
    const id = `${p['protocol']}/${p['port']}`
    if (lines.has(id))
      errors.duplicate(
        `spec.ports[${i}]`,
        new GoText(
          `core.ServicePort{Name:"", Protocol:${JSON.stringify(p['protocol'])}, AppProtocol:(*string)(nil), Port:${p['port']}, TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:""}, NodePort:0}`,
        ),
      )
    lines.add(id)
  })
  if ((spec.loadBalancerSourceRanges ?? []).length > 0) {
    if (spec.type !== 'LoadBalancer') errors.forbidden('spec.LoadBalancerSourceRanges', "may only be used when `type` is 'LoadBalancer'")
    ;(spec.loadBalancerSourceRanges as string[]).forEach((r, i) => {
      const [ip, bits] = r.trim().split('/')
      const family = familyOf(ip ?? '')
      if (family === undefined || !/^\d+$/.test(bits ?? '') || Number(bits) > (family === 'IPv4' ? 32 : 128))
        errors.invalid(`spec.LoadBalancerSourceRanges[${i}]`, r, 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)')
    })
  }
  if (spec.type === 'LoadBalancer') {
    if (spec.allocateLoadBalancerNodePorts === undefined) errors.required('spec.allocateLoadBalancerNodePorts')
  } else if (spec.allocateLoadBalancerNodePorts !== undefined) errors.forbidden('spec.allocateLoadBalancerNodePorts', "may only be used when `type` is 'LoadBalancer'")
  if (spec.loadBalancerClass !== undefined) {
    if (spec.type !== 'LoadBalancer') errors.forbidden('spec.loadBalancerClass', "may only be used when `type` is 'LoadBalancer'")
    else all(errors, 'spec.loadBalancerClass', spec.loadBalancerClass, qualifiedTrouble(spec.loadBalancerClass))
  }
  const { externalTrafficPolicy: policy, internalTrafficPolicy: inside, healthCheckNodePort: health } = spec
  if (!external(spec) && policy !== undefined) errors.invalid('spec.externalTrafficPolicy', policy, 'may only be set for externally-accessible services')
  if (external(spec)) {
    if (policy === undefined) errors.required('spec.externalTrafficPolicy')
    else if (policy !== 'Cluster' && policy !== 'Local') errors.unsupported('spec.externalTrafficPolicy', policy, ['Cluster', 'Local'])
  }
  if (needsHealthPort(spec)) {
    if (health !== undefined && health < 0) errors.invalid('spec.healthCheckNodePort', health, 'must be greater than or equal to 0')
  } else if ((health ?? 0) !== 0) errors.invalid('spec.healthCheckNodePort', health, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")
  if (spec.type !== 'ExternalName') {
    if (inside === undefined) errors.required('spec.internalTrafficPolicy')
    else if (inside !== 'Cluster' && inside !== 'Local') errors.unsupported('spec.internalTrafficPolicy', inside, ['Cluster', 'Local'])
  }
  if (spec.trafficDistribution !== undefined && !['PreferClose', 'PreferSameZone', 'PreferSameNode'].includes(spec.trafficDistribution))
    errors.unsupported('spec.trafficDistribution', spec.trafficDistribution, ['PreferClose', 'PreferSameNode', 'PreferSameZone'])
  void label1035Trouble
  void labelValueTrouble
  void usesNodePorts
}

function addresses(spec: Json, errors: FieldErrors): void {
  if (spec['type'] === 'ExternalName') return
  const ips: string[] = spec['clusterIPs'] ?? []
  const ip: string = spec['clusterIP'] ?? ''
  if (ips.length > 0 && ip === '') errors.required('spec.clusterIP', 'must be set when `clusterIPs` is specified')
  if (ips.length > 0 && ip !== '' && ips[0] !== ip) errors.invalid('spec.clusterIPs', ips, 'first value must match `clusterIP`')
  const families: string[] = spec['ipFamilies'] ?? []
  families.forEach((f, i) => {
    if (f !== 'IPv4' && f !== 'IPv6') errors.unsupported(`spec.ipFamilies[${i}]`, f, ['IPv4', 'IPv6'])
    if (families.indexOf(f) !== i) errors.duplicate(`spec.ipFamilies[${i}]`, f)
  })
  const policy = spec['ipFamilyPolicy']
  if (policy !== undefined && !['SingleStack', 'PreferDualStack', 'RequireDualStack'].includes(policy))
    errors.unsupported('spec.ipFamilyPolicy', policy, ['PreferDualStack', 'RequireDualStack', 'SingleStack'])
  ips.forEach((a, i) => {
    if (a === 'None') {
      if (ips.length > 1) errors.invalid(`spec.clusterIPs[${i}]`, a, "may not be set to 'None' in a list of more than one")
      return
    }
    if (familyOf(a) === undefined) errors.invalid(`spec.clusterIPs[${i}]`, a, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)')
  })
  if (ips.length > 2) errors.invalid('spec.clusterIPs', ips, 'may only hold up to 2 values')
  if (ips.length === 2 && familyOf(ips[0]!) === familyOf(ips[1]!)) errors.invalid('spec.clusterIPs', ips, 'may specify no more than one IP for each IP family')
}
