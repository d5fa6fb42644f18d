import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { test } from 'tap'
import { decode } from '../../controlplane/kinds/decode.ts'
import { kinds } from '../../controlplane/kinds/index.ts'
import { message } from '../../controlplane/kinds/schema.ts'
import { start } from '../../controlplane/testing/plane.ts'
import { connect, type Client } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { version } from '../../lib/version.ts'
import { account, containers, manifests, names, startPart } from '../testing/parts.ts'
import { haveSchemas, schemaTrouble } from '../testing/schema.ts'

for (const name of names) {
  test(`${name}.yaml is what Kubernetes 1.32 describes`, { skip: haveSchemas ? false : 'the OpenAPI documents are not beside this checkout' }, async (t) => {
    for (const m of manifests(name)) t.same(schemaTrouble(m), [], `${m.kind} ${m.metadata.name}`)
  })

  test(`${name}.yaml has no field that our own API does not know`, async (t) => {
    for (const m of manifests(name)) {
      const unknown: string[] = []
      const k = kinds.find((k_) => k_.kind === m.kind && (k_.group === '' ? k_.version : `${k_.group}/${k_.version}`) === m.apiVersion)
      // DaemonSets are not served here; the Pods they make are.
      if (k === undefined) decode(message('PodTemplateSpec'), m['spec'].template, (path) => unknown.push(path))
      else decode(k.type, m, (path) => unknown.push(path))
      t.same(unknown, [], `${m.kind} ${m.metadata.name}`)
    }
  })

  test(`${name}.yaml starts verbs with flags that exist, from the image of this version`, async (t) => {
    for (const c of containers(name)) {
      t.equal(c['image'], `switchyard:${version}`)
      if (c.args === undefined) continue
      const help = execFileSync(join(import.meta.dirname, '../../switchyard'), [c.args[0]!, '--help'], { encoding: 'utf8' })
      for (const flag of c.args.slice(1)) t.match(help, new RegExp(`\\s${/^--[\w-]+/.exec(flag)![0]}[\\s,]`), `${c.args[0]} has ${flag}`)
    }
  })

  test(`${name}.yaml gives no right away that nothing asks for`, async (t) => {
    for (const m of manifests(name).filter((o) => o.kind === 'ClusterRole'))
      for (const rule of m['rules'] as { readonly apiGroups: string[]; readonly resources: string[]; readonly verbs: string[] }[]) {
        for (const word of [...rule.apiGroups, ...rule.resources, ...rule.verbs]) t.not(word, '*')
        // Reading is lists and watches; writing is Events and the status of Ingresses.
        const writes = rule.verbs.filter((v) => v !== 'list' && v !== 'watch')
        if (writes.length > 0) for (const resource of rule.resources) t.ok(['events', 'ingresses/status'].includes(resource), `${writes.join()} of ${resource}`)
      }
    for (const c of containers(name)) t.ok(c['securityContext'].privileged === true || c['securityContext'].capabilities.drop.includes('ALL'), `${c.name} keeps no capability it does not name`)
  })
}

const dir = mkdtempSync(join(tmpdir(), 'switchyard-manifests-'))
const plane = await start(join(dir, 'data'))
const admin = connect(await loadCredentials(plane.kubeconfig))
const ca = readFileSync(join(dir, 'data/ca.crt'), 'utf8')
const kubeconfig = async (name: string): Promise<string> => {
  const file = join(dir, `${name}.kubeconfig`)
  writeFileSync(file, await account(admin, name, plane.secure, ca), { mode: 0o600 })
  return file
}
const post = async (client: Client, path: string, body: object): Promise<void> => {
  const answer = await client.raw('POST', path, { body })
  if (answer.code !== 201) throw new Error(`${path}: ${answer.code} ${answer.body.toString()}`)
}
const get = async (path: string): Promise<any> => JSON.parse((await admin.raw('GET', path)).body.toString())
const refusals = /forbidden|Forbidden|cannot (list|watch|get|create|patch|update)/

test('the DNS server needs no more than its ClusterRole', async (t) => {
  const corefile = join(dir, 'Corefile')
  // As kubeadm writes it.
  writeFileSync(
    corefile,
    '.:0 {\n  errors\n  health :0\n  ready :0\n  kubernetes cluster.local in-addr.arpa ip6.arpa {\n    pods verified\n    fallthrough in-addr.arpa ip6.arpa\n  }\n  cache 30\n  reload\n  loadbalance\n}\n',
  )
  const dns = startPart(['dns', '--kubeconfig', await kubeconfig('dns'), '--config', corefile])
  await dns.says('"ready"')
  t.notMatch(dns.said(), refusals)
  await dns.stop()
})

test('the ingress controller needs no more than its ClusterRole', async (t) => {
  const file = await kubeconfig('ingress')
  for (const m of manifests('ingress').filter((o) => o.kind === 'Service' || o.kind === 'IngressClass'))
    await post(admin, m.kind === 'Service' ? `/api/v1/namespaces/${m.metadata.namespace}/services` : '/apis/networking.k8s.io/v1/ingressclasses', m)
  const ingress = startPart(['ingress', '--kubeconfig', file, '--http', '127.0.0.1:0', '--https', '127.0.0.1:0', '--status', '127.0.0.1:0', '--publish-address', '192.0.2.7'])
  await ingress.says('"ready"')
  await post(admin, '/apis/networking.k8s.io/v1/namespaces/default/ingresses', {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: { name: 'a', annotations: { 'nginx.ingress.kubernetes.io/server-snippet': 'x' } },
    spec: { ingressClassName: 'switchyard', rules: [{ host: 'a.example', http: { paths: [{ path: '/', pathType: 'Prefix', backend: { service: { name: 'a', port: { number: 80 } } } }] } }] },
  })
  let status: any
  let events: any[] = []
  for (let i = 0; i < 300 && (status?.ip === undefined || events.length === 0); i++) {
    await wait(100)
    status = (await get('/apis/networking.k8s.io/v1/namespaces/default/ingresses/a'))['status'].loadBalancer?.ingress?.[0]
    events = (await get('/api/v1/namespaces/default/events'))['items']
  }
  t.same(status, { ip: '192.0.2.7' }, 'it writes the status of an Ingress')
  t.ok(events.length > 0, 'and an Event about what it refuses')
  t.notMatch(ingress.said(), refusals)
  await ingress.stop()
})

test('end', async () => {
  admin.close()
  await plane.stop()
  rmSync(dir, { recursive: true, force: true })
})
