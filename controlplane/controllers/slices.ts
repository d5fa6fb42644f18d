import { equal } from '../../kube/patch.ts'
import type { Draft, EndpointPort, EndpointSlice, ObjectMeta, SliceEndpoint } from '../../kube/objects.ts'

/** Endpoints that have the same ports and address family, and so may share slices. */
export interface Group {
  readonly addressType: EndpointSlice['addressType']
  readonly ports: readonly EndpointPort[]
  readonly endpoints: readonly SliceEndpoint[]
}

/** What every slice of one owner has alike. */
export interface SliceFacts {
  readonly metadata: Pick<ObjectMeta, 'labels' | 'ownerReferences'> & { readonly namespace: string; readonly generateName: string }
  readonly most: number
  /** When what is written now began to be true, if this is known. */
  readonly since?: string | undefined
}

/** What must be written so that the slices say what they should. */
export interface SlicePlan {
  readonly create: readonly Draft<EndpointSlice>[]
  readonly update: readonly EndpointSlice[]
  readonly remove: readonly EndpointSlice[]
}

/**
 * The changes that make `existing` hold exactly `groups`, with as few slices written as possible: an endpoint stays where it is, new
 * ones go into slices that are written anyway, then into one that has room for all of them, then into new ones.
 */
export function planSlices(groups: readonly Group[], existing: readonly EndpointSlice[], facts: SliceFacts): SlicePlan {
  const create: Draft<EndpointSlice>[] = []
  const update: EndpointSlice[] = []
  const remove: EndpointSlice[] = []
  const left = new Map<string, EndpointSlice[]>()
  for (const s of existing) {
    const key = groupKey(s.addressType, s.ports ?? [])
    const list = left.get(key)
    if (list === undefined) left.set(key, [s])
    else list.push(s)
  }
  for (const group of groups) {
    const key = groupKey(group.addressType, group.ports)
    const slices = left.get(key) ?? []
    left.delete(key)
    planGroup(group, slices, facts, { create, update, remove })
  }
  for (const slices of left.values()) remove.push(...slices)
  // A slice that goes while another of the same family comes is rewritten instead: nobody ever sees the Service without endpoints.
  for (let i = create.length - 1; i >= 0; i--) {
    const draft = create[i]!
    const at = remove.findIndex((s) => s.addressType === draft.addressType)
    if (at < 0) continue
    const old = remove.splice(at, 1)[0]!
    create.splice(i, 1)
    update.push({ ...old, metadata: rewritten(old, facts), endpoints: draft.endpoints, ports: draft.ports ?? [] })
  }
  return { create, update, remove }
}

interface Changes {
  readonly create: Draft<EndpointSlice>[]
  readonly update: EndpointSlice[]
  readonly remove: EndpointSlice[]
}

function planGroup(group: Group, existing: readonly EndpointSlice[], facts: SliceFacts, out: Changes): void {
  const wanted = new Map<string, SliceEndpoint>()
  for (const e of group.endpoints) wanted.set(identityOf(e), e)
  const kept: { slice: EndpointSlice; endpoints: SliceEndpoint[]; changed: boolean }[] = []
  for (const slice of existing.toSorted((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))) {
    const endpoints: SliceEndpoint[] = []
    let changed = !equal(slice.metadata.labels ?? {}, facts.metadata.labels ?? {}) || !sameOwners(slice, facts)
    for (const old of slice.endpoints) {
      const id = identityOf(old)
      const now = wanted.get(id)
      if (now === undefined) {
        changed = true
        continue
      }
      wanted.delete(id)
      if (equal(withoutEmpty(old), withoutEmpty(now))) endpoints.push(old)
      else {
        endpoints.push(now)
        changed = true
      }
    }
    kept.push({ slice, endpoints, changed })
  }
  const added = [...wanted.values()]
  for (const k of kept) {
    if (added.length === 0) break
    if (!k.changed) continue
    k.endpoints.push(...added.splice(0, Math.max(0, facts.most - k.endpoints.length)))
  }
  if (added.length > 0) {
    // Of those that have room for all the rest, the fullest.
    const roomy = kept.filter((k) => !k.changed && k.endpoints.length + added.length <= facts.most).toSorted((a, b) => b.endpoints.length - a.endpoints.length)[0]
    if (roomy !== undefined) {
      roomy.endpoints.push(...added.splice(0))
      roomy.changed = true
    }
  }
  while (added.length > 0) out.create.push(draft(group, added.splice(0, facts.most), facts))
  let filled = kept.filter((k) => k.endpoints.length > 0)
  if (filled.length === 0 && group.endpoints.length === 0) {
    // A Service without endpoints keeps one empty slice, which tells it from one that nobody looked at yet.
    if (kept.length === 0) out.create.push(draft(group, [], facts))
    else filled = [kept[0]!]
  }
  for (const k of kept) {
    if (!filled.includes(k)) out.remove.push(k.slice)
    else if (k.changed) {
      out.update.push({
        ...k.slice,
        metadata: rewritten(k.slice, facts),
        endpoints: k.endpoints,
        ports: group.ports,
      })
    }
  }
}

function draft(group: Group, endpoints: readonly SliceEndpoint[], facts: SliceFacts): Draft<EndpointSlice> {
  const { generateName, namespace, labels, ownerReferences } = facts.metadata
  const annotations = facts.since === undefined ? {} : { annotations: { [changeTime]: facts.since } }
  return { metadata: { generateName, namespace, labels: labels ?? {}, ...annotations, ownerReferences: ownerReferences ?? [] }, addressType: group.addressType, endpoints, ports: group.ports }
}

/** By this annotation proxies tell how long a change took to reach them. */
export const changeTime = 'endpoints.kubernetes.io/last-change-trigger-time'

function rewritten(slice: EndpointSlice, facts: SliceFacts): ObjectMeta {
  const { [changeTime]: _, ...others } = slice.metadata.annotations ?? {}
  const annotations = facts.since === undefined ? others : { ...others, [changeTime]: facts.since }
  return { ...slice.metadata, labels: facts.metadata.labels ?? {}, annotations, ownerReferences: facts.metadata.ownerReferences ?? [] }
}

/** What makes an endpoint the same one when its state changes: its address and the Pod behind it. */
function identityOf(e: SliceEndpoint): string {
  return `${e.addresses[0] ?? ''} ${e.targetRef?.uid ?? ''}`
}

function groupKey(addressType: string, ports: readonly EndpointPort[]): string {
  const texts = ports.map((p) => `${p.name ?? ''} ${p.protocol ?? 'TCP'} ${p.port ?? ''} ${p.appProtocol ?? ''}`)
  return `${addressType} ${texts.sort().join()}`
}

function sameOwners(slice: EndpointSlice, facts: SliceFacts): boolean {
  const owners = facts.metadata.ownerReferences ?? []
  return (slice.metadata.ownerReferences ?? []).length === owners.length && owners.every((o) => slice.metadata.ownerReferences?.some((p) => p.uid === o.uid) === true)
}

function withoutEmpty(e: SliceEndpoint): Record<string, unknown> {
  return Object.fromEntries(Object.entries(e).filter(([, v]) => v !== undefined && v !== null && v !== '' && !(typeof v === 'object' && Object.keys(v).length === 0)))
}
