// One end of the packets of flows: run in each namespace, it answers on the ports it is told and connects where it is told.
// Arguments: NAME TCPPORT,… UDPPORT,…; orders on stdin, answers on stdout, one JSON value a line.
import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { createInterface } from 'node:readline'

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

const [name = '', tcp = '', udp = ''] = process.argv.slice(2)
const numbers = (list: string): number[] => list.split(',').filter(Boolean).map(Number)
const bare = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '')
const say = (o: Outcome): void => void process.stdout.write(`${JSON.stringify(o)}\n`)

const ready: Promise<void>[] = []
for (const port of numbers(tcp)) {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.end(JSON.stringify({ name, port, peer: bare(socket.remoteAddress) }))
  })
  ready.push(new Promise((resolve) => server.listen(port, '::', resolve)))
}
for (const port of numbers(udp)) {
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
process.stdout.write('"ready"\n')
createInterface({ input: process.stdin })
  .on('line', (line) => {
    const order = JSON.parse(line) as Order
    if (order.protocol === 'tcp') overTcp(order)
    else overUdp(order)
  })
  .on('close', () => process.exit(0))
