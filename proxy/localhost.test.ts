import { createSocket } from 'node:dgram'
import { connect, createServer, type AddressInfo } from 'node:net'
import { test } from 'tap'
import type { Ip } from '../lib/ip.ts'
import { openNode } from '../lib/sockets/node/driver.ts'
import { LocalhostNodePorts } from './localhost.ts'
import type { Front, NodeFacts, ServiceTable } from './table.ts'

const front = (protocol: 'TCP' | 'UDP', nodePort: number, ports: readonly number[]): Front => ({
  port: 'demo/web:',
  protocol,
  family: 4,
  at: { nodePort, kind: 'node' },
  sources: 'any',
  routes: [
    { from: 'anyone', outcome: ports.length === 0 ? { kind: 'reject' } : { kind: 'forward', to: ports.map((port) => ({ address: '127.0.0.1' as Ip, port, local: true })) }, masquerade: 'always' },
  ],
  affinity: undefined,
  scheduler: undefined,
})
const table = (...fronts: readonly Front[]): ServiceTable => ({ fronts: new Map(fronts.map((f, i) => [`f${i}`, f])), node: {} as NodeFacts })

function ask(port: number): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    const socket = connect(port, '127.0.0.1')
    socket.on('data', (b) => (text += b.toString()))
    socket.on('end', () => resolve(text))
    socket.on('error', (e: NodeJS.ErrnoException) => resolve(e.code ?? 'error'))
  })
}

test('NodePorts answer on loopback: TCP, UDP, and not when nobody serves them', async (t) => {
  const server = createServer((s) => s.end('hello'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const echo = createSocket('udp4')
  echo.on('message', (m, from) => echo.send(m, from.port, from.address))
  await new Promise<void>((resolve) => echo.bind(0, '127.0.0.1', resolve))
  const nodePort = 31_000 + (process.pid % 900)
  const [tcp, udp] = [(server.address() as AddressInfo).port, echo.address().port]
  const localhost = new LocalhostNodePorts(openNode())
  t.teardown(async () => {
    await localhost.close()
    server.close()
    echo.close()
  })
  t.same(await localhost.apply(table(front('TCP', nodePort, [1, tcp]), front('UDP', nodePort, [udp]))), [])
  t.equal(await ask(nodePort), 'hello', 'an endpoint that refuses is passed over')
  const answer = await new Promise<string>((resolve) => {
    const s = createSocket('udp4')
    s.on('message', (m) => {
      s.close()
      resolve(m.toString())
    })
    s.send('ping', nodePort, '127.0.0.1')
  })
  t.equal(answer, 'ping')
  t.same(await localhost.apply(table(front('TCP', nodePort, []))), [])
  t.equal(await ask(nodePort), 'ECONNREFUSED', 'nobody serves it, nobody listens')
  t.match(await localhost.apply(table(front('TCP', tcp, [tcp]))), [{ object: 'Service demo/web:', reason: /on loopback: / }], 'a port that is taken is told')
})
