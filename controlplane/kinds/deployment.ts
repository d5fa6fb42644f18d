import { types } from './schema.ts'

types(
  'apps.v1',
  `
Deployment
  metadata 1 ObjectMeta
  spec 2 DeploymentSpec
  status 3 DeploymentStatus

DeploymentSpec
  replicas 1 *int32
  selector! 2 *LabelSelector required
  template! 3 PodTemplateSpec required
  strategy 4 DeploymentStrategy retain
  minReadySeconds 5 int32
  revisionHistoryLimit 6 *int32
  paused 7 bool
  progressDeadlineSeconds 9 *int32

DeploymentStatus
  observedGeneration 1 int64
  replicas 2 int32
  updatedReplicas 3 int32
  readyReplicas 7 int32
  availableReplicas 4 int32
  unavailableReplicas 5 int32
  conditions 6 []DeploymentCondition merge=type map=type
  collisionCount 8 *int32

DeploymentStrategy
  type 1 string
  rollingUpdate 2 *RollingUpdateDeployment

DeploymentCondition
  type! 1 string required
  status! 2 string required
  lastUpdateTime 6 Time
  lastTransitionTime 7 Time
  reason 4 string
  message 5 string

RollingUpdateDeployment
  maxUnavailable 1 *IntOrString
  maxSurge 2 *IntOrString
`,
)

