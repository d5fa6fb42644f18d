import { isDeepStrictEqual } from 'node:util'
import { ApiError } from '../kube/client.ts'
import type { KubeObject } from '../kube/objects.ts'
import { apiVersionOf, type Resource } from '../kube/resources.ts'
import { command as define, suggest, UsageError } from '../lib/options.ts'
import { readDocuments, type Document } from './documents.ts'
import { connectServer, nameOf, serverFlags, type Server } from './server.ts'

/** Where kubectl keeps what was applied last; the same, so that both can be used on one object. */
const lastApplied = 'kubectl.kubernetes.io/last-applied-configuration'
const fieldManager = 'switchyard-apply'

interface Step {
  readonly document: Document
  readonly resource: Resource
  readonly namespace: string | undefined
  readonly object: KubeObject
}

export const command = define({
  name: 'apply',
  summary: 'Creates or changes objects so that they are as in YAML or JSON files.',
  usage: '-f FILE|FOLDER|-',
  flags: {
    ...serverFlags,
    filename: { type: 'list', short: 'f', value: 'FILE', help: 'a file, a folder of files, or - for standard input; may be given several times' },
    'dry-run': { type: 'boolean', help: 'check everything, write nothing' },
  },
  details: 'Every document is checked by a dry run on the server before the first one is written.',
  run: async ({ values, positionals }, context) => {
    if (positionals.length > 0) throw new UsageError(`unexpected "${positionals[0]}"; files are named with -f`)
    if (values.filename.length === 0) throw new UsageError('name what to apply with -f FILE')
    const documents = readDocuments(values.filename)
    const server = await connectServer(values, context.signal)
    const steps = plan(server, documents)
    const warned = (text: string): void => context.err(`Warning: ${text}\n`)
    await checkAll(server, steps, context.signal, warned)
    for (const step of steps) {
      const done = values['dry-run'] ? 'checked (dry run)' : await applyOne(server, step, false, context.signal)
      context.out(`${nameOf(step.resource, step.object.metadata.name ?? '')} ${done}\n`)
    }
  },
})

function plan(server: Server, documents: readonly Document[]): Step[] {
  const wrong: string[] = []
  const steps: Step[] = []
  for (const document of documents) {
    const { object } = document
    const kind = server.kinds.find((k) => k.resource.kind === object.kind && apiVersionOf(k.resource) === object.apiVersion)?.resource
    if (kind === undefined) {
      const same = server.kinds.filter((k) => k.resource.kind === object.kind).map((k) => apiVersionOf(k.resource))
      const hint =
        same.length > 0
          ? `; it serves ${object.kind} as ${same.join(', ')}`
          : suggest(
              object.kind,
              server.kinds.map((k) => k.resource.kind),
              '',
            )
      wrong.push(`${document.where}: kind: the server has no ${object.kind} in ${object.apiVersion}${hint}`)
      continue
    }
    const given = object.metadata.namespace
    if (!kind.namespaced && given !== undefined) wrong.push(`${document.where}: metadata.namespace: a ${object.kind} has no namespace, got "${given}"`)
    const namespace = kind.namespaced ? (given ?? server.namespace) : undefined
    steps.push({ document, resource: kind, namespace, object: namespace === undefined ? object : { ...object, metadata: { ...object.metadata, namespace } } })
  }
  if (wrong.length > 0) throw new UsageError(wrong.length === 1 ? wrong[0]! : `\n  ${wrong.join('\n  ')}`)
  return steps
}

