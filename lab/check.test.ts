import { test } from 'tap'
import { node, pod, service, slice } from '../kube/testing/builders.ts'
import { trials } from './check.ts'

test('what should work follows from the objects', async (t) => {
  const made = trials({
    nodes: [node('node1'), node('node2')],
    pods: [pod('demo/web', { ip: '10.244.0.2' }), pod('demo/starting'), pod('demo/host', { ip: '192.168.56.11', spec: { hostNetwork: true } })],
    services: [
      service('default/kubernetes', { clusterIPs: ['10.96.0.1'], ports: [443] }),
      service('demo/web', { clusterIPs: ['10.96.0.9'], ports: [80, '53/UDP'] }),
      service('demo/empty', { clusterIPs: ['10.96.0.8'], ports: [80] }),
      service('demo/headless', { clusterIPs: ['None'], ports: [80] }),
    ],
    slices: [slice('demo/web', ['10.244.0.2'], [80])],
  })
  t.strictSame(
    made.map((m) => `${m.place}: ${m.what}`),
    [
      'node1: node1 reaches the API by its ClusterIP',
      'node1: node1 reaches demo/web',
      'node2: node2 reaches the API by its ClusterIP',
      'node2: node2 reaches demo/web',
      'demo/web: demo/web finds the API by name',
      'node1: node1 reaches Service demo/web:80',
      'node2: node2 reaches Service demo/web:80',
    ],
  )
})
