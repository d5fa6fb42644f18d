import { networkInterfaces } from 'node:os'
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

/** Objects whose status is as it should be: looked at once. */
const right = new WeakMap<Ingress, string>()

/** How many statuses are written at a time. */
const together = 8

/** Writes `status.loadBalancer` of every Ingress in `served` that says something else. Failures are logged; the next call tries again. Returns how many failed. */
export async function writeStatus(client: Client, served: readonly Ingress[], want: readonly LoadBalancerIngress[], log: Log, signal: AbortSignal): Promise<number> {
  const wanted = JSON.stringify(want)
  let failures = 0
  let next = 0
  const work = async (): Promise<void> => {
    while (next < served.length && !signal.aborted) {
      const ingress = served[next++]!
      if (right.get(ingress) === wanted) continue
      if (wanted === JSON.stringify((ingress.status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => (ip === undefined ? { hostname } : { ip })))) {
        right.set(ingress, wanted)
        continue
      }
      const { name, namespace } = ingress.metadata
      try {
        await client.patch(ingresses, name, namespace, { status: { loadBalancer: { ingress: want } } }, 'merge', { subresource: 'status', signal })
      } catch (error) {
        if (signal.aborted || isNotFound(error) || isConflict(error)) continue
        failures++
        log.warn('could not write the status of an Ingress', { ingress: `${namespace}/${name}`, error: explainError(error) })
      }
    }
  }
  await Promise.all(Array.from({ length: together }, work))
  return failures
}
