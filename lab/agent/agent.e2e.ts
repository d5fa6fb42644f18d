import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Pod } from '../../kube/objects.ts'
import { leases, nodes, pods } from '../../kube/resources.ts'
import { FakeApi } from '../../kube/testing/api.ts'
import { node, pod } from '../../kube/testing/builders.ts'
import { launcher } from '../launcher.ts'
import { inside } from '../testing/inside.ts'

inside(import.meta.filename)
const { test } = await import('tap')

const nodeIp = '192.168.56.11'
execFileSync('ip', ['-batch', '-'], { input: `link add lan type bridge\naddr add ${nodeIp}/24 dev lan\nlink set lan up\nroute add default dev lan\n` })

/** An agent, its API and a place for its state. */
async function agentOf(t: { teardown(f: () => unknown): void }) {
  const api = await FakeApi.start()
  const state = mkdtempSync(join(tmpdir(), 'switchyard-agent-'))
  let child: ChildProcess | undefined
  let said = ''
  const start = async (): Promise<void> => {
    said = ''
    child = spawn(launcher, ['agent', '--kubeconfig', api.kubeconfig(), '--node', 'node1', '--state', state, '--node-ip', nodeIp, '--listen', '127.0.0.1:10250'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (said += text))
    await api
      .until(() => said.includes('"ready"'), 'the agent is ready', 10_000)
      .catch((error: Error) => {
        throw new Error(`${error.message}; it said ${said}`)
      })
  }
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    const ended = new Promise((resolve) => child!.once('close', resolve))
    child!.kill(signal)
    await ended
  }
  t.teardown(async () => {
    await kill('SIGKILL')
    await api.close()
    rmSync(state, { recursive: true, force: true })
  })
  const get = (name: string): Pod | undefined => api.read(pods, `demo/${name}`)
  const ready = (name: string): boolean => get(name)?.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true
  const status = (name: string) => get(name)?.status?.containerStatuses?.[0]
  // A Pod on its way out may lose its record between the listing and the reading.
  const records = () =>
    readdirSync(join(state, 'pods')).flatMap((uid) => {
      const file = join(state, 'pods', uid, 'pod.json')
      return existsSync(file) ? [JSON.parse(readFileSync(file, 'utf8')) as { name: string; pid: number; containers: { run: { pid: number } }[] }] : []
    })
  const within = (name: string, ...argv: string[]): string =>
    execFileSync('nsenter', ['-t', String(records().find((r) => r.name === name)!.pid), '-n', '-m', '-u', '-p', '--', ...argv], { encoding: 'utf8' })
  await start()
  return { api, start, kill, get, ready, status, within, records, logs: () => said }
}

