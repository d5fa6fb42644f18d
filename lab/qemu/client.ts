import { connect } from 'node:net'
import { sleep } from '../../lib/lifecycle.ts'
import { reader, send, type Request } from './frames.ts'

/** Where a machine answers: a port of loopback, and the word it wants to hear. */
export interface Door {
  readonly port: number
  readonly secret: string
}

/** How a command in a machine ended. */
export interface Answer {
  readonly status: number
  readonly stdout: Buffer
  readonly stderr: Buffer
}

type Asked<R> = R extends unknown ? Omit<R, 'secret'> : never

/** Streams of a command in a machine; what is left out is collected. */
export interface Streams {
  readonly stdin?: Uint8Array | NodeJS.ReadableStream
  readonly stdout?: (bytes: Buffer) => void
  readonly stderr?: (bytes: Buffer) => void
}

/** Asks a machine; rejects when the connection is lost before the answer is whole. */
export function ask(door: Door, request: Asked<Request>, streams: Streams = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: door.port })
    const collected = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
    let done = false
    socket.setNoDelay(true)
    socket.on('connect', () => {
      socket.write(`${JSON.stringify({ secret: door.secret, ...request })}\n`)
      const { stdin } = streams
      if (stdin === undefined || stdin instanceof Uint8Array) {
        if (stdin !== undefined) send(socket, 'stdin', stdin)
        send(socket, 'stdin', new Uint8Array(0))
      } else {
        stdin.on('data', (chunk: Buffer | string) => {
          if (!send(socket, 'stdin', Buffer.from(chunk as Buffer))) {
            stdin.pause()
            socket.once('drain', () => stdin.resume())
          }
        })
        stdin.on('end', () => send(socket, 'stdin', new Uint8Array(0)))
      }
    })
    const take = reader(undefined, (kind, bytes) => {
      if (kind === 'stdout' || kind === 'stderr') (streams[kind] ?? ((b: Buffer) => void collected[kind].push(Buffer.from(b))))(bytes)
      else if (kind === 'exit') {
        done = true
        socket.destroy()
        resolve({ status: Number(bytes.toString()), stdout: Buffer.concat(collected.stdout), stderr: Buffer.concat(collected.stderr) })
      }
    })
    socket.on('data', take)
    socket.on('error', (error) => reject(new Error(`the machine behind 127.0.0.1:${door.port} does not answer`, { cause: error })))
    socket.on('close', () => {
      if (!done) reject(new Error(`the machine behind 127.0.0.1:${door.port} hung up`))
    })
  })
}

/** As `ask`, and rejects with its own words when the answer is no 0. */
export async function must(door: Door, request: Asked<Request>, streams: Streams = {}): Promise<string> {
  const { status, stdout, stderr } = await ask(door, request, streams)
  if (status !== 0) throw new Error(stderr.toString().trim() || `exit status ${status}`)
  return stdout.toString()
}

/** Waits until the machine answers: it boots. */
export async function answers(door: Door, until: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      await must(door, { status: true })
      return
    } catch (error) {
      signal.throwIfAborted()
      if (performance.now() > until) throw error
      await sleep(200, signal)
    }
  }
}
