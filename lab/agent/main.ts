import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { connect } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { recorder } from '../../kube/events.ts'
import { parseIp } from '../../lib/ip.ts'
import { aborted } from '../../lib/lifecycle.ts'
import { createLog, explainError } from '../../lib/log.ts'
import { Metrics } from '../../lib/metrics.ts'
import { command, hostPort, UsageError } from '../../lib/options.ts'
import { listenStatus } from '../../lib/status.ts'
import { version } from '../../lib/version.ts'
import { Agent } from './agent.ts'
import { iproute } from './iproute.ts'
import { keepAlive, register, type NodeFacts } from './node.ts'
import { namespaces } from './sandbox.ts'
import { serveNode } from './server.ts'

/** `switchyard agent`: the kubelet's role in small. It runs processes, not images. */
export const agentCommand = command({
  name: 'agent',
  summary: 'Runs the Pods bound to a node as processes, each Pod in namespaces of its own.',
  flags: {
    kubeconfig: { type: 'string', value: 'FILE', help: "credentials; a Pod's own if left out" },
    node: { type: 'string', value: 'NAME', help: 'the name of this node', required: true },
    state: { type: 'string', value: 'DIR', help: 'where it keeps what an agent that starts again needs to know', required: true },
    listen: { type: 'string', value: 'ADDR:PORT', help: 'its API for the API server (logs): TLS with client certificates', default: ':10250' },
    status: { type: 'list', value: 'ADDR:PORT', help: 'health and metrics', default: ['127.0.0.1:10248'] },
    'node-ip': { type: 'list', value: 'ADDR', help: 'addresses of this node, at most one of each family; found by itself if left out' },
    'cluster-dns': { type: 'list', value: 'ADDR', help: 'what Pods ask for names', default: ['10.96.0.10'] },
    'cluster-domain': { type: 'string', help: 'the domain of the cluster', default: 'cluster.local' },
    labels: { type: 'list', value: 'KEY=VALUE', help: 'labels of the Node' },
  },
  details: 'A container needs a command: there are no images here. Pods see the file system of the machine, with /etc/resolv.conf, hosts, hostname and nsswitch.conf and an empty /run of their own.',
  run: async ({ values }, context) => {
    const { signal } = context
    const log = createLog().with({ node: values.node })
    const nodeIps = values['node-ip'].length > 0 ? values['node-ip'].map(address) : ownAddresses()
    if (nodeIps.length === 0) throw new UsageError('flag --node-ip: this machine has no address but loopback; name one')
    const listen = hostPort(values.listen, 'listen')
    const credentials = await loadCredentials(values.kubeconfig)
    const client = connect(credentials, { userAgent: `switchyard-agent/${version}` })
    const events = recorder(client, 'switchyard-agent', { log, signal })
    forwarding(log)
    const facts: NodeFacts = { name: values.node, addresses: nodeIps, port: listen.port, labels: labels(values.labels) }
    mkdirSync(values.state, { recursive: true, mode: 0o700 })

    let lastBeat = 0
    const metrics = new Metrics()
    const agent = new Agent({
      client,
      events,
      runtime: namespaces(),
      network: iproute(nodeIps),
      node: values.node,
      nodeIps,
      state: values.state,
      names: { clusterDns: values['cluster-dns'], clusterDomain: values['cluster-domain'] },
      log,
      signal,
    })
    const count = metrics.gauge('switchyard_agent_pods', 'Pods bound to this node.')
    const beaten = metrics.gauge('switchyard_agent_last_heartbeat_timestamp_seconds', 'When the Lease of the node was renewed last.')
    metrics.onScrape(() => {
      count.set(agent.pods().length)
      beaten.set(lastBeat / 1000)
    })
    const status = []
    for (const at of values.status) status.push(await listenStatus(hostPort(at, 'status'), { metrics, ready: () => (lastBeat === 0 ? 'the node is not registered yet' : undefined) }))
    const { cert, key, ca } = await serving(credentials, values.state)
    await serveNode(agent, { ...listen, cert, key, ca, log, signal })

    const [node] = await Promise.all([register(client, facts, log, signal), agent.start()])
    void keepAlive(client, facts, node.metadata.uid, () => (lastBeat = Date.now()), log, signal)
    log.info('ready', { listen: values.listen, status: status.map((s) => `${s.address}:${s.port}`), addresses: nodeIps })
    await aborted(signal)
    for (const s of status) await s.close()
    client.close()
    // Pods go on without us; an agent that starts again takes them up.
    process.exit(0)
  },
})

export { agentCommand as command }

function address(text: string): string {
  const ip = parseIp(text)
  if (ip === undefined) throw new UsageError(`flag --node-ip: expected an address, got "${text}"`)
  return ip
}

function labels(list: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    list.map((text) => {
      const equals = text.indexOf('=')
      if (equals < 1) throw new UsageError(`flag --labels: expected KEY=VALUE, got "${text}"`)
      return [text.slice(0, equals), text.slice(equals + 1)]
    }),
  )
}

/** The first address of each family that is not loopback or link-local. */
function ownAddresses(): readonly string[] {
  const all = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter((i) => !i.internal && !i.address.startsWith('fe80:'))
  const [v4, v6] = ['IPv4', 'IPv6'].map((family) => all.find((i) => i.family === family)?.address)
  return [v4, v6].filter((a) => a !== undefined)
}

/** A node of Pods is a router. */
function forwarding(log: ReturnType<typeof createLog>): void {
  for (const [name, value] of [
    ['net/ipv4/ip_forward', '1'],
    ['net/ipv6/conf/all/forwarding', '1'],
    ['net/ipv4/conf/all/send_redirects', '0'],
    ['net/ipv4/conf/default/send_redirects', '0'],
  ] as const) {
    const file = `/proc/sys/${name}`
    try {
      if (readFileSync(file, 'utf8').trim() !== value) writeFileSync(file, value)
    } catch (error) {
      log.warn('cannot set a kernel parameter', { name: name.replaceAll('/', '.'), value, error: explainError(error) })
    }
  }
}

/** What the agent shows to the API server: the certificate it shows as a client, by which the API server knows the node, or, where a token stands for it, one made here. */
async function serving(credentials: Awaited<ReturnType<typeof loadCredentials>>, state: string) {
  const { tls } = await credentials.current()
  if (tls.cert !== undefined && tls.privateKey !== undefined) return { cert: tls.cert, key: tls.privateKey, ca: tls.ca }
  const made = await (await import('./certificate.ts')).selfSigned(join(state, 'serving'))
  return { ...made, ca: tls.ca }
}
