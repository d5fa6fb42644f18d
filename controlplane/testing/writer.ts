// Started by the crash test: writes to a store, says each acknowledged write on standard output, and dies by SIGKILL at a named point.
import { writeSync } from 'node:fs'
import { SqliteStore, type FailPoint } from '../store/sqlite.ts'

const [file, point, after] = [process.argv[2]!, process.argv[3] as FailPoint | 'never', Number(process.argv[4])]
let passed = 0
const store = new SqliteStore(file, {
  group: 8,
  failPoint: (at) => {
    if (at === point && ++passed > after) process.kill(process.pid, 'SIGKILL')
  },
})
const start = await store.current()
writeSync(1, `start ${start}\n`)
const worker = async (id: number): Promise<void> => {
  let revision = (await store.get(`/k/${id}`))?.revision ?? 0
  for (let i = 0; ; i++) {
    const value = `${id}-${start}-${i}-${'x'.repeat(500)}`
    revision = await store.put(`/k/${id}`, Buffer.from(value), revision)
    writeSync(1, `ack ${id} ${revision} ${id}-${start}-${i}\n`)
  }
}
await Promise.all(Array.from({ length: 16 }, (_, id) => worker(id)))
