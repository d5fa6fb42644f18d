import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { explainError } from '../lib/log.ts'
import { sleep } from '../lib/lifecycle.ts'
import { UsageError } from '../lib/options.ts'
import { askControl } from './control.ts'
import { holderInit } from './holder/scripts.ts'
import { launcher } from './launcher.ts'
import { beginning, childrenOf, makeState, readRecord, recordForm, removeState, statePaths, writeRecord, type LabRecord } from './state.ts'
import type { Topology } from './topology.ts'
import { startUplink, uplinkPackages } from './uplink.ts'
import type { Order } from './holder/main.ts'
import { launched, lifeline, type Up } from './lifeline.ts'

/** A port of the host that leads into the lab. */
export interface Published {
  readonly host: string
  readonly port: number
  readonly to: string
  /** Any port will do if this one is taken. */
  readonly orAny?: boolean
}

export interface UpOptions {
  readonly publish: readonly Published[]
  /** Of the API on 127.0.0.1; 6443 if it is free, else any, when left out. */
  readonly apiPort?: number | undefined
  readonly progress: (what: string, ms: number) => void
  readonly signal: AbortSignal
}

export const usualApiPort = 6443

/** Brings the lab up; resolves when all parts are ready, rejects with the reason and leaves nothing running. */
export async function up(topology: Topology, options: UpOptions): Promise<Up> {
  const paths = statePaths(topology.name)
  if (readRecord(paths) !== undefined) throw new Error(`the lab "${topology.name}" is up already; "switchyard lab down" ends it`)
  const rootless = process.getuid?.() !== 0
  mayUnshare(rootless)
  if (topology.uplink !== undefined && spawnSync(topology.uplink, ['--version'], { env: { ...process.env, PATH: withSystemPrograms(process.env.PATH) } }).error !== undefined)
    throw new Error(`the uplink needs the program ${topology.uplink}: apt-get install --no-install-recommends ${uplinkPackages[topology.uplink]}`)
  const api = await open({ host: '127.0.0.1', port: options.apiPort ?? usualApiPort }, '--api-port', options.apiPort === undefined)
  const opened: { server: Server; to: string; port: number }[] = [{ server: api, to: `${topology.nodes[0]!.address}:${topology.apiPort}`, port: portOf(api) }]
  let child: ChildProcess | undefined
  let tie: Socket | undefined
  try {
    for (const p of options.publish) {
      const server = await open(p, '--publish', p.orAny === true)
      opened.push({ server, to: publishTarget(topology, p.to), port: portOf(server) })
    }
    makeState(paths)
    const log = openSync(join(paths.logs, 'holder.log'), 'a')
    // The sockets were opened out here and go in by descriptor: inside there is no way to the host's network.
    const fds = opened.map(({ server }) => descriptorOf(server))
    const env = { ...process.env, PATH: withSystemPrograms(process.env.PATH) }
    if (topology.uplink !== undefined) tie = startUplink(topology.uplink, rootless, join(paths.logs, 'uplink.log'), env)
    child = spawn(
      'unshare',
      [
        ...(rootless ? ['--user', '--map-root-user'] : []),
        '--net',
        '--mount',
        '--uts',
        '--ipc',
        '--pid',
        '--fork',
        '--kill-child',
        '--mount-proc',
        '--',
        'sh',
        '-c',
        holderInit,
        'holder',
        paths.dir,
        launcher,
        'lab',
        'hold',
      ],
      {
        detached: true,
        cwd: '/',
        stdio: ['ignore', log, log, 'pipe', ...fds, ...(tie === undefined ? [] : [descriptorOf(tie)])],
        env,
      },
    )
    closeSync(log)
  } finally {
    // A copy left here would take connections that nobody answers.
    await Promise.all(opened.map(({ server }) => new Promise((resolve) => server.close(resolve))))
  }
  return launched(child, {
    paths,
    program: 'unshare',
    progress: options.progress,
    signal: options.signal,
    order: async (pid, line) => {
      const record: LabRecord = {
        form: recordForm,
        topology,
        pid,
        began: beginning(pid) ?? '',
        rootless,
        apiPort: opened[0]!.port,
        published: opened.slice(1).map(({ port, to }) => ({ port, to })),
      }
      writeRecord(paths, record)
      const order: Order = {
        topology,
        paths,
        apiPort: record.apiPort,
        sockets: opened.map(({ to }, i) => {
          const colon = to.lastIndexOf(':')
          return { fd: lifeline + 1 + i, to: { host: to.slice(0, colon), port: Number(to.slice(colon + 1)) } }
        }),
        inherited: lifeline + 1 + opened.length + (tie === undefined ? 0 : 1),
      }
      line.write(`${JSON.stringify(order)}\n`)
      if (tie !== undefined) {
        const mine = tie
        // Closed, not ended: an end would reach the lab's copy too.
        tie.write(`${await firstInside(pid)}\n`, () => mine.destroy())
      }
      return record
    },
  })
}

function descriptorOf(socket: Server | Socket): number {
  return (socket as unknown as { _handle: { fd: number } })._handle.fd
}

