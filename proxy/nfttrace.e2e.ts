import { silent } from '../lib/log.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { trace } from '../linux/nftables/trace.ts'
import { realKernel } from '../linux/real.ts'
import { create } from './nftables/backend.ts'
import { compileGroup, disagreement, ownAddresses, packetOf } from './testing/agree.ts'
import { groups } from './testing/flows.ts'
import { insideNamespaces } from './testing/packets.ts'

// The flow table, written by netlink, listed by nft, followed by the tracer.
if (insideNamespaces(import.meta.filename)) {
  const { test } = await import('tap')
  const kernel = realKernel({ openNetlink })
  for (const [name, { flows }] of groups()) {
    test(`what nft lists agrees with the flows: ${name}`, async (t) => {
      const backend = create({ kernel, log: silent })
      await backend.apply(compileGroup(name).table, new AbortController().signal)
      const machine = { objects: [...(await kernel.nft.list('ip switchyard')), ...(await kernel.nft.list('ip6 switchyard').catch(() => []))], local: ownAddresses }
      for (const flow of flows) if (flow.cannot?.nftables === undefined) t.equal(disagreement(flow, trace(machine, packetOf(flow))), undefined, flow.name)
      await backend.cleanup()
      await backend.close()
    })
  }
}
