import { readFileSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import { command, UsageError } from '../lib/options.ts'
import { loadCredentials } from '../kube/credentials.ts'
import { connect } from '../kube/client.ts'
import type { ConfigMap, Ingress, KubeObject, Secret, Service } from '../kube/objects.ts'
import { configmaps, ingresses, keyOf, secrets, services } from '../kube/resources.ts'
import { keys, prefixes, unknown } from './annotations/list.ts'
import { settingsOf } from './annotations/list.ts'
import type { Objects } from './compile.ts'
import { Compiler } from './compile.ts'

/** What becomes of one Ingress here. */
export interface Report {
  readonly ingress: string
  readonly source: string
  readonly class: string | undefined
  readonly verdict: 'as it is' | 'with differences' | 'not as it is'
  readonly annotations: readonly {
    readonly key: string
    readonly value: string
    readonly support: 'supported' | 'differs' | 'no effect' | 'refused' | 'unknown' | 'not ours'
    readonly note?: string
  }[]
  /** What is wrong beside annotations. */
  readonly problems: readonly string[]
}

/** `switchyard ingress check`. */
export const check = command({
  name: 'check',
  summary: 'Reports, Ingress by Ingress, what is supported, what differs and what is refused.',
  flags: {
    file: { type: 'list', short: 'f', value: 'FILE', help: 'YAML or JSON files, folders, or - for standard input' },
    cluster: { type: 'boolean', help: 'reads the Ingresses of the cluster' },
    kubeconfig: { type: 'string', value: 'FILE', help: 'how to reach the cluster' },
    class: { type: 'list', value: 'NAME', help: 'only Ingresses of these classes' },
    output: { type: 'string', short: 'o', oneOf: ['text', 'json'], default: 'text', help: 'form of the report' },
  },
  details: 'Exit status 0: all can be served as they are, or with differences that are named; 1: some cannot.',
  run: async ({ values }, context) => {
    if (values.file.length === 0 && !values.cluster) throw new UsageError('say what to check: -f FILE or --cluster')
    const found: { object: KubeObject; source: string }[] = values.file.flatMap(readObjects)
    if (values.cluster) {
      const client = connect(await loadCredentials(values.kubeconfig), { userAgent: 'switchyard-ingress-check' })
      for (const i of (await client.list(ingresses, { signal: context.signal })).items) found.push({ object: { kind: 'Ingress', ...i }, source: 'cluster' })
      for (const resource of [services, secrets, configmaps])
        for (const o of (await client.list<Service | Secret | ConfigMap>(resource as never, { signal: context.signal })).items) found.push({ object: { ...o, kind: resource.kind }, source: 'cluster' })
      client.close()
    }
    const reports = report(found).filter((r) => values.class.length === 0 || (r.class !== undefined && values.class.includes(r.class)))
    if (values.output === 'json') context.out(`${JSON.stringify({ apiVersion: 'switchyard.dev/v1', kind: 'IngressReport', ingresses: reports }, null, 2)}\n`)
    else context.out(print(reports))
    return reports.some((r) => r.verdict === 'not as it is') ? 1 : 0
  },
})

/** The reports on the Ingresses among `found`. Services and Secrets are missed only if some of their kind are there. */
export function report(found: readonly { readonly object: KubeObject; readonly source: string }[]): Report[] {
  const namespaced = found.map(({ object, source }) => ({ source, object: { ...object, metadata: { namespace: 'default', ...object.metadata } } }))
  const of = <T extends KubeObject>(kind: string): Map<string, T> => new Map(namespaced.filter((f) => f.object.kind === kind).map((f) => [keyOf(f.object), f.object as unknown as T]))
  const objects: Objects = {
    ingresses: new Map(),
    classes: new Map(),
    services: of<Service>('Service'),
    slices: new Map(),
    secrets: of<Secret>('Secret'),
    configMaps: of<ConfigMap>('ConfigMap'),
    names: { addressesOf: () => undefined },
  }
  const hasMaps = namespaced.some((f) => f.object.kind === 'ConfigMap')
  return namespaced
    .filter((f) => f.object.kind === 'Ingress')
    .map(({ object, source }) => {
      const ingress = object as unknown as Ingress
      const className = ingress.metadata.annotations?.['kubernetes.io/ingress.class'] ?? ingress.spec?.ingressClassName
      const annotations: Report['annotations'][number][] = []
      for (const [full, value] of Object.entries(ingress.metadata.annotations ?? {})) {
        if (full === 'kubectl.kubernetes.io/last-applied-configuration' || full === 'kubernetes.io/ingress.class') continue
        const prefix = prefixes.find((p) => full.startsWith(p))
        if (prefix === undefined) {
          annotations.push({ key: full, value, support: 'not ours' })
          continue
        }
        const key = full.slice(prefix.length)
        const known = keys.get(key)
        const support = known === undefined ? 'unknown' : ({ full: 'supported', differs: 'differs', ignored: 'no effect', refused: 'refused' } as const)[known.support ?? 'full']
        const note = known === undefined ? unknown(key).replace(/^unknown annotation [^ ,;]+[,;]? ?/, '') : known.note
        annotations.push({ key: full, value, support, ...(note === undefined || note === '' ? {} : { note }) })
      }
      const compiler = new Compiler({ controllers: [], classes: className === undefined ? [''] : [className], defaultBackend: undefined, defaultCertificate: undefined, settings: settingsOf })
      const named = className ?? 'none'
      const own = { ...ingress, metadata: { ...ingress.metadata, annotations: { ...ingress.metadata.annotations, 'kubernetes.io/ingress.class': named } } }
      const compiled =
        className === undefined
          ? new Compiler({ controllers: [], classes: ['none'], defaultBackend: undefined, defaultCertificate: undefined, settings: settingsOf }).compile({
              ...objects,
              ingresses: new Map([[keyOf(own), own]]),
            })
          : compiler.compile({ ...objects, ingresses: new Map([[keyOf(own), own]]) })
      const problems = compiled.problems
        .filter((p) => p.reason !== 'UnknownAnnotation' && p.reason !== 'UnsupportedAnnotation' && p.reason !== 'CanaryAlone')
        .filter(
          (p) =>
            !(p.reason === 'BackendNotFound' && objects.services.size === 0) &&
            !(p.reason === 'InvalidCertificate' && objects.secrets.size === 0) &&
            !(/Secret/.test(p.message) && objects.secrets.size === 0) &&
            !(/ConfigMap/.test(p.message) && !hasMaps) &&
            !/needs default-backend, or/.test(p.message),
        )
        .map((p) => p.message)
      const refused = problems.length > 0 || annotations.some((a) => a.support === 'refused' || a.support === 'unknown')
      const differs = annotations.some((a) => a.support === 'differs')
      return { ingress: keyOf(ingress), source, class: className, verdict: refused ? 'not as it is' : differs ? 'with differences' : 'as it is', annotations, problems }
    })
}

function print(reports: readonly Report[]): string {
  const out: string[] = []
  for (const r of reports) {
    out.push(`${r.ingress} (${r.source}${r.class === undefined ? ', no class' : `, class ${r.class}`}): ${r.verdict}`)
    for (const a of r.annotations) {
      if (a.support === 'supported' || a.support === 'not ours') continue
      out.push(`  ${a.support.padEnd(9)}  ${a.key}${a.note === undefined ? '' : `: ${a.note}`}`)
    }
    for (const p of r.problems) out.push(`  problem    ${p}`)
  }
  const count = (v: Report['verdict']): number => reports.filter((r) => r.verdict === v).length
  out.push(`${reports.length} Ingresses: ${count('as it is')} as they are, ${count('with differences')} with differences, ${count('not as it is')} not as they are`)
  return `${out.join('\n')}\n`
}

/** The objects of a file or folder; lists are taken apart. Errors name the file, the document and what was expected. */
export function readObjects(path: string): { object: KubeObject; source: string }[] {
  if (path !== '-' && statSync(path).isDirectory())
    return readdirSync(path)
      .filter((f) => /\.(ya?ml|json)$/.test(f))
      .sort()
      .flatMap((f) => readObjects(join(path, f)))
  const text = readFileSync(path === '-' ? 0 : path, 'utf8')
  const out: { object: KubeObject; source: string }[] = []
  for (const [i, document] of parseAllDocuments(text).entries()) {
    const where = `${path}, document ${i + 1}`
    if (document.errors.length > 0) throw new UsageError(`${where}: ${document.errors[0]!.message}`)
    const value = document.toJS() as (KubeObject & { readonly items?: readonly KubeObject[] }) | null
    if (value === null) continue
    if (typeof value !== 'object' || typeof value.kind !== 'string') throw new UsageError(`${where}: field kind: expected an object's kind`)
    for (const object of value.kind.endsWith('List') && value.items !== undefined ? value.items : [value]) {
      if (typeof object.metadata?.name !== 'string') throw new UsageError(`${where}: field metadata.name: expected a name`)
      out.push({ object, source: where })
    }
  }
  return out
}
