import { test } from 'tap'
import { fromLabelSelector, matchesFields, matchesLabels, parseFieldSelector, parseLabelSelector, SelectorError, selects } from './selectors.ts'
import { pod } from './testing/builders.ts'

const labels = { app: 'web', tier: 'front', n: '5', 'example.com/x': '', weird: 'in' }

const label: readonly (readonly [selector: string, holds: boolean])[] = [
  ['', true],
  ['app=web', true],
  ['app==web', true],
  [' app = web , tier=front ', true],
  ['app=api', false],
  ['app!=api', true],
  ['missing!=api', true],
  ['app in (web,api)', true],
  ['app in (api)', false],
  ['app notin (api)', true],
  ['missing notin (api)', true],
  ['missing in (api)', false],
  ['app', true],
  ['missing', false],
  ['!missing', true],
  ['!app', false],
  ['n>4', true],
  ['n>5', false],
  ['n<6', true],
  ['app>1', false],
  ['example.com/x=', true],
  ['example.com/x', true],
  ['weird=in', true],
  ['!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name', true],
  ['app in (web),tier notin (back),!gone,n>1', true],
  ['app in (,web)', true],
]

for (const [selector, holds] of label) {
  test(`"${selector}" ${holds ? 'selects' : 'does not select'} the labels`, async (t) => {
    t.equal(matchesLabels(parseLabelSelector(selector), labels), holds)
  })
}

for (const bad of ['a in (b', 'a=b,', ',a', 'a in b', 'a ~ b', '=a', 'a,,b', 'n>x', '-a=b', 'a=b c', 'UPPER.example/..=x', 'a=-x']) {
  test(`"${bad}" is no label selector`, async (t) => {
    t.throws(() => parseLabelSelector(bad), SelectorError)
  })
}

test('a LabelSelector object means the same', async (t) => {
  const r = fromLabelSelector({
    matchLabels: { app: 'web' },
    matchExpressions: [
      { key: 'tier', operator: 'In', values: ['front', 'back'] },
      { key: 'gone', operator: 'DoesNotExist' },
      { key: 'n', operator: 'NotIn', values: ['6'] },
      { key: 'app', operator: 'Exists' },
    ],
  })
  t.ok(matchesLabels(r, labels))
  t.notOk(matchesLabels(r, { ...labels, gone: 'x' }))
})

test('a plain map selects by equality', async (t) => {
  t.ok(selects({ app: 'web' }, labels))
  t.notOk(selects({ app: 'web', tier: 'back' }, labels))
  t.notOk(selects({ app: 'web' }, undefined))
})

const web = pod('demo/web', { node: 'n1', phase: 'Running' })
const fields: readonly (readonly [selector: string, holds: boolean])[] = [
  ['', true],
  ['metadata.name=web', true],
  ['metadata.name==web,metadata.namespace=demo', true],
  ['spec.nodeName=n1,status.phase!=Failed', true],
  ['spec.nodeName!=n1', false],
  ['status.podIP=', true],
  ['metadata.name=we\\,b', false],
]
for (const [selector, holds] of fields) {
  test(`field selector "${selector}" ${holds ? 'selects' : 'does not select'} the Pod`, async (t) => {
    t.equal(matchesFields(parseFieldSelector(selector), web), holds)
  })
}

for (const bad of ['metadata.name', 'a=b=c', 'a=\\b']) {
  test(`"${bad}" is no field selector`, async (t) => {
    t.throws(() => parseFieldSelector(bad), SelectorError)
  })
}
