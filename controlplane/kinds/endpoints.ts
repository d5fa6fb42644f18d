import { types } from './schema.ts'
import type { Json } from './decode.ts'
import type { FieldErrors } from './invalid.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { all, familyOf, labelTrouble, portTrouble, subdomainTrouble } from './validate.ts'

types(
  'core.v1',
  `
Endpoints
  metadata 1 ObjectMeta
  subsets 2 []EndpointSubset atomic

EndpointSubset
  addresses 1 []EndpointAddress atomic
  notReadyAddresses 2 []EndpointAddress atomic
  ports 3 []EndpointPort atomic

EndpointAddress atomic
  ip! 1 string required
  hostname 3 string
  nodeName 4 *string
  targetRef 2 *ObjectReference

EndpointPort atomic
  name 1 string
  port! 2 int32 required
  protocol 3 string
  appProtocol 4 *string
`,
)

const shown = 3

/** The addresses behind a Service, in one list. */
export const endpoints = kind({
  kind: 'Endpoints',
  plural: 'endpoints',
  singular: 'endpoints',
  namespaced: true,
  shortNames: ['ep'],
  description: 'The addresses behind a Service, in one list; kept for old clients, EndpointSlices hold the same in parts.',
  createOnUpdate: true,
  generation: false,
  defaults(o) {
    for (const subset of (o['subsets'] ?? []) as Json[]) for (const port of (subset['ports'] ?? []) as Json[]) port['protocol'] ??= 'TCP'
  },
  validate(o, errors) {
    ;((o['subsets'] ?? []) as Json[]).forEach((s, i) => {
      const at = `subsets[${i}]`
      const ready = (s['addresses'] ?? []) as Json[]
      const not = (s['notReadyAddresses'] ?? []) as Json[]
      if (ready.length === 0 && not.length === 0) errors.required(at, 'must specify `addresses` or `notReadyAddresses`')
      ready.forEach((a, j) => address(a, `${at}.addresses[${j}]`, errors))
      not.forEach((a, j) => address(a, `${at}.notReadyAddresses[${j}]`, errors))
      const ports = (s['ports'] ?? []) as Json[]
      ports.forEach((p, j) => {
        const path = `${at}.ports[${j}]`
        if (ports.length > 1 && (p['name'] ?? '') === '') errors.required(`${path}.name`)
        else if ((p['name'] ?? '') !== '') all(errors, `${path}.name`, p['name'], labelTrouble(p['name']))
        all(errors, `${path}.port`, p['port'], portTrouble(p['port']))
        if (!['TCP', 'UDP', 'SCTP'].includes(p['protocol'])) errors.unsupported(`${path}.protocol`, p['protocol'], ['SCTP', 'TCP', 'UDP'])
      })
    })
  },
  columns: [nameColumn, text('Endpoints'), text('Age')],
  cells: (o, now) => [o['metadata'].name, addresses(o), age(o, now)],
})

function address(a: Json, at: string, errors: FieldErrors): void {
  const { ip } = a
  if (familyOf(ip) === undefined) {
    errors.invalid(`${at}.ip`, ip, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)')
    errors.invalid(`${at}.ip`, ip, 'must be a valid IP address')
  } else {
    if (ip === '0.0.0.0' || ip === '::') errors.invalid(`${at}.ip`, ip, `may not be unspecified (${ip})`)
    if (ip.startsWith('127.') || ip === '::1') errors.invalid(`${at}.ip`, ip, 'may not be in the loopback range (127.0.0.0/8, ::1/128)')
    if (ip.startsWith('169.254.') || /^fe[89ab]/i.test(ip)) errors.invalid(`${at}.ip`, ip, 'may not be in the link-local range (169.254.0.0/16, fe80::/10)')
    if (ip.startsWith('224.0.0.') || /^ff02:/i.test(ip)) errors.invalid(`${at}.ip`, ip, 'may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)')
  }
  if (a['hostname'] !== undefined) all(errors, `${at}.hostname`, a['hostname'], labelTrouble(a['hostname']))
  if (a['nodeName'] !== undefined) all(errors, `${at}.nodeName`, a['nodeName'], subdomainTrouble(a['nodeName']))
}

function addresses(o: Json): string {
  const list: string[] = []
  for (const subset of (o['subsets'] ?? []) as Json[]) {
    const hosts = ((subset['addresses'] ?? []) as Json[]).map((a) => (a['ip'].includes(':') ? `[${a['ip']}]` : a['ip']))
    if (subset['ports'] === undefined) list.push(...((subset['addresses'] ?? []) as Json[]).map((a) => a['ip']))
    else for (const port of subset['ports'] as Json[]) for (const host of hosts) list.push(`${host}:${port['port']}`)
  }
  if (list.length === 0) return '<none>'
  return `${list.slice(0, shown).join(',')}${list.length > shown ? ` + ${list.length - shown} more...` : ''}`
}
