import { execFile } from 'node:child_process'
import { connect } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { Mirror } from '../../kube/mirror.ts'
import type { KubeObject } from '../../kube/objects.ts'
import { endpointslices, ingresses, nodes, pods, services, type Resource } from '../../kube/resources.ts'
import { aborted, sleep } from '../../lib/lifecycle.ts'
import { explainError, silent } from '../../lib/log.ts'
import { command } from '../../lib/options.ts'
import { askControl } from '../control.ts'
import { capture, runningLab } from '../exec.ts'
import { renderGraph } from '../graph.ts'
import { launcher } from '../launcher.ts'
import type { LabStatus } from '../status.ts'
import { loads, parseFlows, question } from './flows.ts'
import { serveView } from './server.ts'

/** How often the nodes are asked for their connections (ms). */
const every = 1000

/** `switchyard lab view`. */
export const viewCommand = command({
  name: 'view',
  summary: 'Serves a page of the running lab on 127.0.0.1: what there is, where connections go, and why.',
  flags: { lab: { type: 'string', value: 'NAME', help: 'name of the lab', default: 'default' }, port: { type: 'number', help: 'where to serve it (default: any)' } },
  run: async ({ values }, context) => {
    const { record, paths } = runningLab(values.lab)
    const { signal } = context
    const client = connect(await loadCredentials(paths.kubeconfig), { userAgent: 'switchyard-lab-view' })
    const mirror = <T extends KubeObject>(resource: Resource<T>): Mirror<T> => new Mirror<T>(client, resource, { log: silent, signal })
    const all = { nodes: mirror(nodes), pods: mirror(pods), services: mirror(services), slices: mirror(endpointslices), ingresses: mirror(ingresses) }
    const watchers = new Set<(json: string) => void>()
    let latest: string | undefined
    let seen: ReadonlySet<string> | undefined
    let lookedAt = 0

    const look = async (): Promise<string> => {
      const answers = await Promise.all(record.topology.nodes.map((n) => capture(values.lab, n.name, question)))
      const status = await askControl<Pick<LabStatus, 'mode' | 'nodes' | 'broken'>>(paths.control, 'status')
      const now = performance.now()
      const hosts = new Set(record.topology.nodes.flatMap((n) => [`${n.address}:`, `[${n.address6}]:`]))
      const flows = answers.flatMap(({ stdout }, i) =>
        parseFlows(stdout, status.nodes[i]!.mode === 'userspace')
          // The node's own programs go to programs on nodes without any Service.
          .filter((f) => f.to !== undefined || !hosts.has(f.endpoint.replace(/\d+$/, '')))
          .map((f) => ({ ...f, key: `${i} ${f.key}` })),
      )
      const objects = { nodes: [...all.nodes.objects.values()], pods: [...all.pods.objects.values()], services: [...all.services.objects.values()], slices: [...all.slices.objects.values()] }
      const found = loads(objects.services, objects.slices, flows, seen, (now - lookedAt) / 1000)
      seen = new Set(flows.map((f) => f.key))
      lookedAt = now
      const trouble = status.broken.length > 0 ? `proxy mode ${status.mode}; broken on purpose: ${status.broken.join(', ')}` : undefined
      return JSON.stringify({
        lab: record.topology.name,
        at: Date.now(),
        mode: status.mode,
        trouble,
        picture: renderGraph(`Lab ${record.topology.name}`, { ...objects, ingresses: [...all.ingresses.objects.values()] }),
        services: found.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
      })
    }
    const loop = async (): Promise<void> => {
      while (!signal.aborted) {
        // Nobody looks: nobody is asked.
        if (watchers.size > 0) {
          try {
            latest = await look()
          } catch (error) {
            latest = JSON.stringify({ lab: record.topology.name, at: Date.now(), mode: '', trouble: explainError(error), picture: '', services: [] })
          }
          for (const tell of watchers) tell(latest)
        } else seen = undefined
        await sleep(watchers.size > 0 ? every : 100, signal)
      }
    }
    const source = {
      follow: (changed: (json: string) => void, gone: AbortSignal): void => {
        watchers.add(changed)
        if (latest !== undefined) changed(latest)
        gone.addEventListener('abort', () => void watchers.delete(changed), { once: true })
      },
      explain: (from: string, to: string): Promise<string> =>
        new Promise((resolve) => {
          const words = ['explain', 'packet', from, to, '--kubeconfig', paths.kubeconfig, '--cluster-cidr', record.topology.podRanges.join(',')]
          execFile(launcher, words, { timeout: 30_000 }, (error, stdout, stderr) => resolve(error === null ? stdout : stderr || error.message))
        }),
    }
    const port = await serveView(values.port ?? 0, source, signal)
    context.out(`http://127.0.0.1:${port}/\n`)
    await Promise.all([aborted(signal), loop()])
    client.close()
  },
})
