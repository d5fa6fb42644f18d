import { test } from 'tap'
import { testAuthority } from '../kube/testing/certificates.ts'
import { namespace, service } from '../kube/testing/builders.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import type { Driver } from '../lib/sockets/seam.ts'
import { openEpoll } from '../linux/sockets/driver.ts'
import { serveStreams } from './serve.ts'
import { site } from './testing/site.ts'

const drivers: Readonly<Record<string, () => Promise<Driver | string>>> = { node: async () => openNode(), epoll: openEpoll }

for (const [name, open] of Object.entries(drivers)) {
  test(`DNS over TLS, both ways (${name})`, async (t) => {
    const driver = await open()
    if (typeof driver === 'string') return t.comment(driver)
    t.teardown(() => driver.close())
    const [ours, others] = [await testAuthority('ours'), await testAuthority('others')]
    const pair = await ours.server(['dns.test'])
    const behind = site([namespace('shop'), service('shop/api', { clusterIP: '10.96.8.20' })])
    const serving = await serveStreams(driver, { host: '127.0.0.1', port: 0 }, behind.server, { tls: { identity: () => pair, alpn: ['dot'] } })
    t.teardown(() => serving.close())
    const asking = (options: string) => {
      const s = site([], {
        corefile: `.:53 {\n forward . tls://127.0.0.1:${serving.port} {\n ${options}\n}\n}`,
        files: { '/ours.pem': ours.cert, '/others.pem': others.cert },
        env: { driver },
      })
      t.teardown(() => s.configuration.close())
      return s
    }
    const s = asking('tls /ours.pem\n tls_servername dns.test')
    const all = await Promise.all(Array.from({ length: 20 }, (_, i) => s.ask(i % 2 === 0 ? 'api.shop.svc.cluster.local' : `n${i}.shop.svc.cluster.local`, 'A', { brief: true })))
    t.same([...new Set(all)], ['NOERROR aa\napi.shop.svc.cluster.local. 5 A 10.96.8.20', 'NXDOMAIN aa'], 'many questions on one connection')
    t.equal(await asking('tls /others.pem\n tls_servername dns.test').ask('api.shop.svc.cluster.local'), 'SERVFAIL', 'of an authority that is not known')
    t.equal(await asking('tls /ours.pem\n tls_servername other.test').ask('api.shop.svc.cluster.local'), 'SERVFAIL', 'of another name')
  })
}
