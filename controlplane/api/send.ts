import type { IncomingMessage, ServerResponse } from 'node:http'
import { gzipSync } from 'node:zlib'

/** One answer; large ones are compressed for those who take it. */
export function send(response: ServerResponse, code: number, type: string, body: string | Buffer, request: IncomingMessage): void {
  let bytes = typeof body === 'string' ? Buffer.from(body) : body
  response.setHeader('content-type', type)
  response.setHeader('cache-control', 'no-cache, private')
  if (bytes.length > 131_072 && /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''))) {
    bytes = gzipSync(bytes, { level: 1 })
    response.setHeader('content-encoding', 'gzip')
    response.setHeader('vary', 'Accept-Encoding')
  }
  response.writeHead(code, { 'content-length': bytes.length })
  response.end(request.method === 'HEAD' ? undefined : bytes)
}
