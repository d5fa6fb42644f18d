import { test } from 'tap'
import { linearList } from '../testing/linear.ts'
import { advise } from './advice.ts'
import { renderHtml, renderSvg } from './html.ts'
import { planOf } from './main.ts'
import { renderText } from './render.ts'
import { contradictions, differ, figure, figureOf, measures, noise, type Report, type Sample } from './stats.ts'

/** A report of new connections a second with ten Services: by mode, one figure a round. */
function report(rounds: Readonly<Record<string, readonly number[]>>, more: Partial<Report> = {}): Report {
  const samples = Object.entries(rounds).flatMap(([mode, all]) => all.map((connections, round): Sample => ({ mode, services: 10, round, values: { connections }, errors: 0 })))
  const modes = [...Object.keys(rounds).filter((m) => m !== 'direct'), '<none>'].map((name) => (name === '<none>' ? { name, reason: 'no <module>' } : { name }))
  const machine = { cpu: 'a processor', cores: 2, memory: 2 ** 32, kernel: '6.1', node: 'v24', busy: 0.02 }
  const settings = { sizes: [10], rounds: 3, seconds: 1, connections: 16, instructions: false }
  return { when: 'today', where: 'namespaces', machine, settings, modes, samples, left: [], took: 9, ...more }
}

test('a figure is the median, with the least and the most, of its own number of Services', async (t) => {
  t.same(figure([3, 1, 2]), { median: 2, least: 1, most: 3, rounds: 3 })
  t.equal(figure([4, 1, 2, 3])?.median, 2.5)
  t.equal(figure([]), undefined)
  const two = report({ direct: [1, 3] })
  t.equal(figureOf({ ...two, samples: [...two.samples, { mode: 'direct', services: 20, round: 0, values: { connections: 9 }, errors: 0 }] }, 'direct', 10, 'connections')?.median, 2)
})

test('noise is how far repetitions of the same lie apart, over the whole run', async (t) => {
  const n = noise(report({ direct: [100, 110], nftables: [50, 55] }), 'connections')!
  t.equal(n.freedom, 2)
  t.ok(Math.abs(n.deviation - Math.log(1.1) / Math.SQRT2) < 1e-9, 'the standard deviation of the logarithm')
  t.equal(noise(report({ direct: [100] }), 'memory'), undefined)
})

test('two modes differ when no round of one reaches into the other, and chance does not make that out of the noise', async (t) => {
  const calls = (a: readonly number[], b: readonly number[], others: Readonly<Record<string, readonly number[]>> = {}): boolean => differ(report({ a, b, ...others }), 'connections', 10, 'a', 'b')
  t.ok(calls([100, 101, 102], [200, 201, 202]))
  t.notOk(calls([100, 101, 210], [200, 201, 202]), 'the rounds overlap')
  t.notOk(calls([100], [200]), 'one round shows nothing')
  t.notOk(calls([100, 101, 102], [103, 104, 105]), 'too little to matter')
  t.notOk(calls([100, 101, 102], [130, 131, 132], { c: [50, 100, 200] }), 'others show that this machine is noisier than that')
})

test('of two modes that are the same, none is called better: not once in a thousand runs', async (t) => {
  // A fixed sequence of numbers that look normal.
  let seed = 7
  const uniform = (): number => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647
  const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
  const rounds = (): number[] => Array.from({ length: 3 }, () => 1000 * Math.exp(0.2 * normal()))
  let called = 0
  for (let i = 0; i < 1000; i++) if (differ(report({ direct: rounds(), a: rounds(), b: rounds(), c: rounds(), d: rounds() }), 'connections', 10, 'a', 'b')) called++
  t.ok(called <= 1, `${called} of 1000`)
})

test('two runs contradict each other where one is sure of an order that the other does not have', async (t) => {
  const [ab, ba, same] = [report({ a: [100, 101, 102], b: [200, 201, 202] }), report({ a: [200, 201, 202], b: [100, 101, 102] }), report({ a: [100, 150, 102], b: [101, 140, 103] })]
  t.strictSame(contradictions(ab, ab), [])
  t.strictSame(contradictions(ab, ba), ['connections with 10 Services: a and b'])
  t.strictSame(contradictions(same, same), [])
})

