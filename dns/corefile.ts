import { network } from '../lib/ip.ts'
import { fold, parseName, type Name } from './wire/name.ts'
import { ipBytes } from '../lib/ip.ts'

/** A line of a Corefile with what stands in braces behind it. */
export interface Line {
  readonly name: string
  readonly args: readonly string[]
  readonly block: readonly Line[]
  /** Whether braces were there, perhaps empty. */
  readonly braces: boolean
  readonly file: string
  readonly line: number
}

/** Zones, the port they are served on, and what answers there. */
export interface ServerBlock {
  readonly keys: readonly ServerKey[]
  readonly lines: readonly Line[]
  readonly file: string
  readonly line: number
}

/** `tls://example.org:853` taken apart. */
export interface ServerKey {
  readonly scheme: 'dns' | 'tls'
  readonly zone: Name
  readonly port: number
  readonly text: string
}

/** What a Corefile may ask of its surroundings. */
export interface CorefileSources {
  /** The files that a path or glob names, in the order of their names. */
  files(pattern: string, from: string): readonly { readonly path: string; readonly text: string }[]
  environment(name: string): string | undefined
  /** Port of a zone that names none. */
  readonly port: number
}

/** What a Corefile says wrongly, and where. */
export class CorefileError extends Error {
  override readonly name = 'CorefileError'
  constructor(at: { readonly file: string; readonly line: number }, what: string) {
    super(`${at.file}:${at.line}: ${what}`)
  }
}

/** The server blocks of a Corefile: snippets and imports put in, variables replaced. */
export function parseCorefile(text: string, file: string, sources: CorefileSources): ServerBlock[] {
  const snippets = new Map<string, readonly Token[]>()
  const tokens = expand(scan(text, file, sources), sources, snippets, 0, true)
  const out: ServerBlock[] = []
  for (let i = 0; i < tokens.length;) {
    const head = tokens[i]!
    const words: Token[] = []
    let braces = false
    for (; i < tokens.length; i++) {
      const t = tokens[i]!
      if (t.text === '{' && !t.quoted) {
        braces = true
        i++
        break
      }
      if (t.first && words.length > 0 && !words.at(-1)!.text.endsWith(',')) break
      if (t.text === '}') throw new CorefileError(t, 'unexpected }')
      words.push(t)
    }
    if (words.length === 0) throw new CorefileError(head, 'expected a zone before {')
    const keys = words
      .flatMap((w) =>
        w.text
          .split(',')
          .filter((s) => s !== '')
          .map((s) => serverKey(s, w, sources.port)),
      )
      .flat()
    const body = braces ? lines(tokens, i, true) : lines(tokens, i, false)
    i = body.next
    out.push({ keys, lines: body.lines, file: head.file, line: head.line })
  }
  return out
}

interface Token {
  readonly text: string
  readonly file: string
  readonly line: number
  /** First of its line. */
  readonly first: boolean
  readonly quoted: boolean
}

function scan(text: string, file: string, sources: CorefileSources): Token[] {
  const out: Token[] = []
  let line = 1
  let first = true
  for (let i = 0; i < text.length;) {
    const c = text[i]!
    if (c === '\n') {
      line++
      first = true
      i++
    } else if (c === ' ' || c === '\t' || c === '\r' || c === '\ufeff') i++
    else if (c === '#') while (i < text.length && text[i] !== '\n') i++
    else if (c === '\\' && /^\\\r?\n/.test(text.slice(i, i + 3))) {
      // A backslash at the end of a line continues it.
      i += text[i + 1] === '\r' ? 3 : 2
      line++
    } else if (c === '"' || c === '`') {
      const began = line
      let word = ''
      i++
      while (i < text.length && text[i] !== c) {
        if (c === '"' && text[i] === '\\' && text[i + 1] === '"') i++
        if (text[i] === '\n') line++
        word += text[i++]
      }
      if (i >= text.length) throw new CorefileError({ file, line: began }, 'a quote is never closed')
      i++
      out.push({ text: replaced(word, sources), file, line: began, first, quoted: true })
      first = false
    } else {
      let word = ''
      while (i < text.length && !/\s/.test(text[i]!)) word += text[i++]
      out.push({ text: replaced(word, sources), file, line, first, quoted: false })
      first = false
    }
  }
  return out
}

/** `{$NAME}` and `{%NAME%}` become what the environment says, or nothing. */
function replaced(word: string, sources: CorefileSources): string {
  if (!word.includes('{')) return word
  return word.replace(/\{\$([^}]+)\}|\{%([^%}]+)%\}/g, (_, a: string | undefined, b: string | undefined) => sources.environment((a ?? b)!) ?? '')
}

