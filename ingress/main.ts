import { openSync } from 'node:fs'
import { chooseDriver } from '../lib/sockets/choose.ts'
import type { Address, Descriptor, Driver } from '../lib/sockets/seam.ts'
import { createLog, explainError, type Log } from '../lib/log.ts'
import { aborted, Closers } from '../lib/lifecycle.ts'
import { Metrics } from '../lib/metrics.ts'
import { command as makeCommand, hostPort } from '../lib/options.ts'
import { listenStatus } from '../lib/status.ts'
import { workerFile } from '../lib/workers.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { connect } from '../kube/client.ts'
import { recorder } from '../kube/events.ts'
import { Crew, type CrewSocket } from '../linux/sockets/crew.ts'
import type { AccessLogFormat } from './accesslog.ts'
import { settingsOf } from './annotations/list.ts'
import { diffTables } from './change.ts'
import { Compiler, type Compiled } from './compile.ts'
import { readConfig, type Config } from './config.ts'
import { flags, groupsOf, idle, trustsOf, workersOf, type Group } from './options.ts'
import { nothing, Plane, type PlaneConfig, type Wanted, type WantedChange } from './plane.ts'
import { printStats, type Counts } from './stats.ts'
import { addressesOf, addressesOfService, ownAddresses, StatusWriter } from './status.ts'
import { readStreams, Streams } from './streams.ts'
import { placeholder } from './tls.ts'
import { Watching } from './watching.ts'
import type { WorkerData } from './worker.ts'

