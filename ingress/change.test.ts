import { test } from 'tap'
import { seeded } from '../lib/random.ts'
import { applyChange, diffTables } from './change.ts'
import { findHost } from './hosts.ts'
import { hostRoutes } from './match.ts'
import { emptyTable, type RouteTable } from './table.ts'
import { route, tableOf } from './testing/memory.ts'

/** A table as text: what a worker must have after its changes. */
function print(table: RouteTable): string {
  const hosts = [...table.hosts.shards, ...table.wildcards.shards]
    .flatMap((s) => [...s.values()])
    .map((h) => `${h.host}: ${h.routes.map((r) => `${r.kind} ${r.path} → ${r.upstream.name}`).join(', ')}`)
  return [...hosts.sort(), `any ${table.any?.routes.length ?? '-'}`, [...table.endpoints].sort().join(), table.hosts.size, table.wildcards.size].join('\n')
}

void test('any table follows any other by the change between them, also when the change crosses to a worker', async (t) => {
  const random = seeded(7)
  const pick = (n: number): number => Math.floor(random() * n)
  let have: RouteTable = emptyTable
  for (let n = 0; n < 200; n++) {
    const routes = Array.from({ length: pick(30) }, () => route(`${['', '*.', ''][pick(3)]!}h${pick(20)}.test/${pick(2) === 0 ? '' : 'x'}`, [`10.0.0.${pick(9) + 1}:80`]))
    if (pick(3) === 0) routes.push(route('/', ['10.0.0.1:80']))
    const want = tableOf(...routes)
    have = applyChange(have, structuredClone(diffTables(have, want)))
    if (print(have) !== print(want)) {
      t.equal(print(have), print(want), `table ${n}`)
      return
    }
  }
  t.pass('200 tables')
})

void test('ten thousand hosts: each is found, one that is not is not, and a change leaves the others as they are', async (t) => {
  const names = Array.from({ length: 10_000 }, (_, i) => `h${i}.many.test`)
  const table = tableOf(...names.map((n) => route(`${n}/`, ['10.0.0.1:80'])))
  t.ok(names.every((n) => hostRoutes(table, n)?.host === n))
  t.equal(hostRoutes(table, 'h10000.many.test'), undefined)
  t.ok(Math.max(...table.hosts.shards.map((s) => s.size)) < 250, 'no shard has too many')
  const next = applyChange(table, { hosts: [['h5.many.test', undefined]], wildcards: [], parts: {}, endpointsGone: [], endpointsNew: [] })
  t.equal(next.hosts.size, 9999)
  t.equal(findHost(next.hosts, 'h5.many.test'), undefined)
  t.equal(next.hosts.shards.filter((s, i) => s !== table.hosts.shards[i]).length, 1)
})
