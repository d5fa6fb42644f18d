import { spawn } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:https'
import { join } from 'node:path'
import { test } from 'tap'
import { connect } from '../../kube/client.ts'
import { loadCredentials, parseKubeconfig } from '../../kube/credentials.ts'
import { nodes, secrets } from '../../kube/resources.ts'
import { authority } from '../identity/ca.ts'
import { Tokens } from '../identity/tokens.ts'
import { folder, start } from '../testing/plane.ts'
import { caHash, hashFits, plain } from './hash.ts'
import { issueToken, joinPath } from './token.ts'

const home = folder()
const data = join(home, 'data')
mkdirSync(data, { mode: 0o700 })
const plane = await start(data)
const ca = readFileSync(join(data, 'ca.crt'), 'utf8')
const tokens = new Tokens(createPrivateKey(readFileSync(join(data, 'sa.key'), 'utf8')))
const files = ['agent.yaml', 'ca.crt', 'dns.yaml', 'node.crt', 'node.key', 'proxy.yaml']

/** Runs `switchyard` as a user would. */
function switchyard(...args: string[]): Promise<{ readonly status: number | null; readonly out: string; readonly err: string }> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', join(import.meta.dirname, '../../cli/main.ts'), ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let [out, err] = ['', '']
  child.stdout.on('data', (b: Buffer) => (out += b.toString()))
  child.stderr.on('data', (b: Buffer) => (err += b.toString()))
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, out, err })))
}

const joining = (token: string, node: string, dir: string, more: { readonly server?: string; readonly hash?: string } = {}) =>
  switchyard('join', '--server', more.server ?? plane.secure, '--ca-hash', more.hash ?? caHash(ca), '--token', token, '--node', node, '--dir', dir)

const asToken = async (token: string) =>
  connect(
    await parseKubeconfig(
      JSON.stringify({
        'current-context': 'a',
        contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
        clusters: [{ name: 'a', cluster: { server: plane.secure, 'certificate-authority-data': Buffer.from(ca).toString('base64') } }],
        users: [{ name: 'a', user: { token } }],
      }),
    ),
  )

test('a token turns a machine into a node', async (t) => {
  const made = await switchyard('token', '--node', 'node2', '--data', data)
  t.equal(made.status, 0, made.err)
  t.match(made.out, /^[\w-]+\.[\w-]+\.[\w-]+\n$/, 'the token, and nothing else')
  t.match(made.err, new RegExp(`join --server https://\\S+ --ca-hash ${caHash(ca)} --token TOKEN --node node2`))
  const dir = join(home, 'node2/etc')
  const joined = await joining(made.out.trim(), 'node2', dir)
  t.equal(joined.status, 0, joined.err)
  t.same(readdirSync(dir).sort(), files, 'and nothing is left beside')
  t.equal(statSync(dir).mode & 0o777, 0o700)
  for (const file of files) t.equal(statSync(join(dir, file)).mode & 0o777, 0o600, file)

  const admin = connect(await loadCredentials(plane.kubeconfig))
  t.match(await admin.get(nodes, 'node2'), { metadata: { labels: { 'kubernetes.io/hostname': 'node2' } } })
  const node = new X509Certificate(readFileSync(join(dir, 'node.crt'), 'utf8'))
  t.equal(node.subject, 'O=system:nodes\nCN=system:node:node2')
  t.ok(node.checkPrivateKey(createPrivateKey(readFileSync(join(dir, 'node.key'), 'utf8'))), 'its key is the one made here')
  for (const [part, who] of [
    ['agent', 'system:node:node2'],
    ['proxy', 'system:kube-proxy'],
    ['dns', 'system:dns'],
  ] as const) {
    const client = connect(await loadCredentials(join(dir, `${part}.yaml`)))
    const { body } = await client.raw('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', { body: { kind: 'SelfSubjectReview', apiVersion: 'authentication.k8s.io/v1' } })
    t.equal(JSON.parse(body.toString()).status.userInfo.username, who)
    client.close()
  }
  const agent = connect(await loadCredentials(join(dir, 'agent.yaml')))
  await agent.patch(nodes, 'node2', undefined, { metadata: { labels: { zone: 'east' } } }, 'merge')
  await t.rejects(agent.patch(nodes, 'node1', undefined, { metadata: { labels: { zone: 'east' } } }, 'merge'), { code: 403 })

  const again = await joining(made.out.trim(), 'node2', dir)
  t.equal(again.status, 0, 'as long as the token is good it may be used again')
  t.match(await admin.get(nodes, 'node2'), { metadata: { labels: { zone: 'east' } } }, 'the Node stays as it was')
  agent.close()
  admin.close()
})

