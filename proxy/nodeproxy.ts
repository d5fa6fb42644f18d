import { networkInterfaces } from 'node:os'
import { ApiError, isNotFound, type Client } from '../kube/client.ts'
import { recorder, type Recorder } from '../kube/events.ts'
import { Mirror } from '../kube/mirror.ts'
import type { EndpointSlice, KubeObject, Node, Service } from '../kube/objects.ts'
import { endpointslices, nodes, resource, services } from '../kube/resources.ts'
import { familyOf, type IpFamily } from '../lib/ip.ts'
import { aborted } from '../lib/lifecycle.ts'
import { explainError, type Log } from '../lib/log.ts'
import { reconcile } from '../lib/reconcile.ts'
import type { Backend } from './backend.ts'
import { others, type BackendTools } from './backends.ts'
import { Compiler, type Compiled, type ServiceCidrObject } from './compile.ts'
import { Health, HealthChecks } from './health.ts'
import { measures, type Measures } from './measure.ts'
import type { ProxyOptions } from './options.ts'
import { deleteStale } from './stale.ts'
import type { Refused, ServiceTable } from './table.ts'

const serviceCidrs = resource<ServiceCidrObject & KubeObject>('networking.k8s.io/v1', 'servicecidrs', 'ServiceCIDR', false)
/** Slices and Services that another proxy serves, or nobody, need not be sent to us at all. */
const notHeadless = '!service.kubernetes.io/headless'
const triggerAnnotation = 'endpoints.kubernetes.io/last-change-trigger-time'

/** Mirrors, compiler and backend of one node, joined. */
export class NodeProxy {
  readonly health: Health
  readonly measures: Measures
  readonly #options: ProxyOptions
  readonly #log: Log
  readonly #tools: BackendTools
  readonly #backend: Backend
  readonly #client: Client
  readonly #compiler: Compiler
  readonly #checks: HealthChecks
  #localhost: import('./localhost.ts').LocalhostNodePorts | undefined
  #services: ReadonlyMap<string, Service> = new Map()
  #recorder: Recorder | undefined
  #triggers: number[] = []
  #told = new Set<string>()
  #applied: Compiled | undefined
  /** The table that tracked connections were last held against. */
  #tracked: ServiceTable | undefined

