import { types } from './schema.ts'

types(
  'networking.v1',
  `
IPAddress
  metadata 1 ObjectMeta
  spec 2 IPAddressSpec

IPAddressSpec
  parentRef 1 *ParentReference

ParentReference
  group 1 string
  resource 2 string
  namespace 3 string
  name 4 string
`,
)
