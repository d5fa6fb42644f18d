import { silent } from '../../lib/log.ts'
import { seeded } from '../../lib/random.ts'
import { FakeKernel } from '../../linux/fake/kernel.ts'
import type { Kernel } from '../../linux/kernel.ts'
import { realKernel } from '../../linux/real.ts'
import { insideNamespaces, provePackets } from '../testing/packets.ts'
import { randomTable, seedNow } from '../testing/tables.ts'
import { IptablesBackend } from './backend.ts'

const variants = ['legacy', 'nf_tables'] as const

if (insideNamespaces(import.meta.filename)) {
  const { test } = await import('tap')
  const forever = new AbortController().signal
  const seed = seedNow()

  for (const variant of variants) {
    test(`any state can follow any state in the real kernel: ${variant} (seed ${seed})`, { timeout: 240_000 }, async (t) => {
      const random = seeded(seed)
      const kernel = realKernel({ iptables: variant })
      const clean = await ours(kernel)
      let backend = new IptablesBackend({ kernel, log: silent })
      for (let round = 0; round < 8; round++) {
        const table = randomTable(random)
        await backend.apply(table, forever)
        const fake = new FakeKernel()
        await new IptablesBackend({ kernel: fake, log: silent }).apply(table, forever)
        t.equal(await ours(kernel), await ours(fake), `round ${round}: the kernel prints what was asked of it`)
        t.same(await backend.check(), [], `round ${round}: all is well`)
        if (random() < 0.3) backend = new IptablesBackend({ kernel, log: silent })
      }
      await backend.cleanup()
      t.equal(await ours(kernel), clean, 'cleanup leaves nothing')
    })

    test(`what somebody flushed is seen and written again: ${variant}`, { timeout: 240_000 }, async (t) => {
      const kernel = realKernel({ iptables: variant })
      const backend = new IptablesBackend({ kernel, log: silent })
      const table = randomTable(seeded(seed))
      await backend.apply(table, forever)
      const should = await ours(kernel)
      for (const harm of ['*nat\n-F PREROUTING\nCOMMIT\n', '*nat\n-F SY-NAT\nCOMMIT\n', '*filter\n-D SY-FILTER -m conntrack --ctstate DNAT -j RETURN\nCOMMIT\n']) {
        await kernel.iptables(4).restore(harm, forever)
        t.not((await backend.check()).length, 0, 'it is seen')
        await backend.apply(table, forever)
        t.equal(await ours(kernel), should, 'and written again')
      }
      await kernel.iptables(4).restore('*filter\n:FOREIGN - [0:0]\n-A FOREIGN -s 192.0.2.1/32 -j DROP\n-A FORWARD -j FOREIGN\nCOMMIT\n', forever)
      await backend.cleanup()
      const left = await kernel.iptables(4).save(['filter'])
      t.match(left, /-A FORWARD -j FOREIGN\n-A FOREIGN -s 192.0.2.1\/32 -j DROP/, 'foreign rules stay')
      t.notMatch(left, /SY-/, 'ours go')
      await kernel.iptables(4).restore('*filter\n-D FORWARD -j FOREIGN\n-F FOREIGN\n-X FOREIGN\nCOMMIT\n', forever)
    })
  }

  await provePackets(
    variants.map((variant) => ({ name: `iptables (${variant})`, mode: 'iptables', make: async () => new IptablesBackend({ kernel: realKernel({ iptables: variant }), log: silent }) })),
  )
}

/** What is in the kernel, whatever the order of chains and sets and how sets are made. */
async function ours(kernel: Kernel): Promise<string> {
  const out: string[] = []
  for (const family of [4, 6] as const) {
    for (const table of ['nat', 'filter'] as const) {
      const lines = (await kernel.iptables(family).save([table]))
        .replaceAll(/\[\d+:\d+\]/g, '[0:0]')
        .split('\n')
        .filter((l) => !l.startsWith('#') && l !== '')
      out.push(`# ${family}`, ...lines.filter((l) => !l.startsWith('-A')).sort(), ...lines.filter((l) => l.startsWith('-A')).sort((a, b) => chainOf(a).localeCompare(chainOf(b))))
    }
  }
  out.push(
    ...(await kernel.ipset.save())
      .split('\n')
      .map((l) => l.split(' ').slice(0, 3).join(' '))
      .sort(),
  )
  return out.join('\n')
}

function chainOf(line: string): string {
  return line.split(' ')[1]!
}
