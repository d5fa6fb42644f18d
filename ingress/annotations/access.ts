import { contains, ipBytes, network, type Network } from '../../lib/ip.ts'
import type { Answer, Step } from '../http1/exchange.ts'
import type { Annotations, Feature } from './feature.ts'
import { acme } from './redirect.ts'

interface Access {
  readonly use: 'access'
  /** Networks as text; undefined: everybody. */
  readonly allow: readonly string[] | undefined
  readonly deny: readonly string[]
  /** Another condition is enough. */
  readonly any: boolean
}

/** Who may come, by address. */
export const access: Feature = {
  name: 'access',
  keys: {
    'whitelist-source-range': { help: 'networks that may ask; 403 for others' },
    'allowlist-source-range': { help: 'networks that may ask; 403 for others' },
    'denylist-source-range': { help: 'networks that may not ask; 403' },
  },
  read(a) {
    const allow = networks(a, a.has('allowlist-source-range') ? 'allowlist-source-range' : 'whitelist-source-range')
    const deny = networks(a, 'denylist-source-range')
    if (allow === undefined && deny === undefined) return undefined
    return { use: 'access', allow, deny: deny ?? [], any: a.text('satisfy')?.toLowerCase() === 'any' && (a.has('auth-type') || a.has('auth-url')) } satisfies Access
  },
  step(policy: Access): Step {
    const allow = policy.allow?.map(toNetwork)
    const deny = policy.deny.map(toNetwork)
    const decide = (client: string): Answer | undefined => {
      const bytes = ipBytes(client, { lenient: true })
      const inside = (list: readonly Network[]): boolean => bytes !== undefined && list.some((n) => contains(n, bytes))
      if (inside(deny)) return { status: 403, reason: 'address is denied' }
      return allow === undefined || inside(allow) ? undefined : { status: 403, reason: 'address is not allowed' }
    }
    // One client asks often.
    let last = ''
    let verdict: Answer | undefined
    return {
      request(x) {
        if (x.path.startsWith(acme)) return undefined
        if (x.client !== last || last === '') {
          verdict = decide(x.client)
          last = x.client
        }
        if (!policy.any) return verdict
        x.satisfied = verdict === undefined
        return undefined
      },
    }
  },
}

function networks(a: Annotations, key: string): readonly string[] | undefined {
  const list = a.list(key)
  if (list === undefined) return undefined
  const out: string[] = []
  for (const text of list) {
    const full = text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`
    if (network(full) === undefined) a.refuse(key, `"${text}" is no network`)
    else out.push(full)
  }
  return out
}

const toNetwork = (text: string): Network => network(text)!
