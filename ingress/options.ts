import { socketsFlag } from '../lib/sockets/choose.ts'
import { contains, ipBytes, network, type Network } from '../lib/ip.ts'
import { hostPort, UsageError, type Flags, type Values } from '../lib/options.ts'
import type { Address } from '../lib/sockets/seam.ts'
import { accessLogFormats } from './accesslog.ts'
import { keys } from './annotations/list.ts'
import { controllerName } from './compile.ts'

/** The flags of `switchyard ingress`. Names after the dash line are ingress-nginx's, with its meaning. */
export const flags = {
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
  'election-id': { type: 'string', hidden: true, help: 'taken and not needed: statuses are written when they differ' },
  'enable-ssl-passthrough': { type: 'boolean', hidden: true, help: 'not supported yet' },
  'tcp-services-configmap': { type: 'string', hidden: true, help: 'not supported yet' },
  'udp-services-configmap': { type: 'string', hidden: true, help: 'not supported yet' },
} as const satisfies Flags

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
  for (const flag of ['enable-ssl-passthrough', 'tcp-services-configmap', 'udp-services-configmap'] as const) {
    if (values[flag] !== undefined && values[flag] !== false) throw new UsageError(`flag --${flag} of ingress-nginx is known and not supported`)
  }
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

/** Keys of ingress-nginx's ConfigMap that are no annotation's, and what becomes of them here. */
export const configKeys: Readonly<Record<string, string>> = {
  'use-forwarded-headers': 'believes X-Forwarded-* of the peers in proxy-real-ip-cidr',
  'proxy-real-ip-cidr': 'peers that are believed (default 0.0.0.0/0,::/0)',
  'allow-snippet-annotations': 'has no effect: snippets are refused',
  'annotations-risk-level': 'has no effect: no annotation can inject configuration',
  'allow-cross-namespace-resources': 'has no effect: other namespaces’ Secrets are never read',
  'strict-validate-path-type': 'has no effect: paths are always validated',
  'server-tokens': 'has no effect: the version is never told',
  'worker-processes': 'has no effect',
  'enable-underscores-in-headers': 'has no effect: names with underscores are dropped',
  'generate-request-id': 'has no effect: every request has an id',
  'keep-alive': 'has no effect: 75 s',
  'upstream-keepalive-connections': 'has no effect: 256 an endpoint',
  'upstream-keepalive-timeout': 'has no effect: 60 s, or what the endpoint says',
}

/** What a ConfigMap says: defaults for annotations, believed peers, and words about the rest. */
export function readConfig(data: Readonly<Record<string, string>>): { readonly defaults: ReadonlyMap<string, string>; readonly trusted: readonly string[]; readonly problems: readonly string[] } {
  const defaults = new Map<string, string>()
  const problems: string[] = []
  for (const [key, value] of Object.entries(data)) {
    const known = keys.get(key)
    if (known !== undefined && known.support !== 'refused') defaults.set(key, value)
    else if (Object.hasOwn(configKeys, key)) {
      if (configKeys[key]!.startsWith('has no effect')) problems.push(`key ${key} ${configKeys[key]}`)
    } else problems.push(`unknown key ${key}`)
  }
  const trusted = data['use-forwarded-headers'] === 'true' ? (data['proxy-real-ip-cidr'] ?? '0.0.0.0/0,::/0').split(',').map((s) => s.trim()) : []
  return { defaults, trusted, problems }
}
