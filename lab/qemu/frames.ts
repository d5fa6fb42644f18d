import type { Socket } from 'node:net'

/** What goes over a connection to a machine: standard input in, the rest out. An empty `stdin` is its end. */
export const kinds = ['stdin', 'stdout', 'stderr', 'exit'] as const
export type FrameKind = (typeof kinds)[number]

/** Writes one frame: a byte of kind, four of length, the bytes. False: wait for `drain`. */
export function send(socket: Socket, kind: FrameKind, bytes: Uint8Array): boolean {
  const head = Buffer.alloc(5)
  head[0] = kinds.indexOf(kind)
  head.writeUInt32BE(bytes.length, 1)
  socket.write(head)
  return socket.write(bytes)
}

/** Calls `told` for each frame that arrives; before them comes one line of text, told to `line`. Returns what takes the bytes. */
export function reader(line: ((text: string) => void) | undefined, told: (kind: FrameKind, bytes: Buffer) => void): (chunk: Buffer) => void {
  let parts: Buffer[] = []
  let length = 0
  // Nothing can be told before this many bytes are there.
  let needed = 1
  let first = line
  return (chunk) => {
    parts.push(chunk)
    length += chunk.length
    if (length < needed) return
    let have = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    needed = 5
    if (first !== undefined) {
      const end = have.indexOf(10)
      if (end < 0) needed = have.length + 1
      else {
        const say = first
        first = undefined
        say(have.subarray(0, end).toString())
        have = have.subarray(end + 1)
      }
    }
    while (first === undefined && have.length >= 5) {
      const end = 5 + have.readUInt32BE(1)
      if (have.length < end) {
        needed = end
        break
      }
      const kind = kinds[have[0]!]
      if (kind !== undefined) told(kind, have.subarray(5, end))
      have = have.subarray(end)
    }
    parts = have.length === 0 ? [] : [have]
    length = have.length
  }
}

/** The first line to a machine: who asks, and for what. */
export type Request = { readonly secret: string } & (
  | { readonly run: readonly string[]; readonly pod?: string | undefined; readonly env?: Readonly<Record<string, string>> }
  /** Starts the control plane, or everything else; answers when it is ready. */
  | { readonly start: 'controlplane' | 'others' }
  | { readonly mode: string }
  /** Answers with the parts' states and the Pods. */
  | { readonly status: true }
)