/** `switchyard ingress`. */
export const command = makeCommand({
  name: 'ingress',
  summary: 'Runs the ingress controller: serves the Ingress objects of a cluster.',
  flags,
  details: 'Flags from --ingress-class on are those of ingress-nginx. docs/ingress.md lists the annotations.',
  verbs: [
    { name: 'explain', summary: 'explains what would become of a request', load: async () => (await import('./explain.ts')).command },
    { name: 'check', summary: 'reports what of Ingresses is supported, what differs and what is refused', load: async () => (await import('./check.ts')).check },
  ],
  run: async ({ values, given }, context) => {
    const groups = groupsOf(values)
    const workers = workersOf(values.workers)
    trustsOf(values.trusted)
    const log = createLog()
    const { signal } = context
    const closers = new Closers()
    const metrics = new Metrics()
    for (const name of Object.keys(idle)) if (given.has(name)) log.warn('a flag of ingress-nginx has no effect here', { flag: `--${name}` })
    try {
      const credentials = await loadCredentials(values.kubeconfig)
      const client = connect(credentials, { userAgent: 'switchyard-ingress' })
      closers.add('client', () => client.close())
      const { driver, reason } = await chooseDriver(values.sockets, () => import('../linux/sockets/driver.ts'))
      closers.add('sockets', () => driver.close())

      const serving = groups.map((group) => ({
        group,
        compiler: undefined as Compiler | undefined,
        last: undefined as Compiled | undefined,
        publish: addressesOf([...values['publish-address'], ...values['publish-status-address']]),
      }))
      let config: Config = readConfig({})
      const makeCompilers = (): void => {
        for (const s of serving) {
          s.compiler = new Compiler({
            controllers: [values['controller-class']],
            classes: s.group.classes,
            otherClasses: s.group.otherClasses,
            defaultBackend: values['default-backend-service'],
            defaultCertificate: values['default-ssl-certificate'],
            withoutClass: values['watch-ingress-without-class'],
            noCatchAll: values['disable-catch-all'],
            http2: config.http2,
            settings: (ingress, how) => settingsOf(ingress, how, config.defaults),
          })
        }
      }
      makeCompilers()
      const wanted: { tables: Wanted['tables']; tuning: Wanted['tuning'] } = { ...nothing(groups.length) }
      /** Whoever carries requests: this thread or workers; none until the first table is there. */
      let carriers: Carriers | undefined

      const events = recorder(client, 'switchyard-ingress', { log, signal })
      let ready = false
      const watching = new Watching(
        client,
        { log, signal, namespace: values['watch-namespace'], externalNames: values['allow-external-names'] },
        () => {
          try {
            apply()
          } catch (error) {
            log.error('the table stays as it was', { error: explainError(error) })
          }
        },
        () => tellStatus(),
      )
      for (const name of [values.configmap, values['tcp-services-configmap'], values['udp-services-configmap']]) watching.configMap(name)

      const statuses = metricsOf(metrics, { driver: driver.name, reason })
      let counts: readonly Counts[] = []
      printStats(metrics, { className: values['controller-class'], namespace: process.env.POD_NAMESPACE ?? '', pod: process.env.POD_NAME ?? '' }, () => counts)
      for (const text of values.status) {
        const status = await listenStatus(hostPort(text, 'status'), {
          metrics,
          ready: () => (ready ? undefined : 'the first table is not there yet'),
          paths: {
            '/metrics': async () => {
              counts = (await carriers?.counts()) ?? []
              return { code: 200, body: metrics.print(), type: 'text/plain; version=0.0.4; charset=utf-8' }
            },
          },
        })
        closers.add('status listener', () => status.close())
      }

      const writer = new StatusWriter(client, log, signal)
      const tellStatus = (): void => {
        const touched = watching.touched()
        if (!ready || !values['update-status']) return
        const service = values['publish-service']
        for (const s of serving) {
          const want = service === undefined ? s.publish : addressesOf(addressesOfService(watching.objects().services.get(service)))
          writer.want(s.compiler!, want, touched, (key) => watching.current(key))
        }
      }

      const streams = new Streams(driver, log)
      closers.add('TCP and UDP services', () => streams.close())
      const streamProblems = new Set<string>()
      const applyStreams = (): void => {
        const problems: string[] = []
        const ports = (['TCP', 'UDP'] as const).flatMap((protocol) => {
          const name = values[protocol === 'TCP' ? 'tcp-services-configmap' : 'udp-services-configmap']
          if (name === undefined) return []
          const read = readStreams(protocol, watching.configMap(name)?.data ?? {}, watching.objects())
          problems.push(...read.problems.map((p) => `${name}: ${p}`))
          return read.ports
        })
        for (const problem of problems) if (!streamProblems.has(problem)) log.warn('a ConfigMap of ports is not followed in everything', { problem })
        streamProblems.clear()
        for (const problem of problems) streamProblems.add(problem)
        void streams.apply(ports)
      }

      const told = new Set<string>()
      let configData: string | undefined
      const apply = (): void => {
        const began = performance.now()
        const data = JSON.stringify(watching.configMap(values.configmap)?.data)
        if (data !== configData) {
          configData = data
          config = readConfig((data === undefined ? {} : JSON.parse(data)) as Record<string, string>)
          for (const problem of config.problems) log.warn('the ConfigMap is not followed in everything', { configmap: values.configmap, problem })
          makeCompilers()
        }
        const tuning = { ...config.tuning, trusted: [...values.trusted, ...config.trusted] }
        if (JSON.stringify(tuning) !== JSON.stringify(wanted.tuning)) {
          wanted.tuning = tuning
          carriers?.change({ kind: 'tuning', tuning })
        }
        const objects = watching.objects()
        serving.forEach((s, group) => {
          s.last = s.compiler!.compile(objects)
          const { table } = s.last
          const before = wanted.tables[group]!
          wanted.tables = wanted.tables.map((t, i) => (i === group ? table : t))
          carriers?.table(group, before, table)
        })
        applyStreams()
        statuses.applied(
          performance.now() - began,
          serving.map((s) => s.last!),
        )
        const now = new Set<string>()
        for (const { last } of serving) {
          for (const { ingress, reason, message } of last!.problems) {
            const key = `${ingress.metadata.uid ?? ''} ${reason} ${message}`
            now.add(key)
            if (told.has(key)) continue
            events.event(ingress, 'Warning', reason, message)
            log.warn('an Ingress is not served as it says', { ingress: `${ingress.metadata.namespace}/${ingress.metadata.name}`, reason, problem: message })
          }
        }
        told.clear()
        for (const key of now) told.add(key)
        const gone = watching.gone()
        if (gone.length > 0) carriers?.change({ kind: 'gone', owners: gone })
        tellStatus()
      }

      await Promise.race([watching.whenSynced(), aborted(signal)])
      if (signal.aborted) return
      apply()

      const asked = (configData === undefined ? {} : JSON.parse(configData)) as Readonly<Record<string, string>>
      const numberOf = (key: string): number | undefined => (/^\d+$/.test(asked[key] ?? '') ? Number(asked[key]) : undefined)
      const [maxIdle, upstreamIdle] = [numberOf('upstream-keepalive-connections'), numberOf('upstream-keepalive-timeout')]
      const format = values['access-log'] as AccessLogFormat
      const planeConfig: PlaneConfig = {
        groups: groups.length,
        accessLog: { format, fd: format === 'off' || values['access-log-path'] === '-' ? 1 : openSync(values['access-log-path'], 'a') },
        proxied: values['proxy-protocol'] || asked['use-proxy-protocol'] === 'true',
        passthrough: values['enable-ssl-passthrough'] || asked['enable-ssl-passthrough'] === 'true',
        shown: placeholder(),
        ...(values['otlp-endpoint'] === undefined ? {} : { otlp: { endpoint: values['otlp-endpoint'], share: values['otlp-share'] } }),
        ...(maxIdle === undefined ? {} : { maxIdle }),
        ...(upstreamIdle === undefined ? {} : { upstreamIdle: upstreamIdle * 1000 }),
      }
      const grace = values['shutdown-grace-period']
      carriers = workers === 0 ? await here(driver, planeConfig, groups, wanted, grace, log) : await crew(driver, workers, planeConfig, groups, wanted, grace, log)
      const carrying = carriers
      closers.add('server', () => carrying.close())

      const listeners = serving.map((s, i) => {
        if (s.publish.length === 0) s.publish = addressesOf(ownAddresses([s.group.http, s.group.https].flatMap((at) => (at !== undefined && 'host' in at ? [at.host] : []))))
        return { classes: s.group.classes, http: shownAt(s.group.http, carrying.ports[`http ${i}`]), https: shownAt(s.group.https, carrying.ports[`https ${i}`]) }
      })
      ready = true
      for (const s of serving) writer.all(s.compiler!)
      tellStatus()
      const [first, ...others] = listeners
      log.info('ready', {
        http: first!.http,
        https: first!.https,
        others: others.length === 0 ? undefined : others,
        sockets: driver.name,
        why: reason,
        tls: tlsOf(driver),
        workers: workers === 0 ? undefined : workers,
        ingresses: serving.reduce((n, s) => n + s.last!.count, 0),
      })
      await aborted(signal)
      ready = false
      await carrying.drain()
    } finally {
      await closers.close(log)
    }
  },
})

