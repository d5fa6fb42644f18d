import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { connect, type Client } from '../kube/client.ts'
import { loadCredentials, parseKubeconfig, type Credentials } from '../kube/credentials.ts'
import { parseIp } from '../lib/ip.ts'
import { Closers, sleep, aborted } from '../lib/lifecycle.ts'
import { createLog, explainError, type Log } from '../lib/log.ts'
import { Metrics } from '../lib/metrics.ts'
import { command as define, duration, hostPort, UsageError } from '../lib/options.ts'
import { chooseDriver, socketsFlag } from '../lib/sockets/choose.ts'
import { addressText } from '../lib/sockets/errors.ts'
import type { Address, Driver } from '../lib/sockets/seam.ts'
import { listenStatus, type StatusOptions } from '../lib/status.ts'
import { version } from '../lib/version.ts'
import type { BatchOptions } from './batches.ts'
import { Cluster } from './cluster.ts'
import { CorefileError, parseCorefile, type CorefileSources } from './corefile.ts'
import { configure, defaultCorefile, type Configuration } from './config.ts'
import { findFiles, readText } from './files.ts'
import { Fronts } from './fronts.ts'
import { meters, type Environment } from './handlers/plugin.ts'
import { keepTable } from './kept.ts'
import { register, type Registration } from './registration.ts'
import { mirrorInto, type Sources } from './sources.ts'

const flags = {
  kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server; in-cluster credentials if left out' },
  listen: { type: 'list', value: 'ADDR:PORT', help: 'where questions are answered; a zone that names a port is served there' },
  node: { type: 'string', value: 'NAME', help: 'keeps the EndpointSlice kube-system/kube-dns-NAME of this server' },
  config: { type: 'string', value: 'COREFILE', help: 'a Corefile; without one: cluster.local with Pods, and /etc/resolv.conf for the rest' },
  conf: { type: 'string', value: 'COREFILE', help: 'the same, as CoreDNS calls it', hidden: true },
  'dns.port': { type: 'number', value: 'N', help: 'port of zones that name none, as CoreDNS calls it', hidden: true },
  'resolv-conf': { type: 'string', value: 'FILE', default: '/etc/resolv.conf', help: 'whose name servers are asked for names outside the cluster' },
  state: { type: 'string', value: 'DIR', help: 'where the last objects are kept, to answer from after a restart without API server' },
  'require-fresh': { type: 'boolean', help: 'not ready as long as what is answered comes from --state alone' },
  status: { type: 'list', value: 'ADDR:PORT', help: 'status listeners instead of :8080, :8181 and :9153, in this order' },
  sockets: socketsFlag,
  workers: { type: 'number', value: 'N', help: 'threads that answer datagrams, each listener its own; 0: the main thread does; one a core if left out' },
  'node-cache': { type: 'list', value: 'ADDR', help: 'addresses of this node alone (169.254.20.10, and the cluster IP of the DNS): made here, listened on, and kept out of connection tracking' },
  nap: { type: 'string', value: 'DURATION', default: '0', help: 'how long a worker rests before it looks again when few questions came at once, e.g. 50us: less CPU, a little later' },
} as const

export const command = define({
  name: 'dns',
  summary: 'runs the cluster DNS',
  flags,
  run: async ({ values, given }, { signal }) => {
    const log = createLog()
    const port = values['dns.port'] ?? 53
    const own = values['node-cache'].map((text) => parseIp(text) ?? fail(`flag --node-cache: "${text}" is no address`))
    const more = values.listen.map((text) => hostPort(text, 'listen'))
    const listen = [...own.map((host) => ({ host, port: more[0]?.port ?? port })), ...more]
    if (listen.length === 0) listen.push({ host: '', port })
    const path = values.config ?? values.conf
    const batches = batchesOf(values.workers, values.nap)
    const { driver, reason } = await chooseDriver(values.sockets, () => import('../linux/sockets/driver.ts'))
    const closers = new Closers()
    closers.add('sockets', () => driver.close())
    try {
      const how = driver.name === 'epoll' && batches !== undefined ? { ...batches, open: await openGroups() } : undefined
      if (own.length > 0) {
        const { NodeCache } = await import('./nodecache/nodecache.ts')
        const cache = new NodeCache({ addresses: own, port: listen[0]!.port, log })
        closers.add('node cache', () => cache.close())
        await cache.open()
      }
      await run({ log, driver, batches: how, reason, listen, path, port: given.has('listen') ? listen[0]!.port : port, closers, signal, values })
    } finally {
      await closers.close(log)
    }
  },
})

function fail(what: string): never {
  throw new UsageError(what)
}

/** Threads and nap as the flags say; undefined: no threads. */
function batchesOf(workers: number | undefined, nap: string): Omit<BatchOptions, 'open'> | undefined {
  const ms = duration(nap)
  if (ms === undefined || ms > 10) throw new UsageError(`flag --nap: expected a duration of at most 10ms such as 50us, got "${nap}"`)
  const count = workers ?? Math.min(16, availableParallelism())
  if (!Number.isInteger(count) || count < 0 || count > 256) throw new UsageError(`flag --workers: expected a number from 0 to 256, got ${count}`)
  return count === 0 ? undefined : { count, nap: Math.round(ms * 1e6) }
}

