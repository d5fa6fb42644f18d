import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'tap'
import { FakeApi } from '../kube/testing/api.ts'
import { ingress, ingressClass, service, slice } from '../kube/testing/builders.ts'
import { start } from './testing/run.ts'
import { spanOf, traceparentOf } from './traces.ts'

void test('a span stands in the trace of its client, if that is a sane one', async (t) => {
  const trace = '0af7651916cd43dd8448eb211c80319c'
  const within = spanOf(`00-${trace}-b7ad6b7169203331-01`, 0)
  t.match(within, { trace, parent: 'b7ad6b7169203331', sampled: true })
  t.match(traceparentOf(within), new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`))
  t.equal(spanOf(`00-${trace}-b7ad6b7169203331-00`, 1).sampled, false, 'who is not sampled stays so')
  for (const bad of [undefined, '', `00-${'0'.repeat(32)}-b7ad6b7169203331-01`, `ff-${trace}-b7ad6b7169203331-01`, `00-${trace}-b7ad6b7169203331-01-x`]) t.equal(spanOf(bad, 1).parent, undefined)
  t.equal(spanOf(undefined, 0.5, () => 0.6).sampled, false)
})

void test('spans reach a collector, and the endpoint sees whose child it is', async (t) => {
  await using api = await FakeApi.start()
  let seen: string | undefined
  const endpoint = http.createServer((request, response) => {
    seen = request.headers.traceparent as string
    response.end('ok')
  })
  const got: string[] = []
  const collector = http.createServer((request, response) => {
    let text = ''
    request.on('data', (piece: Buffer) => (text += piece.toString()))
    request.on('end', () => {
      got.push(`${request.url} ${text}`)
      response.end('{}')
    })
  })
  for (const server of [endpoint, collector]) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const port = (server: http.Server): number => (server.address() as AddressInfo).port
  api.putAll([ingressClass('sy'), service('one', { ports: [80] }), slice('one', ['127.0.0.1@n1'], [port(endpoint)]), ingress('i', { 'x.test': { '/': 'one:80' } }, { class: 'sy' })])
  const running = await start(api, '--otlp-endpoint', `http://127.0.0.1:${port(collector)}`)
  const trace = '0af7651916cd43dd8448eb211c80319c'
  await new Promise<void>((resolve, reject) =>
    http
      .get({ host: '127.0.0.1', port: running.http, path: '/p', headers: { host: 'x.test', traceparent: `00-${trace}-b7ad6b7169203331-01` } }, (r) => r.resume().on('end', () => resolve()))
      .on('error', reject),
  )
  await running.end()
  t.equal(got.length, 1, 'what waits is sent at the end')
  t.match(got[0], /^\/v1\/traces /)
  const { spans } = (JSON.parse(got[0]!.slice(got[0]!.indexOf(' '))) as { resourceSpans: { scopeSpans: { spans: { traceId: string; spanId: string; parentSpanId: string }[] }[] }[] }).resourceSpans[0]!
    .scopeSpans[0]!
  t.match(spans, [{ traceId: trace, parentSpanId: 'b7ad6b7169203331' }])
  t.equal(seen, `00-${trace}-${spans[0]!.spanId}-01`)
  endpoint.close()
  collector.close()
})
