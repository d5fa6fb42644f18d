import { chmodSync, mkdirSync, readFileSync, existsSync, writeFileSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { dirname, join } from 'node:path'
import { command as build, hostPort, UsageError, type Command } from '../lib/options.ts'
import { Closers, aborted } from '../lib/lifecycle.ts'
import { createLog } from '../lib/log.ts'
import { Metrics } from '../lib/metrics.ts'
import type { ApiServer } from './api/server.ts'
import { bracketed, network, nth, type Network } from '../lib/ip.ts'
import { portRange } from './allocate/services.ts'
import { authority, type Authority, type Pair } from './identity/ca.ts'
import { identity } from './identity/fixed.ts'
import { kubeconfigText } from './identity/kubeconfig.ts'
import { flags, type Options } from './options.ts'

export { join, token } from './join/main.ts'

/** `switchyard controlplane`: the API server and the controllers. */
export const command: Command = build({
  name: 'controlplane',
  summary: 'Runs the Kubernetes API server and the controllers of the service network.',
  flags,
  run: async ({ values }, context) => run(values, context.signal),
})

/** `switchyard kubeconfig IDENTITY`: prints the kubeconfig of a part. */
export const kubeconfig: Command = build({
  name: 'kubeconfig',
  summary: 'Prints the kubeconfig of an identity, signed by the authority in --data.',
  usage: 'IDENTITY…',
  details: 'IDENTITY is admin, system:kube-proxy, system:dns, system:ingress or system:node:NAME.',
  flags: {
    data: { type: 'string', value: 'DIR', required: true, help: "the control plane's --data" },
    server: { type: 'string', value: 'URL', help: 'where the API is (default: where the control plane of --data listened last)' },
    days: { type: 'number', default: 365, help: 'how long the certificate is good for' },
    folder: { type: 'string', value: 'DIR', help: 'write a file for each identity here, its colons as dashes and .yaml behind, instead of printing one' },
  },
  run: async ({ values, positionals }, context) => {
    if (positionals.length === 0 || (positionals.length > 1 && values.folder === undefined)) throw new UsageError(`expected one IDENTITY${positionals.length > 1 ? '; several need --folder' : ''}`)
    const users = positionals.map((name) => {
      const user = identity(name)
      if (user === undefined) throw new UsageError(`no identity ${name}; expected admin, system:kube-proxy, system:dns, system:ingress or system:node:NAME`)
      return { name, user }
    })
    const ca = await authority(values.data)
    const server = values.server ?? lastAddress(values.data)
    if (values.folder !== undefined) mkdirSync(values.folder, { recursive: true, mode: 0o700 })
    for (const { name, user } of users) {
      const text = kubeconfigText(server, ca.certificate, user.name, await ca.client(user.name, user.groups, values.days))
      if (values.folder === undefined) context.out(text)
      else writeFileSync(join(values.folder, `${name.replaceAll(':', '-')}.yaml`), text, { mode: 0o600 })
    }
  },
})

async function run(options: Options, signal: AbortSignal): Promise<void> {
  const log = createLog()
  const closers = new Closers()
  const started = performance.now()
  const listen = hostPort(options.listen, 'listen')
  const cidrs = options['service-cidr'].map((text) => networkOf(text, 'service-cidr'))
  const ports = portRange(options['service-node-port-range'])
  if (ports === undefined) throw new UsageError(`flag --service-node-port-range: expected FROM-TO, got "${options['service-node-port-range']}"`)
  for (const c of options['cluster-cidr']) networkOf(c, 'cluster-cidr')
  const insecure = options['insecure-listen'] === undefined ? undefined : hostPort(options['insecure-listen'], 'insecure-listen')
  if (insecure !== undefined && !options['insecure-anywhere'] && !/^(127\.|::1$|localhost$)/.test(insecure.host))
    throw new UsageError(`flag --insecure-listen: ${insecure.host} is not loopback; who reaches it is an administrator without a password`)
  const advertise = options['advertise-address'] ?? (/^(|0\.0\.0\.0|::|127\..*|::1|localhost)$/.test(listen.host) ? firstAddress() : listen.host)
  mkdirSync(options.data, { recursive: true, mode: 0o700 })
  const ca = await authority(options.data)
  const names = [
    ...new Set([
      'localhost',
      'kubernetes',
      'kubernetes.default',
      'kubernetes.default.svc',
      'kubernetes.default.svc.cluster.local',
      '127.0.0.1',
      '::1',
      advertise,
      ...cidrs.map((c) => nth(c, 1)!),
      ...(listen.host === '' || listen.host === '0.0.0.0' || listen.host === '::' ? [] : [listen.host]),
      ...options['cert-name'],
    ]),
  ]
  const serving = await servingPair(ca, options.data, names)
  const metrics = new Metrics()
  const ended = new AbortController()
  const stop = (): void => ended.abort()
  signal.addEventListener('abort', stop, { once: true })
  // Loaded here, so that `switchyard kubeconfig` need not carry the whole control plane.
  const { assemble } = await import('./assemble.ts')
  const plane = await assemble({ options, ca, cidrs, ports, advertise, listenPort: listen.port, log, metrics, signal: ended.signal, broken: stop })
  closers.add('store', () => plane.close())
  const tls = { cert: serving.certificate, key: serving.key, ca: ca.certificate }
  const main = plane.api.server(tls)
  const port = await bind(main, { host: listen.host, port: listen.port }, '--listen')
  if (options['listen-fd'] !== undefined) await bind(plane.api.server(tls), { fd: options['listen-fd'] }, '--listen-fd')
  if (insecure !== undefined) await bind(plane.api.server(undefined), insecure, '--insecure-listen')
  closers.add('listeners', () => plane.api.close())
  const host = listen.host === '' || listen.host === '0.0.0.0' || listen.host === '::' ? '127.0.0.1' : listen.host
  plane.address(`${bracketed(advertise)}:${port}`)
  const own = kubeconfigText(`https://${bracketed(host)}:${port}`, ca.certificate, 'admin', await adminPair(ca))
  if (options['write-kubeconfig'] !== undefined) {
    mkdirSync(dirname(options['write-kubeconfig']), { recursive: true })
    writeFileSync(options['write-kubeconfig'], own, { mode: 0o600 })
    chmodSync(options['write-kubeconfig'], 0o600)
  }
  const forControllers = join(options.data, 'controllers.kubeconfig')
  writeFileSync(forControllers, own, { mode: 0o600 })
  chmodSync(forControllers, 0o600)
  // Who listens on loopback alone is reached there alone.
  writeFileSync(join(options.data, 'address'), `https://${bracketed(/^(127\.|::1$|localhost$)/.test(listen.host) ? listen.host : advertise)}:${port}\n`)
  if (options.controllers) plane.controllers(forControllers, port)
  log.info('ready', {
    listen: `${bracketed(host)}:${port}`,
    ...(insecure === undefined ? {} : { insecure: options['insecure-listen'] }),
    ...(options['write-kubeconfig'] === undefined ? {} : { kubeconfig: options['write-kubeconfig'] }),
    ms: Math.round(performance.now() - started),
  })
  await aborted(ended.signal)
  await closers.close(log)
  if (!signal.aborted) throw new Error('the store could not write; nothing more is acknowledged (see the log above)')
}

/** Where the API of this folder was last; where it is by default if it never ran. */
function lastAddress(data: string): string {
  const file = join(data, 'address')
  return existsSync(file) ? readFileSync(file, 'utf8').trim() : 'https://127.0.0.1:6443'
}

const adminPair = (ca: Authority): Promise<Pair> => ca.client('admin', ['system:masters'])

function networkOf(text: string, flag: string): Network {
  const n = network(text)
  if (n === undefined) throw new UsageError(`flag --${flag}: expected a network such as 10.96.0.0/16, got "${text}"`)
  return n
}

async function servingPair(ca: Authority, dir: string, names: readonly string[]): Promise<Pair> {
  const files = { certificate: join(dir, 'serving.crt'), key: join(dir, 'serving.key') }
  const { stillGood } = await import('./identity/ca.ts')
  if (existsSync(files.certificate) && existsSync(files.key)) {
    const pair = { certificate: readFileSync(files.certificate, 'utf8'), key: readFileSync(files.key, 'utf8') }
    if (stillGood(pair.certificate, names, 30)) return pair
  }
  const pair = await ca.serving(names)
  writeFileSync(files.key, pair.key, { mode: 0o600 })
  writeFileSync(files.certificate, pair.certificate, { mode: 0o600 })
  return pair
}

function bind(server: ReturnType<ApiServer['server']>, at: { readonly host: string; readonly port: number } | { readonly fd: number }, flag: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const where = 'fd' in at ? `descriptor ${at.fd}` : `${bracketed(at.host)}:${at.port}`
      const why = error.code === 'EADDRINUSE' ? 'the port is in use' : error.code === 'EADDRNOTAVAIL' ? 'the address is not on this machine' : error.message
      reject(new Error(`cannot listen on ${where} for the API: ${why}; choose another with ${flag}`, { cause: error }))
    })
    const listening = (): void => {
      const a = server.address()
      resolve(typeof a === 'object' && a !== null ? a.port : 0)
    }
    if ('fd' in at) server.listen({ fd: at.fd }, listening)
    else server.listen(at.port, at.host === '' ? undefined : at.host, listening)
  })
}

function firstAddress(): string {
  for (const list of Object.values(networkInterfaces())) for (const a of list ?? []) if (!a.internal && a.family === 'IPv4') return a.address
  return '127.0.0.1'
}
