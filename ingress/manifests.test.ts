import { test } from 'tap'
import { join } from 'node:path'
import { endpoint, ingressClass, secret, service, slice } from '../kube/testing/builders.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import { middleware, settingsOf } from './annotations/list.ts'
import { readObjects, report } from './check.ts'
import { Compiler, controllerName } from './compile.ts'
import { sort } from './explain.ts'
import { Net } from './testing/memory.ts'

/** Requests and what is told: the status, and where a backend answered its name and the path it saw, or a Location. */
const asks: readonly { of: string; ask: string; told: string; body?: string; fields?: Readonly<Record<string, string>> }[] = [
  { of: 'blog', ask: 'GET http://blog.shops.test/2026/11/post', told: '200 front /2026/11/post' },
  { of: 'grafana', ask: 'GET http://metrics.shops.test/grafana/d/1?x=2', told: '200 front /d/1?x=2' },
  { of: 'grafana', ask: 'GET http://metrics.shops.test/grafana', told: '200 front /' },
  { of: 'legacy-class', ask: 'GET http://old.shops.test/', told: '200 front /' },
  { of: 'api-fanout', ask: 'GET http://shop.shops.test/api/v1/items', told: '200 api /api/v1/items' },
  { of: 'api-fanout', ask: 'GET http://shop.shops.test/apiary', told: '200 front /apiary' },
  { of: 'api-fanout', ask: 'GET http://shop.shops.test/health', told: '200 api /health' },
  { of: 'api-fanout', ask: 'GET http://shop.shops.test/health/', told: '200 front /health/' },
  { of: 'secure', ask: 'GET http://pay.shops.test/cart?id=1', told: '308 https://pay.shops.test/cart?id=1' },
  { of: 'secure', ask: 'GET https://pay.shops.test/cart', told: '200 front /cart' },
  { of: 'cert-manager', ask: 'GET http://cm.shops.test/.well-known/acme-challenge/token', told: '200 front /.well-known/acme-challenge/token' },
  { of: 'no-redirect', ask: 'GET http://plain.shops.test/', told: '200 front /' },
  { of: 'offloaded', ask: 'GET http://lb.shops.test/x', told: '308 https://lb.shops.test/x' },
  { of: 'uploads', ask: 'POST http://files.shops.test/up', told: '200 api /up', body: 'x'.repeat(1000) },
  { of: 'uploads', ask: 'POST http://files.shops.test/up', told: '413', body: 'x'.repeat(70000) },
  { of: 'registry', ask: 'PUT http://registry.shops.test/v2/blob', told: '200 api /v2/blob', body: 'x'.repeat(200000) },
  { of: 'spa', ask: 'GET http://app.shops.test/', told: '302 http://app.shops.test/ui' },
  { of: 'spa', ask: 'GET http://app.shops.test/ui', told: '200 front /ui' },
  { of: 'moved', ask: 'GET http://moved.shops.test/any', told: '301 https://new.shops.test/' },
  { of: 'maintenance', ask: 'GET http://soon.shops.test/', told: '302 https://status.shops.test/' },
  { of: 'www', ask: 'GET http://brand.test/a', told: '308 http://www.brand.test/a' },
  { of: 'www', ask: 'GET http://www.brand.test/a', told: '200 front /a' },
  { of: 'cors-api', ask: 'OPTIONS http://open.shops.test/x', told: '204', fields: { Origin: 'https://app.shops.test', 'Access-Control-Request-Method': 'POST' } },
  { of: 'office-only', ask: 'GET http://intern.shops.test/', told: '403' },
  { of: 'loopback-ok', ask: 'GET http://near.shops.test/', told: '200 front /' },
  { of: 'password', ask: 'GET http://stage.shops.test/', told: '401' },
  { of: 'password', ask: 'GET http://stage.shops.test/', told: '200 front /', fields: { Authorization: 'Basic Zm9vOmJhcg==' } },
  { of: 'sso', ask: 'GET http://sso.shops.test/deep?a=1', told: '302 https://sso.shops.test/oauth2/start?rd=%2Fdeep%3Fa%3D1' },
  { of: 'sticky', ask: 'GET http://cart.shops.test/', told: '200 front /' },
  { of: 'limited', ask: 'GET http://rate.shops.test/', told: '200 api /' },
  { of: 'canary-main', ask: 'GET http://beta.shops.test/', told: '200 front /' },
  { of: 'canary-main', ask: 'GET http://beta.shops.test/', told: '200 api /', fields: { 'X-Beta': 'always' } },
  { of: 'wildcard', ask: 'GET http://acme.tenants.test/x', told: '200 api /x' },
  { of: 'wildcard', ask: 'GET http://a.b.tenants.test/x', told: '404' },
  { of: 'versioned', ask: 'GET http://v.shops.test/v12/users', told: '200 api /v12/users' },
  { of: 'vhost', ask: 'GET http://cms.shops.test/', told: '200 front /' },
  { of: 'prefix-header', ask: 'GET http://docs.shops.test/docs/a/b', told: '200 front /a/b' },
  { of: 'alias', ask: 'GET http://main.other.test/', told: '200 front /' },
  { of: 'alias', ask: 'GET http://x.main.test/', told: '200 front /' },
  { of: 'hashed', ask: 'GET http://cache.shops.test/k', told: '200 api /k' },
  { of: 'retries', ask: 'GET http://again.shops.test/', told: '200 api /' },
  { of: 'websocket', ask: 'GET http://chat.shops.test/ws', told: '200 api /ws' },
  { of: 'errors', ask: 'GET http://err.shops.test/ok', told: '200 front /ok' },
  { of: 'dash', ask: 'GET http://k8s.shops.test/', told: '200 front /' },
  { of: 'fallback', ask: 'GET http://part.shops.test/only', told: '200 front /only' },
  { of: 'fallback', ask: 'GET http://part.shops.test/else', told: '200 api /else' },
  { of: 'gone-service', ask: 'GET http://lost.shops.test/', told: '503' },
  { of: 'snippet', ask: 'GET http://snip.shops.test/', told: '200 front /' },
]

