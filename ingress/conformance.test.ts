// The scenarios of Kubernetes' ingress conformance, in our words: objects, requests, and which Service must answer, over real sockets on both drivers.
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'tap'
import { FakeApi } from '../kube/testing/api.ts'
import { ingress, ingressClass, secret, service, slice } from '../kube/testing/builders.ts'
import { ingresses } from '../kube/resources.ts'
import type { KubeObject } from '../kube/objects.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import { ask, onOnePort, start, until } from './testing/run.ts'

interface Scenario {
  readonly feature: string
  readonly name: string
  readonly given: readonly KubeObject[]
  /** `host/path` → the Service, or a status. */
  readonly asks: Readonly<Record<string, string>>
}

const scenarios: readonly Scenario[] = [
  {
    feature: 'default backend',
    name: 'an Ingress without rules answers for everything',
    given: [ingress('d', {}, { class: 'sy', defaultBackend: 'one:80' })],
    asks: { 'any.test/': 'one', 'other.test/deep/path': 'one' },
  },
  {
    feature: 'host rules',
    name: 'a host as it is, and one that no rule has',
    given: [ingress('h', { 'foo.bar.com': { '/': 'one:80' } }, { class: 'sy' })],
    asks: { 'foo.bar.com/': 'one', 'bar.com/': '404', 'subdomain.foo.bar.com/': '404', 'FOO.BAR.COM/': 'one' },
  },
  {
    feature: 'host rules',
    name: 'a wildcard stands for one label',
    given: [ingress('w', { '*.foo.com': { '/': 'one:80' }, 'foo.bar.com': { '/': 'two:80' } }, { class: 'sy' })],
    asks: { 'bar.foo.com/': 'one', 'baz.bar.foo.com/': '404', 'foo.com/': '404', 'foo.bar.com/': 'two' },
  },
  {
    feature: 'host rules',
    name: 'the precise host goes before the wildcard, the wildcard before none',
    given: [ingress('p', { 'a.foo.com': { '/': 'one:80' }, '*.foo.com': { '/': 'two:80' }, '': { '/': 'three:80' } }, { class: 'sy' })],
    asks: { 'a.foo.com/': 'one', 'b.foo.com/': 'two', 'c.b.foo.com/': 'three' },
  },
  {
    feature: 'path rules',
    name: 'Exact: every letter, and the slash at the end',
    given: [ingress('e', { 'exact.test': { '=/foo': 'one:80', '=/foo/': 'two:80' } }, { class: 'sy' })],
    asks: { 'exact.test/foo': 'one', 'exact.test/foo/': 'two', 'exact.test/FOO': '404', 'exact.test/foo/bar': '404', 'exact.test/': '404', 'exact.test/foo?x=y': 'one' },
  },
  {
    feature: 'path rules',
    name: 'Prefix: by elements, whatever slash stands at the end',
    given: [ingress('q', { 'prefix.test': { '/foo': 'one:80', '/aaa/bbb': 'two:80', '/aaa/': 'three:80' } }, { class: 'sy' })],
    asks: {
      'prefix.test/foo': 'one',
      'prefix.test/foo/': 'one',
      'prefix.test/foo/x': 'one',
      'prefix.test/foobar': '404',
      'prefix.test/aaa/bbb': 'two',
      'prefix.test/aaa/bbb/ccc': 'two',
      'prefix.test/aaa/bbbxyz': 'three',
      'prefix.test/aaa': 'three',
      'prefix.test/aAa': '404',
    },
  },
  {
    feature: 'path rules',
    name: 'Exact goes before Prefix, the longer before the shorter',
    given: [ingress('m', { 'mixed.test': { '=/foo': 'one:80', '/foo': 'two:80', '/': 'three:80' } }, { class: 'sy' })],
    asks: { 'mixed.test/foo': 'one', 'mixed.test/foo/': 'two', 'mixed.test/x': 'three' },
  },
  {
    feature: 'ingress class',
    name: 'another controller’s class is left alone',
    given: [ingressClass('other', 'example.com/other'), ingress('o', { 'theirs.test': { '/': 'one:80' } }, { class: 'other' }), ingress('c', { 'ours.test': { '/': 'two:80' } }, { class: 'sy' })],
    asks: { 'theirs.test/': '404', 'ours.test/': 'two' },
  },
]

