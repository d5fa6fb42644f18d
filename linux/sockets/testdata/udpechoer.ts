import { work } from '../../../lib/workers.ts'
import { UdpWorker, type UdpShare } from '../udpworker.ts'

// Sends every datagram back; those that begin with `m` are the main thread's, those with `d` get nothing, `k` kills the worker.
work<null, never>((post) => {
  const share = (post.data as { readonly shares: readonly UdpShare[] }).shares[post.index]!
  const udp = new UdpWorker(share)
  const run = (): void => {
    udp.run(0, {
      answer: (b, from, to) => {
        const c = b[from]
        if (c === 0x6b) throw new Error('killed')
        return c === 0x6d ? -1 : c === 0x64 ? 0 : to - from
      },
      took: () => {},
      bell: () => post.send('bell'),
    })
  }
  setImmediate(run)
  return { whole: () => {}, change: () => {}, end: () => {} }
})
