import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'tap'
import type { Probe } from '../../kube/objects.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { runProbe, tryProbe, type ProbeTarget } from './probe.ts'

let code = 200
const server = createServer((request, response) => response.writeHead(request.headers['x-want'] === undefined ? code : 299).end())
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
server.unref()
const { port } = server.address() as AddressInfo
const target: ProbeTarget = {
  container: { name: 'main', ports: [{ name: 'http', containerPort: port }] },
  address: '127.0.0.1',
  exec: async ([word]) => ({ code: word === 'true' ? 0 : 1, output: 'no\n' }),
}

test('each kind of probe says why it fails', async (t) => {
  const rows: readonly [string, Probe, string | RegExp | undefined][] = [
    ['httpGet by port name', { httpGet: { port: 'http' } }, undefined],
    ['httpGet that fails', { httpGet: { port, path: '/x' } }, 'HTTP probe failed with statuscode: 503'],
    ['httpGet with headers', { httpGet: { port, httpHeaders: [{ name: 'X-Want', value: '1' }] } }, undefined],
    ['a port nobody named', { httpGet: { port: 'none' } }, 'container "main" has no port called "none"'],
    ['tcpSocket', { tcpSocket: { port } }, undefined],
    ['tcpSocket to nobody', { tcpSocket: { port: 1 } }, /ECONNREFUSED/],
    ['exec', { exec: { command: ['true'] } }, undefined],
    ['exec that fails', { exec: { command: ['false'] } }, 'exit status 1: no'],
    ['none', {}, /names none of/],
  ]
  for (const [name, probe, wanted] of rows) {
    code = name === 'httpGet that fails' ? 503 : 200
    const got = await tryProbe(probe, target, 1000)
    if (wanted === undefined || typeof wanted === 'string') t.equal(got, wanted, name)
    else t.match(got, wanted, name)
  }
})

test('readiness is known when it is, not a period later, and lost after the failures that are allowed', async (t) => {
  const told: (string | undefined)[] = []
  const ended = new AbortController()
  let ok = false
  const probe = { exec: { command: ['x'] }, periodSeconds: 0.05, failureThreshold: 2 }
  const running = runProbe('readiness', probe, { ...target, exec: async () => ({ code: ok ? 0 : 1, output: '' }) }, (failure) => told.push(failure), ended.signal)
  setTimeout(() => (ok = true), 20)
  while (!told.includes(undefined)) await sleep(5)
  ok = false
  const before = told.length
  while (told.length === before) await sleep(5)
  t.match(told.at(-1), /exit status 1/)
  ended.abort()
  await running
})
