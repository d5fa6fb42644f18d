import type { Json } from '../kinds/decode.ts'
import type { Cache, Entry } from './cache.ts'
import type { Call, Rest } from './rest.ts'
import { parseYamlBody } from './body.ts'
import { badRequest, Failure } from './status.ts'

/** Server-side apply. */
export async function applyPatch(_rest: Rest, _cache: Cache, _call: Call, text: string, _how: { readonly force: boolean; readonly part?: 'status' }): Promise<{ readonly entry: Entry; readonly made: boolean }> {
  const parsed = parseYamlBody(text).value as Json
  if (typeof parsed !== 'object' || parsed === null) throw badRequest('error decoding YAML')
  throw new Failure(501, 'NotImplemented', 'server-side apply is not served yet')
}
