import type { EndpointSlice, Ingress, KubeObject, Namespace, Pod, Service } from '../kube/objects.ts'
import { keyOf } from '../kube/resources.ts'
import { compileNamespace, compilePod, compileService, compileZone, type ZoneSettings } from './compile.ts'
import { serviceNameLabel } from './reduce.ts'
import { RecordTable } from './table.ts'
import type { Name } from './wire/name.ts'

/** The kinds of objects that have names. */
export interface Kinds {
  readonly service: Service
  readonly slice: EndpointSlice
  readonly namespace: Namespace
  readonly pod: Pod
  readonly ingress: Ingress
}
export type Kind = keyof Kinds

/** One set of zones over the cluster's objects, and the table kept for it. */
export interface ClusterZone {
  readonly settings: ZoneSettings
  readonly table: RecordTable
}

export interface ClusterOptions {
  /** Addresses this server is asked at, until a Service kube-system/kube-dns says better. */
  readonly self?: readonly string[]
  /** Runs `f` soon, after other work that waits. */
  readonly soon?: (f: () => void) => void
  /** Told after names changed. */
  readonly changed?: (zone: ClusterZone, names: readonly Name[], source: string) => void
  readonly now?: () => number
}

/** Milliseconds that compiling may hold up questions before it lets them through. */
const turn = 5

/**
 * The objects of a cluster as they are now, whoever brings them (mirrors, a file, a test), and the record tables that are kept for them.
 * Changes are gathered for a turn of the event loop; only what they touch is compiled again.
 */
export class Cluster {
  readonly objects: { readonly [K in Kind]: Map<string, Kinds[K]> } = { service: new Map(), slice: new Map(), namespace: new Map(), pod: new Map(), ingress: new Map() }
  readonly zones: ClusterZone[] = []
  readonly #slices = new Map<string, Map<string, EndpointSlice>>()
  /** Pods by address, but for those that share their node's. */
  readonly #podAt = new Map<string, string>()
  readonly #told = new Set<Kind>()
  readonly #listeners = new Map<Kind, Set<() => void>>()
  readonly #dirty = { service: new Set<string>(), namespace: new Set<string>(), pod: new Set<string>() }
  #options: ClusterOptions
  #self: readonly string[]
  #scheduled = false
  /** Objects have been read once, or a kept table was loaded: what is missing does not exist. */
  complete = false
  /** What is served comes from a file and has not been confirmed by the API server. */
  stale = false

  constructor(options: ClusterOptions = {}) {
    this.#options = options
    this.#self = options.self ?? []
  }

