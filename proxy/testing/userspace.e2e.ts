import { silent } from '../../lib/log.ts'
import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import { create } from '../userspace/backend.ts'
import { insideNamespaces, provePackets } from './packets.ts'

// The userspace mode beside the table of packets, on each driver that there is.
if (insideNamespaces(import.meta.filename))
  await provePackets(
    ['node', 'auto'].map((sockets) => ({
      name: `userspace (${sockets})`,
      mode: 'userspace',
      alwaysMasquerades: true,
      make: () => create({ kernel: realKernel({ openNetlink }), log: silent, options: { sockets } }),
    })),
  )
