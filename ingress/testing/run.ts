import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { FakeApi } from '../../kube/testing/api.ts'
import { command } from '../main.ts'

/** Where it serves, and how it ends. */
export interface Running {
  readonly http: number
  readonly https: number
  readonly others: readonly { http?: string }[]
  readonly status: number
  end(): Promise<void>
}

/** Runs `switchyard ingress` in this process until `end`. */
export async function start(api: FakeApi, ...more: string[]): Promise<Running> {
  for (let tries = 0; ; tries++) {
    try {
      return await startOnce(api, more)
    } catch (error) {
      // Somebody else took the port of the status in the meantime.
      if (tries === 5 || !String((error as Error).message).includes('EADDRINUSE')) throw error
    }
  }
}

async function startOnce(api: FakeApi, more: readonly string[]): Promise<Running> {
  const ending = new AbortController()
  const lines: string[] = []
  const write = process.stderr.write.bind(process.stderr)
  let ready!: (line: Record<string, string>) => void
  const isReady = new Promise<Record<string, string>>((resolve) => (ready = resolve))
  process.stderr.write = ((text: string) => {
    for (const line of text.split('\n')) {
      if (!line.startsWith('{')) continue
      lines.push(line)
      const told = JSON.parse(line) as Record<string, string>
      if (told.message === 'ready') ready(told)
    }
    return true
  }) as typeof process.stderr.write
  const probe = http.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => probe.once('listening', resolve))
  const status = (probe.address() as AddressInfo).port
  await new Promise((resolve) => probe.close(resolve))
  const run = command.run!(
    [
      '--kubeconfig',
      api.kubeconfig(),
      '--http',
      '127.0.0.1:0',
      '--https',
      '127.0.0.1:0',
      '--status',
      `127.0.0.1:${status}`,
      '--sockets',
      process.env.SOCKETS ?? 'node',
      '--access-log-path',
      '/dev/null',
      ...more,
    ],
    { signal: ending.signal, out: () => {}, err: () => {} },
  )
  const told = await Promise.race([isReady, run.then(() => Promise.reject(new Error(`ended: ${lines.join('\n')}`)))])
  const port = (text: string | undefined): number => Number(text?.slice(text.lastIndexOf(':') + 1))
  return {
    http: port(told.http),
    https: port(told.https),
    others: (told.others ?? []) as unknown as { http?: string }[],
    status,
    end: async () => {
      ending.abort()
      await run
      process.stderr.write = write
    },
  }
}

/** A backend that answers its name. */
export async function backend(name: string): Promise<{ port: number; server: http.Server; close(): void }> {
  const server = http.createServer((request, response) => response.end(`${name} ${request.method} ${request.url} ${request.headers['x-forwarded-proto']}`))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { port: (server.address() as AddressInfo).port, server, close: () => (server.closeAllConnections(), server.close()) }
}

/** `STATUS BODY` of an answer. */
export async function ask(how: http.RequestOptions & { ca?: string; servername?: string }, host: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = (how.ca === undefined ? http : https).request({ host: '127.0.0.1', ...how, path, headers: { host } }, (response) => {
      let text = ''
      response.on('data', (piece: Buffer) => (text += piece.toString()))
      response.on('end', () => resolve(`${response.statusCode} ${text.trim()}`))
    })
    request.on('error', reject)
    request.end()
  })
}

/** Resolves once `holds` does. */
export async function until(claim: () => Promise<boolean>, ms = 60_000): Promise<void> {
  const end = Date.now() + ms
  while (!(await claim())) {
    if (Date.now() > end) throw new Error('did not happen')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** HTTP servers at the same port of several addresses, for one EndpointSlice has one port. */
export async function onOnePort(
  hosts: readonly string[],
  answer: (host: string, request: http.IncomingMessage, response: http.ServerResponse) => void,
): Promise<{ port: number; servers: readonly http.Server[]; close(): void }> {
  for (let tries = 0; ; tries++) {
    const servers: http.Server[] = []
    const close = (): void => {
      for (const s of servers) {
        s.closeAllConnections()
        s.close()
      }
    }
    try {
      let port = 0
      for (const host of hosts) {
        const server = http.createServer((request, response) => answer(host, request, response))
        await new Promise<void>((resolve, reject) => void server.listen(port, host, resolve).once('error', reject))
        servers.push(server)
        ;({ port } = server.address() as AddressInfo)
      }
      return { port, servers, close }
    } catch (error) {
      close()
      if (tries === 20) throw error
    }
  }
}
