import { bracketed, type Ip } from '../../lib/ip.ts'
import { silent } from '../../lib/log.ts'
import { seeded } from '../../lib/random.ts'
import { parse } from '../../lib/options.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import { modeNamed } from '../backends.ts'
import { follow, rendered } from '../follow.ts'
import { flags, proxyOptions } from '../options.ts'
import { ownAddresses, packetOf } from './agree.ts'
import { optionSets, world, type Flow, type Sender } from './flows.ts'
import { insideNamespaces, prove, Scene } from './packets.ts'
import { randomTable, seedNow } from './tables.ts'

const senders: readonly Sender[] = ['pod a', 'pod b', 'pod c', 'here', 'there', 'client']
/** Everybody who answers, on the ports they answer on. */
const answering = new Set([...Object.values(world.pods), world.here, world.there, world.client].flatMap((w) => w.ips.flatMap((ip) => [8080, 9090, 5353].map((port) => `${bracketed(ip)}:${port}`))))

/** Addresses of the other node and its pods. */
const beyond = new Set<string>([...world.there.ips, ...world.pods.c.ips, ...world.pods.d.ips])

if (insideNamespaces(import.meta.filename)) {
  const { t: root, test } = await import('tap')
  root.setTimeout(280_000)
  const seed = seedNow()
  const scene = await Scene.build()
  for (const name of ['nftables', 'iptables legacy', 'iptables nf_tables', 'userspace']) {
    test(`what explain says of random packets is what becomes of them: ${name} (seed ${seed})`, { timeout: 250_000 }, async (t) => {
      const random = seeded(seed)
      const one = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
      const [mode = '', iptables = 'auto'] = name.split(' ')
      const kernel = realKernel({ iptables: iptables as 'auto', openNetlink })
      const backend = await modeNamed(mode)!.load({ kernel, log: silent, options: proxyOptions(parse(flags, ['--mode', mode]).values, 'here') })
      let done = 0
      while (done < 100) {
        const table = randomTable(random, optionSets.usual)
        const fronts = [...table.fronts.values()].filter((f) => f.protocol !== 'SCTP' && f.affinity === undefined)
        if (fronts.length < 20) continue
        await backend.apply(table, new AbortController().signal)
        const [rules] = await rendered(table, [...ownAddresses, '198.51.100.1', 'fd00:198::1'], [mode])
        const cases = Array.from({ length: 40 }, () => {
          const f = one(fronts)
          const at = 'nodePort' in f.at ? { address: (f.family === 4 ? one([...world.here.ips.slice(0, 1), ...world.here.also]) : world.here.ips[1]) as string as Ip, port: f.at.nodePort } : f.at
          const port = random() < 0.15 ? one([80, 81, 8080, 30_001]) : at.port
          const flow: Flow = { name: '', given: [], from: one(senders), to: `${f.protocol.toLowerCase()}/${bracketed(at.address)}:${port}`, arrives: 'untouched' }
          const packet = packetOf(flow)
          const { ways, error } = follow(rules!, packet)
          if (error !== undefined) throw new Error(error)
          const ends = ways.map((w) => (w.end === 'delivered' ? `${bracketed(w.destination)}:${w.destinationPort}` : w.end))
          if (ways[0]!.end !== 'delivered') return { ...flow, arrives: ways[0]!.end, name: `${flow.from} to ${flow.to}: ${ends.join(' ')}` } as Flow
          if (!ways[0]!.translated) return { ...flow, name: `${flow.from} to ${flow.to}: untouched` }
          if (!ends.every((e) => answering.has(e))) return undefined
          // Answers between two of the other node do not come by here, so they keep the endpoint's address: in kube-proxy's world, too.
          if ((flow.from === 'pod c' || flow.from === 'there') && ways.some((w) => !w.masqueraded && beyond.has(w.destination))) return undefined
          // A process of the node has no source address before it is routed: what it becomes cannot be told from it.
          const masqueraded = flow.from !== 'here' && ways.every((w) => w.masqueraded === ways[0]!.masqueraded) ? ways[0]!.masqueraded : undefined
          return {
            ...flow,
            arrives: ends,
            name: `${flow.from} to ${flow.to}: ${ends.join(' ')}${masqueraded === true ? ' masqueraded' : ''}`,
            ...(masqueraded === undefined ? {} : { masqueraded }),
          } as Flow
        }).flatMap((c) => c ?? [])
        const proofs = await Promise.all(cases.map((c) => prove(scene, c, false, (what) => t.comment(what))))
        cases.forEach((c, i) => t.equal(proofs[i], undefined, c.name))
        done += cases.length
      }
      await backend.cleanup()
      await backend.close()
    })
  }
  void test('the end', async () => scene.close())
}
