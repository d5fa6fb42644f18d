import './common.ts'
import type { Json } from './decode.ts'
import type { FieldErrors } from './invalid.ts'
import { types } from './schema.ts'
import { all, labelTrouble, labelValueTrouble, qualifiedTrouble, portNameTrouble, portTrouble, subdomainTrouble } from './validate.ts'

types(
  'core.v1',
  `
Pod
  metadata 1 ObjectMeta
  spec 2 PodSpec
  status 3 PodStatus

PodTemplateSpec
  metadata 1 ObjectMeta
  spec 2 PodSpec

Binding
  metadata 1 ObjectMeta
  target! 2 ObjectReference required

PodSpec
  volumes 1 []Volume merge=name retain map=name
  initContainers 20 []Container merge=name map=name
  containers! 2 []Container merge=name map=name required
  ephemeralContainers 34 []EphemeralContainer merge=name map=name
  restartPolicy 3 string enum=Always|Never|OnFailure
  terminationGracePeriodSeconds 4 *int64
  activeDeadlineSeconds 5 *int64
  dnsPolicy 6 string enum=ClusterFirst|ClusterFirstWithHostNet|Default|None
  nodeSelector 7 {string} atomic
  serviceAccountName 8 string
  serviceAccount 9 string
  automountServiceAccountToken 21 *bool
  nodeName 10 string
  hostNetwork 11 bool
  hostPID 12 bool
  hostIPC 13 bool
  shareProcessNamespace 27 *bool
  securityContext 14 *PodSecurityContext
  imagePullSecrets 15 []LocalObjectReference merge=name map=name
  hostname 16 string
  subdomain 17 string
  affinity 18 *Affinity
  schedulerName 19 string
  tolerations 22 []Toleration atomic
  hostAliases 23 []HostAlias merge=ip map=ip
  priorityClassName 24 string
  priority 25 *int32
  dnsConfig 26 *PodDNSConfig
  readinessGates 28 []PodReadinessGate atomic
  runtimeClassName 29 *string
  enableServiceLinks 30 *bool
  preemptionPolicy 31 *string
  overhead 32 {Quantity}
  topologySpreadConstraints 33 []TopologySpreadConstraint merge=topologyKey map=topologyKey,whenUnsatisfiable
  setHostnameAsFQDN 35 *bool
  os 36 *PodOS
  hostUsers 37 *bool
  schedulingGates 38 []PodSchedulingGate merge=name map=name
  resourceClaims 39 []PodResourceClaim merge=name retain map=name
  resources 40 *ResourceRequirements

PodStatus
  phase 1 string
  conditions 2 []PodCondition merge=type map=type
  message 3 string
  reason 4 string
  nominatedNodeName 11 string
  hostIP 5 string
  hostIPs 16 []HostIP merge=ip atomic
  podIP 6 string
  podIPs 12 []PodIP merge=ip map=ip
  startTime 7 *Time
  initContainerStatuses 10 []ContainerStatus atomic
  containerStatuses 8 []ContainerStatus atomic
  qosClass 9 string
  ephemeralContainerStatuses 13 []ContainerStatus atomic
  resize 14 string
  resourceClaimStatuses 15 []PodResourceClaimStatus merge=name retain map=name

Volume
  name! 1 string required
  ...VolumeSource 2

Container
  name! 1 string required
  image 2 string
  command 3 []string atomic
  args 4 []string atomic
  workingDir 5 string
  ports 6 []ContainerPort merge=containerPort map=containerPort,protocol
  envFrom 19 []EnvFromSource atomic
  env 7 []EnvVar merge=name map=name
  resources 8 ResourceRequirements
  resizePolicy 23 []ContainerResizePolicy atomic
  restartPolicy 24 *string
  volumeMounts 9 []VolumeMount merge=mountPath map=mountPath
  volumeDevices 21 []VolumeDevice merge=devicePath map=devicePath
  livenessProbe 10 *Probe
  readinessProbe 11 *Probe
  startupProbe 22 *Probe
  lifecycle 12 *Lifecycle
  terminationMessagePath 13 string
  terminationMessagePolicy 20 string
  imagePullPolicy 14 string
  securityContext 15 *SecurityContext
  stdin 16 bool
  stdinOnce 17 bool
  tty 18 bool

EphemeralContainer
  ...EphemeralContainerCommon 1
  targetContainerName 2 string

PodSecurityContext
  seLinuxOptions 1 *SELinuxOptions
  windowsOptions 8 *WindowsSecurityContextOptions
  runAsUser 2 *int64
  runAsGroup 6 *int64
  runAsNonRoot 3 *bool
  supplementalGroups 4 []int64 atomic
  supplementalGroupsPolicy 12 *string
  fsGroup 5 *int64
  sysctls 7 []Sysctl atomic
  fsGroupChangePolicy 9 *string
  seccompProfile 10 *SeccompProfile
  appArmorProfile 11 *AppArmorProfile
  seLinuxChangePolicy 13 *string

Affinity
  nodeAffinity 1 *NodeAffinity
  podAffinity 2 *PodAffinity
  podAntiAffinity 3 *PodAntiAffinity

Toleration
  key 1 string
  operator 2 string
  value 3 string
  effect 4 string
  tolerationSeconds 5 *int64

HostAlias
  ip! 1 string required
  hostnames 2 []string atomic

PodDNSConfig
  nameservers 1 []string atomic
  searches 2 []string atomic
  options 3 []PodDNSConfigOption atomic

PodReadinessGate
  conditionType! 1 string required

TopologySpreadConstraint
  maxSkew! 1 int32 required
  topologyKey! 2 string required
  whenUnsatisfiable! 3 string required
  labelSelector 4 *LabelSelector
  minDomains 5 *int32
  nodeAffinityPolicy 6 *string
  nodeTaintsPolicy 7 *string
  matchLabelKeys 8 []string atomic

PodOS
  name! 1 string required

PodSchedulingGate
  name! 1 string required

PodResourceClaim
  name! 1 string required
  resourceClaimName 3 *string
  resourceClaimTemplateName 4 *string

ResourceRequirements
  limits 1 {Quantity}
  requests 2 {Quantity}
  claims 3 []ResourceClaim map=name

PodCondition
  type! 1 string required
  status! 2 string required
  lastProbeTime 3 Time
  lastTransitionTime 4 Time
  reason 5 string
  message 6 string

HostIP
  ip! 1 string required

PodIP
  ip! 1 string required

ContainerStatus
  name! 1 string required
  state 2 ContainerState
  lastState 3 ContainerState
  ready! 4 bool required
  restartCount! 5 int32 required
  image! 6 string required
  imageID! 7 string required
  containerID 8 string
  started 9 *bool
  allocatedResources 10 {Quantity}
  resources 11 *ResourceRequirements
  volumeMounts 12 []VolumeMountStatus merge=mountPath map=mountPath
  user 13 *ContainerUser
  allocatedResourcesStatus 14 []ResourceStatus merge=name map=name

PodResourceClaimStatus
  name! 1 string required
  resourceClaimName 2 *string

VolumeSource
  hostPath 1 *HostPathVolumeSource
  emptyDir 2 *EmptyDirVolumeSource
  gcePersistentDisk 3 *GCEPersistentDiskVolumeSource
  awsElasticBlockStore 4 *AWSElasticBlockStoreVolumeSource
  gitRepo 5 *GitRepoVolumeSource
  secret 6 *SecretVolumeSource
  nfs 7 *NFSVolumeSource
  iscsi 8 *ISCSIVolumeSource
  glusterfs 9 *GlusterfsVolumeSource
  persistentVolumeClaim 10 *PersistentVolumeClaimVolumeSource
  rbd 11 *RBDVolumeSource
  flexVolume 12 *FlexVolumeSource
  cinder 13 *CinderVolumeSource
  cephfs 14 *CephFSVolumeSource
  flocker 15 *FlockerVolumeSource
  downwardAPI 16 *DownwardAPIVolumeSource
  fc 17 *FCVolumeSource
  azureFile 18 *AzureFileVolumeSource
  configMap 19 *ConfigMapVolumeSource
  vsphereVolume 20 *VsphereVirtualDiskVolumeSource
  quobyte 21 *QuobyteVolumeSource
  azureDisk 22 *AzureDiskVolumeSource
  photonPersistentDisk 23 *PhotonPersistentDiskVolumeSource
  projected 26 *ProjectedVolumeSource
  portworxVolume 24 *PortworxVolumeSource
  scaleIO 25 *ScaleIOVolumeSource
  storageos 27 *StorageOSVolumeSource
  csi 28 *CSIVolumeSource
  ephemeral 29 *EphemeralVolumeSource
  image 30 *ImageVolumeSource

ContainerPort
  name 1 string
  hostPort 2 int32
  containerPort! 3 int32 required
  protocol 4 string default=TCP
  hostIP 5 string

EnvFromSource
  prefix 1 string
  configMapRef 2 *ConfigMapEnvSource
  secretRef 3 *SecretEnvSource

EnvVar
  name! 1 string required
  value 2 string
  valueFrom 3 *EnvVarSource

ContainerResizePolicy
  resourceName! 1 string required
  restartPolicy! 2 string required

VolumeMount
  name! 1 string required
  readOnly 2 bool
  recursiveReadOnly 7 *string
  mountPath! 3 string required
  subPath 4 string
  mountPropagation 5 *string
  subPathExpr 6 string

VolumeDevice
  name! 1 string required
  devicePath! 2 string required

Probe
  ...ProbeHandler 1
  initialDelaySeconds 2 int32
  timeoutSeconds 3 int32
  periodSeconds 4 int32
  successThreshold 5 int32
  failureThreshold 6 int32
  terminationGracePeriodSeconds 7 *int64

Lifecycle
  postStart 1 *LifecycleHandler
  preStop 2 *LifecycleHandler

SecurityContext
  capabilities 1 *Capabilities
  privileged 2 *bool
  seLinuxOptions 3 *SELinuxOptions
  windowsOptions 10 *WindowsSecurityContextOptions
  runAsUser 4 *int64
  runAsGroup 8 *int64
  runAsNonRoot 5 *bool
  readOnlyRootFilesystem 6 *bool
  allowPrivilegeEscalation 7 *bool
  procMount 9 *string
  seccompProfile 11 *SeccompProfile
  appArmorProfile 12 *AppArmorProfile

EphemeralContainerCommon
  name! 1 string
  image 2 string
  command 3 []string atomic
  args 4 []string atomic
  workingDir 5 string
  ports 6 []ContainerPort merge=containerPort map=containerPort,protocol
  envFrom 19 []EnvFromSource atomic
  env 7 []EnvVar merge=name map=name
  resources 8 ResourceRequirements
  resizePolicy 23 []ContainerResizePolicy atomic
  restartPolicy 24 *string
  restartPolicyRules 25 []ContainerRestartRule atomic
  volumeMounts 9 []VolumeMount merge=mountPath map=mountPath
  volumeDevices 21 []VolumeDevice merge=devicePath map=devicePath
  livenessProbe 10 *Probe
  readinessProbe 11 *Probe
  startupProbe 22 *Probe
  lifecycle 12 *Lifecycle
  terminationMessagePath 13 string
  terminationMessagePolicy 20 string
  imagePullPolicy 14 string
  securityContext 15 *SecurityContext
  stdin 16 bool
  stdinOnce 17 bool
  tty 18 bool

SELinuxOptions
  user 1 string
  role 2 string
  type 3 string
  level 4 string

WindowsSecurityContextOptions
  gmsaCredentialSpecName 1 *string
  gmsaCredentialSpec 2 *string
  runAsUserName 3 *string
  hostProcess 4 *bool

Sysctl
  name! 1 string required
  value! 2 string required

SeccompProfile
  type! 1 string required
  localhostProfile 2 *string

AppArmorProfile
  type! 1 string required
  localhostProfile 2 *string

NodeAffinity
  requiredDuringSchedulingIgnoredDuringExecution 1 *NodeSelector
  preferredDuringSchedulingIgnoredDuringExecution 2 []PreferredSchedulingTerm atomic

PodAffinity
  requiredDuringSchedulingIgnoredDuringExecution 1 []PodAffinityTerm atomic
  preferredDuringSchedulingIgnoredDuringExecution 2 []WeightedPodAffinityTerm atomic

PodAntiAffinity
  requiredDuringSchedulingIgnoredDuringExecution 1 []PodAffinityTerm atomic
  preferredDuringSchedulingIgnoredDuringExecution 2 []WeightedPodAffinityTerm atomic

PodDNSConfigOption
  name 1 string
  value 2 *string

ResourceClaim
  name! 1 string required
  request 2 string

ContainerState
  waiting 1 *ContainerStateWaiting
  running 2 *ContainerStateRunning
  terminated 3 *ContainerStateTerminated

VolumeMountStatus
  name! 1 string required
  mountPath! 2 string required
  readOnly 3 bool
  recursiveReadOnly 4 *string

ContainerUser
  linux 1 *LinuxContainerUser

ResourceStatus
  name! 1 string required
  resources 2 []ResourceHealth map=resourceID

HostPathVolumeSource
  path! 1 string required
  type 2 *string

EmptyDirVolumeSource
  medium 1 string
  sizeLimit 2 *Quantity

GCEPersistentDiskVolumeSource
  pdName! 1 string required
  fsType 2 string
  partition 3 int32
  readOnly 4 bool

AWSElasticBlockStoreVolumeSource
  volumeID! 1 string required
  fsType 2 string
  partition 3 int32
  readOnly 4 bool

GitRepoVolumeSource
  repository! 1 string required
  revision 2 string
  directory 3 string

SecretVolumeSource
  secretName 1 string
  items 2 []KeyToPath atomic
  defaultMode 3 *int32
  optional 4 *bool

NFSVolumeSource
  server! 1 string required
  path! 2 string required
  readOnly 3 bool

ISCSIVolumeSource
  targetPortal! 1 string required
  iqn! 2 string required
  lun! 3 int32 required
  iscsiInterface 4 string default=default
  fsType 5 string
  readOnly 6 bool
  portals 7 []string atomic
  chapAuthDiscovery 8 bool
  chapAuthSession 11 bool
  secretRef 10 *LocalObjectReference
  initiatorName 12 *string

GlusterfsVolumeSource
  endpoints! 1 string required
  path! 2 string required
  readOnly 3 bool

PersistentVolumeClaimVolumeSource
  claimName! 1 string required
  readOnly 2 bool

RBDVolumeSource
  monitors! 1 []string atomic required
  image! 2 string required
  fsType 3 string
  pool 4 string default=rbd
  user 5 string default=admin
  keyring 6 string default=/etc/ceph/keyring
  secretRef 7 *LocalObjectReference
  readOnly 8 bool

FlexVolumeSource
  driver! 1 string required
  fsType 2 string
  secretRef 3 *LocalObjectReference
  readOnly 4 bool
  options 5 {string}

CinderVolumeSource
  volumeID! 1 string required
  fsType 2 string
  readOnly 3 bool
  secretRef 4 *LocalObjectReference

CephFSVolumeSource
  monitors! 1 []string atomic required
  path 2 string
  user 3 string
  secretFile 4 string
  secretRef 5 *LocalObjectReference
  readOnly 6 bool

FlockerVolumeSource
  datasetName 1 string
  datasetUUID 2 string

DownwardAPIVolumeSource
  items 1 []DownwardAPIVolumeFile atomic
  defaultMode 2 *int32

FCVolumeSource
  targetWWNs 1 []string atomic
  lun 2 *int32
  fsType 3 string
  readOnly 4 bool
  wwids 5 []string atomic

AzureFileVolumeSource
  secretName! 1 string required
  shareName! 2 string required
  readOnly 3 bool

ConfigMapVolumeSource
  ...LocalObjectReference 1
  items 2 []KeyToPath atomic
  defaultMode 3 *int32
  optional 4 *bool

VsphereVirtualDiskVolumeSource
  volumePath! 1 string required
  fsType 2 string
  storagePolicyName 3 string
  storagePolicyID 4 string

QuobyteVolumeSource
  registry! 1 string required
  volume! 2 string required
  readOnly 3 bool
  user 4 string
  group 5 string
  tenant 6 string

AzureDiskVolumeSource
  diskName! 1 string required
  diskURI! 2 string required
  cachingMode 3 *string default=ReadWrite
  fsType 4 *string default=ext4
  readOnly 5 *bool
  kind 6 *string default=Shared

PhotonPersistentDiskVolumeSource
  pdID! 1 string required
  fsType 2 string

ProjectedVolumeSource
  sources! 1 []VolumeProjection atomic
  defaultMode 2 *int32

PortworxVolumeSource
  volumeID! 1 string required
  fsType 2 string
  readOnly 3 bool

ScaleIOVolumeSource
  gateway! 1 string required
  system! 2 string required
  secretRef! 3 *LocalObjectReference required
  sslEnabled 4 bool
  protectionDomain 5 string
  storagePool 6 string
  storageMode 7 string default=ThinProvisioned
  volumeName 8 string
  fsType 9 string default=xfs
  readOnly 10 bool

StorageOSVolumeSource
  volumeName 1 string
  volumeNamespace 2 string
  fsType 3 string
  readOnly 4 bool
  secretRef 5 *LocalObjectReference

CSIVolumeSource
  driver! 1 string required
  readOnly 2 *bool
  fsType 3 *string
  volumeAttributes 4 {string}
  nodePublishSecretRef 5 *LocalObjectReference

EphemeralVolumeSource
  volumeClaimTemplate 1 *PersistentVolumeClaimTemplate

ImageVolumeSource
  reference 1 string
  pullPolicy 2 string

ConfigMapEnvSource
  ...LocalObjectReference 1
  optional 2 *bool

SecretEnvSource
  ...LocalObjectReference 1
  optional 2 *bool

EnvVarSource
  fieldRef 1 *ObjectFieldSelector
  resourceFieldRef 2 *ResourceFieldSelector
  configMapKeyRef 3 *ConfigMapKeySelector
  secretKeyRef 4 *SecretKeySelector

ProbeHandler
  exec 1 *ExecAction
  httpGet 2 *HTTPGetAction
  tcpSocket 3 *TCPSocketAction
  grpc 4 *GRPCAction

LifecycleHandler
  exec 1 *ExecAction
  httpGet 2 *HTTPGetAction
  tcpSocket 3 *TCPSocketAction
  sleep 4 *SleepAction

Capabilities
  add 1 []string atomic
  drop 2 []string atomic

ContainerRestartRule
  action 1 string
  exitCodes 2 *ContainerRestartRuleOnExitCodes

PreferredSchedulingTerm
  weight! 1 int32 required
  preference! 2 NodeSelectorTerm required

PodAffinityTerm
  labelSelector 1 *LabelSelector
  namespaces 2 []string atomic
  topologyKey! 3 string required
  namespaceSelector 4 *LabelSelector
  matchLabelKeys 5 []string atomic
  mismatchLabelKeys 6 []string atomic

WeightedPodAffinityTerm
  weight! 1 int32 required
  podAffinityTerm! 2 PodAffinityTerm required

ContainerStateWaiting
  reason 1 string
  message 2 string

ContainerStateRunning
  startedAt 1 Time

ContainerStateTerminated
  exitCode! 1 int32 required
  signal 2 int32
  reason 3 string
  message 4 string
  startedAt 5 Time
  finishedAt 6 Time
  containerID 7 string

LinuxContainerUser
  uid! 1 int64 required
  gid! 2 int64 required
  supplementalGroups 3 []int64 atomic

ResourceHealth
  resourceID! 1 string required
  health 2 string

KeyToPath
  key! 1 string required
  path! 2 string required
  mode 3 *int32

DownwardAPIVolumeFile
  path! 1 string required
  fieldRef 2 *ObjectFieldSelector
  resourceFieldRef 3 *ResourceFieldSelector
  mode 4 *int32

VolumeProjection
  secret 1 *SecretProjection
  downwardAPI 2 *DownwardAPIProjection
  configMap 3 *ConfigMapProjection
  serviceAccountToken 4 *ServiceAccountTokenProjection
  clusterTrustBundle 5 *ClusterTrustBundleProjection

PersistentVolumeClaimTemplate
  metadata 1 ObjectMeta
  spec! 2 PersistentVolumeClaimSpec required

ObjectFieldSelector atomic
  apiVersion 1 string
  fieldPath! 2 string required

ResourceFieldSelector atomic
  containerName 1 string
  resource! 2 string required
  divisor 3 Quantity

ConfigMapKeySelector atomic
  ...LocalObjectReference 1
  key! 2 string required
  optional 3 *bool

SecretKeySelector atomic
  ...LocalObjectReference 1
  key! 2 string required
  optional 3 *bool

ExecAction
  command 1 []string atomic

HTTPGetAction
  path 1 string
  port! 2 IntOrString required
  host 3 string
  scheme 4 string
  httpHeaders 5 []HTTPHeader atomic

TCPSocketAction
  port! 1 IntOrString required
  host 2 string

GRPCAction
  port! 1 int32 required
  service! 2 *string

SleepAction
  seconds! 1 int64 required

ContainerRestartRuleOnExitCodes
  operator 1 string
  values 2 []int32 set

SecretProjection
  ...LocalObjectReference 1
  items 2 []KeyToPath atomic
  optional 4 *bool

DownwardAPIProjection
  items 1 []DownwardAPIVolumeFile atomic

ConfigMapProjection
  ...LocalObjectReference 1
  items 2 []KeyToPath atomic
  optional 4 *bool

ServiceAccountTokenProjection
  audience 1 string
  expirationSeconds 2 *int64
  path! 3 string required

ClusterTrustBundleProjection
  name 1 *string
  signerName 2 *string
  labelSelector 3 *LabelSelector
  optional 5 *bool
  path! 4 string required

PersistentVolumeClaimSpec
  accessModes 1 []string atomic
  selector 4 *LabelSelector
  resources 2 VolumeResourceRequirements
  volumeName 3 string
  storageClassName 5 *string
  volumeMode 6 *string
  dataSource 7 *TypedLocalObjectReference
  dataSourceRef 8 *TypedObjectReference
  volumeAttributesClassName 9 *string

HTTPHeader
  name! 1 string required
  value! 2 string required

VolumeResourceRequirements
  limits 1 {Quantity}
  requests 2 {Quantity}

TypedObjectReference
  apiGroup! 1 *string
  kind! 2 string required
  name! 3 string required
  namespace 4 *string
`,
)

