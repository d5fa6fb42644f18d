import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect, type Client, type RawAnswer } from '../../kube/client.ts'
import { parseKubeconfig } from '../../kube/credentials.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { UsageError } from '../../lib/options.ts'
import { kubeconfigText } from '../identity/kubeconfig.ts'
import { caHash, hashFits, plain } from './hash.ts'
import { parts, type JoinAnswer, type JoinRequest } from './parts.ts'
import { joinPath, unchecked } from './token.ts'

/** What a machine must know to become a node. */
export interface Joining {
  readonly server: string
  readonly hash: string
  readonly token: string
  readonly node: string
  readonly dir: string
  /** Milliseconds to go on while the server does not answer. */
  readonly wait: number
  readonly signal: AbortSignal
}

/** Joins; resolves to the names of the files written. Rejects with nothing written, and nothing secret sent to a server whose authority is not the one named. */
export async function joinNode(how: Joining): Promise<readonly string[]> {
  if (plain(how.hash) === undefined) throw new UsageError(`flag --ca-hash: expected 64 hexadecimal digits, with or without sha256: before them, got "${how.hash}"`)
  // It goes into a header.
  if (!/^[\w.~+/=-]+$/.test(how.token)) throw new UsageError('flag --token: that is no token')
  const ca = await authorityOf(how)
  const keys = Object.fromEntries(Object.keys(parts).map((part) => [part, generateKeyPairSync('ec', { namedCurve: 'P-256' })]))
  const body: JoinRequest = { keys: Object.fromEntries(Object.entries(keys).map(([part, k]) => [part, k.publicKey.export({ type: 'spki', format: 'pem' }).toString()])) }
  const client = connect(await parseKubeconfig(clientConfig(how.server, { ca, token: how.token })), { userAgent: 'switchyard-join' })
  let answer: RawAnswer
  try {
    answer = await client.raw('POST', `${joinPath}/${how.node}`, { body, signal: how.signal })
  } finally {
    client.close()
  }
  if (answer.code !== 201) throw new Error(refused(how, answer))
  const { certificates } = JSON.parse(answer.body.toString()) as JoinAnswer
  const files = new Map<string, string>([['ca.crt', ca]])
  for (const [part, user] of Object.entries(parts)) {
    const pair = { certificate: certificates[part] ?? '', key: keys[part]!.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }
    if (!new X509Certificate(pair.certificate).checkPrivateKey(keys[part]!.privateKey)) throw new Error(`${how.server} sent a certificate for ${part} that does not belong to its key`)
    if (part === 'agent') files.set('node.crt', pair.certificate).set('node.key', pair.key)
    files.set(`${part}.yaml`, kubeconfigText(how.server, ca, user(how.node), pair))
  }
  writeAll(how.dir, files)
  return [...files.keys()]
}

/** The certificate of the server's authority, once its hash is the one that was named. Nothing else of this answer is believed. */
async function authorityOf(how: Joining): Promise<string> {
  const client = connect(await parseKubeconfig(clientConfig(how.server, {})), { userAgent: 'switchyard-join' })
  try {
    const answer = await patiently(client, how)
    let ca: string | undefined
    try {
      ca = (JSON.parse(answer.body.toString()) as { ca?: string }).ca
    } catch {
      // Not ours.
    }
    if (answer.code !== 200 || typeof ca !== 'string') throw new Error(`${how.server} is no control plane of Switchyard: GET ${joinPath} answers ${answer.code}`)
    if (!hashFits(how.hash, ca))
      throw new Error(`the authority of ${how.server} has the hash ${caHash(ca)}, not ${how.hash}: this is another cluster, or somebody in between; nothing was sent or written`)
    // The first certificate is what was hashed; another behind it would be trusted, too.
    return new X509Certificate(ca).toString()
  } finally {
    client.close()
  }
}

async function patiently(client: Client, how: Joining): Promise<RawAnswer> {
  const until = performance.now() + how.wait
  for (;;) {
    try {
      const answer = await client.raw('GET', joinPath, { signal: how.signal })
      if (answer.code < 500 || performance.now() >= until) return answer
    } catch (error) {
      if (how.signal.aborted || performance.now() >= until) throw new Error(`${how.server} does not answer`, { cause: error })
    }
    await sleep(500, how.signal)
    how.signal.throwIfAborted()
  }
}

function clientConfig(server: string, has: { readonly ca?: string; readonly token?: string }): string {
  const user = has.token === undefined ? {} : { token: has.token }
  const cluster = { server, ...(has.ca === undefined ? { 'insecure-skip-tls-verify': true } : { 'certificate-authority-data': Buffer.from(has.ca).toString('base64') }) }
  return JSON.stringify({ 'current-context': 'join', contexts: [{ name: 'join', context: { cluster: 'join', user: 'join' } }], clusters: [{ name: 'join', cluster }], users: [{ name: 'join', user }] })
}

function refused(how: Joining, answer: RawAnswer): string {
  const said = unchecked(how.token)
  if (said !== undefined && said.expires <= Date.now())
    return `the token is over since ${new Date(said.expires).toISOString()}; make another with "switchyard token --node ${how.node}" beside the control plane`
  if (said !== undefined && said.node !== how.node) return `the token is for the node ${said.node}, not for ${how.node}`
  if (answer.code === 401) return `${how.server} does not know the token: it was not made beside this control plane`
  const words = answer.body.toString().slice(0, 2000)
  let message = words
  try {
    message = (JSON.parse(words) as { message?: string }).message ?? words
  } catch {
    // As it is.
  }
  return `${how.server} refused the node ${how.node} (${answer.code}): ${message}`
}

/** Puts all files into `dir`, for their owner only, or none: they are whole on the disk before the first gets its name. */
function writeAll(dir: string, files: ReadonlyMap<string, string>): void {
  const made = existsSync(dir) ? undefined : mkdirSync(dir, { recursive: true, mode: 0o700 })
  let beside: string | undefined
  try {
    // Beside the names they get, so that a rename is enough.
    beside = mkdtempSync(join(dir, '.join-'))
    for (const [name, text] of files) {
      writeFileSync(join(beside, name), text, { mode: 0o600, flush: true })
      chmodSync(join(beside, name), 0o600)
    }
    const inTheWay = [...files.keys()].find((name) => lstatSync(join(dir, name), { throwIfNoEntry: false })?.isDirectory())
    if (inTheWay !== undefined) throw new Error(`${inTheWay} is a folder there`)
    for (const name of files.keys()) renameSync(join(beside, name), join(dir, name))
    rmdirSync(beside)
  } catch (error) {
    if (beside !== undefined) rmSync(beside, { recursive: true, force: true })
    if (made !== undefined) rmSync(made, { recursive: true, force: true })
    throw new Error(`cannot write the node's files to ${dir}`, { cause: error })
  }
}
