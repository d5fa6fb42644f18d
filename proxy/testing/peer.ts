// One end of the packets of flows: a thread in its namespace, which answers on the ports it is told and connects where it is told.
import { createSocket } from 'node:dgram'
import { openSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { CLONE_NEWNET } from '../../linux/ffi/constants.ts'
import { checked } from '../../linux/ffi/errno.ts'
import { syscalls } from '../../linux/ffi/ffi.ts'

/** What a peer is told at its start. */
export interface PeerData {
  readonly name: string
  /** A file; left out: where the process is. */
  readonly namespace: string | undefined
  readonly tcp: readonly number[]
  readonly udp: readonly number[]
}

/** An order to connect, and what came of it. */
export interface Order {
  readonly id: number
  readonly protocol: 'tcp' | 'udp'
  readonly host: string
  readonly port: number
  /** Milliseconds without an answer that count as dropped. */
  readonly timeout: number
}
export interface Outcome {
  readonly id: number
  readonly kind: 'answered' | 'refused' | 'silence' | 'error'
  /** Who answered, from which address and port, and whom it saw. */
  readonly by?: { readonly name: string; readonly port: number; readonly peer: string }
  readonly error?: string
}

const { name, namespace, tcp, udp } = workerData as PeerData
// A thread's namespace is its own, and so are the sockets it makes.
if (namespace !== undefined) checked(`setns ${namespace}`, syscalls().setns(openSync(namespace, 'r'), CLONE_NEWNET))
const bare = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '')
const port = parentPort!
const say = (message: Outcome | 'ready'): void => port.postMessage(message)

const ready: Promise<void>[] = []
for (const port of tcp) {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.end(JSON.stringify({ name, port, peer: bare(socket.remoteAddress) }))
  })
  ready.push(new Promise((resolve) => server.listen(port, '::', resolve)))
}
for (const port of udp) {
  for (const type of ['udp4', 'udp6'] as const) {
    const socket = createSocket(type === 'udp6' ? { type, ipv6Only: true } : { type })
    socket.on('message', (_, from) => socket.send(JSON.stringify({ name, port, peer: from.address }), from.port, from.address))
    ready.push(new Promise((resolve) => socket.bind(port, resolve)))
  }
}

function overTcp({ id, host, port, timeout }: Order): void {
  const socket = connect({ host, port })
  let text = ''
  let done = false
  const end = (o: Omit<Outcome, 'id'>): void => {
    if (done) return
    done = true
    clearTimeout(timer)
    socket.destroy()
    say({ id, ...o })
  }
  const timer = setTimeout(() => end({ kind: 'silence' }), timeout)
  socket.on('data', (b) => (text += b.toString()))
  socket.on('end', () => end(text === '' ? { kind: 'refused', error: 'closed without a word' } : { kind: 'answered', by: JSON.parse(text) }))
  socket.on('error', (e: NodeJS.ErrnoException) => end(e.code === 'ECONNREFUSED' || e.code === 'ECONNRESET' ? { kind: 'refused' } : { kind: 'error', error: e.code ?? e.message }))
}

function overUdp({ id, host, port, timeout }: Order): void {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4')
  let done = false
  const end = (o: Omit<Outcome, 'id'>): void => {
    if (done) return
    done = true
    clearTimeout(timer)
    clearInterval(again)
    socket.close()
    say({ id, ...o })
  }
  const timer = setTimeout(() => end({ kind: 'silence' }), timeout)
  // As TCP does: one datagram, or one refusal by ICMP, that is lost under load says nothing.
  const again = setInterval(() => connected && !done && socket.send('?'), 1000)
  let connected = false
  socket.on('message', (m) => end({ kind: 'answered', by: JSON.parse(m.toString()) }))
  socket.on('error', (e: NodeJS.ErrnoException) => end(e.code === 'ECONNREFUSED' ? { kind: 'refused' } : { kind: 'error', error: e.code ?? e.message }))
  // Connected, so that a refusal by ICMP is told.
  socket.connect(port, host, () => {
    connected = true
    socket.send('?')
  })
}

await Promise.all(ready)
say('ready')
port.on('message', (order: Order) => (order.protocol === 'tcp' ? overTcp(order) : overUdp(order)))
