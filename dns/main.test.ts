import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { testAuthority } from '../kube/testing/certificates.ts'
import { FakeApi } from '../kube/testing/api.ts'
import { namespace, node, service, slice } from '../kube/testing/builders.ts'
import { impatient, wrongs } from '../kube/testing/wrongs.ts'
import { endpointslices } from '../kube/resources.ts'
import type { EndpointSlice, KubeObject } from '../kube/objects.ts'
import { silent } from '../lib/log.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import { Forwarder, forwardDefaults } from './forward.ts'
import { printAnswer } from './testing/site.ts'
import { a, upstream } from './testing/upstream.ts'
import { fold, nameOf } from './wire/name.ts'
import { typeNumber } from './wire/types.ts'

const launcher = new URL('../switchyard', import.meta.url).pathname
const api = service('shop/api', { clusterIP: '10.96.8.20', ports: ['http:80'] })
const many = Array.from({ length: 100 }, (_, i) => `10.244.9.${i}`)
const objects: readonly KubeObject[] = [namespace('kube-system'), namespace('shop'), node('n1'), api, service('shop/big', { clusterIP: 'None' }), slice('shop/big', many)]

interface Running {
  readonly port: number
  readonly status: number
  readonly child: ChildProcess
  readonly lines: string[]
  ask(name: string, type?: string): Promise<string>
  /** Until the answer is this one. */
  becomes(answer: string | RegExp, name: string, type?: string): Promise<string>
  get(path: string): Promise<{ readonly code: number; readonly body: string }>
  end(): Promise<{ readonly code: number | null; readonly ms: number }>
}

/** What `look` finds, once it finds something; undefined when it has not for very long, or `still` says that it never will. */
async function until<T>(look: () => T | undefined | Promise<T | undefined>, still: () => boolean = () => true): Promise<T | undefined> {
  const late = performance.now() + 60_000
  for (;;) {
    const found = await look()
    if (found !== undefined || performance.now() > late || !still()) return found
    await new Promise((r) => setTimeout(r, 10))
  }
}

async function start(t: Test, kubeconfig: string | undefined, more: readonly string[] = []): Promise<Running> {
  const child = spawn(
    launcher,
    [
      'dns',
      ...(kubeconfig === undefined ? [] : ['--kubeconfig', kubeconfig]),
      '--listen',
      '127.0.0.1:0',
      '--status',
      '127.0.0.1:0',
      '--resolv-conf',
      '/dev/null',
      '--sockets',
      more.includes('--workers') ? 'epoll' : 'node',
      ...more,
    ],
    {
      stdio: ['ignore', 'inherit', 'pipe'],
    },
  )
  const lines: string[] = []
  let rest = ''
  child.stderr!.on('data', (b: Buffer) => {
    rest += b.toString()
    const all = rest.split('\n')
    rest = all.pop()!
    lines.push(...all)
  })
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  t.teardown(async () => {
    if (child.exitCode === null) child.kill('SIGKILL')
    await exited
  })
  const ready = await until(
    () => lines.find((l) => l.includes('"ready"')),
    () => child.exitCode === null,
  )
  const [port, status] = ['listen', 'status'].map((what) => Number(new RegExp(`"${what}":"[^",]*:(\\d+)`).exec(ready ?? '')?.[1] ?? 0)) as [number, number]
  const driver = openNode()
  const forwarder = new Forwarder(driver, { ...forwardDefaults, maxFails: 0, failover: new Set(), tryTimeout: 2000, timeout: 6000, upstreams: [{ host: '127.0.0.1', port }] }, silent)
  const ask = async (name: string, type = 'A'): Promise<string> => printAnswer(await forwarder.ask({ name: fold(nameOf(name)), type: typeNumber(type)!, dnssec: false, checkingDisabled: false }))
  const running: Running = {
    port,
    status,
    child,
    lines,
    ask,
    becomes: async (answer, name, type) => {
      const late = performance.now() + 60_000
      for (;;) {
        const got = await ask(name, type)
        if ((typeof answer === 'string' ? got === answer : answer.test(got)) || performance.now() > late) return got
        await new Promise((r) => setTimeout(r, 20))
      }
    },
    get: async (path) => {
      const response = await fetch(`http://127.0.0.1:${status}${path}`)
      return { code: response.status, body: await response.text() }
    },
    end: async () => {
      const began = performance.now()
      child.kill('SIGTERM')
      const code = await exited
      return { code, ms: performance.now() - began }
    },
  }
  t.teardown(async () => {
    forwarder.close()
    await driver.close()
  })
  return running
}

