import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { all, familyOf, labelTrouble, subdomainTrouble } from './validate.ts'

types(
  'discovery.v1',
  `
EndpointSlice
  metadata 1 ObjectMeta
  addressType! 4 string required enum=FQDN|IPv4|IPv6
  endpoints! 2 []Endpoint atomic required
  ports! 3 []SliceEndpointPort atomic

Endpoint
  addresses! 1 []string set required
  conditions 2 EndpointConditions
  hostname 3 *string
  targetRef 4 *ObjectReference
  deprecatedTopology 5 {string}
  nodeName 6 *string
  zone 7 *string
  hints 8 *EndpointHints

SliceEndpointPort atomic as=EndpointPort
  name 1 *string
  protocol 2 *string
  port 3 *int32
  appProtocol 4 *string

EndpointConditions
  ready 1 *bool
  serving 2 *bool
  terminating 3 *bool

EndpointHints
  forZones 1 []ForZone atomic
  forNodes 2 []ForNode

ForZone
  name! 1 string required

ForNode
  name! 1 string
`,
)

const families = ['FQDN', 'IPv4', 'IPv6']

/** A part of the endpoints of a Service. */
export const endpointslices = kind({
  group: 'discovery.k8s.io',
  kind: 'EndpointSlice',
  plural: 'endpointslices',
  namespaced: true,
  description: 'A part of the endpoints of a Service: addresses, whether they are ready, and the ports they share.',
  generation: true,
  defaults(o) {
    for (const port of (o['ports'] ?? []) as Json[]) {
      port['name'] ??= ''
      port['protocol'] ??= 'TCP'
    }
  },
  validate(o, errors) {
    if (o['addressType'] === '') errors.required('addressType')
    else if (!families.includes(o['addressType'])) errors.unsupported('addressType', o['addressType'], families)
    const list = (o['endpoints'] ?? []) as Json[]
    if (list.length > 1000) errors.tooMany('endpoints', list.length, 1000)
    list.forEach((e, i) => {
      const at = `endpoints[${i}]`
      const addresses = (e['addresses'] ?? []) as string[]
      if (addresses.length === 0) errors.required(`${at}.addresses`, 'must contain at least 1 address')
      if (addresses.length > 100) errors.tooMany(`${at}.addresses`, addresses.length, 100)
      addresses.forEach((a, j) => {
        const path = `${at}.addresses[${j}]`
        if (o['addressType'] === 'IPv4' || o['addressType'] === 'IPv6') {
          if (familyOf(a) !== o['addressType']) errors.invalid(path, a, `must be a valid ${o['addressType']} address`)
          if (familyOf(a) === undefined) errors.invalid(path, a, 'must be a valid IP address')
          else if (familyOf(a) !== o['addressType']) return
          else forbidden(a, path, errors)
        }
      })
      if (e['nodeName'] !== undefined) all(errors, `${at}.nodeName`, e['nodeName'], subdomainTrouble(e['nodeName']))
      if (e['hostname'] !== undefined) all(errors, `${at}.hostname`, e['hostname'], labelTrouble(e['hostname']))
    })
    const names = new Set<string>()
    const ports = (o['ports'] ?? []) as Json[]
    if (ports.length > 20_000) errors.tooMany('ports', ports.length, 20_000)
    ports.forEach((p, i) => {
      const at = `ports[${i}]`
      if (p['name'] !== '') all(errors, `${at}.name`, p['name'], labelTrouble(p['name']))
      if (names.has(p['name'])) errors.duplicate(`${at}.name`, p['name'])
      names.add(p['name'])
      if (!['TCP', 'UDP', 'SCTP'].includes(p['protocol'])) errors.unsupported(`${at}.protocol`, p['protocol'], ['SCTP', 'TCP', 'UDP'])
    })
  },
  warnings: (o) => (o['addressType'] === 'FQDN' ? ['spec.addressType: FQDN endpoints are deprecated'] : []),
  immutableLast: true,
  validateUpdate(now, before, errors) {
    if (now['addressType'] !== before['addressType']) errors.invalid('addressType', now['addressType'], 'field is immutable')
  },
  columns: [nameColumn, text('AddressType'), text('Ports'), text('Endpoints'), text('Age')],
  cells: (o, now) => [o['metadata'].name, o['addressType'], ports(o), addresses(o), age(o, now)],
})

/** Addresses that may not be endpoints: they would let a Service reach the node itself. */
function forbidden(ip: string, path: string, errors: { invalid(path: string, value: unknown, detail: string): void }): void {
  if (ip === '0.0.0.0' || ip === '::') errors.invalid(path, ip, `may not be unspecified (${ip})`)
  if (ip.startsWith('127.') || ip === '::1') errors.invalid(path, ip, 'may not be in the loopback range (127.0.0.0/8, ::1/128)')
  if (ip.startsWith('169.254.') || /^fe[89ab]/i.test(ip)) errors.invalid(path, ip, 'may not be in the link-local range (169.254.0.0/16, fe80::/10)')
  if (ip.startsWith('224.0.0.') || /^ff02:/i.test(ip)) errors.invalid(path, ip, 'may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)')
}

function ports(o: Json): string {
  const list = (o['ports'] ?? []) as Json[]
  if (list.length === 0) return '<unset>'
  const texts = list.map((p) => (p['port'] === undefined ? 'any' : String(p['port'])))
  return `${texts.slice(0, 3).join(',')}${texts.length > 3 ? ` + ${texts.length - 3} more...` : ''}`
}

function addresses(o: Json): string {
  const list = ((o['endpoints'] ?? []) as Json[]).flatMap((e) => e['addresses'] as string[])
  if (list.length === 0) return '<unset>'
  return `${list.slice(0, 3).join(',')}${list.length > 3 ? ` + ${list.length - 3} more...` : ''}`
}
