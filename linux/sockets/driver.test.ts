import { test } from 'tap'
import { cases } from '../../lib/sockets/suite/suite.ts'
import { openEpoll } from './driver.ts'

const why = await openEpoll()
if (typeof why === 'string') test('the epoll driver', async (t) => void t.pass(why, { skip: why }))
else {
  await why.close()
  for (const { name, run, needs } of cases) {
    test(name, async (t) => {
      const driver = await openEpoll()
      if (typeof driver === 'string') throw new Error(driver)
      const fixture = { driver, tls: true, bounded: 32 * 1024 * 1024 }
      if (needs?.(fixture) === false) return void t.pass(name, { skip: 'not for this driver' })
      await run(fixture)
      await driver.close()
      t.pass()
    })
  }
}
