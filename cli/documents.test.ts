import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'tap'
import { readDocuments } from './documents.ts'

const good = `apiVersion: v1
kind: Namespace
metadata:
  name: demo
---
# nothing but a comment
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}
`

const bad: readonly (readonly [name: string, text: string, says: readonly RegExp[]])[] = [
  ['a field that is missing', 'apiVersion: v1\nmetadata: {name: a}\n', [/bad\.yaml, document 1 \(line 1\): kind: expected a text, got nothing/]],
  ['a name that is no text', 'apiVersion: v1\nkind: Pod\nmetadata: {name: 5}\n', [/metadata\.name: expected a text, got 5/]],
  ['the second document', 'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\njust words\n', [/document 2 \(line 5\): expected an object, got "just words"/]],
  ['bad YAML with its place', 'apiVersion: v1\nkind: Pod\nmetadata: {name: a\n', [/bad\.yaml, document 1, line \d+, column \d+: .+/]],
  ['a key given twice', 'apiVersion: v1\nkind: Pod\nkind: Service\nmetadata: {name: a}\n', [/line 3, column 1: Map keys must be unique/]],
  ['all that is wrong at once', 'kind: Pod\n---\nkind: Pod\n', [/document 1.*apiVersion/, /document 1.*metadata/, /document 2.*apiVersion/]],
  ['an empty file', '# nothing\n', [/no objects in/]],
]

test('documents are read from files, folders and lists', async (t) => {
  const dir = t.testdir({ 'good.yaml': good, 'notes.txt': 'not read' })
  t.same(
    readDocuments([join(dir, 'good.yaml')]).map((d) => `${d.object.kind} ${d.object.metadata.name}`),
    ['Namespace demo', 'ConfigMap a', 'ConfigMap b'],
  )
  mkdirSync(join(dir, 'sub'))
  writeFileSync(join(dir, 'sub', 'one.json'), '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}')
  t.equal(readDocuments([join(dir, 'sub')]).length, 1)
  t.throws(() => readDocuments([join(dir, 'none.yaml')]), { message: /no file .*none\.yaml/ })
})

test('what is wrong is named: file, document, field, what was expected', async (t) => {
  for (const [name, text, says] of bad) {
    const dir = t.testdir({ 'bad.yaml': text })
    for (const pattern of says) t.throws(() => readDocuments([join(dir, 'bad.yaml')]), { name: 'UsageError', message: pattern }, name)
  }
})