/** What endpoints tell of what they saw, as the conformance suite's do. */
async function endpoints(names: readonly string[]): Promise<{ objects: KubeObject[]; close(): void }> {
  const servers: http.Server[] = []
  const objects: KubeObject[] = []
  for (const name of names) {
    const server = http.createServer((q, response) => {
      response.removeHeader('date')
      response.end(JSON.stringify({ service: name, path: q.url, host: q.headers.host, method: q.method, proto: `HTTP/${q.httpVersion}`, agent: q.headers['user-agent'] }))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    servers.push(server)
    objects.push(service(name, { ports: [80] }), slice(name, ['127.0.0.1@n1'], [(server.address() as AddressInfo).port]))
  }
  return { objects, close: () => servers.forEach((s) => void (s.closeAllConnections(), s.close())) }
}

for (const sockets of ['node', 'auto']) {
  void test(`the scenarios of ingress conformance, on ${sockets}`, async (t) => {
    await using api = await FakeApi.start()
    const there = await endpoints(['one', 'two', 'three'])
    api.putAll([ingressClass('sy'), ...there.objects])
    const running = await start(api, '--sockets', sockets, '--publish-address', '192.0.2.1')
    const reached = async (url: string): Promise<string> => {
      const slash = url.indexOf('/')
      const said = await ask({ port: running.http }, url.slice(0, slash), url.slice(slash))
      return said.startsWith('200') ? (JSON.parse(said.slice(4)) as { service: string }).service : said.slice(0, 3)
    }
    for (const { feature, name, given, asks } of scenarios) {
      api.putAll(given)
      const [url, wanted] = Object.entries(asks).find(([, w]) => w !== '404')!
      await until(async () => (await reached(url)) === wanted)
      for (const [u, w] of Object.entries(asks)) t.equal(await reached(u), w, `${feature}: ${name}: ${u}`)
      for (const o of given) {
        if (o.kind !== 'Ingress' || o.metadata.name === 'o') continue
        await api.until(() => api.read(ingresses, `default/${o.metadata.name}`)?.status?.loadBalancer?.ingress?.[0]?.ip === '192.0.2.1', `the status of ${o.metadata.name}`)
      }
      for (const o of given) api.remove(o)
      await until(async () => (await reached(url)) === '404')
    }
    await running.end()
    there.close()
  })
}

void test('load balancing: every endpoint of a Service gets its share; what was said is passed on as it was said', async (t) => {
  await using api = await FakeApi.start()
  const there = await onOnePort(['127.0.0.1', '127.0.0.2', '127.0.0.3'], (host, q, response) => response.end(`${host} ${q.headers['user-agent']} HTTP/${q.httpVersion} ${q.headers.host}`))
  const authority = testAuthority()
  const { cert, key } = authority.issue('x.test')
  api.putAll([
    ingressClass('sy'),
    service('s', { ports: [80] }),
    slice('s', ['127.0.0.1@n1', '127.0.0.2@n1', '127.0.0.3@n1'], [there.port]),
    secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
    ingress('i', { 'x.test': { '/': 's:80' } }, { class: 'sy', tls: { cert: ['x.test'] }, annotations: { 'nginx.ingress.kubernetes.io/ssl-redirect': 'false' } }),
  ])
  const running = await start(api)
  const share = new Map<string, number>()
  for (let i = 0; i < 30; i++) {
    const said = await ask({ port: running.http }, 'x.test', '/')
    const host = said.split(' ')[1]!
    share.set(host, (share.get(host) ?? 0) + 1)
  }
  t.same([...share.values()], [10, 10, 10])
  const head = await new Promise<http.IncomingMessage>((resolve, reject) =>
    http.get({ host: '127.0.0.1', port: running.http, path: '/', headers: { host: 'x.test', 'user-agent': 'Go-http-client/1.1' } }, (r) => (r.resume(), resolve(r))).on('error', reject),
  )
  t.equal(head.httpVersion, '1.1')
  t.ok(head.headers.server, 'a Server field, though the endpoint sent none')
  t.ok(head.headers['content-length'])
  t.match(await ask({ port: running.https, ca: authority.ca, servername: 'x.test' }, 'x.test', '/'), /^200 .* HTTP\/1\.1 x\.test$/)
  await running.end()
  there.close()
})
