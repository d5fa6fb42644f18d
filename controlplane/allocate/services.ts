import { randomInt } from 'node:crypto'
import { contains, familyOf, network, nth, parseIp, sizeOf, type Ip, type Network } from '../../lib/ip.ts'
import type { Json } from '../kinds/decode.ts'
import { FieldErrors } from '../kinds/invalid.ts'
import { Conflict, type Store } from '../store/seam.ts'
import type { Claim } from '../api/rest.ts'
import { Failure, invalid } from '../api/status.ts'

/** Where addresses and ports may lie. */
export interface Ranges {
  readonly cidrs: readonly Network[]
  readonly ports: { readonly from: number; readonly to: number }
}

/** `30000-32767` */
export function portRange(text: string): { readonly from: number; readonly to: number } | undefined {
  const m = /^(\d+)-(\d+)$/.exec(text)
  const [from, to] = [Number(m?.[1]), Number(m?.[2])]
  return m !== null && from > 0 && to <= 65_535 && from <= to ? { from, to } : undefined
}

/**
 * Gives Services their addresses and ports. Each one given is a key of the store, made only if it did not exist, so that two API servers
 * over one store cannot give the same; what a crash left without an owner is found by `repair`.
 */
export class ServiceAllocator {
  readonly #store: Store
  readonly #ranges: Ranges
  /** What we know to be taken: only a hint, the store decides. */
  readonly #taken = new Set<string>()

  constructor(store: Store, ranges: Ranges) {
    this.#store = store
    this.#ranges = ranges
  }

