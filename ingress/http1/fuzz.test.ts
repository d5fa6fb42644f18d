import { test } from 'tap'
import { seeded } from '../../lib/random.ts'
import { Body, CHUNKED, LENGTH, NONE } from './body.ts'
import { Head, INCOMPLETE, parseRequest } from './head.ts'

/** What a reader makes of a stream: the messages it saw whole, and how it ended. */
interface Reading {
  readonly messages: readonly string[]
  readonly end: 'more' | 'refused' | 'done'
}

/** The engine's reading. */
function engine(text: string, step: number): Reading {
  const head = new Head()
  const body = new Body()
  const messages: string[] = []
  const all = Buffer.from(text, 'latin1')
  let at = 0
  for (;;) {
    if (at === all.length) return { messages, end: 'done' }
    let to = Math.min(all.length, at + step)
    let end = parseRequest(head, all, at, to)
    while (end === INCOMPLETE && to < all.length) {
      to = Math.min(all.length, to + step)
      end = parseRequest(head, all, at, to)
    }
    if (end === INCOMPLETE) return { messages, end: 'more' }
    if (end < 0) return { messages, end: 'refused' }
    const line = `${head.method} ${all.toString('latin1', head.targetFrom, head.targetTo)} ${head.chunked ? 'chunked' : head.contentLength}`
    body.start(head.chunked ? CHUNKED : head.contentLength > 0 ? LENGTH : NONE, Math.max(0, head.contentLength))
    let p = end
    while (!body.done && p < all.length) {
      const next = body.advance(all, p, Math.min(all.length, p + step))
      if (next < 0) return { messages, end: 'refused' }
      p = next
    }
    if (!body.done) return { messages, end: 'more' }
    messages.push(`${line} ${p}`)
    at = p
  }
}

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
const value = '[\\t\\x20-\\x7e\\x80-\\xff]*'
const requestHead = new RegExp(`^(?:\\r\\n)?(${token}) ([\\x21\\x22\\x24-\\x5b\\x5d-\\x7e]+) HTTP/1\\.([01])\\r\\n((?:${token}:${value}\\r\\n)*)\\r\\n`)

