import { stringify } from 'yaml'
import type { KubeObject, List } from '../kube/objects.ts'
import { apiVersionOf, type Resource } from '../kube/resources.ts'
import { command as define, UsageError, type Context } from '../lib/options.ts'
import { connectServer, kindsNamed, messageOf, nameOf, pathOf, serverFlags, type Server } from './server.ts'

const tableType = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'

interface Table {
  readonly kind?: string
  readonly columnDefinitions: readonly { readonly name: string; readonly priority?: number }[]
  readonly rows?: readonly { readonly cells: readonly unknown[]; readonly object?: KubeObject }[] | null
}

export const command = define({
  name: 'get',
  summary: 'Prints objects.',
  usage: 'KIND[,KIND…] [NAME…]  |  KIND/NAME…',
  flags: {
    ...serverFlags,
    'all-namespaces': { type: 'boolean', short: 'A', help: 'of every namespace' },
    output: { type: 'string', short: 'o', oneOf: ['wide', 'yaml', 'json', 'name'], help: 'instead of the usual columns' },
    selector: { type: 'string', short: 'l', value: 'LABELS', help: 'only those with these labels, e.g. app=web' },
    'field-selector': { type: 'string', value: 'FIELDS', help: 'only those with these fields, e.g. spec.nodeName=node1' },
    'no-headers': { type: 'boolean', help: 'no line of column names' },
  },
  run: async ({ values, positionals }, context) => {
    if (positionals.length === 0) throw new UsageError('name what to get, e.g. "get pods"')
    const server = await connectServer(values, context.signal)
    const targets = wanted(server, positionals)
    let status = 0
    let printed = 0
    for (const { kind, name } of targets) {
      const namespace = kind.namespaced && !values['all-namespaces'] ? server.namespace : undefined
      const query = new URLSearchParams()
      if (name === undefined && values.selector !== undefined) query.set('labelSelector', values.selector)
      if (name === undefined && values['field-selector'] !== undefined) query.set('fieldSelector', values['field-selector'])
      const table = values.output === undefined || values.output === 'wide'
      const path = `${pathOf(kind, namespace, name)}${query.size === 0 ? '' : `?${query}`}`
      const answer = await server.client.raw('GET', path, { signal: context.signal, headers: { accept: table ? tableType : 'application/json' } })
      if (answer.code !== 200) {
        context.err(`Error from server${answer.code === 404 ? ' (NotFound)' : ''}: ${messageOf(answer.body)}\n`)
        status = 1
        continue
      }
      const body: unknown = JSON.parse(answer.body.toString())
      if (table) printed += printTable(body as Table, kind, values, printed > 0, targets.length > 1, context)
      else printed += printObjects(body as KubeObject | List<KubeObject>, kind, values.output!, context)
    }
    if (printed === 0 && status === 0) context.err(values['all-namespaces'] ? 'No resources found\n' : `No resources found in ${server.namespace} namespace.\n`)
    return status
  },
})

function wanted(server: Server, words: readonly string[]): readonly { readonly kind: Resource; readonly name: string | undefined }[] {
  if (words.some((w) => w.includes('/'))) {
    return words.map((word) => {
      const [kind, name, ...rest] = word.split('/')
      if (kind === undefined || name === undefined || name === '' || rest.length > 0) throw new UsageError(`expected KIND/NAME, got "${word}"`)
      return { kind: kindsNamed(server, kind)[0]!, name }
    })
  }
  const kinds = kindsNamed(server, words[0]!)
  const names = words.slice(1)
  return kinds.flatMap((kind) => (names.length === 0 ? [undefined] : names).map((name) => ({ kind, name })))
}

function printTable(
  table: Table,
  kind: Resource,
  values: { readonly output: string | undefined; readonly 'no-headers': boolean; readonly 'all-namespaces': boolean },
  second: boolean,
  several: boolean,
  context: Context,
): number {
  const rows = table.rows ?? []
  if (rows.length === 0) return 0
  const shown = table.columnDefinitions.map((c, i) => ({ name: c.name, i })).filter(({ i }) => values.output === 'wide' || (table.columnDefinitions[i]!.priority ?? 0) === 0)
  const withNamespace = values['all-namespaces'] && kind.namespaced
  const lines: string[][] = []
  if (!values['no-headers']) lines.push([...(withNamespace ? ['NAMESPACE'] : []), ...shown.map((c) => c.name.toUpperCase())])
  for (const row of rows) {
    const cells = shown.map(({ i, name }) => (several && name === 'Name' ? nameOf(kind, text(row.cells[i])) : text(row.cells[i])))
    lines.push([...(withNamespace ? [row.object?.metadata.namespace ?? ''] : []), ...cells])
  }
  if (second) context.out('\n')
  context.out(columns(lines))
  return rows.length
}

function text(cell: unknown): string {
  return cell === null || cell === undefined ? '' : typeof cell === 'string' ? cell : JSON.stringify(cell)
}

/** Lines with cells under one another, three blanks apart. */
export function columns(lines: readonly (readonly string[])[]): string {
  const wide: number[] = []
  for (const line of lines) line.forEach((cell, i) => (wide[i] = Math.max(wide[i] ?? 0, cell.length)))
  return lines
    .map(
      (line) =>
        `${line
          .map((cell, i) => (i === line.length - 1 ? cell : cell.padEnd(wide[i]!)))
          .join('   ')
          .trimEnd()}\n`,
    )
    .join('')
}

function printObjects(body: KubeObject | List<KubeObject>, kind: Resource, output: string, context: Context): number {
  const list = 'items' in body ? body.items.map((o) => ({ apiVersion: apiVersionOf(kind), kind: kind.kind, ...o })) : undefined
  if (output === 'name') {
    for (const o of list ?? [body as KubeObject]) context.out(`${nameOf(kind, o.metadata.name ?? '')}\n`)
    return list?.length ?? 1
  }
  const whole = list === undefined ? body : { apiVersion: 'v1', kind: 'List', metadata: { resourceVersion: '' }, items: list }
  context.out(output === 'json' ? `${JSON.stringify(whole, null, 4)}\n` : stringify(whole, { version: '1.1', lineWidth: 0, indentSeq: false }))
  return list?.length ?? 1
}
