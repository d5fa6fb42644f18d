import { test } from 'tap'
import { command, dispatch, duration, parse, UsageError, type Command, type Flags } from './options.ts'

const flags = {
  mode: { type: 'string', help: 'which', oneOf: ['iptables', 'ipvs'], default: 'iptables' },
  nodes: { type: 'number', help: 'how many' },
  publish: { type: 'list', help: 'ports' },
  wait: { type: 'duration', help: 'how long', default: '5s' },
  quiet: { type: 'boolean', help: 'less', short: 'q' },
} as const satisfies Flags

test('flags are read in every form', async (t) => {
  const p = parse(flags, ['--mode=ipvs', '-nodes', '3', 'up', '--publish', 'a,b', '--publish=c', '-q', '--', '--not-a-flag'])
  t.match(p.values, { mode: 'ipvs', nodes: 3, publish: ['a', 'b', 'c'], quiet: true, wait: 5000 })
  t.same(p.positionals, ['up'])
  t.same(p.rest, ['--not-a-flag'])
  t.same([...p.given], ['mode', 'nodes', 'publish', 'quiet'])
})

const wrong: readonly (readonly [args: readonly string[], says: RegExp])[] = [
  [['--moed', 'x'], /unknown flag --moed, did you mean --mode\?/],
  [['--mode', 'x'], /--mode: expected one of iptables, ipvs, got "x"/],
  [['--nodes', 'three'], /--nodes: expected a number, got "three"/],
  [['--nodes'], /--nodes needs a value/],
  [['--wait', '5 minutes'], /--wait: expected a duration/],
  [['--quiet=maybe'], /--quiet: expected true or false/],
  [['--__proto__=1'], /unknown flag/],
]

test('what makes no sense is named with what was expected', async (t) => {
  for (const [args, says] of wrong) t.throws(() => parse(flags, args), { name: 'UsageError', message: says }, args.join(' '))
})

test('durations are Go durations', async (t) => {
  t.equal(duration('1h2m3.5s'), 3_723_500)
  t.equal(duration('0'), 0)
  t.equal(duration('5'), undefined)
})

test('verbs are found, helped and refused', async (t) => {
  const said: string[] = []
  const context = { signal: new AbortController().signal, out: (s: string) => void said.push(s), err: (s: string) => void said.push(s) }
  const up = command({ name: 'up', summary: 'Brings it up.', flags, run: async ({ values }) => (values.quiet ? 0 : 7) })
  const failing: Command = { name: 'fail', summary: 'Fails.', run: async () => Promise.reject(new UsageError('no')) }
  const root: Command = { name: 'sy', summary: 'All.', verbs: [up, { name: 'lazy', summary: 'Later.', load: async () => failing }] }
  t.equal(await dispatch(root, ['up'], context), 7)
  t.equal(await dispatch(root, ['up', '-q'], context), 0)
  t.equal(await dispatch(root, ['lazy'], context), 2)
  t.match(said.pop(), /sy lazy: no/)
  t.equal(await dispatch(root, ['pu'], context), 2)
  t.match(said.pop(), /unknown verb pu, did you mean up\?/)
  t.equal(await dispatch(root, ['up', '--help'], context), 0)
  t.match(said.pop(), /--mode iptables\|ipvs.*\(default iptables\)/s)
  t.equal(await dispatch(root, ['--help'], context), 0)
  t.match(said.pop(), /lazy +Later\./)
})
