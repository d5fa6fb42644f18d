import type { Canary } from '../settings.ts'
import type { Exchange, Step, Tools } from '../http1/exchange.ts'
import type { Upstream } from '../table.ts'
import { compileRegex, type Regex } from '../regex.ts'
import { idOf } from './affinity.ts'
import type { Feature } from './feature.ts'

interface CanaryPolicy extends Canary {
  readonly use: 'canary'
  readonly upstream: Upstream
  /** The cookie that binds clients to an endpoint of either. */
  readonly bound: { readonly cookie: string; readonly alone: boolean } | undefined
}

/** A second Ingress of the same host and path that gets a share of the requests. */
export const canary: Feature = {
  name: 'canary',
  keys: {
    canary: { help: 'this Ingress takes requests from the one that has the same host and path', default: 'false' },
    'canary-weight': { help: 'share of the requests', default: '0' },
    'canary-weight-total': { help: 'of how many', default: '100' },
    'canary-by-header': { help: 'field that decides: always, never' },
    'canary-by-header-value': { help: 'value of the field instead of always' },
    'canary-by-header-pattern': { help: 'regular expression for the value instead of always' },
    'canary-by-cookie': { help: 'cookie that decides: always, never' },
  },
  read(a, draft) {
    if (a.flag('canary') !== true) return
    const pattern = a.text('canary-by-header-pattern')
    let usable = pattern
    if (pattern !== undefined) {
      try {
        compileRegex(`.*(?:${pattern})`)
      } catch (error) {
        a.problem('canary-by-header-pattern', `"${pattern}": ${(error as Error).message}`)
        usable = undefined
      }
    }
    draft.canary = {
      weight: a.number('canary-weight') ?? 0,
      total: Math.max(1, a.number('canary-weight-total') ?? 100),
      header: a.text('canary-by-header')?.toLowerCase(),
      headerValue: a.text('canary-by-header-value'),
      headerPattern: usable,
      cookie: a.text('canary-by-cookie'),
    }
  },
  step(policy: CanaryPolicy, tools: Tools): Step {
    const pattern = policy.headerPattern === undefined ? undefined : compileRegex(`.*(?:${policy.headerPattern})`)
    return {
      request(x) {
        const { bound } = policy
        const id = bound === undefined || bound.alone ? undefined : x.cookie(bound.cookie)
        if (id !== undefined) {
          // Who was led somewhere before stays there.
          if (policy.upstream.endpoints.some((e) => idOf(e) === id)) {
            x.upstream = policy.upstream
            return undefined
          }
          if (x.upstream.endpoints.some((e) => idOf(e) === id)) return undefined
        }
        if (chosen(x, policy, pattern, tools)) x.upstream = policy.upstream
        return undefined
      },
    }
  },
}

/** Header, then cookie, then weight. */
function chosen(x: Exchange, p: CanaryPolicy, pattern: Regex | undefined, tools: Tools): boolean {
  if (p.header !== undefined) {
    const value = x.header(p.header)
    if (value !== undefined) {
      if (p.headerValue !== undefined) {
        if (value === p.headerValue) return true
      } else if (pattern !== undefined) {
        if (pattern.test(value)) return true
      } else if (value === 'always') return true
      else if (value === 'never') return false
    }
  }
  if (p.cookie !== undefined) {
    const value = x.cookie(p.cookie)
    if (value === 'always') return true
    if (value === 'never') return false
  }
  return p.weight > 0 && tools.random() * p.total < p.weight
}
