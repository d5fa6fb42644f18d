import { test } from 'tap'
import { isDeepStrictEqual } from 'node:util'
import { ingress, ingressClass, secret, service, slice } from '../kube/testing/builders.ts'
import { seeded } from '../lib/random.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import type { EndpointSlice, Ingress, KubeObject, Secret, Service, IngressClass } from '../kube/objects.ts'
import { settingsOf } from './annotations/list.ts'
import { Compiler, controllerName, nginxController, type CompileOptions, type Objects } from './compile.ts'
import { findHost } from './hosts.ts'
import { certificateFor, match } from './match.ts'
import type { RouteTable } from './table.ts'
import { serviceOf } from './watching.ts'

const options: CompileOptions = { controllers: [controllerName], classes: [], defaultBackend: undefined, defaultCertificate: undefined }

/** Sorts objects into what the compiler reads. */
function objectsOf(...list: readonly KubeObject[]): Objects {
  const of = <T>(kind: string): T[] => list.filter((o) => o.kind === kind) as T[]
  const key = (o: KubeObject): string => (o.metadata.namespace === undefined ? o.metadata.name : `${o.metadata.namespace}/${o.metadata.name}`)
  const slices = new Map<string, EndpointSlice[]>()
  for (const s of of<EndpointSlice>('EndpointSlice')) slices.set(serviceOf(s)!, [...(slices.get(serviceOf(s)!) ?? []), s])
  return {
    ingresses: new Map(of<Ingress>('Ingress').map((o) => [key(o), o])),
    classes: new Map(of<IngressClass>('IngressClass').map((o) => [key(o), o])),
    services: new Map(of<Service>('Service').map((o) => [key(o), o])),
    secrets: new Map(of<Secret>('Secret').map((o) => [key(o), o])),
    slices,
  }
}

const backends = ['a', 'b', 'c', 'd'].flatMap((n, i) => [
  service(n, { clusterIP: `10.96.1.${i}`, ports: ['http:80->8080', 'admin:81->9090'] }),
  slice(n, [`10.244.0.${i + 1}@n1`], ['http:8080', 'admin:9090']),
])
const ours = ingressClass('sy')

/** The Service that a request reaches. */
function reached(table: RouteTable, url: string): string {
  const slash = url.indexOf('/')
  const route = match(table, url.slice(0, slash), url.slice(slash))
  return route === undefined ? '404' : `${route.service.replace('default/', '')}${route.upstream.endpoints.length === 0 ? ' (none)' : ''}`
}

const age = (n: number): { metadata: { creationTimestamp: string; uid: string } } => ({ metadata: { creationTimestamp: `2026-01-01T00:00:0${n}Z`, uid: `${n}` } })

