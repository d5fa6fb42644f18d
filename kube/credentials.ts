import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { parseDocument } from 'yaml'

/** How to reach an API server and who to be there. Tokens and certificates are read again when their files change. */
export interface Credentials {
  /** `https://192.168.56.11:6443`, without a slash at the end; `http://` works too. */
  readonly server: string
  /** Namespace of the kubeconfig's context or of the Pod. */
  readonly namespace: string
  /** From the extension `switchyard.dev/patience` of the kubeconfig's cluster: how long clients of this server wait. */
  readonly patience?: Patience | undefined
  /** What to say on the next connection and request. Looks at the files at most once a second, unless `fresh` asks for it. */
  current(fresh?: boolean): Promise<Identity>
}

/** How long a client waits, in milliseconds; what is left out has the defaults of `connect` and `Mirror`. */
export interface Patience {
  /** For the whole answer to a request. */
  readonly timeout?: number | undefined
  /** For the next word of a watch. */
  readonly silence?: number | undefined
  /** First and longest wait before trying again. */
  readonly firstWait?: number | undefined
  readonly mostWait?: number | undefined
}

/** The secrets of one instant. */
export interface Identity {
  readonly token: string | undefined
  /** What follows `Authorization: Basic`. */
  readonly basic: string | undefined
  /** Keeps its identity until a certificate changes. */
  readonly tls: TlsIdentity
  /** `as`, `as-groups`, `as-uid` of the kubeconfig, as request headers. */
  readonly impersonate: Readonly<Record<string, string | string[]>>
}

export interface TlsIdentity {
  readonly ca: Buffer | undefined
  readonly cert: Buffer | undefined
  readonly privateKey: Buffer | undefined
  readonly serverName: string | undefined
  /** `insecure-skip-tls-verify`. */
  readonly insecure: boolean
}

/** Where the account of a Pod is mounted. */
const accountFolder = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Reads a kubeconfig file, or, without a path, what a Pod finds in `/var/run/secrets`. Throws an `Error` that names the file and the field. */
export async function loadCredentials(kubeconfig: string | undefined, options: { readonly context?: string | undefined } = {}): Promise<Credentials> {
  if (kubeconfig === undefined) return inCluster()
  const text = await readFile(kubeconfig, 'utf8').catch((cause: unknown) => {
    throw new Error(`cannot read the kubeconfig ${kubeconfig}`, { cause })
  })
  return parseKubeconfig(text, { where: kubeconfig, folder: dirname(resolve(kubeconfig)), context: options.context })
}

/** The credentials of a Pod: server from the environment, token, CA and namespace from files. */
export async function inCluster(env: Readonly<Record<string, string | undefined>> = process.env, folder: string = accountFolder): Promise<Credentials> {
  const host = env['KUBERNETES_SERVICE_HOST']
  const port = env['KUBERNETES_SERVICE_PORT'] ?? '443'
  if (host === undefined || host === '') throw new Error('no kubeconfig given, and this is no Pod: KUBERNETES_SERVICE_HOST is not set (use --kubeconfig FILE)')
  const namespace = await readFile(`${folder}/namespace`, 'utf8').catch(() => 'default')
  const credentials = new FileCredentials(`https://${host.includes(':') ? `[${host}]` : host}:${port}`, namespace.trim() || 'default', {
    token: { file: `${folder}/token` },
    ca: { file: `${folder}/ca.crt` },
  })
  await credentials.current()
  return credentials
}

/** Where a kubeconfig's text came from: the name for messages, and the folder its relative paths start from. */
export interface KubeconfigSource {
  readonly where?: string
  readonly folder?: string
  /** Instead of `current-context`. */
  readonly context?: string | undefined
}

