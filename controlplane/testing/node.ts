// For tests: a node whose agent runs what `kubectl exec` asks for, on this machine.
import { spawn } from 'node:child_process'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { WebSocketServer } from 'ws'
import { authority } from '../identity/ca.ts'

/** Listens as an agent does, under a certificate of the authority in `data`; `port` is where. */
export async function fakeAgent(data: string): Promise<{ readonly port: number; close(): void }> {
  const ca = await authority(data)
  const pair = await ca.serving(['127.0.0.1'])
  const server = createServer({ cert: pair.certificate, key: pair.key, ca: ca.certificate, requestCert: true, rejectUnauthorized: true })
  const sockets = new WebSocketServer({ server, handleProtocols: (offered) => [...offered][0] ?? false })
  sockets.on('connection', (wire, request) => {
    const [program, ...words] = new URL(request.url!, 'https://node').searchParams.getAll('command')
    const child = spawn(program!, words)
    const say = (channel: number) => (bytes: Buffer) => wire.send(Buffer.concat([Buffer.of(channel), bytes]))
    child.stdout.on('data', say(1))
    child.stderr.on('data', say(2))
    wire.on('message', (bytes: Buffer) => {
      if (bytes[0] === 0) child.stdin.write(bytes.subarray(1))
      else if (bytes[0] === 255) child.stdin.end()
    })
    child.once('close', (code) => {
      const details = { causes: [{ reason: 'ExitCode', message: String(code) }] }
      say(3)(Buffer.from(JSON.stringify(code === 0 ? { metadata: {}, status: 'Success' } : { metadata: {}, status: 'Failure', reason: 'NonZeroExitCode', message: `exit status ${code}`, details })))
      wire.close(1000)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      for (const s of sockets.clients) s.terminate()
      server.close()
      server.closeAllConnections()
    },
  }
}
