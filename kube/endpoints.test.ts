import { test } from 'tap'
import { candidates, categorize, policiesOf, type Policies } from './endpoints.ts'
import { service, slice } from './testing/builders.ts'

const cluster: Policies = { nodeName: 'n1', zone: 'a', internalPolicyLocal: false, externalPolicyLocal: false, externallyAccessible: false }
const internal: Policies = { ...cluster, internalPolicyLocal: true }
const external: Policies = { ...cluster, externalPolicyLocal: true, externallyAccessible: true }
const both: Policies = { ...external, internalPolicyLocal: true }

/** Endpoints by their last number, as builders write them; what comes out by the same numbers. `all` is left out where it is the cluster's. */
const cases: readonly {
  readonly name: string
  readonly given: readonly string[]
  readonly how: Policies
  readonly cluster: string
  readonly local?: string
  readonly all?: string
  readonly hasAny?: boolean
}[] = [
  { name: 'no endpoints', given: [], how: cluster, cluster: '', hasAny: false },
  { name: 'ready endpoints everywhere serve everybody', given: ['1@n1', '2@n2'], how: cluster, cluster: '1 2' },
  { name: 'an endpoint without a node serves everybody', given: ['1'], how: cluster, cluster: '1' },
  { name: 'what is not ready serves nobody', given: ['1@n1 notready', '2@n2'], how: cluster, cluster: '2' },
  { name: 'what ends does not serve while another is ready', given: ['1@n1 terminating', '2@n2'], how: cluster, cluster: '2' },
  { name: 'when everything ends, what still serves does', given: ['1@n1 terminating', '2@n2 gone', '3@n2 notready'], how: cluster, cluster: '1' },
  { name: 'nothing that serves', given: ['1@n1 gone', '2@n2 notready'], how: cluster, cluster: '', hasAny: false },
  { name: 'the cluster policy ignores where endpoints are', given: ['1@n2', '2@n3'], how: cluster, cluster: '1 2' },

  { name: 'zone hints keep to the zone', given: ['1@n1 forzone=a', '2@n2 forzone=b', '3@n3 forzone=a'], how: cluster, cluster: '1 3' },
  { name: 'zone hints are ignored when one is missing', given: ['1@n1 forzone=a', '2@n2'], how: cluster, cluster: '1 2' },
  { name: 'zone hints are ignored when none names our zone', given: ['1@n1 forzone=b', '2@n2 forzone=c'], how: cluster, cluster: '1 2' },
  { name: 'zone hints are ignored on a node without a zone', given: ['1@n1 forzone=a', '2@n2 forzone=b'], how: { ...cluster, zone: undefined }, cluster: '1 2' },
  { name: 'a hint for several zones counts for each', given: ['1@n1 forzone=b,a', '2@n2 forzone=b'], how: cluster, cluster: '1' },
  { name: 'a missing hint of an endpoint that is not ready does not matter', given: ['1@n1 forzone=a', '2@n2 forzone=b', '3@n2 notready'], how: cluster, cluster: '1' },
  { name: 'when all of our zone end, the hints are ignored: others are ready', given: ['1@n1 forzone=a terminating', '2@n2 forzone=b'], how: cluster, cluster: '2' },
  { name: 'when everything ends, hints do not matter', given: ['1@n1 forzone=a terminating', '2@n2 forzone=b terminating'], how: cluster, cluster: '1 2' },
  { name: 'node hints win over zone hints', given: ['1@n1 fornode=n1 forzone=a', '2@n2 fornode=n2 forzone=a'], how: cluster, cluster: '1' },
  { name: 'without one for our node, the zone decides', given: ['1@n2 fornode=n2 forzone=a', '2@n3 fornode=n3 forzone=b'], how: cluster, cluster: '1' },
  { name: 'node hints are ignored when one is missing', given: ['1@n1 fornode=n1', '2@n2'], how: cluster, cluster: '1 2' },

  { name: 'internal policy Local uses those of this node only', given: ['1@n1', '2@n2'], how: internal, cluster: '', local: '1', all: '1' },
  { name: 'internal policy Local without one here: some elsewhere', given: ['2@n2'], how: internal, cluster: '', local: '', all: '', hasAny: true },
  { name: 'internal policy Local falls back to what ends here and serves', given: ['1@n1 terminating', '2@n2'], how: internal, cluster: '', local: '1', all: '1' },
  { name: 'internal policy Local with nothing anywhere', given: ['1@n1 notready', '2@n2 gone'], how: internal, cluster: '', local: '', all: '', hasAny: false },
  { name: 'internal policy Local ignores hints', given: ['1@n1 forzone=b', '2@n2 forzone=b'], how: internal, cluster: '', local: '1', all: '1' },

  { name: 'external policy Local: the cluster inside, this node for the outside', given: ['1@n1', '2@n2'], how: external, cluster: '1 2', local: '1', all: '1 2' },
  { name: 'external policy Local without one here: the outside is dropped, not refused', given: ['2@n2'], how: external, cluster: '2', local: '', all: '2' },
  { name: 'external policy Local: one that ends here still serves the outside', given: ['1@n1 terminating', '2@n2'], how: external, cluster: '2', local: '1', all: '1 2' },
  { name: 'external policy Local: everything ends', given: ['1@n1 terminating', '2@n2 terminating'], how: external, cluster: '1 2', local: '1', all: '1 2' },
  { name: 'external policy Local with hints: here outside the zone is reached from outside only', given: ['1@n1 forzone=b', '2@n2 forzone=a'], how: external, cluster: '2', local: '1', all: '1 2' },
  { name: 'external policy Local means nothing while nobody gets in', given: ['1@n1', '2@n2'], how: { ...cluster, externalPolicyLocal: true }, cluster: '1 2' },
  { name: 'both policies Local: the cluster still for pods that ask an external address', given: ['1@n1', '2@n2'], how: both, cluster: '1 2', local: '1', all: '1 2' },
  { name: 'internal policy Local with a NodePort of policy Cluster', given: ['1@n1', '2@n2'], how: { ...internal, externallyAccessible: true }, cluster: '1 2', local: '1', all: '1 2' },
]

