import { connect } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import type { KubeObject, Pod } from '../kube/objects.ts'
import { endpointslices, ingresses, namespaces, pods, services, type Resource } from '../kube/resources.ts'
import { silent } from '../lib/log.ts'
import { Metrics } from '../lib/metrics.ts'
import { command as define, UsageError } from '../lib/options.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import type { Answer } from './answer.ts'
import { Cluster, type Kind, type Kinds } from './cluster.ts'
import { configure, defaultCorefile } from './config.ts'
import { parseCorefile } from './corefile.ts'
import { findFiles, readText } from './files.ts'
import { KubernetesHandler } from './handlers/kubernetes/handler.ts'
import { meters } from './handlers/plugin.ts'
import { reduceIngress, reduceNamespace, reducePod, reduceService, reduceSlice } from './reduce.ts'
import { Server } from './server.ts'
import { printData } from './wire/data.ts'
import { fold, labelsBefore, parseName, printName, within, type Name } from './wire/name.ts'
import { Rcode, rcodeName, typeName, typeNumber } from './wire/types.ts'

/** One question of a walk and what came back. */
export interface Step {
  readonly name: string
  readonly type: string
  readonly rcode: string
  readonly answers: readonly { readonly name: string; readonly ttl: number; readonly type: string; readonly data: string }[]
  /** The handler that answered. */
  readonly handler: string
  readonly why: string
  /** The objects it is about: `Service shop/api`, `EndpointSlice shop/api-abcde`. */
  readonly objects: readonly string[]
}

/** What a client would do with a name, and what it would get. The stable schema of `-o json`. */
export interface Explanation {
  readonly name: string
  readonly from: string | undefined
  readonly ndots: number
  readonly search: readonly string[]
  readonly questions: readonly Step[]
  /** The first name with an answer; undefined: there is none. */
  readonly found: string | undefined
}

/** How a client resolves names. */
export interface ResolverSettings {
  readonly ndots: number
  readonly search: readonly string[]
}

/** The settings that a Pod's /etc/resolv.conf has, as far as the API tells: the node's own search list is not known here. */
export function settingsOf(pod: Pod, zone: string): ResolverSettings {
  const { dnsPolicy, dnsConfig, hostNetwork } = pod.spec
  const cluster = dnsPolicy === 'ClusterFirstWithHostNet' || ((dnsPolicy === undefined || dnsPolicy === 'ClusterFirst') && hostNetwork !== true)
  const search = cluster ? [`${pod.metadata.namespace}.svc.${zone}`, `svc.${zone}`, zone] : []
  const ndots = dnsConfig?.options?.find((o) => o.name === 'ndots')?.value
  return { ndots: ndots !== undefined && /^\d+$/.test(ndots) ? Math.min(15, Number(ndots)) : cluster ? 5 : 1, search: [...search, ...(dnsConfig?.searches ?? [])] }
}

/** The names that are tried, in order (resolv.conf(5)): with a dot at its end only itself; with enough dots itself first, else the search list first. */
export function candidates(name: string, { ndots, search }: ResolverSettings): readonly string[] {
  if (name.endsWith('.')) return [name]
  const listed = search.map((s) => `${name}.${s.replace(/\.$/, '')}.`)
  const dots = name.split('.').length - 1
  return dots >= ndots ? [`${name}.`, ...listed] : [...listed, `${name}.`]
}

/** Walks the names a client tries until one has an answer. */
export async function walk(name: string, types: readonly string[], settings: ResolverSettings, server: Server, from?: string, client?: string): Promise<Explanation> {
  const questions: Step[] = []
  let found: string | undefined
  for (const text of candidates(name, settings)) {
    const wire = parseName(text)
    if (wire === undefined) throw new UsageError(`${text} is no domain name`)
    let answered = false
    for (const type of types) {
      const answer = await server.ask(fold(wire), typeNumber(type)!, client)
      questions.push(stepOf(server, fold(wire), type, answer))
      if (answer.rcode === Rcode.NOERROR && answer.answers.length > 0) answered = true
    }
    if (answered) {
      found = text
      break
    }
  }
  return { name, from, ndots: settings.ndots, search: settings.search, questions, found }
}

