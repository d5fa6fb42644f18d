import type { Driver } from '../lib/sockets/seam.ts'
import type { Finished } from './http1/engine.ts'

/** How a line looks; `off` writes none. */
export const accessLogFormats = ['json', 'combined', 'off'] as const
export type AccessLogFormat = (typeof accessLogFormats)[number]

const size = 131_072
/** A line is never longer: long fields are cut. */
const longest = 8192

/** One line for each request, composed as bytes and written in batches: at 100 KiB or each second. */
export class AccessLog {
  readonly #driver: Driver
  readonly #fd: number
  readonly #json: boolean
  readonly #buffer = Buffer.allocUnsafeSlow(size)
  #at = 0
  #second = -1
  #stamp = ''
  readonly #clock: () => number
  readonly #stop: () => void
  /** Lines that nobody took. */
  dropped = 0

  constructor(driver: Driver, fd: number, format: 'json' | 'combined', clock: () => number = Date.now) {
    this.#driver = driver
    this.#fd = fd
    this.#json = format === 'json'
    this.#clock = clock
    this.#stop = driver.every(1000, () => this.flush())
  }

  write(x: Finished): void {
    const now = this.#clock()
    const second = Math.floor(now / 1000)
    if (second !== this.#second) {
      this.#second = second
      const iso = new Date(second * 1000).toISOString()
      this.#stamp = this.#json ? iso.slice(0, 19) : clf(iso)
    }
    const line = this.#json ? this.#jsonLine(x, now - second * 1000) : this.#combinedLine(x)
    if (this.#at + line.length > size) this.flush()
    this.#at += this.#buffer.latin1Write(line, this.#at)
    if (this.#at > 100_000) this.flush()
  }

  #jsonLine(x: Finished, ms: number): string {
    const { route } = x
    let line = `{"time":"${this.#stamp}.${ms < 10 ? '00' : ms < 100 ? '0' : ''}${ms}Z","status":${x.status},"method":"${quoted(x.method)}","host":"${quoted(x.host)}","path":"${quoted(x.path)}","client":"${x.client}","id":"${x.requestId}","bytesIn":${x.bytesIn},"bytesOut":${x.bytesOut},"ms":${tidy(x.now - x.startedAt)}`
    line += x.linked.logged ??= route.owner === '' ? '' : `,"ingress":"${route.owner}","service":"${route.upstream.name}"`
    if (x.lastEndpoint !== '') line += `,"endpoint":"${x.lastEndpoint}"`
    if (x.tries > 1) line += `,"tries":${x.tries}`
    if (x.reason !== '') line += `,"reason":"${quoted(x.reason)}"`
    if (x.userAgent !== '') line += `,"userAgent":"${quoted(x.userAgent)}"`
    if (x.referer !== '') line += `,"referer":"${quoted(x.referer)}"`
    return `${line}}\n`
  }

  #combinedLine(x: Finished): string {
    return `${x.client} - - [${this.#stamp}] "${quoted(x.method)} ${quoted(x.path + x.query)} HTTP/1.${x.http10 ? 0 : 1}" ${x.status} ${x.bytesOut} "${x.referer === '' ? '-' : quoted(x.referer)}" "${x.userAgent === '' ? '-' : quoted(x.userAgent)}"\n`
  }

  flush(): void {
    if (this.#at === 0) return
    const n = this.#at
    this.#at = 0
    try {
      this.#driver.flush(this.#fd, this.#buffer, n)
    } catch {
      // A reader that went away or cannot follow: requests matter more than their log.
      this.dropped++
    }
  }

  close(): void {
    this.#stop()
    this.flush()
  }
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** `23/Nov/2026:19:00:00 +0000` */
function clf(iso: string): string {
  return `${iso.slice(8, 10)}/${months[Number(iso.slice(5, 7)) - 1]}/${iso.slice(0, 4)}:${iso.slice(11, 19)} +0000`
}

const tidy = (ms: number): number => Math.round(ms * 1000) / 1000

// eslint-disable-next-line no-control-regex
const special = /["\\\u0000-\u001f\u007f-\u00ff]/

/** What may stand between quotation marks, in JSON and in the common formats; a log line cannot be forged with it. */
function quoted(text: string): string {
  const s = text.length > longest / 4 ? text.slice(0, longest / 4) : text
  if (!special.test(s)) return s
  // eslint-disable-next-line no-control-regex
  return s.replace(/["\\\u0000-\u001f\u007f-\u00ff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
