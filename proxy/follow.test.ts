import { test } from 'tap'
import { bracketed, type Ip } from '../lib/ip.ts'
import { seeded } from '../lib/random.ts'
import { follow, rendered } from './follow.ts'
import { compileGroup, disagreement, ownAddresses, packetOf } from './testing/agree.ts'
import { groups, optionSets, world, type Flow, type Sender } from './testing/flows.ts'
import { randomTable, seedNow } from './testing/tables.ts'

for (const [name, { flows }] of groups()) {
  test(`what every mode would write agrees with the flows: ${name}`, async (t) => {
    for (const rules of await rendered(compileGroup(name).table, ownAddresses)) {
      for (const flow of flows) {
        const cannot = flow.cannot?.[rules.name as 'nftables']
        if (cannot !== undefined || (rules.name === 'userspace' && flow.to.startsWith('sctp'))) continue
        const { ways, error } = follow(rules, packetOf(flow))
        // IPVS binds the address, so its other ports are refused rather than passed by.
        const bound = rules.name === 'ipvs' && flow.arrives === 'untouched' && ways.every((w) => w.end === 'rejected') && flow.to.includes('203.0.113.')
        if (bound) continue
        // An endpoint of the userspace mode sees the node.
        const { masqueraded, ...bare } = flow
        t.equal(error ?? disagreement(rules.name === 'userspace' || masqueraded === undefined ? bare : flow, ways), undefined, `${rules.name}: ${flow.name}`)
      }
    }
  })
}

const seed = seedNow()
test(`four modes say the same of 100 packets to random tables (seed ${seed})`, async (t) => {
  const random = seeded(seed)
  const one = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  let done = 0
  while (done < 100) {
    const table = randomTable(random, optionSets.usual)
    // The userspace mode refuses SCTP.
    const fronts = [...table.fronts.values()].filter((f) => f.protocol !== 'SCTP')
    if (fronts.length < 10) continue
    const modes = await rendered(table, ownAddresses)
    for (let i = 0; i < 25; i++, done++) {
      const { at, family, protocol } = one(fronts)
      const address = 'address' in at ? at.address : ((family === 4 ? one([world.here.ips[0], ...world.here.also]) : world.here.ips[1]) as string as Ip)
      const port = random() < 0.15 ? one([80, 81, 8080, 30_001]) : 'address' in at ? at.port : at.nodePort
      const flow: Flow = {
        name: '',
        given: [],
        from: one<Sender>(['pod a', 'pod b', 'pod c', 'here', 'there', 'client']),
        to: `${protocol.toLowerCase()}/${bracketed(address)}:${port}`,
        arrives: 'untouched',
      }
      const said = modes.map((rules) => {
        const { ways, error } = follow(rules, packetOf(flow))
        return error ?? ways.map((w) => `${(w.probability * 100).toFixed(3)} % ${w.end}${w.end === 'delivered' ? ` ${w.destination}:${w.destinationPort}` : ''}`).toSorted()
      })
      // Of a bound address IPVS refuses the other ports.
      const external = 'address' in at && at.kind !== 'cluster' && port !== at.port
      for (const [k, rules] of modes.entries()) if (!external || rules.name !== 'ipvs') t.same(said[k], said[0], `${rules.name}: ${flow.from} to ${flow.to}: ${String(said[0])}`)
    }
  }
})
