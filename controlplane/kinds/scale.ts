import { types } from './schema.ts'

types(
  'autoscaling.v1',
  `
Scale
  metadata 1 ObjectMeta
  spec 2 ScaleSpec
  status 3 ScaleStatus

ScaleSpec
  replicas 1 int32

ScaleStatus
  replicas! 1 int32 required
  selector 2 string
`,
)
