import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { service, slice } from '../kube/testing/builders.ts'
import type { Cidr } from '../lib/ip.ts'
import { silent } from '../lib/log.ts'
import { parse } from '../lib/options.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { realKernel } from '../linux/real.ts'
import { modeNamed } from './backends.ts'
import { compile } from './compile.ts'
import { flags, proxyOptions } from './options.ts'
import { insideNamespaces } from './testing/packets.ts'

const endpoints = Array.from({ length: 10 }, (_, i) => `10.244.1.${i + 10}`)
const tries = 10_000

if (insideNamespaces(import.meta.filename)) {
  const { t: root, test } = await import('tap')
  root.setTimeout(900_000)
  const lines = [
    'ip link set lo up; ip netns add far; ip link add near type veth peer name eth0 netns far',
    'ip addr add 10.244.1.1/24 dev near; ip link set near up; ip -n far link set lo up; ip -n far link set eth0 up',
    ...endpoints.map((ip) => `ip -n far addr add ${ip}/24 dev eth0`),
    'ip -n far route replace default via 10.244.1.1; ip route add 10.96.0.0/16 dev near',
  ]
  execFileSync('sh', ['-c', lines.join('\n')])
  // Who answers says at which of its addresses it was asked.
  const code = `require('node:net').createServer((s) => s.on('error', () => {}).end(s.localAddress)).listen({ port: 8080, host: '0.0.0.0', backlog: 4096 }, () => console.log('up'))`
  const server = spawn('ip', ['netns', 'exec', 'far', process.execPath, '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(server.stdout, 'data')
  const { table } = compile(
    {
      services: [service('ten', { clusterIP: '10.96.0.10', ports: ['http:80->8080'] })],
      slices: [
        slice(
          'ten',
          endpoints.map((ip) => `${ip}@far`),
          ['http:8080'],
        ),
      ],
    },
    { node: 'here', clusterCidrs: ['10.244.0.0/16' as Cidr], serviceCidrs: ['10.96.0.0/16' as Cidr] },
  )

  for (const name of ['nftables', 'iptables legacy', 'iptables nf_tables', 'userspace']) {
    test(`ten endpoints share 10,000 connections, each 10 % ± 1.5 %: ${name}`, async (t) => {
      const [mode = '', iptables = 'auto'] = name.split(' ')
      const backend = await modeNamed(mode)!.load({
        kernel: realKernel({ iptables: iptables as 'auto', openNetlink }),
        log: silent,
        options: proxyOptions(parse(flags, ['--mode', mode]).values, 'here'),
      })
      await backend.apply(table, new AbortController().signal)
      const counts = new Map(endpoints.map((ip) => [ip, 0]))
      let begun = 0
      const worker = async (): Promise<void> => {
        while (begun++ < tries) {
          const by = await asked('10.96.0.10', 80)
          counts.set(by, (counts.get(by) ?? 0) + 1)
        }
      }
      await Promise.all(Array.from({ length: 40 }, worker))
      for (const [ip, n] of counts) t.ok(n >= tries * 0.085 && n <= tries * 0.115, `${ip}: ${((n / tries) * 100).toFixed(2)} %`)
      t.equal(counts.size, 10, 'nobody else answered')
      await backend.cleanup()
      await backend.close()
    })
  }
  void test('the end', async () => void server.kill())
}

function asked(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host, port })
    let text = ''
    socket.on('data', (b) => (text += b.toString()))
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message))
    socket.on('close', () => resolve(text))
  })
}
