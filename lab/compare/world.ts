import { spawn, type ChildProcess } from 'node:child_process'
import { cpSync, existsSync, mkdirSync } from 'node:fs'
import { connect as dial } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { connect, type Client } from '../../kube/client.ts'
import { loadCredentials } from '../../kube/credentials.ts'
import { endpointslices, nodes, services } from '../../kube/resources.ts'
import { sleep } from '../../lib/lifecycle.ts'
import { launcher } from '../launcher.ts'
import type { Listed } from '../testing/linear.ts'
import { end, ready, run } from './processes.ts'

/** The Service that is measured, and the addresses of its endpoints: one Pod of two addresses. */
export const vip = '10.96.0.100'
export const endpoints = ['10.244.0.2', '10.244.0.3'] as const

const layout = `set -e
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
mkdir -p /run/netns
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

/** What a comparison runs in: Pods, an endpoint, a control plane with Services in it. */
export interface World {
  readonly kubeconfig: string
  /** Opens a port that none had before: what an earlier load left in TIME_WAIT would slow the next one's connections. */
  fresh(at?: string): Promise<number>
  /** A port that none had before, which nobody opens. */
  unused(): number
  /** Closes a port at one address of the Pod. */
  fail(port: number, at: string): Promise<void>
  /** Brings the number of Services to `count`. */
  grow(count: number): Promise<void>
  /** Leads the Service that is measured to `port`, at these endpoints. Resolves with the API's answer. */
  point(port: number, at?: readonly string[]): Promise<void>
  /** The Services as the linear list wants them; the one that is measured stands in the middle, where the mean of all Services is met. */
  listed(port: number): readonly Listed[]
  close(): Promise<void>
}

/** Lays the world out in the namespaces we are in. `prepared`: folders of a control plane's data, by number of Services, made by `prepare`. */
export async function makeWorld(prepared: string | undefined, progress: (text: string) => void): Promise<World> {
  await run('sh', ['-c', layout])
  mkdirSync('/run/compare', { recursive: true })
  const server = spawn('ip', ['netns', 'exec', 'pod', launcher, 'lab', 'compare', '--role', 'serve'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const done = createInterface({ input: server.stdout })[Symbol.asyncIterator]()
  const order = async (line: string): Promise<void> => {
    server.stdin.write(`${line}\n`)
    if ((await done.next()).done === true) throw new Error('the endpoint ended')
  }
  let port = 9000
  let made = 0
  let control: { readonly client: Client; readonly child: ChildProcess } | undefined
  const kubeconfig = '/run/compare/admin.yaml'
  if (prepared === undefined) {
    progress('control plane')
    control = await startControl('/run/compare/data', kubeconfig)
    await addNode(control.client)
  }
  return {
    kubeconfig,
    fresh: async (at) => {
      await order(`${++port}${at === undefined ? '' : `@${at}`}`)
      if (at !== undefined) for (const other of endpoints) if (other !== at) await order(`${port}@${other}`)
      return port
    },
    unused: () => ++port,
    fail: (failing, at) => order(`-${failing}@${at}`),
    grow: async (count) => {
      progress(`${count} Services`)
      if (prepared === undefined) {
        made = await addServices(control!.client, made, count)
        return
      }
      if (control !== undefined) {
        control.client.close()
        await end(control.child)
      }
      const data = join('/run/compare', `data-${count}`)
      cpSync(join(prepared, String(count)), data, { recursive: true })
      control = await startControl(data, kubeconfig)
      made = count
    },
    point: async (to, at = endpoints) => {
      const changed = {
        endpoints: at.map((address) => ({ addresses: [address], conditions: { ready: true } })),
        ports: [
          { name: 'http', port: to, protocol: 'TCP' },
          { name: 'udp', port: to, protocol: 'UDP' },
        ],
      }
      await control!.client.patch(endpointslices, 'web-0', 'default', changed, 'merge')
    },
    listed: (to) => {
      const all = Array.from({ length: made }, (_, i): Listed => ({
        name: `default/web-${i}`,
        address: addressOf(i),
        port: 80,
        endpoints: endpoints.map((address) => ({ address, port: i === 0 ? to : 9000 })),
      }))
      return [...all.slice(1, 1 + (made >> 1)), all[0]!, ...all.slice(1 + (made >> 1))]
    },
    close: async () => {
      control?.client.close()
      for (const child of [server, control?.child]) if (child !== undefined) await end(child)
    },
  }
}

/** Makes the data of a control plane with each of these numbers of Services, in a folder each. */
export async function prepare(folder: string, sizes: readonly number[], progress: (text: string) => void): Promise<void> {
  await run('ip', ['link', 'set', 'lo', 'up'])
  const data = join(folder, 'growing')
  const kubeconfig = join(folder, 'admin.yaml')
  let made = 0
  for (const size of sizes.toSorted((a, b) => a - b)) {
    progress(`${size} Services, made out here`)
    const fresh = !existsSync(data)
    const { client, child } = await startControl(data, kubeconfig)
    if (fresh) await addNode(client)
    made = await addServices(client, made, size)
    client.close()
    await end(child)
    cpSync(data, join(folder, String(size)), { recursive: true })
  }
}

async function startControl(data: string, kubeconfig: string): Promise<{ readonly client: Client; readonly child: ChildProcess }> {
  const words = ['controlplane', '--data', data, '--listen', '127.0.0.1:6443', '--write-kubeconfig', kubeconfig, '--controllers=false']
  const child = spawn(launcher, words, { stdio: ['ignore', 'ignore', 'pipe'] })
  await ready(child)
  return { child, client: connect(await loadCredentials(kubeconfig), { userAgent: 'switchyard-compare' }) }
}

async function addNode(client: Client): Promise<void> {
  await client.create(nodes, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'node1' },
    spec: { podCIDR: '10.244.0.0/24', podCIDRs: ['10.244.0.0/24'] },
    status: { addresses: [{ type: 'InternalIP', address: '192.168.56.11' }] },
  })
}

async function addServices(client: Client, made: number, count: number): Promise<number> {
  let next = made
  const work = async (): Promise<void> => {
    while (next < count) await addService(client, next++)
  }
  await Promise.all(Array.from({ length: 16 }, work))
  return Math.max(made, count)
}

function addressOf(index: number): string {
  const n = 100 + index
  return `10.96.${n >> 8}.${n & 255}`
}

async function addService(client: Client, index: number): Promise<void> {
  const name = `web-${index}`
  // Only the one that is measured takes datagrams, so that the others are what most Services are.
  const ports = (['TCP', ...(index === 0 ? ['UDP'] : [])] as const).map((protocol) => ({ name: protocol === 'TCP' ? 'http' : 'udp', port: 80, targetPort: 9000, protocol: protocol as 'TCP' | 'UDP' }))
  await client.create(services, { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' }, spec: { clusterIP: addressOf(index), ports } })
  await client.create(endpointslices, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace: 'default', labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    endpoints: endpoints.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    ports: ports.map((p) => ({ name: p.name, port: 9000, protocol: p.protocol })),
  })
}

/** Resolves when the Service is answered by `port`. */
export async function answers(port: number): Promise<void> {
  const until = performance.now() + 120_000
  while ((await ask()) !== port) {
    if (performance.now() > until) throw new Error('no connection reached the endpoint within two minutes')
    await sleep(1)
  }
}

/** The port that answers one connection to the Service; undefined if it is lost. */
export function ask(): Promise<number | undefined> {
  return new Promise((resolve) => {
    const socket = dial({ host: vip, port: 80 })
    let text = ''
    socket.setTimeout(1000, () => socket.destroy())
    socket.on('connect', () => socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'))
    socket.on('data', (b) => (text += b.toString()))
    socket.on('error', () => {})
    socket.on('close', () => resolve(text === '' ? undefined : Number(text.trim().split('\n').at(-1))))
  })
}
