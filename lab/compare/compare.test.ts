import { test } from 'tap'
import { advise } from './advice.ts'
import { renderCurve, renderHtml, renderText } from './render.ts'
import { differ, figure, measures, noise, type Report, type Sample } from './stats.ts'

/** A report of new connections a second: by mode, one figure a round. */
function report(rounds: Readonly<Record<string, readonly number[]>>): Report {
  const samples = Object.entries(rounds).flatMap(([mode, all]) => all.map((connections, round): Sample => ({ mode, services: 10, round, values: { connections }, errors: 0 })))
  const modes = [...Object.keys(rounds).filter((m) => m !== 'direct'), '<none>'].map((name) => (name === '<none>' ? { name, reason: 'no <module>' } : { name }))
  const machine = { cpu: 'a processor', cores: 2, memory: 2 ** 32, kernel: '6.1', node: 'v24' }
  return { when: 'today', machine, settings: { sizes: [10], rounds: 3, seconds: 1, connections: 16 }, modes, samples, took: 9 }
}

test('a figure is the median, with the least and the most', async (t) => {
  t.same(figure([3, 1, 2]), { median: 2, least: 1, most: 3, rounds: 3 })
  t.equal(figure([4, 1, 2, 3])?.median, 2.5)
  t.equal(figure([]), undefined)
})

test('two figures differ when rounds do not overlap and the medians are further apart than the noise', async (t) => {
  const of = (...v: number[]) => figure(v)!
  t.ok(differ(of(100, 101), of(200, 201), 0.1))
  t.notOk(differ(of(100, 101), of(200, 201), 1.5), 'the machine is noisier than that')
  t.notOk(differ(of(100, 210), of(200, 201), 0), 'the rounds overlap')
  t.notOk(differ(of(100), of(200), 0), 'one round shows nothing')
  t.notOk(differ(of(100, 101), of(103, 104), 0), 'too little to matter')
})

test('noise is how far apart the ceiling lay', async (t) => {
  t.equal(noise(report({ direct: [90, 100, 110] }), 'connections'), 0.2)
  t.equal(noise(report({ direct: [100] }), 'memory'), undefined)
})

test('what is faster for sure is recommended, else it is said that nothing tells the modes apart', async (t) => {
  const clear = advise(report({ direct: [300, 305, 310], userspace: [100, 101, 102], nftables: [200, 201, 202] }))
  t.same(clear.take, ['nftables'])
  t.match(clear.sentences.join(' '), /userspace is behind for sure.*Take nftables\./)
  const same = advise(report({ direct: [300, 305, 310], iptables: [199, 202, 203], nftables: [200, 201, 202] }))
  t.same(same.take, ['nftables', 'iptables'])
  t.match(same.sentences.join(' '), /inside the noise.*any of them will do/)
  t.same(advise(report({ direct: [1] })).take, [])
})

test('a report shows every mode, the noise and who cannot run, and no foreign markup', async (t) => {
  const r = report({ direct: [300, 310], nftables: [200, 202] })
  const html = renderHtml(r)
  for (const text of ['nftables', 'noise', 'cannot run here']) t.ok(renderText(r).includes(text), text)
  t.notMatch(html, /<module>|src=|href=/, 'text is text, and nothing is loaded')
  for (const text of ['prefers-color-scheme:dark', '@media print', '<svg']) t.ok(html.includes(text), text)
  t.notMatch(renderCurve(r, measures[0]!), /NaN|undefined/)
})
