import { createHash, X509Certificate } from 'node:crypto'

const sha256 = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex')

/** `sha256:HEX` of a certificate's public key (SPKI, DER): the form of kubeadm's `--discovery-token-ca-cert-hash`. */
export function caHash(pem: string): string {
  return `sha256:${sha256(spki(pem))}`
}

/** Whether `hash` is that of this certificate: of its public key, of its DER (`openssl x509 -fingerprint -sha256`), or of the file. Each names one certificate only. */
export function hashFits(hash: string, pem: string): boolean {
  const hex = plain(hash)
  return hex !== undefined && [sha256(spki(pem)), sha256(new X509Certificate(pem).raw), sha256(pem)].includes(hex)
}

/** The 64 digits of a hash that may have `sha256:` before it and colons in it; undefined if it is none. */
export function plain(hash: string): string | undefined {
  const hex = hash
    .trim()
    .replace(/^sha256[:=]/i, '')
    .replaceAll(':', '')
    .toLowerCase()
  return /^[0-9a-f]{64}$/.test(hex) ? hex : undefined
}

const spki = (pem: string): Buffer => new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' })
