import { Metrics, type Counter, type Gauge, type Histogram } from '../lib/metrics.ts'

/** kube-proxy's metrics, by its names; those that mean nothing here are left out. */
export interface Measures {
  readonly metrics: Metrics
  readonly syncDuration: Histogram
  readonly fullSync: Histogram
  readonly partialSync: Histogram
  readonly lastSync: Gauge
  readonly lastQueued: Gauge
  readonly programming: Histogram
  readonly serviceChanges: Counter
  readonly servicePending: Gauge
  readonly endpointChanges: Counter
  readonly endpointPending: Gauge
  readonly failures: Counter
  readonly healthz: Counter
  readonly livez: Counter
  readonly noLocalEndpoints: Gauge
  readonly fronts: Gauge
  readonly refused: Gauge
  readonly conntrackDeleted: Counter
  readonly conntrackDuration: Histogram
  readonly iptablesRules: Gauge
  readonly cleanupFailures: Counter | undefined
}

const syncBuckets = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i)
const programmingBuckets = [0.25, 0.5, ...Array.from({ length: 59 }, (_, i) => i + 1), 65, 70, 75, 80, 85, 90, 95, 100, 105, 110, 115, 120, 150, 180, 210, 240, 270, 300]

/** A fresh set, all at zero. Failed writes are counted under the mode's name, as kube-proxy does: `iptables_restore_failures`, `nftables_sync_failures`. */
export function measures(mode = 'iptables'): Measures {
  const metrics = new Metrics()
  const nft = mode !== 'iptables'
  const out: Measures = {
    metrics,
    syncDuration: metrics.histogram('kubeproxy_sync_proxy_rules_duration_seconds', 'Seconds that one write of the rules took, from the objects to the kernel', syncBuckets),
    fullSync: metrics.histogram('kubeproxy_sync_full_proxy_rules_duration_seconds', 'Seconds that one write of everything took', syncBuckets),
    partialSync: metrics.histogram('kubeproxy_sync_partial_proxy_rules_duration_seconds', 'Seconds that one write of what changed took', syncBuckets),
    lastSync: metrics.gauge('kubeproxy_sync_proxy_rules_last_timestamp_seconds', 'When rules were last written'),
    lastQueued: metrics.gauge('kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds', 'When a write was last asked for'),
    programming: metrics.histogram('kubeproxy_network_programming_duration_seconds', 'Seconds from a change of a Pod or Service to the rules that follow it', programmingBuckets),
    serviceChanges: metrics.counter('kubeproxy_sync_proxy_rules_service_changes_total', 'Changes of Services seen'),
    servicePending: metrics.gauge('kubeproxy_sync_proxy_rules_service_changes_pending', 'Changes of Services not yet written'),
    endpointChanges: metrics.counter('kubeproxy_sync_proxy_rules_endpoint_changes_total', 'Changes of EndpointSlices seen'),
    endpointPending: metrics.gauge('kubeproxy_sync_proxy_rules_endpoint_changes_pending', 'Changes of EndpointSlices not yet written'),
    failures: metrics.counter(`kubeproxy_sync_proxy_rules_${nft ? 'nftables_sync' : 'iptables_restore'}_failures_total`, 'Writes that failed'),
    healthz: metrics.counter('kubeproxy_proxy_healthz_total', 'Answers of /healthz'),
    livez: metrics.counter('kubeproxy_proxy_livez_total', 'Answers of /livez'),
    noLocalEndpoints: metrics.gauge('kubeproxy_sync_proxy_rules_no_local_endpoints_total', 'Service ports of policy Local without an endpoint here'),
    fronts: metrics.gauge('switchyard_proxy_fronts', 'Addresses and ports that are forwarded or refused'),
    refused: metrics.gauge('switchyard_proxy_refused', 'What objects ask for and cannot have'),
    conntrackDeleted: metrics.counter('kubeproxy_reconcile_conntrack_flows_deleted_entries_total', 'Entries of connection tracking deleted because their endpoint is gone'),
    conntrackDuration: metrics.histogram('kubeproxy_reconcile_conntrack_flows_duration_seconds', 'Seconds that looking for such entries took', syncBuckets),
    iptablesRules: metrics.gauge('kubeproxy_sync_proxy_rules_iptables_total', 'Rules of ours, by table'),
    cleanupFailures: nft ? metrics.counter('kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total', 'What other modes left and could not be removed') : undefined,
  }
  out.cleanupFailures?.add(0)
  for (const c of [out.serviceChanges, out.endpointChanges, out.failures]) c.add(0)
  for (const g of [out.servicePending, out.endpointPending]) g.set(0)
  return out
}
