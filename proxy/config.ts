import { readFile } from 'node:fs/promises'
import { parseDocument, stringify } from 'yaml'
import { UsageError, type Values } from '../lib/options.ts'
import { flags as proxyFlags, proxyOptions } from './options.ts'

/** What a configuration file says, as flags, and what is to be told about it. */
export interface FileFlags {
  readonly flags: readonly (readonly [name: string, value: string])[]
  /** Fields nobody knows, fields that mean nothing here, dangers. */
  readonly warnings: readonly string[]
}

/** Where each field of kubeproxy.config.k8s.io/v1alpha1 goes; '' means nothing here. */
const fields: Readonly<Record<string, string>> = {
  'clientConnection.kubeconfig': 'kubeconfig',
  'clientConnection.acceptContentTypes': '',
  'clientConnection.contentType': '',
  'clientConnection.qps': '',
  'clientConnection.burst': '',
  hostnameOverride: 'node',
  bindAddress: '',
  bindAddressHardFail: '',
  healthzBindAddress: 'healthz-bind-address',
  metricsBindAddress: 'metrics-bind-address',
  enableProfiling: '',
  showHiddenMetricsForVersion: '',
  serviceProxyName: 'service-proxy-name',
  mode: 'mode',
  'iptables.masqueradeBit': 'masquerade-bit',
  'iptables.masqueradeAll': 'masquerade-all',
  'iptables.localhostNodePorts': 'localhost-nodeports',
  'iptables.syncPeriod': 'iptables-sync-period',
  'iptables.minSyncPeriod': 'iptables-min-sync-period',
  'ipvs.syncPeriod': 'ipvs-sync-period',
  'ipvs.minSyncPeriod': 'ipvs-min-sync-period',
  'ipvs.scheduler': 'ipvs-scheduler',
  'ipvs.excludeCIDRs': 'ipvs-exclude-cidrs',
  'ipvs.strictARP': 'ipvs-strict-arp',
  'ipvs.tcpTimeout': 'ipvs-tcp-timeout',
  'ipvs.tcpFinTimeout': 'ipvs-tcpfin-timeout',
  'ipvs.udpTimeout': 'ipvs-udp-timeout',
  'ipvs.masqueradeAll': 'masquerade-all',
  'nftables.masqueradeBit': 'masquerade-bit',
  'nftables.masqueradeAll': 'masquerade-all',
  'nftables.syncPeriod': 'sync-period',
  'nftables.minSyncPeriod': 'min-sync-period',
  detectLocalMode: 'detect-local-mode',
  'detectLocal.bridgeInterface': 'pod-bridge-interface',
  'detectLocal.interfaceNamePrefix': 'pod-interface-name-prefix',
  clusterCIDR: 'cluster-cidr',
  nodePortAddresses: 'nodeport-addresses',
  oomScoreAdj: 'oom-score-adj',
  'conntrack.maxPerCore': 'conntrack-max-per-core',
  'conntrack.min': 'conntrack-min',
  'conntrack.tcpEstablishedTimeout': 'conntrack-tcp-timeout-established',
  'conntrack.tcpCloseWaitTimeout': 'conntrack-tcp-timeout-close-wait',
  'conntrack.tcpBeLiberal': 'conntrack-tcp-be-liberal',
  'conntrack.udpTimeout': 'conntrack-udp-timeout',
  'conntrack.udpStreamTimeout': 'conntrack-udp-timeout-stream',
  configSyncPeriod: '',
  portRange: '',
  windowsRunAsService: '',
}
/** Whole parts that mean nothing here. */
const ignored = ['winkernel', 'logging', 'featureGates']
/** Options of one mode do not speak for another. */
const partOfMode: Readonly<Record<string, readonly string[]>> = { iptables: ['iptables'], nftables: ['nftables'], ipvs: ['ipvs', 'iptables'], userspace: ['iptables'] }

/** Reads a KubeProxyConfiguration file. */
export async function readConfig(path: string): Promise<FileFlags> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw new Error(`cannot read the configuration ${path}`, { cause: error })
  }
  return parseConfig(text, path)
}