const cases: readonly { name: string; given: readonly KubeObject[]; options?: Partial<CompileOptions>; asks: Readonly<Record<string, string>>; problems?: readonly string[] }[] = [
  {
    name: 'Exact, Prefix by elements, the longest path, then Exact',
    given: [ingress('i', { 'x.test': { '/': 'a:80', '/foo': 'b:80', '=/foo': 'c:80', '/foo/bar/': 'd:80' } }, { class: 'sy' })],
    asks: {
      'x.test/': 'a',
      'x.test/foo': 'c',
      'x.test/foo/': 'b',
      'x.test/foobar': 'a',
      'x.test/foo/bar': 'd',
      'x.test/foo/bar/': 'd',
      'x.test/foo/barn': 'b',
      'x.test/foo/bar/x': 'd',
      'x.test/Foo': 'a',
      'y.test/': '404',
    },
  },
  {
    name: 'a trailing slash counts for Exact and not for Prefix',
    given: [ingress('i', { 'x.test': { '/aaa/bbb/': 'a:80', '=/foo/': 'b:80' } }, { class: 'sy' })],
    asks: { 'x.test/aaa/bbb': 'a', 'x.test/aaa/bbb/': 'a', 'x.test/foo': '404', 'x.test/foo/': 'b' },
  },
  {
    name: 'host: exact before wildcard before none; the star is one label',
    given: [ingress('i', { 'x.foo.test': { '/': 'a:80' }, '*.foo.test': { '/': 'b:80' }, '': { '/any': 'c:80' } }, { class: 'sy' })],
    asks: { 'x.foo.test/': 'a', 'y.foo.test/': 'b', 'y.x.foo.test/': '404', 'foo.test/': '404', 'other.test/any/x': 'c', 'x.foo.test/any': 'a' },
  },
  {
    name: 'ports by name and number; what does not exist answers nothing and is told',
    given: [ingress('i', { 'x.test': { '/n': 'a:admin', '/no': 'a:82', '/gone': 'zzz:80' } }, { class: 'sy' })],
    asks: { 'x.test/n': 'a', 'x.test/no': 'a (none)', 'x.test/gone': 'zzz (none)' },
    problems: ['BackendNotFound: rule 0, path 1: Service default/a has no TCP port "82"', 'BackendNotFound: rule 0, path 2: Service default/zzz does not exist'],
  },
  {
    name: 'default backends: of the Ingress for its hosts, of an Ingress without rules for all, of the controller last',
    given: [ingress('i', { 'x.test': { '/a': 'a:80' } }, { class: 'sy', defaultBackend: 'b:80' }), ingress('all', {}, { class: 'sy', defaultBackend: 'c:80' })],
    options: { defaultBackend: 'default/d' },
    asks: { 'x.test/a': 'a', 'x.test/z': 'b', 'q.test/': 'c' },
  },
  { name: 'the default backend of the controller', given: [], options: { defaultBackend: 'default/d:http' }, asks: { 'q.test/': 'd' } },
  {
    name: 'the oldest wins a path, the loser is told',
    given: [ingress('young', { 'x.test': { '/': 'b:80', '/young': 'b:80' } }, { class: 'sy', ...age(2) }), ingress('old', { 'x.test': { '/': 'a:80' } }, { class: 'sy', ...age(1) })],
    asks: { 'x.test/': 'a', 'x.test/young': 'b' },
    problems: ['Conflict: x.test/ is already served for the older Ingress default/old'],
  },
  {
    name: 'classes: ours, others, the legacy annotation, the default class',
    given: [
      ingressClass('other', 'else.dev/x'),
      ingressClass('dflt', controllerName, true),
      ingress('mine', { 'mine.test': { '/': 'a:80' } }, { class: 'sy' }),
      ingress('theirs', { 'theirs.test': { '/': 'a:80' } }, { class: 'other' }),
      ingress('unknown', { 'unknown.test': { '/': 'a:80' } }, { class: 'nope' }),
      ingress('none', { 'none.test': { '/': 'a:80' } }),
      ingress('legacy', { 'legacy.test': { '/': 'a:80' } }, { annotations: { 'kubernetes.io/ingress.class': 'sy' } }),
    ],
    asks: { 'mine.test/': 'a', 'theirs.test/': '404', 'unknown.test/': '404', 'none.test/': 'a', 'legacy.test/': 'a' },
  },
  {
    name: 'only the named class',
    given: [ingressClass('two'), ingress('one', { 'one.test': { '/': 'a:80' } }, { class: 'sy' }), ingress('two', { 'two.test': { '/': 'a:80' } }, { class: 'two' })],
    options: { classes: ['two'] },
    asks: { 'one.test/': '404', 'two.test/': 'a' },
  },
  {
    name: 'bad hosts and paths are told and take nothing else down',
    given: [ingress('i', { 'bad host': { '/': 'a:80' }, '10.0.0.1': { '/': 'a:80' }, 'x.test': { '/': 'a:80', nope: 'b:80', '/%zz': 'b:80' } }, { class: 'sy' })],
    asks: { 'x.test/': 'a' },
    problems: [
      'InvalidHost: rule 0: "bad host" is no host name',
      'InvalidHost: rule 1: "10.0.0.1" is no host name',
      'InvalidPath: rule 2, path 1: "nope" is no path that could be asked for',
      'InvalidPath: rule 2, path 2: "/%zz" is no path that could be asked for',
    ],
  },
]

void test('classes taken over from ingress-nginx bring its quirks: regular expressions spread over a host, a missing slash is redirected', async (t) => {
  const how: CompileOptions = { ...options, controllers: [nginxController], settings: settingsOf }
  const annotations = { 'nginx.ingress.kubernetes.io/use-regex': 'true' }
  const objects = objectsOf(
    ingressClass('nginx', nginxController),
    ...backends,
    ingress('re', { 'x.test': { '~/v[0-9]+': 'a:80' } }, { class: 'nginx', annotations }),
    ingress('plain', { 'x.test': { '=/Exact': 'b:80' }, 'y.test': { '/dir/': 'c:80' } }, { class: 'nginx' }),
  )
  const { table, problems } = new Compiler(how).compile(objects)
  t.equal(reached(table, 'x.test/exactly/so'), 'b', 'even Exact is a prefix in any letter case')
  t.equal(reached(table, 'x.test/V12'), 'a')
  t.match(problems.map((p) => `${p.ingress.metadata.name} ${p.reason}`).join(), /^plain RegexSpread$/)
  t.same(match(table, 'y.test', '/dir')!.policies, [{ use: 'slash' }])
  t.equal(reached(table, 'y.test/dir/x'), 'c')
  const own = new Compiler({ ...options, settings: settingsOf }).compile(
    objectsOf(
      ours,
      ...backends,
      ingress('re', { 'x.test': { '~/v[0-9]+': 'a:80' } }, { class: 'sy', annotations }),
      ingress('plain', { 'x.test': { '=/Exact': 'b:80', '/dir/': 'c:80' } }, { class: 'sy' }),
    ),
  )
  t.same([reached(own.table, 'x.test/exactly'), reached(own.table, 'x.test/dir'), own.problems.length], ['404', 'c', 0], 'our own classes are spared')
})

