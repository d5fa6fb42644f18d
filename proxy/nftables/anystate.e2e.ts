import { execFileSync } from 'node:child_process'
import type { Ip } from '../../lib/ip.ts'
import { silent } from '../../lib/log.ts'
import { chainNames, elements, setNames } from '../../linux/netlink/nftables.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import type { Endpoint, Front } from '../table.ts'
import { dyingKernel } from '../testing/dying.ts'
import { insideNamespaces } from '../testing/packets.ts'
import { create } from './backend.ts'
import { tables } from './testing/tables.ts'

// Tables in an order drawn from a seed; after each, the kernel, printed, equals a fresh one that was given only the last table.
if (insideNamespaces(import.meta.filename)) {
  const { test } = await import('tap')
  const signal = new AbortController().signal
  const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 1e6))
  const count = Number(process.env.SWITCHYARD_TABLES ?? 60)
  execFileSync('ip', ['netns', 'add', 'fresh'])
  const fresh = '/run/netns/fresh'
  const kernel = realKernel({ openNetlink })
  const freshKernel = realKernel({ openNetlink: (protocol) => openNetlink(protocol, { namespace: fresh }) })

  test(`any state follows any state (seed ${seed}, ${count} tables)`, async (t) => {
    let backend = create({ kernel, log: silent })
    const reference = create({ kernel: freshKernel, log: silent })
    let i = 0
    for (const table of tables(seed)) {
      if (i++ === count) break
      // Now and then another process takes over what the last one left.
      if (i % 7 === 0) {
        await backend.close()
        backend = create({ kernel, log: silent })
      }
      await backend.apply(table, signal)
      t.same(await backend.check(), [], `table ${i}: as written`)
      await reference.cleanup()
      await reference.apply(table, signal)
      t.equal(await printed(undefined), await printed(fresh), `table ${i}: equal to a fresh one`)
    }
    await backend.cleanup()
    t.equal(execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' }), '', 'cleanup leaves nothing')
  })

  test('somebody deletes the table, or an element: check says so, and the next apply restores it', async (t) => {
    const backend = create({ kernel, log: silent })
    const all = tables(seed)
    let table = all.next().value
    while (table.fronts.size < 10 || ![...table.fronts.values()].some((f) => f.family === 4 && f.at.kind === 'cluster')) table = all.next().value
    await backend.apply(table, signal)
    execFileSync('nft', ['delete', 'table', 'ip', 'switchyard'])
    t.same(await backend.check(), ['IPv4: table switchyard is gone'])
    await backend.apply(table, signal)
    t.same(await backend.check(), [])
    execFileSync('nft', ['flush', 'map', 'ip', 'switchyard', 'services'])
    t.match((await backend.check()).join(), /^IPv4: services has 0 elements, not \d+$/)
    await backend.apply(table, signal)
    t.same(await backend.check(), [])
    execFileSync('nft', ['add', 'table', 'ip', 'foreign'])
    t.same(await backend.check(), [], 'foreign rules are nobody of ours')
    // A change that the kernel refuses because the state is not what we think: written anew.
    execFileSync('nft', ['flush', 'map', 'ip', 'switchyard', 'services'])
    await backend.apply({ ...table, fronts: new Map() }, signal)
    t.same(await backend.check(), [])
    await backend.cleanup()
    t.match(execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' }).trim(), /^table ip foreign \{\n\}$/, 'foreign tables stay')
  })

  test(`killed between any two things it says to the kernel, the next start ends in the same state (seed ${seed})`, async (t) => {
    const all = tables(seed)
    const [from, to] = [all.next().value, all.next().value]
    const reference = create({ kernel: freshKernel, log: silent })
    await reference.cleanup()
    await reference.apply(to, signal)
    for (let last = 0, killed = true; killed; last++) {
      const before = create({ kernel, log: silent })
      await before.cleanup()
      await before.apply(from, signal)
      await before.close()
      killed = await create({ kernel: dyingKernel(last), log: silent })
        .apply(to, signal)
        .then(
          () => false,
          () => true,
        )
      const next = create({ kernel, log: silent })
      await next.apply(to, signal)
      t.same(await next.check(), [], `after ${last} requests: as written`)
      t.equal(await printed(undefined), await printed(fresh), `after ${last} requests: equal to a fresh one`)
      await next.cleanup()
    }
    await reference.cleanup()
  })

  test('a large table is checked by sample, and a small change stays small', async (t) => {
    const backend = create({ kernel, log: silent })
    const to = (g: number): readonly Endpoint[] => [
      { address: '10.180.0.1' as Ip, port: 80, local: false },
      { address: `10.180.1.${g}` as Ip, port: 80, local: true },
    ]
    const front = (i: number, g: number): Front => ({
      port: `ns/s${i}:`,
      protocol: 'TCP',
      family: 4,
      at: { address: `172.30.${i >> 8}.${i & 255}` as Ip, port: 80, kind: 'cluster' },
      sources: 'any',
      affinity: undefined,
      scheduler: undefined,
      routes: [{ from: 'anyone', outcome: { kind: 'forward', to: to(g) }, masquerade: 'always' }],
    })
    const node = tables(1, [4]).next().value.node
    const fronts = new Map(Array.from({ length: 3000 }, (_, i) => [`tcp/${i}`, front(i, 1)]))
    await backend.apply({ fronts, node }, signal)
    execFileSync('nft', ['add', 'table', 'ip', 'other'])
    t.same(await backend.check(), [])
    await backend.apply({ fronts: new Map([...fronts, ['tcp/7', front(7, 9)]]), node }, signal)
    t.same(await backend.check(), [])
    execFileSync('nft', ['flush', 'map', 'ip', 'switchyard', 'endpoints'])
    t.same(await backend.check(), ['IPv4: endpoints lacks elements of ours'])
    await backend.cleanup()
    execFileSync('nft', ['delete', 'table', 'ip', 'other'])
  })

  /** What of ours the kernel holds, in words: chains that something leads to, elements; slots of one Service in order of endpoints, and their number only where it means shares. */
  async function printed(namespace: string | undefined): Promise<string> {
    const netlink = openNetlink('netfilter', namespace === undefined ? {} : { namespace })
    const lines: string[] = []
    for (const family of [4, 6] as const) {
      const sticky = new Map<string, string>()
      const verdicts = new Map<string, string>()
      for (const map of ['services', 'ports'])
        for (const [key, verdict] of await elements(netlink, family, 'switchyard', map)) {
          verdicts.set(`${map} ${key}`, verdict.replace(/(a\d+-(?:node-)?[nl])\d+/g, '$1*'))
          if (/a\d+-/.test(verdict)) sticky.set(key, verdict)
        }
      for (const [key, verdict] of verdicts) lines.push(`${family} ${key} ${verdict}`)
      for (const set of await setNames(netlink, family, 'switchyard')) {
        if (set.startsWith('sticky-') || set.startsWith('choice-') || set === 'services' || set === 'ports') continue
        const grouped = new Map<string, string[]>()
        for (const [key, data] of await elements(netlink, family, 'switchyard', set)) {
          const place = set.endsWith('endpoints') ? key.slice(0, -8) : key
          grouped.set(place, [...(grouped.get(place) ?? []), data])
        }
        for (const [place, data] of grouped) lines.push(`${family} ${set} ${place} ${(sticky.has(place) ? [...new Set(data)] : data).sort().join(' ')}`)
      }
      const chains = await chainNames(netlink, family, 'switchyard')
      for (const name of ['pick', 'cluster', 'prerouting', 'output', 'postrouting', 'masquerading']) lines.push(`${family} chain ${name} ${chains.includes(name)}`)
    }
    netlink.close()
    return lines.sort().join('\n')
  }
}
