import { spawnSync } from 'node:child_process'
import type { Cidr } from '../lib/ip.ts'
import { silent } from '../lib/log.ts'
import { openNetlink } from '../linux/netlink/socket.ts'
import { realKernel } from '../linux/real.ts'
import { service, slice } from '../kube/testing/builders.ts'
import { compile } from './compile.ts'
import { IptablesBackend } from './iptables/backend.ts'
import { deleteStale } from './stale.ts'
import type { ServiceTable } from './table.ts'
import { insideNamespaces } from './testing/packets.ts'
import { create } from './userspace/backend.ts'

if (insideNamespaces(import.meta.filename)) {
  const { test } = await import('tap')
  const forever = new AbortController().signal

  test('tracked datagrams of endpoints that are gone are deleted, and no others', async (t) => {
    run('ip link set lo up', 'ip addr add 10.180.0.1/32 dev lo', 'ip addr add 10.180.0.2/32 dev lo', 'ip addr add 192.168.50.1/32 dev lo', 'ip route add default dev lo')
    const kernel = realKernel({ openNetlink })
    const backend = new IptablesBackend({ kernel, log: silent })
    const own = (a: string): boolean => a === '192.168.50.1'
    let before: ServiceTable | undefined
    const step = async (dns: readonly string[]): Promise<number> => {
      const objects = [service('dns', { type: 'NodePort', clusterIP: '172.30.0.1', ports: ['dns:53->5353/UDP@30053'] }), service('other', { clusterIP: '172.30.0.2', ports: ['dns:53->5353/UDP'] })]
      const { table } = compile(
        { services: objects, slices: [slice('dns', dns, ['dns:5353/UDP']), slice('other', ['10.180.0.1'], ['dns:5353/UDP'])] },
        { node: 'here', serviceCidrs: ['172.30.0.0/16' as Cidr] },
      )
      await backend.apply(table, forever)
      const deleted = await deleteStale(kernel, before, table, own)
      before = table
      return deleted
    }
    const flows = (): string[] =>
      (spawnSync('conntrack', ['-L', '-p', 'udp'], { encoding: 'utf8' }).stdout.match(/^udp.*$/gm) ?? []).map((l) => {
        const m = /dst=(\S+) sport=\d+ dport=(\d+).*src=(\S+) dst=\S+ sport=(\d+)/.exec(l)
        return `${m?.[1]}:${m?.[2]} at ${m?.[3]}:${m?.[4]}`
      })
    t.equal(await step(['10.180.0.1']), 0, 'nothing to delete at first')
    for (const to of ['172.30.0.1 53', '172.30.0.2 53', '192.168.50.1 30053']) send(to)
    t.same(flows().sort(), ['172.30.0.1:53 at 10.180.0.1:5353', '172.30.0.2:53 at 10.180.0.1:5353', '192.168.50.1:30053 at 10.180.0.1:5353'], 'three flows')
    t.equal(await step(['10.180.0.1']), 0, 'nothing changed, nothing is deleted')
    before = undefined
    t.equal(await step(['10.180.0.1']), 0, 'nothing is deleted by a process that starts again')
    t.equal(await step(['10.180.0.2']), 2, 'the endpoint has gone: the flows of its service by cluster IP and NodePort go')
    t.same(flows(), ['172.30.0.2:53 at 10.180.0.1:5353'], 'the other service keeps its own')
    send('172.30.0.1 53')
    t.equal(await step([]), 1, 'the last endpoint has gone')
    await backend.cleanup()
    // Somebody else tracks connections while we are away.
    run('iptables -A INPUT -m conntrack --ctstate NEW -j ACCEPT')
    send('172.30.0.1 53')
    t.same(flows().sort()[0], '172.30.0.1:53 at 172.30.0.1:53', 'a datagram that nobody translated')
    t.equal(await step(['10.180.0.1', '10.180.0.2']), 1, 'the first endpoint came: whoever asked before is translated now')
    await backend.cleanup()
  })

  test('in the userspace mode, those that lead to a socket that is closed', async (t) => {
    const kernel = realKernel({ openNetlink })
    const backend = await create({ kernel, log: silent, options: { sockets: 'node' } })
    let before: ServiceTable | undefined
    const step = async (...names: readonly string[]): Promise<number> => {
      const services = names.map((name, i) => service(name, { clusterIP: `172.30.1.${i + 1}`, ports: ['dns:53->5353/UDP'] }))
      await backend.apply(compile({ services, slices: names.map((name) => slice(name, ['10.180.0.1'], ['dns:5353/UDP'])) }, { node: 'here', serviceCidrs: ['172.30.0.0/16' as Cidr] }).table, forever)
      const deleted = await deleteStale(kernel, before, backend.tracked()!, () => false)
      before = backend.tracked()
      return deleted
    }
    t.equal(await step('one', 'two'), 0)
    for (const to of ['172.30.1.1 53', '172.30.1.2 53']) send(to)
    t.equal(await step('one', 'two'), 0, 'nothing changed')
    t.equal(await step('one'), 1, 'the second Service has gone, and with it its socket')
    t.equal(await step('one', 'two'), 0)
    before = undefined
    t.equal(await step('one', 'two'), 0, 'one that leads to a socket that is open stays')
    await backend.cleanup()
    await backend.close()
  })
}

function run(...lines: readonly string[]): void {
  for (const line of lines) spawnSync('sh', ['-c', line], { stdio: 'inherit' })
}

function send(to: string): void {
  const [host, port] = to.split(' ')
  spawnSync(process.execPath, ['-e', `const s = require('dgram').createSocket('udp4'); s.on('error', () => {}); s.send('x', ${port}, '${host}', () => setTimeout(() => s.close(), 20))`])
}
