import tap, { test } from 'tap'
import { launcher } from '../launcher.ts'
import { eventually, TestLab } from '../testing/lab.ts'
import { inVm, vmLacking } from '../vm/run.ts'

tap.setTimeout(1_800_000)
const url = 'http://hello.demo.svc.cluster.local'

test('faults that take their time', { timeout: 400_000 }, async (t) => {
  const lab = new TestLab()
  t.teardown(() => lab.down())
  await lab.up()
  await lab.hello()
  await eventually('everything works', async () => (await lab.lab('check')).status === 0)

  await t.test('a node whose cable is pulled is noticed, its endpoints go, and it comes back by itself', async (t) => {
    const victim = (await Promise.all(['hello-1', 'hello-2'].map((p) => lab.nodeOf(p)))).find((n) => n !== 'node1')!
    t.equal((await lab.lab('break', 'cut', victim)).status, 0)
    t.strictSame((await lab.status()).broken, [`cut ${victim}`])
    t.not((await lab.lab('exec', 'outside', '--', 'ping', '-c1', '-W1', victim === 'node2' ? '192.168.56.12' : '192.168.56.13')).status, 0, 'nobody reaches it')
    const endpoints = async (): Promise<number> => {
      const { stdout } = await lab.cli('get', 'endpointslices', '-n', 'demo', '-o', 'json')
      const { items } = JSON.parse(stdout) as { items: { metadata: { labels: Record<string, string> }; endpoints: { conditions: { ready?: boolean } }[] }[] }
      return items
        .filter((s) => s.metadata.labels['kubernetes.io/service-name'] === 'hello')
        .flatMap((s) => s.endpoints ?? [])
        .filter((e) => e.conditions.ready !== false).length
    }
    // The node's Lease runs out first; afterwards its agent waits for answers to what it asked before.
    const patience = 180_000
    await eventually('its endpoint is gone', async () => (await endpoints()) === 1, patience)
    t.equal((await lab.lab('heal', 'cut', victim)).status, 0)
    await eventually('both endpoints are back', async () => (await endpoints()) === 2, patience)
    await eventually('everything works again', async () => (await lab.lab('check')).status === 0, patience)
  })

  await t.test('a control plane that is killed starts again, and nobody else has to', async (t) => {
    t.equal((await lab.lab('break', 'kill', 'node1/controlplane')).status, 0)
    const answers = await lab.curl(url, 20)
    t.strictSame(
      answers.filter((a) => !a.startsWith('hello from')),
      [],
      'traffic goes on meanwhile',
    )
    await eventually('the supervisor started it again', async () => (await lab.status()).parts.find((p) => p.name === 'node1/controlplane' && p.state === 'ready')?.restarts === 1)
    await eventually('everything works again', async () => (await lab.lab('check')).status === 0)
    t.ok((await lab.status()).parts.every((p) => p.name === 'node1/controlplane' || p.restarts === 0))
  })

  await t.test('a DNS, an agent and an ingress that are killed or frozen come back', async (t) => {
    for (const part of ['node2/dns', 'node2/agent', 'node1/ingress']) t.equal((await lab.lab('break', 'kill', part)).status, 0)
    await eventually('everything works again', async () => (await lab.lab('check')).status === 0)
    for (const part of ['node2/dns', 'node1/ingress']) t.equal((await lab.lab('break', 'freeze', part)).status, 0)
    t.equal((await lab.lab('heal')).status, 0)
    await eventually('and after they were frozen', async () => (await lab.lab('check')).status === 0)
  })

  await t.test('a node whose disk is full goes on forwarding, and runs Pods again when there is room', async (t) => {
    t.equal((await lab.lab('break', 'disk', 'node2')).status, 0)
    t.match((await lab.curl(url))[0], 'hello from')
    t.equal((await lab.lab('heal', 'disk')).status, 0)
    await eventually('everything works', async () => (await lab.lab('check')).status === 0)
  })
})

const lacking = await vmLacking()

test('links are made slow and lossy where the kernel has netem', { timeout: 1_500_000, skip: lacking ?? false }, async (t) => {
  const script = `set -e
export SWITCHYARD_STATE=/run/sy
s=${launcher}
$s lab up --nodes 1 --api-port 0 >&2
rtt() { $s lab exec outside -- ping -q -c 5 -i 0.3 -W 3 192.168.56.11 | sed -n 's/.*= [0-9.]*.\\([0-9.]*\\).*/\\1/p'; }
rtt
$s lab break delay node1 300ms >&2
rtt
$s lab heal >&2
$s lab break loss node1 100% >&2
$s lab exec outside -- ping -q -c 3 -i 0.3 -W 1 192.168.56.11 >&2 && echo answered || echo lost
$s lab heal >&2
rtt
$s lab down >&2
`
  const { status, stdout, stderr } = await inVm(['sh', '-c', script], { memory: 2048, timeout: 1_200_000 })
  t.equal(status, 0, stderr)
  const [before, slow, lost, after] = stdout.trim().split('\n')
  t.ok(Number(slow) >= 300 && Number(before) < 300 && Number(after) < 300, `milliseconds there and back: ${before}, ${slow}, ${after}`)
  t.equal(lost, 'lost')
})
