// A worker of a crew: says which one it is to whoever connects, then echoes. "stop!" makes it never return from a call, "fail!" makes it throw.
import type { Listening, Protocol, Wire } from '../../../lib/sockets/seam.ts'
import { crewWork } from '../crew.ts'

class Echoer implements Protocol {
  #w!: Wire
  readonly #hello: Buffer
  readonly #open: Set<Wire>
  readonly #emptied: () => void
  constructor(hello: Buffer, open: Set<Wire>, emptied: () => void) {
    this.#hello = hello
    this.#open = open
    this.#emptied = emptied
  }
  opened(w: Wire): void {
    this.#w = w
    this.#open.add(w)
    w.write(this.#hello, 0, this.#hello.length)
  }
  data(b: Buffer, from: number, to: number): void {
    if (b.toString('latin1', from, to) === 'stop!') for (;;);
    if (b.toString('latin1', from, to) === 'fail!') throw new Error('asked to fail')
    this.#w.write(b, from, to)
  }
  drain(): void {}
  eof(): void {
    this.#w.end()
  }
  closed(): void {
    this.#open.delete(this.#w)
    if (this.#open.size === 0) this.#emptied()
  }
}

crewWork<string, string>(async ({ index, driver, sockets, send }, table) => {
  let words = table
  const open = new Set<Wire>()
  let emptied = (): void => {}
  const listening: Listening[] = []
  for (const { at, how } of Object.values(sockets)) listening.push(await driver.listen(at, () => new Echoer(Buffer.from(`${index}`), open, () => emptied()), how))
  return {
    whole: (w) => void (words = w),
    change: (w) => void (words += w),
    message: () => send(words),
    end: async () => {
      const empty = new Promise<void>((resolve) => (emptied = resolve))
      for (const l of listening) l.drain()
      if (open.size > 0) await empty
    },
  }
})
