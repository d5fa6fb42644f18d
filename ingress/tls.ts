import { webcrypto } from 'node:crypto'
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

/** A certificate nobody should trust, for clients that name no host of ours: they get an answer instead of a broken handshake. */
export async function placeholder(): Promise<Certificate> {
  const x509 = await import('@peculiar/x509')
  x509.cryptoProvider.set(webcrypto as never)
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const notAfter = new Date(Date.now() + 10 * 365 * 86_400_000)
  const names = ['switchyard-ingress.invalid']
  const cert = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name: 'CN=Switchyard placeholder',
    notBefore: new Date(Date.now() - 86_400_000),
    notAfter,
    signingAlgorithm: algorithm,
    keys: keys as never,
    extensions: [new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns' as const, value })))],
  })
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', (keys as { privateKey: webcrypto.CryptoKey }).privateKey)).toString('base64')
  return { cert: cert.toString('pem'), key: `-----BEGIN PRIVATE KEY-----\n${key.replace(/.{64}/g, '$&\n')}\n-----END PRIVATE KEY-----\n`, owner: 'placeholder', names, notAfter: notAfter.getTime() }
}
