import { test } from 'tap'
import { ingress, node, pod, service, slice } from '../kube/testing/builders.ts'
import { renderGraph } from './graph.ts'

test('a picture shows what there is and which leads where', async (t) => {
  const web = pod('demo/web', { ip: '10.244.0.2', node: 'node1' })
  const made = slice('demo/web', ['10.244.0.2'], [80])
  const svg = renderGraph('Lab <x>', {
    nodes: [node('node1', { ip: '192.168.56.11', zone: 'east' }), node('node2', { ready: false })],
    pods: [web, pod('demo/late', { node: 'node2' })],
    services: [service('demo/web', { clusterIP: '10.96.0.9', ports: [80] })],
    slices: [{ ...made, endpoints: made.endpoints!.map((e) => ({ ...e, targetRef: { kind: 'Pod', namespace: 'demo', name: 'web' } })) }],
    ingresses: [ingress('demo/web', { 'a.example.com': { '/': 'web:80' } })],
  })
  t.match(svg, 'Lab &lt;x&gt;', 'text is text')
  for (const text of ['node1 (east) 192.168.56.11', 'node2  (not ready)', '>demo/web<', '10.244.0.2', '10.96.0.9:80', 'a.example.com/']) t.ok(svg.includes(text), text)
  t.equal(svg.match(/class="way"/g)?.length, 2, 'from the Ingress to the Service, from the Service to its Pod')
  t.equal(svg.match(/class="pod dim"/g)?.length, 1, 'what is not ready is dim')
})
