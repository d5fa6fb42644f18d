import { candidates } from '../kube/endpoints.ts'
import type { EndpointSlice, Service } from '../kube/objects.ts'
import { ipBytes } from '../lib/ip.ts'
import type { Endpoint, Upstream } from './table.ts'

/** Whether two lists lead to the same places. */
export function sameEndpoints(a: readonly Endpoint[], b: readonly Endpoint[]): boolean {
  return a.length === b.length && a.every((e, i) => e.key === b[i]!.key)
}

/** What an upstream is made of. */
export interface ServiceParts {
  readonly service: Service | undefined
  readonly slices: readonly EndpointSlice[]
  /** The Service's own address instead of its endpoints. */
  readonly direct?: boolean
  /** Addresses of names that were looked up; undefined: ExternalNames are not followed. */
  readonly names?: Names | undefined
}

/** Addresses of names outside, as far as they are known. */
export interface Names {
  /** Undefined: not known yet. Whoever asks is told by a change. */
  addressesOf(name: string): readonly string[] | undefined
}

/** The endpoints of a Service port; why there are none if the Service or the port does not exist. */
export function upstreamOf(namespace: string, name: string, port: string | number, parts: ServiceParts): Upstream | string {
  const { service, slices } = parts
  if (service === undefined) return `Service ${namespace}/${name} does not exist`
  const ports = (service.spec.ports ?? []).filter((p) => (p.protocol ?? 'TCP') === 'TCP')
  const label = `${namespace}/${name}:${port}`
  const { externalName } = service.spec
  if (service.spec.type === 'ExternalName') {
    if (parts.names === undefined) return `Service ${namespace}/${name} is an ExternalName; those are followed only with --allow-external-names`
    const number = ports.find((p) => p.name === port)?.port ?? (typeof port === 'number' ? port : Number(port))
    if (externalName === undefined || !Number.isInteger(number) || number < 1)
      return `Service ${namespace}/${name} is an ExternalName without ${externalName === undefined ? 'a name' : `a port "${port}"`}`
    const addresses = ipBytes(externalName) === undefined ? (parts.names.addressesOf(externalName.replace(/\.$/, '')) ?? []) : [externalName]
    return { name: label, endpoints: addresses.map((a) => endpoint(a, number)), external: externalName }
  }
  const found = port === '' ? (ports.length === 1 ? ports[0] : undefined) : ports.find((p) => (typeof port === 'number' ? p.port === port : p.name === port))
  if (found === undefined) return `Service ${namespace}/${name} has no TCP port ${port === '' ? '(none was named and there is not exactly one)' : `"${port}"`}`
  // KEP-3726: what a port speaks may be said in the Service.
  const http2 = found.appProtocol === 'kubernetes.io/h2c' ? { http2: true } : {}
  if (parts.direct === true) {
    const ip = service.spec.clusterIP
    if (ip === undefined || ip === '' || ip === 'None') return `Service ${namespace}/${name} has no cluster IP`
    return { name: label, endpoints: [endpoint(ip, found.port)], ...http2 }
  }
  return { name: label, endpoints: endpointsOf(service, slices, found.name ?? '', 'TCP'), ...http2 }
}

/** The endpoints of a named port: those that are ready; if there are none, those that end and still serve. */
export function endpointsOf(service: Service, slices: readonly EndpointSlice[], portName: string, protocol: 'TCP' | 'UDP'): readonly Endpoint[] {
  // Of a dual-stack Service's two lists the first family's: the same pods stand in both.
  const family = service.spec.ipFamilies?.[0] ?? (slices.some((s) => s.addressType === 'IPv4') ? 'IPv4' : 'IPv6')
  const all = candidates(
    slices.filter((s) => s.addressType === family),
    portName,
    protocol,
  )
  let usable = all.filter((c) => c.ready)
  if (usable.length === 0) usable = all.filter((c) => c.serving && c.terminating)
  return usable.map((c) => endpoint(c.address, c.port))
}

function endpoint(address: string, port: number): Endpoint {
  return { address, port, key: address.includes(':') ? `[${address}]:${port}` : `${address}:${port}` }
}
