import { spawnSync } from 'node:child_process'
import { test } from 'tap'
import type { Ip } from '../../lib/ip.ts'
import { genericFamily } from './generic.ts'
import { chainNames, elements, generation, holds, NftBatch, types, verdict } from './nftables.ts'
import { addresses, changeAddresses, ensureLink, links, removeLink, routes } from './route.ts'
import { NetlinkError, openNetlink } from './socket.ts'

// The real kernel, in a network namespace of its own.
if (process.env.SWITCHYARD_NAMESPACE !== '1' && process.getuid?.() === 0) {
  process.exitCode = spawnSync('unshare', ['-n', process.execPath, ...process.execArgv, import.meta.filename], { stdio: 'inherit', env: { ...process.env, SWITCHYARD_NAMESPACE: '1' } }).status ?? 1
} else if (process.env.SWITCHYARD_NAMESPACE !== '1') test('network namespaces need root', { skip: 'not root' }, async () => {})
else {
  test('links and addresses come and go, twice without harm', async (t) => {
    const route = openNetlink('route')
    t.same(
      (await links(route)).map((l) => [l.name, l.loopback, l.up]),
      [['lo', true, false]],
    )
    const index = await ensureLink(route, 'lan', 'bridge')
    t.equal(await ensureLink(route, 'lan', 'bridge'), index)
    await changeAddresses(route, index, { add: ['10.0.0.1', '10.0.0.2', 'fd00::1'] as Ip[] })
    await changeAddresses(route, index, { add: ['10.0.0.1', '10.0.0.3'] as Ip[], remove: ['10.0.0.2', '10.9.9.9'] as Ip[] })
    t.same(
      (await addresses(route))
        .filter((a) => a.scope === 'global')
        .map((a) => `${a.address}/${a.bits}`)
        .sort(),
      ['10.0.0.1/32', '10.0.0.3/32', 'fd00::1/128'],
    )
    t.same(await routes(route, 4), [], 'host addresses make no unicast routes')
    await removeLink(route, 'lan')
    await removeLink(route, 'lan')
    t.equal((await links(route)).length, 1)
    await t.rejects(ensureLink(route, 'odd', 'no-such-kind'), { code: 'EOPNOTSUPP' }, 'a kind the kernel lacks')
    route.close()
    await t.rejects(links(route), { message: 'netlink route: the socket is closed' })
  })

  test('a refusal names the part, the errno and the kernel’s words, and undoes the transaction', async (t) => {
    const netlink = openNetlink('netfilter')
    const before = await generation(netlink)
    const batch = new NftBatch(4, 'switchyard-test')
    await batch.table().chain('a').set({ name: 's', keyType: types.port, keyLength: 4 }).send(netlink)
    t.equal(await generation(netlink), before + 1)
    const key = (n: number): Uint8Array => Uint8Array.of(n >> 8, n & 255, 0, 0)
    for (let port = 1; port <= 20_000; port++) batch.add('s', key(port))
    await batch.send(netlink)
    // The kernel's table goes on growing behind the commit, and a dump meanwhile misses what is being moved.
    let size = 0
    for (let tries = 0; tries < 50 && size < 20_000; tries++) {
      if (tries > 0) await new Promise((resolve) => setTimeout(resolve, 20))
      size = (await elements(netlink, 4, 'switchyard-test', 's')).size
    }
    t.equal(size, 20_000, 'many messages in one datagram')
    t.ok(await holds(netlink, 4, 'switchyard-test', 's', [key(1), key(20_000)]))
    t.notOk(await holds(netlink, 4, 'switchyard-test', 's', [key(1), key(20_001)]))
    const error = await batch
      .add('s', key(30_000))
      .remove('s', key(40_000))
      .rule('a', [verdict({ goto: 'nowhere' })])
      .send(netlink)
      .then(
        () => undefined,
        (e: unknown) => e as Error,
      )
    t.equal(error?.message, 'nftables table switchyard-test: remove from s, rule of chain a')
    t.type(error?.cause, NetlinkError)
    t.same(
      (error?.cause as NetlinkError | undefined)?.failures.map((f) => f.errno),
      [-2, -2],
    )
    t.equal((await elements(netlink, 4, 'switchyard-test', 's')).size, 20_000, 'nothing of it happened')
    await batch.remove('s', key(1)).add('s', key(1)).send(netlink)
    await batch.deleteTable().send(netlink)
    t.same(await chainNames(netlink, 4, 'switchyard-test'), [])
    netlink.close()
  })

  test('generic families are found by name', async (t) => {
    const netlink = openNetlink('generic')
    t.equal((await genericFamily(netlink, 'nlctrl')).id, 16)
    await t.rejects(genericFamily(netlink, 'no-such-family'), { code: 'ENOENT' })
  })
}
