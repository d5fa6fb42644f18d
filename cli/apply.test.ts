import { test } from 'tap'
import { difference } from './apply.ts'

const cases: readonly { readonly name: string; readonly before?: unknown; readonly wanted: unknown; readonly live: unknown; readonly patch: unknown }[] = [
  {
    name: 'nothing to do when the server only added defaults',
    wanted: { spec: { ports: [{ port: 80 }] } },
    live: { spec: { type: 'ClusterIP', ports: [{ port: 80, protocol: 'TCP' }] } },
    patch: undefined,
  },
  { name: 'a changed value is sent alone', wanted: { spec: { a: 1, b: 2 } }, live: { spec: { a: 1, b: 3 } }, patch: { spec: { b: 2 } } },
  {
    name: 'what was applied before and is gone is taken away',
    before: { data: { a: '1', b: '2' } },
    wanted: { data: { a: '1' } },
    live: { data: { a: '1', b: '2', c: '3' } },
    patch: { data: { b: null } },
  },
  { name: 'what others added stays', before: { data: { a: '1' } }, wanted: { data: { a: '1' } }, live: { data: { a: '1', c: '3' } }, patch: undefined },
  { name: 'what is gone already is not taken away again', before: { data: { b: '2' } }, wanted: { data: {} }, live: { data: {} }, patch: undefined },
  { name: 'a list is taken whole', wanted: { l: [1, 2] }, live: { l: [1, 2, 3] }, patch: { l: [1, 2] } },
  { name: 'null takes away', wanted: { spec: { a: null } }, live: { spec: { a: 1 } }, patch: { spec: { a: null } } },
  { name: 'an empty map is made where there is none', wanted: { spec: { podSelector: {} } }, live: { spec: {} }, patch: { spec: { podSelector: {} } } },
  { name: 'a map takes the place of a scalar', wanted: { a: { b: 1 } }, live: { a: 5 }, patch: { a: { b: 1 } } },
]

test('the patch says what has to change and no more', async (t) => {
  for (const c of cases) t.same(difference(c.before, c.wanted, c.live), c.patch, c.name)
})
