import type { Step } from '../http1/exchange.ts'
import type { BalanceMethod, HashPart, UpstreamTls } from '../table.ts'
import type { Annotations, Feature } from './feature.ts'

interface Sends {
  readonly use: 'upstream'
  readonly host: string | undefined
  readonly prefix: string | undefined
}

/** What endpoints are told, by which protocol, and which of them is asked. */
export const upstream: Feature = {
  name: 'upstream',
  keys: {
    'upstream-vhost': { help: 'Host towards the endpoint' },
    'x-forwarded-prefix': { help: 'X-Forwarded-Prefix towards the endpoint' },
    'server-alias': { help: 'further hosts of the same rules, separated by commas' },
    'service-upstream': { help: 'sends to the Service’s own address instead of its endpoints', default: 'false' },
    'backend-protocol': { help: 'HTTP, HTTPS, GRPC, GRPCS, AUTO_HTTP; also H2C and H2 for HTTP/2 without gRPC', default: 'HTTP', support: 'differs', note: 'FCGI is refused; AUTO_HTTP is HTTP' },
    'proxy-ssl-verify': { help: 'verifies the endpoint’s certificate', default: 'on; off for classes taken over from ingress-nginx' },
    'proxy-ssl-secret': { help: 'namespace/name of a Secret: ca.crt to verify with, tls.crt and tls.key to show' },
    'proxy-ssl-name': { help: 'name that the endpoint’s certificate must carry' },
    'proxy-ssl-server-name': { help: 'sends that name (SNI)', default: 'off' },
    'proxy-ssl-verify-depth': { help: 'longest chain', default: '1', support: 'ignored', note: 'chains are verified whatever their length' },
    'proxy-ssl-ciphers': { help: 'ciphers towards endpoints', support: 'ignored', note: 'OpenSSL’s own choice' },
    'proxy-ssl-protocols': { help: 'versions towards endpoints', support: 'ignored', note: 'TLS 1.2 and 1.3' },
    'ssl-passthrough': { help: 'TLS of its hosts goes to the endpoint unopened, found by server name; needs --enable-ssl-passthrough', default: 'false' },
    'slow-start': { help: 'seconds until an endpoint that joined later gets its full share', default: '0' },
    'load-balance': { help: 'round_robin, least_conn or ewma', default: 'round_robin' },
    'upstream-hash-by': { help: 'the same endpoint for the same text: $request_uri, $remote_addr, $host, $http_NAME, $arg_NAME, $cookie_NAME, and words' },
    'upstream-hash-by-subset': { help: 'hashes to a group of endpoints', support: 'ignored', note: 'hashes to one endpoint' },
    'upstream-hash-by-subset-size': { help: 'size of such a group', support: 'ignored', note: 'hashes to one endpoint' },
  },
  read(a, draft, context) {
    const protocol = a.text('backend-protocol')?.toUpperCase()
    if (protocol !== undefined && !/^(HTTP|HTTPS|GRPC|GRPCS|AUTO_HTTP|H2C|H2)$/.test(protocol)) a.refuse('backend-protocol', `${protocol} is not supported`)
    const tls = protocol === 'HTTPS' || protocol === 'GRPCS' || protocol === 'H2' ? tlsOf(a, context.nginx, context.secrets) : undefined
    const http2 = protocol === 'GRPC' || protocol === 'GRPCS' || protocol === 'H2C' || protocol === 'H2'
    const balance = balanceOf(a)
    const slowStart = a.time('slow-start') ?? 0
    if (protocol !== undefined || balance !== undefined || slowStart > 0) {
      draft.sends = (to) => ({
        ...to,
        // The name outside is also the one that its certificate must carry.
        ...(tls === undefined ? {} : { tls: to.external === undefined || tls.serverName !== undefined ? tls : { ...tls, serverName: to.external, key: `${tls.key} external=${to.external}` } }),
        ...(protocol === undefined ? {} : { http2 }),
        ...(balance === undefined ? {} : { balance }),
        ...(slowStart > 0 ? { slowStart } : {}),
      })
    }
    draft.passthrough = a.flag('ssl-passthrough') ?? false
    draft.serviceUpstream = a.flag('service-upstream') ?? false
    const aliases = (a.list('server-alias') ?? [])
      .map((h) => h.toLowerCase())
      .filter((h) => {
        if (/^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(h)) return true
        a.problem('server-alias', `"${h}" is no host name`)
        return false
      })
    draft.aliases = [...draft.aliases, ...aliases]
    const host = a.text('upstream-vhost')
    const prefix = a.text('x-forwarded-prefix')
    if (host !== undefined && !/^[\w.\-:[\]]+$/.test(host)) {
      a.problem('upstream-vhost', `"${host}" is no host`)
      return undefined
    }
    return host === undefined && prefix === undefined ? undefined : ({ use: 'upstream', host, prefix } satisfies Sends)
  },
  step(policy: Sends): Step {
    return {
      request(x) {
        if (policy.host !== undefined) x.upstreamHost = policy.host
        if (policy.prefix !== undefined) x.addRequest('X-Forwarded-Prefix', policy.prefix)
        return undefined
      },
    }
  },
}

