import { createHash } from 'node:crypto'
import type { Endpoint } from '../table.ts'
import type { Step } from '../http1/exchange.ts'
import type { Feature } from './feature.ts'

interface Affinity {
  readonly use: 'affinity'
  readonly cookie: string
  /** What follows the value in Set-Cookie. */
  readonly attributes: string
  readonly sameSite: string | undefined
  readonly secure: boolean | undefined
  readonly changeOnFailure: boolean
  /** It does not bind to a canary. */
  readonly alone: boolean
}

/** A cookie that leads back to the endpoint that answered first. */
export const affinity: Feature = {
  name: 'affinity',
  keys: {
    affinity: { help: 'cookie: requests of one browser go to one endpoint' },
    'affinity-mode': { help: 'balanced or persistent', default: 'balanced', support: 'differs', note: 'an endpoint keeps its browsers as long as it is there, in both modes' },
    'affinity-canary-behavior': { help: 'sticky: who was led to a canary, or past it, stays there; legacy: the canary is decided by its own rules each time', default: 'sticky' },
    'session-cookie-name': { help: 'its name', default: 'INGRESSCOOKIE' },
    'session-cookie-path': { help: 'its Path', default: '/' },
    'session-cookie-domain': { help: 'its Domain' },
    'session-cookie-max-age': { help: 'its Max-Age in seconds' },
    'session-cookie-expires': { help: 'its Expires, seconds from now' },
    'session-cookie-secure': { help: 'its Secure; on HTTPS if left out' },
    'session-cookie-samesite': { help: 'its SameSite: None, Lax or Strict' },
    'session-cookie-conditional-samesite-none': { help: 'leaves SameSite=None out for browsers that misread it', default: 'false', support: 'ignored', note: 'those browsers are gone' },
    'session-cookie-change-on-failure': { help: 'leads elsewhere after a failure', default: 'false' },
  },
  read(a) {
    const kind = a.text('affinity')
    if (kind === undefined) return undefined
    if (kind !== 'cookie') {
      a.problem('affinity', `only cookie is known, got "${kind}"`)
      return undefined
    }
    const word = (key: string, pattern: RegExp): string | undefined => {
      const value = a.text(key)
      if (value === undefined || pattern.test(value)) return value
      a.problem(key, `"${value}" cannot stand in a cookie`)
      return undefined
    }
    const domain = word('session-cookie-domain', /^[\w.-]+$/)
    const maxAge = a.number('session-cookie-max-age')
    const expires = a.number('session-cookie-expires')
    const attributes = `; Path=${word('session-cookie-path', /^\/[\x21-\x3a\x3c-\x7e]*$/) ?? '/'}${domain === undefined ? '' : `; Domain=${domain}`}${(maxAge ?? expires) === undefined ? '' : `; Max-Age=${maxAge ?? expires}`}; HttpOnly`
    return {
      use: 'affinity',
      cookie: word('session-cookie-name', /^[!#$%&'*+\-.^_`|~\w]+$/) ?? 'INGRESSCOOKIE',
      attributes,
      sameSite: a.oneOf('session-cookie-samesite', ['None', 'Lax', 'Strict']),
      secure: a.flag('session-cookie-secure'),
      alone: a.oneOf('affinity-canary-behavior', ['sticky', 'legacy']) === 'legacy',
      changeOnFailure: a.flag('session-cookie-change-on-failure') ?? false,
    } satisfies Affinity
  },
  step(policy: Affinity): Step {
    return {
      request(x) {
        const id = x.cookie(policy.cookie)
        if (id !== undefined) x.sticky = x.endpoint = x.upstream.endpoints.find((e) => idOf(e) === id)
        return undefined
      },
      response(x) {
        const { asked, sticky } = x
        if (asked === undefined || asked === sticky || (sticky !== undefined && !policy.changeOnFailure)) return undefined
        const secure = policy.secure ?? x.secure
        x.addResponse('Set-Cookie', `${policy.cookie}=${idOf(asked)}${policy.attributes}${secure ? '; Secure' : ''}${policy.sameSite === undefined ? '' : `; SameSite=${policy.sameSite}`}`)
        return undefined
      },
    }
  },
}

const ids = new WeakMap<Endpoint, string>()

/** What a cookie says of an endpoint: nothing that tells its address. */
export function idOf(e: Endpoint): string {
  let id = ids.get(e)
  if (id === undefined) ids.set(e, (id = createHash('sha256').update(`switchyard ${e.key}`).digest('hex').slice(0, 32)))
  return id
}
