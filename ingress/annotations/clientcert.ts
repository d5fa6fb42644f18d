import type { Step } from '../http1/exchange.ts'
import type { Feature } from './feature.ts'

interface ClientCert {
  readonly use: 'clientcert'
  readonly require: boolean
  readonly pass: boolean
}

/** Certificates of clients, asked for by the TLS name. */
export const clientcert: Feature = {
  name: 'clientcert',
  keys: {
    'auth-tls-secret': { help: 'Secret whose ca.crt verifies client certificates' },
    'auth-tls-verify-client': { help: 'on or optional', default: 'on', support: 'differs', note: 'off and optional_no_ca are refused' },
    'auth-tls-verify-depth': { help: 'longest chain', support: 'ignored', note: 'chains are verified whatever their length' },
    'auth-tls-pass-certificate-to-upstream': { help: 'passes the certificate on as ssl-client-cert', default: 'false' },
    'auth-tls-error-page': { help: 'redirect for clients without one', support: 'refused', note: 'a required certificate is required in the handshake' },
    'auth-tls-match-cn': { help: 'subject that must match', support: 'refused', note: 'not supported yet' },
  },
  read(a, draft, context) {
    const reference = a.text('auth-tls-secret')
    if (reference === undefined) return undefined
    const full = reference.includes('/') ? reference : `${a.namespace}/${reference}`
    const ca = context.secrets.get(full)?.data?.['ca.crt']
    if (!full.startsWith(`${a.namespace}/`)) a.refuse('auth-tls-secret', `Secret ${full} is in another namespace`)
    else if (ca === undefined) a.refuse('auth-tls-secret', `Secret ${full} with ca.crt does not exist`)
    const word = a.text('auth-tls-verify-client')?.toLowerCase() ?? 'on'
    if (word !== 'on' && word !== 'optional') a.refuse('auth-tls-verify-client', `"${word}" is not supported`)
    if (ca !== undefined) draft.clientAuth = { ca: Buffer.from(ca, 'base64').toString(), mode: word === 'optional' ? 'request' : 'require' }
    return { use: 'clientcert', require: word !== 'optional', pass: a.flag('auth-tls-pass-certificate-to-upstream') ?? false } satisfies ClientCert
  },
  step(policy: ClientCert): Step {
    return {
      request(x) {
        const { tls } = x
        // The handshake was another host's: its certificate was asked for there, not here.
        if (policy.require && (tls === undefined || tls.serverName?.toLowerCase() !== x.host)) return { status: x.secure ? 421 : 400, reason: 'client certificate: the TLS name is not the host' }
        const certificate = tls?.peerCertificate
        if (policy.require && certificate === undefined) return { status: 400, reason: 'no client certificate' }
        x.addRequest('ssl-client-verify', certificate === undefined ? 'NONE' : 'SUCCESS')
        if (policy.pass && certificate !== undefined)
          x.addRequest('ssl-client-cert', encodeURIComponent(`-----BEGIN CERTIFICATE-----\n${certificate.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`))
        return undefined
      },
    }
  },
}
