import { ipBytes } from '../../lib/ip.ts'
import { txtData, u16, u32 } from './data.ts'
import type { Rec } from './message.ts'
import { parseName, type Octets } from './name.ts'
import { Class, Type, typeNumber } from './types.ts'

/** A record as a line of a zone file: `OWNER [TTL] [IN] TYPE DATA…`; `\# LENGTH HEX` for data of any type (RFC 3597 5). Throws an `Error` that says what is wrong. */
export function parseRecord(text: string, ttl = 3600): Rec {
  const words = wordsOf(text)
  const name = parseName(words.shift()?.text ?? '')
  if (name === undefined) throw new Error('expected a name first')
  for (; words.length > 0; words.shift()) {
    const word = words[0]!.text
    if (/^\d+$/.test(word)) ttl = Number(word)
    else if (word.toUpperCase() !== 'IN') break
  }
  const word = words.shift()?.text ?? ''
  const type = typeNumber(word)
  if (type === undefined) throw new Error(`expected a type, got "${word}"`)
  if (ttl >= 2 ** 31) throw new Error(`${ttl} is no TTL`)
  return { name, type, class: Class.IN, ttl, data: dataOf(type, words) }
}

interface Word {
  readonly text: string
  readonly quoted: boolean
}

function wordsOf(text: string): Word[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map((m) => (m[1] === undefined ? { text: m[2]!, quoted: false } : { text: unescaped(m[1]), quoted: true }))
}

const unescaped = (text: string): string => text.replace(/\\(\d{3}|.)/g, (_, c: string) => (c.length === 3 ? String.fromCharCode(Number(c) & 255) : c))

function dataOf(type: number, words: readonly Word[]): Octets {
  const texts = words.map((w) => w.text)
  if (texts[0] === '\\#') {
    const hex = texts.slice(2).join('')
    if (Number(texts[1]) * 2 !== hex.length || !/^[0-9a-f]*$/i.test(hex)) throw new Error(`expected ${texts[1] ?? 'a number of'} octets in hex`)
    return Buffer.from(hex, 'hex').toString('latin1')
  }
  const count = (n: number): void => {
    if (texts.length !== n) throw new Error(`expected ${n} fields of data, got ${texts.length}`)
  }
  const name = (i: number): Octets => parseName(texts[i]!) ?? fail(`"${texts[i]}" is no name`)
  const short = (i: number): Octets => u16(whole(i, 0xffff))
  const whole = (i: number, most: number): number => (/^\d+$/.test(texts[i]!) && Number(texts[i]) <= most ? Number(texts[i]) : fail(`"${texts[i]}" is no number up to ${most}`))
  switch (type) {
    case Type.A:
    case Type.AAAA: {
      count(1)
      const bytes = ipBytes(texts[0]!)
      if (bytes?.length !== (type === Type.A ? 4 : 16)) throw new Error(`"${texts[0]}" is no address of this family`)
      return String.fromCharCode(...bytes)
    }
    case Type.NS:
    case Type.CNAME:
    case Type.PTR:
    case Type.DNAME:
      count(1)
      return name(0)
    case Type.MX:
      count(2)
      return short(0) + name(1)
    case Type.SRV:
      count(4)
      return short(0) + short(1) + short(2) + name(3)
    case Type.SOA:
      count(7)
      return name(0) + name(1) + [2, 3, 4, 5, 6].map((i) => u32(whole(i, 2 ** 32 - 1))).join('')
    case Type.TXT:
    case Type.SPF:
    case Type.HINFO:
      if (words.length === 0) throw new Error('expected text')
      return txtData(...texts.map((t) => Buffer.from(t).toString('latin1')))
    default:
      throw new Error('data of this type is written \\# LENGTH HEX')
  }
}

function fail(what: string): never {
  throw new Error(what)
}
