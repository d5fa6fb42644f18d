import { lookup } from 'node:dns/promises'
import { openSync } from 'node:fs'
import { chooseDriver } from '../lib/sockets/choose.ts'
import { readClientHello } from '../lib/sockets/clienthello.ts'
import type { Address, Descriptor, Listening, ListenOptions } from '../lib/sockets/seam.ts'
import { createLog, explainError } from '../lib/log.ts'
import { aborted, Closers, sleep } from '../lib/lifecycle.ts'
import { Metrics } from '../lib/metrics.ts'
import { command as makeCommand, hostPort } from '../lib/options.ts'
import { listenStatus } from '../lib/status.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { connect } from '../kube/client.ts'
import { AccessLog, type AccessLogFormat } from './accesslog.ts'
import { middleware, settingsOf } from './annotations/list.ts'
import { recorder } from '../kube/events.ts'
import { Compiler, type Compiled } from './compile.ts'
import { Server, type Frontend } from './http1/server.ts'
import { flags, groupsOf, readConfig, trustsOf, type Group } from './options.ts'
import { Stats } from './stats.ts'
import { addressesOf, addressesOfService, ownAddresses, writeStatus } from './status.ts'
import { emptyTable } from './table.ts'
import { identityFor, placeholder } from './tls.ts'
import { Watching } from './watching.ts'

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
  run: async ({ values }, context) => {
    const groups = groupsOf(values)
    const flagTrusts = trustsOf(values.trusted)
    const log = createLog()
    const { signal } = context
    const closers = new Closers()
    const metrics = new Metrics()
    try {
      const credentials = await loadCredentials(values.kubeconfig)
      const client = connect(credentials, { userAgent: 'switchyard-ingress' })
      closers.add('client', () => client.close())
      const { driver, reason } = await chooseDriver(values.sockets, () => import('../linux/sockets/driver.ts'))
      closers.add('sockets', () => driver.close())

      const format = values['access-log'] as AccessLogFormat
      const accessLog = format === 'off' ? undefined : new AccessLog(driver, values['access-log-path'] === '-' ? 1 : openSync(values['access-log-path'], 'a'), format)
      if (accessLog !== undefined) closers.add('access log', () => accessLog.close())
      const stats = new Stats(metrics, () => server, { className: values['controller-class'], namespace: process.env.POD_NAMESPACE ?? '', pod: process.env.POD_NAME ?? '' })
      let trusts = flagTrusts
      const server: Server = new Server({
        driver,
        logsAgents: accessLog !== undefined,
        middleware,
        trusts: (peer) => trusts?.(peer) ?? false,
        resolve: async (host) => (await lookup(host)).address,
        finished: (x) => {
          stats.finished(x)
          accessLog?.write(x)
        },
        failed: (what, error) => log.error(what, { error: error === undefined ? undefined : explainError(error) }),
      })
      closers.add('server', () => server.close())

      const serving = groups.map((group) => ({
        group,
        plain: { table: emptyTable, secure: false } as Frontend,
        secure: { table: emptyTable, secure: true } as Frontend,
        compiler: undefined as Compiler | undefined,
        last: undefined as Compiled | undefined,
        publish: addressesOf([...values['publish-address'], ...values['publish-status-address']]),
      }))
      let defaults: ReadonlyMap<string, string> = new Map()
      const makeCompilers = (): void => {
        for (const s of serving) {
          s.compiler = new Compiler({
            controllers: [values['controller-class']],
            classes: s.group.classes,
            otherClasses: s.group.otherClasses,
            defaultBackend: values['default-backend-service'],
            defaultCertificate: values['default-ssl-certificate'],
            settings: (ingress, how) => settingsOf(ingress, how, defaults),
          })
        }
      }
      makeCompilers()

      const events = recorder(client, 'switchyard-ingress', { log, signal })
      let ready = false
      const watching = new Watching(client, { log, signal, namespace: values['watch-namespace'], configMap: values.configmap }, () => {
        try {
          apply()
        } catch (error) {
          log.error('the table stays as it was', { error: explainError(error) })
        }
      })

      const statuses = metricsOf(metrics)
      for (const text of values.status) {
        const status = await listenStatus(hostPort(text, 'status'), { metrics, ready: () => (ready ? undefined : 'the first table is not there yet') })
        closers.add('status listener', () => status.close())
      }

      let writing: Promise<void> | undefined
      let writeAgain = false
      const tellStatus = (): void => {
        writeAgain = true
        writing ??= (async () => {
          while (writeAgain && !signal.aborted) {
            writeAgain = false
            let failed = 0
            for (const s of serving) {
              const published = values['publish-service'] === undefined ? s.publish : addressesOf(addressesOfService(watching.objects().services.get(values['publish-service'])))
              failed += await writeStatus(
                client,
                (s.last?.served ?? []).flatMap((i) => watching.current(i) ?? []),
                published,
                log,
                signal,
              )
            }
            if (failed > 0) {
              await sleep(2000, signal)
              writeAgain = true
            }
          }
          writing = undefined
        })()
      }

      const told = new Set<string>()
      let config: Readonly<Record<string, string>> | undefined
      const apply = (): void => {
        const began = performance.now()
        const data = watching.configMap?.data
        if (JSON.stringify(data) !== JSON.stringify(config)) {
          config = data
          const read = readConfig(data ?? {})
          for (const problem of read.problems) log.warn('the ConfigMap is not followed in everything', { configmap: values.configmap, problem })
          defaults = read.defaults
          trusts = read.trusted.length === 0 ? flagTrusts : trustsOf([...values.trusted, ...read.trusted])
          makeCompilers()
        }
        const objects = watching.objects()
        for (const s of serving) {
          s.last = s.compiler!.compile(objects)
          server.use(s.plain, s.last.table)
          server.use(s.secure, s.last.table)
        }
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
        stats.keep((owner) => watching.has(owner))
        if (ready) tellStatus()
      }

      await Promise.race([watching.whenSynced(), aborted(signal)])
      if (signal.aborted) return
      apply()
      const shown = placeholder()
      const drains: (() => void)[] = []
      const offersHttp2 = (group: Group): boolean => {
        for (const [name, c] of watching.objects().classes) if ((group.classes.length === 0 || group.classes.includes(name)) && c.metadata.annotations?.['switchyard.dev/http2'] === 'off') return false
        return true
      }
      const listenSecure = async (at: Address | Descriptor, frontend: Frontend, group: Group, how: ListenOptions): Promise<Listening> => {
        const identity = (name: string | undefined) => identityFor(frontend.table, name, shown)
        const tls = { identity, alpn: ['http/1.1'] }
        if (driver.name !== 'epoll') return server.listen(at, frontend, { ...how, tls })
        const { Http2 } = await import('./http2/server.ts')
        const http2 = new Http2({ identity, accept: () => server.accept(frontend), failed: (what, error) => log.error(what, { error: explainError(error) }) })
        try {
          const listening = await server.listen(at, frontend, {
            ...how,
            tls,
            peek: (first, wire) => {
              const hello = readClientHello(first, 0, first.length)
              if (hello === 'more') return 'more'
              if (hello === 'bad' || server.draining || !hello.alpn.includes('h2') || !offersHttp2(group) || identity(hello.serverName)?.clientCa !== undefined) return 'keep'
              const fd = driver.detach(wire)
              if (fd === undefined) return 'keep'
              http2.take(fd)
              return 'detached'
            },
          })
          drains.push(() => http2.drain())
          closers.add('HTTP/2', () => http2.close())
          return listening
        } catch (error) {
          // Drivers that cannot look into a connection, or give it away, serve HTTP/1.1 alone.
          if (!/ENOTSUP|not supported/.test(explainError(error))) throw error
          return server.listen(at, frontend, { ...how, tls })
        }
      }
      const open = async (at: Address | Descriptor | undefined, frontend: Frontend, group: Group, flag: string): Promise<string | undefined> => {
        if (at === undefined) return undefined
        const host = 'host' in at ? at.host : ''
        try {
          const how = { failed: (error: Error) => log.error('a listener failed', { flag, error: explainError(error) }) }
          const listening = frontend.secure ? await listenSecure(at, frontend, group, how) : await server.listen(at, frontend, how)
          return `${host.includes(':') ? `[${host}]` : host}:${listening.port}`
        } catch (error) {
          throw new Error(`cannot serve ${frontend.secure ? 'HTTPS' : 'HTTP'}; choose another address with ${flag}`, { cause: error })
        }
      }
      const listeners: { readonly classes: readonly string[]; readonly http: string | undefined; readonly https: string | undefined }[] = []
      for (const s of serving) {
        listeners.push({ classes: s.group.classes, http: await open(s.group.http, s.plain, s.group, s.group.httpFlag), https: await open(s.group.https, s.secure, s.group, s.group.httpsFlag) })
        if (s.publish.length === 0) s.publish = addressesOf(ownAddresses([s.group.http, s.group.https].flatMap((at) => (at !== undefined && 'host' in at ? [at.host] : []))))
      }
      ready = true
      tellStatus()
      const [first, ...others] = listeners
      log.info('ready', {
        http: first!.http,
        https: first!.https,
        others: others.length === 0 ? undefined : others,
        sockets: driver.name,
        why: reason,
        ingresses: serving.reduce((n, s) => n + s.last!.served.length, 0),
      })
      await aborted(signal)
      ready = false
      for (const drain of drains) drain()
      await server.drain(AbortSignal.timeout(Math.max(1, values['shutdown-grace-period'])))
      // Answers on their way out get a moment to arrive.
      for (let i = 0; i < 20 && server.clients.size > 0; i++) await sleep(10)
    } finally {
      await closers.close(log)
    }
  },
})

