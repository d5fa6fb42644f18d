import dgram from 'node:dgram'
import net from 'node:net'
import { decode, encode, type Message, type Rec } from '../wire/message.ts'
import { nameOf } from '../wire/name.ts'
import { Flag } from '../wire/types.ts'

/** What an upstream of the tests does with a question; undefined: nothing. */
export type Behaviour = (m: Message, protocol: 'udp' | 'tcp') => Partial<Reply> | undefined | Promise<Partial<Reply> | undefined>

export interface Reply {
  readonly rcode: number
  readonly answers: readonly Rec[]
  readonly authority: readonly Rec[]
  readonly additional: readonly Rec[]
  readonly truncated: boolean
  /** Octets sent before the answer. */
  readonly before: readonly ((question: Buffer) => Buffer)[]
  /** The answer comes from another port. */
  readonly elsewhere: boolean
}

/** A server of the tests that answers by UDP and TCP on one port. */
export interface Upstream {
  readonly port: number
  readonly asked: { readonly message: Message; readonly protocol: 'udp' | 'tcp'; readonly port: number }[]
  behave: Behaviour
  close(): Promise<void>
}

function bound(udp: dgram.Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    udp.once('error', reject).bind(0, '127.0.0.1', () => {
      // Whoever asked may be gone when its answer comes back.
      udp.removeAllListeners('error').on('error', () => {})
      resolve()
    })
  })
}

/** A port that is free for both transports: what is free for one may be taken for the other. */
async function bindBoth(): Promise<{ readonly udp: dgram.Socket; readonly tcp: net.Server }> {
  for (let tries = 0; ; tries++) {
    const udp = dgram.createSocket('udp4')
    const tcp = net.createServer()
    await bound(udp)
    const failed = await new Promise<Error | undefined>((r) => tcp.once('error', r).listen(udp.address().port, '127.0.0.1', () => r(undefined)))
    tcp.removeAllListeners('error')
    if (failed === undefined) return { udp, tcp }
    await new Promise<void>((r) => udp.close(r))
    if (tries > 20) throw failed
  }
}

/** Starts one on loopback. */
export async function upstream(behave: Behaviour): Promise<Upstream> {
  const asked: Upstream['asked'] = []
  const { udp, tcp } = await bindBoth()
  const other = dgram.createSocket('udp4')
  await bound(other)
  const { port } = udp.address()
  let closing: Promise<void> | undefined
  const close = async (): Promise<void> => {
    for (const s of sockets) s.destroy()
    await Promise.all([udp, other, tcp].map((s) => new Promise<void>((r) => s.close(() => r()))))
  }
  const self: Upstream = {
    port,
    asked,
    behave,
    close: () => (closing ??= close()),
  }
  udp.on('message', (b, from) => {
    const message = decode(b)
    asked.push({ message, protocol: 'udp', port: from.port })
    void Promise.resolve(self.behave(message, 'udp')).then((reply) => {
      // What was held back may come when nobody is there any more.
      if (reply === undefined || closing !== undefined) return
      for (const f of reply.before ?? []) udp.send(f(b), from.port, from.address)
      ;(reply.elsewhere === true ? other : udp).send(write(message, reply), from.port, from.address)
    })
  })
  const sockets = new Set<net.Socket>()
  tcp.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    let rest: Buffer = Buffer.alloc(0)
    socket.on('data', (b) => {
      rest = Buffer.concat([rest, b])
      while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
        const message = decode(rest, 2, 2 + rest.readUInt16BE(0))
        rest = rest.subarray(2 + rest.readUInt16BE(0))
        asked.push({ message, protocol: 'tcp', port: socket.remotePort ?? 0 })
        void Promise.resolve(self.behave(message, 'tcp')).then((reply) => {
          if (reply === undefined || socket.destroyed) return
          const out = write(message, reply)
          socket.write(Buffer.concat([Buffer.from([out.length >> 8, out.length & 255]), out]))
        })
      }
    })
  })
  return self
}

function write(m: Message, reply: Partial<Reply>): Buffer {
  const b = Buffer.alloc(65_600)
  const end = encode(
    {
      id: m.id,
      flags: Flag.QR | Flag.RD | Flag.RA | (reply.truncated === true ? Flag.TC : 0),
      rcode: reply.rcode ?? 0,
      question: m.questions[0],
      answers: reply.answers ?? [],
      authority: reply.authority ?? [],
      additional: reply.additional ?? [],
      edns: { size: 1232, dnssec: false },
    },
    b,
  )
  return Buffer.from(b.subarray(0, end))
}

/** An A record. */
export const a = (name: string, address: string, ttl = 60): Rec => ({ name: nameOf(name), type: 1, class: 1, ttl, data: String.fromCharCode(...address.split('.').map(Number)) })
export const cname = (name: string, target: string, ttl = 60): Rec => ({ name: nameOf(name), type: 5, class: 1, ttl, data: nameOf(target) })
