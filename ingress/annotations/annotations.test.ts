import bcrypt from 'bcryptjs'
import { test } from 'tap'
import { execFileSync } from 'node:child_process'
import { ingress, ingressClass, object, secret, service, slice } from '../../kube/testing/builders.ts'
import type { ConfigMap, EndpointSlice, Ingress, KubeObject, Secret, Service } from '../../kube/objects.ts'
import { Compiler, controllerName } from '../compile.ts'
import { readConfig } from '../config.ts'
import { Net, tableOf, type Peer } from '../testing/memory.ts'
import { serviceOf } from '../watching.ts'
import { verifyPassword } from './htpasswd.ts'
import { keys, middleware, settingsOf, unknown } from './list.ts'

const nginx = (annotations: Readonly<Record<string, string>>): Record<string, string> => Object.fromEntries(Object.entries(annotations).map(([k, v]) => [`nginx.ingress.kubernetes.io/${k}`, v]))

const a = [service('a', { clusterIP: '10.96.0.1', ports: ['http:80'] }), slice('a', ['10.244.0.1@n1', '10.244.0.2@n1'], ['http:80'])]
const b = [service('b', { clusterIP: '10.96.0.2', ports: ['http:80'] }), slice('b', ['10.244.0.9@n1'], ['http:80'])]

interface Asked {
  readonly status: number
  readonly head: string
  readonly body: string
  /** What the endpoint saw. */
  readonly saw: string
}

/** The controller with these Ingresses; backends answer with their address. */
async function serve(
  objects: readonly KubeObject[],
  how: { readonly secure?: boolean; readonly answer?: (peer: Peer, head: string, at: string) => void; readonly defaults?: Readonly<Record<string, string>>; readonly defaultBackend?: string } = {},
) {
  const all = [ingressClass('sy'), ...a, ...b, ...objects]
  const of = <T extends KubeObject>(kind: string): T[] => all.filter((o) => o.kind === kind) as T[]
  const defaults = how.defaults === undefined ? undefined : readConfig(how.defaults).defaults
  const key = (o: KubeObject): string => `${o.metadata.namespace}/${o.metadata.name}`
  const { table, problems } = new Compiler({
    controllers: [controllerName],
    classes: [],
    defaultBackend: how.defaultBackend,
    defaultCertificate: undefined,
    settings: (i, c) => settingsOf(i, c, defaults),
  }).compile({
    ingresses: new Map(of<Ingress>('Ingress').map((o) => [key(o), o])),
    classes: new Map([['sy', ingressClass('sy')]]),
    services: new Map(of<Service>('Service').map((o) => [key(o), o])),
    secrets: new Map(of<Secret>('Secret').map((o) => [key(o), o])),
    slices: new Map(of<EndpointSlice>('EndpointSlice').map((s) => [serviceOf(s)!, [s]])),
    configMaps: new Map(of<ConfigMap>('ConfigMap').map((o) => [key(o), o])),
  })
  const net = new Net(table, { secure: how.secure ?? false, server: { middleware, random: () => 0.3 } })
  let saw = ''
  for (const at of ['10.244.0.1', '10.244.0.2', '10.244.0.9', '10.96.0.1', '10.5.5.5']) {
    await net.backend(`${at}:80`, (peer, head) => {
      saw = head
      if (how.answer === undefined) peer.say(`HTTP/1.1 200 OK\r\nContent-Length: ${at.length}\r\n\r\n${at}`)
      else how.answer(peer, head, at)
    })
  }
  return {
    net,
    problems: problems.map((p) => p.message),
    ask: async (line: string, fields: Readonly<Record<string, string>> = {}, body = ''): Promise<Asked> => {
      saw = ''
      const [method, url] = line.split(' ') as [string, string]
      const slash = url.indexOf('/')
      const client = await net.connect()
      client.say(
        `${method} ${url.slice(slash)} HTTP/1.1\r\nHost: ${url.slice(0, slash)}\r\n${Object.entries(fields)
          .map(([k, v]) => `${k}: ${v}\r\n`)
          .join('')}${body === '' ? '' : `Content-Length: ${body.length}\r\n`}\r\n${body}`,
      )
      net.settle()
      for (let i = 0; client.got === '' && i < 20; i++) {
        // Steps that ask elsewhere are promises.
        await new Promise((resolve) => setImmediate(resolve))
        net.settle()
      }
      const end = client.got.indexOf('\r\n\r\n')
      client.wire.abort()
      return { status: Number(client.got.slice(9, 12)), head: client.got.slice(0, end), body: client.got.slice(end + 4), saw }
    },
  }
}

