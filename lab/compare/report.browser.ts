import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { test } from 'tap'
import { browse, noBrowser } from '../../lib/testing/chromium.ts'
import { renderHtml } from './html.ts'
import { measures, type Report, type Sample } from './stats.ts'

const sizes = [1, 100, 1000, 10_000]
const modes = ['nftables', 'iptables', 'ipvs', 'userspace', 'linear list']

test('the report is whole in a browser, in light, in dark and on paper', { timeout: 200_000, skip: noBrowser() }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-report-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'report.html')
  writeFileSync(file, renderHtml(report()))
  const page = await browse(pathToFileURL(file).href)
  t.teardown(() => page.close())
  t.equal(await page.value('document.title'), 'Proxy modes compared')
  t.equal(await page.value('document.querySelectorAll("section svg").length'), measures.length, 'a curve a measure')
  t.equal(await page.value('document.querySelectorAll("#connections polyline").length'), modes.length + 1, 'a line a mode, and the ceiling')
  t.match(await page.value('document.querySelector(".advice").innerText'), /Take nftables/)
  t.strictSame(await page.value('[...document.querySelectorAll("svg")].filter((s) => s.getBBox().width < 400 || s.getBoundingClientRect().height < 100).length'), 0, 'every curve has its size')
  t.strictSame(
    await page.value(
      `[...document.querySelectorAll('svg text')].filter((e) => { const box = e.getBBox(), view = e.ownerSVGElement.viewBox.baseVal; return box.x < 0 || box.x + box.width > view.width || box.y + box.height > view.height }).map((e) => e.textContent)`,
    ),
    [],
    'no word is cut off',
  )
  t.ok(await page.value('document.documentElement.scrollWidth <= innerWidth'), 'nothing sticks out at the side')
  const colours = async () =>
    page.value<string[]>('(() => { const s = getComputedStyle(document.body), l = getComputedStyle(document.querySelector("#connections svg text")); return [s.backgroundColor, s.color, l.fill] })()')
  await page.shown('light')
  t.strictSame(await colours(), ['rgb(255, 255, 255)', 'rgb(34, 34, 34)', 'rgb(34, 34, 34)'])
  await page.shown('dark')
  t.strictSame(await colours(), ['rgb(24, 24, 24)', 'rgb(221, 221, 221)', 'rgb(221, 221, 221)'])
  await page.shown('dark', 'print')
  t.strictSame(await colours(), ['rgb(255, 255, 255)', 'rgb(34, 34, 34)', 'rgb(34, 34, 34)'], 'paper is white, whatever the screen is')
  t.strictSame(page.asked, [pathToFileURL(file).href], 'one file, and nothing beside it')
  t.strictSame(page.complaints, [])
})

/** What a run finds: every measure, every mode, every size, three rounds. */
function report(): Report {
  const samples = ['direct', ...modes].flatMap((mode, m) =>
    sizes.flatMap((services) =>
      [0, 1, 2].map((round): Sample => ({
        mode,
        services,
        round,
        errors: 0,
        values: Object.fromEntries(
          measures.map((x) => [x.key, ((x.better === 'more' ? 30_000 / (m + 1) : 3 * (m + 1)) * (100 + round)) / 100 / (mode === 'linear list' ? Math.log10(services * 10) : 1)]),
        ),
      })),
    ),
  )
  return {
    when: '2026-01-01T00:00:00Z',
    where: 'namespaces',
    machine: { cpu: 'a processor of some name', cores: 2, memory: 2 ** 34, kernel: '6.1', node: 'v24', busy: 0.3 },
    settings: { sizes, rounds: 3, seconds: 1, connections: 16, instructions: false },
    modes: modes.map((name) => ({ name })),
    samples,
    left: [],
    took: 500,
  }
}
