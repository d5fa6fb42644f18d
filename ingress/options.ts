import { availableParallelism } from 'node:os'
import { socketsFlag } from '../lib/sockets/choose.ts'
import { contains, ipBytes, network, type Network } from '../lib/ip.ts'
import { hostPort, UsageError, type Flags, type Values } from '../lib/options.ts'
import type { Address } from '../lib/sockets/seam.ts'
import { accessLogFormats } from './accesslog.ts'
import { controllerName } from './compile.ts'

/** Flags of ingress-nginx that manifests carry and that mean nothing here; said once at the start. */
export const idle: Readonly<Record<string, 'string' | 'boolean'>> = {
  'annotations-prefix': 'string',
  'default-server-port': 'string',
  'disable-svc-external-name': 'boolean',
  'election-id': 'string',
  'election-ttl': 'string',
  'enable-metrics': 'boolean',
  'healthz-port': 'string',
  'ingress-class-by-name': 'boolean',
  'metrics-per-host': 'boolean',
  'post-shutdown-grace-period': 'string',
  profiling: 'boolean',
  'ssl-passthrough-proxy-port': 'string',
  'status-port': 'string',
  'status-update-interval': 'string',
  'stream-port': 'string',
  'sync-period': 'string',
  'sync-rate-limit': 'string',
  v: 'string',
  'validating-webhook': 'string',
  'validating-webhook-certificate': 'string',
  'validating-webhook-key': 'string',
}

/** The flags of `switchyard ingress`. Names after the middle are ingress-nginx's, with its meaning. */
const named = {
  kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the API server; the Pod’s own account if left out' },
  http: { type: 'string', value: 'ADDR:PORT', default: ':80', help: 'where HTTP is served; empty: nowhere' },
  https: { type: 'string', value: 'ADDR:PORT', default: ':443', help: 'where HTTPS is served; empty: nowhere' },
  class: { type: 'list', value: 'NAME[=HTTP,HTTPS]', help: `serve only these IngressClasses, one with addresses of its own there; all with controller ${controllerName} if left out` },
  'publish-address': { type: 'list', value: 'A,B', help: 'what status.loadBalancer of Ingresses says; this machine’s own address if left out' },
  status: { type: 'list', value: 'ADDR:PORT', default: [':10254'], help: 'where /healthz, /readyz and /metrics are answered' },
  trusted: { type: 'list', value: 'CIDR', help: 'peers whose X-Forwarded-For and X-Forwarded-Proto are believed' },
  'access-log': { type: 'string', oneOf: accessLogFormats, default: 'json', help: 'form of the access log' },
  'access-log-path': { type: 'string', value: 'FILE', default: '-', help: 'where the access log goes; - is standard output' },
  sockets: socketsFlag,
  workers: { type: 'string', value: 'N|auto', default: '0', help: 'threads that carry requests; auto: one a core; 0: the main thread does' },
  'otlp-endpoint': { type: 'string', value: 'URL', help: 'collector that spans of requests are sent to by OTLP over HTTP (JSON), such as http://otel:4318; none if left out' },
  'otlp-share': { type: 'number', value: 'SHARE', default: 1, help: 'share of the requests without a trace of their own that begin one, 0 to 1' },
  'proxy-protocol': { type: 'boolean', help: 'clients’ connections begin with a header of the PROXY protocol (version 1 or 2), as a load balancer in front writes it' },
  'allow-external-names': { type: 'boolean', help: 'follows Services of type ExternalName to the names they lead to' },
  'listen-http-fd': { type: 'number', value: 'N', help: 'descriptor of a listening socket to serve HTTP on, instead of --http' },
  'listen-https-fd': { type: 'number', value: 'N', help: 'descriptor of a listening socket to serve HTTPS on, instead of --https' },
  'shutdown-grace-period': { type: 'duration', default: '30s', help: 'how long requests under way may take after SIGTERM' },
  // ingress-nginx
  'ingress-class': { type: 'string', value: 'NAME', help: 'as --class' },
  'controller-class': { type: 'string', value: 'NAME', default: controllerName, help: 'IngressClasses whose spec.controller is this are ours' },
  'watch-namespace': { type: 'string', value: 'NAMESPACE', help: 'only Ingresses, Services and Secrets of this namespace' },
  configmap: { type: 'string', value: 'NAMESPACE/NAME', help: 'ConfigMap whose keys are defaults for annotations' },
  'default-backend-service': { type: 'string', value: 'NAMESPACE/NAME', help: 'serves what no rule fits' },
  'default-ssl-certificate': { type: 'string', value: 'NAMESPACE/NAME', help: 'Secret shown to clients that ask for no host of ours' },
  'publish-service': { type: 'string', value: 'NAMESPACE/NAME', help: 'Service whose addresses status.loadBalancer of Ingresses says' },
  'publish-status-address': { type: 'list', value: 'A,B', help: 'as --publish-address' },
  'http-port': { type: 'number', help: 'as --http :N' },
  'https-port': { type: 'number', help: 'as --https :N' },
  'enable-ssl-passthrough': { type: 'boolean', help: 'lets Ingresses with the annotation ssl-passthrough have the TLS of their hosts unopened' },
  'tcp-services-configmap': { type: 'string', value: 'NAMESPACE/NAME', help: 'ConfigMap of TCP ports that are passed to Services: "9000": namespace/service:port' },
  'udp-services-configmap': { type: 'string', value: 'NAMESPACE/NAME', help: 'the same for UDP' },
  'update-status': { type: 'boolean', default: true, help: 'writes status.loadBalancer of Ingresses' },
  'watch-ingress-without-class': { type: 'boolean', help: 'also serves Ingresses that name no class' },
  'disable-catch-all': { type: 'boolean', help: 'serves no Ingress without rules' },
} as const satisfies Flags