/** Fills in what a Pod's spec leaves out. */
export function podDefaults(spec: Json): void {
  spec['restartPolicy'] ??= 'Always'
  spec['terminationGracePeriodSeconds'] ??= 30
  spec['dnsPolicy'] ??= 'ClusterFirst'
  spec['securityContext'] ??= {}
  spec['schedulerName'] ??= 'default-scheduler'
  if (spec['serviceAccountName'] !== undefined) spec['serviceAccount'] = spec['serviceAccountName']
  else if (spec['serviceAccount'] !== undefined) spec['serviceAccountName'] = spec['serviceAccount']
  for (const c of containersOf(spec)) {
    const { image } = c
    c['terminationMessagePath'] ??= '/dev/termination-log'
    c['terminationMessagePolicy'] ??= 'File'
    c['imagePullPolicy'] ??= /:(?!latest$)[^/]+$/.test(image ?? '') || (image ?? '').includes('@') ? 'IfNotPresent' : 'Always'
    for (const p of (c['ports'] ?? []) as Json[]) {
      p['protocol'] ??= 'TCP'
      if (spec['hostNetwork'] === true) p['hostPort'] ??= p['containerPort']
    }
    for (const e of (c['env'] ?? []) as Json[]) if (e['valueFrom']?.fieldRef !== undefined) e['valueFrom'].fieldRef.apiVersion ??= 'v1'
    for (const probe of [c['livenessProbe'], c['readinessProbe'], c['startupProbe']]) {
      if (probe === undefined) continue
      probe.timeoutSeconds ??= 1
      probe.periodSeconds ??= 10
      probe.successThreshold ??= 1
      probe.failureThreshold ??= 3
      if (probe.httpGet !== undefined) {
        probe.httpGet.path ??= '/'
        probe.httpGet.scheme ??= 'HTTP'
      }
      if (probe.grpc !== undefined) probe.grpc.service ??= ''
    }
    for (const hook of [c['lifecycle']?.postStart, c['lifecycle']?.preStop]) {
      if (hook?.httpGet === undefined) continue
      hook.httpGet.path ??= '/'
      hook.httpGet.scheme ??= 'HTTP'
    }
  }
  for (const v of (spec['volumes'] ?? []) as Json[]) {
    if (Object.keys(v).length === 1) v['emptyDir'] = {}
    for (const source of [v['secret'], v['configMap'], v['downwardAPI'], v['projected']]) if (source !== undefined) source.defaultMode ??= 420
    if (v['hostPath'] !== undefined) v['hostPath'].type ??= ''
    for (const item of (v['downwardAPI']?.items ?? []) as Json[]) if (item['fieldRef'] !== undefined) item['fieldRef'].apiVersion ??= 'v1'
    for (const s of (v['projected']?.sources ?? []) as Json[]) {
      if (s['serviceAccountToken'] !== undefined) s['serviceAccountToken'].expirationSeconds ??= 3600
      for (const item of (s['downwardAPI']?.items ?? []) as Json[]) if (item['fieldRef'] !== undefined) item['fieldRef'].apiVersion ??= 'v1'
    }
  }
}

