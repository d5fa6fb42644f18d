// Run in namespaces of its own by bench/proxy.ts: what packets of the rules cost. Two pods, `a` who asks and `b` who answers, beside this node.
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { service, slice } from '../kube/testing/builders.ts'
import { sleep } from '../lib/lifecycle.ts'
import { AF_INET, SO_LINGER, SOCK_STREAM, SOL_SOCKET } from '../linux/ffi/constants.ts'
import { checked } from '../linux/ffi/errno.ts'
import { Arena, syscalls } from '../linux/ffi/ffi.ts'
import { writeSockaddr } from '../linux/ffi/sockaddr.ts'
import { compile } from '../proxy/compile.ts'
import type { ServiceTable } from '../proxy/table.ts'
import { backendOf, clusterIp, herd, options, ways } from './proxy-herd.ts'
import { median } from './row.ts'

/** Medians of the time to connect, microseconds, a round each. */
export interface Connects {
  readonly few: readonly number[]
  readonly first: readonly number[]
  readonly last: readonly number[]
  readonly nobody: readonly number[]
  readonly empty: readonly number[]
}

/** Bytes a second, and CPU milliseconds a GiB of whoever stands between. */
export interface Streams {
  readonly direct: readonly number[]
  readonly ours: readonly number[]
  readonly cpu: readonly number[]
  readonly haproxy: readonly number[]
}

const pods = { a: '10.244.0.5', b: '10.244.1.5' } as const
const forever = new AbortController().signal
const self = [join(import.meta.dirname, '../scripts/node'), import.meta.filename] as const

