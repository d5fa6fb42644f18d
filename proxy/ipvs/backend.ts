import { contains, familyOf, type Ip } from '../../lib/ip.ts'
import { explainError, type Log } from '../../lib/log.ts'
import type { Kernel, Netlink } from '../../linux/kernel.ts'
import { Ipvs, type VirtualServer } from '../../linux/netlink/ipvs.ts'
import { addresses, changeAddresses, ensureLink, links, removeLink } from '../../linux/netlink/route.ts'
import type { Backend } from '../backend.ts'
import type { BackendTools } from '../backends.ts'
import { create as createRules } from '../nftables/backend.ts'
import type { Front, Refused, ServiceTable } from '../table.ts'
import { destinationKey, schedulers, serverKey, serversOf, type Wanted } from './servers.ts'

/** The device that virtual addresses are bound to. */
export const deviceName = 'switchyard0'

/** Forwards by IPVS; rules of nftables in front of it refuse, drop and masquerade. */
export async function create({ kernel, log, options }: Pick<BackendTools, 'kernel' | 'log'> & { readonly options?: Partial<BackendTools['options']> }): Promise<Backend> {
  return new IpvsBackend(kernel, log, {
    mode: options?.mode ?? 'ipvs',
    strictArp: options?.strictArp ?? false,
    excludeCidrs: options?.excludeCidrs ?? [],
    ipvsTimeouts: options?.ipvsTimeouts ?? { tcp: 0, tcpFin: 0, udp: 0 },
  })
}

/** A virtual server as the kernel has it. `draining`: no longer wanted, but somebody is still connected. */
interface Present {
  server: VirtualServer
  readonly destinations: Map<string, { readonly address: Ip; readonly port: number; draining: boolean }>
  draining: boolean
  binds: Ip | undefined
}

const drainEvery = 1000 // ms

type Options = Pick<BackendTools['options'], 'mode' | 'strictArp' | 'excludeCidrs' | 'ipvsTimeouts'>

class IpvsBackend implements Backend {
  readonly name = 'ipvs'
  readonly #kernel: Kernel
  readonly #log: Log
  readonly #options: Options
  readonly #rules: Backend
  readonly #marks = new Map<string, number>()
  #maskBit = 0x4000
  #generic: Netlink | undefined
  #route: Netlink | undefined
  #ipvs: Ipvs | undefined
  /** What the kernel has, if we know. */
  #present: Map<string, Present> | undefined
  #bound = new Set<Ip>()
  #device = 0
  /** Addresses of this machine but for those we bound. */
  #own: ReadonlySet<Ip> = new Set()
  /** Wanted servers by front, kept while front and node addresses stay the same. */
  #wanted = new Map<string, { readonly front: Front; readonly servers: readonly Wanted[] }>()
  #around = ''
  readonly #lacking = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #busy: Promise<unknown> = Promise.resolve()

  constructor(kernel: Kernel, log: Log, options: Options) {
    this.#kernel = kernel
    this.#log = log
    this.#options = options
    this.#rules = createRules({ kernel, log, forwarder: { mark: (front) => this.#mark(front), own: () => this.#own } })
  }

  async probe(): Promise<string | undefined> {
    try {
      await this.#open()
    } catch (error) {
      return `the kernel has no IPVS (module ip_vs): ${explainError(error)}`
    }
    return this.#rules.probe()
  }

  apply(desired: ServiceTable, signal: AbortSignal): Promise<{ readonly refused: readonly Refused[] }> {
    return this.#alone(() => this.#apply(desired, signal))
  }

