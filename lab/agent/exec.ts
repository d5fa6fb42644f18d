import { execFile, type ChildProcess } from 'node:child_process'
import { WebSocket, type RawData } from 'ws'
import { childrenOf } from '../state.ts'

/** The protocols of `kubectl exec` over WebSocket; in v5 the client can end its input. The first byte of a message is its channel. */
export const protocols: readonly string[] = ['v5.channel.k8s.io', 'v4.channel.k8s.io']

const channel = { stdin: 0, stdout: 1, stderr: 2, status: 3, resize: 4, close: 255 } as const
/** A client that is this many bytes behind waits, and the program with it. */
const mostBehind = 1 << 20

/** Carries a program's input, output and end over `socket`. The program ends when the client goes. */
export function carry(socket: WebSocket, child: ChildProcess, how: { readonly stdin: boolean; readonly stdout: boolean; readonly stderr: boolean; readonly tty: boolean }): void {
  const frame = (to: number, bytes: Buffer): Buffer => Buffer.concat([Buffer.of(to), bytes])
  const forward = (from: NodeJS.ReadableStream | null, to: number, wanted: boolean): void => {
    from?.on('data', (bytes: Buffer) => {
      if (!wanted || socket.readyState !== WebSocket.OPEN) return
      socket.send(frame(to, bytes), () => {
        if (socket.bufferedAmount < mostBehind) from.resume()
      })
      if (socket.bufferedAmount >= mostBehind) from.pause()
    })
  }
  // An empty message tells the client that the program runs.
  socket.send(frame(channel.stdout, Buffer.alloc(0)))
  forward(child.stdout, channel.stdout, how.stdout)
  forward(child.stderr, how.tty ? channel.stdout : channel.stderr, how.tty ? how.stdout : how.stderr)
  // It may end before it has read everything.
  child.stdin?.on('error', () => {})
  child.stdin?.on('drain', () => socket.resume())
  if (!how.stdin) child.stdin?.end()
  socket.on('message', (data: RawData) => {
    const bytes = Buffer.isBuffer(data) ? data : Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data)
    switch (bytes[0]) {
      case channel.stdin:
        if (how.stdin && bytes.length > 1 && child.stdin?.write(bytes.subarray(1)) === false) socket.pause()
        return
      case channel.close:
        if (bytes[1] === channel.stdin) child.stdin?.end()
        return
      case channel.resize:
        if (how.tty) resize(child, bytes.subarray(1).toString())
    }
  })
  const end = (status: object): void => {
    if (socket.readyState !== WebSocket.OPEN) return
    socket.send(frame(channel.status, Buffer.from(JSON.stringify({ metadata: {}, ...status }))))
    socket.close(1000)
  }
  child.once('error', (error) => end({ status: 'Failure', reason: 'InternalError', code: 500, message: `error executing command in container: ${error.message}` }))
  // `close` and not `exit`: what it said last is out by then.
  child.once('close', (code, signal) => end(statusOf(code ?? 128 + (signal === 'SIGKILL' ? 9 : 15))))
  socket.on('error', () => socket.terminate())
  socket.once('close', () => {
    if (child.exitCode === null && child.pid !== undefined)
      try {
        process.kill(-child.pid, 'SIGKILL')
      } catch {
        // It ended meanwhile.
      }
  })
}

function statusOf(code: number): object {
  if (code === 0) return { status: 'Success' }
  return {
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code: exit status ${code}`,
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  }
}

function resize(child: ChildProcess, text: string): void {
  let size: { readonly Width?: number; readonly Height?: number }
  try {
    size = JSON.parse(text) as typeof size
  } catch {
    return
  }
  // `script` has the one end, what it started the other.
  const [first] = childrenOf(child.pid ?? 0)
  if (first === undefined || !Number.isInteger(size.Height) || !Number.isInteger(size.Width)) return
  execFile('stty', ['-F', `/proc/${first}/fd/0`, 'rows', String(size.Height), 'cols', String(size.Width)], () => {})
}
