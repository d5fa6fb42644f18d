import { test } from 'tap'
import { Metrics } from './metrics.ts'
import { listenStatus } from './status.ts'

test('a status listener tells live, ready and metrics, and names a taken port', async (t) => {
  const metrics = new Metrics()
  metrics.counter('x_total', 'How many x.').add(2, { kind: 'a"b' })
  metrics.histogram('y_seconds', 'How long.', [1, 2]).observe(1.5, undefined, 3)
  let why: string | undefined = 'not synced'
  const server = await listenStatus({ host: '127.0.0.1', port: 0 }, { metrics, ready: () => why })
  t.teardown(() => server.close())
  const get = async (path: string, method = 'GET') => {
    const r = await fetch(`http://127.0.0.1:${server.port}${path}`, { method })
    return `${r.status} ${await r.text()}`
  }
  t.equal(await get('/healthz'), '200 ok')
  t.equal(await get('/readyz'), '503 not synced\n')
  why = undefined
  t.equal(await get('/readyz'), '200 ok')
  t.equal(await get('/nothing'), '404 not found\n')
  t.equal(await get('/__proto__'), '404 not found\n')
  t.equal(await get('/healthz', 'POST'), '405 only GET\n')
  const text = await get('/metrics')
  t.match(text, /x_total\{kind="a\\"b"\} 2\n/)
  t.match(text, /y_seconds_bucket\{le="1"\} 0\ny_seconds_bucket\{le="2"\} 3\ny_seconds_bucket\{le="\+Inf"\} 3\ny_seconds_sum 4.5\ny_seconds_count 3\n/)
  await t.rejects(listenStatus({ host: '127.0.0.1', port: server.port }, {}), { message: /127\.0\.0\.1:\d+ for status: the port is in use; choose another with --status/ })
})
