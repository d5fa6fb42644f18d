import type { Pod, PodDnsConfig } from '../../kube/objects.ts'

/** What a node tells its Pods about names. */
export interface NameSettings {
  /** ClusterIPs of the cluster DNS. */
  readonly clusterDns: readonly string[]
  readonly clusterDomain: string
  /** The node's own /etc/resolv.conf. */
  readonly nodeResolvConf: string
  readonly nodeHosts: string
  readonly nodeName: string
}

/** glibc reads no more than these from /etc/resolv.conf. */
const mostNameservers = 3

/** The host name inside the Pod: `spec.hostname`, else its own name, cut to what a host name may be. */
export function hostnameOf(pod: Pod): string {
  return (pod.spec.hostname ?? pod.metadata.name).slice(0, 63).replace(/[-.]+$/, '')
}

/** The files that are the Pod's own, by their name in /etc. */
export function etcFiles(pod: Pod, addresses: readonly string[], settings: NameSettings): Readonly<Record<string, string>> {
  const host = pod.spec.hostNetwork === true
  return {
    'resolv.conf': resolvConf(pod, settings),
    hosts: host ? settings.nodeHosts : hosts(pod, addresses, settings.clusterDomain),
    hostname: `${host ? settings.nodeName : hostnameOf(pod)}\n`,
    'nsswitch.conf': 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n',
  }
}

function resolvConf(pod: Pod, settings: NameSettings): string {
  const host = pod.spec.hostNetwork === true
  const policy = pod.spec.dnsPolicy ?? 'ClusterFirst'
  let base: Resolver = { nameservers: [], searches: [], options: [] }
  if (policy === 'ClusterFirstWithHostNet' || (policy === 'ClusterFirst' && !host)) {
    const d = settings.clusterDomain
    const own = parseResolvConf(settings.nodeResolvConf).searches
    base = { nameservers: settings.clusterDns, searches: [`${pod.metadata.namespace}.svc.${d}`, `svc.${d}`, d, ...own], options: ['ndots:5'] }
  } else if (policy !== 'None') base = parseResolvConf(settings.nodeResolvConf)
  const merged = withDnsConfig(base, pod.spec.dnsConfig)
  return [
    ...merged.nameservers.slice(0, mostNameservers).map((n) => `nameserver ${n}`),
    ...(merged.searches.length === 0 ? [] : [`search ${merged.searches.join(' ')}`]),
    ...(merged.options.length === 0 ? [] : [`options ${merged.options.join(' ')}`]),
    '',
  ].join('\n')
}

interface Resolver {
  readonly nameservers: readonly string[]
  readonly searches: readonly string[]
  readonly options: readonly string[]
}

function withDnsConfig(base: Resolver, extra: PodDnsConfig | undefined): Resolver {
  if (extra === undefined) return base
  const options = new Map(base.options.map((o) => [o.split(':')[0]!, o]))
  for (const { name, value } of extra.options ?? []) if (name !== undefined) options.set(name, value === undefined ? name : `${name}:${value}`)
  const unique = (list: readonly string[]): string[] => [...new Set(list)]
  return { nameservers: unique([...base.nameservers, ...(extra.nameservers ?? [])]), searches: unique([...base.searches, ...(extra.searches ?? [])]), options: [...options.values()] }
}

function parseResolvConf(text: string): Resolver {
  const nameservers: string[] = []
  let searches: readonly string[] = []
  const options: string[] = []
  for (const line of text.split('\n')) {
    const [word, ...rest] = line.trim().split(/\s+/)
    if (word === 'nameserver' && rest[0] !== undefined) nameservers.push(rest[0])
    // The last search line counts; it is the same as `domain` with several words.
    else if (word === 'search' || word === 'domain') searches = rest.filter((s) => s !== '.')
    else if (word === 'options') options.push(...rest)
  }
  return { nameservers, searches, options }
}

function hosts(pod: Pod, addresses: readonly string[], domain: string): string {
  const name = hostnameOf(pod)
  const names = pod.spec.subdomain === undefined ? name : `${name}.${pod.spec.subdomain}.${pod.metadata.namespace}.svc.${domain}\t${name}`
  return [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::0\tip6-localnet',
    'fe00::1\tip6-allnodes',
    'fe00::2\tip6-allrouters',
    ...addresses.map((a) => `${a}\t${names}`),
    ...(pod.spec.hostAliases ?? []).map((a) => `${a.ip}\t${(a.hostnames ?? []).join('\t')}`),
    '',
  ].join('\n')
}
