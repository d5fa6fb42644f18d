import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { fakeAgent } from './node.ts'
import { folder, start } from './plane.ts'
import { findKubectl } from './transcripts.ts'

tap.setTimeout(240_000)

const data = folder()
const plane = await start(data)
process.on('exit', () => plane.process.kill('SIGKILL'))

interface Said {
  readonly code: number
  readonly out: string
  readonly err: string
}

const yaml = (ns: string): string => `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: ${ns}, labels: {app: web}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: ${ns}, labels: {app: web}}
spec: {containers: [{name: c, image: x, command: [sleep, "1"]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: ${ns}}
spec:
  ingressClassName: switchyard
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: listed, namespace: ${ns}}}
`

const agent = await fakeAgent(data)
process.on('exit', () => agent.close())

/** A node with an agent, and a Pod on it. */
const bound = (ns: string): string => `
apiVersion: v1
kind: Node
metadata: {name: here}
status: {addresses: [{type: InternalIP, address: 127.0.0.1}], daemonEndpoints: {kubeletEndpoint: {Port: ${agent.port}}}}
---
apiVersion: v1
kind: Pod
metadata: {name: bound, namespace: ${ns}}
spec: {nodeName: here, terminationGracePeriodSeconds: 0, containers: [{name: c, image: x}]}
`

