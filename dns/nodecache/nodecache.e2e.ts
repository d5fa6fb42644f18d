import { spawn, spawnSync } from 'node:child_process'
import { test } from 'tap'
import { namespace, service } from '../../kube/testing/builders.ts'
import { FakeApi } from '../../kube/testing/api.ts'
import { silent } from '../../lib/log.ts'
import type { Ip } from '../../lib/ip.ts'
import { device, NodeCache } from './nodecache.ts'

const launcher = new URL('../../switchyard', import.meta.url).pathname
const run = (command: string, ...args: readonly string[]): string => {
  const { stdout, stderr, status } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`)
  return stdout
}
const addresses = ['169.254.20.10', '10.96.0.10', 'fd00:10:96::a'] as Ip[]

// The real kernel, in a network namespace of its own.
if (process.env.SWITCHYARD_NAMESPACE !== '1' && process.getuid?.() === 0) {
  process.exitCode = spawnSync('unshare', ['-n', process.execPath, ...process.execArgv, import.meta.filename], { stdio: 'inherit', env: { ...process.env, SWITCHYARD_NAMESPACE: '1' } }).status ?? 1
} else if (process.env.SWITCHYARD_NAMESPACE !== '1') test('network namespaces need root', { skip: 'not root' }, async () => {})
else {
  run('ip', 'link', 'set', 'lo', 'up')

  test('device, addresses and rules are made, looked after and removed', async (t) => {
    const cache = new NodeCache({ addresses, port: 53, log: silent })
    const have = (): string[] => [...run('ip', '-o', 'addr', 'show', 'dev', device).matchAll(/inet6? (\S+)/g)].map((m) => m[1]!).filter((a) => !a.startsWith('fe80'))
    const wanted = ['169.254.20.10/32', '10.96.0.10/32', 'fd00:10:96::a/128']
    await cache.open()
    await cache.apply()
    t.same(have().toSorted(), wanted.toSorted())
    const rules = run('nft', 'list', 'table', 'inet', 'switchyard-dns')
    t.match(rules, /notrack/)
    run('ip', 'addr', 'del', '10.96.0.10/32', 'dev', device)
    run('nft', 'delete', 'table', 'inet', 'switchyard-dns')
    await cache.check()
    t.same(have().toSorted(), wanted.toSorted(), 'put right')
    t.equal(run('nft', 'list', 'table', 'inet', 'switchyard-dns'), rules)
    run('ip', 'link', 'del', device)
    await cache.check()
    t.same(have().toSorted(), wanted.toSorted())
    await cache.close()
    t.throws(() => have())
    t.throws(() => run('nft', 'list', 'table', 'inet', 'switchyard-dns'))
  })

  test('questions to the node’s own address meet no connection tracking', async (t) => {
    const api = await FakeApi.start()
    t.teardown(() => api.close())
    api.putAll([namespace('shop'), service('shop/api', { clusterIP: '10.96.8.20' })])
    // Whoever counts by state makes the kernel track.
    run('nft', 'add table inet watch')
    run('nft', 'add chain inet watch out { type filter hook output priority 0; }')
    run('nft', 'add rule inet watch out th dport 53 ct state untracked counter comment "untracked"')
    run('nft', 'add rule inet watch out th dport 53 ct state != untracked counter comment "tracked"')
    const child = spawn(launcher, ['dns', '--kubeconfig', api.kubeconfig(), '--node-cache', addresses.join(','), '--status', '127.0.0.1:0', '--resolv-conf', ''], {
      stdio: ['ignore', 'inherit', 'pipe'],
    })
    const exited = new Promise((r) => child.once('exit', r))
    t.teardown(async () => {
      child.kill('SIGKILL')
      await exited
    })
    let said = ''
    child.stderr!.on('data', (b: Buffer) => (said += b.toString()))
    const dig = (server: string, ...more: readonly string[]): string =>
      spawnSync('dig', [`@${server}`, '+short', '+time=2', '+tries=1', ...more, 'api.shop.svc.cluster.local'], { encoding: 'utf8' }).stdout.trim()
    for (let tries = 0; tries < 100 && dig('169.254.20.10') !== '10.96.8.20'; tries++) await new Promise((r) => setTimeout(r, 100))
    for (const server of addresses) for (const how of [[], ['+tcp']]) t.equal(dig(server, ...how), '10.96.8.20', `${server} ${how.join('')}`)
    const counted = (what: string): number => Number(new RegExp(`counter packets (\\d+) bytes \\d+ comment "${what}"`).exec(run('nft', 'list', 'table', 'inet', 'watch'))![1])
    t.ok(counted('untracked') > 6, `${counted('untracked')} untracked`)
    t.equal(counted('tracked'), 0)
    child.kill('SIGTERM')
    t.equal(await exited, 0, said)
    t.notMatch(run('ip', '-o', 'link'), device, 'and nothing stays')
  })
}
