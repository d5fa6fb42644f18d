import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import '../kinds/index.ts'
import { decode } from '../kinds/decode.ts'
import { kinds } from '../kinds/index.ts'
import { decodeProtobuf } from './protobuf.ts'

// Objects with every field set, as JSON and as protobuf, from Kubernetes' own tests.
const vectors = join(import.meta.dirname, '../../../shared/data/kubernetes-1.32/vectors')

for (const k of kinds) {
  const name = join(vectors, `${k.group === '' ? 'core' : k.group}.v1.${k.kind}`)
  // ServiceCIDR is younger than the vectors.
  test(`${k.group === '' ? 'core' : k.group} ${k.kind} means the same in protobuf and in JSON`, { skip: existsSync(`${name}.json`) ? false : 'the vectors are not here' }, (t) => {
    const unknown: string[] = []
    const json = decode(k.type, JSON.parse(readFileSync(`${name}.json`, 'utf8')), (path) => unknown.push(path))
    t.same(unknown, [], 'every field is known')
    t.same(decode(k.type, decodeProtobuf(readFileSync(`${name}.pb`))), json)
    t.end()
  })
}