/** One Ingress for x.test with these annotations. */
const one = (annotations: Readonly<Record<string, string>>, paths: Readonly<Record<string, string>> = { '/': 'a:80' }, tls = false) =>
  ingress('i', { 'x.test': paths }, { class: 'sy', annotations: nginx(annotations), ...(tls ? { tls: { '': ['x.test'] } } : {}) })

const location = (head: string): string | undefined => /\r\nlocation: (.*)/i.exec(head)?.[1]?.trim()

const rows: readonly {
  name: string
  annotations: Readonly<Record<string, string>>
  paths?: Readonly<Record<string, string>>
  tls?: boolean
  secure?: boolean
  ask: string
  fields?: Readonly<Record<string, string>>
  body?: string
  status: number
  location?: string
  saw?: RegExp
  head?: RegExp
  not?: RegExp
  problem?: RegExp
}[] = [
  {
    name: 'rewrite-target puts captures into the path',
    annotations: { 'rewrite-target': '/$2' },
    paths: { '~/something(/|$)(.*)': 'a:80' },
    ask: 'GET x.test/something/new/er?q=1',
    status: 200,
    saw: /^GET \/new\/er\?q=1 HTTP/,
  },
  { name: 'rewrite-target without captures', annotations: { 'rewrite-target': '/fixed' }, ask: 'GET x.test/any', status: 200, saw: /^GET \/fixed HTTP/ },
  { name: 'use-regex: a prefix in any letter case', annotations: { 'use-regex': 'true' }, paths: { '~/v[0-9]+/x': 'a:80' }, ask: 'GET x.test/V12/X/more', status: 200, saw: /^GET \/V12\/X\/more / },
  { name: 'a pattern that looks ahead is told', annotations: { 'use-regex': 'true' }, paths: { '~/(?!a)': 'a:80' }, ask: 'GET x.test/b', status: 404, problem: /is no path/ },
  { name: 'ssl-redirect with TLS', annotations: {}, tls: true, ask: 'GET x.test/p?q', status: 308, location: 'https://x.test/p?q' },
  { name: 'ssl-redirect leaves ACME alone', annotations: {}, tls: true, ask: 'GET x.test/.well-known/acme-challenge/t', status: 200 },
  { name: 'ssl-redirect off', annotations: { 'ssl-redirect': 'false' }, tls: true, ask: 'GET x.test/', status: 200 },
  { name: 'ssl-redirect over HTTPS', annotations: {}, tls: true, secure: true, ask: 'GET x.test/', status: 200 },
  { name: 'force-ssl-redirect without TLS', annotations: { 'force-ssl-redirect': 'true' }, ask: 'GET x.test/', status: 308, location: 'https://x.test/' },
  { name: 'app-root', annotations: { 'app-root': '/home' }, ask: 'GET x.test/', status: 302, location: 'http://x.test/home' },
  { name: 'app-root elsewhere', annotations: { 'app-root': '/home' }, ask: 'GET x.test/y', status: 200 },
  { name: 'permanent-redirect', annotations: { 'permanent-redirect': 'https://new.test/' }, ask: 'GET x.test/y', status: 301, location: 'https://new.test/' },
  { name: 'temporal-redirect', annotations: { 'temporal-redirect': 'https://new.test/', 'temporal-redirect-code': '307' }, ask: 'GET x.test/y', status: 307, location: 'https://new.test/' },
  { name: 'a redirect that could end its line is told', annotations: { 'permanent-redirect': 'https://x\r\nSet-Cookie: a' }, ask: 'GET x.test/y', status: 200, problem: /permanent-redirect/ },
  { name: 'from-to-www-redirect', annotations: { 'from-to-www-redirect': 'true' }, ask: 'GET www.x.test/y?z', status: 308, location: 'http://x.test/y?z' },
  { name: 'from-to-www-redirect: home stays', annotations: { 'from-to-www-redirect': 'true' }, ask: 'GET x.test/y', status: 200 },
  { name: 'proxy-body-size', annotations: { 'proxy-body-size': '1k' }, ask: 'POST x.test/', body: 'x'.repeat(1025), status: 413 },
  { name: 'proxy-body-size, just so', annotations: { 'proxy-body-size': '1k' }, ask: 'POST x.test/', body: 'x'.repeat(1024), status: 200 },
  { name: 'whitelist-source-range lets in', annotations: { 'whitelist-source-range': '127.0.0.0/8, 192.0.2.1' }, ask: 'GET x.test/', status: 200 },
  { name: 'whitelist-source-range keeps out', annotations: { 'whitelist-source-range': '192.0.2.0/24' }, ask: 'GET x.test/', status: 403 },
  { name: 'whitelist-source-range is not fooled by a field', annotations: { 'whitelist-source-range': '192.0.2.0/24' }, ask: 'GET x.test/', fields: { 'X-Forwarded-For': '192.0.2.1' }, status: 403 },
  { name: 'a broken whitelist lets nobody in', annotations: { 'whitelist-source-range': 'nonsense' }, ask: 'GET x.test/', status: 503, problem: /refused until it is mended/ },
  { name: 'denylist-source-range', annotations: { 'denylist-source-range': '127.0.0.0/8' }, ask: 'GET x.test/', status: 403 },
  {
    name: 'cors: preflight',
    annotations: { 'enable-cors': 'true', 'cors-allow-origin': 'https://*.ok.test' },
    ask: 'OPTIONS x.test/',
    fields: { Origin: 'https://a.ok.test', 'Access-Control-Request-Method': 'PUT' },
    status: 204,
    head: /Access-Control-Allow-Origin: https:\/\/a\.ok\.test\r\n[\s\S]*Access-Control-Allow-Methods: GET, PUT/,
  },
  {
    name: 'cors: another origin',
    annotations: { 'enable-cors': 'true', 'cors-allow-origin': 'https://*.ok.test' },
    ask: 'GET x.test/',
    fields: { Origin: 'https://a.b.ok.test' },
    status: 200,
    not: /access-control/i,
  },
  {
    name: 'cors: a request',
    annotations: { 'enable-cors': 'true', 'cors-expose-headers': 'X-A' },
    ask: 'GET x.test/',
    fields: { Origin: 'https://q.test' },
    status: 200,
    head: /Access-Control-Allow-Origin: \*\r\n[\s\S]*Access-Control-Expose-Headers: X-A/,
  },
  { name: 'upstream-vhost', annotations: { 'upstream-vhost': 'inner.test' }, ask: 'GET x.test/', status: 200, saw: /\r\nHost: inner\.test\r\n/ },
  { name: 'x-forwarded-prefix', annotations: { 'x-forwarded-prefix': '/pre' }, ask: 'GET x.test/', status: 200, saw: /X-Forwarded-Prefix: \/pre\r\n/ },
  { name: 'server-alias', annotations: { 'server-alias': 'y.test,*.z.test' }, ask: 'GET q.z.test/', status: 200 },
  { name: 'service-upstream', annotations: { 'service-upstream': 'true' }, ask: 'GET x.test/', status: 200, head: /Content-Length: 9/ },
  { name: 'backend-protocol that is not spoken', annotations: { 'backend-protocol': 'FCGI' }, ask: 'GET x.test/', status: 503, problem: /FCGI is not supported/ },
  {
    name: 'affinity gives a cookie',
    annotations: { affinity: 'cookie', 'session-cookie-name': 'route', 'session-cookie-max-age': '60', 'session-cookie-samesite': 'Lax' },
    ask: 'GET x.test/',
    status: 200,
    head: /Set-Cookie: route=[0-9a-f]{32}; Path=\/; Max-Age=60; HttpOnly; SameSite=Lax/,
  },
  {
    name: 'auth-type basic asks for a password',
    annotations: { 'auth-type': 'basic', 'auth-secret': 'users', 'auth-realm': 'here' },
    ask: 'GET x.test/',
    status: 401,
    head: /WWW-Authenticate: Basic realm="here"/,
  },
  {
    name: 'auth-type basic takes the right one',
    annotations: { 'auth-type': 'basic', 'auth-secret': 'users' },
    ask: 'GET x.test/',
    fields: { Authorization: `Basic ${Buffer.from('foo:bar').toString('base64')}` },
    status: 200,
  },
  {
    name: 'auth-type basic refuses the wrong one',
    annotations: { 'auth-type': 'basic', 'auth-secret': 'users' },
    ask: 'GET x.test/',
    fields: { Authorization: `Basic ${Buffer.from('foo:baz').toString('base64')}` },
    status: 401,
  },
  { name: 'auth-secret that is not there lets nobody in', annotations: { 'auth-type': 'basic', 'auth-secret': 'gone' }, ask: 'GET x.test/', status: 503, problem: /does not exist/ },
  { name: 'auth-secret of another namespace lets nobody in', annotations: { 'auth-type': 'basic', 'auth-secret': 'other/users' }, ask: 'GET x.test/', status: 503, problem: /another namespace/ },
  { name: 'digest lets nobody in', annotations: { 'auth-type': 'digest' }, ask: 'GET x.test/', status: 503, problem: /digest is not supported/ },
  { name: 'auth-tls-secret without TLS', annotations: { 'auth-tls-secret': 'ca' }, ask: 'GET x.test/', status: 400 },
  {
    name: 'a snippet is refused by name',
    annotations: { 'configuration-snippet': 'return 200;' },
    ask: 'GET x.test/',
    status: 200,
    problem: /configuration-snippet has no effect: configuration of nginx as text/,
  },
  {
    name: 'an unknown key, near a known one',
    annotations: { 'proxy-body-sise': '1m' },
    ask: 'GET x.test/',
    status: 200,
    problem: /^unknown annotation proxy-body-sise, did you mean proxy-body-size\?$/,
  },
  { name: 'a key that never existed', annotations: { 'rate-limit': '5' }, ask: 'GET x.test/', status: 200, problem: /it never existed in ingress-nginx, you may want limit-rps/ },
]