test('an agent registers its node and runs a Pod that answers, until it is deleted', async (t) => {
  const a = await agentOf(t)
  const { api } = a
  const made = api.read(nodes, 'node1')!
  t.match(made.status?.addresses, [
    { type: 'InternalIP', address: nodeIp },
    { type: 'Hostname', address: 'node1' },
  ])
  t.equal(made.status?.conditions?.find((c) => c.type === 'Ready')?.status, 'True')
  await api.until(() => api.read(leases, 'kube-node-lease/node1') !== undefined, 'a lease')
  api.put({ ...made, spec: { podCIDR: '10.244.0.0/24', podCIDRs: ['10.244.0.0/24'] } })
  api.put(node('node2', { ip: '192.168.56.12', podCIDR: '10.244.1.0/24' }))

  api.put(
    pod('demo/web', {
      node: 'node1',
      containers: [
        {
          name: 'main',
          command: ['switchyard', 'lab', 'hello'],
          args: ['--text', 'it is $(GREETING)'],
          env: [
            { name: 'GREETING', value: 'me:' },
            { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
          ],
          ports: [{ name: 'http', containerPort: 8080 }],
          readinessProbe: { httpGet: { port: 'http', path: '/healthz' } },
        },
      ],
      spec: { terminationGracePeriodSeconds: 5 },
    }),
  )
  await api.until(() => a.ready('web'), 'the Pod is ready', 10_000)
  t.equal(a.get('web')?.status?.podIP, '10.244.0.2')
  t.equal(execFileSync('curl', ['-sS', '-m', '3', 'http://10.244.0.2:8080/'], { encoding: 'utf8' }), 'it is me: web\n', 'the node reaches the Pod, with its environment')
  t.match(execFileSync('ip', ['route'], { encoding: 'utf8' }), '10.244.1.0/24 via 192.168.56.12', "the other node's Pods have a route")

  t.equal(a.within('web', 'cat', '/etc/resolv.conf'), 'nameserver 10.96.0.10\nsearch demo.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n')
  t.equal(a.within('web', 'hostname'), 'web\n')
  t.match(a.within('web', 'cat', '/etc/nsswitch.conf'), 'hosts: files dns')
  t.notMatch(a.within('web', 'ls', '/run'), /systemd|dbus|nscd|netns/, 'nothing of the host answers in its /run')
  t.match(a.within('web', 'ip', 'route'), 'default via 169.254.1.1 dev eth0')
  t.notMatch(a.within('web', 'ps', '-e'), /unshare|FakeApi/, 'it sees only its own processes')

  await a.kill('SIGKILL')
  t.match(execFileSync('curl', ['-sS', '-m', '3', 'http://10.244.0.2:8080/'], { encoding: 'utf8' }), 'it is me', 'the Pod goes on without its agent')
  await a.start()
  await api.until(() => a.ready('web'), 'ready again')
  t.equal(a.status('web')?.restartCount, 0, 'the agent that started again found it')

  const before = a.status('web')?.containerID
  a.within('web', 'sh', '-c', 'kill -9 $(pidof node)')
  await api.until(() => a.status('web')?.restartCount === 1 && a.ready('web'), 'it is restarted', 10_000)
  t.match(a.status('web')?.lastState?.terminated, { exitCode: 137, reason: 'Error' })
  t.not(a.status('web')?.containerID, before)

  const now = a.get('web')!
  api.put({ ...now, metadata: { ...now.metadata, deletionTimestamp: new Date(Date.now() + 5000).toISOString(), deletionGracePeriodSeconds: 5 } })
  await api.until(() => a.get('web') === undefined, 'the object is gone', 8000)
  await api.until(() => a.records().length === 0, 'and nothing is kept of it')
  t.notMatch(execFileSync('ip', ['link'], { encoding: 'utf8' }), 'sy', 'and so is its interface')
})

test('what cannot run says why', async (t) => {
  const a = await agentOf(t)
  const { api } = a
  api.put({ ...api.read(nodes, 'node1')!, spec: { podCIDRs: ['10.244.0.0/24'] } })
  api.put(pod('demo/image', { node: 'node1', containers: [{ name: 'main', image: 'nginx' }] }))
  api.put(pod('demo/failing', { node: 'node1', containers: [{ name: 'main', command: ['sh', '-c', 'echo out; exit 3'] }] }))
  api.put(pod('demo/job', { node: 'node1', containers: [{ name: 'main', command: ['true'] }], spec: { restartPolicy: 'Never' } }))
  api.put(pod('demo/host', { node: 'node1', spec: { hostNetwork: true } }))
  api.put(pod('demo/env', { node: 'node1', containers: [{ name: 'main', command: ['true'], env: [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'none', key: 'a' } } }] }] }))
  await api.until(() => a.status('image')?.state?.waiting?.reason === 'CreateContainerError', 'no command')
  t.match(a.status('image')?.state?.waiting?.message, /runs processes, not images/)
  await api.until(() => a.status('failing')?.state?.waiting?.reason === 'CrashLoopBackOff', 'back-off', 10_000)
  t.match(a.status('failing')?.lastState?.terminated, { exitCode: 3 })
  await api.until(() => a.get('job')?.status?.phase === 'Succeeded', 'a Pod that ends', 10_000)
  await api.until(() => a.get('host')?.status?.phase === 'Running', 'a Pod of the host network')
  t.equal(a.get('host')?.status?.podIP, nodeIp)
  await api.until(() => a.status('env')?.state?.waiting?.reason === 'CreateContainerConfigError', 'a missing ConfigMap')
  t.equal(a.status('env')?.state?.waiting?.message, 'ConfigMap "none" not found')
})