export const flags: typeof named = { ...named, ...Object.fromEntries(Object.entries(idle).map(([name, type]) => [name, { type, hidden: true, help: 'taken and without effect' }])) }

export type IngressValues = Values<typeof flags>

/** Classes that are served at the same addresses, together. */
export interface Group {
  readonly classes: readonly string[]
  readonly otherClasses: readonly string[]
  readonly http: Address | { readonly fd: number } | undefined
  readonly https: Address | { readonly fd: number } | undefined
  /** What to say when an address cannot be had. */
  readonly httpFlag: string
  readonly httpsFlag: string
}

/** The groups that the flags ask for: those without addresses of their own, and each that has some. */
export function groupsOf(values: IngressValues): Group[] {
  // `admin=A:80,A:443` comes as two words of the list.
  const words: string[] = []
  for (const word of [...values.class, ...(values['ingress-class'] === undefined ? [] : [values['ingress-class']])]) {
    if (word.includes(':') && !word.includes('=') && words.at(-1)?.includes('=') === true) words.push(`${words.pop()},${word}`)
    else words.push(word)
  }
  const own = words.filter((w) => w.includes('='))
  const shared = words.filter((w) => !w.includes('='))
  const names = own.map((w) => w.slice(0, w.indexOf('=')))
  const at = (text: string, flag: string): Address | undefined => (text === '' ? undefined : hostPort(text, flag))
  const groups: Group[] = []
  if (own.length === 0 || shared.length > 0 || words.length === 0) {
    const port = (n: number | undefined, text: string): string => (n === undefined ? text : `:${n}`)
    groups.push({
      classes: shared,
      otherClasses: names,
      http: values['listen-http-fd'] === undefined ? at(port(values['http-port'], values.http), 'http') : { fd: values['listen-http-fd'] },
      https: values['listen-https-fd'] === undefined ? at(port(values['https-port'], values.https), 'https') : { fd: values['listen-https-fd'] },
      httpFlag: '--http',
      httpsFlag: '--https',
    })
  }
  for (const word of own) {
    const eq = word.indexOf('=')
    const [http = '', https = ''] = word.slice(eq + 1).split(',')
    groups.push({ classes: [word.slice(0, eq)], otherClasses: [], http: at(http, 'class'), https: at(https, 'class'), httpFlag: '--class', httpsFlag: '--class' })
  }
  if (groups.every((g) => g.http === undefined && g.https === undefined)) throw new UsageError('neither --http nor --https names an address')
  return groups
}

/** How many threads carry requests besides the main one. */
export function workersOf(text: string): number {
  if (text === 'auto') return availableParallelism()
  const n = Number(text)
  if (!/^\d+$/.test(text) || n > 64) throw new UsageError(`flag --workers: expected a number up to 64, or auto, got "${text}"`)
  return n
}

/** Whether a peer is one of these networks. */
export function trustsOf(networks: readonly string[]): ((peer: string) => boolean) | undefined {
  if (networks.length === 0) return undefined
  const list: Network[] = networks.map((text) => {
    const n = network(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`)
    if (n === undefined) throw new UsageError(`flag --trusted: "${text}" is no network`)
    return n
  })
  return (peer) => {
    const bytes = ipBytes(peer, { lenient: true })
    return bytes !== undefined && list.some((n) => contains(n, bytes))
  }
}