const users = secret('users', { auth: 'foo:{SHA}Ys23Ag/5IOWqZCw9QGaVDdHwH00=\n' })
const ca = secret('ca', { 'ca.crt': 'x' })

for (const row of rows) {
  void test(row.name, async (t) => {
    const { ask, problems } = await serve([one(row.annotations, row.paths, row.tls), users, ca], { secure: row.secure ?? false })
    const got = await ask(row.ask, row.fields, row.body)
    t.equal(got.status, row.status, `${got.head}\n${problems.join('\n')}`)
    if (row.location !== undefined) t.equal(location(got.head), row.location)
    if (row.saw !== undefined) t.match(got.saw, row.saw)
    if (row.head !== undefined) t.match(got.head, row.head)
    if (row.not !== undefined) t.notMatch(got.head, row.not)
    if (row.problem === undefined) t.same(problems, [])
    else t.match(problems.join('\n'), row.problem)
  })
}

void test('an affinity cookie leads back to its endpoint', async (t) => {
  const { ask } = await serve([one({ affinity: 'cookie' })])
  const first = await ask('GET x.test/')
  const cookie = /Set-Cookie: (INGRESSCOOKIE=[0-9a-f]+)/.exec(first.head)![1]!
  for (let i = 0; i < 5; i++) {
    const again = await ask('GET x.test/', { Cookie: `a=b; ${cookie}` })
    t.equal(again.body, first.body)
    t.notMatch(again.head, /set-cookie/i)
  }
})

