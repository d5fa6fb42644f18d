import { createHash } from 'node:crypto'
import type { Answer, Asked, Exchange, Step, Tools } from '../http1/exchange.ts'
import type { Annotations, Feature } from './feature.ts'
import { fieldsOf } from './headers.ts'
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
  /** Answers of `url` are kept under this text, for so long by status. */
  readonly cacheKey: string | undefined
  readonly keeps: readonly { readonly statuses: readonly number[]; readonly ms: number }[]
  /** Fields that go with the question. */
  readonly asks: readonly (readonly [string, string])[]
  /** Names what is kept. */
  readonly of: string
}

/** Answers that are kept, the oldest first. */
const mostKept = 10_000

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
    'auth-always-set-cookie': { help: 'passes cookies of a permission on whatever the endpoint answers', default: 'false', support: 'differs', note: 'without it they are passed on as well' },
    'auth-cache-key': { help: 'answers of auth-url are kept by this text: $remote_user, $http_NAME, $cookie_NAME, $host, $request_uri, $remote_addr' },
    'auth-cache-duration': { help: 'how long: 200 202 401 5m', default: '200 202 401 5m' },
    'auth-keepalive': { help: 'connections kept to the service asked', support: 'ignored', note: 'chosen by itself' },
    'auth-proxy-set-headers': { help: 'ConfigMap (namespace/name) of fields for the question' },
    satisfy: { help: 'all or any of address, password and auth-url must hold', default: 'all' },
    'enable-global-auth': { help: 'asks the global-auth-url of the ConfigMap', default: 'true' },
  },
  read(a, _draft, context) {
    const type = a.text('auth-type')?.toLowerCase()
    let users: (readonly [string, string])[] | undefined
    if (type === 'basic') users = usersOf(a, context.secrets)
    else if (type !== undefined) a.refuse('auth-type', `${type} is not supported`)
    const global = !a.has('auth-url') && a.flag('enable-global-auth') !== false && a.has('global-auth-url')
    const pre = global ? 'global-' : ''
    const url = a.text(`${pre}auth-url`)
    if (url !== undefined && !/^https?:\/\/[^\s"\\]+$/.test(url)) a.refuse('auth-url', `"${url}" is no URL`)
    if (users === undefined && url === undefined) return undefined
    return {
      use: 'auth',
      users,
      realm: (a.text('auth-realm') ?? '').replace(/["\\]/g, ''),
      url,
      method: a.text(`${pre}auth-method`)?.toUpperCase(),
      signin: a.text(`${pre}auth-signin`),
      signinParameter: a.text('auth-signin-redirect-param') ?? 'rd',
      copy: (a.list(`${pre}auth-response-headers`) ?? []).filter((h) => {
        if (/^[\w-]+$/.test(h)) return true
        a.problem('auth-response-headers', `"${h}" is no field name`)
        return false
      }),
      any: a.oneOf('satisfy', ['all', 'any']) === 'any',
      cacheKey: a.text('auth-cache-key'),
      keeps: keepsOf(a),
      asks: fieldsOf(a, 'auth-proxy-set-headers', context),
      of: `${a.namespace}/${a.ingress.metadata.name}`,
    } satisfies Basic
  },
  step(policy: Basic, tools: Tools): Step {
    const users = policy.users === undefined ? undefined : new Map(policy.users)
    return {
      request(x) {
        if (x.path.startsWith(acme)) return undefined
        // Whoever copies these believes them: a client may not send its own.
        for (const name of policy.copy) x.dropRequest(name)
        if (x.satisfied) return undefined
        const denied = users === undefined ? undefined : basic(x, users, policy.realm, tools)
        const { url } = policy
        if (url === undefined) return denied
        if (!(denied instanceof Promise)) return both(denied, policy.any && users !== undefined, () => ask(x, policy, url, tools))
        // Fields can be read only now.
        const question = questionOf(x, policy, url)
        return denied.then((d) => both(d, policy.any, () => put(x, policy, question, tools)))
      },
    }
  },
}

/** One of the two is enough, or both must hold. */
function both(denied: Answer | undefined, any: boolean, other: () => Promise<Answer | undefined>): Answer | undefined | Promise<Answer | undefined> {
  if (any ? denied === undefined : denied !== undefined) return denied
  return other()
}

/** `200 202 401 5m, 403 1m` */
function keepsOf(a: Annotations): Basic['keeps'] {
  const out: { readonly statuses: readonly number[]; readonly ms: number }[] = []
  for (const part of a.list('auth-cache-duration') ?? ['200 202 401 5m']) {
    const words = part.split(/\s+/)
    const m = /^(\d+)(ms|s|m|h|d)?$/.exec(words.at(-1) ?? '')
    const statuses = words.slice(0, -1).map((w) => (w === 'any' ? 0 : Number(w)))
    if (m === null || statuses.length === 0 || statuses.some((n) => !Number.isInteger(n))) a.problem('auth-cache-duration', `"${part}" is no list of statuses and a time`)
    else out.push({ statuses, ms: Number(m[1]) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }[(m[2] ?? 's') as 's'] })
  }
  return out
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
  for (const [name, hash] of users)
    if (!knownHash(hash)) a.problem('auth-secret', `the hash of user ${name} is of a kind that is not supported; use htpasswd -B, -m, -2 or -5 ($2y$, $apr1$, $5$, $6$)`)
  return [...users]
}

function basic(x: Exchange, users: ReadonlyMap<string, string>, realm: string, tools: Tools): Answer | undefined | Promise<Answer | undefined> {
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
  const told = (right: boolean): Answer | undefined => {
    if (!right) return challenge
    if (known.size > 10_000) known.clear()
    known.add(key)
    return undefined
  }
  const right = verifyPassword(text.slice(colon + 1), hash)
  return right instanceof Promise ? right.then(told) : told(right)
}

/** The answer of `url`, kept or asked for. */
function ask(x: Exchange, policy: Basic, url: string, tools: Tools): Promise<Answer | undefined> {
  return put(x, policy, questionOf(x, policy, url), tools)
}

interface Question {
  readonly url: string
  readonly method: string
  readonly headers: readonly (readonly [string, string])[]
  readonly original: string
  readonly signin: string | undefined
  /** Under which the answer is kept. */
  readonly key: string | undefined
}

function questionOf(x: Exchange, policy: Basic, url: string): Question {
  const original = `${x.secure ? 'https' : 'http'}://${x.authority}${x.path}${x.query}`
  const user = (): string => {
    const given = /^basic +([A-Za-z0-9+/=]+)$/i.exec(x.header('authorization') ?? '')?.[1]
    return given === undefined ? '' : Buffer.from(given, 'base64').toString().split(':')[0]!
  }
  const variables = (s: string): string =>
    s.replace(/\$\{?([a-z_0-9]+)\}?/g, (whole, name: string) => {
      switch (name) {
        case 'scheme':
          return x.secure ? 'https' : 'http'
        case 'remote_addr':
          return x.client
        case 'request_uri':
          return x.path + x.query
        case 'uri':
          return x.path
        case 'escaped_request_uri':
          return encodeURIComponent(x.path + x.query)
        case 'host':
          return x.host
        case 'http_host':
        case 'best_http_host':
          return x.authority
        case 'request_method':
          return x.method
        case 'remote_user':
          return user()
        default:
          if (name.startsWith('http_')) return x.header(name.slice(5).replaceAll('_', '-')) ?? ''
          if (name.startsWith('cookie_')) return x.cookie(name.slice(7)) ?? ''
          return whole
      }
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
    ...policy.asks.map(([name, value]) => [name, variables(value)] as const),
  ]
  for (const name of ['authorization', 'cookie', 'accept', 'user-agent', 'accept-language', 'x-requested-with']) for (const value of x.headers(name)) headers.push([name, value])
  return {
    url: variables(url),
    method: policy.method ?? 'GET',
    headers,
    original,
    signin: policy.signin === undefined ? undefined : variables(policy.signin),
    key: policy.cacheKey === undefined ? undefined : `${policy.of} ${url} ${variables(policy.cacheKey)}`,
  }
}

async function put(x: Exchange, policy: Basic, question: Question, tools: Tools): Promise<Answer | undefined> {
  const kept = tools.shared('auth answers', () => new Map<string, { readonly answer: Asked; readonly until: number }>())
  const { key } = question
  const before = key === undefined ? undefined : kept.get(key)
  let answer: Asked
  if (before !== undefined && before.until > tools.now()) ({ answer } = before)
  else {
    try {
      answer = await tools.ask({ url: question.url, method: question.method, headers: question.headers, timeout: 10_000 })
    } catch (error) {
      // Whoever cannot be asked has not allowed it.
      return { status: 500, reason: `auth-url cannot be asked: ${error instanceof Error ? error.message : String(error)}` }
    }
    const keep = key === undefined ? undefined : policy.keeps.find((k) => k.statuses.includes(answer.status) || k.statuses.includes(0))
    if (key !== undefined) {
      kept.delete(key)
      if (kept.size >= mostKept) kept.delete(kept.keys().next().value!)
      if (keep !== undefined) kept.set(key, { answer, until: tools.now() + keep.ms })
    }
  }
  const get = (name: string): readonly string[] => answer.headers.filter(([n]) => n.toLowerCase() === name).map(([, v]) => v)
  const cookies = get('set-cookie').map((v) => ['Set-Cookie', v] as const)
  if (answer.status >= 200 && answer.status < 300) {
    for (const name of policy.copy) for (const value of get(name.toLowerCase())) x.addRequest(name, value)
    for (const [name, value] of cookies) x.addResponse(name, value)
    return undefined
  }
  if (answer.status !== 401 && answer.status !== 403) return { status: 500, reason: `auth-url answered ${answer.status}` }
  const passed: (readonly [string, string])[] = [...get('www-authenticate').map((v) => ['WWW-Authenticate', v] as const), ...cookies]
  if (answer.status === 401 && question.signin !== undefined) {
    const to = question.signin
    const location = to.includes(`${policy.signinParameter}=`) ? to : `${to}${to.includes('?') ? '&' : '?'}${policy.signinParameter}=${encodeURIComponent(question.original)}`
    return { status: 302, headers: [['Location', location], ...passed], reason: 'auth-signin' }
  }
  return { status: answer.status, headers: passed, reason: 'auth-url refused' }
}