/** Who carries requests, as the main thread sees it. */
interface Carriers {
  /** By `http GROUP` and `https GROUP`. */
  readonly ports: Readonly<Record<string, number>>
  table(group: number, before: Wanted['tables'][number], now: Wanted['tables'][number]): void
  change(change: WantedChange): void
  counts(): Promise<readonly Counts[]>
  drain(): Promise<void>
  close(): Promise<void> | void
}

/** What listens where, by `http GROUP` and `https GROUP`. */
function socketsOf(groups: readonly Group[]): (readonly [name: string, at: Address | Descriptor, flag: string])[] {
  return groups.flatMap((g, i) => [...(g.http === undefined ? [] : [[`http ${i}`, g.http, g.httpFlag] as const]), ...(g.https === undefined ? [] : [[`https ${i}`, g.https, g.httpsFlag] as const])])
}

const cannot = (name: string, flag: string, cause: unknown): Error => new Error(`cannot serve ${name.startsWith('https') ? 'HTTPS' : 'HTTP'}; choose another address with ${flag}`, { cause })

/** The main thread itself. */
async function here(driver: Driver, config: PlaneConfig, groups: readonly Group[], wanted: Wanted, grace: number, log: Log): Promise<Carriers> {
  const plane = new Plane(driver, config, wanted, (what, error) => log.error(what, { error: error === undefined ? undefined : explainError(error) }))
  const ports: Record<string, number> = {}
  for (const [name, at, flag] of socketsOf(groups)) {
    const [kind, group] = name.split(' ')
    try {
      ports[name] = (await plane.listen(Number(group), kind === 'https', at, { failed: (error) => log.error('a listener failed', { flag, error: explainError(error) }) })).port
    } catch (error) {
      await plane.close()
      throw cannot(name, flag, error)
    }
  }
  return {
    ports,
    table: (group, _before, table) => plane.use(group, table),
    change: (change) => plane.change(change),
    counts: async () => [plane.counts()],
    drain: () => plane.drain(grace),
    close: () => plane.close(),
  }
}

/** Workers, which get changes as changes. */
async function crew(driver: Driver, count: number, config: PlaneConfig, groups: readonly Group[], wanted: Wanted, grace: number, log: Log): Promise<Carriers> {
  const sockets: Record<string, CrewSocket> = {}
  let flags = ''
  for (const [name, at, flag] of socketsOf(groups)) {
    sockets[name] = { at }
    flags += `${flags === '' ? '' : ' or '}${flag}`
  }
  let asked: { counts: (Counts | undefined)[]; left: number; done: (counts: readonly Counts[]) => void } | undefined
  const answered = (index: number, counts: Counts | undefined): void => {
    if (asked === undefined || asked.counts[index] !== undefined) return
    if (counts !== undefined) asked.counts[index] = counts
    if (--asked.left > 0) return
    const { done, counts: all } = asked
    asked = undefined
    done(all.filter((c) => c !== undefined))
  }
  let team: Crew<Wanted, WantedChange>
  try {
    team = await Crew.open<Wanted, WantedChange, string>({
      driver,
      file: workerFile(import.meta.url, './worker.ts'),
      count,
      sockets,
      data: { config, grace } satisfies WorkerData,
      whole: () => ({ tables: wanted.tables, tuning: wanted.tuning }),
      message: (index, message) => answered(index, (message as { counts: Counts }).counts),
      died: (index) => answered(index, undefined),
      log,
    })
  } catch (error) {
    throw cannot('http', flags, error)
  }
  await team.ready()
  return {
    ports: team.ports,
    table: (group, before, now) => {
      if (before !== now) team.change({ kind: 'table', group, change: diffTables(before, now) })
    },
    change: (change) => team.change(change),
    counts: () =>
      new Promise((resolve) => {
        const before = asked?.done
        asked = {
          counts: Array.from({ length: team.count }, () => undefined),
          left: team.count,
          done: (counts) => {
            clearTimeout(late)
            before?.(counts)
            resolve(counts)
          },
        }
        const mine = asked
        // One that is busy beyond reason does not keep the others' counts from being told.
        const late = setTimeout(() => {
          if (asked === mine) asked = undefined
          mine.done(mine.counts.filter((c) => c !== undefined))
        }, 2000).unref()
        for (let i = 0; i < team.count; i++) team.send(i, 'counts')
      }),
    drain: () => team.close(grace + 2000),
    close: () => team.close(1000),
  }
}

