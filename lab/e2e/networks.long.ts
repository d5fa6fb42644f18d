import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import tap, { test } from 'tap'
import { networks, uplinks } from '../topology.ts'
import { eventually, TestLab } from '../testing/lab.ts'

tap.setTimeout(900_000)
const folder = mkdtempSync(join(tmpdir(), 'switchyard-topologies-'))
tap.teardown(() => rmSync(folder, { recursive: true, force: true }))
const hosts = Object.values(networkInterfaces())
  .flat()
  .find((i) => i !== undefined && i.family === 'IPv4' && !i.internal)?.address

for (const network of networks)
  test(`a topology file of both families, a mode a node, over ${network}`, { timeout: 240_000 }, async (t) => {
    const lab = new TestLab()
    t.teardown(() => lab.down())
    const file = join(folder, `${network}.yaml`)
    writeFileSync(
      file,
      `network: ${network}\ndualStack: true\nclients: [anna]\nmode: iptables\nnodes:\n  - {name: one, zone: east}\n  - {name: two, zone: west, mode: nftables}\n  - {name: three, mode: userspace}\n`,
    )
    await lab.up('-f', file)
    await lab.hello()
    await eventually('everything that should work does', async () => (await lab.lab('check')).status === 0)
    t.match((await lab.lab('exec', 'anna', '--', 'curl', '-sS', '-m', '5', '-H', 'Host: hello.example.com', 'http://192.168.56.11/')).stdout, 'hello from', 'a client outside is served by the Ingress')
    for (const family of ['-4', '-6']) t.equal((await lab.lab('exec', 'two', '--', 'ping', family, '-c1', '-W3', 'anna')).status, 0, `ping ${family}`)
    await lab.lab('break', 'cut', 'two')
    await lab.lab('heal')
    await eventually('a cable that is plugged in again leads where it led', async () => (await lab.lab('check')).status === 0)
    const seen = await lab.lab('exec', 'one', '--', 'ip', '-s', '-json', 'link', 'show', 'vxlan0')
    if (network === 'vxlan') t.ok((JSON.parse(seen.stdout) as { stats64: { rx: { packets: number } } }[])[0]!.stats64.rx.packets > 0, 'Pods speak through the tunnel')
    else t.not(seen.status, 0)
  })

for (const uplink of uplinks)
  test(
    `a way out by ${uplink}`,
    { timeout: 120_000, skip: spawnSync(uplink, ['--version']).error !== undefined ? `${uplink} is not installed` : hosts === undefined ? 'this machine has no address but loopback' : false },
    async (t) => {
      const server = createServer((socket) => socket.end('HTTP/1.0 200 OK\r\n\r\nthe world\n')).listen(0, hosts)
      t.teardown(() => server.close())
      const lab = new TestLab()
      t.teardown(() => lab.down())
      const file = join(folder, `${uplink}.yaml`)
      writeFileSync(file, `uplink: ${uplink}\nnodes: 2\n`)
      await lab.up('-f', file)
      await lab.hello()
      const { port } = server.address() as AddressInfo
      t.equal((await lab.curl(`http://${hosts}:${port}/`))[0], 'the world', 'a Pod reaches what the host reaches')
      t.equal((await lab.lab('check')).status, 0)
      await lab.lab('down')
      await eventually(`${uplink} ends with the lab`, async () => spawnSync('pgrep', ['-f', `${uplink} .*uplink0`]).status !== 0)
    },
  )
