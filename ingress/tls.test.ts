import { test } from 'tap'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import { identityFor, placeholder } from './tls.ts'
import { emptyTable, type Certificate, type RouteTable } from './table.ts'

void test('the placeholder is a certificate that belongs to its key, and to nobody', async (t) => {
  const p = placeholder()
  const x509 = new X509Certificate(p.cert)
  t.ok(x509.checkPrivateKey(createPrivateKey(p.key)))
  t.ok(x509.verify(x509.publicKey))
  t.equal(x509.subjectAltName, 'DNS:switchyard-ingress.invalid')
  t.ok(Date.parse(x509.validFrom) < Date.now() && Date.parse(x509.validTo) > Date.now())
  t.ok(createSecureContext({ cert: p.cert, key: p.key }))
})

void test('client certificates are asked for by the names that want them; the identity stays the same object', async (t) => {
  const one: Certificate = { cert: 'c', key: 'k', owner: 'a/b', names: ['x.test'], notAfter: 0 }
  const auth = { ca: 'ca', mode: 'require' } as const
  const table: RouteTable = {
    ...emptyTable,
    certificates: {
      exact: new Map([
        ['x.test', one],
        ['y.test', one],
      ]),
      wildcards: new Map(),
      fallback: undefined,
      clients: new Map([['x.test', auth]]),
      http1: new Set<string>(),
    },
  }
  t.same(identityFor(table, 'X.test', undefined), { cert: 'c', key: 'k', clientCa: 'ca', clientCertificate: 'require' })
  t.equal(identityFor(table, 'x.test', undefined), identityFor(table, 'x.test', undefined))
  t.equal(identityFor(table, 'y.test', undefined), one)
  t.equal(identityFor(table, 'z.test', undefined), undefined)
})
