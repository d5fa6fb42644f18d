import { mkdirSync, openSync, closeSync, fsyncSync, readFileSync, renameSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { explainError, type Log } from '../lib/log.ts'
import type { Cluster, Kind, Kinds } from './cluster.ts'

/** Least milliseconds between two writes. */
const least = 5000
const kinds: readonly Kind[] = ['namespace', 'service', 'slice', 'pod', 'ingress']
const format = 1

/** Keeps what is answered from on disk. */
export interface Kept {
  /** Something changed: it is written soon. */
  changed(): void
  close(): void
}

/** Loads the objects kept in `folder`, if there are any, and keeps them from now on. What was loaded counts until the API server was read. */
export function keepTable(folder: string, cluster: Cluster, log: Log): Kept {
  mkdirSync(folder, { recursive: true })
  const path = join(folder, 'objects.json')
  load(path, cluster, log)
  let dirty = false
  let timer: NodeJS.Timeout | undefined
  const write = (): void => {
    timer = undefined
    // Before everything was read there is less here than on disk.
    if (!dirty || cluster.stale || !cluster.complete) return
    dirty = false
    try {
      save(path, cluster)
    } catch (error) {
      log.warn('the table could not be kept', { file: path, error: explainError(error) })
    }
  }
  return {
    changed: () => {
      dirty = true
      timer ??= setTimeout(write, least).unref()
    },
    close: () => {
      clearTimeout(timer)
      write()
    },
  }
}

function save(path: string, cluster: Cluster): void {
  const fd = openSync(`${path}.new`, 'w', 0o600)
  try {
    writeSync(fd, `${JSON.stringify({ format, written: new Date().toISOString() })}\n`)
    for (const kind of kinds) for (const object of cluster.objects[kind].values()) writeSync(fd, `${JSON.stringify([kind, object])}\n`)
    writeSync(fd, '"end"\n')
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(`${path}.new`, path)
}

function load(path: string, cluster: Cluster, log: Log): void {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') log.warn('the kept table cannot be read', { file: path, error: explainError(error) })
    return
  }
  try {
    const lines = text.split('\n').filter((line) => line !== '')
    const head = JSON.parse(lines[0] ?? 'null') as { format?: number; written?: string } | null
    if (head?.format !== format || lines.at(-1) !== '"end"') throw new Error('not a whole file of this version')
    for (const line of lines.slice(1, -1)) {
      const [kind, object] = JSON.parse(line) as [Kind, Kinds[Kind]]
      if (kinds.includes(kind)) cluster.put(kind, object as never, undefined)
    }
    cluster.flush()
    cluster.complete = true
    cluster.stale = true
    log.info('answering from the kept table until the API server is read', { file: path, written: head.written, names: cluster.zones.reduce((sum, z) => sum + z.table.size, 0) })
  } catch (error) {
    log.warn('the kept table is of no use', { file: path, error: explainError(error) })
  }
}
