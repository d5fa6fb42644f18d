import { test } from 'tap'
import { cases } from '../suite/suite.ts'
import { openNode } from './driver.ts'

for (const { name, run, needs } of cases) {
  test(name, async (t) => {
    const fixture = { driver: openNode(), tls: true, bounded: 32 * 1024 * 1024 }
    if (needs?.(fixture) === false) return void t.pass(name, { skip: 'not for this driver' })
    await run(fixture)
    await fixture.driver.close()
    t.pass()
  })
}
