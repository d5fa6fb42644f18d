import type { Step } from '../http1/exchange.ts'
import type { Annotations, Feature } from './feature.ts'
import type { SettingsContext } from '../settings.ts'

interface Headers {
  readonly use: 'headers'
  /** Fields towards the endpoint, and of answers: they replace what was there. */
  readonly requests: readonly (readonly [string, string])[]
  readonly responses: readonly (readonly [string, string])[]
  /** Fields of answers that are not passed on. */
  readonly hidden: readonly string[]
  readonly originalUri: boolean
  /** `Location` that begins with the one begins with the other instead. */
  readonly redirect: readonly [from: string, to: string] | undefined
  /** The same for Domain and Path of cookies. */
  readonly cookieDomain: readonly [from: string, to: string] | undefined
  readonly cookiePath: readonly [from: string, to: string] | undefined
}

/** Fields added, hidden and rewritten. */
export const headers: Feature = {
  name: 'headers',
  keys: {
    'custom-headers': { help: 'ConfigMap (namespace/name) of fields that answers carry' },
    'proxy-redirect-from': { help: 'beginning of Location that is replaced; off', default: 'off', support: 'differs', note: 'text only, neither default nor regular expressions' },
    'proxy-redirect-to': { help: 'what it is replaced by', default: 'off' },
    'proxy-cookie-domain': { help: 'two words: Domain of cookies that is replaced, and by what; off', default: 'off', support: 'differs', note: 'text only, no regular expressions' },
    'proxy-cookie-path': { help: 'two words: beginning of Path of cookies that is replaced, and by what; off', default: 'off', support: 'differs', note: 'text only, no regular expressions' },
  },
  read(a, _draft, context) {
    const from = a.text('proxy-redirect-from')
    const to = a.text('proxy-redirect-to')
    if (from === 'default') a.problem('proxy-redirect-from', 'default is not known, name the beginning of the URL')
    const policy: Headers = {
      use: 'headers',
      requests: fieldsOf(a, 'proxy-set-headers', context),
      responses: [...fieldsOf(a, 'add-headers', context), ...fieldsOf(a, 'custom-headers', context)],
      hidden: (a.list('hide-headers') ?? []).map((h) => h.toLowerCase()),
      originalUri: a.flag('proxy-add-original-uri-header') ?? false,
      redirect: from === undefined || to === undefined || from === 'off' || from === 'default' || to === 'off' ? undefined : [from, to],
      cookieDomain: pair(a, 'proxy-cookie-domain'),
      cookiePath: pair(a, 'proxy-cookie-path'),
    }
    const { requests, responses, hidden, originalUri, redirect, cookieDomain, cookiePath } = policy
    if (requests.length + responses.length + hidden.length === 0 && !originalUri && redirect === undefined && cookieDomain === undefined && cookiePath === undefined) return undefined
    return policy
  },
  step(policy: Headers): Step {
    const { requests, responses, hidden, redirect, cookieDomain, cookiePath } = policy
    const looks = redirect !== undefined || cookieDomain !== undefined || cookiePath !== undefined
    return {
      request(x) {
        for (const [name, value] of requests) {
          x.dropRequest(name)
          x.addRequest(name, value)
        }
        if (policy.originalUri) x.addRequest('X-Original-URI', x.path + x.query)
        for (const name of hidden) x.dropResponse(name)
        for (const [name, value] of responses) {
          x.dropResponse(name)
          x.addResponse(name, value)
        }
        return undefined
      },
      ...(looks
        ? {
            response(x, response) {
              const location = redirect === undefined ? undefined : response.header('location')
              if (location?.startsWith(redirect![0]) === true) {
                x.dropResponse('location')
                x.addResponse('Location', redirect![1] + location.slice(redirect![0].length))
              }
              if (cookieDomain === undefined && cookiePath === undefined) return undefined
              const cookies = response.headers('set-cookie')
              const changed = cookies.map((c) => replaced(replaced(c, 'domain', cookieDomain), 'path', cookiePath))
              if (changed.some((c, i) => c !== cookies[i])) {
                x.dropResponse('set-cookie')
                for (const c of changed) x.addResponse('Set-Cookie', c)
              }
              return undefined
            },
          }
        : {}),
    }
  },
}

/** The fields of a ConfigMap that `key` names. */
export function fieldsOf(a: Annotations, key: string, context: SettingsContext): (readonly [string, string])[] {
  const name = a.text(key)
  if (name === undefined) return []
  const full = name.includes('/') ? name : `${a.namespace}/${name}`
  const data = context.configMap(full)?.data
  if (data === undefined) {
    a.problem(key, `ConfigMap ${full} does not exist`)
    return []
  }
  return Object.entries(data).filter(([field]) => {
    if (/^[\w-]+$/.test(field) && !/^(host|content-length|transfer-encoding|connection|upgrade|te|trailer)$/i.test(field)) return true
    a.problem(key, `"${field}" is no field that can be set`)
    return false
  })
}

function pair(a: Annotations, key: string): readonly [string, string] | undefined {
  const value = a.text(key)
  if (value === undefined || value === 'off') return undefined
  const words = value.split(/\s+/)
  if (words.length === 2 && !value.includes('~') && !value.includes(';')) return [words[0]!, words[1]!]
  a.problem(key, `expected two words, got "${value}"`)
  return undefined
}

/** A cookie whose attribute begins with another text. */
function replaced(cookie: string, attribute: string, by: readonly [string, string] | undefined): string {
  if (by === undefined) return cookie
  return cookie
    .split(';')
    .map((part, i) => {
      const eq = part.indexOf('=')
      if (i === 0 || eq < 0 || part.slice(0, eq).trim().toLowerCase() !== attribute) return part
      const value = part.slice(eq + 1).trim()
      const bare = attribute === 'domain' ? value.replace(/^\./, '').toLowerCase() : value
      const wanted = attribute === 'domain' ? by[0].replace(/^\./, '').toLowerCase() : by[0]
      if (attribute === 'domain' ? bare !== wanted : !bare.startsWith(wanted)) return part
      return `${part.slice(0, eq + 1)}${by[1]}${attribute === 'domain' ? '' : bare.slice(wanted.length)}`
    })
    .join(';')
}
