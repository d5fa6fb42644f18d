import { execFileSync, spawn } from 'node:child_process'
import { release } from 'node:os'
import { test } from 'tap'
import type { Ip } from '../../lib/ip.ts'
import { Ipvs } from '../../linux/netlink/ipvs.ts'
import { changeAddresses, ensureLink } from '../../linux/netlink/route.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { inside } from './run.ts'

// One Service, two destinations, real connections: the harness and our netlink stand.
if (await inside(import.meta.filename)) {
  test(`IPVS in Linux ${release()} spreads connections over two destinations`, async (t) => {
    const route = openNetlink('route')
    const dummy = await ensureLink(route, 'switchyard0', 'dummy')
    await changeAddresses(route, dummy, { add: ['10.96.0.10'] as Ip[] })
    await changeAddresses(route, 1, { add: ['127.0.1.1', '127.0.1.2'] as Ip[] })
    const ipvs = await Ipvs.open(openNetlink('generic'))
    const server = { protocol: 'TCP', address: '10.96.0.10' as Ip, port: 80, scheduler: 'rr', persistence: 0, schedulerFlags: 0 } as const
    await ipvs.add(server)
    for (const address of ['127.0.1.1', '127.0.1.2'] as Ip[]) await ipvs.addDestination(server, { address, port: 8080, weight: 1 })
    t.same(await ipvs.flush(), [])
    t.same(await ipvs.servers(), [server], 'the kernel lists it')
    t.same((await ipvs.destinations(server)).map((d) => `${d.address}:${d.port} ${d.weight}`).sort(), ['127.0.1.1:8080 1', '127.0.1.2:8080 1'])

    const listeners = await Promise.all(['127.0.1.1', '127.0.1.2'].map((host) => listening(host, 8080)))
    const answers = Array.from({ length: 10 }, () => execFileSync('curl', ['-s', '-m', '5', 'http://10.96.0.10/'], { encoding: 'utf8' }))
    t.same(count(answers), { '127.0.1.1': 5, '127.0.1.2': 5 })

    await ipvs.changeDestination(server, { address: '127.0.1.1' as Ip, port: 8080, weight: 0 })
    t.same(await ipvs.flush(), [])
    t.same(count(Array.from({ length: 4 }, () => execFileSync('curl', ['-s', '-m', '5', 'http://10.96.0.10/'], { encoding: 'utf8' }))), { '127.0.1.2': 4 }, 'weight 0 takes no new connection')

    await ipvs.add(server)
    await ipvs.removeDestination(server, { address: '127.0.1.9' as Ip, port: 1, weight: 1 })
    t.same(
      await ipvs.flush(),
      [
        { what: 'add TCP 10.96.0.10:80', code: 'EEXIST' },
        { what: 'remove TCP 10.96.0.10:80 → 127.0.1.9:1', code: 'ENOENT' },
      ],
      'refusals are named',
    )
    await ipvs.remove(server)
    await ipvs.flush()
    t.same(await ipvs.servers(), [])
    for (const child of listeners) child.kill()
  })
}

function count(words: readonly string[]): Record<string, number> {
  const n: Record<string, number> = {}
  for (const word of words) n[word] = (n[word] ?? 0) + 1
  return n
}

// A process of its own: curl is waited for without giving our event loop a turn.
async function listening(host: string, port: number) {
  const text = `require('node:net').createServer((s) => { s.once('data', () => s.end('HTTP/1.0 200 OK\\r\\n\\r\\n${host}')) }).listen(${port}, '${host}', () => process.stdout.write('up'))`
  const child = spawn(process.execPath, ['-e', text], { stdio: ['ignore', 'pipe', 'inherit'] })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  return child
}
