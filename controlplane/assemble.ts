import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { explainError, type Log } from '../lib/log.ts'
import type { Metrics } from '../lib/metrics.ts'
import type { Network } from '../lib/ip.ts'
import { connect } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { admission } from './admission/admission.ts'
import { ServiceAllocator } from './allocate/services.ts'
import { applyPatch } from './api/apply.ts'
import { Cache } from './api/cache.ts'
import { Discovery } from './api/discovery.ts'
import { exec, refuseExec } from './api/exec.ts'
import { OpenApi } from './api/openapi.ts'
import { Rest, type Call } from './api/rest.ts'
import { reviews } from './api/reviews.ts'
import { ApiServer, type PathHandler } from './api/server.ts'
import { type Review } from './api/review.ts'
import { bind, subresources, type Helpers } from './api/subresources.ts'
import { version } from './api/version.ts'
import { startControllers } from './controllers/main.ts'
import { bootstrap, Rbac } from './identity/rbac.ts'
import { clusterroles } from './kinds/rbac.ts'
import { authenticator } from './identity/authenticate.ts'
import { authorizer } from './identity/authorize.ts'
import type { Authority, Pair } from './identity/ca.ts'
import { Tokens, type Claims } from './identity/tokens.ts'
import { joinPaths } from './join/endpoint.ts'
import { kinds } from './kinds/index.ts'
import type { Kind } from './kinds/kind.ts'
import { namespaces } from './kinds/namespace.ts'
import { pods } from './kinds/pod.ts'
import { serviceaccounts } from './kinds/serviceaccount.ts'
import { services } from './kinds/service.ts'
import { servicecidrs } from './kinds/servicecidr.ts'
import type { Options } from './options.ts'
import { SqliteStore } from './store/sqlite.ts'

/** A control plane that is ready to listen. */
export interface Plane {
  readonly api: ApiServer
  /** The address that discovery names. */
  address(text: string): void
  controllers(kubeconfig: string, port: number): void
  close(): Promise<void>
}