  async #apply(desired: ServiceTable, signal: AbortSignal): Promise<{ readonly refused: readonly Refused[] }> {
    const ipvs = await this.#open()
    if (this.#device === 0) await this.#prepare(ipvs)
    this.#maskBit = desired.node.masqueradeMark
    const own = (await addresses(this.#routeSocket)).filter((a) => a.index !== this.#device && !isLocalOnly(a.address)).map((a) => a.address)
    if (own.length !== this.#own.size || own.some((ip) => !this.#own.has(ip))) this.#own = new Set(own)
    // Masquerading and refusals first: at a cold start nobody meets a server whose answers would go astray, nor a daemon of this host.
    const { refused } = await this.#rules.apply(desired, signal)
    signal.throwIfAborted()
    const want = this.#want(desired)
    for (let tries = 0; ; tries++) {
      const present = (this.#present ??= await this.#dump(ipvs))
      await this.#servers(ipvs, present, want)
      const failures = await ipvs.flush()
      if (failures.length === 0) break
      this.#present = undefined
      this.#log.warn('IPVS refused changes; reading what it has', { failures: failures.slice(0, 5).map((f) => `${f.what}: ${f.code}`), more: Math.max(0, failures.length - 5) })
      // A scheduler whose module is missing is ENOENT; its Services take turns instead.
      for (const { server } of want.values())
        if (failures.some((f) => f.code === 'ENOENT' && f.what.startsWith('add ') && !f.what.includes('→') && f.what.endsWith(nameOf(server)))) this.#lacking.add(server.scheduler)
      if (tries === 2) throw new Error(`IPVS: ${failures[0]!.what}: ${failures[0]!.code}${failures.length > 1 ? `, and ${failures.length - 1} more` : ''}`)
      if (this.#lacking.size > 0) {
        this.#around = ''
        for (const [key, value] of this.#want(desired)) want.set(key, value)
      }
    }
    await this.#bind(this.#present!)
    this.#drainLater()
    return { refused }
  }

  /** Changes the kernel from `present` to `want`; what lost its place drains. */
  async #servers(ipvs: Ipvs, present: Map<string, Present>, want: ReadonlyMap<string, Wanted>): Promise<void> {
    for (const [key, { server, to, binds }] of want) {
      let have = present.get(key)
      if (have === undefined) {
        await ipvs.add(server)
        present.set(key, (have = { server, destinations: new Map(), draining: false, binds }))
      } else if (have.server !== server && (have.server.scheduler !== server.scheduler || have.server.persistence !== server.persistence || have.server.schedulerFlags !== server.schedulerFlags))
        await ipvs.change(server)
      else if (have.server === server && !have.draining) continue // the very same as last time
      have.server = server
      have.draining = false
      have.binds = binds
      const wanted = new Set<string>()
      for (const e of to) {
        const name = destinationKey(e)
        wanted.add(name)
        const there = have.destinations.get(name)
        if (there === undefined) {
          await ipvs.addDestination(server, { address: e.address, port: e.port, weight: 1 })
          have.destinations.set(name, { address: e.address, port: e.port, draining: false })
        } else if (there.draining) {
          await ipvs.changeDestination(server, { ...there, weight: 1 })
          there.draining = false
        }
      }
      for (const [name, there] of have.destinations) if (!wanted.has(name)) await this.#leave(ipvs, have, name, there)
    }
    for (const [key, have] of present) {
      if (want.has(key) || have.draining) continue
      for (const [name, there] of have.destinations) await this.#leave(ipvs, have, name, there)
      if (have.destinations.size === 0) {
        await ipvs.remove(have.server)
        present.delete(key)
      } else have.draining = true
    }
  }

  /** A destination gets no new connections; those of datagrams have no end to wait for. */
  async #leave(ipvs: Ipvs, of: Present, name: string, there: { readonly address: Ip; readonly port: number; draining: boolean }): Promise<void> {
    if ('protocol' in of.server && of.server.protocol === 'UDP') {
      await ipvs.removeDestination(of.server, { ...there, weight: 0 })
      of.destinations.delete(name)
    } else if (!there.draining) {
      await ipvs.changeDestination(of.server, { ...there, weight: 0 })
      there.draining = true
    }
  }

  /** All servers of the table, by key; unchanged ones in their old identity. */
  #want(desired: ServiceTable): Map<string, Wanted> {
    const { node } = desired
    const own = node.nodePortAddresses === 'all' ? [...this.#own] : node.nodePortAddresses
    const around = JSON.stringify([[...own].sort(), [...this.#own].sort(), node.masqueradeMark, [...this.#lacking]])
    const keep = around === this.#around
    this.#around = around
    const before = this.#wanted
    this.#wanted = new Map()
    const want = new Map<string, Wanted>()
    for (const [key, front] of desired.fronts) {
      const old = keep ? before.get(key) : undefined
      const servers =
        old?.front === front
          ? old.servers
          : serversOf(front, {
              nodeAddresses: own.filter((ip) => familyOf(ip) === front.family),
              own: this.#own,
              mark: (f) => this.#mark(f),
              masqueradeMark: node.masqueradeMark,
              scheduler: (name) => this.#scheduler(name, front),
            })
      this.#wanted.set(key, { front, servers })
      for (const w of servers) if (!this.#excluded(w.server)) want.set(serverKey(w.server), w)
    }
    return want
  }

  #scheduler(name: string | undefined, front: Front): string {
    if (name === undefined || name === '') return 'rr'
    if ((schedulers as readonly string[]).includes(name) && !this.#lacking.has(name)) return name
    this.#log.warn('no such scheduler here; connections take turns', { service: front.port, scheduler: name })
    return 'rr'
  }

  /** A number for a front's second list, the same after a restart unless two fronts clash. */
  #mark(front: Front): number {
    const name = `${front.protocol} ${front.family} ${'address' in front.at ? `${front.at.address} ${front.at.port}` : front.at.nodePort}`
    let n = this.#marks.get(name)
    if (n === undefined) {
      let hash = 0x811c9dc5
      for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.codePointAt(i)!, 0x0100_0193) >>> 0
      const taken = new Set(this.#marks.values())
      n = 1 + (hash % 0x7ffe)
      while (taken.has(n)) n = 1 + (n % 0x7ffe)
      this.#marks.set(name, n)
    }
    // The half of the mark that masquerading does not use.
    return (this.#maskBit >= 0x1_0000 ? n : n << 16) >>> 0
  }

  #excluded(server: VirtualServer): boolean {
    return 'address' in server && this.#options.excludeCidrs.some((c) => contains(c, server.address))
  }

  async #dump(ipvs: Ipvs): Promise<Map<string, Present>> {
    const present = new Map<string, Present>()
    for (const server of await ipvs.servers()) {
      if (this.#excluded(server)) continue
      const destinations = new Map((await ipvs.destinations(server)).map((d) => [destinationKey(d), { address: d.address, port: d.port, draining: d.weight === 0 }]))
      const binds = 'address' in server && this.#bound.has(server.address) ? server.address : undefined
      present.set(serverKey(server), { server, destinations, draining: false, binds })
    }
    return present
  }

  /** Binds the addresses of all servers there are, also of draining ones, and no others. */
  async #bind(present: ReadonlyMap<string, Present>): Promise<void> {
    const want = new Set<Ip>()
    for (const { binds } of present.values()) if (binds !== undefined) want.add(binds)
    const add = [...want].filter((ip) => !this.#bound.has(ip))
    const remove = [...this.#bound].filter((ip) => !want.has(ip))
    if (add.length > 0 || remove.length > 0) await changeAddresses(this.#routeSocket, this.#device, { add, remove })
    this.#bound = want
  }

  #drainLater(): void {
    const some = [...(this.#present?.values() ?? [])].some((p) => p.draining || [...p.destinations.values()].some((d) => d.draining))
    if (!some || this.#timer !== undefined) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      void this.#alone(() => this.#drain()).catch((error: unknown) => this.#log.warn('could not end draining', { error: explainError(error) }))
    }, drainEvery)
    this.#timer.unref()
  }

  /** Takes out destinations whose last connection has ended, then servers without any. */
  async #drain(): Promise<void> {
    const present = this.#present
    const ipvs = this.#ipvs
    if (present === undefined || ipvs === undefined) return
    for (const [key, have] of present) {
      if (![...have.destinations.values()].some((d) => d.draining)) continue
      for (const d of await ipvs.destinations(have.server)) {
        const there = have.destinations.get(destinationKey(d))
        if (there?.draining !== true || d.active + d.inactive > 0) continue
        await ipvs.removeDestination(have.server, { ...there, weight: 0 })
        have.destinations.delete(destinationKey(d))
      }
      if (have.draining && have.destinations.size === 0) {
        await ipvs.remove(have.server)
        present.delete(key)
      }
    }
    const failures = await ipvs.flush()
    if (failures.length > 0) this.#present = undefined
    else await this.#bind(present)
    this.#drainLater()
  }

  async #prepare(ipvs: Ipvs): Promise<void> {
    const set = async (name: string, value: string, must = true): Promise<void> => {
      try {
        if ((await this.#kernel.sysctl.get(name)) !== value) await this.#kernel.sysctl.set(name, value)
      } catch (error) {
        if (must) throw new Error(`sysctl ${name} = ${value}`, { cause: error })
      }
    }
    await set('net/ipv4/vs/conntrack', '1') // masquerading sees IPVS connections only then
    await set('net/ipv4/vs/expire_nodest_conn', '1', false)
    await set('net/ipv4/vs/expire_quiescent_template', '1', false)
    await set('net/ipv4/ip_forward', '1')
    if (this.#options.strictArp) {
      await set('net/ipv4/conf/all/arp_ignore', '1')
      await set('net/ipv4/conf/all/arp_announce', '2')
    }
    const { tcp, tcpFin, udp } = this.#options.ipvsTimeouts
    if (tcp > 0 || tcpFin > 0 || udp > 0) await ipvs.timeouts({ tcp: Math.ceil(tcp / 1000), tcpFin: Math.ceil(tcpFin / 1000), udp: Math.ceil(udp / 1000) })
    try {
      this.#device = await ensureLink(this.#routeSocket, deviceName, 'dummy')
    } catch (error) {
      // Where there is no dummy device a bridge without ports holds addresses just as well.
      if ((error as { code?: string }).code !== 'EOPNOTSUPP') throw error
      this.#device = await ensureLink(this.#routeSocket, deviceName, 'bridge')
    }
    this.#bound = new Set((await addresses(this.#routeSocket)).filter((a) => a.index === this.#device && !isLocalOnly(a.address)).map((a) => a.address))
  }

  async check(): Promise<readonly string[]> {
    return this.#alone(async () => {
      const wrong = [...(await this.#rules.check())]
      if (this.#present === undefined || this.#ipvs === undefined) return wrong
      const now = new Map((await this.#ipvs.servers()).filter((s) => !this.#excluded(s)).map((s) => [serverKey(s), s]))
      const gone = [...this.#present].filter(([key]) => !now.has(key)).length
      const foreign = [...now.keys()].filter((key) => !this.#present!.has(key)).length
      if (gone > 0) wrong.push(`${gone} of ${this.#present.size} virtual servers are gone`)
      if (foreign > 0) wrong.push(`${foreign} virtual servers are not ours`)
      for (const [, have] of sample([...this.#present], 50)) {
        if (!now.has(serverKey(have.server))) continue
        const there = new Map((await this.#ipvs.destinations(have.server)).map((d) => [destinationKey(d), d.weight]))
        const same = there.size === have.destinations.size && [...have.destinations].every(([key, d]) => there.get(key) === (d.draining ? 0 : 1))
        if (!same) wrong.push(`${nameOf(have.server)} has other destinations than ours`)
      }
      const device = (await links(this.#routeSocket)).find((l) => l.name === deviceName)
      const bound = new Set((await addresses(this.#routeSocket)).filter((a) => a.index === device?.index).map((a) => a.address))
      const missing = [...this.#bound].filter((ip) => !bound.has(ip)).length
      if (device === undefined) wrong.push(`device ${deviceName} is gone`)
      else if (!device.up) wrong.push(`device ${deviceName} is down`)
      else if (missing > 0) wrong.push(`${missing} of ${this.#bound.size} virtual addresses are gone`)
      if (wrong.length > 0) {
        this.#present = undefined
        this.#device = 0
      }
      return wrong
    })
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer)
    await this.#busy
    await this.#rules.close()
    this.#generic?.close()
    this.#route?.close()
    this.#generic = this.#route = this.#ipvs = this.#present = undefined
    this.#device = 0
  }

  async cleanup(): Promise<void> {
    await this.#alone(async () => {
      clearTimeout(this.#timer)
      this.#timer = undefined
      const device = (await links(this.#routeSocket)).find((l) => l.name === deviceName)
      if (device !== undefined) {
        // Where our device is, the servers were ours too, but for those excluded.
        const ipvs = await this.#open().catch(() => undefined)
        if (ipvs !== undefined) {
          for (const server of await ipvs.servers()) if (!this.#excluded(server)) await ipvs.remove(server)
          await ipvs.flush()
        }
        await removeLink(this.#routeSocket, deviceName)
      }
      this.#present = undefined
      this.#device = 0
      this.#bound.clear()
    })
    // In the mode nftables the table is that mode's by now.
    if (this.#options.mode !== 'nftables') await this.#rules.cleanup()
  }

  async #open(): Promise<Ipvs> {
    if (this.#ipvs !== undefined) return this.#ipvs
    this.#generic ??= this.#kernel.netlink('generic')
    return (this.#ipvs = await Ipvs.open(this.#generic))
  }

  get #routeSocket(): Netlink {
    return (this.#route ??= this.#kernel.netlink('route'))
  }

  /** One after the other: the timer's work and an apply must not mix. */
  #alone<T>(f: () => Promise<T>): Promise<T> {
    const next = this.#busy.then(f, f)
    this.#busy = next.catch(() => {})
    return next
  }
}

const nameOf = (s: VirtualServer): string => ('mark' in s ? `mark ${s.mark}` : `${s.protocol} ${s.address}:${s.port}`)
const isLocalOnly = (ip: Ip): boolean => ip.startsWith('127.') || ip === '::1' || /^fe[89ab]/.test(ip)

function sample<T>(list: readonly T[], n: number): readonly T[] {
  return list.length <= n ? list : Array.from({ length: n }, () => list[Math.floor(Math.random() * list.length)]!)
}