for (const c of cases) {
  void test(c.name, async (t) => {
    const { table, problems } = new Compiler({ ...options, ...c.options }).compile(objectsOf(ours, ...backends, ...c.given))
    for (const [url, want] of Object.entries(c.asks)) t.equal(reached(table, url), want, url)
    t.same(
      problems.map((p) => `${p.reason}: ${p.message}`),
      c.problems ?? [],
    )
  })
}

void test('endpoints: ready ones; serving ones that terminate when there are no others; the first family', async (t) => {
  const compiler = new Compiler(options)
  const endpoints = (...slices: EndpointSlice[]): string => {
    const { table } = compiler.compile(objectsOf(ours, service('a', { ports: ['http:80'] }), ...slices, ingress('i', { 'x.test': { '/': 'a:http' } }, { class: 'sy' })))
    return match(table, 'x.test', '/')!
      .upstream.endpoints.map((e) => e.key)
      .join(' ')
  }
  t.equal(endpoints(slice('a', ['10.1.1.1@n1', '10.1.1.2@n1 notready', '10.1.1.3@n1 terminating'], ['http:8080'])), '10.1.1.1:8080')
  t.equal(endpoints(slice('a', ['10.1.1.2@n1 notready', '10.1.1.3@n1 terminating', '10.1.1.4@n1 gone'], ['http:8080'])), '10.1.1.3:8080')
  t.equal(endpoints(slice('a', ['10.1.1.1@n1'], ['http:8080']), slice('a', ['10.1.1.1@n1', '10.1.1.9@n2'], ['http:8080'], { suffix: 'two' })), '10.1.1.1:8080 10.1.1.9:8080')
})

void test('a table made step by step is the table made at once, and what did not change keeps its identity', async (t) => {
  const compiler = new Compiler(options)
  const i = ingress('i', { 'x.test': { '/': 'a:80' } }, { class: 'sy' })
  const j = ingress('j', { 'y.test': { '/': 'b:80' } }, { class: 'sy' })
  const first = compiler.compile(objectsOf(ours, ...backends, i, j)).table
  const moved = slice('b', ['10.244.9.9@n1'], ['http:8080', 'admin:9090'])
  const rest = backends.filter((o) => !(o.kind === 'EndpointSlice' && serviceOf(o as EndpointSlice) === 'default/b'))
  const second = compiler.compile(objectsOf(ours, ...rest, moved, i, j)).table
  t.equal(findHost(second.hosts, 'x.test'), findHost(first.hosts, 'x.test'))
  t.not(findHost(second.hosts, 'y.test'), findHost(first.hosts, 'y.test'))
  t.same(second, new Compiler(options).compile(objectsOf(ours, ...rest, moved, i, j)).table)
  const third = compiler.compile(objectsOf(ours, ...rest, moved, i)).table
  t.notOk(third.endpoints.has('10.244.9.9:8080'))
  t.same(third, new Compiler(options).compile(objectsOf(ours, ...rest, moved, i)).table)
})

