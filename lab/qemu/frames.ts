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
  let have: Buffer = Buffer.alloc(0)
  let first = line
  return (chunk) => {
    have = have.length === 0 ? chunk : Buffer.concat([have, chunk])
    if (first !== undefined) {
      const end = have.indexOf(10)
      if (end < 0) return
      const text = have.subarray(0, end).toString()
      have = have.subarray(end + 1)
      const say = first
      first = undefined
      say(text)
    }
    for (;;) {
      if (have.length < 5) return
      const length = have.readUInt32BE(1)
      if (have.length < 5 + length) return
      const kind = kinds[have[0]!]
      const bytes = have.subarray(5, 5 + length)
      have = have.subarray(5 + length)
      if (kind !== undefined) told(kind, bytes)
    }
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
