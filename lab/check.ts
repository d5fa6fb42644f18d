import { connect } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import type { EndpointSlice, Node, Pod, Service } from '../kube/objects.ts'
import { endpointslices, ingresses, nodes, pods, services } from '../kube/resources.ts'
import { explainError } from '../lib/log.ts'
import { command } from '../lib/options.ts'
import { askControl } from './control.ts'
import { capture, runningLab } from './exec.ts'
import { table, type LabStatus } from './status.ts'

/** One thing that should work, and whether it does. */
export interface Checked {
  readonly what: string
  readonly ok: boolean
  /** Why not. */
  readonly why: string
}

/** Something to try from a place of the lab: a shell line that succeeds, or says why not. */
export interface Trial {
  readonly what: string
  readonly place: string
  readonly script: string
}

/** What should work in a lab with these objects: every node and every ready Pod reaches the API by its Service, every ready Pod finds it by name, every node reaches every ready Pod, and every Service that has ready endpoints. */
export function trials(have: { readonly nodes: readonly Node[]; readonly pods: readonly Pod[]; readonly services: readonly Service[]; readonly slices: readonly EndpointSlice[] }): readonly Trial[] {
  const names = have.nodes.map((n) => n.metadata.name)
  const ready = have.pods.filter((p) => p.spec.hostNetwork !== true && p.metadata.deletionTimestamp === undefined && p.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True'))
  const api = have.services.find((s) => s.metadata.namespace === 'default' && s.metadata.name === 'kubernetes')?.spec.clusterIPs?.[0]
  const out: Trial[] = []
  const web = (url: string): string => `curl -sk -m 5 -o /dev/null ${url} || { echo "curl: exit status $?"; exit 1; }`
  for (const name of names) {
    if (api !== undefined) out.push({ what: `${name} reaches the API by its ClusterIP`, place: name, script: web(`https://${api}/version`) })
    for (const pod of ready)
      out.push({ what: `${name} reaches ${pod.metadata.namespace}/${pod.metadata.name}`, place: name, script: `ping -q -c 1 -W 2 ${pod.status!.podIP} > /dev/null || { echo no answer; exit 1; }` })
  }
  for (const pod of ready) {
    const place = `${pod.metadata.namespace}/${pod.metadata.name}`
    out.push({ what: `${place} finds the API by name`, place, script: web('https://kubernetes.default.svc/version') })
  }
  for (const service of have.services) {
    const { namespace, name } = service.metadata
    const slices = have.slices.filter((s) => s.metadata.namespace === namespace && s.metadata.labels?.['kubernetes.io/service-name'] === name)
    for (const ip of service.spec.clusterIPs ?? []) {
      const family = ip.includes(':') ? 'IPv6' : 'IPv4'
      const serves = slices.some((s) => s.addressType === family && (s.endpoints ?? []).some((e) => e.conditions?.ready !== false))
      if (ip === 'None' || ip === '' || !serves || (namespace === 'default' && name === 'kubernetes')) continue
      for (const port of service.spec.ports ?? []) {
        if ((port.protocol ?? 'TCP') !== 'TCP') continue
        // Whatever the Service speaks, a connection comes about.
        for (const node of names)
          out.push({
            what: `${node} reaches Service ${namespace}/${name}:${port.port}`,
            place: node,
            script: `timeout 5 bash -c '</dev/tcp/${ip}/${port.port}' 2> /dev/null || { echo no connection; exit 1; }`,
          })
      }
    }
  }
  return out
}

/** How many trials are made at a time. */
const atOnce = 4

/** `switchyard lab check`. */
export const checkCommand = command({
  name: 'check',
  summary: 'Tries everything that should work in the lab, from every node and Pod.',
  flags: {
    lab: { type: 'string', value: 'NAME', help: 'name of the lab', default: 'default' },
    output: { type: 'string', short: 'o', help: 'table or json', oneOf: ['table', 'json'], default: 'table' },
  },
  run: async ({ values }, context) => {
    const { paths } = runningLab(values.lab)
    const checked: Checked[] = []
    const say = (what: string, why: string): void => void checked.push({ what, ok: why === '', why })

    const status = await askControl<Pick<LabStatus, 'parts' | 'broken'>>(paths.control, 'status')
    for (const part of status.parts) say(`${part.name} runs`, part.state === 'ready' ? '' : `${part.state}${part.lastEnd === undefined ? '' : ` (${part.lastEnd})`}`)
    const client = connect(await loadCredentials(paths.kubeconfig), { userAgent: 'switchyard-lab-check' })
    try {
      const { signal } = context
      const [n, p, s, e, i] = await Promise.all([
        client.list(nodes, { signal }),
        client.list(pods, { signal }),
        client.list(services, { signal }),
        client.list(endpointslices, { signal }),
        client.list(ingresses, { signal }),
      ])
      for (const node of n.items) say(`${node.metadata.name} is Ready`, node.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true ? '' : 'it is not')
      for (const ingress of i.items)
        say(`Ingress ${ingress.metadata.namespace}/${ingress.metadata.name} has an address`, (ingress.status?.loadBalancer?.ingress ?? []).length > 0 ? '' : 'no controller serves it')
      const rest = [...trials({ nodes: n.items, pods: p.items, services: s.items, slices: e.items })]
      const work = async (): Promise<void> => {
        for (let t = rest.shift(); t !== undefined; t = rest.shift()) {
          const { status: code, stdout, stderr } = await capture(values.lab, t.place, ['sh', '-c', t.script])
          say(t.what, code === 0 ? '' : (stdout + stderr).trim() || `exit status ${code}`)
        }
      }
      await Promise.all(Array.from({ length: atOnce }, work))
    } catch (error) {
      say('the API answers', explainError(error))
    } finally {
      client.close()
    }
    const failed = checked.filter((c) => !c.ok)
    if (values.output === 'json') context.out(`${JSON.stringify(checked, null, 2)}\n`)
    else {
      if (failed.length > 0)
        context.out(
          table(
            ['FAILS', 'WHY'],
            failed.map((c) => [c.what, c.why]),
          ),
        )
      context.out(`${checked.length - failed.length} of ${checked.length} checks hold.${status.broken.length > 0 ? ` Broken on purpose: ${status.broken.join(', ')}.` : ''}\n`)
    }
    return failed.length === 0 ? 0 : 1
  },
})
