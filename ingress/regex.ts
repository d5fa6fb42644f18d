/**
 * Regular expressions in linear time: a pattern becomes a program that is run over the text once, all alternatives at the same
 * time (Thompson, Pike), so no pattern and no path can make a request slow. Perl's syntax as far as it is regular: no references
 * back, no looking around. Among the ways to match, the one Perl would find.
 */
export interface Regex {
  readonly source: string
  readonly groups: number
  /** The captures of a match that begins where the text begins; 0 is all of it. Undefined: no match. */
  exec(text: string): readonly (string | undefined)[] | undefined
  test(text: string): boolean
}

/** A pattern that cannot be used, and why. */
export class RegexError extends Error {
  override readonly name = 'RegexError'
}

/** Programs are no longer than this: `{1000}{1000}` is refused. */
const longestProgram = 5000

type Node =
  | { readonly kind: 'set'; readonly set: Uint8Array }
  | { readonly kind: 'all'; readonly of: readonly Node[] }
  | { readonly kind: 'any'; readonly of: readonly Node[] }
  | { readonly kind: 'repeat'; readonly of: Node; readonly least: number; readonly most: number; readonly greedy: boolean }
  | { readonly kind: 'group'; readonly of: Node; readonly index: number }
  | { readonly kind: 'assert'; readonly what: Assertion }

type Assertion = 'begin' | 'end' | 'word' | 'noWord'

/** Compiles `source`; throws `RegexError`. */
export function compileRegex(source: string, how: { readonly ignoreCase?: boolean } = {}): Regex {
  const parser = new Parser(source, how.ignoreCase ?? false)
  const program = assemble(parser.parse())
  const groups = parser.groups
  return { source, groups, exec: (text) => run(program, groups, text), test: (text) => run(program, 0, text) !== undefined }
}

class Parser {
  readonly #s: string
  readonly #fold: boolean
  #p = 0
  groups = 0

  constructor(source: string, fold: boolean) {
    this.#s = source
    this.#fold = fold
  }

