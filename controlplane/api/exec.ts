import { request as httpsRequest } from 'node:https'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Json } from '../kinds/decode.ts'
import { pods } from '../kinds/pod.ts'
import { agentOf, named, type Helpers } from './subresources.ts'
import type { Call } from './rest.ts'
import { badRequest, Failure, internal } from './status.ts'

const protocol = /\bv[45]\.channel\.k8s\.io\b/

/** Who is asked to run the program: the Pod's container and its node's agent. */
async function target(
  h: Helpers,
  call: Pick<Call, 'namespace' | 'name'>,
  query: URLSearchParams,
): Promise<{ readonly container: string; readonly node: string; readonly host: string; readonly port: number }> {
  const pod = h.rest.entry(pods, call.namespace, call.name).object
  const containers = (pod['spec'].containers ?? []) as Json[]
  const all = [...containers, ...((pod['spec'].initContainers ?? []) as Json[])].map((c) => c['name'] as string)
  const asked = query.get('container') ?? ''
  if (asked !== '' && !all.includes(asked)) throw badRequest(`container ${asked} is not valid for pod ${call.name}`)
  if (asked === '' && containers.length > 1) throw badRequest(`a container name must be specified for pod ${call.name}, choose one of: [${containers.map((c) => c['name']).join(' ')}]`)
  const container: string = asked === '' ? containers[0]!['name'] : asked
  const { host, port } = await agentOf(h, call, pod)
  const state = ((pod['status'].containerStatuses ?? []) as Json[]).find((c) => c['name'] === container)?.['state']
  // Said here, because kubectl asks again by the older protocol when the agent says it, and shows only what it hears then.
  if (state !== undefined && state.running === undefined)
    throw badRequest(`container ${container} of pod ${call.name} is not running: ${state.waiting?.message ?? state.waiting?.reason ?? state.terminated?.reason ?? 'waiting'}`)
  if (query.getAll('command').length === 0) throw badRequest('you must specify at least 1 command for the container')
  return { container, node: pod['spec'].nodeName, host, port }
}

/** `pods/exec` without a connection that can carry it. */
export async function refuseExec(h: Helpers, call: Pick<Call, 'namespace' | 'name'>, query: URLSearchParams): Promise<never> {
  await target(h, call, query)
  throw badRequest('Upgrade request required')
}

/** `pods/exec` over WebSocket: the client's connection is joined with one to the agent, which speaks the protocol. */
export async function exec(h: Helpers, call: Pick<Call, 'namespace' | 'name'> & { readonly query: URLSearchParams }, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  const { container, node, host, port } = await target(h, call, call.query)
  if (!/^websocket$/i.test(request.headers.upgrade ?? ''))
    throw badRequest(`exec is served over WebSocket (v5.channel.k8s.io), which kubectl 1.30 and newer speak, not over ${request.headers.upgrade ?? ''}`)
  if (!protocol.test(request.headers['sec-websocket-protocol'] ?? '')) throw badRequest('exec over WebSocket expects the subprotocol v5.channel.k8s.io or v4.channel.k8s.io')
  const query = new URLSearchParams(call.query)
  query.delete('container')
  const path = `/exec/${[call.namespace ?? '', call.name, container].map(encodeURIComponent).join('/')}?${query}`
  const pair = await h.agentClient()
  const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => name.startsWith('sec-websocket-')))
  await new Promise<void>((resolve, reject) => {
    const out = httpsRequest({
      host,
      port,
      path,
      headers: { ...headers, connection: 'Upgrade', upgrade: 'websocket' },
      cert: pair.certificate,
      key: pair.key,
      ca: h.ca,
      agent: false,
      checkServerIdentity: (_name, certificate) => named(certificate.raw, node, host),
    })
    const gone = (): void => void out.destroy()
    socket.once('close', gone)
    out.on('upgrade', (answer, wire, first) => {
      socket.off('close', gone)
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${String(value)}\r\n`)
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`)
      socket.write(first)
      wire.write(head)
      for (const [a, b] of [
        [socket, wire],
        [wire, socket],
      ] as const) {
        a.pipe(b)
        a.on('error', () => b.destroy())
        a.on('close', () => b.destroy())
      }
      resolve()
    })
    out.on('response', (answer) => {
      let text = ''
      answer.on('data', (part: Buffer) => (text += part.toString()))
      answer.on('end', () =>
        reject(answer.statusCode === 404 ? new Failure(404, 'NotFound', text.trim(), {}) : answer.statusCode === 400 ? badRequest(text.trim()) : internal(`error dialing backend: ${text.trim()}`)),
      )
    })
    out.on('error', (error) => reject(internal(`error dialing backend: ${error.message}`)))
    out.end()
  })
}
