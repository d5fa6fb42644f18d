import { matchesLabels, parseLabelSelector, SelectorError } from '../../../kube/selectors.ts'
import { isReverse, type ZoneSettings } from '../../compile.ts'
import { CorefileError, zonesOf, type Line } from '../../corefile.ts'
import { fallthroughOf, unknown, wholeNumber, type Place, type Plugin } from '../plugin.ts'
import { KubernetesHandler, type Fallthrough } from './handler.ts'

/** Services and Pods under their names. */
export const kubernetes: Plugin = {
  name: 'kubernetes',
  build: (lines, place) => lines.map((line) => build(line, place)),
}

function build(line: Line, place: Place): KubernetesHandler {
  const { env } = place
  const { cluster } = env
  const zones = line.args.length > 0 ? line.args.flatMap((arg) => zonesOf(arg, line)) : [...place.zones]
  let ttl = 5
  let pods: ZoneSettings['pods'] = 'disabled'
  let ignoreEmptyService = false
  let endpointPodNames = false
  let noEndpoints = false
  let namespaces: ReadonlySet<string> | undefined
  let labels: ReturnType<typeof parseLabelSelector> | undefined
  let namespaceLabels: ReturnType<typeof parseLabelSelector> | undefined
  let fall: Fallthrough = []
  for (const option of line.block) {
    const [first, ...more] = option.args
    switch (option.name) {
      case 'ttl':
        ttl = wholeNumber(first, option, 'ttl', 0, 3600)
        break
      case 'pods':
        if (first !== 'disabled' && first !== 'insecure' && first !== 'verified')
          throw new CorefileError(option, `pods: expected disabled, insecure or verified, got ${first === undefined ? 'nothing' : `"${first}"`}`)
        pods = first
        if (pods === 'verified') env.want('pod')
        break
      case 'namespaces':
        if (first === undefined) throw new CorefileError(option, 'namespaces: expected the names of some')
        namespaces = new Set([...(namespaces ?? []), first, ...more])
        break
      case 'labels':
        labels = selector(option)
        break
      case 'namespace_labels':
        namespaceLabels = selector(option)
        break
      case 'ignore':
        if (first !== 'empty_service') throw new CorefileError(option, 'ignore: only empty_service can be ignored')
        ignoreEmptyService = true
        break
      case 'endpoint_pod_names':
        endpointPodNames = true
        break
      case 'noendpoints':
        noEndpoints = true
        break
      case 'fallthrough':
        fall = fallthroughOf(option)
        break
      // How the API is reached is decided once for the process, before any zone is there.
      case 'endpoint':
      case 'kubeconfig':
      case 'tls':
      case 'kubeconfig_context':
      case 'apiserver_qps':
      case 'apiserver_burst':
      case 'apiserver_max_inflight':
      case 'startup_timeout':
        break
      default:
        unknown(line, option)
    }
  }
  if (namespaces !== undefined && namespaceLabels !== undefined) throw new CorefileError(line, 'kubernetes: namespaces and namespace_labels exclude each other')
  const settings: ZoneSettings = {
    zones: zones.filter((z) => !isReverse(z)),
    reverse: zones.filter(isReverse),
    ttl,
    pods,
    ignoreEmptyService,
    endpointPodNames,
    noEndpoints,
    filtersNamespaces: namespaceLabels !== undefined,
    exposesNamespace: (namespace) => {
      if (namespaces !== undefined) return namespaces.has(namespace)
      return namespaceLabels === undefined || (cluster.objects.namespace.has(namespace) && matchesLabels(namespaceLabels, cluster.objects.namespace.get(namespace)?.metadata.labels))
    },
    exposesService: (service) => labels === undefined || matchesLabels(labels, service.metadata.labels),
  }
  const zone = cluster.addZone(settings)
  place.closing(() => cluster.removeZone(zone))
  return new KubernetesHandler(cluster, zone, fall)
}

function selector(line: Line): ReturnType<typeof parseLabelSelector> {
  try {
    return parseLabelSelector(line.args.join(' '))
  } catch (error) {
    if (error instanceof SelectorError) throw new CorefileError(line, `${line.name}: ${error.message}`)
    throw error
  }
}
