// @peculiar/x509 needs it before itself.
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { X509CertificateGenerator } from '@peculiar/x509'

/** A certificate that this node signs for itself, kept in `BASE.crt` and `BASE.key`. */
export async function selfSigned(base: string): Promise<{ readonly cert: string; readonly key: string }> {
  const files = { cert: `${base}.crt`, key: `${base}.key` }
  if (!existsSync(files.cert) || !existsSync(files.key)) {
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
    const crypto = webcrypto as unknown as Parameters<typeof X509CertificateGenerator.createSelfSigned>[1] & typeof webcrypto
    const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
    const day = 86_400_000
    const cert = await X509CertificateGenerator.createSelfSigned(
      { name: 'CN=switchyard-agent', notBefore: new Date(Date.now() - day), notAfter: new Date(Date.now() + 3650 * day), keys, signingAlgorithm: algorithm },
      crypto,
    )
    const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64')
    writeFileSync(files.key, `-----BEGIN PRIVATE KEY-----\n${der.replace(/(.{64})/g, '$1\n').trimEnd()}\n-----END PRIVATE KEY-----\n`, { mode: 0o600 })
    writeFileSync(files.cert, `${cert.toString('pem')}\n`)
  }
  return { cert: readFileSync(files.cert, 'utf8'), key: readFileSync(files.key, 'utf8') }
}
