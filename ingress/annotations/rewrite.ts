import type { Step } from '../http1/exchange.ts'
import { regexOf } from '../match.ts'
import type { Feature } from './feature.ts'

interface Rewrite {
  readonly use: 'rewrite'
  /** The new path; `$1` … are captures of the rule's path. */
  readonly target: string
}

/** Another path towards the endpoint. */
export const rewrite: Feature = {
  name: 'rewrite',
  keys: {
    'rewrite-target': {
      help: 'path towards the endpoint; $1 … stand for what the groups of the rule’s path matched. Paths become regular expressions',
      support: 'differs',
      note: 'for our own classes only the paths of this Ingress become regular expressions, not all of the host',
    },
    'use-regex': { help: 'paths are regular expressions, from the beginning, in any letter case', default: 'false', support: 'differs', note: 'for our own classes only the paths of this Ingress' },
  },
  read(a, draft) {
    const target = a.text('rewrite-target')
    draft.regex = (a.flag('use-regex') ?? false) || target !== undefined
    if (target === undefined) return undefined
    if (!/^[\x21-\x7e]*$/.test(target) || /["\\#]/.test(target)) {
      a.problem('rewrite-target', `"${target}" is no path`)
      return undefined
    }
    return { use: 'rewrite', target } satisfies Rewrite
  },
  step(policy: Rewrite): Step {
    const simple = !policy.target.includes('$')
    return {
      request(x) {
        let path = policy.target
        if (!simple) {
          const groups = x.route.kind === 'regex' ? regexOf(x.route.path).exec(x.path) : undefined
          path = path.replace(/\$(\d)/g, (_, n: string) => groups?.[Number(n)] ?? '')
        }
        const full = path.startsWith('http://') || path.startsWith('https://')
        if (full) return { status: 302, headers: [['Location', path]], reason: 'rewrite-target is a URL' }
        if (!path.startsWith('/')) path = `/${path}`
        // A target with a query of its own is followed by the request's.
        x.target = path.includes('?') && x.query !== '' ? `${path}&${x.query.slice(1)}` : path + x.query
        return undefined
      },
    }
  },
}
