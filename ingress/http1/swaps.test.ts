import { test } from 'tap'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { openNode } from '../../lib/sockets/node/driver.ts'
import { route, tableOf } from '../testing/memory.ts'
import type { Frontend } from './engine.ts'
import { Server } from './server.ts'

async function listening(server: http.Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

async function ask(agent: http.Agent, port: number, path: string, body?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, path, agent, method: body === undefined ? 'GET' : 'POST', headers: { host: 'a.test' } }, (response) => {
      let text = ''
      response.on('data', (piece: Buffer) => (text += piece.toString()))
      response.on('end', () => resolve(`${response.statusCode} ${text}`))
      response.on('error', reject)
    })
    request.on('error', reject)
    request.end(body)
  })
}

void test('a thousand tables in turn under load: not one request fails', async (t) => {
  const answer = (name: string) =>
    http.createServer((request, response) => {
      let n = 0
      request.on('data', (piece: Buffer) => (n += piece.length))
      request.on('end', () => response.end(`${name} ${request.url} ${n}`))
    })
  const one = answer('one')
  const two = answer('two')
  // An idle connection that the endpoint closes in the very moment it is used would be its doing, not the table's.
  one.keepAliveTimeout = two.keepAliveTimeout = 60_000
  const [p1, p2] = [await listening(one), await listening(two)]
  const driver = openNode()
  const server = new Server({ driver })
  const tables = [
    tableOf(route('a.test/', [`127.0.0.1:${p1}`])),
    tableOf(route('a.test/', [`127.0.0.1:${p2}`])),
    tableOf(route('a.test/', [`127.0.0.1:${p1}`, `127.0.0.1:${p2}`]), route('b.test/', [])),
  ]
  const frontend: Frontend = { table: tables[0]!, secure: false }
  const at = await server.listen({ host: '127.0.0.1', port: 0 }, frontend)
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 })
  let swapping = true
  const wrong: string[] = []
  let asked = 0
  const clients = Array.from({ length: 8 }, async (_, i) => {
    while (swapping) {
      const n = asked++
      const body = n % 3 === 0 ? 'x'.repeat(n % 5000) : undefined
      const said = await ask(agent, at.port, `/${n}`, body).catch((error: Error) => `failed: ${error.message}`)
      if (!new RegExp(`^200 (one|two) /${n} ${body?.length ?? 0}$`).test(said)) wrong.push(`${i}: ${said}`)
    }
  })
  for (let i = 0; i < 1000; i++) {
    server.use(frontend, tables[i % tables.length]!)
    // Some swaps fall between two octets of a turn, some between turns.
    await new Promise((resolve) => (i % 5 === 0 ? setTimeout(resolve, 1) : setImmediate(resolve)))
  }
  swapping = false
  await Promise.all(clients)
  t.same(wrong, [])
  t.ok(asked > 100, `${asked} requests during the swaps`)

  // And drained: what is under way is answered, connections end, nobody is told 5xx.
  agent.destroy()
  server.use(frontend, tables[0]!)
  const slow = new http.Agent({ keepAlive: true })
  one.removeAllListeners('request')
  // The answers wait for the drain. It begins when all are under way: what still lies in the kernel's accept queue, the `node` driver may reset.
  const arrived: http.ServerResponse[] = []
  one.on('request', (_request: http.IncomingMessage, response: http.ServerResponse) => void arrived.push(response))
  const waiting = Array.from({ length: 20 }, (_, i) => ask(slow, at.port, `/slow/${i}`))
  const answers = Promise.all(waiting)
  answers.catch(() => {})
  while (arrived.length < waiting.length) await new Promise((resolve) => setTimeout(resolve, 5))
  setTimeout(() => arrived.forEach((response) => response.end('late')), 150)
  const began = Date.now()
  await server.drain()
  t.same(
    await answers,
    waiting.map(() => '200 late'),
  )
  t.ok(Date.now() - began < 1500)
  server.close()
  await driver.close()
  one.closeAllConnections()
  two.closeAllConnections()
  one.close()
  two.close()
})