for (const { name, given, how, ...wanted } of cases) {
  test(name, async (t) => {
    const list = candidates(
      [
        slice(
          'demo/web',
          given.map((e) => `10.0.0.${e}`),
        ),
      ],
      '',
      'TCP',
    )
    const got = categorize(list, how)
    const text = (of: readonly { readonly address: string }[]): string => of.map((e) => e.address.split('.')[3]).join(' ')
    t.equal(text(got.cluster), wanted.cluster, 'cluster')
    t.equal(text(got.local), wanted.local ?? '', 'local')
    t.equal(text(got.all), wanted.all ?? wanted.cluster, 'all')
    t.equal(got.hasAny, wanted.hasAny ?? true, 'hasAny')
  })
}

test('endpoints come from the slices that have the port, under the number it has there', async (t) => {
  const list = candidates([slice('demo/web', ['10.0.0.1'], ['http:8080', 'dns:53/UDP']), slice('demo/web', ['10.0.0.2'], ['http:9090']), slice('demo/web', ['10.0.0.3'], ['other:1'])], 'http', 'TCP')
  t.strictSame(
    list.map((e) => `${e.address}:${e.port}`),
    ['10.0.0.1:8080', '10.0.0.2:9090'],
  )
  t.strictSame(candidates([slice('demo/web', ['10.0.0.1'], ['dns:53/UDP'])], 'dns', 'TCP'), [])
})

test('an endpoint in two slices counts once, in its better state', async (t) => {
  const list = candidates([slice('demo/web', ['10.0.0.1 notready']), slice('demo/web', ['10.0.0.1@n1'])], '', 'TCP')
  t.match(list, [{ address: '10.0.0.1', ready: true, nodeName: 'n1' }])
  t.equal(list.length, 1)
})

test('conditions left out mean ready', async (t) => {
  t.match(candidates([{ ...slice('demo/web', []), endpoints: [{ addresses: ['10.0.0.1'] }] }], '', 'TCP'), [{ ready: true, serving: true, terminating: false }])
})

test('a Service is accessible from outside by NodePort, external IP or load balancer', async (t) => {
  const here = { nodeName: 'n1', zone: undefined }
  t.notOk(policiesOf(service('a', { externalTrafficPolicy: 'Local' }), here).externallyAccessible)
  t.ok(policiesOf(service('a', { ports: ['80@30080'] }), here).externallyAccessible)
  t.ok(policiesOf(service('a', { externalIPs: ['192.0.2.1'] }), here).externallyAccessible)
  const ip = { ip: '192.0.2.2' }
  t.ok(policiesOf(service('a', { type: 'LoadBalancer' }, { status: { loadBalancer: { ingress: [ip] } } }), here).externallyAccessible)
  t.notOk(policiesOf(service('a', { type: 'LoadBalancer' }, { status: { loadBalancer: { ingress: [{ ...ip, ipMode: 'Proxy' }] } } }), here).externallyAccessible)
  t.notOk(policiesOf(service('a', {}, { status: { loadBalancer: { ingress: [ip] } } }), here).externallyAccessible)
})
