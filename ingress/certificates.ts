import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { Secret } from '../kube/objects.ts'
import type { Certificate } from './table.ts'

const certificates = new WeakMap<Secret, Certificate | string>()

/** The certificate of a `kubernetes.io/tls` Secret, or what is wrong with it. */
export function certificateOf(secret: Secret | undefined, name: string): Certificate | string {
  if (secret === undefined) return `Secret ${name} does not exist`
  let made = certificates.get(secret)
  if (made === undefined) certificates.set(secret, (made = readCertificate(secret, name)))
  return made
}

function readCertificate(secret: Secret, name: string): Certificate | string {
  const crt = secret.data?.['tls.crt']
  const key = secret.data?.['tls.key']
  if (crt === undefined || key === undefined) return `Secret ${name} lacks ${crt === undefined ? 'tls.crt' : 'tls.key'}`
  try {
    const cert = Buffer.from(crt, 'base64').toString()
    const pem = Buffer.from(key, 'base64').toString()
    const x509 = new X509Certificate(cert)
    if (!x509.checkPrivateKey(createPrivateKey(pem))) return `Secret ${name}: the key does not belong to the certificate`
    const names = (x509.subjectAltName ?? '').split(', ').flatMap((n) => (n.startsWith('DNS:') ? [n.slice(4).toLowerCase()] : []))
    return { cert, key: pem, owner: name, names, notAfter: Date.parse(x509.validTo) }
  } catch (error) {
    return `Secret ${name} cannot be used: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** Whether a certificate for `names` is good for `host`. */
export function covers(names: readonly string[], host: string): boolean {
  return names.includes(host) || names.includes(`*.${host.slice(host.indexOf('.') + 1)}`)
}
