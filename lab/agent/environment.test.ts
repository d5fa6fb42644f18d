import { test } from 'tap'
import type { Container } from '../../kube/objects.ts'
import { pod } from '../../kube/testing/builders.ts'
import { environment, expand, references, type Sources } from './environment.ts'

const sources: Sources = {
  podIPs: ['10.244.0.2', 'fd00::2'],
  hostIPs: ['192.168.56.11'],
  configMap: (name) => (name === 'settings' ? { colour: 'blue' } : undefined),
  secret: (name) => (name === 'key' ? { token: 's3cret' } : undefined),
  base: { PATH: '/bin' },
}
const web = pod('demo/web', { node: 'node1', labels: { app: 'web' } })
const made = (rest: Partial<Container>) => environment(web, { name: 'main', ...rest }, sources)

test('an environment has what the Pod, ConfigMaps and Secrets say', async (t) => {
  const env = made({
    envFrom: [{ prefix: 'C_', configMapRef: { name: 'settings' } }, { secretRef: { name: 'none', optional: true } }],
    env: [
      { name: 'A', value: 'x' },
      { name: 'B', value: '$(A)y $$(A) $(NONE)' },
      { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
      { name: 'IPS', valueFrom: { fieldRef: { fieldPath: 'status.podIPs' } } },
      { name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
      { name: 'APP', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
      { name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'key', key: 'token' } } },
      { name: 'GONE', valueFrom: { configMapKeyRef: { name: 'settings', key: 'size', optional: true } } },
    ],
  })
  t.strictSame({ ...env }, { PATH: '/bin', C_colour: 'blue', A: 'x', B: 'xy $(A) $(NONE)', IP: '10.244.0.2', IPS: '10.244.0.2,fd00::2', NODE: 'node1', APP: 'web', TOKEN: 's3cret' })
})

test('what is missing is named', async (t) => {
  t.throws(() => made({ env: [{ name: 'A', valueFrom: { secretKeyRef: { name: 'none', key: 'a' } } }] }), { message: 'Secret "none" not found' })
  t.throws(() => made({ env: [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'settings', key: 'a' } } }] }), { message: "couldn't find key a in ConfigMap demo/settings" })
  t.throws(() => made({ env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'spec.none' } } }] }), { message: 'env: the field spec.none cannot be had here' })
  t.throws(() => made({ envFrom: [{ configMapRef: { name: 'none' } }] }), { message: 'ConfigMap "none" not found' })
})

test('what must be asked for beforehand is known', async (t) => {
  t.strictSame(references({ name: 'main', envFrom: [{ secretRef: { name: 's' } }], env: [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'c', key: 'k' } } }] }), {
    configMaps: ['c'],
    secrets: ['s'],
  })
})

test('references in commands are replaced as Kubernetes does', async (t) => {
  for (const [text, wanted] of [
    ['$(A)', '1'],
    ['$$(A)', '$(A)'],
    ['$(B)', '$(B)'],
    ['$A', '$A'],
    ['$(A', '$(A'],
    ['a$$b', 'a$b'],
  ] as const)
    t.equal(expand(text, { A: '1' }), wanted, text)
})
