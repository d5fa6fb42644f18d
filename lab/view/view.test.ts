import { test } from 'tap'
import type { EndpointSlice, Service } from '../../kube/objects.ts'
import { loads, parseConntrack, parseFlows, parseIpvs, parseSockets } from './flows.ts'
import { serveView } from './server.ts'

test('a connection is read out of what each kernel part prints', async (t) => {
  const conntrack = [
    'tcp      6 86398 ESTABLISHED src=10.244.0.5 dst=10.96.0.41 sport=40000 dport=80 src=10.244.1.3 dst=10.244.0.5 sport=8080 dport=40000 [ASSURED] mark=0 use=1',
    'tcp      6 110 TIME_WAIT src=10.244.0.5 dst=10.96.0.41 sport=40001 dport=80 src=10.244.1.4 dst=10.244.0.5 sport=8080 dport=40001 [ASSURED] use=1',
    'udp      17 25 src=fd00::5 dst=fd00:10:96::a sport=5000 dport=53 src=fd00::7 dst=fd00::5 sport=53 dport=5000 use=1',
    'tcp      6 86398 ESTABLISHED src=10.244.0.5 dst=10.244.1.3 sport=40000 dport=80 src=10.244.1.3 dst=10.244.0.5 sport=80 dport=40000 [ASSURED] use=1',
    'icmp     1 29 src=1.2.3.4 dst=1.2.3.5 type=8 code=0 id=1 src=1.2.3.5 dst=1.2.3.4 type=0 code=0 id=1',
  ].join('\n')
  t.strictSame(
    parseConntrack(conntrack).map((f) => `${f.protocol} ${f.to} ${f.endpoint} ${f.live}`),
    ['TCP 10.96.0.41:80 10.244.1.3:8080 true', 'TCP 10.96.0.41:80 10.244.1.4:8080 false', 'UDP [fd00:10:96::a]:53 [fd00::7]:53 false'],
    'what was not translated is nobody’s Service',
  )
  const ipvs = 'Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\nTCP 0AF40005 9C40 0A600029 0050 0AF40103 1F90 ESTABLISHED     894\n'
  t.strictSame(
    parseIpvs(ipvs).map((f) => `${f.to} ${f.endpoint} ${f.live}`),
    ['10.96.0.41:80 10.244.1.3:8080 true'],
  )
  t.strictSame(
    parseSockets('0 0 192.168.56.11:5000 10.244.1.3:8080\n0 0 [::ffff:1.1.1.1]:1 [::ffff:10.244.1.3]:81\n').map((f) => f.endpoint),
    ['10.244.1.3:8080', '10.244.1.3:81'],
  )
  const all = `${conntrack}\n---\n${ipvs}---\n0 0 192.168.56.11:5000 10.244.1.3:8080\n`
  t.strictSame(
    [false, true].map((carries) => parseFlows(all, carries).length),
    [4, 5],
  )
})

test('each endpoint gets its live connections, and how many are new', async (t) => {
  const service = { metadata: { name: 'a', namespace: 'n' }, spec: { clusterIP: '10.96.0.41', ports: [{ port: 80, nodePort: 30_080 }] } } as unknown as Service
  const slice = {
    metadata: { name: 'a-1', namespace: 'n', labels: { 'kubernetes.io/service-name': 'a' } },
    endpoints: [{ addresses: ['10.244.1.3'], conditions: { ready: true }, targetRef: { kind: 'Pod', namespace: 'n', name: 'p' } }],
    ports: [{ port: 8080 }],
  } as unknown as EndpointSlice
  const flow = (key: string, to: string | undefined, live = true) => ({ key, protocol: 'TCP' as const, to, endpoint: '10.244.1.3:8080', live })
  const flows = [flow('1', '10.96.0.41:80'), flow('2', '10.96.0.41:80', false), flow('3', '192.168.56.11:30080'), flow('4', undefined), flow('5', '10.96.0.42:80')]
  const [found] = loads([service], [slice], flows, new Set(['1']), 2)
  t.strictSame(found, { name: 'n/a', address: '10.96.0.41', ports: ['80'], endpoints: [{ address: '10.244.1.3:8080', pod: 'n/p', ready: true, live: 3, rate: 1.5 }] })
  t.equal(loads([service], [slice], flows, undefined, 2)[0]!.endpoints[0]!.rate, 0, 'at the first look nothing is known to be new')
})

test('the page is for this machine, and for nobody else’s page', async (t) => {
  const over = new AbortController()
  t.teardown(() => over.abort())
  const port = await serveView(0, { follow: () => {}, explain: async (from, to) => `${from} ${to}` }, over.signal)
  const { request } = await import('node:http')
  const ask = (path: string, headers: Readonly<Record<string, string>> = {}, method = 'GET'): Promise<string> =>
    new Promise((resolve, reject) => {
      request({ host: '127.0.0.1', port, path, headers, method, agent: false }, (answer) => {
        let body = ''
        answer.setEncoding('utf8').on('data', (text: string) => (body += text))
        answer.on('end', () => resolve(`${answer.statusCode} ${String(answer.headers['content-security-policy']).startsWith("default-src 'none'")} ${body}`))
      })
        .on('error', reject)
        .end()
    })
  t.match(await ask('/'), /^200 true <!doctype html>/)
  t.match(await ask('/', { host: 'evil.example:80' }), /^403 true this page is not called/)
  t.match(await ask('/', { 'sec-fetch-site': 'cross-site' }), /^403 true another page/)
  t.match(await ask('/', {}, 'POST'), /^403 true only GET/)
  t.equal(await ask('/explain?from=pod/a/b&to=service/a/b:80'), '200 true pod/a/b service/a/b:80')
  for (const path of ['/explain', '/explain?from=--live&to=tcp/1.2.3.4:5', '/explain?from=pod/a/b&to=-o']) t.match(await ask(path), /^400 /, path)
  t.match(await ask('/nothing'), /^404 /)
})