/** The credentials that the text of a kubeconfig describes. */
export async function parseKubeconfig(text: string, source: KubeconfigSource = {}): Promise<Credentials> {
  const where = source.where ?? 'kubeconfig'
  const fail = (what: string, cause?: unknown): never => {
    throw new Error(`${where}: ${what}`, cause === undefined ? undefined : { cause })
  }
  const document = parseDocument(text)
  const bad = document.errors[0]
  if (bad !== undefined) fail('is not valid YAML', bad)
  const config = document.toJS() as Fields | null
  if (config === null || typeof config !== 'object' || Array.isArray(config)) return fail('is not a kubeconfig: expected a mapping')

  const contextName = source.context ?? textOf(config, 'current-context', where)
  const contexts = namedEntries(config, 'contexts', where)
  const context =
    contextName === undefined || contextName === ''
      ? contexts.size === 1
        ? [...contexts.values()][0]!
        : fail('current-context is not set')
      : (contexts.get(contextName) ?? fail(`current-context: there is no context "${contextName}"`))
  const inContext = mapOf(context, 'context', where)
  const clusterName = textOf(inContext, 'cluster', where) ?? fail(`context "${contextName ?? ''}": cluster is not set`)
  const cluster = mapOf(namedEntries(config, 'clusters', where).get(clusterName) ?? fail(`there is no cluster "${clusterName}"`), 'cluster', where)
  const userName = textOf(inContext, 'user', where)
  const user = userName === undefined || userName === '' ? {} : mapOf(namedEntries(config, 'users', where).get(userName) ?? fail(`there is no user "${userName}"`), 'user', where)

  const server = textOf(cluster, 'server', where) ?? fail(`cluster "${clusterName}": server is not set`)
  if (!/^https?:\/\/[^/]/.test(server)) fail(`cluster "${clusterName}": server: expected http://… or https://…, got "${server}"`)
  for (const refused of ['exec', 'auth-provider']) {
    if (user[refused] !== undefined) fail(`user "${userName}": ${refused} is not supported here (it would run a program); use a token, tokenFile or client certificate`)
  }
  if (cluster['proxy-url'] !== undefined && cluster['proxy-url'] !== '') fail(`cluster "${clusterName}": proxy-url is not supported`)

  const folder = source.folder ?? process.cwd()
  const secret = (from: Fields, data: string, file: string): Source | undefined => {
    const inline = textOf(from, data, where)
    if (inline !== undefined && inline !== '') return { value: Buffer.from(inline, 'base64') }
    const path = textOf(from, file, where)
    return path === undefined || path === '' ? undefined : { file: resolve(folder, path) }
  }
  const token = textOf(user, 'token', where)
  const tokenFile = textOf(user, 'tokenFile', where)
  const name = textOf(user, 'username', where)
  const groups = user['as-groups']
  const insecure = cluster['insecure-skip-tls-verify'] === true
  const ca = secret(cluster, 'certificate-authority-data', 'certificate-authority')
  const cert = secret(user, 'client-certificate-data', 'client-certificate')
  const key = secret(user, 'client-key-data', 'client-key')
  if ((cert === undefined) !== (key === undefined)) fail(`user "${userName}": client-certificate and client-key belong together, only one is given`)
  const credentials = new FileCredentials(
    server.replace(/\/+$/, ''),
    textOf(inContext, 'namespace', where) ?? 'default',
    {
      // As in client-go: a token file wins over the token beside it.
      token: tokenFile !== undefined && tokenFile !== '' ? { file: resolve(folder, tokenFile) } : token === undefined || token === '' ? undefined : { value: Buffer.from(token) },
      basic: name === undefined ? undefined : Buffer.from(`${name}:${textOf(user, 'password', where) ?? ''}`).toString('base64'),
      ca,
      cert,
      key,
      serverName: textOf(cluster, 'tls-server-name', where),
      insecure,
      impersonate: impersonation(textOf(user, 'as', where), textOf(user, 'as-uid', where), Array.isArray(groups) ? groups.map(String) : []),
    },
    patienceOf(cluster),
  )
  await credentials.current().catch((cause: unknown) => fail('names a file that cannot be read', cause))
  return credentials
}

type Fields = Readonly<Record<string, unknown>>
type Source = { readonly value: Buffer } | { readonly file: string }

interface Sources {
  readonly token?: Source | undefined
  readonly basic?: string | undefined
  readonly ca?: Source | undefined
  readonly cert?: Source | undefined
  readonly key?: Source | undefined
  readonly serverName?: string | undefined
  readonly insecure?: boolean | undefined
  readonly impersonate?: Readonly<Record<string, string | string[]>> | undefined
}

