import { openNetlink } from '../../linux/netlink/socket.ts'
import { realKernel } from '../../linux/real.ts'
import { silent } from '../../lib/log.ts'
import { insideNamespaces, provePackets } from '../testing/packets.ts'
import { create } from './backend.ts'

// Real packets through the kernel's nf_tables, in namespaces of their own.
if (insideNamespaces(import.meta.filename)) await provePackets([{ name: 'nftables', mode: 'nftables', make: async () => create({ kernel: realKernel({ openNetlink }), log: silent }) }])
