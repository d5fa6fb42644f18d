import type { Exchange, Step } from '../http1/exchange.ts'
import type { Feature } from './feature.ts'

interface Cors {
  readonly use: 'cors'
  /** `*`, origins, and origins with one `*` label. */
  readonly origins: readonly string[]
  readonly methods: string
  readonly headers: string
  readonly expose: string | undefined
  readonly credentials: boolean
  readonly maxAge: number
}

const defaults = {
  methods: 'GET, PUT, POST, DELETE, PATCH, OPTIONS',
  headers: 'DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization',
}

/** Lets scripts of other origins ask. */
export const cors: Feature = {
  name: 'cors',
  keys: {
    'enable-cors': { help: 'answers preflight requests (204) and sends Access-Control-* fields', default: 'false' },
    'cors-allow-origin': { help: 'origins; https://*.example.com stands for one label', default: '*' },
    'cors-allow-methods': { help: 'methods', default: defaults.methods },
    'cors-allow-headers': { help: 'request fields', default: defaults.headers },
    'cors-expose-headers': { help: 'fields of the answer that scripts may read' },
    'cors-allow-credentials': { help: 'cookies and credentials', default: 'true' },
    'cors-max-age': { help: 'seconds a preflight answer holds', default: '1728000' },
  },
  read(a) {
    if (a.flag('enable-cors') !== true) return undefined
    const origins = (a.list('cors-allow-origin') ?? ['*']).filter((o) => {
      if (o === '*' || /^(https?|[a-z][a-z0-9+.-]*):\/\/(\*\.)?[A-Za-z0-9\-._~[\]:]+$/.test(o)) return true
      a.problem('cors-allow-origin', `"${o}" is no origin`)
      return false
    })
    const words = (key: string, fallback: string): string => {
      const value = a.text(key)
      if (value === undefined) return fallback
      if (/^[\w\-*,\s]+$/.test(value)) return value
      a.problem(key, `"${value}" is no list of names`)
      return fallback
    }
    const expose = words('cors-expose-headers', '')
    return {
      use: 'cors',
      origins,
      methods: words('cors-allow-methods', defaults.methods),
      headers: words('cors-allow-headers', defaults.headers),
      expose: expose === '' ? undefined : expose,
      credentials: a.flag('cors-allow-credentials') ?? true,
      maxAge: a.number('cors-max-age') ?? 1_728_000,
    } satisfies Cors
  },
  step(policy: Cors): Step {
    const any = policy.origins.includes('*')
    return {
      request(x: Exchange) {
        const origin = x.header('origin')
        const allowed = any ? '*' : origin !== undefined && policy.origins.some((o) => fits(o, origin)) ? origin : undefined
        if (!any) x.addResponse('Vary', 'Origin')
        // What the endpoint says of origins would be a second opinion.
        for (const name of [
          'access-control-allow-origin',
          'access-control-allow-credentials',
          'access-control-allow-methods',
          'access-control-allow-headers',
          'access-control-max-age',
          'access-control-expose-headers',
        ])
          x.dropResponse(name)
        if (allowed !== undefined) {
          x.addResponse('Access-Control-Allow-Origin', allowed)
          // A browser refuses `*` with credentials (Fetch, 3.3.5): then the word is left out, as it has no meaning.
          if (policy.credentials && (allowed !== '*' || x.method !== 'OPTIONS')) x.addResponse('Access-Control-Allow-Credentials', 'true')
          if (policy.expose !== undefined) x.addResponse('Access-Control-Expose-Headers', policy.expose)
        }
        if (x.method === 'OPTIONS' && (origin !== undefined || x.header('access-control-request-method') !== undefined)) {
          if (allowed !== undefined) {
            x.addResponse('Access-Control-Allow-Methods', policy.methods)
            x.addResponse('Access-Control-Allow-Headers', policy.headers)
            x.addResponse('Access-Control-Max-Age', String(policy.maxAge))
          }
          return { status: 204, reason: 'preflight' }
        }
        return undefined
      },
    }
  },
}

function fits(pattern: string, origin: string): boolean {
  const star = pattern.indexOf('*.')
  if (star < 0) return pattern.toLowerCase() === origin.toLowerCase()
  const head = pattern.slice(0, star).toLowerCase()
  const tail = pattern.slice(star + 1).toLowerCase()
  const o = origin.toLowerCase()
  if (!o.startsWith(head) || !o.endsWith(tail) || o.length <= head.length + tail.length) return false
  return /^[a-z0-9-]+$/.test(o.slice(head.length, o.length - tail.length))
}