async function openGroups(): Promise<BatchOptions['open']> {
  const { UdpGroup } = await import('../linux/sockets/udpgroup.ts')
  return (at, options) => new UdpGroup(at, options)
}

interface Options {
  readonly log: Log
  readonly driver: Driver
  readonly batches: BatchOptions | undefined
  readonly reason: string
  readonly listen: readonly { readonly host: string; readonly port: number }[]
  readonly path: string | undefined
  readonly port: number
  readonly closers: Closers
  readonly signal: AbortSignal
  readonly values: {
    readonly kubeconfig: string | undefined
    readonly node: string | undefined
    readonly 'resolv-conf': string
    readonly state: string | undefined
    readonly 'require-fresh': boolean
    readonly status: readonly string[]
  }
}

async function run(options: Options): Promise<void> {
  const { log, driver, closers, signal, values, listen } = options
  const registry = new Metrics()
  const counters = meters(registry)
  const ending = new AbortController()
  closers.add('mirrors', () => ending.abort())

  const wanted = new Set<'pod' | 'ingress'>()
  let want = (kind: 'pod' | 'ingress'): void => void wanted.add(kind)
  const cluster = new Cluster({ self: listen.map((l) => l.host).filter((h) => h !== '' && h !== '0.0.0.0' && h !== '::') })
  const env: Environment = {
    log,
    driver,
    metrics: counters,
    resolvConf: values['resolv-conf'],
    cluster,
    want: (kind) => want(kind),
    read: readText,
    self: listen,
    now: () => performance.now(),
    random: Math.random,
  }
  const text = options.path === undefined ? defaultCorefile.replace('.:53', '.') : readCorefile(options.path)
  let imported: string[] = []
  const files: typeof findFiles = (pattern, from) => {
    const found = findFiles(pattern, from)
    for (const f of found) imported.push(f.path, f.text)
    return found
  }
  const parse = (corefile: string) => {
    imported = []
    return parseCorefile(corefile, options.path ?? '(default)', corefileSources)
  }
  const corefileSources: CorefileSources = { files, environment: (name) => process.env[name], port: options.port }
  const hosts = listen.map((l) => l.host)
  let configuration: Configuration
  try {
    configuration = configure(parse(text), env, hosts)
  } catch (error) {
    if (error instanceof CorefileError) throw new UsageError(error.message)
    throw error
  }
  closers.add('handlers', () => configuration.close())

  const kept = values.state === undefined ? undefined : keepTable(values.state, cluster, log)
  closers.add('kept table', () => kept?.close())
  let serving = false
  let stopping = false
  let sources: Sources | undefined
  const fresh = (): boolean => sources?.synced === true
  const ready = (): string | undefined => {
    if (stopping) return 'the server ends'
    if (!serving) return 'does not listen yet'
    if (!cluster.complete) return 'the objects of the cluster have not been read yet'
    if (values['require-fresh'] && !fresh()) return 'answers from a kept table'
    return undefined
  }
  const stale = counters.gauge('switchyard_dns_table_stale', 'Whether what is answered comes from a kept table alone.')
  const names = counters.gauge('switchyard_dns_names', 'Names of the cluster.')
  counters.gauge('coredns_build_info', 'Version of this program.').set(1, { version, goversion: '', revision: '' })
  counters.gauge('switchyard_dns_sockets', 'What carries the bytes, and why.').set(1, { driver: driver.name, reason: options.reason })
  registry.onScrape(() => {
    stale.set(cluster.stale ? 1 : 0)
    names.set(cluster.zones.reduce((sum, z) => sum + z.table.size, 0))
  })

  const status = await statusListeners(options, configuration, registry, ready, closers)

  // The API server first: the sooner it is read, the fewer questions end in SERVFAIL.
  const client: Client = connect(await credentialsOf(values.kubeconfig, parse(text)), { userAgent: `switchyard-dns/${version}` })
  closers.add('API client', () => client.close())
  let registration: Registration | undefined
  const fronts = new Fronts(driver, log, counters, registry, options.batches)
  closers.add('listeners', () => fronts.close())
  cluster.onChanged = (zone, changed, source) => fronts.changed(zone, changed, source)
  sources = mirrorInto(cluster, client, {
    log,
    signal: ending.signal,
    wanted,
    seen: (kind, key) => {
      kept?.changed()
      // What is missing is denied from now on.
      if (key === '') fronts.refresh()
      if (kind === 'slice' && registration !== undefined && key === `kube-system/${registration.name}`) registration.ring()
    },
  })
  want = sources.add

  await fronts.apply(configuration)
  serving = true
  log.info('ready', {
    listen: fronts.addresses.join(', '),
    status: status.map(addressText).join(', '),
    sockets: driver.name,
    workers: options.batches?.count ?? 0,
    why: options.reason,
  })
  if (values.node !== undefined) {
    registration = register({
      client,
      node: values.node,
      host: configuration.listeners[0]!.host,
      port: fronts.port,
      metricsPort: status[Math.min(2, status.length - 1)]?.port,
      ready: () => ready() === undefined,
      log,
      signal: ending.signal,
    })
  }
  const look = (): void => void fronts.lookForLoops().catch((error: unknown) => log.warn('loop detection failed', { error }))
  setTimeout(look, 500).unref()
  setInterval(look, 60_000).unref()
  const reload = async (): Promise<void> => {
    try {
      const now = readCorefile(options.path!)
      const read = parse(now)
      const seen = JSON.stringify([now, ...imported])
      if (seen === last) return
      last = seen
      const next = configure(read, env, hosts)
      try {
        await fronts.apply(next)
      } catch (error) {
        next.close()
        throw error
      }
      const old = configuration
      configuration = next
      // Questions that began with the old handlers end with them.
      setTimeout(() => old.close(), 6000).unref()
      log.info('new configuration', { file: options.path, listen: fronts.addresses.join(', ') })
      counters.counter('coredns_reload_version_info', 'Configurations taken since the start.').add(1)
    } catch (error) {
      counters.counter('coredns_reload_failed_total', 'Configurations that could not be taken.').add(1)
      log.error('the new configuration is not taken, the old one holds', { error: explainError(error) })
    }
  }
  let last = JSON.stringify([text, ...imported])
  let reloading: Promise<void> | undefined
  const poll = (): void => {
    reloading ??= reload().finally(() => (reloading = undefined))
  }
  if (options.path !== undefined) {
    process.on('SIGHUP', poll)
    closers.add('reload', () => void process.off('SIGHUP', poll))
    const every = configuration.options.reload
    if (every !== undefined) setInterval(poll, every).unref()
  }

  await aborted(signal)
  stopping = true
  // Questions go on being answered while others learn that we end.
  await registration?.withdraw(400)
  await untilQuiet(fronts, configuration.options.health?.lameduck ?? 0)
  fronts.drain()
  for (let waited = 0; waited < 500 && fronts.servers.some((s) => s.busy > 0); waited += 10) await sleep(10)
  await fronts.close()
}