/** Puts the store, the cache, the API and the controllers together. */
export async function assemble(parts: {
  readonly options: Options
  readonly ca: Authority
  readonly cidrs: readonly Network[]
  readonly ports: { readonly from: number; readonly to: number }
  readonly advertise: string
  readonly listenPort: number
  readonly log: Log
  readonly metrics: Metrics
  readonly signal: AbortSignal
  readonly broken: () => void
}): Promise<Plane> {
  const { options, ca, log, metrics, signal } = parts
  const store = new SqliteStore(join(options.data, 'store.db'), {
    broken: (error) => {
      log.error('the disk refused a write; ending', { error: explainError(error) })
      parts.broken()
    },
  })
  const cache = new Cache(store, kinds, log)
  const following = cache.run(signal)
  await cache.reached(await store.current(), 60_000)
  while (!cache.ready && !signal.aborted) await wait(5)
  const allocator = new ServiceAllocator(store, { cidrs: parts.cidrs, ports: parts.ports })
  await allocator.repair([...cache.of(services).entries.values()].map((e) => e.object))
  const rbac = new Rbac(cache)
  const rest = new Rest({ store, cache, kinds, admission: admission(cache, allocator, rbac), log })
  const tokens = new Tokens(ca.tokenKey)
  const issuer = 'https://kubernetes.default.svc'
  const alive = (claims: Claims): boolean => {
    const k = claims['kubernetes.io']!
    const account = rest.find(serviceaccounts, k.namespace, k.serviceaccount.name)
    if (account?.object['metadata'].uid !== k.serviceaccount.uid) return false
    return k.pod === undefined || rest.find(pods, k.namespace, k.pod.name)?.object['metadata'].uid === k.pod.uid
  }
  let agentPair: { readonly pair: Promise<Pair>; readonly at: number } | undefined
  const agentClient = (): Promise<Pair> => {
    if (agentPair === undefined || Date.now() - agentPair.at > 12 * 3_600_000) agentPair = { pair: ca.client('kube-apiserver-kubelet-client', ['system:masters'], 2), at: Date.now() }
    return agentPair.pair
  }
  let address = `${parts.advertise}:${parts.listenPort}`
  const authorize = authorizer(rbac.authorize)
  const served: Review[] = [
    ...reviews({ authorize, tokens, alive, issuer, rules: (user, namespace) => rbac.rulesOf(user, namespace) }),
    {
      group: '',
      plural: 'bindings',
      singular: 'binding',
      kind: 'Binding',
      namespaced: true,
      create: (user, o, namespace) =>
        bind(rest, { user, kind: pods, namespace, name: o['metadata'].name ?? '', subresource: '', dryRun: false, manager: 'unknown', validation: 'Ignore', warnings: [] }, o),
    },
  ]
  const openapi = new OpenApi(kinds, served)
  metrics.gauge('switchyard_store_revision', 'The newest revision.')
  const revision = metrics.gauge('switchyard_cache_revision', 'The newest revision that reads see.')
  metrics.onScrape(() => revision.set(cache.revision))
  const text = (body: string, type = 'text/plain; version=0.0.4; charset=utf-8'): { readonly code: number; readonly type: string; readonly body: string } => ({ code: 200, type, body })
  const helpers: Helpers = { rest, tokens, issuer, ca: ca.certificate, agentClient }
  const api = new ApiServer({
    rest,
    cache,
    kinds,
    reviews: served,
    subresources: new Map([...subresources(helpers), ['pods/exec', (call) => refuseExec(helpers, call, call.query)]]),
    upgrades: new Map([['pods/exec', (call, request, socket, head) => exec(helpers, call, request, socket, head)]]),
    discovery: new Discovery(kinds, served, openapi, () => address),
    authenticate: authenticator(tokens, alive),
    authorize,
    metrics,
    log,
    ready: () => (cache.ready ? undefined : 'store not loaded'),
    paths: new Map<string, PathHandler>([
      ...joinPaths(ca, rest),
      ['/version', () => text(JSON.stringify(version, undefined, 2), 'application/json')],
      ['/metrics', () => text(metrics.print())],
      ['/openid/v1/jwks', () => text(JSON.stringify(tokens.jwks()), 'application/jwk-set+json')],
      [
        '/.well-known/openid-configuration',
        () =>
          text(
            JSON.stringify({
              issuer,
              jwks_uri: `https://${address}/openid/v1/jwks`,
              response_types_supported: ['id_token'],
              subject_types_supported: ['public'],
              id_token_signing_alg_values_supported: ['ES256'],
            }),
            'application/json',
          ),
      ],
    ]),
  })
  await basics(rest, log)
  await serviceRanges(rest, options['service-cidr'], log)
  await aggregate(rest, cache, rbac, log)
  const keeping = setInterval(() => void keep(store, cache, log), 30_000)
  keeping.unref()
  return {
    api,
    address: (text_) => void (address = text_),
    controllers: (kubeconfig, port) => void runControllers(parts, kubeconfig, port, ca),
    close: async () => {
      clearInterval(keeping)
      await following
      await store.close()
    },
  }
}

const own = { name: 'system:apiserver', groups: ['system:masters'] }
const ownCall = (k: Kind, name: string): Call => ({ user: own, kind: k, namespace: undefined, name, subresource: '', dryRun: false, manager: 'kube-apiserver', validation: 'Ignore', warnings: [] })

/** Keeps ClusterRoles that gather others' rules as they should be. */
async function aggregate(rest: Rest, cache: Cache, rbac: Rbac, log: Log): Promise<void> {
  let waiting = false
  const gather = async (): Promise<void> => {
    for (const { role, rules } of rbac.aggregated()) {
      const { name } = role['metadata']
      const call = { ...ownCall(clusterroles, name), manager: 'clusterrole-aggregation-controller' }
      const text = JSON.stringify({ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name }, rules })
      await applyPatch(rest, cache, call, text, { force: true }).catch((error: unknown) => log.warn('could not gather the rules of a role', { role: name, error: explainError(error) }))
    }
  }
  const soon = (): void => {
    if (waiting) return
    waiting = true
    setTimeout(() => {
      waiting = false
      void gather()
    }, 10).unref()
  }
  cache.of(clusterroles).followers.add({ changed: soon, ended: () => {} })
  // Roles gather from roles that gather: view into edit into admin.
  for (let round = 0; round < 3; round++) await gather()
}

