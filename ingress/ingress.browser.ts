// A real browser before the controller: TLS by server name, HTTP/2, WebSocket, cookie affinity, redirects and CORS as scripts see them.
import { test } from 'tap'
import { WebSocketServer } from 'ws'
import { FakeApi } from '../kube/testing/api.ts'
import { ingress, ingressClass, secret, service, slice } from '../kube/testing/builders.ts'
import { testAuthority } from '../lib/sockets/suite/certificates.ts'
import { browse, noBrowser } from '../lib/testing/chromium.ts'
import { onOnePort, start } from './testing/run.ts'

const annotation = (key: string, value: string): Record<string, string> => ({ [`nginx.ingress.kubernetes.io/${key}`]: value })

for (const sockets of ['auto', 'node']) {
  void test(`a browser over TLS, HTTP/2 and WebSocket, on ${sockets}`, { skip: noBrowser() }, async (t) => {
    await using api = await FakeApi.start()
    const there = await onOnePort(['127.0.0.1', '127.0.0.2'], (host, request, response) => {
      response.setHeader('content-type', request.url === '/' ? 'text/html' : 'text/plain')
      response.end(request.url === '/' ? `<title>${host}</title>` : `${host} ${request.method} ${request.url}`)
    })
    const websockets = new WebSocketServer({ server: there.servers[0]! })
    websockets.on('connection', (socket) => socket.on('message', (data: Buffer) => socket.send(`echo ${data.toString()}`)))
    const { cert, key } = testAuthority().issue('shop.test', 'chat.test', 'other.test')
    api.putAll([
      ingressClass('sy'),
      service('both', { ports: [80] }),
      slice('both', ['127.0.0.1@n1', '127.0.0.2@n1'], [there.port]),
      service('one', { ports: [80] }),
      slice('one', ['127.0.0.1@n1'], [there.port]),
      secret('cert', { 'tls.crt': cert, 'tls.key': key }, 'kubernetes.io/tls'),
      ingress(
        'shop',
        { 'shop.test': { '/': 'both:80' } },
        { class: 'sy', tls: { cert: ['shop.test'] }, annotations: { ...annotation('affinity', 'cookie'), ...annotation('session-cookie-name', 'route') } },
      ),
      ingress('chat', { 'chat.test': { '/': 'one:80' } }, { class: 'sy', tls: { cert: ['chat.test'] } }),
      ingress(
        'open',
        { 'other.test': { '/': 'one:80' } },
        { class: 'sy', tls: { cert: ['other.test'] }, annotations: { ...annotation('enable-cors', 'true'), ...annotation('cors-allow-origin', 'https://shop.test') } },
      ),
    ])
    const running = await start(api, '--sockets', sockets)
    const page = await browse('http://shop.test/', ['--ignore-certificate-errors', `--host-resolver-rules=MAP *.test:443 127.0.0.1:${running.https}, MAP *.test:80 127.0.0.1:${running.http}`])
    try {
      t.equal(await page.value('location.href'), 'https://shop.test/', 'redirected to HTTPS')
      t.equal(await page.value('performance.getEntriesByType("navigation")[0].nextHopProtocol'), 'h2', 'by HTTP/2')
      const title = await page.value<string>('document.title')
      const seen = await page.value('Promise.all(Array.from({ length: 12 }, (_, i) => fetch("/" + i).then((r) => r.text())))')
      t.same(
        seen,
        Array.from({ length: 12 }, (_, i) => `${title} GET /${i}`),
        'the cookie leads to one endpoint',
      )
      t.equal(await page.value('fetch("/upload", { method: "POST", body: "x".repeat(300000) }).then((r) => r.text())'), `${title} POST /upload`)
      t.equal(await page.value('fetch("https://other.test/x").then((r) => r.text())'), '127.0.0.1 GET /x', 'another origin that is allowed')
      t.equal(await page.value('fetch("https://chat.test/x").then((r) => r.text(), () => "refused")'), 'refused', 'one that is not')
      const echo =
        'new Promise((resolve, reject) => { const s = new WebSocket("wss://chat.test/ws"); s.onopen = () => s.send("hello"); s.onmessage = (m) => resolve(m.data); s.onerror = () => reject(new Error("no WebSocket")) })'
      t.equal(await page.value(echo), 'echo hello', 'a WebSocket over TLS')
    } finally {
      await page.close()
      await running.end()
      websockets.close()
      there.close()
    }
  })
}
