import { silent } from '../lib/log.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { listTable } from '../linux/nftables/listing.ts'
import { trace } from '../linux/nftables/trace.ts'
import { realKernel } from '../linux/real.ts'
import type { Way } from '../linux/trace.ts'
import { parse } from '../lib/options.ts'
import { modeNamed } from './backends.ts'
import { explain } from './explain.ts'
import { liveRules } from './follow.ts'
import { create } from './nftables/backend.ts'
import { flags, proxyOptions } from './options.ts'
import { compileGroup, disagreement, ownAddresses, packetOf } from './testing/agree.ts'
import { groups, nodes, optionSets } from './testing/flows.ts'
import { insideNamespaces } from './testing/packets.ts'

/** Without the words of rules: nft leaves out what another part of a rule implies. */
const bare = (ways: readonly Way[]): unknown => ways.map((w) => ({ ...w, path: w.path.map((s) => [s.table, s.chain]) }))

// The flow table, written by netlink, listed by nft, followed by the tracer.
if (insideNamespaces(import.meta.filename)) {
  const { test } = await import('tap')
  const kernel = realKernel({ openNetlink })
  for (const [name, { flows }] of groups()) {
    test(`what nft lists agrees with the flows: ${name}`, async (t) => {
      const backend = create({ kernel, log: silent })
      await backend.apply(compileGroup(name).table, new AbortController().signal)
      const machine = { objects: [...(await kernel.nft.list('ip switchyard')), ...(await kernel.nft.list('ip6 switchyard').catch(() => []))], local: ownAddresses }
      const netlink = kernel.netlink('netfilter')
      const told = { objects: [...(await listTable(netlink, 4, 'switchyard')), ...(await listTable(netlink, 6, 'switchyard'))], local: ownAddresses }
      netlink.close()
      for (const flow of flows) if (flow.cannot?.nftables === undefined) t.same(bare(trace(told, packetOf(flow))), bare(trace(machine, packetOf(flow))), `told by netlink as by nft: ${flow.name}`)
      for (const flow of flows) if (flow.cannot?.nftables === undefined) t.equal(disagreement(flow, trace(machine, packetOf(flow))), undefined, flow.name)
      await backend.cleanup()
      await backend.close()
    })
  }

  test('explain packet --live follows whatever is in the kernel', async (t) => {
    const { services, slices } = groups().get('usual')!
    const { table } = compileGroup('usual')
    const question = { services, slices, nodes, pods: [], options: optionSets.usual, from: '198.51.100.7', to: 'tcp/172.30.0.1:80', modes: [] }
    for (const [mode, name] of [
      ['nftables', 'nftables'],
      ['userspace', 'nftables'],
      ['iptables', 'iptables (nf_tables)'],
    ] as const) {
      const tools = { kernel: realKernel({ openNetlink, iptables: 'nf_tables' }), log: silent, options: proxyOptions(parse(flags, ['--mode', mode]).values, 'here') }
      const backend = await modeNamed(mode)!.load(tools)
      await backend.apply(table, new AbortController().signal)
      const { modes } = await explain({ ...question, live: await liveRules(4) })
      t.match(modes, [{ name, source: 'live', error: undefined }], mode)
      const ends = modes[0]!.ways.map((w) => `${w.destination}:${w.destinationPort}`)
      if (mode === 'userspace') t.match(ends, [/^169\.254\.83\.1:\d+$/])
      else t.same(ends.toSorted(), ['10.180.0.1:8080', '10.180.2.1:8080'], mode)
      await backend.cleanup()
      await backend.close()
    }
    t.same(await liveRules(4), [], 'and nothing where nothing is left')
  })
}