function metricsOf(metrics: Metrics): { applied(ms: number, compiled: readonly Compiled[]): void } {
  const applied = metrics.histogram('switchyard_ingress_apply_seconds', 'Time to make and use a new table.', [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1])
  const hosts = metrics.gauge('switchyard_ingress_hosts', 'Hosts with routes.')
  const problems = metrics.gauge('switchyard_ingress_problems', 'What is not served as its Ingress says.')
  const successful = metrics.gauge('nginx_ingress_controller_config_last_reload_successful', 'Always 1: nothing is ever reloaded.')
  const successes = metrics.counter('nginx_ingress_controller_success', 'Tables made and used.')
  let expiring: readonly Compiled[] = []
  metrics.family('nginx_ingress_controller_ssl_expire_time_seconds', 'gauge', 'When the certificate of a host expires, seconds since 1970.', (out) => {
    for (const { table } of expiring) {
      for (const [host, c] of table.certificates.exact) out.push(`nginx_ingress_controller_ssl_expire_time_seconds{host="${host}",secret_name="${c.owner}"} ${c.notAfter / 1000}`)
      for (const [host, c] of table.certificates.wildcards) out.push(`nginx_ingress_controller_ssl_expire_time_seconds{host="*.${host}",secret_name="${c.owner}"} ${c.notAfter / 1000}`)
    }
  })
  return {
    applied: (ms, compiled) => {
      applied.observe(ms / 1000)
      hosts.set(compiled.reduce((n, c) => n + c.table.hosts.size + c.table.wildcards.size, 0))
      problems.set(compiled.reduce((n, c) => n + c.problems.length, 0))
      successful.set(1)
      successes.add()
      expiring = compiled
    },
  }
}