function tlsOf(a: Annotations, nginx: boolean, secrets: ReadonlyMap<string, { readonly data?: Readonly<Record<string, string>> }>): UpstreamTls {
  const verify = a.flag('proxy-ssl-verify') ?? !nginx
  const name = a.text('proxy-ssl-name')
  const reference = a.text('proxy-ssl-secret')
  let ca: string | undefined
  let identity: { cert: string; key: string } | undefined
  if (reference !== undefined) {
    const full = reference.includes('/') ? reference : `${a.namespace}/${reference}`
    const secret = secrets.get(full)
    if (!full.startsWith(`${a.namespace}/`)) a.refuse('proxy-ssl-secret', `Secret ${full} is in another namespace`)
    else if (secret === undefined) a.refuse('proxy-ssl-secret', `Secret ${full} does not exist`)
    else {
      const read = (k: string): string | undefined => (secret.data?.[k] === undefined ? undefined : Buffer.from(secret.data[k], 'base64').toString())
      ca = read('ca.crt')
      const [cert, key] = [read('tls.crt'), read('tls.key')]
      if (cert !== undefined && key !== undefined) identity = { cert, key }
    }
  }
  return {
    verify,
    ...(name === undefined ? {} : { serverName: name }),
    ...(ca === undefined ? {} : { ca }),
    ...(identity === undefined ? {} : { identity }),
    key: `tls verify=${verify} name=${name ?? ''} secret=${reference === undefined ? '' : `${a.namespace} ${reference}`} ca=${ca?.length ?? 0}`,
  }
}

function balanceOf(a: Annotations): BalanceMethod | undefined {
  const by = a.text('upstream-hash-by')
  if (by !== undefined) {
    const of: HashPart[] = []
    for (const m of by.matchAll(/\$\{?([a-z_0-9]+)\}?|([^$]+)/g)) {
      const name = m[1]
      if (name === undefined) of.push({ kind: 'text', text: m[2]! })
      else if (name === 'remote_addr' || name === 'binary_remote_addr' || name === 'the_real_ip') of.push({ kind: 'client' })
      else if (name === 'request_uri') of.push({ kind: 'uri' })
      else if (name === 'uri') of.push({ kind: 'path' })
      else if (name === 'host' || name === 'http_host') of.push({ kind: 'host' })
      else if (name.startsWith('http_')) of.push({ kind: 'header', name: name.slice(5).replaceAll('_', '-') })
      else if (name.startsWith('arg_')) of.push({ kind: 'argument', name: name.slice(4) })
      else if (name.startsWith('cookie_')) of.push({ kind: 'cookie', name: name.slice(7) })
      else a.problem('upstream-hash-by', `unknown variable $${name}`)
    }
    return of.length === 0 ? undefined : { kind: 'hash', of }
  }
  const word = a.text('load-balance')?.toLowerCase()
  if (word === undefined || word === 'round_robin') return undefined
  if (word === 'ewma') return { kind: 'ewma' }
  if (word === 'least_conn' || word === 'least_connections') return { kind: 'leastConnections' }
  a.problem('load-balance', `unknown method "${word}"`)
  return undefined
}
