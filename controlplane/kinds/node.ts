import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { all, familyOf, qualifiedTrouble } from './validate.ts'

types(
  'core.v1',
  `
Node
  metadata 1 ObjectMeta
  spec 2 NodeSpec
  status 3 NodeStatus

NodeSpec
  podCIDR 1 string
  podCIDRs 7 []string merge set
  providerID 3 string
  unschedulable 4 bool
  taints 5 []Taint atomic
  configSource 6 *NodeConfigSource
  externalID 2 string

NodeStatus
  capacity 1 {Quantity}
  allocatable 2 {Quantity}
  phase 3 string
  conditions 4 []NodeCondition merge=type map=type
  addresses 5 []NodeAddress merge=type map=type
  daemonEndpoints 6 NodeDaemonEndpoints
  nodeInfo 7 NodeSystemInfo
  images 8 []ContainerImage atomic
  volumesInUse 9 []string atomic
  volumesAttached 10 []AttachedVolume atomic
  config 11 *NodeConfigStatus
  runtimeHandlers 12 []NodeRuntimeHandler atomic
  features 13 *NodeFeatures

Taint
  key! 1 string required
  value 2 string
  effect! 3 string required
  timeAdded 4 *Time

NodeConfigSource
  configMap 2 *ConfigMapNodeConfigSource

NodeCondition
  type! 1 string required
  status! 2 string required
  lastHeartbeatTime 3 Time
  lastTransitionTime 4 Time
  reason 5 string
  message 6 string

NodeAddress
  type! 1 string required
  address! 2 string required

NodeDaemonEndpoints
  kubeletEndpoint 1 DaemonEndpoint

NodeSystemInfo
  machineID! 1 string required
  systemUUID! 2 string required
  bootID! 3 string required
  kernelVersion! 4 string required
  osImage! 5 string required
  containerRuntimeVersion! 6 string required
  kubeletVersion! 7 string required
  kubeProxyVersion! 8 string required
  operatingSystem! 9 string required
  architecture! 10 string required

ContainerImage
  names! 1 []string atomic
  sizeBytes 2 int64

AttachedVolume
  name! 1 string required
  devicePath! 2 string required

NodeConfigStatus
  assigned 1 *NodeConfigSource
  active 2 *NodeConfigSource
  lastKnownGood 3 *NodeConfigSource
  error 4 string

NodeRuntimeHandler
  name! 1 string
  features 2 *NodeRuntimeHandlerFeatures

NodeFeatures
  supplementalGroupsPolicy 1 *bool

ConfigMapNodeConfigSource
  namespace! 1 string required
  name! 2 string required
  uid 3 string
  resourceVersion 4 string
  kubeletConfigKey! 5 string required

DaemonEndpoint
  Port! 1 int32 required

NodeRuntimeHandlerFeatures
  recursiveReadOnlyMounts 1 *bool
  userNamespaces 2 *bool
`,
)

/** A machine that runs Pods. */
export const nodes = kind({
  kind: 'Node',
  plural: 'nodes',
  namespaced: false,
  shortNames: ['no'],
  description: 'A machine that runs Pods.',
  status: true,
  selectable: { 'spec.unschedulable': (o) => String(o['spec']?.unschedulable ?? false) },
  selectorErrors: 'not supported',
  defaults(o) {
    if (o['status'].allocatable === undefined && o['status'].capacity !== undefined) o['status'].allocatable = { ...o['status'].capacity }
    const { podCIDR, podCIDRs } = o['spec']
    if (podCIDR !== undefined && podCIDRs === undefined) o['spec'].podCIDRs = [podCIDR]
    if (podCIDR === undefined && podCIDRs !== undefined && podCIDRs.length > 0) o['spec'].podCIDR = podCIDRs[0]
  },
  validate(o, errors) {
    ;((o['spec'].taints ?? []) as Json[]).forEach((t, i) => {
      all(errors, `metadata.taints[${i}].key`, t['key'], qualifiedTrouble(t['key']))
      if (!['NoSchedule', 'PreferNoSchedule', 'NoExecute'].includes(t['effect'])) errors.unsupported(`metadata.taints[${i}].effect`, t['effect'], ['NoSchedule', 'PreferNoSchedule', 'NoExecute'])
    })
    ;((o['spec'].podCIDRs ?? []) as string[]).forEach((c, i) => {
      const [ip, bits] = c.split('/')
      const family = familyOf(ip ?? '')
      if (family === undefined || !/^\d+$/.test(bits ?? '') || Number(bits) > (family === 'IPv4' ? 32 : 128))
        errors.invalid(`spec.podCIDRs[${i}]`, c, 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)')
    })
  },
  validateUpdate(now, before, errors) {
    const had: string[] = before['spec'].podCIDRs ?? []
    const has: string[] = now['spec'].podCIDRs ?? []
    if (had.length > 0 && had.join() !== has.join()) errors.forbidden('spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid')
    if ((before['spec'].providerID ?? '') !== '' && before['spec'].providerID !== now['spec'].providerID)
      errors.forbidden('spec.providerID', 'node updates may not change providerID except from "" to valid')
  },
  columns: [
    nameColumn,
    text('Status'),
    text('Roles'),
    text('Age'),
    text('Version'),
    text('Internal-IP', true),
    text('External-IP', true),
    text('OS-Image', true),
    text('Kernel-Version', true),
    text('Container-Runtime', true),
  ],
  cells(o, now) {
    const ready = ((o['status']?.conditions ?? []) as Json[]).find((c) => c['type'] === 'Ready')
    const status = [ready === undefined ? 'Unknown' : ready['status'] === 'True' ? 'Ready' : 'NotReady', ...(o['spec']?.unschedulable === true ? ['SchedulingDisabled'] : [])]
    const roles = new Set<string>()
    for (const [k, v] of Object.entries((o['metadata'].labels ?? {}) as Record<string, string>)) {
      if (k.startsWith('node-role.kubernetes.io/')) roles.add(k.slice(24))
      else if (k === 'kubernetes.io/role' && v !== '') roles.add(v)
    }
    roles.delete('')
    const address = (type: string): string => ((o['status']?.addresses ?? []) as Json[]).find((a) => a['type'] === type)?.['address'] ?? '<none>'
    const info = o['status']?.nodeInfo ?? {}
    const or = (v: string | undefined): string => (v === undefined || v === '' ? '<unknown>' : v)
    return [
      o['metadata'].name,
      status.join(','),
      roles.size === 0 ? '<none>' : [...roles].sort().join(','),
      age(o, now),
      info.kubeletVersion ?? '',
      address('InternalIP'),
      address('ExternalIP'),
      or(info.osImage),
      or(info.kernelVersion),
      or(info.containerRuntimeVersion),
    ]
  },
})