test('on a clock that counts instructions one round is enough, for what is far apart', async (t) => {
  const once = report({ a: [100], b: [130], c: [105] })
  const counted: Report = { ...once, settings: { ...once.settings, rounds: 1, instructions: true } }
  t.ok(differ(counted, 'connections', 10, 'a', 'b'))
  t.notOk(differ(counted, 'connections', 10, 'a', 'c'))
})

test('what is faster for sure is recommended, else it is said that nothing tells the modes apart', async (t) => {
  const clear = advise(report({ direct: [300, 305, 310], userspace: [100, 101, 102], nftables: [200, 201, 202], 'linear list': [900, 901, 902] }))
  t.same(clear.take, ['nftables'], 'the list is no way to run')
  t.match(clear.sentences.join(' '), /userspace is behind for sure.*Take nftables\./)
  const same = advise(report({ direct: [300, 305, 310], iptables: [199, 202, 203], nftables: [200, 201, 202] }))
  t.same(same.take, ['nftables', 'iptables'])
  t.match(same.sentences.join(' '), /inside the noise.*any of them will do/)
  t.same(advise(report({ direct: [1] })).take, [])
})

test('who should have run and did not is told apart from who cannot', async (t) => {
  const failed = report({ nftables: [1, 2] }, { modes: [{ name: 'nftables' }, { name: 'iptables', failures: ['the proxy ended'] }, { name: 'ipvs', reason: 'no module' }] })
  t.match(renderText(failed), /ipvs cannot run here: no module\niptables failed 1 times: the proxy ended/)
})

test('a report shows every mode, the noise and who cannot run, and no foreign markup', async (t) => {
  const r = report({ direct: [300, 310], nftables: [200, 202] })
  const html = renderHtml(r)
  for (const text of ['nftables', 'repetitions lie within ±', 'cannot run here']) t.ok(renderText(r).includes(text), text)
  t.notMatch(html, /<module>|src=|href=/, 'text is text, and nothing is loaded')
  for (const text of ['prefers-color-scheme:dark', '@media print', '<svg']) t.ok(html.includes(text), text)
  const svg = renderSvg(r, measures[0]!)!
  t.match(svg, /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" viewBox="[\d ]+" role="img" aria-label="New connections"><style>/)
  t.notMatch(svg, /NaN|undefined/)
  t.equal(
    renderSvg(
      r,
      measures.find((m) => m.key === 'memory')!,
    ),
    undefined,
    'what was not measured is not drawn',
  )
})

test('flags make a plan, or say what is wrong with them', async (t) => {
  const nothing = { quick: false, vm: false, full: false, modes: [], sizes: [], rounds: undefined, seconds: undefined, peer: undefined }
  t.match(planOf(nothing), { sizes: [1, 100, 1000, 10_000], rounds: 3, full: true, linear: true, instructions: false })
  t.match(planOf({ ...nothing, quick: true }), { sizes: [1, 1000], rounds: 2, full: false, linear: false })
  t.match(planOf({ ...nothing, vm: true }), { rounds: 1, full: false, linear: true, instructions: true })
  t.equal(planOf({ ...nothing, peer: 'kube-proxy=/x' }).peer, '/x')
  t.throws(() => planOf({ ...nothing, peer: '/x' }), /expected kube-proxy=PATH/)
  t.throws(() => planOf({ ...nothing, modes: ['fast'] }), /expected some of nftables/)
  t.throws(() => planOf({ ...nothing, sizes: ['0'] }), /whole numbers above 0/)
})

test('the linear list has a rule a Service, and draws endpoints as kube-proxy does', async (t) => {
  const text = linearList([{ name: 'ns/a', address: '10.96.0.1', port: 80, endpoints: ['10.244.0.2', '10.244.0.3'].map((address) => ({ address, port: 8080 })) }])
  t.match(text, '-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "ns/a cluster IP" -m tcp --dport 80 -j KUBE-SVC-0')
  t.match(text, '-A KUBE-SVC-0 -m statistic --mode random --probability 0.50000000 -j KUBE-SEP-0-0\n')
  t.match(text, '-A KUBE-SVC-0 -j KUBE-SEP-0-1\n')
  t.match(text, '-A KUBE-SEP-0-1 -p tcp -m tcp -j DNAT --to-destination 10.244.0.3:8080\n')
})