function stepOf(server: Server, name: Name, type: string, answer: Answer): Step {
  const handler = kubernetesOf(server, name)
  const own = handler !== undefined && (answer.by === 'kubernetes' || answer.by === undefined)
  return {
    name: printName(name),
    type,
    rcode: rcodeName(answer.rcode),
    answers: answer.answers.map((r) => ({ name: printName(r.name), ttl: r.ttl, type: typeName(r.type), data: printData(r.type, r.data) })),
    handler: answer.by === undefined || answer.by === '' ? 'none' : answer.by,
    why: own && answer.rcode === Rcode.NXDOMAIN ? whyMissing(handler, name) : (answer.why ?? ''),
    objects: own ? objectsOf(handler, name) : [],
  }
}

function kubernetesOf(server: Server, name: Name): KubernetesHandler | undefined {
  return server.sites.find((s) => within(name, s.zone))?.handlers.find((h) => h instanceof KubernetesHandler && h.zoneOf(name) !== undefined) as KubernetesHandler | undefined
}

/** Which of the name's labels stands for something that is not there. */
function whyMissing(handler: KubernetesHandler, name: Name): string {
  const apex = handler.zoneOf(name)!
  const labels = labelsBefore(name, apex).toReversed()
  const [kind, namespace, service, ...more] = labels
  const { objects } = handler.cluster
  if (!handler.zone.settings.zones.includes(apex)) return 'no Service or endpoint has this address'
  if (kind !== 'svc' && kind !== 'pod') return `below ${printName(apex)} there are only svc and pod, no ${kind ?? ''}`
  if (namespace !== undefined && !objects.namespace.has(namespace)) return `Namespace ${namespace} does not exist`
  if (namespace !== undefined && !handler.zone.settings.exposesNamespace(namespace)) return `Namespace ${namespace} is left out by the configuration`
  if (kind === 'pod')
    return more.length > 0
      ? 'nothing stands below a Pod'
      : handler.zone.settings.pods === 'disabled'
        ? 'Pods have no names (pods disabled)'
        : `${service} is no address of a Pod in Namespace ${namespace}`
  const key = `${namespace}/${service}`
  const found = objects.service.get(key)
  if (found === undefined) return `Namespace ${namespace} has no Service ${service}`
  if (found.spec.type === 'ExternalName')
    return more.length > 0 ? 'nothing stands below a Service of type ExternalName' : `Service ${key} has the externalName ${found.spec.externalName ?? ''}, which is no domain name`
  const headless = found.spec.clusterIP === 'None' || found.spec.clusterIPs?.[0] === 'None'
  const endpoints = handler.cluster.slicesOf(key).reduce((n, s) => n + s.endpoints.length, 0)
  if (headless && endpoints === 0) return `Service ${key} is headless and has no ready endpoint`
  if (more.length === 0) return `Service ${key} has no address`
  if (more[0]!.startsWith('_')) return `Service ${key} has no such named port`
  return `Service ${key} has no ready endpoint of this name (of ${endpoints})`
}

/** The objects that speak of a name, with the slices of a Service. */
function objectsOf(handler: KubernetesHandler, name: Name): string[] {
  return handler.zone.table.sourcesOf(name).flatMap((source) => {
    const [kind, key] = source.split(' ')
    if (kind === 'zone') return []
    if (kind !== 'service') return [`${kind === 'pod' ? 'Pod' : 'Namespace'} ${key}`]
    const slices = handler.zone.table.get(name)!.sets.length > 0 ? handler.cluster.slicesOf(key!).map((s) => `EndpointSlice ${s.metadata.namespace}/${s.metadata.name}`) : []
    return [`Service ${key}`, ...slices]
  })
}

/** An explanation for people. */
export function printExplanation(e: Explanation): string {
  const lines = [`${e.name}${e.from === undefined ? '' : ` from ${e.from}`}: ndots ${e.ndots}, search ${e.search.length === 0 ? '(none)' : e.search.join(' ')}`]
  for (const q of e.questions) {
    lines.push(`  ${q.name} ${q.type}  ${q.rcode}${q.rcode === 'NOERROR' && q.answers.length === 0 ? ' (no data)' : ''}  [${q.handler}] ${q.why}`)
    for (const a of q.answers) lines.push(`      ${a.name} ${a.ttl} ${a.type} ${a.data}`)
    if (q.objects.length > 0 && q.answers.length > 0) lines.push(`      from ${q.objects.join(', ')}`)
  }
  lines.push(e.found === undefined ? 'no answer' : `found as ${e.found}`)
  return `${lines.join('\n')}\n`
}

