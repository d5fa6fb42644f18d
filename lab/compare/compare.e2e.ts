import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { switchyard } from '../testing/host.ts'
import type { Report } from './stats.ts'

const wrk = spawnSync('wrk', ['-v']).error === undefined

test('one mode is measured beside the direct line, and a report is written', { timeout: 200_000, skip: wrk ? false : 'wrk is not installed' }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-compare-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const json = join(folder, 'report.json')
  const ran = await switchyard(['lab', 'compare', '--quick', '--sizes', '1', '--rounds', '1', '--modes', 'nftables', '--json', json, '--html', join(folder, 'report.html')])
  t.equal(ran.status, 0, ran.stderr)
  const { samples } = JSON.parse(readFileSync(json, 'utf8')) as Report
  t.strictSame(
    samples.map((s) => s.mode),
    ['direct', 'nftables'],
  )
  for (const { mode, values, errors } of samples) {
    for (const key of ['connections', 'requests', 'p50', 'connectionKernel'] as const) t.ok(values[key]! > 0, `${mode}: ${key} ${values[key]}`)
    t.equal(errors, 0, `${mode}: no request failed`)
  }
  for (const key of ['cold', 'change', 'memory'] as const) t.ok(samples[1]!.values[key]! > 0, key)
  t.match(ran.stdout, /Take nftables/)
  t.match(readFileSync(join(folder, 'report.html'), 'utf8'), '<svg')
})
