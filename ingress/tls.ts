import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import type { TlsServerIdentity } from '../lib/sockets/seam.ts'
import { certificateFor } from './match.ts'
import type { Certificate, ClientAuth, RouteTable } from './table.ts'

const withClients = new WeakMap<Certificate, Map<ClientAuth, TlsServerIdentity>>()

/** What is shown to a client that asks for `name`, and what it is asked for; the same object as long as nothing of it changes. */
export function identityFor(table: RouteTable, name: string | undefined, fallback: Certificate | undefined): TlsServerIdentity | undefined {
  const certificate = certificateFor(table.certificates, name) ?? fallback
  const auth = name === undefined ? undefined : table.certificates.clients.get(name.toLowerCase())
  if (certificate === undefined || auth === undefined) return certificate
  let made = withClients.get(certificate)
  if (made === undefined) withClients.set(certificate, (made = new Map()))
  let identity = made.get(auth)
  if (identity === undefined) made.set(auth, (identity = { cert: certificate.cert, key: certificate.key, clientCa: auth.ca, clientCertificate: auth.mode }))
  return identity
}

/**
 * A certificate nobody should trust, for clients that name no host of ours: they get an answer instead of a broken handshake.
 * Written by hand (RFC 5280, 4.1): a library for this one would cost every controller twenty megabytes.
 */
export function placeholder(now = Date.now()): Certificate {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const names = ['switchyard-ingress.invalid']
  const notAfter = now + 10 * 365 * 86_400_000
  const algorithm = sequence(tagged(0x06, Buffer.from([0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02])))
  const name = sequence(tagged(0x31, sequence(tagged(0x06, Buffer.from([0x55, 0x04, 0x03])), tagged(0x0c, Buffer.from('Switchyard placeholder')))))
  const time = (ms: number): Buffer => tagged(0x18, Buffer.from(`${new Date(ms).toISOString().slice(0, 19).replace(/[-:T]/g, '')}Z`))
  const serial = randomBytes(16)
  serial[0] = (serial[0]! & 0x7f) | 1
  const alternatives = tagged(0x04, sequence(...names.map((n) => tagged(0x82, Buffer.from(n)))))
  const extensions = tagged(0xa3, sequence(sequence(tagged(0x06, Buffer.from([0x55, 0x1d, 0x11])), alternatives)))
  const body = sequence(
    tagged(0xa0, tagged(0x02, Buffer.from([2]))),
    tagged(0x02, serial),
    algorithm,
    name,
    sequence(time(now - 86_400_000), time(notAfter)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    extensions,
  )
  const der = sequence(body, algorithm, tagged(0x03, Buffer.concat([Buffer.of(0), sign('sha256', body, privateKey)])))
  const cert = `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`
  return { cert, key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, owner: 'placeholder', names, notAfter }
}

function tagged(tag: number, content: Buffer): Buffer {
  const n = content.length
  return Buffer.concat([Buffer.from(n < 128 ? [tag, n] : n < 256 ? [tag, 0x81, n] : [tag, 0x82, n >> 8, n & 255]), content])
}

function sequence(...parts: readonly Buffer[]): Buffer {
  return tagged(0x30, Buffer.concat(parts))
}
