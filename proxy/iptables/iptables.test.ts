import { test } from 'tap'
import { silent } from '../../lib/log.ts'
import { FakeKernel } from '../../linux/fake/kernel.ts'
import { trace } from '../../linux/iptables/trace.ts'
import { compileGroup, disagreement, ownAddresses, packetOf } from '../testing/agree.ts'
import { groups } from '../testing/flows.ts'
import { IptablesBackend } from './backend.ts'

const forever = new AbortController().signal

for (const [name, { flows }] of groups()) {
  test(`the rendered rules agree with the flows: ${name}`, async (t) => {
    const kernel = new FakeKernel()
    const backend = new IptablesBackend({ kernel, log: silent })
    const { refused } = await backend.apply(compileGroup(name).table, forever)
    t.same(refused, [], 'nothing is refused by the backend')
    const sets = await kernel.ipset.save()
    const rules = { 4: await kernel.iptables(4).save(['nat', 'filter']), 6: await kernel.iptables(6).save(['nat', 'filter']) }
    for (const flow of flows) {
      const packet = packetOf(flow)
      t.equal(disagreement(flow, trace({ rules: rules[packet.family], sets, local: ownAddresses }, packet)), undefined, flow.name)
    }
    t.same(await backend.check(), [], 'the kernel is as written')
  })
}