const flags = {
  kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server; in-cluster credentials if left out' },
  from: { type: 'string', value: 'pod/NAMESPACE/NAME', help: 'whose search list is walked; without it the name is taken as it stands' },
  type: { type: 'list', value: 'TYPE', default: ['A', 'AAAA'], help: 'what is asked for' },
  config: { type: 'string', value: 'COREFILE', help: 'the configuration of the server' },
  'resolv-conf': { type: 'string', value: 'FILE', default: '/etc/resolv.conf', help: 'whose name servers are asked for names outside the cluster' },
  output: { type: 'string', short: 'o', oneOf: ['text', 'json'], default: 'text', help: 'text for people or JSON' },
} as const

/** `switchyard explain name NAME`. */
export const explain = define({
  name: 'name',
  summary: 'says what a name resolves to, question by question, and why',
  usage: 'NAME',
  flags,
  run: async ({ values, positionals }, context) => {
    const [name, ...rest] = positionals
    if (name === undefined || rest.length > 0) throw new UsageError('expected one NAME')
    for (const type of values.type) if (typeNumber(type) === undefined) throw new UsageError(`flag --type: ${type} is no type`)
    const from = values.from === undefined ? undefined : /^pod\/([^/]+)\/([^/]+)$/.exec(values.from)
    if (from === null) throw new UsageError(`flag --from: expected pod/NAMESPACE/NAME, got "${values.from}"`)
    const driver = openNode()
    const client = connect(await loadCredentials(values.kubeconfig), { userAgent: 'switchyard-explain' })
    try {
      const cluster = new Cluster({ soon: () => {} })
      const text = values.config === undefined ? defaultCorefile : readText(values.config)
      if (text === undefined) throw new UsageError(`cannot read ${values.config ?? ''}`)
      const blocks = parseCorefile(text, values.config ?? '(default)', { files: findFiles, environment: (n) => process.env[n], port: 53 })
      const wanted = new Set<'pod' | 'ingress'>()
      const env = {
        log: silent,
        metrics: meters(new Metrics()),
        driver,
        resolvConf: values['resolv-conf'],
        cluster,
        want: (kind: 'pod' | 'ingress') => void wanted.add(kind),
        read: readText,
        self: [],
        now: () => performance.now(),
        random: () => 0,
      }
      const configuration = configure(blocks, env, [''])
      await readInto(cluster, 'namespace', namespaces, reduceNamespace)
      await readInto(cluster, 'service', services, reduceService)
      await readInto(cluster, 'slice', endpointslices, reduceSlice)
      if (wanted.has('pod')) await readInto(cluster, 'pod', pods, reducePod)
      if (wanted.has('ingress')) await readInto(cluster, 'ingress', ingresses, reduceIngress)
      cluster.flush()
      cluster.complete = true
      const zone = cluster.zones[0]?.settings.zones[0]
      let settings: ResolverSettings = { ndots: 1, search: [] }
      let address: string | undefined
      if (from !== undefined && zone !== undefined) {
        const pod = await client.get(pods, from[2]!, from[1]!, { signal: context.signal })
        settings = settingsOf(pod, printName(zone).slice(0, -1))
        address = pod.status?.podIP
      }
      const server = new Server(
        configuration.listeners.flatMap((l) => l.sites),
        silent,
      )
      const said = await walk(
        name,
        values.type.map((t) => typeName(typeNumber(t)!)),
        settings,
        server,
        values.from,
        address,
      )
      context.out(values.output === 'json' ? `${JSON.stringify(said, null, 2)}\n` : printExplanation(said))
      configuration.close()
      return said.found === undefined ? 1 : 0
    } finally {
      client.close()
      await driver.close()
    }

    async function readInto<K extends Kind>(cluster: Cluster, kind: K, resource: Resource<Kinds[K]>, reduce: (o: Kinds[K]) => Kinds[K]): Promise<void> {
      let next: string | undefined
      do {
        const page = await client.list<KubeObject>(resource, { limit: 500, continue: next, signal: context.signal })
        for (const item of page.items) cluster.put(kind, reduce(item as Kinds[K]), undefined)
        next = page.metadata.continue
      } while (next !== undefined && next !== '')
    }
  },
})
