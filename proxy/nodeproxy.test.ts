import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { test, type Test } from 'tap'
import { connect } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { FakeApi, type Trouble } from '../kube/testing/api.ts'
import { node, service, slice } from '../kube/testing/builders.ts'
import { sleep } from '../lib/lifecycle.ts'
import { silent } from '../lib/log.ts'
import { parse } from '../lib/options.ts'
import { FakeKernel } from '../linux/fake/kernel.ts'
import { IptablesBackend } from './iptables/backend.ts'
import { NodeProxy } from './nodeproxy.ts'
import { flags, proxyOptions } from './options.ts'

interface Running {
  readonly api: FakeApi
  readonly kernel: FakeKernel
  readonly proxy: NodeProxy
  /** The DNAT targets that the kernel has for an address, sorted. */
  targets(ip: string): Promise<readonly string[]>
  until(what: () => Promise<boolean> | boolean, why: string): Promise<void>
}

async function start(t: Test, how: { readonly kernel?: FakeKernel; readonly args?: readonly string[]; readonly before?: (api: FakeApi) => void } = {}): Promise<Running> {
  const api = await FakeApi.start()
  const ended = new AbortController()
  const kernel = how.kernel ?? new FakeKernel()
  const options = proxyOptions(
    parse(flags, ['--node', 'n1', '--mode', 'iptables', '--service-cidr', '10.96.0.0/16', '--min-sync-period', '10ms', '--sync-period', '200ms', ...(how.args ?? [])]).values,
    'n1',
  )
  const client = connect(await loadCredentials(api.kubeconfig()))
  const backend = new IptablesBackend({ kernel, log: silent })
  how.before?.(api)
  const proxy = new NodeProxy(options, { kernel, log: silent, options }, backend, client)
  const running = proxy.run(ended.signal, () => {})
  t.teardown(async () => {
    ended.abort()
    await running.catch(() => {})
    client.close()
    await api.close()
  })
  return {
    api,
    kernel,
    proxy,
    targets: async (ip) => [...(await kernel.iptables(4).save(['nat'])).matchAll(new RegExp(`-d ${ip}/32 .*--to-destination (\\S+)`, 'g'))].map((m) => m[1]!).sort(),
    until: async (what, why) => {
      for (let i = 0; i < 9000; i++) {
        if (await what()) return
        await sleep(10)
      }
      t.fail(`waited in vain: ${why}`)
    },
  }
}

