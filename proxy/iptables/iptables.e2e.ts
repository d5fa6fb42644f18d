import { silent } from '../../lib/log.ts'
import { realKernel } from '../../linux/real.ts'
import { insideNamespaces, provePackets } from '../testing/packets.ts'
import { IptablesBackend } from './backend.ts'

if (insideNamespaces(import.meta.filename)) {
  await provePackets((['legacy', 'nf_tables'] as const).map((variant) => ({ name: `iptables (${variant})`, mode: 'iptables', make: async () => new IptablesBackend({ kernel: realKernel({ iptables: variant }), log: silent }) })))
}
