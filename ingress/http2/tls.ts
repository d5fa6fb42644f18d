import { createSecureContext, TLSSocket, type SecureContext } from 'node:tls'
import type { Address, Protocol, TlsInfo, TlsServerIdentity, Wire } from '../../lib/sockets/seam.ts'
import { WireDuplex } from './duplex.ts'

const contexts = new WeakMap<TlsServerIdentity, SecureContext>()

function contextOf(identity: TlsServerIdentity): SecureContext {
  let context = contexts.get(identity)
  if (context === undefined) {
    context = createSecureContext({ cert: identity.cert, key: identity.key, minVersion: identity.minVersion ?? 'TLSv1.2', ...(identity.clientCa === undefined ? {} : { ca: identity.clientCa }) })
    contexts.set(identity, context)
  }
  return context
}

/** Milliseconds for a handshake. */
const handshakeTimeout = 10_000

/**
 * TLS towards a client over any wire, for connections whose first bytes were read by us: behind the PROXY protocol, or where some names are passed
 * through. Everywhere else the drivers do it themselves.
 */
export class TlsOver implements Protocol {
  readonly #identity: TlsServerIdentity
  readonly #alpn: readonly string[]
  readonly #inner: Protocol
  #duplex: WireDuplex | undefined

  constructor(identity: TlsServerIdentity, alpn: readonly string[], inner: Protocol) {
    this.#identity = identity
    this.#alpn = alpn
    this.#inner = inner
  }

  opened(w: Wire): void {
    const duplex = new WireDuplex(w)
    this.#duplex = duplex
    const { clientCa, clientCertificate } = this.#identity
    const socket = new TLSSocket(duplex as never, {
      isServer: true,
      secureContext: contextOf(this.#identity),
      ALPNProtocols: [...this.#alpn],
      requestCert: clientCa !== undefined,
      rejectUnauthorized: clientCertificate === 'require',
    })
    const wire = new SecureWire(socket, w, this.#inner)
    const timer = setTimeout(() => duplex.destroy(), handshakeTimeout).unref()
    socket.once('close', () => clearTimeout(timer))
    socket.on('error', () => duplex.destroy())
    socket.once('secure', () => {
      clearTimeout(timer)
      // With a TLSSocket of one's own nobody else looks at what was verified.
      const verified = clientCa === undefined || (socket as TLSSocket & { readonly ssl: { verifyError(): Error | null } }).ssl.verifyError() === null
      if (clientCertificate === 'require' && (!verified || socket.getPeerCertificate().raw === undefined)) return void duplex.destroy()
      wire.established(verified)
    })
  }
  data(b: Buffer, from: number, to: number): void {
    this.#duplex?.protocol.data(b, from, to)
  }
  drain(): void {
    this.#duplex?.protocol.drain()
  }
  eof(): void {
    this.#duplex?.protocol.eof()
  }
  closed(why: string): void {
    this.#duplex?.protocol.closed(why)
  }
}

/** What is inside TLS, as a wire. */
class SecureWire implements Wire {
  readonly #socket: TLSSocket
  readonly #outside: Wire
  readonly #inner: Protocol
  tls: TlsInfo | undefined
  #open = false
  #full = false

  constructor(socket: TLSSocket, outside: Wire, inner: Protocol) {
    this.#socket = socket
    this.#outside = outside
    this.#inner = inner
    socket.on('close', () => {
      if (this.#open) this.#inner.closed(socket.errored === null ? '' : `ECONNRESET: ${socket.errored.message}`)
    })
  }

  established(verified: boolean): void {
    const socket = this.#socket
    const name = (socket as TLSSocket & { readonly servername?: string | false }).servername
    this.tls = {
      serverName: typeof name === 'string' && name !== '' ? name : undefined,
      alpn: typeof socket.alpnProtocol === 'string' ? socket.alpnProtocol : undefined,
      version: socket.getProtocol() ?? '',
      peerCertificate: verified ? socket.getPeerCertificate().raw : undefined,
    }
    this.#open = true
    this.#inner.opened(this)
    socket.on('data', (piece: Buffer) => this.#inner.data(Buffer.from(piece), 0, piece.length))
    socket.on('end', () => this.#inner.eof())
    socket.on('drain', () => {
      if (!this.#full) return
      this.#full = false
      this.#inner.drain()
    })
  }

  get peer(): string {
    return this.#outside.peer
  }
  get peerPort(): number {
    return this.#outside.peerPort
  }
  get local(): Address {
    return this.#outside.local
  }
  get alive(): boolean {
    return !this.#socket.destroyed && this.#outside.alive
  }
  write(b: Buffer, from: number, to: number): boolean {
    if (!this.alive || this.#socket.writableEnded) return false
    const flowing = this.#socket.write(Buffer.from(b.subarray(from, to)))
    if (!flowing) this.#full = true
    return flowing
  }
  pause(): void {
    this.#socket.pause()
  }
  resume(): void {
    this.#socket.resume()
  }
  end(): void {
    this.#socket.end()
  }
  abort(): void {
    this.#socket.destroy()
    this.#outside.abort()
  }
}
