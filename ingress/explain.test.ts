import { test } from 'tap'
import { ingress, ingressClass, service, slice } from '../kube/testing/builders.ts'
import type { KubeObject } from '../kube/objects.ts'
import { seeded } from '../lib/random.ts'
import { middleware, settingsOf } from './annotations/list.ts'
import { Compiler, controllerName } from './compile.ts'
import { explain, sort } from './explain.ts'
import { Net } from './testing/memory.ts'

const compiled = (objects: readonly KubeObject[]) =>
  new Compiler({ controllers: [controllerName], classes: [], defaultBackend: undefined, defaultCertificate: undefined, settings: settingsOf }).compile(sort(objects)).table

void test('which rule, which endpoint, and why not the others', async (t) => {
  const table = compiled([
    ingressClass('sy'),
    service('a', { ports: [80] }),
    slice('a', ['10.1.1.1@n'], [80]),
    ingress('i', { 'x.test': { '/': 'a:80', '/foo': 'a:80', '=/foo': 'a:80', '/bar': 'a:80' } }, { class: 'sy', annotations: { 'switchyard.dev/x-forwarded-prefix': '/p' } }),
  ])
  const e = await explain(table, { method: 'GET', secure: false, host: 'x.test', target: '/foo?q', headers: [], client: '192.0.2.1' })
  t.equal(e.outcome, 'forwarded')
  t.same(e.rule, { host: 'x.test', path: '/foo', type: 'exact' })
  t.same(e.endpoints, ['10.1.1.1:80'])
  t.ok(e.sends!.includes('X-Forwarded-Prefix: /p'))
  t.same(
    e.considered.map((c) => `${c.type} ${c.path}: ${c.verdict}`),
    ['exact /foo: chosen', 'prefix /foo: fits, but Exact goes first', 'prefix /bar: the path does not begin with its elements', 'prefix /: fits, but a longer path goes first'],
  )
  const none = await explain(table, { method: 'GET', secure: false, host: 'y.test', target: '/', headers: [], client: '192.0.2.1' })
  t.same([none.outcome, none.status, none.hostRule], ['answered', 404, 'no rule has this host'])
})

void test('for random objects and requests, what is explained is what the server does', async (t) => {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000)
  t.comment(`TEST_SEED=${seed}`)
  const random = seeded(seed)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  const annotations = [
    {},
    {},
    { 'ssl-redirect': 'false' },
    { 'rewrite-target': '/r/$1' },
    { 'use-regex': 'true' },
    { 'whitelist-source-range': '203.0.113.0/24' },
    { 'app-root': '/home' },
    { 'enable-cors': 'true' },
    { 'upstream-vhost': 'inner' },
    { 'from-to-www-redirect': 'true' },
    { 'force-ssl-redirect': 'true' },
    { 'limit-rps': '5' },
    { 'auth-type': 'basic' },
  ]
  const hosts = ['x.test', 'www.x.test', '*.x.test', 'y.test', '']
  const paths = ['/', '/foo', '=/foo', '/foo/', '/foo/bar', '~/v[0-9]+/(.*)', '=/home']
  for (let n = 0; n < 100; n++) {
    const objects: KubeObject[] = [ingressClass('sy')]
    for (let s = 0; s < 3; s++) objects.push(service(`s${s}`, { ports: [80] }), slice(`s${s}`, random() < 0.8 ? [`10.1.1.${s + 1}@n`] : [], [80]))
    for (let i = 0; i < 1 + random() * 4; i++) {
      const rules: Record<string, Record<string, string>> = {}
      for (let r = 0; r < 1 + random() * 2; r++) (rules[pick(hosts)] ??= {})[pick(paths)] = `s${Math.floor(random() * 4)}:80`
      objects.push(
        ingress(`i${i}`, rules, {
          class: pick(['sy', 'sy', 'sy', 'other']),
          annotations: Object.fromEntries(Object.entries(pick(annotations)).map(([k, v]) => [`nginx.ingress.kubernetes.io/${k}`, v])),
          ...(random() < 0.3 ? { tls: { '': ['x.test'] } } : {}),
          ...(random() < 0.2 ? { defaultBackend: 's1:80' } : {}),
          metadata: { creationTimestamp: `2026-01-01T00:00:0${Math.floor(random() * 9)}Z` },
        }),
      )
    }
    const table = compiled(objects)
    const question = {
      method: pick(['GET', 'POST', 'OPTIONS']),
      secure: random() < 0.5,
      host: pick(['x.test', 'www.x.test', 'a.x.test', 'y.test', 'z.test']),
      target: pick(['/', '/foo', '/foo/', '/foobar', '/foo/bar/x?q=1', '/v1/abc', '/V2/', '/home', '/.well-known/acme-challenge/x', '//foo', '/a/../foo', '/%zz']),
      headers: random() < 0.3 ? ([['Origin', 'https://o.test']] as const) : [],
      client: pick(['192.0.2.1', '203.0.113.9']),
    }
    const said = await explain(table, question)

    const net = new Net(table, { secure: question.secure, server: { middleware, trusts: () => true } })
    let saw = ''
    for (let s = 1; s < 5; s++) {
      await net.backend(`10.1.1.${s}:80`, (peer, head) => {
        saw = `10.1.1.${s}:80 ${head.slice(0, head.indexOf('\r\n'))}`
        peer.say('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
      })
    }
    const client = await net.connect()
    client.say(`${question.method} ${question.target} HTTP/1.1\r\nHost: ${question.host}\r\nX-Forwarded-For: ${question.client}\r\n${question.headers.map(([k, v]) => `${k}: ${v}\r\n`).join('')}\r\n`)
    net.settle()
    const did = saw === '' ? `answered ${client.got.slice(9, 12)}` : `forwarded ${saw}`
    const would = said.outcome === 'answered' ? `answered ${said.status}` : `forwarded ${said.endpoints![0]} ${said.sends![0]}`
    if (did !== would) {
      t.equal(would, did, `case ${n}: ${JSON.stringify(question)}`)
      return
    }
  }
  t.pass('100 cases')
})
