import type { Feature, Key } from './feature.ts'

const snippet = 'configuration of nginx as text: whoever may write an Ingress could then read every Secret'
const none = 'there is no such thing here'
const keys: Record<string, Key> = {}
for (const key of ['configuration-snippet', 'server-snippet', 'auth-snippet', 'stream-snippet', 'modsecurity-snippet', 'canary-snippet'])
  keys[key] = { help: 'text for nginx’s configuration', support: 'refused', note: snippet }
for (const key of ['enable-modsecurity', 'enable-owasp-core-rules', 'modsecurity-transaction-id']) keys[key] = { help: 'the firewall ModSecurity', support: 'refused', note: none }
for (const key of ['mirror-target', 'mirror-request-body', 'mirror-host']) keys[key] = { help: 'a copy of requests', support: 'refused', note: 'requests are not copied' }
for (const key of ['enable-opentelemetry', 'opentelemetry-trust-incoming-span', 'opentelemetry-operation-name', 'enable-opentracing', 'opentracing-trust-incoming-span'])
  keys[key] = { help: 'tracing', support: 'ignored', note: 'trace context is passed on, no spans are made' }
for (const key of ['ssl-ciphers', 'ssl-prefer-server-ciphers']) keys[key] = { help: 'ciphers towards clients', support: 'ignored', note: 'OpenSSL’s own choice, TLS 1.2 and 1.3' }
for (const key of ['http2-push-preload', 'secure-verify-ca-secret']) keys[key] = { help: 'removed from ingress-nginx long ago', support: 'ignored', note: none }
for (const key of ['auth-keepalive-share-vars', 'auth-keepalive-requests', 'auth-keepalive-timeout'])
  keys[key] = { help: 'connections kept to the service asked', support: 'ignored', note: 'chosen by itself' }
for (const key of ['relative-redirects']) keys[key] = { help: 'Location without a host', support: 'ignored', note: 'Locations are absolute' }

/** What is known and not done: told by name, never passed over in silence. */
export const refused: Feature = { name: 'refused', keys, read: () => undefined }
