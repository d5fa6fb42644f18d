import { networkInterfaces } from 'node:os'
import { sleep } from '../lib/lifecycle.ts'
import { explainError, type Log } from '../lib/log.ts'
import { ipBytes } from '../lib/ip.ts'
import { isConflict, isNotFound, type Client } from '../kube/client.ts'
import type { Ingress, LoadBalancerIngress, Service } from '../kube/objects.ts'
import { ingresses } from '../kube/resources.ts'

/** What `status.loadBalancer.ingress` says for these addresses: IPs as `ip`, names as `hostname`. */
export function addressesOf(addresses: readonly string[]): readonly LoadBalancerIngress[] {
  return [...addresses].sort().map((a) => (ipBytes(a) === undefined ? { hostname: a } : { ip: a }))
}

/** The addresses under which a Service is reached from outside, or else its own. */
export function addressesOfService(service: Service | undefined): string[] {
  if (service === undefined) return []
  const { spec, status } = service
  if (spec.type === 'ExternalName') return spec.externalName === undefined ? [] : [spec.externalName]
  const balancer = (status?.loadBalancer?.ingress ?? []).flatMap((i) => i.ip ?? i.hostname ?? [])
  const outside = [...balancer, ...(spec.externalIPs ?? [])]
  return outside.length > 0 ? outside : spec.clusterIP === undefined || spec.clusterIP === 'None' ? [] : [spec.clusterIP]
}

/** This machine's own address: the one listened on if it is a particular one, else the first that is not loopback. */
export function ownAddresses(listening: readonly string[]): string[] {
  const particular = listening.filter((h) => h !== '' && h !== '0.0.0.0' && h !== '::')
  if (particular.length > 0) return [...new Set(particular)]
  for (const list of Object.values(networkInterfaces())) {
    for (const i of list ?? []) if (!i.internal && i.family === 'IPv4') return [i.address]
  }
  return ['127.0.0.1']
}

/** How many statuses are written at a time. */
const together = 8
/** Milliseconds until what could not be written is tried again. */
const again = 2000

/** Who knows which Ingresses are ours. */
interface Serving {
  readonly keys: Iterable<string>
  serves(key: string): boolean
}

/** Writes `status.loadBalancer` of the Ingresses that say something else. Only what changed is looked at. */
export class StatusWriter {
  readonly #client: Client
  readonly #log: Log
  readonly #signal: AbortSignal
  /** What each should say, in the order in which it is written. */
  readonly #waiting = new Map<string, { readonly want: readonly LoadBalancerIngress[]; readonly current: (key: string) => Ingress | undefined }>()
  readonly #wanted = new Map<Serving, string>()
  #working = 0

  constructor(client: Client, log: Log, signal: AbortSignal) {
    this.#client = client
    this.#log = log
    this.#signal = signal
  }

  /** All of `serving` are to be looked at the next time. */
  all(serving: Serving): void {
    this.#wanted.delete(serving)
  }

  /** Those of `serving` should say `want`: all of them if that is new, else those that were touched. */
  want(serving: Serving, want: readonly LoadBalancerIngress[], touched: Iterable<string>, current: (key: string) => Ingress | undefined): void {
    const text = JSON.stringify(want)
    const keys = this.#wanted.get(serving) === text ? touched : serving.keys
    this.#wanted.set(serving, text)
    for (const key of keys) if (serving.serves(key)) this.#waiting.set(key, { want, current })
    while (this.#working < together && this.#working < this.#waiting.size) void this.#work()
  }

  async #work(): Promise<void> {
    this.#working++
    for (let next = this.#waiting.entries().next(); next.done !== true && !this.#signal.aborted; next = this.#waiting.entries().next()) {
      const [key, entry] = next.value
      this.#waiting.delete(key)
      await this.#write(key, entry)
    }
    this.#working--
  }

  async #write(key: string, entry: { readonly want: readonly LoadBalancerIngress[]; readonly current: (key: string) => Ingress | undefined }): Promise<void> {
    const { want, current } = entry
    const ingress = current(key)
    if (ingress === undefined) return
    const says = (ingress.status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => (ip === undefined ? { hostname } : { ip }))
    if (JSON.stringify(says) === JSON.stringify(want)) return
    const { name, namespace } = ingress.metadata
    try {
      await this.#client.patch(ingresses, name, namespace, { status: { loadBalancer: { ingress: want } } }, 'merge', { subresource: 'status', signal: this.#signal })
    } catch (error) {
      if (this.#signal.aborted || isNotFound(error) || isConflict(error)) return
      this.#log.warn('could not write the status of an Ingress', { ingress: key, error: explainError(error) })
      await sleep(again, this.#signal)
      if (!this.#waiting.has(key)) this.#waiting.set(key, entry)
    }
  }
}