function shownAt(at: Address | Descriptor | undefined, port: number | undefined): string | undefined {
  if (at === undefined || port === undefined) return undefined
  const host = 'host' in at ? at.host : ''
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}

/** How TLS is done: by the OpenSSL inside Node, or by `node:tls` and why. */
function tlsOf(driver: Driver): string {
  const told = (driver as Driver & { readonly tls?: unknown }).tls
  return told === undefined ? 'node:tls' : typeof told === 'string' ? `node:tls: ${told}` : 'openssl'
}

function metricsOf(metrics: Metrics, sockets: { readonly driver: string; readonly reason: string }): { applied(ms: number, compiled: readonly Compiled[]): void } {
  const applied = metrics.histogram('switchyard_ingress_apply_seconds', 'Time to make and use a new table.', [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1])
  const hosts = metrics.gauge('switchyard_ingress_hosts', 'Hosts with routes.')
  const problems = metrics.gauge('switchyard_ingress_problems', 'What is not served as its Ingress says.')
  metrics.gauge('switchyard_ingress_sockets_info', 'What carries the bytes, and why; always 1.').set(1, sockets)
  metrics.gauge('nginx_ingress_controller_build_info', 'Always 1.').set(1, { build: '', release: 'switchyard', repository: '' })
  const successful = metrics.gauge('nginx_ingress_controller_config_last_reload_successful', 'Always 1: nothing is ever reloaded.')
  const when = metrics.gauge('nginx_ingress_controller_config_last_reload_successful_timestamp_seconds', 'When the last table was used, seconds since 1970.')
  const successes = metrics.counter('nginx_ingress_controller_success', 'Tables made and used.')
  let last: readonly Compiled[] = []
  const certificates = (print: (host: string, c: { readonly owner: string; readonly notAfter: number }) => string) => (out: string[]) => {
    for (const { table } of last) {
      for (const [host, c] of table.certificates.exact) out.push(print(host, c))
      for (const [host, c] of table.certificates.wildcards) out.push(print(`*.${host}`, c))
    }
  }
  const n = 'nginx_ingress_controller'
  const owner = (text: string): string => `namespace="${text.slice(0, text.indexOf('/'))}",secret_name="${text.slice(text.indexOf('/') + 1)}"`
  metrics.family(
    `${n}_ssl_expire_time_seconds`,
    'gauge',
    'When the certificate of a host expires, seconds since 1970.',
    certificates((host, c) => `${n}_ssl_expire_time_seconds{host="${host}",${owner(c.owner)}} ${c.notAfter / 1000}`),
  )
  metrics.family(
    `${n}_ssl_certificate_info`,
    'gauge',
    'Certificates in use; always 1.',
    certificates((host, c) => `${n}_ssl_certificate_info{host="${host}",${owner(c.owner)}} 1`),
  )
  metrics.family(`${n}_orphan_ingress`, 'gauge', 'Ingresses whose Service does not exist or has no endpoint.', (out) => {
    for (const { problems: list } of last) {
      for (const { ingress, reason } of list)
        if (reason === 'BackendNotFound') out.push(`${n}_orphan_ingress{namespace="${ingress.metadata.namespace ?? ''}",ingress="${ingress.metadata.name}",type="no-service"} 1`)
    }
  })
  return {
    applied: (ms, compiled) => {
      applied.observe(ms / 1000)
      hosts.set(compiled.reduce((sum, c) => sum + c.table.hosts.size + c.table.wildcards.size, 0))
      problems.set(compiled.reduce((sum, c) => sum + c.problems.length, 0))
      successful.set(1)
      when.set(Math.floor(Date.now() / 1000))
      successes.add()
      last = compiled
    },
  }
}
