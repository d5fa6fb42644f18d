import { execFileSync, spawn } from 'node:child_process'
import { connect } from 'node:net'
import { release } from 'node:os'
import { inside } from '../../lab/vm/run.ts'
import type { Ip } from '../../lib/ip.ts'
import { silent } from '../../lib/log.ts'
import { Ipvs } from '../../linux/netlink/ipvs.ts'
import { addresses } from '../../linux/netlink/route.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import { create as nftables } from '../nftables/backend.ts'
import { tables } from '../nftables/testing/tables.ts'
import { dyingKernel } from '../testing/dying.ts'
import { follow, liveRules, rendered } from '../follow.ts'
import type { Front, ServiceTable } from '../table.ts'
import { create } from './backend.ts'

if (await inside(import.meta.filename)) {
  const { t: root, test } = await import('tap')
  root.setTimeout(300_000)
  const signal = new AbortController().signal
  const kernel = realKernel({ openNetlink })
  const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 1e6))
  execFileSync('sh', ['-c', 'ip link add lan type bridge; ip addr add 192.168.50.1/24 dev lan; ip link set lan up'])

  test(`any state follows any state in Linux ${release()} (seed ${seed})`, { timeout: 180_000 }, async (t) => {
    let backend = await create({ kernel, log: silent })
    let i = 0
    let last: ServiceTable | undefined
    for (const table of tables(seed, [4])) {
      if (i++ === 7) break
      last = table
      if (i % 6 === 0) {
        await backend.close()
        backend = await create({ kernel, log: silent })
      }
      await backend.apply(table, signal)
      t.same(await backend.check(), [], `table ${i}: as written`)
      // Nobody is connected: what left is drained within two seconds, on a machine of its own.
      for (const until = performance.now() + 60_000; performance.now() < until && (await printed()) !== wanted(table);) await new Promise((resolve) => setTimeout(resolve, 100))
      t.equal(await printed(), wanted(table), `table ${i}: what the table says, and nothing else`)
    }
    // What netlink tells of the last one is what would have been written, packet by packet.
    const [live] = (await liveRules(4)).filter((r) => r.name === 'ipvs')
    const [paper] = await rendered(
      last!,
      (await addresses(openNetlink('route'), 4)).filter((a) => !last!.node.clusterIps.has(a.address)).map((a) => a.address),
      ['ipvs'],
    )
    for (const front of [...last!.fronts.values()].slice(0, 40)) {
      const [destination, destinationPort] = 'nodePort' in front.at ? ['192.168.50.1' as Ip, front.at.nodePort] : [front.at.address, front.at.port]
      const packet = { family: 4, protocol: front.protocol.toLowerCase() as 'tcp', source: '10.180.0.9' as Ip, sourcePort: 40_000, destination, destinationPort, from: 'lan' } as const
      const said = [live!, paper!]
        .map((rules) => follow(rules, packet))
        .map(({ error, ways }) => error ?? ways.map((w) => `${w.end} ${w.destination}:${w.destinationPort} ${w.masqueraded}`).toSorted())
      t.same(said[0], said[1], `explained: ${destination}:${destinationPort}: ${String(said[1])}`)
    }
    await backend.cleanup()
    t.equal(await printed(), '', 'cleanup leaves nothing')
    t.equal(execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' }), '')
    t.notMatch(execFileSync('ip', ['link'], { encoding: 'utf8' }), 'switchyard0')
  })

  test('an endpoint that goes keeps its connections, and is gone soon after the last', { timeout: 120_000 }, async (t) => {
    const text = `for (const h of ['127.0.1.1', '127.0.1.2']) require('node:net').createServer((s) => s.on('error', () => {}).on('data', (b) => s.write(h + ' ' + b))).listen(8080, h, () => process.stdout.write('up'))`
    const echo = spawn(process.execPath, ['-e', text], { stdio: ['ignore', 'pipe', 'inherit'] })
    await new Promise((resolve) => echo.stdout.once('data', resolve))
    const backend = await create({ kernel, log: silent })
    const all = ['127.0.1.1', '127.0.1.2'].map((address) => ({ address: address as Ip, port: 8080, local: true }))
    const table = (to: typeof all): ServiceTable => {
      const front: Front = {
        port: 'ns/s:',
        protocol: 'TCP',
        family: 4,
        at: { address: '172.30.0.1' as Ip, port: 80, kind: 'cluster' },
        sources: 'any',
        affinity: undefined,
        scheduler: 'wlc',
        routes: [{ from: 'anyone', outcome: { kind: 'forward', to }, masquerade: 'hairpin only' }],
      }
      return { fronts: new Map([['tcp/172.30.0.1:80', front]]), node: { ...tables(1, [4]).next().value.node, clusterIps: new Set(['172.30.0.1' as Ip]) } }
    }
    await backend.apply(table(all), signal)
    const said = (socket: ReturnType<typeof connect>, word: string): Promise<string> =>
      new Promise((resolve) => {
        socket.once('data', (b) => resolve(b.toString()))
        socket.write(word)
      })
    const [one, two] = [connect(80, '172.30.0.1'), connect(80, '172.30.0.1')]
    const first = await said(one, 'a')
    t.not((await said(two, 'a'))[8], first[8], 'the least loaded is taken: one each')
    const left = all.filter((e) => !first.startsWith(e.address))
    await backend.apply(table(left), signal)
    t.match(await said(one, 'b'), first.slice(0, 9), 'the old connection goes on')
    const third = connect(80, '172.30.0.1')
    t.match(await said(third, 'c'), left[0]!.address, 'a new one goes elsewhere')
    for (const s of [one, two, third]) s.resetAndDestroy()
    // A reset ends the entry after ten seconds (the kernel's timeout for CLOSE).
    const ipvs = await Ipvs.open(openNetlink('generic'))
    const until = performance.now() + 30_000
    const count = async (): Promise<number> => (await ipvs.destinations({ protocol: 'TCP', address: '172.30.0.1' as Ip, port: 80 })).length
    while ((await count()) > 1 && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 250))
    t.equal(await count(), 1)
    await backend.close()
    t.equal(await count(), 1, 'the kernel goes on forwarding after close')
    await (await create({ kernel, log: silent })).cleanup()
    echo.kill()
  })

  test(`killed between any two things it says to the kernel, the next start ends in the same state (seed ${seed})`, { timeout: 180_000 }, async (t) => {
    const all = tables(seed, [4])
    const [from, to] = [all.next().value, all.next().value]
    // Every place would take minutes here: the first ones, then farther and farther apart.
    for (let last = 0, killed = true; killed; last = last < 4 ? last + 1 : last * 2) {
      const before = await create({ kernel, log: silent })
      await before.apply(from, signal)
      await before.close()
      const dying = await create({ kernel: dyingKernel(last), log: silent })
      killed = await dying.apply(to, signal).then(
        () => false,
        () => true,
      )
      // What is dead ends no draining either.
      await dying.close()
      const next = await create({ kernel, log: silent })
      await next.apply(to, signal)
      for (const until = performance.now() + 60_000; performance.now() < until && (await printed()) !== wanted(to);) await new Promise((resolve) => setTimeout(resolve, 100))
      t.same(await next.check(), [], `after ${last} requests: as written`)
      t.equal(await printed(), wanted(to), `after ${last} requests: what the table says`)
      await next.cleanup()
      await next.close()
    }
  })

  test('from IPVS to nftables: what IPVS left goes, the new rules stay', async (t) => {
    const table = tables(seed, [4]).next().value
    const ipvs = await create({ kernel, log: silent })
    await ipvs.apply(table, signal)
    await ipvs.close()
    const rules = nftables({ kernel, log: silent })
    await rules.apply(table, signal)
    await (await create({ kernel, log: silent })).cleanup()
    t.equal(await printed(), '')
    t.same(await rules.check(), [])
    await rules.cleanup()
    t.equal(execFileSync('nft', ['list', 'ruleset'], { encoding: 'utf8' }), '')
  })

  async function printed(): Promise<string> {
    const ipvs = await Ipvs.open(openNetlink('generic'))
    const lines: string[] = []
    for (const s of await ipvs.servers()) {
      const to = (await ipvs.destinations(s)).map((d) => `${d.address}:${d.port}${d.weight === 1 ? '' : ` weight ${d.weight}`}`)
      lines.push(`${'mark' in s ? 'by mark' : `${s.protocol} ${s.address}:${s.port}`} ${s.scheduler} ${s.persistence} → ${to.sort().join(' ')}`)
    }
    for (const a of await addresses(openNetlink('route'), 4)) if (a.address.startsWith('172.30.') || a.address.startsWith('203.')) lines.push(`address ${a.address}`)
    return lines.sort().join('\n')
  }

  function wanted(table: ServiceTable): string {
    const lines = new Set<string>()
    const out: string[] = []
    for (const front of table.fronts.values()) {
      const lists: string[] = []
      for (const { outcome } of front.routes) {
        if (outcome.kind !== 'forward') continue
        const to = outcome.to
          .map((e) => `${e.address}:${e.port}`)
          .sort()
          .join(' ')
        if (!lists.includes(to)) lists.push(to)
      }
      const how = `rr ${front.affinity ?? 0}`
      if (lists[0] === undefined) continue
      if ('nodePort' in front.at) out.push(`${front.protocol} 192.168.50.1:${front.at.nodePort} ${how} → ${lists[0]}`)
      else {
        out.push(`${front.protocol} ${front.at.address}:${front.at.port} ${how} → ${lists[0]}`)
        lines.add(`address ${front.at.address}`)
      }
      if (lists[1] !== undefined) out.push(`by mark ${front.affinity === undefined ? 'rr' : 'mh'} 0 → ${lists[1]}`)
    }
    return [...out, ...lines].sort().join('\n')
  }
}
