import type { Step } from '../http1/exchange.ts'
import type { Feature } from './feature.ts'

interface Www {
  readonly use: 'www'
}

/** From `www.x` to `x` or the other way, whichever the Ingress has not got. */
export const www: Feature = {
  name: 'www',
  keys: { 'from-to-www-redirect': { help: 'redirects (308) between a host and its www. twin, towards the one that has a rule', default: 'false' } },
  read(a, draft) {
    if (a.flag('from-to-www-redirect') !== true) return
    const hosts = (a.ingress.spec?.rules ?? []).flatMap((r) => (r.host === undefined || r.host.startsWith('*.') ? [] : [r.host.toLowerCase()]))
    // The twin has the same rules, and a step that sends it home.
    draft.aliases = [...draft.aliases, ...hosts.map((h) => (h.startsWith('www.') ? h.slice(4) : `www.${h}`)).filter((h) => !hosts.includes(h))]
    return { use: 'www' }
  },
  step(_policy: Www): Step {
    return {
      request(x) {
        const { declared } = x.route
        if (declared === undefined || declared === x.host || (declared !== `www.${x.host}` && `www.${declared}` !== x.host)) return undefined
        return { status: 308, headers: [['Location', `${x.secure ? 'https' : 'http'}://${declared}${x.path}${x.query}`]], reason: 'from-to-www-redirect' }
      },
    }
  },
}
