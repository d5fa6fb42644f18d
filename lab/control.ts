import { createServer, request, type Server } from 'node:http'
import { explainError } from '../lib/log.ts'

/** What a lab answers to, over a socket in its state folder. */
export type Verbs = Readonly<Record<string, (body: Readonly<Record<string, unknown>>) => Promise<unknown>>>

/** Serves `verbs` on the socket `path`: `POST /verb` with a JSON object. */
export function serveControl(path: string, verbs: Verbs): Promise<Server> {
  const server = createServer((message, response) => {
    void (async () => {
      const name = (message.url ?? '/').slice(1)
      const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined
      try {
        let text = ''
        for await (const chunk of message.setEncoding('utf8')) text += chunk
        if (verb === undefined) throw new Error(`the lab does not know "${name}"`)
        const answer = JSON.stringify((await verb(text === '' ? {} : JSON.parse(text))) ?? null)
        response.writeHead(200, { 'content-type': 'application/json' }).end(answer)
      } catch (error) {
        response.writeHead(500, { 'content-type': 'application/json' }).end(JSON.stringify({ error: explainError(error) }))
      }
    })()
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => resolve(server))
  })
}

/** Asks the lab behind `path`. */
export function askControl<T>(path: string, verb: string, body: unknown = {}, signal?: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: path, path: `/${verb}`, method: 'POST', ...(signal === undefined ? {} : { signal }) }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      answer.on('error', reject)
      answer.on('end', () => {
        try {
          const value: unknown = JSON.parse(text)
          if (answer.statusCode === 200) resolve(value as T)
          else reject(new Error((value as { error: string }).error))
        } catch (error) {
          reject(new Error(`the lab answered ${verb} with nonsense`, { cause: error }))
        }
      })
    })
    asked.on('error', (error) => reject(new Error(`cannot reach the lab at ${path}`, { cause: error })))
    asked.end(JSON.stringify(body))
  })
}
