import tap, { test } from 'tap'
import { sleep } from '../../lib/lifecycle.ts'
import { ask, eventually, TestLab } from '../testing/lab.ts'

tap.setTimeout(300_000)
const url = 'http://hello.demo.svc.cluster.local'
const lab = new TestLab()
tap.teardown(() => lab.down())
await lab.up('--publish', '0:ingress')
await lab.hello()
await eventually('the Service answers by name', async () => (await lab.curl(url))[0]!.startsWith('hello from'))
const port = (await lab.status()).published[0]!.port

test('without its control plane a cluster goes on; with it again, it catches up', { timeout: 120_000 }, async (t) => {
  t.equal((await lab.lab('break', 'stop', 'node1/controlplane')).status, 0)
  const answers = await lab.curl(url, 20)
  t.strictSame(
    answers.filter((a) => !a.startsWith('hello from')),
    [],
    'the proxy forwards and the DNS answers',
  )
  t.match(await ask(port, 'hello.example.com'), /^200 hello from/, 'and so does the Ingress')
  t.equal((await lab.lab('break', 'kill', 'node2/proxy')).status, 0)
  t.match((await lab.curl(url, 4)).filter((a) => a.startsWith('hello from')).length, 4, 'a proxy that ends leaves its rules')
  t.match((await lab.lab('heal')).stdout, 'stop node1/controlplane: mended')
  await eventually('the control plane answers', async () => (await lab.cli('get', 'nodes')).status === 0)
  t.equal((await lab.cli('delete', 'pod', 'hello-1', '-n', 'demo')).status, 0)
  await eventually('the endpoint is gone', async () => (await lab.curl(url, 12)).every((a) => a.startsWith('hello from hello-2')))
  await lab.hello()
})

test('a full disk of the control plane refuses writes, and loses nothing', { timeout: 120_000 }, async (t) => {
  t.equal((await lab.lab('break', 'disk', 'controlplane')).status, 0)
  t.not((await lab.cli('delete', 'service', 'second', '-n', 'demo')).status, 0, 'a write that cannot be kept is refused')
  t.match((await lab.curl(url))[0], 'hello from', 'traffic goes on')
  t.equal((await lab.lab('heal')).status, 0)
  await eventually('it is there again', async () => (await lab.cli('get', 'service', 'second', '-n', 'demo')).status === 0)
})

test('a frozen proxy forwards', { timeout: 60_000 }, async (t) => {
  const node = await lab.nodeOf('client')
  await lab.lab('break', 'freeze', `${node}/proxy`)
  t.strictSame(
    (await lab.curl(url, 6)).filter((a) => !a.startsWith('hello from')),
    [],
  )
  await lab.lab('heal')
})

test('requests through the Ingress go on while a node dies', { timeout: 120_000 }, async (t) => {
  // The Ingress itself is on node1: the Pod on another node dies.
  const victim = (await Promise.all(['hello-1', 'hello-2'].map((p) => lab.nodeOf(p)))).find((n) => n !== 'node1')!
  const codes: Promise<string>[] = []
  const ended = new AbortController()
  const asking = (async () => {
    while (!ended.signal.aborted) {
      codes.push(ask(port, 'hello.example.com', '/', 15_000))
      await sleep(100)
    }
  })()
  await sleep(500)
  const inFlight = 2
  t.equal((await lab.lab('break', 'node', victim)).status, 0)
  await sleep(5000)
  ended.abort()
  await asking
  const answers = await Promise.all(codes)
  const lost = answers.filter((a) => !a.startsWith('200'))
  t.comment(`${answers.length} requests, ${lost.length} lost`)
  t.ok(lost.length <= inFlight, `at most what was in flight is lost: ${[...new Set(lost)].join(', ')}`)
  await lab.lab('heal')
})

test('what cannot be broken here is named', async (t) => {
  t.match((await lab.lab('break', 'cut', 'node9')).stderr, 'there is no node "node9"; there are node1, node2, node3')
  t.match((await lab.lab('break', 'melt', 'node1')).stderr, 'cannot break "melt"')
  const delay = await lab.lab('break', 'delay', 'node2', '20ms')
  if (delay.status === 0) t.match((await lab.lab('heal')).stdout, 'delay node2: mended')
  else t.match(delay.stderr, 'this kernel has no netem')
})
