import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import tap, { test, type Test } from 'tap'
import { sleep } from '../../lib/lifecycle.ts'
import { projectRoot } from '../launcher.ts'
import type { LabStatus } from '../status.ts'
import { difference, hostState, switchyard, type Ran } from '../testing/host.ts'

tap.setTimeout(200_000)
const state = mkdtempSync(join(tmpdir(), 'switchyard-e2e-'))
process.on('exit', () => rmSync(state, { recursive: true, force: true }))
const env = { SWITCHYARD_STATE: state }
const lab = (...words: string[]): Promise<Ran> => switchyard(['lab', ...words], { env })
const url = 'http://hello.demo.svc.cluster.local'
const manifest = join(projectRoot, 'lab', 'manifests', 'hello.yaml')

test('a lab from nothing to nothing', { timeout: 150_000 }, async (t) => {
  const before = hostState(state)
  t.teardown(() => lab('down'))
  const up = await lab('up', '--api-port', '0', '--publish', '0:ingress')
  t.equal(up.status, 0, `lab up: ${up.stderr}`)
  const kubeconfig = (await lab('kubeconfig')).stdout.trim()
  const cli = (...words: string[]): Promise<Ran> => switchyard(words, { env: { ...env, KUBECONFIG: kubeconfig } })

  await t.test('its status names every part', async (t) => {
    const asked = await lab('status', '-o', 'json')
    const status = JSON.parse(asked.stdout) as LabStatus
    t.strictSame(
      status.parts.map((p) => `${p.name} ${p.state}`).toSorted(),
      ['agent', 'controlplane', 'dns', 'ingress', 'proxy'].map((p) => `node1/${p} ready`).concat(['node2', 'node3'].flatMap((n) => ['agent', 'dns', 'proxy'].map((p) => `${n}/${p} ready`))),
    )
    t.equal((await lab('up')).status, 1, 'a second one of the same name is refused')
  })

  await t.test('Pods on several nodes answer by the name of their Service', async (t) => {
    t.equal((await cli('apply', '-f', manifest)).status, 0)
    t.equal((await answers(t, 'by name')).size, 2)
    t.match((await lab('exec', 'demo/client', '--', 'curl', '-sS', '-m', '5', 'http://hello/healthz')).stdout, 'ok', 'a short name is completed')
    t.equal((await lab('exec', 'client', '--', 'sh', '-c', 'exit 7')).status, 7, 'the exit status comes back')
    const strange = await lab('exec', 'nobody', '--', 'true')
    t.match(strange.stderr, /no node or running Pod is called "nobody"/)
    const out = await lab('exec', 'client', '--', 'curl', '-sS', '-m', '5', 'http://example.com')
    t.match(out.stderr, /Could not resolve host/, 'there is no way out')
  })

  await t.test('two Pods of one node reach each other through a ClusterIP', async (t) => {
    const pod = (name: string, command: string): string =>
      `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, labels: {app: ${name}}}, spec: {nodeSelector: {kubernetes.io/hostname: node2}, terminationGracePeriodSeconds: 0, containers: [{name: main, image: none, command: ${command}}]}}`
    const near = join(state, 'near.yaml')
    writeFileSync(
      near,
      [
        pod('near', '[switchyard, lab, hello]'),
        pod('asker', '[sleep, infinity]'),
        '{apiVersion: v1, kind: Service, metadata: {name: near}, spec: {selector: {app: near}, ports: [{port: 80, targetPort: 8080}]}}',
      ].join('\n---\n'),
    )
    t.equal((await cli('apply', '-f', near)).status, 0)
    for (const asker of ['asker', 'near'])
      t.equal(
        await eventually(async () => (await lab('exec', asker, '--', 'curl', '-sS', '-m', '2', 'http://near.default')).stdout),
        'hello from near\n',
        asker === 'near' ? 'even itself' : 'its neighbour',
      )
  })

  await t.test('the mode changes under the running lab', async (t) => {
    t.equal((await lab('mode', 'userspace')).status, 0)
    t.equal((await answers(t, 'userspace')).size, 2)
    t.equal((await lab('mode', 'iptables')).status, 0)
    t.equal((await answers(t, 'iptables')).size, 2)
    t.equal((await lab('mode', 'nonsense')).status, 2)
  })

  await t.test('the Ingress answers on the published port, by host and path', async (t) => {
    const port = (JSON.parse((await lab('status', '-o', 'json')).stdout) as LabStatus).published[0]!.port
    t.match(await ask(port, 'hello.example.com', '/second'), /^200 hello from hello-2/)
    t.match(await ask(port, 'hello.example.com', '/'), /^200 hello from/)
    t.match(await ask(port, 'nobody.example.com', '/'), /^404/)
  })

  const found = kubectls()
  await t.test('every kubectl that is installed works from the host', { skip: found.length === 0 && 'no kubectl is installed' }, async (t) => {
    for (const kubectl of found) {
      const run = (...words: string[]): string => {
        const { status, stdout, stderr } = spawnSync(kubectl, ['--kubeconfig', kubeconfig, ...words], { encoding: 'utf8' })
        return status === 0 ? stdout : `exit status ${status}: ${stderr}`
      }
      t.match(run('get', 'svc', '-A'), /demo +hello +ClusterIP/, `${kubectl} get svc -A`)
      t.match(run('logs', '-n', 'demo', 'hello-1', '--tail', '1'), /"message":"request"/, `${kubectl} logs`)
    }
  })

  await t.test('a killed part is started again', async (t) => {
    const { parts } = JSON.parse((await lab('status', '-o', 'json')).stdout) as LabStatus
    t.ok(parts.every((p) => p.restarts === 0))
    await lab('exec', 'outside', '--', 'kill', '-9', String(parts.find((p) => p.name === 'node2/proxy')!.pid))
    t.equal(await eventually(async () => (JSON.parse((await lab('status', '-o', 'json')).stdout) as LabStatus).parts.find((p) => p.name === 'node2/proxy' && p.state === 'ready')?.restarts), 1)
    t.equal((await answers(t, 'after it')).size, 2)
  })

  t.equal((await lab('down')).status, 0)
  t.strictSame(difference(before, hostState(state)), [], 'nothing is left')
  t.equal((await lab('down')).stdout, 'There was no lab.\n')
})

