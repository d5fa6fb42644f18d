import { spawn } from 'node:child_process'
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { WebSocket } from 'ws'
import { sleep } from '../lifecycle.ts'

const names = ['chromium', 'chromium-browser', 'chrome-headless-shell', 'chromium-headless-shell', 'google-chrome', 'google-chrome-stable']

/** Why no page can be looked at here; false if one can: for the `skip` of a test. */
export function noBrowser(): string | false {
  return found() === undefined ? `no browser is installed (apt-get install --no-install-recommends chromium): looked for ${names.join(', ')}` : false
}

function found(): string | undefined {
  for (const name of names)
    for (const dir of (process.env.PATH ?? '').split(':')) {
      try {
        accessSync(join(dir, name), constants.X_OK)
        return join(dir, name)
      } catch {}
    }
  return undefined
}

/** A page in headless Chromium. */
export interface Page {
  /** The value of an expression of the page's own JavaScript; promises are waited for. */
  value<T>(expression: string): Promise<T>
  /** Waits until the expression is true, for half a minute at most. */
  until(expression: string): Promise<void>
  goto(url: string): Promise<void>
  /** How the page is shown: `dark` or `light`, on `screen` or in `print`. */
  shown(scheme: 'light' | 'dark', media?: 'screen' | 'print'): Promise<void>
  /** Whatever the page complained of: exceptions, errors on the console, requests that failed. */
  readonly complaints: readonly string[]
  /** Every address that was asked for. */
  readonly asked: readonly string[]
  close(): Promise<void>
}

/** Opens `url` in a browser of its own, driven by the DevTools protocol. `more` are further flags of Chromium. */
export async function browse(url: string, more: readonly string[] = []): Promise<Page> {
  const profile = mkdtempSync(join(tmpdir(), 'switchyard-browser-'))
  const flags = [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-extensions',
    '--disable-background-networking',
    '--disable-component-update',
  ]
  const child = spawn(found()!, [...flags, ...more, '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, HOME: profile },
  })
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const said: string[] = []
  const address = await new Promise<string>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', () => reject(new Error(`the browser ended: ${said.slice(-5).join('\n')}`)))
    createInterface({ input: child.stderr }).on('line', (line) => {
      said.push(line)
      const m = /^DevTools listening on (ws:\S+)/.exec(line)
      if (m !== null) resolve(m[1]!)
    })
  })
  const socket = new WebSocket(address)
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
  const waiting = new Map<number, { resolve: (value: Answer) => void; reject: (error: Error) => void }>()
  const complaints: string[] = []
  const asked: string[] = []
  let last = 0
  let session: string | undefined
  const send = (method: string, params: Readonly<Record<string, unknown>> = {}): Promise<Answer> =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject })
      socket.send(JSON.stringify({ id: last, method, params, ...(session === undefined ? {} : { sessionId: session }) }))
    })
  socket.on('message', (data: Buffer) => {
    const message = JSON.parse(data.toString()) as Message
    if (message.id !== undefined) {
      const { resolve, reject } = waiting.get(message.id)!
      waiting.delete(message.id)
      if (message.error === undefined) resolve(message.result ?? {})
      else reject(new Error(message.error.message))
      return
    }
    const { method, params } = message
    if (method === 'Runtime.exceptionThrown') complaints.push(params?.exceptionDetails?.exception?.description ?? 'an exception')
    if (method === 'Log.entryAdded' && params?.entry?.level === 'error') complaints.push(params.entry.text)
    if (method === 'Network.requestWillBeSent') asked.push(params?.request?.url ?? '')
  })
  const { targetId } = await send('Target.createTarget', { url: 'about:blank' })
  const { sessionId } = await send('Target.attachToTarget', { targetId, flatten: true })
  session = sessionId as string
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await send(`${domain}.enable`)
  const value = async <T>(expression: string): Promise<T> => {
    const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true })
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`)
    return result!.value as T
  }
  const page: Page = {
    value,
    until: async (expression) => {
      for (const until = performance.now() + 30_000; performance.now() < until; await sleep(50)) if ((await value<unknown>(expression)) === true) return
      throw new Error(`${expression} did not become true within 30 s; the page says: ${await value<string>('document.body.innerText')}`)
    },
    goto: async (to) => {
      await send('Page.navigate', { url: to })
      await page.until('document.readyState === "complete" && location.href !== "about:blank"')
    },
    shown: async (scheme, media = 'screen') => void (await send('Emulation.setEmulatedMedia', { media, features: [{ name: 'prefers-color-scheme', value: scheme }] })),
    complaints,
    asked,
    close: async () => {
      socket.close()
      child.kill('SIGKILL')
      await ended
      // Helpers of the browser may still write.
      rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    },
  }
  try {
    await page.goto(url)
  } catch (error) {
    await page.close()
    throw error
  }
  return page
}

interface Answer {
  readonly targetId?: string
  readonly sessionId?: string
  readonly result?: { readonly value?: unknown }
  readonly exceptionDetails?: { readonly text: string; readonly exception?: { readonly description?: string } }
}

interface Message {
  readonly id?: number
  readonly result?: Answer
  readonly error?: { readonly message: string }
  readonly method?: string
  readonly params?: {
    readonly entry?: { readonly level: string; readonly text: string }
    readonly request?: { readonly url: string }
    readonly exceptionDetails?: { readonly exception?: { readonly description?: string } }
  }
}