class FileCredentials implements Credentials {
  readonly server: string
  readonly namespace: string
  readonly patience: Patience | undefined
  readonly #sources: Sources
  readonly #files = new Map<string, { readonly mark: string; readonly bytes: Buffer }>()
  #identity: Identity | undefined
  #tlsDigest = ''
  #looked = -Infinity
  #looking: Promise<Identity> | undefined

  constructor(server: string, namespace: string, sources: Sources, patience?: Patience) {
    this.server = server
    this.namespace = namespace
    this.patience = patience
    this.#sources = sources
  }

  async current(fresh = false): Promise<Identity> {
    if (this.#identity !== undefined && !fresh && performance.now() - this.#looked < 1000) return this.#identity
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined))
    return this.#looking
  }

  async #look(): Promise<Identity> {
    const s = this.#sources
    try {
      const [token, ca, cert, privateKey] = await Promise.all([this.#read(s.token), this.#read(s.ca), this.#read(s.cert), this.#read(s.key)])
      const digest = createHash('sha256')
      for (const part of [ca, cert, privateKey]) digest.update(`${part?.length ?? -1} `).update(part ?? '')
      const tlsDigest = digest.digest('base64')
      const same = this.#identity !== undefined && tlsDigest === this.#tlsDigest
      const tls = same ? this.#identity!.tls : { ca, cert, privateKey, serverName: s.serverName, insecure: s.insecure ?? false }
      const text = token?.toString('utf8').trim()
      this.#tlsDigest = tlsDigest
      this.#identity = { token: text === '' ? undefined : text, basic: s.basic, tls, impersonate: s.impersonate ?? {} }
    } catch (error) {
      // A file that is being replaced may be missing for a moment: the old secrets may still be good, and the server will say if not.
      if (this.#identity === undefined) throw error
    }
    this.#looked = performance.now()
    return this.#identity
  }

  async #read(source: Source | undefined): Promise<Buffer | undefined> {
    if (source === undefined) return undefined
    if ('value' in source) return source.value
    const { file } = source
    const { mtimeMs, ctimeMs, ino, size } = await stat(file)
    const mark = `${mtimeMs} ${ctimeMs} ${ino} ${size}`
    const known = this.#files.get(file)
    if (known?.mark === mark) return known.bytes
    const bytes = await readFile(file)
    this.#files.set(file, { mark, bytes })
    return bytes
  }
}

function impersonation(user: string | undefined, uid: string | undefined, groups: readonly string[]): Record<string, string | string[]> {
  return {
    ...(user === undefined || user === '' ? {} : { 'Impersonate-User': user }),
    ...(uid === undefined || uid === '' ? {} : { 'Impersonate-Uid': uid }),
    ...(groups.length === 0 ? {} : { 'Impersonate-Group': [...groups] }),
  }
}

function patienceOf(cluster: Fields): Patience | undefined {
  const extensions = cluster['extensions']
  const found: unknown = Array.isArray(extensions) ? (extensions as readonly Fields[]).find((e) => e['name'] === 'switchyard.dev/patience')?.['extension'] : undefined
  if (typeof found !== 'object' || found === null) return undefined
  const number = (name: keyof Patience): number | undefined => {
    const value = (found as Fields)[name]
    return typeof value === 'number' && value > 0 ? value : undefined
  }
  return { timeout: number('timeout'), silence: number('silence'), firstWait: number('firstWait'), mostWait: number('mostWait') }
}

function namedEntries(config: Fields, list: string, where: string): ReadonlyMap<string, Fields> {
  const entries = config[list] ?? []
  if (!Array.isArray(entries)) throw new Error(`${where}: ${list}: expected a list`)
  return new Map(entries.filter((e): e is Fields => typeof e === 'object' && e !== null).map((e) => [String(e['name'] ?? ''), e]))
}

function mapOf(from: Fields, field: string, where: string): Fields {
  const value = from[field] ?? {}
  if (typeof value !== 'object' || Array.isArray(value)) throw new Error(`${where}: ${field} "${String(from['name'] ?? '')}": expected a mapping`)
  return value as Fields
}

function textOf(from: Fields, field: string, where: string): string | undefined {
  const value = from[field]
  if (value === undefined || value === null) return undefined
  if (typeof value === 'object') throw new Error(`${where}: ${field}: expected text`)
  return String(value)
}
