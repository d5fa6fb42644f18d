import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { age, kind, nameColumn, text } from './kind.ts'

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
  columns: [nameColumn, text('Endpoints'), text('Age')],
  cells: (o, now) => [o['metadata'].name, addresses(o), age(o, now)],
})

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