function layout(): void {
  const lines = ['mkdir -p /run/netns', 'echo 1 > /proc/sys/net/ipv4/ip_forward', 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done']
  for (const [name, ip] of Object.entries(pods)) {
    const near = ip.replace(/5$/, '1')
    lines.push(
      `ip netns add ${name}; ip link add v${name} type veth peer name eth0 netns ${name}; ip addr add ${near}/24 dev v${name}; ip link set v${name} up`,
      `ip -n ${name} link set lo up; ip -n ${name} addr add ${ip}/24 dev eth0; ip -n ${name} link set eth0 up; ip -n ${name} route add default via ${near}`,
    )
  }
  execFileSync('sh', ['-ec', lines.join('\n')], { stdio: ['ignore', 'ignore', 'inherit'] })
}

/** `count` Services of two endpoints; the first and the last of them lead to pod b. */
function table(count: number): ServiceTable {
  const { services, slices } = herd(count, 2)
  const ends = [0, count - 1].map((i) => slice(`demo/web-${i}`, [`${pods.b}@n1`], ['http:8080']))
  return compile({ services, slices: [ends[0]!, ...slices.slice(1, -1), ends[1]!] }, options).table
}

async function connects(name: string, count: number, rounds: number): Promise<Connects> {
  const way = ways.find((w) => w.name === name)!
  const out = { few: [] as number[], first: [] as number[], last: [] as number[], nobody: [] as number[], empty: [] as number[] }
  const server = await serve()
  const [small, large] = [table(100), table(count)]
  try {
    for (let round = 0; round < rounds; round++) {
      if (way.variant === 'legacy') execFileSync('iptables-legacy', ['-t', 'nat', '-L'])
      else execFileSync('nft', ['-f', '-'], { input: ['prerouting', 'output', 'postrouting'].map((h) => `table ip bench {\n chain ${h} {\n type nat hook ${h} priority 0\n }\n}\n`).join('') })
      out.empty.push((await ask([pods.b, 8080]))[0]!)
      if (way.variant !== 'legacy') execFileSync('nft', ['delete table ip bench'])
      const backend = await backendOf(way)
      await backend.apply(small, forever)
      out.few.push((await ask([clusterIp(0), 80]))[0]!)
      await backend.apply(large, forever)
      const [first, last, nobody] = await ask([clusterIp(0), 80], [clusterIp(count - 1), 80], [pods.b, 8080])
      out.first.push(first!)
      out.last.push(last!)
      out.nobody.push(nobody!)
      await backend.cleanup()
      await backend.close()
    }
  } finally {
    server.kill()
  }
  return out
}

async function serve(): Promise<ChildProcess> {
  const child = spawn('ip', ['netns', 'exec', 'b', ...self, 'serve'], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

async function ask(...to: readonly (readonly [string, number])[]): Promise<readonly number[]> {
  const child = spawn('ip', ['netns', 'exec', 'a', ...self, 'connect', ...to.flat().map(String)], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (b: Buffer) => (text += String(b)))
  await once(child, 'close')
  return JSON.parse(text) as number[]
}

/** Connects to each in turn, many times, by blocking calls; medians in microseconds. */
async function connect(to: readonly (readonly [string, number])[]): Promise<readonly number[]> {
  const sys = syscalls()
  const arena = new Arena(4096)
  // struct linger: on, 0 seconds.
  arena.buffer.writeInt32LE(1, 64)
  arena.buffer.writeInt32LE(0, 68)
  const took: number[][] = to.map(() => [])
  for (let i = 0; i < 2600; i++) {
    for (const [k, [host, port]] of to.entries()) {
      const length = writeSockaddr(arena.buffer, 0, host, port)
      const fd = checked('socket', sys.socket(AF_INET, SOCK_STREAM, 0))
      const began = process.hrtime.bigint()
      checked(`connect ${host}`, sys.connect(fd, arena, 0, length))
      const ended = process.hrtime.bigint()
      // The first ones warm up.
      if (i >= 600) took[k]!.push(Number(ended - began) / 1000)
      // Ends by a reset, so that no port waits.
      sys.setsockopt(fd, SOL_SOCKET, SO_LINGER, arena, 64, 72)
      sys.close(fd)
    }
    if (i % 100 === 0) await sleep(10)
  }
  return took.map(median)
}

async function streams(rounds: number, seconds: number): Promise<Streams> {
  const out = { direct: [] as number[], ours: [] as number[], cpu: [] as number[], haproxy: [] as number[] }
  const backend = await backendOf({ name: 'userspace', mode: 'userspace' })
  const objects = { services: [service('demo/stream', { clusterIP: '10.96.0.1', ports: ['s:5201'] })], slices: [slice('demo/stream', [`${pods.b}@n1`], ['s:5201'])] }
  await backend.apply(compile(objects, options).table, forever)
  const haproxy = startHaproxy()
  try {
    for (let round = 0; round < rounds; round++) {
      out.direct.push((await iperf(pods.b, 5201, seconds)).rate)
      const spent = process.cpuUsage()
      const ours = await iperf('10.96.0.1', 5201, seconds)
      const used = process.cpuUsage(spent)
      out.ours.push(ours.rate)
      out.cpu.push((used.user + used.system) / 1000 / (ours.bytes / 2 ** 30))
      if (haproxy === undefined) continue
      const before = cpuOf(haproxy.pid!)
      const { bytes } = await iperf('10.244.0.1', 5202, seconds)
      out.haproxy.push((cpuOf(haproxy.pid!) - before) / (bytes / 2 ** 30))
    }
  } finally {
    haproxy?.kill()
    await backend.cleanup()
    await backend.close()
  }
  return out
}

async function iperf(host: string, port: number, seconds: number): Promise<{ readonly rate: number; readonly bytes: number }> {
  const server = spawn('ip', ['netns', 'exec', 'b', 'iperf3', '-s', '-1', '--forceflush', '-p', '5201'], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(server.stdout, 'data')
  await sleep(200)
  const client = spawn('ip', ['netns', 'exec', 'a', 'iperf3', '-c', host, '-p', String(port), '-t', String(seconds), '-J'], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  client.stdout.on('data', (b: Buffer) => (text += String(b)))
  await once(client, 'close')
  server.kill()
  const { end, error } = JSON.parse(text) as { end: { sum_received?: { bytes: number; bits_per_second: number } }; error?: string }
  if (end.sum_received === undefined) throw new Error(`iperf3 to ${host}:${port}: ${error}`)
  return { rate: end.sum_received.bits_per_second / 8, bytes: end.sum_received.bytes }
}

function startHaproxy(): ChildProcess | undefined {
  try {
    execFileSync('haproxy', ['-v'], { stdio: 'ignore' })
  } catch {
    return undefined
  }
  writeFileSync(
    '/run/haproxy.cfg',
    `global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option splice-auto\nlisten l\n  bind 10.244.0.1:5202\n  server s ${pods.b}:5201\n`,
  )
  return spawn('haproxy', ['-db', '-f', '/run/haproxy.cfg'], { stdio: 'ignore' })
}

/** Milliseconds of CPU of a process; a tick is 10. */
function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(stat[11]) + Number(stat[12])) * 10
}

const [what, ...rest] = process.argv.slice(2)
if (what === 'serve') {
  createServer((socket) => socket.on('error', () => {}).destroy()).listen({ port: 8080, host: '0.0.0.0', backlog: 4096 }, () => process.stdout.write('up\n'))
} else if (what === 'connect') {
  const to = rest.flatMap((host, i) => (i % 2 === 0 ? [[host, Number(rest[i + 1])] as const] : []))
  process.stdout.write(`${JSON.stringify(await connect(to))}\n`)
  process.exit(0)
} else if (what === 'connects' || what === 'streams') {
  layout()
  const result = what === 'connects' ? await connects(rest[0]!, Number(rest[1]), Number(rest[2])) : await streams(Number(rest[0]), Number(rest[1]))
  process.stdout.write(`${JSON.stringify(result)}\n`)
  process.exit(0)
}
