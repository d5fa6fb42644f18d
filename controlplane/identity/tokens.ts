import { createHash, sign, verify, type KeyObject } from 'node:crypto'
import { publicKey } from './ca.ts'

/** What a ServiceAccount token says. */
export interface Claims {
  readonly iss: string
  readonly sub: string
  readonly aud: readonly string[]
  readonly exp: number
  readonly iat: number
  readonly nbf: number
  readonly jti?: string
  readonly 'kubernetes.io'?: {
    readonly namespace: string
    readonly serviceaccount: { readonly name: string; readonly uid: string }
    readonly pod?: { readonly name: string; readonly uid: string }
    readonly node?: { readonly name: string; readonly uid: string }
    readonly secret?: { readonly name: string; readonly uid: string }
  }
}

const encoded = (o: object): string => Buffer.from(JSON.stringify(o)).toString('base64url')

/** Signs and checks tokens (JWT, ES256). */
export class Tokens {
  readonly #key: KeyObject
  readonly #public: KeyObject
  readonly #id: string

  constructor(key: KeyObject) {
    this.#key = key
    this.#public = publicKey(key)
    this.#id = createHash('sha256')
      .update(this.#public.export({ type: 'spki', format: 'der' }))
      .digest('base64url')
  }

  issue(claims: Claims): string {
    const text = `${encoded({ alg: 'ES256', kid: this.#id })}.${encoded(claims)}`
    return `${text}.${sign('sha256', Buffer.from(text), { key: this.#key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`
  }

  /** The claims of a token that we signed and that is not over; undefined otherwise. */
  check(token: string, now: number): Claims | undefined {
    const parts = token.split('.')
    if (parts.length !== 3) return undefined
    try {
      const header = JSON.parse(Buffer.from(parts[0]!, 'base64url').toString()) as { alg?: string }
      if (header.alg !== 'ES256') return undefined
      if (!verify('sha256', Buffer.from(`${parts[0]}.${parts[1]}`), { key: this.#public, dsaEncoding: 'ieee-p1363' }, Buffer.from(parts[2]!, 'base64url'))) return undefined
      const claims = JSON.parse(Buffer.from(parts[1]!, 'base64url').toString()) as Claims
      const seconds = now / 1000
      return claims.exp > seconds && claims.nbf <= seconds + 60 ? claims : undefined
    } catch {
      return undefined
    }
  }

  /** The key set for `/openid/v1/jwks`. */
  jwks(): object {
    return { keys: [{ ...this.#public.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: this.#id }] }
  }
}
