import { randomBytes, webcrypto } from 'node:crypto'
// What x509 stands on wants it first.
import 'reflect-metadata'
import * as x509 from '@peculiar/x509'

/** A certificate and its key, PEM. */
export interface Pair {
  readonly cert: string
  readonly key: string
}

/** An authority for tests; what it signs is good for an hour. */
export interface TestAuthority extends Pair {
  /** For servers on 127.0.0.1 and `names`. */
  server(names?: readonly string[]): Promise<Pair>
  /** For a client: CN and O. */
  client(name: string, groups?: readonly string[]): Promise<Pair>
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

/** Makes a new authority. */
export async function testAuthority(name = 'test'): Promise<TestAuthority> {
  x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0])
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const times = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 3_600_000) }
  const own = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: `CN=${name}`,
    ...times,
    keys,
    signingAlgorithm: algorithm,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true), new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.digitalSignature, true)],
  })
  const issue = async (subject: string, extensions: x509.Extension[]): Promise<Pair> => {
    const mine = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject,
      issuer: own.subject,
      ...times,
      publicKey: mine.publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm: algorithm,
      extensions,
    })
    return { cert: certificate.toString('pem'), key: await pem(mine.privateKey) }
  }
  return {
    cert: own.toString('pem'),
    key: await pem(keys.privateKey),
    server: (names = []) => issue('CN=server', [new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }, ...names.map((value) => ({ type: 'dns' as const, value }))])]),
    client: (cn, groups = []) => issue([`CN=${cn}`, ...groups.map((g) => `O=${g}`)].join(', '), [new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth])]),
  }
}

function serial(): string {
  return `01${randomBytes(8).toString('hex')}`
}

async function pem(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')
}
