import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import type { Client } from '../../kube/client.ts'
import type { Pod } from '../../kube/objects.ts'

/** A token that a volume of a Pod shows to its programs. */
export interface TokenSource {
  readonly path?: string
  readonly audience?: string
  readonly expirationSeconds?: number
}

/** A fresh token of the Pod's account, good as long as the Pod lives and at most as long as asked. */
export async function requestToken(client: Client, pod: Pod, source: TokenSource, signal: AbortSignal): Promise<string> {
  const { name, namespace = 'default', uid } = pod.metadata
  const account = pod.spec.serviceAccountName ?? 'default'
  const { code, body } = await client.raw('POST', `/api/v1/namespaces/${encodeURIComponent(namespace)}/serviceaccounts/${encodeURIComponent(account)}/token`, {
    body: {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {
        ...(source.audience === undefined ? {} : { audiences: [source.audience] }),
        expirationSeconds: source.expirationSeconds ?? 3600,
        boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
      },
    },
    signal,
  })
  const answer = JSON.parse(body.toString()) as { readonly status?: { readonly token?: string }; readonly message?: string }
  const token = answer.status?.token
  if (token === undefined) throw new Error(`the API gave no token for the account ${namespace}/${account}: ${code} ${answer.message ?? ''}`)
  return token
}

/** Where the tokens of a Pod lie below its `volumes/`. */
export function tokensOf(pod: Pod): readonly { readonly file: string; readonly source: TokenSource }[] {
  return (pod.spec.volumes ?? []).flatMap((v) =>
    ((v as { readonly projected?: { readonly sources?: readonly { readonly serviceAccountToken?: TokenSource }[] } }).projected?.sources ?? []).flatMap((s) =>
      s.serviceAccountToken === undefined ? [] : [{ file: join(v.name, normalize(join('/', s.serviceAccountToken.path ?? 'token'))), source: s.serviceAccountToken }],
    ),
  )
}

/** Whether a token should be replaced: four fifths of its time are over, or a day. `now` in ms. */
export function isStale(token: string, now: number): boolean {
  try {
    const { iat, exp } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { readonly iat: number; readonly exp: number }
    return !(now / 1000 < Math.min(iat + (exp - iat) * 0.8, iat + 86_400))
  } catch {
    return true
  }
}

/** Replaces the Pod's tokens that are stale. A file is never seen half written. */
export async function rotate(pod: Pod, folder: string, fresh: (source: TokenSource) => Promise<string>, now: number): Promise<number> {
  let replaced = 0
  for (const { file, source } of tokensOf(pod)) {
    const at = join(folder, file)
    let held: string
    try {
      held = readFileSync(at, 'utf8')
    } catch {
      // Not there yet: whoever makes the Pod writes it.
      continue
    }
    if (!isStale(held, now)) continue
    writeFileSync(`${at}.next`, await fresh(source), { mode: 0o644 })
    renameSync(`${at}.next`, at)
    replaced++
  }
  return replaced
}