/** Goes on for `lameduck` milliseconds, or until nobody has asked for a while. */
async function untilQuiet(fronts: Fronts, lameduck: number): Promise<void> {
  const end = performance.now() + lameduck
  while (performance.now() < end) {
    const { asked } = fronts
    await sleep(Math.min(400, end - performance.now()))
    if (fronts.asked === asked) return
  }
}

async function statusListeners(options: Options, configuration: Configuration, registry: Metrics, ready: () => string | undefined, closers: Closers): Promise<Address[]> {
  const { health, ready: readyAt, prometheus } = configuration.options
  const defaults = [health ?? { host: '', port: 8080 }, readyAt ?? { host: '', port: 8181 }, prometheus ?? { host: '', port: 9153 }]
  const places = options.values.status.length > 0 ? options.values.status.map((text) => hostPort(text, 'status')) : defaults
  const base: StatusOptions = {
    metrics: registry,
    ready,
    paths: {
      '/health': () => ({ code: 200, body: 'OK' }),
      '/ready': () => {
        const why = ready()
        return why === undefined ? { code: 200, body: 'OK' } : { code: 503, body: `${why}\n` }
      },
    },
  }
  const out: Address[] = []
  for (const at of places) {
    const server = await listenStatus(at, base)
    closers.add('status', () => server.close())
    out.push({ host: at.host, port: server.port })
  }
  return out
}

function readCorefile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new Error(`cannot read the Corefile ${path}`, { cause: error })
  }
}

/** How the API server is reached: as the flag says, or what a `kubernetes` block says, as CoreDNS reads it. */
async function credentialsOf(flag: string | undefined, blocks: ReturnType<typeof parseCorefile>): Promise<Credentials> {
  if (flag !== undefined) return loadCredentials(flag)
  for (const line of blocks.flatMap((b) => b.lines.filter((l) => l.name === 'kubernetes'))) {
    const option = (name: string): readonly string[] => line.block.find((o) => o.name === name)?.args ?? []
    const [file, context] = option('kubeconfig')
    if (file !== undefined) return loadCredentials(file, { context })
    const [server] = option('endpoint')
    if (server === undefined) continue
    const [cert, key, ca] = option('tls')
    const config = {
      'current-context': 'corefile',
      contexts: [{ name: 'corefile', context: { cluster: 'corefile', user: 'corefile' } }],
      clusters: [{ name: 'corefile', cluster: { server: server.replace(/\/$/, ''), ...(ca === undefined ? {} : { 'certificate-authority': ca }) } }],
      users: [{ name: 'corefile', user: cert === undefined || key === undefined ? {} : { 'client-certificate': cert, 'client-key': key } }],
    }
    // A kubeconfig may be JSON, which is YAML too.
    return parseKubeconfig(JSON.stringify(config), { where: `${line.file}:${line.line}: kubernetes` })
  }
  return loadCredentials(undefined)
}
