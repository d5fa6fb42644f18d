import { types } from './schema.ts'

types(
  'policy.v1',
  `
Eviction
  metadata 1 ObjectMeta
  deleteOptions 2 *DeleteOptions
`,
)
