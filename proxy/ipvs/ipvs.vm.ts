import { release } from 'node:os'
import { inside } from '../../lab/vm/run.ts'
import { silent } from '../../lib/log.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import { insideNamespaces, provePackets } from '../testing/packets.ts'
import { create } from './backend.ts'

// The whole table of packets, in a kernel that has IPVS.
if ((await inside(import.meta.filename, { memory: 1536 })) && insideNamespaces(import.meta.filename)) {
  await provePackets([{ name: `ipvs in Linux ${release()}`, mode: 'ipvs', make: () => create({ kernel: realKernel({ openNetlink }), log: silent }) }])
}