/** Every container of a spec: init, usual and ephemeral ones. */
export const containersOf = (spec: Json): Json[] => [...(spec['initContainers'] ?? []), ...(spec['containers'] ?? []), ...(spec['ephemeralContainers'] ?? [])]

/** Checks a Pod's spec; `path` is `spec` or `spec.template.spec`. */
export function validatePodSpec(spec: Json, path: string, errors: FieldErrors): void {
  const volumes = new Set<string>()
  ;((spec['volumes'] ?? []) as Json[]).forEach((v, i) => {
    const at = `${path}.volumes[${i}]`
    if ((v['name'] ?? '') === '') errors.required(`${at}.name`)
    else {
      all(errors, `${at}.name`, v['name'], labelTrouble(v['name']))
      if (volumes.has(v['name'])) errors.duplicate(`${at}.name`, v['name'])
    }
    volumes.add(v['name'])
    const sources = Object.keys(v).filter((k) => k !== 'name')
    sources.slice(1).forEach((s) => errors.forbidden(`${at}.${s}`, 'may not specify more than 1 volume type'))
  })
  const containers = (spec['containers'] ?? []) as Json[]
  if (containers.length === 0) errors.required(`${path}.containers`)
  const names = new Set<string>()
  containers.forEach((c, i) => container(c, `${path}.containers[${i}]`, names, volumes, spec['hostNetwork'] === true, errors))
  ;((spec['initContainers'] ?? []) as Json[]).forEach((c, i) => container(c, `${path}.initContainers[${i}]`, names, volumes, spec['hostNetwork'] === true, errors))
  if (!['Always', 'OnFailure', 'Never'].includes(spec['restartPolicy'])) errors.unsupported(`${path}.restartPolicy`, spec['restartPolicy'], ['Always', 'OnFailure', 'Never'])
  if (!['ClusterFirstWithHostNet', 'ClusterFirst', 'Default', 'None'].includes(spec['dnsPolicy']))
    errors.unsupported(`${path}.dnsPolicy`, spec['dnsPolicy'], ['ClusterFirstWithHostNet', 'ClusterFirst', 'Default', 'None'])
  if (spec['dnsPolicy'] === 'None' && spec['dnsConfig'] === undefined) errors.required(`${path}.dnsConfig`, 'must provide `dnsConfig` when `dnsPolicy` is None')
  else if (spec['dnsPolicy'] === 'None' && (spec['dnsConfig'].nameservers ?? []).length === 0)
    errors.required(`${path}.dnsConfig.nameservers`, 'must provide at least one DNS nameserver when `dnsPolicy` is None')
  for (const [key, value] of Object.entries((spec['nodeSelector'] ?? {}) as Record<string, string>)) {
    all(errors, `${path}.nodeSelector`, key, qualifiedTrouble(key))
    all(errors, `${path}.nodeSelector`, value, labelValueTrouble(value))
  }
  const deadline = spec['activeDeadlineSeconds']
  if (deadline !== undefined && (deadline < 1 || deadline > 2_147_483_647)) errors.invalid(`${path}.activeDeadlineSeconds`, deadline, 'must be between 1 and 2147483647, inclusive')
  ;((spec['tolerations'] ?? []) as Json[]).forEach((t, i) => {
    const at = `${path}.tolerations[${i}]`
    if ((t['key'] ?? '') !== '') all(errors, `${at}.key`, t['key'], qualifiedTrouble(t['key']))
    if (!['', 'Equal', 'Exists'].includes(t['operator'] ?? '')) errors.unsupported(`${at}.operator`, t['operator'], ['Equal', 'Exists'])
    if ((t['key'] ?? '') === '' && t['operator'] !== 'Exists')
      errors.invalid(`${at}.operator`, t['operator'] ?? '', 'operator must be Exists when `key` is empty, which means "match all values and all keys"')
    if (t['operator'] === 'Exists' && (t['value'] ?? '') !== '') errors.invalid(`${at}.operator`, t['operator'], "value must be empty when `operator` is 'Exists'")
    if (!['', 'NoSchedule', 'PreferNoSchedule', 'NoExecute'].includes(t['effect'] ?? '')) errors.unsupported(`${at}.effect`, t['effect'], ['NoSchedule', 'PreferNoSchedule', 'NoExecute'])
  })
  if ((spec['serviceAccountName'] ?? '') !== '') all(errors, `${path}.serviceAccountName`, spec['serviceAccountName'], subdomainTrouble(spec['serviceAccountName']))
  if ((spec['nodeName'] ?? '') !== '') all(errors, `${path}.nodeName`, spec['nodeName'], subdomainTrouble(spec['nodeName']))
  if ((spec['hostname'] ?? '') !== '') all(errors, `${path}.hostname`, spec['hostname'], labelTrouble(spec['hostname']))
  if ((spec['subdomain'] ?? '') !== '') all(errors, `${path}.subdomain`, spec['subdomain'], labelTrouble(spec['subdomain']))
}

