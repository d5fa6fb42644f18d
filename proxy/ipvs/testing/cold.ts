// Run inside a virtual machine: how long a table of SERVICES × ENDPOINTS takes from memory to the kernel's last acknowledgement. Prints milliseconds.
import type { Cidr, Ip } from '../../../lib/ip.ts'
import { silent } from '../../../lib/log.ts'
import { openNetlink } from '../../../linux/netlink/socket.ts'
import { realKernel } from '../../../linux/real.ts'
import type { Front } from '../../table.ts'
import { create } from '../backend.ts'

const [services = 10_000, endpoints = 2] = process.argv.slice(2).map(Number)
const fronts = new Map<string, Front>()
const clusterIps = new Set<Ip>()
for (let i = 0; i < services; i++) {
  const address = `10.96.${i >> 8}.${i & 255}` as Ip
  clusterIps.add(address)
  const to = Array.from({ length: endpoints }, (_, e) => ({ address: `10.${180 + e}.${(i >> 8) & 255}.${i & 255}` as Ip, port: 8080, local: false }))
  fronts.set(`tcp/${address}:80`, {
    port: `ns/s${i}:`,
    protocol: 'TCP',
    family: 4,
    at: { address, port: 80, kind: 'cluster' },
    sources: 'any',
    affinity: undefined,
    scheduler: undefined,
    routes: [{ from: 'anyone', outcome: { kind: 'forward', to }, masquerade: 'always' }],
  })
}
const cidr = '10.96.0.0/16' as unknown as Cidr
const backend = await create({ kernel: realKernel({ openNetlink }), log: silent })
await backend.probe()
const began = performance.now()
await backend.apply(
  { fronts, node: { name: 'n', localPods: { kind: 'none' }, clusterCidrs: [], serviceCidrs: [cidr], clusterIps, nodePortAddresses: 'all', masqueradeAll: false, masqueradeMark: 0x4000 } },
  new AbortController().signal,
)
process.stdout.write(`${performance.now() - began}\n`)
process.exit(0)
