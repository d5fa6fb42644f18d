import { test } from 'tap'
import { silent } from '../../lib/log.ts'
import { seeded } from '../../lib/random.ts'
import { FakeKernel } from '../../linux/fake/kernel.ts'
import { randomTable, seedNow } from '../testing/tables.ts'
import type { ServiceTable } from '../table.ts'
import { IptablesBackend } from './backend.ts'

const forever = new AbortController().signal
const seed = seedNow()
const rounds = process.env.TEST_LONG === undefined ? 24 : 600

async function fresh(table: ServiceTable): Promise<string> {
  const kernel = new FakeKernel()
  await new IptablesBackend({ kernel, log: silent }).apply(table, forever)
  return kernel.print()
}

test(`any state can follow any state (seed ${seed})`, async (t) => {
  const random = seeded(seed)
  const kernel = new FakeKernel()
  let backend = new IptablesBackend({ kernel, log: silent })
  for (let round = 0; round < rounds; round++) {
    const table = randomTable(random)
    await backend.apply(table, forever)
    const [is, should] = [await kernel.print(), await fresh(table)]
    if (is !== should) {
      t.equal(is, should, `round ${round}`)
      return
    }
    // Now and then the process starts again and finds what the last one left.
    if (random() < 0.2) backend = new IptablesBackend({ kernel, log: silent })
  }
  t.pass(`${rounds} tables`)
  await backend.cleanup()
  t.equal(await kernel.print(), await new FakeKernel().print(), 'cleanup leaves nothing')
})

test(`a crash between any two writes ends in the same state (seed ${seed})`, async (t) => {
  const random = seeded(seed + 1)
  for (let round = 0; round < rounds / 4; round++) {
    const [before, after] = [randomTable(random), randomTable(random)]
    const should = await fresh(after)
    // How many writes the second table needs is not known before: crash at the first, the second … until none is left.
    for (let crash = 1; ; crash++) {
      let writes = -Infinity
      const kernel = new FakeKernel({ fault: () => (++writes === crash ? new Error('the process died here') : undefined) })
      const first = new IptablesBackend({ kernel, log: silent })
      await first.apply(before, forever)
      writes = 0
      const died = await first.apply(after, forever).then(
        () => false,
        () => true,
      )
      writes = -Infinity
      // The same process tries again, or a new one starts.
      const next = random() < 0.5 ? first : new IptablesBackend({ kernel, log: silent })
      await next.apply(after, forever)
      const is = await kernel.print()
      if (is !== should) {
        t.equal(is, should, `round ${round}, crash at write ${crash}`)
        return
      }
      if (!died) break
    }
  }
  t.pass('every crash was survived')
})