void test('a canary gets its share by field, cookie and weight', async (t) => {
  const main = one({})
  const canary = (annotations: Readonly<Record<string, string>>) =>
    ingress('c', { 'x.test': { '/': 'b:80' } }, { class: 'sy', annotations: nginx({ canary: 'true', ...annotations }), metadata: { creationTimestamp: '2026-01-01T00:00:00Z' } })
  const to = async (annotations: Readonly<Record<string, string>>, fields: Readonly<Record<string, string>> = {}): Promise<string> => {
    const { ask, problems } = await serve([main, canary(annotations)])
    t.same(problems, [])
    return (await ask('GET x.test/', fields)).body === '10.244.0.9' ? 'canary' : 'main'
  }
  t.equal(await to({ 'canary-weight': '31' }), 'canary', 'the die shows 0.3')
  t.equal(await to({ 'canary-weight': '29' }), 'main')
  t.equal(await to({ 'canary-by-header': 'X-Go' }, { 'X-Go': 'always' }), 'canary')
  t.equal(await to({ 'canary-by-header': 'X-Go', 'canary-weight': '100' }, { 'X-Go': 'never' }), 'main')
  t.equal(await to({ 'canary-by-header': 'X-Go', 'canary-by-header-value': 'eu' }, { 'X-Go': 'eu' }), 'canary')
  t.equal(await to({ 'canary-by-header': 'X-Go', 'canary-by-header-pattern': 'eu|us' }, { 'X-Go': 'in-us' }), 'canary')
  t.equal(await to({ 'canary-by-cookie': 'go' }, { Cookie: 'go=always' }), 'canary')
  const { problems } = await serve([canary({})])
  t.match(problems.join(), /a canary alone gets nothing/)
})

