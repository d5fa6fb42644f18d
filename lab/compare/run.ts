import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect as dial } from 'node:net'
import { cpus, release, totalmem } from 'node:os'
import { createInterface } from 'node:readline'
import { connect, type Client } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { endpointslices, nodes, services } from '../../kube/resources.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { explainError } from '../../lib/log.ts'
import { launcher } from '../launcher.ts'
import { ceiling, type Report, type Sample } from './stats.ts'

/** What one comparison is told. */
export interface Plan {
  readonly modes: readonly string[]
  readonly sizes: readonly number[]
  readonly rounds: number
  readonly seconds: number
  readonly connections: number
}

const vip = '10.96.0.100'
const pods = ['10.244.0.2', '10.244.0.3']
const layout = `set -e
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
ip netns add pod; ip netns add client; ip netns add out
ip link add pod type veth peer name eth0 netns pod
ip link add client type veth peer name eth0 netns client
ip link add out type veth peer name eth0 netns out
for n in pod client; do ip addr add 169.254.1.1/32 dev $n scope link; ip link set $n up; done
ip addr add 192.168.56.11/24 dev out; ip link set out up
ip route add 10.244.0.2/32 dev pod; ip route add 10.244.0.3/32 dev pod; ip route add 10.244.0.9/32 dev client
for n in pod client; do
  ip -n $n link set lo up; ip -n $n link set eth0 up
done
ip -n pod addr add 10.244.0.2/32 dev eth0; ip -n pod addr add 10.244.0.3/32 dev eth0; ip -n client addr add 10.244.0.9/32 dev eth0
for n in pod client; do
  ip -n $n route add 169.254.1.1 dev eth0 scope link; ip -n $n route add default via 169.254.1.1 dev eth0
  ip netns exec $n sh -c 'echo "1024 65535" > /proc/sys/net/ipv4/ip_local_port_range; echo 4096 > /proc/sys/net/core/somaxconn' || true
done
ip -n out link set lo up; ip -n out addr add 192.168.56.1/24 dev eth0; ip -n out link set eth0 up
ip route add default via 192.168.56.1
`
/** wrk's own figures as JSON; its text rounds them. */
const lua = `done = function(s, l, r)
  local e = s.errors
  io.write(string.format('\\nJSON{"requests":%d,"us":%d,"errors":%d,"p":[%d,%d,%d,%d]}\\n', s.requests, s.duration, e.connect + e.read + e.write + e.status + e.timeout, l:percentile(50), l:percentile(90), l:percentile(99), l:percentile(99.9)))
end
`

