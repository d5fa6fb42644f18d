import { test } from 'tap'
import { namespace, service } from '../kube/testing/builders.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import { LoopHandler } from './handlers/loop/index.ts'
import { answerLater } from './serve.ts'
import type { Server } from './server.ts'
import { site } from './testing/site.ts'
import { upstream } from './testing/upstream.ts'

test('who forwards to itself says so, and answers SERVFAIL instead of going round', async (t) => {
  const driver = openNode()
  t.teardown(() => driver.close())
  let server: Server | undefined
  // Where the questions go is where they are answered.
  const bound = await driver.bind({ host: '127.0.0.1', port: 0 }, (batch, b) => {
    for (let i = 0; i < batch.count; i++) answerLater(server!, batch.bytes, batch.start(i), batch.end(i), batch.peer(i), batch.local(i), b)
  })
  const s = site([namespace('shop'), service('shop/api', { clusterIP: '10.96.8.20' })], {
    corefile: `.:53 {\n kubernetes cluster.local\n loop\n forward . 127.0.0.1:${bound.address.port}\n}`,
    env: { driver },
  })
  t.teardown(() => s.configuration.close())
  server = s.server
  const loop = s.server.sites[0]!.handlers.find((h) => h instanceof LoopHandler)!
  await loop.look((name, type) => s.server.ask(name, type))
  t.equal(await s.ask('example.com'), 'SERVFAIL')
  t.match((await s.server.ask('\x07example\x03com\0' as never, 1)).why, /the upstream servers ask this server/)
  t.equal(await s.ask('api.shop.svc.cluster.local', 'A', { brief: true }), 'NOERROR aa\napi.shop.svc.cluster.local. 5 A 10.96.8.20', 'its own names are answered')
})

test('who does not is left alone', async (t) => {
  const driver = openNode()
  t.teardown(() => driver.close())
  const up = await upstream(() => ({ rcode: 3 }))
  t.teardown(() => up.close())
  const s = site([], { corefile: `.:53 {\n loop\n forward . 127.0.0.1:${up.port}\n}`, env: { driver } })
  t.teardown(() => s.configuration.close())
  const loop = s.server.sites[0]!.handlers.find((h) => h instanceof LoopHandler)!
  await loop.look((name, type) => s.server.ask(name, type))
  t.equal(await s.ask('example.com'), 'NXDOMAIN')
})