/** The first process inside the namespaces that `unshare` makes. */
async function firstInside(pid: number): Promise<number> {
  for (let tries = 0; tries < 500; tries++) {
    const [init] = childrenOf(pid)
    if (init !== undefined) return init
    await sleep(10)
  }
  throw new Error('unshare made no process')
}

/** Ends a lab, whoever brought it up. False: there was none. */
export async function down(name: string): Promise<boolean> {
  const paths = statePaths(name)
  const record = readRecord(paths)
  if (record === undefined) return false
  await askControl(paths.control, 'down', {}, AbortSignal.timeout(1000)).catch(() => {})
  for (let waited = 0; beginning(record.pid) === record.began; waited += 10) {
    // Killing the holder is always enough; asking first only lets it say goodbye.
    if (waited === 1000) process.kill(record.pid, 'SIGKILL')
    if (waited > 10_000) throw new Error(`process ${record.pid}, which holds the lab, does not end`)
    await sleep(10)
  }
  removeState(paths)
  return true
}

/** `--publish [ADDR:]PORT:TO`, where TO is `ingress`, `ingress-https`, `NODE:PORT` or `ADDR:PORT`. */
export function parsePublish(text: string): Published {
  const m = /^(?:(\[[0-9a-f:]+\]|[\d.]+):)?(\d{1,5}):(.+)$/i.exec(text)
  if (m === null || Number(m[2]) > 65_535) throw new UsageError(`flag --publish: expected [ADDR:]PORT:ingress or [ADDR:]PORT:NODE:PORT, got "${text}"`)
  return { host: (m[1] ?? '127.0.0.1').replace(/^\[|\]$/g, ''), port: Number(m[2]), to: m[3]! }
}

/** Where a published port leads, as `ADDR:PORT` on the LAN. */
export function publishTarget(t: Topology, to: string): string {
  const first = t.nodes[0]!.address
  if (to === 'ingress') return `${first}:80`
  if (to === 'ingress-https') return `${first}:443`
  const m = /^(.+):(\d{1,5})$/.exec(to)
  const node = t.nodes.find((n) => n.name === m?.[1])
  if (m === null || (node === undefined && !/^[\d.]+$/.test(m[1]!)))
    throw new UsageError(`flag --publish: there is no "${to}"; name ingress, ingress-https, or one of ${t.nodes.map((n) => n.name).join(', ')} and a port`)
  return `${node?.address ?? m[1]}:${m[2]}`
}

/** A PATH on which `ip` and `iptables` are found, also for users whose own leaves the system folders out. */
export function withSystemPrograms(path: string | undefined): string {
  const have = (path ?? '').split(':').filter((p) => p !== '')
  return [...have, ...['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'].filter((p) => !have.includes(p))].join(':')
}

/** Throws with what to do when this user may not make namespaces. */
export function mayUnshare(rootless: boolean): void {
  const tried = spawnSync('unshare', [...(rootless ? ['--user', '--map-root-user'] : []), '--net', '--mount', '--pid', '--fork', '--mount-proc', 'true'], {
    encoding: 'utf8',
    env: { ...process.env, PATH: withSystemPrograms(process.env.PATH) },
  })
  if (tried.error !== undefined) throw new Error('the lab needs the program "unshare" (Debian package util-linux)', { cause: tried.error })
  if (tried.status === 0) return
  const words = tried.stderr.trim()
  if (!rootless)
    throw new Error(
      `root may not make namespaces here (${words}); in a container, start it with --privileged, or with --cap-add SYS_ADMIN --cap-add NET_ADMIN and an unconfined seccomp and AppArmor profile`,
    )
  throw new Error(`this user may not make user namespaces (${words}). ${userNamespaceAdvice()}`)
}

/** Which setting forbids user namespaces, and the command that allows them. */
export function userNamespaceAdvice(read: (file: string) => string | undefined = readSysctl): string {
  if (read('kernel/apparmor_restrict_unprivileged_userns') === '1')
    return 'AppArmor restricts them (Ubuntu 23.10 and later): sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run the lab with sudo.'
  if (read('kernel/unprivileged_userns_clone') === '0') return 'They are switched off: sudo sysctl -w kernel.unprivileged_userns_clone=1, or run the lab with sudo.'
  if (read('user/max_user_namespaces') === '0') return 'Their number is limited to 0: sudo sysctl -w user.max_user_namespaces=15000, or run the lab with sudo.'
  return 'A security module, or the container we are in, forbids them: run the lab with sudo.'
}

function readSysctl(file: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${file}`, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** A socket that listens at `at`; on any port there if `orAny` and this one is taken. */
async function open(at: { readonly host: string; readonly port: number }, flag: string, orAny: boolean): Promise<Server> {
  try {
    return await listen(at)
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
    if (taken && orAny) return open({ ...at, port: 0 }, flag, false)
    throw new Error(`cannot listen on ${at.host}:${at.port} for ${flag}: ${taken ? 'the port is in use' : explainError(error)}; choose another with ${flag}`, { cause: error })
  }
}

function listen(at: { readonly host: string; readonly port: number }): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ host: at.host, port: at.port, exclusive: true }, () => resolve(server))
  })
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port
}
