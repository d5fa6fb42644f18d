import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { all, configKeyTrouble } from './validate.ts'

types(
  'core.v1',
  `
ConfigMap
  metadata 1 ObjectMeta
  immutable 4 *bool
  data 2 {string}
  binaryData 3 {bytes}
`,
)

const largest = 1_048_576

/** Settings for programs. */
export const configmaps = kind({
  kind: 'ConfigMap',
  plural: 'configmaps',
  namespaced: true,
  shortNames: ['cm'],
  description: 'Settings that Pods read as files or variables.',
  validate(o, errors) {
    let size = 0
    const data: Json = o['data'] ?? {}
    const binary: Json = o['binaryData'] ?? {}
    for (const [key, value] of Object.entries(data)) {
      all(errors, `data[${key}]`, key, configKeyTrouble(key))
      if (Object.hasOwn(binary, key)) errors.invalid(`data[${key}]`, key, 'duplicate of key present in binaryData')
      size += Buffer.byteLength(value as string)
    }
    for (const [key, value] of Object.entries(binary)) {
      all(errors, `binaryData[${key}]`, key, configKeyTrouble(key))
      size += Buffer.byteLength(value as string, 'base64')
    }
    if (size > largest) errors.tooLong('[]', largest)
  },
  validateUpdate(now, before, errors) {
    if (before['immutable'] !== true) return
    if (now['immutable'] !== true) errors.forbidden('immutable', 'field is immutable when `immutable` is set')
    if (JSON.stringify(now['data'] ?? {}) !== JSON.stringify(before['data'] ?? {})) errors.forbidden('data', 'field is immutable when `immutable` is set')
    if (JSON.stringify(now['binaryData'] ?? {}) !== JSON.stringify(before['binaryData'] ?? {})) errors.forbidden('binaryData', 'field is immutable when `immutable` is set')
  },
  columns: [nameColumn, text('Data'), text('Age')],
  cells: (o, now) => [o['metadata'].name, Object.keys(o['data'] ?? {}).length + Object.keys(o['binaryData'] ?? {}).length, age(o, now)],
})
