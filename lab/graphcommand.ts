import { writeFileSync } from 'node:fs'
import { connect } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { endpointslices, ingresses, nodes, pods, services } from '../kube/resources.ts'
import { command } from '../lib/options.ts'
import { runningLab } from './exec.ts'
import { renderGraph } from './graph.ts'

/** `switchyard lab graph`. */
export const graphCommand = command({
  name: 'graph',
  summary: 'Draws the running lab as SVG: nodes, Pods, Services, Ingress rules, and which leads where.',
  flags: { lab: { type: 'string', value: 'NAME', help: 'name of the lab', default: 'default' }, svg: { type: 'string', value: 'FILE', help: 'write it there instead of printing it' } },
  run: async ({ values }, context) => {
    const { record, paths } = runningLab(values.lab)
    const client = connect(await loadCredentials(paths.kubeconfig), { userAgent: 'switchyard-lab-graph' })
    try {
      const { signal } = context
      const [n, p, s, e, i] = await Promise.all([
        client.list(nodes, { signal }),
        client.list(pods, { signal }),
        client.list(services, { signal }),
        client.list(endpointslices, { signal }),
        client.list(ingresses, { signal }),
      ])
      const svg = renderGraph(`Lab ${record.topology.name}`, { nodes: n.items, pods: p.items, services: s.items, slices: e.items, ingresses: i.items })
      if (values.svg === undefined) context.out(svg)
      else {
        writeFileSync(values.svg, svg)
        context.out(`Drawn in ${values.svg}.\n`)
      }
    } finally {
      client.close()
    }
  },
})
