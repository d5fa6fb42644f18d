import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { kind, since, text, type Kind } from './kind.ts'
import { all, qualifiedTrouble } from './validate.ts'

types(
  'core.v1',
  `
Event
  metadata! 1 ObjectMeta required
  involvedObject! 2 ObjectReference required
  reason 3 string
  message 4 string
  source 5 EventSource
  firstTimestamp 6 Time
  lastTimestamp 7 Time
  count 8 int32
  type 9 string
  eventTime 10 MicroTime
  series 11 *EventSeries
  action 12 string
  related 13 *ObjectReference
  reportingComponent! 14 string
  reportingInstance! 15 string

EventSource
  component 1 string
  host 2 string

EventSeries
  count 1 int32
  lastObservedTime 2 MicroTime
`,
)

types(
  'events.v1',
  `
EventsEvent as=Event
  metadata! 1 ObjectMeta
  eventTime! 2 MicroTime required
  series 3 *EventsEventSeries
  reportingController 4 string
  reportingInstance 5 string
  action 6 string
  reason 7 string
  regarding 8 ObjectReference
  related 9 *ObjectReference
  note 10 string
  type 11 string
  deprecatedSource 12 EventSource
  deprecatedFirstTimestamp 13 Time
  deprecatedLastTimestamp 14 Time
  deprecatedCount 15 int32

EventsEventSeries as=EventSeries
  count! 1 int32 required
  lastObservedTime! 2 MicroTime required
`,
)

const shared: Partial<Kind> & Pick<Kind, 'plural' | 'namespaced' | 'columns'> = {
  plural: 'events',
  namespaced: true,
  shortNames: ['ev'],
  createOnUpdate: true,
  ttl: 3600,
  selectorErrors: 'not supported',
  columns: [
    text('Last Seen'),
    text('Type'),
    text('Reason'),
    text('Object'),
    text('Subobject', true),
    text('Source', true),
    text('Message'),
    text('First Seen', true),
    text('Count', true),
    { name: 'Name', type: 'string', format: 'name', wide: true },
  ],
}

/** Something that happened. */
export const events = kind({
  ...shared,
  kind: 'Event',
  description: 'Something that happened to an object; kept for an hour.',
  selectable: selectable('involvedObject'),
  defaults: () => {},
  validate(o, errors) {
    const ns = o['involvedObject'].namespace ?? ''
    const own = o['metadata'].namespace
    if (ns === '' ? own !== 'default' && own !== 'kube-system' : ns !== own) errors.invalid('involvedObject.namespace', ns, 'does not match event.namespace')
  },
  cells: row,
})

/** The same objects under their newer group. */
export const newEvents = kind({
  ...shared,
  group: 'events.k8s.io',
  kind: 'Event',
  model: 'EventsEvent',
  description: 'Something that happened to an object; kept for an hour.',
  storedAs: { plural: 'events', read: fromCore, write: toCore },
  selectable: { ...selectable('regarding'), reason: (o) => o['reason'] ?? '', type: (o) => o['type'] ?? '' },
  validate(o, errors) {
    if (o['eventTime'] === null) return
    if ((o['reportingController'] ?? '') === '') errors.required('reportingController')
    all(errors, 'reportingController', o['reportingController'] ?? '', qualifiedTrouble(o['reportingController'] ?? ''))
    if ((o['reportingInstance'] ?? '') === '') errors.required('reportingInstance')
    if ((o['action'] ?? '') === '') errors.required('action')
    if ((o['reason'] ?? '') === '') errors.required('reason')
    if (o['type'] !== 'Normal' && o['type'] !== 'Warning') errors.invalid('type', '', `has invalid value: ${o['type'] ?? ''}`)
  },
  cells: (o, now) => row(toCore(o), now),
})

function selectable(object: string): Record<string, (o: Json) => string> {
  const out: Record<string, (o: Json) => string> = {
    reason: (o) => o['reason'] ?? '',
    type: (o) => o['type'] ?? '',
    reportingComponent: (o) => o['reportingComponent'] ?? o['reportingController'] ?? '',
    source: (o) => o['source']?.component ?? o['reportingComponent'] ?? '',
  }
  for (const field of ['kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath']) out[`${object}.${field}`] = (o) => o[object]?.[field] ?? ''
  return out
}

/** A stored (v1) Event as an events.k8s.io one. */
function fromCore(o: Json): Json {
  const { metadata, involvedObject, message, source, firstTimestamp, lastTimestamp, count, reportingComponent, reportingInstance, eventTime, series, action, related, reason, type } = o
  return prune({
    metadata,
    eventTime: eventTime ?? null,
    series,
    reportingController: reportingComponent === '' ? undefined : reportingComponent,
    reportingInstance: reportingInstance === '' ? undefined : reportingInstance,
    action,
    reason,
    regarding: involvedObject,
    related,
    note: message,
    type,
    deprecatedSource: source,
    deprecatedFirstTimestamp: firstTimestamp ?? null,
    deprecatedLastTimestamp: lastTimestamp ?? null,
    deprecatedCount: count,
  })
}

/** An events.k8s.io Event as it is stored (v1). */
function toCore(o: Json): Json {
  return prune({
    metadata: o['metadata'],
    involvedObject: o['regarding'] ?? {},
    reason: o['reason'],
    message: o['note'],
    source: o['deprecatedSource'] ?? {},
    firstTimestamp: o['deprecatedFirstTimestamp'] ?? null,
    lastTimestamp: o['deprecatedLastTimestamp'] ?? null,
    count: o['deprecatedCount'],
    type: o['type'],
    eventTime: o['eventTime'] ?? null,
    series: o['series'],
    action: o['action'],
    related: o['related'],
    reportingComponent: o['reportingController'] ?? '',
    reportingInstance: o['reportingInstance'] ?? '',
  })
}

function prune(o: Json): Json {
  for (const key of Object.keys(o)) if (o[key] === undefined) delete o[key]
  return o
}

function row(o: Json, now: number): unknown[] {
  const series = o['series']
  const first = o['firstTimestamp'] ?? o['eventTime']
  let last = o['lastTimestamp'] ?? first
  let count = (o['count'] ?? 0) as number
  if (series !== undefined) {
    last = series.lastObservedTime ?? last
    count = series.count
  } else if (count === 0) count = 1
  const { involvedObject: on, source } = o
  const target = on.name === undefined || on.name === '' ? String(on.kind ?? '').toLowerCase() : `${String(on.kind ?? '').toLowerCase()}/${on.name}`
  const component = source?.component ?? o['reportingComponent'] ?? ''
  const host = source?.host ?? o['reportingInstance'] ?? ''
  const from = host === '' ? component : `${component}, ${host}`
  return [since(last, now), o['type'] ?? '', o['reason'] ?? '', target, on.fieldPath ?? '', from, String(o['message'] ?? '').trim(), since(first, now), count, o['metadata'].name]
}