/** Measures inside namespaces of its own (see `main.ts`): lays pods out, feeds real proxies from a real control plane, and loads them in turns. */
export async function measure(plan: Plan, progress: (text: string) => void): Promise<Report> {
  const began = performance.now()
  await run('sh', ['-c', layout])
  mkdirSync('/run/compare', { recursive: true })
  writeFileSync('/run/compare/wrk.lua', lua)
  const children: ChildProcess[] = []
  try {
    const server = spawn('ip', ['netns', 'exec', 'pod', launcher, 'lab', 'compare', '--role', 'serve'], { stdio: ['pipe', 'pipe', 'inherit'] })
    children.push(server)
    const opened = createInterface({ input: server.stdout })[Symbol.asyncIterator]()
    let port = 9000
    // A port for each measurement: what an earlier one left in TIME_WAIT would slow the next one's connections.
    const fresh = async (): Promise<number> => {
      server.stdin.write(`${++port}\n`)
      if ((await opened.next()).done === true) throw new Error('the endpoint ended')
      return port
    }
    progress('control plane')
    const kubeconfig = '/run/compare/admin.yaml'
    const control = spawn(launcher, ['controlplane', '--data', '/run/compare/data', '--listen', '127.0.0.1:6443', '--write-kubeconfig', kubeconfig, '--controllers=false'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    children.push(control)
    await ready(control)
    const client = connect(await loadCredentials(kubeconfig), { userAgent: 'switchyard-compare' })
    await client.create(nodes, {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: 'node1' },
      spec: { podCIDR: '10.244.0.0/24', podCIDRs: ['10.244.0.0/24'] },
      status: { addresses: [{ type: 'InternalIP', address: '192.168.56.11' }] },
    })
    const reasons = new Map<string, string>()
    const samples: Sample[] = []
    let made = 0
    let visits = 0
    const total = plan.sizes.length * plan.rounds * (plan.modes.length + 2)
    const visited = (what: string): void => {
      const left = (((performance.now() - began) / Math.max(1, visits)) * (total - visits)) / 1000
      progress(`${visits + 1} of ${total}: ${what}${visits < 2 ? '' : `; some ${Math.ceil(left)} s left`}`)
      visits++
    }
    // The endpoint is slow until its code is compiled; nobody's figures shall have that in them.
    await wrk(plan, `http://${pods[0]}:${await fresh()}/`, 2)
    await wrk(plan, `http://${pods[0]}:${port}/`, 1, 'Connection: close')
    for (const size of plan.sizes.toSorted((a, b) => a - b)) {
      progress(`${size} Services`)
      await Promise.all(
        Array.from({ length: 16 }, async () => {
          while (made < size) await add(client, made++, port + 1)
        }),
      )
      for (let round = 0; round < plan.rounds; round++) {
        const turn = round % plan.modes.length
        for (const mode of [ceiling, ...plan.modes.slice(turn), ...plan.modes.slice(0, turn), ceiling]) {
          visited(`${mode}, ${size} Services, round ${round + 1}`)
          if (reasons.has(mode)) continue
          if (mode === ceiling) {
            samples.push({ mode, services: size, round, ...(await load(plan, async () => `http://${pods[0]}:${await fresh()}/`)) })
            continue
          }
          await point(client, await fresh())
          const from = performance.now()
          const argv = [
            '--kubeconfig',
            kubeconfig,
            '--node',
            'node1',
            '--mode',
            mode,
            '--cluster-cidr',
            '10.244.0.0/16',
            '--conntrack-max-per-core',
            '0',
            '--status',
            '127.0.0.1:10256,127.0.0.1:10249',
          ]
          const proxy = spawn(launcher, ['proxy', ...argv], { stdio: ['ignore', 'ignore', 'pipe'] })
          children.push(proxy)
          try {
            try {
              await ready(proxy)
              await answers(port)
            } catch (error) {
              reasons.set(mode, explainError(error))
              progress(`${mode} cannot run here: ${explainError(error)}`)
              continue
            }
            const cold = performance.now() - from
            const under = await load(plan, async () => {
              await point(client, await fresh())
              await answers(port)
              return `http://${vip}/`
            })
            // The first change after quiet is written at once; this one shall be it.
            await sleep(300)
            const next = await fresh()
            await point(client, next)
            const changed = performance.now()
            await answers(next)
            const change = performance.now() - changed
            const memory = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${proxy.pid}/status`, 'utf8'))?.[1]) / 1024
            samples.push({ mode, services: size, round, errors: under.errors, values: { ...under.values, cold, change, memory } })
          } finally {
            await end(proxy)
            await run(launcher, ['proxy', ...argv, '--cleanup']).catch(() => {})
            await run('conntrack', ['-F']).catch(() => {})
          }
        }
      }
    }
    client.close()
    return {
      when: new Date().toISOString(),
      machine: { cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, memory: totalmem(), kernel: release(), node: process.version },
      settings: { sizes: plan.sizes, rounds: plan.rounds, seconds: plan.seconds, connections: plan.connections },
      modes: plan.modes.map((name) => ({ name, ...(reasons.has(name) ? { reason: reasons.get(name)! } : {}) })),
      samples,
      took: Math.round((performance.now() - began) / 1000),
    }
  } finally {
    for (const child of children.toReversed()) await end(child)
  }
}

async function add(client: Client, index: number, port: number): Promise<void> {
  const n = 100 + index
  const ip = `10.96.${n >> 8}.${n & 255}`
  const name = `web-${index}`
  await client.create(services, { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' }, spec: { clusterIP: ip, ports: [{ port: 80, targetPort: port, protocol: 'TCP' }] } })
  await client.create(endpointslices, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace: 'default', labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    endpoints: pods.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    ports: [{ name: '', port, protocol: 'TCP' }],
  })
}

/** Leads the Service that is measured to another port. */
async function point(client: Client, port: number): Promise<void> {
  await client.patch(endpointslices, 'web-0', 'default', { ports: [{ name: '', port, protocol: 'TCP' }] }, 'merge')
}

/** Resolves when the Service is answered by `port`. */
async function answers(port: number): Promise<void> {
  const until = performance.now() + 60_000
  while ((await ask()) !== port) {
    if (performance.now() > until) throw new Error('no connection reached the endpoint within a minute')
    await sleep(2)
  }
}

function ask(): Promise<number | undefined> {
  return new Promise((resolve) => {
    const socket = dial({ host: vip, port: 80 })
    let text = ''
    socket.setTimeout(250, () => socket.destroy())
    socket.on('connect', () => socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'))
    socket.on('data', (b) => (text += b.toString()))
    socket.on('error', () => {})
    socket.on('close', () => resolve(text === '' ? undefined : Number(text.trim().split('\n').at(-1))))
  })
}

/** Warms the path, then kept-alive requests, then new connections, each at a fresh port. */
async function load(plan: Plan, url: () => Promise<string>): Promise<Pick<Sample, 'values' | 'errors'>> {
  const kept = await url()
  await wrk(plan, kept, 0.5)
  const a = await wrk(plan, kept, plan.seconds)
  const b = await wrk(plan, await url(), plan.seconds, 'Connection: close')
  const [p50, p90, p99, p999] = a.p.map((us) => us / 1000)
  return { values: { requests: a.requests / (a.us / 1e6), connections: b.requests / (b.us / 1e6), p50: p50!, p90: p90!, p99: p99!, p999: p999! }, errors: a.errors + b.errors }
}

async function wrk(plan: Plan, url: string, seconds: number, ...headers: readonly string[]): Promise<{ requests: number; us: number; errors: number; p: number[] }> {
  const words = ['-t1', `-c${plan.connections}`, `-d${Math.max(1, Math.round(seconds))}s`, '-s', '/run/compare/wrk.lua', ...headers.flatMap((h) => ['-H', h]), url]
  const text = await run('ip', ['netns', 'exec', 'client', 'wrk', ...words])
  return JSON.parse(/^JSON(.*)$/m.exec(text)![1]!) as { requests: number; us: number; errors: number; p: number[] }
}

function ready(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let last = ''
    createInterface({ input: child.stderr! }).on('line', (line) => {
      last = line
      if (/\bready\b/.test(line)) resolve()
    })
    child.once('error', reject)
    child.once('close', () => reject(new Error(last.replace(/^.*?cannot work here: /, ''))))
  })
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.kill()
  const late = setTimeout(() => child.kill('SIGKILL'), 3000)
  await gone
  clearTimeout(late)
}

function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { maxBuffer: 1 << 24 }, (error, stdout, stderr) => (error === null ? resolve(stdout) : reject(new Error(`${program} failed: ${stderr.trim() || error.message}`))))
  })
}
