import type { Ingress } from '../../kube/objects.ts'
import { plainSettings, type Settings, type SettingsContext } from '../settings.ts'
import type { Middleware } from '../http1/exchange.ts'
import { suggest } from '../../lib/options.ts'
import type { Policy } from '../table.ts'
import { access } from './access.ts'
import { affinity } from './affinity.ts'
import { auth } from './auth.ts'
import { canary } from './canary.ts'
import { clientcert } from './clientcert.ts'
import { cors } from './cors.ts'
import { Annotations, prefixes, type Draft, type Feature, type Key } from './feature.ts'
import { errors } from './errors.ts'
import { headers } from './headers.ts'
import { limits } from './limits.ts'
import { proxy } from './proxy.ts'
import { redirect } from './redirect.ts'
import { refused } from './refused.ts'
import { rewrite } from './rewrite.ts'
import { upstream } from './upstream.ts'
import { www } from './www.ts'

/** Everything annotations can do, in the order in which requests meet it. */
export const features: readonly Feature[] = [proxy, www, redirect, clientcert, access, limits, cors, auth, errors, canary, affinity, upstream, rewrite, headers, refused]

/** Every known key and what it does. */
export const keys: ReadonlyMap<string, Key> = new Map(features.flatMap((f) => Object.entries(f.keys)))

/** People write these; they never did what they hoped. Named rather than guessed at. */
const imaginary: Readonly<Record<string, string>> = {
  'rate-limit': 'limit-rps',
  'rate-limit-window': 'limit-rpm',
  'websocket-services': 'nothing: WebSockets pass by themselves',
  'enable-websockets': 'nothing: WebSockets pass by themselves',
  'enable-websocket': 'nothing: WebSockets pass by themselves',
  'server-snippets': 'server-snippet, which is refused',
  'session-cookie-hash': 'session-cookie-name',
  'use-forwarded-headers': 'the flag --trusted',
  'secure-backends': 'backend-protocol: HTTPS',
  'add-base-url': 'rewrite-target',
}

/** What the annotations of `ingress` ask for; `defaults` holds for keys that it lacks. */
export function settingsOf(ingress: Ingress, context: SettingsContext, defaults?: ReadonlyMap<string, string>): Settings {
  const a = new Annotations(ingress, defaults)
  const draft: Draft = { ...plainSettings }
  const policies: Policy[] = []
  for (const feature of features) {
    const policy = feature.read(a, draft, context)
    if (policy !== undefined) policies.push(policy)
  }
  for (const key of a.keys) {
    const known = keys.get(key)
    if (known === undefined) a.problems.push({ reason: 'UnknownAnnotation', message: unknown(key) })
    else if (known.support === 'refused') a.problems.push({ reason: 'UnsupportedAnnotation', message: `annotation ${key} has no effect: ${known.note}` })
  }
  // What is passed through is not ours to look into.
  if (draft.passthrough && a.has('ssl-passthrough'))
    a.ignoredBeside('ssl-passthrough', ['rewrite-target', 'auth-url', 'auth-type', 'enable-cors', 'whitelist-source-range', 'allowlist-source-range', 'limit-rps'])
  if (a.closed !== undefined) policies.unshift({ use: 'closed', reason: a.closed } as Policy)
  return { ...draft, policies, problems: a.problems }
}

/** `unknown annotation …, did you mean …?` */
export function unknown(key: string): string {
  const meant = Object.hasOwn(imaginary, key) ? `; it never existed in ingress-nginx, you may want ${imaginary[key]}` : suggest(key, [...keys.keys()], '')
  return `unknown annotation ${key}${meant}`
}

/** What makes policies ready, by name. */
export const middleware: Readonly<Record<string, Middleware>> = {
  ...Object.fromEntries(features.flatMap((f) => (f.step === undefined ? [] : [[f.name, (policy, tools) => f.step!(policy as never, tools)] satisfies [string, Middleware]]))),
  // `/my-path` where ingress-nginx knows `/my-path/` only.
  slash: () => ({ request: (x) => ({ status: 301, headers: [['Location', `${x.secure ? 'https' : 'http'}://${x.authority}${x.path}/${x.query}`]], reason: 'trailing slash' }) }),
  closed: (policy) => ({ request: () => ({ status: 503, reason: (policy as Policy & { readonly reason: string }).reason }) }),
}

export { prefixes }
