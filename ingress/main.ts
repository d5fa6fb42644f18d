import { lookup } from 'node:dns/promises'
import { openSync } from 'node:fs'
import { chooseDriver, socketsFlag } from '../lib/sockets/choose.ts'
import type { Address, Descriptor, Listening } from '../lib/sockets/seam.ts'
import { createLog, explainError } from '../lib/log.ts'
import { aborted, Closers, sleep } from '../lib/lifecycle.ts'
import { Metrics } from '../lib/metrics.ts'
import { command as makeCommand, hostPort, UsageError } from '../lib/options.ts'
import { listenStatus } from '../lib/status.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { connect } from '../kube/client.ts'
import { AccessLog, accessLogFormats, type AccessLogFormat } from './accesslog.ts'
import { middleware, settingsOf } from './annotations/list.ts'
import { recorder } from '../kube/events.ts'
import { Compiler, controllerName, type Compiled } from './compile.ts'
import { Server, type Frontend } from './http1/server.ts'
import { certificateFor } from './match.ts'
import { Stats } from './stats.ts'
import { addressesOf, ownAddresses, writeStatus } from './status.ts'
import { emptyTable } from './table.ts'
import { Watching } from './watching.ts'

const flags = {
  kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server; the Pod’s own account if left out' },
  http: { type: 'string', value: 'ADDR:PORT', default: ':80', help: 'where HTTP is served; empty: nowhere' },
  https: { type: 'string', value: 'ADDR:PORT', default: ':443', help: 'where HTTPS is served; empty: nowhere' },
  class: { type: 'list', value: 'NAME', help: `serve only this IngressClass; all with controller ${controllerName} if left out` },
  'controller-class': { type: 'string', value: 'NAME', default: controllerName, help: 'IngressClasses whose spec.controller is this are ours' },
  'publish-address': { type: 'list', value: 'A,B', help: 'what status.loadBalancer of Ingresses says; this machine’s own address if left out' },
  'default-backend-service': { type: 'string', value: 'NAMESPACE/NAME', help: 'serves what no rule fits' },
  'default-ssl-certificate': { type: 'string', value: 'NAMESPACE/NAME', help: 'Secret shown to clients that ask for no host of ours' },
  status: { type: 'list', value: 'ADDR:PORT', default: [':10254'], help: 'where /healthz, /readyz and /metrics are answered' },
  'access-log': { type: 'string', oneOf: accessLogFormats, default: 'json', help: 'form of the access log' },
  'access-log-path': { type: 'string', value: 'FILE', default: '-', help: 'where the access log goes; - is standard output' },
  sockets: socketsFlag,
  'listen-http-fd': { type: 'number', value: 'N', help: 'descriptor of a listening socket to serve HTTP on, instead of --http' },
  'listen-https-fd': { type: 'number', value: 'N', help: 'descriptor of a listening socket to serve HTTPS on, instead of --https' },
  'shutdown-grace-period': { type: 'duration', default: '30s', help: 'how long requests under way may take after SIGTERM' },
} as const

