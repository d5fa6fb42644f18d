/** A step of the recorded sessions of Kubernetes 1.32 that goes otherwise here on purpose. */
export interface Difference {
  /** The scenario of kubectl commands, or `http` for the single requests. */
  readonly scenario: string
  /** What the command contains, or the name of the request. */
  readonly step: RegExp
  readonly why: string
}

const refused = 'the kind is not served: nothing here acts on it'
const newer = 'Kubernetes 1.33 does so; the sessions are from 1.32'
const itself = 'the server calls itself v1.33, and says that Go did not build it'
const go = 'the sentence is the same; the dump of Go values in it is left out'
const binder = 'a binder runs here: it says why a Pod has no node, and binds it as soon as one is ready'
const race = 'kubectl logs how its own watch ended in the moment its time was up'

/** Where this API differs from the recorded one on purpose, and why. */
export const differences: readonly Difference[] = [
  { scenario: 'networkpolicy', step: /./, why: refused },
  { scenario: 'quota', step: /./, why: refused },
  { scenario: 'api-resources', step: /api-resources/, why: `what is not served is not listed, ServiceCIDR is (${newer})` },
  { scenario: 'drain', step: /pdb|drain dr-a --force/, why: `${refused} (PodDisruptionBudget)` },
  { scenario: 'apply', step: /--prune/, why: `kubectl prunes PersistentVolumeClaims by default; ${refused}` },
  { scenario: 'get-forms', step: /componentstatuses/, why: refused },
  { scenario: 'namespace', step: /describe ns/, why: `${refused} (ResourceQuota and LimitRange, which kubectl describes with a Namespace)` },
  { scenario: 'namespace-terminating', step: /describe ns/, why: `${refused} (ResourceQuota and LimitRange)` },
  { scenario: 'pod-immutable', step: /patch pod/, why: go },
  { scenario: 'pod', step: /patch pod one -p .*nodeName/, why: go },
  { scenario: 'generate-name', step: /create -f/, why: go },
  { scenario: 'unknown-fields', step: /^kubectl apply -f svc.yaml$/, why: go },
  { scenario: 'ingress-invalid', step: /create -f/, why: 'Go tells an empty list from none in one text' },
  { scenario: 'deployment-rollout', step: /rollout history .*metadata.name/, why: "the hash in a ReplicaSet's name is another function of its template" },
  { scenario: 'pod', step: /get pod one -o jsonpath='{.status}/, why: binder },
  { scenario: 'watch', step: /get pods -w/, why: binder },
  { scenario: 'http', step: /^(bound Pod|evicted Pod waits for its node|DELETE Pod with no grace|Table pods)$/, why: binder },
  { scenario: 'pod-immutable', step: /get pod p --subresource/, why: 'the node lifecycle controller runs here: a Pod whose node does not exist is taken away' },
  { scenario: 'node', step: /get node|describe node/, why: 'the node lifecycle controller runs here (in the sessions it was off): taints follow the conditions' },
  { scenario: 'node', step: /patch node.*podCIDR/, why: "the allocator of Pods' ranges runs here: the Node has its range already" },
  { scenario: 'http', step: /^Table nodes$/, why: "the allocator of Pods' ranges runs here" },
  { scenario: 'forbidden', step: /raw \/version/, why: itself },
  { scenario: 'api-resources', step: /kubectl version/, why: itself },
  { scenario: 'http', step: /^Table events/, why: 'the age of an Event with a fixed date grows by the day' },
  { scenario: 'http', step: /^(anonymous )?version$/, why: itself },
  { scenario: 'svc-invalid-misc', step: /create -f/, why: `trafficDistribution knows PreferSameZone and PreferSameNode; ${newer}` },
  { scenario: 'svc-invalid-addresses', step: /create -f/, why: 'addresses with leading zeros are refused at once, not with a warning' },
  { scenario: 'finalizers', step: /--timeout=/, why: race },
  { scenario: 'wait', step: /--timeout=1s/, why: race },
  { scenario: 'pod', step: /--timeout=1s/, why: race },
  { scenario: 'namespace-terminating', step: /--timeout=/, why: race },
  { scenario: 'http', step: /^aggregated discovery|^legacy (\/api\/v1|apps\/v1|networking)/, why: `what is not served is not listed, ServiceCIDR is (${newer})` },
  { scenario: 'http', step: /networkpolicies/, why: refused },
  { scenario: 'http', step: /as protobuf$/, why: 'answers are JSON; every client takes it beside protobuf' },
  { scenario: 'http', step: /^proxy to a Service/, why: 'pods/proxy and services/proxy are not served' },
  { scenario: 'http', step: /^SubjectAccessReview$/, why: 'there is no scheduler of its own here, and so no role for one' },
  { scenario: 'http', step: /^DELETE Deployment in the foreground$/, why: 'what `scale` changed belongs to who created the object, if that is the same program' },
]

/** Why this step may differ; undefined: it may not. */
export const excuse = (scenario: string, step: string): string | undefined => differences.find((d) => d.scenario === scenario && d.step.test(step))?.why
