import { createServer } from 'node:http'
import { hostname } from 'node:os'
import { createLog } from '../lib/log.ts'
import { command, hostPort } from '../lib/options.ts'

/** A server for Pods of a demonstration: each answer says which Pod gave it, on which node. */
export const helloCommand = command({
  name: 'hello',
  summary: 'A small HTTP server that says which Pod answered.',
  flags: {
    listen: { type: 'string', value: 'ADDR:PORT', help: 'where to listen', default: ':8080' },
    text: { type: 'string', help: 'what to say before the name of the Pod (POD_NAME, or the host name)', default: 'hello from' },
  },
  run: async ({ values }, context) => {
    const log = createLog()
    const { host, port } = hostPort(values.listen, 'listen')
    const who = `${process.env.POD_NAME ?? hostname()}${process.env.NODE_NAME === undefined ? '' : ` on ${process.env.NODE_NAME}`}`
    const server = createServer((request, response) => {
      const probed = request.url === '/healthz'
      if (!probed) log.info('request', { method: request.method, path: request.url, from: request.socket.remoteAddress })
      response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(probed ? 'ok\n' : `${values.text} ${who}\n`)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, host === '' ? undefined : host, resolve)
    })
    log.info('ready', { listen: values.listen })
    await new Promise<void>((resolve) => {
      const end = (): void => {
        // Who is connected may finish; idle connections end now.
        server.close(() => resolve())
        server.closeIdleConnections()
        setTimeout(() => server.closeAllConnections(), 800).unref()
      }
      if (context.signal.aborted) end()
      else context.signal.addEventListener('abort', end, { once: true })
    })
  },
})
