import { createHash } from 'node:crypto'
import type { Answer, Exchange, Step, Tools } from '../http1/exchange.ts'
import type { Annotations, Feature } from './feature.ts'
import { knownHash, parseHtpasswd, verifyPassword } from './htpasswd.ts'
import { acme } from './redirect.ts'

interface Basic {
  readonly use: 'auth'
  /** Name → hash. */
  readonly users: readonly (readonly [string, string])[] | undefined
  readonly realm: string
  readonly url: string | undefined
  readonly method: string | undefined
  readonly signin: string | undefined
  readonly signinParameter: string
  /** Fields of the answer of `url` that go to the endpoint. */
  readonly copy: readonly string[]
  /** Either of the two suffices. */
  readonly any: boolean
}

/** Passwords, and another service that is asked whether a request may pass. */
export const auth: Feature = {
  name: 'auth',
  keys: {
    'auth-type': { help: 'basic', support: 'differs', note: 'digest is refused' },
    'auth-secret': { help: 'Secret with users and their hashes' },
    'auth-secret-type': { help: 'auth-file (key auth holds an htpasswd file) or auth-map (a key for each user)', default: 'auth-file' },
    'auth-realm': { help: 'realm shown by browsers' },
    'auth-url': { help: 'URL that is asked before each request: 2xx lets it pass, 401 and 403 are told to the client' },
    'auth-method': { help: 'method of that question', default: 'GET' },
    'auth-signin': { help: 'where a 401 is redirected to; $host, $request_uri, $escaped_request_uri, $scheme' },
    'auth-signin-redirect-param': { help: 'parameter that carries the URL asked for', default: 'rd' },
    'auth-response-headers': { help: 'fields of its answer that are passed to the endpoint' },
    'auth-request-redirect': { help: 'X-Auth-Request-Redirect of the question' },
    'auth-always-set-cookie': { help: 'passes cookies of the answer on', default: 'false', support: 'ignored', note: 'cookies of a refusal are passed on, those of a permission are not' },
    'auth-cache-key': { help: 'answers are kept by this key', support: 'ignored', note: 'every request is asked for' },
    'auth-cache-duration': { help: 'how long answers are kept', support: 'ignored', note: 'every request is asked for' },
    'auth-keepalive': { help: 'connections kept to the service asked', support: 'ignored', note: 'chosen by itself' },
    'auth-proxy-set-headers': { help: 'ConfigMap of fields for the question', support: 'refused', note: 'not supported' },
    satisfy: { help: 'all or any of address and password must hold', default: 'all', support: 'differs', note: 'any holds between password and auth-url only' },
    'enable-global-auth': { help: 'asks the global auth-url', default: 'true', support: 'ignored', note: 'there is no global auth-url' },
  },
  read(a, _draft, context) {
    const type = a.text('auth-type')?.toLowerCase()
    let users: (readonly [string, string])[] | undefined
    if (type === 'basic') users = usersOf(a, context.secrets)
    else if (type !== undefined) a.refuse('auth-type', `${type} is not supported`)
    const url = a.text('auth-url')
    if (url !== undefined && !/^https?:\/\/[^\s"\\]+$/.test(url)) a.refuse('auth-url', `"${url}" is no URL`)
    if (users === undefined && url === undefined) return undefined
    return {
      use: 'auth',
      users,
      realm: (a.text('auth-realm') ?? '').replace(/["\\]/g, ''),
      url,
      method: a.text('auth-method')?.toUpperCase(),
      signin: a.text('auth-signin'),
      signinParameter: a.text('auth-signin-redirect-param') ?? 'rd',
      copy: (a.list('auth-response-headers') ?? []).filter((h) => {
        if (/^[\w-]+$/.test(h)) return true
        a.problem('auth-response-headers', `"${h}" is no field name`)
        return false
      }),
      any: a.oneOf('satisfy', ['all', 'any']) === 'any',
    } satisfies Basic
  },
  step(policy: Basic, tools: Tools): Step {
    const users = policy.users === undefined ? undefined : new Map(policy.users)
    return {
      request(x) {
        if (x.path.startsWith(acme)) return undefined
        // Whoever copies these believes them: a client may not send its own.
        for (const name of policy.copy) x.dropRequest(name)
        const denied = users === undefined ? undefined : basic(x, users, policy.realm, tools)
        if (policy.url === undefined) return denied
        if (users !== undefined && policy.any && denied === undefined) return undefined
        if (denied !== undefined && !policy.any) return denied
        return ask(x, policy, policy.url, tools)
      },
    }
  },
}

function usersOf(a: Annotations, secrets: ReadonlyMap<string, { readonly data?: Readonly<Record<string, string>> }>): (readonly [string, string])[] {
  const reference = a.text('auth-secret')
  if (reference === undefined) {
    a.refuse('auth-secret', 'auth-type needs it')
    return []
  }
  const full = reference.includes('/') ? reference : `${a.namespace}/${reference}`
  if (!full.startsWith(`${a.namespace}/`)) {
    a.refuse('auth-secret', `Secret ${full} is in another namespace`)
    return []
  }
  const secret = secrets.get(full)
  if (secret === undefined) {
    a.refuse('auth-secret', `Secret ${full} does not exist`)
    return []
  }
  const read = (v: string): string => Buffer.from(v, 'base64').toString()
  const map = a.oneOf('auth-secret-type', ['auth-file', 'auth-map']) === 'auth-map'
  if (!map && secret.data?.auth === undefined) {
    a.refuse('auth-secret', `Secret ${full} lacks the key auth`)
    return []
  }
  const users = map ? new Map(Object.entries(secret.data ?? {}).map(([k, v]) => [k, read(v).trim()])) : parseHtpasswd(read(secret.data!.auth!))
  for (const [name, hash] of users) if (!knownHash(hash)) a.problem('auth-secret', `the hash of user ${name} is of a kind that is not supported; use htpasswd -m, -2 or -5 ($apr1$, $5$, $6$)`)
  return [...users]
}

function basic(x: Exchange, users: ReadonlyMap<string, string>, realm: string, tools: Tools): Answer | undefined {
  const challenge: Answer = { status: 401, headers: [['WWW-Authenticate', `Basic realm="${realm}"`]], reason: 'password needed' }
  const given = /^basic +([A-Za-z0-9+/=]+)$/i.exec(x.header('authorization') ?? '')
  if (given === null) return challenge
  const text = Buffer.from(given[1]!, 'base64').toString()
  const colon = text.indexOf(':')
  const hash = users.get(text.slice(0, colon))
  if (colon < 0 || hash === undefined) return challenge
  // Hashes are slow on purpose; what was verified once is known by a fast one.
  const known = tools.shared('passwords', () => new Set<string>())
  const key = createHash('sha256').update(`${hash}\n${text}`).digest('base64')
  if (known.has(key)) return undefined
  if (!verifyPassword(text.slice(colon + 1), hash)) return challenge
  if (known.size > 10_000) known.clear()
  known.add(key)
  return undefined
}

async function ask(x: Exchange, policy: Basic, url: string, tools: Tools): Promise<Answer | undefined> {
  const original = `${x.secure ? 'https' : 'http'}://${x.authority}${x.path}${x.query}`
  const variables = (s: string): string =>
    s.replace(/\$\{?(host|request_uri|escaped_request_uri|scheme|http_host|best_http_host|remote_addr)\}?/g, (_, name: string) => {
      if (name === 'scheme') return x.secure ? 'https' : 'http'
      if (name === 'remote_addr') return x.client
      if (name === 'request_uri') return x.path + x.query
      return name === 'escaped_request_uri' ? encodeURIComponent(x.path + x.query) : name === 'host' ? x.host : x.authority
    })
  const headers: (readonly [string, string])[] = [
    ['X-Original-URL', original],
    ['X-Original-Method', x.method],
    ['X-Auth-Request-Redirect', x.path + x.query],
    ['X-Real-IP', x.client],
    ['X-Forwarded-For', x.client],
    ['X-Forwarded-Proto', x.secure ? 'https' : 'http'],
    ['X-Forwarded-Host', x.authority],
    ['X-Forwarded-Uri', x.path + x.query],
    ['X-Sent-From', 'switchyard-ingress'],
  ]
  for (const name of ['authorization', 'cookie', 'accept', 'user-agent', 'accept-language', 'x-requested-with']) for (const value of x.headers(name)) headers.push([name, value])
  let answer
  try {
    answer = await tools.ask({ url: variables(url), method: policy.method ?? 'GET', headers, timeout: 10_000 })
  } catch (error) {
    // Whoever cannot be asked has not allowed it.
    return { status: 500, reason: `auth-url cannot be asked: ${error instanceof Error ? error.message : String(error)}` }
  }
  const get = (name: string): readonly string[] => answer.headers.filter(([n]) => n.toLowerCase() === name).map(([, v]) => v)
  if (answer.status >= 200 && answer.status < 300) {
    for (const name of policy.copy) for (const value of get(name.toLowerCase())) x.addRequest(name, value)
    return undefined
  }
  if (answer.status !== 401 && answer.status !== 403) return { status: 500, reason: `auth-url answered ${answer.status}` }
  const passed: (readonly [string, string])[] = [...get('www-authenticate').map((v) => ['WWW-Authenticate', v] as const), ...get('set-cookie').map((v) => ['Set-Cookie', v] as const)]
  if (answer.status === 401 && policy.signin !== undefined) {
    const to = variables(policy.signin)
    const location = to.includes(`${policy.signinParameter}=`) ? to : `${to}${to.includes('?') ? '&' : '?'}${policy.signinParameter}=${encodeURIComponent(original)}`
    return { status: 302, headers: [['Location', location], ...passed], reason: 'auth-signin' }
  }
  return { status: answer.status, headers: passed, reason: 'auth-url refused' }
}