void test('limit-rps lets a burst through, then a request now and then; limit-connections counts what is under way', async (t) => {
  const { ask, net } = await serve([one({ 'limit-rps': '1', 'limit-burst-multiplier': '3' })])
  const statuses: number[] = []
  for (let i = 0; i < 6; i++) statuses.push((await ask('GET x.test/')).status)
  net.driver.advance(1000)
  statuses.push((await ask('GET x.test/')).status, (await ask('GET x.test/')).status)
  // Each connection of the test comes from the same address.
  t.same(statuses, [200, 200, 200, 200, 503, 503, 200, 503])
})

void test('auth-url is asked first: its 2xx lets pass with fields, its 401 leads to the sign-in, its silence to nobody', async (t) => {
  const answer = (peer: Peer, head: string, at: string): void => {
    if (at !== '10.5.5.5') peer.say('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nin')
    else if (/cookie: good/i.test(head)) peer.say('HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n')
    else if (/cookie: odd/i.test(head)) peer.say('HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n')
    else peer.say('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n')
  }
  const { ask } = await serve([one({ 'auth-url': 'http://10.5.5.5/check', 'auth-signin': 'https://login.test/start', 'auth-response-headers': 'X-User' })], { answer })
  const good = await ask('GET x.test/p', { Cookie: 'good', 'X-User': 'spoofed' })
  t.equal(good.status, 200)
  t.match(good.saw, /X-User: ann/)
  t.notMatch(good.saw, /spoofed/)
  const bad = await ask('GET x.test/p?q=1')
  t.equal(bad.status, 302)
  t.equal(location(bad.head), `https://login.test/start?rd=${encodeURIComponent('http://x.test/p?q=1')}`)
  t.equal((await ask('GET x.test/p', { Cookie: 'odd' })).status, 500)
})

void test('custom-http-errors: the page of another service, under the status of the endpoint', async (t) => {
  const answer = (peer: Peer, head: string, at: string): void => {
    if (at === '10.244.0.9') peer.say(`HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 8\r\n\r\npage ${/X-Code: (\d+)/.exec(head)![1]}`)
    else peer.say(head.includes(' /gone ') ? 'HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nraw' : 'HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nraw')
  }
  const { ask, problems } = await serve([one({ 'custom-http-errors': '404,503', 'default-backend': 'b' })], { answer })
  t.same(problems, [])
  const gone = await ask('GET x.test/gone')
  t.same([gone.status, gone.body], [404, 'page 404'])
  const oops = await ask('GET x.test/')
  t.same([oops.status, oops.body], [500, 'raw'])
})

