import { types } from './schema.ts'

types(
  'core.v1',
  `
ObjectReference atomic
  kind 1 string
  namespace 2 string
  name 3 string
  uid 4 string
  apiVersion 5 string
  resourceVersion 6 string
  fieldPath 7 string

LocalObjectReference atomic
  name 1 string

TypedLocalObjectReference atomic
  apiGroup! 1 *string
  kind! 2 string required
  name! 3 string required

SecretReference atomic
  name 1 string
  namespace 2 string

NodeSelector atomic
  nodeSelectorTerms! 1 []NodeSelectorTerm atomic required

TopologySelectorTerm
  matchLabelExpressions 1 []TopologySelectorLabelRequirement atomic

LoadBalancerStatus
  ingress 1 []LoadBalancerIngress atomic

NodeSelectorTerm atomic
  matchExpressions 1 []NodeSelectorRequirement atomic
  matchFields 2 []NodeSelectorRequirement atomic

TopologySelectorLabelRequirement
  key! 1 string
  values! 2 []string atomic

LoadBalancerIngress
  ip 1 string
  hostname 2 string
  ipMode 3 *string
  ports 4 []PortStatus atomic

NodeSelectorRequirement
  key! 1 string required
  operator! 2 string required
  values 3 []string atomic

PortStatus
  port! 1 int32 required
  protocol! 2 string required enum=SCTP|TCP|UDP
  error 3 *string
`,
)