void test('any change may follow any other: the table is what a fresh compiler makes of the same objects', async (t) => {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000)
  t.comment(`TEST_SEED=${seed}`)
  const random = seeded(seed)
  const below = (n: number): number => Math.floor(random() * n)
  const authority = testAuthority()
  const pairs = [authority.issue('h0.test'), authority.issue('*.test')]
  const how = { ...options, defaultBackend: 'default/s0', defaultCertificate: 'default/c0' }
  const compiler = new Compiler(how)
  const now = new Map<string, KubeObject>()
  const put = (o: KubeObject): void => void now.set(`${o.kind} ${o.metadata.name}`, o)
  // The arrays of slices keep their identity as long as nothing in them changes, as the mirror's do.
  const lists = new Map<string, { of: readonly KubeObject[]; list: readonly EndpointSlice[] }>()
  const current = (): Objects => {
    const o = objectsOf(...now.values())
    const slices = new Map<string, readonly EndpointSlice[]>()
    for (const [key, list] of o.slices) {
      const before = lists.get(key)
      const kept = before !== undefined && before.list.length === list.length && list.every((s, i) => s === before.list[i]) ? before : { of: list, list }
      lists.set(key, kept)
      slices.set(key, kept.list)
    }
    return { ...o, slices }
  }
  for (let step = 0; step < 400; step++) {
    const i = below(6)
    const kind = below(10)
    if (kind < 4) {
      const rules: Record<string, Record<string, string>> = {}
      for (let r = below(3); r > 0; r--) rules[['h0.test', 'h1.test', '*.test', ''][below(4)]!] = { [['/', '/a', '=/a'][below(3)]!]: `s${below(4)}:${[80, 'http', 81][below(3)]}` }
      put(
        ingress(`i${i}`, rules, {
          ...(random() < 0.8 ? { class: random() < 0.9 ? 'sy' : 'other' } : {}),
          ...(random() < 0.3 ? { defaultBackend: `s${below(4)}:80` } : {}),
          ...(random() < 0.4 ? { tls: { [`c${below(3)}`]: ['h0.test'] } } : {}),
          ...age(below(4)),
        }),
      )
    } else if (kind === 4) now.delete(`Ingress i${i}`)
    else if (kind === 5) put(service(`s${below(4)}`, { clusterIP: `10.96.0.${below(9)}`, ports: random() < 0.5 ? ['http:80'] : ['http:80', 'b:81'] }))
    else if (kind === 6) now.delete(`Service s${below(4)}`)
    else if (kind === 7) {
      const n = below(4)
      put(
        slice(
          `s${n}`,
          Array.from({ length: below(3) }, () => `10.1.1.${below(4)}@n`),
          ['http:80'],
        ),
      )
    } else if (kind === 8) {
      const pair = pairs[below(2)]!
      if (random() < 0.3) now.delete(`Secret c${below(3)}`)
      else put(secret(`c${below(3)}`, { 'tls.crt': pair.cert, 'tls.key': pairs[below(2)]!.key }, 'kubernetes.io/tls'))
    } else if (random() < 0.5) put(ingressClass('sy', random() < 0.8 ? controllerName : 'else', random() < 0.5))
    else now.delete('IngressClass sy')
    const objects = current()
    const step_ = compiler.compile(objects)
    const fresh = new Compiler(how).compile(objects)
    const text = (p: { ingress: Ingress; reason: string; message: string }): string => `${p.ingress.metadata.name} ${p.reason} ${p.message}`
    if (!isDeepStrictEqual(step_.table, fresh.table) || !isDeepStrictEqual(step_.problems.map(text).sort(), fresh.problems.map(text).sort()) || !isDeepStrictEqual(step_.served, fresh.served)) {
      t.same(step_.table, fresh.table, `step ${step}`)
      t.same(step_.problems.map(text).sort(), fresh.problems.map(text).sort(), `step ${step}`)
      return
    }
  }
  t.pass('400 steps')
})

void test('certificates by name, wildcard and default; a bad Secret takes nobody down', async (t) => {
  const authority = testAuthority()
  const tls = (name: string, ...hosts: [string, ...string[]]): Secret => {
    const { cert, key } = authority.issue(...hosts)
    return secret(name, { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls')
  }
  const other = authority.issue('z.test')
  const { table, problems } = new Compiler({ ...options, defaultCertificate: 'default/dflt' }).compile(
    objectsOf(
      ours,
      ...backends,
      tls('one', 'x.test'),
      tls('star', '*.foo.test'),
      tls('dflt', 'dflt.test'),
      secret('bad', { 'tls.crt': other.cert, 'tls.key': authority.issue('q').key }, 'kubernetes.io/tls'),
      ingress('i', { 'x.test': { '/': 'a:80' } }, { class: 'sy', tls: { one: ['x.test'], star: ['*.foo.test'], bad: ['z.test'], gone: ['g.test'] } }),
    ),
  )
  const shown = (name: string | undefined): string | undefined => certificateFor(table.certificates, name)?.owner
  t.same(
    [shown('x.test'), shown('X.Test'), shown('a.foo.test'), shown('a.b.foo.test'), shown('z.test'), shown(undefined)],
    ['default/one', 'default/one', 'default/star', 'default/dflt', 'default/dflt', 'default/dflt'],
  )
  t.same(
    problems.map((p) => p.message),
    ['tls 2: Secret default/bad: the key does not belong to the certificate', 'tls 3: Secret default/gone does not exist'],
  )
})