test('a lab of both families', { timeout: 150_000 }, async (t) => {
  t.teardown(() => lab('down'))
  t.equal((await lab('up', '--api-port', '0', '--nodes', '2', '--dual-stack')).status, 0)
  const kubeconfig = (await lab('kubeconfig')).stdout.trim()
  const both = join(state, 'both.yaml')
  writeFileSync(both, readFileSync(manifest, 'utf8').replaceAll(/^  selector: \{ app: hello \}$/gm, '  ipFamilyPolicy: RequireDualStack\n$&'))
  t.equal((await switchyard(['apply', '--kubeconfig', kubeconfig, '-f', both], { env })).status, 0)
  for (const mode of ['iptables', 'nftables', 'userspace']) {
    t.equal((await lab('mode', mode)).status, 0)
    for (const family of ['-4', '-6'])
      t.match(await eventually(async () => (await lab('exec', 'client', '--', 'curl', family, '-sS', '-m', '3', url)).stdout), /^hello from/, `${mode}, curl ${family}`)
  }
})

/** The different answers of the Service, asked until two Pods have answered or patience ends. */
async function answers(t: Test, what: string): Promise<Set<string>> {
  const seen = new Set<string>()
  await eventually(async () => {
    const { stdout, stderr } = await lab('exec', 'client', '--', 'sh', '-c', `for i in 1 2 3 4 5 6; do curl -sS -m 3 ${url}; done`)
    for (const line of stdout.trim().split('\n')) if (line.startsWith('hello from')) seen.add(line)
    if (stderr !== '') t.comment(`${what}: ${stderr}`)
    return seen.size > 1 ? true : undefined
  })
  return seen
}

async function eventually<T>(look: () => Promise<T | undefined>): Promise<T | undefined> {
  for (const until = performance.now() + 20_000; performance.now() < until; await sleep(100)) {
    const found = await look()
    if (found !== undefined && found !== '') return found
  }
  return undefined
}

function ask(port: number, host: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, headers: { host }, agent: false }, (answer) => {
      let body = ''
      answer.setEncoding('utf8').on('data', (text: string) => (body += text))
      answer.on('end', () => resolve(`${answer.statusCode} ${body}`))
    })
      .on('error', reject)
      .end()
  })
}

function kubectls(): readonly string[] {
  try {
    const plain = execFileSync('sh', ['-c', 'command -v kubectl'], { encoding: 'utf8' }).trim()
    const beside = dirname(realpathSync(plain))
    const versions = readdirSync(beside)
      .filter((f) => /^kubectl\.1\.(29|3\d)$/.test(f))
      .map((f) => join(beside, f))
    return versions.length > 0 ? versions : existsSync(plain) ? [plain] : []
  } catch {
    return []
  }
}
