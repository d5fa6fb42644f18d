import { types } from './schema.ts'

types(
  'networking.v1',
  `
ServiceCIDR
  metadata 1 ObjectMeta
  spec 2 ServiceCIDRSpec
  status 3 ServiceCIDRStatus

ServiceCIDRSpec
  cidrs 1 []string atomic

ServiceCIDRStatus
  conditions 1 []Condition merge=type map=type
`,
)
