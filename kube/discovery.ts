import type { CallOptions, Client } from './client.ts'
import { resource, type Resource } from './resources.ts'

/** A kind that a server serves. */
export interface Served extends Resource {
  readonly verbs: readonly string[]
}

/** Every kind the server serves, in each group's preferred version. */
export async function discover(client: Client, how: CallOptions = {}): Promise<readonly Served[]> {
  const groups = await read<{ groups?: readonly { preferredVersion: { groupVersion: string } }[] }>(client, '/apis', how)
  const paths: readonly (readonly [apiVersion: string, path: string])[] = [
    ['v1', '/api/v1'],
    ...(groups.groups ?? []).map(({ preferredVersion: { groupVersion: v } }): readonly [string, string] => [v, `/apis/${v}`]),
  ]
  const lists = await Promise.all(
    paths.map(
      async ([apiVersion, path]) => [apiVersion, await read<{ resources?: readonly { name: string; kind: string; namespaced: boolean; verbs: readonly string[] }[] }>(client, path, how)] as const,
    ),
  )
  return lists.flatMap(([apiVersion, list]) => (list.resources ?? []).filter((r) => !r.name.includes('/')).map((r) => ({ ...resource(apiVersion, r.name, r.kind, r.namespaced), verbs: r.verbs })))
}

async function read<T>(client: Client, path: string, how: CallOptions): Promise<T> {
  const answer = await client.raw('GET', path, how)
  if (answer.code !== 200) throw new Error(`GET ${path}: ${answer.code} ${answer.body.toString('utf8').slice(0, 200)}`)
  return JSON.parse(answer.body.toString('utf8')) as T
}
