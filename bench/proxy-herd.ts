import type { EndpointSlice, Service } from '../kube/objects.ts'
import { service, slice } from '../kube/testing/builders.ts'
import type { Cidr } from '../lib/ip.ts'
import { silent } from '../lib/log.ts'
import { parse } from '../lib/options.ts'
import { seeded } from '../lib/random.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { realKernel } from '../linux/real.ts'
import type { Backend } from '../proxy/backend.ts'
import { modeNamed } from '../proxy/backends.ts'
import type { CompileOptions } from '../proxy/compile.ts'
import { flags, proxyOptions } from '../proxy/options.ts'

/** A way to run: the mode, and which iptables. */
export interface Way {
  readonly name: string
  readonly mode: string
  readonly variant?: 'legacy' | 'nft'
}
/** The kernel modes that run on any machine. */
export const ways: readonly Way[] = [
  { name: 'nftables', mode: 'nftables' },
  { name: 'iptables-legacy', mode: 'iptables', variant: 'legacy' },
  { name: 'iptables-nft', mode: 'iptables', variant: 'nft' },
]

/** What every table here is compiled with. */
export const options: CompileOptions = { node: 'n1', clusterCidrs: ['10.244.0.0/16' as Cidr], serviceCidrs: ['10.96.0.0/12' as Cidr] }

/** Services with addresses scattered over a /16 and more, packed endpoints. */
export function herd(count: number, endpoints: number): { readonly services: readonly Service[]; readonly slices: readonly EndpointSlice[] } {
  const services: Service[] = []
  const slices: EndpointSlice[] = []
  for (let i = 0; i < count; i++) {
    services.push(service(`demo/web-${i}`, { clusterIP: clusterIp(i), ports: ['http:80->8080'] }))
    slices.push(endpointsOf(i, endpoints, 0))
  }
  return { services, slices }
}

/** Addresses as allocators draw them: at random, over a /16 for the first 65,536. */
const scattered = ((): readonly number[] => {
  const random = seeded(13)
  const all = Array.from({ length: 65_536 }, (_, i) => i)
  for (let i = all.length - 1; i > 0; i--) {
    const k = Math.floor(random() * (i + 1))
    ;[all[i], all[k]] = [all[k]!, all[i]!]
  }
  return all
})()
export const clusterIp = (i: number): string => `10.${96 + (i >> 16)}.${scattered[i & 65_535]! >> 8}.${scattered[i & 65_535]! & 255}`

/** The slice of Service `i`; another `shift`, other endpoints. */
export const endpointsOf = (i: number, count: number, shift: number): EndpointSlice =>
  slice(
    `demo/web-${i}`,
    Array.from({ length: count }, (_, k) => {
      const n = (i * count + k + shift) % 65_000
      return `10.${244 + Math.floor(((i * count + k) / 65_000) % 8)}.${n >> 8}.${n & 255}@n${(n % 7) + 1}`
    }),
    ['http:8080'],
  )

/** The backend of a way, on the kernel of this namespace. */
export async function backendOf(way: Way): Promise<Backend> {
  const o = proxyOptions(parse(flags, ['--node', 'n1', '--mode', way.mode]).values, 'n1')
  const kernel = realKernel({ iptables: way.variant === 'legacy' ? 'legacy' : 'nf_tables', openNetlink })
  return modeNamed(way.mode)!.load({ kernel, log: silent, options: o })
}
