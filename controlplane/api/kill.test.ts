import tap, { test } from 'tap'
import { folder, start } from '../testing/plane.ts'

tap.setTimeout(120_000)

test('after a kill in the middle of writes everything acknowledged is there', async (t) => {
  const data = folder()
  let newest = 0
  for (let round = 0; round < 2; round++) {
    const one = await start(data, ['--controllers=false'])
    const acked: { name: string; version: number }[] = []
    const writers = Array.from({ length: 16 }, async (_, w) => {
      for (let i = 0; ; i++) {
        const name = `r${round}-w${w}-${i}`
        try {
          const r = await fetch(`${one.url}/api/v1/namespaces/default/configmaps`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ metadata: { name }, data: { k: 'x'.repeat(200) } }),
          })
          if (r.status !== 201) return
          acked.push({ name, version: Number(((await r.json()) as any).metadata.resourceVersion) })
        } catch {
          return
        }
      }
    })
    await new Promise((r) => setTimeout(r, 200 + round * 150))
    await one.stop('SIGKILL')
    await Promise.all(writers)
    const two = await start(data, ['--controllers=false'])
    const list: any = await (await fetch(`${two.url}/api/v1/namespaces/default/configmaps`)).json()
    const there = new Set(list.items.map((i: any) => i.metadata.name))
    t.same(
      acked.filter((a) => !there.has(a.name)),
      [],
      `all ${acked.length} of round ${round}`,
    )
    const version = Number(list.metadata.resourceVersion)
    t.ok(version >= Math.max(newest, ...acked.map((a) => a.version)), 'the version did not go back')
    newest = version
    await two.stop()
  }
})