/** Asks the server about every document before anything is written. */
async function checkAll(server: Server, steps: readonly Step[], signal: AbortSignal, warned: (text: string) => void): Promise<void> {
  const made = new Set(steps.filter((s) => s.resource.kind === 'Namespace').map((s) => s.object.metadata.name))
  const wrong: string[] = []
  for (const step of steps) {
    try {
      await applyOne(server, step, true, signal, warned)
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      if (error.code === 404 && step.namespace !== undefined && made.has(step.namespace)) {
        // Its namespace is made by this very file and is not there yet: the object is checked in one that is.
        const elsewhere = { ...step, namespace: 'default', object: { ...step.object, metadata: { ...step.object.metadata, namespace: 'default' } } }
        try {
          await applyOne(server, elsewhere, true, signal, warned)
        } catch (second) {
          if (!(second instanceof ApiError)) throw second
          if (second.reason !== 'AlreadyExists') wrong.push(...complaints(step, second))
        }
      } else wrong.push(...complaints(step, error))
    }
  }
  if (wrong.length > 0) throw new UsageError(`nothing was written:\n  ${wrong.join('\n  ')}`)
}

function complaints(step: Step, error: ApiError): string[] {
  const causes = error.status.details?.causes ?? []
  if (error.reason !== 'Invalid' || causes.length === 0) return [`${step.document.where}: ${error.message}`]
  return causes.map((c) => `${step.document.where}: ${c.field ?? ''}: ${c.message ?? ''}`)
}

/** Makes one object as in its document; says what it did, in kubectl's words. */
async function applyOne(server: Server, step: Step, dryRun: boolean, signal: AbortSignal, warned?: (text: string) => void): Promise<'created' | 'configured' | 'unchanged'> {
  const { client } = server
  const name = step.object.metadata.name!
  const wanted = annotated(step.object)
  const how = { signal, fieldManager, fieldValidation: 'Strict', dryRun, warned } as const
  const found = await client.find<KubeObject>(step.resource, name, step.namespace, { signal })
  if (found === undefined) {
    await client.create(step.resource, wanted as never, how)
    return 'created'
  }
  const text = found.metadata.annotations?.[lastApplied]
  const before: unknown = text === undefined ? undefined : parseJson(text)
  const patch = difference(before, wanted, found)
  // The annotation itself is no change a reader cares about.
  if (patch === undefined || isDeepStrictEqual(patch, { metadata: { annotations: { [lastApplied]: wanted.metadata.annotations![lastApplied] } } })) return 'unchanged'
  const changed = await client.patch<KubeObject>(step.resource, name, step.namespace, patch, 'merge', how)
  return changed.metadata.resourceVersion === found.metadata.resourceVersion && !dryRun ? 'unchanged' : 'configured'
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function annotated(object: KubeObject): KubeObject {
  const { status: _status, ...plain } = object as KubeObject & { readonly status?: unknown }
  const { [lastApplied]: _before, ...annotations } = plain.metadata.annotations ?? {}
  const clean = { ...plain, metadata: { ...plain.metadata, annotations } }
  return { ...plain, metadata: { ...plain.metadata, annotations: { ...annotations, [lastApplied]: `${JSON.stringify(clean)}\n` } } }
}

/**
 * The merge patch (RFC 7386) that makes `live` as `wanted`, and takes away what `before` had applied and `wanted` no longer has.
 * Undefined if there is nothing to do. A list is taken whole.
 */
export function difference(before: unknown, wanted: unknown, live: unknown): unknown {
  if (!isMap(wanted)) return covers(live, wanted) ? undefined : wanted
  const patch: Record<string, unknown> = {}
  const now = isMap(live) ? live : {}
  for (const [key, value] of Object.entries(wanted)) {
    if (value === null) {
      if (now[key] !== undefined) patch[key] = null
      continue
    }
    const part = difference(isMap(before) ? before[key] : undefined, value, now[key])
    if (part !== undefined) patch[key] = part
    else if (now[key] === undefined) patch[key] = value
  }
  if (isMap(before)) for (const key of Object.keys(before)) if (!Object.hasOwn(wanted, key) && now[key] !== undefined) patch[key] = null
  return Object.keys(patch).length === 0 ? undefined : patch
}

/** Whether `live` says all that `wanted` says; the server may have added defaults to it. */
function covers(live: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted)) return Array.isArray(live) && live.length === wanted.length && wanted.every((w, i) => covers(live[i], w))
  if (isMap(wanted)) return isMap(live) && Object.entries(wanted).every(([k, w]) => covers(live[k], w))
  return live === wanted
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
