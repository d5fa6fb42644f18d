import type { ChildProcess } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { isNotFound, isConflict, type Client } from '../../kube/client.ts'
import type { Recorder } from '../../kube/events.ts'
import { Mirror } from '../../kube/mirror.ts'
import type { ConfigMap, Node, Pod, PodStatus, Secret } from '../../kube/objects.ts'
import { configmaps, nodes, pods, secrets } from '../../kube/resources.ts'
import { Doorbell } from '../../lib/doorbell.ts'
import { reconcile } from '../../lib/reconcile.ts'
import { explainError, type Log } from '../../lib/log.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { projectRoot } from '../launcher.ts'
import { environment, field, references } from './environment.ts'
import { etcFiles, type NameSettings } from './files.ts'
import { LogClock } from './logs.ts'
import type { NodeNetwork } from './iproute.ts'
import { allocate, routesFor } from './network.ts'
import { PodWorker, readSaved, type PodHost } from './pod.ts'
import type { Runtime } from './sandbox.ts'
import { requestToken, rotate } from './tokens.ts'
import type { NodeApi } from './server.ts'
import { makeVolumes } from './volumes.ts'

export interface AgentOptions {
  readonly client: Client
  readonly events: Recorder
  readonly runtime: Runtime
  readonly network: NodeNetwork
  readonly node: string
  readonly nodeIps: readonly string[]
  readonly state: string
  readonly names: Pick<NameSettings, 'clusterDns' | 'clusterDomain'>
  /** Waits of the mirrors; shorter in tests. */
  readonly mirror?: { readonly silence?: number; readonly firstWait?: number; readonly mostWait?: number }
  readonly log: Log
  readonly signal: AbortSignal
}

/** Runs the Pods bound to one node, and keeps the routes to the Pods of the others. */
export class Agent implements NodeApi {
  readonly #o: AgentOptions
  readonly #workers = new Map<string, PodWorker>()
  readonly #clocks = new Map<string, LogClock>()
  readonly #nodes: Mirror<Node, Node>
  readonly #pods: Mirror<Pod, Pod>
  readonly #ranges = new Doorbell()
  readonly #routed: { ring(): void }
  #place = 1