for (const version of ['1.27', '1.28', '1.29', '1.30', '1.31', '1.32', '1.33']) {
  const binary = findKubectl(version)
  test(`kubectl ${version}`, { skip: binary === undefined ? `there is no kubectl.${version} on the PATH or beside kubectl` : false }, async (t) => {
    const ns = `k${version.replace('.', '-')}`
    const file = join(data, `${ns}.yaml`)
    writeFileSync(file, yaml(ns))
    writeFileSync(`${file}.bound`, bound(ns))
    const run = (args: string, how: { readonly ms?: number } = {}): Promise<Said> =>
      new Promise((resolve) => {
        execFile(binary!, args.split(' '), { timeout: how.ms ?? 60_000, env: { ...process.env, KUBECONFIG: plane.kubeconfig, HOME: data } }, (error, out, err) =>
          resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out, err }),
        )
      })
    const says = async (args: string, wanted: RegExp, code = 0): Promise<void> => {
      const { code: got, out, err } = await run(args)
      t.ok(got === code && wanted.test(out + err), `kubectl ${args}`, { code: got, out, err, wanted: String(wanted) })
    }
    await says(`create namespace ${ns}`, /created/)
    await says(`apply -f ${file}`, /service\/web created\npod\/one created\ningress.networking.k8s.io\/shop created\nconfigmap\/listed created/)
    await says(`apply -f ${file}`, /service\/web unchanged\npod\/one unchanged/)
    await says(`get svc web -n ${ns}`, /NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE\nweb +ClusterIP +10\.96\.\S+ +<none> +80\/TCP/)
    await says(`get svc web -n ${ns} -o wide`, /SELECTOR\n.*app=web/)
    await says(`get svc web -n ${ns} -o yaml`, /targetPort: 8080/)
    await says(`get svc web -n ${ns} -o json`, /"targetPort": 8080/)
    await says(`get svc -n ${ns} -o name`, /^service\/web\n$/)
    await says(`get svc web -n ${ns} -o jsonpath={.spec.ports[0].port}`, /^80$/)
    await says(`get svc web -n ${ns} -o custom-columns=T:.spec.type`, /^T\nClusterIP\n$/)
    await says(`get svc web -n ${ns} -o go-template={{.metadata.name}}`, /^web$/)
    await says(`get pods -n ${ns}`, /NAME +READY +STATUS +RESTARTS +AGE\none +0\/1 +Pending/)
    await says(`get ingress -n ${ns}`, /CLASS +HOSTS +ADDRESS +PORTS +AGE\nshop +switchyard +shop.example.com +80/)
    await says(`get endpointslices -n ${ns}`, /ADDRESSTYPE +PORTS +ENDPOINTS/)
    await says(`describe svc web -n ${ns}`, /TargetPort: +8080\/TCP/)
    await says(`describe pod one -n ${ns}`, /Status: +Pending/)
    await says(`describe ingress shop -n ${ns}`, /shop\.example\.com/)
    await says(`label svc web -n ${ns} tier=front`, /labeled/)
    await says(`get svc -n ${ns} -l tier=front -o name`, /service\/web/)
    await says(`annotate svc web -n ${ns} a=b`, /annotate/)
    await says(
      `patch pod one -n ${ns} --subresource=status --type=merge -p {"status":{"phase":"Running","podIP":"192.0.2.9","podIPs":[{"ip":"192.0.2.9"}],"conditions":[{"type":"Ready","status":"True"}]}}`,
      /patched/,
    )
    await says(`wait pod/one -n ${ns} --for=condition=Ready --timeout=10s`, /condition met/)
    await says(`wait pod/one -n ${ns} --for=jsonpath={.status.phase}=Running --timeout=10s`, /condition met/)
    // All four kinds, watched while they change: one line for what is there, one for what comes or changes.
    const watched = ['svc', 'pods', 'ingress', 'endpointslices'].map((kind) => ({ kind, said: run(`get ${kind} -n ${ns} -w --request-timeout=4s`) }))
    await new Promise((r) => setTimeout(r, 1500))
    await says(`create service clusterip late --tcp=80 -n ${ns}`, /service\/late created/)
    await says(`label pod,ingress --all -n ${ns} seen=yes`, /pod\/one labeled\ningress.networking.k8s.io\/shop labeled/)
    for (const { kind, said } of watched) {
      const { out } = await said
      const wanted = { svc: /^web .*\n(.*\n)*late /m, pods: /^one .*\n(.*\n)*one /m, ingress: /^shop .*\n(.*\n)*shop /m, endpointslices: /^web-\S+ .*\n(.*\n)*late-/m }[kind]!
      t.match(out, wanted, `get ${kind} -w tells of a change`)
    }
    const slice = (await run(`get endpointslices -n ${ns} -l kubernetes.io/service-name=late -o name`)).out.trim()
    await says(`describe ${slice} -n ${ns}`, /AddressType: +IPv4/)
    await says(`label ${slice} -n ${ns} seen=yes`, /labeled/)
    for (const [what, path] of [
      ['svc/web', '.spec.type}=ClusterIP'],
      ['ingress/shop', '.spec.ingressClassName}=switchyard'],
      [slice, '.addressType}=IPv4'],
    ] as const)
      await says(`wait ${what} -n ${ns} --for=jsonpath={${path} --timeout=10s`, /condition met/)
    await says(`delete ingress shop -n ${ns}`, /ingress.networking.k8s.io "shop" deleted/)
    await says(`wait ingress/shop -n ${ns} --for=delete --timeout=10s`, /^$/)
    await says(`delete ${slice} -n ${ns}`, /endpointslice.discovery.k8s.io "late-\S+" deleted/)
    await says(`exec one -n ${ns} -- ls`, /BadRequest.*pod one does not have a host assigned/, 1)
    await says(`apply -f ${file}.bound`, /pod\/bound created/)
    if (Number(version.slice(2)) < 30) await says(`exec bound -n ${ns} -- ls`, /BadRequest.*v5\.channel\.k8s\.io.*not over SPDY/, 1)
    else {
      await says(`exec bound -n ${ns} -- echo from inside`, /^from inside\n$/)
      await says(`exec bound -n ${ns} -- sh -c exit${'$'}{IFS}7`, /command terminated with exit code 7/, 7)
      await says(`exec bound -c nosuch -n ${ns} -- ls`, /container nosuch is not valid for pod bound/, 1)
    }
    await says(`create deployment d --image=x --replicas=2 -n ${ns}`, /created/)
    await says(`scale deployment d --replicas=1 -n ${ns}`, /scaled/)
    await says(`expose deployment d --port=80 -n ${ns}`, /exposed/)
    await says(`auth can-i create services -n ${ns}`, /yes/)
    await says(`auth can-i create services -n ${ns} --as=ann`, /no/, 1)
    await says('explain service.spec.type', /FIELD: +type <string>|type +<string>/)
    await says('api-resources --api-group=networking.k8s.io', /ingresses +ing +networking.k8s.io\/v1 +true +Ingress/)
    await says(`delete svc late -n ${ns}`, /deleted/)
    await says(`get svc late -n ${ns}`, /Error from server \(NotFound\): services "late" not found/, 1)
    await says(`delete pod one -n ${ns} --grace-period=0 --force`, /pod "one" force deleted/)
    await says(`delete -f ${file} --ignore-not-found --timeout=20s`, /service "web" deleted/)
    await says(`delete namespace ${ns} --timeout=30s`, /deleted/)
  })
}

test('the control plane ends when asked', async () => {
  agent.close()
  await plane.stop()
})
