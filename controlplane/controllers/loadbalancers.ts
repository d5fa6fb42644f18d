import { isConflict, isNotFound } from '../../kube/client.ts'
import type { Service } from '../../kube/objects.ts'
import { keyOf, services } from '../../kube/resources.ts'
import { contains, network, nth, parseIp, sizeOf } from '../../lib/ip.ts'
import { namespaceOf } from './cluster.ts'
import type { Controller } from './controller.ts'

/** Gives Services of type LoadBalancer addresses from the configured pool: what a cloud does elsewhere. */
export const loadBalancers: Controller = {
  name: 'loadbalancers',
  component: 'service-controller',
  start({ client, cluster, queue, events, options, signal }) {
    const pool = (options.loadBalancerCIDRs ?? []).map((text) => network(text)).filter((n) => n !== undefined)
    // Without a pool they stay pending, for somebody else to serve.
    if (pool.length === 0) return
    const all = cluster.of(services)
    const work = queue('loadbalancers', sync)
    const waiting = new Set<string>()
    all.on((now, before) => {
      const key = keyOf((now ?? before)!)
      if (now !== undefined && (ours(now) || ingressesOf(now).length > 0)) work.add(key)
      if (before !== undefined && ingressesOf(before).length > 0 && (now === undefined || ingressesOf(now).length === 0)) for (const other of waiting) work.add(other)
    })

    async function sync(key: string): Promise<void> {
      waiting.delete(key)
      const service = all.objects.get(key)
      if (service === undefined || !ours(service)) return
      const taken = new Set<string>()
      for (const [other, s] of all.objects) if (other !== key) for (const ip of ingressesOf(s)) taken.add(ip)
      const kept = ingressesOf(service)
      const given: string[] = []
      for (const family of service.spec.ipFamilies ?? ['IPv4']) {
        const fits = (ip: string): boolean => ip.includes(':') === (family === 'IPv6') && !taken.has(ip) && pool.some((n) => within(n, ip))
        const asked = service.spec.loadBalancerIP === undefined || service.spec.loadBalancerIP === '' ? undefined : parseIp(service.spec.loadBalancerIP)
        const wishes = asked !== undefined && asked.includes(':') === (family === 'IPv6')
        const ip = wishes ? (fits(asked) ? asked : undefined) : (kept.find(fits) ?? free(family, taken))
        if (ip === undefined) {
          waiting.add(key)
          events.event(service, 'Warning', 'AllocationFailed', wishes ? `the address ${asked} is taken or not in the pool` : `no ${family} address is left in the pool`)
          continue
        }
        given.push(ip)
      }
      if (given.join() === kept.join()) return
      try {
        const status = { loadBalancer: { ingress: given.length === 0 ? null : given.map((ip) => ({ ip, ipMode: 'VIP' })) } }
        const written = await client.patch(services, service.metadata.name, namespaceOf(service), { metadata: { uid: service.metadata.uid }, status }, 'merge', { subresource: 'status', signal })
        if (given.length > 0) events.event(service, 'Normal', 'IPAllocated', `Assigned ${given.join(', ')}`)
        await all.shows(written)
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error
      }
    }

    function free(family: 'IPv4' | 'IPv6', taken: ReadonlySet<string>): string | undefined {
      for (const n of pool) {
        if ((n.family === 6) !== (family === 'IPv6')) continue
        const size = sizeOf(n)
        for (let i = 0n; i < size && i <= BigInt(taken.size) + 2n; i++) {
          // The first and the last of an IPv4 range are not addresses of anybody, where it is longer than two.
          if (n.family === 4 && size > 2n && (i === 0n || i === size - 1n)) continue
          const ip = nth(n, i)
          if (ip !== undefined && !taken.has(ip)) return ip
        }
      }
      return undefined
    }
  },
}

function within(n: NonNullable<ReturnType<typeof network>>, text: string): boolean {
  const ip = parseIp(text)
  return ip !== undefined && contains(n, ip)
}

/** A Service whose load balancer is nobody else's. */
function ours(service: Service): boolean {
  return service.spec.type === 'LoadBalancer' && service.spec.loadBalancerClass === undefined && service.metadata.deletionTimestamp === undefined
}

function ingressesOf(service: Service): readonly string[] {
  return (service.status?.loadBalancer?.ingress ?? []).flatMap((i) => (i.ip === undefined ? [] : [i.ip]))
}