/** A port that nobody listens on now. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

const web = (ips: readonly string[]) => [service('web', { clusterIP: '10.96.0.1', ports: ['http:80->8080'] }), slice('web', ips, ['http:8080'])]

function put(api: FakeApi, ips: readonly string[]): void {
  for (const o of web(ips)) api.put(o)
}

test('a Service comes, its endpoints change, it goes', async (t) => {
  const r = await start(t)
  put(r.api, ['10.244.0.1', '10.244.0.2'])
  await r.until(async () => (await r.targets('10.96.0.1')).length === 2, 'two endpoints')
  put(r.api, ['10.244.0.3'])
  await r.until(async () => (await r.targets('10.96.0.1')).join() === '10.244.0.3:8080', 'another endpoint')
  r.api.remove(service('web', { clusterIP: '10.96.0.1' }))
  await r.until(async () => (await r.targets('10.96.0.1')).length === 0, 'the Service is gone')
})

const troubles: readonly (readonly [string, Trouble])[] = [
  ['410', { code: 410, reason: 'Expired' }],
  ['429', { code: 429, reason: 'TooManyRequests', retryAfter: 0 }],
  ['500', { code: 500 }],
  ['503 with text', { code: 503, text: 'no backend' }],
  ['connections reset', 'reset'],
  ['answers cut', 'cut'],
  ['answers that are no JSON', 'garbage'],
]
for (const [name, trouble] of troubles) {
  test(`an API server that answers with ${name} is survived`, async (t) => {
    const r = await start(t, { before: (api) => (put(api, ['10.244.0.1']), api.misbehave({ trouble, times: 4 })) })
    await r.until(async () => (await r.targets('10.96.0.1')).join() === '10.244.0.1:8080', 'the first table in spite of it')
    r.api.misbehave({ trouble, verbs: ['watch', 'list'], times: 4 })
    put(r.api, ['10.244.0.9'])
    await r.until(async () => (await r.targets('10.96.0.1')).join() === '10.244.0.9:8080', 'the change in spite of it')
  })
}

test('a write that fails is tried again, whole', async (t) => {
  let fail = 0
  const kernel = new FakeKernel({ fault: () => (fail-- > 0 ? new Error('resource temporarily unavailable') : undefined) })
  const r = await start(t, { kernel })
  put(r.api, ['10.244.0.1'])
  await r.until(async () => (await r.targets('10.96.0.1')).length === 1, 'the first endpoint')
  fail = 3
  put(r.api, ['10.244.0.2'])
  await r.until(async () => (await r.targets('10.96.0.1')).join() === '10.244.0.2:8080', 'the second in spite of three failures')
  t.ok(r.proxy.measures.failures.value() >= 1, 'failures are counted')
})

test('what somebody flushed comes back within the sync period', async (t) => {
  const r = await start(t)
  put(r.api, ['10.244.0.1'])
  await r.until(async () => (await r.targets('10.96.0.1')).length === 1, 'the endpoint')
  await r.kernel.iptables(4).restore('*nat\n-F PREROUTING\n-F SY-SERVICES\nCOMMIT\n', new AbortController().signal)
  await r.until(async () => (await r.targets('10.96.0.1')).length === 1 && (await r.kernel.iptables(4).save(['nat'])).includes('-A PREROUTING -j SY-NAT'), 'it is back')
})

test('one bad Service is told in an Event and does not block the others', async (t) => {
  const r = await start(t, { before: (api) => (api.put(service('bad', { clusterIP: '10.96.0.2', ports: [{ port: 0 }, { name: 'http', port: 80 }] })), put(api, ['10.244.0.1'])) })
  await r.until(async () => (await r.targets('10.96.0.1')).length === 1, 'the good one')
  await r.until(() => r.api.requests.some((q) => q.resource === 'events' && q.verb === 'create' && JSON.stringify(q.body).includes('not a port number')), 'an Event about the bad one')
})

test('health follows the Node and the writes', async (t) => {
  const r = await start(t)
  const ask = (what: 'healthz' | 'livez'): number => (r.proxy.health.handler(what, () => {})({} as never) as { code: number }).code
  r.api.put(node('n1', { ip: '192.168.56.11' }))
  await r.until(() => ask('healthz') === 200 && ask('livez') === 200, 'healthy')
  r.api.put(node('n1', { ip: '192.168.56.11', spec: { taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] } }))
  await r.until(() => ask('healthz') === 503, 'not eligible: no new connections please')
  t.equal(ask('livez'), 200, 'but alive')
  const body = JSON.parse((r.proxy.health.handler('healthz', () => {})({} as never) as { body: string }).body) as object
  t.match(body, { nodeEligible: false, healthy: false, status: { IPv4: { healthy: true, lastUpdated: /^\d{4}-/ } } })
  t.notOk('IPv6' in (body as { status: object }).status, 'nothing is written for IPv6')
  t.match(r.proxy.measures.metrics.print(), /kubeproxy_sync_proxy_rules_iptables_total\{table="nat"\} [1-9]/)
})

test('healthCheckNodePort answers as kube-proxy does', async (t) => {
  const port = await freePort()
  const lb = (eps: readonly string[]) =>
    [
      service('lb', { type: 'LoadBalancer', clusterIP: '10.96.0.3', externalTrafficPolicy: 'Local', healthCheckNodePort: port, ports: ['http:80->8080@30080'] }),
      slice('lb', eps, ['http:8080']),
    ] as const
  const r = await start(t)
  for (const o of lb(['10.244.0.1@n1', '10.244.1.1@n2'])) r.api.put(o)
  const ask = async (): Promise<Response | undefined> => fetch(`http://127.0.0.1:${port}/any/path`).catch(() => undefined)
  await r.until(async () => (await ask())?.status === 200, 'an endpoint is here')
  const answer = (await ask())!
  t.same(await answer.json(), { service: { namespace: 'default', name: 'lb' }, localEndpoints: 1, serviceProxyHealthy: true })
  t.equal(answer.headers.get('x-load-balancing-endpoint-weight'), '1')
  for (const o of lb(['10.244.1.1@n2'])) r.api.put(o)
  await r.until(async () => (await ask())?.status === 503, 'none is here')
  r.api.remove(lb([])[0])
  await r.until(async () => (await ask()) === undefined, 'the Service is gone, and so is the listener')
})
