import { isNotFound, type Client } from '../kube/client.ts'
import type { EndpointSlice } from '../kube/objects.ts'
import { endpointslices, nodes } from '../kube/resources.ts'
import { familyOf, parseIp } from '../lib/ip.ts'
import { sleep } from '../lib/lifecycle.ts'
import { explainError, type Log } from '../lib/log.ts'
import { reconcile } from '../lib/reconcile.ts'
import { serviceNameLabel } from './reduce.ts'

const namespace = 'kube-system'
const service = 'kube-dns'
const managedByLabel = 'endpointslice.kubernetes.io/managed-by'
/** Who keeps the slice, so that controllers leave it alone. */
export const managedBy = 'dns.switchyard.dev'

export interface RegistrationOptions {
  readonly client: Client
  readonly node: string
  /** Listened on; '' or a wildcard takes the Node's InternalIP. */
  readonly host: string
  readonly port: number
  readonly metricsPort: number | undefined
  readonly ready: () => boolean
  readonly log: Log
  readonly signal: AbortSignal
}

/** This server as an endpoint of Service kube-system/kube-dns. */
export interface Registration {
  readonly name: string
  /** Something about it may have changed. */
  ring(): void
  /** Says that nobody should come any more; takes at most `ms` milliseconds. */
  withdraw(ms: number): Promise<void>
}

/** Keeps the EndpointSlice of this server as it should be, also when somebody else changes it. */
export function register(options: RegistrationOptions): Registration {
  const { client, log, signal } = options
  const name = `${service}-${options.node}`
  let written: boolean | undefined
  let leaving = false
  const write = async (abort: AbortSignal): Promise<void> => {
    const ready = !leaving && options.ready()
    const node = await client.find(nodes, options.node, undefined, { signal: abort })
    const address = addressOf(options.host, node?.status?.addresses?.filter((a) => a.type === 'InternalIP').map((a) => a.address) ?? [])
    if (address === undefined) throw new Error(`node ${options.node} has no InternalIP yet`)
    const wanted = sliceOf(options, name, address, ready, node?.metadata.uid)
    const have = await client.find(endpointslices, name, namespace, { signal: abort })
    if (have === undefined) await client.create(endpointslices, wanted, { signal: abort })
    else if (have.addressType !== wanted.addressType) {
      // It cannot be changed in place.
      await client.delete(endpointslices, name, namespace, { signal: abort })
      await client.create(endpointslices, wanted, { signal: abort })
    } else if (!same(have, wanted)) {
      const labels = { ...have.metadata.labels, ...wanted.metadata.labels }
      const owners = wanted.metadata.ownerReferences
      await client.update(
        endpointslices,
        { ...have, metadata: { ...have.metadata, labels, ...(owners === undefined ? {} : { ownerReferences: owners }) }, endpoints: wanted.endpoints, ports: wanted.ports! },
        { signal: abort },
      )
    }
    if (written !== ready) log.debug('endpoint slice written', { slice: name, ready, address })
    written = ready
  }
  const loop = reconcile(write, {
    signal,
    least: 200,
    most: 30_000,
    failed: (error) => log.warn('the endpoint slice of this server could not be written, trying again', { slice: `${namespace}/${name}`, error: explainError(error) }),
  })
  loop.ring()
  // Readiness is a look at a variable; the API is asked only when it turned.
  const look = setInterval(() => {
    if (written !== undefined && options.ready() !== written) loop.ring()
  }, 250)
  look.unref()
  return {
    name,
    ring: loop.ring,
    withdraw: async (ms) => {
      leaving = true
      clearInterval(look)
      if (written !== true) return
      const abort = AbortSignal.timeout(ms)
      try {
        await Promise.race([write(abort), sleep(ms)])
      } catch (error) {
        if (!isNotFound(error)) log.warn('could not mark the endpoint slice not ready', { slice: `${namespace}/${name}`, error: explainError(error) })
      }
    },
  }
}

function addressOf(host: string, internal: readonly string[]): string | undefined {
  const own = host === '' || host === '0.0.0.0' || host === '::' ? undefined : parseIp(host)
  if (own === undefined) return internal[0]
  // A loopback address is nobody else's; the Node's is, when the node forwards to us.
  return own.startsWith('127.') || own === '::1' ? (internal[0] ?? own) : own
}

/** The slice as it should be. */
export function sliceOf(options: Pick<RegistrationOptions, 'node' | 'port' | 'metricsPort'>, name: string, address: string, ready: boolean, uid: string | undefined): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name,
      namespace,
      labels: { [serviceNameLabel]: service, [managedByLabel]: managedBy },
      ...(uid === undefined ? {} : { ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: options.node, uid }] }),
    },
    addressType: familyOf(address) === 4 ? 'IPv4' : 'IPv6',
    endpoints: [{ addresses: [address], conditions: { ready, serving: ready, terminating: false }, nodeName: options.node }],
    ports: [
      { name: 'dns', protocol: 'UDP', port: options.port },
      { name: 'dns-tcp', protocol: 'TCP', port: options.port },
      ...(options.metricsPort === undefined ? [] : [{ name: 'metrics', protocol: 'TCP' as const, port: options.metricsPort }]),
    ],
  }
}

function same(have: EndpointSlice, wanted: EndpointSlice): boolean {
  const a = have.endpoints[0]
  const b = wanted.endpoints[0]!
  return (
    Object.entries(wanted.metadata.labels ?? {}).every(([k, v]) => have.metadata.labels?.[k] === v) &&
    (wanted.metadata.ownerReferences === undefined || have.metadata.ownerReferences?.[0]?.uid === wanted.metadata.ownerReferences[0]!.uid) &&
    have.endpoints.length === 1 &&
    a!.addresses.length === 1 &&
    a!.addresses[0] === b.addresses[0] &&
    a!.nodeName === b.nodeName &&
    a!.conditions?.ready === b.conditions!.ready &&
    a!.conditions?.serving === b.conditions!.serving &&
    a!.conditions?.terminating !== true &&
    have.ports?.length === wanted.ports!.length &&
    wanted.ports!.every((p) => have.ports!.some((q) => q.name === p.name && q.port === p.port && (q.protocol ?? 'TCP') === p.protocol))
  )
}
