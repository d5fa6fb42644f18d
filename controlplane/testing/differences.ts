/** A step of the recorded sessions of Kubernetes 1.32 that goes otherwise here on purpose. */
export interface Difference {
  /** The scenario, and what its command contains. */
  readonly scenario: string
  readonly command: RegExp
  readonly why: string
}

const refused = 'the kind is not served: nothing here acts on it'
const newer = 'Kubernetes 1.33 does so; the sessions are from 1.32'

/** Where this API differs from the recorded one on purpose, and why. */
export const differences: readonly Difference[] = [
  { scenario: 'networkpolicy', command: /./, why: refused },
  { scenario: 'quota', command: /./, why: refused },
  { scenario: 'api-resources', command: /api-resources/, why: refused },
  { scenario: 'drain', command: /pdb|drain dr-a --force/, why: `${refused} (PodDisruptionBudget)` },
  { scenario: 'apply', command: /--prune/, why: `kubectl prunes PersistentVolumeClaims by default; ${refused}` },
  { scenario: 'get-forms', command: /componentstatuses/, why: refused },
  { scenario: 'namespace', command: /describe ns/, why: `${refused} (ResourceQuota and LimitRange, which kubectl describes with a Namespace)` },
  { scenario: 'namespace-terminating', command: /describe ns/, why: `${refused} (ResourceQuota and LimitRange)` },
  { scenario: 'pod', command: /create -f/, why: 'Binding is a subresource of Pods here, not a kind of its own' },
  { scenario: 'pod', command: /get pod one|patch pod one/, why: 'a binder runs here: it says why a Pod has no node, and binds it as soon as one is ready' },
  { scenario: 'pod', command: /describe pod/, why: 'tokens of ServiceAccounts are not mounted by the server' },
  { scenario: 'serviceaccount', command: /get pod p/, why: 'tokens of ServiceAccounts are not mounted by the server' },
  { scenario: 'pod-immutable', command: /patch pod/, why: 'the sentence is the same, the dump of Go structures below it is left out' },
  { scenario: 'node', command: /get node|describe node/, why: 'the node lifecycle controller runs here (in the sessions it was off): taints follow the conditions' },
  { scenario: 'delete', command: /cascade=foreground/, why: 'Foreground is carried out as Background, with a Warning' },
  { scenario: 'forbidden', command: /raw \/version/, why: 'the server calls itself v1.33' },
  { scenario: 'svc-invalid-misc', command: /create -f/, why: `trafficDistribution knows PreferSameZone and PreferSameNode; ${newer}` },
  { scenario: 'endpoints-of-pods', command: /get endpoints web -o yaml/, why: `Endpoints are labelled with their controller; ${newer}` },
  { scenario: 'svc-invalid-addresses', command: /create -f/, why: 'addresses with leading zeros are refused at once, not with a warning' },
  { scenario: 'svc-patch', command: /metadata":\{"uid/, why: 'another uid is a conflict, as it is for a PUT: what was looked at is gone' },
  { scenario: 'pod', command: /spec\.nodeName/, why: 'the Pod of the step before was not bound: Binding is no kind of its own here' },
  { scenario: 'node', command: /patch node.*podCIDR/, why: "the allocator of Pods' ranges runs here: the Node has its range already" },
]
