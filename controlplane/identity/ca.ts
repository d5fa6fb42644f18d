import { createPrivateKey, createPublicKey, randomUUID, webcrypto, X509Certificate as NodeCertificate, type KeyObject } from 'node:crypto'
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import './reflect.ts'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { familyOf } from '../kinds/validate.ts'

type CryptoKey = webcrypto.CryptoKey
const crypto = webcrypto
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }

/** A certificate and its key, in PEM. */
export interface Pair {
  readonly certificate: string
  readonly key: string
}

/** The cluster's certificate authority: signs the server, the parts and people; and the key that signs ServiceAccount tokens. */
export interface Authority {
  /** In PEM. */
  readonly certificate: string
  /** Signs ServiceAccount tokens. */
  readonly tokenKey: KeyObject
  serving(names: readonly string[]): Promise<Pair>
  client(user: string, groups: readonly string[], days?: number): Promise<Pair>
  /** The certificate alone, for a key that its owner keeps: `key` is the public half (P-256, SPKI), in PEM. */
  certify(user: string, groups: readonly string[], key: string, days?: number): Promise<string>
}

/** Reads the authority in `dir`, or makes one there at the first start; keys have mode 0600. */
export async function authority(dir: string): Promise<Authority> {
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const files = { certificate: join(dir, 'ca.crt'), key: join(dir, 'ca.key'), token: join(dir, 'sa.key') }
  if (!existsSync(files.certificate)) await make(files)
  if (!existsSync(files.token)) first(files.token, await exported((await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])).privateKey))
  const certificate = readFileSync(files.certificate, 'utf8')
  const issuer = new X509Certificate(certificate)
  const signingKey = await imported(readFileSync(files.key, 'utf8'))
  const issue = async (publicKey: CryptoKey, subject: string, days: number, usages: string[], names: readonly string[]): Promise<string> => {
    const cert = await X509CertificateGenerator.create(
      {
        serialNumber: serial(),
        subject,
        issuer: issuer.subject,
        notBefore: new Date(Date.now() - 300_000),
        notAfter: new Date(Date.now() + days * 86_400_000),
        publicKey,
        signingKey,
        signingAlgorithm: algorithm,
        extensions: [
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          new ExtendedKeyUsageExtension(usages, false),
          ...(names.length === 0 ? [] : [new SubjectAlternativeNameExtension(names.map((n) => (familyOf(n) === undefined ? { type: 'dns', value: n } : { type: 'ip', value: n })))]),
        ],
      },
      crypto,
    )
    return `${cert.toString('pem')}\n`
  }
  const pair = async (issued: (publicKey: CryptoKey) => Promise<string>): Promise<Pair> => {
    const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
    return { certificate: await issued(keys.publicKey), key: await exported(keys.privateKey) }
  }
  const client = (publicKey: CryptoKey, user: string, groups: readonly string[], days: number): Promise<string> => {
    // A node shows the same certificate when the API server asks it for logs.
    const usages = user.startsWith('system:node:') ? [ExtendedKeyUsage.clientAuth, ExtendedKeyUsage.serverAuth] : [ExtendedKeyUsage.clientAuth]
    return issue(publicKey, [...groups.map((g) => `O=${escape(g)}`), `CN=${escape(user)}`].join(','), days, usages, [])
  }
  return {
    certificate,
    tokenKey: createPrivateKey(readFileSync(files.token, 'utf8')),
    serving: (names) => pair((key) => issue(key, 'CN=switchyard-controlplane', 365, [ExtendedKeyUsage.serverAuth], names)),
    client: (user, groups, days = 365) => pair((key) => client(key, user, groups, days)),
    certify: async (user, groups, key, days = 365) => client(await publicHalf(key), user, groups, days),
  }
}

// Of several that start at once on an empty folder one key wins; all certify that one, and one certificate wins.
async function make(files: { readonly certificate: string; readonly key: string }): Promise<void> {
  if (!existsSync(files.key)) first(files.key, await exported((await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])).privateKey))
  const pem = readFileSync(files.key, 'utf8')
  const keys = { privateKey: await imported(pem), publicKey: await publicHalf(pem) }
  const cert = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serial(),
      name: 'CN=switchyard-ca',
      notBefore: new Date(Date.now() - 300_000),
      notAfter: new Date(Date.now() + 3650 * 86_400_000),
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        new BasicConstraintsExtension(true, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign | KeyUsageFlags.digitalSignature, true),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, crypto),
      ],
    },
    crypto,
  )
  first(files.certificate, `${cert.toString('pem')}\n`)
}

/** Makes `file` with all of `text`, mode 0600, unless it is there; written beside and linked, so that nobody sees half of it and the first one stays. */
function first(file: string, text: string): void {
  const beside = `${file}.${process.pid}.${randomUUID()}.new`
  writeFileSync(beside, text, { mode: 0o600, flag: 'wx' })
  chmodSync(beside, 0o600)
  try {
    linkSync(beside, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    rmSync(beside, { force: true })
  }
}

const serial = (): string => Buffer.from(crypto.getRandomValues(new Uint8Array(16)).map((b: number, i: number) => (i === 0 ? (b & 0x7f) | 0x40 : b))).toString('hex')
const escape = (text: string): string => text.replace(/([,+"\\<>;#=])/g, '\\$1')

async function exported(key: CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', key))
  return `-----BEGIN PRIVATE KEY-----\n${der
    .toString('base64')
    .replace(/(.{64})/g, '$1\n')
    .trimEnd()}\n-----END PRIVATE KEY-----\n`
}

/** The public half of a key in PEM, whichever half it is. */
async function publicHalf(pem: string): Promise<CryptoKey> {
  const spki = createPublicKey(pem).export({ type: 'spki', format: 'der' })
  return crypto.subtle.importKey('spki', new Uint8Array(spki), algorithm, true, ['verify'])
}

async function imported(pem: string): Promise<CryptoKey> {
  const der = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' })
  return crypto.subtle.importKey('pkcs8', new Uint8Array(der), algorithm, false, ['sign'])
}

/** The public half of the token key. */
export const publicKey = (key: KeyObject): KeyObject => createPublicKey(key)

/** Whether `pem` is still good for `days` more days and names all of `names`. */
export function stillGood(pem: string, names: readonly string[], days: number): boolean {
  try {
    const c = new NodeCertificate(pem)
    if (Date.parse(c.validTo) - Date.now() < days * 86_400_000) return false
    return names.every((n) => (familyOf(n) === undefined ? c.checkHost(n) !== undefined : c.checkIP(n) !== undefined))
  } catch {
    return false
  }
}