const ready = 'NOERROR\napi.shop.svc.cluster.local. 5 A 10.96.8.20'
const folder = (t: Test): string => {
  const path = mkdtempSync(join(tmpdir(), 'switchyard-dns-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

for (const how of [[], ['--workers', '2', '--nap', '50us']])
  test(`a server from its first line to its last; ${how.length === 0 ? 'dgram' : 'workers'}`, async (t) => {
    const fake = await FakeApi.start()
    t.teardown(() => fake.close())
    fake.putAll(objects)
    const s = await start(t, fake.kubeconfig(), ['--node', 'n1', ...how])
    t.equal(await s.becomes(ready, 'api.shop.svc.cluster.local'), ready)
    t.equal(s.lines.filter((l) => l.includes('"ready"')).length, 1, 'one ready line')
    t.match(s.lines[0], /"listen":"127\.0\.0\.1:\d+"/)
    for (const path of ['/healthz', '/livez', '/readyz', '/health', '/ready']) t.equal((await s.get(path)).code, 200, path)
    t.equal(await s.ask('nobody.shop.svc.cluster.local'), 'NXDOMAIN')
    t.equal(await s.ask('example.com'), 'SERVFAIL', 'without uplink')

    fake.put(service('shop/fresh', { clusterIP: '10.96.8.30' }))
    t.match(await s.becomes(/10\.96\.8\.30/, 'fresh.shop.svc.cluster.local'), /10\.96\.8\.30/)

    const own = async (): Promise<EndpointSlice | undefined> => fake.read(endpointslices, 'kube-system/kube-dns-n1')
    const becomes = async (f: (slice: EndpointSlice | undefined) => boolean): Promise<EndpointSlice | undefined> => {
      await until(async () => (f(await own()) ? true : undefined))
      return own()
    }
    const slice1 = await becomes((now) => now?.endpoints[0]?.conditions?.ready === true)
    t.match(slice1, {
      metadata: { labels: { 'kubernetes.io/service-name': 'kube-dns', 'endpointslice.kubernetes.io/managed-by': 'dns.switchyard.dev' }, ownerReferences: [{ kind: 'Node', name: 'n1' }] },
      addressType: 'IPv4',
      endpoints: [{ conditions: { ready: true }, nodeName: 'n1' }],
      ports: [
        { name: 'dns', protocol: 'UDP', port: s.port },
        { name: 'dns-tcp', protocol: 'TCP', port: s.port },
        { name: 'metrics', protocol: 'TCP' },
      ],
    })
    fake.put({ ...slice1!, endpoints: [{ addresses: ['10.9.9.9'], conditions: { ready: true } }] } as KubeObject)
    t.match(await becomes((now) => now?.endpoints[0]?.addresses[0] !== '10.9.9.9'), { endpoints: [{ nodeName: 'n1' }] }, 'put right when somebody changed it')
    fake.remove((await own())!)
    t.ok(await becomes((now) => now !== undefined), 'and made again when somebody deleted it')
    await becomes((now) => now?.endpoints[0]?.conditions?.ready === true)

    const metrics = (await s.get('/metrics')).body
    for (const line of [/coredns_dns_requests_total\{.*type="A"\} \d/, /coredns_dns_responses_total\{.*rcode="NXDOMAIN",plugin="kubernetes"\} [1-9]/, /switchyard_dns_table_stale 0/])
      t.match(metrics, line)

    const end = await s.end()
    t.equal(end.code, 0)
    t.comment(`ended after ${Math.round(end.ms)} ms`)
    t.equal((await own())?.endpoints[0]?.conditions?.ready, false, 'and says so in its slice')
  })

const noDig = spawnSync('dig', ['-v']).error !== undefined ? 'dig (package dnsutils) is not installed' : false
for (const how of [[], ['--workers', '2']])
  test(`dig finds everything it should; ${how.length === 0 ? 'dgram' : 'workers'}`, { skip: noDig }, async (t) => {
    const fake = await FakeApi.start()
    t.teardown(() => fake.close())
    fake.putAll(objects)
    const s = await start(t, fake.kubeconfig(), how)
    await s.becomes(ready, 'api.shop.svc.cluster.local')
    const dig = (...args: readonly string[]): string => spawnSync('dig', ['@127.0.0.1', '-p', String(s.port), '+time=2', '+tries=1', ...args], { encoding: 'utf8' }).stdout.trim()
    t.equal(dig('+short', 'api.shop.svc.cluster.local'), '10.96.8.20')
    t.equal(dig('+short', '+tcp', 'api.shop.svc.cluster.local'), '10.96.8.20')
    t.equal(dig('+short', '+search', '+domain=shop.svc.cluster.local', 'api'), '10.96.8.20', '+search')
    t.equal(dig('+short', '_http._tcp.api.shop.svc.cluster.local', 'SRV'), '0 100 80 api.shop.svc.cluster.local.')
    t.equal(dig('+short', '-x', '10.96.8.20'), 'api.shop.svc.cluster.local.')
    t.equal(dig('+short', 'dns-version.cluster.local', 'TXT'), '"1.1.0"')
    t.equal(dig('+short', 'big.shop.svc.cluster.local').split('\n').length, 100, 'cut over UDP, whole over TCP')
    t.match(dig('+noall', '+comments', 'api.shop.svc.cluster.local', 'AAAA'), /status: NOERROR.*\n.*qr aa rd ra.*ANSWER: 0, AUTHORITY: 1/)
    t.match(dig('+noall', '+comments', '+edns=1', '+noednsneg', 'api.shop.svc.cluster.local'), /status: BADVERS/)
    t.match(dig('+noall', '+comments', 'cluster.local', 'AXFR'), /Transfer failed|REFUSED/)
    t.match(dig('+noall', '+comments', 'version.bind', 'TXT', 'CH'), /status: REFUSED/)
    t.match(dig('+noall', '+comments', '+opcode=status', 'cluster.local'), /status: NOTIMP/)
    t.notMatch(dig('+cookie', 'api.shop.svc.cluster.local'), /COOKIE/, 'cookies are not sent back')
    t.equal((await s.end()).code, 0)
  })

test('whatever the API server does, names come right again', async (t) => {
  const fake = await FakeApi.start()
  t.teardown(() => fake.close())
  fake.putAll(objects)
  fake.misbehave({ trouble: { code: 500 }, times: 3 })
  fake.patience = impatient
  const s = await start(t, fake.kubeconfig())
  t.match(await s.ask('nobody.shop.svc.cluster.local'), /SERVFAIL|NXDOMAIN/, 'before everything was read: no denial')
  t.equal(await s.becomes(ready, 'api.shop.svc.cluster.local'), ready, 'after errors at the start')
  let n = 40
  for (const wrong of wrongs) {
    const what = wrong.name
    wrong.begin(fake)
    n++
    fake.remove(service(`shop/n${n - 1}`))
    fake.put(service(`shop/n${n}`, { clusterIP: `10.96.8.${n}` }))
    wrong.meanwhile?.(fake)
    t.match(await s.becomes(new RegExp(`10\\.96\\.8\\.${n}`), `n${n}.shop.svc.cluster.local`), new RegExp(`10\\.96\\.8\\.${n}`), what)
    t.equal(await s.becomes('NXDOMAIN', `n${n - 1}.shop.svc.cluster.local`), 'NXDOMAIN', `${what}: what was deleted meanwhile is gone`)
    t.equal(await s.ask('api.shop.svc.cluster.local'), ready, `${what}: and the rest is answered all the time`)
    fake.behave()
  }
  t.equal((await s.end()).code, 0)
})

test('a kept table answers while there is no API server', async (t) => {
  const state = folder(t)
  const fake = await FakeApi.start()
  fake.putAll(objects)
  const kubeconfig = join(state, 'kubeconfig')
  writeFileSync(kubeconfig, fake.kubeconfigText())
  const first = await start(t, kubeconfig, ['--state', state])
  await first.becomes(ready, 'api.shop.svc.cluster.local')
  await first.end()
  await fake.close()
  const second = await start(t, kubeconfig, ['--state', state])
  t.equal(await second.becomes(ready, 'api.shop.svc.cluster.local'), ready)
  t.equal(await second.ask('nobody.shop.svc.cluster.local'), 'NXDOMAIN')
  t.equal((await second.get('/readyz')).code, 200)
  t.match((await second.get('/metrics')).body, /switchyard_dns_table_stale 1/)
  await second.end()
  const third = await start(t, kubeconfig, ['--state', state, '--require-fresh'])
  t.equal((await third.get('/readyz')).code, 503, '--require-fresh')
  await third.end()
  const none = await start(t, kubeconfig)
  t.equal(await none.ask('api.shop.svc.cluster.local'), 'SERVFAIL', 'without one nothing is denied')
  t.equal((await none.get('/ready')).code, 503)
  t.equal((await none.end()).code, 0)
})

for (const how of [[], ['--workers', '2']])
  test(`a new Corefile is taken without a lost question, a bad one is not; ${how.length === 0 ? 'dgram' : 'workers'}`, async (t) => {
    const fake = await FakeApi.start()
    t.teardown(() => fake.close())
    fake.putAll(objects)
    const up = await upstream((m) => ({ answers: [{ ...a('x', '10.7.7.7'), name: m.questions[0]!.name }] }))
    t.teardown(() => up.close())
    const path = join(folder(t), 'Corefile')
    const corefile = (ttl: number): string => `. {\n errors\n reload 150ms\n kubernetes cluster.local {\n ttl ${ttl}\n }\n forward . 127.0.0.1:${up.port}\n cache 30\n}\n`
    writeFileSync(path, corefile(5))
    const s = await start(t, fake.kubeconfig(), ['--config', path, ...how])
    await s.becomes(ready, 'api.shop.svc.cluster.local')
    t.match(await s.ask('example.com'), /10\.7\.7\.7/)
    let asking = true
    let lost = 0
    const load = (async () => {
      while (asking) if (!(await s.ask('api.shop.svc.cluster.local')).startsWith('NOERROR')) lost++
    })()
    writeFileSync(path, corefile(77))
    t.match(await s.becomes(/ 77 A /, 'api.shop.svc.cluster.local'), / 77 A /)
    writeFileSync(path, `${corefile(99)}nonsense {\n what\n}\n`)
    const late = performance.now() + 60_000
    while (!s.lines.some((l) => l.includes('what: no such directive')) && performance.now() < late) await new Promise((r) => setTimeout(r, 20))
    t.ok(
      s.lines.some((l) => l.includes(`${path}:11: what: no such directive`)),
      'said with its line',
    )
    t.match(await s.ask('api.shop.svc.cluster.local'), / 77 A /)
    asking = false
    await load
    t.equal(lost, 0)
    t.equal((await s.end()).code, 0)
  })

test('what cannot work is said in a sentence', async (t) => {
  const fake = await FakeApi.start()
  t.teardown(() => fake.close())
  const taken = net.createServer()
  await new Promise<void>((r) => taken.listen(0, '127.0.0.1', r))
  t.teardown(() => taken.close())
  const { port } = taken.address() as net.AddressInfo
  const bad = join(folder(t), 'Corefile')
  writeFileSync(bad, '. {\n errrors\n}\n')
  for (const [args, code, words] of [
    [['--listen', `127.0.0.1:${port}`, '--status', '127.0.0.1:0'], 1, new RegExp(`--listen ADDR:PORT: .*127\\.0\\.0\\.1:${port}: EADDRINUSE`)],
    [['--listen', '127.0.0.1:0', '--status', `127.0.0.1:${port}`], 1, new RegExp(`127\\.0\\.0\\.1:${port}.*in use.*--status`)],
    [['--listen', 'nowhere'], 2, /flag --listen: expected ADDR:PORT/],
    [['--config', bad, '--listen', '127.0.0.1:0', '--status', '127.0.0.1:0'], 2, /Corefile:2: errrors: no such directive, did you mean errors\?/],
    [['--lisen', 'x'], 2, /unknown flag --lisen, did you mean --listen\?/],
  ] as const) {
    const child = spawn(launcher, ['dns', '--kubeconfig', fake.kubeconfig(), '--sockets', 'node', ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (b: Buffer) => (said += b.toString()))
    const exit = await new Promise<number | null>((r) => child.once('exit', r))
    t.equal(exit, code, args.join(' '))
    t.match(said, words)
  }
})

test('the Corefile says where the API server is, and who to be there', async (t) => {
  const ca = await testAuthority()
  const [server, client] = [await ca.server(), await ca.client('system:dns')]
  const fake = await FakeApi.start({ tls: { ...server, ca: ca.cert, requestCert: true } })
  t.teardown(() => fake.close())
  fake.putAll(objects)
  const path = folder(t)
  for (const [name, text] of Object.entries({ 'ca.pem': ca.cert, 'cert.pem': client.cert, 'key.pem': client.key })) writeFileSync(join(path, name), text)
  const url = /https:[^"\s]+/.exec(fake.kubeconfigText())![0]
  writeFileSync(join(path, 'Corefile'), `. {\n kubernetes cluster.local {\n endpoint ${url}\n tls ${path}/cert.pem ${path}/key.pem ${path}/ca.pem\n }\n}\n`)
  const s = await start(t, undefined, ['--config', join(path, 'Corefile')])
  t.equal(await s.becomes(ready, 'api.shop.svc.cluster.local'), ready)
  t.equal((await s.end()).code, 0)
})
