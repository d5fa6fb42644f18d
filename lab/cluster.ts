import { join } from 'node:path'
import { bracketed } from '../lib/ip.ts'
import type { Service } from '../kube/objects.ts'
import type { LabNode, Topology } from './topology.ts'
import { uplink } from './uplink.ts'

/** Where the parts of the lab keep their files; all below the holder's own memory but the logs and the administrator's kubeconfig. */
export interface ClusterPaths {
  readonly launcher: string
  readonly logs: string
  readonly inside: string
}

/** A program of a node before the node runs: the words a user would type, and who it is towards the API. */
export interface PlannedPart {
  /** `NODE/PART`. */
  readonly name: string
  readonly node: LabNode
  readonly argv: readonly string[]
  readonly log: string
}

/** What the parts need to know of each other. */
export interface ClusterPlan {
  readonly controlplane: PlannedPart
  /** Everything that speaks to the control plane. */
  readonly others: readonly PlannedPart[]
  /** Makes the kubeconfigs of all parts. */
  readonly identities: readonly string[]
  /** The administrator's kubeconfig, as it is used inside the lab. */
  readonly adminKubeconfig: string
  readonly apiUrl: string
}

/** The fixed identities of the parts. */
const identityOf = { proxy: 'system:kube-proxy', dns: 'system:dns', ingress: 'system:ingress' } as const

/** Which programs run where, with what words: control plane and ingress on the first node; proxy, DNS and agent on each. */
export function clusterPlan(t: Topology, paths: ClusterPaths): ClusterPlan {
  const first = t.nodes[0]!
  const apiUrl = `https://${bracketed(first.address)}:${t.apiPort}`
  const kubeconfigs = join(paths.inside, 'kubeconfigs')
  const kubeconfig = (identity: string): string => join(kubeconfigs, `${identity.replaceAll(':', '-')}.yaml`)
  const data = join(paths.inside, 'controlplane')
  const adminKubeconfig = join(kubeconfigs, 'admin.yaml')
  const part = (node: LabNode, name: string, ...words: string[]): PlannedPart => ({
    name: `${node.name}/${name}`,
    node,
    argv: [paths.launcher, name, ...words],
    log: join(paths.logs, `${node.name}-${name}.log`),
  })
  const own = (identity: string): string[] => ['--kubeconfig', kubeconfig(identity)]
  return {
    apiUrl,
    adminKubeconfig,
    controlplane: part(
      first,
      'controlplane',
      '--data',
      data,
      '--listen',
      `${bracketed(first.address)}:${t.apiPort}`,
      '--write-kubeconfig',
      adminKubeconfig,
      '--service-cidr',
      t.serviceRanges.join(','),
      '--cluster-cidr',
      t.podRanges.join(','),
      '--cert-name',
      '127.0.0.1,localhost',
    ),
    others: t.nodes.flatMap((node) => [
      part(
        node,
        'agent',
        ...own(`system:node:${node.name}`),
        '--node',
        node.name,
        '--node-ip',
        [node.address, ...(node.address6 === undefined ? [] : [node.address6])].join(','),
        '--state',
        join(paths.inside, 'nodes', node.name, 'agent'),
        '--cluster-dns',
        t.clusterDns,
        '--cluster-domain',
        t.clusterDomain,
        ...(node.zone === undefined ? [] : ['--labels', `topology.kubernetes.io/zone=${node.zone}`]),
      ),
      proxyPart(part, own, t, node, node.mode ?? t.mode),
      part(node, 'dns', ...own(identityOf.dns), '--node', node.name, '--listen', `${bracketed(node.address)}:53`),
      ...(node === first ? [part(node, 'ingress', ...own(identityOf.ingress), '--http', ':80', '--https', ':443')] : []),
    ]),
    identities: [paths.launcher, 'kubeconfig', ...Object.values(identityOf), ...t.nodes.map((n) => `system:node:${n.name}`), '--data', data, '--server', apiUrl, '--folder', kubeconfigs],
  }
}

function proxyPart(part: (node: LabNode, name: string, ...words: string[]) => PlannedPart, own: (identity: string) => string[], t: Topology, node: LabNode, mode: string): PlannedPart {
  return part(node, 'proxy', ...own(identityOf.proxy), '--node', node.name, '--mode', mode, '--cluster-cidr', t.podRanges.join(','), ...(t.sockets === 'auto' ? [] : ['--sockets', t.sockets]))
}

/** The `kube-dns` Service: DNS is reached through the proxy mode under test. */
export function kubeDnsService(t: Topology): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'kube-dns', namespace: 'kube-system', labels: { 'k8s-app': 'kube-dns', 'kubernetes.io/name': 'CoreDNS' } },
    spec: {
      // One family: each DNS registers the first address it listens on.
      clusterIP: t.clusterDns,
      ipFamilyPolicy: 'SingleStack',
      ports: [
        { name: 'dns', port: 53, protocol: 'UDP', targetPort: 53 },
        { name: 'dns-tcp', port: 53, protocol: 'TCP', targetPort: 53 },
        { name: 'metrics', port: 9153, protocol: 'TCP', targetPort: 9153 },
      ],
    },
  }
}

/** What a node or a client finds in /etc/resolv.conf, /etc/hosts and /etc/hostname. */
export function nodeFiles(t: Topology, name: string): Readonly<Record<string, string>> {
  return {
    'resolv.conf': t.uplink === undefined ? '# No way out of the lab: names outside the cluster have nobody to ask.\n' : `nameserver ${uplink.dns}\n`,
    hosts: [
      '127.0.0.1 localhost',
      '::1 localhost ip6-localhost',
      ...[...t.nodes, ...t.clients].flatMap((n) => [n.address, ...(n.address6 === undefined ? [] : [n.address6])].map((a) => `${a} ${n.name}`)),
      '',
    ].join('\n'),
    hostname: `${name}\n`,
  }
}
