import { network } from '../lib/ip.ts'
import { keys } from './annotations/list.ts'
import type { Tuning } from './plane.ts'

/** What a key of ingress-nginx's ConfigMap does here, where it is no annotation's name. */
interface ConfigKey {
  readonly help: string
  /** Named in the log when it is set: nothing comes of it. */
  readonly idle?: true
}

const idle = (help: string): ConfigKey => ({ help, idle: true })

/** Keys of ingress-nginx's ConfigMap that are no annotation's, and what becomes of them here. */
export const configKeys: Readonly<Record<string, ConfigKey>> = {
  'use-forwarded-headers': { help: 'believes X-Forwarded-* of the peers in proxy-real-ip-cidr' },
  'enable-real-ip': { help: 'as use-forwarded-headers' },
  'proxy-real-ip-cidr': { help: 'peers that are believed (default 0.0.0.0/0,::/0)' },
  'use-proxy-protocol': { help: 'as --proxy-protocol; read at the start' },
  'enable-ssl-passthrough': { help: 'as --enable-ssl-passthrough; read at the start' },
  'keep-alive': { help: 'seconds an idle client connection is kept (75)' },
  'client-header-timeout': { help: 'seconds for the head of a request (60)' },
  'client-body-timeout': { help: 'seconds between two pieces of a request body (60)' },
  'upstream-keepalive-connections': { help: 'idle connections kept to one endpoint (256); read at the start' },
  'upstream-keepalive-timeout': { help: 'seconds they are kept (60); read at the start' },
  'disable-access-log': { help: 'writes no access log' },
  'use-http2': { help: 'offers HTTP/2 to clients (true)' },
  'block-cidrs': { help: 'as the annotation denylist-source-range, for all Ingresses without their own' },
  'http-redirect-code': { help: 'status of ssl-redirect and force-ssl-redirect (308)' },
  'limit-req-status-code': { help: 'status above limit-rps and limit-rpm (503)' },
  'limit-conn-status-code': { help: 'status above limit-connections (503)' },
  'proxy-set-headers': { help: 'ConfigMap (namespace/name) of fields towards endpoints' },
  'add-headers': { help: 'ConfigMap (namespace/name) of fields of answers' },
  'proxy-add-original-uri-header': { help: 'X-Original-URI towards endpoints (false)' },
  'global-auth-url': { help: 'as auth-url, for Ingresses without one and without enable-global-auth: "false"' },
  'global-auth-method': { help: 'as auth-method' },
  'global-auth-signin': { help: 'as auth-signin' },
  'global-auth-response-headers': { help: 'as auth-response-headers' },
  'hide-headers': { help: 'fields of answers that are not passed on, separated by commas' },
  'allow-snippet-annotations': idle('snippets are refused'),
  'annotations-risk-level': idle('no annotation can inject configuration'),
  'allow-cross-namespace-resources': idle('other namespaces’ Secrets are never read'),
  'strict-validate-path-type': idle('paths are always validated'),
  'server-tokens': idle('the version is never told'),
  'worker-processes': idle('use --workers'),
  'enable-underscores-in-headers': idle('names with underscores are dropped'),
  'ignore-invalid-headers': idle('invalid fields are refused'),
  'generate-request-id': idle('every request has an id'),
  'keep-alive-requests': idle('a connection carries any number'),
  'upstream-keepalive-requests': idle('a connection carries any number'),
  'ssl-protocols': idle('TLS 1.2 and 1.3'),
  'ssl-ciphers': idle('OpenSSL’s own choice'),
  'ssl-session-tickets': idle('tickets are always given'),
  'ssl-session-cache': idle('tickets are used instead'),
  'log-format-upstream': idle('use --access-log'),
  'log-format-escape-json': idle('use --access-log'),
  'access-log-path': idle('use --access-log-path'),
  'error-log-level': idle('the log has one level'),
  'use-gzip': idle('answers are not compressed'),
  'enable-brotli': idle('answers are not compressed'),
  'server-snippet': idle('snippets are refused'),
  'http-snippet': idle('snippets are refused'),
  'location-snippet': idle('snippets are refused'),
  'main-snippet': idle('snippets are refused'),
  'map-hash-bucket-size': idle('tables have no fixed size'),
  'server-name-hash-max-size': idle('tables have no fixed size'),
  'server-name-hash-bucket-size': idle('tables have no fixed size'),
  'proxy-headers-hash-max-size': idle('tables have no fixed size'),
  'proxy-headers-hash-bucket-size': idle('tables have no fixed size'),
  'max-worker-connections': idle('as many as the descriptor limit allows'),
  'max-worker-open-files': idle('as many as the descriptor limit allows'),
  'worker-shutdown-timeout': idle('use --shutdown-grace-period'),
  'client-header-buffer-size': idle('heads may have 32 KiB'),
  'large-client-header-buffers': idle('heads may have 32 KiB'),
  'http2-max-field-size': idle('heads may have 32 KiB'),
  'http2-max-header-size': idle('heads may have 32 KiB'),
  'reuse-port': idle('connections are spread by load'),
  'compute-full-forwarded-for': idle('the chain of a believed peer is always kept'),
  'forwarded-for-header': idle('X-Forwarded-For is read'),
  'enable-opentelemetry': idle('trace context is passed on, no spans are made'),
  'enable-modsecurity': idle('there is no ModSecurity here'),
}

