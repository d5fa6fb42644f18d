import { connect, createServer, type Server, type Socket } from 'node:net'

/** Accepts on a socket of the host that was handed in and carries each connection to `to` inside the lab. */
export function publish(fd: number, to: { readonly host: string; readonly port: number }): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = connect({ host: to.host, port: to.port, allowHalfOpen: true, noDelay: true })
    join(near, far)
    join(far, near)
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ fd }, () => resolve(server))
  })
}

function join(from: Socket, to: Socket): void {
  from.pipe(to)
  // One side's reset is the other's too: half a connection helps nobody.
  from.on('error', () => to.resetAndDestroy())
  from.on('close', (failed) => {
    if (failed) to.destroy()
  })
}