/** A second reading, by regular expressions over the whole text: slow, plain, and written apart. */
function naive(text: string): Reading {
  const messages: string[] = []
  let at = 0
  for (;;) {
    if (at === text.length) return { messages, end: 'done' }
    const rest = text.slice(at)
    const m = requestHead.exec(rest)
    if (m === null) {
      // Whatever could still become a head is a prefix of one.
      return { messages, end: couldBecomeHead(rest) ? 'more' : 'refused' }
    }
    const [whole, method, target, minor, block] = m as unknown as [string, string, string, string, string]
    const lines = block
      .split('\r\n')
      .slice(0, -1)
      .map((l) => {
        const colon = l.indexOf(':')
        return [l.slice(0, colon).toLowerCase(), l.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, '')] as const
      })
    const all = (name: string): string[] => lines.filter(([n]) => n === name).map(([, v]) => v)
    const lengths = all('content-length')
    const codings = all('transfer-encoding')
    const hosts = all('host')
    const refused =
      method.length > 32 ||
      hosts.length > 1 ||
      (hosts.length === 0 && minor === '1') ||
      lengths.length > 1 ||
      codings.length > 1 ||
      (lengths.length > 0 && codings.length > 0) ||
      lengths.some((l) => !/^\d{1,15}$/.test(l)) ||
      codings.some((c) => c.toLowerCase() !== 'chunked' || minor === '0') ||
      all('expect').some((e) => e.toLowerCase() !== '100-continue') ||
      all('connection').some((c) => c.split(',').some((o) => ['host', 'content-length', 'transfer-encoding', 'authorization', 'cookie'].includes(o.trim().toLowerCase())))
    if (refused) return { messages, end: 'refused' }
    let p = at + whole.length
    if (codings.length > 0) {
      const chunked = /^(?:([0-9A-Fa-f]{1,12})((?:;[\t\x20-\x7e\x80-\xff]*)?)\r\n)/
      for (;;) {
        const c = chunked.exec(text.slice(p))
        if (c === null) return { messages, end: /^(?:[0-9A-Fa-f]{1,12}(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?$/.test(text.slice(p)) ? 'more' : 'refused' }
        p += c[0].length
        const size = Number.parseInt(c[1]!, 16)
        if (size === 0) break
        const after = text.slice(p + size, p + size + 2)
        if (!'\r\n'.startsWith(after)) return { messages, end: 'refused' }
        if (after !== '\r\n') return { messages, end: 'more' }
        p += size + 2
      }
      for (;;) {
        if (text.startsWith('\r\n', p)) {
          p += 2
          break
        }
        const line = new RegExp(`^(${token}):${value}\\r\\n`).exec(text.slice(p))
        if (line === null) {
          const left = text.slice(p)
          const named = new RegExp(`^(${token}):`).exec(left)
          if (named !== null && forbidden(named[1]!)) return { messages, end: 'refused' }
          return { messages, end: new RegExp(`^(?:\\r|(?:${token}(?::${value}\\r?)?)?)$`).test(left) ? 'more' : 'refused' }
        }
        if (forbidden(line[1]!)) return { messages, end: 'refused' }
        p += line[0].length
      }
    } else if (lengths.length > 0) {
      p += Number(lengths[0])
      if (p > text.length) return { messages, end: 'more' }
    }
    messages.push(`${method} ${target} ${codings.length > 0 ? 'chunked' : lengths.length > 0 ? Number(lengths[0]) : -1} ${p}`)
    at = p
  }
}

const forbidden = (name: string): boolean =>
  name.length > 64 ||
  name.includes('_') ||
  /^(host|content-length|transfer-encoding|connection|upgrade|expect|te|trailer|keep-alive|x-forwarded-for|x-real-ip|cookie|authorization|content-type|x-request-id|proxy)$/i.test(name)

function couldBecomeHead(rest: string): boolean {
  return new RegExp(
    `^(?:\\r?|(?:\\r\\n)?(?:(?:${token})?|${token} |${token} [\\x21\\x22\\x24-\\x5b\\x5d-\\x7e]+(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\\.(?:[01]\\r?)?)?)?)?)?)?)?)?)?|${token} [\\x21\\x22\\x24-\\x5b\\x5d-\\x7e]+ HTTP/1\\.[01]\\r\\n(?:${token}:${value}\\r\\n)*(?:${token}(?::${value}\\r?)?|\\r)?))$`,
  ).test(rest)
}

const pieces = [
  'GET', 'POST', 'DELETE', ' ', '/', '/a/b?c', 'http://x/', '*', ' HTTP/1.1\r\n', ' HTTP/1.0\r\n', ' HTTP/2.0\r\n', '\r\n', '\n', '\r', '\r\n\r\n',
  'Host: x\r\n', 'Host: y\r\n', 'Content-Length: 3\r\n', 'Content-Length: 0\r\n', 'Content-Length: +3\r\n', 'content-length:5\r\n', 'Transfer-Encoding: chunked\r\n', 'Transfer-Encoding: Chunked \r\n', 'Transfer-Encoding: gzip\r\n',
  'Transfer-Encoding : chunked\r\n', ' chunked\r\n', 'Connection: close\r\n', 'Connection: host\r\n', 'X: y\r\n', 'X: y\n', 'X:\r\n', ': x\r\n', 'A_B: 1\r\n', 'Expect: 100-continue\r\n', 'Expect: x\r\n',
  'abc', '3\r\nabc\r\n', '0\r\n\r\n', '0\r\n', '5;ext=1\r\nhello\r\n', '3\nabc\r\n', 'a\r\n0123456789\r\n', '0\r\nT: v\r\n\r\n', '0\r\nHost: v\r\n\r\n', '\0', '\x0b', '\xe9', ';', ':', '#', '\\',
] // prettier-ignore

const good = [
  'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
  'POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc',
  'POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  'PUT /c HTTP/1.0\r\nContent-Length: 1\r\n\r\na',
  'POST /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;e=f\r\nhello\r\n0\r\nT: v\r\n\r\n',
]

void test('the parser and a naive second one agree on every message and where it ends', async (t) => {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000)
  t.comment(`TEST_SEED=${seed}`)
  const random = seeded(seed)
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  const counts = { done: 0, more: 0, refused: 0 }
  let different = 0
  for (let n = 0; n < 30_000 && different < 3; n++) {
    let text = ''
    if (random() < 0.3) for (let i = 0; i < 1 + random() * 12; i++) text += pick(pieces)
    else {
      for (let i = 0; i < 1 + random() * 3; i++) text += pick(good)
      const changes = Math.floor(random() * 2.4)
      for (let i = 0; i < changes; i++) {
        let at = Math.floor(random() * (text.length + 1))
        // Half of the changes hit the beginning of a line, where they mean something.
        if (random() < 0.5) at = text.indexOf('\r\n', at) < 0 ? at : text.indexOf('\r\n', at) + 2
        const kind = random()
        if (kind < 0.4) text = text.slice(0, at) + pick(pieces) + text.slice(at)
        else if (kind < 0.6) text = text.slice(0, at) + text.slice(at + 1 + Math.floor(random() * 4))
        else if (kind < 0.8) text = text.slice(0, at) + String.fromCharCode(Math.floor(random() * 256)) + text.slice(at + 1)
        else text = text.slice(0, at)
      }
    }
    const want = naive(text)
    counts[want.end]++
    for (const step of [text.length, 1, 1 + Math.floor(random() * 9)]) {
      const got = engine(text, step)
      // A refusal may be known before or after the last octet a reader would wait for; what was accepted may not differ.
      const ends = got.end === want.end || (got.end !== 'done' && want.end !== 'done')
      if (ends && JSON.stringify(got.messages) === JSON.stringify(want.messages)) continue
      different++
      t.same({ ...got, text }, { ...want, text }, `step ${step}`)
      break
    }
  }
  t.equal(different, 0)
  t.comment(JSON.stringify(counts))
  t.ok(counts.done > 3000 && counts.refused > 3000 && counts.more > 300, 'all kinds of streams were tried')
})
