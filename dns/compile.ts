import type { EndpointSlice, Namespace, Pod, Service, SliceEndpoint } from '../kube/objects.ts'
import { parseIp } from '../lib/ip.ts'
import type { Entry } from './table.ts'
import { addressData, addressType, srvData, txtData } from './wire/data.ts'
import { below, fold, nameOf, parseName, within, type Name, type Octets } from './wire/name.ts'
import { Type } from './wire/types.ts'

/** What of the cluster is named, where, and how. */
export interface ZoneSettings {
  /** Zones that hold Services and Pods; the first is the one that PTR records point into. */
  readonly zones: readonly Name[]
  /** Zones under in-addr.arpa and ip6.arpa. */
  readonly reverse: readonly Name[]
  /** Seconds. */
  readonly ttl: number
  /** `insecure`: any address in the name; `verified`: only those of Pods; see `podAddress`. */
  readonly pods: 'disabled' | 'insecure' | 'verified'
  /** Services without a ready endpoint do not exist, so that a search list goes on. */
  readonly ignoreEmptyService: boolean
  /** Endpoints without a hostname are named after their Pod. */
  readonly endpointPodNames: boolean
  /** Endpoints have no names, and headless Services none either. */
  readonly noEndpoints: boolean
  /** Whether the labels of Namespaces decide what is exposed. */
  readonly filtersNamespaces: boolean
  exposesNamespace(namespace: string): boolean
  exposesService(service: Service): boolean
}

const inAddrArpa = nameOf('in-addr.arpa')
const ip6Arpa = nameOf('ip6.arpa')

/** Whether a zone holds addresses written backwards. */
export const isReverse = (zone: Name): boolean => within(zone, inAddrArpa) || within(zone, ip6Arpa)

/** The version of the specification "Kubernetes DNS-Based Service Discovery" that the records follow. */
export const schemaVersion = '1.1.0'

/** What every zone holds by itself: NS (RFC 1034 4.2.1), the server's own name, `dns-version`, and `svc` and `pod`, which exist also in an empty cluster. `self`: addresses that ns.dns stands for. */
export function compileZone(settings: ZoneSettings, self: readonly string[]): Entry[] {
  const out: Entry[] = []
  const primary = settings.zones[0]
  for (const zone of [...settings.zones, ...settings.reverse]) {
    const ns = serverName(settings, zone)
    out.push({ name: zone, type: Type.NS, ttl: settings.ttl, data: ns })
    if (isReverse(zone) && primary !== undefined) continue
    for (const address of self) pushAddress(out, ns, address, settings.ttl)
    out.push({ name: ns, type: 0, ttl: 0, data: '' })
  }
  for (const zone of settings.zones) {
    out.push({ name: under('dns-version', zone), type: Type.TXT, ttl: 28_800, data: txtData(schemaVersion) })
    for (const kind of ['svc', 'pod']) out.push({ name: under(kind, zone), type: 0, ttl: 0, data: '' })
  }
  return out
}

/** The name of this server in a zone; reverse zones name the one in the first forward zone. */
export function serverName(settings: ZoneSettings, zone: Name): Name {
  const home = isReverse(zone) ? (settings.zones[0] ?? zone) : zone
  return under('ns', under('dns', home))
}

/** That a Namespace exists: names of things that are not there are wrong below it, not it itself. */
export function compileNamespace(settings: ZoneSettings, namespace: Namespace): Entry[] {
  if (!settings.exposesNamespace(namespace.metadata.name)) return []
  return settings.zones.flatMap((zone) => ['svc', 'pod'].flatMap((kind) => exists(below(namespace.metadata.name, under(kind, zone)))))
}

function exists(name: Name | undefined): Entry[] {
  return name === undefined ? [] : [{ name, type: 0, ttl: 0, data: '' }]
}

