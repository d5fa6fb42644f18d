import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { connect, type Client } from '../kube/client.ts'
import { loadCredentials } from '../kube/credentials.ts'
import type { KubeObject } from '../kube/objects.ts'
import { resource, type Resource } from '../kube/resources.ts'
import { suggest, UsageError, type Flag } from '../lib/options.ts'

/** The flags of every verb that talks to an API server. */
export const serverFlags = {
  kubeconfig: { type: 'string', value: 'FILE', help: "the API server and who to be there (default: $KUBECONFIG, else a running lab's, else ~/.kube/config)" },
  namespace: { type: 'string', short: 'n', value: 'NAMESPACE', help: 'the namespace (default: that of the kubeconfig)' },
} as const satisfies Record<string, Flag>

/** A connection, the namespace to use, and what the server serves. */
export interface Server {
  readonly client: Client
  readonly namespace: string
  readonly kinds: readonly ServedKind[]
}

/** A kind as discovery lists it. */
export interface ServedKind {
  readonly resource: Resource
  readonly singular: string
  readonly shortNames: readonly string[]
  readonly categories: readonly string[]
}

/** Connects to the API server that the flags, the environment or a running lab name, and asks what it serves. */
export async function connectServer(values: { readonly kubeconfig: string | undefined; readonly namespace: string | undefined }, signal: AbortSignal): Promise<Server> {
  const credentials = await loadCredentials(await kubeconfigPath(values.kubeconfig))
  const client = connect(credentials, { userAgent: 'switchyard-cli' })
  return { client, namespace: values.namespace ?? (credentials.namespace === '' ? 'default' : credentials.namespace), kinds: await discover(client, signal) }
}

async function kubeconfigPath(flag: string | undefined): Promise<string> {
  const found = flag ?? (await findKubeconfig())
  if (found === undefined) throw new UsageError('no API server: name a kubeconfig with --kubeconfig or $KUBECONFIG, or start a lab with "switchyard lab up"')
  return found
}

/** The kubeconfig of `$KUBECONFIG`, else of a running lab, else of this user. */
export async function findKubeconfig(): Promise<string | undefined> {
  const fromEnvironment = process.env.KUBECONFIG
  if (fromEnvironment !== undefined && fromEnvironment !== '') return fromEnvironment
  const { readRecord, statePaths } = await import('../lab/state.ts')
  const lab = statePaths('default')
  if (readRecord(lab) !== undefined) return lab.kubeconfig
  const home = join(homedir(), '.kube', 'config')
  return existsSync(home) ? home : undefined
}

interface ApiResourceList {
  readonly resources?: readonly {
    readonly name: string
    readonly singularName?: string
    readonly kind: string
    readonly namespaced: boolean
    readonly shortNames?: readonly string[]
    readonly categories?: readonly string[]
  }[]
}

async function discover(client: Client, signal: AbortSignal): Promise<ServedKind[]> {
  const ask = async (path: string): Promise<unknown> => {
    const answer = await client.raw('GET', path, { signal, headers: { accept: 'application/json' } })
    if (answer.code !== 200) throw new Error(`GET ${path}: ${answer.code} ${messageOf(answer.body)}`)
    return JSON.parse(answer.body.toString())
  }
  const groups = (await ask('/apis')) as { readonly groups?: readonly { readonly preferredVersion?: { readonly groupVersion: string } }[] }
  const versions = ['v1', ...(groups.groups ?? []).flatMap((g) => (g.preferredVersion === undefined ? [] : [g.preferredVersion.groupVersion]))]
  const lists = await Promise.all(versions.map(async (v) => [v, (await ask(v.includes('/') ? `/apis/${v}` : `/api/${v}`)) as ApiResourceList] as const))
  return lists.flatMap(([version, list]) =>
    (list.resources ?? [])
      .filter((r) => !r.name.includes('/'))
      .map((r) => ({ resource: resource(version, r.name, r.kind, r.namespaced), singular: r.singularName ?? r.kind.toLowerCase(), shortNames: r.shortNames ?? [], categories: r.categories ?? [] })),
  )
}

/** The message of a Status, or the text as it is. */
export function messageOf(body: Buffer): string {
  const text = body.toString()
  try {
    return (JSON.parse(text) as { readonly message?: string }).message ?? text
  } catch {
    return text.trim()
  }
}

/** The kinds that a word names: `svc`, `service`, `services`, `Service`, `ingresses.networking.k8s.io`, several with commas, or `all`. */
export function kindsNamed(server: Server, word: string): readonly Resource[] {
  return word.split(',').flatMap((one) => {
    const lower = one.toLowerCase()
    if (lower === 'all') return server.kinds.filter((k) => k.categories.includes('all')).map((k) => k.resource)
    const found = server.kinds.find((k) => [k.resource.plural, k.singular, k.resource.kind.toLowerCase(), ...k.shortNames, `${k.resource.plural}.${k.resource.group}`].includes(lower))
    if (found === undefined)
      throw new UsageError(
        `the server has no kind "${one}"${suggest(
          lower,
          server.kinds.flatMap((k) => [k.resource.plural, k.singular, ...k.shortNames]),
          '',
        )}`,
      )
    return [found.resource]
  })
}

/** `service/hello`, as kubectl prints it. */
export function nameOf(r: Resource, name: string): string {
  return `${r.kind.toLowerCase()}${r.group === '' ? '' : `.${r.group}`}/${name}`
}

/** The path of a collection or, with a name, of an object. */
export function pathOf(r: Resource, namespace: string | undefined, name?: string): string {
  const base = r.group === '' ? `/api/${r.version}` : `/apis/${r.group}/${r.version}`
  const scope = r.namespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : ''
  return `${base}${scope}/${r.plural}${name === undefined ? '' : `/${encodeURIComponent(name)}`}`
}

/** `namespace/name`, or the name of what has no namespace. */
export function fullName(o: KubeObject): string {
  return o.metadata.namespace === undefined ? (o.metadata.name ?? '') : `${o.metadata.namespace}/${o.metadata.name}`
}
