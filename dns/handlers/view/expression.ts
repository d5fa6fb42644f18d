import { contains, network, parseIp } from '../../../lib/ip.ts'
import type { ViewQuery } from '../../server.ts'
import { CorefileError, type Line } from '../../corefile.ts'
import { printName } from '../../wire/name.ts'
import { className, typeName } from '../../wire/types.ts'
import { clientOf, clientWords } from '../client.ts'
import type { Environment } from '../plugin.ts'

type Value = string | number | boolean | readonly Value[]
type Eval = (query: ViewQuery) => Value

/** An expression over a question, as CoreDNS writes them: `incidr(client_ip(), '10.0.0.0/8') && name() endsWith 'corp.'`. Throws `CorefileError`. */
export function parseView(text: string, line: Line, env: Environment): (query: ViewQuery) => boolean {
  const parser = new Parser(text, line, env)
  const value = parser.whole()
  return (query) => value(query) === true
}

const functions: Readonly<Record<string, (query: ViewQuery) => Value>> = {
  bufsize: (q) => q.edns?.size ?? 512,
  class: (q) => className(q.question.class),
  client_ip: (q) => q.client.host,
  do: (q) => q.edns?.dnssec === true,
  name: (q) => printName(q.name),
  opcode: () => 0,
  port: (q) => String(q.client.port),
  proto: (q) => (q.protocol === 'udp' ? 'udp' : 'tcp'),
  server_ip: (q) => q.local.host,
  server_port: (q) => String(q.local.port),
  type: (q) => typeName(q.type),
}

const comparisons: Readonly<Record<string, (a: Value, b: Value) => boolean>> = {
  '==': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '>': (a, b) => a > b,
  '<=': (a, b) => a <= b,
  '>=': (a, b) => a >= b,
  in: (a, b) => Array.isArray(b) && b.includes(a),
  contains: (a, b) => typeof a === 'string' && typeof b === 'string' && a.includes(b),
  startsWith: (a, b) => typeof a === 'string' && typeof b === 'string' && a.startsWith(b),
  endsWith: (a, b) => typeof a === 'string' && typeof b === 'string' && a.endsWith(b),
}

class Parser {
  readonly #tokens: string[]
  readonly #line: Line
  readonly #env: Environment
  readonly #text: string
  #at = 0

  constructor(text: string, line: Line, env: Environment) {
    this.#text = text
    this.#line = line
    this.#env = env
    this.#tokens = [...text.matchAll(/'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[A-Za-z_]\w*|\d+(?:\.\d+)?|==|!=|<=|>=|&&|\|\||[^\s]/g)].map((m) => m[0])
  }

  whole(): Eval {
    const value = this.#or()
    if (this.#at < this.#tokens.length) this.#fail(`"${this.#tokens[this.#at]!}" is not expected`)
    return value
  }

  #fail(what: string): never {
    throw new CorefileError(this.#line, `expr: ${what} in ${this.#text}`)
  }

  #take(...words: readonly string[]): string | undefined {
    const token = this.#tokens[this.#at]
    if (token === undefined || !words.includes(token)) return undefined
    this.#at++
    return token
  }

  #or(): Eval {
    let left = this.#and()
    while (this.#take('||', 'or') !== undefined) {
      const [a, b] = [left, this.#and()]
      left = (q) => a(q) === true || b(q) === true
    }
    return left
  }

  #and(): Eval {
    let left = this.#not()
    while (this.#take('&&', 'and') !== undefined) {
      const [a, b] = [left, this.#not()]
      left = (q) => a(q) === true && b(q) === true
    }
    return left
  }

  #not(): Eval {
    if (this.#take('!', 'not') === undefined) return this.#comparison()
    const value = this.#not()
    return (q) => value(q) !== true
  }

  #comparison(): Eval {
    const left = this.#value()
    const negated = this.#take('not') !== undefined
    if (this.#take('matches') !== undefined) {
      const at = this.#tokens[this.#at]
      const right = this.#value()
      let pattern: RegExp
      try {
        pattern = new RegExp(String(right({} as ViewQuery)))
      } catch {
        return this.#fail(`${at ?? ''} is no regular expression`)
      }
      return (q) => pattern.test(String(left(q))) !== negated
    }
    const word = this.#take(...Object.keys(comparisons))
    if (word === undefined) return negated ? this.#fail('expected a comparison after not') : left
    const compare = comparisons[word]!
    const right = this.#value()
    return (q) => compare(left(q), right(q)) !== negated
  }

  #value(): Eval {
    const token = this.#tokens[this.#at++]
    if (token === undefined) return this.#fail('it ends too early')
    if (token === '(') {
      const inner = this.#or()
      if (this.#take(')') === undefined) this.#fail('expected )')
      return inner
    }
    if (token === '[') {
      const list: Eval[] = []
      while (this.#take(']') === undefined) {
        list.push(this.#or())
        if (this.#take(',') === undefined && this.#tokens[this.#at] !== ']') this.#fail('expected ]')
      }
      return (q) => list.map((f) => f(q))
    }
    if (/^['"]/.test(token)) {
      const text = token.slice(1, -1).replace(/\\(.)/g, '$1')
      return () => text
    }
    if (/^\d/.test(token)) return () => Number(token)
    if (token === 'true' || token === 'false') return () => token === 'true'
    if (this.#take('(') === undefined) return this.#fail(`"${token}" is not known`)
    const args: Eval[] = []
    while (this.#take(')') === undefined) {
      args.push(this.#or())
      if (this.#take(',') === undefined && this.#tokens[this.#at] !== ')') this.#fail('expected )')
    }
    return this.#call(token, args)
  }

  #call(name: string, args: readonly Eval[]): Eval {
    const constant = (i: number): string => {
      const value = args[i]?.({} as ViewQuery)
      return typeof value === 'string' ? value : this.#fail(`${name}: expected a text in quotes`)
    }
    if (name === 'incidr' && args.length === 2) {
      const net = network(constant(1)) ?? this.#fail(`${constant(1)} is no network`)
      return (q) => {
        const ip = parseIp(String(args[0]!(q)))
        return ip !== undefined && contains(net, ip)
      }
    }
    if (name === 'metadata' && args.length === 1) {
      const word = clientWords(constant(0)) ?? this.#fail(`there is no metadata ${constant(0)}`)
      this.#env.want('pod')
      return (q) => clientOf(this.#env.cluster, q.client.host, word)
    }
    const f = args.length === 0 && Object.hasOwn(functions, name) ? functions[name] : undefined
    return f ?? this.#fail(`${name}(${args.length === 0 ? '' : '…'}) is not known`)
  }
}