  constructor(options: ProxyOptions, tools: BackendTools, backend: Backend, client: Client) {
    this.#options = options
    this.#tools = tools
    this.#log = tools.log
    this.#backend = backend
    this.#client = client
    this.#compiler = new Compiler({ ...options.compile, localAddresses: ownAddresses() })
    this.health = new Health(Math.max(2 * options.sync, 60_000))
    this.measures = measures(options.mode)
    this.#checks = new HealthChecks(
      () => this.health.healthy,
      (check, reason) => this.#complain(`Service ${check.namespace}/${check.name}`, 'FailedToStartServiceHealthcheck', reason),
    )
  }

  /** Ends when the signal fires. `ready` is called once, after the first table is in the kernel. */
  async run(signal: AbortSignal, ready: () => void): Promise<void> {
    const log = this.#log
    this.#recorder = recorder(this.#client, 'switchyard-proxy', { log, signal })
    let synced = false
    let first = true
    const loop = reconcile((s) => (synced ? this.#sync(s) : Promise.resolve()), {
      least: this.#options.minSync,
      signal,
      failed: (error) => {
        this.measures.failures.add()
        log.error('could not write the rules; trying again', { error: explainError(error) })
      },
      succeeded: () => {
        if (!synced || !first) return
        first = false
        // Rules of another mode may stand before ours (a redirect to a userspace proxy that has ended): ready is who is alone.
        void this.#removeOthers().finally(ready)
      },
    })
    const mirrors = await this.#mirrors(signal, () => loop.ring())
    await Promise.all(mirrors.map((m) => m.whenSynced())).catch((error: unknown) => {
      if (!signal.aborted) throw error
    })
    synced = true
    loop.ring()
    const looking = setInterval(() => void this.#look(() => loop.ring()), this.#options.sync)
    try {
      await aborted(signal)
      await loop.ended
    } finally {
      clearInterval(looking)
      await this.#checks.close()
      await this.#localhost?.close()
    }
  }

  async #mirrors(signal: AbortSignal, ring: () => void): Promise<readonly { whenSynced(): Promise<void> }[]> {
    const { measures: m, health } = this
    const [compiler, client, log] = [this.#compiler, this.#client, this.#log]
    const changed = (): void => {
      health.queued()
      m.lastQueued.set(Date.now() / 1000)
      ring()
    }
    const serviceMirror = new Mirror<Service>(client, services, {
      labelSelector: `${notHeadless},${this.#options.compile.serviceProxyName === undefined ? '!service.kubernetes.io/service-proxy-name' : `service.kubernetes.io/service-proxy-name=${this.#options.compile.serviceProxyName}`}`,
      reduce: reduceService,
      changed: (now, before) => {
        compiler.service(now, before)
        m.serviceChanges.add()
        m.servicePending.add(1)
        changed()
      },
      log,
      signal,
    })
    this.#services = serviceMirror.objects
    const out: { whenSynced(): Promise<void> }[] = [
      serviceMirror,
      new Mirror<EndpointSlice>(client, endpointslices, {
        labelSelector: notHeadless,
        reduce: reduceSlice,
        changed: (now, before) => {
          compiler.slice(now, before)
          m.endpointChanges.add()
          m.endpointPending.add(1)
          const trigger = Date.parse(now?.metadata.annotations?.[triggerAnnotation] ?? '')
          if (!Number.isNaN(trigger) && this.#applied !== undefined && trigger > this.#started) this.#triggers.push(trigger)
          changed()
        },
        log,
        signal,
      }),
      new Mirror<Node>(client, nodes, {
        fieldSelector: `metadata.name=${this.#options.node}`,
        reduce: reduceNode,
        changed: (now, before) => {
          if ((now ?? before)?.metadata.name !== this.#options.node) return
          health.eligible = now !== undefined && now.metadata.deletionTimestamp === undefined && now.spec?.taints?.some((t) => t.key === 'ToBeDeletedByClusterAutoscaler') !== true
          compiler.node(now, before)
          changed()
        },
        log,
        signal,
      }),
    ]
    try {
      await client.list(serviceCidrs, { limit: 1, signal })
      out.push(
        new Mirror(client, serviceCidrs, {
          changed: (now, before) => {
            compiler.serviceCidr(now, before)
            changed()
          },
          log,
          signal,
        }),
      )
    } catch (error) {
      // An API without ServiceCIDR objects (before 1.33), or one that does not show them to us: the flag says the ranges.
      if (!isNotFound(error) && !(error instanceof ApiError && error.code === 403)) log.debug('ServiceCIDR objects cannot be read', { error: explainError(error) })
    }
    return out
  }

  readonly #started = Date.now()
  /** The next write is of everything. */
  #whole = true

  async #sync(signal: AbortSignal): Promise<void> {
    const { measures: m, health } = this
    const whole = this.#whole
    this.#whole = false
    const began = performance.now()
    const wall = Date.now()
    const triggers = this.#triggers
    this.#triggers = []
    m.servicePending.set(0)
    m.endpointPending.set(0)
    try {
      const compiled = this.#compiler.compile()
      const { refused } = await this.#backend.apply(compiled.table, signal)
      const onLoopback = await this.#onLoopback(compiled)
      this.#tell([...compiled.refused, ...refused, ...onLoopback])
      // After the rules: a datagram in between would be tracked towards the dead endpoint again.
      await this.#forgetStale(this.#backend.tracked?.() ?? compiled.table)
      const { nodePortAddresses } = compiled.table.node
      if (compiled.healthChecks !== this.#applied?.healthChecks || nodePortAddresses !== this.#applied?.table.node.nodePortAddresses) await this.#checks.set(compiled.healthChecks, nodePortAddresses)
      health.families = familiesOf(compiled.table)
      this.#applied = compiled
      m.fronts.set(compiled.table.fronts.size)
      for (const [policy, ports] of withoutLocalEndpoints(compiled.table)) m.noLocalEndpoints.set(ports.size, { traffic_policy: policy })
      m.refused.set(compiled.refused.length + refused.length)
    } catch (error) {
      this.#triggers.push(...triggers)
      this.#whole = true
      throw error
    }
    this.health.updated(wall)
    const seconds = (performance.now() - began) / 1000
    m.syncDuration.observe(seconds)
    ;(whole ? m.fullSync : m.partialSync).observe(seconds)
    for (const [table, rules] of Object.entries(this.#backend.rules?.() ?? {})) m.iptablesRules.set(rules, { table })
    m.lastSync.set(Date.now() / 1000)
    for (const t of triggers) m.programming.observe((Date.now() - t) / 1000)
  }

  async #onLoopback({ table }: Compiled): Promise<readonly Refused[]> {
    if (!this.#options.localhostNodePorts || table.fronts === this.#applied?.table.fronts) return []
    this.#localhost ??= await (await import('./localhost.ts')).LocalhostNodePorts.create(this.#options.sockets)
    return this.#localhost.apply(table)
  }

  async #forgetStale(now: ServiceTable): Promise<void> {
    try {
      const own = new Set(ownAddresses())
      const began = performance.now()
      const deleted = await deleteStale(this.#tools.kernel, this.#tracked, now, (address) => own.has(address))
      this.#tracked = now
      this.measures.conntrackDuration.observe((performance.now() - began) / 1000)
      if (deleted > 0) this.measures.conntrackDeleted.add(deleted)
    } catch (error) {
      this.#log.warn('could not delete tracked connections of endpoints that are gone', { error: explainError(error) })
    }
  }

  /** Says each refusal once, in the log and in an Event of the Service. */
  #tell(refused: readonly Refused[]): void {
    const now = new Set<string>()
    for (const { object, front, reason } of refused) {
      const key = `${object}\n${front}\n${reason}`
      now.add(key)
      if (!this.#told.has(key)) this.#complain(object, 'NotServed', front === '' ? reason : `${front}: ${reason}`)
    }
    this.#told = now
  }

  /** `object` is `Service NAMESPACE/NAME`, perhaps with a port's name behind. */
  #complain(object: string, reason: string, message: string): void {
    this.#log.warn('not served', { object, reason: message })
    const service = this.#services.get(object.replace(/^Service /, '').replace(/:[^/]*$/, ''))
    if (service !== undefined) this.#recorder?.event({ apiVersion: 'v1', kind: 'Service', metadata: service.metadata }, 'Warning', reason, message)
  }

  /** Somebody may have changed our rules, or the machine its addresses. */
  async #look(ring: () => void): Promise<void> {
    try {
      this.#compiler.localAddresses(ownAddresses())
      const wrong = await this.#backend.check()
      this.#whole ||= wrong.length > 0
      if (wrong.length > 0) this.#log.warn('the rules are not as written; writing them again', { wrong: wrong.slice(0, 5), count: wrong.length })
      ring()
    } catch (error) {
      this.#log.warn('could not look at the rules', { error: explainError(error) })
    }
  }

  /** What other modes left behind goes once ours forwards. */
  async #removeOthers(): Promise<void> {
    const all: Promise<void>[] = []
    for await (const other of others(this.#tools, this.#options.mode)) all.push(this.#remove(other))
    await Promise.all(all)
  }

  async #remove(other: { readonly name: string; load(): Promise<Backend> }): Promise<void> {
    try {
      const backend = await other.load()
      await backend.cleanup()
      await backend.close()
    } catch (error) {
      this.measures.cleanupFailures?.add()
      this.#log.warn('could not remove what another mode left', { mode: other.name, error: explainError(error) })
    }
  }
}

/** Service ports of policy Local that have endpoints, but none here, by the policy. */
function withoutLocalEndpoints({ fronts }: ServiceTable): ReadonlyMap<'internal' | 'external', ReadonlySet<string>> {
  const out = { internal: new Set<string>(), external: new Set<string>() }
  for (const front of fronts.values()) if (front.routes.at(-1)?.outcome.kind === 'drop') out[front.at.kind === 'cluster' ? 'internal' : 'external'].add(front.port)
  return new Map([
    ['internal', out.internal],
    ['external', out.external],
  ])
}

/** The families a table has anything in. */
function familiesOf({ fronts, node }: ServiceTable): readonly IpFamily[] {
  const six = node.serviceCidrs.some((c) => familyOf(c) === 6) || [...fronts.values()].some((f) => f.family === 6)
  return six ? [4, 6] : [4]
}

function ownAddresses(): readonly string[] {
  return Object.values(networkInterfaces())
    .flatMap((list) => (list ?? []).map((a) => a.address))
    .sort()
}

function reduceService({ metadata: m, spec, status }: Service): Service {
  const ingress = status?.loadBalancer?.ingress
  return {
    metadata: metadataOf(m),
    spec,
    ...(ingress === undefined ? {} : { status: { loadBalancer: { ingress } } }),
  }
}

function reduceSlice({ metadata: m, addressType, ports, endpoints }: EndpointSlice): EndpointSlice {
  const trigger = m.annotations?.[triggerAnnotation]
  const name = m.labels?.['kubernetes.io/service-name']
  return {
    metadata: {
      name: m.name,
      ...(m.namespace === undefined ? {} : { namespace: m.namespace }),
      ...(name === undefined ? {} : { labels: { 'kubernetes.io/service-name': name } }),
      ...(trigger === undefined ? {} : { annotations: { [triggerAnnotation]: trigger } }),
    },
    addressType,
    ...(ports === undefined ? {} : { ports }),
    endpoints: (endpoints ?? []).map(({ addresses, conditions, nodeName, hints }) => ({
      addresses,
      ...(conditions === undefined ? {} : { conditions }),
      ...(nodeName === undefined ? {} : { nodeName }),
      ...(hints === undefined ? {} : { hints }),
    })),
  }
}

function reduceNode({ metadata: m, spec, status }: Node): Node {
  return { metadata: metadataOf(m), ...(spec === undefined ? {} : { spec }), ...(status?.addresses === undefined ? {} : { status: { addresses: status.addresses } }) }
}

function metadataOf(m: KubeObject['metadata']): KubeObject['metadata'] {
  return {
    name: m.name,
    ...(m.namespace === undefined ? {} : { namespace: m.namespace }),
    ...(m.uid === undefined ? {} : { uid: m.uid }),
    ...(m.labels === undefined ? {} : { labels: m.labels }),
    ...(m.annotations === undefined ? {} : { annotations: m.annotations }),
    ...(m.creationTimestamp === undefined ? {} : { creationTimestamp: m.creationTimestamp }),
    ...(m.deletionTimestamp === undefined ? {} : { deletionTimestamp: m.deletionTimestamp }),
  }
}
