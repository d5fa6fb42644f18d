import { spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'
import type { Client } from '../../kube/client.ts'

/** One object of a manifest. */
export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
  readonly [field: string]: any
}

/** The manifests that are there. */
export const names = ['proxy', 'proxy-cleanup', 'dns', 'ingress']

export function manifests(name: string): readonly Manifest[] {
  const documents = parseAllDocuments(readFileSync(join(import.meta.dirname, `../manifests/${name}.yaml`), 'utf8'), { strict: true, uniqueKeys: true })
  return (documents as { errors: unknown[]; toJS(): Manifest }[]).map((d) => {
    if (d.errors.length > 0) throw d.errors[0]
    return d.toJS()
  })
}

/** What a manifest starts: the containers of its Pods, those that come first too. */
export function containers(name: string): readonly { readonly name: string; readonly args?: readonly string[]; readonly [field: string]: any }[] {
  const work = manifests(name).find((m) => m.kind === 'DaemonSet' || m.kind === 'Deployment')!
  const { spec } = work['spec'].template
  return [...(spec.initContainers ?? []), ...spec.containers]
}

/** Applies the account and the rights of a manifest, and nothing more of it; resolves to the text of a kubeconfig for that account. */
export async function account(admin: Client, name: string, server: string, ca: string): Promise<string> {
  const wanted = manifests(name).filter((m) => ['Namespace', 'ServiceAccount', 'ClusterRole', 'ClusterRoleBinding'].includes(m.kind))
  for (const m of wanted) {
    const [group, version] = m.apiVersion.includes('/') ? m.apiVersion.split('/') : ['', m.apiVersion]
    const base = group === '' ? `/api/${version}` : `/apis/${group}/${version}`
    const where = m.metadata.namespace === undefined ? '' : `/namespaces/${m.metadata.namespace}`
    const { code, body } = await admin.raw('POST', `${base}${where}/${m.kind.toLowerCase()}s?fieldValidation=Strict`, { body: m })
    if (code !== 201) throw new Error(`${m.kind} ${m.metadata.name}: ${code} ${body.toString()}`)
  }
  const { metadata } = wanted.find((m) => m.kind === 'ServiceAccount')!
  const { code, body } = await admin.raw('POST', `/api/v1/namespaces/${metadata.namespace}/serviceaccounts/${metadata.name}/token`, {
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} },
  })
  if (code !== 201) throw new Error(`a token for ${metadata.name}: ${code} ${body.toString()}`)
  return JSON.stringify({
    'current-context': 'a',
    contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
    clusters: [{ name: 'a', cluster: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } }],
    users: [{ name: 'a', user: { token: JSON.parse(body.toString()).status.token } }],
  })
}

/** A part that was started, and what it said. */
export interface Started {
  readonly process: ChildProcess
  said(): string
  /** Resolves once it said `text`; rejects when it ends before. */
  says(text: string | RegExp): Promise<void>
  stop(): Promise<void>
}

/** Starts `switchyard ARGS`. */
export function startPart(args: readonly string[]): Started {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, '../../cli/main.ts'), ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  const waiting = new Set<() => void>()
  const take = (b: Buffer): void => {
    said += b.toString()
    for (const w of waiting) w()
  }
  child.stdout.on('data', take)
  child.stderr.on('data', take)
  let over = false
  const ended = new Promise<void>((resolve) =>
    child.once('close', () => {
      over = true
      for (const w of waiting) w()
      resolve()
    }),
  )
  return {
    process: child,
    said: () => said,
    says: (text) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (typeof text === 'string' ? said.includes(text) : text.test(said)) resolve()
          else if (over) reject(new Error(`it ended: ${said}`))
          else return
          waiting.delete(look)
        }
        waiting.add(look)
        look()
      }),
    stop: async () => {
      child.kill('SIGTERM')
      await ended
    },
  }
}