  parse(): Node {
    const node = this.#alternatives()
    if (this.#p < this.#s.length) throw new RegexError(`unexpected "${this.#s[this.#p]}" at ${this.#p}`)
    return node
  }

  #alternatives(): Node {
    const of = [this.#sequence()]
    while (this.#s[this.#p] === '|') {
      this.#p++
      of.push(this.#sequence())
    }
    return of.length === 1 ? of[0]! : { kind: 'any', of }
  }

  #sequence(): Node {
    const of: Node[] = []
    while (this.#p < this.#s.length && this.#s[this.#p] !== '|' && this.#s[this.#p] !== ')') of.push(this.#repeated(this.#atom()))
    return { kind: 'all', of }
  }

  #repeated(of: Node): Node {
    let node = of
    for (;;) {
      const c = this.#s[this.#p]
      let least: number
      let most: number
      if (c === '*') [least, most] = [0, Infinity]
      else if (c === '+') [least, most] = [1, Infinity]
      else if (c === '?') [least, most] = [0, 1]
      else if (c === '{') {
        const m = /^\{(\d+)(,(\d*))?\}/.exec(this.#s.slice(this.#p))
        if (m === null) return node
        least = Number(m[1])
        most = m[2] === undefined ? least : m[3] === '' ? Infinity : Number(m[3])
        if (least > 1000 || (most !== Infinity && (most > 1000 || most < least))) throw new RegexError(`repetition ${m[0]} cannot be used`)
        this.#p += m[0].length - 1
      } else return node
      this.#p++
      let greedy = true
      if (this.#s[this.#p] === '?') {
        greedy = false
        this.#p++
      } else if (this.#s[this.#p] === '+') throw new RegexError('possessive repetition is not supported')
      node = { kind: 'repeat', of: node, least, most, greedy }
    }
  }

  #atom(): Node {
    const c = this.#s[this.#p++]!
    switch (c) {
      case '(': {
        let index = -1
        if (this.#s[this.#p] === '?') {
          const m = /^\?(:|P?<[A-Za-z_]\w*>)/.exec(this.#s.slice(this.#p))
          if (m === null) throw new RegexError(`"(${this.#s.slice(this.#p, this.#p + 2)}" is not supported: what looks around cannot be matched in linear time`)
          this.#p += m[0].length
          if (m[1] !== ':') index = ++this.groups
        } else index = ++this.groups
        const of = this.#alternatives()
        if (this.#s[this.#p++] !== ')') throw new RegexError('a parenthesis is not closed')
        return index < 0 ? of : { kind: 'group', of, index }
      }
      case '[':
        return { kind: 'set', set: this.#class() }
      case '.':
        return { kind: 'set', set: invert(setOf((x) => x === 10)) }
      case '^':
        return { kind: 'assert', what: 'begin' }
      case '$':
        return { kind: 'assert', what: 'end' }
      case '*':
      case '+':
      case '?':
        throw new RegexError(`nothing to repeat before "${c}" at ${this.#p - 1}`)
      case '\\': {
        const e = this.#s[this.#p]
        if (e === 'b' || e === 'B') {
          this.#p++
          return { kind: 'assert', what: e === 'b' ? 'word' : 'noWord' }
        }
        if (e === 'A' || e === 'z' || e === 'Z') {
          this.#p++
          return { kind: 'assert', what: e === 'A' ? 'begin' : 'end' }
        }
        if (e !== undefined && /[1-9]/.test(e)) throw new RegexError('references back cannot be matched in linear time')
        return { kind: 'set', set: this.#folded(this.#escape()) }
      }
      default:
        return { kind: 'set', set: this.#folded(one(c)) }
    }
  }

  #folded(set: Uint8Array): Uint8Array {
    if (!this.#fold) return set
    const out = set.slice()
    for (let i = 0; i < 26; i++) if (set[65 + i] === 1 || set[97 + i] === 1) out[65 + i] = out[97 + i] = 1
    return out
  }

  /** What follows a backslash. */
  #escape(): Uint8Array {
    const e = this.#s[this.#p++]
    switch (e) {
      case undefined:
        throw new RegexError('ends with a backslash')
      case 'd':
        return digits
      case 'D':
        return invert(digits)
      case 'w':
        return words
      case 'W':
        return invert(words)
      case 's':
        return spaces
      case 'S':
        return invert(spaces)
      case 'n':
        return one('\n')
      case 'r':
        return one('\r')
      case 't':
        return one('\t')
      case 'x': {
        const m = /^[0-9A-Fa-f]{2}/.exec(this.#s.slice(this.#p))
        if (m === null) throw new RegexError('\\x needs two digits')
        this.#p += 2
        return one(String.fromCharCode(Number.parseInt(m[0], 16)))
      }
      default:
        if (/[A-Za-z0-9]/.test(e)) throw new RegexError(`\\${e} is not supported`)
        return one(e)
    }
  }

  #class(): Uint8Array {
    const set = new Uint8Array(256)
    let negative = false
    if (this.#s[this.#p] === '^') {
      negative = true
      this.#p++
    }
    for (let first = true; ; first = false) {
      const c = this.#s[this.#p]
      if (c === undefined) throw new RegexError('a bracket is not closed')
      if (c === ']' && !first) {
        this.#p++
        break
      }
      const named = /^\[:(\^?)(alnum|alpha|digit|lower|upper|space|punct|xdigit|word):\]/.exec(this.#s.slice(this.#p))
      if (named !== null) {
        this.#p += named[0].length
        const of = posix[named[2]!]!
        or(set, named[1] === '^' ? invert(of) : of)
        continue
      }
      this.#p++
      const low = c === '\\' ? (this.#s[this.#p] === 'b' ? (this.#p++, one('\b')) : this.#escape()) : one(c)
      if (this.#s[this.#p] === '-' && this.#s[this.#p + 1] !== ']' && this.#s[this.#p + 1] !== undefined) {
        this.#p++
        const d = this.#s[this.#p++]!
        const high = d === '\\' ? this.#escape() : one(d)
        const [a, z] = [single(low), single(high)]
        if (a < 0 || z < 0 || a > z) throw new RegexError('a range is out of order')
        for (let i = a; i <= z; i++) set[i] = 1
      } else or(set, low)
    }
    const folded = this.#folded(set)
    return negative ? invert(folded) : folded
  }
}

const setOf = (f: (c: number) => boolean): Uint8Array => Uint8Array.from({ length: 256 }, (_, c) => (f(c) ? 1 : 0))
const matching = (r: RegExp): Uint8Array => setOf((c) => c < 128 && r.test(String.fromCharCode(c)))
const digits = matching(/\d/)
const words = matching(/\w/)
const spaces = matching(/[ \t\n\v\f\r]/)
const posix: Readonly<Record<string, Uint8Array>> = {
  alnum: matching(/[A-Za-z0-9]/),
  alpha: matching(/[A-Za-z]/),
  digit: digits,
  lower: matching(/[a-z]/),
  upper: matching(/[A-Z]/),
  space: spaces,
  punct: matching(/[!-/:-@[-`{-~]/),
  xdigit: matching(/[0-9A-Fa-f]/),
  word: words,
}
const invert = (s: Uint8Array): Uint8Array => s.map((x) => 1 - x)

function one(c: string): Uint8Array {
  const code = c.charCodeAt(0)
  // Paths are percent-encoded: what is no octet never occurs.
  const set = new Uint8Array(256)
  if (code < 256) set[code] = 1
  return set
}

function single(s: Uint8Array): number {
  const first = s.indexOf(1)
  return first >= 0 && s.lastIndexOf(1) === first ? first : -1
}

function or(to: Uint8Array, from: Uint8Array): void {
  for (let i = 0; i < 256; i++) if (from[i] === 1) to[i] = 1
}

// Instructions: SET a; SPLIT to x, then y; JUMP x; SAVE x; ASSERT; MATCH.
const SET = 0
const SPLIT = 1
const JUMP = 2
const SAVE = 3
const ASSERT = 4
const MATCH = 5

interface Instruction {
  op: number
  x: number
  y: number
  set: Uint8Array | undefined
  what: Assertion | undefined
}

function assemble(node: Node): readonly Instruction[] {
  const out: Instruction[] = []
  const put = (op: number, x = 0, y = 0): Instruction => {
    if (out.length >= longestProgram) throw new RegexError('the pattern is too large')
    const i: Instruction = { op, x, y, set: undefined, what: undefined }
    out.push(i)
    return i
  }
  const emit = (n: Node): void => {
    switch (n.kind) {
      case 'set':
        put(SET).set = n.set
        return
      case 'assert':
        put(ASSERT).what = n.what
        return
      case 'all':
        for (const of of n.of) emit(of)
        return
      case 'any': {
        const ends: Instruction[] = []
        n.of.forEach((of, i) => {
          if (i === n.of.length - 1) emit(of)
          else {
            const split = put(SPLIT, out.length + 1)
            emit(of)
            ends.push(put(JUMP))
            split.y = out.length
          }
        })
        for (const e of ends) e.x = out.length
        return
      }
      case 'group':
        put(SAVE, n.index * 2)
        emit(n.of)
        put(SAVE, n.index * 2 + 1)
        return
      case 'repeat': {
        for (let i = 0; i < n.least; i++) emit(n.of)
        if (n.most === Infinity) {
          const at = out.length
          const split = put(SPLIT)
          emit(n.of)
          put(JUMP, at)
          if (n.greedy) [split.x, split.y] = [at + 1, out.length]
          else [split.x, split.y] = [out.length, at + 1]
          return
        }
        const splits: Instruction[] = []
        for (let i = n.least; i < n.most; i++) {
          const at = out.length
          const split = put(SPLIT)
          splits.push(split)
          if (n.greedy) split.x = at + 1
          else split.y = at + 1
          emit(n.of)
        }
        for (const s of splits) {
          if (n.greedy) s.y = out.length
          else s.x = out.length
        }
      }
    }
  }
  emit(node)
  put(MATCH)
  return out
}

const isWord = (text: string, at: number): boolean => at >= 0 && at < text.length && words[text.charCodeAt(at) & 255] === 1

function holds(what: Assertion, text: string, at: number): boolean {
  if (what === 'begin') return at === 0
  if (what === 'end') return at === text.length
  return (isWord(text, at - 1) !== isWord(text, at)) === (what === 'word')
}

function run(program: readonly Instruction[], groups: number, text: string): readonly (string | undefined)[] | undefined {
  const width = groups * 2 + 2
  let best: Int32Array | undefined
  const seen = new Int32Array(program.length).fill(-1)
  interface Thread {
    readonly pc: number
    readonly saves: Int32Array
  }
  let now: Thread[] = []
  let next: Thread[] = []
  // Depth first and in order: the first thread to reach an instruction is the one Perl would prefer.
  const add = (list: Thread[], start: number, at: number, saves: Int32Array): void => {
    const stack: { pc: number; saves: Int32Array }[] = [{ pc: start, saves }]
    while (stack.length > 0) {
      const top = stack.pop()!
      let { pc } = top
      let mine = top.saves
      while (seen[pc] !== at) {
        seen[pc] = at
        const i = program[pc]!
        if (i.op === JUMP) pc = i.x
        else if (i.op === SPLIT) {
          stack.push({ pc: i.y, saves: mine })
          pc = i.x
        } else if (i.op === SAVE) {
          if (i.x < width) {
            mine = mine.slice()
            mine[i.x] = at
          }
          pc++
        } else if (i.op === ASSERT) {
          if (!holds(i.what!, text, at)) break
          pc++
        } else {
          list.push({ pc, saves: mine })
          break
        }
      }
    }
  }
  const first = new Int32Array(width).fill(-1)
  first[0] = 0
  add(now, 0, 0, first)
  for (let at = 0; now.length > 0; at++) {
    const c = at < text.length ? text.charCodeAt(at) : -1
    for (const t of now) {
      const i = program[t.pc]!
      if (i.op === MATCH) {
        best = t.saves.slice()
        best[1] = at
        break
      }
      if (c >= 0 && c < 256 && i.set![c] === 1) add(next, t.pc + 1, at + 1, t.saves)
    }
    ;[now, next] = [next, now]
    next.length = 0
  }
  if (best === undefined) return undefined
  const out: (string | undefined)[] = []
  for (let g = 0; g <= groups; g++) {
    const [from, to] = [best[g * 2]!, best[g * 2 + 1]!]
    out.push(from < 0 || to < 0 ? undefined : text.slice(from, to))
  }
  return out
}
