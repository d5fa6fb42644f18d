/** One file, folder or link of an archive. */
export interface Entry {
  readonly path: string
  readonly mode: number
  readonly bytes?: Uint8Array
}

/** A folder. */
export const folder = (path: string): Entry => ({ path, mode: 0o40755 })
/** A file that may be run. */
export const program = (path: string, bytes: Uint8Array): Entry => ({ path, mode: 0o100755, bytes })

/** A cpio archive in the `newc` format, as the kernel unpacks it into its first file system (Documentation/driver-api/early-userspace/buffer-format.rst). Several in a row make one file system. */
export function cpio(entries: readonly Entry[]): Buffer {
  const parts: Buffer[] = []
  const put = (entry: Entry, number: number): void => {
    const name = `${entry.path}\0`
    const bytes = entry.bytes ?? new Uint8Array(0)
    const fields = [number, entry.mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length, 0]
    const head = Buffer.from(`070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}${name}`, 'latin1')
    parts.push(head, Buffer.alloc(-head.length & 3), Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), Buffer.alloc(-bytes.length & 3))
  }
  entries.forEach((entry, i) => put(entry, i + 1))
  put({ path: 'TRAILER!!!', mode: 0 }, 0)
  return Buffer.concat(parts)
}