/** What a ConfigMap says. */
export interface Config {
  /** For annotations that an Ingress lacks. */
  readonly defaults: ReadonlyMap<string, string>
  readonly trusted: readonly string[]
  readonly tuning: Omit<Tuning, 'trusted'>
  readonly http2: boolean
  /** Words about the rest. */
  readonly problems: readonly string[]
}

/** Under which key of annotations a key of the ConfigMap gives a default. */
const renamed: Readonly<Record<string, string>> = { 'block-cidrs': 'denylist-source-range' }

/** Keys that only a ConfigMap has and that features read like an annotation. */
const globals = new Set([
  'http-redirect-code',
  'limit-req-status-code',
  'limit-conn-status-code',
  'proxy-set-headers',
  'add-headers',
  'proxy-add-original-uri-header',
  'global-auth-url',
  'global-auth-method',
  'global-auth-signin',
  'global-auth-response-headers',
  'hide-headers',
])

/** Reads a ConfigMap as ingress-nginx would; what has no effect is said. */
export function readConfig(data: Readonly<Record<string, string>>): Config {
  const defaults = new Map<string, string>()
  const problems: string[] = []
  const limits: Record<string, number> = {}
  const seconds = (key: string, limit: string): void => {
    const text = data[key]
    if (text === undefined) return
    const m = /^(\d+)(s|m|h)?$/.exec(text)
    if (m === null) problems.push(`key ${key}: expected seconds, got "${text}"`)
    else limits[limit] = Number(m[1]) * { s: 1000, m: 60_000, h: 3_600_000 }[(m[2] ?? 's') as 's']
  }
  seconds('keep-alive', 'idleTimeout')
  seconds('client-header-timeout', 'headTimeout')
  seconds('client-body-timeout', 'bodyTimeout')
  for (const [key, value] of Object.entries(data)) {
    const known = keys.get(key)
    const as = Object.hasOwn(renamed, key) ? renamed[key]! : key
    if ((known !== undefined && known.support !== 'refused') || as !== key || globals.has(key)) defaults.set(as, value)
    else if (known !== undefined) problems.push(`key ${key} has no effect: ${known.note}`)
    else if (!Object.hasOwn(configKeys, key)) problems.push(`unknown key ${key}`)
    else if (configKeys[key]!.idle === true) problems.push(`key ${key} has no effect: ${configKeys[key]!.help}`)
  }
  const believes = data['use-forwarded-headers'] === 'true' || data['enable-real-ip'] === 'true'
  const trusted = believes ? (data['proxy-real-ip-cidr'] ?? '0.0.0.0/0,::/0').split(',').map((t) => t.trim()) : []
  return {
    defaults,
    trusted: trusted.filter((t) => {
      if (network(t.includes('/') ? t : `${t}/${t.includes(':') ? 128 : 32}`) !== undefined) return true
      problems.push(`key proxy-real-ip-cidr: "${t}" is no network`)
      return false
    }),
    tuning: { limits, logs: data['disable-access-log'] !== 'true' },
    http2: data['use-http2'] !== 'false',
    problems,
  }
}