function container(c: Json, at: string, names: Set<string>, volumes: ReadonlySet<string>, hostNetwork: boolean, errors: FieldErrors): void {
  if ((c['name'] ?? '') === '') errors.required(`${at}.name`)
  else {
    all(errors, `${at}.name`, c['name'], labelTrouble(c['name']))
    if (names.has(c['name'])) errors.duplicate(`${at}.name`, c['name'])
    names.add(c['name'])
  }
  if ((c['image'] ?? '') === '') errors.required(`${at}.image`)
  else if (c['image'] !== c['image'].trim()) errors.invalid(`${at}.image`, c['image'], 'must not have leading or trailing whitespace')
  const portNames = new Set<string>()
  ;((c['ports'] ?? []) as Json[]).forEach((p, i) => {
    const path = `${at}.ports[${i}]`
    if (p['name'] !== undefined) {
      const trouble = portNameTrouble(p['name'])
      all(errors, `${path}.name`, p['name'], trouble)
      if (trouble.length === 0 && portNames.has(p['name'])) errors.duplicate(`${path}.name`, p['name'])
      portNames.add(p['name'])
    }
    if (p['containerPort'] === 0) errors.required(`${path}.containerPort`)
    else all(errors, `${path}.containerPort`, p['containerPort'], portTrouble(p['containerPort']))
    if (hostNetwork && p['hostPort'] !== undefined && p['hostPort'] !== p['containerPort']) errors.invalid(`${path}.hostPort`, p['hostPort'], 'must match `containerPort` when `hostNetwork` is true')
    if (p['hostPort'] !== undefined) all(errors, `${path}.hostPort`, p['hostPort'], portTrouble(p['hostPort']))
    if (!['TCP', 'UDP', 'SCTP'].includes(p['protocol'])) errors.unsupported(`${path}.protocol`, p['protocol'], ['SCTP', 'TCP', 'UDP'])
  })
  ;((c['env'] ?? []) as Json[]).forEach((e, i) => {
    if ((e['name'] ?? '') === '') errors.required(`${at}.env[${i}].name`)
    else if (!/^[\x20-\x3c\x3e-\x7e]+$/.test(e['name']))
      errors.invalid(`${at}.env[${i}].name`, e['name'], "a valid environment variable name must consist only of printable ASCII characters other than '='")
    if (e['valueFrom'] !== undefined && (e['value'] ?? '') !== '') errors.invalid(`${at}.env[${i}].valueFrom`, '', 'may not be specified when `value` is not empty')
    if (e['valueFrom']?.fieldRef !== undefined) fieldRef(e['valueFrom'].fieldRef, `${at}.env[${i}].valueFrom.fieldRef`, errors)
  })
  const mounts = new Set<string>()
  ;((c['volumeMounts'] ?? []) as Json[]).forEach((m, i) => {
    const path = `${at}.volumeMounts[${i}]`
    if ((m['name'] ?? '') === '') errors.required(`${path}.name`)
    else if (!volumes.has(m['name'])) errors.notFound(`${path}.name`, m['name'])
    if ((m['mountPath'] ?? '') === '') errors.required(`${path}.mountPath`)
    else if (mounts.has(m['mountPath'])) errors.invalid(`${path}.mountPath`, m['mountPath'], 'must be unique')
    mounts.add(m['mountPath'])
  })
  if (!['Always', 'IfNotPresent', 'Never'].includes(c['imagePullPolicy'])) errors.unsupported(`${at}.imagePullPolicy`, c['imagePullPolicy'], ['Always', 'IfNotPresent', 'Never'])
  for (const name of ['livenessProbe', 'readinessProbe', 'startupProbe']) {
    const p = c[name]
    if (p === undefined) continue
    const ways = ['exec', 'httpGet', 'tcpSocket', 'grpc'].filter((w) => p[w] !== undefined)
    if (ways.length === 0) errors.required(`${at}.${name}`, 'must specify a handler type')
    if (p.exec !== undefined && (p.exec.command ?? []).length === 0) errors.required(`${at}.${name}.exec.command`)
    for (const way of ways) {
      if (way !== ways[0]) {
        errors.forbidden(`${at}.${name}.${way}`, 'may not specify more than 1 handler type')
        continue
      }
      const port = p[way]?.port
      if (port === undefined) continue
      if (typeof port === 'number') all(errors, `${at}.${name}.${way}.port`, port, portTrouble(port))
      else all(errors, `${at}.${name}.${way}.port`, port, portNameTrouble(port))
    }
    for (const n of ['initialDelaySeconds', 'timeoutSeconds', 'periodSeconds', 'successThreshold', 'failureThreshold'])
      if ((p[n] ?? 0) < 0) errors.invalid(`${at}.${name}.${n}`, p[n], 'must be greater than or equal to 0')
    if (name !== 'readinessProbe' && p.successThreshold !== 1) errors.invalid(`${at}.${name}.successThreshold`, p.successThreshold, 'must be 1')
  }
  for (const [name, request] of Object.entries((c['resources']?.requests ?? {}) as Record<string, string>)) {
    const limit = c['resources'].limits?.[name]
    if (limit !== undefined && amount(request) > amount(limit)) errors.invalid(`${at}.resources.requests`, request, `must be less than or equal to ${name} limit of ${limit}`)
  }
}

