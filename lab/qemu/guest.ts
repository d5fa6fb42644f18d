import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { explainError } from '../../lib/log.ts'
import { aborted } from '../../lib/lifecycle.ts'
import { command } from '../../lib/options.ts'
import { clusterPlan, nodeFiles, type PlannedPart } from '../cluster.ts'
import { Supervisor } from '../holder/supervisor.ts'
import { launcher } from '../launcher.ts'
import { renderHost } from '../network.ts'
import type { PodRecord } from '../targets.ts'
import type { Topology } from '../topology.ts'
import { withSystemPrograms } from '../up.ts'
import { reader, send, type Request } from './frames.ts'

/** What a machine is told at its start. */
export interface GuestOrder {
  readonly topology: Topology
  readonly index: number
  readonly secret: string
  /** Where it takes requests, behind the user-mode network card. */
  readonly port: number
}

/** Where a machine of the lab keeps its files; all in its own memory. */
export const inside = '/run/lab'

/** The user-mode network card: addresses that QEMU gives it. */
const user = { address: '10.0.2.15/24', gateway: '10.0.2.2', dns: '10.0.2.3' }

/** How long a part may take until it is ready, under emulation on a busy machine (ms). */
const patience = 600_000

/** `switchyard lab guest FILE`: a node's supervisor in a machine of `lab up --vm`. Nobody types it. */
export const guestCommand = command({
  name: 'guest',
  summary: 'Runs inside a machine of a lab (started by "switchyard lab up --vm").',
  flags: {},
  run: async ({ positionals }, context) => {
    const order = JSON.parse(readFileSync(positionals[0]!, 'utf8')) as GuestOrder
    const t = order.topology
    const node = t.nodes[order.index]!
    network(order)
    mkdirSync(join(inside, 'logs'), { recursive: true, mode: 0o700 })
    const supervisor = new Supervisor()
    let mode = node.mode ?? t.mode
    const plan = () => clusterPlan({ ...t, mode, nodes: t.nodes.map((n) => ({ ...n, mode: n.name === node.name ? undefined : n.mode })) }, { launcher, logs: join(inside, 'logs'), inside })
    const start = async (parts: readonly PlannedPart[]): Promise<void> => {
      const own = parts.filter((p) => p.node.name === node.name)
      for (const p of own) await supervisor.start({ name: p.name, argv: reachable(p.argv, t), log: p.log })
      for (const p of own) await supervisor.whenReady(p.name, patience, 5)
    }
    const pods = (): readonly PodRecord[] => {
      const folder = join(inside, 'nodes', node.name, 'agent/pods')
      return names(folder).flatMap((entry) => {
        try {
          return [JSON.parse(readFileSync(join(folder, entry, 'pod.json'), 'utf8')) as PodRecord]
        } catch {
          return []
        }
      })
    }
    const server = createServer({ allowHalfOpen: false }, (socket) => {
      let stdin: NodeJS.WritableStream | undefined
      const waiting: Buffer[] = []
      const end = (status: number, out = '', err = ''): void => {
        if (out !== '') send(socket, 'stdout', Buffer.from(out))
        if (err !== '') send(socket, 'stderr', Buffer.from(err))
        send(socket, 'exit', Buffer.from(String(status)))
      }
      const asked = async (line: string): Promise<void> => {
        const request = JSON.parse(line) as Request
        if (request.secret !== order.secret) return void socket.destroy()
        if ('run' in request) {
          const child = runs(request, pods(), socket, end)
          stdin = child.stdin
          for (const bytes of waiting.splice(0)) feed(stdin, bytes)
          return
        }
        if ('start' in request) await start(request.start === 'controlplane' ? [plan().controlplane] : plan().others)
        else if ('mode' in request) {
          mode = request.mode
          await start(plan().others.filter((p) => p.name.endsWith('/proxy')))
        }
        end(0, JSON.stringify({ parts: supervisor.status, pods: pods().map((p) => `${p.namespace}/${p.name}`), mode }))
      }
      const take = reader(
        (line) => void asked(line).catch((error: unknown) => end(1, '', explainError(error))),
        (kind, bytes) => {
          if (kind !== 'stdin') return
          if (stdin === undefined) waiting.push(Buffer.from(bytes))
          else feed(stdin, bytes)
        },
      )
      socket.on('data', take).on('error', () => {})
    })
    server.listen(order.port, '10.0.2.15')
    await aborted(context.signal)
  },
})

function feed(stdin: NodeJS.WritableStream, bytes: Buffer): void {
  if (bytes.length === 0) stdin.end()
  else stdin.write(bytes)
}

/** Runs a command on the node or in a Pod; it dies with the connection. */
function runs(request: Extract<Request, { run: unknown }>, pods: readonly PodRecord[], socket: Socket, end: (status: number, out?: string, err?: string) => void) {
  const pod = request.pod === undefined ? undefined : pods.find((p) => `${p.namespace}/${p.name}` === request.pod)
  if (request.pod !== undefined && pod === undefined) throw new Error(`no Pod ${request.pod} runs here`)
  const path = withSystemPrograms(process.env.PATH)
  const argv =
    pod === undefined
      ? ['env', `PATH=${path}`, `KUBECONFIG=${inside}/kubeconfigs/admin.yaml`, ...request.run]
      : ['nsenter', '-t', String(pod.pid), '-n', '-m', '-u', '-i', '-p', '--wd=/', '--', 'env', '-i', ...Object.entries({ ...request.env, ...pod.env }).map(([k, v]) => `${k}=${v}`), ...request.run]
  const child = spawn(argv[0]!, argv.slice(1), { cwd: '/', stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...request.env, PATH: path } })
  child.stdin.on('error', () => {})
  child.stdout.on('data', (b: Buffer) => void send(socket, 'stdout', b))
  child.stderr.on('data', (b: Buffer) => void send(socket, 'stderr', b))
  child.on('error', (error) => end(127, '', `${error.message}\n`))
  child.on('close', (code) => end(code ?? 255))
  socket.on('close', () => child.kill('SIGKILL'))
  return child
}

/** `eth0` is the cable that all machines share, `eth1` the card to the host; names and addresses as in every lab. */
function network(order: GuestOrder): void {
  const t = order.topology
  const node = t.nodes[order.index]!
  const lan = renderHost(t, node)
    .split('\n')
    .filter((line) => !line.startsWith('route add default'))
    .join('\n')
  execFileSync('ip', ['-batch', '-'], { input: `${lan}addr add ${user.address} dev eth1\nlink set eth1 up\nroute add default via ${user.gateway} dev eth1\n` })
  execFileSync('hostname', [node.name])
  for (const [name, text] of Object.entries(nodeFiles(t, node.name))) {
    // A link into /run, often.
    rmSync(`/etc/${name}`, { force: true })
    writeFileSync(`/etc/${name}`, name === 'resolv.conf' ? `nameserver ${user.dns}\n` : text)
  }
  for (const name of ['ipv4/ip_forward', ...(t.lan.length > 1 ? ['ipv6/conf/all/forwarding'] : [])]) writeFileSync(`/proc/sys/net/${name}`, '1')
}

/** The API is also asked through the card to the host, so it listens everywhere and announces the LAN. */
function reachable(argv: readonly string[], t: Topology): readonly string[] {
  const at = argv.indexOf('--listen')
  if (!argv.includes('controlplane') || at < 0) return argv
  return [...argv.with(at + 1, `:${t.apiPort}`), '--advertise-address', t.nodes[0]!.address]
}

function names(folder: string): readonly string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}
