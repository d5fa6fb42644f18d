// The project as a package: packed, installed in an empty folder, and used from there.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'

const root = join(import.meta.dirname, '..')

test('the packed project brings a lab up, answers one curl by name, and takes the lab down', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'switchyard-pack-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const run = (program: string, args: readonly string[], cwd: string): string => execFileSync(program, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 26, env })
  // npm started us and told its own settings: a fresh one shall find none of them.
  const env = { ...Object.fromEntries(Object.entries(process.env).filter(([k]) => !k.startsWith('npm_'))), SWITCHYARD_STATE: join(dir, 'state') }
  run('npm', ['pack', '--silent', '--pack-destination', dir, '--foreground-scripts=false'], root)
  const archive = readdirSync(dir).find((f) => f.endsWith('.tgz'))
  t.ok(archive, 'an archive was made')
  const empty = join(dir, 'empty')
  mkdirSync(empty)
  run('npm', ['init', '-y', '--silent'], empty)
  run('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--silent', join(dir, archive!)], empty)

  const switchyard = join(empty, 'node_modules/.bin/switchyard')
  const package_ = join(empty, 'node_modules/@switchyard-net/switchyard')
  t.notOk(
    readdirSync(package_, { recursive: true }).some((f) => String(f).endsWith('.ts')),
    'no TypeScript is packed',
  )
  t.match(run(switchyard, ['version'], empty), /^\d+\.\d+\.\d+\n$/)
  t.teardown(() => spawnSync(switchyard, ['lab', 'down'], { cwd: empty, env }))
  run(switchyard, ['lab', 'up', '--nodes', '2'], empty)
  run(switchyard, ['apply', '-f', join(package_, 'dist/lab/manifests/hello.yaml')], empty)
  let answer = ''
  for (let i = 0; i < 60 && answer === ''; i++)
    answer = spawnSync(switchyard, ['lab', 'exec', 'demo/client', '--', 'curl', '-s', '-m', '2', 'http://hello.demo.svc.cluster.local'], { cwd: empty, env, encoding: 'utf8' }).stdout
  t.match(answer, /^hello from /)
  t.match(run(switchyard, ['lab', 'down'], empty), /down/)
})