const tellable = ['metadata.name', 'metadata.namespace', 'metadata.uid', 'spec.nodeName', 'spec.serviceAccountName', 'status.hostIP', 'status.hostIPs', 'status.podIP', 'status.podIPs']
const known = new Set([...tellable, 'metadata.annotations', 'metadata.labels', 'spec.restartPolicy', 'spec.schedulerName', 'status.phase'])

/** What a container may be told of its Pod in an environment variable. */
function fieldRef(ref: Json, at: string, errors: FieldErrors): void {
  const path: string = ref['fieldPath'] ?? ''
  if ((ref['apiVersion'] ?? '') === '') errors.required(`${at}.apiVersion`)
  else if (path === '') errors.required(`${at}.fieldPath`)
  else if (/^metadata\.(annotations|labels)\['[^']+'\]$/.test(path)) return
  else if (!known.has(path)) errors.invalid(`${at}.fieldPath`, path, `error converting fieldPath: field label not supported: ${path}`)
  else if (!tellable.includes(path)) errors.unsupported(`${at}.fieldPath`, path, tellable)
}

const units: Readonly<Record<string, number>> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
}

/** A canonical quantity as a number. */
export function amount(text: string): number {
  const m = /^([+-]?[\d.]+)(.*)$/.exec(text)
  if (m === null) return Number.NaN
  return /^e-?\d+$/.test(m[2]!) ? Number(text) : Number(m[1]) * (units[m[2]!] ?? Number.NaN)
}
