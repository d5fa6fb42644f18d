import { jsonTrouble } from './gojson.ts'
import { types } from './schema.ts'
import type { Json } from './decode.ts'
import { age, kind, nameColumn, text } from './kind.ts'
import { all, configKeyTrouble } from './validate.ts'

types(
  'core.v1',
  `
Secret
  metadata 1 ObjectMeta
  immutable 5 *bool
  data 2 {bytes}
  stringData 4 {string}
  type 3 string
`,
)

const largest = 1_048_576

/** Keys, passwords and certificates. */
export const secrets = kind({
  kind: 'Secret',
  plural: 'secrets',
  namespaced: true,
  description: 'Small things that few should see: keys, passwords, certificates.',
  selectable: { type: (o) => o['type'] ?? '' },
  selectorErrors: 'not supported',
  defaults(o) {
    o['type'] ??= 'Opaque'
    if (o['stringData'] !== undefined) {
      o['data'] = { ...o['data'] }
      for (const [key, value] of Object.entries(o['stringData'] as Record<string, string>)) o['data'][key] = Buffer.from(value).toString('base64')
      delete o['stringData']
    }
  },
  validate(o, errors) {
    const data: Json = o['data'] ?? {}
    let size = 0
    for (const [key, value] of Object.entries(data)) {
      all(errors, `data[${key}]`, key, configKeyTrouble(key))
      size += Buffer.byteLength(value as string, 'base64')
    }
    if (size > largest) errors.tooLong('data', largest)
    const needs = (key: string): void => {
      if (!Object.hasOwn(data, key)) errors.required(`data[${key}]`)
    }
    switch (o['type']) {
      case 'kubernetes.io/service-account-token':
        if ((o['metadata'].annotations?.['kubernetes.io/service-account.name'] ?? '') === '') errors.required('metadata.annotations[kubernetes.io/service-account.name]')
        break
      case 'kubernetes.io/dockercfg':
        needs('.dockercfg')
        break
      case 'kubernetes.io/dockerconfigjson':
        needs('.dockerconfigjson')
        if (data['.dockerconfigjson'] !== undefined) {
          const trouble = jsonTrouble(Buffer.from(data['.dockerconfigjson'], 'base64'))
          if (trouble !== undefined) errors.invalid('data[.dockerconfigjson]', '<secret contents redacted>', trouble)
        }
        break
      case 'kubernetes.io/basic-auth':
        if (!Object.hasOwn(data, 'username') && !Object.hasOwn(data, 'password')) {
          errors.required('data[username]')
          errors.required('data[password]')
        }
        break
      case 'kubernetes.io/ssh-auth':
        if ((data['ssh-privatekey'] ?? '') === '') errors.required('data[ssh-privatekey]')
        break
      case 'kubernetes.io/tls':
        needs('tls.crt')
        needs('tls.key')
    }
  },
  validateUpdate(now, before, errors) {
    if (now['type'] !== before['type']) errors.invalid('type', now['type'] ?? '', 'field is immutable')
    if (before['immutable'] !== true) return
    if (now['immutable'] !== true) errors.forbidden('immutable', 'field is immutable when `immutable` is set')
    if (JSON.stringify(now['data'] ?? {}) !== JSON.stringify(before['data'] ?? {})) errors.forbidden('data', 'field is immutable when `immutable` is set')
  },
  warnings(o) {
    if (o['type'] !== 'kubernetes.io/tls') return []
    const has = (key: string): boolean =>
      Buffer.from(o['data']?.[key] ?? '', 'base64')
        .toString()
        .includes('-----BEGIN')
    return has('tls.crt') ? (has('tls.key') ? [] : ['tls: failed to find any PEM data in key input']) : ['tls: failed to find any PEM data in certificate input']
  },
  columns: [nameColumn, text('Type'), text('Data'), text('Age')],
  cells: (o, now) => [o['metadata'].name, o['type'], Object.keys(o['data'] ?? {}).length, age(o, now)],
})
