import { spawn } from 'node:child_process'
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { WebSocket } from 'ws'

/** A page in a browser without a window. */
export interface Page {
  /** Opens a URL; resolves when its load event has come. */
  goto(url: string): Promise<void>
  /** What an expression, or the promise it makes, comes to in the page. */
  evaluate(expression: string): Promise<unknown>
  /** One method of the DevTools protocol. */
  send(method: string, params?: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>>
}

export interface Chromium {
  readonly page: Page
  close(): Promise<void>
}

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

/** Where a Chromium is; undefined where there is none. */
export function findChromium(): string | undefined {
  for (const name of names) {
    for (const dir of (process.env.PATH ?? '').split(':')) {
      try {
        accessSync(join(dir, name), constants.X_OK)
        return join(dir, name)
      } catch {}
    }
  }
  return undefined
}

/** Starts a browser with one page, driven over the DevTools protocol. `args` are further flags of Chromium. */
export async function openChromium(program: string, args: readonly string[] = []): Promise<Chromium> {
  const folder = mkdtempSync(join(tmpdir(), 'switchyard-chromium-'))
  const child = spawn(
    program,
    [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-extensions',
      '--disable-background-networking',
      '--remote-debugging-port=0',
      `--user-data-dir=${folder}`,
      ...args,
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const close = async (): Promise<void> => {
    child.kill('SIGKILL')
    await gone
    // Helpers of the browser may write until they notice.
    rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  }
  try {
    const url = await new Promise<string>((resolve, reject) => {
      let text = ''
      child.stderr.on('data', (piece: Buffer) => {
        text += piece.toString()
        const m = /DevTools listening on (ws:\S+)/.exec(text)
        if (m !== null) resolve(m[1]!)
      })
      child.once('error', reject)
      child.once('close', () => reject(new Error(`${program} ended: ${text.slice(-500)}`)))
    })
    const socket = new WebSocket(url)
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    let next = 0
    const waiting = new Map<number, { resolve(value: Readonly<Record<string, unknown>>): void; reject(error: Error): void }>()
    const heard = new Map<string, (() => void)[]>()
    socket.on('message', (data: Buffer) => {
      const m = JSON.parse(data.toString()) as { id?: number; method?: string; result?: Readonly<Record<string, unknown>>; error?: { message: string } }
      if (m.id === undefined) {
        for (const f of heard.get(m.method ?? '')?.splice(0) ?? []) f()
        return
      }
      const w = waiting.get(m.id)
      waiting.delete(m.id)
      if (m.error === undefined) w?.resolve(m.result ?? {})
      else w?.reject(new Error(m.error.message))
    })
    socket.on('close', () => {
      for (const w of waiting.values()) w.reject(new Error('the browser has ended'))
    })
    const say = (method: string, params: Readonly<Record<string, unknown>> = {}, sessionId?: string): Promise<Readonly<Record<string, unknown>>> =>
      new Promise((resolve, reject) => {
        const id = ++next
        waiting.set(id, { resolve, reject })
        socket.send(JSON.stringify({ id, method, params, sessionId }))
      })
    const { targetId } = (await say('Target.createTarget', { url: 'about:blank' })) as { targetId: string }
    const { sessionId } = (await say('Target.attachToTarget', { targetId, flatten: true })) as { sessionId: string }
    const send = (method: string, params?: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>> => say(method, params, sessionId)
    await send('Page.enable')
    const page: Page = {
      send,
      goto: async (to) => {
        const loaded = new Promise<void>((resolve) => heard.set('Page.loadEventFired', [...(heard.get('Page.loadEventFired') ?? []), resolve]))
        const { errorText } = (await send('Page.navigate', { url: to })) as { errorText?: string }
        if (errorText !== undefined && errorText !== '') throw new Error(`${to}: ${errorText}`)
        await loaded
      },
      evaluate: async (expression) => {
        const { result, exceptionDetails } = (await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })) as {
          result: { value?: unknown }
          exceptionDetails?: { text: string; exception?: { description?: string } }
        }
        if (exceptionDetails !== undefined) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
        return result.value
      },
    }
    return { page, close: () => (socket.terminate(), close()) }
  } catch (error) {
    await close()
    throw error
  }
}
