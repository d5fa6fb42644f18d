import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type Test } from 'tap'
import { connect } from './client.ts'
import { inCluster, loadCredentials, parseKubeconfig } from './credentials.ts'
import { services } from './resources.ts'
import { FakeApi } from './testing/api.ts'
import { testAuthority } from './testing/certificates.ts'

function folderFor(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-credentials-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A kubeconfig with one cluster and one user. */
function config(cluster: object, user: object = {}, context: object = {}): string {
  return JSON.stringify({ clusters: [{ name: 'c', cluster }], users: [{ name: 'u', user }], contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', ...context } }], 'current-context': 'x' })
}

const server = 'http://127.0.0.1:1'

test('server, namespace and token come from the current context', async (t) => {
  const text = `
apiVersion: v1
kind: Config
current-context: two
clusters:
- name: a
  cluster: {server: "http://127.0.0.1:1"}
- name: b
  cluster: {server: "https://192.168.56.11:6443/"}
users:
- name: admin
  user: {token: s3cret}
contexts:
- name: one
  context: {cluster: a}
- name: two
  context: {cluster: b, user: admin, namespace: demo}
`
  const two = await parseKubeconfig(text)
  t.equal(two.server, 'https://192.168.56.11:6443')
  t.equal(two.namespace, 'demo')
  t.equal((await two.current()).token, 's3cret')
  const one = await parseKubeconfig(text, { context: 'one' })
  t.equal(one.server, 'http://127.0.0.1:1')
  t.equal((await one.current()).token, undefined)
})

test('data in the kubeconfig is decoded, files are relative to it', async (t) => {
  const folder = folderFor(t)
  writeFileSync(join(folder, 'client.crt'), 'CERT')
  writeFileSync(join(folder, 'client.key'), 'KEY')
  writeFileSync(
    join(folder, 'config'),
    config(
      { server, 'certificate-authority-data': Buffer.from('CA').toString('base64'), 'tls-server-name': 'api', 'insecure-skip-tls-verify': true },
      { 'client-certificate': 'client.crt', 'client-key': 'client.key', username: 'me', password: 'pw', as: 'other', 'as-groups': ['g1', 'g2'] },
    ),
  )
  const { tls, basic, impersonate } = await (await loadCredentials(join(folder, 'config'))).current()
  t.same([tls.ca?.toString(), tls.cert?.toString(), tls.privateKey?.toString(), tls.serverName, tls.insecure], ['CA', 'CERT', 'KEY', 'api', true])
  t.equal(Buffer.from(basic!, 'base64').toString(), 'me:pw')
  t.strictSame(impersonate, { 'Impersonate-User': 'other', 'Impersonate-Group': ['g1', 'g2'] })
})

test('an extension of the cluster says how patient to be', async (t) => {
  const extensions = [{ name: 'switchyard.dev/patience', extension: { silence: 150, mostWait: 'soon' } }]
  const credentials = await parseKubeconfig(config({ server, extensions }))
  t.match(credentials.patience, { silence: 150, mostWait: undefined })
  t.match(connect(credentials).patience, { silence: 150 })
  t.equal((await parseKubeconfig(config({ server }))).patience, undefined)
})

const bad: readonly (readonly [name: string, text: string, message: RegExp])[] = [
  ['no YAML', 'a: [', /kc: is not valid YAML/],
  ['no mapping', '- a', /kc: is not a kubeconfig/],
  ['an unknown context', config({ server }).replace('"current-context":"x"', '"current-context":"y"'), /kc: current-context: there is no context "y"/],
  ['an unknown cluster', config({ server }, {}, { cluster: 'z' }), /kc: there is no cluster "z"/],
  ['an unknown user', config({ server }, {}, { user: 'z' }), /kc: there is no user "z"/],
  ['no server', config({}), /cluster "c": server is not set/],
  ['a server that is no URL', config({ server: '10.0.0.1:6443' }), /server: expected http:\/\/… or https:\/\/…, got "10.0.0.1:6443"/],
  ['a program to run', config({ server }, { exec: { command: 'aws' } }), /user "u": exec is not supported/],
  ['a certificate without its key', config({ server }, { 'client-certificate-data': 'QQ==' }), /client-certificate and client-key belong together/],
  ['a file that is not there', config({ server }, { tokenFile: '/nonexistent/token' }), /names a file that cannot be read/],
]
for (const [name, text, message] of bad) {
  test(`a kubeconfig with ${name} is refused in words that name the place`, async (t) => {
    await t.rejects(parseKubeconfig(text, { where: 'kc' }), { message })
  })
}

test('a kubeconfig that is not there is named', async (t) => {
  await t.rejects(loadCredentials('/nonexistent/kubeconfig'), /cannot read the kubeconfig \/nonexistent\/kubeconfig/)
})

test('in a Pod the account comes from its folder', async (t) => {
  const folder = folderFor(t)
  writeFileSync(join(folder, 'token'), 'from-the-pod\n')
  writeFileSync(join(folder, 'ca.crt'), 'CA')
  writeFileSync(join(folder, 'namespace'), 'demo')
  const pod = await inCluster({ KUBERNETES_SERVICE_HOST: 'fd00:10:96::1', KUBERNETES_SERVICE_PORT: '443' }, folder)
  t.equal(pod.server, 'https://[fd00:10:96::1]:443')
  t.equal(pod.namespace, 'demo')
  t.equal((await pod.current()).token, 'from-the-pod')
  await t.rejects(inCluster({}, folder), /this is no Pod/)
})

test('a token file that changes is read again, and a request with the old token is repeated', async (t) => {
  const folder = folderFor(t)
  await using api = await FakeApi.start({ token: 'one' })
  writeFileSync(join(folder, 'token'), 'one')
  const client = connect(await parseKubeconfig(config({ server: api.url }, { tokenFile: join(folder, 'token') })))
  await client.list(services)
  api.token = 'two'
  await t.rejects(client.list(services), { code: 401 })
  writeFileSync(join(folder, 'token'), 'two')
  await client.list(services)
  t.pass('without a new client')
  client.close()
})

test('a token file that is gone for a moment does no harm', async (t) => {
  const folder = folderFor(t)
  writeFileSync(join(folder, 'token'), 'one')
  const credentials = await parseKubeconfig(config({ server }, { tokenFile: join(folder, 'token') }))
  rmSync(join(folder, 'token'))
  t.equal((await credentials.current(true)).token, 'one')
})

test('TLS: the authority is checked, the client certificate is shown, and a renewed one is used', async (t) => {
  const folder = folderFor(t)
  const authority = await testAuthority()
  const pair = await authority.server()
  await using api = await FakeApi.start({ tls: { ...pair, ca: authority.cert, requestCert: true } })
  const write = async (name: string): Promise<void> => {
    const { cert, key } = await authority.client(name, ['system:masters'])
    writeFileSync(join(folder, 'crt'), cert)
    writeFileSync(join(folder, 'key'), key)
  }
  await write('first')
  const data = (text: string): string => Buffer.from(text).toString('base64')
  const user = { 'client-certificate': join(folder, 'crt'), 'client-key': join(folder, 'key') }
  const client = connect(await parseKubeconfig(config({ server: api.url, 'certificate-authority-data': data(authority.cert) }, user)))
  await client.list(services)
  t.equal(api.peers.at(-1), 'first')
  await write('second')
  await client.credentials.current(true)
  await client.list(services)
  t.equal(api.peers.at(-1), 'second')
  client.close()

  const stranger = await testAuthority('stranger')
  const wary = connect(await parseKubeconfig(config({ server: api.url, 'certificate-authority-data': data(stranger.cert) })))
  t.match(String(((await thrown(wary.list(services))) as Error).cause), /certificate|signature|issuer/i)
  const trusting = connect(await parseKubeconfig(config({ server: api.url, 'insecure-skip-tls-verify': true })))
  await trusting.list(services)
  wary.close()
  trusting.close()
})

/** What a promise is rejected with. */
async function thrown(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error('it was not rejected'),
    (error: unknown) => error,
  )
}