test('what does not fit is said in a sentence, and nothing is written', async (t) => {
  const good = issueToken(tokens, 'node3', Date.now())
  const stranger = await authority(join(home, 'stranger'))
  const cases: readonly [string, string, { readonly hash?: string; readonly server?: string }, RegExp][] = [
    ['another hash', good, { hash: 'ab'.repeat(32) }, /has the hash sha256:[0-9a-f]{64}, not (ab){32}: this is another cluster, or somebody in between/],
    ['no hash', good, { hash: 'abc' }, /--ca-hash: expected 64 hexadecimal digits/],
    ['a token that is over', issueToken(tokens, 'node3', Date.now() - 3_601_000), {}, /the token is over since 20/],
    ['the token of another node', issueToken(tokens, 'node4', Date.now()), {}, /the token is for the node node4, not for node3/],
    ['the token of another cluster', issueToken(new Tokens(stranger.tokenKey), 'node3', Date.now()), {}, /does not know the token/],
    ['no token', 'abc', {}, /does not know the token/],
    ['a server that is not there', good, { server: 'https://127.0.0.1:1' }, /https:\/\/127\.0\.0\.1:1 does not answer/],
    ['plain HTTP', good, { server: plane.url }, /--server: expected https/],
  ]
  for (const [what, token, more, expected] of cases) {
    const dir = join(home, `refused ${what}`)
    const { status, out, err } = await joining(token, 'node3', dir, more)
    t.not(status, 0, what)
    t.equal(out, '')
    t.match(err, expected, what)
    t.notOk(existsSync(dir), `${what}: nothing was written`)
  }
  const kept = join(home, 'kept')
  mkdirSync(join(kept, 'dns.yaml'), { recursive: true })
  const { status, err } = await joining(good, 'node3', kept)
  t.equal(status, 1)
  t.match(err, /cannot write the node's files.*dns\.yaml is a folder/)
  t.same(readdirSync(kept), ['dns.yaml'], 'not one file of the others')
})

test('a token is good for one hour, one node and one thing', async (t) => {
  const token = issueToken(tokens, 'node5', Date.now())
  const { iat, exp } = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())
  t.equal(exp - iat, 3600)
  const client = await asToken(token)
  for (const path of ['/api/v1/nodes', '/api/v1/nodes/node5', '/api/v1/secrets', '/apis', '/metrics', `${joinPath}/node6`]) t.equal((await client.raw('GET', path)).code, 403, `GET ${path}`)
  for (const path of [joinPath, `${joinPath}/node6`, `${joinPath}/node5/x`, '/api/v1/nodes']) t.equal((await client.raw('POST', path, { body: {} })).code, 403, `POST ${path}`)
  t.equal((await client.raw('POST', `${joinPath}/node5`, { body: {} })).code, 400, 'its own, with nothing in it')
  t.match((await client.raw('POST', `${joinPath}/node5`, { body: { keys: { agent: 'x', proxy: 'y', dns: 'z' } } })).body.toString(), /keys\.agent is no public key/)
  const admin = connect(await loadCredentials(plane.kubeconfig))
  t.equal(await admin.find(nodes, 'node5'), undefined, 'a refused request made no Node')
  await admin.create(secrets, { metadata: { name: 'a', namespace: 'default' } } as never)
  // A ServiceAccount may ask for a token of any audience, also of ours: it opens nothing here.
  const asked = await admin.raw('POST', '/api/v1/namespaces/default/serviceaccounts', { body: { kind: 'ServiceAccount', apiVersion: 'v1', metadata: { name: 'sly' } } })
  t.ok(asked.code === 201 || asked.code === 409)
  const minted = await admin.raw('POST', '/api/v1/namespaces/default/serviceaccounts/sly/token', {
    body: { kind: 'TokenRequest', apiVersion: 'authentication.k8s.io/v1', spec: { audiences: ['switchyard-join'] } },
  })
  const sly = await asToken(JSON.parse(minted.body.toString()).status.token)
  t.equal((await sly.raw('POST', `${joinPath}/node5`, { body: {} })).code, 403)
  const nobody = connect(
    await parseKubeconfig(
      JSON.stringify({
        'current-context': 'a',
        contexts: [{ name: 'a', context: { cluster: 'a', user: '' } }],
        clusters: [{ name: 'a', cluster: { server: plane.secure, 'insecure-skip-tls-verify': true } }],
      }),
    ),
  )
  t.equal((await nobody.raw('POST', `${joinPath}/node5`, { body: {} })).code, 403, 'nobody joins without a token')
  t.equal(JSON.parse((await nobody.raw('GET', joinPath)).body.toString()).ca, ca, 'and everybody may see the certificate')
  for (const c of [client, admin, sly, nobody]) c.close()
})

test('a token is never sent to a server whose authority has another hash', async (t) => {
  const false_ = await authority(join(home, 'false'))
  const pair = await false_.serving(['127.0.0.1'])
  const heard: string[] = []
  const server = createServer({ cert: pair.certificate, key: pair.key }, (request, response) => {
    heard.push(`${request.method} ${request.url} ${request.headers.authorization ?? ''}`)
    // The right certificate is public: an impostor can show it, and even put its own behind.
    response.end(JSON.stringify({ ca: ca + false_.certificate }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { readonly port: number }
  const { status, err } = await joining(issueToken(tokens, 'node7', Date.now()), 'node7', join(home, 'node7'), { server: `https://127.0.0.1:${port}` })
  t.equal(status, 1)
  t.match(err, /unable to verify|certificate|issuer/)
  t.same(heard, [`GET ${joinPath} `], 'only the question for the certificate was heard')
  t.notOk(existsSync(join(home, 'node7')))
  server.closeAllConnections()
  server.close()
})

test('a token needs the data of a control plane', async (t) => {
  const empty = folder()
  const none = await switchyard('token', '--node', 'node2', '--data', empty)
  t.equal(none.status, 1)
  t.match(none.err, /holds no data of a control plane/)
  t.same(readdirSync(empty), [], 'and makes none')
  t.match((await switchyard('token', '--node', 'Node_2', '--data', data)).err, /no name of a node/)
  t.match((await switchyard('token', '--data', data)).err, /--node is required/)
})

test('hashes are told in the ways people write them', async (t) => {
  const hex = caHash(ca).slice(7)
  for (const form of [`sha256:${hex}`, hex, hex.toUpperCase(), new X509Certificate(ca).fingerprint256, `SHA256:${hex.toUpperCase()}`]) t.ok(hashFits(form, ca), form)
  t.notOk(hashFits('00'.repeat(32), ca))
  for (const form of ['', 'sha256:', hex.slice(1), `${hex}0`, `md5:${hex}`]) t.equal(plain(form), undefined, form)
})

test('end', async () => {
  await plane.stop()
})
