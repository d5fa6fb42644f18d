import { randomInt } from 'node:crypto'
import { Control, UdpWorker, type UdpShare } from '../linux/sockets/udpworker.ts'
import { work } from '../lib/workers.ts'
import { Resolver } from './resolve.ts'

/** What the workers of a listener are told: the table they answer from, if there is one. */
export interface WorkerTable {
  readonly generation: number
  readonly table: { readonly memory: SharedArrayBuffer; /** For each worker. */ readonly counters: readonly SharedArrayBuffer[] } | undefined
}

work<WorkerTable, never>((post, first) => {
  const share = (post.data as { readonly shares: readonly UdpShare[] }).shares[post.index]!
  const generations = new Int32Array(share.control)
  const udp = new UdpWorker(share)
  let told = first
  let resolver: Resolver | undefined
  const take = (now: WorkerTable): void => {
    told = now
    resolver = now.table === undefined ? undefined : new Resolver(now.table.memory, new Uint32Array(now.table.counters[post.index]!), randomInt(2 ** 31 - 1))
  }
  take(first)
  const bell = (): void => post.send('bell')
  const run = (): void => {
    const r = resolver
    const why = udp.run(told.generation, {
      answer: (b, from, to, room, six) => {
        if (r === undefined) return -1
        r.family = six ? 1 : 0
        return r.resolve(b, from, to, room)
      },
      took: (ms, n) => r?.took(ms, n),
      bell,
    })
    if (why === 'generation') setImmediate(again)
  }
  // The new table is on its way: messages come between two turns.
  const again = (): void => {
    if (Atomics.load(generations, Control.generation) === told.generation) run()
    else setImmediate(again)
  }
  // Once it runs, nothing is heard here until it stops.
  setImmediate(run)
  return { whole: take, change: () => {}, end: () => {} }
})
