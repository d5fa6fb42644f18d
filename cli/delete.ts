import { ApiError } from '../kube/client.ts'
import { apiVersionOf, type Resource } from '../kube/resources.ts'
import { sleep } from '../lib/lifecycle.ts'
import { command as define, UsageError, type Context } from '../lib/options.ts'
import { readDocuments } from './documents.ts'
import { connectServer, kindsNamed, serverFlags, type Server } from './server.ts'

interface Target {
  readonly kind: Resource
  readonly name: string
  readonly namespace: string | undefined
}

export const command = define({
  name: 'delete',
  summary: 'Deletes objects.',
  usage: 'KIND NAME…  |  KIND -l LABELS  |  KIND --all  |  -f FILE',
  flags: {
    ...serverFlags,
    filename: { type: 'list', short: 'f', value: 'FILE', help: 'what stands in these files' },
    selector: { type: 'string', short: 'l', value: 'LABELS', help: 'those with these labels' },
    all: { type: 'boolean', help: 'all of this kind in the namespace' },
    'ignore-not-found': { type: 'boolean', help: 'what does not exist is no error' },
    'grace-period': { type: 'number', value: 'SECONDS', help: 'time for processes to end' },
    wait: { type: 'boolean', default: true, help: 'wait until they are gone' },
    timeout: { type: 'duration', default: '60s', help: 'how long to wait' },
  },
  run: async ({ values, positionals }, context) => {
    const byFile = values.filename.length > 0
    if (byFile === positionals.length > 0) throw new UsageError('name what to delete: KIND NAME, or -f FILE')
    const documents = byFile ? readDocuments(values.filename) : []
    const server = await connectServer(values, context.signal)
    const targets = byFile ? fromDocuments(server, documents) : await fromWords(server, positionals, values, context)
    const deleted: Target[] = []
    let status = 0
    for (const target of targets) {
      const name = `${target.kind.kind.toLowerCase()}${target.kind.group === '' ? '' : `.${target.kind.group}`} "${target.name}"`
      try {
        const grace = values['grace-period']
        await server.client.delete(target.kind, target.name, target.namespace, {
          signal: context.signal,
          propagationPolicy: 'Background',
          ...(grace === undefined ? {} : { gracePeriodSeconds: grace }),
        })
        context.out(`${name} deleted\n`)
        deleted.push(target)
      } catch (error) {
        if (!(error instanceof ApiError)) throw error
        if (error.code === 404 && values['ignore-not-found']) continue
        context.err(`Error from server (${error.reason}): ${error.message}\n`)
        status = 1
      }
    }
    if (values.wait) await gone(server, deleted, values.timeout, context)
    return status
  },
})

function fromDocuments(server: Server, documents: ReturnType<typeof readDocuments>): Target[] {
  // The other way round: what was made first is what the others need.
  return documents.toReversed().map(({ object, where }) => {
    const kind = server.kinds.find((k) => k.resource.kind === object.kind && apiVersionOf(k.resource) === object.apiVersion)?.resource
    if (kind === undefined) throw new UsageError(`${where}: kind: the server has no ${object.kind} in ${object.apiVersion}`)
    return { kind, name: object.metadata.name, namespace: kind.namespaced ? (object.metadata.namespace ?? server.namespace) : undefined }
  })
}

async function fromWords(server: Server, words: readonly string[], values: { readonly selector: string | undefined; readonly all: boolean }, context: Context): Promise<Target[]> {
  const target = (kind: Resource, name: string): Target => ({ kind, name, namespace: kind.namespaced ? server.namespace : undefined })
  if (words.every((w) => w.includes('/'))) return words.map((w) => target(kindsNamed(server, w.slice(0, w.indexOf('/')))[0]!, w.slice(w.indexOf('/') + 1)))
  const kinds = kindsNamed(server, words[0]!)
  const names = words.slice(1)
  if (names.length > 0) return kinds.flatMap((kind) => names.map((name) => target(kind, name)))
  if (values.selector === undefined && !values.all) throw new UsageError(`which ${words[0]}? Name them, or use -l LABELS or --all`)
  const lists = await Promise.all(
    kinds.map(async (kind) => {
      const list = await server.client.list(kind, { signal: context.signal, namespace: kind.namespaced ? server.namespace : undefined, labelSelector: values.selector })
      return list.items.map((o) => target(kind, o.metadata.name ?? ''))
    }),
  )
  return lists.flat()
}

async function gone(server: Server, targets: readonly Target[], timeout: number, context: Context): Promise<void> {
  const end = performance.now() + timeout
  for (const t of targets) {
    while ((await server.client.find(t.kind, t.name, t.namespace, { signal: context.signal })) !== undefined) {
      if (performance.now() > end) throw new Error(`timed out after ${timeout / 1000} s waiting for ${t.kind.kind.toLowerCase()} "${t.name}" to go`)
      await sleep(50, context.signal)
    }
  }
}