/** The names of a Pod under `pod`, in mode `verified`. */
export function compilePod(settings: ZoneSettings, pod: Pod): Entry[] {
  const { phase, podIP, podIPs } = pod.status ?? {}
  const { namespace } = pod.metadata
  if (settings.pods !== 'verified' || phase === 'Succeeded' || phase === 'Failed' || namespace === undefined || !settings.exposesNamespace(namespace)) return []
  const out: Entry[] = []
  const addresses = new Set([...(podIPs ?? []).map((p) => p.ip), ...(podIP === undefined ? [] : [podIP])])
  for (const address of addresses) {
    const label = dashed(address)
    if (label === undefined) continue
    for (const zone of settings.zones) {
      const parent = below(namespace, under('pod', zone))
      const name = parent === undefined ? undefined : below(label, parent)
      if (name !== undefined) pushAddress(out, name, address, settings.ttl)
    }
  }
  return out
}

/** An address as the first label of a name: `10-244-3-7`, `fd00-244--7`, with a zero behind a trailing `--`. */
export function dashed(address: string): string | undefined {
  const ip = parseIp(address)
  if (ip === undefined) return undefined
  const text = ip.replaceAll(/[.:]/g, '-')
  return text.endsWith('-') ? `${text}0` : text
}

/** The address that a label of that form stands for. */
export function undashed(label: Octets): string | undefined {
  if (/^\d{1,3}-\d{1,3}-\d{1,3}-\d{1,3}$/.test(label)) return parseIp(label.replaceAll('-', '.'), {})
  return /^[0-9a-f-]+$/.test(label) && label.includes('-') ? parseIp(label.replaceAll('-', ':'), {}) : undefined
}

/** Every record of one Service. `slices`: those labelled with its name, of its namespace. */
export function compileService(settings: ZoneSettings, service: Service, slices: readonly EndpointSlice[]): Entry[] {
  const { name, namespace } = service.metadata
  const { spec } = service
  if (namespace === undefined || !settings.exposesNamespace(namespace) || !settings.exposesService(service)) return []
  const label = fold(name as Name)
  const out: Entry[] = []
  if (spec.type === 'ExternalName') {
    const target = externalTarget(spec.externalName)
    if (target === undefined) return []
    for (const zone of settings.zones) for (const { name: owner } of exists(serviceName(label, namespace, zone))) out.push({ name: owner, type: Type.CNAME, ttl: settings.ttl, data: target })
    return out
  }
  const clusterIPs = (spec.clusterIPs !== undefined && spec.clusterIPs.length > 0 ? spec.clusterIPs : [spec.clusterIP ?? '']).filter((ip) => ip !== '')
  if (clusterIPs.length === 0) return []
  const headless = clusterIPs[0] === 'None'
  const endpoints = settings.noEndpoints ? [] : readyEndpoints(settings, slices)
  if (settings.ignoreEmptyService && !settings.noEndpoints && endpoints.length === 0) return []
  for (const [i, zone] of settings.zones.entries()) {
    const owner = serviceName(label, namespace, zone)
    if (owner === undefined) continue
    const ports: Port[] = []
    if (headless) {
      for (const e of endpoints) {
        pushAddress(out, owner, e.address, settings.ttl)
        const target = below(e.label, owner)
        if (target !== undefined) for (const p of e.ports) ports.push({ name: p.name, protocol: p.protocol, port: p.port, target })
      }
    } else {
      for (const ip of clusterIPs) {
        pushAddress(out, owner, ip, settings.ttl)
        if (i === 0) pushPointer(out, settings, ip, owner)
      }
      for (const p of spec.ports ?? []) ports.push({ name: p.name ?? '', protocol: p.protocol ?? 'TCP', port: p.port, target: owner })
    }
    for (const e of endpoints) {
      const here = below(e.label, owner)
      if (here === undefined) continue
      pushAddress(out, here, e.address, settings.ttl)
      if (i === 0) pushPointer(out, settings, e.address, here)
    }
    pushServices(out, owner, ports, settings.ttl)
  }
  return out
}

interface Port {
  readonly name: string
  readonly protocol: string
  readonly port: number
  readonly target: Name
}

interface ReadyEndpoint {
  readonly label: Octets
  readonly address: string
  readonly ports: readonly { readonly name: string; readonly protocol: string; readonly port: number }[]
}

