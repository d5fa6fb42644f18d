import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { launcher } from '../launcher.ts'
import { switchyard } from '../testing/host.ts'
import { vmLacking } from '../vm/run.ts'
import { measures, type Report } from './stats.ts'

tap.setTimeout(3_600_000)
const folder = mkdtempSync(join(tmpdir(), 'switchyard-compare-'))
tap.teardown(() => rmSync(folder, { recursive: true, force: true }))
const lacks = ['wrk', 'iperf3', 'iptables-legacy'].find((p) => spawnSync(p, ['-v']).error !== undefined)

async function compare(...words: string[]): Promise<Report> {
  const json = join(folder, 'report.json')
  const { status, stderr } = await switchyard(['lab', 'compare', '--json', json, '--svg', join(folder, 'svg'), ...words])
  if (status !== 0) throw new Error(stderr)
  return JSON.parse(readFileSync(json, 'utf8')) as Report
}

test('every measure of every mode, the linear list, and a kube-proxy that is named', { timeout: 900_000, skip: lacks === undefined ? false : `${lacks} is not installed` }, async (t) => {
  // Our own proxy under another name: it understands kube-proxy's words.
  const peer = join(folder, 'kube-proxy')
  writeFileSync(peer, `#!/bin/sh\nexec ${launcher} proxy --status 127.0.0.1:10256,127.0.0.1:10249 "$@"\n`, { mode: 0o755 })
  const report = await compare('--sizes', '1,40', '--rounds', '2', '--modes', 'nftables,userspace', '--peer', `kube-proxy=${peer}`)
  t.strictSame(
    report.modes.map((m) => m.name),
    ['nftables', 'userspace', 'kube-proxy nftables', 'linear list'],
  )
  for (const mode of ['nftables', 'userspace', 'kube-proxy nftables'])
    for (const services of [1, 40]) {
      const all = report.samples.filter((s) => s.mode === mode && s.services === services)
      t.equal(all.length, 2, `${mode}, ${services}: both rounds`)
      for (const { key } of measures)
        t.ok(
          all.some((s) => s.values[key] !== undefined && Number.isFinite(s.values[key])),
          `${mode}, ${services}: ${key}`,
        )
    }
  t.ok(report.samples.filter((s) => s.mode === 'linear list').every((s) => s.values.connections! > 0))
  t.equal(readdirSync(join(folder, 'svg')).length, measures.length, 'a picture a measure')
})

const machine = await vmLacking()

test("IPVS and nftables in a virtual machine's kernel", { timeout: 2_400_000, skip: machine ?? (lacks === undefined ? false : `${lacks} is not installed`) }, async (t) => {
  const report = await compare('--vm', '--sizes', '1', '--modes', 'nftables,ipvs')
  t.equal(report.where, 'virtual machine')
  for (const mode of ['nftables', 'ipvs']) {
    const [sample] = report.samples.filter((s) => s.mode === mode)
    for (const key of ['connections', 'requests', 'cold', 'change'] as const) t.ok(sample!.values[key]! > 0, `${mode}: ${key}`)
  }
})