  /** Reads what is taken, and frees what no Service holds (a crash between taking and writing leaves such). */
  async repair(services: Iterable<Json>): Promise<void> {
    const held = new Set<string>()
    for (const s of services) for (const key of keysOf(s)) held.add(key)
    const page = await this.#store.list('/allocations/')
    this.#taken.clear()
    for (const item of page.items) {
      if (held.has(item.key)) this.#taken.add(item.key)
      else await this.#store.delete(item.key, item.revision).catch(ignoreConflict)
    }
    for (const key of held) if (!this.#taken.has(key) && (await this.#take(key, ''))) this.#taken.add(key)
  }

  /** Takes what `service` asks for and does not have yet; writes it in. With `dry` everything is checked, nothing kept. */
  async claim(service: Json, before: Json | undefined, dry: boolean): Promise<Claim> {
    const owner = `${service['metadata'].namespace}/${service['metadata'].name}`
    const had = new Set(before === undefined ? [] : keysOf(before))
    const taken: string[] = []
    const rollback = async (): Promise<void> => {
      for (const key of taken) await this.#free(key)
    }
    try {
      await this.#addresses(service, before, had, owner, taken)
      await this.#ports(service, had, owner, taken)
      await this.#healthPort(service, had, owner, taken)
    } catch (error) {
      await rollback()
      throw error
    }
    void dry
    return {
      rollback,
      commit: async () => {
        const has = new Set(keysOf(service))
        for (const key of had) if (!has.has(key)) await this.#free(key)
      },
    }
  }

  async released(service: Json): Promise<void> {
    for (const key of keysOf(service)) await this.#free(key)
  }

  async #addresses(service: Json, before: Json | undefined, had: ReadonlySet<string>, owner: string, taken: string[]): Promise<void> {
    const spec = service['spec']
    if (spec.type === 'ExternalName') return
    const configured = this.#ranges.cidrs.map((c) => (c.family === 4 ? 'IPv4' : 'IPv6'))
    const headless = spec.clusterIP === 'None'
    this.#families(service, before, configured)
    if (headless) {
      spec.clusterIPs = ['None']
      return
    }
    const ips: string[] = [...(spec.clusterIPs ?? [])].slice(0, spec.ipFamilies.length)
    for (const [i, family] of (spec.ipFamilies as string[]).entries()) {
      const range = this.#ranges.cidrs.find((c) => (c.family === 4 ? 'IPv4' : 'IPv6') === family)
      if (range === undefined) continue
      const wanted = ips[i]
      if (wanted !== undefined && wanted !== '') {
        const ip = parseIp(wanted)
        const key = `/allocations/ips/${ip}`
        if (had.has(key)) continue
        const refuse = (why: string): Failure => refused(service, (e) => e.invalid('spec.clusterIPs', ips, `failed to allocate IP ${wanted}: ${why}`))
        if (ip === undefined || !usable(range, ip)) throw refuse(`the provided IP (${wanted}) is not in the valid range. The range of valid IPs is ${text(range)}`)
        if (!(await this.#take(key, owner))) throw refuse('provided IP is already allocated')
        taken.push(key)
      } else {
        const ip = await this.#anyAddress(range, owner)
        if (ip === undefined) throw new Failure(500, 'InternalError', 'Internal error occurred: failed to allocate a serviceIP: range is full')
        taken.push(`/allocations/ips/${ip}`)
        ips[i] = ip
      }
    }
    spec.clusterIPs = ips
    spec.clusterIP = ips[0]
  }

  /** Sets ipFamilies and ipFamilyPolicy from what was asked and what the cluster has. */
  #families(service: Json, before: Json | undefined, configured: readonly string[]): void {
    const spec = service['spec']
    const headlessWithoutSelector = spec.clusterIP === 'None' && Object.keys(spec.selector ?? {}).length === 0
    const asked: string[] | undefined = spec.ipFamilies
    const ips: string[] = (spec.clusterIPs ?? []).filter((ip: string) => ip !== 'None' && ip !== '')
    let families = [...(asked ?? [])]
    ips.forEach((ip, i) => {
      const family = familyOf(ip) === 4 ? 'IPv4' : 'IPv6'
      if (families[i] !== undefined && families[i] !== family)
        throw refused(service, (e) => e.invalid(`spec.clusterIPs[${i}]`, ip, `expected an ${families[i]} value as indicated by \`ipFamilies[${i}]\``))
      families[i] = family
    })
    const policy: string | undefined = spec.ipFamilyPolicy
    if (!headlessWithoutSelector) {
      families.forEach((f, i) => {
        if (!configured.includes(f))
          throw refused(service, (e) =>
            ips[i] !== undefined && asked === undefined
              ? e.invalid(`spec.clusterIPs[${i}]`, ips, `${f} is not configured on this cluster`)
              : e.invalid(`spec.ipFamilies[${i}]`, f, 'not configured on this cluster'),
          )
      })
      if (policy === 'RequireDualStack' && configured.length < 2) throw refused(service, (e) => e.invalid('spec.ipFamilyPolicy', policy, 'this cluster is not configured for dual-stack services'))
    }
    spec.ipFamilyPolicy ??= headlessWithoutSelector && asked === undefined ? 'RequireDualStack' : families.length > 1 ? 'RequireDualStack' : 'SingleStack'
    if (headlessWithoutSelector && asked === undefined && spec.ipFamilyPolicy !== 'SingleStack') families = [configured[0]!, configured[0] === 'IPv4' ? 'IPv6' : 'IPv4']
    if (families.length === 0) families = [configured[0]!]
    const both = spec.ipFamilyPolicy === 'RequireDualStack' || (spec.ipFamilyPolicy === 'PreferDualStack' && configured.length > 1)
    if (both && families.length < 2) families.push(families[0] === 'IPv4' ? 'IPv6' : 'IPv4')
    if (spec.ipFamilyPolicy === 'SingleStack' && families.length > 1) {
      families = families.slice(0, 1)
      if (before !== undefined) spec.clusterIPs = (spec.clusterIPs ?? []).slice(0, 1)
    }
    spec.ipFamilies = families
  }

  async #anyAddress(range: Network, owner: string): Promise<Ip | undefined> {
    const whole = sizeOf(range)
    const count = whole > 1n << 31n ? 1 << 31 : Number(whole)
    // The lower part is left to those who ask for an address by name, as Kubernetes does.
    const reserved = count <= 32 ? 0 : Math.min(Math.max(16, Math.floor(count / 16)), 256)
    const last = range.family === 4 ? count - 2 : count - 1
    for (const [low, high] of [
      [reserved + 1, last],
      [1, Math.min(reserved, last)],
    ] as const) {
      const span = high - low + 1
      if (span <= 0) continue
      const start = randomInt(span)
      for (let i = 0; i < span; i++) {
        const ip = nth(range, low + ((start + i) % span))
        if (ip === undefined || this.#taken.has(`/allocations/ips/${ip}`)) continue
        if (await this.#take(`/allocations/ips/${ip}`, owner)) return ip
      }
    }
    return undefined
  }

  async #ports(service: Json, had: ReadonlySet<string>, owner: string, taken: string[]): Promise<void> {
    const spec = service['spec']
    const wants = spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false)
    const ports = (spec.ports ?? []) as Json[]
    const own = new Set<number>()
    for (const [i, p] of ports.entries()) {
      const port: number = p['nodePort'] ?? 0
      if (port === 0 || (spec.type !== 'NodePort' && spec.type !== 'LoadBalancer')) continue
      const key = `/allocations/ports/${port}`
      // One Service may use a port for TCP and for UDP.
      if (had.has(key) || own.has(port)) {
        own.add(port)
        continue
      }
      const at = `spec.ports[${i}].nodePort`
      if (port < this.#ranges.ports.from || port > this.#ranges.ports.to)
        throw refused(service, (e) => e.invalid(at, port, `provided port is not in the valid range. The range of valid ports is ${this.#ranges.ports.from}-${this.#ranges.ports.to}`))
      if (!(await this.#take(key, owner))) throw refused(service, (e) => e.invalid(at, port, 'provided port is already allocated'))
      own.add(port)
      taken.push(key)
    }
    if (!wants) return
    for (const p of ports) {
      if ((p['nodePort'] ?? 0) !== 0) continue
      // The same port number under another protocol gets the same node port, if there is one.
      const twin = ports.find((x) => x !== p && x['port'] === p['port'] && x['protocol'] !== p['protocol'] && (x['nodePort'] ?? 0) !== 0)
      if (twin !== undefined && !ports.some((x) => x['nodePort'] === twin['nodePort'] && x['protocol'] === p['protocol'])) {
        p['nodePort'] = twin['nodePort']
        continue
      }
      const port = await this.#anyPort(owner)
      p['nodePort'] = port
      taken.push(`/allocations/ports/${port}`)
    }
  }

  async #healthPort(service: Json, had: ReadonlySet<string>, owner: string, taken: string[]): Promise<void> {
    const spec = service['spec']
    if (spec.type !== 'LoadBalancer' || spec.externalTrafficPolicy !== 'Local') return
    const port: number = spec.healthCheckNodePort ?? 0
    if (port === 0) {
      spec.healthCheckNodePort = await this.#anyPort(owner)
      taken.push(`/allocations/ports/${spec.healthCheckNodePort}`)
      return
    }
    const key = `/allocations/ports/${port}`
    if (had.has(key)) return
    if (port < this.#ranges.ports.from || port > this.#ranges.ports.to || !(await this.#take(key, owner)))
      throw new Failure(
        500,
        'InternalError',
        `Internal error occurred: failed to allocate requested HealthCheck NodePort ${port}: provided port is ${port < this.#ranges.ports.from || port > this.#ranges.ports.to ? `not in the valid range. The range of valid ports is ${this.#ranges.ports.from}-${this.#ranges.ports.to}` : 'already allocated'}`,
      )
    taken.push(key)
  }

  async #anyPort(owner: string): Promise<number> {
    const { from, to } = this.#ranges.ports
    const count = to - from + 1
    const reserved = count < 16 ? 0 : Math.min(Math.max(16, Math.floor(count / 32)), 128)
    for (const [low, high] of [
      [from + reserved, to],
      [from, from + reserved - 1],
    ] as const) {
      const span = high - low + 1
      if (span <= 0) continue
      const start = randomInt(span)
      for (let i = 0; i < span; i++) {
        const port = low + ((start + i) % span)
        if (this.#taken.has(`/allocations/ports/${port}`)) continue
        if (await this.#take(`/allocations/ports/${port}`, owner)) return port
      }
    }
    throw new Failure(500, 'InternalError', 'Internal error occurred: failed to allocate a nodePort: range is full')
  }

  async #take(key: string, owner: string): Promise<boolean> {
    try {
      await this.#store.put(key, Buffer.from(owner), 0)
      this.#taken.add(key)
      return true
    } catch (error) {
      if (!(error instanceof Conflict)) throw error
      this.#taken.add(key)
      return false
    }
  }

  async #free(key: string): Promise<void> {
    const found = await this.#store.get(key)
    this.#taken.delete(key)
    if (found !== undefined) await this.#store.delete(key, found.revision).catch(ignoreConflict)
  }
}

/** The keys that a Service holds. */
function keysOf(service: Json): string[] {
  const spec = service['spec'] ?? {}
  const out = new Set<string>()
  if (spec.type !== 'ExternalName')
    for (const ip of (spec.clusterIPs ?? (spec.clusterIP === undefined ? [] : [spec.clusterIP])) as string[]) if (ip !== '' && ip !== 'None') out.add(`/allocations/ips/${parseIp(ip) ?? ip}`)
  for (const p of (spec.ports ?? []) as Json[]) if ((p['nodePort'] ?? 0) !== 0) out.add(`/allocations/ports/${p['nodePort']}`)
  if ((spec.healthCheckNodePort ?? 0) !== 0) out.add(`/allocations/ports/${spec.healthCheckNodePort}`)
  return [...out]
}

function refused(service: Json, why: (errors: FieldErrors) => void): Failure {
  const errors = new FieldErrors()
  why(errors)
  return invalid('', 'Service', service['metadata'].name, errors.causes)
}

/** Neither the address of the network nor, in IPv4, its broadcast. */
const usable = (range: Network, ip: Ip): boolean => contains(range, ip) && ip !== nth(range, 0) && (range.family === 6 || ip !== nth(range, sizeOf(range) - 1n))

const text = (n: Network): string => `${nth(n, 0)}/${n.bits}`

function ignoreConflict(error: unknown): void {
  if (!(error instanceof Conflict)) throw error
}

export { network }
