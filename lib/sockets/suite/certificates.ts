import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import { ipBytes } from '../../ip.ts'
import type { TlsIdentity } from '../seam.ts'

/** A throw-away CA that makes certificates, for tests. */
export interface TestAuthority {
  /** Its own certificate, PEM. */
  readonly ca: string
  /** A certificate for these names (DNS names, or addresses), signed by it. */
  issue(...names: string[]): TlsIdentity
}

/** Makes a CA (P-256). Certificates are written by hand, as RFC 5280 section 4 lays them out, since Node can only read them. */
export function testAuthority(name = 'test CA'): TestAuthority {
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const issuer = { name, key: keys.privateKey }
  // keyCertSign and cRLSign are bits 5 and 6.
  const ca = certificate({ subject: name, publicKey: keys.publicKey, issuer, extensions: [extension('2.5.29.19', seq(der(1, [255]))), extension('2.5.29.15', der(3, [1, 0x06]))] })
  return {
    ca,
    issue: (...names) => {
      const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const alternatives = names.map((n) => {
        const address = ipBytes(n)
        return address === undefined ? der(0x82, Buffer.from(n)) : der(0x87, address)
      })
      const extensions = [extension('2.5.29.17', seq(...alternatives)), extension('2.5.29.37', seq(oid('1.3.6.1.5.5.7.3.1'), oid('1.3.6.1.5.5.7.3.2')))]
      return {
        cert: certificate({ subject: names[0]!, publicKey: own.publicKey, issuer, extensions }),
        key: own.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
      }
    },
  }
}

interface Request {
  readonly subject: string
  readonly publicKey: KeyObject
  readonly issuer: { readonly name: string; readonly key: KeyObject }
  readonly extensions: readonly Buffer[]
}

function certificate(r: Request): string {
  const algorithm = seq(oid('1.2.840.10045.4.3.2'))
  const body = seq(
    der(0xa0, der(2, [2])),
    der(2, [1, ...randomBytes(15)]),
    algorithm,
    commonName(r.issuer.name),
    seq(time(-86_400_000), time(86_400_000)),
    commonName(r.subject),
    r.publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, seq(...r.extensions)),
  )
  const signature = sign('sha256', body, r.issuer.key)
  const whole = seq(body, algorithm, der(3, [0, ...signature]))
  return `-----BEGIN CERTIFICATE-----\n${whole.toString('base64').replace(/(.{64})(?=.)/g, '$1\n')}\n-----END CERTIFICATE-----\n`
}

const seq = (...parts: Buffer[]): Buffer => der(0x30, Buffer.concat(parts))
const extension = (id: string, value: Buffer): Buffer => seq(oid(id), der(1, [255]), der(4, value))
const commonName = (text: string): Buffer => seq(der(0x31, seq(oid('2.5.4.3'), der(12, Buffer.from(text)))))
const time = (from: number): Buffer => der(23, Buffer.from(`${new Date(Date.now() + from).toISOString().slice(2, 19).replace(/[-:T]/g, '')}Z`))

/** Tag, length, value. */
function der(tag: number, value: ArrayLike<number>): Buffer {
  const n = value.length
  const length = n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 255]
  return Buffer.concat([Buffer.from([tag, ...length]), Buffer.from(value as readonly number[])])
}

function oid(dotted: string): Buffer {
  const [a, b, ...rest] = dotted.split('.').map(Number)
  const bytes = [a! * 40 + b!]
  for (const n of rest) {
    const groups = [n & 127]
    for (let left = n >>> 7; left > 0; left >>>= 7) groups.unshift((left & 127) | 128)
    bytes.push(...groups)
  }
  return der(6, bytes)
}