  constructor(options: AgentOptions) {
    this.#o = options
    const { client, log, signal } = options
    this.#routed = reconcile(() => options.network.route(routesFor(options.node, this.#nodes.objects.values())), {
      signal,
      least: 50,
      most: 60_000,
      failed: (error) => log.warn('cannot set the routes to other nodes', { error: explainError(error) }),
    })
    this.#nodes = new Mirror<Node, Node>(client, nodes, {
      ...options.mirror,
      log,
      signal,
      changed: (now) => {
        this.#routed.ring()
        if (now?.metadata.name === options.node) this.#ranges.ring()
      },
    })
    this.#pods = new Mirror<Pod, Pod>(client, pods, { ...options.mirror, fieldSelector: `spec.nodeName=${options.node}`, log, signal, changed: (now, before) => this.#changed(now, before) })
  }

  /** Resolves once every Pod of this node is known, and those that are gone were ended. */
  async start(): Promise<void> {
    const { signal } = this.#o
    mkdirSync(join(this.#o.state, 'pods'), { recursive: true, mode: 0o700 })
    await Promise.all([this.#nodes.whenSynced(), this.#pods.whenSynced()])
    for (const uid of readdirSync(join(this.#o.state, 'pods'))) {
      if (this.#workers.has(uid)) continue
      // Its object went while no agent ran.
      const saved = readSaved(this.#folder(uid))
      const orphan = { apiVersion: 'v1', kind: 'Pod', metadata: { name: saved?.name ?? uid, namespace: saved?.namespace ?? '', uid }, spec: { containers: [] } } satisfies Pod
      const worker = new PodWorker(orphan, this.#folder(uid), this.#host, signal)
      worker.gone()
      void worker.ended
    }
    void this.#watchLogs()
    void this.#keepTokens()
  }

  pods(): readonly Pod[] {
    return [...this.#workers.values()].map((w) => w.pod)
  }

  log(namespace: string, name: string, container: string, previous: boolean) {
    const worker = [...this.#workers.values()].find((w) => w.pod.metadata.namespace === namespace && w.pod.metadata.name === name)
    const found = worker?.logOf(container, previous)
    return found === undefined ? undefined : { ...found, clock: this.#clock(found.file) }
  }

  async attach(namespace: string, name: string, container: string, argv: readonly string[], tty: boolean): Promise<ChildProcess | string> {
    const worker = [...this.#workers.values()].find((w) => w.pod.metadata.namespace === namespace && w.pod.metadata.name === name)
    return worker === undefined ? `pod does not exist` : worker.attach(container, argv, tty)
  }

  #changed(now: Pod | undefined, before: Pod | undefined): void {
    const uid = now?.metadata.uid
    const old = before?.metadata.uid
    if (old !== undefined && old !== uid) this.#workers.get(old)?.gone()
    if (now === undefined || uid === undefined) return
    const worker = this.#workers.get(uid)
    if (worker !== undefined) return worker.update(now)
    const made = new PodWorker(now, this.#folder(uid), this.#host, this.#o.signal)
    this.#workers.set(uid, made)
    void made.ended.then(() => {
      if (this.#workers.get(uid) === made) this.#workers.delete(uid)
    })
  }

  #folder(uid: string): string {
    return join(this.#o.state, 'pods', uid)
  }

  /** Replaces tokens long before they end; what cannot be had now is asked for again. */
  async #keepTokens(): Promise<void> {
    const { client, log, signal } = this.#o
    while (!signal.aborted) {
      await sleep(30_000, signal)
      for (const { pod, uid } of this.#workers.values()) {
        if (signal.aborted || pod.metadata.deletionTimestamp !== undefined) continue
        try {
          await rotate(pod, join(this.#folder(uid), 'volumes'), (source) => requestToken(client, pod, source, signal), Date.now())
        } catch (error) {
          if (!signal.aborted) log.warn('a token could not be replaced; trying again', { pod: `${pod.metadata.namespace}/${pod.metadata.name}`, error: explainError(error) })
        }
      }
    }
  }

  get #host(): PodHost {
    const { client, runtime, nodeIps, log, events, signal } = this.#o
    return {
      runtime,
      hostIPs: nodeIps,
      log,
      event: (pod, type, reason, message) => events.event(pod, type, reason, message),
      addresses: () => this.#addresses(),
      connect: (pod, pid, addresses) => this.#o.network.connect(pod.metadata.uid ?? '', pid, addresses),
      files: async (pod, addresses, folder) => {
        const { node, names } = this.#o
        const settings: NameSettings = { ...names, nodeName: node, nodeResolvConf: readText('/etc/resolv.conf'), nodeHosts: readText('/etc/hosts') }
        mkdirSync(join(folder, 'etc'), { recursive: true })
        for (const [name, text] of Object.entries(etcFiles(pod, addresses, settings))) writeFileSync(join(folder, 'etc', name), text)
        const bytes = (data: Readonly<Record<string, string>> | undefined, encoding: BufferEncoding): Record<string, Buffer> =>
          Object.fromEntries(Object.entries(data ?? {}).map(([k, v]) => [k, Buffer.from(v, encoding)]))
        return makeVolumes(pod, join(folder, 'volumes'), {
          configMap: async (name) => {
            const found: ConfigMap | undefined = await client.find(configmaps, name, pod.metadata.namespace, { signal })
            return found === undefined ? undefined : { ...bytes(found.data, 'utf8'), ...bytes(found.binaryData, 'base64') }
          },
          secret: async (name) => {
            const found: Secret | undefined = await client.find(secrets, name, pod.metadata.namespace, { signal })
            return found === undefined ? undefined : bytes(found.data, 'base64')
          },
          token: (source) => requestToken(client, pod, source, signal),
          field: (path) => field(pod, path, { podIPs: addresses, hostIPs: nodeIps }),
        })
      },
      environment: async (pod, container, addresses) => {
        const wanted = references(container)
        const namespace = pod.metadata.namespace
        const maps = new Map(await Promise.all(wanted.configMaps.map(async (name) => [name, (await client.find(configmaps, name, namespace, { signal }))?.data] as const)))
        const hidden = new Map(
          await Promise.all(
            wanted.secrets.map(async (name) => {
              const found: Secret | undefined = await client.find(secrets, name, namespace, { signal })
              return [name, found === undefined ? undefined : Object.fromEntries(Object.entries(found.data ?? {}).map(([k, v]) => [k, Buffer.from(v, 'base64').toString('utf8')]))] as const
            }),
          ),
        )
        return environment(pod, container, { podIPs: addresses, hostIPs: nodeIps, configMap: (name) => maps.get(name), secret: (name) => hidden.get(name), base: baseEnvironment(pod) })
      },
      report: async (pod, status: PodStatus) => {
        try {
          await client.patch(pods, pod.metadata.name, pod.metadata.namespace, { metadata: { uid: pod.metadata.uid }, status }, 'merge', { subresource: 'status', signal })
        } catch (error) {
          // It is gone, or another has its name: the mirror will say so.
          if (!isNotFound(error) && !isConflict(error)) throw error
        }
      },
      remove: async (pod) => {
        try {
          await client.delete(pods, pod.metadata.name, pod.metadata.namespace, { gracePeriodSeconds: 0, ...(pod.metadata.uid === undefined ? {} : { uid: pod.metadata.uid }), signal })
        } catch (error) {
          if (!isNotFound(error) && !isConflict(error)) throw error
        }
      },
    }
  }

  /** Waits for the controllers to give this node its range. */
  async #addresses(): Promise<readonly string[]> {
    for (let waited = 0; ; waited++) {
      const spec = this.#nodes.objects.get(this.#o.node)?.spec
      const ranges = spec?.podCIDRs ?? (spec?.podCIDR === undefined ? [] : [spec.podCIDR])
      if (ranges.length > 0) {
        const taken = new Set([...this.#workers.values()].flatMap((w) => w.addresses))
        const found = allocate(ranges, taken, this.#place)
        if (found === undefined) throw new Error(`no address is free in ${ranges.join(', ')}`)
        this.#place = found.place
        return found.addresses
      }
      if (waited === 20) throw new Error(`node ${this.#o.node} has no podCIDRs yet`)
      await Promise.race([this.#ranges.wait(this.#o.signal), sleep(500, this.#o.signal)])
    }
  }

  #clock(file: string): LogClock {
    let clock = this.#clocks.get(file)
    if (clock === undefined) this.#clocks.set(file, (clock = new LogClock()))
    return clock
  }

  /** Notes how far each log has got, once a second: that is how exact the times of `kubectl logs --timestamps` are. */
  async #watchLogs(): Promise<void> {
    while (!this.#o.signal.aborted) {
      const seen = new Set<string>()
      for (const worker of this.#workers.values()) {
        for (const container of worker.pod.spec.containers) {
          const file = worker.logOf(container.name, false)?.file
          const size = file === undefined ? undefined : statSync(file, { throwIfNoEntry: false })?.size
          if (file === undefined || size === undefined) continue
          seen.add(dirname(file))
          this.#clock(file).note(size, Date.now())
        }
      }
      for (const file of this.#clocks.keys()) if (!seen.has(dirname(file))) this.#clocks.delete(file)
      await sleep(1000, this.#o.signal)
    }
  }
}

/** What every process finds in its environment: the programs of the machine, and the project's own as `switchyard`. */
function baseEnvironment(pod: Pod): Readonly<Record<string, string>> {
  const cache = process.env.NODE_COMPILE_CACHE
  return {
    PATH: `${projectRoot}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: homedir(),
    HOSTNAME: pod.metadata.name,
    SWITCHYARD_NODE: process.execPath,
    ...(cache === undefined ? {} : { NODE_COMPILE_CACHE: cache }),
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
