import { createServer } from 'node:net'
import { createInterface } from 'node:readline'

/** An endpoint that costs as little as possible: opens each port it reads on stdin, says so, and answers every request with that port. Ends with stdin. */
export async function serve(): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const body = `${line}\n`
    const head = `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n`
    const server = createServer({ noDelay: true }, (socket) => {
      socket.on('error', () => {})
      // The clients here send a request in one piece and wait for its answer.
      socket.on('data', (b) => {
        if (b.includes('close')) socket.end(`${head}Connection: close\r\n\r\n${body}`)
        else socket.write(`${head}\r\n${body}`)
      })
    })
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen({ port: Number(line), backlog: 4096 }, resolve))
    process.stdout.write(`${line}\n`)
  }
  process.exit(0)
}
