import { readFileSync } from 'node:fs'
import { test } from 'tap'
import { node, pod, service, slice } from '../kube/testing/builders.ts'
import type { Cidr } from '../lib/ip.ts'
import { explain, text, type Question } from './explain.ts'
import { flows, groups, nodes, optionSets, senderIp } from './testing/flows.ts'

const question = (from: string, to: string): Question => ({
  services: [service('demo/web', { clusterIP: '10.96.0.41', type: 'NodePort', externalTrafficPolicy: 'Local', ports: ['http:80->8080@30080'] }), service('demo/empty', { clusterIP: '10.96.0.42' })],
  slices: [slice('demo/web', ['10.244.0.1@n1', '10.244.1.1@n2', '10.244.1.2@n2 notready', '10.244.1.3@n2 gone'], ['http:8080'])],
  nodes: [node('n1', { ip: '192.168.56.11' }), node('n2', { ip: '192.168.56.12' })],
  pods: [pod('demo/client', { ip: '10.244.0.9', node: 'n1' })],
  options: { node: 'n1', clusterCidrs: ['10.244.0.0/16' as Cidr], serviceCidrs: ['10.96.0.0/16' as Cidr] },
  from,
  to,
})

test('a pod to a cluster IP: the port, the endpoints and why, the rules', async (t) => {
  const e = await explain(question('pod/demo/client', 'tcp/10.96.0.41:80'))
  t.equal(e.node, 'n1')
  t.equal(e.service?.port, 'demo/web:http')
  t.same(
    e.endpoints.map((x) => [x.address, x.used, x.why]),
    [
      ['10.244.0.1', true, 'ready'],
      ['10.244.1.1', true, 'ready'],
      ['10.244.1.2', false, 'not ready'],
      ['10.244.1.3', false, 'ending, and does not serve'],
    ],
  )
  t.same(e.modes[0]?.ways.map((w) => `${w.destination}:${w.destinationPort}`).sort(), ['10.244.0.1:8080', '10.244.1.1:8080'])
  t.match(text(e), /50\.0 % {2}delivered to 10\.244\.0\.1:8080/)
})

test('a Service by its name, from outside, by NodePort: policy Local', async (t) => {
  t.equal((await explain(question('pod/demo/client', 'service/demo/web:http'))).service?.front, 'tcp/10.96.0.41:80')
  const e = await explain(question('198.51.100.7', 'tcp/192.168.56.11:30080'))
  t.match(e, { outcome: { kind: 'forward', masquerade: 'if it meets itself' } })
  t.same(
    e.endpoints.filter((x) => x.used).map((x) => x.address),
    ['10.244.0.1'],
  )
  t.match(e.endpoints[1]?.why, /runs on n2/)
})

test('what is refused and what is nobody’s, in every mode', async (t) => {
  const refused = await explain(question('node/n2', 'tcp/10.96.0.42:80'))
  t.match(refused, { node: 'n2', outcome: { kind: 'reject' } })
  t.same(
    refused.modes.map((m) => [m.name, m.source, m.error, m.ways.map((w) => [w.end, w.by])]),
    ['nftables', 'iptables', 'ipvs', 'userspace'].map((name) => [name, 'rendered', undefined, [['rejected', 'tcp-reset']]]),
  )
  const nobody = await explain(question('node/n2', 'tcp/10.99.0.42:80'))
  t.equal(nobody.service, undefined)
  for (const m of nobody.modes) t.match(m, { ways: [{ end: 'delivered', translated: false }] }, m.name)
  t.match(text(nobody), /no Service’s address/)
})

test('every mode is followed rule by rule to the endpoints', async (t) => {
  const { modes } = await explain(question('198.51.100.7', 'tcp/192.168.56.11:30080'))
  for (const m of modes) {
    t.same(
      m.ways.map((w) => `${w.destination}:${w.destinationPort}`),
      ['10.244.0.1:8080'],
      m.name,
    )
    t.ok(m.ways[0]!.path.length >= 2, `${m.name}: by rules`)
  }
  for (const [i, table] of [
    [2, 'ipvs'],
    [3, 'process'],
  ] as const)
    t.ok(
      modes[i]?.ways[0]?.path.some((s) => s.table === table),
      table,
    )
})

test('ends that cannot be found are named', async (t) => {
  for (const [from, to, why] of [
    ['pod/demo/nobody', 'tcp/10.96.0.41:80', 'there is no Pod demo/nobody'],
    ['node/n9', 'tcp/10.96.0.41:80', 'there is no Node n9'],
    ['somewhere', 'tcp/10.96.0.41:80', 'FROM: expected'],
    ['pod/demo/client', '10.96.0.41:80', 'TO: expected'],
    ['pod/demo/client', 'tcp/[fd00::1]:80', 'has no IPv6 address'],
    ['pod/demo/client', 'service/demo/web:https', 'has no port "https"'],
  ] as const)
    await t.rejects(explain(question(from, to)), { message: new RegExp(why) }, why)
})

test('what it says is what the flows say', async (t) => {
  for (const [name, { services, slices }] of groups()) {
    for (const flow of flows.filter((f) => (f.options ?? 'usual') === name && f.from !== 'here' && !f.from.startsWith('pod'))) {
      const e = await explain({ services, slices, nodes, pods: [], options: optionSets[name], from: senderIp(flow.from, flow.to), to: flow.to, modes: ['iptables'] })
      const said = e.outcome === undefined ? 'untouched' : e.outcome.kind === 'forward' ? e.endpoints.filter((x) => x.used).length : e.outcome.kind
      const expected = typeof flow.arrives === 'string' ? flow.arrives : flow.arrives.length
      // Of addresses that no front has, the rules decide: another port of a cluster IP, or nobody's cluster IP.
      if (said === 'untouched' && (expected === 'rejected' || expected === 'dropped'))
        t.ok(
          e.modes[0]?.ways.every((w) => w.end === expected),
          flow.name,
        )
      else t.equal({ reject: 'rejected', drop: 'dropped' }[said as string] ?? said, expected, flow.name)
    }
  }
})

test('the fields of -o json are those that docs/proxy.md names', async (t) => {
  const fields = (v: unknown, path = ''): string[] =>
    Array.isArray(v)
      ? v.flatMap((x) => fields(x, `${path}[]`))
      : typeof v === 'object' && v !== null
        ? [...(path === '' ? [] : [path]), ...Object.entries(v).flatMap(([k, x]) => fields(x, path === '' ? k : `${path}.${k}`))]
        : [path]
  const page = readFileSync(new URL('../docs/proxy.md', import.meta.url), 'utf8')
  const table = page.slice(page.indexOf('| field | is |'), page.indexOf('## Running it'))
  const e = await explain(question('pod/demo/client', 'service/demo/web:http'))
  for (const field of new Set(fields(JSON.parse(JSON.stringify(e))))) for (const name of field.replaceAll('[]', '').split('.')) t.match(table, new RegExp(`\\b${name}\\b`), field)
})
