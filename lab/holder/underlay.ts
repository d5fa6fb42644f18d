import { connect } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { Mirror } from '../../kube/mirror.ts'
import type { Node } from '../../kube/objects.ts'
import { nodes } from '../../kube/resources.ts'
import { reconcile, type Reconciler } from '../../lib/reconcile.ts'
import { explainError, type Log } from '../../lib/log.ts'
import { renderOverlay, renderPodRoutes, type Ranges } from '../network.ts'
import { ip, run, type Hold } from './hold.ts'

/** Keeps the way of Pods' packets between nodes, where it is more than the nodes' own routes: the router's routes, or a tunnel. Follows the ranges of the Node objects. */
export function keepUnderlay(hold: Hold, log: Log, signal: AbortSignal): Reconciler | undefined {
  const { topology } = hold
  if (topology.network === 'bridge') return undefined
  const tunnelled = new Set<string>()
  let mirror: Mirror<Node> | undefined
  const apply = async (): Promise<void> => {
    mirror ??= new Mirror(connect(await loadCredentials(hold.plan.adminKubeconfig), { userAgent: 'switchyard-lab' }), nodes, { log, signal, changed: () => loop.ring() })
    const ranges = topology.nodes.map((n): Ranges => ({ ...n, podCIDRs: mirror!.objects.get(n.name)?.spec?.podCIDRs ?? [] }))
    if (topology.network === 'routes') return ip(renderPodRoutes(ranges))
    for (const self of ranges) {
      const { pid } = hold.nodes.get(self.name)!
      const text = renderOverlay(topology, self, ranges)
      if (!tunnelled.has(self.name)) {
        const there = (argv: readonly string[]): Promise<string> => run('nsenter', ['-t', String(pid), '-n', '--', ...argv])
        await there(['ip', 'link', 'del', 'vxlan0']).catch(() => {})
        await ip(text.link, pid)
        for (const rule of text.rules) await there(rule)
        // Answers of other nodes come by the LAN, where a strict kernel would not expect them.
        await there(['sh', '-c', 'for f in all vxlan0; do echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter; done'])
        tunnelled.add(self.name)
      }
      await ip(text.ip, pid)
      await run('nsenter', ['-t', String(pid), '-n', '--', 'bridge', '-batch', '-'], text.fdb)
    }
  }
  const loop = reconcile(apply, { signal, failed: (error) => log.warn('the network between the nodes is not whole', { error: explainError(error) }) })
  loop.ring()
  return loop
}
