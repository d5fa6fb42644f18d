import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { test } from 'tap'
import { start } from '../../controlplane/testing/plane.ts'
import { connect } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { inside } from '../../lab/testing/inside.ts'
import { account, containers, startPart } from '../testing/parts.ts'

inside(import.meta.filename)

test('the proxy forwards with no right but its ClusterRole, from the ConfigMap of kube-proxy, and cleans up', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'switchyard-manifests-'))
  const plane = await start(join(dir, 'data'))
  const admin = connect(await loadCredentials(plane.kubeconfig))
  const credentials = join(dir, 'kubeconfig.conf')
  writeFileSync(credentials, await account(admin, 'proxy', plane.secure, readFileSync(join(dir, 'data/ca.crt'), 'utf8')), { mode: 0o600 })
  const config = join(dir, 'config.conf')
  // As kubeadm writes it.
  writeFileSync(
    config,
    `apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nbindAddress: 0.0.0.0\nclientConnection:\n  acceptContentTypes: ""\n  burst: 0\n  contentType: ""\n  kubeconfig: ${credentials}\n  qps: 0\nclusterCIDR: 10.244.0.0/16\nmode: nftables\nmetricsBindAddress: 127.0.0.1:10249\n`,
  )
  await admin.raw('POST', '/api/v1/nodes', { body: { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node1' } } })
  const words = (name: string): string[] =>
    containers('proxy')
      .find((c) => c.name === name)!
      .args!.map((a) => a.replace('/var/lib/kube-proxy/config.conf', config).replace('$(NODE_NAME)', 'node1'))
  const switches = startPart(words('switches'))
  await new Promise((resolve) => switches.process.once('close', resolve))
  t.equal(switches.process.exitCode, 0, `--init-only ends by itself: ${switches.said()}`)
  const proxy = startPart(words('proxy'))
  await proxy.says('"ready"')
  await admin.raw('POST', '/api/v1/namespaces/default/services', { body: { apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' }, spec: { clusterIP: '10.96.7.7', ports: [{ port: 80 }] } } })
  await admin.raw('POST', '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', {
    body: {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: 'a-1', labels: { 'kubernetes.io/service-name': 'a' } },
      addressType: 'IPv4',
      endpoints: [{ addresses: ['127.0.0.1'] }],
      ports: [{ name: '', port: Number(new URL(plane.url).port), protocol: 'TCP' }],
    },
  })
  const rules = (): string => execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' })
  for (let i = 0; i < 600 && !rules().includes('10.96.7.7'); i++) await wait(50)
  t.match(rules(), /10\.96\.7\.7/, 'the Service is in the kernel')
  t.notMatch(proxy.said(), /forbidden|cannot (list|watch|get|create|patch|update)/)
  await proxy.stop()
  const cleanup = startPart(containers('proxy-cleanup')[0]!.args!)
  await new Promise((resolve) => cleanup.process.once('close', resolve))
  t.notMatch(rules(), /switchyard/, 'the clean-up leaves nothing')
  admin.close()
  await plane.stop()
  rmSync(dir, { recursive: true, force: true })
})
