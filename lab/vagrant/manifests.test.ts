import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { parse } from 'yaml'
import { kubeDnsService } from '../cluster.ts'
import { topology } from '../topology.ts'

test('machines get the same Service kube-dns as the lab in namespaces', async (t) => {
  t.same(parse(readFileSync(join(import.meta.dirname, '../manifests/kube-dns.yaml'), 'utf8')), kubeDnsService(topology({ name: 'default' })))
})
