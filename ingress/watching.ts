import type { Log } from '../lib/log.ts'
import type { Client } from '../kube/client.ts'
import { Mirror } from '../kube/mirror.ts'
import type { ConfigMap, EndpointSlice, Ingress, IngressClass, ObjectMeta, Secret, Service } from '../kube/objects.ts'
import { configmaps, endpointslices, ingressclasses, ingresses, keyOf, secrets, services } from '../kube/resources.ts'
import type { Objects } from './compile.ts'
import { LookedUp } from './names.ts'

export interface WatchingOptions {
  readonly log: Log
  readonly signal: AbortSignal
  /** Only objects of this namespace. */
  readonly namespace?: string | undefined
  /** ExternalNames are followed. */
  readonly externalNames?: boolean
}

/** ConfigMaps that somebody names, each watched from the first time it is asked for. */
class ConfigMaps {
  readonly #client: Client
  readonly #how: WatchingOptions
  readonly #changed: () => void
  readonly #mirrors = new Map<string, Mirror<ConfigMap>>()

  constructor(client: Client, how: WatchingOptions, changed: () => void) {
    this.#client = client
    this.#how = how
    this.#changed = changed
  }

  get(name: string): ConfigMap | undefined {
    let mirror = this.#mirrors.get(name)
    if (mirror === undefined) {
      const slash = name.indexOf('/')
      const { log, signal } = this.#how
      mirror = new Mirror(this.#client, configmaps, { log, signal, namespace: name.slice(0, Math.max(0, slash)), fieldSelector: `metadata.name=${name.slice(slash + 1)}`, changed: this.#changed })
      this.#mirrors.set(name, mirror)
    }
    return mirror.objects.get(name)
  }

  async whenSynced(): Promise<void> {
    await Promise.all([...this.#mirrors.values()].map((m) => m.whenSynced()))
  }
}

/** Mirrors of everything a table is made of. After the first sync `changed` is called once for changes that come together. */
export class Watching {
  readonly #ingresses: Mirror<Ingress>
  readonly #classes: Mirror<IngressClass>
  readonly #services: Mirror<Service>
  readonly #slices: Mirror<EndpointSlice>
  readonly #secrets: Mirror<Secret>
  /** Ingresses as last seen to say something new: a change of their status keeps their identity. */
  readonly #told = new Map<string, Ingress>()
  readonly #byService = new Map<string, readonly EndpointSlice[]>()
  readonly #configMaps: ConfigMaps
  readonly #names: LookedUp | undefined
  /** Ingresses that changed since somebody asked, also those of which only the status did. */
  #touched = new Set<string>()
  readonly #gone: string[] = []
  readonly #changed: () => void
  readonly #statusChanged: () => void
  #started = false
  #rung = false

  constructor(client: Client, how: WatchingOptions, changed: () => void, statusChanged: () => void = () => {}) {
    this.#changed = changed
    this.#statusChanged = statusChanged
    const ring = (): void => this.#ring()
    const { log, signal } = how
    const common = { log, signal, namespace: how.namespace }
    this.#ingresses = new Mirror(client, ingresses, { ...common, reduce: reduceIngress, changed: (now, before) => this.#ingress(now, before) })
    this.#classes = new Mirror(client, ingressclasses, { log, signal, changed: ring })
    this.#services = new Mirror(client, services, { ...common, reduce: reduceService, changed: ring })
    this.#slices = new Mirror(client, endpointslices, { ...common, reduce: reduceSlice, changed: (now, before) => this.#slice(now, before) })
    this.#secrets = new Mirror(client, secrets, { ...common, reduce: reduceSecret, changed: ring })
    this.#configMaps = new ConfigMaps(client, how, ring)
    this.#names = how.externalNames === true ? new LookedUp(ring, signal) : undefined
  }

  async whenSynced(): Promise<void> {
    await Promise.all([this.#configMaps, this.#ingresses, this.#classes, this.#services, this.#slices, this.#secrets].map((m) => m.whenSynced()))
    this.#started = true
  }

  objects(): Objects {
    return {
      ingresses: this.#told,
      classes: this.#classes.objects,
      services: this.#services.objects,
      slices: this.#byService,
      secrets: this.#secrets.objects,
      configMaps: this.#configMaps,
      names: this.#names,
      namesChanged: this.#names?.changes ?? 0,
    }
  }

  /** The Ingress as it is now, status included. */
  current(key: string): Ingress | undefined {
    return this.#ingresses.objects.get(key)
  }

  /** A ConfigMap by `namespace/name`; from now on its changes are told. */
  configMap(name: string | undefined): ConfigMap | undefined {
    return name === undefined ? undefined : this.#configMaps.get(name)
  }

  /** The keys of Ingresses that changed since this was asked last. */
  touched(): ReadonlySet<string> {
    const touched = this.#touched
    this.#touched = new Set()
    return touched
  }

  /** The keys of Ingresses that were deleted since this was asked last. */
  gone(): string[] {
    return this.#gone.splice(0).filter((key) => !this.#told.has(key))
  }

  /** When the slowest of the mirrors last heard of the server, on the clock of `performance.now()`. */
  get lastContact(): number {
    return Math.min(...[this.#ingresses, this.#classes, this.#services, this.#slices, this.#secrets].map((m) => m.lastContact))
  }

  #ring(): void {
    if (!this.#started || this.#rung) return
    this.#rung = true
    // Changes of one read of the socket are one table.
    setImmediate(() => {
      this.#rung = false
      this.#changed()
    })
  }

  #ingress(now: Ingress | undefined, before: Ingress | undefined): void {
    this.#touched.add(keyOf((now ?? before)!))
    if (now === undefined) {
      this.#told.delete(keyOf(before!))
      this.#gone.push(keyOf(before!))
    } else {
      const told = this.#told.get(keyOf(now))
      if (told !== undefined && told.metadata.uid === now.metadata.uid && gist(told) === gist(now)) {
        this.#statusChanged()
        return
      }
      this.#told.set(keyOf(now), now)
    }
    this.#ring()
  }

  #slice(now: EndpointSlice | undefined, before: EndpointSlice | undefined): void {
    const was = serviceOf(before)
    const is = serviceOf(now)
    if (was !== undefined) {
      const rest = (this.#byService.get(was) ?? []).filter((s) => s !== before && s.metadata.name !== before?.metadata.name)
      if (rest.length === 0) this.#byService.delete(was)
      else this.#byService.set(was, rest)
    }
    if (is !== undefined && now !== undefined)
      this.#byService.set(
        is,
        [...(this.#byService.get(is) ?? []), now].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1)),
      )
    this.#ring()
  }
}

/** What of an Ingress can change a route. */
function gist(i: Ingress): string {
  const { annotations, deletionTimestamp, creationTimestamp } = i.metadata
  return JSON.stringify([i.spec, annotations, deletionTimestamp, creationTimestamp])
}

/** `namespace/service` that a slice belongs to. */
export function serviceOf(slice: EndpointSlice | undefined): string | undefined {
  const name = slice?.metadata.labels?.['kubernetes.io/service-name']
  return name === undefined ? undefined : `${slice?.metadata.namespace}/${name}`
}

/** Only what is read here is kept: five thousand objects are held as long as the program lives. */
function reduceMeta({ name, namespace, uid, creationTimestamp, deletionTimestamp }: ObjectMeta): ObjectMeta {
  return {
    name,
    ...(namespace === undefined ? {} : { namespace }),
    ...(uid === undefined ? {} : { uid }),
    ...(creationTimestamp === undefined ? {} : { creationTimestamp }),
    ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
  }
}

function reduceIngress(i: Ingress): Ingress {
  const { 'kubectl.kubernetes.io/last-applied-configuration': _, ...annotations } = i.metadata.annotations ?? {}
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: { ...reduceMeta(i.metadata), annotations },
    ...(i.spec === undefined ? {} : { spec: i.spec }),
    ...(i.status?.loadBalancer?.ingress === undefined ? {} : { status: { loadBalancer: { ingress: i.status.loadBalancer.ingress } } }),
  }
}

function reduceService(s: Service): Service {
  const { type, clusterIP, ipFamilies, ports, externalName, externalIPs } = s.spec
  return {
    metadata: reduceMeta(s.metadata),
    spec: {
      ...(type === undefined ? {} : { type }),
      ...(clusterIP === undefined ? {} : { clusterIP }),
      ...(ipFamilies === undefined ? {} : { ipFamilies }),
      ...(ports === undefined ? {} : { ports }),
      ...(externalName === undefined ? {} : { externalName }),
      ...(externalIPs === undefined ? {} : { externalIPs }),
    },
    ...(s.status?.loadBalancer === undefined ? {} : { status: { loadBalancer: s.status.loadBalancer } }),
  }
}

function reduceSlice(s: EndpointSlice): EndpointSlice {
  const service = s.metadata.labels?.['kubernetes.io/service-name']
  return {
    metadata: { ...reduceMeta(s.metadata), ...(service === undefined ? {} : { labels: { 'kubernetes.io/service-name': service } }) },
    addressType: s.addressType,
    ...(s.ports === undefined ? {} : { ports: s.ports }),
    endpoints: (s.endpoints ?? []).map(({ addresses, conditions }) => ({ addresses, ...(conditions === undefined ? {} : { conditions }) })),
  }
}

/** Of Secrets that no Ingress can name (service account tokens, Helm's releases) nothing is kept but that they exist. */
function reduceSecret(secret: Secret): Secret {
  if (secret.type === 'kubernetes.io/service-account-token' || secret.type === 'helm.sh/release.v1' || secret.type === 'bootstrap.kubernetes.io/token')
    return { metadata: { name: secret.metadata.name, ...(secret.metadata.namespace === undefined ? {} : { namespace: secret.metadata.namespace }) } }
  const { managedFields: _, ...metadata } = secret.metadata
  return { metadata, ...(secret.type === undefined ? {} : { type: secret.type }), ...(secret.data === undefined ? {} : { data: secret.data }) }
}
