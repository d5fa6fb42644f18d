// A worker that shares a listening socket and says which one it is to whoever connects, then echoes.
import { work } from '../../../lib/workers.ts'
import type { Protocol, Wire } from '../../../lib/sockets/seam.ts'
import { openEpoll } from '../driver.ts'
import { Share } from '../share.ts'

class Echoer implements Protocol {
  #w!: Wire
  readonly #hello: Buffer
  constructor(hello: Buffer) {
    this.#hello = hello
  }
  opened(w: Wire): void {
    this.#w = w
    w.write(this.#hello, 0, this.#hello.length)
  }
  data(b: Buffer, from: number, to: number): void {
    this.#w.write(b, from, to)
  }
  drain(): void {}
  eof(): void {
    this.#w.end()
  }
  closed(): void {}
}

work(async ({ index, data }) => {
  const { share, fd } = data as { readonly share: SharedArrayBuffer; readonly fd: number }
  const driver = await openEpoll({ share: new Share(share), index })
  if (typeof driver === 'string') throw new Error(driver)
  const listening = await driver.listen({ fd }, () => new Echoer(Buffer.from(`${index}`)))
  return {
    whole: () => {},
    change: () => {},
    message: () => listening.drain(),
    end: async () => {
      listening.drain()
      await driver.close()
    },
  }
})
