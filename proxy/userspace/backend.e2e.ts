import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import tap, { test } from 'tap'
import type { EndpointSlice, Service } from '../../kube/objects.ts'
import { service, slice } from '../../kube/testing/builders.ts'
import type { Cidr } from '../../lib/ip.ts'
import { silent } from '../../lib/log.ts'
import { chooseDriver } from '../../lib/sockets/choose.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import { inside } from '../../lab/testing/inside.ts'
import { compile } from '../compile.ts'
import { UserspaceBackend } from './backend.ts'

inside(import.meta.filename)
tap.setTimeout(280_000)

// This namespace is the node; pods hang off it by veths that have no address, as the lab's do. `c` talks, `a` and `b` serve.
const pods = { a: '10.180.0.1', b: '10.180.0.2', c: '10.180.0.3' } as const
const sh = (text: string): string => execFileSync('sh', ['-ec', text], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
sh('sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip link add lan type bridge; ip addr add 192.168.56.11/24 dev lan; ip link set lan up; ip route add default via 192.168.56.1')
for (const [name, ip] of Object.entries(pods)) {
  sh(`ip netns add ${name}
ip link add v${name} type veth peer name eth0 netns ${name}
ip link set v${name} up
ip route add ${ip}/32 dev v${name} src 192.168.56.11
ip -6 addr add fe80::1/64 dev v${name} nodad
ip -6 route add fd00:180::${ip.split('.')[3]}/128 dev v${name}
echo 1 > /proc/sys/net/ipv4/conf/v${name}/proxy_arp
ip -n ${name} link set lo up
ip -n ${name} addr add ${ip}/32 dev eth0
ip -n ${name} -6 addr add fd00:180::${ip.split('.')[3]}/128 dev eth0 nodad
ip -n ${name} link set eth0 up
ip -n ${name} route add 169.254.1.1 dev eth0 scope link
ip -n ${name} route add default via 169.254.1.1
ip -n ${name} -6 route add default via fe80::1 dev eth0`)
}

sh('ip -6 addr add fd00:56::11/128 dev lo; ip -6 route add fd00:30::/112 dev va')

const servers: ChildProcess[] = []
const server = async (name: string): Promise<ChildProcess> => {
  const code = `
    const { createServer } = require('node:net'), dgram = require('node:dgram')
    createServer({ allowHalfOpen: true }, (s) => { let got = ''; s.on('data', (b) => { got += b }); s.on('end', () => s.end('${name} ' + got)); s.on('error', () => {}) }).listen(8080, '::', () => {
      const u = dgram.createSocket('udp6'); u.on('message', (b, r) => u.send(b.length > 60 ? b : '${name} ' + b, r.port, r.address)); u.bind(8053, '::', () => console.log('up'))
    })`
  const child = spawn('ip', ['netns', 'exec', name, process.execPath, '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  servers.push(child)
  await once(child.stdout!, 'data')
  return child
}
// One client a namespace, asked line by line: starting a process for each question would be most of the test.
const clientCode = `
  const net = require('node:net'), dgram = require('node:dgram')
  require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
    const { id, to, port, kind, text, patience } = JSON.parse(line)
    let done = false
    const say = (got) => { if (done) return; done = true; clearTimeout(timer); end(); console.log(JSON.stringify({ id, got })) }
    const timer = setTimeout(() => say('timeout'), patience)
    let end
    if (kind === 'tcp') {
      const s = net.connect({ host: to, port, allowHalfOpen: true }, () => s.end(text))
      let got = ''
      end = () => s.destroy()
      s.on('data', (b) => { got += b }).on('end', () => say(got)).on('error', (e) => say(e.code))
    } else {
      const s = dgram.createSocket(to.includes(':') ? 'udp6' : 'udp4')
      const again = setInterval(() => up && s.send(text), 2000)
      let up = false
      end = () => { clearInterval(again); s.close() }
      s.on('message', (b) => say(b.length > 100 ? String(b.length) : String(b))).on('error', (e) => say(e.code))
      s.connect(port, to, () => { up = true; s.send(text) })
    }
  }).on('close', () => process.exit())`
const clients = new Map<string, { readonly child: ChildProcess; readonly waiting: Map<number, (got: string) => void> }>()
let asked = 0

/** What a client in `from` gets; `here` is the node itself. `patience`: milliseconds of silence that are an answer. */
const ask = (from: string, to: string, port: number, kind: 'tcp' | 'udp' = 'tcp', text = 'hi', patience = 20_000): Promise<string> => {
  let client = clients.get(from)
  if (client === undefined) {
    const args = [...(from === 'here' ? [] : ['ip', 'netns', 'exec', from]), process.execPath, '-e', clientCode]
    const child = spawn(args[0]!, args.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
    const waiting = new Map<number, (got: string) => void>()
    createInterface({ input: child.stdout }).on('line', (line) => {
      const { id, got } = JSON.parse(line) as { id: number; got: string }
      waiting.get(id)?.(got)
      waiting.delete(id)
    })
    clients.set(from, (client = { child, waiting }))
  }
  const { child, waiting } = client
  const id = ++asked
  return new Promise((resolve) => {
    waiting.set(id, resolve)
    child.stdin!.write(`${JSON.stringify({ id, to, port, kind, text: text === 'x' ? text.repeat(60_000) : text, patience })}\n`)
  })
}

const kernel = realKernel({ openNetlink })
const cidrs = (...c: string[]): readonly Cidr[] => c as readonly string[] as readonly Cidr[]
const options = { node: 'here', clusterCidrs: cidrs('10.180.0.0/16', 'fd00:180::/48'), serviceCidrs: cidrs('172.30.0.0/16', 'fd00:30::/112') }
type Objects = { readonly services: readonly Service[]; readonly slices: readonly EndpointSlice[] }
const never = new AbortController().signal

const ports = ['http:80->8080/TCP@30080', 'dns:53->8053/UDP@30053']
const slicePorts = ['http:8080', 'dns:8053/UDP']
const web = (eps: readonly string[], more: object = {}): Objects => ({
  services: [service('web', { clusterIP: '172.30.0.10', type: 'NodePort', ports, ...more })],
  slices: [slice('web', eps, slicePorts)],
})
const both = ['10.180.0.1@here', '10.180.0.2@here']

for (const sockets of ['node', 'epoll'] as const) {
  const chosen = await chooseDriver(sockets, () => import('../../linux/sockets/driver.ts')).catch((error: Error) => error.message)
  if (typeof chosen === 'string') {
    test(`on ${sockets}`, async (t) => void t.pass(chosen, { skip: chosen }))
    continue
  }
  const backend = new UserspaceBackend({ kernel, log: silent, driver: chosen.driver, udpIdle: 400 })
  const apply = (o: Objects): Promise<{ readonly refused: readonly unknown[] }> => backend.apply(compile(o, options).table, never)
  let a: ChildProcess

  test(`on ${sockets}: pods and the node itself reach both endpoints of a ClusterIP and a NodePort`, async (t) => {
    a = await server('a')
    await server('b')
    t.equal(await backend.probe(), undefined)
    t.same((await apply(web(both))).refused, [])
    for (const from of ['c', 'a', 'here']) {
      const seen = new Set<string>()
      for (let i = 0; i < 12 && seen.size < 2; i++) seen.add(await ask(from, '172.30.0.10', 80))
      t.same([...seen].sort(), ['a hi', 'b hi'], `from ${from}`)
      t.match(await ask(from, '192.168.56.11', 30080), /^[ab] hi$/, `NodePort from ${from}`)
      t.match(await ask(from, '172.30.0.10', 53, 'udp'), /^[ab] hi$/, `UDP from ${from}`)
      t.match(await ask(from, '192.168.56.11', 30053, 'udp'), /^[ab] hi$/, `UDP NodePort from ${from}`)
    }
    t.equal(await ask('c', '172.30.0.10', 53, 'udp', 'x'), '60000', 'a long datagram comes back whole')
    t.same(await backend.check(), [])
  })

  test(`on ${sockets}: an endpoint that refuses costs nothing, another one is asked`, async (t) => {
    a.kill()
    await once(a, 'close')
    for (let i = 0; i < 6; i++) {
      t.equal(await ask('c', '172.30.0.10', 80), 'b hi')
      t.equal(await ask('c', '172.30.0.10', 53, 'udp'), 'b hi')
    }
    t.ok(backend.counts.TCP.retried > 0)
    t.ok(backend.counts.UDP.retried > 0)
  })

  test(`on ${sockets}: sessions that are quiet end`, async (t) => {
    for (let i = 0; i < 400 && backend.counts.UDP.open + backend.counts.TCP.open > 0; i++) await sleep(50)
    t.equal(backend.counts.UDP.open, 0)
    t.equal(backend.counts.TCP.open, 0)
  })

  test(`on ${sockets}: no endpoints, and ports that a Service does not have, are refused; addresses of no Service lead nowhere`, async (t) => {
    await apply(web([]))
    for (const from of ['c', 'here']) {
      t.equal(await ask(from, '172.30.0.10', 80), 'ECONNREFUSED')
      t.equal(await ask(from, '192.168.56.11', 30080), 'ECONNREFUSED')
      t.equal(await ask(from, '172.30.0.10', 81), 'ECONNREFUSED')
    }
    t.equal(await ask('c', '172.30.0.10', 53, 'udp'), 'ECONNREFUSED')
    t.equal(await ask('c', '172.30.9.9', 80, 'tcp', 'hi', 1000), 'timeout')
    t.same(await backend.check(), [])
    await apply(web(['10.180.0.2@here']))
    t.equal(await ask('c', '172.30.0.10', 80), 'b hi')
  })

  test(`on ${sockets}: a client stays with the endpoint it met`, async (t) => {
    a = await server('a')
    await apply(web(both, { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } } }))
    const first = await ask('c', '172.30.0.10', 80)
    for (let i = 0; i < 8; i++) t.equal(await ask('c', '172.30.0.10', 80), first)
  })

  test(`on ${sockets}: others than the allowed sources are dropped`, async (t) => {
    const lb = web(both, { type: 'LoadBalancer', loadBalancerSourceRanges: ['10.180.0.2/32', '192.168.56.0/24', '192.168.56.8/29'] })
    await apply({ ...lb, services: lb.services.map((s) => ({ ...s, status: { loadBalancer: { ingress: [{ ip: '192.0.2.50', ipMode: 'VIP' as const }] } } })) })
    t.equal(await ask('c', '192.0.2.50', 80, 'tcp', 'hi', 1000), 'timeout')
    t.match(await ask('b', '192.0.2.50', 80), /^[ab] hi$/)
    t.match(await ask('here', '192.0.2.50', 80), /^[ab] hi$/)
    t.same(await backend.check(), [])
  })

  test(`on ${sockets}: IPv6 works as well`, async (t) => {
    const six: Objects = { services: [service('six', { clusterIP: 'fd00:30::10', ports })], slices: [slice('six', ['fd00:180::1@here'], slicePorts)] }
    await apply(six)
    for (const from of ['c', 'here']) {
      t.equal(await ask(from, 'fd00:30::10', 80), 'a hi')
      t.equal(await ask(from, 'fd00:30::10', 53, 'udp'), 'a hi')
    }
    t.equal(await ask('c', 'fd00:30::10', 81), 'ECONNREFUSED')
  })

  test(`on ${sockets}: what somebody removed is noticed and made again, and nothing is left at the end`, async (t) => {
    await apply(web(both))
    sh('nft delete element ip switchyard-userspace services "{ 172.30.0.10 . tcp . 80 }"')
    t.match(await backend.check(), [/services has 1 elements, not 2/])
    await apply(web(both))
    t.same(await backend.check(), [])
    t.match(await ask('c', '172.30.0.10', 80), /^[ab] hi$/)
    await backend.cleanup()
    await backend.close()
    t.equal(sh('nft list tables'), '')
    t.notMatch(sh('ip addr show lo'), '169.254.83.1')
    for (const s of servers.splice(0)) s.kill()
    for (const { child } of clients.values()) child.stdin!.end()
    clients.clear()
  })
}
