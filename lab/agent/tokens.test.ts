import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import type { Pod } from '../../kube/objects.ts'
import { isStale, rotate, tokensOf } from './tokens.ts'

const token = (iat: number, exp: number): string => `x.${Buffer.from(JSON.stringify({ iat, exp })).toString('base64url')}.y`
const pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p' },
  spec: { containers: [], volumes: [{ name: 'access', projected: { sources: [{ serviceAccountToken: { path: 'token', expirationSeconds: 3607 } }, { configMap: { name: 'ca' } }] } }] },
} as unknown as Pod

test('a token is stale after four fifths of its time, or a day', async (t) => {
  t.notOk(isStale(token(1000, 2000), 1_799_000))
  t.ok(isStale(token(1000, 2000), 1_801_000))
  t.ok(isStale(token(0, 1_000_000), 86_401_000))
  t.ok(isStale('nonsense', 0))
})

test('only what is stale is replaced, whole', async (t) => {
  t.same(tokensOf(pod), [{ file: 'access/token', source: { path: 'token', expirationSeconds: 3607 } }])
  const folder = mkdtempSync(join(tmpdir(), 'tokens-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const fresh = async (): Promise<string> => token(2000, 6000)
  t.equal(await rotate(pod, folder, fresh, 0), 0, 'what is not there is not made')
  mkdirSync(join(folder, 'access'))
  writeFileSync(join(folder, 'access/token'), token(1000, 2000))
  t.equal(await rotate(pod, folder, fresh, 1_500_000), 0)
  t.equal(await rotate(pod, folder, fresh, 1_900_000), 1)
  t.equal(readFileSync(join(folder, 'access/token'), 'utf8'), token(2000, 6000))
  t.same(readdirSync(join(folder, 'access')), ['token'])
})
