/** Why `text` is no JSON, in the words of Go's decoder; undefined if it is. */
export function jsonTrouble(text: string | Uint8Array): string | undefined {
  const b = typeof text === 'string' ? Buffer.from(text) : text
  let at = 0
  const trouble = (where: string): string => (at >= b.length ? 'unexpected end of JSON input' : `invalid character ${quoted(b[at]!)} ${where}`)
  const blank = (): void => {
    while (at < b.length && (b[at] === 0x20 || b[at] === 0x09 || b[at] === 0x0a || b[at] === 0x0d)) at++
  }
  const is = (c: string): boolean => b[at] === c.charCodeAt(0)
  const digit = (): boolean => at < b.length && b[at]! >= 0x30 && b[at]! <= 0x39
  const string = (): string | undefined => {
    for (at++; ; at++) {
      if (at >= b.length || b[at]! < 0x20) return trouble('in string literal')
      if (is('"')) {
        at++
        return undefined
      }
      if (!is('\\')) continue
      at++
      if (is('u')) {
        for (let i = 0; i < 4; i++) {
          at++
          if (at >= b.length || !/[0-9a-fA-F]/.test(String.fromCharCode(b[at]!))) return trouble('in \\u hexadecimal character escape')
        }
      } else if (at >= b.length || !'bfnrt\\/"'.includes(String.fromCharCode(b[at]!))) return trouble('in string escape code')
    }
  }
  const number = (): string | undefined => {
    if (is('-')) at++
    if (!digit()) return trouble('in numeric literal')
    if (is('0')) at++
    else while (digit()) at++
    if (is('.')) {
      at++
      if (!digit()) return trouble('after decimal point in numeric literal')
      while (digit()) at++
    }
    if (is('e') || is('E')) {
      at++
      if (is('+') || is('-')) at++
      if (!digit()) return trouble('in exponent of numeric literal')
      while (digit()) at++
    }
    return undefined
  }
  const literal = (word: string): string | undefined => {
    for (const c of word) {
      if (!is(c)) return trouble(`in literal ${word} (expecting '${c}')`)
      at++
    }
    return undefined
  }
  // What is open around the place where we are; lists and objects nest too deep for the stack of calls.
  const open: ('{' | '[')[] = []
  const key = (): string | undefined => {
    blank()
    if (!is('"')) return trouble('looking for beginning of object key string')
    const found = string()
    if (found !== undefined) return found
    blank()
    if (!is(':')) return trouble('after object key')
    at++
    return undefined
  }
  for (;;) {
    // At the beginning of a value.
    blank()
    let found: string | undefined
    if (is('{') || is('[')) {
      const what = is('{') ? '{' : '['
      at++
      blank()
      if (is(what === '{' ? '}' : ']')) at++
      else {
        open.push(what)
        if (what === '{' && (found = key()) !== undefined) return found
        continue
      }
    } else if (is('"')) found = string()
    else if (is('-') || digit()) found = number()
    else if (is('t')) found = literal('true')
    else if (is('f')) found = literal('false')
    else if (is('n')) found = literal('null')
    else found = trouble('looking for beginning of value')
    if (found !== undefined) return found
    // After a value.
    for (;;) {
      blank()
      const around = open.at(-1)
      if (around === undefined) return at < b.length ? trouble('after top-level value') : undefined
      if (is(',')) {
        at++
        if (around === '{' && (found = key()) !== undefined) return found
        break
      }
      if (!is(around === '{' ? '}' : ']')) return trouble(around === '{' ? 'after object key:value pair' : 'after array element')
      at++
      open.pop()
    }
  }
}

/** One byte as Go quotes it. */
function quoted(byte: number): string {
  if (byte === 0x27) return `'\\''`
  if (byte === 0x22) return `'"'`
  if (byte === 0x5c) return `'\\\\'`
  const named = { 7: '\\a', 8: '\\b', 9: '\\t', 10: '\\n', 11: '\\v', 12: '\\f', 13: '\\r' }[byte]
  if (named !== undefined) return `'${named}'`
  if (byte < 0x20 || byte === 0x7f) return `'\\x${byte.toString(16).padStart(2, '0')}'`
  return byte < 0x80 || byte > 0xa0 ? `'${String.fromCharCode(byte)}'` : `'\\u00${byte.toString(16)}'`
}
