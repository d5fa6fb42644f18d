import { test } from 'tap'
import { equal, jsonPatch, mergePatch, PatchError, strategicMerge, type JsonOperation, type MergeSchema } from './patch.ts'

/** The examples of RFC 7396, appendix A, which is where RFC 7386's stand corrected. */
const merges: readonly (readonly [target: unknown, patch: unknown, result: unknown])[] = [
  [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
  [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
  [{ a: 'b' }, { a: null }, {}],
  [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
  [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
  [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
  [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
  [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
  [
    ['a', 'b'],
    ['c', 'd'],
    ['c', 'd'],
  ],
  [{ a: 'b' }, ['c'], ['c']],
  [{ a: 'foo' }, null, null],
  [{ a: 'foo' }, 'bar', 'bar'],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [[1, 2], { a: 'b', c: null }, { a: 'b' }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  [{}, JSON.parse('{"__proto__": {"x": 1}}'), JSON.parse('{"__proto__": {"x": 1}}')],
]
for (const [target, patch, result] of merges) {
  test(`merge patch: ${JSON.stringify(target)} with ${JSON.stringify(patch)}`, async (t) => {
    const before = JSON.stringify(target)
    t.equal(JSON.stringify(mergePatch(target, patch)), JSON.stringify(result))
    t.equal(JSON.stringify(target), before, 'the target is as it was')
  })
}

/** After RFC 6902, appendix A, and its corners. `undefined`: refused. */
const patches: readonly { readonly name: string; readonly given: unknown; readonly patch: readonly JsonOperation[]; readonly gives: unknown }[] = [
  { name: 'add a member', given: { foo: 'bar' }, patch: [{ op: 'add', path: '/baz', value: 'qux' }], gives: { foo: 'bar', baz: 'qux' } },
  { name: 'add an element', given: { foo: ['bar', 'baz'] }, patch: [{ op: 'add', path: '/foo/1', value: 'qux' }], gives: { foo: ['bar', 'qux', 'baz'] } },
  { name: 'append', given: { foo: ['bar'] }, patch: [{ op: 'add', path: '/foo/-', value: ['x'] }], gives: { foo: ['bar', ['x']] } },
  { name: 'remove a member', given: { baz: 'qux', foo: 'bar' }, patch: [{ op: 'remove', path: '/baz' }], gives: { foo: 'bar' } },
  { name: 'remove an element', given: { foo: ['a', 'b', 'c'] }, patch: [{ op: 'remove', path: '/foo/1' }], gives: { foo: ['a', 'c'] } },
  { name: 'replace', given: { baz: 'qux' }, patch: [{ op: 'replace', path: '/baz', value: 'boo' }], gives: { baz: 'boo' } },
  { name: 'replace the root', given: { a: 1 }, patch: [{ op: 'replace', path: '', value: [1] }], gives: [1] },
  { name: 'move a member', given: { foo: { bar: 'baz', w: 'f' }, q: {} }, patch: [{ op: 'move', from: '/foo/w', path: '/q/t' }], gives: { foo: { bar: 'baz' }, q: { t: 'f' } } },
  { name: 'move an element', given: { foo: ['all', 'grass', 'cows', 'eat'] }, patch: [{ op: 'move', from: '/foo/1', path: '/foo/3' }], gives: { foo: ['all', 'cows', 'eat', 'grass'] } },
  { name: 'copy', given: { a: [{ b: 1 }] }, patch: [{ op: 'copy', from: '/a/0', path: '/a/-' }], gives: { a: [{ b: 1 }, { b: 1 }] } },
  { name: 'test that holds, order of keys aside', given: { a: { x: 1, y: [2] } }, patch: [{ op: 'test', path: '/a', value: { y: [2], x: 1 } }], gives: { a: { x: 1, y: [2] } } },
  {
    name: 'escaped names',
    given: { 'a/b': 1, 'm~n': 2 },
    patch: [
      { op: 'test', path: '/a~1b', value: 1 },
      { op: 'remove', path: '/m~0n' },
    ],
    gives: { 'a/b': 1 },
  },
  { name: 'add of null', given: { a: 1 }, patch: [{ op: 'add', path: '/a', value: null }], gives: { a: null } },
  {
    name: 'all or nothing',
    given: { a: 1 },
    patch: [
      { op: 'add', path: '/b', value: 1 },
      { op: 'remove', path: '/c' },
    ],
    gives: undefined,
  },
  { name: 'test that fails', given: { a: 1 }, patch: [{ op: 'test', path: '/a', value: '1' }], gives: undefined },
  { name: 'add below nothing', given: { q: { bar: 2 } }, patch: [{ op: 'add', path: '/a/b', value: 1 }], gives: undefined },
  { name: 'an index with a leading zero', given: { a: [1, 2] }, patch: [{ op: 'remove', path: '/a/01' }], gives: undefined },
  { name: 'an index beyond the end', given: { a: [1] }, patch: [{ op: 'add', path: '/a/2', value: 1 }], gives: undefined },
  { name: 'replace of what is not there', given: {}, patch: [{ op: 'replace', path: '/a', value: 1 }], gives: undefined },
  { name: 'move into itself', given: { a: { b: {} } }, patch: [{ op: 'move', from: '/a', path: '/a/b/c' }], gives: undefined },
  { name: 'a pointer without a slash', given: { a: 1 }, patch: [{ op: 'remove', path: 'a' }], gives: undefined },
  { name: 'an inherited name', given: {}, patch: [{ op: 'test', path: '/constructor', value: 1 }], gives: undefined },
]
for (const { name, given, patch, gives } of patches) {
  test(`JSON patch: ${name}`, async (t) => {
    const before = JSON.stringify(given)
    if (gives === undefined) t.throws(() => jsonPatch(given, patch), PatchError)
    else t.strictSame(jsonPatch(given, patch), gives)
    t.equal(JSON.stringify(given), before, 'the document is as it was')
  })
}

test('a failed test of a JSON patch is told from other failures', async (t) => {
  const failed = (patch: readonly JsonOperation[]): boolean => {
    try {
      jsonPatch({ a: 1 }, patch)
    } catch (error) {
      return (error as PatchError).testFailed
    }
    throw new Error('it did not fail')
  }
  t.ok(failed([{ op: 'test', path: '/a', value: 2 }]))
  t.notOk(failed([{ op: 'remove', path: '/b' }]))
})

const schema: MergeSchema = (field) => {
  switch (field) {
    case 'spec':
    case 'template':
      return { inner: schema }
    case 'containers':
      return { merge: true, key: 'name', inner: schema }
    case 'ports':
      return { merge: true, key: 'port', inner: schema }
    case 'finalizers':
      return { merge: true }
    case 'strategy':
      return { retainKeys: true, inner: schema }
    default:
      return undefined
  }
}

const strategic: readonly { readonly name: string; readonly given: unknown; readonly patch: unknown; readonly gives: unknown }[] = [
  { name: 'maps merge and null removes', given: { spec: { a: 1, b: 2 } }, patch: { spec: { b: null, c: 3 } }, gives: { spec: { a: 1, c: 3 } } },
  { name: 'a list without a rule is replaced', given: { args: ['a', 'b'] }, patch: { args: ['c'] }, gives: { args: ['c'] } },
  {
    name: 'elements merge by their key',
    given: {
      containers: [
        { name: 'a', image: '1' },
        { name: 'b', image: '1' },
      ],
    },
    patch: { containers: [{ name: 'b', image: '2' }, { name: 'c' }] },
    gives: { containers: [{ name: 'a', image: '1' }, { name: 'b', image: '2' }, { name: 'c' }] },
  },
  {
    name: 'lists in elements merge too',
    given: { containers: [{ name: 'a', ports: [{ port: 80, x: 1 }] }] },
    patch: { containers: [{ name: 'a', ports: [{ port: 80, y: 2 }, { port: 81 }] }] },
    gives: { containers: [{ name: 'a', ports: [{ port: 80, x: 1, y: 2 }, { port: 81 }] }] },
  },
  { name: '$patch: delete of an element', given: { containers: [{ name: 'a' }, { name: 'b' }] }, patch: { containers: [{ name: 'a', $patch: 'delete' }] }, gives: { containers: [{ name: 'b' }] } },
  { name: '$patch: replace of a list', given: { containers: [{ name: 'a' }, { name: 'b' }] }, patch: { containers: [{ name: 'c' }, { $patch: 'replace' }] }, gives: { containers: [{ name: 'c' }] } },
  { name: '$patch: replace of a map', given: { spec: { a: 1, b: { c: 1 } } }, patch: { spec: { $patch: 'replace', b: { d: 1 } } }, gives: { spec: { b: { d: 1 } } } },
  { name: '$patch: delete of a map', given: { spec: { a: 1 }, x: 1 }, patch: { spec: { $patch: 'delete' } }, gives: { x: 1 } },
  { name: 'a set of values grows', given: { finalizers: ['a', 'b'] }, patch: { finalizers: ['b', 'c'] }, gives: { finalizers: ['a', 'b', 'c'] } },
  { name: '$deleteFromPrimitiveList', given: { finalizers: ['a', 'b', 'c'] }, patch: { '$deleteFromPrimitiveList/finalizers': ['b'] }, gives: { finalizers: ['a', 'c'] } },
  { name: '$setElementOrder of values', given: { finalizers: ['a', 'b'] }, patch: { '$setElementOrder/finalizers': ['c', 'b', 'a'], finalizers: ['c'] }, gives: { finalizers: ['c', 'b', 'a'] } },
  {
    name: '$setElementOrder alone',
    given: { containers: [{ name: 'a' }, { name: 'b' }] },
    patch: { '$setElementOrder/containers': [{ name: 'b' }, { name: 'a' }] },
    gives: { containers: [{ name: 'b' }, { name: 'a' }] },
  },
  {
    name: "$setElementOrder leaves the server's own where they were",
    given: { containers: [{ name: 'own' }, { name: 'a' }, { name: 'b' }] },
    patch: { '$setElementOrder/containers': [{ name: 'b' }, { name: 'a' }, { name: 'c' }], containers: [{ name: 'c' }] },
    gives: { containers: [{ name: 'own' }, { name: 'b' }, { name: 'a' }, { name: 'c' }] },
  },
  {
    name: 'what kubectl apply sends for a changed port',
    given: { spec: { ports: [{ name: 'http', port: 80, nodePort: 30080 }] } },
    patch: {
      spec: {
        '$setElementOrder/ports': [{ port: 8080 }],
        ports: [
          { name: 'http', port: 8080 },
          { $patch: 'delete', port: 80 },
        ],
      },
    },
    gives: { spec: { ports: [{ name: 'http', port: 8080 }] } },
  },
  {
    name: '$retainKeys',
    given: { strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1 } } },
    patch: { strategy: { $retainKeys: ['type'], type: 'Recreate' } },
    gives: { strategy: { type: 'Recreate' } },
  },
  {
    name: 'directives do not stay in what is new',
    given: {},
    patch: { containers: [{ name: 'a', '$setElementOrder/ports': [{ port: 1 }], ports: [{ port: 1 }] }] },
    gives: { containers: [{ name: 'a', ports: [{ port: 1 }] }] },
  },
]
for (const { name, given, patch, gives } of strategic) {
  test(`strategic merge: ${name}`, async (t) => {
    const before = JSON.stringify(given)
    t.strictSame(strategicMerge(given, patch, schema), gives)
    t.equal(JSON.stringify(given), before, 'the original is as it was')
  })
}

for (const [name, patch] of [
  ['an unknown directive', { spec: { $patch: 'explode' } }],
  ['an element without its key', { containers: [{ image: 'x' }] }],
  ['$retainKeys that does not name a field of the patch', { strategy: { $retainKeys: [], type: 'x' } }],
  ['a list', []],
] as const) {
  test(`strategic merge refuses ${name}`, async (t) => {
    t.throws(() => strategicMerge({ containers: [{ name: 'a' }] }, patch, schema), PatchError)
  })
}

test('values are equal whatever the order of their keys', async (t) => {
  t.ok(equal({ a: [1, { b: 2, c: null }] }, { a: [1, { c: null, b: 2 }] }))
  t.notOk(equal([1, 2], [2, 1]))
  t.notOk(equal({ a: undefined }, { b: undefined }))
  t.notOk(equal([], {}))
})