const found = readObjects(join(import.meta.dirname, 'testdata', 'manifests.yaml'))
const pair = testAuthority().issue('pay.shops.test', 'cm.shops.test', 'plain.shops.test')
const objects = [
  ingressClass('web'),
  service('front', { clusterIP: '10.96.7.1', ports: ['http:80'] }),
  slice('front', [endpoint('10.244.7.1@n')], ['http:80']),
  service('api', { clusterIP: '10.96.7.2', ports: [8080] }),
  slice('api', [endpoint('10.244.7.2@n')], [8080]),
  secret('pay-tls', { 'tls.crt': pair.cert, 'tls.key': pair.key }, 'kubernetes.io/tls'),
  secret('team', { auth: 'foo:{SHA}Ys23Ag/5IOWqZCw9QGaVDdHwH00=\n' }),
]
const { table, problems } = new Compiler({ controllers: [controllerName], classes: [], defaultBackend: undefined, defaultCertificate: undefined, settings: settingsOf }).compile(
  sort([...objects, ...found.map((f) => f.object)]),
)

void test('the manifests people write are served as they say, but for what is named', async (t) => {
  t.ok(found.length >= 30, `${found.length} manifests`)
  t.same(problems.map((p) => `${p.ingress.metadata.name} ${p.reason}`).sort(), ['gone-service BackendNotFound', 'snippet UnsupportedAnnotation'])
  const reports = report([...found, ...objects.map((object) => ({ object, source: 'objects' }))])
  t.same(
    reports.filter((r) => r.verdict === 'not as it is').map((r) => r.ingress),
    ['default/gone-service', 'default/snippet'],
  )
  t.same(
    reports.filter((r) => r.verdict === 'with differences').map((r) => r.ingress.slice(8)),
    ['grafana', 'uploads', 'password', 'versioned', 'prefix-header'],
  )
})

for (const { of, ask, told, body = '', fields = {} } of asks) {
  void test(`${of}: ${ask}${body === '' ? '' : ` with ${body.length} octets`}${Object.keys(fields).length === 0 ? '' : ` and ${Object.keys(fields).join()}`}: ${told}`, async (t) => {
    const m = /^(\w+) (https?):\/\/([^/]+)(.*)$/.exec(ask)!
    const net = new Net(table, { secure: m[2] === 'https', server: { middleware } })
    for (const [name, at] of [
      ['front', '10.244.7.1:80'],
      ['api', '10.244.7.2:8080'],
      ['front', '10.96.7.1:80'],
    ] as const) {
      await net.backend(at, (peer, head) => {
        const text = `${name} ${head.split(' ')[1]}`
        peer.say(`HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${text}`)
      })
    }
    await net.backend('10.244.7.3:80', 'HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n')
    const client = await net.connect()
    client.say(
      `${m[1]} ${m[4]} HTTP/1.1\r\nHost: ${m[3]}\r\n${Object.entries(fields)
        .map(([k, v]) => `${k}: ${v}\r\n`)
        .join('')}${body === '' ? '' : `Content-Length: ${body.length}\r\n`}\r\n${body}`,
    )
    for (let i = 0; client.got === '' && i < 20; i++) {
      net.settle()
      await new Promise((resolve) => setImmediate(resolve))
    }
    const status = client.got.slice(9, 12)
    const location = /\r\nLocation: (.*)\r\n/.exec(client.got)?.[1]
    const said = `${status} ${location ?? client.got.slice(client.got.indexOf('\r\n\r\n') + 4)}`
    if (told.includes(' ')) t.equal(said, told)
    else t.equal(status, told)
  })
}
