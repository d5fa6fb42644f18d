import { createHash } from 'node:crypto'
import type net from 'node:net'
import tls from 'node:tls'
import { alertRecord, readClientHello } from '../clienthello.ts'
import type { TlsClient, TlsInfo, TlsServer, TlsServerIdentity } from '../seam.ts'

/** Milliseconds a client has for its handshake. */
const handshakeTimeout = 10_000
/** Contexts kept for identities that come as new objects each time. */
const mostContexts = 1024

/**
 * Shakes hands on a connection just accepted and gives on the secured socket. The ClientHello is read first, since everything else may depend on
 * the name in it: certificate, CAs for clients, lowest version. What fails ends with an alert and is told to nobody.
 */
export function acceptTls(socket: net.Socket, how: TlsServer, done: (secure: tls.TLSSocket) => void): void {
  let hello: Buffer | undefined
  const timer = setTimeout(() => socket.destroy(), handshakeTimeout)
  const over = (): void => clearTimeout(timer)
  socket.once('close', over)
  const refuse = (alert: number): void => {
    socket.off('data', read)
    socket.end(alertRecord(alert), () => socket.destroySoon())
  }
  const read = (chunk: Buffer): void => {
    hello = hello === undefined ? chunk : Buffer.concat([hello, chunk])
    const said = readClientHello(hello, 0, hello.length)
    if (said === 'more') return
    if (said === 'bad') return refuse(50)
    const identity = how.identity(said.serverName)
    if (identity === undefined) return refuse(112)
    let server: tls.Server
    try {
      server = serverFor(identity, how.alpn)
    } catch {
      return refuse(80)
    }
    socket.off('data', read)
    socket.pause()
    socket.unshift(hello)
    hello = undefined
    waiting.set(socket, (secure) => {
      over()
      socket.off('close', over)
      done(secure)
    })
    // A client that goes away during the handshake ends it; half-closing is for afterwards.
    socket.allowHalfOpen = false
    server.emit('connection', socket)
  }
  socket.on('data', read)
  socket.on('end', () => socket.destroySoon())
}

/** Which raw connection waits for which continuation; the tls.Server tells only the secured one, whose `_parent` is Node's own. */
const waiting = new WeakMap<net.Socket, (secure: tls.TLSSocket) => void>()

type Wrapped = tls.TLSSocket & { readonly _parent?: net.Socket }

const byObject = new WeakMap<TlsServerIdentity, Map<string, tls.Server>>()
const byText = new Map<string, tls.Server>()

/** A TLS server that never listens: connections are given to it. It keeps the context and the keys of its tickets. */
function serverFor(identity: TlsServerIdentity, alpn: readonly string[] = []): tls.Server {
  const protocols = alpn.join()
  const known = byObject.get(identity)?.get(protocols)
  if (known !== undefined) return known
  const text = createHash('sha256')
    .update(JSON.stringify([identity.cert, identity.key, identity.clientCa, identity.clientCertificate, identity.minVersion, alpn]))
    .digest('base64')
  let server = byText.get(text)
  if (server === undefined) {
    server = tls.createServer({
      cert: identity.cert,
      key: identity.key,
      minVersion: identity.minVersion ?? 'TLSv1.2',
      handshakeTimeout,
      ...(identity.clientCa === undefined ? {} : { ca: identity.clientCa, requestCert: true, rejectUnauthorized: identity.clientCertificate === 'require' }),
      ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
    })
    // Destroying the secured socket leaves the one below open when that may be half open.
    server.on('tlsClientError', (_error, secure) => void (secure as Wrapped)._parent?.destroy())
    server.on('secureConnection', (secure) => {
      const raw = (secure as Wrapped)._parent
      const next = raw === undefined ? undefined : waiting.get(raw)
      if (raw === undefined || next === undefined) return void secure.destroy()
      secure.once('close', () => raw.destroy())
      secure.allowHalfOpen = true
      next(secure)
    })
    if (byText.size >= mostContexts) for (const [key] of byText) if (byText.delete(key)) break
    byText.set(text, server)
  }
  const all = byObject.get(identity) ?? new Map<string, tls.Server>()
  byObject.set(identity, all.set(protocols, server))
  return server
}

/** What `tls.connect` needs to know. */
export function clientOptions(how: TlsClient, host: string): tls.ConnectionOptions {
  return {
    host,
    // A name, never an address: RFC 6066 forbids addresses in SNI.
    ...(how.serverName === undefined || /^[\d.]+$|:/.test(how.serverName) ? {} : { servername: how.serverName }),
    ...(how.ca === undefined ? {} : { ca: how.ca }),
    ...(how.identity === undefined ? {} : { cert: how.identity.cert, key: how.identity.key }),
    rejectUnauthorized: how.verify !== false,
    ...(how.alpn === undefined || how.alpn.length === 0 ? {} : { ALPNProtocols: [...how.alpn] }),
    ...(how.groups === undefined ? {} : { ecdhCurve: how.groups }),
    minVersion: 'TLSv1.2',
  }
}

/** What the handshake told. */
export function tlsInfo(socket: tls.TLSSocket): TlsInfo {
  const name = (socket as tls.TLSSocket & { readonly servername?: string | false }).servername
  const certificate = socket.authorized ? socket.getPeerCertificate() : undefined
  return {
    serverName: typeof name === 'string' && name !== '' ? name : undefined,
    alpn: typeof socket.alpnProtocol === 'string' ? socket.alpnProtocol : undefined,
    version: socket.getProtocol() ?? '',
    peerCertificate: certificate?.raw,
  }
}

/** The CAs that Node trusts, PEM. */
export const rootCertificates: readonly string[] = tls.rootCertificates
