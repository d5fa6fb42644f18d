import { joiner } from '../join/token.ts'
import type { Tokens, Claims } from './tokens.ts'
import type { User } from './user.ts'

/** What of a request says who sent it: a header, or the certificate of its connection. */
export interface Signed {
  readonly headers: { readonly authorization?: string | undefined }
  readonly socket: object
}

/** What a TLS connection says of the client's certificate; a plain one has none of it. */
interface Certified {
  readonly encrypted?: boolean
  readonly authorized?: boolean
  getPeerCertificate(): { readonly subject?: { readonly CN?: unknown }; readonly fingerprint256: string }
}

/** Who sent a request; undefined: credentials that are wrong. */
export type Authenticate = (request: Signed) => User | undefined

const anonymous: User = { name: 'system:anonymous', groups: ['system:unauthenticated'] }
const everything: User = { name: 'switchyard:insecure', groups: ['system:masters', 'system:authenticated'] }

/** The user that a checked ServiceAccount token stands for, if the account (and its Pod) still exist. */
export type Alive = (claims: Claims) => boolean

/** Client certificate (CN, O), then bearer token, then nobody. Over plain HTTP everybody without a token is an administrator: such a listener is only for loopback and labs. */
export function authenticator(tokens: Tokens, alive: Alive, now: () => number = Date.now): Authenticate {
  const bySocket = new WeakMap<object, User>()
  return (request) => {
    const authorization = request.headers.authorization
    if (authorization !== undefined) {
      const m = /^Bearer\s+(\S+)\s*$/i.exec(authorization)
      return m === null ? undefined : (userOfToken(tokens, alive, m[1]!, now()) ?? joiner(tokens, m[1]!, now()))
    }
    const socket = request.socket as Certified
    if (socket.encrypted !== true) return everything
    let user = bySocket.get(socket)
    if (user === undefined) {
      user = anonymous
      const certificate = socket.authorized === true ? socket.getPeerCertificate() : undefined
      if (certificate?.subject?.CN !== undefined) {
        const { CN, O } = certificate.subject as unknown as { readonly CN: string; readonly O?: string | readonly string[] }
        user = {
          name: CN,
          groups: [...(O === undefined ? [] : typeof O === 'string' ? [O] : O), 'system:authenticated'],
          extra: { 'authentication.kubernetes.io/credential-id': [`X509SHA256=${certificate!.fingerprint256.replaceAll(':', '').toLowerCase()}`] },
        }
      }
      bySocket.set(socket, user)
    }
    return user
  }
}

/** The user a token stands for; undefined if it is none of ours, over, or its account is gone. */
export function userOfToken(tokens: Tokens, alive: Alive, token: string, now: number): User | undefined {
  const claims = tokens.check(token, now)
  const k = claims?.['kubernetes.io']
  if (claims === undefined || k === undefined || !alive(claims)) return undefined
  return {
    name: claims.sub,
    uid: k.serviceaccount.uid,
    groups: ['system:serviceaccounts', `system:serviceaccounts:${k.namespace}`, 'system:authenticated'],
    extra: {
      ...(claims.jti === undefined ? {} : { 'authentication.kubernetes.io/credential-id': [`JTI=${claims.jti}`] }),
      ...(k.pod === undefined ? {} : { 'authentication.kubernetes.io/pod-name': [k.pod.name], 'authentication.kubernetes.io/pod-uid': [k.pod.uid] }),
      ...(k.node === undefined ? {} : { 'authentication.kubernetes.io/node-name': [k.node.name], 'authentication.kubernetes.io/node-uid': [k.node.uid] }),
    },
  }
}
