import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'tap'
import { openNode } from '../../lib/sockets/node/driver.ts'
import { Referee } from '../../lib/sockets/suite/suite.ts'

const client = openNode()
const connect = async (port: number): Promise<Referee> => {
  const r = new Referee()
  client.connect({ host: '127.0.0.1', port }, r)
  await r.until(() => r.bytes === 1)
  return r
}
const say = (r: Referee, text: string): void => r.call(() => void r.wire.write(Buffer.from(text), 0, text.length))

async function program(driver: string, patience: number) {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', new URL('./testdata/served.ts', import.meta.url).pathname, driver, String(patience)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>
  return { port: Number(line), child, ended }
}

for (const driver of ['auto', 'node']) {
  test(`${driver}: SIGTERM ends an idle program with status 0`, async (t) => {
    const { child, ended } = await program(driver, 60_000)
    child.kill('SIGTERM')
    t.same(await ended, [0, null])
  })

  test(`${driver}: SIGTERM lets a busy program finish, then it ends with status 0`, async (t) => {
    const { port, child, ended } = await program(driver, 60_000)
    const held = [await connect(port), await connect(port), await connect(port)]
    child.kill('SIGTERM')
    await sleep(50)
    for (const r of held) {
      say(r, 'still there')
      await r.until(() => r.bytes === 12)
    }
    for (const r of held) r.call(() => r.wire.end())
    t.same(await ended, [0, null])
    for (const r of held) await r.until(() => r.state === 'closed')
    t.same(
      held.map((r) => r.why),
      ['', '', ''],
    )
  })

  test(`${driver}: SIGTERM ends a program whose workers do not end, after its patience, with status 0`, async (t) => {
    const { port, child, ended } = await program(driver, 200)
    const held = [await connect(port), await connect(port), await connect(port), await connect(port)]
    for (const r of held) say(r, 'stop!')
    await sleep(50)
    child.kill('SIGTERM')
    t.same(await ended, [0, null])
    for (const r of held) r.wire.abort()
  })
}

test('a second SIGTERM ends a program under load at once with status 143, not by a fatal error of a worker', async (t) => {
  const { port, child, ended } = await program('auto', 60_000)
  // Each is answered as soon as it has spoken: the workers are always at work.
  const load = Array.from({ length: 40 }, () => new Referee({ data: (r, b, from, to) => void r.wire.write(b, from, to), keep: false }))
  for (const r of load) client.connect({ host: '127.0.0.1', port }, r)
  for (const r of load) await r.until(() => r.bytes > 10)
  child.kill('SIGTERM')
  await sleep(30)
  child.kill('SIGTERM')
  t.same(await ended, [143, null])
  for (const r of load) r.wire.abort()
})

test('the end', async () => client.close())