void test('default-backend takes over where there is no endpoint, and is told why; without one of its own the controller’s makes the pages', async (t) => {
  const gone = [service('gone', { clusterIP: '10.96.0.9', ports: ['http:80'] }), slice('gone', [], ['http:80'])]
  const { ask, problems } = await serve([...gone, one({ 'default-backend': 'b' }, { '/': 'gone:80' })])
  t.same(problems, [])
  const got = await ask('GET x.test/p')
  t.same([got.status, got.body], [200, '10.244.0.9'])
  t.match(got.saw, /X-Code: 503\r\n/)
  t.match(got.saw, /X-Service-Name: gone\r\n/)
  const answer = (peer: Peer, _head: string, at: string): void =>
    peer.say(at === '10.244.0.9' ? 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage' : 'HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nraw')
  const other = await serve([one({ 'custom-http-errors': '404' })], { answer, defaultBackend: 'default/b:80' })
  t.same(other.problems, [])
  t.equal((await other.ask('GET x.test/')).body, 'page')
})

void test('fields of answers: added by ConfigMaps, hidden, Location and cookies rewritten', async (t) => {
  const map = (name: string, data: Record<string, string>): KubeObject => object('v1', 'ConfigMap', name, { data })
  const answer = (peer: Peer): void =>
    peer.say(
      'HTTP/1.1 302 Found\r\nX-Powered-By: php\r\nX-Frame-Options: no\r\nLocation: http://inside:8080/a\r\nSet-Cookie: a=1; Domain=inside; Path=/app/x\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n',
    )
  const { ask, problems } = await serve(
    [
      map('fields', { 'X-Frame-Options': 'DENY' }),
      map('up', { 'X-Team': 'blue' }),
      one({ 'custom-headers': 'default/fields', 'proxy-redirect-from': 'http://inside:8080/', 'proxy-redirect-to': '/', 'proxy-cookie-domain': 'inside x.test', 'proxy-cookie-path': '/app /' }),
    ],
    { answer, defaults: { 'hide-headers': 'X-Powered-By', 'proxy-set-headers': 'default/up', 'proxy-add-original-uri-header': 'true' } },
  )
  t.same(problems, [])
  const got = await ask('GET x.test/p?q', { 'X-Team': 'red' })
  t.equal(location(got.head), '/a')
  t.match(got.head, /X-Frame-Options: DENY/)
  t.notMatch(got.head, /php|Options: no/)
  t.match(got.head, /Set-Cookie: a=1; Domain=x\.test; Path=\/\/x\r\n/)
  t.match(got.head, /Set-Cookie: b=2/)
  t.match(got.saw, /X-Team: blue\r\n/)
  t.notMatch(got.saw, /red/)
  t.match(got.saw, /X-Original-URI: \/p\?q\r\n/)
})

void test('satisfy any: the address or the password is enough; statuses and a global auth-url by ConfigMap', async (t) => {
  const guarded = { 'auth-type': 'basic', 'auth-secret': 'users', 'whitelist-source-range': '192.0.2.0/24' }
  const right = { Authorization: 'Basic Zm9vOmJhcg==' }
  const all = await serve([one(guarded), users])
  t.equal((await all.ask('GET x.test/', right)).status, 403)
  const any = await serve([one({ ...guarded, satisfy: 'any' }), users])
  t.equal((await any.ask('GET x.test/')).status, 401)
  t.equal((await any.ask('GET x.test/', right)).status, 200)
  const near = await serve([one({ ...guarded, satisfy: 'any', 'whitelist-source-range': '127.0.0.0/8' }), users])
  t.equal((await near.ask('GET x.test/')).status, 200)
  const limited = await serve([one({ 'limit-rps': '1', 'limit-burst-multiplier': '1' })], { defaults: { 'limit-req-status-code': '429' } })
  t.same([(await limited.ask('GET x.test/')).status, (await limited.ask('GET x.test/')).status, (await limited.ask('GET x.test/')).status], [200, 200, 429])
  const answer = (peer: Peer, _head: string, at: string): void => peer.say(at === '10.5.5.5' ? 'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n' : 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
  const defaults = { 'global-auth-url': 'http://10.5.5.5/' }
  t.equal((await (await serve([one({})], { answer, defaults })).ask('GET x.test/')).status, 403)
  t.equal((await (await serve([one({ 'enable-global-auth': 'false' })], { answer, defaults })).ask('GET x.test/')).status, 200)
})

void test('auth-cache-key: one question for requests of the same key, while it holds', async (t) => {
  let asked = 0
  const answer = (peer: Peer, _head: string, at: string): void => {
    if (at === '10.5.5.5') asked++
    peer.say('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
  }
  const { ask, net } = await serve([one({ 'auth-url': 'http://10.5.5.5/', 'auth-cache-key': '$cookie_s', 'auth-cache-duration': '200 10s' })], { answer })
  for (const s of ['a', 'a', 'b', 'a']) t.equal((await ask('GET x.test/', { Cookie: `s=${s}` })).status, 200)
  t.equal(asked, 2)
  net.driver.advance(11_000)
  await ask('GET x.test/', { Cookie: 's=a' })
  t.equal(asked, 3)
})

void test('who was led to a canary by its cookie stays there, or is decided anew where that is asked for', async (t) => {
  const canary = ingress(
    'c',
    { 'x.test': { '/': 'b:80' } },
    { class: 'sy', annotations: nginx({ canary: 'true', 'canary-by-header': 'X-Go' }), metadata: { creationTimestamp: '2026-01-01T00:00:00Z' } },
  )
  for (const [behavior, then] of [
    ['sticky', '10.244.0.9'],
    ['legacy', '10.244.0.1'],
  ] as const) {
    const { ask } = await serve([one({ affinity: 'cookie', 'affinity-canary-behavior': behavior }), canary])
    const first = await ask('GET x.test/', { 'X-Go': 'always' })
    t.equal(first.body, '10.244.0.9')
    const cookie = /Set-Cookie: (INGRESSCOOKIE=[0-9a-f]+)/.exec(first.head)![1]!
    t.equal((await ask('GET x.test/', { Cookie: cookie })).body, then, behavior)
  }
})

void test('slow-start: an endpoint that joins later gets its share little by little', async (t) => {
  const { ask, net } = await serve([one({ 'slow-start': '100' }, { '/': 'b:80' })])
  t.equal((await ask('GET x.test/')).body, '10.244.0.9')
  const wider = { ...net.frontend.table.hosts.shards.flatMap((s) => [...s.values()])[0]!.routes[0]! }
  const upstream = { ...wider.upstream, endpoints: [...wider.upstream.endpoints, { address: '10.5.5.5', port: 80, key: '10.5.5.5:80' }] }
  net.server.use(net.frontend, tableOf({ ...wider, upstream }))
  const share = async (): Promise<number> => {
    let n = 0
    for (let i = 0; i < 10; i++) if ((await ask('GET x.test/')).body === '10.5.5.5') n++
    return n
  }
  t.equal(await share(), 0, 'the die shows 0.3: not yet')
  net.driver.advance(31_000)
  t.equal(await share(), 5, 'now as often as the other')
})

void test('bcrypt, which takes its time', async (t) => {
  // `htpasswd -nbB foo bar`
  const hash = await bcrypt.hash('bar', 4)
  const { ask, problems } = await serve([one({ 'auth-type': 'basic', 'auth-secret': 'users' }), secret('users', { auth: `foo:${hash.replace('$2b$', '$2y$')}\n` })])
  t.same(problems, [])
  const basic = async (password: string): Promise<number> => {
    let got = await ask('GET x.test/', { Authorization: `Basic ${Buffer.from(`foo:${password}`).toString('base64')}` })
    for (let i = 0; Number.isNaN(got.status) && i < 50; i++) got = await ask('GET x.test/', { Authorization: `Basic ${Buffer.from(`foo:${password}`).toString('base64')}` })
    return got.status
  }
  t.equal(await basic('bar'), 200)
  t.equal(await verifyPassword('baz', hash), false)
})

void test('passwords as htpasswd and openssl write them', async (t) => {
  for (const kind of ['-apr1', '-1', '-5', '-6']) {
    for (const password of ['bar', 'a much longer password than any block of a hash, for sure and then some', '']) {
      if (password === '') continue
      const hash = execFileSync('openssl', ['passwd', kind, '-salt', 'saltsalt', password]).toString().trim()
      t.ok(verifyPassword(password, hash), `${kind} ${hash}`)
      t.notOk(verifyPassword(`${password}x`, hash))
    }
  }
})

void test('every key has a feature, and the words for unknown ones are kind', async (t) => {
  t.ok(keys.size > 100)
  t.equal(unknown('ssl-redirct'), 'unknown annotation ssl-redirct, did you mean ssl-redirect?')
})