/** The endpoints that are named: each slice already says ready of those published although they are not; unset is ready. */
function readyEndpoints(settings: ZoneSettings, slices: readonly EndpointSlice[]): ReadyEndpoint[] {
  const out: ReadyEndpoint[] = []
  for (const slice of slices) {
    if (slice.addressType === 'FQDN') continue
    const ports = (slice.ports ?? []).flatMap((p) => (p.port === undefined ? [] : [{ name: p.name ?? '', protocol: p.protocol ?? 'TCP', port: p.port }]))
    for (const endpoint of slice.endpoints ?? []) {
      if (endpoint.conditions?.ready === false) continue
      for (const address of endpoint.addresses) {
        const label = endpointLabel(settings, endpoint, address)
        if (label !== undefined) out.push({ label, address, ports })
      }
    }
  }
  return out
}

function endpointLabel(settings: ZoneSettings, endpoint: SliceEndpoint, address: string): Octets | undefined {
  const { hostname } = endpoint
  if (hostname !== undefined && hostname !== '' && hostname.length <= 63) return fold(hostname as Name)
  const pod = settings.endpointPodNames ? endpoint.targetRef?.name : undefined
  // A Pod's name may hold dots and be too long for a label.
  if (pod !== undefined && /^[a-z0-9-]{1,63}$/.test(pod)) return pod
  return dashed(address)
}

/** SRV records: at `_port._protocol` for named ports, and at the bare name for all of them (CoreDNS has that too). Equal weights. */
function pushServices(out: Entry[], owner: Name, ports: readonly Port[], ttl: number): void {
  const at = new Map<Name, Map<string, Port>>()
  const add = (name: Name | undefined, p: Port): void => {
    if (name === undefined) return
    let here = at.get(name)
    if (here === undefined) at.set(name, (here = new Map()))
    here.set(`${p.port} ${p.target}`, p)
  }
  for (const p of ports) {
    add(owner, p)
    const protocol = below(`_${p.protocol.toLowerCase()}`, owner)
    if (p.name !== '' && protocol !== undefined) add(below(`_${p.name.toLowerCase()}`, protocol), p)
  }
  for (const [name, here] of at) {
    const weight = Math.max(1, Math.floor(100 / here.size))
    for (const p of here.values()) out.push({ name, type: Type.SRV, ttl, data: srvData(0, weight, p.port, p.target) })
  }
}

function externalTarget(text: string | undefined): Name | undefined {
  // An address is no name: a CNAME to it would lead nowhere, so the Service has no record at all.
  if (text === undefined || text === '' || text === '.' || parseIp(text) !== undefined) return undefined
  const name = parseName(text)
  return name === undefined ? undefined : fold(name)
}

function serviceName(label: Octets, namespace: string, zone: Name): Name | undefined {
  const parent = below(namespace, under('svc', zone))
  return parent === undefined ? undefined : below(label, parent)
}

/** A short fixed label before a zone: always fits, since a zone that long is refused when the configuration is read. */
function under(label: Octets, zone: Name): Name {
  return (String.fromCharCode(label.length) + label + zone) as Name
}

function pushAddress(out: Entry[], name: Name, address: string, ttl: number): void {
  const data = addressData(address)
  if (data !== undefined) out.push({ name, type: addressType(data), ttl, data })
}

function pushPointer(out: Entry[], settings: ZoneSettings, address: string, target: Name): void {
  const name = reverseName(address)
  if (name !== undefined && settings.reverse.some((zone) => within(name, zone))) out.push({ name, type: Type.PTR, ttl: settings.ttl, data: target })
}

/** `7.3.244.10.in-addr.arpa.`, or the 32 nibbles of an IPv6 address under ip6.arpa (RFC 3596 2.5). */
export function reverseName(address: string): Name | undefined {
  const data = addressData(address)
  if (data === undefined) return undefined
  let out = ''
  for (let i = data.length - 1; i >= 0; i--) {
    const c = data.charCodeAt(i)
    if (data.length === 4) out += label(String(c))
    else out += label((c & 15).toString(16)) + label((c >> 4).toString(16))
  }
  return (out + (data.length === 4 ? inAddrArpa : ip6Arpa)) as Name
}

const label = (text: string): Octets => String.fromCharCode(text.length) + text