/** The namespaces and roles that every cluster has. */
async function basics(rest: Rest, log: Log): Promise<void> {
  for (const name of ['kube-system', 'default', 'kube-public', 'kube-node-lease']) {
    if (rest.find(namespaces, undefined, name) !== undefined) continue
    const call = ownCall(namespaces, name)
    try {
      await rest.create(call, rest.decode(call, { metadata: { name } }))
    } catch (error) {
      log.warn('could not make a namespace', { name, error: explainError(error) })
    }
  }
  for (const { kind: k, object } of bootstrap) {
    const name: string = object['metadata'].name
    if (rest.find(k, undefined, name) !== undefined) continue
    const call = ownCall(k, name)
    try {
      await rest.create(call, rest.decode(call, object))
    } catch (error) {
      log.warn('could not make a role', { name, error: explainError(error) })
    }
  }
}

/** The ServiceCIDR `kubernetes` says which ranges this server gives addresses from. */
async function serviceRanges(rest: Rest, cidrs: readonly string[], log: Log): Promise<void> {
  const call = ownCall(servicecidrs, 'kubernetes')
  const condition = { type: 'Ready', status: 'True', reason: '', message: 'Kubernetes Service CIDR is ready', lastTransitionTime: new Date().toISOString().replace(/\.\d+/, '') }
  try {
    const before = rest.find(servicecidrs, undefined, 'kubernetes')?.object
    if (before === undefined) await rest.create(call, rest.decode(call, { metadata: { name: 'kubernetes' }, spec: { cidrs }, status: { conditions: [condition] } }))
    else if (before['spec'].cidrs.join() !== cidrs.join()) await rest.update(call, (now) => ({ ...structuredClone(now), spec: { cidrs: [...cidrs] } }), { retry: true })
  } catch (error) {
    log.warn('could not say which ranges Services have', { error: explainError(error) })
  }
}

const moments: { readonly at: number; readonly revision: number }[] = []

/** Lets history go: kept are ten thousand revisions, and at least 75 seconds. */
async function keep(store: SqliteStore, cache: Cache, log: Log): Promise<void> {
  moments.push({ at: Date.now(), revision: cache.revision })
  while (moments.length > 1 && moments[1]!.at < Date.now() - 75_000) moments.shift()
  const oldest = moments[0]!
  if (oldest.at > Date.now() - 75_000) return
  const floor = Math.min(oldest.revision, cache.revision - 10_000)
  if (floor <= cache.floor) return
  try {
    // The floor is told first: nobody may be promised what is about to go.
    cache.trim(floor)
    await store.compact(floor)
  } catch (error) {
    log.warn('could not let old history go', { error: explainError(error) })
  }
}

async function runControllers(
  parts: { readonly options: Options; readonly advertise: string; readonly log: Log; readonly signal: AbortSignal },
  kubeconfig: string,
  port: number,
  ca: Authority,
): Promise<void> {
  const { options, log, signal } = parts
  try {
    const client = connect(await loadCredentials(kubeconfig), { userAgent: 'kube-controller-manager' })
    await startControllers({
      client,
      log,
      signal,
      options: {
        clusterCIDRs: options['cluster-cidr'],
        serviceCIDRs: options['service-cidr'],
        advertiseAddress: parts.advertise,
        advertisePort: options['advertise-port'] ?? port,
        loadBalancerCIDRs: options['load-balancer-cidr'],
        rootCertificate: ca.certificate,
      },
    })
  } catch (error) {
    if (!signal.aborted) log.error('the controllers ended', { error: explainError(error) })
  }
}
