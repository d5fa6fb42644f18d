import { silent } from '../../../lib/log.ts'
import { Workers } from '../../../lib/workers.ts'
import { UdpGroup } from '../udpgroup.ts'

// Ends as its argument says while a worker waits for datagrams.
const group = new UdpGroup({ host: '127.0.0.1', port: 0 }, { count: 2, nap: 0, handed: () => {} })
const workers = new Workers<null, never>({ file: new URL('./udpechoer.ts', import.meta.url), count: 2, data: { shares: group.shares }, whole: () => null, log: silent })
await workers.ready()
setTimeout(() => {
  if (process.argv[2] === 'throw') throw new Error('thrown')
  process.exit(0)
}, 100)