/** `switchyard ingress`. */
export const command = makeCommand({
  name: 'ingress',
  summary: 'Runs the ingress controller: serves the Ingress objects of a cluster.',
  flags,
  run: async ({ values }, context) => {
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
      const server: Server = new Server({
        driver,
        logsAgents: accessLog !== undefined,
        middleware,
        resolve: async (host) => (await lookup(host)).address,
        finished: (x) => {
          stats.finished(x)
          accessLog?.write(x)
        },
        failed: (what, error) => log.error(what, { error: error === undefined ? undefined : explainError(error) }),
      })
      closers.add('server', () => server.close())
      const plain: Frontend = { table: emptyTable, secure: false }
      const secure: Frontend = { table: emptyTable, secure: true }

      const compiler = new Compiler({
        controllers: [values['controller-class']],
        classes: values.class,
        defaultBackend: values['default-backend-service'],
        defaultCertificate: values['default-ssl-certificate'],
        settings: settingsOf,
      })
      const events = recorder(client, 'switchyard-ingress', { log, signal })
      let ready = false
      let last: Compiled | undefined
      const watching = new Watching(client, log, signal, () => apply())

      const statuses = metricsOf(metrics)
      for (const text of values.status) {
        const status = await listenStatus(hostPort(text, 'status'), { metrics, ready: () => (ready ? undefined : 'the first table is not there yet') })
        closers.add('status listener', () => status.close())
      }

      let publish = addressesOf(values['publish-address'])
      let writing: Promise<void> | undefined
      let writeAgain = false
      const tellStatus = (): void => {
        writeAgain = true
        writing ??= (async () => {
          while (writeAgain && !signal.aborted) {
            writeAgain = false
            const failed = await writeStatus(client, (last?.served ?? []).flatMap((i) => watching.current(i) ?? []), () => publish, log, signal)
            if (failed > 0) {
              await sleep(2000, signal)
              writeAgain = true
            }
          }
          writing = undefined
        })()
      }

      const told = new Set<string>()
      const apply = (): void => {
        const began = performance.now()
        last = compiler.compile(watching.objects())
        server.use(plain, last.table)
        server.use(secure, last.table)
        statuses.applied(performance.now() - began, last)
        const now = new Set<string>()
        for (const { ingress, reason, message } of last.problems) {
          const key = `${ingress.metadata.uid ?? ''} ${reason} ${message}`
          now.add(key)
          if (told.has(key)) continue
          events.event(ingress, 'Warning', reason, message)
          log.warn('an Ingress is not served as it says', { ingress: `${ingress.metadata.namespace}/${ingress.metadata.name}`, reason, problem: message })
        }
        told.clear()
        for (const key of now) told.add(key)
        stats.keep((owner) => watching.has(owner))
        if (ready) tellStatus()
      }

      await Promise.race([watching.whenSynced(), aborted(signal)])
      if (signal.aborted) return
      apply()
      const open = async (flag: 'http' | 'https', frontend: Frontend): Promise<(Address & { listening: Listening }) | undefined> => {
        const fd = values[`listen-${flag}-fd`]
        if (fd === undefined && values[flag] === '') return undefined
        const at: Address | Descriptor = fd === undefined ? hostPort(values[flag], flag) : { fd }
        try {
          const listening = await server.listen(at, frontend, {
            ...(frontend.secure ? { tls: { identity: (name: string | undefined) => certificateFor(frontend.table.certificates, name), alpn: ['http/1.1'] } } : {}),
            failed: (error) => log.error('a listener failed', { flag, error: explainError(error) }),
          })
          return { host: 'host' in at ? at.host : '', port: listening.port, listening }
        } catch (error) {
          throw new Error(`cannot serve ${flag.toUpperCase()}; choose another address with --${flag}`, { cause: error })
        }
      }
      const http = await open('http', plain)
      const https = await open('https', secure)
      if (http === undefined && https === undefined) throw new UsageError('neither --http nor --https names an address')
      if (publish.length === 0) publish = addressesOf(ownAddresses([http, https].flatMap((l) => (l === undefined ? [] : [l.host]))))
      ready = true
      tellStatus()
      const text = (l: Address | undefined): string | undefined => (l === undefined ? undefined : `${l.host.includes(':') ? `[${l.host}]` : l.host}:${l.port}`)
      log.info('ready', { http: text(http), https: text(https), sockets: driver.name, why: reason, ingresses: last?.served.length ?? 0 })

      await aborted(signal)
      ready = false
      await server.drain(AbortSignal.timeout(Math.max(1, values['shutdown-grace-period'])))
      // Answers on their way out get a moment to arrive.
      for (let i = 0; i < 20 && server.clients.size > 0; i++) await sleep(10)
    } finally {
      await closers.close(log)
    }
  },
})

function metricsOf(metrics: Metrics): { applied(ms: number, compiled: Compiled): void } {
  const applied = metrics.histogram('switchyard_ingress_apply_seconds', 'Time to make and use a new table.', [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1])
  const hosts = metrics.gauge('switchyard_ingress_hosts', 'Hosts with routes.')
  const problems = metrics.gauge('switchyard_ingress_problems', 'What is not served as its Ingress says.')
  const successful = metrics.gauge('nginx_ingress_controller_config_last_reload_successful', 'Always 1: nothing is ever reloaded.')
  const successes = metrics.counter('nginx_ingress_controller_success', 'Tables made and used.')
  let expiring: Compiled | undefined
  metrics.family('nginx_ingress_controller_ssl_expire_time_seconds', 'gauge', 'When the certificate of a host expires, seconds since 1970.', (out) => {
    for (const [host, c] of expiring?.table.certificates.exact ?? []) out.push(`nginx_ingress_controller_ssl_expire_time_seconds{host="${host}",secret_name="${c.owner}"} ${c.notAfter / 1000}`)
    for (const [host, c] of expiring?.table.certificates.wildcards ?? []) out.push(`nginx_ingress_controller_ssl_expire_time_seconds{host="*.${host}",secret_name="${c.owner}"} ${c.notAfter / 1000}`)
  })
  return {
    applied: (ms, compiled) => {
      applied.observe(ms / 1000)
      hosts.set(compiled.table.hosts.size + compiled.table.wildcards.size)
      problems.set(compiled.problems.length)
      successful.set(1)
      successes.add()
      expiring = compiled
    },
  }
}