/** The flags that a KubeProxyConfiguration amounts to. Throws `UsageError` that names the file and the field. */
export function parseConfig(text: string, path: string): FileFlags {
  const document = parseDocument(text)
  const wrong = document.errors[0]
  if (wrong !== undefined) throw new UsageError(`${path}: ${wrong.message.split('\n')[0]}`)
  const value: unknown = document.toJS()
  if (!isObject(value)) throw new UsageError(`${path}: expected a KubeProxyConfiguration, got ${value === null ? 'nothing' : typeof value}`)
  const { apiVersion, kind, ...rest } = value
  if (kind !== 'KubeProxyConfiguration') throw new UsageError(`${path}: kind: expected KubeProxyConfiguration, got ${JSON.stringify(kind)}`)
  if (apiVersion !== 'kubeproxy.config.k8s.io/v1alpha1') throw new UsageError(`${path}: apiVersion: expected kubeproxy.config.k8s.io/v1alpha1, got ${JSON.stringify(apiVersion)}`)
  const mode = typeof rest.mode === 'string' && rest.mode !== '' ? rest.mode : 'iptables'
  const flags = new Map<string, string>()
  const warnings: string[] = []
  const visit = (part: Readonly<Record<string, unknown>>, prefix: string): void => {
    for (const [name, v] of Object.entries(part)) {
      const field = `${prefix}${name}`
      if (v === null || v === '' || ignored.includes(field)) continue
      const top = field.split('.')[0]!
      if (isObject(v) && Object.keys(fields).some((f) => f.startsWith(`${field}.`))) {
        visit(v, `${field}.`)
        continue
      }
      const flag = Object.hasOwn(fields, field) ? fields[field] : undefined
      if (flag === undefined) warnings.push(`${path}: ${field} is not a field of KubeProxyConfiguration; it is ignored`)
      else if (flag !== '' && (!field.includes('.') || !['iptables', 'ipvs', 'nftables'].includes(top) || partOfMode[mode]?.includes(top) === true)) flags.set(flag, flagText(v, field, path))
    }
  }
  visit(rest, '')
  // A file without a mode means kube-proxy's default of its day.
  flags.set('mode', mode)
  return { flags: [...flags], warnings }
}

function flagText(v: unknown, field: string, path: string): string {
  if (Array.isArray(v)) return v.map((x) => flagText(x, field, path)).join(',')
  if (typeof v === 'string' || typeof v === 'number' || typeof v === 'boolean') return String(v)
  throw new UsageError(`${path}: ${field}: expected a value, got ${JSON.stringify(v)}`)
}

const isObject = (v: unknown): v is Readonly<Record<string, unknown>> => typeof v === 'object' && v !== null && !Array.isArray(v)

/** What the flags say, as a KubeProxyConfiguration: what `/configz` shows and `--write-config-to` writes. */
export function configuration(values: Values<typeof proxyFlags>, hostname: string): Readonly<Record<string, unknown>> {
  const out: Record<string, unknown> = { apiVersion: 'kubeproxy.config.k8s.io/v1alpha1', kind: 'KubeProxyConfiguration' }
  const options = proxyOptions(values, hostname)
  const at = (i: number): string => `${options.status[i]?.host === '' ? '0.0.0.0' : (options.status[i]?.host ?? '')}:${options.status[i]?.port ?? ''}`
  const special: Readonly<Record<string, unknown>> = {
    hostnameOverride: options.node,
    mode: options.mode,
    healthzBindAddress: at(0),
    metricsBindAddress: options.status[1] === undefined ? '' : at(1),
    clusterCIDR: values['cluster-cidr'].join(','),
    detectLocalMode: values['detect-local-mode'],
    'iptables.masqueradeBit': options.compile.masqueradeBit,
    'nftables.masqueradeBit': options.compile.masqueradeBit,
    'iptables.localhostNodePorts': options.localhostNodePorts,
  }
  for (const part of ['iptables', 'ipvs', 'nftables']) Object.assign(special, { [`${part}.syncPeriod`]: goDuration(options.sync), [`${part}.minSyncPeriod`]: goDuration(options.minSync) })
  for (const [field, flag] of Object.entries(fields)) {
    if (flag === '') continue
    const spec = proxyFlags[flag as keyof typeof proxyFlags]
    const given: unknown = Object.hasOwn(special, field) ? special[field] : values[flag as keyof typeof values]
    const value = spec.type === 'duration' && typeof given === 'number' ? goDuration(given) : given
    const [top, inner] = field.split('.') as [string, string | undefined]
    if (inner === undefined) out[top] = value ?? (spec.type === 'string' ? '' : null)
    else out[top] = { ...(out[top] as object | undefined), [inner]: value ?? (spec.type === 'string' ? '' : null) }
  }
  return out
}

/** The same as the text of a file. */
export const configurationText = (values: Values<typeof proxyFlags>, hostname: string): string => stringify(configuration(values, hostname))

/** Milliseconds as Go writes a duration: `24h0m0s`, `1m0s`, `200ms`. */
function goDuration(ms: number): string {
  if (ms === 0) return '0s'
  if (ms < 1000) return `${ms}ms`
  const [h, m, s] = [Math.floor(ms / 3_600_000), Math.floor(ms / 60_000) % 60, (ms % 60_000) / 1000]
  return `${h > 0 ? `${h}h` : ''}${h > 0 || m > 0 ? `${m}m` : ''}${s}s`
}
