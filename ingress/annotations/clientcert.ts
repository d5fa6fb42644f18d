import { X509Certificate } from 'node:crypto'
import type { Step } from '../http1/exchange.ts'
import { compileRegex } from '../regex.ts'
import type { Feature } from './feature.ts'

interface ClientCert {
  readonly use: 'clientcert'
  readonly require: boolean
  readonly pass: boolean
  readonly errorPage: string | undefined
  /** Of the subject, as RFC 2253 writes it. */
  readonly match: string | undefined
}

/** Certificates of clients, asked for by the TLS name. */
export const clientcert: Feature = {
  name: 'clientcert',
  keys: {
    'auth-tls-secret': { help: 'Secret whose ca.crt verifies client certificates' },
    'auth-tls-verify-client': { help: 'on or optional', default: 'on', support: 'differs', note: 'optional_no_ca is refused' },
    'auth-tls-verify-depth': { help: 'longest chain', support: 'ignored', note: 'chains are verified whatever their length' },
    'auth-tls-pass-certificate-to-upstream': { help: 'passes the certificate on as ssl-client-cert', default: 'false' },
    'auth-tls-error-page': { help: 'where clients without a good one are redirected to; without it the handshake fails' },
    'auth-tls-match-cn': { help: 'CN=… or a regular expression of the subject; 403 for others' },
  },
  read(a, draft, context) {
    const reference = a.text('auth-tls-secret')
    if (reference === undefined) return undefined
    const full = reference.includes('/') ? reference : `${a.namespace}/${reference}`
    const ca = context.secrets.get(full)?.data?.['ca.crt']
    if (!full.startsWith(`${a.namespace}/`)) a.refuse('auth-tls-secret', `Secret ${full} is in another namespace`)
    else if (ca === undefined) a.refuse('auth-tls-secret', `Secret ${full} with ca.crt does not exist`)
    const errorPage = a.text('auth-tls-error-page')
    const match = a.text('auth-tls-match-cn')
    if (match !== undefined) {
      try {
        compileRegex(`.*(?:${match})`)
      } catch (error) {
        a.refuse('auth-tls-match-cn', `"${match}": ${(error as Error).message}`)
      }
    }
    const word = a.text('auth-tls-verify-client')?.toLowerCase() ?? 'on'
    if (word === 'off') return undefined
    if (word !== 'on' && word !== 'optional') a.refuse('auth-tls-verify-client', `"${word}" is not supported`)
    if (ca !== undefined) draft.clientAuth = { ca: Buffer.from(ca, 'base64').toString(), mode: word === 'optional' || errorPage !== undefined ? 'request' : 'require' }
    return { use: 'clientcert', require: word !== 'optional', pass: a.flag('auth-tls-pass-certificate-to-upstream') ?? false, errorPage, match } satisfies ClientCert
  },
  step(policy: ClientCert): Step {
    const match = policy.match === undefined ? undefined : compileRegex(`.*(?:${policy.match})`)
    return {
      request(x) {
        const { tls } = x
        // The handshake was another host's: its certificate was asked for there, not here.
        if (policy.require && (tls === undefined || tls.serverName?.toLowerCase() !== x.host)) return { status: x.secure ? 421 : 400, reason: 'client certificate: the TLS name is not the host' }
        const certificate = tls?.peerCertificate
        if (policy.require && certificate === undefined)
          return policy.errorPage === undefined ? { status: 400, reason: 'no client certificate' } : { status: 302, headers: [['Location', policy.errorPage]], reason: 'no client certificate' }
        const read = certificate === undefined ? undefined : new X509Certificate(certificate)
        const subject = read === undefined ? '' : distinguished(read.subject)
        if (match !== undefined && certificate !== undefined && !match.test(subject)) return { status: 403, reason: 'client certificate: another subject' }
        x.addRequest('ssl-client-verify', certificate === undefined ? 'NONE' : 'SUCCESS')
        if (read !== undefined) {
          x.addRequest('ssl-client-subject-dn', subject)
          x.addRequest('ssl-client-issuer-dn', distinguished(read.issuer))
        }
        if (policy.pass && certificate !== undefined)
          x.addRequest('ssl-client-cert', encodeURIComponent(`-----BEGIN CERTIFICATE-----\n${certificate.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`))
        return undefined
      },
    }
  },
}

/** A name as RFC 2253 writes it, the most particular part first. */
function distinguished(lines: string): string {
  return lines
    .split('\n')
    .reverse()
    .map((l) => l.replace(/([,+"\\<>;])/g, '\\$1'))
    .join(',')
}