  /** Adds zones with a table of their own; all objects there are go into it at once. */
  addZone(settings: ZoneSettings): ClusterZone {
    const zone: ClusterZone = { settings, table: new RecordTable(this.#options.now) }
    this.zones.push(zone)
    zone.table.put('zone', compileZone(settings, this.#addresses()))
    for (const n of this.objects.namespace.values()) zone.table.put(`namespace ${n.metadata.name}`, compileNamespace(settings, n))
    for (const [key, s] of this.objects.service) zone.table.put(`service ${key}`, compileService(settings, s, this.slicesOf(key)))
    for (const [key, p] of this.objects.pod) zone.table.put(`pod ${key}`, compilePod(settings, p))
    return zone
  }

  removeZone(zone: ClusterZone): void {
    const i = this.zones.indexOf(zone)
    if (i >= 0) this.zones.splice(i, 1)
  }

  /** The slices of a Service, in the order of their names. */
  slicesOf(service: string): EndpointSlice[] {
    const slices = this.#slices.get(service)
    return slices === undefined ? [] : [...slices].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, s]) => s)
  }

  /** An object came, changed, or went (`now` undefined). */
  put<K extends Kind>(kind: K, now: Kinds[K] | undefined, before: Kinds[K] | undefined): void {
    const key = keyOf((now ?? before) as KubeObject)
    const map = this.objects[kind] as Map<string, KubeObject>
    const old = map.get(key)
    if (now === undefined) map.delete(key)
    else map.set(key, now)
    switch (kind) {
      case 'service':
        this.#dirty.service.add(key)
        break
      case 'slice': {
        const was = ownerOf(old)
        const is = ownerOf(now)
        if (was !== undefined && was !== is) this.#forget(was, key)
        if (is !== undefined) {
          let all = this.#slices.get(is)
          if (all === undefined) this.#slices.set(is, (all = new Map()))
          all.set(key, now as EndpointSlice)
          this.#dirty.service.add(is)
        }
        break
      }
      case 'namespace':
        this.#dirty.namespace.add(key)
        break
      case 'pod':
        this.#dirty.pod.add(key)
        this.#place(key, old as Pod | undefined, now as Pod | undefined)
        break
      case 'ingress':
        this.#told.add(kind)
    }
    this.#schedule()
  }

  #place(key: string, old: Pod | undefined, now: Pod | undefined): void {
    for (const ip of addressesOf(old)) if (this.#podAt.get(ip) === key) this.#podAt.delete(ip)
    for (const ip of addressesOf(now)) this.#podAt.set(ip, key)
  }

  /** The Pod that has an address of its own, as far as Pods are mirrored. */
  podAt(address: string): Pod | undefined {
    const key = this.#podAt.get(address)
    return key === undefined ? undefined : this.objects.pod.get(key)
  }

  /** Calls `f` soon after objects of this kind changed, until what it returns is called. */
  whenChanged(kind: 'ingress', f: () => void): () => void {
    let all = this.#listeners.get(kind)
    if (all === undefined) this.#listeners.set(kind, (all = new Set()))
    all.add(f)
    return () => all.delete(f)
  }

  #forget(service: string, slice: string): void {
    const all = this.#slices.get(service)
    all?.delete(slice)
    if (all?.size === 0) this.#slices.delete(service)
    this.#dirty.service.add(service)
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    const soon = this.#options.soon ?? setImmediate
    soon(() => {
      this.#scheduled = false
      if (!this.#work(performance.now() + turn)) this.#schedule()
    })
  }

  /** Compiles everything that waits, now. */
  flush(): void {
    this.#work(Infinity)
  }

  /** Nothing waits to be compiled. */
  get settled(): boolean {
    return this.#dirty.service.size + this.#dirty.namespace.size + this.#dirty.pod.size === 0
  }

  #work(until: number): boolean {
    for (const kind of this.#told) {
      this.#told.delete(kind)
      for (const f of this.#listeners.get(kind) ?? []) f()
    }
    for (const name of this.#dirty.namespace) {
      this.#dirty.namespace.delete(name)
      const now = this.objects.namespace.get(name)
      for (const zone of this.zones) {
        this.#apply(zone, `namespace ${name}`, now === undefined ? [] : compileNamespace(zone.settings, now))
        // Its labels may decide over everything in it.
        if (zone.settings.filtersNamespaces) for (const key of this.objects.service.keys()) if (key.startsWith(`${name}/`)) this.#dirty.service.add(key)
      }
      if (performance.now() > until) return false
    }
    for (const key of this.#dirty.service) {
      this.#dirty.service.delete(key)
      const now = this.objects.service.get(key)
      for (const zone of this.zones) this.#apply(zone, `service ${key}`, now === undefined ? [] : compileService(zone.settings, now, this.slicesOf(key)))
      if (key === dnsService) for (const zone of this.zones) this.#apply(zone, 'zone', compileZone(zone.settings, this.#addresses()))
      if (performance.now() > until) return false
    }
    for (const key of this.#dirty.pod) {
      this.#dirty.pod.delete(key)
      const now = this.objects.pod.get(key)
      for (const zone of this.zones) this.#apply(zone, `pod ${key}`, now === undefined ? [] : compilePod(zone.settings, now))
      if (performance.now() > until) return false
    }
    return true
  }

  #apply(zone: ClusterZone, source: string, entries: Parameters<RecordTable['put']>[1]): void {
    const names = zone.table.put(source, entries)
    if (names.length > 0) this.#options.changed?.(zone, names, source)
  }

  /** Changes what the server's own name stands for. */
  setSelf(addresses: readonly string[]): void {
    this.#self = addresses
    for (const zone of this.zones) this.#apply(zone, 'zone', compileZone(zone.settings, this.#addresses()))
  }

  set onChanged(changed: NonNullable<ClusterOptions['changed']>) {
    this.#options = { ...this.#options, changed }
  }

  #addresses(): readonly string[] {
    const spec = this.objects.service.get(dnsService)?.spec
    const own = (spec?.clusterIPs ?? [spec?.clusterIP ?? '']).filter((ip) => ip !== '' && ip !== 'None')
    return own.length > 0 ? own : this.#self
  }
}

/** The Service that Pods find their DNS by. */
const dnsService = 'kube-system/kube-dns'

function addressesOf(pod: Pod | undefined): readonly string[] {
  const { phase, podIP, podIPs } = pod?.status ?? {}
  if (pod?.spec.hostNetwork === true || phase === 'Succeeded' || phase === 'Failed') return []
  return podIPs?.map((p) => p.ip) ?? (podIP === undefined ? [] : [podIP])
}

/** Which Service a slice belongs to; slices of others (multi-cluster ones) to none. */
function ownerOf(slice: KubeObject | undefined): string | undefined {
  const name = slice?.metadata.labels?.[serviceNameLabel]
  return name === undefined || name === '' || slice?.metadata.namespace === undefined ? undefined : `${slice.metadata.namespace}/${name}`
}
