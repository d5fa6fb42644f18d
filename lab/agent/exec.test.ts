import { spawn, type ChildProcess } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type Test } from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { carry, protocols } from './exec.ts'

interface Session {
  readonly wire: WebSocket
  readonly child: ChildProcess
  /** What came on a channel so far. */
  said(channel: number): Buffer
  readonly closed: Promise<void>
}

/** A program at the other end of a WebSocket. */
async function session(t: Test, argv: readonly string[], how = { stdin: true, stdout: true, stderr: true, tty: false }): Promise<Session> {
  let child!: ChildProcess
  const server: Server = createServer()
  const sockets = new WebSocketServer({ server })
  // Nobody may be late for its first words: a program that has ended is not heard any more.
  sockets.on('connection', (at) => carry(at, (child = spawn(argv[0]!, argv.slice(1), { detached: true })), how))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const wire = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, [...protocols])
  const parts = new Map<number, Buffer[]>()
  wire.on('message', (data: Buffer) => parts.set(data[0]!, [...(parts.get(data[0]!) ?? []), data.subarray(1)]))
  const closed = new Promise<void>((resolve) => wire.once('close', () => resolve()))
  await new Promise((resolve, reject) => wire.once('open', resolve).once('error', reject))
  t.teardown(() => {
    wire.terminate()
    sockets.close()
    server.close()
  })
  // The first message says that the program runs.
  while (parts.size === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  return { wire, child, said: (channel) => Buffer.concat(parts.get(channel) ?? []), closed }
}

const status = (s: Session): any => JSON.parse(s.said(3).toString())

test('output and errors come on their channels, the end as a Status', async (t) => {
  const s = await session(t, ['sh', '-c', 'echo out; echo err >&2; exit 3'])
  await s.closed
  t.equal(s.said(1).toString(), 'out\n')
  t.equal(s.said(2).toString(), 'err\n')
  t.match(status(s), { status: 'Failure', reason: 'NonZeroExitCode', details: { causes: [{ reason: 'ExitCode', message: '3' }] } })
})

test('input goes in whole, and ends when the client says so', async (t) => {
  const s = await session(t, ['cat'])
  const bytes = Buffer.alloc(3_000_000, 'abcdefg')
  for (let at = 0; at < bytes.length; at += 32_768) s.wire.send(Buffer.concat([Buffer.of(0), bytes.subarray(at, at + 32_768)]))
  s.wire.send(Buffer.of(255, 0))
  await s.closed
  t.ok(s.said(1).equals(bytes), 'what went in came out')
  t.same(status(s), { metadata: {}, status: 'Success' })
})

test('nobody who was not asked for is heard', async (t) => {
  const s = await session(t, ['sh', '-c', 'cat; echo out; echo err >&2'], { stdin: false, stdout: true, stderr: false, tty: false })
  await s.closed
  t.equal(s.said(1).toString(), 'out\n', 'without input there is nothing to wait for')
  t.equal(s.said(2).length, 0)
})

test('the program and what it started end when the client goes', async (t) => {
  const s = await session(t, ['sh', '-c', 'sleep 1000 & sleep 1000'])
  const ended = new Promise((resolve) => s.child.once('close', resolve))
  s.wire.terminate()
  await ended
  t.equal(s.child.signalCode, 'SIGKILL')
})
