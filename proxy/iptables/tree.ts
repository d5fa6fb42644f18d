/** What stands under one key: the rules of an address or a port. */
export interface Item {
  /** The key's bits in hexadecimal: 8 digits for IPv4, 32 for IPv6, 4 for a port. */
  readonly key: string
  readonly rules: readonly string[]
}

/** How keys become names and matches. `bits` of the prefix count, the others of `key` are zero. */
export interface Naming {
  chain(key: string, bits: number): string
  match(key: string, bits: number): string
}

/** Bits a level; rules up to which a node is a leaf; rules up to which a part stands in its parent. See docs/proxy.md for the measurement. */
export interface Shape {
  readonly stride: number
  readonly leaf: number
  readonly inline: number
}

/** 10,000 Services of two endpoints: 2,400 chains, 26 rules met on average by a new connection, 54 at most. */
export const measuredShape: Shape = { stride: 3, leaf: 16, inline: 4 }

interface Node {
  readonly rules: readonly string[]
  readonly children: readonly string[]
}

/** A tree of chains over the bits of keys. Each chain is a pure function of the items below it, so a change rewrites only the chains above it that it shows in. */
export class Tree {
  readonly #root: string
  readonly #naming: Naming
  readonly #shape: Shape
  #items: Item[] = []
  #nodes = new Map<string, Node>()
  #dirty: string[] = []

  constructor(root: string, naming: Naming, shape: Shape = measuredShape) {
    this.#root = root
    this.#naming = naming
    this.#shape = shape
  }

  get size(): number {
    return this.#items.length
  }

  /** Replaces what stands under the keys: no rules means nothing does. */
  put(changes: ReadonlyMap<string, readonly string[]>): void {
    if (changes.size * 4 > this.#items.length) {
      const all = new Map(this.#items.map((i) => [i.key, i.rules]))
      for (const [key, rules] of changes) {
        if (rules.length === 0) all.delete(key)
        else all.set(key, rules)
      }
      this.#items = [...all].map(([key, rules]) => ({ key, rules })).sort((a, b) => (a.key < b.key ? -1 : 1))
    } else {
      for (const [key, rules] of changes) {
        const at = lowerBound(this.#items, key)
        const there = this.#items[at]?.key === key ? 1 : 0
        if (rules.length > 0) this.#items.splice(at, there, { key, rules })
        else this.#items.splice(at, there)
      }
    }
    this.#dirty.push(...changes.keys())
  }

  /** The chains now, the root among them even if nothing is in it. Chains that did not change keep their arrays of rules. */
  chains(): ReadonlyMap<string, readonly string[]> {
    this.#dirty.sort()
    const next = new Map<string, Node>()
    this.#build(this.#root, 0, this.#items.length, next)
    this.#nodes = next
    this.#dirty = []
    return new Map([...next].map(([name, node]) => [name, node.rules]))
  }

  #build(name: string, from: number, to: number, next: Map<string, Node>): void {
    const { stride, leaf, inline } = this.#shape
    const items = this.#items
    const rules: string[] = []
    const children: string[] = []
    const width = items[from] === undefined ? 0 : items[from].key.length * 4
    const shared = from < to ? sharedBits(items[from]!.key, items[to - 1]!.key) : 0
    if (from === to || shared === width || weight(items, from, to) <= leaf) {
      for (let i = from; i < to; i++) for (const r of items[i]!.rules) rules.push(r)
    } else {
      const slot = Math.min(shared + stride, width)
      for (let at = from; at < to;) {
        const last = upperBound(items, at, to, prefixEnd(items[at]!.key, slot))
        if (weight(items, at, last) <= inline) {
          for (let i = at; i < last; i++) for (const r of items[i]!.rules) rules.push(r)
        } else {
          const bits = sharedBits(items[at]!.key, items[last - 1]!.key)
          const key = masked(items[at]!.key, bits)
          const child = this.#naming.chain(key, bits)
          rules.push(`${this.#naming.match(key, bits)} -g ${child}`)
          children.push(child)
          if (this.#nodes.has(child) && !this.#isDirty(masked(items[at]!.key, slot), prefixEnd(items[at]!.key, slot))) this.#keep(child, next)
          else this.#build(child, at, last, next)
        }
        at = last
      }
    }
    const old = this.#nodes.get(name)
    next.set(name, old !== undefined && sameTexts(old.rules, rules) ? old : { rules, children })
  }

  #keep(name: string, next: Map<string, Node>): void {
    const node = this.#nodes.get(name)!
    next.set(name, node)
    for (const child of node.children) this.#keep(child, next)
  }

  #isDirty(first: string, last: string): boolean {
    const list = this.#dirty
    let lo = 0
    let hi = list.length
    while (lo < hi) {
      const mid = (lo + hi) >> 1
      if (list[mid]! < first) lo = mid + 1
      else hi = mid
    }
    return lo < list.length && list[lo]! <= last
  }
}

const sameTexts = (a: readonly string[], b: readonly string[]): boolean => a.length === b.length && a.every((x, i) => x === b[i])

function weight(items: readonly Item[], from: number, to: number): number {
  let n = 0
  for (let i = from; i < to; i++) n += items[i]!.rules.length
  return n
}

function lowerBound(items: readonly Item[], key: string): number {
  let lo = 0
  let hi = items.length
  while (lo < hi) {
    const mid = (lo + hi) >> 1
    if (items[mid]!.key < key) lo = mid + 1
    else hi = mid
  }
  return lo
}

/** The first place in [from, to) whose key is behind `last`. */
function upperBound(items: readonly Item[], from: number, to: number, last: string): number {
  let lo = from
  let hi = to
  while (lo < hi) {
    const mid = (lo + hi) >> 1
    if (items[mid]!.key <= last) lo = mid + 1
    else hi = mid
  }
  return lo
}

function sharedBits(a: string, b: string): number {
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue
    return i * 4 + Math.clz32(Number.parseInt(a[i]!, 16) ^ Number.parseInt(b[i]!, 16)) - 28
  }
  return a.length * 4
}

/** `key` with all bits after the first `bits` cleared. */
export function masked(key: string, bits: number): string {
  return filled(key, bits, 0)
}

/** The last key that shares the first `bits` with `key`. */
export function prefixEnd(key: string, bits: number): string {
  return filled(key, bits, 15)
}

function filled(key: string, bits: number, rest: 0 | 15): string {
  const whole = bits >> 2
  if (whole >= key.length) return key
  const mask = (0xf0 >> (bits & 3)) & 0xf
  const digit = (Number.parseInt(key[whole]!, 16) & mask) | (rest & ~mask & 0xf)
  return key.slice(0, whole) + digit.toString(16) + rest.toString(16).repeat(key.length - whole - 1)
}
