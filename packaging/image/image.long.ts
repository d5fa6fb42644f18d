import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { version } from '../../lib/version.ts'
import { buildImage } from './build.ts'

test('the image is an OCI archive whose layer, unpacked, runs every part with nothing else of this machine', { timeout: 600_000 }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'switchyard-image-test-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const file = join(dir, 'image.tar')
  const digest = buildImage(file)
  const layout = join(dir, 'layout')
  mkdirSync(layout)
  execFileSync('tar', ['-xf', file, '-C', layout])
  const read = (name: string): any => JSON.parse(readFileSync(join(layout, name), 'utf8'))
  const blob = (d: { readonly digest: string; readonly size: number }): string => {
    const path = `blobs/sha256/${d.digest.slice(7)}`
    t.equal(
      `sha256:${createHash('sha256')
        .update(readFileSync(join(layout, path)))
        .digest('hex')}`,
      d.digest,
    )
    t.equal(statSync(join(layout, path)).size, d.size)
    return path
  }
  t.same(read('oci-layout'), { imageLayoutVersion: '1.0.0' })
  const [entry] = read('index.json').manifests
  t.equal(entry.digest, digest)
  t.equal(entry.annotations['org.opencontainers.image.ref.name'], version)
  const manifest = read(blob(entry))
  const config = read(blob(manifest.config))
  t.same(config.config.Entrypoint, ['/usr/local/bin/switchyard'])
  const files = join(dir, 'root')
  mkdirSync(files)
  execFileSync('tar', ['-xzf', join(layout, blob(manifest.layers[0])), '-C', files])

  /** As a container engine would: its own root, network and processes; nothing of this machine in its environment. */
  const run = (words: readonly string[], flags: readonly string[] = []) =>
    spawnSync('unshare', ['--net', '--mount', '--pid', '--fork', ...flags, '--root', files, '--', ...words], {
      encoding: 'utf8',
      env: { PATH: '/usr/local/bin:/usr/sbin:/usr/bin', HOME: '/tmp' },
      timeout: 120_000,
    })
  const root = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']
  const [start] = config.config.Entrypoint as [string]
  t.equal(run([start, 'version'], root).stdout, `${version}\n`)
  for (const part of ['proxy', 'dns', 'ingress', 'controlplane', 'agent', 'token', 'join']) {
    const { status, stdout, stderr } = run([start, part, '--help'], root)
    t.equal(status, 0, `${part}: ${stderr}`)
    t.match(stdout, /Usage: switchyard/)
  }
  for (const [tool, ...args] of [
    ['iptables', '--version'],
    ['iptables-legacy', '--version'],
    ['ip6tables-restore', '--version'],
    ['nft', '--version'],
    ['ipset', '--version'],
    ['conntrack', '--version'],
    ['modprobe', '--version'],
  ] as const) {
    const { status, stderr, error } = run([tool, ...args], root)
    t.equal(status, 0, `${tool}: ${stderr}${error?.message ?? ''}`)
  }
  // A rule with a module of iptables, and every kind of netlink that the proxy speaks.
  t.equal(run(['iptables', '-t', 'nat', '-A', 'OUTPUT', '-m', 'comment', '--comment', 'x', '-j', 'RETURN'], root).status, 0, 'iptables finds its modules')
  const cleanup = run([start, 'proxy', '--cleanup'], root)
  t.equal(cleanup.status, 0, `proxy --cleanup: ${cleanup.stderr}`)
})
