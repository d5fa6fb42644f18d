import { createServer, type Server, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

/**
 * An endpoint that costs as little as possible. Reads an order a line and repeats it when it is done: `PORT` or `PORT@ADDRESS` opens a port, which answers every
 * request with its number; `-PORT@ADDRESS` closes it and resets who is connected. Ends with stdin.
 */
export async function serve(): Promise<void> {
  const opened = new Map<string, { readonly server: Server; readonly sockets: Set<Socket> }>()
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.startsWith('-')) {
      const { server, sockets } = opened.get(line.slice(1))!
      server.close()
      for (const socket of sockets) socket.resetAndDestroy()
    } else opened.set(line, await open(line))
    process.stdout.write(`${line}\n`)
  }
  process.exit(0)
}

async function open(order: string): Promise<{ readonly server: Server; readonly sockets: Set<Socket> }> {
  const [port, host] = order.split('@')
  const body = `${port}\n`
  const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n`
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    // The clients here send a request in one piece and wait for its answer.
    socket.on('data', (b) => {
      if (b.includes('close')) socket.end(`${head}Connection: close\r\n\r\n${body}`)
      else socket.write(`${head}\r\n${body}`)
    })
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen({ port: Number(port), ...(host === undefined ? {} : { host }), backlog: 4096 }, resolve))
  return { server, sockets }
}