function expand(tokens: readonly Token[], sources: CorefileSources, snippets: Map<string, readonly Token[]>, depth: number, top: boolean): Token[] {
  if (depth > 16) throw new CorefileError(tokens[0]!, 'import goes in circles')
  const out: Token[] = []
  let level = 0
  for (let i = 0; i < tokens.length; i++) {
    const t = tokens[i]!
    if (!t.quoted && top && level === 0 && t.first && /^\(.+\)$/.test(t.text) && tokens[i + 1]?.text === '{') {
      const name = t.text.slice(1, -1)
      const body: Token[] = []
      let inside = 1
      let j = i + 2
      for (; j < tokens.length; j++) {
        if (tokens[j]!.text === '{' && !tokens[j]!.quoted) inside++
        if (tokens[j]!.text === '}' && !tokens[j]!.quoted && --inside === 0) break
        body.push(tokens[j]!)
      }
      if (inside !== 0) throw new CorefileError(t, `snippet ${t.text} is never closed`)
      if (snippets.has(name)) throw new CorefileError(t, `snippet ${t.text} is defined twice`)
      snippets.set(name, body)
      i = j
      continue
    }
    if (t.text === '{' && !t.quoted) level++
    if (t.text === '}' && !t.quoted) level--
    if (!(t.first && t.text === 'import' && !t.quoted)) {
      out.push(t)
      continue
    }
    const args: string[] = []
    while (tokens[i + 1] !== undefined && !tokens[i + 1]!.first && tokens[i + 1]!.text !== '{') args.push(tokens[++i]!.text)
    const what = args[0]
    if (what === undefined) throw new CorefileError(t, 'import needs the name of a snippet or file')
    const snippet = snippets.get(what)
    if (snippet !== undefined) {
      const filled = snippet.map((s) => ({ ...s, text: s.text.replace(/\{args\[(\d+)\]\}|\{args\.(\d+)\}/g, (_, a: string | undefined, b: string | undefined) => args[Number(a ?? b) + 1] ?? '') }))
      out.push(...expand(filled, sources, snippets, depth + 1, false))
      continue
    }
    const files = sources.files(what, t.file)
    if (files.length === 0 && !/[*?[]/.test(what)) throw new CorefileError(t, `import ${what}: no such snippet or file`)
    for (const f of files) {
      const inner = scan(f.text, f.path, sources)
      if (inner.length > 0) out.push(...expand(inner, sources, snippets, depth + 1, level === 0))
    }
  }
  return out
}

function lines(tokens: readonly Token[], from: number, braces: boolean): { readonly lines: Line[]; readonly next: number } {
  const out: Line[] = []
  let i = from
  while (i < tokens.length) {
    const t = tokens[i]!
    if (t.text === '}' && !t.quoted) {
      if (!braces) throw new CorefileError(t, 'unexpected }')
      return { lines: out, next: i + 1 }
    }
    if (t.text === '{' && !t.quoted) throw new CorefileError(t, 'unexpected {')
    const args: string[] = []
    i++
    while (
      i < tokens.length &&
      !tokens[i]!.first &&
      !(tokens[i]!.text === '{' && !tokens[i]!.quoted && (tokens[i + 1] === undefined || tokens[i + 1]!.first || tokens[i + 1]!.text === '}')) &&
      !(tokens[i]!.text === '}' && !tokens[i]!.quoted)
    ) {
      args.push(tokens[i]!.text)
      i++
    }
    let block: readonly Line[] = []
    let hasBraces = false
    if (tokens[i]?.text === '{' && !tokens[i]!.quoted && !tokens[i]!.first) {
      const inner = lines(tokens, i + 1, true)
      block = inner.lines
      hasBraces = true
      i = inner.next
    }
    out.push({ name: t.text, args, block, braces: hasBraces, file: t.file, line: t.line })
  }
  if (braces) throw new CorefileError(tokens.at(-1)!, 'a { is never closed')
  return { lines: out, next: i }
}

function serverKey(text: string, at: Token, port: number): ServerKey[] {
  const scheme = /^([a-z]+):\/\//i.exec(text)?.[1]?.toLowerCase()
  if (scheme !== undefined && scheme !== 'dns' && scheme !== 'tls') throw new CorefileError(at, `${text}: ${scheme}:// is not supported (dns:// and tls:// are)`)
  const rest = scheme === undefined ? text : text.slice(scheme.length + 3)
  const m = /^(.*?)(?::(\d{1,5}))?$/.exec(rest)!
  const own = m[2] === undefined ? (scheme === 'tls' ? 853 : port) : Number(m[2])
  if (own > 65_535) throw new CorefileError(at, `${text}: no such port`)
  return zonesOf(m[1]!, at).map((zone) => ({ scheme: scheme ?? 'dns', zone, port: own, text }))
}

/** The zones that a word of a Corefile means: a name, or a network (`10.0.0.0/8`), which is its reverse zones. */
export function zonesOf(text: string, at: { readonly file: string; readonly line: number }): Name[] {
  if (text.includes('/')) {
    const n = network(text)
    if (n === undefined) throw new CorefileError(at, `${text}: neither a zone nor a network`)
    return reverseZones(n.bytes, n.bits)
  }
  const zone = parseName(text === '' ? '.' : text)
  // Room for the longest first labels the server puts below a zone.
  if (zone === undefined || zone.length > 200) throw new CorefileError(at, `${text}: not a zone`)
  return [fold(zone)]
}

/** The zones under in-addr.arpa or ip6.arpa that hold exactly the addresses of a network; several when it does not end at a label. */
export function reverseZones(bytes: Uint8Array, bits: number): Name[] {
  const step = bytes.length === 4 ? 8 : 4
  const whole = Math.floor(bits / step)
  const units: number[] = []
  for (const b of bytes) units.push(...(step === 8 ? [b] : [b >> 4, b & 15]))
  const more = bits % step === 0 ? 1 : 2 ** (step - (bits % step))
  const out: Name[] = []
  for (let i = 0; i < more; i++) {
    const own = bits % step === 0 ? units.slice(0, whole) : [...units.slice(0, whole), units[whole]! + i]
    const labels = own.toReversed().map((u) => u.toString(step === 8 ? 10 : 16))
    out.push(parseName([...labels, bytes.length === 4 ? 'in-addr.arpa' : 'ip6.arpa'].join('.'))!)
  }
  return out
}

/** Whether `text` is an address, for words that may be one or a file. */
export const isAddress = (text: string): boolean => ipBytes(text) !== undefined
