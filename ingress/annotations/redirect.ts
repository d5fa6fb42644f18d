import type { Exchange, Step } from '../http1/exchange.ts'
import type { Feature } from './feature.ts'

interface Redirect {
  readonly use: 'redirect'
  /** To HTTPS, with this status. */
  readonly https: number | undefined
  /** HTTPS is told by a proxy in front when the Ingress itself has no TLS. */
  readonly www: boolean
  readonly to: string | undefined
  readonly status: number
  /** From `/` only. */
  readonly appRoot: string | undefined
  readonly hsts: string | undefined
}

/** The path cert-manager and its like are asked on; never redirected, never guarded. */
export const acme = '/.well-known/acme-challenge/'

/** To HTTPS, to another place, to the application's root. */
export const redirect: Feature = {
  name: 'redirect',
  keys: {
    'ssl-redirect': { help: 'redirects HTTP to HTTPS when the Ingress has a TLS section', default: 'true' },
    'force-ssl-redirect': { help: 'redirects HTTP to HTTPS also without a TLS section', default: 'false' },
    'preserve-trailing-slash': { help: 'keeps the final slash of the path when redirecting', default: 'false', support: 'ignored', note: 'the path is always kept as it was asked' },
    'permanent-redirect': { help: 'answers every request with a redirect (301) to this URL' },
    'permanent-redirect-code': { help: 'status of permanent-redirect', default: '301' },
    'temporal-redirect': { help: 'answers every request with a redirect (302) to this URL' },
    'temporal-redirect-code': { help: 'status of temporal-redirect', default: '302' },
    'app-root': { help: 'redirects (302) requests for / to this path' },
    hsts: { help: 'sends Strict-Transport-Security on HTTPS', default: 'true for classes taken over from ingress-nginx' },
    'hsts-max-age': { help: 'its max-age in seconds', default: '31536000' },
    'hsts-include-subdomains': { help: 'its includeSubDomains', default: 'true' },
    'hsts-preload': { help: 'its preload', default: 'false' },
  },
  read(a, _draft, context) {
    const ssl = a.flag('ssl-redirect') ?? true
    const force = a.flag('force-ssl-redirect') ?? false
    const https = force || (ssl && context.hasTls) ? (a.number('http-redirect-code', 300, 308) ?? 308) : undefined
    const url = (key: string): string | undefined => {
      const value = a.text(key)
      if (value === undefined) return undefined
      if (/^https?:\/\/[^\s"\\]+$/i.test(value) || /^\/[^\s"\\]*$/.test(value)) return value
      a.problem(key, `expected a URL, got "${value}"`)
      return undefined
    }
    const temporal = url('temporal-redirect')
    const to = temporal ?? url('permanent-redirect')
    const status = temporal === undefined ? (a.number('permanent-redirect-code', 300, 308) ?? 301) : (a.number('temporal-redirect-code', 300, 308) ?? 302)
    const appRoot = url('app-root')
    const hsts =
      (a.flag('hsts') ?? (context.nginx && context.hasTls))
        ? `max-age=${a.number('hsts-max-age') ?? 31_536_000}${(a.flag('hsts-include-subdomains') ?? true) ? '; includeSubDomains' : ''}${(a.flag('hsts-preload') ?? false) ? '; preload' : ''}`
        : undefined
    if (https === undefined && to === undefined && appRoot === undefined && hsts === undefined) return undefined
    return { use: 'redirect', https, www: false, to, status, appRoot, hsts } satisfies Redirect
  },
  step(policy: Redirect): Step {
    return {
      request(x: Exchange) {
        if (policy.https !== undefined && !x.secure && !x.path.startsWith(acme)) {
          return { status: policy.https, headers: [['Location', `https://${x.authority.replace(/:\d*$/, '')}${x.path}${x.query}`]], reason: 'redirect to https' }
        }
        if (policy.hsts !== undefined && x.secure) x.addResponse('Strict-Transport-Security', policy.hsts)
        if (policy.to !== undefined) return { status: policy.status, headers: [['Location', policy.to]], reason: 'redirect' }
        if (policy.appRoot !== undefined && x.path === '/')
          return { status: 302, headers: [['Location', policy.appRoot.startsWith('/') ? `${x.secure ? 'https' : 'http'}://${x.authority}${policy.appRoot}` : policy.appRoot]], reason: 'app-root' }
        return undefined
      },
    }
  },
}
